//! OpenAPI v2, which only old kubectl asks for: it says nothing of our kinds, so that such a kubectl leaves validation
//! to the server.

use prost::Message;
use serde_json::json;

use super::JSON;
use crate::kube::accept;
use crate::kube::document::Document;

const PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

/// The first fields of gnostic's `openapi.v2.Document`.
#[derive(Clone, PartialEq, Message)]
struct Swagger {
    #[prost(string, tag = "1")]
    swagger: String,
    #[prost(message, optional, tag = "2")]
    info: Option<Info>,
}

#[derive(Clone, PartialEq, Message)]
struct Info {
    #[prost(string, tag = "1")]
    title: String,
    #[prost(string, tag = "2")]
    version: String,
}

/// The document at `/openapi/v2`: protobuf for the clients that ask for it, else JSON.
pub fn v2(accept: &str) -> Document {
    let (title, version) = ("cluster-proxy", env!("CARGO_PKG_VERSION"));
    // kubectl's name for the type has an `@` in it, which no media type may have.
    let wanted = accept::parse(accept)
        .into_iter()
        .find(|range| range.allows_json() || range.kind.starts_with("application/com.github.proto-openapi.spec.v2"));
    if wanted.is_some_and(|range| !range.allows_json()) {
        let info = Info { title: title.to_owned(), version: version.to_owned() };
        let swagger = Swagger { swagger: "2.0".to_owned(), info: Some(info) };
        return Document::new(PROTOBUF, swagger.encode_to_vec());
    }
    let info = json!({"title": title, "version": version});
    Document::json(JSON, &json!({"swagger": "2.0", "info": info, "paths": {}, "definitions": {}}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_kubectl_reads_it_as_protobuf() {
        let document = v2("application/com.github.proto-openapi.spec.v2@v1.0+protobuf");
        assert_eq!(document.content_type, PROTOBUF);
        assert!(document.body.starts_with(b"\x0a\x032.0\x12"));
        let read = Swagger::decode(document.body.as_slice()).unwrap();
        assert_eq!(read.info.unwrap().title, "cluster-proxy");
    }

    #[test]
    fn everybody_else_reads_json() {
        for accept in ["application/json", "", "*/*"] {
            assert_eq!(v2(accept).content_type, JSON);
        }
    }
}

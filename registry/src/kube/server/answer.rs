//! The answer: an object, a list, a table, a document, a failure or the frames of a watch, as HTTP.

use std::{borrow::Cow, collections::HashSet};

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::kube::{
    accept::Form,
    changes::Object,
    document::Document,
    list::Page,
    object,
    resource::Resource,
    status::Status,
    table::{self, IncludeObject, Table},
    watch::{WatchEvent, Watcher},
};

/// What is sent back.
#[derive(Debug)]
pub enum Answer {
    Whole(Response<Bytes>),
    /// The head of a watch, and what makes its body.
    Watch(Response<()>, Box<Frames>),
}

/// Beside an answer, among its extensions: what was written, for those who keep a record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WriteSummary {
    pub names: Vec<String>,
    /// Nothing was stored.
    pub dry_run: bool,
}

/// The body of a watch, frame by frame.
#[derive(Debug)]
pub struct Frames {
    shape: Shape,
    watcher: Watcher,
    /// Whether the columns of a table are still to be told.
    columns: bool,
}

/// How objects of one request are shown.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    pub(super) resource: &'static Resource,
    pub(super) form: Form,
    pub(super) include: IncludeObject,
    pub(super) now: Timestamp,
}

/// The most that the warnings of an answer may take together, in characters, and what each is cut to where they take more: as in
/// Kubernetes (apiserver, endpoints/filters/warning.go). Go's clients take no more than 1 MiB of a response's head.
const WARNINGS: usize = 4 * 1024;
const WARNING: usize = 256;

const JSON: HeaderValue = HeaderValue::from_static("application/json");

impl Answer {
    pub(super) fn text(text: &'static str) -> Self {
        let mut response = Response::new(Bytes::from_static(text.as_bytes()));
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        Self::Whole(response)
    }

    /// A failure.
    pub fn status(status: &Status) -> Self {
        let code = StatusCode::from_u16(status.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let Self::Whole(mut response) = Self::json(code, &status.to_json()) else { unreachable!("json is whole") };
        if let Some(seconds) = status.retry_after_seconds() {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if code == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        Self::Whole(response)
    }

    pub(super) fn json(code: StatusCode, value: &Value) -> Self {
        let mut response = Response::new(Bytes::from(value.to_string()));
        *response.status_mut() = code;
        response.headers_mut().insert(header::CONTENT_TYPE, JSON);
        Self::Whole(response)
    }

    pub(super) fn document(document: Document, if_none_match: &str) -> Self {
        let known = document.is_known(if_none_match);
        let etag = HeaderValue::from_str(&document.etag());
        let mut response = Response::new(if known { Bytes::new() } else { Bytes::from(document.body) });
        if known {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
        }
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(document.content_type));
        headers.insert(header::VARY, HeaderValue::from_static("Accept"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
        if let Ok(etag) = etag {
            headers.insert(header::ETAG, etag);
        }
        Self::Whole(response)
    }

    /// After a deletion that took effect at once.
    pub(super) fn deleted(resource: &Resource, object: &Value) -> Self {
        let mut details = json!({
            "name": object::name(object), "kind": resource.plural, "uid": object["metadata"]["uid"],
        });
        if !resource.group.is_empty() {
            details["group"] = resource.group.into();
        }
        let status =
            json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details});
        Self::json(StatusCode::OK, &status)
    }

    /// Tells beside the answer that these objects were written.
    pub(super) fn telling(mut self, objects: &[&Value], dry_run: bool) -> Self {
        if let Self::Whole(response) = &mut self {
            let names = objects.iter().map(|object| object::name(object).to_owned()).collect();
            response.extensions_mut().insert(WriteSummary { names, dry_run });
        }
        self
    }

    pub(super) fn watch(shape: Shape, watcher: Watcher) -> Self {
        let mut response = Response::new(());
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, JSON);
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
        Self::Watch(response, Box::new(Frames { shape, watcher, columns: true }))
    }
}

/// The warnings that are told, each once.
fn told(warnings: &[String]) -> Vec<String> {
    let length = warnings.iter().map(|warning| warning.chars().count()).sum::<usize>();
    let longest = if length > WARNINGS { WARNING } else { WARNINGS };
    let (mut seen, mut left) = (HashSet::new(), WARNINGS);
    let mut told = Vec::new();
    for warning in warnings {
        let text: String = warning.chars().filter(|letter| !letter.is_control()).take(longest).collect();
        if text.is_empty() || seen.contains(&text) {
            continue;
        }
        let Some(rest) = left.checked_sub(text.chars().count()) else { break };
        left = rest;
        seen.insert(text.clone());
        told.push(text);
    }
    told
}

impl Shape {
    pub(super) fn object(&self, code: StatusCode, object: &Value, warnings: &[String]) -> Answer {
        let mut answer = Answer::json(code, &self.shown(object, true));
        if let Answer::Whole(response) = &mut answer {
            for warning in told(warnings) {
                // RFC 7234 section 5.5, as kube-apiserver fills it in.
                let text = warning.replace('\\', "\\\\").replace('"', "\\\"");
                if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{text}\"")) {
                    response.headers_mut().append(header::WARNING, value);
                }
            }
        }
        answer
    }

    pub(super) fn list(&self, page: &Page) -> Answer {
        let mut metadata = json!({"resourceVersion": page.revision.to_string()});
        if let Some(token) = &page.continue_token {
            metadata["continue"] = token.as_str().into();
        }
        if let Some(remaining) = page.remaining {
            metadata["remainingItemCount"] = remaining.into();
        }
        let list = match self.form {
            Form::Table(version) => {
                Table { resource: self.resource, version, include: self.include }.list(&metadata, &page.items, self.now)
            }
            Form::Metadata(version) => table::metadata_list(&metadata, &page.items, version),
            Form::Object => json!({
                "kind": self.resource.list_kind(), "apiVersion": self.resource.api_version(),
                "metadata": metadata, "items": page.items,
            }),
        };
        Answer::json(StatusCode::OK, &list)
    }

    fn shown(&self, object: &Value, columns: bool) -> Value {
        match self.form {
            Form::Table(version) => {
                Table { resource: self.resource, version, include: self.include }.single(object, columns, self.now)
            }
            Form::Metadata(version) => table::metadata(object, version),
            Form::Object => object.clone(),
        }
    }
}

impl Frames {
    /// The next frame; `None` at the watch's end. Loses nothing when it is cancelled.
    pub async fn next(&mut self) -> Option<Bytes> {
        let event = self.watcher.next().await?;
        self.shape.now = Timestamp::now();
        let (kind, object) = match &event {
            WatchEvent::Added(object) => return Some(self.frame("ADDED", object)),
            WatchEvent::Modified(object) => return Some(self.frame("MODIFIED", object)),
            WatchEvent::Deleted(object) => return Some(self.frame("DELETED", object)),
            WatchEvent::Bookmark { revision, initial } => {
                let Shape { resource, .. } = self.shape;
                let mut metadata = json!({"resourceVersion": revision.to_string(), "creationTimestamp": null});
                if *initial {
                    metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
                }
                let mark = json!({"kind": resource.kind, "apiVersion": resource.api_version(), "metadata": metadata});
                ("BOOKMARK", mark)
            }
            WatchEvent::Error(status) => ("ERROR", status.to_json()),
        };
        let mut frame = json!({"type": kind, "object": object}).to_string();
        frame.push('\n');
        Some(Bytes::from(frame))
    }

    fn frame(&mut self, kind: &str, object: &Object) -> Bytes {
        let columns = std::mem::replace(&mut self.columns, false);
        let shown = match self.shape.form {
            // Written once for all who watch it.
            Form::Object => Cow::Borrowed(object.text()),
            Form::Table(_) | Form::Metadata(_) => self.shape.shown(object, columns).to_string().into(),
        };
        format!("{{\"type\":\"{kind}\",\"object\":{shown}}}\n").into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_are_told_once_and_within_bounds() {
        let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        assert_eq!(told(&texts(&["one", "two\n", "one", ""])), texts(&["one", "two"]));
        let long = "x".repeat(1000);
        assert_eq!(told(std::slice::from_ref(&long)), std::slice::from_ref(&long));
        let many: Vec<_> = (0..200_000).map(|number| format!("{number} {long}")).collect();
        let told = told(&many);
        assert_eq!(told.len(), WARNINGS / WARNING);
        assert!(told.iter().all(|warning| warning.len() == WARNING));
    }
}

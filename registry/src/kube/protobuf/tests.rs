//! Tests of the protobuf form: what is encoded by the table is decoded by it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;
use serde_json::json;

use super::message::{Field, Kind, Shape};
use super::*;
use crate::kube::body::MAX_BODY;

// The encoder of the tests: the same tables, the other way round.

fn number(mut number: u64, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn bytes(field: u32, bytes: &[u8], out: &mut Vec<u8>) {
    number(u64::from(field) << 3 | 2, out);
    number(bytes.len() as u64, out);
    out.extend(bytes);
}

fn varint(field: u32, value: u64, out: &mut Vec<u8>) {
    number(u64::from(field) << 3, out);
    number(value, out);
}

fn time(text: &str) -> Vec<u8> {
    let time: jiff::Timestamp = text.parse().unwrap();
    let mut out = Vec::new();
    // Go counts from the second before.
    varint(1, (time.as_nanosecond().div_euclid(1_000_000_000) as i64).cast_unsigned(), &mut out);
    varint(2, time.as_nanosecond().rem_euclid(1_000_000_000) as u64, &mut out);
    out
}

fn one(field: u32, kind: Kind, value: &Value, out: &mut Vec<u8>) {
    match kind {
        Kind::String => bytes(field, value.as_str().unwrap().as_bytes(), out),
        Kind::Integer => varint(field, value.as_i64().unwrap().cast_unsigned(), out),
        Kind::Bool => varint(field, u64::from(value.as_bool().unwrap()), out),
        Kind::Bytes => bytes(field, &STANDARD.decode(value.as_str().unwrap()).unwrap(), out),
        Kind::Time | Kind::MicroTime => bytes(field, &time(value.as_str().unwrap()), out),
        Kind::Json => {
            let mut inner = Vec::new();
            bytes(1, value.to_string().as_bytes(), &mut inner);
            bytes(field, &inner, out);
        }
        Kind::Strings => {
            let mut inner = Vec::new();
            for text in value.as_array().unwrap() {
                bytes(1, text.as_str().unwrap().as_bytes(), &mut inner);
            }
            bytes(field, &inner, out);
        }
        Kind::Message(fields) => bytes(field, &message(fields, value.as_object().unwrap()), out),
    }
}

fn message(fields: &[Field], object: &Map<String, Value>) -> Vec<u8> {
    let mut out = Vec::new();
    for field in fields {
        match (object.get(field.name), field.shape) {
            (None, _) => {}
            (Some(value), Shape::Plain | Shape::Pointer) => one(field.number, field.kind, value, &mut out),
            (Some(value), Shape::List) => {
                value.as_array().unwrap().iter().for_each(|item| one(field.number, field.kind, item, &mut out));
            }
            (Some(value), Shape::Map) => {
                for (key, item) in value.as_object().unwrap() {
                    let mut entry = Vec::new();
                    bytes(1, key.as_bytes(), &mut entry);
                    one(2, field.kind, item, &mut entry);
                    bytes(field.number, &entry, &mut out);
                }
            }
        }
    }
    out
}

fn envelope(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
    let mut type_meta = Vec::new();
    bytes(1, api_version.as_bytes(), &mut type_meta);
    bytes(2, kind.as_bytes(), &mut type_meta);
    let mut unknown = Vec::new();
    bytes(1, &type_meta, &mut unknown);
    bytes(2, raw, &mut unknown);
    bytes(3, b"", &mut unknown);
    bytes(4, b"", &mut unknown);
    [MAGIC, &unknown].concat()
}

fn encode(object: &Value) -> Vec<u8> {
    let text = |name: &str| object[name].as_str().unwrap();
    let fields = kinds::fields(text("apiVersion"), text("kind")).unwrap();
    envelope(text("apiVersion"), text("kind"), &message(fields, object.as_object().unwrap()))
}

fn assert_decodes(object: Value) {
    assert_eq!(Value::Object(decode(&encode(&object)).unwrap()), object);
}

#[test]
fn a_namespace_as_kubectl_sends_it() {
    // Go writes every field that is not a pointer, also the empty ones.
    let body = b"k8s\0\n\x0f\n\x02v1\x12\tNamespace\x12\x1e\n\x16\n\x04demo\x12\0\x1a\0\"\0*\x002\08\0B\0r\0\x12\0\x1a\x02\n\0\x1a\0\"\0";
    // The finalizer, field 14, is there on purpose: an empty item of a list is an item.
    assert_eq!(
        Value::Object(decode(body).unwrap()),
        json!({
            "apiVersion": "v1", "kind": "Namespace",
            "metadata": {"name": "demo", "finalizers": [""]}, "spec": {}, "status": {},
        })
    );
}

#[test]
fn each_kind_keeps_what_clients_say() {
    assert_decodes(json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {
            "name": "s", "namespace": "n", "generation": 3, "creationTimestamp": "2026-01-02T03:04:05Z",
            "labels": {"a": "b", "c": ""}, "deletionGracePeriodSeconds": 0,
            "ownerReferences": [{"kind": "K", "name": "n", "uid": "u", "apiVersion": "v1", "controller": false}],
            "managedFields": [{"manager": "kubectl", "time": "2026-01-02T03:04:05Z", "fieldsV1": {"f:data": {".": {}}}}],
        },
        "data": {"k": "AAH/", "e": ""}, "type": "Opaque", "immutable": false,
    }));
    assert_decodes(json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "l"},
        "spec": {
            "holderIdentity": "", "leaseDurationSeconds": 15, "leaseTransitions": 0,
            "renewTime": "2026-01-02T03:04:05.000006Z", "acquireTime": "1969-12-31T23:59:59.500000Z",
        },
    }));
    assert_decodes(json!({
        "apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest", "metadata": {"name": "r"},
        "spec": {
            "request": "LS0t", "signerName": "x", "usages": ["client auth"], "expirationSeconds": -1,
            "extra": {"a": ["b", ""], "none": []},
        },
        "status": {"conditions": [{"type": "Approved", "status": "True", "lastUpdateTime": "2026-01-02T03:04:05Z"}]},
    }));
    assert_decodes(json!({
        "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview", "metadata": {},
        "spec": {"resourceAttributes": {"verb": "get", "resource": "secrets", "labelSelector": {"rawSelector": "a=b"}}},
        "status": {},
    }));
    assert_decodes(json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0,
        "preconditions": {"uid": "u"}, "propagationPolicy": "Background", "dryRun": ["All"],
    }));
}

#[test]
fn every_kind_has_each_number_and_each_name_once() {
    fn check(fields: &'static [Field]) {
        for (index, field) in fields.iter().enumerate() {
            for other in &fields[..index] {
                assert!(field.number != other.number && field.name != other.name, "{}", field.name);
            }
            if let Kind::Message(inner) = field.kind {
                check(inner);
            }
        }
    }
    kinds::KINDS.iter().for_each(|(_, _, fields)| check(fields));
}

#[test]
fn what_is_unknown_is_skipped_or_refused() {
    let refused = |body: &[u8]| decode(body).unwrap_err();
    assert_eq!(
        refused(b"{}").to_string(),
        "provided data does not appear to be a protobuf message, expected prefix [107, 56, 115, 0]"
    );
    assert_eq!(refused(&envelope("v1", "Pod", b"")).to_string(), "no kind \"Pod\" is registered for version \"v1\"");
    let long = refused(&envelope("v1", &"\u{1}".repeat(MAX_BODY / 2), b"")).to_string();
    assert!(long.len() < 1024, "{} bytes are told", long.len());
    let mut raw = Vec::new();
    varint(99, 7, &mut raw);
    bytes(98, b"x", &mut raw);
    raw.extend([0x99, 0x06, 1, 2, 3, 4, 5, 6, 7, 8]);
    assert_eq!(decode(&envelope("v1", "Namespace", &raw)).unwrap().len(), 2);
}

#[test]
fn json_within_a_message_nests_no_deeper_than_a_body_may() {
    let metadata = |depth: usize| {
        let (mut json, mut entry, mut metadata, mut raw) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        bytes(1, format!("{}1{}", "[".repeat(depth), "]".repeat(depth)).as_bytes(), &mut json);
        bytes(7, &json, &mut entry);
        bytes(17, &entry, &mut metadata);
        bytes(1, &metadata, &mut raw);
        envelope("v1", "Namespace", &raw)
    };
    let deepest = decode(&metadata(123)).unwrap();
    serde_json::from_str::<Value>(&Value::Object(deepest).to_string()).unwrap();
    assert_eq!(decode(&metadata(124)).unwrap_err().to_string(), "proto: exceeded max depth");
}

#[test]
fn malformed_messages_are_refused_with_the_field() {
    let refused = |raw: &[u8]| decode(&envelope("v1", "Namespace", raw)).unwrap_err().to_string();
    assert_eq!(refused(b"\n\x02\n\x05"), "proto: unexpected EOF in metadata");
    assert_eq!(refused(b"\n\x02\x08\x05"), "proto: wrong wireType in metadata.name");
    assert_eq!(refused(b"\n\x03\n\x01\xff"), "proto: a string is not UTF-8 in metadata.name");
    assert_eq!(refused(b"\x00\x00"), "proto: illegal tag");
    assert_eq!(refused(b"\x0b"), "proto: illegal wireType");
    assert_eq!(refused(&[0xff; 11]), "proto: integer overflow");
    let far = b"\n\x0cB\n\x08\xff\xff\xff\xff\xff\xff\xff\xff\x7f";
    assert_eq!(refused(far), "proto: time out of range in metadata.creationTimestamp");
}

fn value(kind: Kind) -> BoxedStrategy<Value> {
    let time = |unit: i64| {
        (0..253_402_300_799_i64 * unit).prop_map(move |n| {
            let nanos = i128::from(n) * i128::from(1_000_000_000 / unit);
            jiff::Timestamp::from_nanosecond(nanos).unwrap()
        })
    };
    match kind {
        Kind::String => "[a-zé]{1,5}".prop_map(Value::from).boxed(),
        Kind::Integer => any::<i64>().prop_filter("not empty", |n| *n != 0).prop_map(Value::from).boxed(),
        Kind::Bool => Just(Value::Bool(true)).boxed(),
        Kind::Bytes => prop::collection::vec(any::<u8>(), 1..5).prop_map(|b| STANDARD.encode(b).into()).boxed(),
        Kind::Time => time(1).prop_map(|t| t.to_string().into()).boxed(),
        Kind::MicroTime => time(1_000).prop_map(|t| format!("{t:.6}").into()).boxed(),
        Kind::Json => prop::collection::btree_map("[a-z]", any::<bool>(), 1..3).prop_map(|map| json!(map)).boxed(),
        Kind::Strings => prop::collection::vec("[a-z]{0,2}", 0..3).prop_map(Value::from).boxed(),
        Kind::Message(fields) => object(fields).prop_map(Value::Object).boxed(),
    }
}

fn object(fields: &'static [Field]) -> BoxedStrategy<Map<String, Value>> {
    let fields: Vec<_> = fields
        .iter()
        .map(|field| {
            let value = match field.shape {
                Shape::Plain | Shape::Pointer => value(field.kind),
                Shape::List => prop::collection::vec(value(field.kind), 1..3).prop_map(Value::from).boxed(),
                Shape::Map => prop::collection::btree_map("[a-z]{0,3}", value(field.kind), 1..3)
                    .prop_map(|map| Value::Object(map.into_iter().collect()))
                    .boxed(),
            };
            prop::option::of(value.prop_map(|value| (field.name.to_owned(), value)))
        })
        .collect();
    fields.prop_map(|fields| fields.into_iter().flatten().collect()).boxed()
}

fn any_object() -> impl Strategy<Value = Value> {
    (0..kinds::KINDS.len()).prop_flat_map(|index| {
        let (api_version, kind, fields) = kinds::KINDS[index];
        object(fields).prop_map(move |mut object| {
            object.insert("apiVersion".to_owned(), api_version.replace('*', "v1").into());
            object.insert("kind".to_owned(), kind.into());
            Value::Object(object)
        })
    })
}

proptest! {
    #[test]
    fn every_kind_decodes_to_what_was_encoded(object in any_object()) {
        prop_assert_eq!(Value::Object(decode(&encode(&object)).unwrap()), object);
    }

    #[test]
    fn no_bytes_make_the_decoder_panic(object in any_object(), flips in prop::collection::vec((any::<usize>(), any::<u8>()), 0..8)) {
        let mut body = encode(&object);
        for (at, byte) in flips {
            let at = at % body.len();
            body[at] = byte;
        }
        let _ = decode(&body);
        body.truncate(body.len() / 2);
        let _ = decode(&body);
    }
}

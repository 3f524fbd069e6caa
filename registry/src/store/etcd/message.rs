//! What is said to etcd's JSON gateway and what it answers: 64-bit numbers are strings there, keys and values are base64.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, de};
use serde_json::{Value, json};

use super::layout::{Layout, Marker, Outcome};
use crate::store::{Revision, Txn};

#[derive(Debug, Default, Deserialize)]
pub(super) struct Header {
    #[serde(default, deserialize_with = "number")]
    pub(super) revision: u64,
}

#[derive(Debug, Deserialize)]
pub(super) struct KeyValue {
    #[serde(deserialize_with = "bytes")]
    pub(super) key: Vec<u8>,
    #[serde(default, deserialize_with = "bytes")]
    pub(super) value: Vec<u8>,
    #[serde(default, deserialize_with = "number")]
    pub(super) create_revision: u64,
    #[serde(default, deserialize_with = "number")]
    pub(super) mod_revision: u64,
}

#[derive(Debug, Deserialize)]
pub(super) struct RangeAnswer {
    pub(super) header: Header,
    #[serde(default)]
    pub(super) kvs: Vec<KeyValue>,
    #[serde(default)]
    pub(super) more: bool,
}

/// What else it says, the watch shows.
#[derive(Debug, Deserialize)]
pub(super) struct TxnAnswer {}

/// One line of the watch's stream.
#[derive(Debug, Deserialize)]
pub(super) struct WatchLine {
    pub(super) result: Option<WatchAnswer>,
    pub(super) error: Option<Failure>,
}

#[derive(Debug, Deserialize)]
pub(super) struct WatchAnswer {
    #[serde(default)]
    pub(super) header: Header,
    #[serde(default)]
    pub(super) canceled: bool,
    #[serde(default)]
    pub(super) cancel_reason: String,
    #[serde(default, deserialize_with = "number")]
    pub(super) compact_revision: u64,
    /// More events of the same moment follow.
    #[serde(default)]
    pub(super) fragment: bool,
    #[serde(default)]
    pub(super) events: Vec<WatchEvent>,
}

#[derive(Debug, Deserialize)]
pub(super) struct WatchEvent {
    #[serde(default, rename = "type")]
    pub(super) kind: EventKind,
    pub(super) kv: KeyValue,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub(super) enum EventKind {
    #[default]
    Put,
    Delete,
}

/// What etcd says when it does not do what it was asked.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Failure {
    /// gRPC's. In a stream it has another name.
    #[serde(default, alias = "grpc_code")]
    pub(super) code: u32,
    #[serde(default)]
    pub(super) message: String,
}

/// Everything from `key` up to `end`, at `revision` (0 is now), at most `limit` keys.
pub(super) fn range(key: &[u8], end: &str, limit: u32, revision: u64) -> Value {
    json!({
        "key": STANDARD.encode(key), "range_end": encoded(end), "limit": limit.to_string(), "revision": revision.to_string(),
    })
}

/// One key.
pub(super) fn get(key: &str) -> Value {
    json!({ "key": encoded(key) })
}

/// Puts `key` if it does not exist.
pub(super) fn create(key: &str, value: &[u8]) -> Value {
    json!({ "compare": [modified(key, 0)], "success": [put(key, value)] })
}

/// Deletes these keys if all of them are at these revisions.
pub(super) fn delete_unchanged<'a>(keys: impl Iterator<Item = (&'a str, u64)> + Clone) -> Value {
    let compare: Vec<Value> = keys.clone().map(|(key, revision)| modified(key, revision)).collect();
    let success: Vec<Value> = keys.map(|(key, _)| delete(key)).collect();
    json!({ "compare": compare, "success": success })
}

/// Deletes everything that begins with `prefix`, which ends in a slash.
pub(super) fn delete_below(prefix: &str) -> Value {
    let end = format!("{}0", prefix.trim_end_matches('/'));
    json!({ "key": encoded(prefix), "range_end": encoded(&end) })
}

pub(super) fn watch(key: &str, end: &str, start: u64) -> Value {
    json!({ "create_request": {
        "key": encoded(key), "range_end": encoded(end), "start_revision": start.to_string(),
        "progress_notify": true, "fragment": true,
    }})
}

/// The transaction with its marker, whose key must still be at `slot_modified`: nobody else writes it, so this fails only
/// behind a fence.
pub(super) fn txn(txn: &Txn, layout: &Layout, marker: &str, slot_modified: u64, number: u64) -> Value {
    let preconditions = txn.preconditions.iter().map(|(key, expected)| {
        let expected = expected.unwrap_or(Revision::ZERO);
        modified(&layout.content(key), expected.0)
    });
    let changes = txn.changes.iter().map(|(key, value)| {
        let key = layout.content(key);
        value.as_ref().map_or_else(|| delete(&key), |value| put(&key, value))
    });
    let marked = |outcome| put(marker, &Marker { number, outcome }.to_value());
    json!({
        "compare": std::iter::once(modified(marker, slot_modified)).chain(preconditions).collect::<Vec<_>>(),
        "success": changes.chain(std::iter::once(marked(Outcome::Committed))).collect::<Vec<_>>(),
        "failure": [marked(Outcome::Refused)],
    })
}

/// After this the transaction is applied (or refused) and has said so in its marker, or never will be applied.
pub(super) fn fence(marker: &str, slot_modified: u64, number: u64) -> Value {
    let value = Marker { number, outcome: Outcome::Fenced }.to_value();
    json!({ "compare": [modified(marker, slot_modified)], "success": [put(marker, &value)] })
}

fn modified(key: &str, revision: u64) -> Value {
    json!({ "key": encoded(key), "target": "MOD", "result": "EQUAL", "mod_revision": revision.to_string() })
}

fn put(key: &str, value: &[u8]) -> Value {
    json!({ "request_put": { "key": encoded(key), "value": STANDARD.encode(value) } })
}

fn delete(key: &str) -> Value {
    json!({ "request_delete_range": { "key": encoded(key) } })
}

fn encoded(key: &str) -> String {
    STANDARD.encode(key)
}

fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
}

fn bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    STANDARD.decode(String::deserialize(deserializer)?).map_err(de::Error::custom)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_etcd_says_in_a_watch_is_understood() {
        let line = r#"{"result":{"header":{"cluster_id":"1","revision":"3"},"events":[
            {"kv":{"key":"L2E=","create_revision":"2","mod_revision":"2","version":"1","value":"L2I="}},
            {"type":"DELETE","kv":{"key":"L2E=","mod_revision":"3"}}]}}"#;
        let answer = serde_json::from_str::<WatchLine>(line).unwrap().result.unwrap();
        assert_eq!(answer.header.revision, 3);
        let told: Vec<_> = answer
            .events
            .iter()
            .map(|event| (event.kind, &*event.kv.key, &*event.kv.value, event.kv.mod_revision))
            .collect();
        let [put, deleted] = [(EventKind::Put, &b"/a"[..], &b"/b"[..], 2), (EventKind::Delete, b"/a", b"", 3)];
        assert_eq!(told, [put, deleted]);

        let line = r#"{"result":{"header":{"raft_term":"2"},"canceled":true,"compact_revision":"9"}}"#;
        let answer = serde_json::from_str::<WatchLine>(line).unwrap().result.unwrap();
        assert!(answer.canceled && answer.compact_revision == 9);
        let line = r#"{"error":{"grpc_code":14,"http_code":503,"message":"etcdserver: no leader"}}"#;
        assert_eq!(serde_json::from_str::<WatchLine>(line).unwrap().error.unwrap().code, 14);
    }

    #[test]
    fn a_transaction_is_written_as_etcd_reads_it() {
        let layout = Layout::new("/p").unwrap();
        let asked = Txn::new().expect("/a", Revision(7)).put("/a", b"1".to_vec()).delete("/b");
        let said = txn(&asked, &layout, "/p/writers/w/0", 5, 1);
        assert_eq!(said["compare"][0]["mod_revision"], "5");
        assert_eq!(said["compare"][1]["key"], STANDARD.encode("/p/content/a"));
        assert_eq!(said["compare"][1]["mod_revision"], "7");
        assert_eq!(said["success"][0]["request_put"]["value"], "MQ==");
        assert_eq!(said["success"][1]["request_delete_range"]["key"], STANDARD.encode("/p/content/b"));
        assert!(said["success"][2]["request_put"].is_object() && said["failure"][0]["request_put"].is_object());
    }

    proptest! {
        #[test]
        fn no_line_panics(line in r#"\{"result":\{"events":\[\{"kv":\{"key":".{0,9}","mod_revision":".{0,9}"\}\}\]\}\}"#) {
            let _ = serde_json::from_str::<WatchLine>(&line);
        }
    }
}

//! What etcd is asked for, and what its answers mean here.

use bytes::Bytes;

use super::layout::{Layout, Marker, Outcome};
use super::proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use super::proto::etcdserverpb::request_op::Request;
use super::proto::etcdserverpb::watch_request::RequestUnion;
pub(super) use super::proto::etcdserverpb::{
    Compare, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, ResponseHeader, TxnRequest, WatchCreateRequest,
    WatchRequest, WatchResponse,
};
use super::proto::mvccpb::Event;
pub(super) use super::proto::mvccpb::{KeyValue, event::EventType};
use crate::{Revision, Txn};

/// What has become of a key.
#[derive(Debug)]
pub(super) struct WatchEvent {
    pub(super) kind: EventType,
    pub(super) kv: KeyValue,
}

impl KeyValue {
    pub(super) fn created(&self) -> Revision {
        Revision(self.create_revision.cast_unsigned())
    }

    pub(super) fn modified(&self) -> Revision {
        Revision(self.mod_revision.cast_unsigned())
    }
}

impl From<Event> for WatchEvent {
    fn from(event: Event) -> Self {
        Self { kind: event.r#type(), kv: event.kv.unwrap_or_default() }
    }
}

/// The revision of etcd when it answered.
pub(super) fn revision(header: Option<ResponseHeader>) -> Revision {
    Revision(header.map_or(0, |header| header.revision.cast_unsigned()))
}

/// Everything from `key` up to `end`, at `revision` (0 is now), at most `limit` keys.
pub(super) fn range(key: Bytes, end: &str, limit: u32, revision: Revision) -> RangeRequest {
    RangeRequest {
        key,
        range_end: owned(end),
        limit: limit.into(),
        revision: revision.0.cast_signed(),
        ..RangeRequest::default()
    }
}

/// One key.
pub(super) fn get(key: &str) -> RangeRequest {
    RangeRequest { key: owned(key), ..RangeRequest::default() }
}

/// Puts `key` if it does not exist.
pub(super) fn create(key: &str, value: &[u8]) -> TxnRequest {
    TxnRequest { compare: vec![modified(key, Revision::ZERO)], success: vec![put(key, value)], failure: Vec::new() }
}

/// Deletes these keys if all of them are at these revisions.
pub(super) fn delete_unchanged<'a>(keys: impl Iterator<Item = (&'a str, Revision)> + Clone) -> TxnRequest {
    let compare = keys.clone().map(|(key, revision)| modified(key, revision)).collect();
    let success = keys.map(|(key, _)| delete(key)).collect();
    TxnRequest { compare, success, failure: Vec::new() }
}

/// Deletes everything that begins with `prefix`, which ends in a slash.
pub(super) fn delete_below(prefix: &str) -> DeleteRangeRequest {
    let end = format!("{}0", prefix.trim_end_matches('/'));
    DeleteRangeRequest { key: owned(prefix), range_end: end.into(), prev_kv: false }
}

pub(super) fn watch(key: &str, end: &str, start: Revision) -> WatchRequest {
    let create = WatchCreateRequest {
        key: owned(key),
        range_end: owned(end),
        start_revision: start.0.cast_signed(),
        progress_notify: true,
        fragment: true,
        ..WatchCreateRequest::default()
    };
    WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) }
}

/// The transaction with its marker, whose key must still be at `slot_modified`: nobody else writes it, so this fails only
/// behind a fence.
pub(super) fn txn(txn: &Txn, layout: &Layout, marker: &str, slot_modified: Revision, number: u64) -> TxnRequest {
    let preconditions = txn
        .preconditions
        .iter()
        .map(|(key, expected)| modified(&layout.content(key), expected.unwrap_or(Revision::ZERO)));
    let changes = txn.changes.iter().map(|(key, value)| {
        let key = layout.content(key);
        value.as_ref().map_or_else(|| delete(&key), |value| put(&key, value))
    });
    let marked = |outcome| put(marker, &Marker { number, outcome }.to_value());
    TxnRequest {
        compare: std::iter::once(modified(marker, slot_modified)).chain(preconditions).collect(),
        success: changes.chain(std::iter::once(marked(Outcome::Committed))).collect(),
        failure: vec![marked(Outcome::Refused)],
    }
}

/// After this the transaction is applied (or refused) and has said so in its marker, or never will be applied.
pub(super) fn fence(marker: &str, slot_modified: Revision, number: u64) -> TxnRequest {
    let value = Marker { number, outcome: Outcome::Fenced }.to_value();
    TxnRequest {
        compare: vec![modified(marker, slot_modified)],
        success: vec![put(marker, &value)],
        failure: Vec::new(),
    }
}

fn modified(key: &str, revision: Revision) -> Compare {
    Compare {
        result: CompareResult::Equal.into(),
        target: CompareTarget::Mod.into(),
        key: owned(key),
        range_end: Bytes::new(),
        target_union: Some(TargetUnion::ModRevision(revision.0.cast_signed())),
    }
}

fn put(key: &str, value: &[u8]) -> RequestOp {
    let put = PutRequest { key: owned(key), value: Bytes::copy_from_slice(value), ..PutRequest::default() };
    RequestOp { request: Some(Request::RequestPut(put)) }
}

fn delete(key: &str) -> RequestOp {
    let delete = DeleteRangeRequest { key: owned(key), ..DeleteRangeRequest::default() };
    RequestOp { request: Some(Request::RequestDeleteRange(delete)) }
}

fn owned(key: &str) -> Bytes {
    Bytes::copy_from_slice(key.as_bytes())
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;

    #[test]
    fn a_transaction_is_written_as_etcd_reads_it() {
        let layout = Layout::new("/p").unwrap();
        let asked = Txn::new().expect("/a", Revision(7)).put("/a", b"1".to_vec()).delete("/b");
        let said = txn(&asked, &layout, "/p/writers/w/0", Revision(5), 1);
        assert_eq!(said.compare, [modified("/p/writers/w/0", Revision(5)), modified("/p/content/a", Revision(7))]);
        assert_eq!(said.success[..2], [put("/p/content/a", b"1"), delete("/p/content/b")]);
        let marked =
            |op: &RequestOp| matches!(&op.request, Some(Request::RequestPut(put)) if *put.key == *b"/p/writers/w/0");
        assert!(said.success.len() == 3 && marked(&said.success[2]) && marked(&said.failure[0]));
        // A revision of 0 is said, too: it is one of several that may be compared.
        let golden = b"\x0a\x0a\x10\x02\x1a\x04/key\x30\x00\x12\x0b\x12\x09\x0a\x04/key\x12\x01v";
        assert_eq!(create("/key", b"v").encode_to_vec(), golden);
    }

    #[test]
    fn what_etcd_says_in_a_watch_is_understood() {
        let golden = b"\x0a\x04\x08\x01\x18\x03\x5a\x0f\x12\x0d\x0a\x02/a\x10\x02\x18\x02\x20\x01\x2a\x01b\x5a\x08\x08\x01\x12\x04\x0a\x02/a";
        let said = WatchResponse::decode(&golden[..]).unwrap();
        assert_eq!(revision(said.header), Revision(3));
        let events: Vec<WatchEvent> = said.events.into_iter().map(WatchEvent::from).collect();
        let told: Vec<_> = events.iter().map(|event| (event.kind, &*event.kv.key, &*event.kv.value)).collect();
        assert_eq!(told, [(EventType::Put, &b"/a"[..], &b"b"[..]), (EventType::Delete, b"/a", b"")]);
        assert_eq!((events[0].kv.created(), events[0].kv.modified()), (Revision(2), Revision(2)));
    }
}

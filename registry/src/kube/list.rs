//! Lists: of one moment, in pages, of those objects that were asked for and may be seen.

use std::sync::Arc;

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    object,
    options::{ReadOptions, RevisionMatch},
    rbac::Visibility,
    selection::Selection,
    source::{Entries, Source},
    status::Status,
};
use crate::registry::Registry;
use store::{Revision, Store, Versioned, WatchEnd};

/// One page of a list.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Page {
    /// The moment that it shows; watches go on from here.
    pub revision: Revision,
    pub items: Vec<Value>,
    /// Where the next page begins.
    pub continue_token: Option<String>,
    /// Objects after this page, where they can be counted without looking at each.
    pub remaining: Option<u64>,
}

/// What a client gives back for the next page.
#[derive(Serialize, Deserialize)]
struct Continue {
    #[serde(rename = "rv")]
    revision: Revision,
    /// The key of the last object that was looked at.
    after: String,
}

/// The objects of a source that were asked for and may be seen.
pub(super) fn list(
    registry: &Registry,
    source: &Source,
    selection: &Selection,
    options: &ReadOptions,
) -> Result<Page, Status> {
    let (entries, revision, after) = entries(registry.store(), source, options)?;
    let visible = selection.visible(registry);
    let wanted = |object: &Value| selection.wants(object, &visible);
    let may = |key: &str| source.place(key).is_none_or(|place| selection.may_want(place, &visible));
    let limit = options.limit.unwrap_or(usize::MAX);
    let after = after.unwrap_or_default();
    let mut items = Vec::new();
    let mut last = String::new();
    let mut rest = objects(source, &entries, &may, &after);
    // One more than the limit tells whether there is a next page.
    for (key, object) in rest.by_ref().filter(|(_, object)| wanted(object)) {
        if items.len() == limit {
            let countable = selection.is_everything() && visible == Visibility::All && !source.is_projected();
            let left = entries.len() - entries.partition_point(|(known, _)| **known < *key);
            let token = Continue { revision, after: last };
            let remaining = countable.then_some(left as u64);
            return Ok(Page { revision, items, continue_token: Some(token.encode()), remaining });
        }
        items.push(object);
        last = key;
    }
    Ok(Page { revision, items, continue_token: None, remaining: None })
}

/// The objects whose keys come after `after`, in order; what `may` denies is not even read.
fn objects<'a>(
    source: &'a Source,
    entries: &'a Entries,
    may: &'a dyn Fn(&str) -> bool,
    after: &'a str,
) -> Box<dyn Iterator<Item = (String, Value)> + 'a> {
    let read = move |(key, stored): &'a (Arc<str>, Versioned<Arc<[u8]>>)| source.objects(key, stored, stored.modified);
    if source.is_projected() {
        let mut all: Vec<_> = entries.iter().flat_map(read).filter(|(key, _)| key.as_str() > after).collect();
        all.sort_by(|(a, _), (b, _)| a.cmp(b));
        return Box::new(all.into_iter());
    }
    let begin = entries.partition_point(|(key, _)| **key <= *after);
    Box::new(entries[begin..].iter().filter(move |(key, _)| may(key)).flat_map(read))
}

/// What there was at the moment that is asked for, and the key after which the page begins.
fn entries(
    store: &Store,
    source: &Source,
    options: &ReadOptions,
) -> Result<(Entries, Revision, Option<String>), Status> {
    let prefix = source.prefix();
    let (exact, after) = match &options.continue_token {
        Some(token) => {
            let token = Continue::decode(token)
                .filter(|token| token.after.starts_with(&object::prefix(source.resource(), source.namespace())))
                .ok_or_else(|| Status::bad_request("continue key is not valid: begin the list anew"))?;
            (Some(token.revision), Some(token.after))
        }
        None => (exact(options), None),
    };
    let newest = store.revision();
    let asked = exact.map(|exact| exact.0).or(options.revision).unwrap_or_default();
    if asked > newest.0 {
        return Err(Status::revision_too_large(asked, newest.0));
    }
    match exact {
        Some(revision) => {
            let entries = store.list_at(prefix, revision).map_err(|end| expired(end, revision, after.is_some()))?;
            Ok((entries, revision, after))
        }
        None => {
            let (entries, revision) = store.list(prefix);
            Ok((entries, revision, after))
        }
    }
}

/// The one revision that is asked for. A page of an old revision means that, too, unless it is said otherwise.
fn exact(options: &ReadOptions) -> Option<Revision> {
    let revision = options.revision.filter(|revision| *revision > 0).map(Revision);
    match options.revision_match {
        Some(RevisionMatch::Exact) => revision,
        Some(RevisionMatch::NotOlderThan) => None,
        None => revision.filter(|_| options.limit.is_some()),
    }
}

fn expired(end: WatchEnd, asked: Revision, paged: bool) -> Status {
    match end {
        WatchEnd::Compacted { .. } if paged => Status::expired(
            "The provided continue parameter is too old to display a consistent list result. You must start a new list \
             without the continue parameter.",
        ),
        WatchEnd::Compacted { compacted } => Status::expired(format!(
            "The resourceVersion for the provided list is too old: {asked} (oldest: {compacted})"
        )),
        WatchEnd::Closed => Status::unavailable("the registry is closed; the process is stopping"),
    }
}

impl Continue {
    fn encode(&self) -> String {
        BASE64_URL_SAFE_NO_PAD.encode(serde_json::to_vec(self).unwrap_or_default())
    }

    fn decode(token: &str) -> Option<Self> {
        serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(token).ok()?).ok()
    }
}

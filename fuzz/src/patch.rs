//! Patches of all kinds: what they make of an object is an object, no deeper than one may be, of bounded size and in bounded time.

use registry::kube::{
    body::{MAX_BODY, Origin, decode},
    patch::{self, Request},
};
use serde_json::json;

use crate::{
    cost::{bounded, grown, repeated},
    stored,
};

const TYPES: [&str; 4] = [
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
];

/// What stands between the patch and its object.
const BETWEEN: &[u8] = b"\n--\n";

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let object = "\n--\n{\"metadata\":{\"name\":\"n\",\"finalizers\":[\"a\",\"b\"],\"ownerReferences\":[{\"uid\":\"1\",\"x\":1}]},\"status\":{\"conditions\":[{\"type\":\"T\",\"status\":\"True\"}]},\"l\":[[1],2]}";
    let patches = [
        "0[{\"op\":\"add\",\"path\":\"/l/-\",\"value\":{\"a\":1}},{\"op\":\"copy\",\"from\":\"/l\",\"path\":\"/l/0\"}]",
        "0[{\"op\":\"test\",\"path\":\"/x\",\"value\":null},{\"op\":\"move\",\"from\":\"/metadata\",\"path\":\"/m~1~0\"}]",
        "0[{\"op\":\"replace\",\"path\":\"\",\"value\":[]},{\"op\":\"remove\",\"path\":\"/l/1\"}]",
        "1{\"metadata\":{\"name\":null,\"labels\":{\"a\":\"b\"}},\"l\":{\"x\":null}}",
        "2{\"metadata\":{\"finalizers\":[\"c\"],\"$setElementOrder/finalizers\":[\"c\",\"a\"],\"$deleteFromPrimitiveList/finalizers\":[\"b\"]}}",
        "2{\"metadata\":{\"ownerReferences\":[{\"uid\":\"1\",\"$patch\":\"delete\"},{\"uid\":\"2\"}]},\"$retainKeys\":[\"metadata\"]}",
        "2{\"status\":{\"$patch\":\"replace\",\"conditions\":[{\"type\":\"T\",\"status\":\"False\"}]}}",
        "3a: {b: [1]}\n",
    ];
    let mut seeds: Vec<Vec<u8>> = patches.iter().map(|patch| format!("{patch}{object}").into_bytes()).collect();
    seeds.extend([
        repeated(
            "0[",
            "{\"op\":\"copy\",\"from\":\"\",\"path\":\"/a\"},",
            "{\"op\":\"test\",\"path\":\"/l\",\"value\":1}]\n--\n{\"l\":1}",
        ),
        repeated(
            "0[",
            "{\"op\":\"add\",\"path\":\"/l/0\",\"value\":1},",
            "{\"op\":\"remove\",\"path\":\"/l\"}]\n--\n{\"l\":[]}",
        ),
        repeated("2{\"metadata\":{\"finalizers\":[", "\"a\",", "\"b\"]}}\n--\n{\"metadata\":{\"finalizers\":[\"b\"]}}"),
        repeated("1{\"longer\":{", "\"a\":1,", "\"a\":1}}\n--\n{}"),
    ]);
    seeds
}

/// The first byte is the kind of patch; what follows, the patch and its object.
pub(crate) fn check(input: &[u8]) {
    let input = grown(input);
    let Some((kind, rest)) = input.split_first() else { return };
    let content_type = TYPES[usize::from(*kind) % TYPES.len()];
    let Some(at) = rest.windows(BETWEEN.len()).position(|bytes| bytes == BETWEEN) else { return };
    let (patch, object) = (&rest[..at], &rest[at + BETWEEN.len()..]);
    let Ok(object) = decode(None, object, "Namespace", Origin::BuiltIn).map(|body| body.object) else { return };
    let decoded = bounded(input.len(), || patch::decode(Some(content_type), patch, "Namespace", Origin::BuiltIn));
    let request = match decoded {
        Err(error) => return assert!(error.to_string().len() <= 1024 + 4 * input.len()),
        Ok(Request::Apply(body)) => return stored::check(&body.object, patch.len(), 6 * MAX_BODY),
        Ok(Request::Change(change)) => change,
    };
    assert!(request.duplicates().count() <= 100);
    let patched = match bounded(input.len(), || request.apply(object.clone())) {
        Ok(patched) => patched,
        Err(error) => {
            let told = error.to_string().len() + error.cause().map_or(0, str::len);
            return assert!(told <= 1024 + 8 * input.len(), "{told} bytes are told of {}", input.len());
        }
    };
    stored::check(&patched, input.len(), 6 * MAX_BODY);
    assert_eq!(
        request.apply(object.clone()).as_ref(),
        Ok(&patched),
        "a patch is applied again when somebody came first"
    );
    if content_type == TYPES[1] {
        assert_eq!(request.apply(patched.clone()), Ok(patched), "RFC 7386 merges once");
    }
    // Of a custom kind nobody knows which lists to merge.
    let custom = patch::decode(Some(content_type), patch, "ManagedCluster", Origin::Custom);
    assert_eq!(custom.is_err(), content_type == TYPES[2], "{}", json!(object));
}

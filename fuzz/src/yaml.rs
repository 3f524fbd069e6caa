//! YAML bodies: no deeper, larger or slower than their length allows, and as JSON they are what they were.

use registry::kube::body::{Body, MAX_BODY, Origin, decode, decode_apply};

use crate::{
    cost::{bounded, grown, repeated},
    stored,
};

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let mut seeds: Vec<Vec<u8>> = [
        "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: demo\n  labels: {a: b, c: \"d\"}\n",
        "a: &x [1, 0x1f, 1_000, .5, 1e3, ~, yes, off]\nb: *x\nc: {<<: {d: 1}, e: 2}\n",
        "spec:\n  x: 1\n  x: 2\n  list: [{}, {z: 1, z: 1}]\n---\n",
        "a: |\n  text\n  more\nb: >-\n  folded\n\n  text\n? c\n: d\n",
        "%YAML 1.2\n---\n!!str a: !!int 5\n\"\\u00e9\\n\": 'it''s'\n# end\n...\n",
        "{\"a\": [true, null, -1.5e-3, \"\\ud83d\\ude00\"]}",
        "base: &b {x: 1}\nm: {<<: [*b, {y: 2}]}\n",
    ]
    .map(Into::into)
    .into();
    seeds.extend([
        repeated("a: ", "[", ""),
        repeated("", "- ", "a"),
        repeated("a: {", "b: c,", "}"),
        repeated("a: [", "&a b,", "]"),
        repeated("a: &a [b]\nc: [", "*a,", "]"),
        repeated("", "? ", "a"),
        repeated("a: \"", "\\u00e9\n ", "\""),
        repeated("a: |\n", " \n", "b"),
        repeated("", "#\n", "a: b"),
        repeated("a", " ", ": b"),
        repeated("{longer: {", "b: c,", "}}"),
        repeated("", "%TAG !a! b\n", "---\na: b"),
    ]);
    seeds
}

pub(crate) fn check(input: &[u8]) {
    let input = grown(input);
    let Ok(Body { object, duplicates }) = bounded(input.len(), || decode_apply(&input)) else { return };
    stored::check(&object, input.len(), 6 * MAX_BODY);
    assert!(duplicates.messages().count() <= 100);
    // JSON is YAML: a client that applies JSON means what every other request would.
    if let Ok(same) = decode(None, &input, "Namespace", Origin::BuiltIn) {
        assert_eq!(same.object, object);
    }
    let json = serde_json::to_vec(&object).expect("what was decoded can be encoded");
    let again = decode_apply(&json).unwrap_or_else(|error| panic!("{}: {error}", String::from_utf8_lossy(&json)));
    assert_eq!(again.object, object);
}

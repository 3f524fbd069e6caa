//! Patches by example, and against naive ones.

use proptest::prelude::*;
use serde_json::json;

use super::*;

mod models;

fn patch(content_type: &str, patch: &Value) -> Result<Patch, PatchError> {
    match decode(Some(content_type), patch.to_string().as_bytes(), "Namespace", Origin::BuiltIn)? {
        Request::Change(patch) => Ok(patch),
        Request::Apply(_) => panic!("an apply"),
    }
}

fn patched(content_type: &str, change: &Value, object: &Value) -> Result<Value, PatchError> {
    let object = object.as_object().unwrap().clone();
    patch(content_type, change)?.apply(object).map(Value::Object)
}

fn strategic(change: Value, object: Value) -> Value {
    patched(STRATEGIC, &change, &object).unwrap()
}

#[test]
fn the_content_type_says_what_kind_of_patch_it_is() {
    let refused = |content_type, origin| {
        let error = decode(content_type, b"{}", "X", origin).unwrap_err();
        assert_eq!((error.code(), error.reason(), error.cause()), (415, "UnsupportedMediaType", None));
        error.to_string()
    };
    let start = "the body of the request was in an unknown format - accepted media types include: ";
    let custom = "application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml";
    assert_eq!(refused(Some(STRATEGIC), Origin::Custom), format!("{start}{custom}"));
    let built_in = "application/json-patch+json, application/merge-patch+json, application/strategic-merge-patch+json, application/apply-patch+yaml";
    assert_eq!(refused(Some("application/json"), Origin::BuiltIn), format!("{start}{built_in}"));
    assert_eq!(refused(None, Origin::BuiltIn), format!("{start}{built_in}"));
    let apply = decode(Some("application/apply-patch+yaml; charset=utf-8"), b"a: 1", "X", Origin::Custom).unwrap();
    let Request::Apply(body) = apply else { panic!("no apply") };
    assert_eq!(Value::Object(body.object), json!({"a": 1}));
}

#[test]
fn bodies_that_are_no_patch_are_refused() {
    let refused = |content_type: &str, body: &str| {
        let error = decode(Some(content_type), body.as_bytes(), "Namespace", Origin::BuiltIn).unwrap_err();
        assert_eq!((error.code(), error.reason()), (400, "BadRequest"), "{body}");
        error.to_string()
    };
    assert_eq!(
        refused(MERGE, "[]"),
        "error decoding patch: json: cannot unmarshal array into Go value of type map[string]interface {}"
    );
    assert!(refused(MERGE, "{").starts_with("error decoding patch: "));
    assert!(refused(STRATEGIC, "[]").starts_with("json: cannot unmarshal array"));
    assert!(refused(OPERATIONS, "{}").starts_with("error decoding patch: "));
    assert!(refused(OPERATIONS, "[1]").starts_with("error decoding patch: "));
    assert!(refused(OPERATIONS, r#"[{"op":1}]"#).starts_with("error decoding patch: "));
    let large = vec![b' '; body::MAX_BODY + 1];
    assert_eq!(decode(Some(MERGE), &large, "X", Origin::Custom).unwrap_err().code(), 413);
    let error = patch(OPERATIONS, &vec![json!({"op": "test", "path": "", "value": 1}); 10_001].into()).unwrap_err();
    assert_eq!((error.code(), error.reason()), (413, "RequestEntityTooLarge"));
    assert_eq!(
        error.to_string(),
        "Request entity too large: The allowed maximum operations in a JSON patch is 10000, got 10001"
    );
}

#[test]
fn fields_given_twice_are_reported() {
    let reported = |content_type: &str, body: &str| {
        let request = decode(Some(content_type), body.as_bytes(), "Namespace", Origin::BuiltIn).unwrap();
        let Request::Change(patch) = request else { panic!("an apply") };
        patch.duplicates().collect::<Vec<_>>()
    };
    assert_eq!(reported(MERGE, r#"{"a":{"b":1,"b":2}}"#), ["duplicate field \"a.b\""]);
    assert_eq!(reported(STRATEGIC, r#"{"a":1,"a":2}"#), ["duplicate field \"a\""]);
    assert_eq!(reported(OPERATIONS, r#"[{"op":"add","op":"test"}]"#), ["json patch duplicate field \"[0].op\""]);
}

#[test]
fn operations_do_what_the_rfc_says() {
    let object = json!({"a": [1, 2], "b": {"c/d": "x"}});
    let done = |operations: Value| patched(OPERATIONS, &operations, &object).unwrap();
    assert_eq!(done(json!([{"op": "add", "path": "/a/1", "value": 9}]))["a"], json!([1, 9, 2]));
    assert_eq!(done(json!([{"op": "add", "path": "/a/-", "value": null}]))["a"], json!([1, 2, null]));
    assert_eq!(done(json!([{"op": "remove", "path": "/b/c~1d"}]))["b"], json!({}));
    assert_eq!(done(json!([{"op": "replace", "path": "", "value": {"z": 1}}])), json!({"z": 1}));
    assert_eq!(done(json!([{"op": "move", "from": "/a/0", "path": "/b/e"}]))["b"]["e"], json!(1));
    assert_eq!(done(json!([{"op": "copy", "from": "/b", "path": "/a/0"}]))["a"][0], json!({"c/d": "x"}));
    assert_eq!(done(json!([{"op": "test", "path": "/a", "value": [1, 2]}])), object);
    // What Kubernetes adds to the RFC: null stands for a field that is not there.
    assert_eq!(done(json!([{"op": "test", "path": "/b/none", "value": null}])), object);
    for wrong in [
        json!({"op": "test", "path": "/a", "value": [2, 1]}),
        json!({"op": "test", "path": "/none/none", "value": null}),
        json!({"op": "test", "path": "/none", "value": 1}),
        json!({"op": "remove", "path": "/none"}),
        json!({"op": "remove", "path": ""}),
        json!({"op": "replace", "path": "/none", "value": 1}),
        json!({"op": "add", "path": "/a/3", "value": 1}),
        json!({"op": "add", "path": "/a/-1", "value": 1}),
        json!({"op": "add", "path": "none", "value": 1}),
        json!({"op": "add", "path": "/x"}),
        json!({"op": "move", "from": "/b", "path": "/b/c"}),
        json!({"op": "copy", "from": "/none", "path": "/c"}),
        json!({"op": "increment", "path": "/a"}),
        json!({"path": "/a"}),
        json!({"op": "replace", "path": "", "value": []}),
    ] {
        let error = patched(OPERATIONS, &json!([wrong]), &object).unwrap_err();
        assert_eq!((error.code(), error.reason()), (422, "Invalid"), "{wrong}");
        assert_eq!(error.to_string(), "the server rejected our request due to an error in our request");
        assert!(error.cause().is_some());
    }
}

#[test]
fn operations_cannot_make_an_object_large_or_deep() {
    let cause = |operations: Vec<Value>, object: &Value| {
        patched(OPERATIONS, &operations.into(), object).unwrap_err().cause().unwrap().to_owned()
    };
    let object = json!({"a": {"b": "x".repeat(1000)}});
    let doubled = vec![json!({"op": "copy", "from": "", "path": "/a/c"}); 200];
    assert!(cause(doubled, &object).contains("too deep"));
    let copied = (0..4000).map(|n| json!({"op": "copy", "from": "/a", "path": format!("/c{n}")})).collect();
    assert!(cause(copied, &object).ends_with("copies and moves carry too much"));
    let nested = (0..500).flat_map(|_| {
        [
            json!({"op": "add", "path": "/b", "value": {}}),
            json!({"op": "move", "from": "/a", "path": "/b/a"}),
            json!({"op": "move", "from": "/b", "path": "/a"}),
        ]
    });
    assert!(cause(nested.collect(), &object).ends_with("nested too deep"));
    let deep = (0..125).fold(json!(1), |value, _| json!([value]));
    assert!(patched(OPERATIONS, &json!([{"op": "add", "path": "/d/d", "value": deep}]), &json!({"d": {}})).is_ok());
    let error = patched(OPERATIONS, &json!([{"op": "add", "path": "/d/d/d", "value": deep}]), &json!({"d": {"d": {}}}));
    assert!(error.is_err());
}

#[test]
fn merge_patches_do_what_the_rfc_says() {
    let object = json!({"a": {"b": 1, "c": 2}, "l": [1, 2]});
    let change = json!({"a": {"b": null, "d": {"e": null, "f": 3}}, "l": [null]});
    assert_eq!(patched(MERGE, &change, &object).unwrap(), json!({"a": {"c": 2, "d": {"f": 3}}, "l": [null]}));
}

#[test]
fn lists_of_the_schema_are_merged_and_others_replaced() {
    let object = json!({
        "metadata": {"finalizers": ["a", "b"], "ownerReferences": [{"uid": "1", "name": "x", "kind": "K"}]},
        "spec": {"finalizers": ["kubernetes"]}, "status": {"conditions": [{"type": "A", "status": "True"}]},
    });
    let change = json!({
        "metadata": {"finalizers": ["c", "b"], "ownerReferences": [{"uid": "2"}, {"uid": "1", "name": "y", "kind": null}]},
        "spec": {"finalizers": ["x"]}, "status": {"conditions": [{"type": "B"}]},
    });
    let merged = json!({
        "metadata": {"finalizers": ["c", "a", "b"], "ownerReferences": [{"uid": "2"}, {"uid": "1", "name": "y"}]},
        "spec": {"finalizers": ["x"]}, "status": {"conditions": [{"type": "B"}, {"type": "A", "status": "True"}]},
    });
    assert_eq!(strategic(change.clone(), object.clone()), merged);
    // The conditions of other kinds are replaced.
    let request = decode(Some(STRATEGIC), change.to_string().as_bytes(), "CertificateSigningRequest", Origin::BuiltIn);
    let Ok(Request::Change(patch)) = request else { panic!("no patch") };
    let replaced = patch.apply(object.as_object().unwrap().clone()).unwrap();
    assert_eq!(replaced["status"], json!({"conditions": [{"type": "B"}]}));
}

#[test]
fn directives_are_heeded_and_never_stored() {
    let object = json!({"metadata": {"labels": {"a": "1", "b": "2"}, "ownerReferences": [{"uid": "1"}, {"uid": "2"}]}});
    let metadata = |change: Value| strategic(json!({"metadata": change}), object.clone())["metadata"].clone();
    let owners = |change: Value| metadata(json!({"ownerReferences": change}))["ownerReferences"].clone();
    assert_eq!(metadata(json!({"labels": {"$patch": "replace", "c": "3", "d": null}}))["labels"], json!({"c": "3"}));
    assert_eq!(metadata(json!({"labels": {"$patch": "merge", "a": null}}))["labels"], json!({"b": "2"}));
    assert_eq!(metadata(json!({"labels": {"$patch": "delete", "c": "3"}}))["labels"], json!({}));
    assert_eq!(metadata(json!({"labels": {"$retainKeys": ["b"], "b": "3"}}))["labels"], json!({"b": "3"}));
    assert_eq!(metadata(json!({"new": {"$retainKeys": [], "x": null}}))["new"], json!({}));
    assert_eq!(owners(json!([{"uid": "1", "$patch": "delete"}])), json!([{"uid": "2"}]));
    assert_eq!(owners(json!([{"uid": "3", "x": null}, {"$patch": "replace"}])), json!([{"uid": "3"}]));
    assert_eq!(
        metadata(json!({"$setElementOrder/ownerReferences": [{"uid": "2"}, {"uid": "1"}]}))["ownerReferences"],
        json!([{"uid": "2"}, {"uid": "1"}])
    );
    let finalizers = |change: Value| {
        strategic(json!({"metadata": change}), json!({"metadata": {"finalizers": ["a", "b", "c"]}}))["metadata"].clone()
    };
    let kept =
        finalizers(json!({"$deleteFromPrimitiveList/finalizers": ["b"], "$setElementOrder/finalizers": ["c", "a"]}));
    assert_eq!(kept, json!({"finalizers": ["c", "a"]}));
    // Nothing of a directive remains where there was nothing to direct.
    let change = json!({
        "metadata": {"finalizers": ["a"], "$setElementOrder/finalizers": ["a"], "$deleteFromPrimitiveList/x": ["a"]},
        "status": {"conditions": [{"type": "A", "$patch": "delete"}], "list": [{"$patch": "replace"}, {"a": null}]},
    });
    let stored = json!({"metadata": {"finalizers": ["a"]}, "status": {"conditions": [], "list": [{}]}});
    assert_eq!(strategic(change, json!({})), stored);
}

#[test]
fn wrong_directives_are_refused() {
    let object = json!({"metadata": {"finalizers": ["a"], "ownerReferences": [{"uid": "1"}]}});
    for (metadata, code, message) in [
        (json!({"$patch": "x"}), 400, "unknown patch type: x"),
        (json!({"$retainKeys": "a"}), 400, "invalid patch format of retainKeys"),
        (json!({"$retainKeys": ["a"], "b": 1}), 400, "invalid patch format of retainKeys"),
        (json!({"$deleteFromPrimitiveList/finalizers": "a"}), 400, "invalid patch format of primitive list"),
        (json!({"$deleteFromPrimitiveList": ["a"]}), 400, "invalid patch format of primitive list"),
        (json!({"$setElementOrder": []}), 400, "invalid patch format of setElementOrder list"),
        (json!({"$setElementOrder/finalizers": 1}), 400, "expected a []interface {}, but received a int64"),
        (
            json!({"ownerReferences": [{"name": "x"}]}),
            400,
            "map: {\"name\":\"x\"} does not contain declared merge key: uid",
        ),
        (json!({"ownerReferences": ["x"]}), 400, "list element types are not identical"),
        (json!({"ownerReferences": [{"$patch": "merge"}]}), 400, "merging lists cannot yet be specified in the patch"),
        (json!({"ownerReferences": [{"$patch": 1}]}), 400, "unknown patch type: 1"),
        (
            json!({"finalizers": ["x", "y"], "$setElementOrder/finalizers": ["y", "x"]}),
            400,
            "The order in patch list doesn't match $setElementOrder list",
        ),
        (json!({"finalizers": [["a"]]}), 422, "the server rejected our request due to an error in our request"),
    ] {
        let error = patched(STRATEGIC, &json!({"metadata": metadata}), &object).unwrap_err();
        assert_eq!((error.code(), error.to_string().as_str()), (code, message), "{metadata}");
    }
}

fn text() -> impl Strategy<Value = Value> {
    "[ab]".prop_map(Value::from)
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![Just(Value::Null), any::<bool>().prop_map(Value::from), text()];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[ab~/]", inner, 0..4).prop_map(|map| json!(map)),
        ]
    })
}

fn any_object() -> impl Strategy<Value = Value> {
    prop::collection::btree_map("[ab~/]", value(), 0..4).prop_map(|map| json!(map))
}

fn path() -> impl Strategy<Value = String> {
    let token = prop_oneof!["[ab]", "~0", "~1", "[012]", "-", "01"];
    prop::collection::vec(token, 0..4).prop_map(|tokens| tokens.into_iter().map(|token| format!("/{token}")).collect())
}

fn operation() -> impl Strategy<Value = Value> {
    let name = prop::sample::select(vec!["add", "remove", "replace", "move", "copy", "test"]);
    (name, path(), path(), value())
        .prop_map(|(op, from, path, value)| json!({"op": op, "from": from, "path": path, "value": value}))
}

/// A Namespace as strategic merge patches see it.
fn namespace() -> impl Strategy<Value = Value> {
    let name = || prop::sample::select(vec!["a", "b", "c", "d", "e"]);
    let labels = || prop::collection::btree_map(name(), name(), 0..3);
    let keyed = |key: &'static str| {
        let items = prop::collection::btree_map(name(), labels(), 0..5);
        let items = items.prop_map(move |items| {
            items.into_iter().map(|(id, labels)| json!({key: id, "labels": labels})).collect::<Vec<_>>()
        });
        items.prop_shuffle()
    };
    let finalizers = prop::collection::btree_set(name(), 0..5).prop_map(|set| set.into_iter().collect::<Vec<_>>());
    let spec = prop::collection::vec(name(), 0..3);
    (labels(), finalizers.prop_shuffle(), keyed("uid"), keyed("type"), spec).prop_map(
        |(labels, finalizers, owners, conditions, spec)| {
            json!({
                "metadata": {"labels": labels, "finalizers": finalizers, "ownerReferences": owners},
                "spec": {"finalizers": spec}, "status": {"conditions": conditions},
            })
        },
    )
}

/// Anything that looks like a strategic merge patch, mostly nonsense.
fn directives() -> impl Strategy<Value = Value> {
    let name = prop::sample::select(vec![
        "metadata",
        "finalizers",
        "ownerReferences",
        "uid",
        "labels",
        "$patch",
        "$retainKeys",
        "$setElementOrder/finalizers",
        "$setElementOrder/ownerReferences",
        "$deleteFromPrimitiveList/finalizers",
    ]);
    let leaf = prop_oneof![
        Just(Value::Null),
        text(),
        prop::sample::select(vec!["delete", "replace", "merge"]).prop_map(Value::from)
    ];
    let inner = leaf.prop_recursive(4, 24, 5, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(name.clone(), inner, 0..5).prop_map(|map| json!(map)),
        ]
    });
    inner.prop_map(|metadata| json!({"metadata": metadata}))
}

fn has_directive(value: &Value) -> bool {
    match value {
        Value::Object(fields) => fields.iter().any(|(name, value)| name.starts_with('$') || has_directive(value)),
        Value::Array(list) => list.iter().any(has_directive),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn operations_agree_with_a_plain_model(object in any_object(), operations in prop::collection::vec(operation(), 1..6)) {
        let expected = models::operations(&object, &operations).filter(Value::is_object);
        let found = patched(OPERATIONS, &operations.into(), &object);
        prop_assert_eq!(found.ok(), expected);
    }

    #[test]
    fn merge_patches_agree_with_a_plain_model(object in any_object(), change in any_object()) {
        prop_assert_eq!(patched(MERGE, &change, &object).unwrap(), models::merge(&object, &change));
    }

    #[test]
    fn a_strategic_difference_makes_one_object_the_other(before in namespace(), after in namespace()) {
        let difference = models::difference(&before, &after, "");
        prop_assert_eq!(strategic(difference.clone(), before), after, "{}", difference);
    }

    #[test]
    fn strategic_patches_merge_lists_as_sets(before in namespace(), change in namespace()) {
        let merged = models::sets(&strategic(change.clone(), before.clone()), "");
        prop_assert_eq!(merged, models::strategic(&before, &change, ""));
    }

    #[test]
    fn no_directive_panics_or_is_stored(change in directives(), object in namespace()) {
        if let Ok(patched) = patched(STRATEGIC, &change, &object) {
            prop_assert!(!has_directive(&patched), "{}", patched);
        }
        let _ = patched(STRATEGIC, &change, &json!({}));
    }
}

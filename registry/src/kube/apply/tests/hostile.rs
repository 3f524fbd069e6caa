//! Requests that fit no schema: whatever comes in, it is answered, and what is stored can be read again.

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::sample::select;

use super::*;

/// Any JSON, with the names that mean something more often than by chance.
fn values() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        prop_oneof![any::<i64>(), 0..2_i64].prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[ab]?".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 4, |part| {
        let name = select(vec!["a", "key", "effect", "taints", "zones", "extra", "selector", "labels", ""]);
        prop_oneof![
            vec(part.clone(), 0..4).prop_map(Value::from),
            btree_map(name.prop_map(str::to_owned), part, 0..4).prop_map(|map| json!(map)),
        ]
    })
}

/// Entries of `managedFields` that are almost right.
fn managers() -> impl Strategy<Value = Value> {
    let fields = prop_oneof![
        values(),
        select(vec![
            json!({"f:spec": {"f:taints": {"k:{\"key\":1}": {}, "k:{}": {".": {}}, "v:null": {}, "i:0": {}}}}),
            json!({"f:spec": {".": {}, "f:zones": {"v:\"a\"": {}, "v:1": {"f:x": {}}}, "f:leaseDurationSeconds": {}}}),
            json!({"f:metadata": {"f:name": {}, "f:managedFields": {}}, ".": {}}),
        ])
    ];
    let entry = (select(vec!["Apply", "Update", "Other"]), select(vec!["a", "b", ""]), fields).prop_map(
        |(operation, manager, fields)| {
            json!({
                "manager": manager, "operation": operation, "apiVersion": VERSION, "fieldsType": "FieldsV1",
                "fieldsV1": fields
            })
        },
    );
    prop_oneof![vec(entry, 0..3).prop_map(Value::from), values()]
}

fn objects() -> impl Strategy<Value = Value> {
    let parts = ["taints", "zones", "extra", "selector", "leaseDurationSeconds"];
    let spec = Vec::from(parts.map(|name| (Just(name), proptest::option::of(values())))).prop_map(|fields| {
        let present = fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
        Value::Object(present.collect())
    });
    let object = |metadata: Value, spec: Value, status: Value| json!({"apiVersion": VERSION, "kind": "ManagedCluster", "metadata": metadata, "spec": spec, "status": status});
    let metadata = (values(), proptest::option::of(managers())).prop_map(|(labels, managers)| {
        let mut metadata = json!({"name": "c1", "labels": labels});
        if let Some(managers) = managers {
            metadata["managedFields"] = managers;
        }
        metadata
    });
    prop_oneof![9 => (metadata, spec, values()).prop_map(move |(m, s, t)| object(m, s, t)), 1 => values()]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn any_request_is_answered(
        live in proptest::option::of(objects()),
        request in objects(),
        force in any::<bool>(),
        subresource in select(vec![None, Some("status"), Some("scale")]),
        schema in prop_oneof![4 => Just(schema()), 1 => values()],
    ) {
        let stored = Stored { schema, object: None, clock: 1 };
        let write = stored.write("a", subresource);
        let mut patch = request.clone();
        if let Some(metadata) = patch.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.remove("managedFields");
        }
        if let Ok(applied) = apply(&write, live.as_ref(), &patch, force) {
            prop_assert!(ManagedFields::read(&applied).is_some(), "{applied}");
        } else {
            let taken = apply(&write, live.as_ref(), &patch, true);
            prop_assert!(!matches!(taken, Err(ApplyError::Conflict(_))), "force meets no conflict");
        }
        let mut after = request;
        record_update(&write, live.as_ref(), &mut after);
        prop_assert!(ManagedFields::read(&after).is_some(), "{after}");
    }
}

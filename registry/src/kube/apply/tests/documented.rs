//! What Kubernetes' page on server-side apply promises, and what its API server says in words.

use super::*;

#[test]
fn an_applied_object_belongs_to_its_applier() {
    let mut stored = Stored::new();
    stored.apply("admin", json!({"metadata": {"labels": {"a": "b"}}, "spec": {"hubAcceptsClient": true}}));
    assert_eq!(
        stored.object(),
        &cluster(json!({
            "metadata": {
                "labels": {"a": "b"},
                "managedFields": [{
                    "manager": "admin",
                    "operation": "Apply",
                    "apiVersion": VERSION,
                    "time": "1970-01-01T00:00:01Z",
                    "fieldsType": "FieldsV1",
                    "fieldsV1": {"f:metadata": {"f:labels": {"f:a": {}}}, "f:spec": {"f:hubAcceptsClient": {}}}
                }]
            },
            "spec": {"hubAcceptsClient": true}
        }))
    );
}

#[test]
fn a_created_object_belongs_to_its_creator_with_all_its_containers() {
    let mut stored = Stored::new();
    let taint = json!({"key": "a", "effect": "NoSelect"});
    stored.update("", json!({"metadata": {"uid": "1", "labels": {"a": "b"}}, "spec": {"taints": [taint]}}));
    assert_eq!(
        stored.owners(),
        [(
            "unknown Update".to_owned(),
            json!({
                "f:metadata": {"f:labels": {".": {}, "f:a": {}}},
                "f:spec": {
                    ".": {},
                    "f:taints": {
                        ".": {},
                        "k:{\"effect\":\"NoSelect\",\"key\":\"a\"}": {".": {}, "f:effect": {}, "f:key": {}}
                    }
                }
            })
        )]
    );
}

#[test]
fn another_managers_value_is_a_conflict_in_kubernetes_words() {
    let mut stored = Stored::new();
    stored.apply("admin", json!({"spec": {"leaseDurationSeconds": 60, "hubAcceptsClient": true}}));
    stored.update("kubectl-edit", json!({"spec": {"leaseDurationSeconds": 90, "hubAcceptsClient": true}}));
    let error = stored.try_apply("admin", json!({"spec": {"leaseDurationSeconds": 60}}), false).unwrap_err();
    assert_eq!(
        error.to_string(),
        "Apply failed with 1 conflict: conflict with \"kubectl-edit\" using cluster.open-cluster-management.io/v1: \
         .spec.leaseDurationSeconds"
    );
    let ApplyError::Conflict(conflicts) = error else { panic!("{error}") };
    let causes: Vec<_> = conflicts.iter().map(|conflict| (conflict.message(), conflict.field())).collect();
    assert_eq!(
        causes,
        [(
            "conflict with \"kubectl-edit\" using cluster.open-cluster-management.io/v1".to_owned(),
            ".spec.leaseDurationSeconds".to_owned()
        )]
    );
}

#[test]
fn several_conflicts_are_listed_by_manager() {
    let mut stored = Stored::new();
    stored.apply("b", json!({"spec": {"zones": ["x"], "leaseDurationSeconds": 60, "extra": {"n": 1}}}));
    stored.apply("a", json!({"spec": {"taints": [{"key": "t", "value": "1"}]}}));
    let mut status = stored.object().clone();
    status["status"] = json!({"ready": true});
    stored.put(Some("status"), "hub", status);
    let body = json!({
        "spec": {
            "leaseDurationSeconds": 1, "extra": {"n": 2}, "zones": ["x"], "taints": [{"key": "t", "value": "2"}]
        },
        "status": {"ready": false}
    });
    assert_eq!(
        stored.conflict("c", body),
        "Apply failed with 3 conflicts: conflicts with \"a\":\n- .spec.taints[effect=\"NoSelect\",key=\"t\"].value\n\
         conflicts with \"b\":\n- .spec.leaseDurationSeconds\n- .spec.extra.n"
    );
    let ready = stored.try_apply_to(Some("status"), "c", json!({"status": {"ready": false}}), false);
    assert_eq!(
        ready.unwrap_err().to_string(),
        "Apply failed with 1 conflict: conflict with \"hub\" with subresource \"status\" using \
         cluster.open-cluster-management.io/v1: .status.ready"
    );
}

#[test]
fn force_takes_the_field_and_giving_it_up_leaves_it_to_others() {
    let mut stored = Stored::new();
    stored.apply("admin", json!({"spec": {"leaseDurationSeconds": 60}}));
    stored.try_apply("other", json!({"spec": {"leaseDurationSeconds": 90}}), true).unwrap();
    assert_eq!(stored.spec(), &json!({"leaseDurationSeconds": 90}));
    assert_eq!(stored.owners().len(), 1, "{:?}", stored.owners());

    stored.apply("admin", json!({"spec": {"leaseDurationSeconds": 90}}));
    assert_eq!(stored.owners().len(), 2, "an equal value is shared");
    stored.apply("admin", json!({}));
    assert_eq!(stored.spec(), &json!({"leaseDurationSeconds": 90}), "the other still owns it");
    assert_eq!(stored.owned("admin Apply"), None);
}

#[test]
fn what_is_no_longer_named_goes_unless_someone_else_owns_it() {
    let mut stored = Stored::new();
    let taints = json!([{"key": "mine", "value": "1"}, {"key": "shared"}]);
    stored.apply("a", json!({"metadata": {"labels": {"x": "1"}}, "spec": {"taints": taints, "zones": ["p", "q"]}}));
    stored.apply("b", json!({"spec": {"taints": [{"key": "shared"}], "zones": ["q"], "leaseDurationSeconds": 1}}));
    stored.apply("a", json!({}));
    assert_eq!(
        stored.spec(),
        &json!({"taints": [{"key": "shared"}], "zones": ["q"], "leaseDurationSeconds": 1}),
        "a list's item goes by its key"
    );
    assert_eq!(stored.object()["metadata"].get("labels"), None, "an emptied field goes too");
    stored.apply("b", json!({}));
    assert_eq!(stored.object().get("spec"), None);
    assert_eq!(stored.object()["metadata"], json!({"name": "c1"}));
}

#[test]
fn a_field_may_be_handed_over_to_a_controller() {
    let mut stored = Stored::new();
    stored.apply("user", json!({"spec": {"leaseDurationSeconds": 3, "hubAcceptsClient": true}}));
    stored.apply("handover", json!({"spec": {"leaseDurationSeconds": 3}}));
    stored.apply("user", json!({"spec": {"hubAcceptsClient": true}}));
    assert_eq!(stored.spec(), &json!({"leaseDurationSeconds": 3, "hubAcceptsClient": true}));
    stored.update("scaler", json!({"spec": {"leaseDurationSeconds": 5, "hubAcceptsClient": true}}));
    assert_eq!(stored.owned("handover Apply"), None);
    assert_eq!(stored.owned("scaler Update"), Some(json!({"f:spec": {"f:leaseDurationSeconds": {}}})));
}

#[test]
fn atomic_parts_are_owned_and_replaced_whole() {
    let mut stored = Stored::new();
    let configs = json!([{"url": "https://a"}]);
    stored.apply("a", json!({"spec": {"selector": {"a": "1"}, "managedClusterClientConfigs": configs}}));
    assert_eq!(
        stored.owned("a Apply"),
        Some(json!({"f:spec": {"f:managedClusterClientConfigs": {}, "f:selector": {}}}))
    );
    let message = stored.conflict("b", json!({"spec": {"selector": {"b": "2"}}}));
    assert!(message.ends_with(": .spec.selector"), "{message}");
    stored.try_apply("b", json!({"spec": {"selector": {"b": "2"}}}), true).unwrap();
    assert_eq!(stored.spec(), &json!({"selector": {"b": "2"}, "managedClusterClientConfigs": configs}));
}

#[test]
fn unknown_parts_are_merged_by_field_and_their_lists_whole() {
    let mut stored = Stored::new();
    stored.apply("a", json!({"spec": {"extra": {"m": {"x": 1}, "list": [{"name": "a"}]}}}));
    stored.apply("b", json!({"spec": {"extra": {"m": {"y": 2}}}}));
    assert_eq!(stored.spec(), &json!({"extra": {"m": {"x": 1, "y": 2}, "list": [{"name": "a"}]}}));
    assert_eq!(
        stored.owned("a Apply"),
        Some(json!({"f:spec": {"f:extra": {"f:list": {}, "f:m": {".": {}, "f:x": {}}}}}))
    );
    stored.apply("a", json!({}));
    assert_eq!(stored.spec(), &json!({"extra": {"m": {"y": 2}}}));
}

#[test]
fn new_items_come_in_the_order_of_the_configuration() {
    let mut stored = Stored::new();
    let taints =
        |keys: &[&str]| json!({"spec": {"taints": keys.iter().map(|key| json!({"key": key})).collect::<Vec<_>>()}});
    stored.apply("a", taints(&["a", "b", "c"]));
    stored.apply("b", taints(&["c", "x", "b"]));
    assert_eq!(stored.object()["spec"], taints(&["a", "c", "x", "b"])["spec"]);
}

#[test]
fn an_object_nobody_applied_to_gets_an_owner_for_what_it_had() {
    let mut stored = Stored::new();
    stored.object = Some(cluster(json!({"spec": {"leaseDurationSeconds": 60}, "status": {"ready": true}})));
    stored.update("edit", json!({"spec": {"leaseDurationSeconds": 60, "hubAcceptsClient": true}}));
    assert_eq!(stored.owners(), [], "an object without managers stays without");
    let message = stored.conflict("admin", json!({"spec": {"leaseDurationSeconds": 1}}));
    assert!(message.contains("conflict with \"before-first-apply\" using"), "{message}");
    stored.apply("admin", json!({"spec": {"zones": ["z"]}}));
    assert_eq!(
        stored.owned("before-first-apply Update"),
        Some(json!({"f:spec": {".": {}, "f:hubAcceptsClient": {}, "f:leaseDurationSeconds": {}}}))
    );
}

#[test]
fn a_client_may_reset_the_managers() {
    for reset in [json!([]), json!([{}])] {
        let mut stored = Stored::new();
        stored.apply("admin", json!({"spec": {"leaseDurationSeconds": 60}}));
        let mut after = stored.object().clone();
        after["metadata"]["managedFields"] = reset;
        stored.put(None, "kubectl-patch", after.clone());
        assert_eq!(stored.object()["metadata"], json!({"name": "c1"}));

        stored.apply("admin", json!({"spec": {"leaseDurationSeconds": 60}}));
        stored.put(Some("status"), "hub", after);
        assert_eq!(stored.owners().len(), 2, "not through a subresource");
    }
}

#[test]
fn managers_that_a_client_edited_are_taken_and_malformed_ones_are_not() {
    let mut stored = Stored::new();
    stored.apply("admin", json!({"spec": {"leaseDurationSeconds": 60}}));
    let mut after = stored.object().clone();
    after["metadata"]["managedFields"][0]["manager"] = json!("someone");
    stored.put(None, "kubectl-patch", after.clone());
    assert!(stored.owned("someone Apply").is_some());
    after["metadata"]["managedFields"][0]["manager"] = json!("nobody");
    after["metadata"]["managedFields"][0]["operation"] = json!("Steal");
    stored.put(None, "kubectl-patch", after);
    assert_eq!(stored.owners().len(), 1);
    assert!(stored.owned("someone Apply").is_some());
}

#[test]
fn a_client_that_drops_the_managers_does_not_lose_them() {
    let mut stored = Stored::new();
    stored.apply("admin", json!({"spec": {"leaseDurationSeconds": 60}}));
    stored.put(None, "old", cluster(json!({"spec": {"leaseDurationSeconds": 60}})));
    assert_eq!(stored.owners().len(), 1);
}

#[test]
fn the_object_does_not_own_its_status_nor_the_status_its_object() {
    let mut stored = Stored::new();
    stored.apply("admin", json!({"spec": {"leaseDurationSeconds": 1}, "status": {"ready": true}}));
    assert_eq!(stored.object().get("status"), None);
    let body = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"zones": ["z"]}, "status": {"ready": true}});
    stored.try_apply_to(Some("status"), "hub", body, false).unwrap();
    assert_eq!(stored.spec(), &json!({"leaseDurationSeconds": 1}));
    assert_eq!(stored.object()["metadata"].get("labels"), None);
    assert_eq!(stored.owned("hub Apply status"), Some(json!({"f:status": {"f:ready": {}}})));

    let mut after = stored.object().clone();
    after["status"]["ready"] = json!(false);
    after["spec"]["leaseDurationSeconds"] = json!(2);
    stored.put(Some("status"), "agent", after);
    assert_eq!(stored.owned("agent Update status"), Some(json!({"f:status": {"f:ready": {}}})));
    assert_eq!(stored.owned("admin Apply"), Some(json!({"f:spec": {"f:leaseDurationSeconds": {}}})));
}

#[test]
fn a_write_that_changes_nothing_changes_no_times() {
    let mut stored = Stored::new();
    let body = || json!({"spec": {"leaseDurationSeconds": 60, "taints": [{"key": "a"}]}});
    stored.apply("admin", body());
    let first = stored.object().clone();
    stored.apply("admin", body());
    stored.update("edit", body());
    stored.apply(
        "admin",
        json!({"metadata": {"creationTimestamp": null}, "spec": {
            "leaseDurationSeconds": 60.0, "taints": [{"key": "a"}]
        }}),
    );
    assert_eq!(stored.object(), &first);
    stored.apply("admin", json!({"spec": {"leaseDurationSeconds": 61}}));
    assert_eq!(stored.time("admin"), "1970-01-01T00:00:05Z");
}

#[test]
fn the_oldest_managers_of_updates_are_merged() {
    let mut stored = Stored::new();
    let labels = |count: usize| {
        let labels: Map<_, _> = (0..count).map(|i| (format!("l{i:02}"), json!("x"))).collect();
        json!({"metadata": {"labels": labels}})
    };
    for count in 1..=10 {
        stored.update(&format!("m{count:02}"), labels(count));
    }
    assert_eq!(stored.owners().len(), 10);
    stored.update("m11", labels(11));
    assert_eq!(
        stored.owned("ancient-changes Update"),
        Some(json!({"f:metadata": {"f:labels": {".": {}, "f:l00": {}, "f:l01": {}}}}))
    );
    assert_eq!(stored.time("ancient-changes"), "1970-01-01T00:00:02Z");
    stored.update("m12", labels(12));
    let names: Vec<_> = stored.owners().into_iter().map(|(name, _)| name).collect();
    let expected: Vec<_> =
        ["ancient-changes".to_owned()].into_iter().chain((4..=12).map(|i| format!("m{i:02}"))).collect();
    assert_eq!(names, expected.iter().map(|name| format!("{name} Update")).collect::<Vec<_>>());
}

#[test]
fn kubectl_may_go_on_from_client_side_apply_and_back() {
    const LAST: &str = "kubectl.kubernetes.io/last-applied-configuration";
    let mut stored = Stored::new();
    let applied = cluster(json!({"spec": {"leaseDurationSeconds": 60, "hubAcceptsClient": true}}));
    let mut body = applied.clone();
    body["metadata"]["annotations"] = json!({LAST: applied.to_string()});
    stored.update("kubectl-client-side-apply", body.clone());
    body["spec"]["hubAcceptsClient"] = json!(false);
    stored.update("admin", body);

    let changed = json!({"spec": {"leaseDurationSeconds": 90, "hubAcceptsClient": true}});
    assert!(stored.conflict("other", changed.clone()).starts_with("Apply failed with 2 conflicts: "));
    let message = stored.conflict("kubectl", changed);
    assert!(message.starts_with("Apply failed with 1 conflict: conflict with \"admin\" "), "{message}");
    let changed = json!({"spec": {"leaseDurationSeconds": 90}});
    stored.apply("kubectl", changed.clone());
    assert_eq!(stored.spec()["leaseDurationSeconds"], 90);
    let annotation = stored.object()["metadata"]["annotations"][LAST].as_str().unwrap();
    assert_eq!(serde_json::from_str::<Value>(annotation).unwrap(), cluster(changed));
}

#[test]
fn a_patch_that_is_no_configuration_is_refused() {
    let mut stored = Stored::new();
    let mut refusal = |path: &str, value: Value| {
        let mut patch = cluster(json!({"spec": {"taints": []}}));
        *patch.pointer_mut(path).unwrap() = value;
        stored.object = None;
        let write = stored.write("admin", None);
        apply(&write, None, &patch, false).unwrap_err().to_string()
    };
    assert_eq!(refusal("/apiVersion", json!("v1")), "invalid object type: /v1, Kind=ManagedCluster");
    assert_eq!(refusal("/kind", json!(null)), format!("invalid object type: {VERSION}, Kind="));
    assert_eq!(refusal("/metadata/name", json!("")), "name must be provided");
    assert_eq!(refusal("/metadata", json!({"name": "c1", "managedFields": []})), "metadata.managedFields must be nil");
    let typed = format!("failed to create typed patch object (/c1; {VERSION}, Kind=ManagedCluster): ");
    assert_eq!(
        refusal("/spec/taints", json!([{"value": "x"}])),
        format!(
            "{typed}.spec.taints: element 0: associative list with keys has an element that omits key field \"key\" \
             (and doesn't have default value)"
        )
    );
    assert_eq!(
        refusal("/spec/taints", json!([{"key": "x"}, {"key": "x", "effect": "NoSelect"}])),
        format!("{typed}.spec.taints: duplicate entries for key [effect=\"NoSelect\",key=\"x\"]")
    );
}

#[test]
fn items_stored_twice_are_replaced_by_the_one_applied() {
    let mut stored = Stored::new();
    let taint = |value: &str| json!({"key": "a", "effect": "NoSelect", "value": value});
    stored.update("edit", json!({"spec": {"taints": [taint("1"), taint("2")]}}));
    let message = stored.conflict("admin", json!({"spec": {"taints": [taint("3")]}}));
    assert!(message.ends_with(": .spec.taints[effect=\"NoSelect\",key=\"a\"]"), "{message}");
    stored.try_apply("admin", json!({"spec": {"taints": [taint("3")]}}), true).unwrap();
    assert_eq!(stored.spec(), &json!({"taints": [taint("3")]}));
}

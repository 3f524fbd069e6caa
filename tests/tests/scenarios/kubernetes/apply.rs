//! `kubectl apply`: create, change, no change, prune of a field, and server-side with conflicts.

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use tests::Hub;

use super::{CLUSTER, cluster, full};

#[tokio::test]
async fn applying_creates_changes_prunes_and_leaves_alone() -> Result<()> {
    let hub = Hub::start().await?;
    for kubectl in full(&hub)? {
        let first = kubectl.file(&cluster("c1", true))?;
        for (flags, said) in [
            (" --dry-run=server", "created (server dry run)"),
            ("", "created"),
            ("", "unchanged"),
            (" --dry-run=server", "unchanged (server dry run)"),
        ] {
            kubectl.says(&format!("apply -f {first}{flags}"), &format!("{CLUSTER}/c1 {said}")).await?;
        }
        // Somebody else's label and field stay; what was applied and is not any more goes.
        kubectl.ok("label mcl c1 other=one").await?;
        kubectl.ok("patch mcl c1 --type=merge -p '{\"spec\":{\"leaseDurationSeconds\":20}}'").await?;
        let before = kubectl.get("mcl c1").await?;
        let changed = cluster("c1", true).replace("env: c1-env", "tier: gold");
        let changed = changed.split("  managedClusterClientConfigs").next().unwrap_or_default();
        let second = kubectl.file(changed)?;
        let diff = kubectl.run(&format!("diff -f {second}")).await?.exited_with(1)?;
        for line in ["-    env: c1-env", "+    tier: gold", "-  managedClusterClientConfigs:"] {
            ensure!(diff.lines().any(|found| found == line), "no {line:?} in {diff}");
        }
        ensure!(kubectl.get("mcl c1").await? == before, "a diff changed something");
        kubectl.says(&format!("apply -f {second}"), &format!("{CLUSTER}/c1 configured")).await?;
        kubectl.says(&format!("diff -f {second}"), "").await?;
        let after = kubectl.get("mcl c1").await?;
        let (accepts, lease) = (&after["spec"]["hubAcceptsClient"], &after["spec"]["leaseDurationSeconds"]);
        ensure!(*accepts == true && *lease == 20, "{after}");
        ensure!(after["spec"].get("managedClusterClientConfigs").is_none(), "{after}");
        let labels =
            json!({"cluster.open-cluster-management.io/clusterset": "default", "other": "one", "tier": "gold"});
        ensure!(after["metadata"]["labels"] == labels, "{after}");
        kubectl.ok(&format!("delete -f {second}")).await?;
        ensure!(kubectl.ok("get mcl -o name").await?.is_empty());
    }
    Ok(())
}

#[tokio::test]
async fn applying_finds_unknown_fields_and_wrong_types() -> Result<()> {
    let hub = Hub::start().await?;
    for kubectl in full(&hub)? {
        let good = cluster("c1", false);
        let cases = [
            (
                good.replace("hubAcceptsClient: false", "hubAcceptClient: false"),
                "strict decoding error: unknown field \"spec.hubAcceptClient\"",
            ),
            (
                good.replace("  name: c1\n", "  name: c1\n  nam: c2\n"),
                "strict decoding error: unknown field \"metadata.nam\"",
            ),
            (
                good.replace("hubAcceptsClient: false", "hubAcceptsClient: maybe"),
                "spec.hubAcceptsClient: Invalid value: \"string\": spec.hubAcceptsClient in body must be of type boolean: \"string\"",
            ),
            (
                good.replace("- url: https://c1.example:6443", "- url: 7"),
                "spec.managedClusterClientConfigs[0].url in body must be of type string: \"integer\"",
            ),
        ];
        for (text, why) in cases {
            let file = kubectl.file(&text)?;
            for command in ["apply -f", "create -f", "apply --server-side -f"] {
                kubectl.refused(&format!("{command} {file}"), why).await?;
            }
        }
        // Without validation what is unknown is left out.
        let unknown = kubectl.file(&good.replace("spec:\n", "spec:\n  unknown: 1\n"))?;
        let warned = kubectl.run(&format!("create --validate=warn -f {unknown}")).await?;
        ensure!(warned.stderr.contains("Warning: unknown field \"spec.unknown\""), "{warned:?}");
        ensure!(kubectl.get("mcl c1").await?["spec"].get("unknown").is_none());
        kubectl.ok("delete mcl c1").await?;
        let silent = kubectl.run(&format!("apply --validate=ignore -f {unknown}")).await?;
        ensure!(silent.stderr.is_empty() && silent.status.success(), "{silent:?}");
        kubectl.ok("delete mcl c1").await?;
    }
    Ok(())
}

#[tokio::test]
async fn server_side_apply_keeps_owners_apart_until_one_forces() -> Result<()> {
    let hub = Hub::start().await?;
    for kubectl in full(&hub)? {
        let apply = "apply --server-side -f";
        let mine = kubectl.file(&cluster("c1", true))?;
        let applied = format!("{CLUSTER}/c1 serverside-applied");
        kubectl.says(&format!("{apply} {mine} --dry-run=server"), &format!("{applied} (server dry run)")).await?;
        kubectl.says(&format!("{apply} {mine}"), &applied).await?;
        let before = kubectl.get("mcl c1 --show-managed-fields").await?;
        kubectl.says(&format!("{apply} {mine}"), &applied).await?;
        ensure!(kubectl.get("mcl c1 --show-managed-fields").await? == before, "an apply of the same changed something");
        // Only what was applied is owned, not the defaults.
        ensure!(
            owned_by(&before, "kubectl")
                == Some(json!({
                    "f:metadata": {"f:labels": {"f:env": {}}},
                    "f:spec": {"f:hubAcceptsClient": {}, "f:managedClusterClientConfigs": {}},
                })),
            "{before}"
        );

        let theirs = cluster("c1", false).replace("env: c1-env", "tier: gold");
        let theirs = kubectl.file(&theirs.replace("spec:\n", "spec:\n  leaseDurationSeconds: 30\n"))?;
        let conflict = kubectl.fails(&format!("{apply} {theirs} --field-manager=other")).await?;
        let head = "error: Apply failed with 1 conflict: conflict with \"kubectl\": .spec.hubAcceptsClient\n";
        ensure!(conflict.starts_with(head), "{conflict}");
        ensure!(
            conflict.contains("https://kubernetes.io/docs/reference/using-api/server-side-apply/#conflicts"),
            "{conflict}"
        );
        ensure!(kubectl.get("mcl c1 --show-managed-fields").await? == before, "a refused apply changed something");
        kubectl.says(&format!("{apply} {theirs} --field-manager=other --force-conflicts"), &applied).await?;
        let after = kubectl.get("mcl c1 --show-managed-fields").await?;
        ensure!(after["spec"]["hubAcceptsClient"] == false && after["spec"]["leaseDurationSeconds"] == 30, "{after}");
        ensure!(
            after["metadata"]["labels"]["env"] == "c1-env" && after["metadata"]["labels"]["tier"] == "gold",
            "{after}"
        );
        let kept = owned_by(&after, "kubectl").unwrap_or_default();
        ensure!(kept["f:spec"] == json!({"f:managedClusterClientConfigs": {}}), "{kept}");

        // Two own the URLs now: what one lets go of stays for the other, and its own fields go.
        let less = kubectl
            .file("apiVersion: cluster.open-cluster-management.io/v1\nkind: ManagedCluster\nmetadata:\n  name: c1\n")?;
        kubectl.says(&format!("{apply} {less} --field-manager=other"), &applied).await?;
        let left = kubectl.get("mcl c1").await?;
        ensure!(left["spec"]["managedClusterClientConfigs"] == json!([{"url": "https://c1.example:6443"}]), "{left}");
        ensure!(left["spec"]["leaseDurationSeconds"] == 60, "the default is back: {left}");
        ensure!(left["metadata"]["labels"].get("tier").is_none(), "{left}");
        kubectl.ok("delete mcl c1").await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_client_side_apply_becomes_a_server_side_one() -> Result<()> {
    let hub = Hub::start().await?;
    for kubectl in full(&hub)? {
        let file = kubectl.file(&cluster("c1", true))?;
        kubectl.ok(&format!("apply -f {file}")).await?;
        let less = kubectl.file(&cluster("c1", true).replace("  labels: {env: c1-env}\n", ""))?;
        kubectl.says(&format!("apply --server-side -f {less}"), &format!("{CLUSTER}/c1 serverside-applied")).await?;
        let after = kubectl.get("mcl c1 --show-managed-fields").await?;
        ensure!(after["metadata"]["labels"].get("env").is_none(), "the first apply's label was not let go: {after}");
        ensure!(owned_by(&after, "kubectl-client-side-apply").is_none(), "{after}");
        // And back.
        kubectl.says(&format!("apply -f {file}"), &format!("{CLUSTER}/c1 configured")).await?;
        ensure!(kubectl.get("mcl c1").await?["metadata"]["labels"]["env"] == "c1-env");
        kubectl.ok("delete mcl c1").await?;
    }
    Ok(())
}

#[tokio::test]
async fn kubernetes_own_kinds_are_applied_by_strategic_merge() -> Result<()> {
    let hub = Hub::start().await?;
    for kubectl in full(&hub)? {
        let role = |verbs: &str| {
            format!(
                "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata: {{name: viewer, labels: {{a: b}}}}\n\
                 rules:\n- apiGroups: [cluster.open-cluster-management.io]\n  resources: [managedclusters]\n  verbs: [{verbs}]\n"
            )
        };
        let named = "clusterrole.rbac.authorization.k8s.io/viewer";
        let first = kubectl.file(&role("get"))?;
        kubectl.says(&format!("apply -f {first}"), &format!("{named} created")).await?;
        kubectl.says(&format!("apply -f {first}"), &format!("{named} unchanged")).await?;
        let second = kubectl.file(&role("get, list").replace(", labels: {a: b}", ""))?;
        kubectl.says(&format!("apply -f {second}"), &format!("{named} configured")).await?;
        let after = kubectl.get("clusterrole viewer").await?;
        ensure!(after["rules"][0]["verbs"] == json!(["get", "list"]), "{after}");
        ensure!(after["metadata"].get("labels").is_none(), "{after}");
        let reconciled = kubectl.ok(&format!("auth reconcile -f {}", kubectl.file(&role("get, proxy"))?)).await?;
        ensure!(reconciled.contains("viewer reconciled"), "{reconciled}");
        let after = kubectl.get("clusterrole viewer").await?;
        ensure!(after["rules"].to_string().contains("proxy") && after["metadata"]["labels"]["a"] == "b", "{after}");
        kubectl.ok("delete clusterrole viewer").await?;
    }
    Ok(())
}

/// The fields that a manager owns.
fn owned_by(object: &Value, manager: &str) -> Option<Value> {
    let entries = object["metadata"]["managedFields"].as_array().into_iter().flatten();
    let mut own = entries.filter(|entry| entry["manager"] == manager);
    own.next().map(|entry| entry["fieldsV1"].clone())
}

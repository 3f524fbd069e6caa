//! Errors as kubectl shows them: not found, conflict, invalid, forbidden, and what Open Cluster Management refuses.

use anyhow::Result;
use tests::Hub;

use super::{SET, admin, binding, cluster, full, set};

#[tokio::test]
async fn what_is_not_there_or_there_already_is_said_as_by_kubernetes() -> Result<()> {
    let hub = Hub::start().await?;
    admin(&hub)?.ok("create namespace team").await?;
    for kubectl in full(&hub)? {
        let lost = kubectl.file(&binding("nowhere", "prod"))?;
        for (command, error) in [
            (
                "get mcl c9",
                "Error from server (NotFound): managedclusters.cluster.open-cluster-management.io \"c9\" not found",
            ),
            ("get ns nothing", "Error from server (NotFound): namespaces \"nothing\" not found"),
            ("get secret nothing -n team", "Error from server (NotFound): secrets \"nothing\" not found"),
            (
                "delete mclset nothing",
                "Error from server (NotFound): managedclustersets.cluster.open-cluster-management.io \"nothing\" not found",
            ),
            (
                "label mcl c9 a=b",
                "Error from server (NotFound): managedclusters.cluster.open-cluster-management.io \"c9\" not found",
            ),
            (
                "describe mcl c9",
                "Error from server (NotFound): managedclusters.cluster.open-cluster-management.io \"c9\" not found",
            ),
            ("get pods", "error: the server doesn't have a resource type \"pods\""),
            (
                "get --raw /apis/apps/v1",
                "Error from server (NotFound): the server could not find the requested resource",
            ),
            ("create serviceaccount robot", "the server could not find the requested resource"),
            ("create namespace team", "Error from server (AlreadyExists): namespaces \"team\" already exists"),
            ("create secret generic s -n nowhere", "namespaces \"nowhere\" not found"),
            (&format!("create -f {lost}"), "namespaces \"nowhere\" not found"),
            ("scale mcl c9 --replicas=2", "managedclusters.cluster.open-cluster-management.io \"c9\" not found"),
            (
                "delete ns default",
                "Error from server (Forbidden): namespaces \"default\" is forbidden: this namespace may not be deleted",
            ),
            (
                "delete mclset global",
                "Error from server (Forbidden): managedclustersets.cluster.open-cluster-management.io \"global\" is forbidden: the set \"global\" always exists",
            ),
            ("delete mclset default", "the set \"default\" always exists"),
            (
                "patch mclset default --type=merge -p '{\"spec\":{\"clusterSelector\":{\"selectorType\":\"LabelSelector\"}}}'",
                "the clusterSelector of the set \"default\" cannot be changed",
            ),
            ("delete lease x -n team", "the server does not allow this method on the requested resource"),
        ] {
            kubectl.refused(command, error).await?;
        }
    }
    Ok(())
}

#[tokio::test]
async fn what_breaks_a_kinds_rules_is_refused_with_every_cause() -> Result<()> {
    let hub = Hub::start().await?;
    let label = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an \
                 alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
    let good = cluster("c1", false);
    let cases = [
        (good.replace("name: c1", "name: C_1"), format!("The ManagedCluster \"C_1\" is invalid: metadata.name: Invalid value: \"C_1\": {label}")),
        (good.replace("name: c1", "name: a.b"), "The ManagedCluster \"a.b\" is invalid: metadata.name: Invalid value: \"a.b\"".to_owned()),
        (good.replace("name: c1\n", &format!("name: {}\n", "x".repeat(64))), "must be no more than 63 ".to_owned()),
        (good.replace("{env: c1-env}", "{env: a b}"), "metadata.labels: Invalid value: \"a b\": a valid label must be".to_owned()),
        (good.replace("{env: c1-env}", "{-x: a}"), "metadata.labels: Invalid value: \"-x\": name part must consist of".to_owned()),
        (
            good.replace("spec:\n", "spec:\n  taints:\n  - {key: k, effect: Never}\n"),
            "spec.taints[0].effect: Unsupported value: \"Never\": supported values: \"NoSelect\", \"PreferNoSelect\", \"NoSelectIfNew\"".to_owned(),
        ),
        (good.replace("spec:\n", "spec:\n  taints:\n  - {effect: NoSelect}\n"), "spec.taints[0].key: Required value".to_owned()),
        (good.replace("- url: https://c1.example:6443", "- {}"), "spec.managedClusterClientConfigs[0].url: Required value".to_owned()),
        (
            good.replace("spec:\n", "spec:\n  leaseDurationSeconds: many\n"),
            "spec.leaseDurationSeconds: Invalid value: \"string\": spec.leaseDurationSeconds in body must be of type integer: \"string\"".to_owned(),
        ),
        (binding("default", "x").replace("clusterSet: x", "clusterSet: ''"), "spec.clusterSet".to_owned()),
        (format!("{}spec: {{clusterSelector: {{selectorType: Other}}}}\n", set("s")), "spec.clusterSelector.selectorType: Unsupported value: \"Other\"".to_owned()),
    ];
    for kubectl in full(&hub)? {
        for (text, error) in &cases {
            let file = kubectl.file(text)?;
            for command in ["create", "apply --server-side"] {
                kubectl.refused(&format!("{command} -f {file}"), error).await?;
            }
        }
        // All causes at once.
        let both = good.replace("name: c1", "name: C1").replace("{env: c1-env}", "{env: a b}");
        let said = kubectl.fails(&format!("create -f {}", kubectl.file(&both)?)).await?;
        anyhow::ensure!(
            said.starts_with("The ManagedCluster \"C1\" is invalid: \n* metadata.name: ")
                && said.contains("\n* metadata.labels: "),
            "{said}"
        );
        kubectl.says("get mcl -o name", "").await?;
    }
    Ok(())
}

#[tokio::test]
async fn open_cluster_managements_own_rules_hold_in_its_words() -> Result<()> {
    let hub = Hub::start().await?;
    for kubectl in full(&hub)? {
        let good = cluster("c1", false);
        for (text, error) in [
            (good.replace("https://", "http://"), "it must be an https URL"),
            (
                good.replace(
                    "spec:\n",
                    "spec:\n  taints:\n  - {key: k, effect: NoSelect, timeAdded: \"2026-01-01T00:00:00Z\"}\n",
                ),
                "Error from server (BadRequest): error when creating",
            ),
            (
                good.replace(
                    "spec:\n",
                    "spec:\n  taints:\n  - {key: k, effect: NoSelect, timeAdded: \"2026-01-01T00:00:00Z\"}\n",
                ),
                "It is not allowed to set TimeAdded of Taint \"k\".",
            ),
            (
                binding("default", "prod").replace("clusterSet: prod", "clusterSet: test"),
                "The ManagedClusterSetBinding must have the same name as the target ManagedClusterSet",
            ),
        ] {
            kubectl.refused(&format!("create -f {}", kubectl.file(&text)?), error).await?;
        }
        // The set need not exist; what is bound stays bound.
        kubectl.ok(&format!("create -f {}", kubectl.file(&binding("default", "prod"))?)).await?;
        kubectl
            .refused(
                "patch mclsetbinding prod -n default --type=merge -p '{\"spec\":{\"clusterSet\":\"test\"}}'",
                "The ManagedClusterSetBinding must have the same name as the target ManagedClusterSet",
            )
            .await?;
        kubectl.ok("delete mclsetbinding prod -n default").await?;
        // A cluster is in a set, always, and taints have the time at which they came.
        kubectl.ok(&format!("create -f {}", kubectl.file(&good)?)).await?;
        kubectl.ok(&format!("label mcl c1 {SET}-")).await?;
        kubectl.says(&format!("get mcl -l {SET}=default -o jsonpath={{.items[0].metadata.name}}"), "c1").await?;
        kubectl
            .ok("patch mcl c1 --type=merge -p '{\"spec\":{\"taints\":[{\"key\":\"k\",\"effect\":\"NoSelect\"}]}}'")
            .await?;
        let added = kubectl.ok("get mcl c1 -o 'jsonpath={.spec.taints[?(@.key==\"k\")].timeAdded}'").await?;
        anyhow::ensure!(added.ends_with('Z'), "{added}");
        // Nobody is let in while the namespace of a cluster before it is going.
        kubectl.ok("delete mcl c1").await?;
        terminating(&kubectl).await?;
    }
    Ok(())
}

async fn terminating(kubectl: &tests::Kubectl) -> Result<()> {
    kubectl.ok("create namespace c2").await?;
    let held = "apiVersion: v1\nkind: Secret\nmetadata: {name: held, namespace: c2, finalizers: [example.com/held]}\n";
    kubectl.ok(&format!("create -f {}", kubectl.file(held)?)).await?;
    kubectl.ok("delete namespace c2 --wait=false").await?;
    kubectl.says("get ns c2 -o jsonpath={.status.phase}", "Terminating").await?;
    kubectl
        .refused(
            "create secret generic more -n c2",
            "unable to create new content in namespace c2 because it is being terminated",
        )
        .await?;
    kubectl
        .refused(
            &format!("create -f {}", kubectl.file(&cluster("c2", true))?),
            "cluster namespace \"c2\" is terminating",
        )
        .await?;
    kubectl.ok("patch secret held -n c2 --type=merge -p '{\"metadata\":{\"finalizers\":null}}'").await?;
    kubectl.ok("wait ns/c2 --for=delete --timeout=60s").await.map(drop)
}

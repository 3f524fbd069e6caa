//! Writing with kubectl: create, replace, edit, label, annotate, patch, wait, delete, and the kinds sent as protobuf.

use anyhow::{Result, ensure};
use serde_json::json;
use tests::{Hub, Kubectl};

use super::{BOUND, CLUSTER, admin, binding, cluster, full, others, set};

#[tokio::test]
async fn clusters_are_created_replaced_and_edited() -> Result<()> {
    let hub = Hub::start().await?;
    for kubectl in full(&hub)? {
        created(&kubectl).await?;
        replaced(&kubectl).await?;
        edited(kubectl).await?;
    }
    Ok(())
}

async fn created(kubectl: &Kubectl) -> Result<()> {
    let file = kubectl.file(&[cluster("c1", true), set("prod")].join("---\n"))?;
    let said = format!("{CLUSTER}/c1 created\nmanagedclusterset.cluster.open-cluster-management.io/prod created");
    let dry = said.replace(" created", " created (server dry run)");
    kubectl.says(&format!("create --dry-run=server -f {file}"), &dry).await?;
    kubectl
        .refused(
            "get mcl c1",
            "Error from server (NotFound): managedclusters.cluster.open-cluster-management.io \"c1\" not found",
        )
        .await?;
    kubectl.says(&format!("create -f {file}"), &said).await?;
    let made = kubectl.get("mcl c1").await?;
    ensure!(made["metadata"]["generation"] == 1 && made["metadata"]["uid"].as_str().is_some_and(|uid| uid.len() == 36));
    ensure!(made["spec"]["leaseDurationSeconds"] == 60, "{made}");
    ensure!(made["metadata"]["labels"]["cluster.open-cluster-management.io/clusterset"] == "default", "{made}");
    let twice = kubectl.fails(&format!("create -f {file}")).await?;
    for name in [
        "managedclusters.cluster.open-cluster-management.io \"c1\"",
        "managedclustersets.cluster.open-cluster-management.io \"prod\"",
    ] {
        let expected =
            format!("Error from server (AlreadyExists): error when creating \"{file}\": {name} already exists\n");
        ensure!(twice.contains(&expected), "{twice}");
    }
    let drawn = kubectl.file(&cluster("x", false).replace("  name: x\n", "  generateName: edge-\n"))?;
    let name = kubectl.ok(&format!("create -f {drawn} -o jsonpath={{.metadata.name}}")).await?;
    ensure!(name.len() == 10 && name.starts_with("edge-"), "{name}");
    kubectl.ok(&format!("delete mcl {name}")).await.map(drop)
}

async fn replaced(kubectl: &Kubectl) -> Result<()> {
    let mut object = kubectl.get("mcl c1").await?;
    object["spec"]["leaseDurationSeconds"] = json!(30);
    object["metadata"]["labels"]["env"] = json!("replaced");
    let file = kubectl.file(&object.to_string())?;
    kubectl.says(&format!("replace -f {file}"), &format!("{CLUSTER}/c1 replaced")).await?;
    let after = kubectl.get("mcl c1").await?;
    ensure!(after["metadata"]["generation"] == 2 && after["spec"]["leaseDurationSeconds"] == 30, "{after}");
    ensure!(after["metadata"]["labels"]["env"] == "replaced" && after["metadata"]["uid"] == object["metadata"]["uid"]);
    let stale = format!(
        "Error from server (Conflict): error when replacing \"{file}\": Operation cannot be fulfilled on \
         managedclusters.cluster.open-cluster-management.io \"c1\": the object has been modified; please apply your changes to \
         the latest version and try again"
    );
    kubectl.refused(&format!("replace -f {file}"), &stale).await?;
    // What changes nothing is no new revision.
    let file = kubectl.file(&after.to_string())?;
    kubectl.ok(&format!("replace -f {file}")).await?;
    ensure!(kubectl.get("mcl c1").await?["metadata"]["resourceVersion"] == after["metadata"]["resourceVersion"]);
    let file = kubectl.file(&cluster("c1", false))?;
    kubectl.ok(&format!("replace --force -f {file}")).await?;
    let anew = kubectl.get("mcl c1").await?;
    ensure!(anew["metadata"]["uid"] != after["metadata"]["uid"] && anew["metadata"]["generation"] == 1, "{anew}");
    Ok(())
}

async fn edited(kubectl: Kubectl) -> Result<()> {
    let editor = kubectl.script("editor", "sed -i 's/leaseDurationSeconds: .*/leaseDurationSeconds: 45/' \"$1\"")?;
    let wrong = kubectl.script(
        "wrong",
        "cp \"$1\" \"$0.seen\"; sed -i 's/leaseDurationSeconds: .*/leaseDurationSeconds: much/' \"$1\"",
    )?;
    let kubectl = kubectl.env("EDITOR", &editor);
    kubectl.says("edit mcl c1", &format!("{CLUSTER}/c1 edited")).await?;
    ensure!(kubectl.get("mcl c1").await?["spec"]["leaseDurationSeconds"] == 45);
    let unchanged = kubectl.run("edit mcl c1").await?;
    ensure!(unchanged.stderr.contains("Edit cancelled, no changes made."), "{unchanged:?}");
    let kubectl = kubectl.env("EDITOR", &wrong);
    let refused = kubectl.fails("edit mcl c1").await?;
    ensure!(refused.contains("managedclusters.cluster.open-cluster-management.io \"c1\" is invalid"), "{refused}");
    // kubectl has asked again, with the reason above what was written.
    let seen = std::fs::read_to_string(wrong.with_extension("seen"))?;
    ensure!(seen.contains("spec.leaseDurationSeconds in body must be of type integer: \"string\""), "{seen}");
    ensure!(kubectl.get("mcl c1").await?["spec"]["leaseDurationSeconds"] == 45);
    kubectl.ok("delete mcl c1").await?;
    kubectl.ok("delete mclset prod").await.map(drop)
}

#[tokio::test]
async fn labels_annotations_and_patches_of_each_type_change_what_they_name() -> Result<()> {
    let hub = Hub::start().await?;
    for kubectl in full(&hub)? {
        kubectl.ok(&format!("create -f {}", kubectl.file(&cluster("c1", false))?)).await?;
        labelled(&kubectl).await?;
        patched(&kubectl).await?;
        kubectl.ok("delete mcl c1").await?;
        kubectl.ok("label ns default color- size-").await?;
    }
    Ok(())
}

async fn labelled(kubectl: &Kubectl) -> Result<()> {
    for (command, said) in [
        ("label mcl c1 tier=gold", "labeled"),
        ("label mcl c1 tier=gold", "not labeled"),
        ("label --overwrite mcl c1 tier=silver", "labeled"),
        ("label mcl c1 tier-", "unlabeled"),
        ("annotate mcl c1 'note=two words'", "annotated"),
        ("annotate mcl c1 note-", "annotated"),
    ] {
        kubectl.says(command, &format!("{CLUSTER}/c1 {said}")).await?;
    }
    kubectl.ok("label mcl --all zone=a").await?;
    kubectl.says("get mcl -l zone=a -o name", &format!("{CLUSTER}/c1")).await?;
    kubectl
        .refused(
            "label mcl c1 other=b --resource-version=1",
            "Error from server (Conflict): Operation cannot be fulfilled on",
        )
        .await?;
    // kubectl itself looks at labels; the server does, too.
    kubectl
        .refused(
            "patch mcl c1 --type=merge -p '{\"metadata\":{\"labels\":{\"a\":\"b c\"}}}'",
            "The ManagedCluster \"c1\" is invalid: metadata.labels: Invalid value: \"b c\": a valid label must be",
        )
        .await?;
    let object = kubectl.get("mcl c1").await?;
    ensure!(object["metadata"]["generation"] == 1, "labels are no change of what is wanted: {object}");
    ensure!(object["metadata"].get("annotations").is_none(), "{object}");
    Ok(())
}

async fn patched(kubectl: &Kubectl) -> Result<()> {
    let patched = format!("{CLUSTER}/c1 patched");
    let unchanged = format!("{CLUSTER}/c1 patched (no change)");
    let merge = "patch mcl c1 --type=merge -p";
    kubectl.says(&format!("{merge} '{{\"spec\":{{\"hubAcceptsClient\":true}}}}'"), &patched).await?;
    kubectl.says(&format!("{merge} '{{\"spec\":{{\"hubAcceptsClient\":true}}}}'"), &unchanged).await?;
    kubectl.says(&format!("{merge} '{{\"spec\":{{\"managedClusterClientConfigs\":null}}}}'"), &patched).await?;
    let json = "patch mcl c1 --type=json -p";
    let steps = r#"[{"op":"test","path":"/spec/leaseDurationSeconds","value":60},
        {"op":"replace","path":"/spec/leaseDurationSeconds","value":30},
        {"op":"add","path":"/metadata/labels/from","value":"x"},
        {"op":"copy","from":"/metadata/labels/from","path":"/metadata/labels/copied"},
        {"op":"move","from":"/metadata/labels/from","path":"/metadata/labels/moved"},
        {"op":"remove","path":"/metadata/labels/copied"}]"#;
    kubectl.says(&format!("{json} '{steps}'"), &patched).await?;
    let object = kubectl.get("mcl c1").await?;
    let (accepts, lease) = (&object["spec"]["hubAcceptsClient"], &object["spec"]["leaseDurationSeconds"]);
    ensure!(*accepts == true && *lease == 30, "{object}");
    ensure!(object["spec"].get("managedClusterClientConfigs").is_none(), "{object}");
    ensure!(object["metadata"]["labels"]["moved"] == "x" && object["metadata"]["labels"].get("from").is_none());
    ensure!(object["metadata"]["generation"] == 4, "{object}");
    kubectl.refused(&format!("{json} '{steps}'"), "The request is invalid: patch: operation 0").await?;
    // As of custom resources: nobody told kubectl how their lists merge.
    let strategic = kubectl.fails("patch mcl c1 -p '{\"spec\":{}}'").await?;
    ensure!(
        strategic.contains("application/strategic-merge-patch+json is not supported by")
            && strategic.contains("ManagedCluster"),
        "{strategic}"
    );
    // A namespace has a list that merges by its values, and labels that merge by their keys.
    kubectl
        .says(
            "patch ns default -p '{\"metadata\":{\"labels\":{\"color\":\"red\",\"size\":\"s\"}}}'",
            "namespace/default patched",
        )
        .await?;
    kubectl
        .says("patch ns default -p '{\"metadata\":{\"labels\":{\"size\":null}}}'", "namespace/default patched")
        .await?;
    let namespace = kubectl.get("ns default").await?;
    ensure!(
        namespace["metadata"]["labels"] == json!({"color": "red", "kubernetes.io/metadata.name": "default"}),
        "{namespace}"
    );
    // The status is a part of its own.
    let status = r#"'{"status":{"version":{"kubernetes":"v1.30.0"}},"spec":{"leaseDurationSeconds":1}}'"#;
    kubectl.says(&format!("{merge} {status} --subresource=status"), &patched).await?;
    let object = kubectl.get("mcl c1").await?;
    ensure!(
        object["status"]["version"]["kubernetes"] == "v1.30.0" && object["spec"]["leaseDurationSeconds"] == 30,
        "{object}"
    );
    kubectl.says("get mcl c1 --subresource=status -o jsonpath={.status.version.kubernetes}", "v1.30.0").await?;
    kubectl.says(&format!("{merge} '{{\"status\":{{\"version\":null}}}}'"), &unchanged).await?;
    let dry = kubectl.ok(&format!("{merge} '{{\"spec\":{{\"leaseDurationSeconds\":7}}}}' --dry-run=server -o jsonpath={{.spec.leaseDurationSeconds}}")).await?;
    ensure!(dry == "7" && kubectl.get("mcl c1").await?["spec"]["leaseDurationSeconds"] == 30, "{dry}");
    Ok(())
}

#[tokio::test]
async fn deletions_wait_for_finalizers_and_waits_end_when_they_hold() -> Result<()> {
    let hub = Hub::start().await?;
    for kubectl in full(&hub)? {
        let file = |name: &str| kubectl.file(&cluster(name, true));
        for name in ["c1", "c2", "c3", "c4"] {
            kubectl.ok(&format!("create -f {}", file(name)?)).await?;
        }
        waited(&kubectl).await?;
        // One with a finalizer goes when its owner lets it.
        kubectl.ok("patch mcl c1 --type=merge -p '{\"metadata\":{\"finalizers\":[\"example.com/a\"]}}'").await?;
        kubectl.ok("delete mcl c1 --wait=false").await?;
        let going = kubectl.get("mcl c1").await?;
        ensure!(
            going["metadata"]["deletionTimestamp"].is_string() && going["metadata"]["deletionGracePeriodSeconds"] == 0,
            "{going}"
        );
        kubectl
            .refused("delete mcl c1 --timeout=1s", "timed out waiting for the condition on managedclusters/c1")
            .await?;
        let more = r#"'[{"op":"add","path":"/metadata/finalizers/-","value":"example.com/b"}]'"#;
        kubectl.refused(&format!("patch mcl c1 --type=json -p {more}"), "metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers []string{\"example.com/b\"}").await?;
        let mut delete = kubectl.spawn("delete mcl c1")?;
        let mut gone = kubectl.spawn("wait mcl/c1 --for=delete --timeout=60s")?;
        delete.stdout_line(BOUND, "the deletion", |line| line.contains("\"c1\" deleted").then_some(())).await?;
        ensure!(delete.is_running()? && gone.is_running()?);
        kubectl.ok("patch mcl c1 --type=merge -p '{\"metadata\":{\"finalizers\":null}}'").await?;
        delete.exits_with(0, BOUND).await?;
        gone.exits_with(0, BOUND).await?;
        kubectl.refused("get mcl c1", "(NotFound)").await?;
        for (command, left) in [
            ("delete mcl c2 --cascade=foreground", "c3 c4"),
            ("delete mcl c3 --cascade=orphan --now", "c4"),
            ("delete mcl -l env=c4-env", ""),
        ] {
            kubectl.ok(command).await?;
            kubectl.says("get mcl -o jsonpath={.items[*].metadata.name}", left).await?;
        }
        kubectl
            .refused(
                "delete mcl c2",
                "Error from server (NotFound): managedclusters.cluster.open-cluster-management.io \"c2\" not found",
            )
            .await?;
        kubectl.says("delete mcl c2 --ignore-not-found", "").await?;
        kubectl.ok(&format!("create -f {}", file("c5")?)).await?;
        let dry = kubectl.ok("delete mcl --all --dry-run=server").await?;
        ensure!(dry.contains("\"c5\" deleted (server dry run)"), "{dry}");
        kubectl.ok("delete mcl --all").await?;
        kubectl.says("get mcl -o name", "").await?;
    }
    Ok(())
}

async fn waited(kubectl: &Kubectl) -> Result<()> {
    let met = format!("{CLUSTER}/c1 condition met");
    kubectl.says("wait mcl c1 --for=condition=HubAcceptedManagedCluster --timeout=60s", &met).await?;
    kubectl.says("wait mcl c1 --for=jsonpath={.spec.leaseDurationSeconds}=60 --timeout=60s", &met).await?;
    kubectl
        .refused(
            "wait mcl c1 --for=condition=HubAcceptedManagedCluster=false --timeout=1s",
            "timed out waiting for the condition on managedclusters/c1",
        )
        .await?;
    let mut denied = kubectl.spawn("wait mcl c1 --for=condition=HubAcceptedManagedCluster=false --timeout=60s")?;
    kubectl.ok("patch mcl c1 --type=merge -p '{\"spec\":{\"hubAcceptsClient\":false}}'").await?;
    denied.exits_with(0, BOUND).await?;
    kubectl.says("wait mcl/c9 --for=delete --timeout=5s", "").await
}

/// kubectl from 1.32 on sends these as protobuf.
#[tokio::test]
async fn kubernetes_own_kinds_are_created_described_and_deleted() -> Result<()> {
    let hub = Hub::start().await?;
    for kubectl in full(&hub)? {
        for (command, said) in [
            ("create namespace team", "namespace/team created"),
            ("create secret generic s1 -n team --from-literal=user=me --from-literal=password=it", "secret/s1 created"),
            (
                "create role reader -n team --verb=get,list --resource=secrets",
                "role.rbac.authorization.k8s.io/reader created",
            ),
            (
                "create rolebinding readers -n team --role=reader --user=alice --group=staff",
                "rolebinding.rbac.authorization.k8s.io/readers created",
            ),
            (
                "create clusterrole reach --verb=proxy --resource=managedclusters.cluster.open-cluster-management.io --resource-name=c1",
                "clusterrole.rbac.authorization.k8s.io/reach created",
            ),
            (
                "create clusterrole metrics --verb=get --non-resource-url=/metrics",
                "clusterrole.rbac.authorization.k8s.io/metrics created",
            ),
            (
                "create clusterrolebinding reachers --clusterrole=reach --user=alice",
                "clusterrolebinding.rbac.authorization.k8s.io/reachers created",
            ),
        ] {
            kubectl.says(command, said).await?;
        }
        let reach = kubectl.get("clusterrole reach").await?;
        ensure!(
            reach["rules"]
                == json!([{"apiGroups": ["cluster.open-cluster-management.io"], "resourceNames": ["c1"], "resources": ["managedclusters"], "verbs": ["proxy"]}]),
            "{reach}"
        );
        let secret = kubectl.get("secret s1 -n team").await?;
        ensure!(
            secret["data"] == json!({"user": "bWU=", "password": "aXQ="}) && secret["type"] == "Opaque",
            "{secret}"
        );
        let row = &kubectl.table("get rolebinding -n team -o wide").await?[0];
        ensure!(row["ROLE"] == "Role/reader" && row["USERS"] == "alice" && row["GROUPS"] == "staff", "{row:?}");
        kubectl
            .says(
                "set subject rolebinding readers -n team --user=bob",
                "rolebinding.rbac.authorization.k8s.io/readers subjects updated",
            )
            .await?;
        let kept = kubectl.fails("patch clusterrolebinding reachers -p '{\"roleRef\":{\"name\":\"view\"}}'").await?;
        ensure!(kept.contains("cannot change roleRef"), "{kept}");
        // Everything in a namespace goes with it.
        kubectl.ok(&format!("create -f {}", kubectl.file(&binding("team", "default"))?)).await?;
        let deleted = kubectl.ok("delete namespace team").await?;
        ensure!(deleted.contains("\"team\" deleted"), "{deleted}");
        for what in ["secrets", "roles", "rolebindings", "mclsetbindings"] {
            kubectl.says(&format!("get {what} -A -o name"), "").await?;
        }
        kubectl.ok("delete clusterrole reach metrics").await?;
        kubectl.ok("delete clusterrolebinding reachers").await?;
    }
    Ok(())
}

#[tokio::test]
async fn every_other_kubectl_writes_too() -> Result<()> {
    let hub = Hub::start().await?;
    for kubectl in others(&hub)? {
        let file = kubectl.file(&cluster("c1", false))?;
        kubectl.says(&format!("apply -f {file}"), &format!("{CLUSTER}/c1 created")).await?;
        kubectl.says(&format!("apply -f {file}"), &format!("{CLUSTER}/c1 unchanged")).await?;
        kubectl.ok("label mcl c1 tier=gold").await?;
        kubectl.ok("patch mcl c1 --type=merge -p '{\"spec\":{\"hubAcceptsClient\":true}}'").await?;
        kubectl.ok("wait mcl c1 --for=condition=HubAcceptedManagedCluster --timeout=60s").await?;
        kubectl.ok(&format!("apply --server-side --force-conflicts -f {file}")).await?;
        ensure!(kubectl.get("mcl c1").await?["spec"]["hubAcceptsClient"] == false);
        kubectl.ok("create namespace team").await?;
        kubectl.ok("create role reader -n team --verb=get --resource=secrets").await?;
        kubectl.says("auth can-i update mclset", "yes").await?;
        kubectl.ok("delete namespace team").await?;
        kubectl.ok("delete mcl c1").await?;
        kubectl.refused("get mcl c1", "(NotFound)").await?;
    }
    ensure!(admin(&hub)?.ok("get mcl -o name").await?.is_empty());
    Ok(())
}

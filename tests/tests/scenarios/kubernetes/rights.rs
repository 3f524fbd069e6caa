//! Rights seen through kubectl: who may what, who speaks as whom, and lists and watches that show what may be seen.

use anyhow::{Context as _, Result, ensure};
use hyper::Method;
use tests::hub::ClusterAccess;
use tests::{Fetch, Hub, Kubectl};

use super::watching::shows;
use super::{CLUSTER, SET, admin, binding, cluster, full, set};

/// Users who have no rights but those that a scenario gives them.
async fn user(hub: &Hub, name: &str) -> Result<Kubectl> {
    let credentials = hub.create_user(name, &ClusterAccess::Named(Vec::new())).await?;
    Kubectl::user(hub, &credentials)
}

#[tokio::test]
async fn kubectl_tells_who_one_is_and_what_one_may() -> Result<()> {
    let hub = Hub::start().await?;
    let alice = hub.create_user("alice", &ClusterAccess::Named(vec!["c1".to_owned()])).await?;
    let alice = Kubectl::user(&hub, &alice)?;
    for kubectl in full(&hub)? {
        let me = kubectl.ok("auth whoami").await?;
        ensure!(me.lines().nth(1).is_some_and(|line| line.split_whitespace().eq(["Username", "admin"])), "{me}");
        ensure!(me.contains("[system:masters system:authenticated]"), "{me}");
        for (question, answer) in [("create mcl", "yes"), ("delete mclset/prod", "yes"), ("list secrets -A", "yes")] {
            kubectl.says(&format!("auth can-i {question}"), answer).await?;
        }
        let all = kubectl.ok("auth can-i --list").await?;
        ensure!(all.lines().any(|line| line.split_whitespace().eq(["*.*", "[]", "[]", "[*]"])), "{all}");
        for (question, answer) in
            [("get mcl/c1", "yes"), ("proxy mcl/c1", "yes"), ("get mcl/c2", "no"), ("create mcl", "no")]
        {
            let asked = kubectl.run(&format!("auth can-i {question} --as alice")).await?;
            ensure!(asked.exited_with(i32::from(answer == "no"))?.trim_end() == answer, "{question}");
        }
        let other = kubectl.ok("auth whoami --as bob --as-group staff -o json").await?;
        let other: serde_json::Value = serde_json::from_str(&other)?;
        ensure!(other["status"]["userInfo"]["username"] == "bob", "{other}");
        ensure!(
            other["status"]["userInfo"]["groups"] == serde_json::json!(["staff", "system:authenticated"]),
            "{other}"
        );
        let refused = "Error from server (Forbidden): managedclusters.cluster.open-cluster-management.io is forbidden: User \"bob\" cannot \
                       list resource \"managedclusters\" in API group \"cluster.open-cluster-management.io\" at the cluster scope";
        kubectl.refused("get mcl --as bob", refused).await?;
    }
    alice.says("auth can-i get mcl/c1", "yes").await?;
    let rights = alice.ok("auth can-i --list").await?;
    ensure!(
        rights.contains("managedclusters.cluster.open-cluster-management.io") && rights.contains("[c1]"),
        "{rights}"
    );
    alice
        .refused(
            "get mcl --as admin",
            "users \"admin\" is forbidden: User \"alice\" cannot impersonate resource \"users\" in API group \"\" at the cluster scope",
        )
        .await?;
    alice.refused("get ns --as alice --as-group system:masters", "(Forbidden)").await
}

#[tokio::test]
async fn one_who_reads_a_set_sees_its_clusters_come_and_go() -> Result<()> {
    let hub = Hub::start().await?;
    let (admin, alice) = (admin(&hub)?, user(&hub, "alice").await?);
    let mut everything = vec![set("prod")];
    everything.extend(["c1", "c2", "c3"].map(|name| cluster(name, true)));
    admin.ok(&format!("create -f {}", admin.file(&everything.join("---\n"))?)).await?;
    admin.ok(&format!("label --overwrite mcl c1 c2 {SET}=prod")).await?;
    let forbidden = "Error from server (Forbidden): managedclusters.cluster.open-cluster-management.io is forbidden: User \"alice\" \
                     cannot list resource \"managedclusters\"";
    alice.refused("get mcl", forbidden).await?;
    alice.refused("get mcl c1", "(Forbidden)").await?;
    let grant = "create clusterrole prod-view --verb=get,list,watch --resource=managedclustersets.cluster.open-cluster-management.io --resource-name=prod";
    admin.ok(grant).await?;
    admin.ok("create clusterrolebinding alice --clusterrole=prod-view --user=alice").await?;
    alice.says("get mcl -o name", &names(&["c1", "c2"])).await?;
    alice.says("get mclset -o name", "managedclusterset.cluster.open-cluster-management.io/prod").await?;
    alice.says("get mcl c2 -o name", &names(&["c2"])).await?;
    alice.says("get mcl --chunk-size=1 -o name", &names(&["c1", "c2"])).await?;
    alice.refused("get mcl c3", "managedclusters.cluster.open-cluster-management.io \"c3\" is forbidden").await?;
    alice.refused("label mcl c1 a=b", "User \"alice\" cannot patch resource \"managedclusters\"").await?;
    alice.refused("delete mcl c1", "cannot delete resource").await?;

    let watch = alice.spawn("get mcl --watch --output-watch-events")?;
    shows(&watch, "ADDED c1").await?;
    shows(&watch, "ADDED c2").await?;
    // Into the set and out of it.
    admin.ok(&format!("label --overwrite mcl c3 {SET}=prod")).await?;
    shows(&watch, "ADDED c3").await?;
    admin.ok(&format!("label --overwrite mcl c1 {SET}=default")).await?;
    shows(&watch, "DELETED c1").await?;
    alice.says("get mcl -o name", &names(&["c2", "c3"])).await?;
    // A change of what is not seen is not told.
    admin.ok("annotate mcl c1 unseen=change").await?;
    admin.ok("delete mcl c2").await?;
    shows(&watch, "DELETED c2").await?;
    // The right goes, and with it everything.
    admin.ok("delete clusterrolebinding alice").await?;
    shows(&watch, "DELETED c3").await?;
    let told = watch.stdout();
    ensure!(told.iter().filter(|line| line.contains(" c1 ")).count() == 2, "{told:?}");
    alice.refused("get mcl", forbidden).await
}

#[tokio::test]
async fn a_label_selector_set_shows_what_its_selector_finds() -> Result<()> {
    let hub = Hub::start().await?;
    let (admin, alice) = (admin(&hub)?, user(&hub, "alice").await?);
    let mut everything = vec![format!(
        "{}spec:\n  clusterSelector:\n    selectorType: LabelSelector\n    labelSelector:\n      matchLabels: {{zone: a}}\n",
        set("zone-a")
    )];
    everything.extend(["c1", "c2"].map(|name| cluster(name, false)));
    admin.ok(&format!("create -f {}", admin.file(&everything.join("---\n"))?)).await?;
    admin.ok("create clusterrole zone --verb=get,list,watch --resource=managedclustersets.cluster.open-cluster-management.io --resource-name=zone-a").await?;
    admin.ok("create clusterrolebinding alice --clusterrole=zone --user=alice").await?;
    // There is nothing to see yet, and the right to look.
    alice.says("get mcl -o name", "").await?;
    let watch = alice.spawn("get mcl --watch --output-watch-events")?;
    admin.ok("label mcl c1 zone=a").await?;
    shows(&watch, "ADDED c1").await?;
    admin.ok("label mcl c1 zone-").await?;
    shows(&watch, "DELETED c1").await?;
    // The selector moves clusters as labels do.
    admin.ok("label mcl c2 zone=b").await?;
    let selector = r#"'{"spec":{"clusterSelector":{"labelSelector":{"matchLabels":{"zone":"b"}}}}}'"#;
    admin.ok(&format!("patch mclset zone-a --type=merge -p {selector}")).await?;
    shows(&watch, "ADDED c2").await?;
    admin.ok("delete mclset zone-a").await?;
    shows(&watch, "DELETED c2").await
}

#[tokio::test]
async fn each_set_has_roles_for_its_admin_and_its_viewers() -> Result<()> {
    let hub = Hub::start().await?;
    let (admin, alice) = (admin(&hub)?, user(&hub, "alice").await?);
    for kind in ["admin", "bind", "view"] {
        let role = |set: &str| format!("open-cluster-management:managedclusterset:{kind}:{set}");
        admin.ok(&format!("apply -f {}", admin.file(&set("prod"))?)).await?;
        admin.ok(&format!("wait clusterrole {} --for=create --timeout=30s", role("prod"))).await?;
        admin.ok(&format!("get clusterrole {} {}", role("default"), role("global"))).await?;
        admin.ok(&format!("create clusterrolebinding alice --clusterrole={} --user=alice", role("prod"))).await?;
        let may = |what: &str| format!("auth can-i {what}");
        for (what, kinds) in [
            ("get mclset/prod", ["admin", "view", "bind"].as_slice()),
            ("update mclset/prod", &["admin"]),
            ("create mclset/prod --subresource=join", &["admin"]),
            ("create mclset/prod --subresource=bind", &["admin", "bind"]),
            ("proxy mclset/prod", &["admin"]),
            ("get mclset/default", &[]),
        ] {
            let answer = alice.run(&may(what)).await?;
            answer.exited_with(i32::from(!kinds.contains(&kind))).with_context(|| format!("{kind}: {what}"))?;
        }
        admin.ok("delete clusterrolebinding alice").await?;
        admin.ok("delete mclset prod").await?;
        admin.ok(&format!("wait clusterrole {} --for=delete --timeout=30s", role("prod"))).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_workspace_shows_what_is_bound_to_it() -> Result<()> {
    let hub = Hub::start().await?;
    let (admin, alice) = (admin(&hub)?, user(&hub, "alice").await?);
    let mut everything = vec![set("prod")];
    everything.extend(["c1", "c2"].map(|name| cluster(name, true)));
    admin.ok(&format!("create -f {}", admin.file(&everything.join("---\n"))?)).await?;
    admin.ok(&format!("label --overwrite mcl c1 {SET}=prod")).await?;
    admin.ok("create namespace team").await?;
    admin.ok("create rolebinding alice -n team --clusterrole=cluster-proxy:user --user=alice").await?;
    alice.refused("get mcl -o name", "(Forbidden)").await?;
    alice.refused("get mcl c1", "(Forbidden)").await?;
    admin.ok(&format!("create -f {}", admin.file(&binding("team", "prod"))?)).await?;
    alice.says("get mcl -o name", &names(&["c1"])).await?;
    let watch = alice.spawn("get mcl --watch --output-watch-events")?;
    shows(&watch, "ADDED c1").await?;
    admin.ok("delete mclsetbinding prod -n team").await?;
    shows(&watch, "DELETED c1").await?;
    alice.refused("get mcl -o name", "(Forbidden)").await?;
    alice.refused("get mcl c1", "(Forbidden)").await
}

#[tokio::test]
async fn one_without_a_right_is_told_which_one_is_missing() -> Result<()> {
    let hub = Hub::start().await?;
    let (admin, bob) = (admin(&hub)?, user(&hub, "bob").await?);
    admin.ok("create namespace team").await?;
    let mut everything = vec![set("prod"), set("test")];
    everything.extend([cluster("c1", false), cluster("c2", true)]);
    admin.ok(&format!("create -f {}", admin.file(&everything.join("---\n"))?)).await?;
    let role = "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata: {name: writer}\nrules:\n\
        - {apiGroups: [cluster.open-cluster-management.io], resources: [managedclusters, managedclustersets, managedclustersetbindings], verbs: [get, list, create, update, patch, delete]}\n\
        - {apiGroups: [cluster.open-cluster-management.io], resources: [managedclustersets/join, managedclustersets/bind], resourceNames: [test], verbs: [create]}\n\
        - {apiGroups: [rbac.authorization.k8s.io], resources: [clusterroles, clusterrolebindings], verbs: [get, create, update, patch]}\n";
    admin.ok(&format!("create -f {}", admin.file(role)?)).await?;
    admin.ok("create clusterrolebinding bob --clusterrole=writer --user=bob").await?;

    // Open Cluster Management's own sentences.
    let accept = "user \"bob\" cannot update the HubAcceptsClient field";
    bob.refused("patch mcl c1 --type=merge -p '{\"spec\":{\"hubAcceptsClient\":true}}'", accept).await?;
    bob.refused(&format!("create -f {}", bob.file(&cluster("c3", true))?), accept).await?;
    bob.ok("patch mcl c2 --type=merge -p '{\"spec\":{\"hubAcceptsClient\":false}}'").await?;
    let join =
        |set: &str| format!("user \"bob\" cannot add/remove a ManagedCluster to/from ManagedClusterSet \"{set}\"");
    bob.refused(&format!("label --overwrite mcl c1 {SET}=prod"), &join("default")).await?;
    admin.ok(&format!("label --overwrite mcl c1 {SET}=test")).await?;
    bob.refused(&format!("label --overwrite mcl c1 {SET}=prod"), &join("prod")).await?;
    bob.ok("label mcl c1 any=other").await?;
    bob.refused(
        &format!("create -f {}", bob.file(&binding("team", "prod"))?),
        "user \"bob\" is not allowed to bind cluster set \"prod\"",
    )
    .await?;
    bob.ok(&format!("create -f {}", bob.file(&binding("team", "test"))?)).await?;
    bob.ok("label mclsetbinding test -n team a=b").await?;
    bob.ok("delete mclsetbinding test -n team").await?;

    // Nobody gives away what they do not have.
    let more = "create clusterrole more --verb=get --resource=secrets";
    bob.refused(
        more,
        "user \"bob\" (groups=[\"system:authenticated\"]) is attempting to grant RBAC permissions not currently held",
    )
    .await?;
    bob.refused(
        "create clusterrolebinding more --clusterrole=cluster-admin --user=bob",
        "is attempting to grant RBAC permissions not currently held",
    )
    .await?;
    bob.ok("create clusterrole less --verb=get --resource=managedclusters.cluster.open-cluster-management.io").await?;
    bob.ok("create clusterrolebinding less --clusterrole=less --user=carol").await?;
    for (command, right) in [
        ("get secrets -n team", "cannot list resource \"secrets\" in API group \"\" in the namespace \"team\""),
        ("get ns team", "User \"bob\" cannot get resource \"namespaces\" in API group \"\" in the namespace \"team\""),
        ("get --raw /metrics", "forbidden: User \"bob\" cannot get path \"/metrics\""),
        ("create ns mine", "cannot create resource \"namespaces\""),
        ("delete mcl --all --wait=false --dry-run=server", ""),
    ] {
        if right.is_empty() {
            bob.ok(command).await?;
        } else {
            bob.refused(command, right).await?;
        }
    }
    Ok(())
}

#[tokio::test]
async fn one_whom_nobody_knows_is_asked_who_they_are() -> Result<()> {
    let hub = Hub::start().await?;
    for token in ["nonsense", "cpu-0123456789.x"] {
        let stranger = Kubectl::bearer(&hub, token)?;
        let refused = stranger.fails("get mcl").await?;
        ensure!(
            refused.contains("You must be logged in to the server") || refused.contains("(Unauthorized)"),
            "{refused}"
        );
        stranger.refused("auth whoami", "").await?;
    }
    let alice = user(&hub, "alice").await?;
    alice.ok("auth whoami").await?;
    let deleted = Fetch::new(Method::DELETE, "/v1/users/alice");
    hub.ask(deleted).await?.success()?;
    let refused = alice.fails("auth whoami").await?;
    ensure!(refused.contains("You must be logged in to the server") || refused.contains("(Unauthorized)"), "{refused}");
    Ok(())
}

fn names(clusters: &[&str]) -> String {
    clusters.iter().map(|name| format!("{CLUSTER}/{name}\n")).collect()
}

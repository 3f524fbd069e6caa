//! Reading with kubectl: tables, formats, selectors, pages, descriptions, explanations.

use anyhow::{Context as _, Result, ensure};
use tests::{Hub, Kubectl, Spoke, tool, wait_for};

use super::{BOUND, CLUSTER, SET, admin, binding, cluster, full, others, set};

/// An event of the cluster `c1`; kubectl looks for it by the cluster's UID.
fn event(uid: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Event\nmetadata: {{name: e1, namespace: default}}\n\
         involvedObject: {{apiVersion: cluster.open-cluster-management.io/v1, kind: ManagedCluster, name: c1, uid: {uid}}}\n\
         type: Warning\nreason: Tried\nmessage: It was tried.\n\
         firstTimestamp: 2026-01-01T00:00:00Z\nlastTimestamp: 2026-01-01T00:00:00Z\ncount: 3\n"
    )
}

/// Five clusters, the first two accepted and in the set `prod`, which is bound to the namespace `team`; an event of the first.
async fn furnished() -> Result<Hub> {
    let hub = Hub::start().await?;
    let admin = admin(&hub)?;
    admin.ok("create namespace team").await?;
    let mut everything = vec![set("prod"), binding("team", "prod")];
    everything.extend((1..=5).map(|n| cluster(&format!("c{n}"), n <= 2)));
    admin.ok(&format!("create -f {}", admin.file(&everything.join("---\n"))?)).await?;
    admin.ok(&format!("label --overwrite mcl c1 c2 {SET}=prod")).await?;
    let uid = admin.ok("get mcl c1 -o jsonpath={.metadata.uid}").await?;
    admin.ok(&format!("create -f {}", admin.file(&event(&uid))?)).await?;
    admin.ok("create secret generic s1 -n team --from-literal=a=b").await?;
    Ok(hub)
}

#[tokio::test]
async fn the_newest_the_default_and_an_old_kubectl_read_in_every_way() -> Result<()> {
    let hub = furnished().await?;
    let mut all = full(&hub)?;
    all.push(Kubectl::administrator(&hub, tool::old_kubectl()?)?);
    for kubectl in &all {
        tables(kubectl).await?;
        formats(kubectl).await?;
        selections(kubectl).await?;
        descriptions(kubectl).await?;
    }
    for kubectl in full(&hub)? {
        explanations(&kubectl).await?;
        let events = kubectl.ok("events --for managedcluster/c1").await?;
        ensure!(events.contains("Tried") && events.contains("It was tried."), "{events}");
    }
    Ok(())
}

#[tokio::test]
async fn every_other_kubectl_reads_what_there_is() -> Result<()> {
    let hub = furnished().await?;
    for kubectl in others(&hub)? {
        heads(&kubectl, &COLUMNS[..2]).await?;
        kubectl.says("get mcl -l 'env in (c1-env, c4-env)' -o name", &names(&["c1", "c4"])).await?;
        kubectl.says("get mcl --chunk-size=2 -o name", &names(&["c1", "c2", "c3", "c4", "c5"])).await?;
        kubectl.says("get mcl c1 -o 'jsonpath={.status.conditions[0].reason}'", "HubClusterAdminAccepted").await?;
        let described = kubectl.ok("describe mcl c1").await?;
        ensure!(described.contains("Warning  Tried"), "{described}");
        let explained = kubectl.ok("explain mcl.spec").await?;
        ensure!(explained.contains("hubAcceptsClient"), "{explained}");
    }
    Ok(())
}

/// OCM's columns, byte for byte, and Kubernetes' own.
const COLUMNS: [(&str, &str); 8] = [
    ("get managedclusters", "NAME   HUB ACCEPTED   MANAGED CLUSTER URLS      JOINED   AVAILABLE   AGE"),
    ("get mclset default", "NAME      EMPTY   AGE"),
    ("get managedclustersetbindings -n team", "NAME   AGE"),
    ("get ns", "NAME      STATUS   AGE"),
    ("get secrets -n team", "NAME   TYPE     DATA   AGE"),
    ("get clusterroles cluster-admin", "NAME            CREATED AT"),
    ("get mclsetbindings -A", "NAMESPACE   NAME   AGE"),
    ("get ev", "LAST SEEN   TYPE      REASON   OBJECT              MESSAGE"),
];

async fn heads(kubectl: &Kubectl, columns: &[(&str, &str)]) -> Result<()> {
    for (command, columns) in columns {
        let said = kubectl.ok(command).await?;
        let head = said.lines().next().context("no table")?;
        ensure!(head.trim_end() == *columns, "{} {command}: {head:?} is not {columns:?}", kubectl.name());
    }
    Ok(())
}

async fn tables(kubectl: &Kubectl) -> Result<()> {
    heads(kubectl, &COLUMNS).await?;
    let clusters = kubectl.table("get mcl").await?;
    let cells: Vec<[&str; 4]> = clusters
        .iter()
        .map(|row| ["NAME", "HUB ACCEPTED", "MANAGED CLUSTER URLS", "JOINED"].map(|column| row[column].as_str()))
        .collect();
    ensure!(cells[0] == ["c1", "true", "https://c1.example:6443", ""], "{cells:?}");
    ensure!(cells[4] == ["c5", "false", "https://c5.example:6443", ""], "{cells:?}");
    ensure!(clusters.iter().all(|row| is_age(&row["AGE"])), "{clusters:?}");
    let wide = kubectl.table("get mcl -o wide").await?;
    ensure!(wide[0]["SET"] == "prod" && wide[4]["SET"] == "default", "{wide:?}");
    for column in ["VERSION", "LAST SEEN", "TUNNEL", "REASON"] {
        ensure!(wide[0].contains_key(column), "no {column} in {wide:?}");
    }
    let labels = kubectl.table("get mcl c1 --show-labels").await?;
    ensure!(labels[0]["LABELS"] == format!("{SET}=prod,env=c1-env"), "{labels:?}");
    let column = kubectl.table("get mcl c3 -L env").await?;
    ensure!(column[0]["ENV"] == "c3-env", "{column:?}");
    let event = &kubectl.table("get events").await?[0];
    ensure!(event["OBJECT"] == "managedcluster/c1" && event["REASON"] == "Tried", "{event:?}");
    let both = kubectl.ok("get mcl/c1 mclset/global").await?;
    ensure!(both.contains(&format!("{CLUSTER}/c1 ")) && both.contains("\n\nNAME"), "{both}");
    let none = kubectl.run("get csr").await?;
    ensure!(none.stderr == "No resources found\n", "{none:?}");
    let none = kubectl.run("get secrets -n default").await?;
    ensure!(none.stderr == "No resources found in default namespace.\n", "{none:?}");
    Ok(())
}

async fn formats(kubectl: &Kubectl) -> Result<()> {
    kubectl
        .says(
            "get mclset -o name",
            "managedclusterset.cluster.open-cluster-management.io/default\n\
        managedclusterset.cluster.open-cluster-management.io/global\n\
        managedclusterset.cluster.open-cluster-management.io/prod",
        )
        .await?;
    kubectl
        .says(
            "get mcl c1 c3 -o 'jsonpath={range .items[*]}{.metadata.name}={.spec.hubAcceptsClient} {end}'",
            "c1=true c3=false",
        )
        .await?;
    kubectl.says("get mcl -o 'jsonpath={.items[*].metadata.name}'", "c1 c2 c3 c4 c5").await?;
    kubectl.says("get mcl -o 'go-template={{len .items}}'", "5").await?;
    let columns = kubectl.ok("get mcl c2 -o custom-columns=N:.metadata.name,E:.metadata.labels.env").await?;
    ensure!(columns.split_whitespace().eq(["N", "E", "c2", "c2-env"]), "{columns}");
    kubectl
        .says(
            "get mcl --sort-by '.metadata.labels.cluster\\.open-cluster-management\\.io/clusterset' -o name",
            &names(&["c3", "c4", "c5", "c1", "c2"]),
        )
        .await?;
    let sorted = kubectl.table("get mcl --sort-by=.metadata.name").await?;
    ensure!(sorted[0]["NAME"] == "c1" && sorted[0]["HUB ACCEPTED"] == "true", "{sorted:?}");
    let json = kubectl.get("mcl c1").await?;
    ensure!(json["kind"] == "ManagedCluster" && json["spec"]["leaseDurationSeconds"] == 60, "{json}");
    ensure!(
        json["metadata"]["generation"] == 1 && json["status"]["conditions"][0]["type"] == "HubAcceptedManagedCluster",
        "{json}"
    );
    let list = kubectl.get("mcl,mclset").await?;
    ensure!(list["kind"] == "List" && list["items"].as_array().is_some_and(|items| items.len() == 8), "{list}");
    let yaml = kubectl.ok("get mclset global -o yaml").await?;
    ensure!(
        yaml.starts_with("apiVersion: cluster.open-cluster-management.io/v1beta2\nkind: ManagedClusterSet\n"),
        "{yaml}"
    );
    ensure!(yaml.contains("  clusterSelector:\n    labelSelector: {}\n    selectorType: LabelSelector\n"), "{yaml}");
    let raw = kubectl.ok("get --raw /apis/cluster.open-cluster-management.io/v1/managedclusters/c1").await?;
    ensure!(serde_json::from_str::<serde_json::Value>(&raw)?["metadata"]["name"] == "c1", "{raw}");
    ensure!(kubectl.ok("get --raw /readyz").await? == "ok");
    Ok(())
}

async fn selections(kubectl: &Kubectl) -> Result<()> {
    for (selector, found) in [
        ("-l env=c1-env", &["c1"][..]),
        ("-l 'env in (c1-env, c4-env)'", &["c1", "c4"]),
        ("-l 'env notin (c1-env),env'", &["c2", "c3", "c4", "c5"]),
        ("-l env!=c2-env", &["c1", "c3", "c4", "c5"]),
        (&format!("--selector {SET}=prod"), &["c1", "c2"]),
        ("-l '!env'", &[]),
        ("--field-selector metadata.name=c3", &["c3"]),
        ("--field-selector metadata.name!=c3", &["c1", "c2", "c4", "c5"]),
        ("--chunk-size=2", &["c1", "c2", "c3", "c4", "c5"]),
        ("--chunk-size=2 -l env!=c1-env", &["c2", "c3", "c4", "c5"]),
        ("c4 c2", &["c4", "c2"]),
    ] {
        kubectl.says(&format!("get mcl {selector} -o name"), &names(found)).await?;
    }
    let chunked = kubectl.table("get mcl --chunk-size=2").await?;
    ensure!(chunked.len() == 5, "{chunked:?}");
    kubectl.says("get ns --field-selector status.phase=Active,metadata.name=team -o name", "namespace/team").await?;
    kubectl.says("get ns --field-selector status.phase=Terminating -o name", "").await?;
    kubectl.says("get secrets -A --field-selector type=Opaque -o name", "secret/s1").await?;
    kubectl.says("get events -A --field-selector involvedObject.name=c1,metadata.name=e1 -o name", "event/e1").await?;
    kubectl
        .refused(
            "get mcl --field-selector spec.hubAcceptsClient=true",
            "field label not supported: spec.hubAcceptsClient",
        )
        .await?;
    kubectl.refused("get mcl -l 'env in (a'", "unable to parse requirement: found '', expected: ',' or ')'").await?;
    Ok(())
}

async fn descriptions(kubectl: &Kubectl) -> Result<()> {
    let described = kubectl.ok("describe managedcluster c1").await?;
    for part in [
        "Name:         c1\n",
        "Kind:         ManagedCluster\n",
        "  Hub Accepts Client:      true\n",
        "    Reason:                HubClusterAdminAccepted\n",
        "    Message:               Accepted by hub cluster admin\n",
        "Warning  Tried",
        "It was tried.",
    ] {
        ensure!(described.contains(part), "no {part:?} in {described}");
    }
    for (command, part) in [
        ("describe mclset global", "Selector Type:  LabelSelector"),
        ("describe mclsetbinding prod -n team", "Cluster Set:  prod"),
        ("describe ns team", "Status:       Active"),
        ("describe secret s1 -n team", "a:  1 bytes"),
        ("describe clusterrole cluster-proxy:user", "managedclusters.cluster.open-cluster-management.io"),
        ("describe clusterrolebinding cluster-admin", "Group  system:masters"),
    ] {
        let described = kubectl.ok(command).await?;
        ensure!(described.contains(part), "{} {command}: no {part:?} in {described}", kubectl.name());
    }
    let resources = kubectl.ok("api-resources --no-headers").await?;
    let row = |plural: &str| {
        let row =
            resources.lines().map(|line| line.split_whitespace().collect::<Vec<_>>()).find(|row| row[0] == plural);
        row.map(|row| row.join(" "))
    };
    for (plural, rest) in [
        ("managedclusters", "mcl,mcls cluster.open-cluster-management.io/v1 false ManagedCluster"),
        ("managedclustersets", "mclset,mclsets cluster.open-cluster-management.io/v1beta2 false ManagedClusterSet"),
        (
            "managedclustersetbindings",
            "mclsetbinding,mclsetbindings cluster.open-cluster-management.io/v1beta2 true ManagedClusterSetBinding",
        ),
        ("managedclusteraddons", "mca,mcas addon.open-cluster-management.io/v1alpha1 true ManagedClusterAddOn"),
        ("certificatesigningrequests", "csr certificates.k8s.io/v1 false CertificateSigningRequest"),
    ] {
        ensure!(row(plural) == Some(format!("{plural} {rest}")), "{:?}", row(plural));
    }
    let watched = kubectl.ok("api-resources --namespaced=false --verbs=list,watch -o name").await?;
    ensure!(watched.lines().any(|name| name == "managedclustersets.cluster.open-cluster-management.io"), "{watched}");
    let versions = kubectl.ok("api-versions").await?;
    ensure!(versions.lines().any(|version| version == "cluster.open-cluster-management.io/v1beta2"), "{versions}");
    let version = kubectl.ok("version -o json").await?;
    let version: serde_json::Value = serde_json::from_str(&version)?;
    ensure!(version["serverVersion"]["major"] == "1", "{version}");
    Ok(())
}

async fn explanations(kubectl: &Kubectl) -> Result<()> {
    for (what, part) in [
        ("managedcluster", "KIND:       ManagedCluster"),
        ("mcl.spec", "hubAcceptsClient"),
        ("mcl.spec.taints --recursive", "timeAdded"),
        ("mclset.spec.clusterSelector.selectorType", "ExclusiveClusterSetLabel"),
        ("mclsetbinding.spec.clusterSet", "FIELD: clusterSet <string>"),
        ("csr.spec.signerName", "FIELD: signerName <string>"),
        ("clusterrole.rules", "resourceNames"),
        ("mca.status.conditions", "lastTransitionTime"),
    ] {
        let said = kubectl.ok(&format!("explain {what}")).await?;
        ensure!(said.contains(part), "{} explain {what}: no {part:?} in {said}", kubectl.name());
    }
    kubectl.refused("explain mcl.spec.nothing", "field \"nothing\" does not exist").await
}

#[tokio::test]
async fn what_an_agent_makes_known_shows_in_ocms_columns() -> Result<()> {
    let hub = Hub::start().await?;
    let _spoke = Spoke::of(&hub, "edge").agent("node").start().await?;
    let admin = admin(&hub)?;
    wait_for(BOUND, "the cluster to have joined", async || {
        let clusters = admin.table("get mcl").await?;
        ensure!(clusters[0]["HUB ACCEPTED"] == "true" && clusters[0]["JOINED"] == "True", "{clusters:?}");
        Ok(())
    })
    .await?;
    let requests = admin.ok("get csr").await?;
    let columns = "NAME        AGE   SIGNERNAME                            REQUESTOR                                  REQUESTEDDURATION   CONDITION";
    ensure!(requests.lines().next().map(str::trim_end) == Some(columns), "{requests}");
    let leases = admin.ok("get leases -n edge").await?;
    ensure!(
        leases.starts_with(
            "NAME                    HOLDER                  AGE\nmanaged-cluster-lease   managed-cluster-lease   "
        ),
        "{leases}"
    );
    Ok(())
}

/// What `-o name` says of these clusters.
fn names(clusters: &[&str]) -> String {
    clusters.iter().map(|name| format!("{CLUSTER}/{name}\n")).collect()
}

/// As `5s` and `1m20s`.
fn is_age(text: &str) -> bool {
    text.ends_with(['s', 'm']) && text.starts_with(|first: char| first.is_ascii_digit())
}

//! What clusters export, as Prometheus finds and scrapes it: by http_sd, with the configuration that `cluster-proxy` prints.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use hyper::{Method, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;
use tests::hub::ClusterAccess;
use tests::prometheus::Prometheus;
use tests::raw_agent::{AgentCredentials, RawAgent};
use tests::service::apiserver::{ApiServer, TOKEN};
use tests::service::authority::TargetAuthority;
use tests::service::web::{self, Web};
use tests::{Answer, Credentials, Fetch, HUB_NAME, Hub, Spoke, tool, wait_for};
use tunnel::{AgentMessage, Export, Exports};

/// Some scrapes of two seconds each, and some starts, on a loaded machine.
const BOUND: Duration = Duration::from_secs(60);
const SETS: &str = "/apis/cluster.open-cluster-management.io/v1beta2/managedclustersets";
const CLUSTERS: &str = "/apis/cluster.open-cluster-management.io/v1/managedclusters";

/// An agent's file with one `[[export]]` for each name and target.
fn exporting<'a>(file: &Path, exports: impl IntoIterator<Item = (&'a str, String, &'a str)>) -> Result<()> {
    let entry = |(name, target, more): (&str, String, &str)| {
        format!("[[export]]\nname = \"{name}\"\ntarget = \"{target}\"\n{more}\n")
    };
    Ok(std::fs::write(file, exports.into_iter().map(entry).collect::<String>())?)
}

/// The hub's answer to `user`.
async fn ask(hub: &Hub, user: &Credentials, query: &str) -> Result<Answer> {
    let fetch = Fetch::get(format!("/prometheus/targets{query}"));
    fetch.tls(hub.addresses().api, HUB_NAME, user.mutual_tls()?).await
}

/// What `user` is shown: `cluster/export` of each target.
async fn shown(hub: &Hub, user: &Credentials, query: &str) -> Result<Vec<String>> {
    let answer = ask(hub, user, query).await?.success()?;
    ensure!(answer.headers["content-type"] == "application/json", "{:?}", answer.headers);
    let name = |group: &Value| {
        let label = |name: &str| group["labels"][name].as_str().unwrap_or_default().to_owned();
        format!("{}/{}", label("cluster"), label("__meta_cluster_proxy_export"))
    };
    Ok(answer.json()?.as_array().context("no list")?.iter().map(name).collect())
}

async fn waits_for(hub: &Hub, query: &str, expected: &[&str]) -> Result<()> {
    wait_for(BOUND, &format!("the targets to be {expected:?}"), async || {
        let found = shown(hub, &hub.credentials(), query).await?;
        if found == expected { Ok(()) } else { Err(anyhow::anyhow!("{found:?}")) }
    })
    .await
}

/// Moves a cluster into a new set.
async fn put_into_set(hub: &Hub, cluster: &str, set: &str) -> Result<()> {
    let made = json!({
        "apiVersion": "cluster.open-cluster-management.io/v1beta2", "kind": "ManagedClusterSet", "metadata": { "name": set },
    });
    hub.ask(Fetch::new(Method::POST, SETS).json(&made)).await?.success()?;
    let label = json!({ "metadata": { "labels": { "cluster.open-cluster-management.io/clusterset": set } } });
    let patch = Fetch::new(Method::PATCH, format!("{CLUSTERS}/{cluster}")).body(label.to_string());
    hub.ask(patch.header("content-type", "application/merge-patch+json")).await?.success().map(drop)
}

#[tokio::test]
async fn users_see_what_they_may_reach_filtered_by_set_and_job() -> Result<()> {
    let hub = Hub::start().await?;
    let folder = TempDir::new()?;
    let [one, two] = ["one", "two"].map(|name| folder.path().join(name));
    exporting(
        &one,
        [
            ("node", "node-exporter.monitoring:9100".into(), "labels = { team = \"infra\" }"),
            ("shop", "shop.web:80".into(), "job = \"web\"\nmetrics-path = \"/m\"\nscheme = \"https\""),
        ],
    )?;
    exporting(&two, [("node", "node-exporter.monitoring:9100".into(), "")])?;
    let config = |file: &Path| ["--config".to_owned(), file.display().to_string()];
    let mut first = Spoke::of(&hub, "one").agent("a").args(config(&one)).start().await?;
    let _replica = Spoke::of(&hub, "one").agent("b").args(config(&one)).start().await?;
    let _second = Spoke::of(&hub, "two").args(config(&two)).start().await?;
    put_into_set(&hub, "two", "dev").await?;

    let admin = hub.credentials();
    waits_for(&hub, "", &["one/node", "one/shop", "two/node"]).await?;
    waits_for(&hub, "?job=web", &["one/shop"]).await?;
    waits_for(&hub, "?set=dev", &["two/node"]).await?;
    waits_for(&hub, "?set=global&job=node", &["one/node", "two/node"]).await?;
    waits_for(&hub, "?set=default&set=dev&job=node", &["one/node", "two/node"]).await?;
    waits_for(&hub, "?set=nowhere", &[]).await?;
    let alice = hub.create_user("alice", &ClusterAccess::Named(vec!["two".to_owned()])).await?;
    let nobody = hub.create_user("nobody", &ClusterAccess::Named(Vec::new())).await?;
    ensure!(shown(&hub, &alice, "").await? == ["two/node"]);
    ensure!(shown(&hub, &nobody, "").await?.is_empty());
    ensure!(ask(&hub, &admin, "?jobs=web").await?.status == StatusCode::BAD_REQUEST);
    let anonymous = Fetch::get("/prometheus/targets").tls(hub.addresses().api, HUB_NAME, admin.tls()?).await?;
    ensure!(anonymous.status == StatusCode::UNAUTHORIZED, "{}", anonymous.status);

    let list = ask(&hub, &admin, "?job=web").await?.json()?;
    let expected = json!([{
        "targets": ["shop.web.one.clusters.internal:80"],
        "labels": {
            "__meta_cluster_proxy_export": "shop", "__metrics_path__": "/m", "__scheme__": "https", "cluster": "one",
            "job": "web", "set": "default", "__meta_cluster_proxy_service_path": "/clusters/one/services/web/https:shop:80",
        },
    }]);
    ensure!(list == expected, "{list}");

    // A killed agent's targets stay, and its next start says what there is now.
    first.kill().await?;
    waits_for(&hub, "", &["one/node", "one/shop", "two/node"]).await?;
    exporting(&one, [("other", "other.web:80".into(), "")])?;
    first.start_again().await?;
    waits_for(&hub, "?job=other", &["one/other"]).await
}

/// A service that is to be scraped at port 80.
fn scraped(name: &str) -> Value {
    let annotations = json!({ "prometheus.io/scrape": "true" });
    json!({
        "metadata": { "name": name, "namespace": "shop", "annotations": annotations }, "spec": { "ports": [{ "port": 80 }] },
    })
}

#[tokio::test]
async fn an_agent_finds_annotated_services_and_tells_the_hub_of_changes() -> Result<()> {
    let hub = Hub::start().await?;
    let authority = TargetAuthority::new()?;
    let server = ApiServer::start(&authority, &[]).await?;
    for name in ["a", "b", "c"] {
        server.add_service(scraped(name));
    }
    server.add_service(json!({ "metadata": { "name": "quiet", "namespace": "shop" } }));
    let folder = TempDir::new()?;
    let [file, token] = ["agent.toml", "token"].map(|name| folder.path().join(name));
    std::fs::write(&token, TOKEN)?;
    exporting(&file, [("fixed", "fixed.shop:80".into(), "")])?;
    let flags = [
        ("--config", file.display().to_string()),
        ("--kube-api", server.address().to_string()),
        ("--kube-ca", authority.file().display().to_string()),
        ("--kube-token", token.display().to_string()),
        ("--export-services", "app in (x, y)".to_owned()),
        ("--export-interval", "200ms".to_owned()),
    ];
    let flags = flags.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value]);
    let _spoke = Spoke::of(&hub, "one").args(flags).start().await?;
    waits_for(&hub, "", &["one/a.shop", "one/b.shop", "one/c.shop", "one/fixed"]).await?;
    server.add_service(scraped("d"));
    waits_for(&hub, "", &["one/a.shop", "one/b.shop", "one/c.shop", "one/d.shop", "one/fixed"]).await?;
    let asked = server.requests().iter().any(|seen| seen.target.contains("labelSelector=app%20in%20%28x%2C%20y%29"));
    ensure!(asked, "{:?}", server.requests().first());
    let list = ask(&hub, &hub.credentials(), "?job=d").await?.json()?;
    ensure!(list[0]["targets"] == json!(["d.shop.svc.one.clusters.internal:80"]), "{list}");
    ensure!(list[0]["labels"]["namespace"] == "shop" && list[0]["labels"]["service"] == "d", "{list}");
    Ok(())
}

#[tokio::test]
async fn a_spoke_cannot_pass_its_targets_off_as_anothers() -> Result<()> {
    let hub = Hub::start().await?;
    let credentials = AgentCredentials::joined(&hub, "one", "agent").await?;
    let agent = RawAgent::open(&hub, &credentials).await?;
    let export = |name: &str, label: &str| Export {
        name: name.to_owned(),
        host: "web.shop".to_owned(),
        port: 80,
        scheme: "http".to_owned(),
        metrics_path: "/metrics".to_owned(),
        job: "web".to_owned(),
        labels: [(label.to_owned(), "two".to_owned())].into(),
    };
    let elsewhere = Export { host: "web.two.clusters.internal/x".to_owned(), ..export("elsewhere", "team") };
    let claims = ["cluster", "set", "job", "__address__", "__param_target", "a-b"].map(|label| export("claim", label));
    let items = claims.into_iter().chain([elsewhere, export("good", "team")]).collect();
    agent.say(AgentMessage::Exports(Exports { items }))?;
    waits_for(&hub, "", &["one/good"]).await?;
    let list = ask(&hub, &hub.credentials(), "").await?.json()?;
    ensure!(list[0]["labels"]["cluster"] == "one" && list[0]["labels"]["team"] == "two", "{list}");
    agent.say(AgentMessage::Exports(Exports { items: vec![export("next", "team")] }))?;
    waits_for(&hub, "", &["one/next"]).await?;
    hub.delete_cluster("one").await?;
    waits_for(&hub, "", &[]).await
}

#[tokio::test]
async fn a_restarted_hub_never_says_that_there_is_nothing() -> Result<()> {
    let mut hub = Hub::start().await?;
    let folder = TempDir::new()?;
    let file = folder.path().join("agent.toml");
    exporting(&file, [("node", "node-exporter.monitoring:9100".into(), "")])?;
    let mut spoke = Spoke::of(&hub, "one").args(["--config", &file.display().to_string()]).start().await?;
    waits_for(&hub, "", &["one/node"]).await?;
    wait_for(BOUND, "the cluster to be recorded as available", async || {
        let view = hub.cluster("one").await?;
        let conditions = view["status"]["conditions"].as_array().context("no conditions")?;
        let is_available = |condition: &Value| {
            condition["type"] == "ManagedClusterConditionAvailable" && condition["status"] == "True"
        };
        ensure!(conditions.iter().any(is_available), "{view}");
        Ok(())
    })
    .await?;
    // Both at once, so that nobody has recorded that the agent went.
    spoke.kill().await?;
    hub.kill().await?;
    hub.start_again().await?;
    let answer = ask(&hub, &hub.credentials(), "").await?;
    ensure!(answer.status == StatusCode::SERVICE_UNAVAILABLE, "{} {}", answer.status, answer.text());
    spoke.start_again().await?;
    waits_for(&hub, "", &["one/node"]).await
}

#[tokio::test]
async fn five_hundred_targets_in_fifty_clusters_are_scraped_without_a_miss() -> Result<()> {
    const CLUSTERS: usize = 50;
    const SERVICES: usize = 10;
    const ROUNDS: usize = 4;
    let hub = Hub::builder().quiet().start().await?;
    let webs: Vec<Web> =
        stream::iter(0..SERVICES).then(|at| async move { web::plain(&at.to_string()).await }).try_collect().await?;
    let folder = TempDir::new()?;
    let file = folder.path().join("agent.toml");
    let names: Vec<String> = (0..SERVICES).map(|at| format!("service-{at}")).collect();
    let targets =
        names.iter().zip(&webs).map(|(name, web)| (&**name, web.service().address().to_string(), "job = \"shop\""));
    exporting(&file, targets)?;
    let start = async |at: usize| {
        let file = file.display().to_string();
        Spoke::of(&hub, &format!("c{at:02}")).args(["--config", &file]).start().await
    };
    let spokes: Vec<Spoke> = stream::iter(0..CLUSTERS).map(start).buffer_unordered(4).try_collect().await?;
    ensure!(shown(&hub, &hub.credentials(), "").await?.len() == CLUSTERS * SERVICES);

    let jobs = hub.command(["prometheus-config", "--job", "shop"]).await?.success()?;
    let prometheus = Prometheus::start_with(&jobs).await?;
    let enough = format!("count(count_over_time(up{{job=\"shop\"}}[2m]) >= {ROUNDS}) by (job)");
    wait_for(BOUND, "every target to be scraped some times", async || {
        let counted = prometheus.query_by(&enough, "job").await?;
        let all = BTreeMap::from([("shop".to_owned(), (CLUSTERS * SERVICES) as f64)]);
        if counted == all { Ok(()) } else { Err(anyhow::anyhow!("{counted:?}")) }
    })
    .await?;
    let answer = prometheus.query("up[2m]").await?;
    let series = answer["data"]["result"].as_array().context("no matrix")?;
    ensure!(series.len() == CLUSTERS * SERVICES, "{} series", series.len());
    for one in series {
        let samples = one["values"].as_array().context("no samples")?;
        let times: Vec<f64> = samples.iter().filter_map(|sample| sample[0].as_f64()).collect();
        let down = samples.iter().any(|sample| sample[1] != "1");
        // A round that was missed leaves twice the interval of two seconds.
        let missed = times.windows(2).any(|pair| pair[1] - pair[0] > 3.9);
        if down || missed {
            let instance = one["metric"]["instance"].as_str().unwrap_or_default();
            let took = prometheus.query(&format!("scrape_duration_seconds{{instance=\"{instance}\"}}[2m]")).await?;
            bail!("{one}, which took {took}");
        }
    }
    ensure!(series.iter().all(|one| one["metric"]["set"] == "default"));
    drop(spokes);
    Ok(())
}

#[tokio::test]
async fn services_by_http_and_https_are_scraped_with_the_printed_configuration() -> Result<()> {
    let hub = Hub::start().await?;
    let authority = TargetAuthority::new()?;
    let plain = web::plain("web").await?;
    let safe = web::tls("safe", authority.server_config(&["safe.mon.svc"])?).await?;
    let folder = TempDir::new()?;
    let [hosts, file] = ["hosts", "agent.toml"].map(|name| folder.path().join(name));
    std::fs::write(&hosts, "127.0.0.1 localhost web.mon safe.mon.svc\n")?;
    exporting(
        &file,
        [
            ("web", format!("web.mon:{}", plain.service().port()), "labels = { team = \"a\" }"),
            ("safe", format!("safe.mon:{}", safe.service().port()), "scheme = \"https\""),
        ],
    )?;
    let flags = ["--config", &file.display().to_string(), "--service-ca", &authority.file().display().to_string()];
    let _spoke = Spoke::of(&hub, "one").hosts(&hosts).args(flags).start().await?;
    let jobs = hub.command(["prometheus-config", "--refresh-interval", "1s"]).await?.success()?;
    let (config, token) = (folder.path().join("prometheus.yml"), hub.credentials().token()?);
    ensure!(!jobs.contains(&token) && !jobs.contains("insecure"), "{jobs}");
    std::fs::write(&config, &jobs)?;
    tool::promtool()?.args(["check", "config"]).arg(&config).run(BOUND).await?.success()?;

    let prometheus = Prometheus::start_with(&jobs).await?;
    wait_for(BOUND, "both to be up", async || {
        let up = prometheus.query_by("up", "job").await?;
        let expected = BTreeMap::from([("safe".to_owned(), 1.0), ("web".to_owned(), 1.0)]);
        if up == expected { Ok(()) } else { Err(anyhow::anyhow!("{up:?} {}", prometheus.targets().await?)) }
    })
    .await?;
    let instances = prometheus.query_by("up{cluster=\"one\",set=\"default\"}", "instance").await?;
    let expected = [("web.mon", &plain), ("safe.mon", &safe)]
        .map(|(host, web)| (format!("{host}.one.clusters.internal:{}", web.service().port()), 1.0));
    ensure!(instances == BTreeMap::from(expected), "{instances:?}");
    ensure!(prometheus.query_by("up{team=\"a\"}", "job").await?.len() == 1);
    Ok(())
}

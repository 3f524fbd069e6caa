//! N asks of every kind, on every frontend and given up at every stage, are N events and N counts.

use super::*;

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use certs::PrivateKey;
use rustls::ClientConfig;
use serde_json::json;
use tests::client::{Connection, Entry};
use tests::metrics::Metrics;
use tests::raw_agent::{RawJoin, join_request};
use tests::{Client, Fetch, HUB_NAME};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::JoinSet;
use tunnel::{Reason, Refusal};

/// Asks of each kind.
const N: usize = 5;

/// How far a client goes before it leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leaving {
    /// It waits for the answer.
    Never,
    /// It leaves at once.
    AtOnce,
    /// It leaves when the agent was asked to dial.
    WhileDialling,
}

impl Site {
    fn entry(&self) -> Entry {
        Entry::Plain(self.hub.addresses().proxy)
    }

    fn api(&self) -> Result<Entry> {
        let tls: Arc<ClientConfig> = self.hub.credentials().tls()?;
        Ok(Entry::Tls(self.hub.addresses().api, tls))
    }

    /// Sends `bytes` N times, and leaves; demands an event each with these fields.
    async fn say(&self, entry: &Entry, bytes: &[u8], leaving: Leaving, fields: &[(&str, &str)]) -> Result<()> {
        let mut dials = Vec::new();
        for _ in 0..N {
            let mut connection = Client::new(entry.clone()).enter().await?;
            connection.write_all(bytes).await?;
            connection.flush().await?;
            match leaving {
                Leaving::Never => to_its_end(&mut connection).await?,
                Leaving::AtOnce => {}
                Leaving::WhileDialling => {
                    // Held: one that is dropped is an answer.
                    dials.push(self.agent.dial().await?);
                    reset(connection);
                }
            }
        }
        self.wait_for_events(fields, N).await.map(drop).with_context(|| format!("{fields:?}"))
    }
}

async fn to_its_end(connection: &mut Connection) -> Result<()> {
    let mut answer = Vec::new();
    // A reset is an end, too.
    let _ = timeout(BOUND, connection.read_to_end(&mut answer)).await.context("the connection is held")?;
    Ok(())
}

/// Closes so that nobody can take it for a client that listens on.
fn reset(connection: Connection) {
    let tcp = match &connection {
        tokio_util::either::Either::Left(tcp) => tcp,
        tokio_util::either::Either::Right(tokio_util::either::Either::Left(tls)) => tls.get_ref().0,
        tokio_util::either::Either::Right(tokio_util::either::Either::Right(_)) => return,
    };
    // The hub may have closed it already.
    let _ = socket2::SockRef::from(tcp).set_linger(Some(Duration::ZERO));
}

#[tokio::test]
async fn every_ask_for_a_target_is_one_event_and_one_count() -> Result<()> {
    let site = Site::start().await?;
    let (hub, agent) = (&site.hub, &site.agent);
    let token = hub.credentials().token()?;
    let login = |token: &str| format!("Basic {}", STANDARD.encode(format!("a:{token}")));
    let proxy = site.entry();

    // By CONNECT and by SOCKS5.
    let mut dials = Vec::new();
    for (frontend, client) in [("connect", hub.client("a")?), ("socks5", hub.client("a")?.socks5())] {
        for _ in 0..N {
            drop(client.clone().cluster("a", "wrong").dial("t:80").await);
            drop(client.clone().cluster("nobody", &token).dial("t:80").await);
            let refusal = Refusal::new(Reason::ConnectionRefused, "it does not listen");
            let (_, told) =
                tokio::join!(client.dial("t:80"), async { anyhow::Ok(agent.dial().await?.refuse(refusal).await?) });
            told?;
            let (connection, stream) = agent.connect(&client, "t:80").await?;
            drop((connection, stream));
            let mut dialling = JoinSet::new();
            let leaving = client.clone();
            dialling.spawn(async move { drop(leaving.dial("scanned:80").await) });
            dials.push(agent.dial().await?);
            dialling.shutdown().await;
        }
        for result in ["unknown_user_token", "unknown_cluster", "connection_refused"] {
            site.wait_for_events(&[("frontend", frontend), ("result", result)], N).await?;
        }
        let given_up = [("frontend", frontend), ("result", "cancelled"), ("target", "scanned:80"), ("user", "admin")];
        site.wait_for_events(&given_up, N).await?;
        site.wait_for_events(&[("frontend", frontend)], 5 * N).await?;
    }

    // What is not even an ask.
    let http = |result| [("frontend", "http"), ("result", result)];
    site.say(&proxy, b"\0garbage\r\n\r\n", Leaving::Never, &http("malformed")).await?;
    site.say(&proxy, &[b'x'; 40_000], Leaving::Never, &http("too_large")).await?;
    site.say(&proxy, b"CONNECT t:80 HT", Leaving::AtOnce, &http("client_left")).await?;
    site.say(&proxy, b"CONNECT t:80 HT", Leaving::Never, &http("timed_out")).await?;
    site.say(&proxy, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", Leaving::Never, &http("bad_target")).await?;
    let socks5 = |result| [("frontend", "socks5"), ("result", result)];
    site.say(&proxy, &[5, 1, 0], Leaving::Never, &socks5("no_credentials")).await?;
    site.say(&proxy, &[5, 1, 2], Leaving::AtOnce, &socks5("client_left")).await?;
    site.say(&proxy, &[5, 1, 2], Leaving::Never, &socks5("timed_out")).await?;
    site.say(&proxy, &[5, 1, 2, 9, 9, 9], Leaving::Never, &socks5("malformed")).await?;
    site.say(
        &proxy,
        &[5, 1, 2, 1, 1, b'a', 1, b'b', 5, 2, 0, 1, 1, 2, 3, 4, 0, 1],
        Leaving::Never,
        &socks5("not_supported"),
    )
    .await?;

    // In absolute form.
    let get =
        |token: &str| format!("GET http://t/ HTTP/1.1\r\nHost: t\r\nProxy-Authorization: {}\r\n\r\n", login(token));
    site.say(&proxy, get("wrong").as_bytes(), Leaving::Never, &http("unknown_user_token")).await?;

    // By gRPC.
    let grpc = |result| [("frontend", "konnectivity"), ("result", result)];
    for _ in 0..N {
        let mut connections = JoinSet::new();
        let nobody = dial_by_grpc(hub, None, "t:80", &mut connections).await?;
        http_body_util::BodyExt::collect(nobody.into_body()).await?;
        let dialling = dial_by_grpc(hub, Some(&token), "t:80", &mut connections).await?;
        dials.push(agent.dial().await?);
        drop(dialling);
        connections.shutdown().await;
    }
    site.wait_for_events(&grpc("no_credentials"), N).await?;
    site.wait_for_events(&[("frontend", "konnectivity")], 2 * N).await?;

    // By URL.
    for (frontend, path) in [("gateway", "/clusters/a/api/v1/pods"), ("service", "/clusters/a/services/n/s:80/x")] {
        let get =
            |token: &str| format!("GET {path} HTTP/1.1\r\nHost: {HUB_NAME}\r\nAuthorization: Bearer {token}\r\n\r\n");
        let of = |result| [("frontend", frontend), ("result", result)];
        let close = |text: String| text.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n");
        let entry = site.api()?;
        site.say(&entry, close(get("wrong")).as_bytes(), Leaving::Never, &of("unknown_user_token")).await?;
        site.say(&entry, get(&token).as_bytes(), Leaving::WhileDialling, &of("cancelled")).await?;
    }

    // The counts say the same.
    wait_for(BOUND, "the counts to be those of the record", async || {
        let metrics = Metrics::fetch(hub.addresses().metrics).await?;
        let events = site.events()?;
        let told = events.iter().filter(|event| event["event"] == "connection").count() as f64;
        let counted = metrics.sum("proxy_server_connections_opened_total", &[])
            + metrics.sum("proxy_server_connections_refused_total", &[]);
        ensure!(told == counted, "{told} events, {counted} counted");
        ensure!(metrics.sum("proxy_server_audit_events_total", &[]) == events.len() as f64);
        ensure!(metrics.sum("proxy_server_dials_total", &[("result", "cancelled")]) >= 4.0 * N as f64);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn every_failed_handshake_and_login_is_one_event() -> Result<()> {
    let site = Site::start().await?;
    let garbage = b"\x16\x03\x01\x00\x05nonsense";
    let (proxy, api) = (site.hub.addresses().proxy, site.hub.addresses().api);
    for (frontend, address) in [("frontend", proxy), ("api", api)] {
        let failed = [("event", "handshake"), ("frontend", frontend)];
        site.say(&Entry::Plain(address), garbage, Leaving::Never, &failed).await?;
    }
    let before = site.events()?.len();
    for path in ["/v1/tunnels", "/api/v1/namespaces", "/v1/status"] {
        for _ in 0..N {
            let wrong = Fetch::get(path).bearer("cpu-wrong.wrong");
            let answer = wrong.tls(api, HUB_NAME, site.hub.credentials().tls()?).await?;
            assert_eq!(answer.status.as_u16(), 401);
        }
    }
    let login = [("event", "request"), ("result", "unknown_user_token"), ("code", "401"), ("user", "")];
    site.wait_for_events(&login, 3 * N).await?;
    // What everybody may read, and what was read by right, is no event.
    Fetch::get("/version").tls(api, HUB_NAME, site.hub.credentials().tls()?).await?.success()?;
    site.hub.ask(Fetch::get("/v1/tunnels")).await?.success()?;
    assert_eq!(site.events()?.len(), before + 3 * N);
    Ok(())
}

#[tokio::test]
async fn every_change_of_the_registry_is_one_event_with_its_end() -> Result<()> {
    let site = Site::start().await?;
    let hub = &site.hub;
    let sets = "/apis/cluster.open-cluster-management.io/v1beta2/managedclustersets";
    let set = |name: &str| {
        json!({
            "apiVersion": "cluster.open-cluster-management.io/v1beta2", "kind": "ManagedClusterSet",
            "metadata": {"name": name},
        })
    };
    let create = |query: &str| Fetch::new(Method::POST, format!("{sets}{query}")).json(&set("dev"));
    let merge = |path: String| {
        let patch = Fetch::new(Method::PATCH, path).header("content-type", "application/merge-patch+json");
        patch.body(json!({"metadata": {"labels": {"x": "y"}}}).to_string())
    };
    let resource = "managedclustersets.cluster.open-cluster-management.io";
    for (request, verb, name, code, dry_run) in [
        (create("?dryRun=All"), "create", "dev", 201, "true"),
        (create(""), "create", "dev", 201, "false"),
        (create(""), "create", "", 409, "false"),
        (merge(format!("{sets}/dev")), "patch", "dev", 200, "false"),
        (merge(format!("{sets}/none")), "patch", "none", 404, "false"),
        (
            Fetch::new(Method::DELETE, format!("{sets}/dev"))
                .json(&json!({"kind": "DeleteOptions", "apiVersion": "v1", "dryRun": ["All"]})),
            "delete",
            "dev",
            200,
            "true",
        ),
        (Fetch::new(Method::DELETE, format!("{sets}/dev")), "delete", "dev", 200, "false"),
        (Fetch::new(Method::DELETE, format!("{sets}?labelSelector=no%3Done")), "deletecollection", "", 200, "false"),
    ] {
        let answer = hub.ask(request).await?;
        assert_eq!(answer.status.as_u16(), code, "{verb} {name}: {}", answer.text());
        let code = code.to_string();
        let fields = [
            ("event", "request"),
            ("user", "admin"),
            ("verb", verb),
            ("resource", resource),
            ("name", name),
            ("code", &code),
            ("dry_run", dry_run),
        ];
        site.wait_for_events(&fields, 1).await?;
    }
    // Our own API.
    let alice = hub.create_user("alice", &tests::hub::ClusterAccess::All).await?;
    hub.accept("a").await?;
    for (verb, resource, name) in [
        ("create", "users", "alice"),
        ("patch", "managedclusters.cluster.open-cluster-management.io", "a"),
        ("create", "jointokens", ""),
    ] {
        let mut fields = vec![("event", "request"), ("verb", verb), ("resource", resource), ("result", "ok")];
        if !name.is_empty() {
            fields.push(("name", name));
        }
        let events = site.wait_for_events(&fields, 1).await?;
        assert_ne!(events[0]["name"], "", "{events:?}");
    }
    // Who has no right, and as whom somebody asks.
    let refused = create("").bearer(&alice.token()?).tls(hub.addresses().api, HUB_NAME, alice.tls()?).await?;
    assert_eq!(refused.status.as_u16(), 403);
    site.wait_for_events(&[("user", "alice"), ("verb", "create"), ("code", "403"), ("result", "refused")], 1).await?;
    let as_alice = hub.ask(create("").header("impersonate-user", "alice")).await?;
    assert_eq!(as_alice.status.as_u16(), 403);
    site.wait_for_events(&[("user", "admin"), ("impersonated_user", "alice"), ("code", "403")], 1).await?;
    Ok(())
}

#[tokio::test]
async fn every_join_is_one_event_by_its_token() -> Result<()> {
    let site = Site::start().await?;
    let join = [("event", "request"), ("verb", "join"), ("resource", "managedclusters/agents"), ("frontend", "tunnel")];
    let joined = &site.wait_for_events(&[&join[..], &[("result", "ok")]].concat(), 1).await?[0];
    let list = site.hub.ask(Fetch::get("/v1/tokens")).await?.success()?.json()?;
    let user = format!("system:bootstrap:{}", list["items"][0]["id"].as_str().unwrap_or_default());
    assert_eq!(joined["user"], *user, "{joined}");
    assert!(joined["name"].as_str().is_some_and(|name| name.starts_with("a/")), "{joined}");
    // Who says an id without its secret is nobody.
    let wrong = format!("{}.{}", user.replace("system:bootstrap:", "cpj-"), "x".repeat(43));
    let request = join_request(&wrong, "a", "b", &PrivateKey::generate())?;
    for _ in 0..N {
        RawJoin::refused(&site.hub, &request).await?;
    }
    let refused = [("result", "unknown_token"), ("user", ""), ("name", "a/b")];
    site.wait_for_events(&[&join[..], &refused].concat(), N).await?;
    Ok(())
}

#[tokio::test]
async fn a_change_whose_client_leaves_is_told_as_it_ends() -> Result<()> {
    let site = Site::start().await?;
    let token = site.hub.credentials().token()?;
    let api = site.api()?;
    let head = |length: usize| {
        format!(
            "POST /v1/tokens HTTP/1.1\r\nHost: {HUB_NAME}\r\nAuthorization: Bearer {token}\r\nContent-Length: {length}\r\n\r\n"
        )
    };
    // Before the body is there: nothing is made.
    site.say(&api, head(50).as_bytes(), Leaving::AtOnce, &[("resource", "jointokens"), ("result", "failed")]).await?;
    // With all of it sent: whatever was made has an event that says so.
    let body = json!({"autoAccept": false, "reusable": false, "ttlSeconds": 60}).to_string();
    for _ in 0..20 {
        let mut connection = Client::new(api.clone()).enter().await?;
        connection.write_all(format!("{}{body}", head(body.len())).as_bytes()).await?;
        connection.flush().await?;
    }
    // One for the agent's own token, N without a body, and these.
    let told = site.wait_for_events(&[("resource", "jointokens"), ("verb", "create")], 1 + N + 20).await?;
    let told: Vec<_> = told.iter().filter(|event| event["code"] == 201).map(|event| &event["name"]).collect();
    let list = site.hub.ask(Fetch::get("/v1/tokens")).await?.success()?.json()?;
    let made: Vec<_> = list["items"].as_array().into_iter().flatten().map(|item| &item["id"]).collect();
    assert!(made.iter().all(|id| told.contains(id)), "{made:?} are made, {told:?} are told");
    Ok(())
}

#[tokio::test]
async fn what_a_source_without_credentials_asks_too_often_is_counted_and_others_are_told_whole() -> Result<()> {
    const BURST: usize = 1000;
    let site = Site::start().await?;
    let stranger = site.hub.client("a")?.cluster("a", "wrong").socks5();
    let mut asks = JoinSet::new();
    for _ in 0..32 {
        let stranger = stranger.clone();
        asks.spawn(async move {
            for _ in 0..100 {
                drop(stranger.dial("target:80").await);
            }
        });
    }
    while asks.join_next().await.is_some() {}
    let mut asked = 32 * 100;
    let of_strangers = [("event", "connection"), ("user", "")];
    let count = |events: &[Value], fields: &[(&str, &str)]| events.iter().filter(|event| has(event, fields)).count();
    let told = count(&site.events()?, &of_strangers);
    assert!((BURST / 2..2 * BURST).contains(&told), "{told} of {asked} are told");
    // Somebody who is known, from the same address.
    drop(site.hub.client("b")?.dial("target:80").await);
    site.wait_for_events(&[("event", "connection"), ("result", "unknown_cluster")], 1).await?;
    // What was left out is told with the next that is told; the last one of all may be left out as well.
    wait_for(BOUND, "every ask to be told or counted", async || {
        drop(stranger.dial("target:80").await);
        asked += 1;
        let all = wait_for(Duration::from_millis(500), "the event", async || {
            let events = site.events()?;
            let left_out = events.iter().filter(|event| event["event"] == "left_out");
            let left_out: u64 = left_out.filter_map(|event| event["count"].as_u64()).sum();
            ensure!(left_out > 0, "nothing was left out");
            let all = count(&events, &of_strangers) + usize::try_from(left_out)?;
            ensure!(all >= asked, "{all} of {asked}");
            Ok(all)
        });
        ensure!(all.await? == asked, "more than {asked}");
        Ok(())
    })
    .await
}

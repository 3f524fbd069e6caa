//! Stock clients reach targets in two spokes: every frontend, every way in, every way to name a target, and who may.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Result;
use tests::client::{DialError, Entry};
use tests::hub::ClusterAccess;
use tests::service::authority::TargetAuthority;
use tests::service::transfer;
use tests::service::web::{self, Web};
use tests::{Client, Credentials, Fetch, Finished, HUB_NAME, Hub, Program, Spoke, tool};

const BOUND: Duration = Duration::from_secs(60);
/// SOCKS5: connection not allowed by ruleset (RFC 1928 section 6).
const NOT_ALLOWED: u8 = 2;

/// A hub, an agent of cluster `one`, and two targets in it, each called by its scheme.
struct Site {
    hub: Hub,
    _agent: Spoke,
    authority: TargetAuthority,
    http: Web,
    https: Web,
}

/// A way into the hub's proxy port, as curl's options for it, with whatever proves who the client is.
struct Way {
    name: &'static str,
    proxy: Program,
}

impl Site {
    async fn start() -> Result<Self> {
        let hub = Hub::start().await?;
        let agent = Spoke::of(&hub, "one").start().await?;
        let authority = TargetAuthority::new()?;
        let http = web::plain("http").await?;
        let https = web::tls("https", authority.server_config(&["localhost.one.clusters.internal"])?).await?;
        Ok(Self { hub, _agent: agent, authority, http, https })
    }

    /// Plain, TLS and mTLS; the last needs no token.
    fn ways(&self, user: &str) -> Result<[Way; 3]> {
        let credentials = self.hub.credentials();
        let (address, token) = (self.hub.addresses().proxy, credentials.token()?);
        let tls = || Ok::<_, anyhow::Error>(tool::curl()?.arg("--proxy-cacert").arg(credentials.authority_file()));
        let certificate = |curl: Program| {
            curl.arg("--proxy-cert").arg(credentials.certificate_file()).arg("--proxy-key").arg(credentials.key_file())
        };
        Ok([
            Way { name: "plain", proxy: tool::curl()?.args(["--proxy", &format!("http://{user}:{token}@{address}")]) },
            Way { name: "TLS", proxy: tls()?.args(["--proxy", &format!("https://{user}:{token}@{address}")]) },
            Way { name: "mTLS", proxy: certificate(tls()?).args(["--proxy", &format!("https://{user}:@{address}")]) },
        ])
    }

    fn http_url(&self) -> String {
        format!("http://{}/", self.http.service().address())
    }

    fn https_url(&self) -> String {
        format!("https://{}/", self.https.service().address())
    }

    /// The targets' authority, for a curl that is to verify them.
    fn verifying(&self, curl: Program) -> Program {
        curl.arg("--cacert").arg(self.authority.file())
    }
}

async fn said(curl: Program, url: &str) -> Result<String> {
    curl.arg(url).run(BOUND).await?.success()
}

/// The status and the body that curl got, whatever the status.
async fn answered(curl: Program, url: &str) -> Result<(u16, String)> {
    let finished: Finished = curl.args(["--write-out", "%{http_code}", url]).run(BOUND).await?;
    let text = finished.success()?;
    let (body, status) = text.split_at(text.len().saturating_sub(3));
    Ok((status.parse()?, body.to_owned()))
}

#[tokio::test]
async fn curl_reaches_http_and_https_targets_by_connect() -> Result<()> {
    let site = Site::start().await?;
    for way in site.ways("one")? {
        let tunnelled = site.verifying(way.proxy.arg("--proxytunnel"));
        assert_eq!(said(tunnelled.clone(), &site.http_url()).await?, "http\n", "{}", way.name);
        assert_eq!(said(tunnelled, &site.https_url()).await?, "https\n", "{}", way.name);
    }
    Ok(())
}

#[tokio::test]
async fn curl_reaches_http_targets_in_absolute_form() -> Result<()> {
    let site = Site::start().await?;
    for way in site.ways("one")? {
        assert_eq!(said(way.proxy.clone(), &site.http_url()).await?, "http\n", "{}", way.name);

        let length = 1_000_003;
        for path in ["bytes", "chunked"] {
            let url = format!("{}{path}/{length}", site.http_url());
            let body = way.proxy.clone().arg(&url).run(BOUND).await?;
            let expected = tests::pattern::Pattern::new(length, length).to_vec();
            assert!(body.stdout == expected, "{} {path}: {} bytes, {}", way.name, body.stdout.len(), body.stderr);
        }
        let echo = way.proxy.clone().args(["--data-binary", "some body"]);
        assert_eq!(said(echo, &format!("{}echo", site.http_url())).await?, "some body", "{}", way.name);

        let (first, second) = (site.http_url(), format!("{}status/503", site.http_url()));
        let codes = way.proxy.args(["--write-out", " %{http_code} %{num_connects}\n", &first, &second]);
        let codes = codes.run(BOUND).await?.success()?;
        assert_eq!(codes, "http\n 200 1\nstatus 503\n 503 0\n", "{}: one proxy connection for both", way.name);
    }
    Ok(())
}

#[tokio::test]
async fn a_target_sees_the_request_as_its_own_and_nothing_that_was_meant_for_the_proxy() -> Result<()> {
    let site = Site::start().await?;
    let [plain, ..] = site.ways("one")?;
    let url = format!("http://localhost.one.clusters.internal:{}/request?a=b%2Fc", site.http.service().port());
    let request = plain.proxy.args(["--header", "X-Mine: yes", "--header", "Proxy-Connection: keep-alive"]);
    let seen: serde_json::Value = serde_json::from_str(&said(request, &url).await?)?;
    assert_eq!((&seen["method"], &seen["target"]), (&"GET".into(), &"/request?a=b%2Fc".into()));
    let headers: Vec<(String, String)> = serde_json::from_value(seen["headers"].clone())?;
    let header = |name: &str| headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str());
    assert_eq!(
        header("host"),
        Some(format!("localhost.one.clusters.internal:{}", site.http.service().port()).as_str())
    );
    assert_eq!(header("x-mine"), Some("yes"));
    assert!(headers.iter().all(|(name, _)| !name.starts_with("proxy-")), "{headers:?}");
    Ok(())
}

#[tokio::test]
async fn curl_reaches_targets_by_socks5_with_names_resolved_in_the_spoke() -> Result<()> {
    let site = Site::start().await?;
    let (address, token) = (site.hub.addresses().proxy, site.hub.credentials().token()?);
    let port = site.http.service().port();
    // A name that only the hub's routing knows shows that curl does not resolve it.
    let inner = format!("http://localhost.one.clusters.internal:{port}/");
    let by_option = || {
        let curl = site.verifying(tool::curl()?);
        Ok::<_, anyhow::Error>(curl.args(["--socks5-hostname", &address.to_string(), "--proxy-user"]))
    };
    let by_scheme = || Ok::<_, anyhow::Error>(site.verifying(tool::curl()?).arg("--proxy"));
    let named = format!("one:{token}");
    for url in [&site.http_url(), &inner, &format!("http://localhost:{port}/")] {
        assert_eq!(said(by_option()?.arg(&named), url).await?, "http\n", "{url}");
        assert_eq!(said(by_scheme()?.arg(format!("socks5h://{named}@{address}")), url).await?, "http\n", "{url}");
    }
    assert_eq!(said(by_option()?.arg(&named), &site.https_url()).await?, "https\n");
    // Without a cluster as the proxy user: the administrator's own name.
    assert_eq!(said(by_option()?.arg(format!("admin:{token}")), &inner).await?, "http\n");
    Ok(())
}

#[tokio::test]
async fn socks5_works_over_tls_and_with_a_certificate_alone() -> Result<()> {
    let site = Site::start().await?;
    let target = transfer::start().await?;
    let (address, credentials) = (site.hub.addresses().proxy, site.hub.credentials());
    let over_tls = Client::new(Entry::Tls(address, credentials.tls()?)).cluster("one", &credentials.token()?);
    let mutual = Client::new(Entry::Tls(address, credentials.mutual_tls()?));
    let pattern = tests::pattern::Pattern::new(7, 300_000);
    let inner = format!("localhost.one.clusters.internal:{}", target.port());
    for (client, named) in [(over_tls, target.address().to_string()), (mutual, inner)] {
        for client in [client.clone(), client.socks5()] {
            transfer::exchange(&mut client.dial(&named).await?, pattern).await?;
        }
    }
    Ok(())
}

#[tokio::test]
async fn the_unix_socket_takes_every_frontend_and_trusts_who_may_open_it() -> Result<()> {
    let site = Site::start().await?;
    let target = transfer::start().await?;
    let pattern = tests::pattern::Pattern::new(8, 300_000);
    let socket = Client::new(Entry::Unix(site.hub.socket()));
    let inner = format!("localhost.one.clusters.internal:{}", target.port());
    for client in [socket.clone(), socket.clone().socks5()] {
        transfer::exchange(&mut client.dial(&inner).await?, pattern).await?;
    }
    // With a token it is that user, who is named by nothing but the token.
    let bob = site.hub.create_user("bob", &ClusterAccess::Named(vec![])).await?;
    for client in [socket.clone(), socket.socks5()] {
        let refused = client.cluster("one", &bob.token()?).dial(&target.address().to_string()).await;
        assert!(is_forbidden(refused.as_ref().err()), "{:?}", refused.err());
    }

    // curl 7.88 cannot CONNECT over a Unix socket, but knows absolute form and SOCKS5 there.
    let inner = format!("http://localhost.one.clusters.internal:{}/", site.http.service().port());
    let absolute = tool::curl()?.arg("--unix-socket").arg(site.hub.socket()).args(["--request-target", &inner]);
    assert_eq!(said(absolute, &inner).await?, "http\n");
    let socks5 = tool::curl()?.arg("--proxy").arg(format!("socks5h://localhost{}", site.hub.socket().display()));
    assert_eq!(said(socks5, &inner).await?, "http\n");
    Ok(())
}

#[tokio::test]
async fn a_target_is_named_by_proxy_user_or_by_host_name() -> Result<()> {
    let site = Site::start().await?;
    let port = site.http.service().port();
    let inside = format!("localhost.one.clusters.internal:{port}");
    let (tls_inside, tls_port) = ("localhost.one.clusters.internal", site.https.service().port());
    // With the cluster as user, as nobody, and as oneself.
    for (user, targets) in [
        ("one", vec![format!("127.0.0.1:{port}"), format!("localhost:{port}"), inside.clone()]),
        ("", vec![inside.clone(), format!("127.0.0.1.one.clusters.internal:{port}"), inside.to_uppercase()]),
        ("admin", vec![inside.clone()]),
    ] {
        for way in site.ways(user)? {
            // curl sends no Proxy-Authorization when user and password are both empty.
            for target in &targets {
                let url = format!("http://{target}/");
                assert_eq!(said(way.proxy.clone(), &url).await?, "http\n", "{} {user} {url}", way.name);
                let tunnelled = way.proxy.clone().arg("--proxytunnel");
                assert_eq!(said(tunnelled, &url).await?, "http\n", "{} {user} {url} by CONNECT", way.name);
            }
            let verifying = site.verifying(way.proxy);
            let url = format!("https://{tls_inside}:{tls_port}/");
            assert_eq!(said(verifying, &url).await?, "https\n", "{} {user} {url}", way.name);
        }
    }
    let bearer = format!("Proxy-Authorization: Bearer {}", site.hub.credentials().token()?);
    let proxy = format!("http://{}", site.hub.addresses().proxy);
    let by_token = tool::curl()?.args(["--proxy", &proxy, "--proxy-header", &bearer]);
    assert_eq!(said(by_token.clone(), &format!("http://{inside}/")).await?, "http\n");
    assert_eq!(said(by_token.arg("--proxytunnel"), &format!("http://{inside}/")).await?, "http\n");
    Ok(())
}

#[tokio::test]
async fn a_naming_that_leads_nowhere_says_the_known_forms() -> Result<()> {
    let site = Site::start().await?;
    let [plain, ..] = site.ways("")?;
    let (status, body) = answered(plain.proxy, "http://example.com/").await?;
    assert_eq!(status, 400);
    assert!(body.contains("<host>.<cluster>.clusters.internal:<port>"), "{body}");
    let [plain, ..] = site.ways("one")?;
    let (status, body) = answered(plain.proxy, "http://localhost.two.clusters.internal/").await?;
    assert_eq!(status, 400);
    assert!(body.contains("one and two"), "{body}");
    Ok(())
}

#[tokio::test]
async fn two_clusters_are_never_mixed_up() -> Result<()> {
    let hub = Hub::start().await?;
    let (first, second) = (web::plain("first").await?, web::plain("second").await?);
    // Both agents are on this machine: what keeps their targets apart is the policy of each.
    let allow = |address: SocketAddr| ["--allow".to_owned(), address.to_string()];
    let (of_first, of_second) = (allow(first.service().address()), allow(second.service().address()));
    let _one = Spoke::of(&hub, "one").policy(of_first).start().await?;
    let _two = Spoke::of(&hub, "two").policy(of_second).start().await?;
    let token = hub.credentials().token()?;
    let proxy = format!("http://:{token}@{}", hub.addresses().proxy);
    for round in 0..3 {
        for (cluster, own, other) in [("one", &first, &second), ("two", &second, &first)] {
            let name = if cluster == "one" { "first\n" } else { "second\n" };
            let named = |web: &Web| format!("http://127.0.0.1.{cluster}.clusters.internal:{}/", web.service().port());
            let curl = tool::curl()?.args(["--proxy", &proxy]);
            assert_eq!(said(curl.clone(), &named(own)).await?, name, "round {round}");
            let (status, _) = answered(curl, &named(other)).await?;
            assert_eq!(status, 403, "cluster {cluster} reached the other's target in round {round}");
            let client = hub.client(cluster)?;
            let refused = client.dial(&other.service().address().to_string()).await;
            assert!(is_forbidden(refused.as_ref().err()), "{cluster}: {:?}", refused.err());
            let by_user = hub.proxy_url("socks5h", cluster, &hub.credentials())?;
            let by_user = tool::curl()?.args(["--proxy", &by_user]);
            assert_eq!(said(by_user, &format!("http://{}/", own.service().address())).await?, name);
        }
    }
    assert_eq!(first.requests(), second.requests());
    Ok(())
}

#[tokio::test]
async fn each_user_reaches_its_own_clusters_and_no_other() -> Result<()> {
    let hub = Hub::start().await?;
    let _one = Spoke::of(&hub, "one").start().await?;
    let _two = Spoke::of(&hub, "two").start().await?;
    let web = web::plain("web").await?;
    let of = |cluster: &str| ClusterAccess::Named(vec![cluster.to_owned()]);
    let (alice, bob) = (hub.create_user("alice", &of("one")).await?, hub.create_user("bob", &of("two")).await?);
    let (nobody, everyone) = (
        hub.create_user("nobody", &ClusterAccess::Named(vec![])).await?,
        hub.create_user("everyone", &ClusterAccess::All).await?,
    );
    for cluster in ["one", "two"] {
        allows(&hub, &everyone, cluster, &web).await?;
        refuses(&hub, "nobody", &nobody, cluster, &web).await?;
    }
    allows(&hub, &alice, "one", &web).await?;
    refuses(&hub, "alice", &alice, "two", &web).await?;
    allows(&hub, &bob, "two", &web).await?;
    refuses(&hub, "bob", &bob, "one", &web).await?;
    Ok(())
}

/// The raw clients of every frontend and every way in, with this user's token or certificate.
fn raw_clients(hub: &Hub, user: &Credentials, cluster: &str) -> Result<Vec<Client>> {
    let (proxy, token) = (hub.addresses().proxy, user.token()?);
    let by_token = [Entry::Plain(proxy), Entry::Tls(proxy, user.tls()?), Entry::Unix(hub.socket())];
    let mut clients: Vec<Client> = by_token.map(|entry| Client::new(entry).cluster(cluster, &token)).into();
    clients.push(Client::new(Entry::Tls(proxy, user.mutual_tls()?)).cluster(cluster, ""));
    Ok(clients.into_iter().flat_map(|client| [client.clone(), client.socks5()]).collect())
}

async fn allows(hub: &Hub, user: &Credentials, cluster: &str, web: &Web) -> Result<()> {
    for client in raw_clients(hub, user, cluster)? {
        client.dial(&web.service().address().to_string()).await?;
    }
    let curl = tool::curl()?.args(["--proxy", &hub.proxy_url("http", cluster, user)?]);
    assert_eq!(said(curl, &format!("http://{}/", web.service().address())).await?, "web\n");
    Ok(())
}

async fn refuses(hub: &Hub, name: &str, user: &Credentials, cluster: &str, web: &Web) -> Result<()> {
    let accepted = web.service().accepted();
    let missing = format!("proxy on managedclusters/{cluster}");
    for client in raw_clients(hub, user, cluster)? {
        let refused = client.dial(&web.service().address().to_string()).await;
        assert!(is_forbidden(refused.as_ref().err()), "{name} {cluster} {client:?}: {:?}", refused.err());
        if let Err(DialError::Status { body, .. }) = refused {
            assert!(body.contains(name) && body.contains(&missing), "{body}");
        }
    }
    let curl = tool::curl()?.args(["--proxy", &hub.proxy_url("http", cluster, user)?]);
    let (status, body) = answered(curl, &format!("http://{}/", web.service().address())).await?;
    assert_eq!(status, 403, "{body}");
    assert!(body.contains(name) && body.contains(&missing), "{body}");
    for path in ["api/v1/pods", "services/default/web:80/", "api/v1/namespaces/default/services/web:80/proxy-service/"]
    {
        for (tls, token) in [(user.tls()?, Some(user.token()?)), (user.mutual_tls()?, None)] {
            let fetch = Fetch::get(format!("/clusters/{cluster}/{path}"));
            let fetch = token.iter().fold(fetch, |fetch, token| fetch.bearer(token));
            let refused = fetch.tls(hub.addresses().api, HUB_NAME, tls).await?;
            assert_eq!(refused.status, 403, "{path}: {}", refused.text());
            assert!(refused.text().contains(&missing), "{path}: {}", refused.text());
        }
    }
    assert_eq!(web.service().accepted(), accepted, "a refused connection came to the target");
    Ok(())
}

fn is_forbidden(error: Option<&DialError>) -> bool {
    matches!(error, Some(DialError::Status { status: 403, .. } | DialError::Reply { reply: NOT_ALLOWED }))
}

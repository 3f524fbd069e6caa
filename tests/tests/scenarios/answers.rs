//! The answers of the proxy port to the byte: those that kube-apiserver's egress selector relies on, and those that tell a client
//! what to do next.

use std::time::Duration;

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::{SinkExt as _, StreamExt as _};
use rustls::pki_types::ServerName;
use tempfile::TempDir;
use tests::client::{DialError, Entry};
use tests::hub::{ClusterAccess, JoinTerms};
use tests::metrics::Metrics;
use tests::service::{banner, black_hole, echo, half_close, transfer, web};
use tests::{Client, Hub, Service, Spoke, wait_for, wait_until};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_tungstenite::tungstenite::{Message, protocol::Role};

const BOUND: Duration = Duration::from_secs(30);
const ESTABLISHED: &str = "HTTP/1.1 200 Connection Established\r\n\r\n";

/// All ways into the hub, with what proves that the client is its administrator.
fn entries(hub: &Hub) -> Result<[(Entry, String); 3]> {
    let credentials = hub.credentials();
    let (proxy, token) = (hub.addresses().proxy, credentials.token()?);
    Ok([
        (Entry::Plain(proxy), authorization("one", &token)),
        (Entry::Tls(proxy, credentials.mutual_tls()?), authorization("one", "")),
        (Entry::Unix(hub.socket()), authorization("one", "")),
    ])
}

fn authorization(user: &str, token: &str) -> String {
    format!("Proxy-Authorization: Basic {}\r\n", STANDARD.encode(format!("{user}:{token}")))
}

/// The request of the egress selector, whose `Host` is always 127.0.0.1, with more header fields.
fn connect(target: &str, fields: &str) -> String {
    format!("CONNECT {target} HTTP/1.1\r\nHost: 127.0.0.1\r\n{fields}\r\n")
}

/// Sends `request` and gives all that comes back until the end.
async fn exchange(entry: &Entry, request: &str) -> Result<String> {
    let mut connection = Client::new(entry.clone()).enter().await?;
    connection.write_all(request.as_bytes()).await?;
    connection.flush().await?;
    let mut answer = String::new();
    timeout(BOUND, connection.read_to_string(&mut answer)).await.context("the answer does not end")??;
    Ok(answer)
}

/// Demands the whole of a refused CONNECT's answer, and gives its sentence.
fn sentence<'a>(answer: &'a str, status: &str, field: &str) -> Result<&'a str> {
    let (head, body) = answer.split_once("\r\n\r\n").with_context(|| format!("no end of the head: {answer}"))?;
    let field = if field.is_empty() { String::new() } else { format!("\r\n{field}") };
    let length = body.len();
    let expected = format!(
        "HTTP/1.1 {status}{field}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {length}\r\nConnection: close"
    );
    assert_eq!(head, expected, "{body}");
    let sentence = body.strip_suffix('\n').with_context(|| format!("no line: {body:?}"))?;
    assert!(!sentence.is_empty() && !sentence.contains('\n') && !sentence.contains(". "), "no one sentence: {body:?}");
    Ok(sentence)
}

/// A TCP port of this machine that refuses.
async fn closed_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0").await?.local_addr()?.port())
}

#[tokio::test]
async fn the_answer_to_a_connect_is_exactly_one_line_and_what_was_sent_behind_it_comes_through() -> Result<()> {
    let hub = Hub::start().await?;
    let _agent = Spoke::of(&hub, "one").start().await?;
    let echo = echo::start().await?;
    for (entry, login) in entries(&hub)? {
        let request = connect(&echo.address().to_string(), &login);
        echoes(Client::new(entry.clone()).enter().await?, &request).await?;

        let mut connection = Client::new(entry).enter().await?;
        connection.write_all(format!("{request}sent ahead").as_bytes()).await?;
        connection.flush().await?;
        let mut answer = vec![0; ESTABLISHED.len() + "sent ahead".len()];
        timeout(BOUND, connection.read_exact(&mut answer)).await??;
        assert_eq!(String::from_utf8_lossy(&answer), format!("{ESTABLISHED}sent ahead"));
    }
    Ok(())
}

#[tokio::test]
async fn every_entry_and_frontend_passes_on_a_target_that_speaks_first() -> Result<()> {
    let hub = Hub::start().await?;
    let _agent = Spoke::of(&hub, "one").start().await?;
    let banner = banner::start("220 ready\r\n").await?;
    for (entry, _) in entries(&hub)? {
        let client = match &entry {
            Entry::Plain(_) => hub.client("one")?,
            _ => Client::new(entry).cluster("one", ""),
        };
        for client in [client.clone(), client.socks5()] {
            let mut connection = client.dial(&banner.address().to_string()).await?;
            let mut words = [0; 11];
            timeout(BOUND, connection.read_exact(&mut words)).await??;
            assert_eq!(&words, b"220 ready\r\n");
        }
    }
    Ok(())
}

/// kube-apiserver takes bytes that it reads together with the 200 for an error. A reader that the machine keeps from running
/// for some milliseconds finds both, whatever the hub does; so not every connection is demanded to be right, but most.
#[tokio::test]
async fn a_server_first_banner_keeps_its_distance_from_the_200() -> Result<()> {
    const CONNECTIONS: usize = 21;
    let hub = Hub::start().await?;
    let _agent = Spoke::of(&hub, "one").start().await?;
    let banner = banner::start("220 ready\r\n").await?;
    let token = hub.credentials().token()?;
    let request = connect(&banner.address().to_string(), &authorization("one", &token));
    let (proxy, socket) = (hub.addresses().proxy, hub.socket());
    let alone = tokio::task::spawn_blocking(move || -> Result<[usize; 2]> {
        let mut alone = [0; 2];
        for _ in 0..CONNECTIONS {
            let tcp = first_read(std::net::TcpStream::connect(proxy)?, &request)?;
            let unix = first_read(std::os::unix::net::UnixStream::connect(&socket)?, &request)?;
            for (count, first) in alone.iter_mut().zip([tcp, unix]) {
                assert!(first == ESTABLISHED || first == format!("{ESTABLISHED}220 ready\r\n"), "{first:?}");
                *count += usize::from(first == ESTABLISHED);
            }
        }
        Ok(alone)
    })
    .await??;
    assert!(alone.iter().all(|alone| *alone > CONNECTIONS / 2), "of {CONNECTIONS} answers only {alone:?} came alone");
    Ok(())
}

/// What the first read after `request` gives. It blocks in the kernel, so that nothing but the scheduler delays it.
fn first_read(mut connection: impl std::io::Read + std::io::Write, request: &str) -> Result<String> {
    connection.write_all(request.as_bytes())?;
    let mut first = [0; 1024];
    let length = connection.read(&mut first)?;
    Ok(String::from_utf8_lossy(&first[..length]).into_owned())
}

#[tokio::test]
async fn nothing_is_answered_before_the_targets_dial_and_a_black_hole_is_504_at_the_deadline() -> Result<()> {
    let hub = Hub::builder().args(["--dial-timeout", "1s"]).start().await?;
    let _agent = Spoke::of(&hub, "one").start().await?;
    let hole = black_hole::start().await?;
    for (entry, login) in entries(&hub)? {
        let answer = exchange(&entry, &connect(&hole.address()?.to_string(), &login)).await?;
        let late = sentence(&answer, "504 Gateway Timeout", "")?;
        assert!(late.contains(&hole.address()?.to_string()) && late.contains("; check "), "{late}");
    }
    let timed_out = hub.client("one")?.socks5().dial(&hole.address()?.to_string()).await;
    assert!(matches!(timed_out, Err(DialError::Reply { reply: 6 })), "{:?}", timed_out.err());
    Ok(())
}

#[tokio::test]
async fn a_target_that_refuses_and_a_name_that_is_not_there_are_502() -> Result<()> {
    let hub = Hub::start().await?;
    let _agent = Spoke::of(&hub, "one").start().await?;
    let refusing = format!("127.0.0.1:{}", closed_port().await?);
    let missing = "no-such-host.invalid:80";
    for (entry, login) in entries(&hub)? {
        let answer = exchange(&entry, &connect(&refusing, &login)).await?;
        let refused = sentence(&answer, "502 Bad Gateway", "")?;
        assert!(refused.contains(&refusing) && refused.contains("; check "), "{answer}");
        let answer = exchange(&entry, &connect(missing, &login)).await?;
        let unresolved = sentence(&answer, "502 Bad Gateway", "")?;
        assert!(unresolved.contains(missing) && unresolved.contains("; check "), "{answer}");
    }
    for (target, expected) in [(refusing.as_str(), 5), (missing, 4)] {
        let refused = hub.client("one")?.socks5().dial(target).await;
        assert!(matches!(refused, Err(DialError::Reply { reply }) if reply == expected), "{:?}", refused.err());
    }
    Ok(())
}

#[tokio::test]
async fn what_is_no_proxy_request_is_405() -> Result<()> {
    let hub = Hub::start().await?;
    for (entry, login) in entries(&hub)? {
        for method in ["GET", "POST", "OPTIONS"] {
            let request = format!("{method} / HTTP/1.1\r\nHost: hub\r\nConnection: close\r\n{login}\r\n");
            let answer = exchange(&entry, &request).await?;
            assert!(answer.starts_with("HTTP/1.1 405 Method Not Allowed\r\n"), "{answer}");
            let (_, body) = answer.split_once("\r\n\r\n").context("no body")?;
            assert!(body.starts_with("this proxy only supports CONNECT passthrough"), "{body}");
            assert!(body.ends_with('\n') && body.lines().count() == 1, "{body:?}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn without_known_credentials_it_is_407_with_a_challenge() -> Result<()> {
    let hub = Hub::start().await?;
    let _agent = Spoke::of(&hub, "one").start().await?;
    let credentials = hub.credentials();
    let challenge = "Proxy-Authenticate: Basic realm=\"cluster-proxy\"";
    let status = "407 Proxy Authentication Required";
    let target = "localhost.one.clusters.internal:80";
    for entry in [Entry::Plain(hub.addresses().proxy), Entry::Tls(hub.addresses().proxy, credentials.tls()?)] {
        let answer = exchange(&entry, &connect(target, "")).await?;
        assert!(sentence(&answer, status, challenge)?.contains("cluster-proxy user create"), "{answer}");
        for login in [
            authorization("one", "wrong"),
            authorization("one", &credentials.token()?.replace('.', "")),
            authorization("one", ""),
            "Proxy-Authorization: Digest x\r\n".to_owned(),
            "Proxy-Authorization: Bearer cpu-x.y\r\n".to_owned(),
        ] {
            let answer = exchange(&entry, &connect(target, &login)).await?;
            sentence(&answer, status, challenge)?;
        }
        let absolute = format!("GET http://{target}/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        let answer = exchange(&entry, &absolute).await?.to_lowercase();
        assert!(answer.starts_with("http/1.1 407 ") && answer.contains(&challenge.to_lowercase()), "{answer}");
    }
    // A wrong token is not passed over for a certificate or the socket's permissions.
    for (entry, _) in &entries(&hub)?[1..] {
        let answer = exchange(entry, &connect(target, &authorization("one", "wrong"))).await?;
        sentence(&answer, status, challenge)?;
    }
    Ok(())
}

#[tokio::test]
async fn what_is_not_allowed_is_403_and_what_nobody_registered_is_404() -> Result<()> {
    let hub = Hub::start().await?;
    let _one = Spoke::of(&hub, "one").start().await?;
    let _two = Spoke::of(&hub, "two").start().await?;
    let bob = hub.create_user("bob", &ClusterAccess::Named(vec!["two".into()])).await?;
    let plain = Entry::Plain(hub.addresses().proxy);
    let refused = exchange(&plain, &connect("127.0.0.1:80", &authorization("one", &bob.token()?))).await?;
    let refused = sentence(&refused, "403 Forbidden", "")?;
    assert!(refused.contains("bob") && refused.contains("proxy on managedclusters/one"), "{refused}");
    assert!(refused.ends_with("reachable: two"), "{refused}");
    // Whoever may not reach it does not learn whether it is registered.
    let refused = exchange(&plain, &connect("127.0.0.1:80", &authorization("three", &bob.token()?))).await?;
    sentence(&refused, "403 Forbidden", "")?;

    for (entry, _) in entries(&hub)? {
        let token = if matches!(entry, Entry::Plain(_)) { hub.credentials().token()? } else { String::new() };
        let unknown = exchange(&entry, &connect("127.0.0.1:80", &authorization("three", &token))).await?;
        let unknown = sentence(&unknown, "404 Not Found", "")?;
        assert!(unknown.contains("three") && unknown.ends_with("reachable: one, two"), "{unknown}");
    }
    Ok(())
}

#[tokio::test]
async fn a_cluster_whose_agent_is_away_is_503_with_the_time_it_was_last_seen() -> Result<()> {
    let hub = Hub::start().await?;
    let mut agent = Spoke::of(&hub, "one").start().await?;
    agent.stop().await?;
    wait_until(BOUND, "the hub to notice", async || !hub.is_available("one").await).await?;
    let view = hub.cluster("one").await?;
    let seen = view["tunnel"]["lastSeen"].as_str().context("no lastSeen")?.to_owned();
    let (second, _) = seen.split_once(['.', 'Z']).context("no timestamp")?;
    for (entry, login) in entries(&hub)? {
        let answer = exchange(&entry, &connect("127.0.0.1:80", &login)).await?;
        let away = sentence(&answer, "503 Service Unavailable", "Retry-After: 1")?;
        assert!(away.contains(&format!("last seen {second}Z, ")) && away.contains(" ago"), "{away} {seen}");
    }
    let away = hub.client("one")?.socks5().dial("127.0.0.1:80").await;
    assert!(matches!(away, Err(DialError::Reply { reply: 4 })), "{:?}", away.err());

    agent.start_again().await?;
    let target = transfer::start().await?;
    let client = hub.client("one")?;
    wait_for(BOUND, "the agent to serve again", async || client.dial(&target.address().to_string()).await).await?;
    Ok(())
}

#[tokio::test]
async fn a_cluster_that_waits_is_denied_or_never_had_an_agent_says_so() -> Result<()> {
    let hub = Hub::start().await?;
    let ask = async |cluster: &str| {
        let login = authorization(cluster, &hub.credentials().token()?);
        exchange(&Entry::Plain(hub.addresses().proxy), &connect("127.0.0.1:80", &login)).await
    };
    let status = "503 Service Unavailable";
    let state = TempDir::new()?;
    let terms = JoinTerms { auto_accept: false, ..JoinTerms::auto_accepted("one") };
    let token = hub.create_token(&terms).await?;
    let mut waiting = Spoke::of(&hub, "one").token(&token).join(state.path()).await?.spawn()?;
    wait_for(BOUND, "the join's request", async || hub.cluster("one").await).await?;
    let answer = ask("one").await?;
    assert!(sentence(&answer, status, "Retry-After: 1")?.contains("cluster-proxy accept one"), "{answer}");

    hub.accept("one").await?;
    waiting.exits_with(0, BOUND).await?;
    let answer = ask("one").await?;
    assert!(sentence(&answer, status, "Retry-After: 1")?.contains("no agent connected"), "{answer}");

    hub.deny("one").await?;
    let answer = ask("one").await?;
    assert!(sentence(&answer, status, "Retry-After: 1")?.contains("has been denied"), "{answer}");
    Ok(())
}

#[tokio::test]
async fn overload_is_503_that_names_the_cap_and_passes() -> Result<()> {
    for (flag, of) in [("--max-connections-per-cluster", "cluster"), ("--max-connections-per-user", "user")] {
        let hub = Hub::builder().args([flag, "1"]).start().await?;
        let _agent = Spoke::of(&hub, "one").start().await?;
        let target = transfer::start().await?;
        let client = hub.client("one")?;
        let held = client.dial(&target.address().to_string()).await?;
        let login = authorization("one", &hub.credentials().token()?);
        let request = connect(&target.address().to_string(), &login);
        let answer = exchange(&Entry::Plain(hub.addresses().proxy), &request).await?;
        let overload = sentence(&answer, "503 Service Unavailable", "Retry-After: 1")?;
        assert!(overload.starts_with(&format!("the {of} has 1 connections")) && overload.contains(flag), "{overload}");
        let socks5 = client.clone().socks5().dial(&target.address().to_string()).await;
        assert!(matches!(socks5, Err(DialError::Reply { reply: 1 })), "{:?}", socks5.err());
        drop(held);
        wait_for(BOUND, "room again", async || client.dial(&target.address().to_string()).await).await?;
    }
    Ok(())
}

#[tokio::test]
async fn unanswered_dials_have_a_cap_of_their_own_that_a_client_who_leaves_gives_back() -> Result<()> {
    for (flag, of) in [("--max-pending-per-cluster", "cluster"), ("--max-pending-per-user", "user")] {
        let hub = Hub::builder().args([flag, "1", "--dial-timeout", "60s"]).start().await?;
        let _agent = Spoke::of(&hub, "one").start().await?;
        let (hole, target) = (black_hole::start().await?, transfer::start().await?);
        let (client, login) = (hub.client("one")?, authorization("one", &hub.credentials().token()?));
        let open = client.dial(&target.address().to_string()).await?;
        let mut pending = client.enter().await?;
        pending.write_all(connect(&hole.address()?.to_string(), &login).as_bytes()).await?;
        let request = connect(&target.address().to_string(), &login);
        wait_until(BOUND, "the dial to be pending", async || {
            let metrics = Metrics::fetch(hub.addresses().metrics).await;
            metrics.is_ok_and(|metrics| metrics.sum("proxy_server_connections", &[]) == 2.0)
        })
        .await?;
        let answer = exchange(&Entry::Plain(hub.addresses().proxy), &request).await?;
        let overload = sentence(&answer, "503 Service Unavailable", "Retry-After: 1")?;
        let expected = format!("the {of} has 1 dials without an answer");
        assert!(overload.starts_with(&expected) && overload.contains(flag), "{overload}");
        drop((pending, open));
        wait_for(BOUND, "room again", async || client.dial(&target.address().to_string()).await).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_client_that_half_closes_first_still_gets_its_response() -> Result<()> {
    let hub = Hub::start().await?;
    let _agent = Spoke::of(&hub, "one").start().await?;
    let target = half_close::client_first().await?;
    let receipt = half_close::Receipt::of(b"all I say").to_string();
    for (entry, login) in entries(&hub)? {
        // The request, the payload and the FIN at once, then each in its turn.
        let request = connect(&target.address().to_string(), &login);
        let mut connection = Client::new(entry.clone()).enter().await?;
        connection.write_all(format!("{request}all I say").as_bytes()).await?;
        connection.shutdown().await?;
        let mut answer = String::new();
        timeout(BOUND, connection.read_to_string(&mut answer)).await??;
        assert_eq!(answer, format!("{ESTABLISHED}{receipt}"), "{entry:?}");

        let token = hub.credentials().token()?;
        let client = Client::new(entry).cluster("one", &token);
        for client in [client.clone(), client.socks5()] {
            let mut connection = client.dial(&target.address().to_string()).await?;
            connection.write_all(b"all I say").await?;
            connection.shutdown().await?;
            let mut answer = String::new();
            timeout(BOUND, connection.read_to_string(&mut answer)).await??;
            assert_eq!(answer, receipt);
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_half_closed_client_gets_responses_in_absolute_form_and_refusals_too() -> Result<()> {
    let hub = Hub::start().await?;
    let _agent = Spoke::of(&hub, "one").start().await?;
    let web = web::plain("web").await?;
    let (closed, token) = (closed_port().await?, hub.credentials().token()?);
    for (entry, login) in entries(&hub)? {
        for (request, status, body) in [
            (format!("GET http://{}/ HTTP/1.1\r\nHost: x\r\n{login}\r\n", web.service().address()), "200", "web\n"),
            (format!("GET http://127.0.0.1:{closed}/ HTTP/1.1\r\nHost: x\r\n{login}\r\n"), "502", ""),
            // With nothing behind the request, a FIN before the dial's end is a client that has left; see the next ones.
            (connect(&format!("127.0.0.1:{closed}"), &login) + "all I say", "502", ""),
            (connect("127.0.0.1:1", &authorization("one", "wrong")), "407", ""),
            (connect("one:1", &authorization("two", &token)), "404", ""),
        ] {
            let mut connection = Client::new(entry.clone()).enter().await?;
            connection.write_all(request.as_bytes()).await?;
            connection.shutdown().await?;
            let mut answer = String::new();
            timeout(BOUND, connection.read_to_string(&mut answer))
                .await?
                .with_context(|| format!("{entry:?} {request} {answer}"))?;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")) && answer.ends_with(body), "{answer}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_websocket_upgrades_in_absolute_form() -> Result<()> {
    let hub = Hub::start().await?;
    let _agent = Spoke::of(&hub, "one").start().await?;
    let target = Service::start(|stream| async move {
        let mut socket = tokio_tungstenite::accept_async(stream).await.map_err(std::io::Error::other)?;
        while let Some(Ok(message)) = socket.next().await {
            if message.is_text() {
                socket.send(message).await.map_err(std::io::Error::other)?;
            }
        }
        Ok(())
    })
    .await?;
    for (entry, login) in entries(&hub)? {
        let request = format!(
            "GET http://{}/ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{login}\r\n",
            target.address()
        );
        let mut connection = Client::new(entry).enter().await?;
        connection.write_all(request.as_bytes()).await?;
        connection.flush().await?;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(timeout(BOUND, connection.read_u8()).await??);
        }
        let head = String::from_utf8_lossy(&head).to_lowercase();
        assert!(head.starts_with("http/1.1 101 ") && head.contains("\r\nupgrade: websocket\r\n"), "{head}");
        // The key's answer as in RFC 6455 section 1.3.
        assert!(head.contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo="), "{head}");
        let mut socket = tokio_tungstenite::WebSocketStream::from_raw_socket(connection, Role::Client, None).await;
        for text in ["first", "second"] {
            socket.send(Message::text(text)).await?;
            let echoed = timeout(BOUND, socket.next()).await?.context("the socket ended")??;
            assert_eq!(echoed, Message::text(text));
        }
        socket.close(None).await?;
        while let Some(message) = timeout(BOUND, socket.next()).await? {
            assert!(message?.is_close());
        }
    }
    Ok(())
}

/// The egress selector sends `CONNECT IP:PORT` and no more: the server name in TLS, or the socket, says which cluster it means.
#[tokio::test]
async fn kube_apiservers_egress_selector_reaches_the_cluster_that_its_transport_names() -> Result<()> {
    let folder = TempDir::new()?;
    let socket = folder.path().join("one.sock");
    let hub = Hub::builder().args(["--proxy-socket", &format!("{}=one", socket.display())]).start().await?;
    let _agent = Spoke::of(&hub, "one").start().await?;
    let _other = Spoke::of(&hub, "two").policy(["--allow", "192.0.2.1"]).start().await?;
    let echo = echo::start().await?;
    let request = connect(&echo.address().to_string(), "");
    echoes(UnixStream::connect(&socket).await?, &request).await?;
    let tls = TlsConnector::from(hub.credentials().mutual_tls()?);
    let name = ServerName::try_from("one.clusters.internal")?;
    echoes(tls.connect(name, TcpStream::connect(hub.addresses().proxy).await?).await?, &request).await
}

/// Sends `request`, demands the 200 alone, and then its own words back.
async fn echoes(mut connection: impl AsyncRead + AsyncWrite + Unpin, request: &str) -> Result<()> {
    connection.write_all(request.as_bytes()).await?;
    connection.flush().await?;
    let mut answer = vec![0; 1024];
    let length = timeout(BOUND, connection.read(&mut answer)).await??;
    assert_eq!(String::from_utf8_lossy(&answer[..length]), ESTABLISHED);
    connection.write_all(b"hello").await?;
    connection.flush().await?;
    timeout(BOUND, connection.read_exact(&mut answer[..5])).await??;
    assert_eq!(&answer[..5], b"hello");
    Ok(())
}

//! HTTP that is none, or asks for what cannot be, on the clients' port.

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{Target, answer_to, shown};

/// 64 KiB more than a MB of head.
const MUCH: usize = 1 << 20;

#[tokio::test]
async fn a_target_that_cannot_be_is_a_bad_request_on_every_entry() -> Result<()> {
    let mut target = Target::start().await?;
    let login = login(&target, "a")?;
    let long = "h".repeat(300);
    let connects = [
        ":80",
        "h",
        "h:",
        "h:0",
        "h:65536",
        "h:99999999999999999999",
        "h:-1",
        "h:+1",
        "h:80x",
        "[::1:80",
        "::1:80",
        "[]:80",
        "h..x:80",
        ".:80",
        "-:",
        "h%00:80",
        "h/x:80",
        "user@h:80",
        &format!("{long}:80"),
        &format!("{}:80", "a.".repeat(200)),
    ];
    let absolutes =
        ["http:///x", "http://:80/", "http://h:65536/", "http://h:0/", "http://[::1/", "ftp://h/", "https://h/", "h"];
    let connects = connects.iter().map(|target| format!("CONNECT {target} HTTP/1.1\r\nHost: x\r\n{login}\r\n"));
    let absolutes =
        absolutes.iter().map(|target| format!("GET {target} HTTP/1.1\r\nHost: x\r\n{login}Connection: close\r\n\r\n"));
    let requests: Vec<String> = connects.chain(absolutes).collect();
    for entry in target.entries()? {
        for request in &requests {
            let answer = answer_to(&entry, request.as_bytes()).await?;
            is_status(&answer, &[400, 405]).with_context(|| format!("{} over {entry:?}", shown(request.as_bytes())))?;
        }
    }
    target.is_unharmed().await
}

#[tokio::test]
async fn garbage_is_a_bad_request_and_never_waited_for() -> Result<()> {
    let mut target = Target::start().await?;
    let garbage: [&[u8]; 10] = [
        b"\x00\x01\x02\x03 garbage\r\n\r\n",
        b"\xff\xfe\xfd\xfc\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.9\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nMS\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"CONNECT h:80\r\n\r\n",
        b"CONNECT h:80 HTTP/1.1\r\nno colon\r\n\r\n",
        b"CONNECT h:80 HTTP/1.1\r\nbad\x00name: x\r\n\r\n",
        b"CONNECT h:80 HTTP/1.1\r\nname: \x00\x01\r\n\r\n",
        b"\x04\x01\x00\x50\x7f\x00\x00\x01\x00",
    ];
    for entry in target.entries()? {
        for bytes in garbage {
            let answer = answer_to(&entry, bytes).await?;
            is_status(&answer, &[400]).with_context(|| format!("{} over {entry:?}", shown(bytes)))?;
        }
        let origin_form = answer_to(&entry, b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await?;
        is_status(&origin_form, &[405])?;
    }
    target.is_unharmed().await
}

#[tokio::test]
async fn a_head_that_is_too_long_is_refused_with_431() -> Result<()> {
    let mut target = Target::start().await?;
    let start = "CONNECT h:80 HTTP/1.1\r\nHost: x\r\n";
    let one_field = format!("{start}X: {}\r\n\r\n", "x".repeat(MUCH));
    let many_fields = format!("{start}{}\r\n", "X: y\r\n".repeat(10_000));
    let long_target = format!("CONNECT {}:80 HTTP/1.1\r\n\r\n", "h".repeat(MUCH));
    let endless = "x".repeat(MUCH);
    for entry in target.entries()? {
        for request in [&one_field, &many_fields, &long_target, &endless] {
            let answer = answer_to(&entry, request.as_bytes()).await?;
            is_status(&answer, &[431]).with_context(|| format!("{} over {entry:?}", shown(request.as_bytes())))?;
        }
        // The second request of a connection is read by other code.
        let first = "GET /first HTTP/1.1\r\nHost: x\r\n\r\n";
        for second in [&one_field, &many_fields] {
            let answer = answer_to(&entry, format!("{first}{second}").as_bytes()).await?;
            let text = String::from_utf8_lossy(&answer);
            ensure!(text.starts_with("HTTP/1.1 405"), "{text}");
            ensure!(text.matches("HTTP/1.1 4").count() <= 2, "{text}");
        }
    }
    target.is_unharmed().await
}

#[tokio::test]
async fn credentials_that_cannot_be_read_are_refused() -> Result<()> {
    let mut target = Target::start().await?;
    let values = [
        "",
        "Basic",
        "Basic ",
        "Basic !!!",
        "Basic YQ==",
        "Bearer",
        "Bearer ",
        "Bearer x",
        "Bearer cpu-0123456789.x",
        "Digest a=b",
        "Basic /////w==",
        &format!("Basic {}", "A".repeat(20_000)),
        &format!("Bearer {}", "é".repeat(500)),
    ];
    let entries = target.entries()?;
    for entry in &entries[..2] {
        for value in values {
            let connect = format!("CONNECT h:80 HTTP/1.1\r\nProxy-Authorization: {value}\r\n\r\n");
            let answer = answer_to(entry, connect.as_bytes()).await?;
            is_status(&answer, &[407]).with_context(|| shown(connect.as_bytes()))?;
            ensure!(String::from_utf8_lossy(&answer).contains("Proxy-Authenticate: Basic"), "no challenge");
            let absolute = format!(
                "GET http://h/ HTTP/1.1\r\nHost: h\r\nProxy-Authorization: {value}\r\nConnection: close\r\n\r\n"
            );
            is_status(&answer_to(entry, absolute.as_bytes()).await?, &[407])
                .with_context(|| shown(absolute.as_bytes()))?;
        }
    }
    target.is_unharmed().await
}

/// The field that names `cluster` and carries the administrator's token.
fn login(target: &Target, cluster: &str) -> Result<String> {
    let login = STANDARD.encode(format!("{cluster}:{}", target.hub.credentials().token()?));
    Ok(format!("Proxy-Authorization: Basic {login}\r\n"))
}

/// Demands one of these statuses.
pub(super) fn is_status(answer: &[u8], statuses: &[u16]) -> Result<()> {
    let fits = |status: &u16| answer.starts_with(format!("HTTP/1.1 {status} ").as_bytes());
    ensure!(statuses.iter().any(fits), "not {statuses:?} but {:?}", shown(answer));
    Ok(())
}

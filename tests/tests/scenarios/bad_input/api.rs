//! Requests that the API and the metrics port cannot serve.

use anyhow::{Context as _, Result, ensure};
use hyper::Method;
use serde_json::{Value, json};
use tests::Fetch;
use tests::client::Entry;

use super::http::is_status;
use super::{Target, answer_to, shown};

#[tokio::test]
async fn a_request_that_cannot_be_served_says_why_in_json() -> Result<()> {
    let mut target = Target::start().await?;
    let csr = "AAAA";
    let good = json!({"name": "alice", "clusters": "*", "csr": csr, "validitySeconds": 60});
    let user = |field: &str, value: Value| {
        let mut user = good.clone();
        user[field] = value;
        ("/v1/users", user.to_string())
    };
    let deep = "[".repeat(20_000);
    let bodies = [
        ("/v1/tokens", String::new()),
        ("/v1/tokens", "garbage".to_owned()),
        ("/v1/tokens", "{".to_owned()),
        ("/v1/tokens", "[]".to_owned()),
        ("/v1/tokens", deep),
        ("/v1/tokens", json!({"ttlSeconds": 0}).to_string()),
        ("/v1/tokens", json!({"ttlSeconds": -1}).to_string()),
        ("/v1/tokens", json!({"ttlSeconds": u64::MAX}).to_string()),
        ("/v1/tokens", json!({"ttlSeconds": "soon"}).to_string()),
        ("/v1/tokens", json!({"cluster": "A B"}).to_string()),
        ("/v1/tokens", json!({"cluster": ""}).to_string()),
        ("/v1/tokens", json!({"unknown": 1}).to_string()),
        user("name", json!("")),
        user("name", json!("system:admin")),
        user("name", json!("a:b")),
        user("name", json!("x".repeat(300))),
        user("clusters", json!(["A"])),
        user("clusters", json!("some")),
        user("csr", json!("not base64!")),
        user("csr", json!("")),
        user("validitySeconds", json!(u64::MAX)),
        user("validitySeconds", json!(-1)),
        good_without_csr(&good),
        ("/v1/credential", "{}".to_owned()),
        ("/v1/credential", json!({"csr": csr}).to_string()),
        ("/v1/credential", json!({"csr": csr, "validitySeconds": 0}).to_string()),
        ("/v1/credential", json!({"csr": csr, "user": "admin"}).to_string()),
    ];
    for (path, body) in bodies {
        let what = format!("{path} with {}", shown(body.as_bytes()));
        let answer = target.hub.ask(Fetch::new(Method::POST, path).body(body)).await.context(what.clone())?;
        is_explained(&answer).context(what)?;
    }
    let much = json!({"cluster": "x".repeat(1 << 20)});
    // The answer may be lost to the reset that ends an upload nobody reads.
    if let Ok(answer) = target.hub.ask(Fetch::new(Method::POST, "/v1/tokens").json(&much)).await {
        ensure!(answer.status == 413, "{}", answer.status);
    }
    let token = target.hub.credentials().token()?;
    let requests = [
        Fetch::get("/"),
        Fetch::get("/v1"),
        Fetch::get("/v2/clusters"),
        Fetch::get("/v1/tunnels/none"),
        Fetch::get("/v1/tunnels/A"),
        Fetch::get("/v1/tunnels/..%2f..%2fusers"),
        Fetch::get(format!("/v1/tunnels/{}", "a".repeat(5_000))),
        Fetch::get(format!("/v1/tunnels/a?token={token}/x")).header("x-long", "x".repeat(10_000)),
        Fetch::new(Method::PUT, "/v1/tunnels/a"),
        Fetch::new(Method::DELETE, "/v1/tunnels"),
        Fetch::new(Method::POST, "/v1/tunnels/a/explode"),
        Fetch::new(Method::POST, "/v1/tunnels/none/accept"),
        Fetch::new(Method::DELETE, "/v1/users/none"),
        Fetch::new(Method::DELETE, "/v1/users/a%20b"),
        Fetch::new(Method::DELETE, "/v1/tokens/none"),
        Fetch::get("/v1/credential"),
    ];
    for (at, request) in requests.into_iter().enumerate() {
        let what = format!("{request:?}");
        let answer = target.hub.ask(request).await.context(what.clone())?;
        // One is good: a query is passed over.
        if at != 7 {
            is_explained(&answer).context(what)?;
        }
    }
    ensure!(target.hub.cluster_names().await? == ["a"], "something was made or lost");
    target.is_unharmed().await
}

#[tokio::test]
async fn http_that_is_none_or_too_long_is_refused_on_the_api_and_the_metrics_port() -> Result<()> {
    let mut target = Target::start().await?;
    let start = "GET / HTTP/1.1\r\nHost: x\r\n";
    let cases = [
        ("garbage\r\n\r\n".to_owned(), 400),
        ("\x00\x01\x02\r\n\r\n".to_owned(), 400),
        (format!("{start}no colon\r\n\r\n"), 400),
        (format!("{start}X: {}\r\n\r\n", "x".repeat(1 << 20)), 431),
        (format!("{start}{}\r\n", "X: y\r\n".repeat(10_000)), 431),
    ];
    for entry in [target.api()?, target.metrics()] {
        for (request, status) in &cases {
            let answer = answer_to(&entry, request.as_bytes()).await?;
            is_status(&answer, &[*status]).with_context(|| format!("{} over {entry:?}", shown(request.as_bytes())))?;
        }
    }
    for path in ["/", "/metrics/x", "/debug/pprof", "/..%2f..%2fetc/passwd"] {
        let answer = Fetch::get(path).plain(target.hub.addresses().metrics).await?;
        ensure!(answer.status == 404, "{path}: {}", answer.status);
    }
    // No TLS where it must be, and TLS where there is none.
    for bytes in [&b"GET /v1/status HTTP/1.1\r\nHost: x\r\n\r\n"[..], &[5, 1, 0], &[0; 64]] {
        let answer = answer_to(&Entry::Plain(target.hub.addresses().api), bytes).await?;
        ensure!(!answer.starts_with(b"HTTP/"), "the API answered in clear");
    }
    answer_to(&target.metrics(), &[0x16, 3, 1, 0, 5, 1, 0, 0, 1, 0]).await?;
    target.is_unharmed().await
}

#[tokio::test]
async fn the_api_is_for_those_who_show_who_they_are() -> Result<()> {
    let mut target = Target::start().await?;
    let tls = target.hub.credentials().tls()?;
    let values = ["Bearer", "Bearer x", "Bearer cpu-0123456789.x", "Basic !!!", "Basic YTpi", "Digest a=b", "x"];
    let requests = values.map(|value| Fetch::get("/v1/status").header("authorization", value));
    // Not a byte of the body is waited for.
    let large = Fetch::new(Method::POST, "/v1/tokens").body(vec![b'x'; 4 << 20]);
    for request in requests.into_iter().chain([Fetch::get("/v1/status"), Fetch::get("/nowhere")]) {
        let answer = request.tls(target.hub.addresses().api, tests::HUB_NAME, tls.clone()).await?;
        ensure!(answer.status == 401, "{}", answer.status);
        ensure!(answer.headers["www-authenticate"] == "Bearer", "no challenge");
        is_explained(&answer)?;
    }
    // The answer may be lost to the reset that ends an upload nobody reads.
    if let Ok(answer) = large.tls(target.hub.addresses().api, tests::HUB_NAME, tls).await {
        ensure!(answer.status == 401, "{}", answer.status);
    }
    target.is_unharmed().await
}

fn good_without_csr(good: &Value) -> (&'static str, String) {
    let mut user = good.clone();
    if let Some(fields) = user.as_object_mut() {
        fields.remove("csr");
    }
    ("/v1/users", user.to_string())
}

/// Demands a refusal with a word for programs and a sentence for people.
fn is_explained(answer: &tests::Answer) -> Result<()> {
    ensure!(answer.status.is_client_error(), "{}: {}", answer.status, answer.text());
    let error = answer.json()?;
    ensure!(error["reason"].as_str().is_some_and(|reason| !reason.is_empty()), "{error}");
    ensure!(error["message"].as_str().is_some_and(|message| !message.is_empty() && message.len() < 2_048), "{error}");
    Ok(())
}

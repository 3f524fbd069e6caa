//! Tokens of users: several, each with a name and an end, after which nothing is opened or goes on by it; and in no arguments.

use std::io;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use hyper::Method;
use serde_json::json;
use tempfile::TempDir;
use tests::client::{DialError, Entry};
use tests::hub::{ClusterAccess, JoinTerms};
use tests::raw_agent::{AgentCredentials, RawAgent};
use tests::{Client, Fetch, HUB_NAME, Hub, Program, wait_for};
use tokio::io::AsyncReadExt as _;
use tokio::time::timeout;

/// How long anything may take on a loaded machine.
const BOUND: Duration = Duration::from_secs(30);
/// A token that has ended cuts within a minute.
const MINUTE: Duration = Duration::from_secs(60);

/// A further token of a user.
async fn token(hub: &Hub, user: &str, name: &str, seconds: u64) -> Result<String> {
    let new = json!({"name": name, "validitySeconds": seconds});
    let request = Fetch::new(Method::POST, format!("/v1/users/{user}/tokens")).json(&new);
    let created = hub.ask(request).await?.success()?.json()?;
    Ok(created["token"].as_str().context("no token")?.to_owned())
}

async fn is_refused(client: &Client, sentence: &str) -> Result<()> {
    match client.dial("target:80").await {
        Err(DialError::Status { status: 407, body, .. }) if body.contains(sentence) => Ok(()),
        other => bail!("{other:?}"),
    }
}

#[tokio::test]
async fn a_token_that_has_ended_opens_nothing_and_what_it_opened_is_cut() -> Result<()> {
    let hub = Hub::start().await?;
    let agent = RawAgent::open(&hub, &AgentCredentials::joined(&hub, "a", "agent").await?).await?;
    hub.create_user("alice", &ClusterAccess::All).await?;
    let [brief, long] = [token(&hub, "alice", "brief", 6).await?, token(&hub, "alice", "long", 600).await?];
    let [by_brief, by_long] =
        [&brief, &long].map(|token| Client::new(Entry::Plain(hub.addresses().proxy)).cluster("a", token));
    let (mut opened, _at_agent) = agent.connect(&by_brief, "target:80").await?;
    let (mut other, _other_at_agent) = agent.connect(&by_long, "target:80").await?;
    // The hub takes no dial: none must arrive at the agent, which would never answer.
    wait_for(BOUND, "the token to end", async || {
        tokio::select! {
            refused = is_refused(&by_brief, "cluster-proxy user token create alice") => refused,
            dial = agent.dial() => bail!("dialled: {:?}", dial.map(|dial| dial.dial.host.clone())),
        }
    })
    .await?;
    let end = timeout(MINUTE, opened.read(&mut [0])).await.context("the connection is not cut")?;
    ensure!(end.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionReset));

    // At every frontend.
    let proxy = hub.addresses().proxy;
    let socks5 = by_brief.clone().socks5().dial("target:80").await;
    ensure!(matches!(socks5, Err(DialError::Reply { .. })), "{socks5:?}");
    let basic = format!("Basic {}", base64::Engine::encode(&base64::prelude::BASE64_STANDARD, format!("a:{brief}")));
    let absolute = Fetch::get("http://target/").header("proxy-authorization", basic).plain(proxy).await?;
    ensure!(absolute.status == 407 && absolute.text().contains("ended at"), "{}", absolute.text());
    for path in ["/v1/tunnels", "/apis/cluster.open-cluster-management.io/v1/managedclusters", "/clusters/a/version"] {
        let asked = Fetch::get(path).bearer(&brief);
        let refused = asked.tls(hub.addresses().api, HUB_NAME, hub.credentials().tls()?).await?;
        ensure!(refused.status == 401 && refused.text().contains("ended at"), "{path}: {}", refused.text());
    }

    // One that is deleted cuts at once; the user's others go on.
    hub.command(["user", "token", "delete", "alice", "long"]).await?.success()?;
    let end = timeout(BOUND, other.read(&mut [0])).await.context("the connection is not cut")?;
    ensure!(end.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionReset));
    is_refused(&by_long, "token is not known").await
}

#[tokio::test]
async fn the_command_makes_lists_and_deletes_tokens_within_80_columns() -> Result<()> {
    let hub = Hub::start().await?;
    let folder = TempDir::new()?;
    let out = folder.path().join("alice");
    let out = out.to_str().context("a path")?;
    hub.command(["user", "create", "alice", "--all-clusters", "--validity", "30d", "--out", out]).await?.success()?;
    let made =
        hub.command(["user", "token", "create", "alice", "--name", "ci", "--validity", "7d"]).await?.success()?;
    ensure!(made.starts_with("cpu-"), "{made}");
    let listed = hub.command(["user", "token", "list", "alice"]).await?.success()?;
    let lines: Vec<&str> = listed.lines().collect();
    ensure!(lines.len() == 3 && lines[1].starts_with("default") && lines[2].starts_with("ci"), "{listed}");
    ensure!(lines[1].contains("good for 29d") || lines[1].contains("good for 30d"), "{listed}");
    ensure!(lines.iter().all(|line| line.len() <= 80), "{listed}");
    hub.command(["user", "token", "delete", "alice", "ci"]).await?.success()?;
    let again = hub.command(["user", "token", "delete", "alice", "ci"]).await?;
    ensure!(again.stderr.contains("user token list alice"), "{}", again.stderr);

    // What a user is given for longer than a year is refused, whatever it is.
    let refused =
        hub.command(["user", "create", "bob", "--all-clusters", "--validity", "3650d", "--out", "/nowhere/b"]).await?;
    ensure!(!refused.status.success());
    let new = json!({"name": "x", "validitySeconds": 3650 * 86_400_u64});
    let ten_years = hub.ask(Fetch::new(Method::POST, "/v1/users/alice/tokens").json(&new)).await?;
    ensure!(ten_years.status == 422 && ten_years.text().contains("365 days"), "{}", ten_years.text());
    let long = folder.path().join("bob");
    let long = long.to_str().context("a path")?;
    let refused =
        hub.command(["user", "create", "bob", "--all-clusters", "--validity", "3650d", "--out", long]).await?;
    ensure!(refused.stderr.contains("365 days"), "{}", refused.stderr);
    ensure!(hub.ask(Fetch::get("/v1/users/bob/tokens")).await?.status == 404);

    // A renewed certificate works, with the user's rights.
    hub.command(["user", "renew", "alice", "--out", out, "--validity", "1d"]).await?.success()?;
    let alice = tests::Credentials::at(out);
    let seen = Fetch::get("/v1/tunnels").tls(hub.addresses().api, HUB_NAME, alice.mutual_tls()?).await?;
    ensure!(seen.status == 200, "{}", seen.text());
    // A user makes no credentials for itself: a stolen certificate would never end.
    let new = json!({"name": "more", "validitySeconds": 60});
    let asked = Fetch::new(Method::POST, "/v1/users/alice/tokens").json(&new);
    let refused = asked.tls(hub.addresses().api, HUB_NAME, alice.mutual_tls()?).await?;
    ensure!(refused.status == 403, "{}", refused.text());
    let own = Fetch::get("/v1/users/alice/tokens").tls(hub.addresses().api, HUB_NAME, alice.mutual_tls()?).await?;
    ensure!(own.status == 200, "{}", own.text());
    Ok(())
}

#[tokio::test]
async fn no_token_is_in_the_arguments_of_a_join() -> Result<()> {
    let hub = Hub::start().await?;
    let printed = hub.command(["join-command", "a"]).await?.success()?;
    let (echo, join) = printed.trim_end().split_once(" | ").context("no pipe")?;
    ensure!(
        echo.starts_with("echo cpj-") && !join.contains("cpj-") && printed.trim_end().lines().count() == 1,
        "{printed}"
    );

    let token = hub.create_token(&JoinTerms::auto_accepted("a")).await?;
    let (state, address) = (TempDir::new()?, hub.addresses().tunnel.to_string());
    let line = |file: &str| -> Result<Program> {
        let join =
            Program::of_workspace("proxy-agent")?.args(["join", "--hub", &address, "--pin", &hub.addresses().pin]);
        Ok(join.args(["--agent", "x", "--token-file", file, "--state"]).arg(state.path()))
    };
    let empty = state.path().join("empty");
    std::fs::write(&empty, "\n")?;
    let refused = line(empty.to_str().context("a path")?)?.run(BOUND).await?;
    ensure!(refused.stderr.contains("--token-file") && refused.stderr.contains("join-command"), "{}", refused.stderr);
    refused.exited_with(64)?;
    let mut join = line("-")?.with_stdin().spawn()?;
    join.write(format!("{token}\n").as_bytes(), BOUND).await?;
    let arguments = std::fs::read_to_string(format!("/proc/{}/cmdline", join.pid()));
    ensure!(arguments.is_ok_and(|arguments| !arguments.contains("cpj-")));
    join.exits_with(0, BOUND).await?;
    let file = state.path().join("token");
    let again = hub.create_token(&JoinTerms::auto_accepted("a")).await?;
    std::fs::write(&file, again)?;
    line(file.to_str().context("a path")?)?.run(BOUND).await?.success()?;
    Ok(())
}

//! `cluster-proxy credential`: kept, exchanged in time, and gone with its user.

use std::fs;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use certs::PrivateKey;
use futures_util::future::try_join_all;
use hyper::Method;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::{Value, json};
use tempfile::TempDir;
use tests::{Answer, Credentials, Fetch, HUB_NAME, Hub, Program, tool, wait_until};

use super::{BOUND, ONE, Site, mode, user};

impl Site {
    /// What kubectl gets to see.
    async fn credential(&self) -> Result<Value> {
        Ok(serde_json::from_str(&self.command("credential").await?.success()?)?)
    }

    /// Has the certificate that is kept end at that time, as far as the command knows.
    fn ends(&self, not_after: &str) -> Result<()> {
        let path = self.alice.folder().join("short-lived.json");
        let mut kept: Value = serde_json::from_str(&fs::read_to_string(&path)?)?;
        kept["notAfter"] = json!(not_after);
        Ok(fs::write(&path, kept.to_string())?)
    }
}

const LONG_AGO: &str = "2020-01-01T00:00:00Z";

#[tokio::test]
async fn twenty_kubectls_at_once_share_one_certificate() -> Result<()> {
    let site = Site::start().await?;
    let config = site.kubeconfig().await?;
    let kubectl = site.clusters(tool::kubectl()?, &config);
    for finished in try_join_all((0..20).map(|_| kubectl.run(BOUND))).await? {
        assert_eq!(finished.success()?, ONE);
    }
    let shown = site.credential().await?;
    assert_eq!(shown["apiVersion"], "client.authentication.k8s.io/v1");
    for file in ["short-lived.json", "short-lived.lock"] {
        assert_eq!(mode(&site.alice.folder().join(file))?, 0o600, "{file}");
    }
    site.ends(LONG_AGO)?;
    let asked = try_join_all((0..20).map(|_| site.credential())).await?;
    assert!(asked.iter().all(|one| one == &asked[0]), "several certificates were made");
    assert_ne!(asked[0]["status"]["clientCertificateData"], shown["status"]["clientCertificateData"]);
    Ok(())
}

#[tokio::test]
async fn old_kubectls_are_answered_in_their_version() -> Result<()> {
    let site = Site::start().await?;
    let config = site.kubeconfig().await?;
    let v1beta1 = fs::read_to_string(&config)?
        .replace("client.authentication.k8s.io/v1\n", "client.authentication.k8s.io/v1beta1\n");
    fs::write(&config, v1beta1)?;
    assert_eq!(site.clusters(tool::old_kubectl()?, &config).run(BOUND).await?.success()?, ONE);
    Ok(())
}

#[tokio::test]
async fn a_hub_that_is_away_is_not_missed_while_the_certificate_is_good() -> Result<()> {
    let mut site = Site::start().await?;
    let shown = site.credential().await?;
    site.hub.stop().await?;
    assert_eq!(site.credential().await?, shown);
    // Due for exchange, and still good.
    let soon = in_seconds(120).await?;
    site.ends(&soon)?;
    let kept = site.credential().await?;
    assert_eq!(kept["status"]["clientKeyData"], shown["status"]["clientKeyData"]);
    site.ends(LONG_AGO)?;
    let away = site.command("credential").await?;
    assert!(away.stderr.contains("cannot reach the hub"), "{away:?}");
    assert_eq!(away.exited_with(69)?, "");
    site.hub.start_again().await?;
    assert_ne!(site.credential().await?["status"]["clientKeyData"], shown["status"]["clientKeyData"]);
    Ok(())
}

#[tokio::test]
async fn a_deleted_user_gets_nothing_and_what_it_has_opens_nothing() -> Result<()> {
    let site = Site::start().await?;
    let config = site.kubeconfig().await?;
    assert_eq!(site.clusters(tool::kubectl()?, &config).run(BOUND).await?.success()?, ONE);
    site.hub.command(["user", "delete", "alice"]).await?.success()?;

    let refused = site.clusters(tool::kubectl()?, &config).run(BOUND).await?;
    assert_eq!(refused.exited_with(1)?, "");
    site.ends(LONG_AGO)?;
    let nothing = site.command("credential").await?;
    assert!(nothing.stderr.contains("not registered here any more"), "{nothing:?}");
    assert_eq!(nothing.exited_with(77)?, "");
    assert!(!site.alice.folder().join("short-lived.json").exists(), "what the hub refuses is kept");

    // Nor does an heir of the name revive them, who has other credentials. Certificates tell time in seconds: the heir comes in
    // a later one than they did.
    let seconds = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map(|since| since.as_secs());
    let now = seconds()?;
    wait_until(BOUND, "the next second", async || seconds().is_ok_and(|later| later > now)).await?;
    user(&site.hub, "alice", "1d", TempDir::new()?.path()).await?;
    assert_eq!(site.command("credential").await?.exited_with(77)?, "");
    Ok(())
}

#[tokio::test]
async fn a_certificate_for_a_certificate_ends_with_it() -> Result<()> {
    let hub = Hub::start().await?;
    hub.create_token(&tests::hub::JoinTerms::auto_accepted("one")).await?;
    let folder = TempDir::new()?;
    let short = user(&hub, "short", "10m", folder.path()).await?;
    let long = user(&hub, "long", "365d", folder.path()).await?;
    let limit = ends(&fs::read_to_string(short.certificate_file())?)?;
    assert_eq!(ends(&issued(&ask(&hub, &short, false, 3600).await?)?)?, limit);
    // So does one for a token, which has ten minutes from about then; the longest is an hour.
    assert!(ends(&issued(&ask(&hub, &short, true, 3600).await?)?)? <= limit + Duration::from_secs(30));
    assert!(ends(&issued(&ask(&hub, &long, true, 3600).await?)?)? > limit);
    assert!(ends(&issued(&ask(&hub, &long, false, 60).await?)?)? < limit);
    for seconds in [0, 3601, u64::MAX] {
        assert_eq!(ask(&hub, &long, false, seconds).await?.status, 422);
    }
    Ok(())
}

/// The time in so many seconds, as the machine's `date` writes it.
async fn in_seconds(seconds: u32) -> Result<String> {
    let words = ["--utc", "--date", &format!("{seconds} seconds"), "+%Y-%m-%dT%H:%M:%SZ"];
    Ok(Program::at("/bin/date").args(words).run(BOUND).await?.success()?.trim_end().to_owned())
}

/// Asks for a certificate, with the user's token or with its certificate.
async fn ask(hub: &Hub, user: &Credentials, token: bool, seconds: u64) -> Result<Answer> {
    let csr = STANDARD.encode(PrivateKey::generate().csr_der()?);
    let request = Fetch::new(Method::POST, "/v1/credential").json(&json!({ "csr": csr, "validitySeconds": seconds }));
    match token {
        true => request.bearer(&user.token()?).tls(hub.addresses().api, HUB_NAME, user.tls()?).await,
        false => request.tls(hub.addresses().api, HUB_NAME, user.mutual_tls()?).await,
    }
}

fn issued(answer: &Answer) -> Result<String> {
    let answer: Value = serde_json::from_slice(&answer.body)?;
    Ok(answer["certificateChainPem"].as_str().with_context(|| format!("no certificate in {answer}"))?.to_owned())
}

fn ends(chain: &str) -> Result<SystemTime> {
    certs::ends_at(&CertificateDer::from_pem_slice(chain.as_bytes())?).context("no end")
}

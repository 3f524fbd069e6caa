//! The kube gateway: stock kubectl by `https://hub/clusters/<name>`, as the hub's user, with the spoke's own account.

mod contexts;
mod identity;
mod kubectl;
mod many;
mod own_api;
mod services;

use std::time::Duration;

use anyhow::{Result, ensure};
use futures_util::StreamExt as _;
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::watcher::{self, watcher};
use kube::runtime::{WatchStreamExt as _, reflector};
use kube::{Api, ResourceExt as _};
use tempfile::TempDir;
use tests::kubeconfig::{Kubeconfig, KubeconfigFile};
use tests::service::apiserver::{ApiServer, TOKEN};
use tests::service::authority::TargetAuthority;
use tests::{Credentials, Hub, Spoke, tool, wait_until};
use tokio::task::JoinSet;

use super::api_clients::kube_rs::client_below;

const BOUND: Duration = Duration::from_secs(60);

/// A hub and one cluster, `one`, with its API server and an agent that has an account there.
struct Site {
    hub: Hub,
    spoke: Spoke,
    server: ApiServer,
    _authority: TargetAuthority,
    account: TempDir,
}

impl Site {
    async fn start() -> Result<Self> {
        Self::start_with(&[]).await
    }

    /// With more flags for the agent.
    async fn start_with(flags: &[&str]) -> Result<Self> {
        let hub = Hub::start().await?;
        let authority = TargetAuthority::new()?;
        let server = ApiServer::start(&authority, &[]).await?;
        let account = TempDir::new()?;
        let token = account.path().join("token");
        std::fs::write(&token, TOKEN)?;
        let (address, ca) = (server.address().to_string(), authority.file());
        let own = ["--kube-api".into(), address, "--kube-ca".into(), ca.display().to_string()];
        let own = own.into_iter().chain(["--kube-token".into(), token.display().to_string()]);
        let flags = own.chain(flags.iter().map(|flag| (*flag).to_owned()));
        let spoke = Spoke::of(&hub, "one").args(flags).start().await?;
        server.add_pod("first");
        Ok(Self { hub, spoke, server, _authority: authority, account })
    }

    /// kubectl's configuration for the cluster, by a path below the hub's address, with a user's token.
    fn config(&self, path: &str, user: &Credentials) -> Result<KubeconfigFile> {
        let hub = std::fs::read_to_string(user.authority_file())?;
        Kubeconfig::new(format!("https://{}{path}", self.hub.addresses().api), &hub, user.token()?).write()
    }

    fn admin(&self) -> Result<KubeconfigFile> {
        self.config("/clusters/one", &self.hub.credentials())
    }
}

#[tokio::test]
async fn every_kubectl_reaches_a_cluster_by_both_forms_of_its_url() -> Result<()> {
    let site = Site::start().await?;
    for path in ["/clusters/one", "/one"] {
        let config = site.config(path, &site.hub.credentials())?;
        for (minor, kubectl) in tool::kubectls_by_minor()? {
            let kubectl = config.configure(kubectl);
            let pods = kubectl.clone().args(["get", "pods", "--output", "name"]).run(BOUND).await?.success()?;
            ensure!(pods == "pod/first\n", "{path} {minor}: {pods}");
            let missing = kubectl.args(["get", "pod", "second"]).run(BOUND).await?;
            ensure!(missing.stderr.contains(r#"pods "second" not found"#), "{path} {minor} {missing:?}");
        }
    }
    let seen = site.server.requests();
    ensure!(seen.iter().all(|seen| !seen.target.contains("one")), "{seen:?}");
    Ok(())
}

#[tokio::test]
async fn a_client_that_watches_goes_on_by_itself_after_the_agent_has_come_back() -> Result<()> {
    let mut site = Site::start().await?;
    let client = client_below(&site.hub, site.hub.addresses().api, "/clusters/one")?;
    let (store, writer) = reflector::store::<Pod>();
    let pods = watcher(Api::<Pod>::namespaced(client, "default"), watcher::Config::default()).default_backoff();
    let mut reflector = JoinSet::new();
    reflector.spawn(reflector::reflector(writer, pods).for_each(|_| std::future::ready(())));
    let holds = async |names: &[&str]| {
        wait_until(BOUND, "the reflector to hold the pods", async || {
            let mut held: Vec<_> = store.state().iter().map(|pod| pod.name_any()).collect();
            held.sort();
            held == names
        })
        .await
    };
    holds(&["first"]).await?;
    site.server.add_pod("second");
    holds(&["first", "second"]).await?;
    site.spoke.kill().await?;
    site.server.add_pod("third");
    site.server.delete_pod("first");
    site.spoke.start_again().await?;
    holds(&["second", "third"]).await
}

#[tokio::test]
async fn what_is_wrong_is_said_in_words_that_kubectl_shows() -> Result<()> {
    let site = Site::start().await?;
    let stranger = site.hub.create_user("stranger", &tests::hub::ClusterAccess::Named(Vec::new())).await?;
    for (config, words) in [
        (site.config("/clusters/one", &stranger)?, "Forbidden"),
        (site.config("/clusters/two", &site.hub.credentials())?, "no cluster named two"),
        (site.config("/clusters/ONE", &site.hub.credentials())?, "no cluster's name"),
    ] {
        let said = config.kubectl()?.args(["get", "pods"]).run(BOUND).await?;
        ensure!(said.stderr.contains(words), "{words}: {said:?}");
    }
    Ok(())
}

#[tokio::test]
async fn an_agent_without_an_account_says_what_it_lacks() -> Result<()> {
    let site = Site::start().await?;
    let plain = Spoke::of(&site.hub, "two").args(["--kube-token", "/nowhere/token"]).start().await?;
    let off = Spoke::of(&site.hub, "three").args(["--gateway", "off"]).start().await?;
    for (spoke, words) in [(&plain, "--kube-token"), (&off, "gateway is off")] {
        let config = site.config(&format!("/clusters/{}", spoke.cluster()), &site.hub.credentials())?;
        let said = config.kubectl()?.args(["get", "pods"]).run(BOUND).await?;
        ensure!(said.stderr.contains(words), "{words}: {said:?}");
    }
    Ok(())
}

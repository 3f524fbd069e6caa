//! kubectl with the contexts that `cluster-proxy kubeconfig` writes, their credentials, and `cluster-proxy kubectl`.
//!
//! Where `--server` names the hub itself, its own API answers instead of a cluster's.

mod credential;
mod wrapper;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use tempfile::TempDir;
use tests::{Credentials, Finished, Hub, Program, Spoke, tool};

/// How long one command may take on a loaded machine.
const BOUND: Duration = Duration::from_secs(60);

/// A hub with the clusters `one` and `two`, and alice, who may see `one`.
struct Site {
    hub: Hub,
    _agents: [Spoke; 2],
    alice: Credentials,
    folder: TempDir,
}

impl Site {
    async fn start() -> Result<Self> {
        let hub = Hub::start().await?;
        let agents = [Spoke::of(&hub, "one").start().await?, Spoke::of(&hub, "two").start().await?];
        let folder = TempDir::new()?;
        let alice = user(&hub, "alice", "365d", folder.path()).await?;
        Ok(Self { hub, _agents: agents, alice, folder })
    }

    /// `cluster-proxy` as alice.
    fn alice(&self) -> Result<Program> {
        self.hub.operator(&self.alice)
    }

    async fn command(&self, words: &str) -> Result<Finished> {
        self.alice()?.args(words.split(' ')).run(BOUND).await
    }

    /// A kubeconfig of alice's with the context `one`.
    async fn kubeconfig(&self) -> Result<PathBuf> {
        let path = self.folder.path().join("one.kubeconfig");
        let output = path.to_str().context("the temporary folder's path is no text")?;
        self.command(&format!("kubeconfig -c one --output {output}")).await?.success()?;
        Ok(path)
    }

    /// A kubectl's list of clusters, which the hub's own API answers.
    fn clusters(&self, kubectl: Program, kubeconfig: &Path) -> Program {
        let server = format!("https://{}", self.hub.addresses().api);
        let kubectl = kubectl.env("KUBECONFIG", kubeconfig).args(["--context", "one", "--server", &server]);
        kubectl.args(["get", "managedclusters", "--output", "name"])
    }
}

/// A user who may reach `one`, made by the operator's command.
async fn user(hub: &Hub, name: &str, validity: &str, folder: &Path) -> Result<Credentials> {
    let folder = folder.join(name);
    let out = folder.to_str().context("the folder's path is no text")?;
    let words = ["user", "create", name, "--cluster", "one", "--validity", validity, "--out", out];
    hub.command(words).await?.success()?;
    Ok(Credentials::at(folder))
}

fn mode(path: &Path) -> Result<u32> {
    Ok(fs::metadata(path)?.permissions().mode() & 0o777)
}

const ONE: &str = "managedcluster.cluster.open-cluster-management.io/one\n";

#[tokio::test]
async fn contexts_are_merged_into_what_the_user_has_and_work_in_every_kubectl() -> Result<()> {
    let site = Site::start().await?;
    let config = site.folder.path().join("config");
    let theirs = "apiVersion: v1\nkind: Config\ncurrent-context: kind # mine\ncontexts:\n- name: kind\n  context: {cluster: k, \
                  user: k, namespace: \"on\"}\nclusters:\n- name: k\n  cluster: {server: 'https://kind:6443'}\nusers:\n- name: k\n  \
                  user: {token: secret}\nmore: [1, {x: \"y\"}]\n";
    fs::write(&config, theirs)?;
    fs::set_permissions(&config, Permissions::from_mode(0o640))?;
    let merge = || Ok::<_, anyhow::Error>(site.alice()?.env("KUBECONFIG", &config).args(["kubeconfig", "--merge"]));

    let unseen = merge()?.args(["-c", "one", "-c", "two"]).run(BOUND).await?;
    assert!(unseen.stderr.contains("there is no cluster two that you may see"), "{unseen:?}");
    unseen.exited_with(1)?;
    assert_eq!(fs::read_to_string(&config)?, theirs);

    for _ in 0..2 {
        assert_eq!(merge()?.arg("--all").run(BOUND).await?.success()?, "one\n");
        assert_eq!(mode(&config)?, 0o640);
    }
    let kubectl = || Ok::<_, anyhow::Error>(tool::kubectl()?.env("KUBECONFIG", &config).arg("config"));
    assert_eq!(kubectl()?.args(["get-contexts", "-o", "name"]).run(BOUND).await?.success()?, "kind\none\n");
    assert_eq!(kubectl()?.arg("current-context").run(BOUND).await?.success()?, "kind\n");
    let merged = fs::read_to_string(&config)?;
    for kept in ["token: secret", "namespace: \"on\"", "more:\n- 1\n- x: \"y\"\n", "server: https://kind:6443"] {
        assert!(merged.contains(kept), "{kept} is gone:\n{merged}");
    }
    assert!(!merged.contains("PRIVATE") && !merged.contains(&site.alice.token()?), "a secret is in it");

    let kubectls = tool::kubectls_by_minor()?.into_iter().map(|(_, kubectl)| kubectl).chain([tool::kubectl()?]);
    for kubectl in kubectls {
        let name = kubectl.name();
        assert_eq!(site.clusters(kubectl, &config).run(BOUND).await?.success()?, ONE, "{name}");
    }
    Ok(())
}

#[tokio::test]
async fn a_set_is_all_its_clusters_and_a_file_is_written_once() -> Result<()> {
    let site = Site::start().await?;
    let all = site.hub.command(["kubeconfig", "--set", "default", "--prefix", "hub-"]).await?.success()?;
    for name in ["hub-one", "hub-two"] {
        assert!(all.contains(&format!("\n  name: {name}\n")), "{all}");
    }
    assert!(!all.contains("current-context"), "of two nobody said which: {all}");
    let unknown = site.hub.command(["kubeconfig", "--set", "nowhere"]).await?;
    assert!(unknown.stderr.contains("\"nowhere\" not found"), "{unknown:?}");

    let path = site.kubeconfig().await?;
    assert_eq!(mode(&path)?, 0o600);
    let before = fs::read_to_string(&path)?;
    let server = format!("server: https://{}/clusters/one\n", site.hub.addresses().api);
    assert!(before.contains(&server) && before.contains("current-context: one\n"), "{before}");
    let again = site.command(&format!("kubeconfig --all --output {}", path.display())).await?;
    assert!(again.stderr.contains("--merge"), "{again:?}");
    again.exited_with(64)?;
    assert_eq!(fs::read_to_string(&path)?, before);
    Ok(())
}

#[tokio::test]
async fn a_kubeconfig_that_cannot_be_read_is_left_alone() -> Result<()> {
    let site = Site::start().await?;
    let config = site.folder.path().join("config");
    fs::write(&config, "clusters: [\n")?;
    let merge = site.alice()?.env("KUBECONFIG", &config).args(["kubeconfig", "--all", "--merge"]).run(BOUND).await?;
    assert!(merge.stderr.contains("is left as it is"), "{merge:?}");
    merge.exited_with(1)?;
    assert_eq!(fs::read_to_string(&config)?, "clusters: [\n");
    Ok(())
}

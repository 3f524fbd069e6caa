//! A fleet: many clusters registered at one hub, one agent each, and the state folders of those agents.
//!
//! Ten thousand joins over the network would take minutes and measure nothing here: the clusters are written straight
//! into the registry of a hub that does not run, and the certificates are issued by the authority in its state folder.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result};
use certs::{Authority, PrivateKey};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use jiff::Timestamp;
use registry::{CLUSTERS_OF_TOKEN, JoinAsk, NewToken, Registry};

/// How long the certificates live: longer than any run.
const VALIDITY: Duration = Duration::from_secs(24 * 3600);

/// Joins written at a time; the registry writes what waits as one group.
const TOGETHER: usize = 256;

/// The agents' folders of a prepared fleet.
#[derive(Clone, Debug)]
pub struct Fleet {
    folder: PathBuf,
}

impl Fleet {
    /// Registers `count` clusters in `hub`, the state folder of a hub that does not run, and writes their agents' state
    /// below `folder`. All agents share one key: only the number of tunnels matters here.
    pub async fn prepare(hub: &Path, folder: &Path, count: usize) -> Result<Self> {
        let fleet = Self { folder: folder.to_owned() };
        let authority = Authority::load_or_create(hub)?;
        let key = PrivateKey::generate();
        fleet.register(hub, &key, count).await?;
        for index in 0..count {
            fleet.write_agent(&authority, &key, index).with_context(|| format!("the state of agent {index}"))?;
        }
        Ok(fleet)
    }

    /// A fleet that [`Self::prepare`] left in `folder`.
    pub fn at(folder: &Path) -> Self {
        Self { folder: folder.to_owned() }
    }

    /// The name of cluster `index`.
    pub fn cluster(index: usize) -> String {
        format!("c{index:05}")
    }

    /// The state folder of the agent of cluster `index`.
    pub fn agent(&self, index: usize) -> PathBuf {
        self.folder.join(Self::cluster(index))
    }

    async fn register(&self, hub: &Path, key: &PrivateKey, count: usize) -> Result<()> {
        let registry = Registry::open(hub.join("registry.redb"))?;
        let now = Timestamp::now();
        let new = NewToken {
            cluster: None,
            auto_accept: true,
            reusable: true,
            time_to_live: VALIDITY,
            created_by: "bench".to_owned(),
        };
        // A token brings only so many clusters.
        let mut tokens = Vec::new();
        for _ in 0..=count / CLUSTERS_OF_TOKEN {
            tokens.push(registry.create_token(new.clone(), now).await?.1);
        }
        let joins = (0..count).map(|index| {
            let (registry, token) = (&registry, tokens[index / CLUSTERS_OF_TOKEN].clone());
            async move {
                let ask = JoinAsk {
                    token,
                    cluster: Some(Self::cluster(index).parse()?),
                    agent: "a".parse()?,
                    key: key.fingerprint(),
                    version: "bench".to_owned(),
                    request: Vec::new(),
                    address: None,
                };
                registry.request_join(ask, now).await?;
                anyhow::Ok(())
            }
        });
        stream::iter(joins).buffer_unordered(TOGETHER).try_collect::<Vec<_>>().await?;
        registry.close().await;
        Ok(())
    }

    fn write_agent(&self, authority: &Authority, key: &PrivateKey, index: usize) -> Result<()> {
        let (folder, cluster) = (self.agent(index), Self::cluster(index));
        fs::create_dir_all(&folder)?;
        let issued = authority.issue_agent(&key.csr_der()?, &cluster.parse()?, &"a".parse()?, VALIDITY)?;
        // As a join writes them, but not flushed to the disk.
        fs::write(folder.join("agent.key"), key.to_pem())?;
        fs::write(folder.join("ca.crt"), authority.certificate_pem())?;
        fs::write(folder.join("agent.toml"), format!("hubs = []\ncluster = \"{cluster}\"\nagent = \"a\"\n"))?;
        fs::write(folder.join("agent.crt"), issued.chain_pem)?;
        Ok(())
    }
}

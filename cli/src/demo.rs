//! `demo`: a hub, two spokes and the main job, on this machine, for real.

use std::{path::Path, time::Duration};

use anstream::{AutoStream, ColorChoice};
use clap::Args;
use tempfile::TempDir;
use tokio::{
    signal::unix::{SignalKind, signal},
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing_subscriber::{EnvFilter, filter::LevelFilter};

use crate::{
    failure::Failure,
    output::{GOOD, HEADING, print},
};

mod clients;
mod error;
mod hub;
mod proof;
mod service;
mod snippets;
mod spoke;

use error::DemoError;
use hub::Hub;
use proof::prove;
use snippets::{Scene, snippets};
use spoke::Spoke;

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    cluster-proxy demo\n  \
    cluster-proxy demo --once\n\n\
    Everything is on loopback and in a temporary folder; nothing is left behind.")]
pub(crate) struct Demo {
    /// End after the proof: with 0 if all of it worked
    #[arg(long)]
    once: bool,
}

/// What everything in the demonstration runs in.
#[derive(Clone, Debug, Default)]
struct Stage {
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// Name of each spoke's cluster, and whether its token lets it in without an administrator.
const SPOKES: [(&str, bool); 2] = [("cluster1", true), ("cluster2", false)];

/// For everything to end once it is told to.
const END_DEADLINE: Duration = Duration::from_secs(10);

impl Demo {
    pub(crate) async fn run(&self) -> Result<(), Failure> {
        let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        log();
        let folder = TempDir::with_prefix("cluster-proxy-demo-").map_err(DemoError::Folder)?;
        let stage = Stage::default();
        // Boxed: it holds a hub and its agents.
        let mut showing = Box::pin(self.show(folder.path(), &stage));
        let ended = tokio::select! {
            ended = &mut showing => ended,
            _ = interrupt.recv() => self.interrupted(),
            _ = terminate.recv() => self.interrupted(),
        };
        drop(showing);
        stage.stop.cancel();
        stage.tasks.close();
        // What does not end in time ends with the process; the folder is removed all the same.
        let _ = timeout(END_DEADLINE, stage.tasks.wait()).await;
        folder.close().map_err(DemoError::Folder)?;
        ended
    }

    /// The usual end, but no proof.
    fn interrupted(&self) -> Result<(), Failure> {
        if self.once { Err(DemoError::Interrupted.into()) } else { Ok(()) }
    }

    /// Ends after the proof with `--once`, else only when a part has failed.
    async fn show(&self, folder: &Path, stage: &Stage) -> Result<(), Failure> {
        let mut hub = Hub::start(&folder.join("hub"), stage).await?;
        step("a hub is up")?;
        let mut spokes = Vec::new();
        for (cluster, auto_accept) in SPOKES {
            spokes.push(join(&hub, cluster, auto_accept, folder, stage).await?);
        }
        for spoke in &spokes {
            hub.available(&spoke.cluster).await?;
            step(format!("{}: its agent has dialled the hub", spoke.cluster))?;
        }
        let credentials = folder.join("demo");
        let user = hub.create_user(&credentials).await?;
        step(format!("user {} may reach every cluster; its credentials: {}", user.hub.user, credentials.display()))?;

        heading("Each spoke's service, reached through the hub in four ways")?;
        let proof = prove(hub.proxy, &user, &spokes).await?;
        print(proof.table().render())?;
        heading("cluster-proxy clusters")?;
        print(hub.table().await?)?;
        if !proof.is_complete() {
            return Err(DemoError::Proof.into());
        }
        if self.once {
            return Ok(());
        }
        heading("Try it yourself: paste into another shell")?;
        let services: Vec<_> = spokes.iter().map(|spoke| (spoke.cluster.to_string(), spoke.service)).collect();
        print(snippets(&Scene {
            proxy: hub.proxy,
            admin: &hub.folder,
            credentials: &credentials,
            services: &services,
        }))?;
        print("Running until Ctrl-C.")?;
        tokio::select! {
            _ = &mut hub.running => Err(DemoError::HubEnded.into()),
            () = stage.stop.cancelled() => Ok(()),
        }
    }
}

/// A spoke whose agent has joined, as an administrator wanted it, and runs.
async fn join(hub: &Hub, cluster: &str, auto_accept: bool, folder: &Path, stage: &Stage) -> Result<Spoke, Failure> {
    let spoke = Spoke::start(cluster, folder.join(cluster), stage).await?;
    step(format!(
        "{cluster}: a service is up at {}, and its agent will let the hub reach that and nothing else",
        spoke.service
    ))?;
    let token = hub.token(&spoke.cluster, auto_accept).await.map_err(DemoError::Call)?;
    let status = hub.status().await.map_err(DemoError::Call)?;
    if auto_accept {
        spoke.join(&status, token).await?;
        step(format!("{cluster}: joined with a token that lets it in"))?;
    } else {
        tokio::try_join!(spoke.join(&status, token), hub.accept(&spoke.cluster, &spoke.agent))?;
        step(format!("{cluster}: asked to join, and was let in as by 'cluster-proxy accept {cluster}'"))?;
    }
    spoke.run(stage)?;
    Ok(spoke)
}

fn step(text: impl std::fmt::Display) -> Result<(), Failure> {
    print(format!("{GOOD}✓{GOOD:#} {text}"))
}

fn heading(text: &str) -> Result<(), Failure> {
    print(format!("\n{HEADING}{text}{HEADING:#}\n"))
}

/// The hub's and the agents' log: only their errors, unless `RUST_LOG` asks for more.
fn log() {
    let filter = EnvFilter::builder().with_default_directive(LevelFilter::ERROR.into()).from_env_lossy();
    let colours = AutoStream::choice(&std::io::stderr()) != ColorChoice::Never;
    let log = tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(colours).with_env_filter(filter);
    // There is none before: this is the first thing that the command does.
    let _ = log.try_init();
}

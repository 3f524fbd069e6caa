//! The reporter of forwarded connections: failures only, a log on standard error, or moving lines on a terminal.

use std::{
    io::{self, IsTerminal},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use tokio::time::interval;

use super::traffic::Traffic;
use crate::{
    failure::{Failure, complain},
    output::note,
};

/// Between two looks at the counts.
const LOOK: Duration = Duration::from_millis(250);

#[derive(Clone, Debug)]
pub(crate) enum Reporter {
    /// Failures alone, on standard error.
    Failures,
    /// kubectl's lines, on standard error.
    Lines,
    /// Each port's traffic on a terminal, and failures above it.
    Terminal(MultiProgress),
}

/// A line of the display.
#[derive(Debug)]
pub(crate) struct PortLine {
    /// `edge-1 svc/grafana.monitoring 127.0.0.1:3000 -> 80`
    pub(crate) port: String,
    pub(crate) traffic: Arc<Traffic>,
}

impl Reporter {
    /// For a person, or for whatever reads the output.
    pub(crate) fn of_process() -> Self {
        let terminal = io::stdout().is_terminal() && io::stderr().is_terminal();
        if terminal { Self::Terminal(MultiProgress::new()) } else { Self::Lines }
    }

    pub(super) fn accepted(&self, local: SocketAddr) {
        match self {
            Self::Lines => note(format!("Handling connection for {}", local.port())),
            Self::Failures | Self::Terminal(_) => {}
        }
    }

    pub(super) fn failed(&self, local: SocketAddr, failure: &Failure) {
        match self {
            Self::Failures => complain(&failure.line()),
            Self::Lines | Self::Terminal(_) => {
                self.complain(&format!("connection to {} reset: {}", local.port(), failure.line()));
            }
        }
    }

    /// An open connection broke off, and not at its client's end.
    pub(super) fn broken(&self, local: SocketAddr) {
        match self {
            // The client says so itself.
            Self::Failures => {}
            Self::Lines | Self::Terminal(_) => self.complain(&format!(
                "connection to {} broke off: its target reset it, or the hub or the cluster's agent went away; \
                 'cluster-proxy clusters' tells whether it is back",
                local.port()
            )),
        }
    }

    /// One line on standard error, above what moves.
    pub(super) fn complain(&self, line: &str) {
        match self {
            Self::Failures | Self::Lines => complain(line),
            Self::Terminal(display) => display.suspend(|| complain(line)),
        }
    }

    /// Shows the traffic until it is dropped.
    pub(crate) async fn show(&self, ports: Vec<PortLine>) {
        let Self::Terminal(display) = self else { return std::future::pending().await };
        let width = ports.iter().map(|shown| shown.port.chars().count()).max().unwrap_or_default();
        let bars: Vec<Bar> = ports.into_iter().map(|shown| Bar::new(display, shown, width)).collect();
        let mut look = interval(LOOK);
        loop {
            look.tick().await;
            bars.iter().for_each(Bar::look);
        }
    }
}

/// A line on the terminal. It stays there with the last counts when the command ends.
struct Bar {
    line: ProgressBar,
    shown: PortLine,
    /// Of the longest port, so that the counts stand in a column.
    width: usize,
}

impl Bar {
    fn new(display: &MultiProgress, shown: PortLine, width: usize) -> Self {
        let line = display.add(ProgressBar::new_spinner());
        if let Ok(style) = ProgressStyle::with_template("{msg}") {
            line.set_style(style);
        }
        Self { line, shown, width }
    }

    fn look(&self) {
        let Self { line, shown: PortLine { port, traffic }, width } = self;
        line.set_message(format!("{port:width$}   {}", traffic.line()));
        line.tick();
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.look();
        self.line.abandon();
    }
}

//! The command line that all programs share.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context as _, Error, ensure};
use clap::Parser;
use links::parse_time;

use crate::load::Span;

/// One question about speed, asked of every path in turns within one run.
#[derive(Debug, Clone, Parser)]
pub struct Arguments {
    /// Ask less, for less long: all programs together end within 5 minutes
    #[arg(long)]
    pub short: bool,
    /// Where the figures are written as JSON [default: target/bench/PROGRAM.json]
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Another proxy that runs already, beside ours: an HTTP CONNECT proxy, or with `tcp:` a port forwarder to --service
    #[arg(long, value_name = "NAME=[tcp:][USER:PASSWORD@]HOST:PORT")]
    pub peer: Vec<Peer>,
    /// Where the service listens, for the target of a port forwarder
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:0")]
    pub service: SocketAddr,
    /// How often each path has its turn
    #[arg(long, value_name = "N")]
    pub rounds: Option<usize>,
    /// How long one turn is measured
    #[arg(long, value_name = "S")]
    pub seconds: Option<f64>,
    /// For `bulk`, `requests`, `connections`, `recovery`: measure this number of streams, connections, workers or agents only
    #[arg(long, value_name = "N")]
    pub only: Option<usize>,
    /// For `beside` and `loss`: let the kernel's netem be the link, where it has one; its losses are not decided by a seed
    #[arg(long)]
    pub netem: bool,
    /// For `loss`: instead of measuring, hold a tunnel under load for so long at each loss, like 10m
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub soak: Option<Duration>,
}

/// A proxy that the user runs. Its processes are not known, so nothing is said of their CPU seconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// What it is called in the report.
    pub name: String,
    /// Whether it is a port forwarder, and not an HTTP CONNECT proxy.
    pub forwards: bool,
    /// User and password for an HTTP CONNECT proxy that asks for them.
    pub login: Option<(String, String)>,
    /// `HOST:PORT`.
    pub address: String,
}

impl FromStr for Peer {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let (name, address) = text.split_once('=').context("a peer is NAME=HOST:PORT")?;
        let forwarder = address.strip_prefix("tcp:");
        let (login, address) = match address.rsplit_once('@') {
            Some((login, address)) => {
                let (user, password) = login.split_once(':').context("a peer's login is USER:PASSWORD")?;
                (Some((user.to_owned(), password.to_owned())), address)
            }
            None => (None, forwarder.unwrap_or(address)),
        };
        ensure!(forwarder.is_none() || login.is_none(), "a port forwarder takes no login");
        address.rsplit_once(':').context("a peer's address is HOST:PORT")?;
        Ok(Self { name: name.to_owned(), forwards: forwarder.is_some(), login, address: address.to_owned() })
    }
}

impl Arguments {
    /// Whether this number of streams, connections or workers is asked for.
    pub fn wants(&self, count: usize) -> bool {
        self.only.is_none_or(|only| only == count)
    }

    /// How often each path has its turn: `--rounds`, or else what the program asks for in the short and in the full form.
    pub fn rounds(&self, short: usize, full: usize) -> usize {
        self.rounds.unwrap_or(if self.short { short } else { full })
    }

    /// How long a turn warms up and is measured: `--seconds`, or else what the program asks for in the short and in the full form.
    pub fn span(&self, short: f64, full: f64) -> Span {
        let measured = self.seconds.unwrap_or(if self.short { short } else { full });
        let warm_up = if self.short { 0.2 } else { 0.5 };
        Span { warm_up: Duration::from_secs_f64(warm_up), measured: Duration::from_secs_f64(measured) }
    }

    /// As [`Self::span`], with a warm-up in which a congestion control finds the rate of a link with a long round trip.
    pub fn wide_area_span(&self, short: f64, full: f64) -> Span {
        Span { warm_up: Duration::from_secs(2), ..self.span(short, full) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_a_connect_proxy_unless_it_says_tcp() -> anyhow::Result<()> {
        let peer = |name: &str, forwards, address: &str| Peer {
            name: name.to_owned(),
            forwards,
            login: None,
            address: address.to_owned(),
        };
        assert_eq!("squid=127.0.0.1:3128".parse::<Peer>()?, peer("squid", false, "127.0.0.1:3128"));
        assert_eq!("rathole=tcp:[::1]:5202".parse::<Peer>()?, peer("rathole", true, "[::1]:5202"));
        let login = Some(("bench".to_owned(), "secret".to_owned()));
        assert_eq!("old=bench:secret@[::1]:8090".parse::<Peer>()?, Peer { login, ..peer("old", false, "[::1]:8090") });
        Ok(())
    }

    #[test]
    fn a_peer_without_name_or_port_is_refused() {
        assert!("127.0.0.1:3128".parse::<Peer>().is_err());
        assert!("squid=localhost".parse::<Peer>().is_err());
        assert!("rathole=tcp:a:b@localhost:1".parse::<Peer>().is_err());
    }

    #[test]
    fn what_is_given_goes_before_what_the_program_asks_for() {
        let given = Arguments::parse_from(["bulk", "--short", "--rounds", "9", "--seconds", "0.5"]);
        assert_eq!((given.rounds(2, 5), given.span(1.0, 2.0).measured), (9, Duration::from_millis(500)));
        let short = Arguments::parse_from(["bulk", "--short"]);
        assert_eq!((short.rounds(2, 5), short.span(1.0, 2.0).measured), (2, Duration::from_secs(1)));
    }
}

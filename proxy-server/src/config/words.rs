//! Settings that are one of a few words.

use std::net::IpAddr;

use clap::ValueEnum;

/// From where clients may speak without TLS: their credentials cross that network in clear.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Plaintext {
    /// From this machine.
    Loopback,
    Any,
    Never,
}

/// Who may reach services by their URLs at the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ServiceUrls {
    All,
    /// All services share one origin in a browser.
    NoBrowsers,
}

/// What becomes of an agent whose certificate has ended, and whose cluster and key are still accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum EndedAgents {
    /// It gets a new one.
    Renew,
    /// It must join anew.
    Refuse,
}

impl Plaintext {
    /// Whether a client at `address` may speak without TLS.
    pub(crate) fn allows(self, address: IpAddr) -> bool {
        match self {
            Self::Loopback => address.to_canonical().is_loopback(),
            Self::Any => true,
            Self::Never => false,
        }
    }
}

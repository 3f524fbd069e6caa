//! A hub's address, as an operator writes it.

pub(crate) mod backoff;
pub(crate) mod connect;
pub(crate) mod path;
pub(crate) mod reached;
pub(crate) mod session;
pub(crate) mod supervisor;

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::target::{Host, Target, TargetError};

/// The UDP port of a hub that is named without one.
pub const DEFAULT_PORT: u16 = 8091;

/// `HOST[:PORT]` of a hub's tunnel port; the name is resolved again at every attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HubAddress(Target);

impl HubAddress {
    /// Name or address, without brackets.
    pub fn host(&self) -> &Host {
        &self.0.host
    }

    /// UDP port.
    pub fn port(&self) -> u16 {
        self.0.port
    }
}

impl FromStr for HubAddress {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        match text.parse::<Host>() {
            Ok(_) => Target::new(text, DEFAULT_PORT.into()),
            Err(_) => text.parse(),
        }
        .map(Self)
    }
}

impl fmt::Display for HubAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl TryFrom<String> for HubAddress {
    type Error = TargetError;

    fn try_from(text: String) -> Result<Self, TargetError> {
        text.parse()
    }
}

impl From<HubAddress> for String {
    fn from(hub: HubAddress) -> Self {
        hub.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_may_be_left_out() {
        for (text, shown) in [
            ("hub.example", "hub.example:8091"),
            ("hub.example:1", "hub.example:1"),
            ("192.0.2.1", "192.0.2.1:8091"),
            ("2001:db8::1", "[2001:db8::1]:8091"),
            ("[2001:db8::1]", "[2001:db8::1]:8091"),
            ("[2001:db8::1]:1", "[2001:db8::1]:1"),
        ] {
            let hub: HubAddress = text.parse().unwrap();
            assert_eq!(hub.to_string(), shown);
            assert_eq!(shown.parse::<HubAddress>().unwrap(), hub);
        }
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in ["", ":8091", "https://hub:8091", "hub:0", "hub:x", "hub:70000", "hub:80:80"] {
            assert!(text.parse::<HubAddress>().is_err(), "{text}");
        }
    }
}

//! The kernel's own emulator, where it has one: `tc netem` at both ports of a bridge between the ends.
//!
//! ```text
//! near namespace ── veth ── port ┐ bridge in a ┌ port ── veth ── far namespace
//!                          netem ┘  namespace  └ netem
//! ```
//!
//! At an end's own device netem would see, and lose, what a sender hands over with one call as one packet. The devices of the ends
//! cut it, so that the ports see packets.

use anyhow::{Context as _, Result};

use super::{FAR, NEAR, Profile, device_name};
use crate::netns::{self, Namespace};

/// The bytes of a packet that fills the MTU, of which netem's queue counts a number.
const PACKET: f64 = 1500.0;
/// Packets that a queue holds at least.
const LEAST_PACKETS: f64 = 10.0;

/// The bridge between the ends.
#[derive(Debug)]
pub(super) struct Netem {
    middle: Namespace,
    ports: [String; 2],
}

impl Netem {
    /// Connects the ends. An error says that this kernel has no netem.
    pub(super) fn start(profile: &Profile, near: &Namespace, far: &Namespace) -> Result<Self> {
        let netem = Self { middle: Namespace::create("middle")?, ports: ["pn", "pf"].map(device_name) };
        netem.middle.ip(&["link", "add", "bridge", "type", "bridge"])?;
        netem.middle.ip(&["link", "set", "bridge", "up"])?;
        for (port, end, suffix, address) in [(0, near, "n", NEAR), (1, far, "f", FAR)] {
            let (port, device) = (&netem.ports[port], device_name(suffix));
            netns::ip(&["link", "add", &device, "type", "veth", "peer", "name", port])?;
            netns::ip(&["link", "set", port, "netns", netem.middle.name()])?;
            netem.middle.ip(&["link", "set", port, "master", "bridge", "up"])?;
            netns::ip(&["link", "set", &device, "gso_max_segs", "1"])?;
            end.adopt(&device, address)?;
        }
        netem.tell("add", profile).context("this kernel has no sch_netem: leave --netem away")?;
        Ok(netem)
    }

    /// From now on another profile, in both directions.
    pub(super) fn set_profile(&self, profile: &Profile) -> Result<()> {
        self.tell("change", profile)
    }

    fn tell(&self, verb: &str, profile: &Profile) -> Result<()> {
        let options = options(profile);
        for port in &self.ports {
            let place = ["qdisc", verb, "dev", port, "root", "netem"];
            self.middle.tc(&place.into_iter().chain(options.iter().map(String::as_str)).collect::<Vec<_>>())?;
        }
        Ok(())
    }
}

/// The profile as tc-netem(8) takes it. Its queue is one for what waits and what is on its way, and counts packets.
fn options(profile: &Profile) -> [String; 8] {
    let held = (profile.delay + profile.queue).as_secs_f64() * profile.rate as f64 / 8.0 / PACKET;
    [
        "limit".to_owned(),
        format!("{:.0}", held.max(LEAST_PACKETS)),
        "delay".to_owned(),
        format!("{}us", profile.delay.as_micros()),
        "loss".to_owned(),
        format!("{}%", profile.loss.share * 100.0),
        "rate".to_owned(),
        format!("{}bit", profile.rate),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_is_told_to_netem_in_its_units() {
        let told = options(&Profile::WIDE_AREA.with_loss(0.01)).join(" ");
        assert_eq!(told, "limit 625 delay 25000us loss 1% rate 100000000bit");
    }
}

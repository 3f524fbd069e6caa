//! Emulated links: what they do to packets. No sockets and no clock: whoever carries packets says what time it is, a thread between
//! two network namespaces (`bench`) or a simulation (`tunnel`'s congestion controller).

mod catalogue;
mod lane;
mod profile;

pub use catalogue::{Named, catalogue, variants};
pub use lane::{Fate, Lane, Statistics};
pub use profile::{Jitter, Loss, Policer, Profile, parse_queue, parse_rate, parse_share, parse_time};

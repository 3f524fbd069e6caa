//! What the programs of this crate share: the ways a byte can take, the load that goes over them, and the report.

pub mod link;
pub mod netns;

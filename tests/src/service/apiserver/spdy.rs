//! SPDY/3.1, the server's side, as old Kubernetes clients speak it after an upgrade.

pub(super) mod channels;
mod connection;
mod dictionary;
mod frame;
mod headers;

pub(super) use connection::{Connection, Output, Stream};

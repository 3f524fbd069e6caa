//! What every process of ours does in the same way: its log, and how it tells of errors.

mod escape;
mod failure;
mod log;

pub use self::{
    escape::{Escaped, Escaping, JsonLines, is_hidden, write_json},
    failure::chain,
    log::{Log, LogFormat, init},
};

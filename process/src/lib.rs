//! What every process of ours does in the same way: settings, log, folders, and how it tells of errors.

mod environment;
mod escape;
mod failure;
mod folders;
mod log;
pub mod settings;

pub use self::{
    environment::environment,
    escape::{Escaped, Escaping, JsonLines, is_hidden, write_json},
    failure::{EX_USAGE, chain},
    folders::Folders,
    log::{Log, LogFormat, init},
};

//! What every process of ours does in the same way: settings, log, signals, limits, health, and how it tells of errors.

mod accept;
mod environment;
mod escape;
mod failure;
mod folders;
pub mod health;
mod log;
mod open_files;
pub mod settings;
mod signals;

pub use self::{
    accept::{ACCEPT_PAUSE, Acceptor},
    environment::environment,
    escape::{Escaped, Escaping, JsonLines, is_hidden, write_json},
    failure::{EX_USAGE, chain, fail},
    folders::Folders,
    log::{Log, LogFormat, init},
    open_files::raise_open_files,
    signals::{Hangup, Signals},
};

//! The harness of the scenarios: the real binaries as processes, stock clients, and targets that behave or misbehave.
//!
//! Everything runs on loopback with ports given by the kernel, owns its tasks, files and processes, and is gone when dropped.
//! What cannot be set up is an error; what a scenario judges, it asserts.

#![allow(clippy::wildcard_enum_match_arm, reason = "a test fails on everything that it does not expect")]

pub mod browser;
pub mod client;
pub mod clock;
mod config;
mod credentials;
mod etcd;
mod fetch;
mod half_open;
pub mod hub;
pub mod kubeconfig;
mod kubectl;
pub mod latency;
mod link;
mod loopback;
pub mod metrics;
mod nat;
mod open_files;
mod path;
pub mod pattern;
mod process;
mod program;
pub mod prometheus;
pub mod raw_agent;
pub mod service;
pub mod speed;
mod spoke;
pub mod tool;
mod wait;

pub use self::process::{Lines, Process};
pub use browser::Browser;
pub use client::Client;
pub use credentials::{Credentials, HUB_NAME};
pub use etcd::Etcd;
pub use fetch::{Answer, Fetch};
pub use half_open::HalfOpen;
pub use hub::Hub;
pub use kubectl::{Kubectl, rows};
pub use link::Link;
pub use nat::Nat;
pub use open_files::allow_open_files;
pub use path::{Path, Weather};
pub use program::{Finished, Program};
pub use service::Service;
pub use spoke::{Spoke, SpokeBuilder};
pub use wait::{wait_for, wait_until};

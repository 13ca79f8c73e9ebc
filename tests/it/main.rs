//! All integration tests, in one binary, against real servers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod admin;
mod canary;
mod capacity;
mod cli;
mod crash;
mod executor;
mod intake;
mod journal;
mod odd;
mod postgres;
mod schemas;
mod silence;
mod stage;
mod stories;
mod vault;
mod world;

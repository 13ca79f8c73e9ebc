//! All integration tests, in one binary, against real servers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

/// Runs each of these over both stores: `sqlite::<name>` and `postgres::<name>`. One that is left out is dead code, and so
/// a warning.
macro_rules! over_both {
    ($($name:ident),+ $(,)?) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                Box::pin(super::$name($crate::store::Store::sqlite())).await;
            })+
        }
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                Box::pin(super::$name($crate::store::Store::postgres())).await;
            })+
        }
    };
}

/// Bodies of tests that take long, where the store of the journal is not what is tested: each has its half.
macro_rules! over_each {
    (sqlite: $($one:ident),+; postgres: $($other:ident),+ $(,)?) => {
        mod kills {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $one() {
                Box::pin(super::$one($crate::store::Store::sqlite())).await;
            })+
        }
        mod faults {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $other() {
                Box::pin(super::$other($crate::store::Store::postgres())).await;
            })+
        }
    };
}

mod acl;
mod admin;
mod aws;
mod canary;
mod capacity;
mod chaos;
mod cli;
mod cluster;
mod compose;
mod crash;
mod endure;
mod exec;
mod executor;
mod github;
mod intake;
mod journal;
mod kubernetes;
mod mariadb;
mod odd;
mod owners;
mod packages;
mod page;
mod postgres;
mod reach;
mod rotation;
mod scanners;
mod schemas;
mod scope;
mod silence;
mod stage;
mod store;
mod stories;
mod vault;
mod watch;
mod world;

use world::repository;

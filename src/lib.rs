//! Curfew: no credential outlives its task, and nothing is called dead until it was seen dead.
//!
//! The modules stand in the order in which an event goes through them:
//!
//! ```text
//! kafka ─▶ event ─▶ policy ─▶ journal ─▶ executor ─▶ guard ─▶ connector ─▶ probe ─▶ journal ─▶ relay
//! ```
//!
//! 1. [`kafka`] (or [`http`]) hands over bytes with their coordinates, [`intake`] batches them.
//! 2. [`event`] decodes them: an [`event::Event`], or a [`event::Reject`] that carries none of the bytes.
//! 3. [`policy`] decides, as a pure function of the event and of what the journal knows.
//! 4. [`journal`] makes events, decisions, cases, rejects and the next offset durable in one transaction.
//! 5. [`executor`] claims due cases, walks their [`case`] plan, and asks [`guard`] before each effect.
//! 6. [`connector`] acts on one kind of system; [`probe`] judges what its sightings prove.
//! 7. [`outcome`] is what leaves through the journal's outbox; [`relay`] publishes it.
//!
//! Besides: [`deadlines`], [`ages`] and [`reconcile`] notice what no producer said, and make events of it; [`bind`] learns
//! from the issuer which run a credential is of; [`inventory`] reads what stores hold, as fingerprints; [`kubernetes`]
//! watches Jobs and Pods, and says what schedulers say elsewhere; [`feedback`] tells GitHub whose secret died;
//! [`canary`] has a credential of its own die, to measure the whole way; [`reach`] learns what each identity can open.
//! `policy`, `case`, `guard`, `limit`, `retry` and `probe` are pure; what does I/O decides nothing.

pub mod ages;
pub mod bind;
pub mod canary;
pub mod case;
pub mod clock;
pub mod config;
pub mod connector;
pub mod credential;
pub mod deadlines;
pub mod event;
pub mod exec;
pub mod executor;
pub mod feedback;
pub mod fences;
pub mod finding;
pub mod fingerprint;
pub mod github;
pub mod guard;
pub mod http;
pub mod intake;
pub mod inventory;
pub mod journal;
pub mod kafka;
pub mod kubernetes;
pub mod limit;
pub mod metrics;
pub mod offboard;
pub mod ops;
pub mod outcome;
pub mod pace;
pub mod policy;
pub mod probe;
pub mod reach;
pub mod reconcile;
pub mod relay;
pub mod retry;
pub mod scope;
pub mod standing;
pub mod status;
pub mod task;
pub mod telemetry;
pub mod tell;

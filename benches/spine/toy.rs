//! Providers of the bench's own: each answers a call after a fixed time, and notes when calls came and what they did.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use curfew::case::plan::Act;
use curfew::case::record::{Answer, FailureKind, Level, Observation, Output, Presence, Sighting};
use curfew::connector::{Connector, Failure, Realm, Registry, Subject};
use curfew::credential::{CredentialId, Kind};
use curfew::guard::Mode;
use curfew::journal::Journal;
use curfew::probe::Settle;

use crate::stage;

/// A case makes so many calls: look, revoke, look.
pub const CALLS_A_CASE: usize = 3;
const TIMEOUT_MS: u64 = 2_000;
const NEVER: u64 = u64::MAX;

/// A provider with the tokens `0..`.
pub struct Toy {
    system: String,
    answers: Duration,
    /// While this is set no call is answered before its time-out.
    hangs: AtomicBool,
    began: Instant,
    /// When each call came, in microseconds since `began`. Its room is there from the start: the bench's own memory stays
    /// as it is.
    calls: Box<[AtomicU64]>,
    called: AtomicUsize,
    /// When each token was revoked, likewise.
    acted: Box<[AtomicU64]>,
    effects: AtomicUsize,
}

fn room(size: usize) -> Box<[AtomicU64]> {
    (0..size).map(|_| AtomicU64::new(NEVER)).collect()
}

impl Toy {
    pub fn new(system: &str, answers: Duration, tokens: usize) -> Arc<Self> {
        Arc::new(Self {
            system: system.to_owned(),
            answers,
            hangs: AtomicBool::new(false),
            began: Instant::now(),
            calls: room(tokens * CALLS_A_CASE),
            called: AtomicUsize::new(0),
            acted: room(tokens),
            effects: AtomicUsize::new(0),
        })
    }

    /// From now on it answers nothing.
    pub fn hang(&self) {
        self.hangs.store(true, Ordering::Relaxed);
    }

    pub fn credential(&self, token: usize) -> CredentialId {
        CredentialId::new(Kind::VaultToken, &self.system, &token.to_string()).unwrap()
    }

    /// When this token was revoked.
    pub fn acted(&self, token: usize) -> Option<Instant> {
        let at = self.acted[token].load(Ordering::Relaxed);
        (at != NEVER).then(|| self.began + Duration::from_micros(at))
    }

    /// Waits until this token is revoked.
    pub async fn revoked(&self, token: usize) -> Instant {
        loop {
            match self.acted(token) {
                Some(at) => return at,
                None => tokio::time::sleep(Duration::from_millis(1)).await,
            }
        }
    }

    /// Effects that were asked for, also of a token that was revoked before.
    pub fn effects(&self) -> usize {
        self.effects.load(Ordering::Relaxed)
    }

    /// The most calls that came in any second.
    pub fn most_in_a_second(&self) -> usize {
        let called = self.called.load(Ordering::Relaxed);
        assert!(called <= self.calls.len(), "more calls than each case makes");
        let mut at: Vec<u64> = self.calls[..called].iter().map(|call| call.load(Ordering::Relaxed)).collect();
        at.sort_unstable();
        let before = |first: usize| at.partition_point(|call| *call < at[first] + 1_000_000) - first;
        (0..at.len()).map(before).max().unwrap_or(0)
    }

    async fn call(&self) -> Result<(), Failure> {
        let nth = self.called.fetch_add(1, Ordering::Relaxed);
        if let Some(place) = self.calls.get(nth) {
            place.store(self.began.elapsed().as_micros() as u64, Ordering::Relaxed);
        }
        if self.hangs.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(TIMEOUT_MS)).await;
            return Err(Failure::new(FailureKind::Unknown, "toy: no answer in time"));
        }
        tokio::time::sleep(self.answers).await;
        Ok(())
    }
}

#[async_trait]
impl Connector for Toy {
    fn name(&self) -> &'static str {
        Kind::VaultToken.as_str()
    }

    fn system(&self) -> &str {
        &self.system
    }

    fn call_timeout_ms(&self) -> i64 {
        TIMEOUT_MS as i64
    }

    fn settle(&self) -> Settle {
        Settle { window_ms: 0, sightings: 1 }
    }

    async fn observe(&self, _: &Subject) -> Result<Observation, Failure> {
        self.call().await?;
        Ok(Observation { presence: Presence::Present, at_ms: stage::now_ms(), ..Observation::default() })
    }

    async fn perform(&self, _: Act, subject: &Subject) -> Result<Output, Failure> {
        self.call().await?;
        let token: usize = subject.credential.id().parse().unwrap();
        self.acted[token].store(self.began.elapsed().as_micros() as u64, Ordering::Relaxed);
        self.effects.fetch_add(1, Ordering::Relaxed);
        Ok(Output::default())
    }

    async fn probe(&self, subject: &Subject) -> Sighting {
        let at_ms = stage::now_ms();
        let heard = self.call().await;
        let token: usize = subject.credential.id().parse().unwrap();
        let answer = match (heard, self.acted(token)) {
            (Err(_), _) => Answer::Unknown,
            (Ok(()), Some(_)) => Answer::Refused,
            (Ok(()), None) => Answer::Accepted,
        };
        Sighting { level: Level::Issuer, answer, at_ms, control: true, residue: Vec::new(), request_id: None }
    }

    async fn self_check(&self) -> Result<(), Failure> {
        Ok(())
    }
}

/// Curfew may revoke at all of them.
pub fn registry(toys: &[Arc<Toy>]) -> Registry {
    let mut registry = Registry::default();
    for toy in toys {
        let allowed_prefixes = vec![curfew::guard::TOKENS.to_owned()];
        let (name, targets) = (toy.system.clone(), Vec::new());
        registry.add_realm(Realm { name, mode: Mode::Enforce, allowed_prefixes, reducible: Vec::new(), targets });
        registry.add(toy.clone());
    }
    registry
}

/// Tasks that held these tokens have ended: a case of each is due.
pub async fn open_cases(journal: &dyn Journal, toys: &[Arc<Toy>], tokens: Range<usize>) {
    let all: Vec<usize> = tokens.collect();
    for some in all.chunks(250) {
        let each = some.iter().flat_map(|token| toys.iter().map(|toy| toy.credential(*token)));
        let events = each.flat_map(|credential| stage::whole_task(&stage::new_run(), &credential, None));
        stage::record(journal, events.collect()).await;
    }
}

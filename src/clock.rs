//! Time as an argument: the wall clock decides what is due, the monotonic one measures, tests move both.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Where time comes from.
pub trait Clock: Send + Sync + 'static {
    /// UTC milliseconds since 1970.
    fn wall_ms(&self) -> i64;
    /// Milliseconds since an arbitrary start; never steps.
    fn monotonic_ms(&self) -> i64;
}

/// A clock that can be shared.
pub type Shared = Arc<dyn Clock>;

/// The machine's clocks.
#[derive(Debug)]
pub struct System;

/// One start for all: what two of them say of the same process can be compared.
static START: LazyLock<Instant> = LazyLock::new(Instant::now);

impl System {
    /// The machine's clocks, shared.
    pub fn shared() -> Shared {
        Arc::new(Self)
    }
}

impl Clock for System {
    #[expect(clippy::disallowed_methods, reason = "the one place where the wall clock is read")]
    fn wall_ms(&self) -> i64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    }

    fn monotonic_ms(&self) -> i64 {
        i64::try_from(START.elapsed().as_millis()).unwrap_or(i64::MAX)
    }
}

/// A clock that a test moves.
#[derive(Debug)]
pub struct Simulated {
    wall_ms: AtomicI64,
    monotonic_ms: AtomicI64,
}

impl Simulated {
    /// Starts at `wall_ms`.
    pub fn at(wall_ms: i64) -> Arc<Self> {
        Arc::new(Self { wall_ms: AtomicI64::new(wall_ms), monotonic_ms: AtomicI64::new(0) })
    }

    /// Both clocks move on together.
    pub fn advance_ms(&self, by_ms: i64) {
        self.wall_ms.fetch_add(by_ms, Ordering::SeqCst);
        self.monotonic_ms.fetch_add(by_ms, Ordering::SeqCst);
    }

    /// Only the wall clock moves: what an operator or a broken NTP server does.
    pub fn step_wall_ms(&self, by_ms: i64) {
        self.wall_ms.fetch_add(by_ms, Ordering::SeqCst);
    }
}

impl Clock for Simulated {
    fn wall_ms(&self) -> i64 {
        self.wall_ms.load(Ordering::SeqCst)
    }

    fn monotonic_ms(&self) -> i64 {
        self.monotonic_ms.load(Ordering::SeqCst)
    }
}

//! Whether the wall clock can be believed for deadlines.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use crate::clock;

/// How far wall and monotonic clock may part, and how near a broker's time must be to agree.
pub const TOLERANCE_MS: i64 = 5_000;

/// Watches the wall clock against the monotonic one. Once they part, deadlines wait until a broker or an issuer agrees
/// with the wall clock, or until it is set back to where it was.
pub struct ClockTrust {
    clock: clock::Shared,
    offset_ms: AtomicI64,
    trusted: AtomicBool,
}

impl ClockTrust {
    /// Believes the clock as it stands now.
    pub fn new(clock: clock::Shared) -> Arc<Self> {
        let offset_ms = AtomicI64::new(offset_ms(&clock));
        Arc::new(Self { clock, offset_ms, trusted: AtomicBool::new(true) })
    }

    /// Whether the wall clock is believed now.
    pub fn check(&self) -> bool {
        let parted_ms = offset_ms(&self.clock).saturating_sub(self.offset_ms.load(Ordering::SeqCst));
        let trusted = parted_ms.saturating_abs() <= TOLERANCE_MS;
        self.trusted.store(trusted, Ordering::SeqCst);
        trusted
    }

    /// A broker or an issuer says what time it is now. A time that differs changes nothing: it may come from a backlog.
    /// Never to be told a time that was read from our own clock.
    pub fn agree(&self, broker_ms: i64) {
        if self.clock.wall_ms().saturating_sub(broker_ms).saturating_abs() <= TOLERANCE_MS {
            self.offset_ms.store(offset_ms(&self.clock), Ordering::SeqCst);
            self.trusted.store(true, Ordering::SeqCst);
        }
    }
}

impl std::fmt::Debug for ClockTrust {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClockTrust").field("trusted", &self.trusted).finish_non_exhaustive()
    }
}

fn offset_ms(clock: &clock::Shared) -> i64 {
    clock.wall_ms().saturating_sub(clock.monotonic_ms())
}

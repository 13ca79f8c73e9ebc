//! When what ends, and what a shell is told. PURE.

use std::time::Duration;

/// Curfew notices deadlines in milliseconds, Vault counts seconds: a task is no shorter than this.
pub const SHORTEST: Duration = Duration::from_secs(2);

/// A task's times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Times {
    /// When it began.
    pub started_ms: i64,
    /// When it is told to end.
    pub told_ms: i64,
    /// When everything is over: the task is killed, its credentials are dead.
    pub deadline_ms: i64,
}

impl Times {
    /// A task that begins now, lives `ttl`, and is told to end `grace` before. Never longer than time can be counted.
    pub fn new(now_ms: i64, ttl: Duration, grace: Duration) -> Self {
        let ms = |span: Duration| i64::try_from(span.as_millis()).unwrap_or(i64::MAX);
        let deadline_ms = now_ms.saturating_add(ms(ttl));
        let told_ms = deadline_ms.saturating_sub(ms(grace)).max(now_ms);
        Self { started_ms: now_ms, told_ms, deadline_ms }
    }

    /// How long until the deadline, in whole seconds as Vault counts them: never more than there is, never nothing.
    pub fn left(&self, now_ms: i64) -> Duration {
        let ms = u64::try_from(self.deadline_ms.saturating_sub(now_ms)).unwrap_or(0);
        Duration::from_secs((ms / 1_000).max(1))
    }
}

/// Between the word to end and the end, where nobody says: ten seconds, at most a tenth.
pub fn usual_grace(ttl: Duration) -> Duration {
    (ttl / 10).min(Duration::from_secs(10))
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// By itself.
    Code(i32),
    /// By a signal.
    Signal(i32),
}

/// What the caller's shell is told: the task's own code, 128 + the signal's number, or 124 where its time was over.
pub fn exit_code(end: End, was_late: bool) -> u8 {
    match end {
        _ if was_late => 124,
        End::Code(code) => u8::try_from(code & 0xff).unwrap_or(u8::MAX),
        End::Signal(number) => u8::try_from(number.saturating_add(128).clamp(128, 255)).unwrap_or(u8::MAX),
    }
}

/// What Curfew is told, in the words of its schema.
pub fn outcome(end: End, was_late: bool, was_stopped: bool) -> &'static str {
    match end {
        _ if was_late => "timeout",
        End::Code(0) => "success",
        _ if was_stopped => "cancelled",
        _ => "failure",
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn shells_are_told_what_they_know() {
        for (end, late, code, word) in [
            (End::Code(0), false, 0, "success"),
            (End::Code(3), false, 3, "failure"),
            (End::Code(255), false, 255, "failure"),
            (End::Signal(9), false, 137, "failure"),
            (End::Signal(15), false, 143, "failure"),
            (End::Signal(64), false, 192, "failure"),
            (End::Code(0), true, 124, "timeout"),
            (End::Signal(9), true, 124, "timeout"),
        ] {
            assert_eq!((exit_code(end, late), outcome(end, late, false)), (code, word), "{end:?}");
        }
        assert_eq!(outcome(End::Signal(15), false, true), "cancelled");
        assert_eq!(outcome(End::Code(0), false, true), "success");
    }

    proptest! {
        #[test]
        fn nothing_outlives_the_deadline(now in 0..4_000_000_000_000_i64, ttl in 0..u64::MAX, grace in 0..u64::MAX, later in 0..1_000_000_i64) {
            let times = Times::new(now, Duration::from_millis(ttl), Duration::from_millis(grace));
            prop_assert!(times.started_ms <= times.told_ms && times.told_ms <= times.deadline_ms);
            let left = i64::try_from(times.left(now + later).as_millis()).unwrap_or(i64::MAX);
            prop_assert!(left >= 1_000);
            prop_assert!(left == 1_000 || (now + later).saturating_add(left) <= times.deadline_ms);
        }

        #[test]
        fn a_signal_is_no_success(number in 1..200_i32, late: bool) {
            prop_assert!(exit_code(End::Signal(number), late) > 123);
        }

        #[test]
        fn a_grace_is_a_part_of_the_time(ms in 0..u64::MAX) {
            prop_assert!(usual_grace(Duration::from_millis(ms)) <= Duration::from_millis(ms) / 10);
        }
    }
}

//! How many calls start in a second, in any second and not only on average.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Mutex;

/// What a call may take to reach the provider moves calls closer together there than they started here: so much of the
/// limit is left for it, in percent.
const ON_THE_WAY: f64 = 1.0;
/// A timer wakes up to a millisecond late, and a busy machine later. So much of the limit may start at once to make up
/// for it, in percent; the rate is less by as much.
const AT_ONCE: u32 = 1;

/// Lets calls through one after the other, in order of arrival.
#[derive(Debug)]
pub(super) struct Pace {
    per_second: AtomicU32,
    gate: Mutex<Gate>,
}

impl Pace {
    /// In any second at most `per_second`, which is not 0.
    pub(super) fn new(per_second: u32) -> Self {
        Self { per_second: AtomicU32::new(per_second), gate: Mutex::new(Gate { next: Instant::now() }) }
    }

    /// From now on as many, those counted that started before.
    pub(super) fn change(&self, per_second: u32) {
        self.per_second.store(per_second, Ordering::Relaxed);
    }

    /// Waits until a call may start, which is then counted. Whoever gives up is not.
    pub(super) async fn pass(&self) {
        let mut gate = self.gate.lock().await;
        loop {
            let wait = gate.ask(self.per_second.load(Ordering::Relaxed), Instant::now());
            if wait.is_zero() {
                return;
            }
            tokio::time::sleep(wait).await;
        }
    }
}

/// A leaky bucket, by the time at which it would be empty.
#[derive(Debug)]
struct Gate {
    next: Instant,
}

impl Gate {
    /// How long a call has to wait that is there at `now`. One that need not is counted.
    fn ask(&mut self, per_second: u32, now: Instant) -> Duration {
        let rate = per_second.max(1);
        let at_once = (rate * AT_ONCE / 100).max(1);
        // With `b` at once and one after each `t`, no second has more than 1/t + b - 1: the limit, and a little less.
        let apart = Duration::from_secs_f64((1.0 + ON_THE_WAY / 100.0) / f64::from(rate - at_once + 1));
        let early = apart * (at_once - 1);
        let wait = self.next.saturating_duration_since(now + early);
        if wait.is_zero() {
            self.next = self.next.max(now) + apart;
        }
        wait
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// When calls start that are always there: each sleeps as long as it is told, and wakes by one of `late` too late.
    fn starts(per_second: u32, late: &[u64], mut now: Instant, gate: &mut Gate) -> Vec<Instant> {
        let mut starts = Vec::new();
        for late in late {
            for _ in 0..=per_second {
                let wait = gate.ask(per_second, now);
                if !wait.is_zero() {
                    now += wait;
                    break;
                }
                starts.push(now);
            }
            now += Duration::from_micros(*late);
        }
        starts
    }

    fn most_in_a_second(starts: &[Instant]) -> usize {
        let within = |first: usize| starts[first..].iter().take_while(|at| **at < starts[first] + SECOND).count();
        (0..starts.len()).map(within).max().unwrap_or(0)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        /// Whoever asks when, and however late a timer wakes: also after a pause, in which nothing is saved up.
        #[test]
        fn no_second_has_more_than_the_limit(
            per_second in 1_u32..600, idle in 0_u64..5_000, late in proptest::collection::vec(0_u64..40_000, 1..400),
        ) {
            let now = Instant::now();
            let mut gate = Gate { next: now };
            let mut all = starts(per_second, &late, now, &mut gate);
            let then = all.last().unwrap_or(&now).checked_add(Duration::from_millis(idle)).unwrap();
            all.extend(starts(per_second, &late, then, &mut gate));
            prop_assert!(most_in_a_second(&all) <= per_second as usize);
        }

        #[test]
        fn a_limit_that_changes_counts_at_once(before in 1_u32..300, after in 1_u32..300) {
            let now = Instant::now();
            let mut gate = Gate { next: now };
            let mut all = starts(before, &[500; 100], now, &mut gate);
            all.extend(starts(after, &[500; 500], all.last().unwrap_or(&now).checked_add(SECOND / 100).unwrap(), &mut gate));
            prop_assert!(most_in_a_second(&all) <= before.max(after) as usize);
        }
    }

    #[test]
    fn little_of_the_limit_is_left_unused() {
        // A timer of a millisecond.
        let now = Instant::now();
        let all = starts(1_500, &[1_000; 20_000], now, &mut Gate { next: now });
        let rate = all.len() as f64 / (*all.last().unwrap() - now).as_secs_f64();
        assert!((1_460.0..1_500.0).contains(&rate), "{rate}");
    }

    #[tokio::test]
    async fn calls_that_wait_start_in_their_order_and_no_sooner() {
        let (pace, began) = (Pace::new(50), Instant::now());
        let order = std::sync::Mutex::new(Vec::new());
        futures::future::join_all((0..10).map(|n| {
            let (pace, order) = (&pace, &order);
            async move {
                pace.pass().await;
                order.lock().unwrap().push(n);
            }
        }))
        .await;
        assert_eq!(order.into_inner().unwrap(), (0..10).collect::<Vec<_>>());
        assert!(began.elapsed() >= Duration::from_millis(9 * 20));
    }
}

//! How many calls start in a second, in any second and not only on average; and what a provider counts of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Mutex;

/// What a call may take to reach the provider moves calls closer together there than they started here: so much of the
/// limit is left for it, in percent.
const ON_THE_WAY: f64 = 1.0;
/// A timer wakes up to a millisecond late, and a busy machine later. So much of the limit may start at once to make up
/// for it, in percent; the rate is less by as much.
const AT_ONCE: u32 = 1;
/// From this limit on it is two calls at least: they take less of it than what is lost by timers that wake up late.
const TWO_AT_ONCE: u32 = 40;
/// How soon it is asked again whether anything may start, where nothing may.
const SHUT: Duration = Duration::from_millis(100);
/// A call that waits this long for its turn at a quota gives its step back: others may be more urgent.
const PATIENCE: Duration = Duration::from_secs(3);

/// Lets calls through one after the other, in order of arrival.
#[derive(Debug)]
pub struct Pace {
    per_second: AtomicU32,
    gate: Mutex<Gate>,
}

impl Pace {
    /// In any second at most `per_second`; 0: none.
    pub fn new(per_second: u32) -> Self {
        Self { per_second: AtomicU32::new(per_second), gate: Mutex::new(Gate { next: Instant::now() }) }
    }

    /// From now on as many, those counted that started before.
    pub fn change(&self, per_second: u32) {
        self.per_second.store(per_second, Ordering::Relaxed);
    }

    /// Waits until a call may start, which is then counted. Whoever gives up is not.
    pub async fn pass(&self) {
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

/// Calls that a provider counts together, whoever makes them: a part of what it bears of them is this process's.
#[derive(Debug)]
pub struct Quota {
    name: String,
    whole: u32,
    is_shared: AtomicBool,
    pace: Pace,
}

impl Quota {
    /// Of `whole` calls in a second. Its name stands beside those of systems in the journal, and is none of theirs.
    pub fn new(name: String, whole: u32) -> Arc<Self> {
        Arc::new(Self { name, whole, is_shared: AtomicBool::new(false), pace: Pace::new(whole) })
    }

    /// Which.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What all processes may use together, in calls per second.
    pub fn whole(&self) -> u32 {
        self.whole
    }

    /// From here on its part is what the journal grants; until that has said so, nothing.
    pub fn begin(&self) {
        if !self.is_shared.swap(true, Ordering::Relaxed) {
            self.pace.change(0);
        }
    }

    /// From now on so many.
    pub fn allow(&self, per_second: u32) {
        self.pace.change(per_second);
    }

    /// How many it is now.
    pub fn allowed(&self) -> u32 {
        self.pace.per_second.load(Ordering::Relaxed)
    }

    /// Waits until a call may start; it must do so at once. False: not in time.
    pub async fn turn(&self) -> bool {
        tokio::time::timeout(PATIENCE, self.pace.pass()).await.is_ok()
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
        if per_second == 0 {
            return SHUT;
        }
        let rate = per_second;
        let at_once = (rate * AT_ONCE / 100).max(if rate < TWO_AT_ONCE { 1 } else { 2 });
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

    /// As an account of AWS has it: the timer is a millisecond late, or a busy machine wakes up later.
    #[test]
    fn little_is_left_unused_of_a_small_limit_as_well() {
        for late_us in [1_000, 15_000] {
            let now = Instant::now();
            let all = starts(48, &vec![late_us; 2_000], now, &mut Gate { next: now });
            let rate = all.len() as f64 / (*all.last().unwrap() - now).as_secs_f64();
            assert!((45.6..48.0).contains(&rate), "{rate}");
        }
    }

    #[test]
    fn nothing_starts_where_nothing_may() {
        let now = Instant::now();
        let mut gate = Gate { next: now };
        assert_eq!(gate.ask(0, now), SHUT);
        assert_eq!(gate.ask(1, now), Duration::ZERO);
    }

    #[tokio::test]
    async fn a_quota_is_whole_until_it_is_shared_and_then_what_is_granted() {
        let quota = Quota::new("q".to_owned(), 48);
        assert_eq!(quota.allowed(), 48);
        quota.begin();
        assert_eq!(quota.allowed(), 0);
        quota.allow(12);
        quota.begin();
        assert_eq!((quota.allowed(), quota.whole()), (12, 48), "it begins once");
        assert!(quota.turn().await);
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
        assert!(began.elapsed() >= Duration::from_millis(8 * 20));
    }
}

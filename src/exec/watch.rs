//! While the command runs: signals, heartbeats, its time.

use std::convert::Infallible;
use std::pin::Pin;
use std::time::Duration;

use rustix::process::Signal;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use super::child::{Child, Signals, Told};
use super::times::{End, Times};
use super::{Exec, say};

impl Exec<'_> {
    /// Until it ends: how, whether its time was over, and whether we were told to end.
    pub(super) async fn watch(
        &self,
        child: &Child,
        times: &Times,
        mut beats: Pin<&mut impl Future<Output = Infallible>>,
        signals: &mut Signals,
    ) -> (End, bool, bool) {
        let now_ms = self.clock.wall_ms();
        let at = |ms: i64| Instant::now() + Duration::from_millis(u64::try_from(ms - now_ms).unwrap_or(0));
        let (told_at, over_at) = (at(times.told_ms), at(times.deadline_ms));
        let (mut was_late, mut was_killed, mut was_stopped) = (false, false, false);
        if let Some(end) = child.ended() {
            return (end, false, false);
        }
        loop {
            tokio::select! {
                told = signals.next() => match told {
                    Told::Child => {
                        if let Some(end) = child.ended() {
                            return (end, was_late, was_stopped);
                        }
                    }
                    Told::Signal(signal, _) => {
                        was_stopped |= !matches!(signal, Signal::USR1 | Signal::USR2);
                        child.pass(signal);
                    }
                },
                () = sleep_until(told_at), if !was_late => {
                    was_late = true;
                    (self.say)(&say::late(times));
                    child.tell(Signal::TERM);
                }
                () = sleep_until(over_at), if !was_killed => {
                    was_killed = true;
                    child.tell(Signal::KILL);
                }
                never = beats.as_mut() => match never {},
            }
        }
    }

    /// Signs of life from `begun` on, for as long as somebody asks for the future.
    pub(super) async fn beat(&self, begun: &Notify) -> Infallible {
        begun.notified().await;
        let (Ok(teller), Some(every)) = (&self.teller, self.plan.heartbeat) else {
            return std::future::pending().await;
        };
        let mut ticks = tokio::time::interval_at(Instant::now() + every, every);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut unheard = false;
        let mut nth = 0;
        loop {
            ticks.tick().await;
            nth += 1;
            match teller.tell(&[self.plan.run.heartbeat(nth)]).await {
                Ok(()) => {
                    if unheard {
                        (self.say)("Curfew hears the heartbeats again");
                    }
                    unheard = false;
                }
                Err(error) => {
                    if !unheard {
                        (self.say)(&format!("Curfew does not hear the heartbeats ({error}); they go on"));
                    }
                    unheard = true;
                }
            }
        }
    }
}

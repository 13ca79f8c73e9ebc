//! Part of the role `reach`: follows the audit logs that say when identities used their grants. One process at a time for each.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use curfew::config::Config;
use curfew::config::reach::{Finds, Log, Reach};
use curfew::journal;
use curfew::reach::long_lived;
use curfew::reach::notice::{Silences, Sort};
use curfew::reach::unused::Asked;
use curfew::reach::uses::watch::{Known, Turn};
use curfew::reach::uses::{Uses, Watched};
use tokio_util::sync::CancellationToken;

use crate::process::Process;

/// How often a log is looked at.
const EVERY: Duration = Duration::from_secs(2);
/// How often one is that could not be read.
const SOON: Duration = Duration::from_secs(10);
/// Uses are known for so long at least: what people ask of them is not what findings do.
const LEAST_MS: i64 = 180 * DAY_MS;
/// And for so much longer than findings look back: a case may have waited for a person.
const MORE_MS: i64 = 30 * DAY_MS;
const DAY_MS: i64 = 86_400_000;

/// How logs are called.
pub fn source(log: &Log) -> String {
    format!("audit:{}", log.realm)
}

/// Follows each log from here on; `realms` (empty: all).
pub fn start(process: &Process, reach: &Reach, realms: &[String]) {
    for log in reach.uses.iter().filter(|log| realms.is_empty() || realms.contains(&log.realm)) {
        let source = source(log);
        let tenant = process.config.tenant_of(&log.realm).map_or_else(|| "default".to_owned(), ToString::to_string);
        let blank = Watched {
            tenant,
            source: source.clone(),
            realm: log.realm.clone(),
            since_ms: None,
            until_ms: 0,
            stale_ms: log.stale_ms,
            unread: 0,
            position: None,
        };
        let follows = Arc::new(Follows { process: process.clone(), path: log.path.clone(), blank });
        process.lead_one("reach", &source, move |cancel| {
            let follows = follows.clone();
            async move { follows.run(cancel).await }
        });
    }
}

/// Follows one log.
struct Follows {
    process: Process,
    path: PathBuf,
    blank: Watched,
}

impl Follows {
    /// One term.
    async fn run(&self, cancel: CancellationToken) {
        let mut known = None;
        while !cancel.is_cancelled() {
            let pause = match self.turn(known.take()).await {
                Ok((now, caught_up)) => {
                    known = Some(now);
                    if caught_up { EVERY } else { Duration::ZERO }
                }
                Err(error) => {
                    tracing::warn!(source = self.blank.source, %error, "what the journal has of use is read again");
                    SOON
                }
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = cancel.cancelled() => break,
            }
        }
        self.process.intake.metrics.reach_left(&self.blank.source);
    }

    async fn known(&self) -> Result<Known, journal::Error> {
        let (facts, blank) = (self.process.intake.journal.reach(), &self.blank);
        let all = facts.watched().await?;
        let ours = all.into_iter().find(|one| (&one.tenant, &one.source) == (&blank.tenant, &blank.source));
        let watched = ours.unwrap_or_else(|| blank.clone());
        let uses = facts.uses(&blank.tenant, &blank.source).await?;
        Ok(Known::of(Watched { stale_ms: blank.stale_ms, ..watched }, uses))
    }

    /// Reads on; what was read and where that ended become durable together. Whether nothing more stands there now.
    async fn turn(&self, known: Option<Known>) -> Result<(Known, bool), journal::Error> {
        let mut known = match known {
            Some(known) => known,
            None => self.known().await?,
        };
        let (path, now_ms) = (self.path.clone(), self.process.clock.wall_ms());
        let read = tokio::task::spawn_blocking(move || {
            let turn = known.read_on(&path, now_ms);
            (known, turn)
        });
        let Ok((mut known, turn)) = read.await else { return Ok((self.known().await?, true)) };
        let source = &self.blank.source;
        let Turn { new, caught_up, unread, anew } = match turn {
            Ok(turn) => turn,
            Err(error) => {
                tracing::warn!(source, why = %error.kind(), "the audit log cannot be read");
                return Ok((known, true));
            }
        };
        if let Some(why) = anew {
            tracing::info!(source, why, "this audit log is watched anew");
        }
        if unread > 0 {
            tracing::warn!(source, lines = unread, "lines of the audit log cannot be read");
        }
        if let Some(uses) = new {
            self.process.intake.journal.reach().used(known.watched.clone(), uses).await?;
        }
        if caught_up {
            let gone = known.forget(keeps_ms(&self.process.config), now_ms);
            if !gone.is_empty() {
                self.process.intake.journal.reach().forget_uses(known.watched.clone(), gone).await?;
            }
        }
        self.process.intake.metrics.reach_read(source, Some(known.watched.until_ms).filter(|ms| *ms > 0));
        Ok((known, caught_up))
    }
}

/// How long it is known who used something: as long as any finding, and the notice that it may have, looks back.
fn keeps_ms(config: &Config) -> i64 {
    let finds = config.reach.as_ref().map(Reach::looked_for);
    let back_ms = finds.map_or(0, |finds| finds.dormant_after_ms.max(finds.unused_after_ms));
    let notice_ms = config.rules.findings.iter().map(|rule| rule.notice_ms).max().unwrap_or(0);
    back_ms.saturating_add(notice_ms).saturating_add(MORE_MS).max(LEAST_MS)
}

/// Whether a log that is asked says nothing now: then what it says no more is neither there nor over.
pub fn is_mute(silences: &Silences, finds: &Finds, now_ms: i64) -> bool {
    let asks = finds.sorts.iter().any(|sort| sort.is_silence());
    asks && silences.uses.watched().any(|log| now_ms.saturating_sub(log.until_ms) > log.stale_ms)
}

/// By what the findings measure silence, and how long tasks live; what none of them asks for is not read.
pub async fn silences(process: &Process, finds: &Finds, now_ms: i64) -> Result<Silences, journal::Error> {
    let measures = finds.sorts.contains(&Sort::LongLived);
    let asks = measures || finds.sorts.iter().any(|sort| sort.is_silence());
    let uses = if asks { process.reach.uses().await? } else { Uses::default() };
    let asked = |for_ms| Asked { for_ms, youngest_ms: finds.youngest_ms, now_ms };
    let lives = if measures { process.reach.lives(now_ms).await? } else { long_lived::Asked::default() };
    Ok(Silences { uses, dormant: asked(finds.dormant_after_ms), unused: asked(finds.unused_after_ms), lives })
}

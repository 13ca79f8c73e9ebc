//! What GitHub is told: an alert is resolved as revoked once what leaked was seen dead.
//!
//! Nothing is queued. What is to be told stands in the journal, as a finding that is matched and of whose credential a case
//! closed as dead; that it was told, as the same finding closed. A tick that is cut, a process that ends, an API that is away:
//! the next tick finds the same, and resolving twice resolves once. One process at a time.

mod proven;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::event::Event;
use crate::event::adapters::github::{Alert, KEY};
use crate::finding::{self, Finding};
use crate::github::{Client, Silent};
use crate::intake::Intake;
use crate::journal::{Error, Filter};
use crate::ops;
use proven::proven;

/// How often it is looked.
const EVERY: Duration = Duration::from_secs(15);
/// Findings that are looked at in one tick.
const AT_ONCE: u32 = 200;
/// Cases of one credential that are looked at: the open ones, then the newest.
const CASES: u32 = 100;
/// What got no answer is tried again so much later, and the others meanwhile.
const AWAY_MS: i64 = 300_000;
/// After so many in a row without an answer it is GitHub that is away: the rest waits for the next tick.
const IN_A_ROW: u32 = 3;
/// What GitHub refused is tried again so much later: its token may have got the right by then.
const AGAIN_MS: i64 = 3_600_000;

/// Tells GitHub.
pub struct Feedback {
    intake: Intake,
    client: Arc<Client>,
    topic: String,
    freeze_file: PathBuf,
    /// Behind this one the next tick goes on.
    place: (i64, String),
    /// What was refused or got no answer, and until when it rests.
    resting: HashMap<String, i64>,
}

impl Feedback {
    /// About the findings of `topic`. Nothing is told while a freeze is in force.
    pub fn new(intake: Intake, client: Arc<Client>, topic: &str, freeze_file: PathBuf) -> Self {
        let topic = topic.to_owned();
        Self { intake, client, topic, freeze_file, place: (0, String::new()), resting: HashMap::new() }
    }

    /// Tells until cancelled.
    pub async fn run(mut self, cancel: CancellationToken) {
        while !cancel.is_cancelled() {
            if let Err(error) = self.tick().await {
                tracing::warn!(error = &error as &dyn std::error::Error, "who is to be told of what died is not known");
            }
            tokio::select! {
                () = cancel.cancelled() => {}
                () = tokio::time::sleep(EVERY) => {}
            }
        }
    }

    /// Looks at some findings, and goes on behind them the next time. Returns how many were told.
    ///
    /// # Errors
    /// As the journal's: what is to be told is found again.
    pub async fn tick(&mut self) -> Result<usize, Error> {
        let journal = self.intake.journal.clone();
        if ops::in_force(journal.frozen().await?, &self.freeze_file).is_some() {
            return Ok(0);
        }
        let now_ms = self.intake.clock.wall_ms();
        self.resting.retain(|_, until_ms| *until_ms > now_ms);
        let before = std::mem::take(&mut self.place);
        let findings = journal.matched(finding::id(&self.topic, KEY), before.clone(), AT_ONCE).await?;
        let (mut told, mut away) = (0, 0);
        for finding in &findings {
            match self.tell(finding, now_ms).await? {
                Told::Yes => (told, away) = (told + 1, 0),
                Told::Refused => away = 0,
                Told::No => {}
                Told::Away => away += 1,
            }
            if away == IN_A_ROW {
                self.place = before;
                return Ok(told);
            }
        }
        if let Some(last) = findings.last().filter(|_| findings.len() == usize::try_from(AT_ONCE).unwrap_or(0)) {
            self.place = (last.last_ms, last.id());
        }
        Ok(told)
    }

    async fn tell(&mut self, finding: &Finding, now_ms: i64) -> Result<Told, Error> {
        let Some(alert) = Alert::of_key(&finding.key).filter(|_| !self.resting.contains_key(&finding.id())) else {
            return Ok(Told::No);
        };
        let mut cases = Vec::with_capacity(finding.credentials.len());
        for credential in &finding.credentials {
            let credential = Some(credential.clone());
            let filter = Filter { credential, closed: true, limit: Some(CASES), ..Filter::default() };
            cases.push(self.intake.journal.cases(filter).await?);
        }
        let Some(case) = proven(finding, &cases) else { return Ok(Told::No) };
        let (result, told) = match self.client.resolve(&alert, case).await {
            Ok(()) => {
                self.intake.notice(vec![Event::told_dead(finding, case, now_ms)]).await?;
                tracing::info!(alert = finding.key, case.id = %case, "an alert of GitHub is resolved: its secret was seen dead");
                ("resolved", Told::Yes)
            }
            Err(why @ Silent::Away) => {
                tracing::warn!(%why, alert = finding.key, "an alert of GitHub waits to be resolved, and is tried again in 5 minutes");
                self.resting.insert(finding.id(), now_ms.saturating_add(AWAY_MS));
                ("unavailable", Told::Away)
            }
            Err(why) => {
                tracing::error!(%why, alert = finding.key, "an alert of GitHub is not resolved; it is tried again in an hour");
                self.resting.insert(finding.id(), now_ms.saturating_add(AGAIN_MS));
                ("refused", Told::Refused)
            }
        };
        self.intake.metrics.feedback(result);
        Ok(told)
    }
}

enum Told {
    Yes,
    /// GitHub was not asked.
    No,
    Refused,
    /// Nobody answered.
    Away,
}

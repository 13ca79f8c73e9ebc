//! Answers what operators ask, from the journal.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use serde::Serialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::half::{self, HalfMade};
use super::{Refused, RefusedKind, Reply, Request, freeze_file};
use crate::case::record::Record;
use crate::case::{Action, Case, CaseId};
use crate::connector::plan;
use crate::credential::CredentialId;
use crate::event::Event;
use crate::guard::Freeze;
use crate::intake::Intake;
use crate::journal::{self, Filter, Position};
use crate::offboard;
use crate::reach::kept::{Kept, NoAnswer};
use crate::reach::{MAX_NAME_BYTES, Node, Standing};
use crate::scope::{self, Cut, Permission};

/// The shortest beginning of an id that is looked up.
const SHORTEST: usize = 4;

/// A cluster is not read any more that was not for so long: the watermark of one that is moves on each second.
const READ_NO_MORE_MS: i64 = 60_000;

/// Carries out what operators ask.
#[derive(Clone)]
pub struct Operator {
    /// The journal, and the way in for `operator.revoke`.
    pub intake: Intake,
    /// Who reaches what.
    pub reach: Arc<Kept>,
    /// The freeze file beside the journal.
    pub freeze_file: PathBuf,
}

impl Operator {
    /// Does it.
    pub async fn answer(&self, request: Request) -> Reply {
        match self.act(request).await {
            Ok(value) => Reply::Ok(value),
            Err(refused) => Reply::Refused(refused),
        }
    }

    async fn act(&self, request: Request) -> Result<Value, Refused> {
        let journal = &self.intake.journal;
        let now_ms = self.intake.clock.wall_ms();
        match request {
            Request::Cases { filter } => value(&journal.cases(filter).await?),
            Request::Tasks { filter } => value(&journal.tasks(filter).await?),
            Request::Findings { all, max } => value(&journal.findings(!all, max).await?),
            Request::Case { id } => match journal.timeline(self.find(&id).await?).await? {
                Some(timeline) => value(&timeline),
                None => Err(Refused::new(RefusedKind::NotFound, format!("there is no case {id}"))),
            },
            Request::Seen { credential, tenant } => {
                let known = journal.known(&tenant.into(), vec![credential]).await?;
                Ok(json!({ "seen_ms": known.first().and_then(|known| known.credential.seen_ms) }))
            }
            Request::Freeze { hard, by, reason } => {
                let how = if hard { Freeze::Hard } else { Freeze::Soft };
                let note = freeze_file::Note { how, by: by.clone(), reason: reason.clone(), at_ms: now_ms };
                let file = freeze_file::write(&self.freeze_file, &note);
                journal.freeze(how, &by, &reason).await?;
                if let Err(error) = file {
                    tracing::warn!(%error, "the freeze file cannot be written; the journal is frozen");
                }
                tracing::warn!(?how, %by, %reason, "frozen");
                Ok(json!({ "frozen": how }))
            }
            Request::HalfMade {} => value(&self.half_made().await?),
            Request::Release { by } => {
                freeze_file::remove(&self.freeze_file).map_err(|error| {
                    Refused::new(RefusedKind::Unavailable, format!("the freeze file stays: {error}"))
                })?;
                journal.release(&by).await?;
                self.intake.stirred.notify_one();
                tracing::warn!(%by, "released");
                Ok(json!({ "released": true }))
            }
            Request::Resume { id, by } => self.command(&id, Some(Record::Resumed { by })).await,
            Request::Abandon { id, by, reason } => self.command(&id, Some(Record::Abandoned { by, reason })).await,
            Request::RetryNow { id } => self.command(&id, None).await,
            Request::Rotate { credential, split: true, leaked: false, agents, tenant, by, reason }
                if !agents.is_empty() =>
            {
                let is_name = |name: &String| !name.is_empty() && name.len() <= MAX_NAME_BYTES;
                if agents.len() > scope::MOVES || !agents.iter().all(is_name) {
                    let message = format!("a split of some moves at most {} agents, each by its name", scope::MOVES);
                    return Err(Refused::new(RefusedKind::Invalid, message));
                }
                self.is_whole(&credential).await?;
                let (id, of) = (Uuid::now_v7().to_string(), credential.clone());
                self.order(Event::operator_move(tenant.into(), id, of, agents, by, reason, now_ms), credential).await
            }
            Request::Rotate { credential, leaked, split, tenant, by, reason, .. } => {
                let how = match (leaked, split) {
                    (true, _) => Action::Contain,
                    (false, true) => Action::Split,
                    (false, false) => Action::Rollover,
                };
                if how == Action::Split {
                    self.is_whole(&credential).await?;
                }
                let (id, of) = (Uuid::now_v7().to_string(), credential.clone());
                self.order(Event::operator_rotate(tenant.into(), id, of, how, by, reason, now_ms), credential).await
            }
            Request::Reduce { credential, permissions, notice_ms, tenant, by, reason } => {
                let permissions = scope::permissions(permissions.iter().map(Permission::as_str));
                let permissions = permissions.map_err(|why| Refused::new(RefusedKind::Invalid, why.to_string()))?;
                if permissions.iter().any(Permission::is_fence) {
                    let message = "a fence is set by `curfew offboard`, which also ends it";
                    return Err(Refused::new(RefusedKind::Invalid, message));
                }
                let not_before_ms = (notice_ms > 0).then(|| now_ms.saturating_add(notice_ms));
                let cut = (Cut::of(permissions), not_before_ms);
                self.is_free(&credential).await?;
                let (id, of) = (Uuid::now_v7().to_string(), credential.clone());
                self.order(Event::operator_reduce(tenant.into(), id, of, cut, by, reason, now_ms), credential).await
            }
            Request::Rollback { id, by, reason } => self.roll_back(&id, by, reason).await,
            Request::Keep { id, for_ms, by, reason } => {
                let until_ms = now_ms.saturating_add(for_ms.max(0));
                self.waits(&id).await?;
                self.command(&id, Some(Record::Kept { by, reason, until_ms })).await
            }
            Request::Revoke { credential, tenant, by, reason } => {
                let (id, of) = (Uuid::now_v7().to_string(), credential.clone());
                self.order(Event::operator_revoke(tenant.into(), id, of, by, reason, now_ms), credential).await
            }
            Request::Offboard { name, back, yes, until_ms, tenant, by, reason } => {
                let node = match back {
                    true => self.left(&name, &tenant).await?,
                    false => self.leaver(&name, yes, now_ms).await?,
                };
                let (id, whom) = (Uuid::now_v7().to_string(), (node.clone(), back));
                let event = Event::operator_offboard(tenant.into(), id.clone(), whom, until_ms, by, reason, now_ms);
                self.intake.notice(vec![event]).await?;
                Ok(json!({ "event": id, "node": node }))
            }
            Request::Offboarded {} => {
                let fences = journal.fences(i64::MAX, offboard::MOST).await?;
                Ok(json!({ "offboarded": journal.offboardings(offboard::MOST).await?, "fences": fences }))
            }
            Request::Overrun {} => value(&journal.overrun(now_ms).await?),
            Request::Standing { max } => value(&journal.standing(max).await?),
            Request::Reach { question } => value(&self.reach.answer(question, now_ms).await?),
            Request::Stats {} => {
                let held = journal.started_held().await?;
                let frozen = super::in_force(journal.frozen().await?, &self.freeze_file);
                Ok(json!({ "stats": journal.stats(now_ms).await?, "frozen": frozen, "started_held": held }))
            }
            Request::PositionSet { cluster, topic, partition, offset } => {
                if offset < 0 || partition < 0 {
                    return Err(Refused::new(RefusedKind::Invalid, "partition and offset are counted from 0"));
                }
                let before = journal.position(&cluster, &topic, partition).await?;
                // The mark of the last record belongs to the old place; the watermark does not go back.
                let last_ms = before.as_ref().map_or(0, |before| before.last_ms);
                let (cluster, topic) = (cluster.into(), topic.into());
                let to = Position { cluster, topic, partition, next_offset: offset, last_ms, last_digest: [0; 16] };
                journal.set_position(to.clone()).await?;
                tracing::warn!(topic = %to.topic, partition, offset, "an operator moved the position");
                Ok(json!({ "before": before, "now": to }))
            }
            Request::PositionDrop { cluster } => self.forget(&cluster, now_ms).await,
        }
    }

    /// Forgets a cluster's positions, unless it is read: its topics would be read again from their start.
    async fn forget(&self, id: &str, now_ms: i64) -> Result<Value, Refused> {
        let clusters = self.intake.journal.clusters().await?;
        let Some(found) = clusters.iter().find(|cluster| cluster.id == id) else {
            let known: Vec<String> = clusters.iter().map(|cluster| format!("{:?}", cluster.id)).collect();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            return Err(Refused::new(RefusedKind::NotFound, format!("no cluster {id:?} was read; known: {known}")));
        };
        let ago_ms = now_ms.saturating_sub(found.read_ms);
        if ago_ms < READ_NO_MORE_MS {
            let ago = ago_ms / 1_000;
            let message = format!("the cluster {id:?} was read up to {ago} s ago: stop its intake, and wait a minute");
            return Err(Refused::new(RefusedKind::Invalid, message));
        }
        let dropped = self.intake.journal.forget_cluster(id).await?;
        tracing::warn!(cluster = id, dropped, "an operator dropped the positions of a cluster");
        Ok(json!({ "dropped": dropped }))
    }

    async fn command(&self, id: &str, record: Option<Record>) -> Result<Value, Refused> {
        let id = self.find(id).await?;
        let what = record.as_ref().map_or("retry", Record::name);
        let case = self.intake.journal.command(id, record, self.intake.clock.wall_ms()).await?;
        self.intake.stirred.notify_one();
        tracing::warn!(case = %id, credential = %case.directive.credential, what, "an operator's word on a case");
        value(&case)
    }

    /// Who is meant to leave: whoever reach calls just so. It ends all that one holds, so the end of a name is not enough by itself:
    /// it is where somebody says so (`yes`), reach is whole, and nobody else's name ends so.
    async fn leaver(&self, name: &str, yes: bool, now_ms: i64) -> Result<Node, Refused> {
        let none = |message: String| Refused::new(RefusedKind::NotFound, message);
        let (graph, is_one) = self.reach.graph().await.map_err(Refused::from)?;
        let found = graph.named(name).map(|at| graph.node(at).clone()).map_err(|near| {
            let near: Vec<String> = near.iter().map(ToString::to_string).collect();
            let hint = if near.is_empty() { String::new() } else { format!("; it may be one of {}", near.join(", ")) };
            none(format!("reach knows nobody called {name}{hint}"))
        })?;
        let who = "an identity, an agent, an owner or a credential can be offboarded";
        let leaver = offboard::leaver(&found.to_string())
            .ok_or_else(|| Refused::new(RefusedKind::Invalid, format!("{who}: not {found}")))?;
        if Node::parse(name).is_ok_and(|node| node == found) {
            return Ok(leaver);
        }
        if !yes {
            let message = format!("{name} is the end of {found}: name it whole, or say --yes");
            return Err(Refused::new(RefusedKind::Invalid, message));
        }
        let sources = self.reach.sources(now_ms).await.map_err(Refused::from)?;
        if !is_one || sources.is_empty() || sources.iter().any(|line| line.standing != Standing::Whole) {
            let message = format!("reach is not whole, so another name may end in {name} as well: name {found} whole");
            return Err(Refused::new(RefusedKind::Invalid, message));
        }
        Ok(leaver)
    }

    /// Who is meant to stay: one of those who leave, by its whole name, or by that without its kind where only one is called so.
    async fn left(&self, name: &str, tenant: &str) -> Result<Node, Refused> {
        let all = self.intake.journal.offboardings(offboard::MOST).await?;
        let named = |node: &Node| node.to_string() == name || *node.name == *name;
        let fitting = all.into_iter().filter(|one| *one.tenant == *tenant && named(&one.node));
        let fitting: BTreeSet<Node> = fitting.map(|one| one.node).collect();
        let several = || fitting.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let whole = Node::parse(name).ok().filter(|node| fitting.contains(node));
        match whole.as_ref().or(fitting.first().filter(|_| fitting.len() == 1)) {
            Some(node) => Ok(node.clone()),
            None if fitting.is_empty() => {
                Err(Refused::new(RefusedKind::NotFound, format!("nobody called {name} leaves")))
            }
            None => Err(Refused::new(RefusedKind::NotFound, format!("{name} is one of {}: name it whole", several()))),
        }
    }

    /// Only what somebody was told of, or what an identity may do, waits for a no.
    async fn waits(&self, id: &str) -> Result<(), Refused> {
        let id = self.find(id).await?;
        let timeline = self.intake.journal.timeline(id).await?;
        let directive = timeline.map(|timeline| timeline.line.case.directive);
        if directive.is_some_and(|one| one.action == Action::Reduce || one.not_before_ms.is_some()) {
            return Ok(());
        }
        let message = format!("case {id} is no reduction, and nobody was given notice of it: it does not wait");
        Err(Refused::new(RefusedKind::Invalid, message))
    }

    /// What goes on with the value itself would take the order over, and forget it.
    async fn is_free(&self, credential: &CredentialId) -> Result<(), Refused> {
        self.lets(credential, |case| case.directive.action <= Action::Restore).await
    }

    /// A split joins what stands between two values ([`policy::meet`](crate::policy::meet)), and would be forgotten with it.
    async fn is_whole(&self, credential: &CredentialId) -> Result<(), Refused> {
        self.lets(credential, |case| !(case.directive.action.rotates() && case.state.acted)).await
    }

    /// Whether no open case stands in the way of an order.
    async fn lets(&self, credential: &CredentialId, fits: impl Fn(&Case) -> bool) -> Result<(), Refused> {
        let filter = Filter { credential: Some(credential.clone()), ..Filter::default() };
        let open = self.intake.journal.cases(filter).await?;
        match open.iter().find(|line| !fits(&line.case)) {
            None => Ok(()),
            Some(line) => {
                let (id, action) = (line.case.id, line.case.directive.action.as_str());
                let message = format!("case {id} ({action}) is at work on this credential: order it when that is over");
                Err(Refused::new(RefusedKind::Invalid, message))
            }
        }
    }

    /// Gives back what a case took from an identity: what the case itself recorded, and nothing else.
    async fn roll_back(&self, id: &str, by: String, reason: String) -> Result<Value, Refused> {
        let id = self.find(id).await?;
        let Some(timeline) = self.intake.journal.timeline(id).await? else {
            return Err(Refused::new(RefusedKind::NotFound, format!("there is no case {id}")));
        };
        let case = &timeline.line.case;
        let fences = self.intake.journal.fences(i64::MAX, offboard::MOST).await?;
        let (stands, kind) = (fences.iter().any(|fence| fence.case == id), case.directive.credential.kind());
        let (held, left) = plan::gives_back(kind, case.state.cutting.missing(), stands);
        let cut = Cut::back(held, id).map_err(|_| {
            Refused::new(RefusedKind::Invalid, format!("case {id} has taken nothing that can be given back"))
        })?;
        // A fence is of the identity, whichever of its values the case was about.
        let credential = &case.directive.credential;
        let credential = if cut.is_fence() { scope::identity_of(credential) } else { credential.clone() };
        self.is_free(&credential).await?;
        let event = Uuid::now_v7().to_string();
        let (tenant, of) = (case.tenant.clone(), credential.clone());
        let now_ms = self.intake.clock.wall_ms();
        let order = Event::operator_restore(tenant, event, of, (id, cut), by, reason, now_ms);
        let mut said = self.order(order, credential).await?;
        // What one order does not give back, the same order does when this one is over.
        said["left"] = left.into();
        Ok(said)
    }

    /// An operator's event: recorded as any other. Returns the cases that it led to.
    async fn order(&self, event: Event, credential: CredentialId) -> Result<Value, Refused> {
        let id = event.id.clone();
        self.intake.notice(vec![event]).await?;
        let filter = Filter { credential: Some(credential), ..Filter::default() };
        let cases: Vec<CaseId> = self.intake.journal.cases(filter).await?.iter().map(|line| line.case.id).collect();
        Ok(json!({ "event": id, "cases": cases }))
    }

    async fn half_made(&self) -> Result<Vec<HalfMade>, Refused> {
        let lines = self.intake.journal.cases(Filter { limit: Some(100_000), ..Filter::default() }).await?;
        Ok(lines.iter().filter_map(|line| half::half_made(&line.case)).collect())
    }

    /// The case that `id` is, or begins.
    async fn find(&self, id: &str) -> Result<CaseId, Refused> {
        if let Ok(id) = Uuid::try_parse(id) {
            return Ok(id);
        }
        let asked = id.to_ascii_lowercase();
        if asked.len() < SHORTEST || !asked.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-') {
            let message = format!("a case's id is a UUID, or at least {SHORTEST} characters of its beginning");
            return Err(Refused::new(RefusedKind::Invalid, message));
        }
        let found = match begin_with(&asked) {
            Some((from, to)) => self.intake.journal.cases_between(from, to, 2).await?,
            None => Vec::new(),
        };
        match found[..] {
            [one] => Ok(one),
            [] => Err(Refused::new(RefusedKind::NotFound, format!("no case begins with {asked}"))),
            _ => Err(Refused::new(RefusedKind::NotFound, format!("more than one case begins with {asked}"))),
        }
    }
}

/// The first and the last of all ids that begin with `asked`, which is lower case; `None`: no id does.
fn begin_with(asked: &str) -> Option<(CaseId, CaseId)> {
    let digits: String = asked.chars().filter(|c| *c != '-').collect();
    let filled =
        |with: &str| Uuid::try_parse(&format!("{digits}{}", with.repeat(32_usize.checked_sub(digits.len())?))).ok();
    let (from, to) = (filled("0")?, filled("f")?);
    // The hyphens stand where an id has them.
    from.to_string().starts_with(asked).then_some((from, to))
}

fn value<T: Serialize>(of: &T) -> Result<Value, Refused> {
    serde_json::to_value(of).map_err(|_| Refused::new(RefusedKind::Unavailable, "the answer cannot be written as JSON"))
}

impl From<NoAnswer> for Refused {
    fn from(error: NoAnswer) -> Self {
        match error {
            NoAnswer::Journal(error) => error.into(),
            NoAnswer::Unknown(_) => Self::new(RefusedKind::NotFound, error.to_string()),
            NoAnswer::Died => Self::new(RefusedKind::Unavailable, error.to_string()),
        }
    }
}

impl From<journal::Error> for Refused {
    fn from(error: journal::Error) -> Self {
        let kind = match error {
            journal::Error::Illegal(_) => RefusedKind::Invalid,
            _ => RefusedKind::Unavailable,
        };
        Self::new(kind, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_beginning_is_a_range_of_ids() {
        let id = |text: &str| Uuid::try_parse(text).unwrap();
        let all = |from: &str, to: &str| Some((id(from), id(to)));
        let (first, last) = ("0192f1c4-7000-7000-8000-000000000000", "0192f1c4-7fff-ffff-ffff-ffffffffffff");
        assert_eq!(begin_with("0192f1c4-7"), all("0192f1c4-7000-0000-0000-000000000000", last));
        assert_eq!(begin_with("0192f1c4-7000-7000-8"), all(first, "0192f1c4-7000-7000-8fff-ffffffffffff"));
        assert_eq!(begin_with("0192f1c4-"), begin_with("0192f1c4"));
        assert_eq!(begin_with(last), all(last, last));
        for none in ["0192-f1c4", "0192f1c47", &format!("{last}0"), "----"] {
            assert_eq!(begin_with(none), None, "{none}");
        }
    }
}

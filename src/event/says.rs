//! What a topic's producers may say: of which types, as which sources, and about whose runs. PURE.
//!
//! `source` and `run_key` stand in the payload, so they are a producer's claims. The configuration says how far a topic's
//! producers are believed; by default they speak of their own source's runs only.

use std::collections::HashSet;

use super::{Data, Event, RejectReason, Type};
use crate::task::RunKey;

/// How far a topic's producers are believed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Says {
    /// The types that they may send.
    pub types: HashSet<Type>,
    /// The sources as which they may speak, whole or ending in `*`; `None`: any.
    pub sources: Option<Vec<String>>,
    /// The sources of whose runs they may speak besides the event's own, whole or ending in `*`.
    pub speaks_for: Vec<String>,
}

/// What they may not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unheard {
    /// Why it is rejected: always `forbidden`.
    pub reason: RejectReason,
    /// Where it stands.
    pub pointer: &'static str,
}

impl Says {
    /// Whether they may say `event`. The run keys in it become canonical: one run has one key however it was written.
    ///
    /// # Errors
    /// What they may not say.
    pub fn hear(&self, event: &mut Event) -> Result<(), Unheard> {
        let forbidden = |pointer| Unheard { reason: RejectReason::Forbidden, pointer };
        if !self.types.contains(&event.kind) {
            return Err(forbidden("/type"));
        }
        if self.sources.as_ref().is_some_and(|sources| !sources.iter().any(|one| is_like(&event.source, one))) {
            return Err(forbidden("/source"));
        }
        let source = event.source.clone();
        let (run, other) = runs(&mut event.data);
        for (key, pointer) in run.map(|run| (run, "/data/run_key")).into_iter().chain(other) {
            *key = self.run_of(&source, key).ok_or(forbidden(pointer))?;
        }
        Ok(())
    }

    fn run_of(&self, source: &str, key: &RunKey) -> Option<RunKey> {
        run_among(key, Some(source), &self.speaks_for)
    }
}

/// `key` as the run of the longest source that it begins with: `own`, taken as it is, or one of `others`, whole or ending
/// in `*`.
pub fn run_among(key: &RunKey, own: Option<&str>, others: &[String]) -> Option<RunKey> {
    let whole = others.iter().filter(|one| !one.ends_with('*')).map(String::as_str);
    let named = whole.chain(own).filter_map(|source| {
        let id = key.as_str().strip_prefix(source)?.strip_prefix(':')?;
        (!id.is_empty()).then_some((source, id))
    });
    if let Some((source, id)) = named.max_by_key(|(source, _)| source.len()) {
        return Some(RunKey::new(source, id));
    }
    let (other, _) = key.parts()?;
    others.iter().any(|one| is_like(other, one)).then(|| key.clone())
}

/// Whether `source` is `pattern`, or begins with what stands before its `*`.
pub fn is_like(source: &str, pattern: &str) -> bool {
    pattern.strip_suffix('*').map_or(source == pattern, |start| source.starts_with(start))
}

/// The run that an event is about, and another one that it names, with where it does.
fn runs(data: &mut Data) -> (Option<&mut RunKey>, Option<(&mut RunKey, &'static str)>) {
    match data {
        Data::TaskStarted(it) => (Some(&mut it.run), it.within.as_mut().map(|run| (run, "/data/within"))),
        Data::TaskExtended(it) => (Some(&mut it.run), None),
        Data::TaskHeartbeat(it) => (Some(&mut it.run), None),
        Data::TaskEnded(it) => (Some(&mut it.run), it.continued_as.as_mut().map(|run| (run, "/data/continued_as"))),
        Data::GrantRegistered(it) => (Some(&mut it.run), None),
        Data::GrantReleased(it) => (Some(&mut it.run), None),
        Data::DeadlinePassed { run, .. } | Data::HeartbeatMissed { run, .. } => (Some(run), None),
        Data::ReconcileFound { run, .. } => (run.as_mut(), None),
        Data::CredentialRegistered(_)
        | Data::CredentialAdopted(_)
        | Data::FindingObserved(_)
        | Data::FindingClosed(_)
        | Data::IdentityOffboarded(_)
        | Data::FenceOver { .. }
        | Data::OperatorOffboard { .. }
        | Data::RotationDue { .. }
        | Data::SessionsOver { .. }
        | Data::OperatorRotate { .. }
        | Data::OperatorReduce { .. }
        | Data::OperatorRestore { .. }
        | Data::OperatorRevoke { .. } => (None, None),
    }
}

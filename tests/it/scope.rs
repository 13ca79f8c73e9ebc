//! Permissions that are taken and given back, on real servers: every plan killed at every append, each call failed in each way,
//! each effect repeated, each reply cut. What is not named stays as it was to the letter; what is given back is too.

mod aws;
mod later;
mod postgres;
mod story;
mod vault;

use std::sync::Arc;

use curfew::case::HoldReason;
use curfew::case::record::Verdict;
use curfew::case::state::Phase;
use curfew::connector::{Connector, Registry, Rescope, Subject};
use curfew::credential::CredentialId;
use curfew::event::Event;
use curfew::guard::Mode;
use curfew::journal::{CaseLine, Journal};
use curfew::scope::{Cut, Cutting, Held, Permission};

use crate::endure::{self, Trial};
use crate::stage::{Stage, now_ms, record};
use crate::store::Store;

/// An identity at a real system, with permissions of which some are to go.
pub trait Identity {
    fn credential(&self) -> &CredentialId;

    /// Who takes and gives, by a login with no more rights than `deploy/` says.
    fn connector(&self) -> Arc<dyn Connector>;

    /// What is to go.
    fn takes(&self) -> Vec<Permission>;

    /// All that it was granted, to the letter.
    async fn state(&self) -> String;

    /// The same without what is to go: as the system itself would write it.
    fn without(&self, before: &str) -> String;

    /// Who has the same permissions, and keeps them.
    async fn bystander(&self) -> String;

    /// What stays works, tried by a login of its own.
    async fn assert_works(&self, what: &str);

    /// What stands in no row and no outcome.
    fn secret(&self) -> Option<&str> {
        None
    }

    /// It has what is to go in another way as well.
    async fn also_otherwise(&self);
}

pub fn registry(identity: &impl Identity, mode: Mode) -> Registry {
    let mut registry = Registry::default();
    registry.add(identity.connector());
    let id = identity.credential();
    registry.may_reduce(id.instance(), mode, &[id.id()]);
    registry
}

pub fn reduce(credential: &CredentialId, permissions: Vec<Permission>, not_before_ms: Option<i64>) -> Event {
    let id = uuid::Uuid::new_v4().to_string();
    let cut = (Cut::of(permissions), not_before_ms);
    Event::operator_reduce("default".into(), id, credential.clone(), cut, "ann".into(), "test".into(), now_ms())
}

pub fn restore(credential: &CredentialId, held: Vec<Held>) -> Event {
    let (id, case) = (uuid::Uuid::new_v4().to_string(), uuid::Uuid::new_v4());
    let of = (case, Cut::back(held, case).unwrap());
    Event::operator_restore("default".into(), id, credential.clone(), of, "ann".into(), "test".into(), now_ms())
}

/// What is asked, and how it must end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// It is taken.
    Taken,
    /// It still may, in another way: what was taken is given back.
    Undone,
    /// It was taken by a case, and is given back.
    GivenBack,
}

struct Rescoped<I> {
    identity: I,
    way: Way,
    before: String,
    bystander: String,
    /// Of [`Way::GivenBack`]: what was taken.
    held: Vec<Held>,
}

fn subject(identity: &impl Identity, cutting: Cutting) -> Subject {
    let cut = Cut::of(identity.takes());
    Subject {
        credential: identity.credential().clone(),
        principal: None,
        seen: None,
        issuer: None,
        run: None,
        key: None,
        rotation: None,
        rescope: Some(Rescope { cut, cutting, gives: false }),
        message: None,
        place: None,
    }
}

impl<I: Identity> Rescoped<I> {
    async fn new(identity: I, way: Way) -> Self {
        if way == Way::Undone {
            identity.also_otherwise().await;
        }
        let (before, bystander) = (identity.state().await, identity.bystander().await);
        let mut held = Vec::new();
        if way == Way::GivenBack {
            let connector = identity.connector();
            let seen = connector.observe(&subject(&identity, Cutting::default())).await.unwrap();
            held.clone_from(&seen.scope.as_ref().unwrap().held);
            let cutting = Cutting { before: seen.scope, ..Cutting::default() };
            let act = curfew::case::plan::Act::Narrow;
            connector.perform(act, &subject(&identity, cutting)).await.unwrap();
            assert_eq!(identity.state().await, identity.without(&before), "taken before it is given back");
        }
        Self { identity, way, before, bystander, held }
    }
}

impl<I: Identity> Trial for Rescoped<I> {
    fn credential(&self) -> &CredentialId {
        self.identity.credential()
    }

    fn registry(&self) -> Registry {
        registry(&self.identity, Mode::Enforce)
    }

    async fn open_case(&self, journal: &dyn Journal) {
        let event = match self.way {
            Way::GivenBack => restore(self.identity.credential(), self.held.clone()),
            _ => reduce(self.identity.credential(), self.identity.takes(), None),
        };
        record(journal, vec![event]).await;
    }

    async fn died(&self, what: &str) -> Registry {
        self.identity.assert_works(what).await;
        registry(&self.identity, Mode::Enforce)
    }

    fn is_over(&self, line: &CaseLine) -> bool {
        match self.way {
            Way::Undone => is_held(line, HoldReason::Differs),
            _ => line.closed_ms.is_some(),
        }
    }

    async fn assert_over(&self, journal: &Arc<dyn Journal>, line: &CaseLine, _forgot: bool, what: &str) {
        let state = self.identity.state().await;
        match self.way {
            Way::Taken => {
                assert_eq!(state, self.identity.without(&self.before), "{what}");
                let Verdict::Reduced { taken, sightings, .. } = &line.verdict else {
                    panic!("{what}: {:?}", line.verdict)
                };
                assert_eq!(usize::try_from(*taken).unwrap(), self.identity.takes().len(), "{what}");
                assert!(*sightings > 0, "{what}");
            }
            Way::Undone => {
                assert_eq!(state, self.before, "{what}: what was taken is not given back exactly");
                assert!(line.case.state.cutting.taken.is_empty(), "{what}");
            }
            Way::GivenBack => {
                assert_eq!(state, self.before, "{what}: it is not as it was");
                assert!(matches!(line.verdict, Verdict::RolledBack { .. }), "{what}: {:?}", line.verdict);
            }
        }
        assert_eq!(self.identity.bystander().await, self.bystander, "{what}: somebody else lost something");
        self.identity.assert_works(what).await;
        let timeline = journal.timeline(line.case.id).await.unwrap().unwrap();
        let rows = format!("{timeline:?}{:?}", journal.outbox(0, 1_000).await.unwrap());
        assert!(self.identity.secret().is_none_or(|secret| !rows.contains(secret)), "{what}: it is in the journal");
        let records: Vec<_> = timeline.records.iter().flat_map(|(_, _, records)| records).collect();
        let folded = curfew::case::state::State::fold(records).unwrap();
        assert_eq!(folded, line.case.state, "{what}: the row is the fold of its records");
    }
}

pub fn is_held(line: &CaseLine, why: HoldReason) -> bool {
    matches!(line.case.state.phase, Phase::Held { reason } if reason == why)
}

async fn every_kill<I: Identity>(store: Store, way: Way, fresh: impl AsyncFn() -> I) {
    let least = if way == Way::Undone { 3 } else { 2 };
    endure::every_kill(&store, least, async || Rescoped::new(fresh().await, way).await).await;
}

async fn every_fault<I: Identity>(store: Store, way: Way, fresh: impl AsyncFn() -> I) {
    endure::every_fault(&store, 3, async || Rescoped::new(fresh().await, way).await).await;
}

/// Works until the case is there.
pub async fn run_until(
    stage: &Stage,
    journal: &Arc<dyn Journal>,
    credential: &CredentialId,
    is_there: impl Fn(&CaseLine) -> bool,
) -> CaseLine {
    stage.run_until(journal, credential, is_there).await
}

//! A journal, connectors and an executor without the rest of the process, and ways to break each of them.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use curfew::case::plan::Act;
use curfew::case::record::{FailureKind, Observation, Output, Record, Sighting};
use curfew::case::{Action, Case, CaseId};
use curfew::clock;
use curfew::connector::{Connector, Failure, Gate, Registry, Subject};
use curfew::credential::CredentialId;
use curfew::event::{Coordinates, Data, Event, GrantSpec, Limits, TaskEnded, TaskStarted, Type, digest16};
use curfew::executor::{Executor, Parts, Settings};
use curfew::guard::{Authority, Freeze};
use curfew::intake::Intake;
use curfew::journal::{
    Append, Arrival, Batch, CaseLine, Claim, Cluster, Due, DueAt, Error, Filter, Journal, Known, Old, Outgoing,
    Overrun, Position, Recorded, Source, Stats, Tail, Timeline, Want, Watermark, Worker,
};
use curfew::limit::Part;
use curfew::metrics::Metrics;
use curfew::policy::Rules;
use curfew::probe::Settle;
use curfew::retry::Schedule;
use tokio::sync::Notify;

use curfew::task::{Credential, RunKey, Tenant, Tenure};

use crate::store::Store;

pub const TOPIC: &str = "curfew.tasks";

/// A place for a journal and what works on it.
pub struct Stage {
    pub store: Store,
    /// The process that its executors are: what one was granted is the next one's.
    pub worker: uuid::Uuid,
    pub registry: Arc<Registry>,
    pub settings: Settings,
    /// Rung when an outcome is durable, as for the relay.
    pub outbox: Arc<Notify>,
    /// What its executors count.
    pub metrics: Arc<Metrics>,
}

impl Stage {
    pub fn new(store: Store, registry: Registry) -> Self {
        let kinds = [
            "vault-lease",
            "vault-token",
            "vault-secret-id",
            "postgres-role",
            "mariadb-user",
            "redis-user",
            "aws-access-key",
            "aws-user",
            "vault-approle",
            "toy",
        ];
        let kinds = kinds.map(str::to_owned).into();
        let authority = Authority { kinds, strongest: Action::Revoke };
        let settings = Settings {
            recheck_ms: 50,
            effects_per_minute: Some(100_000),
            retry: Schedule { first_ms: 20, ceiling_ms: 200, throttle_ceiling_ms: 1_000 },
            authority: BTreeMap::from([(TOPIC.to_owned(), authority)]),
            ..Settings::default()
        };
        let (worker, registry) = (uuid::Uuid::new_v4(), Arc::new(registry));
        Self { store, worker, registry, settings, outbox: Arc::default(), metrics: Arc::default() }
    }

    pub async fn open(&self) -> Arc<dyn Journal> {
        self.store.open().await
    }

    pub fn executor(&self, journal: Arc<dyn Journal>) -> Executor {
        self.executor_rung_by(journal, Arc::default())
    }

    pub fn executor_rung_by(&self, journal: Arc<dyn Journal>, stirred: Arc<Notify>) -> Executor {
        self.executor_of(journal, clock::System::shared(), stirred)
    }

    /// At a clock that the test moves.
    pub fn executor_at(&self, journal: Arc<dyn Journal>, clock: &Arc<clock::Simulated>) -> Executor {
        self.executor_of(journal, clock.clone(), Arc::default())
    }

    fn executor_of(&self, journal: Arc<dyn Journal>, clock: clock::Shared, stirred: Arc<Notify>) -> Executor {
        Executor::new(Parts {
            worker: self.worker,
            journal,
            registry: self.registry.clone(),
            settings: Arc::new(self.settings.clone()),
            clock,
            clock_trusted: Arc::new(|| true),
            freeze_file: Arc::new(|| None::<Freeze>),
            metrics: self.metrics.clone(),
            stirred,
            outbox: self.outbox.clone(),
        })
    }

    /// The way in for what Curfew itself notices.
    pub fn intake(&self, journal: Arc<dyn Journal>) -> Intake {
        Intake {
            journal,
            rules: Arc::default(),
            limits: Limits::default(),
            clock: clock::System::shared(),
            metrics: Arc::default(),
            stirred: Arc::default(),
            trust: None,
            types: None,
        }
    }

    /// A task that held `credential` starts and ends.
    pub async fn task_ends(
        &self,
        journal: &dyn Journal,
        run: &RunKey,
        credential: &CredentialId,
        principal: Option<&str>,
    ) {
        record(journal, whole_task(run, credential, principal)).await;
    }

    /// Works until the case of `credential` closes.
    pub async fn run_until_closed(&self, journal: &Arc<dyn Journal>, credential: &CredentialId) -> CaseLine {
        self.run_until(journal, credential, |line| line.closed_ms.is_some()).await
    }

    /// Works until the case of `credential` is there.
    pub async fn run_until(
        &self,
        journal: &Arc<dyn Journal>,
        credential: &CredentialId,
        is_there: impl Fn(&CaseLine) -> bool,
    ) -> CaseLine {
        let executor = self.executor(journal.clone());
        let closing = crate::world::until("the case to come there", || async {
            executor.drain().await.unwrap();
            case_of(journal.as_ref(), credential).await.filter(&is_there)
        });
        match tokio::time::timeout(std::time::Duration::from_secs(30), closing).await {
            Ok(line) => line,
            Err(_) => {
                let line = case_of(journal.as_ref(), credential).await.expect("there is a case");
                let timeline = journal.timeline(line.case.id).await.unwrap().unwrap();
                panic!("the case does not come there: {timeline:#?}")
            }
        }
    }
}

/// The events of a task that holds `credential`, starts and ends.
pub fn whole_task(run: &RunKey, credential: &CredentialId, principal: Option<&str>) -> Vec<Event> {
    let grant = GrantSpec {
        credential: credential.clone(),
        tenure: Tenure::Minted,
        principal: principal.map(str::to_owned),
        expires_ms: None,
    };
    vec![started(run, vec![grant]), ended(run)]
}

/// A run that no other test has.
pub fn new_run() -> RunKey {
    RunKey::new("/tests", &uuid::Uuid::new_v4().simple().to_string())
}

pub async fn case_of(journal: &dyn Journal, credential: &CredentialId) -> Option<CaseLine> {
    let filter = Filter { credential: Some(credential.clone()), closed: true, ..Filter::default() };
    journal.cases(filter).await.unwrap().pop()
}

pub async fn record(journal: &dyn Journal, events: Vec<Event>) -> Recorded {
    let arrivals = events.into_iter().map(|e| Arrival::Event(Box::new(e))).collect();
    let now_ms = now_ms();
    let batch = Batch { arrivals, moves: Vec::new(), rules: Arc::new(Rules::default()), now_ms };
    journal.record_batch(batch).await.unwrap()
}

pub fn now_ms() -> i64 {
    clock::System::shared().wall_ms()
}

/// An event that no other is.
pub fn event(kind: Type, data: Data) -> Event {
    let id = uuid::Uuid::new_v4().to_string();
    Event {
        at: Coordinates { cluster: "tests".into(), topic: TOPIC.into(), partition: -1, offset: -1 },
        tenant: "default".into(),
        source: "/tests".to_owned(),
        digest: digest16(&[id.as_bytes()]),
        id,
        kind,
        broker_ms: now_ms(),
        traceparent: None,
        data,
    }
}

pub fn started(run: &RunKey, grants: Vec<GrantSpec>) -> Event {
    let data = TaskStarted {
        boundary: None,
        run: run.clone(),
        within: None,
        attempt: 1,
        task: Some("test".to_owned()),
        identity: None,
        started_ms: Some(now_ms()),
        deadline_ms: None,
        heartbeat_every_ms: None,
        grants,
    };
    event(Type::TaskStarted, Data::TaskStarted(data))
}

pub fn ended(run: &RunKey) -> Event {
    let data = TaskEnded {
        run: run.clone(),
        attempt: 1,
        task: None,
        identity: None,
        ended_ms: Some(now_ms()),
        outcome: Some("success".to_owned()),
        grants: Vec::new(),
        continued_as: None,
    };
    event(Type::TaskEnded, Data::TaskEnded(data))
}

/// When a [`Dying`] journal dies, as seen from the executor.
#[derive(Debug, Clone, Copy)]
pub enum Death {
    /// The append never became durable.
    Before(usize),
    /// The append is durable, but nothing runs after it.
    After(usize),
}

/// A journal whose process is killed around one append: after it, nothing answers any more.
pub struct Dying {
    pub inner: Arc<dyn Journal>,
    death: Death,
    appends: AtomicUsize,
}

impl Dying {
    pub fn new(inner: Arc<dyn Journal>, death: Death) -> Arc<Self> {
        Arc::new(Self { inner, death, appends: AtomicUsize::new(0) })
    }

    pub fn died(&self) -> bool {
        let (Death::Before(at) | Death::After(at)) = self.death;
        self.appends.load(Ordering::SeqCst) > at
    }

    fn alive(&self) -> Result<(), Error> {
        if self.died() { Err(Error::Unavailable("killed".into())) } else { Ok(()) }
    }
}

/// The whole impl comes out of one macro: `async_trait` must see methods, not macro calls.
macro_rules! journal_that_dies {
    ($($name:ident($($arg:ident: $ty:ty),*) -> $out:ty;)*) => {
        #[async_trait]
        impl Journal for Dying {
            fn healthy(&self) -> bool {
                !self.died() && self.inner.healthy()
            }

            fn reach(&self) -> &dyn curfew::reach::Facts {
                self.inner.reach()
            }

            async fn append(&self, append: Append) -> Result<Case, Error> {
                self.alive()?;
                let nth = self.appends.fetch_add(1, Ordering::SeqCst);
                match self.death {
                    Death::Before(at) if nth == at => Err(Error::Unavailable("killed".into())),
                    Death::After(at) if nth == at => {
                        self.inner.append(append).await?;
                        Err(Error::Unavailable("killed".into()))
                    }
                    _ => self.inner.append(append).await,
                }
            }

            $(async fn $name(&self, $($arg: $ty),*) -> Result<$out, Error> {
                self.alive()?;
                self.inner.$name($($arg),*).await
            })*
        }
    };
}

journal_that_dies! {
    offboardings(max: u32) -> Vec<curfew::offboard::Offboarding>;
    mind_offboardings(minded: Vec<curfew::offboard::Minded>) -> u64;
    fences(before_ms: i64, max: u32) -> Vec<curfew::scope::Fence>;
    record_batch(batch: Batch) -> Recorded;
    position(cluster: &str, topic: &str, partition: i32) -> Option<Position>;
    caught_up(cluster: &str, topic: &str, partition: i32, at_ms: i64) -> ();
    watermark() -> Watermark;
    set_position(to: Position) -> ();
    clusters() -> Vec<Cluster>;
    forget_cluster(cluster: &str) -> u64;
    claim(want: Want) -> Vec<Claim>;
    unclaim(case: CaseId, epoch: i64, due_ms: i64) -> ();
    block(system: &str, until_ms: i64, reason: &str) -> ();
    announce(worker: Worker, lease_ms: i64) -> Vec<Part>;
    leave(worker: uuid::Uuid) -> ();
    lead(what: &str, worker: uuid::Uuid, lease_ms: i64) -> bool;
    due(before_ms: i64, missed: u32, after: Option<DueAt>, max: usize) -> Vec<Due>;
    sources() -> Vec<Source>;
    unseen(realm: Option<&str>, max: usize, now_ms: i64) -> Vec<Credential>;
    saw(tenant: &Tenant, id: &CredentialId, seen: Observation, again_ms: Option<i64>) -> ();
    known(tenant: &Tenant, ids: Vec<CredentialId>) -> Vec<Known>;
    freeze(how: Freeze, by: &str, reason: &str) -> ();
    release(by: &str) -> ();
    frozen() -> Option<Freeze>;
    hold_start(reason: &str) -> ();
    started_held() -> Option<String>;
    cases_between(from: CaseId, to: CaseId, max: u32) -> Vec<CaseId>;
    command(case: CaseId, record: Option<Record>, now_ms: i64) -> Case;
    outbox(after: i64, max: usize) -> Vec<Outgoing>;
    sent(seq: i64) -> ();
    tail() -> Tail;
    cases(filter: Filter) -> Vec<CaseLine>;
    timeline(case: CaseId) -> Option<Timeline>;
    tasks(filter: curfew::journal::TaskFilter) -> Vec<curfew::journal::TaskLine>;
    lived(since_ms: Option<i64>, after: Option<curfew::journal::LivedAt>, max: u32) -> curfew::journal::LivedPage;
    watched(page: curfew::journal::shown::Page) -> Vec<curfew::journal::shown::Watched>;
    last_closed(max: u32) -> Vec<CaseLine>;
    deaths(since_ms: i64, max: u32) -> curfew::journal::shown::Deaths;
    excerpt(case: CaseId, max: u32) -> Option<curfew::journal::shown::Excerpt>;
    holders(which: curfew::journal::shown::Which, max: u32) -> Vec<curfew::journal::shown::Holder>;
    findings(unmatched: bool, max: u32) -> Vec<curfew::finding::Finding>;
    matched(prefix: String, after: (i64, String), max: u32) -> Vec<curfew::finding::Finding>;
    overrun(now_ms: i64) -> Vec<Overrun>;
    standing(max: u32) -> Vec<curfew::journal::Standing>;
    stats(now_ms: i64) -> Stats;
    prune(old: Old, max: usize) -> u64;
}

/// How [`Broken`] connectors misbehave.
#[derive(Debug, Clone, Copy)]
pub enum Fault {
    /// Call number `n` (from 0, looks and effects counted together) fails without having happened.
    Fails(usize, FailureKind),
    /// Each effect is carried out twice.
    Twice,
    /// The reply of effect number `n` is cut after it was carried out.
    ReplyCut(usize),
}

/// What stands between the executor and a connector. What it says nothing about is passed on.
#[async_trait]
pub trait Between: Clone + Send + Sync + 'static {
    async fn observe(&self, inner: &dyn Connector, subject: &Subject) -> Result<Observation, Failure> {
        inner.observe(subject).await
    }

    async fn perform(&self, inner: &dyn Connector, act: Act, subject: &Subject) -> Result<Output, Failure> {
        inner.perform(act, subject).await
    }

    async fn pass(&self, inner: &dyn Connector, act: Act, subject: &Subject) -> Result<Gate, Failure> {
        inner.pass(act, subject).await
    }

    async fn self_check(&self, inner: &dyn Connector) -> Result<(), Failure> {
        inner.self_check().await
    }

    /// `registry` with this before each of its connectors.
    fn before(&self, registry: &Registry) -> Registry {
        let mut all = registry.clone();
        for inner in registry.all() {
            all.add(Arc::new(Wrapped { inner: inner.clone(), between: self.clone() }));
        }
        all
    }
}

struct Wrapped<B> {
    inner: Arc<dyn Connector>,
    between: B,
}

#[async_trait]
impl<B: Between> Connector for Wrapped<B> {
    fn name(&self) -> &'static str {
        self.inner.name()
    }
    fn system(&self) -> &str {
        self.inner.system()
    }
    fn call_timeout_ms(&self) -> i64 {
        self.inner.call_timeout_ms()
    }
    fn settle(&self) -> Settle {
        self.inner.settle()
    }
    fn cut_roles(&self) -> Option<&[String]> {
        self.inner.cut_roles()
    }
    fn serves(&self, principal: &str) -> bool {
        self.inner.serves(principal)
    }
    async fn observe(&self, subject: &Subject) -> Result<Observation, Failure> {
        self.between.observe(self.inner.as_ref(), subject).await
    }
    async fn perform(&self, act: Act, subject: &Subject) -> Result<Output, Failure> {
        self.between.perform(self.inner.as_ref(), act, subject).await
    }
    async fn pass(&self, act: Act, subject: &Subject) -> Result<Gate, Failure> {
        self.between.pass(self.inner.as_ref(), act, subject).await
    }
    async fn probe(&self, subject: &Subject) -> Sighting {
        self.inner.probe(subject).await
    }
    async fn self_check(&self) -> Result<(), Failure> {
        self.between.self_check(self.inner.as_ref()).await
    }
}

/// All connectors with one common fault.
#[derive(Clone)]
pub struct Broken {
    fault: Fault,
    /// Counts over all of them.
    calls: Arc<AtomicUsize>,
    effects: Arc<AtomicUsize>,
}

impl Broken {
    pub fn all(registry: &Registry, fault: Fault) -> (Registry, Arc<AtomicUsize>) {
        let broken = Self { fault, calls: Arc::default(), effects: Arc::default() };
        (broken.before(registry), broken.calls)
    }

    fn fails(&self) -> Result<(), Failure> {
        let nth = self.calls.fetch_add(1, Ordering::SeqCst);
        match self.fault {
            Fault::Fails(at, kind) if nth == at => Err(Failure::new(kind, "injected")),
            _ => Ok(()),
        }
    }
}

#[async_trait]
impl Between for Broken {
    async fn observe(&self, inner: &dyn Connector, subject: &Subject) -> Result<Observation, Failure> {
        self.fails()?;
        inner.observe(subject).await
    }

    async fn pass(&self, inner: &dyn Connector, act: Act, subject: &Subject) -> Result<Gate, Failure> {
        self.fails()?;
        inner.pass(act, subject).await
    }

    async fn perform(&self, inner: &dyn Connector, act: Act, subject: &Subject) -> Result<Output, Failure> {
        self.fails()?;
        let nth = self.effects.fetch_add(1, Ordering::SeqCst);
        let output = inner.perform(act, subject).await;
        match self.fault {
            Fault::Twice => {
                output?;
                inner.perform(act, subject).await
            }
            Fault::ReplyCut(at) if nth == at => Err(Failure::new(FailureKind::Unknown, "injected: reply cut")),
            _ => output,
        }
    }
}

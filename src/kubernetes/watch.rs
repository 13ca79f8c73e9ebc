//! The watch itself: a full list, what changes from there, and before long a full list again. A cut, a gap, a restart and
//! another leader are the same thing: a new round.

use std::collections::hash_map::DefaultHasher;
use std::collections::{HashMap, HashSet};
use std::hash::{Hash as _, Hasher as _};
use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::{self, StreamExt as _};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::watcher::{self, Event, ListSemantic, watcher};
use kube::{Api, Client};
use tokio_util::sync::CancellationToken;

use super::answers::{Fault, is_gone};
use super::gone::{Missing, missing};
use super::object::Object;
use super::{Part, Watched};
use crate::config::ways::is_safe_url;
use crate::event::kubernetes::{record_gone, record_seen};
use crate::event::{Coordinates, Delivery, Format};
use crate::intake::Intake;

/// Where its records come from, beside their topic.
const CLUSTER: &str = "kubernetes";
/// Objects of one page: all that is in memory of them at once.
const PAGE: u32 = 250;
/// Records that become durable together at most.
const BATCH: usize = 256;
/// Live tasks that are read at once.
const TASKS: usize = 1_000;
/// Objects that are asked for at once.
const ASKED: usize = 8;
/// One question by name.
const ASK: Duration = Duration::from_secs(15);
/// A list that hangs is given up, and so is a connection on which not even a watch's own marks come.
const SILENCE: Duration = Duration::from_secs(300);
/// After a fault: the first wait, and the longest.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));
/// How long a journal that does not take it is waited for.
const JOURNAL: Duration = Duration::from_secs(1);

/// Watches one cluster.
pub struct Watch {
    watched: Watched,
    intake: Intake,
    settings: watcher::Config,
}

impl Watch {
    /// Nothing is asked yet.
    pub fn new(watched: Watched, intake: Intake) -> Self {
        let settings = watcher::Config::default().page_size(PAGE);
        Self { watched, intake, settings: watcher::Config { list_semantic: ListSemantic::MostRecent, ..settings } }
    }

    /// Watches until it is told to end.
    pub async fn run(&self, cancel: CancellationToken) {
        let parts = self.watched.parts();
        for part in &parts {
            self.listed(part, 0);
        }
        let rounds = parts.iter().map(|part| self.rounds(part));
        tokio::select! {
            _ = futures::future::join_all(rounds) => {}
            () = cancel.cancelled() => {}
        }
        // Who leads now says how old the lists are.
        for part in &parts {
            self.intake.metrics.kubernetes_left(&self.watched.cluster, part.sort.as_str(), part.place());
        }
    }

    async fn rounds(&self, part: &Part) {
        let (mut wait, mut said) = (BACKOFF.0, HashMap::new());
        let mut last = None;
        loop {
            let listed = &mut false;
            let ended = self.round(part, &mut said, listed).await;
            if *listed {
                (wait, last) = (BACKOFF.0, None);
            }
            let Err(fault) = ended else { continue };
            // Once for each fault, not for each try.
            if last.replace(fault) == Some(fault) || fault == Fault::TooOld {
                tracing::debug!(cluster = self.watched.cluster, kind = part.sort.kind(), %fault, "the watch begins anew");
            } else {
                self.complain(part, fault, "the watch begins anew");
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(BACKOFF.1);
        }
    }

    fn complain(&self, part: &Part, fault: Fault, what: &str) {
        if let Some(alarm) = fault.alarm() {
            self.intake.metrics.alarm(alarm);
        }
        let (kind, namespace) = (part.sort.kind(), part.place());
        tracing::warn!(cluster = self.watched.cluster, kind, namespace, %fault, "{what}");
    }

    /// One list, and what happens until the next one is due. `said`: what was recorded of each object last.
    async fn round(&self, part: &Part, said: &mut HashMap<String, u64>, done: &mut bool) -> Result<(), Fault> {
        let client = self.open().await?;
        self.identify(&client).await?;
        let settings = watcher::Config { label_selector: part.selector.clone(), ..self.settings.clone() };
        let mut seen = pin!(watcher(api(&client, part), settings).ready_chunks(BATCH));
        let mut listed = None;
        let mut again = pin!(tokio::time::sleep(Duration::from_millis(self.watched.resync_ms.unsigned_abs())));
        loop {
            let some = tokio::select! {
                some = seen.next() => some.unwrap_or_default(),
                // A list that takes long is not begun anew for that.
                () = &mut again, if listed.is_none() && *done => return Ok(()),
            };
            let (mut records, mut left, mut fault) = (Vec::new(), Vec::new(), None);
            for one in some {
                match one {
                    Ok(Event::Init) => listed = Some(HashSet::new()),
                    Ok(Event::InitApply(object)) => {
                        if let Some(listed) = &mut listed {
                            listed.insert(object.kept.uid.clone());
                        }
                        records.extend(news(said, part, &object));
                    }
                    Ok(Event::Apply(object)) => records.extend(news(said, part, &object)),
                    // By a selector, what is not chosen any more looks as if it were deleted.
                    Ok(Event::Delete(object)) if part.selector.is_some() => left.push(object),
                    Ok(Event::Delete(object)) => records.push(deleted(part, &object)),
                    Ok(Event::InitDone) => {
                        self.record(std::mem::take(&mut records), said).await;
                        let Some(listed) = listed.take() else { continue };
                        said.retain(|uid, _| listed.contains(uid));
                        let at_ms = self.intake.clock.wall_ms();
                        match self.compare(&client, part, &listed).await {
                            Ok(()) => self.listed(part, at_ms),
                            Err(fault @ Fault::OtherCluster) => return Err(fault),
                            // What is there is watched all the same.
                            Err(fault) => self.complain(part, fault, "what is gone is not known yet"),
                        }
                        *done = true;
                    }
                    Err(error) => {
                        fault = Some(Fault::from(&error));
                        break;
                    }
                }
            }
            self.record(records, said).await;
            if !left.is_empty()
                && let Err(fault) = self.who_left(&client, part, left, said).await
            {
                // The next list does not show them.
                self.complain(part, fault, "what left is asked for again with the next list");
            }
            if let Some(fault) = fault {
                return Err(fault);
            }
        }
    }

    /// Of what a selector does not show any more, what is deleted; the rest is as it says.
    async fn who_left(
        &self,
        client: &Client,
        part: &Part,
        left: Vec<Object>,
        said: &mut HashMap<String, u64>,
    ) -> Result<(), Fault> {
        let mut records = Vec::new();
        for object in left {
            let missing = Missing {
                sort: part.sort,
                namespace: object.kept.namespace.clone(),
                name: object.kept.name.clone(),
                uid: object.kept.uid.clone(),
                attempt: 1,
            };
            records.push(match self.ask(client, &missing).await? {
                Some(there) => (missing.uid, record_seen(part.sort, &there.kept, false)),
                None => deleted(part, &object),
            });
        }
        self.identify(client).await?;
        self.record(records, said).await;
        Ok(())
    }

    /// Makes them durable, however long that takes: the watch waits meanwhile.
    async fn record(&self, records: Vec<(String, Bytes)>, said: &mut HashMap<String, u64>) {
        if records.is_empty() {
            return;
        }
        let at = Coordinates { cluster: CLUSTER.into(), topic: self.watched.topic.clone(), partition: -1, offset: -1 };
        let source = Bytes::from(self.watched.source());
        let delivery = |(_, payload): &(String, Bytes)| Delivery {
            at: at.clone(),
            tenant: self.watched.tenant.clone(),
            format: Format::Kubernetes,
            broker_ms: self.intake.clock.wall_ms(),
            headers: vec![("ce_source".to_owned(), Some(source.clone()))],
            payload: Some(payload.clone()),
        };
        let deliveries: Vec<Delivery> = records.iter().map(delivery).collect();
        while let Err(error) = self.intake.record(&deliveries, Vec::new()).await {
            tracing::warn!(%error, cluster = self.watched.cluster, "what was seen is not recorded yet");
            tokio::time::sleep(JOURNAL).await;
        }
        said.extend(records.into_iter().map(|(uid, record)| (uid, hash(&record))));
    }

    /// Asks for each live run that a complete list does not show. What the cluster clearly says is not there is over.
    async fn compare(&self, client: &Client, part: &Part, listed: &HashSet<String>) -> Result<(), Fault> {
        let missed = self.intake.rules.heartbeats_missed;
        let (mut after, mut records) = (None, Vec::new());
        loop {
            let page = self.intake.journal.due(i64::MAX, missed, after, TASKS).await.map_err(|_| Fault::Journal)?;
            let ask = missing(page.iter().map(|due| &due.task), &self.watched, part, listed);
            let answers = ask.into_iter().map(|missing| self.gone_or_seen(client, missing));
            let answers: Vec<_> = stream::iter(answers).buffer_unordered(ASKED).collect().await;
            for answer in answers {
                records.push(answer?);
            }
            let Some(last) = page.into_iter().next_back() else { break };
            after = Some(last.at);
        }
        if records.is_empty() {
            return Ok(());
        }
        // Whoever answered is still the one that is meant.
        self.identify(client).await?;
        let kind = part.sort.kind();
        tracing::info!(
            cluster = self.watched.cluster,
            kind,
            runs = records.len(),
            "asked for what was not in the list"
        );
        self.record(records, &mut HashMap::new()).await;
        Ok(())
    }

    async fn gone_or_seen(&self, client: &Client, it: Missing) -> Result<(String, Bytes), Fault> {
        let record = match self.ask(client, &it).await? {
            Some(there) => record_seen(it.sort, &there.kept, false),
            None => record_gone(it.sort, &it.namespace, &it.name, &it.uid, it.attempt),
        };
        Ok((it.uid, record))
    }

    /// The object itself; `None`: it is not there, as the cluster clearly says, or another one has its name.
    async fn ask(&self, client: &Client, it: &Missing) -> Result<Option<Object>, Fault> {
        let api: Api<Object> = Api::namespaced_with(client.clone(), &it.namespace, &it.sort);
        match tokio::time::timeout(ASK, api.get(&it.name)).await.map_err(|_| Fault::Silent)? {
            Ok(object) => Ok(Some(object).filter(|object| object.kept.uid == it.uid)),
            Err(error) if is_gone(&error, it) => Ok(None),
            Err(error) => Err(Fault::from(&error)),
        }
    }

    /// The login is read anew for each round: it may have been changed.
    async fn open(&self) -> Result<Client, Fault> {
        let config = match &self.watched.kubeconfig {
            None => kube::Config::incluster().map_err(|_| Fault::Config)?,
            Some(file) => {
                let options = KubeConfigOptions { context: self.watched.context.clone(), ..Default::default() };
                let written = Kubeconfig::read_from(file).map_err(|_| Fault::Config)?;
                kube::Config::from_custom_kubeconfig(written, &options).await.map_err(|_| Fault::Config)?
            }
        };
        if config.accept_invalid_certs || !is_safe_url(&config.cluster_url.to_string()) {
            return Err(Fault::Unsafe);
        }
        let mut config = config;
        config.read_timeout = Some(SILENCE);
        Client::try_from(config).map_err(|error| Fault::from(&error))
    }

    /// A kubeconfig may point elsewhere than it did: then nothing is read, and nothing is concluded.
    async fn identify(&self, client: &Client) -> Result<(), Fault> {
        let request = axum::http::Request::get("/api/v1/namespaces/kube-system").body(Vec::new());
        let request = request.map_err(|_| Fault::Config)?;
        let answer = tokio::time::timeout(ASK, client.request_text(request)).await.map_err(|_| Fault::Silent)?;
        let text = answer.map_err(|error| Fault::from(&error))?;
        let system: System = serde_json::from_str(&text).map_err(|_| Fault::Foreign)?;
        if system.metadata.uid.eq_ignore_ascii_case(&self.watched.uid) { Ok(()) } else { Err(Fault::OtherCluster) }
    }

    fn listed(&self, part: &Part, at_ms: i64) {
        let (cluster, kind) = (&self.watched.cluster, part.sort.as_str());
        self.intake.metrics.kubernetes_listed(cluster, kind, part.place(), at_ms);
    }
}

/// What is read of the namespace `kube-system`.
#[derive(serde::Deserialize)]
struct System {
    metadata: About,
}

#[derive(serde::Deserialize)]
struct About {
    uid: String,
}

fn api(client: &Client, part: &Part) -> Api<Object> {
    match &part.namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &part.sort),
        None => Api::all_with(client.clone(), &part.sort),
    }
}

/// A record of `object`, where it says something else than it did.
fn news(said: &HashMap<String, u64>, part: &Part, object: &Object) -> Option<(String, Bytes)> {
    let record = record_seen(part.sort, &object.kept, false);
    (said.get(&object.kept.uid) != Some(&hash(&record))).then(|| (object.kept.uid.clone(), record))
}

fn deleted(part: &Part, object: &Object) -> (String, Bytes) {
    (object.kept.uid.clone(), record_seen(part.sort, &object.kept, true))
}

fn hash(record: &Bytes) -> u64 {
    let mut hasher = DefaultHasher::new();
    record.hash(&mut hasher);
    hasher.finish()
}

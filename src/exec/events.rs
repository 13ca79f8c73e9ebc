//! What Curfew is told of the task. PURE: the same run says the same events under the same ids.

use jiff::Timestamp;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::times::Times;
use crate::credential::CredentialId;
use crate::task::{Boundary, RunKey};
use crate::tell::Message;

/// The longest run id, in bytes: what is made of it stays below the limit of a key.
const LONGEST: usize = 400;

/// One run of a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// Who speaks for it.
    pub source: String,
    /// Its id there.
    pub id: String,
    /// Which try, from 1.
    pub attempt: u32,
    /// What is run.
    pub task: String,
    /// Who runs it.
    pub identity: Option<String>,
    /// What its credentials are for.
    pub boundary: Option<Boundary>,
}

/// What a run holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// The credential.
    pub credential: CredentialId,
    /// The user name at the system behind.
    pub principal: Option<String>,
    /// When it dies by itself.
    pub expires_ms: i64,
}

impl Run {
    /// Whether names and ids are such that Curfew takes them.
    ///
    /// # Errors
    /// What to change.
    pub fn check(&self) -> Result<(), String> {
        let texts = [("--run", &self.id), ("--source", &self.source), ("--task", &self.task)];
        for (name, text) in texts.into_iter().chain(self.identity.as_ref().map(|text| ("--identity", text))) {
            if text.is_empty() || text.len() > LONGEST || text.chars().any(char::is_control) {
                return Err(format!("{name} is 1 to {LONGEST} bytes, without control characters"));
            }
        }
        if self.source == "/curfew" || self.source.starts_with("/curfew/") {
            return Err("--source: /curfew, and what lies below, is Curfew's own".to_owned());
        }
        Ok(())
    }

    /// What it is called everywhere.
    pub fn key(&self) -> RunKey {
        RunKey::new(&self.source, &self.id)
    }

    /// It began.
    pub fn started(&self, times: &Times, heartbeat_ms: Option<i64>) -> Message {
        let mut data = self.data();
        data.insert("task".to_owned(), self.task.as_str().into());
        data.insert("started_at".to_owned(), time(times.started_ms));
        data.insert("deadline".to_owned(), time(times.deadline_ms));
        if let Some(boundary) = &self.boundary {
            data.insert("boundary".to_owned(), json!(boundary));
        }
        if let Some(identity) = &self.identity {
            data.insert("workload_id".to_owned(), identity.as_str().into());
        }
        if let Some(every_ms) = heartbeat_ms {
            data.insert("heartbeat_interval_ms".to_owned(), every_ms.into());
        }
        self.event("task.started", "started", data)
    }

    /// It lives, for the `nth` time.
    pub fn heartbeat(&self, nth: u64) -> Message {
        let mut data = self.data();
        data.remove("attempt");
        self.event("task.heartbeat", &format!("beat:{nth}"), data)
    }

    /// It holds its `nth` credential.
    pub fn granted(&self, nth: usize, held: &Held) -> Message {
        let mut data = self.data();
        data.extend(grant(held));
        self.event("grant.registered", &format!("grant:{nth}"), data)
    }

    /// It is over: what it held dies.
    pub fn ended(&self, ended_ms: i64, outcome: &str, held: &[Held]) -> Message {
        let mut data = self.data();
        data.insert("task".to_owned(), self.task.as_str().into());
        data.insert("ended_at".to_owned(), time(ended_ms));
        data.insert("outcome".to_owned(), outcome.into());
        data.insert("grants".to_owned(), held.iter().map(|one| Value::Object(grant(one))).collect());
        self.event("task.ended", "ended", data)
    }

    fn data(&self) -> Map<String, Value> {
        let run = ("run_id".to_owned(), self.id.as_str().into());
        [run, ("attempt".to_owned(), self.attempt.into())].into_iter().collect()
    }

    fn event(&self, kind: &str, what: &str, data: Map<String, Value>) -> Message {
        let key = self.key().to_string();
        let event = json!({
            "specversion": "1.0", "type": format!("dev.curfew.{kind}.v1"), "source": self.source,
            "id": format!("{}:{}:{what}", self.id, self.attempt), "subject": key,
            "datacontenttype": "application/json", "data": data,
        });
        Message { key, body: event.to_string().into_bytes() }
    }
}

fn grant(held: &Held) -> Map<String, Value> {
    let mut grant = Map::new();
    grant.insert("cred_id".to_owned(), held.credential.as_str().into());
    grant.insert("tenure".to_owned(), "minted".into());
    grant.insert("expires_at".to_owned(), time(held.expires_ms));
    if let Some(principal) = &held.principal {
        grant.insert("principal".to_owned(), principal.as_str().into());
    }
    grant
}

/// RFC 3339.
pub fn text_of(ms: i64) -> String {
    Timestamp::from_millisecond(ms).unwrap_or(Timestamp::MAX).to_string()
}

fn time(ms: i64) -> Value {
    text_of(ms).into()
}

/// The run's id where nobody names it: which job of which scheduler this is, and which command in it, since one job may
/// run several. `variable` reads the environment.
pub fn usual_id(variable: impl Fn(&str) -> Option<String>, fresh: Uuid) -> String {
    let known: [(&str, &[&str]); 8] = [
        ("github", &["GITHUB_RUN_ID", "GITHUB_RUN_ATTEMPT", "GITHUB_JOB"]),
        ("gitlab", &["CI_JOB_ID"]),
        ("buildkite", &["BUILDKITE_JOB_ID"]),
        ("circleci", &["CIRCLE_WORKFLOW_JOB_ID"]),
        ("jenkins", &["BUILD_TAG"]),
        ("airflow", &["AIRFLOW_CTX_DAG_ID", "AIRFLOW_CTX_DAG_RUN_ID", "AIRFLOW_CTX_TASK_ID", "AIRFLOW_CTX_TRY_NUMBER"]),
        ("nomad", &["NOMAD_ALLOC_ID", "NOMAD_TASK_NAME"]),
        ("kubernetes", &["KUBERNETES_SERVICE_HOST", "HOSTNAME"]),
    ];
    let value = |name: &&str| {
        let text = variable(name).filter(|text| !text.is_empty())?;
        Some(text.chars().filter(|c| !c.is_control()).take(64).collect::<String>())
    };
    for (scheduler, names) in known {
        let values: Vec<String> = names.iter().filter_map(value).collect();
        if values.len() == names.len() {
            // Where the cluster's address stands, only the pod's name says anything.
            let from = usize::from(scheduler == "kubernetes");
            return format!("{scheduler}/{}/{fresh}", values[from..].join("/"));
        }
    }
    fresh.to_string()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::credential::Kind;
    use crate::event::{self, Coordinates, Data, Delivery, Event};

    fn decoded(message: &Message) -> Event {
        let delivery = Delivery {
            at: Coordinates { cluster: "t".into(), topic: "t".into(), partition: -1, offset: -1 },
            tenant: "default".into(),
            format: crate::event::Format::Curfew,
            broker_ms: 1_800_000_000_000,
            headers: vec![("content-type".to_owned(), Some(Bytes::from_static(b"application/cloudevents+json")))],
            payload: Some(message.body.clone().into()),
        };
        event::decode(&delivery, &event::Limits::default()).unwrap()
    }

    proptest! {
        #[test]
        fn curfew_takes_whatever_passes_the_check(id in "\\PC{1,60}", task in "\\PC{1,20}", lease in "[!-~]{1,80}") {
            let run = Run { source: "/exec".into(), id: id.clone(), attempt: 2, task, identity: Some("spiffe://a/b".into()), boundary: None };
            prop_assume!(run.check().is_ok());
            let times = Times::new(1_800_000_000_000, std::time::Duration::from_secs(60), std::time::Duration::ZERO);
            let credential = CredentialId::new(Kind::VaultLease, "prod", &lease).unwrap();
            let held = Held { credential, principal: Some("v-1".into()), expires_ms: times.deadline_ms };
            let Data::TaskStarted(started) = decoded(&run.started(&times, Some(5_000))).data else { panic!() };
            prop_assert_eq!(&started.run, &run.key());
            prop_assert_eq!((started.attempt, started.deadline_ms), (2, Some(times.deadline_ms)));
            prop_assert_eq!(started.heartbeat_every_ms, Some(5_000));
            let Data::GrantRegistered(granted) = decoded(&run.granted(0, &held)).data else { panic!() };
            prop_assert_eq!((&granted.run, granted.attempt), (&run.key(), Some(2)));
            prop_assert_eq!(&granted.grant.credential, &held.credential);
            let Data::TaskHeartbeat(beat) = decoded(&run.heartbeat(7)).data else { panic!() };
            prop_assert_eq!(&beat.run, &run.key());
            let Data::TaskEnded(ended) = decoded(&run.ended(times.deadline_ms, "success", &[held])).data else { panic!() };
            prop_assert_eq!((&ended.run, ended.grants.len()), (&run.key(), 1));
            // Its parts can be told again.
            prop_assert_eq!(run.key().parts().map(|(source, _)| source.to_owned()), Some("/exec".to_owned()));
        }
    }

    #[test]
    fn the_scheduler_s_own_words_make_the_id() {
        let fresh = Uuid::from_u128(7);
        let of = |set: &[(&str, &str)]| {
            let set: Vec<(String, String)> = set.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
            usual_id(move |name| set.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone()), fresh)
        };
        assert_eq!(of(&[]), fresh.to_string());
        let github = of(&[("GITHUB_RUN_ID", "4711"), ("GITHUB_RUN_ATTEMPT", "2"), ("GITHUB_JOB", "build")]);
        assert_eq!(github, format!("github/4711/2/build/{fresh}"));
        assert_eq!(of(&[("CI_JOB_ID", "9\n")]), format!("gitlab/9/{fresh}"));
        let pod = of(&[("KUBERNETES_SERVICE_HOST", "10.0.0.1"), ("HOSTNAME", "etl-x1")]);
        assert_eq!(pod, format!("kubernetes/etl-x1/{fresh}"));
        assert_eq!(of(&[("GITHUB_RUN_ID", "4711")]), fresh.to_string(), "half of it is not it");
    }

    #[test]
    fn what_curfew_would_reject_is_refused_here() {
        let run = Run {
            source: "/exec".into(),
            id: "r".into(),
            attempt: 1,
            task: "t".into(),
            identity: None,
            boundary: None,
        };
        assert!(run.check().is_ok());
        assert!(Run { id: String::new(), ..run.clone() }.check().is_err());
        assert!(Run { id: "a\nb".into(), ..run.clone() }.check().is_err());
        assert!(Run { id: "x".repeat(401), ..run.clone() }.check().is_err());
        assert!(Run { source: "/curfew/x".into(), ..run }.check().is_err());
    }
}

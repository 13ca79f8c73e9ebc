//! The rules, from the configuration.

use serde::{Deserialize, Serialize};

use crate::event::is_like;
use crate::finding::{Finding, Validity};
use crate::offboard;
use crate::reach::notice::{DETECTOR, Sort, TOPIC};
use crate::task::{Credential, RunKey};

/// The rules, from the configuration. Their digest stands in each decision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Rules {
    /// The longest life of a task that names no deadline, and the limit to which any deadline is clamped.
    pub longest_life_ms: i64,
    /// Whole heartbeat intervals without a sign of life after which a task counts as silent.
    pub heartbeats_missed: u32,
    /// How far in the future a producer's times may lie before they are absurd.
    pub future_skew_ms: i64,
    /// What to do about a finding: the first that fits. None fits: [`Response::Hold`].
    pub findings: Vec<FindingRule>,
    /// Sources whose runs hold no credentials, whole or ending in `*`: that nobody names one is no news.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub without_credentials: Vec<String>,
    /// How long the fence of an offboarding stands that names no end.
    #[serde(skip_serializing_if = "is_usual")]
    pub fence_for_ms: i64,
}

fn is_usual(fence_ms: &i64) -> bool {
    *fence_ms == offboard::FENCE_MS
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            longest_life_ms: 24 * 3_600_000,
            heartbeats_missed: 3,
            future_skew_ms: 86_400_000,
            findings: FindingRule::defaults(),
            without_credentials: Vec::new(),
            fence_for_ms: offboard::FENCE_MS,
        }
    }
}

impl Rules {
    /// Whether a run is of a source whose runs hold no credentials.
    pub fn holds_nothing(&self, run: &RunKey) -> bool {
        run.parts().is_some_and(|(source, _)| self.without_credentials.iter().any(|one| is_like(source, one)))
    }

    /// SHA-256 of the rules, in hex, shortened to 16 characters.
    pub fn digest(&self) -> String {
        let text = serde_json::to_vec(self).expect("rules are plain numbers");
        hex::encode(&aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &text).as_ref()[..8])
    }
}

/// What to do about a finding that is matched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Response {
    /// It is recorded, and nothing follows.
    Ignore,
    /// A case waits for a person.
    Hold,
    /// Look whether it is dead.
    Verify,
    /// Take from its identity what the finding says is too much. Where it says nothing, a case waits for a person.
    Reduce,
    /// End it for good, as nobody uses it.
    Retire,
    /// Rotate it, the new value first.
    Rollover,
    /// Give each of those that share it one of its own. Where nobody said who they are, a case waits for a person.
    Split,
    /// The old value first, at once.
    Contain,
}

/// When a rule fits, and what follows. What is left out fits anything.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct When {
    /// What a check of the secret said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub validity: Option<Validity>,
    /// Whether the public can see it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub public: Option<bool>,
    /// The credential's environment, such as `prod`; one of these.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub environment: Option<Vec<String>>,
    /// The scanner's severity; one of these.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub severity: Option<Vec<String>>,
    /// The detector's name; one of these.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detector: Option<Vec<String>>,
    /// It was first seen at least so long ago.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub older_than_ms: Option<i64>,
}

/// One rule for findings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FindingRule {
    /// When it fits.
    #[serde(default)]
    pub when: When,
    /// What follows.
    pub then: Response,
    /// How long whoever answers for it has to say no, before anything is done.
    #[serde(default, skip_serializing_if = "is_none")]
    pub notice_ms: i64,
}

fn is_none(ms: &i64) -> bool {
    *ms == 0
}

impl FindingRule {
    /// A rule, without notice.
    pub fn new(when: When, then: Response) -> Self {
        Self { when, then, notice_ms: 0 }
    }

    /// Known to be inactive: looked at. Known to work, or visible to all: contained. All else: rolled over.
    pub fn defaults() -> Vec<Self> {
        let when = |validity, public| When { validity, public, ..When::default() };
        vec![
            Self::new(when(Some(Validity::Inactive), None), Response::Verify),
            Self::new(when(Some(Validity::Active), None), Response::Contain),
            Self::new(when(None, Some(true)), Response::Contain),
            Self::new(When::default(), Response::Rollover),
        ]
    }

    fn fits(&self, finding: &Finding, credential: Option<&Credential>, now_ms: i64) -> bool {
        let When { validity, public, environment, severity, detector, older_than_ms } = &self.when;
        let one_of = |all: &Option<Vec<String>>, one: Option<&str>| {
            all.as_ref().is_none_or(|all| one.is_some_and(|one| all.iter().any(|each| each == one)))
        };
        // What Curfew finds in reach is no leak: nothing is done about it but what a rule says of it by name.
        let is_own = finding.detector.split_once(':').is_some_and(|(by, _)| by == DETECTOR);
        (detector.is_some() || !is_own)
            && validity.is_none_or(|wanted| wanted == finding.validity)
            && public.is_none_or(|wanted| wanted == finding.public)
            && one_of(environment, credential.and_then(|credential| credential.environment.as_deref()))
            && one_of(severity, finding.severity.as_deref())
            && one_of(detector, Some(finding.detector.as_str()))
            && older_than_ms.is_none_or(|least| now_ms.saturating_sub(finding.first_ms) >= least)
    }
}

impl Rules {
    /// How long after a finding the rule with this number takes anything.
    pub fn notice_ms(&self, rule: usize) -> i64 {
        rule.checked_sub(1).and_then(|at| self.findings.get(at)).map_or(0, |rule| rule.notice_ms)
    }

    /// What the rules say about a finding of this credential, and the number of the rule, from 1; 0: none fits. Then a person
    /// decides; but what belongs to somebody who leaves is retired.
    pub fn response(&self, finding: &Finding, credential: Option<&Credential>, now_ms: i64) -> (Response, usize) {
        let fits = self.findings.iter().position(|rule| rule.fits(finding, credential, now_ms));
        let at = |n: usize| self.findings.get(n).map(|rule| (rule.then, n + 1));
        // That somebody leaves was said to have this done.
        let leaves = finding.topic == TOPIC && finding.detector == Sort::Offboarded.detector();
        fits.and_then(at).unwrap_or((if leaves { Response::Retire } else { Response::Hold }, 0))
    }
}

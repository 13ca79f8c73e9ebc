//! The canary: what it mints, where it tells of it, and what must hold so that it can die.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_saphyr::Spanned;

use super::check::Checks;
use super::file::{Millis, unplaced};
use super::problem::{Problem, said};
use super::{Canary, Http, Kafka, Realm, Topic, rotations};
use crate::case::Action;
use crate::guard::Mode;

/// `canary`
#[derive(Debug, Clone, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Canaries {
    /// The realm in which it mints.
    pub realm: Spanned<String>,
    /// Holds the token by which it mints: an orphan and periodic one with the policy `deploy/vault/canary.hcl`.
    pub token_file: PathBuf,
    /// A path that gives a lease which may do nothing, such as `database/creds/canary`.
    pub role: Spanned<String>,
    /// The topic whose authority its task has; absent: `curfew.tasks`, or without Kafka the topic of `http`.
    #[serde(default)]
    pub topic: Option<Spanned<String>>,
    /// In whose name it speaks there.
    #[serde(default = "source")]
    pub source: String,
    /// How often.
    #[serde(default = "often")]
    pub every: Spanned<Millis>,
    /// How long it may take.
    #[serde(default = "patience")]
    pub within: Spanned<Millis>,
}

/// When `CurfewCanaryOverdue` (30 minutes) would be about to fire with canaries that all die.
const ALERT_MS: i64 = 25 * 60_000;

fn source() -> String {
    "/canary".to_owned()
}

fn often() -> Spanned<Millis> {
    unplaced(Millis(300_000))
}

fn patience() -> Spanned<Millis> {
    unplaced(Millis(120_000))
}

/// What is minted, and how it is told.
pub(super) fn canary(
    c: &mut Checks<'_>,
    raw: Option<&Spanned<Canaries>>,
    realms: &[Realm],
    topics: &BTreeMap<String, Topic>,
    ways: (Option<&Kafka>, Option<&Http>),
) -> Option<Canary> {
    let Spanned { value: raw, referenced: at, .. } = raw?;
    rotations::known_realm(c, &raw.realm, realms);
    let realm = realms.iter().find(|known| known.rules.name == raw.realm.value)?;
    let role = raw.role.value.trim_matches('/');
    let lease = format!("{role}/");
    if !realm.rules.allowed_prefixes.iter().any(|prefix| lease.starts_with(prefix.as_str())) {
        let problem = Problem::new(raw.role.referenced, format!("leases of {} may not be revoked", said(role)));
        c.problems.push(problem.help("name its prefix in the realm's `allowed_prefixes`"));
    }
    if realm.rules.mode != Mode::Enforce {
        c.warnings.push(format!("canary: realm {} only observes, so no canary will die", said(&raw.realm.value)));
    }
    let usual = ways.0.map_or_else(|| ways.1.map(|http| http.topic.clone()), |_| Some("curfew.tasks".to_owned()));
    let named = raw.topic.as_ref().map(|topic| (topic.value.clone(), topic.referenced));
    let Some((topic, place)) = named.or_else(|| usual.map(|topic| (topic, *at))) else {
        c.wrong(*at, "a canary tells of its task through Kafka, or the intake over HTTP: there is neither");
        return None;
    };
    match topics.get(&topic) {
        None => {
            let problem = Problem::new(place, format!("there is no topic {}", said(&topic)));
            c.problems.push(problem.nearest(&topic, topics.keys().map(String::as_str)));
        }
        Some(known) if known.authority.strongest < Action::Revoke || !known.authority.kinds.contains("vault-lease") => {
            c.wrong(
                place,
                format!("nothing of topic {} may revoke a `vault-lease`: no canary would die", said(&topic)),
            );
        }
        Some(_) => {}
    }
    if ways.0.is_none() && ways.1.is_some_and(|http| http.topic != topic) {
        c.wrong(place, "without Kafka the topic is the one of `http`: leave `topic` out");
    }
    if raw.within.value.0 < 1_000 || raw.every.value.0 < 1_000 {
        c.wrong(raw.every.referenced, "`every` and `within` are at least 1s");
    }
    if raw.every.value.0.saturating_add(raw.within.value.0) > ALERT_MS {
        c.warnings.push(
            "canary: `every` and `within` are more than 25m together: change the alert CurfewCanaryOverdue as well, or it \
             fires while all is well"
                .to_owned(),
        );
    }
    Some(Canary {
        realm: raw.realm.value.clone(),
        token_file: c.path(&raw.token_file),
        role: role.to_owned(),
        tenant: topics.get(&topic).map(|topic| topic.tenant.clone())?,
        topic,
        source: raw.source.clone(),
        every_ms: raw.every.value.0,
        within_ms: raw.within.value.0,
    })
}

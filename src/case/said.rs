//! What stands in a case, in words for people: of commands and of the status page. PURE.

use jiff::Timestamp;

use super::plan::{Act, Agent, Plan, Step};
use super::record::{Level, Observation, Record, UnknownWhy, Verdict};
use super::state::State;
use crate::scope::{Move, Permission};

/// A moment, in UTC.
pub fn time(ms: i64) -> String {
    Timestamp::from_millisecond(ms).map_or_else(|_| "?".to_owned(), |at| format!("{at:.3}"))
}

/// A span of time, short.
pub fn span(ms: i64) -> String {
    let (sign, ms) = if ms < 0 { ("-", ms.saturating_neg()) } else { ("", ms) };
    match ms {
        0..1_000 => format!("{sign}{ms}ms"),
        1_000..60_000 => format!("{sign}{}.{}s", ms / 1_000, ms % 1_000 / 100),
        60_000..3_600_000 => format!("{sign}{}m{:02}s", ms / 60_000, ms % 60_000 / 1_000),
        3_600_000..86_400_000 => format!("{sign}{}h{:02}m", ms / 3_600_000, ms % 3_600_000 / 60_000),
        _ => format!("{sign}{}d{:02}h", ms / 86_400_000, ms % 86_400_000 / 3_600_000),
    }
}

/// P8's one sentence.
pub fn verdict(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Dead { level, residue, .. } => {
            let level = if *level == Level::Target { "target" } else { "issuer" };
            let rest: Vec<String> = residue.iter().map(word).collect();
            if rest.is_empty() { format!("dead ({level})") } else { format!("dead ({level}; {})", rest.join(", ")) }
        }
        Verdict::Reduced { taken, residue, .. } => {
            let rest: String = residue.iter().map(|one| format!("; {}", word(one))).collect();
            format!("reduced ({taken} taken{rest})")
        }
        Verdict::DiesAt { at_ms } => format!("dies at {}", time(*at_ms)),
        Verdict::Alive { by } => format!("alive ({})", by.as_str()),
        Verdict::Unknown { why: UnknownWhy::Held(by) } => format!("unknown (held: {})", by.as_str()),
        Verdict::Unknown { why } => format!("unknown ({})", word(why)),
        other => other.as_str().to_owned(),
    }
}

/// A step: what, by which connector, where.
pub fn step(step: &Step) -> String {
    let place = step.place.as_ref().map(|place| format!(" {place}")).unwrap_or_default();
    let agent = step.agent.as_ref().map(|agent| format!(" for {}", agent.name)).unwrap_or_default();
    format!("{} {}@{}{place}{agent}", step.act.as_str(), step.connector, step.system)
}

/// Where a case stands; of a split also whose turn it is.
pub fn state(state: &State) -> String {
    turn(state).map_or_else(|| state.name().to_owned(), |turn| format!("{} ({turn})", state.name()))
}

/// Of a split that goes on: whose turn it is.
pub fn turn(state: &State) -> Option<String> {
    let agent = state.current().filter(|_| !state.is_closed())?.agent.as_ref()?;
    let mut all: Vec<&Agent> =
        state.plan.iter().flat_map(|plan| &plan.steps).filter_map(|s| s.agent.as_ref()).collect();
    all.dedup();
    let place = all.iter().position(|one| *one == agent)?;
    // A plan that undoes is about one of them.
    let of = if all.len() > 1 { format!(", {} of {}", place + 1, all.len()) } else { String::new() };
    Some(format!("{}{of}", agent.name))
}

/// What a record says besides its name; `plan` is the one that was followed when it was made.
pub fn record(record: &Record, plan: Option<&Plan>) -> String {
    let at = |index: &usize| {
        plan.and_then(|plan| plan.steps.get(*index)).map_or_else(|| format!("step {index}"), self::step)
    };
    match record {
        Record::Opened { directive } | Record::Joined { directive } | Record::Superseded { by: directive } => {
            let held = directive.held.map(|why| format!(", held: {}", why.as_str())).unwrap_or_default();
            let of = directive.cut.as_ref().filter(|cut| !cut.permissions.is_empty()).map(|cut| {
                let all: Vec<&str> = cut.permissions.iter().map(Permission::as_str).collect();
                format!(": {}", all.join(", "))
            });
            let of = of.or_else(|| {
                let of = |one: &Move| match &one.at_most {
                    Some(most) => format!("{} ({} permissions at most)", one.agent, most.len()),
                    None => one.agent.clone(),
                };
                directive.moves().map(|moves| format!(": {}", moves.iter().map(of).collect::<Vec<_>>().join(", ")))
            });
            let from = directive.not_before_ms.map(|ms| format!(", not before {}", time(ms)));
            let more = of.into_iter().chain(from).collect::<String>();
            format!("{} by {}{more}{held}", directive.action.as_str(), directive.trigger.as_str())
        }
        Record::Planned { no, plan } => format!("plan {no}, {} steps", plan.steps.len()),
        Record::Observed { step, seen: Observation { derived: Some(derived), .. } } => {
            let others = derived.roles.iter().map(|role| format!("{} ({} others)", role.name, role.others));
            let named: Vec<String> = others.collect();
            let rest = if derived.whole { "" } else { ", and what is not known" };
            format!("{}: {} roles{rest} {}", at(step), derived.roles.len() + derived.more as usize, named.join(", "))
        }
        Record::Observed { step, seen } => match &seen.scope {
            None => format!("{}: {}", at(step), word(&seen.presence)),
            Some(scope) if scope.held.is_empty() => format!("{}: it has none of them", at(step)),
            Some(scope) => {
                let held: Vec<&str> = scope.held.iter().map(|held| held.permission.as_str()).collect();
                format!("{}: it has {}; and {} others that stay", at(step), held.join(", "), scope.rest_count)
            }
        },
        Record::Started { step, attempt, .. } => format!("{}, attempt {attempt}", at(step)),
        Record::Succeeded { step, output } => match output.derived {
            0 => at(step),
            given if plan.is_some_and(|plan| plan.steps.get(*step).is_some_and(|s| s.act == Act::Provision)) => {
                format!("{}, with {given} permissions", at(step))
            }
            derived => format!("{}, and {derived} derived from it", at(step)),
        },
        Record::Failed { step, failure, note, .. } => format!("{}: {}: {note}", at(step), failure.as_str()),
        Record::Skipped { step, residue: Some(left) } => format!("{}, leaves {}", at(step), word(left)),
        Record::Skipped { step, .. } | Record::Passed { step, .. } => at(step),
        Record::Proven { step, verdict } => format!("{}: {}", at(step), self::verdict(verdict)),
        Record::Answered { consumer, version, failed, .. } => {
            let what = if *failed { "cannot work with" } else { "has" };
            format!("{consumer} {what} version {version}")
        }
        Record::Kept { by, reason, until_ms } => format!("by {by} until {}: {reason}", time(*until_ms)),
        Record::Withdrawn { by } => format!("by {by}"),
        Record::Spared { permissions, by } => {
            let all: Vec<&str> = permissions.iter().map(Permission::as_str).collect();
            format!("{} by {by}", all.join(", "))
        }
        Record::Sighted { step, sighting } => {
            format!("{}: {} at level {}", at(step), word(&sighting.answer), word(&sighting.level))
        }
        Record::Held { reason } => reason.as_str().to_owned(),
        Record::Resumed { by } => format!("by {by}"),
        Record::Abandoned { by, reason } => format!("by {by}: {reason}"),
        Record::Closed { verdict } => self::verdict(verdict),
    }
}

/// The word that stands for it in the journal.
pub fn word<T: serde::Serialize>(of: &T) -> String {
    serde_json::to_value(of).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::case::record::Residue;

    #[test]
    fn spans_and_words_are_short() {
        let spans: Vec<String> = [-5, 999, 1_500, 61_000, 3_660_000, 90_000_000].into_iter().map(span).collect();
        assert_eq!(spans, ["-5ms", "999ms", "1.5s", "1m01s", "1h01m", "1d01h"]);
        assert_eq!(word(&Residue::DerivedUnknown), "derived_unknown");
        assert_eq!(word(&UnknownWhy::InDoubt), "in_doubt");
    }
}

//! The history against each promise. Pure: it reads a [`History`] and says what was checked and what is broken.

use std::collections::{BTreeMap, BTreeSet};

use aho_corasick::AhoCorasick;
use curfew::case::record::{Answer as Sighted, Level, Record, Verdict};
use curfew::case::state::{Phase, State};
use serde_json::Value;
use uuid::Uuid;

use super::history::{Answer, Asked, CaseRow, Claim, Credential, History, Look, What, When};
use super::report::{Line, Report};
use super::stood;

/// Checks all.
pub fn check(h: &History) -> Report {
    Report(vec![
        conservation(h),
        curfew(h),
        proof(h),
        crash_safe(h),
        no_secrets(h),
        exact_target(h),
        bounded(h),
        honest_state(h),
    ])
}

fn messages(h: &History) -> Vec<Value> {
    h.published.iter().map(|body| serde_json::from_slice(body).unwrap_or(Value::Null)).collect()
}

/// P1: each event once, each case at most one end, told once or more with the same bytes; the sums add up.
fn conservation(h: &History) -> Line {
    let mut line = Line::of("P1 conservation");
    let journal = &h.journal;
    let mut recorded: BTreeMap<&str, usize> = BTreeMap::new();
    journal.events.iter().for_each(|id| *recorded.entry(id).or_default() += 1);
    let of = |what: What| h.sent.iter().filter(move |sent| sent.what == what);
    for sent in of(What::Event) {
        let times = recorded.remove(&*sent.id).unwrap_or(0);
        line.must(times == 1, || format!("{} was produced and recorded {times} times", sent.id));
    }
    for id in recorded.keys() {
        line.broken.push(format!("{id} was recorded and never produced"));
    }
    line.counted(of(What::Event).count(), "events");

    let messages = messages(h);
    let told = |kind: &str| messages.iter().filter(move |m| m["type"] == kind).collect::<Vec<_>>();
    let places = |m: &&Value| (m["data"]["partition"].as_i64(), m["data"]["offset"].as_i64());
    let rejected: BTreeSet<_> = told("dev.curfew.rejected.v1").iter().map(places).collect();
    let poison: BTreeSet<_> = of(What::Poison).map(|s| (Some(i64::from(s.partition)), Some(s.offset))).collect();
    line.must(rejected == poison, || format!("rejected are {rejected:?}, and poison was sent to {poison:?}"));
    line.counted(poison.len(), "rejects");

    let (c, repeats) = (journal.counters, of(What::Repeat).count());
    let count = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
    let open_events = c.accepted - c.closed;
    let closed_cases = journal.cases.iter().filter(|row| row.closed_ms.is_some()).count();
    line.must(c.consumed == c.accepted + c.rejected + c.duplicates, || format!("consumed does not add up: {c:?}"));
    line.must(c.accepted == count(journal.events.len() + journal.own_events), || format!("accepted: {c:?}"));
    line.must(open_events >= 0 && (open_events > 0) == (closed_cases < journal.cases.len()), || {
        format!("accepted = closed + open does not hold: {c:?}")
    });
    line.must(c.rejected == count(poison.len()), || format!("rejected: {c:?}"));
    line.must(c.duplicates >= count(repeats), || format!("{repeats} repeats were sent: {c:?}"));
    line.must(c.cases_opened == count(journal.cases.len()) && c.cases_closed == count(closed_cases), || {
        format!("{} cases, {closed_cases} closed: {c:?}", journal.cases.len())
    });
    for id in &journal.miscounted {
        line.broken.push(format!("{id}: its open cases are counted wrong"));
    }

    let mut bodies: BTreeMap<String, &[u8]> = BTreeMap::new();
    for (message, body) in messages.iter().zip(&h.published) {
        let key = format!("{} {}", message["source"], message["id"]);
        let same = *bodies.entry(key.clone()).or_insert(body) == body;
        line.must(same, || format!("{key} was published with two contents"));
    }
    let outcomes: BTreeSet<&str> = told("dev.curfew.outcome.v1").iter().filter_map(|m| m["id"].as_str()).collect();
    for row in &journal.cases {
        let id = row.case.id.to_string();
        let records: Vec<&Record> = row.records.iter().flat_map(|(_, _, records)| records).collect();
        let ends = records.iter().filter(|r| matches!(r, Record::Closed { .. })).count();
        line.must(ends <= 1, || format!("case {id} closed {ends} times"));
        line.must((ends == 1) == row.closed_ms.is_some(), || format!("case {id}: row and records differ"));
        line.must(outcomes.contains(&*id) == (ends == 1), || format!("case {id} closed {ends} times and its outcome"));
        let folded = State::fold(records).ok();
        line.must(folded.as_ref() == Some(&row.case.state), || format!("case {id} is not the fold of its records"));
    }
    line.counted(closed_cases, "outcomes");
    chain(h, &messages, &mut line);
    line
}

/// The numbers have no gap, and each message names the hash of the one before.
fn chain(h: &History, messages: &[Value], line: &mut Line) {
    let mut links: BTreeMap<i64, (&Value, &Vec<u8>)> = BTreeMap::new();
    for (message, body) in messages.iter().zip(&h.published) {
        let number = message["sequence"].as_str().and_then(|text| text.parse().ok());
        line.must(number.is_some(), || format!("a message without a number: {message}"));
        links.insert(number.unwrap_or(-1), (message, body));
    }
    let mut prev: Option<String> = None;
    for (expected, (number, (message, body))) in (1..).zip(&links) {
        line.must(expected == *number, || format!("number {expected} was never published; next is {number}"));
        line.must(message["prev"].as_str() == prev.as_deref(), || format!("the chain breaks at number {number}"));
        prev = Some(hex::encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, body)));
        if expected != *number {
            break;
        }
    }
    let (written, sent) = h.journal.outbox;
    line.must(written == sent && links.last_key_value().map_or(0, |(n, _)| *n) == written, || {
        format!("{written} messages were written, {sent} sent, {} are in the topics", links.len())
    });
    line.counted(links.len(), "messages in the chain");
}

/// P2: what was registered is dead in the end, for the witness too; and nothing was cut while its task lived.
fn curfew(h: &History) -> Line {
    let mut line = Line::of("P2 curfew");
    let registered = || h.credentials.iter().filter(|known| known.registered);
    let closed = dead(h);
    for known in registered() {
        let last = h.looks.iter().rfind(|look| look.urn == known.urn && look.when == When::AtTheEnd);
        line.must(last.is_some_and(|look| look.answer == Answer::Refused), || {
            format!("{}: the witness says {:?}", known.urn, last.map(|look| look.answer))
        });
        line.must(closed.contains_key(&*known.urn), || format!("{}: no case says that it is dead", known.urn));
    }
    line.counted(registered().count(), "dead for the witness");
    let cut_from: BTreeMap<&str, i64> = h.credentials.iter().map(|known| (&*known.urn, known.cut_from_ms)).collect();
    // A task that was kept beyond its deadline is over.
    let lived = |look: &&Look| cut_from.get(&*look.urn).is_none_or(|cut_ms| look.at_ms < *cut_ms);
    let lives = h.looks.iter().filter(|look| look.when == When::TaskLives).filter(lived);
    for look in lives.clone() {
        line.must(look.answer != Answer::Refused, || format!("{} was refused while its task lived", look.urn));
    }
    line.counted(lives.filter(|look| look.answer == Answer::Works).count(), "looks while they lived");
    let mut cuts = 0;
    for known in registered() {
        let asked = h.asked.iter().filter(|a| a.is_effect() && a.about.as_deref() == Some(&*known.issuer_id));
        let changed = h.roles.iter().filter(|role| Some(&role.user) == known.user.as_ref());
        let first = asked.map(|a| a.at_ms).chain(changed.map(|role| role.at_ms)).min();
        cuts += usize::from(first.is_some());
        line.must(first.is_none_or(|at| at >= known.cut_from_ms), || {
            let early = known.cut_from_ms - first.unwrap_or(0);
            format!("{} was cut {early} ms before its task was over", known.urn)
        });
    }
    line.counted(cuts, "cuts, none early");
    stood::dead_values(h, &mut line);
    line
}

/// The cases that say dead, by credential.
fn dead(h: &History) -> BTreeMap<&str, Vec<&CaseRow>> {
    let mut dead: BTreeMap<&str, Vec<&CaseRow>> = BTreeMap::new();
    for row in &h.journal.cases {
        if matches!(&row.case.state.phase, Phase::Closed { verdict: Verdict::Dead { .. } }) {
            dead.entry(row.case.directive.credential.as_str()).or_default().push(row);
        }
    }
    dead
}

/// P3: `dead` stands on a sighting after the last effect, and Vault's and PostgreSQL's logs say the same.
fn proof(h: &History) -> Line {
    let mut line = Line::of("P3 proof");
    let (mut proven, mut sightings) = (0, 0);
    for (urn, row) in dead(h).into_iter().flat_map(|(urn, rows)| rows.into_iter().map(move |row| (urn, row))) {
        let id = row.case.id;
        let records: Vec<&Record> = row.records.iter().flat_map(|(_, _, records)| records).collect();
        let last_effect = stood::last_effect(&records);
        let refused = records.iter().enumerate().filter_map(|(at, record)| match record {
            Record::Sighted { sighting, .. } if sighting.answer == Sighted::Refused && sighting.control => {
                Some((at, sighting))
            }
            _ => None,
        });
        let refused: Vec<_> = refused.collect();
        let after = refused.iter().rev().take_while(|(at, _)| last_effect.is_none_or(|effect| *at > effect)).count();
        line.must(after > 0, || format!("{urn}: case {id} says dead without a sighting after its last effect"));
        sightings += refused.len();
        proven += 1;
        let Some(known) = h.credentials.iter().find(|known| known.urn == urn) else { continue };
        let closed_ms = row.closed_ms.unwrap_or(i64::MAX);
        let about = |a: &&Asked| a.about.as_deref() == Some(&*known.issuer_id) && a.at_ms <= closed_ms;
        let revoked = h.asked.iter().filter(about).filter(|a| a.is_effect()).find(|a| done_or_gone(a));
        line.must(revoked.is_some() || last_effect.is_none(), || format!("{urn}: Vault's log knows no revoke of it"));
        let Some((_, sighting)) = refused.last() else { continue };
        if sighting.level == Level::Target {
            let gone = h.roles.iter().any(|role| Some(&role.user) == known.user.as_ref() && role.at_ms <= closed_ms);
            line.must(gone || unlogged(h, closed_ms), || format!("{urn}: PostgreSQL's log knows no end of its role"));
        } else {
            let since_ms = revoked.map_or(0, |a| a.at_ms);
            let looks = h.asked.iter().filter(about).filter(|a| !a.is_effect() && a.at_ms >= since_ms);
            line.must(looks.clone().any(|a| a.refused.is_some()), || {
                format!("{urn}: Vault's log knows no refused look-up between the revoke and the close")
            });
        }
    }
    line.counted(proven, "verdicts of death");
    line.counted(sightings, "sightings of refusal");
    line
}

/// Whether Vault did it, or said that there is nothing any more.
fn done_or_gone(asked: &Asked) -> bool {
    asked
        .refused
        .as_deref()
        .is_none_or(|why| ["invalid accessor", "invalid lease", "No token found"].iter().any(|gone| why.contains(gone)))
}

/// Whether PostgreSQL was stopped a moment before `at_ms`: its log may lack the last line.
fn unlogged(h: &History, at_ms: i64) -> bool {
    h.database_stops_ms.iter().any(|stop| *stop <= at_ms)
}

/// P4: one lasting effect each, nothing left over, and no effect under a claim that was void.
fn crash_safe(h: &History) -> Line {
    let mut line = Line::of("P4 crash-safe");
    let registered = || h.credentials.iter().filter(|known| known.registered);
    let mut drops = 0;
    for known in registered() {
        let times = match &known.user {
            Some(user) => h.roles.iter().filter(|role| role.dropped && role.user == *user).count(),
            None => {
                let about = |a: &&Asked| a.about.as_deref() == Some(&*known.issuer_id);
                h.asked.iter().filter(about).filter(|a| a.is_effect() && a.refused.is_none()).count()
            }
        };
        drops += times;
        let lost = times == 0 && known.user.is_some() && unlogged(h, i64::MAX);
        line.must(times == 1 || lost, || format!("{} ended {times} times at its system", known.urn));
        let left = h.left.iter().any(|left| *left == known.issuer_id || Some(left) == known.user.as_ref());
        line.must(!left, || format!("{} is left over", known.urn));
    }
    line.counted(drops, "ends, one for each credential");
    stood::left(h, &mut line);
    for row in h.journal.cases.iter().filter(|row| row.closed_ms.is_none() && !is_forged(h, row)) {
        line.broken.push(format!("case {} of {} is open", row.case.id, row.case.directive.credential));
    }
    let mut effects = 0;
    for asked in h.asked.iter().filter(|a| a.is_effect()) {
        let about = asked.about.as_deref().unwrap_or_default();
        effects += 1;
        let holder = holder(h, about, asked.at_ms);
        line.must(holder.is_some_and(|claim| claim.by == asked.by && asked.at_ms <= claim.until_ms), || {
            let woken = h.pauses.iter().any(|p| p.who == asked.by && p.to_ms <= asked.at_ms);
            let woken = if woken { ", which had been paused," } else { "" };
            format!("{}{woken} asked for {} of {about} without a claim: {holder:?}", asked.by, asked.path)
        });
    }
    line.counted(effects, "effects, each under a claim");
    for pause in &h.pauses {
        line.must(pause.rejoined, || format!("{} did not rejoin after its pause", pause.who));
    }
    line.counted(h.pauses.len(), "pauses");
    for (who, exit) in h.exits.iter().filter(|(_, exit)| exit.asked) {
        line.must(exit.code == Some(0), || format!("{who} was told to end, and ended with {:?}", exit.code));
    }
    line
}

/// Whether nobody had the right to ask for it: such a case stays held.
fn is_forged(h: &History, row: &CaseRow) -> bool {
    let urn = row.case.directive.credential.as_str();
    let registered = h.credentials.iter().any(|known| known.registered && known.urn == urn);
    !registered && !h.rotated.iter().any(|rotated| rotated.urn == urn)
}

/// Whose the case of a credential was at a time.
fn holder<'a>(h: &'a History, issuer_id: &str, at_ms: i64) -> Option<&'a Claim> {
    let cases: BTreeSet<Uuid> = h
        .journal
        .cases
        .iter()
        .filter(|row| row.case.directive.credential.id() == issuer_id)
        .map(|row| row.case.id)
        .collect();
    let last = h.journal.claims.iter().rfind(|claim| cases.contains(&claim.case) && claim.at_ms <= at_ms)?;
    last.epoch.is_some().then_some(last)
}

/// P5: no secret anywhere.
fn no_secrets(h: &History) -> Line {
    let mut line = Line::of("P5 no secrets");
    // All at once: a thousand secrets, each looked for by itself in all that ten minutes write, took longer than those.
    let secrets = AhoCorasick::new(&h.secrets).unwrap();
    for (name, text) in &h.places {
        for found in secrets.find_iter(text) {
            line.broken.push(format!("{name} holds a secret, at byte {}", found.start()));
        }
    }
    let bytes: usize = h.places.iter().map(|(_, text)| text.len()).sum();
    line.counted(h.secrets.len(), "secrets");
    line.checked.push(format!("{} places with {} KiB", h.places.len(), bytes / 1024));
    line
}

/// P6: only what was registered was touched, and bystanders live.
fn exact_target(h: &History) -> Line {
    let mut line = Line::of("P6 exact target");
    let known: BTreeMap<&str, &Credential> = h.credentials.iter().map(|c| (&*c.issuer_id, c)).collect();
    let users: BTreeSet<&String> =
        h.credentials.iter().filter(|c| c.registered).filter_map(|c| c.user.as_ref()).collect();
    let rotated: BTreeSet<&str> = h.rotated.iter().map(|one| &*one.issuer_id).collect();
    let rotating: BTreeSet<&String> = h.rotated.iter().flat_map(|one| &one.users).collect();
    let effects = h.asked.iter().filter(|a| a.is_effect());
    for asked in effects.clone() {
        let about = asked.about.as_deref().unwrap_or_default();
        line.must(rotated.contains(about) || known.get(about).is_some_and(|c| c.registered), || {
            format!("{} ended {about}", asked.by)
        });
    }
    for role in &h.roles {
        line.must(users.contains(&role.user) || rotating.contains(&role.user), || {
            format!("{} changed the role {}", role.by, role.user)
        });
    }
    line.counted(effects.count() + h.roles.len(), "effects on what was registered");
    let forged = h.journal.cases.iter().filter(|row| is_forged(h, row));
    for row in forged.clone() {
        line.must(matches!(row.case.state.phase, Phase::Held { .. }), || {
            format!("case {} of {} is not held", row.case.id, row.case.directive.credential)
        });
    }
    line.must(forged.clone().count() == h.forged, || {
        format!("{} cases were forged: {}", h.forged, forged.clone().count())
    });
    line.counted(h.forged, "forged and held");
    let bystanders = h.credentials.iter().filter(|c| !c.registered);
    for known in bystanders.clone() {
        let last = h.looks.iter().rfind(|look| look.urn == known.urn);
        line.must(last.is_some_and(|look| look.answer == Answer::Works), || {
            format!("{} was nobody's to cut: {:?}", known.urn, last.map(|look| look.answer))
        });
    }
    line.counted(bystanders.count(), "bystanders alive");
    line
}

/// P7: the cap of each minute, and no new effect during a freeze.
fn bounded(h: &History) -> Line {
    let mut line = Line::of("P7 bounded");
    let mut minutes: BTreeMap<i64, i64> = BTreeMap::new();
    let mut begun = Vec::new();
    for row in &h.journal.cases {
        let is_start = |r: &Record| matches!(r, Record::Started { .. });
        if let Some((_, at_ms, _)) = row.records.iter().find(|(_, _, records)| records.iter().any(is_start)) {
            *minutes.entry(at_ms.div_euclid(60_000)).or_default() += 1;
            begun.push((row.case.id, *at_ms));
        }
    }
    for (minute, count) in &minutes {
        line.must(*count <= h.cap, || format!("minute {minute}: {count} effects, and the cap is {}", h.cap));
        let charged = h.journal.charges.iter().find(|(of, _)| of == minute).map_or(0, |(_, count)| *count);
        line.must(charged == *count, || format!("minute {minute}: {count} cases began, {charged} were charged"));
    }
    let most = minutes.values().max().copied().unwrap_or(0);
    line.checked.push(format!("{} minutes, at most {most} of {}", minutes.len(), h.cap));
    for freeze in &h.freezes {
        // Within a second it is felt everywhere.
        let frozen = freeze.from_ms + 1_000..freeze.to_ms;
        for (case, at_ms) in begun.iter().filter(|(_, at_ms)| frozen.contains(at_ms)) {
            let late = at_ms - freeze.from_ms;
            line.broken.push(format!("case {case} began {late} ms after the freeze"));
        }
    }
    line.counted(h.freezes.len(), "freezes");
    line
}

/// P8: each published state is one of the four, and only what may close a case did.
fn honest_state(h: &History) -> Line {
    const CLOSING: [&str; 5] = ["dead", "rolled_back", "reduced", "not_found", "obsolete"];
    const STANDING: [&str; 4] = ["dead", "dies_at", "alive", "unknown"];
    let mut line = Line::of("P8 honest state");
    let mut verdicts: BTreeMap<String, usize> = BTreeMap::new();
    for message in messages(h) {
        let allowed: &[&str] = match message["type"].as_str() {
            Some("dev.curfew.outcome.v1") => &CLOSING,
            Some("dev.curfew.credential.state.v1") => &STANDING,
            Some("dev.curfew.rejected.v1" | "dev.curfew.credential.rotated.v1") => continue,
            _ => &[],
        };
        let verdict = &message["data"]["verdict"];
        let state = verdict["state"].as_str().unwrap_or("none").to_owned();
        let backed = match state.as_str() {
            "dead" => verdict["proof"].is_object(),
            "dies_at" => verdict["at"].is_string(),
            "alive" => verdict["by"].is_string(),
            "unknown" => verdict["why"].is_string(),
            _ => true,
        };
        line.must(allowed.contains(&&*state) && backed, || format!("{} says {verdict}", message["id"]));
        *verdicts.entry(state).or_default() += 1;
    }
    for row in &h.journal.cases {
        if let Phase::Closed { verdict } = &row.case.state.phase {
            line.must(verdict.closes(), || format!("case {} closed as {}", row.case.id, verdict.as_str()));
        }
    }
    line.checked.extend(verdicts.iter().map(|(state, count)| format!("{count} {state}")));
    line
}

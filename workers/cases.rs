//! `curfew cases` and `curfew case`.

use clap::ValueEnum as _;
use comfy_table::Cell;
use curfew::case::CaseId;
use curfew::case::plan::Plan;
use curfew::case::record::{Observation, Record, Verdict};
use curfew::config::Config;
use curfew::credential::CredentialId;
use curfew::finding::Finding;
use curfew::journal::{CaseLine, Filter, Timeline};
use curfew::ops::Request;
use curfew::scope::Permission;
use curfew::task::RunKey;

use crate::args::{Cases, Findings, One, State};
use crate::{Failed, link, show};

/// `curfew cases`
pub async fn list(config: &Config, which: Cases, json: bool) -> Result<(), Failed> {
    let credential = which.credential.as_deref().map(CredentialId::parse).transpose();
    let filter = Filter {
        closed: which.closed || matches!(which.state, Some(State::Closed)),
        state: which.state.and_then(|state| state.to_possible_value()).map(|value| value.get_name().to_owned()),
        credential: credential.map_err(|error| Failed::Data(error.to_string()))?,
        run: which.run.map(|run| RunKey(run.into())),
        limit: Some(which.limit),
    };
    let lines: Vec<CaseLine> = link::ask_for(config, Request::Cases { filter }).await?;
    if json {
        println!("{}", serde_json::to_string(&lines).map_err(anyhow::Error::from)?);
        return Ok(());
    }
    if lines.is_empty() {
        println!("no cases{}", if which.closed { "" } else { " are open" });
        return Ok(());
    }
    let ids: Vec<CaseId> = lines.iter().map(|line| line.case.id).collect();
    let mut table = show::table(&["CASE", "STATE", "VERDICT", "TRIGGER", "OPENED", "DUE", "CREDENTIAL", "RUN"]);
    for (line, id) in lines.iter().zip(show::short_ids(&ids)) {
        let case = &line.case;
        let due = if case.state.is_closed() { "-".to_owned() } else { show::time(line.due_ms) };
        table.add_row(vec![
            Cell::new(id),
            Cell::new(case.state.name()),
            show::verdict_cell(&line.verdict),
            Cell::new(case.directive.trigger.as_str()),
            Cell::new(show::time(case.opened_ms)),
            Cell::new(due),
            Cell::new(case.directive.credential.as_str()),
            Cell::new(case.directive.run.as_ref().map_or("-", RunKey::as_str)),
        ]);
    }
    println!("{table}");
    Ok(())
}

/// `curfew findings`
pub async fn findings(config: &Config, which: Findings, json: bool) -> Result<(), Failed> {
    let request = Request::Findings { all: which.all, max: which.limit };
    let found: Vec<Finding> = link::ask_for(config, request).await?;
    if json {
        println!("{}", serde_json::to_string(&found).map_err(anyhow::Error::from)?);
        return Ok(());
    }
    if found.is_empty() {
        println!("no findings{}", if which.all { "" } else { " wait for a match" });
        return hint(config).await;
    }
    let now_ms = curfew::clock::System::shared().wall_ms();
    let mut table =
        show::table(&["FINDING", "STANDS", "DETECTOR", "VALIDITY", "PUBLIC", "AGE", "WHERE", "OWNER", "CREDENTIAL"]);
    for one in found {
        let key: String = one.key.chars().take(12).collect();
        let or_none = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        table.add_row(vec![
            key,
            one.phase.as_str().to_owned(),
            one.detector,
            word(&one.validity),
            if one.public { "yes" } else { "no" }.to_owned(),
            show::span(now_ms - one.first_ms),
            or_none(one.place),
            or_none(one.owner_hint),
            or_none(one.credentials.first().map(ToString::to_string)),
        ]);
    }
    println!("{table}");
    hint(config).await
}

/// What stands elsewhere, and may be a finding as well.
async fn hint(config: &Config) -> Result<(), Failed> {
    let figures = link::ask(config, Request::Stats {}).await?;
    match figures["stats"]["unbound"].as_i64() {
        None | Some(0) => {}
        Some(runs) => {
            println!("\n{runs} runs ended in the last day and nobody said what they held: `curfew tasks --unbound`");
        }
    }
    Ok(())
}

/// `curfew case`
pub async fn one(config: &Config, which: One, json: bool) -> Result<(), Failed> {
    let timeline: Timeline = link::ask_for(config, Request::Case { id: which.id }).await?;
    if json {
        println!("{}", serde_json::to_string(&timeline).map_err(anyhow::Error::from)?);
        return Ok(());
    }
    let case = &timeline.line.case;
    println!("case        {}", case.id);
    println!("credential  {}", case.directive.credential);
    if let Some(run) = &case.directive.run {
        println!("run         {run}");
    }
    println!("verdict     {}", show::verdict(&timeline.line.verdict));
    if let Some(derived) = &case.state.derived {
        let is_dead = matches!(timeline.line.verdict, Verdict::Dead { .. });
        for line in show::derived(derived, case.state.series.last_ms.filter(|_| is_dead)) {
            println!("derived     {line}");
        }
    }
    println!("state       {}", case.state.name());
    println!("trigger     {}", case.directive.trigger.as_str());
    println!("opened      {}", show::time(case.opened_ms));
    match timeline.line.closed_ms {
        Some(closed) => println!("closed      {}", show::time(closed)),
        None => println!("due         {}", show::time(timeline.line.due_ms)),
    }
    println!();
    let mut moments: Vec<(i64, String, String)> = Vec::new();
    for event in &timeline.events {
        let mut said = format!("{} from {} → {} ({})", event.kind, event.source, event.verb, event.reason);
        // What the decision saw: bounded where it is made.
        if event.facts.as_object().is_some_and(|facts| !facts.is_empty()) {
            said.push_str(&format!(" {}", event.facts));
        }
        moments.push((event.broker_ms, "event".to_owned(), said));
    }
    let mut plan = None;
    for (_, at_ms, records) in &timeline.records {
        for record in records {
            // Steps are numbered by the plan that was followed then, which later ones may have replaced.
            if let Record::Planned { plan: made, .. } = record {
                plan = Some(made);
            }
            moments.push((*at_ms, record.name().to_owned(), describe(record, plan)));
        }
    }
    // Stable: records of one append stay in order.
    moments.sort_by_key(|(at_ms, ..)| *at_ms);
    let mut table = show::table(&["WHEN", "AFTER", "WHAT", ""]);
    let first_ms = moments.first().map_or(0, |(at_ms, ..)| *at_ms);
    for (at_ms, what, detail) in moments {
        table.add_row(vec![show::time(at_ms), show::span(at_ms - first_ms), what, detail]);
    }
    println!("{table}");
    Ok(())
}

fn describe(record: &Record, plan: Option<&Plan>) -> String {
    let step = |index: &usize| {
        plan.and_then(|plan| plan.steps.get(*index)).map_or_else(
            || format!("step {index}"),
            |step| {
                let place = step.place.as_ref().map(|place| format!(" {place}")).unwrap_or_default();
                format!("{} {}@{}{place}", word(&step.act), step.connector, step.system)
            },
        )
    };
    match record {
        Record::Opened { directive } | Record::Joined { directive } | Record::Superseded { by: directive } => {
            let held = directive.held.map(|why| format!(", held: {}", why.as_str())).unwrap_or_default();
            let of = directive.cut.as_ref().map(|cut| {
                let all: Vec<&str> = cut.permissions.iter().map(Permission::as_str).collect();
                format!(": {}", all.join(", "))
            });
            let from = directive.not_before_ms.map(|ms| format!(", not before {}", show::time(ms)));
            let more = of.into_iter().chain(from).collect::<String>();
            format!("{} by {}{more}{held}", directive.action.as_str(), directive.trigger.as_str())
        }
        Record::Planned { no, plan } => format!("plan {no}, {} steps", plan.steps.len()),
        Record::Observed { step: at, seen: Observation { derived: Some(derived), .. } } => {
            let others = derived.roles.iter().map(|role| format!("{} ({} others)", role.name, role.others));
            let named: Vec<String> = others.collect();
            let rest = if derived.whole { "" } else { ", and what is not known" };
            format!("{}: {} roles{rest} {}", step(at), derived.roles.len() + derived.more as usize, named.join(", "))
        }
        Record::Observed { step: at, seen } => match &seen.scope {
            None => format!("{}: {}", step(at), word(&seen.presence)),
            Some(scope) if scope.held.is_empty() => format!("{}: it has none of them", step(at)),
            Some(scope) => {
                let held: Vec<&str> = scope.held.iter().map(|held| held.permission.as_str()).collect();
                format!("{}: it has {}; and {} others that stay", step(at), held.join(", "), scope.rest_count)
            }
        },
        Record::Started { step: at, attempt, .. } => format!("{}, attempt {attempt}", step(at)),
        Record::Succeeded { step: at, output } => match output.derived {
            0 => step(at),
            derived => format!("{}, and {derived} derived from it", step(at)),
        },
        Record::Failed { step: at, failure, note } => format!("{}: {}: {note}", step(at), failure.as_str()),
        Record::Skipped { step: at, residue: Some(left) } => format!("{}, leaves {}", step(at), word(left)),
        Record::Skipped { step: at, .. } | Record::Passed { step: at, .. } => step(at),
        Record::Proven { step: at, verdict } => format!("{}: {}", step(at), show::verdict(verdict)),
        Record::Answered { consumer, version, failed, .. } => {
            let what = if *failed { "cannot work with" } else { "has" };
            format!("{consumer} {what} version {version}")
        }
        Record::Withdrawn { by } => format!("by {by}"),
        Record::Sighted { step: at, sighting } => {
            format!("{}: {} at level {}", step(at), word(&sighting.answer), word(&sighting.level))
        }
        Record::Held { reason } => reason.as_str().to_owned(),
        Record::Resumed { by } => format!("by {by}"),
        Record::Kept { by, reason, until_ms } => format!("by {by} until {}: {reason}", show::time(*until_ms)),
        Record::Abandoned { by, reason } => format!("by {by}: {reason}"),
        Record::Closed { verdict } => show::verdict(verdict),
    }
}

/// The word that stands for it in the journal.
fn word<T: serde::Serialize>(of: &T) -> String {
    serde_json::to_value(of).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

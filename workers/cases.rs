//! `curfew cases` and `curfew case`.

use clap::ValueEnum as _;
use comfy_table::Cell;
use curfew::case::CaseId;
use curfew::case::record::{Record, Verdict};
use curfew::case::said;
use curfew::config::Config;
use curfew::credential::CredentialId;
use curfew::finding::Finding;
use curfew::journal::{CaseLine, Filter, Timeline};
use curfew::ops::Request;
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
            Cell::new(said::state(&case.state)),
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
            said::word(&one.validity),
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
    if let Some(blast) = case.blast {
        println!("opens       {blast} (blast radius)");
    }
    println!("verdict     {}", show::verdict(&timeline.line.verdict));
    if let Some(derived) = &case.state.derived {
        let is_dead = matches!(timeline.line.verdict, Verdict::Dead { .. });
        for line in show::derived(derived, case.state.series.last_ms.filter(|_| is_dead)) {
            println!("derived     {line}");
        }
    }
    println!("state       {}", said::state(&case.state));
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
            moments.push((*at_ms, record.name().to_owned(), said::record(record, plan)));
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

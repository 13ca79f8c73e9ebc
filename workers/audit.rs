//! `curfew audit`: how long each credential outlived its task, and which ones end with none.

use std::collections::{BTreeSet, HashMap};

use comfy_table::{Cell, Color};
use curfew::config::{Config, file::Millis};
use curfew::credential::CredentialId;
use curfew::journal::{CaseLine, Filter, Overrun, Standing};
use curfew::ops::Request;
use curfew::standing::{self, Line, Used};
use curfew::task::RunKey;

use crate::args::Audit;
use crate::{Failed, link, show};

/// `curfew audit`
pub async fn audit(config: &Config, what: Audit, json: bool) -> Result<(), Failed> {
    match what {
        Audit::Overrun { over } => overrun(config, over, json).await,
        Audit::Standing { only_tasks, limit } => standing(config, only_tasks, limit, json).await,
    }
}

/// `curfew audit standing`
async fn standing(config: &Config, only_tasks: bool, limit: u32, json: bool) -> Result<(), Failed> {
    let known: Vec<Standing> = link::ask_for(config, Request::Standing { max: limit }).await?;
    let answered = answered(config).await?;
    let realms: Vec<_> = config.realms.iter().map(|realm| realm.rules.clone()).collect();
    let of = |id: &CredentialId| answered.get(id).cloned().unwrap_or_default();
    let mut lines = standing::report(known, &config.recipes, &realms, of);
    if only_tasks {
        lines.retain(|line| line.used == Used::Tasks);
    }
    if json {
        println!("{}", serde_json::to_string(&lines).map_err(anyhow::Error::from)?);
    } else if lines.is_empty() {
        println!("no such standing credential is known");
    } else {
        println!("{}", listed(&lines, curfew::clock::System::shared().wall_ms()));
    }
    Ok(())
}

/// Consumers that answered the rotations of the configuration: they read the value, and are no tasks.
async fn answered(config: &Config) -> Result<HashMap<CredentialId, BTreeSet<String>>, Failed> {
    let mut answered = HashMap::new();
    for recipe in &config.recipes {
        let credential = recipe.credential.clone();
        let filter = Filter { credential: Some(credential.clone()), closed: true, ..Filter::default() };
        let cases: Vec<CaseLine> = link::ask_for(config, Request::Cases { filter }).await?;
        let consumers = cases.into_iter().flat_map(|line| line.case.state.turn.adopted).collect();
        answered.insert(credential, consumers);
    }
    Ok(answered)
}

/// A credential for a line, with what would take its place.
fn listed(lines: &[Line], now_ms: i64) -> String {
    let mut table = show::table(&["CREDENTIAL", "AGE", "USED BY", "RUNS", "LAST RUN", "CONSUMERS", "INSTEAD"]);
    for line in lines {
        table.add_row(row(line, now_ms));
    }
    format!("{table}\n\n{}", sum(lines))
}

fn row(line: &Line, now_ms: i64) -> [String; 7] {
    let ago = |at: Option<i64>| at.map_or_else(|| "?".to_owned(), |at| show::span((now_ms - at).max(0)));
    let consumers: Vec<&str> = line.consumers.iter().map(String::as_str).collect();
    let instead = match (&line.command, &line.needs) {
        (Some(command), Some(needs)) => format!("{command}\nneeds {needs}"),
        (Some(command), None) => command.clone(),
        (None, Some(needs)) => format!("needs {needs}"),
        (None, None) => "-".to_owned(),
    };
    [
        line.credential.to_string(),
        ago(line.issued_ms),
        line.used.as_str().to_owned(),
        if line.live > 0 { format!("{} ({} live)", line.runs, line.live) } else { line.runs.to_string() },
        if line.runs > 0 { format!("{} ago", ago(line.last_ms)) } else { "-".to_owned() },
        if consumers.is_empty() { "-".to_owned() } else { consumers.join(", ") },
        instead,
    ]
}

/// What all of them come to.
fn sum(lines: &[Line]) -> String {
    let of = |used: Used| lines.iter().filter(|line| line.used == used).count();
    format!(
        "{} standing credentials: {} used by tasks and, as far as anybody said, by nobody else; {} by tasks and others; {} by \
         others; of {} nobody said who uses them. Nobody watches a value being used: what was not said is not known.",
        lines.len(),
        of(Used::Tasks),
        of(Used::Both),
        of(Used::Consumers),
        of(Used::Unknown),
    )
}

/// `curfew audit overrun`
async fn overrun(config: &Config, over: Option<String>, json: bool) -> Result<(), Failed> {
    let over = over.as_deref().map(Millis::parse).transpose().map_err(|why| Failed::Data(format!("--over: {why}")))?;
    let mut lines: Vec<Overrun> = link::ask_for(config, Request::Overrun {}).await?;
    if let Some(over) = over {
        lines.retain(|line| line.overrun_ms.is_some_and(|ms| ms > over.0));
    }
    // The worst first; what cannot be said last.
    lines.sort_by_key(|line| std::cmp::Reverse(line.overrun_ms));
    if json {
        println!("{}", serde_json::to_string(&lines).map_err(anyhow::Error::from)?);
        return Ok(());
    }
    let mut table = show::table(&[
        "CREDENTIAL",
        "RUN",
        "TRIGGER",
        "TASK STARTED",
        "TASK ENDED",
        "ISSUED",
        "EXPIRES",
        "DEAD",
        "OVERRUN",
    ]);
    for line in &lines {
        let overrun = line.overrun_ms.map_or_else(|| "?".to_owned(), show::span);
        let dead =
            line.dead_ms.map_or_else(|| Cell::new("NOT SEEN DEAD").fg(Color::Red), |ms| Cell::new(show::time(ms)));
        table.add_row(vec![
            Cell::new(line.credential.as_str()),
            Cell::new(line.run.as_ref().map_or("-", RunKey::as_str)),
            Cell::new(line.trigger.as_str()),
            Cell::new(show::time_or_none(line.task_started_ms)),
            Cell::new(show::time_or_none(line.task_ended_ms)),
            Cell::new(show::time_or_none(line.issued_ms)),
            Cell::new(show::time_or_none(line.expires_ms)),
            dead,
            Cell::new(overrun),
        ]);
    }
    println!("{table}");
    let alive = lines.iter().filter(|line| line.dead_ms.is_none()).count();
    println!("\n{} credentials, {alive} of them not seen dead", lines.len());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn standing_credentials_are_listed_with_what_would_take_their_place() {
        let line = |id: &str, used, runs, consumers: &[&str]| Line {
            credential: CredentialId::parse(&format!("urn:curfew:cred:{id}")).unwrap(),
            owner: None,
            environment: None,
            issued_ms: (runs > 0).then_some(0),
            used,
            runs,
            live: runs / 10,
            last_ms: (runs > 0).then_some(86_400_000),
            consumers: consumers.iter().map(|name| (*name).to_owned()).collect(),
            command: (runs > 0).then(|| "curfew exec --role ETL=database/creds/etl -- COMMAND".to_owned()),
            needs: Some("that database/creds/etl may what etl may".to_owned()),
        };
        let lines = [
            line("postgres-role:appdb:etl", Used::Tasks, 40, &[]),
            line("postgres-role:appdb:orders", Used::Both, 3, &["billing", "web"]),
            line("vault-kv:prod:kv/app%23token", Used::Unknown, 0, &[]),
        ];
        let rows: Vec<String> = lines.iter().map(|line| row(line, 90_000_000).join(" | ")).collect();
        insta::assert_snapshot!(format!("{}\n{}", rows.join("\n"), sum(&lines)));
    }
}

//! `curfew reach`: who reaches what, for people and machines.

use std::collections::BTreeSet;
use std::process::ExitCode;

use comfy_table::{Cell, Color};
use curfew::case::said::time;
use curfew::config::Config;
use curfew::config::file::Millis;
use curfew::ops::Request;
use curfew::reach::ask::{Gate, Hop, Lines, Opened, Question, Reach as Reached, Told};
use curfew::reach::kept::{Answer, SourceLine};
use curfew::reach::long_lived::{LongLived, LongLiveds, span};
use curfew::reach::unused::Granteds;
use curfew::reach::{Node, Standing, draw, outside};

use crate::args::Reach;
use crate::{Failed, link, show};

/// `curfew reach`
pub async fn reach(config: &Config, what: Reach, json: bool) -> Result<ExitCode, Failed> {
    let (question, head) = question(&what)?;
    let answer: Answer = link::ask_for(config, Request::Reach { question }).await?;
    if let (Some(file), Told::Reach(reach)) = (&what.svg, &answer.told) {
        let written = tokio::fs::write(file, draw::svg(reach)).await;
        written.map_err(|error| Failed::Other(anyhow::anyhow!("{}: {error}", file.display())))?;
    }
    if json {
        println!("{}", serde_json::to_string(&answer).map_err(anyhow::Error::from)?);
    } else {
        print!("{}", told(&answer, &head));
        let rest = doubts(config, &answer);
        if !rest.is_empty() {
            eprint!("{rest}");
        }
    }
    Ok(match &answer.told {
        Told::Gate(gate) if !gate.beyond.is_empty() || !gate.excess.is_empty() || gate.may.is_none() => {
            ExitCode::from(1)
        }
        Told::Gate(_) if !answer.whole => ExitCode::from(69),
        _ => ExitCode::SUCCESS,
    })
}

/// What is asked, and what its list is of.
fn question(what: &Reach) -> Result<(Question, String), Failed> {
    let max = what.limit;
    if let Some(id) = &what.id {
        return Ok((Question::Of { id: id.clone() }, String::new()));
    }
    if let Some(span) = &what.dormant {
        let for_ms = Millis::parse(span).map_err(|why| Failed::Data(format!("--dormant: {why}")))?.0;
        return Ok((Question::Dormant { for_ms, max }, format!("not used for {span}")));
    }
    if let Some(span) = &what.unused {
        let for_ms = Millis::parse(span).map_err(|why| Failed::Data(format!("--unused: {why}")))?.0;
        return Ok((Question::Unused { for_ms, max }, format!("unused for {span}")));
    }
    if let Some(id) = &what.who {
        return Ok((Question::Who { id: id.clone(), max }, format!("open {id}")));
    }
    if let Some(id) = &what.gate {
        return Ok((Question::Gate { id: id.clone() }, String::new()));
    }
    let (question, head) = if what.crosses_zones {
        (Question::Crossing { max }, "reach more than one zone")
    } else if what.shared {
        (Question::Shared { max }, "have more than one user")
    } else if what.unowned {
        (Question::Unowned { max }, "have no owner")
    } else if what.long_lived {
        (Question::LongLived { max }, "")
    } else {
        (Question::Sources {}, "")
    };
    Ok((question, head.to_owned()))
}

fn told(answer: &Answer, head: &str) -> String {
    match &answer.told {
        Told::Reach(reach) => of(reach),
        Told::Lines(lines) => list(lines, head),
        Told::Unused(granted) => unused(granted, head),
        Told::LongLived(all) => long_lived(all),
        Told::Gate(gate) => gated(gate),
        Told::Sources {} => sources(&answer.sources),
    }
}

fn names(nodes: &[Node]) -> String {
    let names: Vec<&str> = nodes.iter().map(|node| &*node.name).collect();
    if names.is_empty() { "-".to_owned() } else { names.join(", ") }
}

/// `identity → has policy → reads path`
fn way(hops: &[Hop]) -> String {
    hops.iter().map(|hop| format!("{} {}", hop.via.as_str(), hop.to)).collect::<Vec<_>>().join(" → ")
}

fn of(reach: &Reached) -> String {
    let mut out = format!("{}\n", reach.node);
    let owner = if reach.owners.is_empty() { "nobody answers for it".to_owned() } else { names(&reach.owners) };
    out.push_str(&format!("owner         {owner}\n"));
    if reach.about.off {
        out.push_str("off           it lets nobody in now\n");
    }
    if let Some(leaves) = &reach.about.offboarded {
        let topics: BTreeSet<&str> = leaves.words.iter().map(|word| word.topic.as_str()).collect();
        let topics = topics.into_iter().collect::<Vec<_>>().join(", ");
        let since_ms = leaves.words.iter().map(|word| word.since_ms).min().unwrap_or_default();
        out.push_str(&format!("offboarded    since {}, by {topics}\n", time(since_ms)));
    }
    let zones: Vec<String> = reach.zones.iter().map(|(zone, count)| format!("{} ({count})", zone.name)).collect();
    out.push_str(&format!("zones         {}\n", if zones.is_empty() { "-".to_owned() } else { zones.join(", ") }));
    out.push_str(&format!("blast radius  {}: {} targets\n", reach.blast, reach.targets));
    out.push_str(&format!("on the way    {} credentials, {} places\n\n", reach.credentials, reach.places));
    if reach.opened.is_empty() {
        out.push_str("it opens nothing that is known\n");
        return out;
    }
    out.push_str(&opened(&reach.opened));
    let left = reach.targets - reach.opened.len();
    if left > 0 {
        out.push_str(&format!("and {left} more\n"));
    }
    out
}

fn opened(all: &[Opened]) -> String {
    let mut table = show::table(&["TARGET", "ZONE", "ALLOWS", "BY"]);
    for one in all {
        let mut scope = one.scope.iter().take(4).cloned().collect::<Vec<_>>().join("; ");
        if one.scope.len() > 4 {
            scope.push_str(&format!("; and {} more", one.scope.len() - 4));
        }
        table.add_row(vec![one.target.to_string(), names(&one.zones), scope, way(&one.way)]);
    }
    format!("{table}\n")
}

fn list(lines: &Lines, head: &str) -> String {
    let mut out = String::new();
    if !lines.lines.is_empty() {
        let mut table = show::table(&["WHO", "OWNER", "LAST USED", "WHY"]);
        for line in &lines.lines {
            let why: Vec<String> = line.why.iter().map(Node::to_string).collect();
            table.add_row(vec![
                line.node.to_string(),
                names(&line.owners),
                show::time_or_none(line.used_ms),
                if why.is_empty() { "-".to_owned() } else { why.join(", ") },
            ]);
        }
        out.push_str(&format!("{table}\n\n"));
    }
    out.push_str(&format!("{} {head}", lines.total));
    if lines.total > lines.lines.len() {
        out.push_str(&format!("; {} of them shown (--limit)", lines.lines.len()));
    }
    if lines.unknown > 0 {
        out.push_str(&format!("; of {} no source tells", lines.unknown));
    }
    out.push('\n');
    out
}

fn unused(granted: &Granteds, head: &str) -> String {
    let mut out = String::new();
    if !granted.lines.is_empty() {
        let mut table = show::table(&["WHO", "POLICY", "LAST USED", "SINCE", "UNUSED"]);
        for line in &granted.lines {
            table.add_row(vec![
                line.node.to_string(),
                line.policy.to_string(),
                show::time_or_none(line.used_ms),
                show::time_or_none(Some(line.since_ms)),
                line.why.map_or_else(|| "yes".to_owned(), |why| format!("no: {}", why.as_str())),
            ]);
        }
        out.push_str(&format!("{table}\n\n"));
    }
    out.push_str(&format!("{} of {} policies are {head}", granted.unused, granted.total));
    if granted.total > granted.lines.len() {
        out.push_str(&format!("; {} of them shown (--limit)", granted.lines.len()));
    }
    out.push('\n');
    for log in &granted.logs {
        let since = show::time_or_none(log.since_ms);
        let until = show::time_or_none(Some(log.until_ms).filter(|ms| *ms > 0));
        out.push_str(&format!("the log of {} is watched since {since}, and read until {until}", log.realm));
        if log.unread > 0 {
            out.push_str(&format!("; {} lines of it cannot be read", log.unread));
        }
        out.push('\n');
    }
    if granted.logs.is_empty() {
        out.push_str("no log of use is read: write `reach.uses` into the configuration\n");
    }
    out
}

fn long_lived(all: &LongLiveds) -> String {
    let mut out = String::new();
    if !all.lines.is_empty() {
        let mut table = show::table(&["WHO", "TOKENS", "SECRET_IDS", "TASKS", "99 IN 100", "NEED", "LONG-LIVED"]);
        let or_none = |seconds: Option<u64>| seconds.map_or_else(|| "-".to_owned(), span);
        for line in &all.lines {
            table.add_row(vec![
                line.node.to_string(),
                if line.periodic { "periodic".to_owned() } else { line.tokens_s.map_or_else(|| "?".to_owned(), span) },
                if line.secret_ids_s == 0 { "for ever".to_owned() } else { span(line.secret_ids_s) },
                line.tasks.to_string(),
                or_none(line.p99_s),
                or_none(line.needed_s),
                verdict(line),
            ]);
        }
        out.push_str(&format!("{table}\n\n"));
    }
    let over = span(u64::try_from(all.over_ms / 1_000).unwrap_or(0));
    out.push_str(&format!(
        "{} of {} AppRoles are long-lived, by the tasks of {over}, of at least {} tasks",
        all.long_lived, all.total, all.at_least
    ));
    if all.total > all.lines.len() {
        out.push_str(&format!("; {} of them shown (--limit)", all.lines.len()));
    }
    out.push('\n');
    out
}

fn verdict(line: &LongLived) -> String {
    let excess: Vec<&str> = line.excess.iter().map(|one| one.as_str()).collect();
    match line.why {
        Some(why) => format!("no: {}", why.as_str()),
        None if excess.is_empty() => "yes".to_owned(),
        None => format!("yes: {}", excess.join(", ")),
    }
}

fn gated(gate: &Gate) -> String {
    let does =
        if gate.excess.is_empty() { String::new() } else { format!(", and may {}", outside::told(&gate.excess)) };
    match (&gate.may, gate.beyond.is_empty()) {
        (None, true) => {
            format!("{}: nothing is declared for it (`may` in the declared file), and it opens nothing\n", gate.node)
        }
        (None, false) => format!(
            "{}: nothing is declared for it (`may` in the declared file), and it opens {}\n\n{}",
            gate.node,
            gate.beyond.len(),
            opened(&gate.beyond)
        ),
        (Some(_), true) => format!("{}: opens nothing beyond what was declared{does}\n", gate.node),
        (Some(_), false) => {
            let zones: Vec<&str> = gate.zones.iter().map(|zone| &*zone.name).collect();
            let zones = if zones.is_empty() { String::new() } else { format!(", in zones {}", zones.join(", ")) };
            let count = gate.beyond.len();
            format!("{}: opens {count} beyond what was declared{zones}{does}\n\n{}", gate.node, opened(&gate.beyond))
        }
    }
}

fn word(standing: Standing) -> Cell {
    match standing {
        Standing::Whole => Cell::new("whole").fg(Color::Green),
        Standing::Partial => Cell::new("a part").fg(Color::Yellow),
        Standing::Stale => Cell::new("too old").fg(Color::Yellow),
        Standing::Unread => Cell::new("never read").fg(Color::Red),
    }
}

fn sources(all: &[SourceLine]) -> String {
    let mut table = show::table(&["SOURCE", "STANDS", "READ", "WHOLE", "LEFT OUT"]);
    for line in all {
        let source = &line.source;
        table.add_row(vec![
            Cell::new(&source.name),
            word(line.standing),
            Cell::new(show::time_or_none(Some(source.read_ms).filter(|ms| *ms > 0))),
            Cell::new(show::time_or_none(source.whole_ms)),
            Cell::new(source.faults.first().map_or("-", String::as_str)),
        ]);
    }
    format!("{table}\n")
}

/// What keeps the answer from being the whole truth.
fn doubts(config: &Config, answer: &Answer) -> String {
    if config.reach.is_none() && answer.sources.is_empty() {
        return "nothing is read: write `reach` into the configuration, and let `curfew run` read it\n".to_owned();
    }
    let all = answer.sources.iter().filter(|line| line.standing != Standing::Whole);
    let said = all.map(|line| {
        let why = match line.standing {
            Standing::Partial => "was read in part",
            Standing::Stale => "was not read for a long time",
            Standing::Unread => "was never read",
            Standing::Whole => "is whole",
        };
        let fault = line.source.faults.first().map(|fault| format!(": {fault}")).unwrap_or_default();
        format!("warning: {} {why}{fault}; what is not shown may still be there\n", line.source.name)
    });
    said.collect()
}

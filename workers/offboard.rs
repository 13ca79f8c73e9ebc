//! `curfew offboard`: who is retired with all that it holds.

use curfew::case::said::time;
use curfew::clock;
use curfew::config::Config;
use curfew::config::file::Millis;
use curfew::offboard::Offboarding;
use curfew::ops::Request;
use curfew::scope::Fence;
use serde::Deserialize;

use crate::args::Offboard;
use crate::stop::say;
use crate::{Failed, link, show};

/// Who leaves, and the fences that stand.
#[derive(Deserialize)]
struct Listed {
    offboarded: Vec<Offboarding>,
    fences: Vec<Fence>,
}

/// `curfew offboard`
pub async fn offboard(config: &Config, what: Offboard, json_wanted: bool) -> Result<(), Failed> {
    let Some((name, reason)) = what.name.zip(what.reason) else { return list(config, json_wanted).await };
    if config.reach.is_none() {
        let why = "without `reach` in the configuration nobody knows what belongs to whom: docs/offboard.md";
        return Err(Failed::Data(why.to_owned()));
    }
    let span = what.until.as_deref().map(Millis::parse).transpose();
    let span = span.map_err(|why| Failed::Usage(format!("--until: {why}")))?;
    let until_ms = span.map(|span| clock::System::shared().wall_ms().saturating_add(span.0));
    let (back, tenant, by) = (what.back, what.tenant, what.who.by);
    let value = link::ask(config, Request::Offboard { name, back, until_ms, tenant, by, reason }).await?;
    let node = value["node"].as_str().unwrap_or_default();
    let text = if back { "stays after all; fences stand until their end" } else { "leaves: `curfew findings --all`" };
    say(json_wanted, &value, &format!("recorded: {node} {text}"));
    Ok(())
}

async fn list(config: &Config, json_wanted: bool) -> Result<(), Failed> {
    let value = link::ask(config, Request::Offboarded {}).await?;
    if json_wanted {
        println!("{value}");
        return Ok(());
    }
    let listed: Listed = serde_json::from_value(value).map_err(anyhow::Error::from)?;
    print!("{}", told(&listed));
    Ok(())
}

fn told(listed: &Listed) -> String {
    if listed.offboarded.is_empty() && listed.fences.is_empty() {
        return "nobody leaves, and no fence stands\n".to_owned();
    }
    let mut leaves = show::table(&["WHO", "SINCE", "FENCES UNTIL", "BY", "WHY"]);
    for one in &listed.offboarded {
        let by = one.by.clone().unwrap_or_else(|| one.topic.clone());
        leaves.add_row([one.node.to_string(), time(one.since_ms), time(one.until_ms), by, one.reason.clone()]);
    }
    let mut out = format!("{leaves}\n");
    if !listed.fences.is_empty() {
        let mut fences = show::table(&["FENCED", "UNTIL", "CASE"]);
        for one in &listed.fences {
            fences.add_row([one.identity.to_string(), time(one.until_ms), one.case.to_string()]);
        }
        out.push_str(&format!("\n{fences}\n"));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_leaves_is_listed_with_its_fences() {
        let empty = Listed { offboarded: Vec::new(), fences: Vec::new() };
        assert_eq!(told(&empty), "nobody leaves, and no fence stands\n");
        let fence = Fence {
            tenant: "default".into(),
            case: uuid::Uuid::nil(),
            identity: "urn:curfew:cred:vault-approle:prod:approle/etl".to_owned().try_into().unwrap(),
            until_ms: 86_400_000,
            held: Vec::new(),
        };
        let leaves = Offboarding {
            tenant: "default".into(),
            node: "identity:prod/approle/etl".to_owned().try_into().unwrap(),
            topic: "curfew".into(),
            since_ms: 0,
            until_ms: 86_400_000,
            by: Some("ann".into()),
            reason: "the job moved".into(),
        };
        let said = told(&Listed { offboarded: vec![leaves], fences: vec![fence] });
        for word in ["identity:prod/approle/etl", "ann", "the job moved", "approle/etl", "1970-01-02"] {
            assert!(said.contains(word), "{word}: {said}");
        }
    }
}

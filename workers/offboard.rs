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
    let (back, yes, tenant, by) = (what.back, what.yes, what.tenant, what.who.by);
    let value = link::ask(config, Request::Offboard { name, back, yes, until_ms, tenant, by, reason }).await?;
    let node = value["node"].as_str().unwrap_or_default();
    let text = if back { "stays after all; fences stand until their end" } else { "leaves: `curfew findings --all`" };
    say(json_wanted, &value, &format!("recorded: {node} {text}"));
    Ok(())
}

async fn list(config: &Config, json_wanted: bool) -> Result<(), Failed> {
    let mut value = link::ask(config, Request::Offboarded {}).await?;
    let listed: Listed = serde_json::from_value(value.clone()).map_err(anyhow::Error::from)?;
    let keep_ms = config.retention.closed_ms;
    if !json_wanted {
        print!("{}", told(&listed, keep_ms));
        return Ok(());
    }
    // How long a word is kept stands in the configuration alone.
    for (row, one) in value["offboarded"].as_array_mut().into_iter().flatten().zip(&listed.offboarded) {
        row["ends_ms"] = one.ends_ms(keep_ms).into();
    }
    println!("{value}");
    Ok(())
}

fn told(listed: &Listed, keep_ms: i64) -> String {
    if listed.offboarded.is_empty() && listed.fences.is_empty() {
        return "nobody leaves, and no fence stands\n".to_owned();
    }
    let mut leaves = show::table(&["WHO", "SINCE", "FENCES UNTIL", "ENDS", "BY", "WHY"]);
    for one in &listed.offboarded {
        let by = one.by.clone().unwrap_or_else(|| one.topic.clone());
        // As long as something is known of it the word stands.
        let ends = one.ends_ms(keep_ms).map_or_else(|| "-".to_owned(), time);
        let (since, until) = (time(one.since_ms), time(one.until_ms));
        leaves.add_row([one.node.to_string(), since, until, ends, by, one.reason.clone()]);
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
        assert_eq!(told(&empty, 0), "nobody leaves, and no fence stands\n");
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
            idle_since_ms: Some(2 * 86_400_000),
        };
        let said = told(&Listed { offboarded: vec![leaves], fences: vec![fence] }, 86_400_000);
        for word in ["identity:prod/approle/etl", "ann", "the job moved", "approle/etl", "1970-01-02", "1970-01-04"] {
            assert!(said.contains(word), "{word}: {said}");
        }
    }
}

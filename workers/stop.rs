//! What operators order: freeze, release, a word on a case, a revocation, a position.

use curfew::clock;
use curfew::config::Config;
use curfew::credential::CredentialId;
use curfew::guard;
use curfew::ops::{Request, freeze_file};
use serde_json::{Value, json};

use crate::args::{Abandon, Freeze, Position, Revoke, Rotate, Split, Who, Word};
use crate::{Failed, link};

pub fn say(json_wanted: bool, value: &Value, text: &str) {
    if json_wanted {
        println!("{value}");
    } else {
        println!("{text}");
    }
}

/// `curfew freeze`: the file first, so that it holds whatever becomes of the rest.
pub async fn freeze(config: &Config, how: Freeze, json_wanted: bool) -> Result<(), Failed> {
    let path = freeze_file::path_of(&config.journal);
    let note = freeze_file::Note {
        how: if how.hard { guard::Freeze::Hard } else { guard::Freeze::Soft },
        by: how.who.by.clone(),
        reason: how.reason.clone(),
        at_ms: clock::System::shared().wall_ms(),
    };
    let written = freeze_file::write(&path, &note);
    let request = Request::Freeze { hard: how.hard, by: how.who.by, reason: how.reason };
    match (written, link::ask(config, request).await) {
        (written, Ok(mut value)) => {
            if let Err(error) = written {
                eprintln!("curfew: {} cannot be written: {error}; the journal is frozen", path.display());
            }
            // It is frozen, whatever comes of the list.
            let text = match how.hard {
                false => "frozen".to_owned(),
                true => match link::ask(config, Request::HalfMade {}).await {
                    Ok(half) => {
                        let text =
                            format!("frozen; {}", left_behind(half.as_array().map(Vec::as_slice).unwrap_or_default()));
                        value["half_made"] = half;
                        text
                    }
                    Err(failed) => {
                        value["why"] = json!(failed.to_string());
                        format!(
                            "frozen; what is half-made is not known ({failed}): ask again by `curfew freeze --hard`"
                        )
                    }
                },
            };
            say(json_wanted, &value, &text);
            Ok(())
        }
        (Ok(()), Err(failed)) => {
            let value = json!({ "frozen": note.how, "by_file_only": true, "why": failed.to_string() });
            say(json_wanted, &value, &format!("frozen by {} alone: {failed}", path.display()));
            Ok(())
        }
        (Err(error), Err(failed)) => Err(Failed::Unavailable(format!(
            "NOT frozen: {} cannot be written ({error}), and {failed}",
            path.display()
        ))),
    }
}

/// What a hard freeze leaves half-made, and what mends it.
fn left_behind(half: &[Value]) -> String {
    if half.is_empty() {
        return "nothing is half-made: there is nothing to mend".to_owned();
    }
    let mut text = "half-made, each goes on by itself after `curfew release`, or is mended by hand:".to_owned();
    let word = |value: &Value| value.as_str().unwrap_or("?").to_owned();
    for one in half {
        text.push_str(&format!("\n  {}  {}\n    {}", word(&one["case"]), word(&one["credential"]), word(&one["what"])));
        if let Some(at) = one["at"].as_str() {
            text.push_str(&format!(" (at {at})"));
        }
        if one["goes_on"] == false {
            text.push_str("; it was abandoned: it does not go on");
        }
        for by in one["by_hand"].as_array().into_iter().flatten() {
            text.push_str(&format!("\n    to {}: {}", word(&by["to"]), word(&by["run"])));
        }
    }
    text
}

/// `curfew release`
pub async fn release(config: &Config, who: Who, json_wanted: bool) -> Result<(), Failed> {
    let path = freeze_file::path_of(&config.journal);
    let removed = freeze_file::remove(&path);
    removed.map_err(|error| Failed::Unavailable(format!("{} stays: {error}", path.display())))?;
    let value = match link::ask(config, Request::Release { by: who.by }).await {
        Ok(value) => value,
        // Nothing was ever recorded: the file was all there was.
        Err(_) if config.database.is_none() && !config.journal.exists() => json!({ "released": true }),
        Err(Failed::Unavailable(why)) => {
            return Err(Failed::Unavailable(format!(
                "the freeze file is gone, the journal may still be frozen: {why}"
            )));
        }
        Err(failed) => return Err(failed),
    };
    say(json_wanted, &value, "released");
    Ok(())
}

/// `curfew resume`
pub async fn resume(config: &Config, word: Word, json_wanted: bool) -> Result<(), Failed> {
    let value = link::ask(config, Request::Resume { id: word.one.id, by: word.who.by }).await?;
    say(json_wanted, &value, "it goes on");
    Ok(())
}

/// `curfew abandon`
pub async fn abandon(config: &Config, word: Abandon, json_wanted: bool) -> Result<(), Failed> {
    let request = Request::Abandon { id: word.one.id, by: word.who.by, reason: word.reason };
    let value = link::ask(config, request).await?;
    say(json_wanted, &value, "abandoned: nothing is tried any more; it stays open until it is seen dead");
    Ok(())
}

/// `curfew retry-now`
pub async fn retry_now(config: &Config, word: Word, json_wanted: bool) -> Result<(), Failed> {
    let value = link::ask(config, Request::RetryNow { id: word.one.id }).await?;
    say(json_wanted, &value, "due now");
    Ok(())
}

/// `curfew rotate`
pub async fn rotate(config: &Config, what: Rotate, json_wanted: bool) -> Result<(), Failed> {
    let recipe = config.recipes.iter().find(|recipe| recipe.name == what.what);
    let credential = match recipe {
        Some(recipe) => recipe.credential.clone(),
        None => CredentialId::parse(&what.what).map_err(|_| {
            let known: Vec<&str> = config.recipes.iter().map(|recipe| recipe.name.as_str()).collect();
            let known = if known.is_empty() { "it has none".to_owned() } else { known.join(", ") };
            Failed::Data(format!("neither a rotation of this configuration ({known}) nor a credential's id"))
        })?,
    };
    if !credential.kind().rotates() {
        let kind = credential.kind_name();
        return Err(Failed::Data(format!("a {kind} is not rotated: `curfew revoke` ends it, its task gets a new one")));
    }
    let of_realm = recipe.and_then(|recipe| config.tenant_of(&recipe.place.realm)).map(|tenant| tenant.to_string());
    let tenant = what.tenant.or(of_realm).unwrap_or_else(|| "default".to_owned());
    let (leaked, by, reason) = (what.leaked, what.who.by, what.reason);
    let request = Request::Rotate { credential, leaked, split: false, agents: Vec::new(), tenant, by, reason };
    let value = link::ask(config, request).await?;
    recorded(json_wanted, &value);
    Ok(())
}

/// `curfew split`
pub async fn split(config: &Config, what: Split, json_wanted: bool) -> Result<(), Failed> {
    let mut shared = config.recipes.iter().filter(|recipe| !recipe.shares.is_empty());
    let Some(recipe) = shared.clone().find(|recipe| recipe.name == what.what) else {
        let known: Vec<&str> = shared.by_ref().map(|recipe| recipe.name.as_str()).collect();
        let known = if known.is_empty() { "none has".to_owned() } else { format!("these have: {}", known.join(", ")) };
        return Err(Failed::Data(format!("no rotation of this name says by `split` who shares its value ({known})")));
    };
    let of_realm = config.tenant_of(&recipe.place.realm).map(|tenant| tenant.to_string());
    let tenant = what.tenant.or(of_realm).unwrap_or_else(|| "default".to_owned());
    if let Some(stranger) = what.agents.iter().find(|name| recipe.shares.iter().all(|one| one.agent.name != **name)) {
        let known: Vec<&str> = recipe.shares.iter().map(|one| one.agent.name.as_str()).collect();
        let known = known.join(", ");
        return Err(Failed::Data(format!("{stranger:?} is none of those who share it by `split` ({known})")));
    }
    let (credential, by, reason) = (recipe.credential.clone(), what.who.by, what.reason);
    let request = Request::Rotate { credential, leaked: false, split: true, agents: what.agents, tenant, by, reason };
    recorded(json_wanted, &link::ask(config, request).await?);
    Ok(())
}

/// Says which cases an order led to.
pub fn recorded(json_wanted: bool, value: &Value) {
    let cases: Vec<&str> = value["cases"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    say(json_wanted, value, &format!("recorded; case {}", cases.join(", ")));
}

/// `curfew revoke`
pub async fn revoke(config: &Config, what: Revoke, json_wanted: bool) -> Result<(), Failed> {
    let credential = CredentialId::parse(&what.credential).map_err(|error| Failed::Data(error.to_string()))?;
    let request = Request::Revoke { credential, tenant: what.tenant, by: what.who.by, reason: what.reason };
    let value = link::ask(config, request).await?;
    recorded(json_wanted, &value);
    Ok(())
}

/// `curfew position`
pub async fn position(config: &Config, what: Position, json_wanted: bool) -> Result<(), Failed> {
    let (text, request) = match what {
        Position::Set { cluster, topic, partition, offset } => (
            format!("{topic}[{partition}] goes on at {offset}"),
            Request::PositionSet { cluster, topic, partition, offset },
        ),
        Position::Drop { cluster } => {
            (format!("{cluster} holds nothing back any more"), Request::PositionDrop { cluster })
        }
    };
    let value = link::ask(config, request).await?;
    say(json_wanted, &value, &text);
    Ok(())
}

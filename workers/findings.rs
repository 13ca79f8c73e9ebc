//! `curfew publish finding` and `curfew fingerprint-key`: secrets come in here, and do not go on.

use std::io::Read;
use std::path::{Path, PathBuf};

use curfew::config::Config;
use curfew::event::Type;
use curfew::event::adapters::{self, Adapter, Given};
use curfew::fingerprint;
use curfew::tell::Message;

use crate::args::{FingerprintKey, Format, PublishFindings};
use crate::keys::unusable;
use crate::publish::{Way, bar, checked, listed, or_stdin, send};
use crate::{Failed, keys};

/// Over HTTP: findings need no order, and the journal makes durable together what waits together.
const AT_ONCE: usize = 16;

/// `curfew publish finding`
pub async fn publish(config: &Config, what: PublishFindings, json: bool) -> Result<(), Failed> {
    let report = match what.from {
        Format::Gitleaks => read(config, &what, Adapter::Gitleaks).await?,
        Format::Trufflehog => read(config, &what, Adapter::TruffleHog).await?,
        Format::Gitlab => read(config, &what, Adapter::GitLab).await?,
        Format::Canonical => {
            let is_finding = |kind| matches!(kind, Type::FindingObserved | Type::FindingClosed);
            Report { events: checked(&what.files, is_finding)?, ..Report::default() }
        }
    };
    let Report { events, wrong, without } = report;
    let to = if events.is_empty() {
        "nowhere".to_owned()
    } else {
        send(config, &what.to, Way { topic: &what.topic, path: "/findings", at_once: AT_ONCE }, &events).await?
    };
    if json {
        let said = serde_json::json!({
            "events": events.len(), "without_fingerprint": without, "unreadable": wrong.len(), "to": to,
        });
        println!("{said}");
    } else {
        let note = if without > 0 { format!(", {without} of them without a fingerprint") } else { String::new() };
        println!("{} findings{note} to {to}", events.len());
    }
    if wrong.is_empty() {
        return Ok(());
    }
    let sent = if what.to.dry_run { "these cannot be read" } else { "the others were sent; these cannot be read" };
    Err(Failed::Data(format!("{sent}:{}", listed(&wrong))))
}

#[derive(Default)]
struct Report {
    events: Vec<Message>,
    wrong: Vec<String>,
    without: usize,
}

async fn read(config: &Config, what: &PublishFindings, adapter: Adapter) -> Result<Report, Failed> {
    let file = what.fingerprint_key.as_ref().or_else(|| configured(config));
    let keys = match file {
        Some(file) => Some(keys::read(config, file, what.transit.as_ref()).await?),
        None => None,
    };
    if keys.is_none() && !what.to.dry_run {
        let help = "--fingerprint-key is needed: without it no finding could be matched with a credential. \
            `curfew fingerprint-key FILE` makes one; the processes of `curfew run` need the same file";
        return Err(Failed::Usage(help.to_owned()));
    }
    let now_ms = curfew::clock::System::shared().wall_ms();
    let given = Given { keys: keys.as_ref(), repository: what.repository.as_deref(), now_ms };
    let mut report = Report::default();
    let bar = bar(None);
    for file in or_stdin(&what.files) {
        let (name, from) = open(file)?;
        let found = adapters::read(adapter, from, given)
            .map_err(|why| Failed::Usage(format!("{why} by `--repository NAME`, such as `--repository o/r`")))?;
        for one in found {
            match one {
                Ok(made) => {
                    report.without += usize::from(made.fingerprints == 0);
                    report.events.push(Message { key: made.key, body: made.body });
                    bar.inc(1);
                }
                Err(bad) => report.wrong.push(format!("{name}:{}: {}", bad.line, bad.why)),
            }
        }
    }
    bar.finish_and_clear();
    Ok(report)
}

fn open(file: &Path) -> Result<(String, Box<dyn Read>), Failed> {
    if file == Path::new("-") {
        return Ok(("stdin".to_owned(), Box::new(std::io::stdin())));
    }
    let name = file.display().to_string();
    let from = std::fs::File::open(file).map_err(|error| Failed::Data(format!("{name}: {error}")))?;
    Ok((name, Box::new(from)))
}

fn configured(config: &Config) -> Option<&PathBuf> {
    config.fingerprint.as_ref().map(|settings| &settings.key_file)
}

/// `curfew fingerprint-key`
pub async fn new_key(config: &Config, what: &FingerprintKey, json: bool) -> Result<(), Failed> {
    let file = what.file.as_ref().or_else(|| configured(config));
    let file = file.ok_or_else(|| Failed::Usage("name the file: `curfew fingerprint-key FILE`".to_owned()))?;
    let transit = keys::transit(config, what.transit.as_ref()).await?;
    if what.rewrap {
        let help = "by which transit key? Name it by --transit MOUNT/KEY";
        let transit = transit.ok_or_else(|| Failed::Usage(help.to_owned()))?;
        let kids = fingerprint::rewrap(file, &transit).await.map_err(unusable)?;
        if json {
            println!("{}", serde_json::json!({ "rewrapped": kids }));
        } else {
            println!("{} wrapped anew in {}: the keys are the same", kids.join(", "), file.display());
        }
        return Ok(());
    }
    let wrapped = match &transit {
        Some(transit) => {
            Some(transit.new_wrapped().await.map_err(|error| Failed::Unavailable(format!("no new key: {error}")))?)
        }
        None => None,
    };
    let made = fingerprint::new_key(file, what.drop_oldest, wrapped.as_deref()).map_err(unusable)?;
    if json {
        let said = serde_json::json!({ "key": made.kid, "kept": made.kept, "dropped": made.dropped,
            "wrapped": wrapped.is_some() });
        println!("{said}");
        return Ok(());
    }
    let note = if wrapped.is_some() { ", wrapped by Vault" } else { "" };
    println!("{} is the newest key in {}{note}", made.kid, file.display());
    if let Some(kept) = made.kept {
        println!("{kept} stays live: register all credentials again, then it can be dropped");
    }
    if let Some(dropped) = made.dropped {
        println!("{dropped} is gone: what only it has fingerprinted is matched no more");
    }
    Ok(())
}

//! `curfew exec`: what the library needs, from flags, configuration and environment.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use curfew::clock;
use curfew::config::file::Millis;
use curfew::config::{Config, Environment};
use curfew::connector::vault::mint::Issuer;
use curfew::exec::child::{self, Signals};
use curfew::exec::events::{Run, usual_id};
use curfew::exec::within::Reach;
use curfew::exec::{Exec, Plan, Way, hand, names, times};
use curfew::scope;
use curfew::task::{Actions, Boundary};
use curfew::tell::{self, Page, Teller};

use crate::{Failed, args, caller};

/// How long Curfew may take to answer once.
const PATIENCE: Duration = Duration::from_secs(10);

/// `curfew exec`
pub async fn exec(config: &Config, what: args::Exec, json: bool) -> Result<ExitCode, Failed> {
    // From here on nothing ends us unheard.
    let signals = Signals::listen().map_err(anyhow::Error::from)?;
    let reach = reach(config, &what)?;
    let (plan, to, topic, summary_file) = plan(config, what)?;
    let (settings, token) = caller::vault(config).await?;
    let issuer = Issuer::new(&settings, &token).map_err(|error| Failed::Usage(error.to_string()))?;
    drop(token);
    let teller = Teller::open(config, &to.way(&topic, "/events", PATIENCE));
    let say = |line: &str| eprintln!("curfew: {line}");
    let exec = Exec {
        plan: &plan,
        issuer: &issuer,
        teller: teller.as_ref().map_err(Clone::clone),
        reach: reach.as_ref(),
        clock: clock::System::shared(),
        say: &say,
    };
    let (code, summary) = Box::pin(exec.run(signals)).await;
    let summary = summary.json();
    if json {
        eprintln!("{summary}");
    }
    if let Some(file) = summary_file
        && let Err(error) = std::fs::write(&file, format!("{summary}\n"))
    {
        say(&format!("{}: {error}", file.display()));
    }
    if let Ok(teller) = teller {
        teller.close().await;
    }
    Ok(ExitCode::from(code))
}

/// Whose reach is asked, where that is wanted.
fn reach(config: &Config, what: &args::Exec) -> Result<Option<Reach>, Failed> {
    let Some(file) = &what.reach_token_file else { return Ok(None) };
    if what.boundary.is_empty() && what.boundary_action.is_empty() {
        return Err(Failed::Usage("--reach-token-file needs a --boundary or --boundary-action".to_owned()));
    }
    let http = what.to.http.as_deref();
    let to = tell::To { kafka: None, http, token_file: Some(file), topic: "", path: "/reach", timeout: PATIENCE };
    let page = Page::open(config, &to).map_err(|error| Failed::Usage(error.to_string()))?;
    Ok(Some(Reach { page, report_only: what.boundary_report_only }))
}

type Planned = (Plan, args::To, String, Option<PathBuf>);

fn plan(config: &Config, what: args::Exec) -> Result<Planned, Failed> {
    let file = match child::find(&what.command[0], std::env::var_os("PATH").as_deref()) {
        Ok(file) => file,
        Err(error) => return Err(Failed::Command(error.exit_code(), error.to_string())),
    };
    if what.roles.is_empty() && what.policies.is_empty() && !what.give_token {
        return Err(Failed::Usage("name what the command needs: --role, --policy or --give-token".to_owned()));
    }
    names::check(&what.roles, &what.variables).map_err(Failed::Usage)?;
    let (ttl, heartbeat) = (span(what.ttl), span(what.heartbeat));
    if ttl < times::SHORTEST {
        return Err(Failed::Usage("--ttl is 2s or more".to_owned()));
    }
    if !heartbeat.is_zero() && heartbeat < Duration::from_secs(1) {
        return Err(Failed::Usage("--heartbeat is 1s or more, or 0s".to_owned()));
    }
    let variable = |name: &str| std::env::var(name).ok();
    let name = Path::new(&what.command[0]).file_name().map(|name| name.to_string_lossy().into_owned());
    let run = Run {
        id: what.run.unwrap_or_else(|| usual_id(variable, uuid::Uuid::now_v7())),
        source: what.source,
        attempt: what.attempt,
        task: what.task.or(name).unwrap_or_else(|| "command".to_owned()),
        identity: what.identity,
        boundary: boundary(&what.boundary, &what.boundary_action)?,
    };
    run.check().map_err(Failed::Usage)?;
    let way = if what.wrap {
        Way::Wrapped
    } else if what.file {
        let usual = || hand::usual_base(std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from));
        let base = what.file_dir.or_else(usual);
        Way::Files(base.ok_or_else(|| Failed::Usage("there is no tmpfs here: name one by --file-dir".to_owned()))?)
    } else {
        Way::Environment
    };
    let plan = Plan {
        run,
        realm: what.realm.unwrap_or_else(|| realm(config)),
        give_token: what.give_token || what.roles.is_empty(),
        roles: what.roles,
        mappings: what.variables,
        policies: what.policies,
        way,
        ttl,
        grace: what.grace.map_or_else(|| times::usual_grace(ttl), span),
        heartbeat: Some(heartbeat).filter(|every| !every.is_zero()),
        unregistered: what.unregistered,
        keep_vault_token: what.keep_vault_token,
        end_within: span(what.end_within),
        file,
        args: what.command,
    };
    Ok((plan, what.to, what.topic, what.summary))
}

/// What the command's credentials are for, where that is said.
fn boundary(texts: &[String], actions: &[String]) -> Result<Option<Boundary>, Failed> {
    let mut boundary = Boundary::default();
    for text in texts {
        match text.split_once(':') {
            Some(("target", name)) if !name.is_empty() => boundary.targets.push(name.to_owned()),
            Some(("zone", name)) if !name.is_empty() => boundary.zones.push(name.to_owned()),
            _ => {
                return Err(Failed::Usage(
                    "--boundary is target:NAME or zone:NAME, as `curfew reach` names them".to_owned(),
                ));
            }
        }
    }
    if boundary.targets.len().max(boundary.zones.len()) > Boundary::MOST {
        return Err(Failed::Usage(format!("--boundary names at most {} targets and zones", Boundary::MOST)));
    }
    let mut named: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for text in actions {
        match text.split_once('=') {
            Some((target, permission)) if !target.is_empty() => named.entry(target).or_default().push(permission),
            _ => return Err(Failed::Usage("--boundary-action is TARGET=PERMISSION".to_owned())),
        }
    }
    if named.len() > Boundary::ACTIONS {
        return Err(Failed::Usage(format!("--boundary-action is about at most {} targets", Boundary::ACTIONS)));
    }
    for (target, texts) in named {
        let permissions = scope::permissions(texts);
        let permissions = permissions.map_err(|why| Failed::Usage(format!("--boundary-action: {why}")))?;
        boundary.actions.push(Actions { target: target.to_owned(), permissions });
    }
    Ok((!texts.is_empty() || !actions.is_empty()).then_some(boundary))
}

fn span(ms: Millis) -> Duration {
    Duration::from_millis(u64::try_from(ms.0).unwrap_or(0))
}

fn realm(config: &Config) -> String {
    let address = Environment::read().vault_addr;
    caller::at(config, address.as_deref()).map_or_else(|| "default".to_owned(), |realm| realm.rules.name.clone())
}

/// The process that becomes the task: see [`child::become_task`].
pub fn become_task(args: impl Iterator<Item = OsString>) -> ExitCode {
    let (code, why) = child::become_task(args);
    eprintln!("curfew: {why}");
    ExitCode::from(code)
}

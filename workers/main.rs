//! The command line of Curfew: each command is a short module; what it knows is in the library.

mod accounts;
mod args;
mod audit;
mod bind;
mod caller;
mod canary;
mod cases;
mod deadlines;
#[cfg(test)]
mod docs;
mod enforce;
mod exec;
mod feedback;
mod findings;
mod intake;
mod inventory;
mod keys;
mod kubernetes;
mod link;
mod offboard;
mod process;
mod publish;
mod reach;
mod reaches;
mod reconcile;
mod relay;
mod rescope;
mod run;
mod serve;
mod show;
mod stop;
mod tasks;
mod uses;
mod weights;

use std::process::ExitCode;

use args::{Args, Command};
use clap::{CommandFactory as _, Parser};
use curfew::config::{Config, Environment, Invalid, Overrides};
use curfew::exec::child::BECOME;
use curfew::tell;

/// Records and what is learned are many small values with short lives: a tenth less processor for each case than with
/// the system's allocator (benches/README.md).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What a command can end with, besides success and clap's own 2.
#[derive(Debug, thiserror::Error)]
pub enum Failed {
    /// 2: the command line asks for what cannot be.
    #[error("{0}")]
    Usage(String),
    /// 64: the configuration is wrong.
    #[error(transparent)]
    Configuration(#[from] Invalid),
    /// 65: the data is wrong.
    #[error("{0}")]
    Data(String),
    /// 126, 127: there is no such command to run.
    #[error("{1}")]
    Command(u8, String),
    /// 69: what it needs does not answer.
    #[error("{0}")]
    Unavailable(String),
    /// 1: anything else.
    #[error("{0:#}")]
    Other(#[from] anyhow::Error),
}

impl From<tell::Error> for Failed {
    fn from(error: tell::Error) -> Self {
        match error {
            tell::Error::Unavailable(why) => Self::Unavailable(why),
            tell::Error::Refused(why) => Self::Data(why),
        }
    }
}

impl Failed {
    fn code(&self) -> u8 {
        match self {
            Self::Usage(_) => 2,
            Self::Configuration(_) => 64,
            Self::Data(_) => 65,
            Self::Command(code, _) => *code,
            Self::Unavailable(_) => 69,
            Self::Other(_) => 1,
        }
    }
}

fn main() -> ExitCode {
    curfew::telemetry::quiet_panics();
    let mut raw = std::env::args_os().skip(1);
    if raw.next().is_some_and(|first| first == BECOME) {
        return exec::become_task(raw);
    }
    // One TLS for all: whoever comes second would find two and panic.
    if rustls::crypto::aws_lc_rs::default_provider().install_default().is_err() {
        eprintln!("curfew: a TLS provider was installed before main");
    }
    let args = Args::parse();
    match dispatch(args) {
        Ok(code) => code,
        Err(failed) => {
            if let Failed::Configuration(invalid) = &failed {
                eprint!("{}", invalid.report(show::colour_on_stderr()));
            } else {
                eprintln!("curfew: {failed}");
            }
            ExitCode::from(failed.code())
        }
    }
}

fn dispatch(args: Args) -> Result<ExitCode, Failed> {
    let common = args.common;
    let mut commands = tokio::runtime::Builder::new_current_thread();
    match args.command {
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Args::command(), "curfew", &mut std::io::stdout());
            return Ok(ExitCode::SUCCESS);
        }
        Command::Check => return check(&common).map(|()| ExitCode::SUCCESS),
        Command::Run(run) => {
            let (over, share) = run.split(common.journal.clone());
            let config = configuration(&common, &over)?;
            share.part.check(&config)?;
            runtime(&mut tokio::runtime::Builder::new_multi_thread())?.block_on(run::run(config, share))?;
            return Ok(ExitCode::SUCCESS);
        }
        _ => {}
    }
    let over = Overrides { journal: common.journal.clone(), ..Overrides::default() };
    let config = configuration(&common, &over)?;
    let runtime = runtime(&mut commands)?;
    let command = match args.command {
        Command::Exec(what) => return runtime.block_on(exec::exec(&config, *what, common.json)),
        Command::Reach(what) => return runtime.block_on(reaches::reach(&config, what, common.json)),
        Command::Canary(what) => return runtime.block_on(canary::once(config, what, common.json)),
        other => other,
    };
    runtime.block_on(async {
        match command {
            Command::Publish(what) => publish::publish(&config, what, common.json).await,
            Command::FingerprintKey(what) => findings::new_key(&config, &what, common.json).await,
            Command::Cases(which) => cases::list(&config, which, common.json).await,
            Command::Tasks(which) => tasks::list(&config, which, common.json).await,
            Command::Findings(which) => cases::findings(&config, which, common.json).await,
            Command::Case(one) => cases::one(&config, one, common.json).await,
            Command::Freeze(how) => stop::freeze(&config, how, common.json).await,
            Command::Release(who) => stop::release(&config, who, common.json).await,
            Command::Resume(word) => stop::resume(&config, word, common.json).await,
            Command::Abandon(word) => stop::abandon(&config, word, common.json).await,
            Command::RetryNow(word) => stop::retry_now(&config, word, common.json).await,
            Command::Rotate(what) => stop::rotate(&config, what, common.json).await,
            Command::Split(what) => stop::split(&config, what, common.json).await,
            Command::Reduce(what) => rescope::reduce(&config, what, common.json).await,
            Command::Rollback(what) => rescope::rollback(&config, what, common.json).await,
            Command::Keep(what) => rescope::keep(&config, what, common.json).await,
            Command::Offboard(what) => offboard::offboard(&config, what, common.json).await,
            Command::Revoke(what) => stop::revoke(&config, what, common.json).await,
            Command::Position(what) => stop::position(&config, what, common.json).await,
            Command::Audit(what) => audit::audit(&config, what, common.json).await,
            // Done above.
            Command::Run(_)
            | Command::Exec(_)
            | Command::Reach(_)
            | Command::Canary(_)
            | Command::Check
            | Command::Completions { .. } => Ok(()),
        }
    })?;
    Ok(ExitCode::SUCCESS)
}

fn runtime(builder: &mut tokio::runtime::Builder) -> Result<tokio::runtime::Runtime, Failed> {
    Ok(builder.enable_all().build().map_err(anyhow::Error::from)?)
}

/// The configuration that the flags name, or `curfew.yaml` where there is one.
fn configuration(common: &args::Common, over: &Overrides) -> Result<Config, Failed> {
    let here = std::path::Path::new("curfew.yaml");
    let path = common.config.as_deref().or_else(|| here.is_file().then_some(here));
    Ok(Config::load(path, over, &Environment::read())?)
}

fn check(common: &args::Common) -> Result<(), Failed> {
    let over = Overrides { journal: common.journal.clone(), ..Overrides::default() };
    match configuration(common, &over) {
        Ok(config) => {
            if common.json {
                println!("{}", serde_json::json!({ "ok": true, "warnings": config.warnings }));
            } else {
                for warning in &config.warnings {
                    eprintln!("warning: {warning}");
                }
                println!("{}", show::summary(&config));
            }
            Ok(())
        }
        Err(Failed::Configuration(invalid)) if common.json => {
            let problems: Vec<_> = invalid
                .problems
                .iter()
                .map(
                    |p| serde_json::json!({ "line": p.line, "column": p.column, "message": p.message, "help": p.help }),
                )
                .collect();
            println!("{}", serde_json::json!({ "ok": false, "file": invalid.file, "problems": problems }));
            Err(Failed::Configuration(invalid))
        }
        Err(failed) => Err(failed),
    }
}

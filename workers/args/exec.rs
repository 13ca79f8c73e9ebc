//! `curfew exec`.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args as ClapArgs, ValueHint};
use curfew::config::file::Millis;
use curfew::exec::names::{Mapping, Role};

use super::To;

pub const ABOUT: &str = "Run a command with credentials of its own, that end with it.\n\n\
    Vault is asked with your token (VAULT_ADDR, VAULT_TOKEN or ~/.vault-token) for a child token of this task, and with \
    that for a credential of each --role. Curfew has the task before Vault is asked, and each credential before the \
    command gets it. At the end, or when its time is over, all of it is revoked, here and by Curfew; what is killed with \
    -9 ends by its missed heartbeats, its deadline, and its TTL.\n\n\
    A role DB=database/creds/ro gives the command DB_USERNAME and DB_PASSWORD; one without a name is called by its path. \
    Signals are passed on; stdin, stdout and stderr are the command's own.";

pub const AFTER: &str = "Examples:\n  \
    curfew exec --role DB=database/creds/ro -- ./report.sh    # DB_USERNAME, DB_PASSWORD\n  \
    curfew exec --role D=database/creds/ro --env PGUSER=D.username --env PGPASSWORD=D.password -- pg_dump app\n  \
    curfew exec --role DB=database/creds/ro --file --ttl 2h -- ./job   # DB_PASSWORD_FILE, in memory\n  \
    curfew exec --role DB=database/creds/ro --wrap -- ./job     # DB_WRAPPED_TOKEN opens once\n  \
    curfew exec --policy deploy-staging -- terraform apply      # VAULT_TOKEN, bounded\n  \
    curfew exec --role DB=database/creds/ro --boundary-action appdb=relation:shop.orders:SELECT -- ./report.sh\n\n\
    Exit codes:\n  \
    the command's own, or 128 + the number of the signal that ended it\n  \
    124  its time was over (--ttl)\n  \
    125  curfew exec failed; the command was not started\n  \
    126  the command cannot be executed\n  \
    127  the command was not found\n  \
    69   Curfew or Vault does not answer; the command was not started\n  \
    2    the command line is wrong (64: the configuration)";

/// `curfew exec`
#[derive(Debug, Clone, ClapArgs)]
pub struct Exec {
    /// A path of Vault that gives a credential with a lease, and what its variables begin with
    #[arg(long = "role", value_name = "[NAME=]PATH")]
    pub roles: Vec<Role>,
    /// Bound the task: its token has this policy and no other (repeat for several). Alone, the command gets it as VAULT_TOKEN
    #[arg(long = "policy", value_name = "NAME")]
    pub policies: Vec<String>,
    /// Give the command the task's token as VAULT_TOKEN, beside the roles
    #[arg(long)]
    pub give_token: bool,
    /// How long all of it may live
    #[arg(long, value_name = "SPAN", default_value = "15m", value_parser = span)]
    pub ttl: Millis,
    /// How long before that the command is told to end by SIGTERM [default: a tenth of it, at most 10s]
    #[arg(long, value_name = "SPAN", value_parser = span)]
    pub grace: Option<Millis>,
    /// How often Curfew hears that the task lives; 0s: never
    #[arg(long, value_name = "SPAN", default_value = "10s", value_parser = span)]
    pub heartbeat: Millis,
    /// Call a variable otherwise, instead of all that its role would give
    #[arg(long = "env", value_name = "VARIABLE=ROLE.FIELD")]
    pub variables: Vec<Mapping>,
    /// Hand over in files: in memory, mode 0600, gone at the end; NAME_FIELD_FILE says where
    #[arg(long, conflicts_with = "wrap")]
    pub file: bool,
    /// The tmpfs for --file [default: /dev/shm, else $XDG_RUNTIME_DIR]
    #[arg(long, value_name = "FOLDER", requires = "file", value_hint = ValueHint::DirPath)]
    pub file_dir: Option<PathBuf>,
    /// Hand over Vault's wrapping tokens: NAME_WRAPPED_TOKEN opens once
    #[arg(long, conflicts_with = "variables")]
    pub wrap: bool,
    /// The run's id: once for each attempt [default: of the CI job or pod and a fresh UUID]
    #[arg(long, value_name = "ID")]
    pub run: Option<String>,
    /// Which try of that run this is
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub attempt: u32,
    /// What the task is called [default: the command's name]
    #[arg(long, value_name = "NAME")]
    pub task: Option<String>,
    /// Who runs it, such as a SPIFFE id or an agent's name
    #[arg(long, value_name = "ID")]
    pub identity: Option<String>,
    /// What its credentials are for, `target:NAME` or `zone:NAME` as `curfew reach` names them; may be repeated
    #[arg(long, value_name = "TARGET|ZONE")]
    pub boundary: Vec<String>,
    /// What is to be done at a target, and no more there, in the words of `curfew reduce`; may be repeated
    #[arg(long, value_name = "TARGET=PERMISSION")]
    pub boundary_action: Vec<String>,
    /// Ask this Curfew's `/reach` first, with the token in this file: what opens more than the boundary is not minted
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub reach_token_file: Option<PathBuf>,
    /// Only say what opens more than the boundary
    #[arg(long, requires = "reach_token_file")]
    pub boundary_report_only: bool,
    /// Who speaks for it: one name for all that start tasks in this way
    #[arg(long, value_name = "URI", default_value = "/exec")]
    pub source: String,
    /// What Curfew's configuration calls this Vault [default: the one of that address there, else `default`]
    #[arg(long, value_name = "NAME")]
    pub realm: Option<String>,
    /// Where Curfew is.
    #[command(flatten)]
    pub to: To,
    /// The Kafka topic
    #[arg(long, default_value = "curfew.tasks")]
    pub topic: String,
    /// Run it also where Curfew cannot be told: then only the TTL bounds what a kill leaves
    #[arg(long)]
    pub unregistered: bool,
    /// Leave your own VAULT_TOKEN in the command's environment
    #[arg(long, conflicts_with = "give_token")]
    pub keep_vault_token: bool,
    /// How long the end is tried where Vault or Curfew does not answer
    #[arg(long, value_name = "SPAN", default_value = "15s", value_parser = span)]
    pub end_within: Millis,
    /// Write a summary as JSON, without secrets (--json: to stderr)
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub summary: Option<PathBuf>,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "CMD", value_hint = ValueHint::CommandWithArguments, num_args = 1..)]
    pub command: Vec<OsString>,
}

/// Vault's own longest life: more is a mistake, here as there.
const MOST: Millis = Millis(32 * 86_400_000);

fn span(text: &str) -> Result<Millis, &'static str> {
    Millis::parse(text).and_then(|span| if span <= MOST { Ok(span) } else { Err("at most 32d") })
}

//! What can be said on the command line.

mod exec;
mod publish;
mod reach;

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum, ValueHint};
use clap_complete::Shell;
use curfew::config::Overrides;
use curfew::config::file::Millis;

pub use exec::Exec;
pub use publish::{FingerprintKey, Format, Publish, PublishFindings, Published, Target, To, TransitKey};
pub use reach::Reach;

use crate::enforce::Part;
use crate::run::Share;

const EXIT_CODES: &str = "\
Exit codes:
  0   done
  1   it failed; what failed stands on stderr
  2   the command line is wrong
  64  the configuration is wrong (`curfew check` says where)
  65  an event is wrong (`curfew publish` says which)
  69  what it needs does not answer: the process, Kafka, Vault";

/// No credential outlives its task, and nothing is called dead until it was seen dead.
///
/// Curfew reads what schedulers say of tasks (over Kafka or HTTP), revokes the credentials of each task that is over,
/// and proves that they are dead. Start it by `curfew run`; the other commands talk to the running process over its
/// socket, or open its journal when none runs.
#[derive(Debug, Parser)]
#[command(name = "curfew", version, after_help = EXIT_CODES, propagate_version = true, arg_required_else_help = true)]
#[command(max_term_width = 110)]
pub struct Args {
    /// What all commands share.
    #[command(flatten)]
    pub common: Common,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What all commands share.
#[derive(Debug, Clone, ClapArgs)]
pub struct Common {
    /// The configuration; without it, `curfew.yaml` in this folder where there is one, else defaults
    #[arg(long, short, global = true, env = "CURFEW_CONFIG", value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub config: Option<PathBuf>,
    /// The journal's file, over the configuration
    #[arg(long, global = true, env = "CURFEW_JOURNAL", value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub journal: Option<PathBuf>,
    /// Print JSON, for machines
    #[arg(long, global = true)]
    pub json: bool,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the pipeline: intake, deadlines, enforcement, proof, outcomes
    #[command(long_about = "Run the pipeline: intake, deadlines, enforcement, proof, outcomes.\n\n\
        Without Kafka it takes CloudEvents over HTTP on loopback. Without a configuration, VAULT_ADDR and its \
        friends (VAULT_TOKEN, VAULT_NAMESPACE, VAULT_CACERT) name one Vault, which is only observed: what would be \
        revoked is published, nothing is. SIGTERM and SIGINT end it in good order; killed at any instant, it goes on \
        where it was.")]
    #[command(after_help = "Examples:\n  VAULT_ADDR=http://127.0.0.1:8200 curfew run\n  \
        curfew run --config /etc/curfew/curfew.yaml --log-json\n  curfew run --kafka 127.0.0.1:9092\n  \
        curfew run --config curfew.yaml --role enforce --realm prod --metrics 127.0.0.1:9465")]
    Run(Run),
    /// Run a command as a task, with credentials that end with it
    #[command(long_about = exec::ABOUT, after_help = exec::AFTER)]
    Exec(Box<Exec>),
    /// Send events: files or stdin of CloudEvents JSON, or scanners' reports
    #[command(long_about = publish::ABOUT, after_help = publish::EXAMPLES)]
    Publish(Publish),
    /// Make a key of fingerprints, or a newer one beside it
    #[command(long_about = publish::KEY_ABOUT, after_help = publish::KEY_EXAMPLES)]
    FingerprintKey(FingerprintKey),
    /// List cases, the open ones first
    #[command(after_help = "Examples:\n  curfew cases\n  curfew cases --state held --json\n  \
        curfew cases --closed --limit 20")]
    Cases(Cases),
    /// List running tasks: what each holds, till when, and who says so
    #[command(after_help = "Examples:\n  curfew tasks\n  curfew tasks --identity spiffe://corp/agents/triage\n  \
        curfew tasks --source /exec --json\n  curfew tasks --ended --limit 20\n  curfew tasks --unbound")]
    Tasks(Tasks),
    /// List findings of which no credential is known, the oldest first
    #[command(after_help = "Examples:\n  curfew findings\n  curfew findings --all --json")]
    Findings(Findings),
    /// Show one case: its events, what was done, what was seen
    #[command(after_help = "Example:\n  curfew case 0192f1c4")]
    Case(One),
    /// Stop all effects within a second, also when the process hangs
    #[command(
        long_about = "Stop all effects within a second.\n\nThe freeze is a file beside the journal, read before \
        every effect: it works when the process hangs, and it survives restarts. Intake goes on. A case that has \
        changed something goes on to its next safe point; with --hard that stops too."
    )]
    #[command(after_help = "Examples:\n  curfew freeze --reason 'wrong deadlines from ci'\n  curfew freeze --hard")]
    Freeze(Freeze),
    /// Lift a freeze, and a start that is held because its journal may be old
    Release(Who),
    /// Let a held case go on
    Resume(Word),
    /// Stop acting on a case; it stays open, keeps looking, keeps alarming
    Abandon(Abandon),
    /// Try a case again now
    RetryNow(Word),
    /// Rotate a credential now: a rotation of the configuration by its name, or any by its id
    #[command(after_help = "Examples:\n  curfew rotate orders-db --reason 'quarterly drill'\n  \
        curfew rotate orders-db --leaked --reason 'seen in a log'")]
    Rotate(Rotate),
    /// Give each agent that shares a credential a user of its own, one after another, and then end the shared one
    #[command(after_help = "Who they are says `split` of the rotation. See docs/split.md\n\nExamples:\n  \
        curfew split agents-db --reason 'one user for eight agents'\n  \
        curfew split agents-db --agent clerk --reason 'it needs less'\n  \
        curfew case 0192f1c4        # whose turn it is")]
    Split(Split),
    /// Take permissions from the identity of a credential: seen gone, and all others seen to be there
    #[command(after_help = "Examples:
  curfew reduce urn:curfew:cred:postgres-role:appdb:etl --take member:admins --take relation:public.orders:DELETE \
    --reason 'not its work'
  curfew reduce urn:curfew:cred:vault-approle:prod:approle/etl --take policy:kv-write --notice 7d --reason 'unused'

Of a PostgreSQL role: member:ROLE, relation:SCHEMA.NAME:PRIVILEGE, schema:NAME:PRIVILEGE. Of an AppRole of
Vault: policy:NAME, lifetime:token_max_ttl=SECONDS (also token_ttl, secret_id_ttl).
Of a user of AWS IAM: managed:ARN, inline:NAME, group:NAME, action:SERVICE:ACTION.
Where the system's mode is `observe`, the case shows what would be taken.")]
    Reduce(Reduce),
    /// Give back what a reduction took, exactly as it was
    #[command(after_help = "Example:\n  curfew rollback 0192f1c4 --reason 'the nightly job needs it'")]
    Rollback(Rollback),
    /// Keep an identity as it is, for a time, though a reduction was announced
    #[command(after_help = "Example:\n  curfew keep 0192f1c4 --for 30d --reason 'used at the end of the quarter'")]
    Keep(Keep),
    /// Retire somebody with all that it holds: fenced first, then each credential seen dead
    #[command(
        long_about = "Retire somebody with all that it holds.\n\nAn identity, an agent, an owner or one credential, as `curfew reach` calls \
        it. From then on each living credential that reach shows as its own is a finding, also one that is minted later, and is \
        retired. Where the configuration's `reductions` reach, the identity is fenced before the first of them dies: nothing lets \
        in by it any more. A fence is no death, and ends by itself; `curfew rollback` of its case ends it sooner. Of an owner \
        nothing is retired: what it answered for is found as unowned."
    )]
    #[command(after_help = "Examples:\n  curfew offboard identity:prod/approle/etl --reason 'the job moved'\n  \
        curfew offboard agent:triage --until 90d --reason 'replaced'\n  curfew offboard --list\n  \
        curfew offboard agent:triage --back --reason 'the wrong one'")]
    Offboard(Offboard),
    /// Revoke a credential, whatever its task says
    #[command(after_help = "Example:\n  curfew revoke urn:curfew:cred:vault-lease:prod:database/creds/app/x1 \
        --reason 'seen in a log'")]
    Revoke(Revoke),
    /// Have one canary die now: the whole way of a credential, measured beside a running Curfew
    #[command(
        long_about = "Have one canary die now: the whole way of a credential, measured beside a running Curfew.\n\nIt mints \
        the lease that the configuration's `canary` names, tells of a task that holds it, ends the task, and waits until Curfew \
        has called the lease dead and its issuer does not know it. Each stage is printed with its time since the start. It needs \
        the running process's socket, and leaves nothing behind. Exit code 1: it did not die in time, and why."
    )]
    #[command(after_help = "Examples:\n  curfew canary\n  curfew canary --within 30s --json")]
    Canary(Canary),
    /// Show who reaches what
    #[command(long_about = reach::ABOUT, after_help = reach::EXAMPLES)]
    Reach(Reach),
    /// Reports
    #[command(subcommand)]
    Audit(Audit),
    /// Check the configuration: the line at fault, and the nearest right name
    Check,
    /// Where intake stands
    #[command(subcommand)]
    Position(Position),
    /// Print a shell's completions
    Completions {
        /// The shell.
        shell: Shell,
    },
}

/// `curfew run`
#[derive(Debug, Clone, ClapArgs)]
pub struct Run {
    /// Kafka's brokers, over the configuration
    #[arg(long, value_name = "HOST:PORT,…")]
    pub kafka: Option<String>,
    /// Log JSON, one object a line
    #[arg(long)]
    pub log_json: bool,
    /// Only these roles, several of each in as many processes as wanted; needs a journal in PostgreSQL [default: all]
    #[arg(long = "role", value_name = "ROLE", value_delimiter = ',')]
    pub roles: Vec<Role>,
    /// Enforce and reconcile only these realms; the logins of others are not read
    #[arg(long = "realm", value_name = "NAME", value_delimiter = ',')]
    pub realms: Vec<String>,
    /// Enforce only these actions
    #[arg(long = "action", value_name = "ACTION", value_delimiter = ',')]
    pub actions: Vec<Action>,
    /// Where /metrics, /healthz and /readyz are served, over the configuration
    #[arg(long, value_name = "HOST:PORT")]
    pub metrics: Option<SocketAddr>,
    /// Where the status page is served, over the configuration
    #[arg(long, value_name = "HOST:PORT")]
    pub status: Option<SocketAddr>,
    /// The operators' socket, over the configuration
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub socket: Option<PathBuf>,
}

impl Run {
    /// What goes over the configuration, and what is this process's part.
    pub fn split(self, journal: Option<PathBuf>) -> (Overrides, Share) {
        let over = Overrides {
            journal,
            kafka: self.kafka,
            log_json: self.log_json,
            metrics: self.metrics,
            socket: self.socket,
            status: self.status,
        };
        let all = Role::ALL.to_vec();
        let roles = if self.roles.is_empty() { all } else { self.roles };
        let part = Part { realms: self.realms, actions: self.actions.into_iter().map(Into::into).collect() };
        (over, Share { roles: roles.into_iter().collect(), part })
    }
}

/// What a process does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Role {
    /// Events from Kafka into the journal
    Intake,
    /// Work on due cases: the only role that acts
    Enforce,
    /// Notice deadlines and silence; prune
    Deadlines,
    /// Compare what the issuers hold with the journal
    Reconcile,
    /// Read stores, to know their secrets by fingerprints only
    Inventory,
    /// Learn from metadata which run a credential is of
    Bind,
    /// Watch the Jobs and Pods of clusters
    Kubernetes,
    /// Mint a credential that may do nothing, and measure how it dies
    Canary,
    /// Read who reaches what
    Reach,
    /// Publish outcomes and rejects
    Relay,
    /// Operators' socket, intake over HTTP, gauges of the journal
    Serve,
}

impl Role {
    /// What one process does alone.
    pub const ALL: [Self; 11] = [
        Self::Intake,
        Self::Enforce,
        Self::Deadlines,
        Self::Reconcile,
        Self::Inventory,
        Self::Bind,
        Self::Kubernetes,
        Self::Canary,
        Self::Reach,
        Self::Relay,
        Self::Serve,
    ];

    /// The name on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Intake => "intake",
            Self::Enforce => "enforce",
            Self::Deadlines => "deadlines",
            Self::Reconcile => "reconcile",
            Self::Inventory => "inventory",
            Self::Bind => "bind",
            Self::Kubernetes => "kubernetes",
            Self::Canary => "canary",
            Self::Reach => "reach",
            Self::Relay => "relay",
            Self::Serve => "serve",
        }
    }
}

/// Actions to filter by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Action {
    /// Credentials that die
    Revoke,
    /// Leaked credentials that are rotated, the old value first
    Contain,
    /// Shared credentials of which each user gets one of its own
    Split,
    /// Credentials that are rotated, the new value first
    Rollover,
    /// Permissions that are given back
    Restore,
    /// Permissions that are taken
    Reduce,
    /// Looks at what is recorded as dead
    Verify,
    /// State that is recorded
    Track,
}

impl From<Action> for curfew::case::Action {
    fn from(action: Action) -> Self {
        match action {
            Action::Revoke => Self::Revoke,
            Action::Contain => Self::Contain,
            Action::Split => Self::Split,
            Action::Rollover => Self::Rollover,
            Action::Restore => Self::Restore,
            Action::Reduce => Self::Reduce,
            Action::Verify => Self::Verify,
            Action::Track => Self::Track,
        }
    }
}

/// States to filter by.
#[derive(Debug, Clone, Copy, ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum State {
    /// To be worked on.
    Ready,
    /// An effect's answer is missing.
    InDoubt,
    /// A step failed.
    Retrying,
    /// Not seen dead yet.
    Proving,
    /// The guard said no.
    Held,
    /// A person gave up on acting.
    Abandoned,
    /// Over.
    Closed,
}

/// `curfew cases`
#[derive(Debug, Clone, ClapArgs)]
pub struct Cases {
    /// Only in this state
    #[arg(long)]
    pub state: Option<State>,
    /// Only of this credential
    #[arg(long, value_name = "URN", allow_hyphen_values = true)]
    pub credential: Option<String>,
    /// Only of this run: `<source>:<run id>`
    #[arg(long)]
    pub run: Option<String>,
    /// Also closed ones
    #[arg(long)]
    pub closed: bool,
    /// At most
    #[arg(long, default_value_t = 100)]
    pub limit: u32,
}

/// `curfew findings`
#[derive(Debug, Clone, ClapArgs)]
pub struct Findings {
    /// Also those that are matched, closed or ignored, the newest first
    #[arg(long)]
    pub all: bool,
    /// At most
    #[arg(long, default_value_t = 100)]
    pub limit: u32,
}

/// `curfew tasks`
#[derive(Debug, Clone, ClapArgs)]
pub struct Tasks {
    /// Also those that ended, the newest first
    #[arg(long)]
    pub ended: bool,
    /// Only those that ended and of which nobody has said what they held, the last one first
    #[arg(long, conflicts_with = "ended")]
    pub unbound: bool,
    /// Only those that this CloudEvents source speaks for
    #[arg(long, value_name = "URI")]
    pub source: Option<String>,
    /// Only those that this workload or agent runs
    #[arg(long, value_name = "ID")]
    pub identity: Option<String>,
    /// At most
    #[arg(long, default_value_t = 100)]
    pub limit: u32,
}

/// A case.
#[derive(Debug, Clone, ClapArgs)]
pub struct One {
    /// The case's id, or as much of its beginning as no other has
    // What begins with `-` may be a pasted secret: clap would say it again as an unknown flag, we say what is wrong.
    #[arg(allow_hyphen_values = true)]
    pub id: String,
}

/// Who.
#[derive(Debug, Clone, ClapArgs)]
pub struct Who {
    /// Who says so
    #[arg(long, env = "USER", default_value = "operator")]
    pub by: String,
}

/// A word on a case.
#[derive(Debug, Clone, ClapArgs)]
pub struct Word {
    /// Which.
    #[command(flatten)]
    pub one: One,
    /// Who.
    #[command(flatten)]
    pub who: Who,
}

/// `curfew abandon`
#[derive(Debug, Clone, ClapArgs)]
pub struct Abandon {
    /// Which.
    #[command(flatten)]
    pub one: One,
    /// Why; it is recorded
    #[arg(long)]
    pub reason: String,
    /// Who.
    #[command(flatten)]
    pub who: Who,
}

/// `curfew freeze`
#[derive(Debug, Clone, ClapArgs)]
pub struct Freeze {
    /// Stop half-made cases too, and list them
    #[arg(long)]
    pub hard: bool,
    /// Why; it is recorded
    #[arg(long, default_value = "")]
    pub reason: String,
    /// Who.
    #[command(flatten)]
    pub who: Who,
}

/// `curfew rotate`
#[derive(Debug, Clone, ClapArgs)]
pub struct Rotate {
    /// The rotation's name in the configuration, or the credential's id
    #[arg(value_name = "NAME|URN", allow_hyphen_values = true)]
    pub what: String,
    /// The value leaked: the old one is cut first, whoever still uses it
    #[arg(long)]
    pub leaked: bool,
    /// Why; it is recorded
    #[arg(long)]
    pub reason: String,
    /// Whose, where not the realm's or the default tenant's
    #[arg(long)]
    pub tenant: Option<String>,
    /// Who.
    #[command(flatten)]
    pub who: Who,
}

/// `curfew split`
#[derive(Debug, Clone, ClapArgs)]
pub struct Split {
    /// The shared credential's rotation by its name in the configuration
    #[arg(value_name = "NAME")]
    pub what: String,
    /// Move this agent alone, and leave what it shared to the others; may be given up to 8 times
    #[arg(long = "agent", value_name = "NAME")]
    pub agents: Vec<String>,
    /// Why; it is recorded
    #[arg(long)]
    pub reason: String,
    /// Whose, where not the realm's or the default tenant's
    #[arg(long)]
    pub tenant: Option<String>,
    /// Who.
    #[command(flatten)]
    pub who: Who,
}

/// `curfew reduce`
#[derive(Debug, Clone, ClapArgs)]
pub struct Reduce {
    /// The credential's id
    #[arg(value_name = "URN", allow_hyphen_values = true)]
    pub credential: String,
    /// A permission to take; may be given up to 32 times
    #[arg(long, required = true, value_name = "PERMISSION")]
    pub take: Vec<String>,
    /// How long whoever answers for it has to say no
    #[arg(long, value_name = "SPAN")]
    pub notice: Option<String>,
    /// Why; it is recorded
    #[arg(long)]
    pub reason: String,
    /// Whose, where not the default tenant's
    #[arg(long, default_value = "default")]
    pub tenant: String,
    /// Who.
    #[command(flatten)]
    pub who: Who,
}

/// `curfew offboard`
#[derive(Debug, Clone, ClapArgs)]
pub struct Offboard {
    /// Who leaves: the whole name, as `curfew reach` shows it
    #[arg(required_unless_present = "list", requires = "reason", conflicts_with = "list")]
    pub name: Option<String>,
    /// Show who leaves, and the fences that stand
    #[arg(long)]
    pub list: bool,
    /// It stays after all: what was not begun is taken back
    #[arg(long, conflicts_with_all = ["list", "until"])]
    pub back: bool,
    /// The end of a name will do, where reach is whole and nobody else's name ends so
    #[arg(long, conflicts_with_all = ["list", "back"])]
    pub yes: bool,
    /// How long its fences stand [default: the configuration's `policy.fence_for`]
    #[arg(long, value_name = "SPAN", conflicts_with = "list")]
    pub until: Option<String>,
    /// Why; it is recorded
    #[arg(long)]
    pub reason: Option<String>,
    /// Whose, where not the default tenant's
    #[arg(long, default_value = "default")]
    pub tenant: String,
    /// Who.
    #[command(flatten)]
    pub who: Who,
}

/// `curfew rollback`
#[derive(Debug, Clone, ClapArgs)]
pub struct Rollback {
    /// The reduction's case.
    #[command(flatten)]
    pub one: One,
    /// Why; it is recorded
    #[arg(long)]
    pub reason: String,
    /// Who.
    #[command(flatten)]
    pub who: Who,
}

/// `curfew keep`
#[derive(Debug, Clone, ClapArgs)]
pub struct Keep {
    /// The reduction's case.
    #[command(flatten)]
    pub one: One,
    /// For how long, such as 30d
    #[arg(long = "for", value_name = "SPAN")]
    pub span: String,
    /// Why; it is recorded
    #[arg(long)]
    pub reason: String,
    /// Who.
    #[command(flatten)]
    pub who: Who,
}

/// `curfew revoke`
#[derive(Debug, Clone, ClapArgs)]
pub struct Revoke {
    /// The credential's id
    #[arg(value_name = "URN", allow_hyphen_values = true)]
    pub credential: String,
    /// Why; it is recorded
    #[arg(long)]
    pub reason: String,
    /// Whose, where not the default tenant's
    #[arg(long, default_value = "default")]
    pub tenant: String,
    /// Who.
    #[command(flatten)]
    pub who: Who,
}

/// `curfew canary`
#[derive(Debug, Clone, ClapArgs)]
pub struct Canary {
    /// How long it may take, over the configuration's `within`; at least 1s
    #[arg(long, value_name = "SPAN", value_parser = Millis::parse)]
    pub within: Option<Millis>,
}

/// `curfew audit`
#[derive(Debug, Clone, Subcommand)]
pub enum Audit {
    /// Each credential: its task's life, its validity, its death, and how long it lived too long
    Overrun {
        /// Only those that outlived their task by more than this
        #[arg(long, value_name = "SPAN")]
        over: Option<String>,
    },
    /// Standing credentials: who is known to use each, and what gives a task the same for its time only
    #[command(after_help = "Examples:\n  curfew audit standing\n  curfew audit standing --only-tasks --json")]
    Standing {
        /// Only those that tasks use, and of which nobody else is known to use them
        #[arg(long)]
        only_tasks: bool,
        /// At most
        #[arg(long, default_value_t = 10_000)]
        limit: u32,
    },
}

/// `curfew position`
#[derive(Debug, Clone, Subcommand)]
pub enum Position {
    /// Answer a halted partition: go on from this offset. What lies between is skipped, or read again
    Set {
        /// The Kafka cluster's id, as the halt's message names it
        #[arg(long)]
        cluster: String,
        /// The topic
        #[arg(long)]
        topic: String,
        /// The partition
        #[arg(long)]
        partition: i32,
        /// The offset of the next record to read
        #[arg(long)]
        offset: i64,
    },
    /// Forget a Kafka cluster that is read no more: where its partitions ended holds all deadlines back
    Drop {
        /// Its id; one that is not known is answered with those that are
        #[arg(long)]
        cluster: String,
    },
}

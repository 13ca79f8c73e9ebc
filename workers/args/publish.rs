//! `curfew publish` and what it needs.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args as ClapArgs, Subcommand, ValueEnum, ValueHint};
use curfew::tell;

pub const ABOUT: &str = "Send events: files or stdin of CloudEvents JSON (one object, an array, or one object a \
    line).\n\nAll are checked before the first is sent: a wrong one is named by file and line, never quoted.";
pub const EXAMPLES: &str = "Examples:\n  curfew publish ended.json\n  \
    jq -c '.[]' events.json | curfew publish --kafka 127.0.0.1:9092 --topic curfew.tasks\n  \
    curfew publish --dry-run *.json\n  \
    gitleaks git --report-format json --report-path - | curfew publish finding --from gitleaks --repository o/r";
const FINDING_ABOUT: &str = "Send what a scanner found: its own report, in files or on stdin.\n\nSecrets are \
    fingerprinted (HMAC-SHA-256 under the key of --fingerprint-key) and dropped before anything is sent. Of the other \
    fields only named ones are read, and a secret that stands in one of them is masked. What cannot be read is named \
    by file and line, never quoted; the rest is sent, and the exit code is 65. Sent \
    twice, a report is the same findings: repeats are recorded as duplicates.";
const FINDING_EXAMPLES: &str = "Examples:\n  \
    gitleaks git --report-format json --report-path - | curfew publish finding --from gitleaks --repository o/r\n  \
    trufflehog git file://. --json | curfew publish finding --from trufflehog\n  \
    curfew publish finding --from gitleaks --repository o/r --kafka 127.0.0.1:9092 report.json\n  \
    curfew publish finding --from trufflehog --dry-run --json report.jsonl";
pub const KEY_ABOUT: &str = "Make a key of fingerprints in a new file that only its owner can read, or put a newer one \
    before that of an existing file.\n\nTwo keys are live at once: with the newer one in place, register all \
    credentials again; what was fingerprinted by the older one is matched meanwhile. All processes, and whoever runs \
    `curfew publish finding`, need the same file.";
pub const KEY_EXAMPLES: &str = "Examples:\n  curfew fingerprint-key /etc/curfew/fingerprint.keys\n  \
    curfew fingerprint-key --drop-oldest";

/// `curfew publish`
#[derive(Debug, Clone, ClapArgs)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Publish {
    /// Something else than events.
    #[command(subcommand)]
    pub what: Option<Published>,
    /// Files; none or `-`: stdin
    #[arg(value_hint = ValueHint::FilePath)]
    pub files: Vec<PathBuf>,
    /// Where to.
    #[command(flatten)]
    pub to: Target,
    /// The Kafka topic
    #[arg(long, default_value = "curfew.tasks")]
    pub topic: String,
}

/// Where to, or nowhere.
#[derive(Debug, Clone, ClapArgs)]
pub struct Target {
    /// Where to.
    #[command(flatten)]
    pub to: To,
    /// Only check
    #[arg(long)]
    pub dry_run: bool,
}

/// Where to.
#[derive(Debug, Clone, ClapArgs)]
pub struct To {
    /// Send to Kafka instead of HTTP
    #[arg(long, value_name = "HOST:PORT,…", conflicts_with_all = ["http", "token_file"])]
    pub kafka: Option<String>,
    /// A Curfew's intake; without it, the configured one
    #[arg(long, value_name = "URL")]
    pub http: Option<String>,
    /// Holds the intake's token; without it, the configured one
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub token_file: Option<PathBuf>,
}

impl To {
    /// The way to `topic` in Kafka, or to `path` of an intake.
    pub fn way<'a>(&'a self, topic: &'a str, path: &'a str, timeout: Duration) -> tell::To<'a> {
        let (kafka, http) = (self.kafka.as_deref(), self.http.as_deref());
        tell::To { kafka, http, token_file: self.token_file.as_deref(), topic, path, timeout }
    }
}

/// What else can be published.
#[derive(Debug, Clone, Subcommand)]
pub enum Published {
    /// Send what a scanner found: its own report, without the secrets
    #[command(long_about = FINDING_ABOUT, after_help = FINDING_EXAMPLES)]
    Finding(PublishFindings),
}

/// `curfew publish finding`
#[derive(Debug, Clone, ClapArgs)]
pub struct PublishFindings {
    /// Files; none or `-`: stdin
    #[arg(value_hint = ValueHint::FilePath)]
    pub files: Vec<PathBuf>,
    /// Whose report it is
    #[arg(long, value_name = "FORMAT")]
    pub from: Format,
    /// What was scanned; gitleaks does not say it
    #[arg(long, value_name = "NAME")]
    pub repository: Option<String>,
    /// Holds the keys of fingerprints; without it, the configured one
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub fingerprint_key: Option<PathBuf>,
    /// Where to.
    #[command(flatten)]
    pub to: Target,
    /// The Kafka topic
    #[arg(long, default_value = "curfew.findings")]
    pub topic: String,
}

/// Whose report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Gitleaks v8, `--report-format json`
    Gitleaks,
    /// TruffleHog v3, `--json`
    Trufflehog,
    /// `finding.observed` and `finding.closed` as CloudEvents JSON
    Canonical,
}

/// `curfew fingerprint-key`
#[derive(Debug, Clone, ClapArgs)]
pub struct FingerprintKey {
    /// The file; without it, the configured one
    #[arg(value_hint = ValueHint::FilePath)]
    pub file: Option<PathBuf>,
    /// Where two keys are live already: drop the older one. What only it has fingerprinted is matched no more
    #[arg(long)]
    pub drop_oldest: bool,
}

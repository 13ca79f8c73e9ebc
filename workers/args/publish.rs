//! `curfew publish` and what it needs.

use std::path::PathBuf;
use std::str::FromStr;
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
    `curfew publish finding`, need the same file.\n\nWith --transit the key is one that Vault makes and wraps: the \
    file alone opens nothing, and nobody sees the key here. Whoever uses it unwraps it by a login of its own, which \
    Vault's audit log shows.";
pub const KEY_EXAMPLES: &str = "Examples:\n  curfew fingerprint-key /etc/curfew/fingerprint.keys\n  \
    curfew fingerprint-key --drop-oldest\n  \
    curfew fingerprint-key --transit transit/curfew-fingerprint /etc/curfew/fingerprint.keys";

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
    /// What was scanned; gitleaks and gitlab do not say it
    #[arg(long, value_name = "NAME")]
    pub repository: Option<String>,
    /// Holds the keys of fingerprints; without it, the configured one
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub fingerprint_key: Option<PathBuf>,
    /// Vault's transit key that unwraps them (VAULT_ADDR, VAULT_TOKEN); without it, the configured one
    #[arg(long, value_name = "MOUNT/KEY")]
    pub transit: Option<TransitKey>,
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
    /// GitLab's `gl-secret-detection-report.json`
    Gitlab,
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
    /// Let Vault make the key, wrapped by this transit key (VAULT_ADDR, VAULT_TOKEN); without it, the configured one
    #[arg(long, value_name = "MOUNT/KEY")]
    pub transit: Option<TransitKey>,
    /// Make no key: have those that Vault wrapped wrapped anew, by the newest version of the transit key
    #[arg(long, conflicts_with = "drop_oldest")]
    pub rewrap: bool,
}

/// A key of Vault's transit engine.
#[derive(Debug, Clone)]
pub struct TransitKey {
    pub mount: String,
    pub key: String,
}

impl FromStr for TransitKey {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts = text.trim_matches('/').rsplit_once('/').filter(|(mount, key)| !mount.is_empty() && !key.is_empty());
        let (mount, key) = parts.ok_or("the engine's mount and the key, such as transit/curfew-fingerprint")?;
        Ok(Self { mount: mount.to_owned(), key: key.to_owned() })
    }
}

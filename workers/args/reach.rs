//! `curfew reach`

use std::path::PathBuf;

use clap::{ArgGroup, Args as ClapArgs, ValueHint};

/// What it is for.
pub const ABOUT: &str = "Show what an identity, an agent or a credential can open, by which way, and who says so.\n\n\
    Read from the sources of `reach` in the configuration: policies of Vault, roles of PostgreSQL, IAM, what Curfew holds, \
    and what people declared. A source that is not whole is named: what it does not show may still be there.";
/// How it is used.
pub const EXAMPLES: &str = "Examples:\n  curfew reach identity:prod/approle/etl\n  \
    curfew reach urn:curfew:cred:postgres-role:appdb:orders --svg reach.svg\n  curfew reach --crosses-zones\n  \
    curfew reach --who target:appdb --json\n  curfew reach --dormant 90d\n  curfew reach --unused 90d\n  curfew reach --long-lived\n  curfew reach --gate agent:triage\n\n\
    Exit codes of --gate:\n  0   it opens nothing beyond what was declared\n  1   it does, or nothing was declared\n  \
    69  not all sources are whole: nobody can say";

/// `curfew reach`
#[derive(Debug, Clone, ClapArgs)]
#[command(group = ArgGroup::new("question").required(true).args([
    "id", "crosses_zones", "shared", "dormant", "unused", "long_lived", "unowned", "who", "gate", "sources",
]))]
pub struct Reach {
    /// Whose reach: `<kind>:<name>`, the URN of a credential, or the end of a name that no other has
    #[arg(value_name = "ID", allow_hyphen_values = true)]
    pub id: Option<String>,
    /// Who reaches more than one trust zone
    #[arg(long)]
    pub crosses_zones: bool,
    /// Credentials that more than one agent or consumer uses
    #[arg(long)]
    pub shared: bool,
    /// Who was not used for this long, where the system tells
    #[arg(long, value_name = "SPAN")]
    pub dormant: Option<String>,
    /// Policies of AppRoles that granted nothing for this long, where an audit log tells; and why others are not called so
    #[arg(long, value_name = "SPAN")]
    pub unused: Option<String>,
    /// AppRoles whose tokens and secret_ids live longer than the tasks that work by them; and why others' are not called so
    #[arg(long)]
    pub long_lived: bool,
    /// Identities and credentials for which nobody answers
    #[arg(long)]
    pub unowned: bool,
    /// Who opens this target, zone or place
    #[arg(long, value_name = "ID", allow_hyphen_values = true)]
    pub who: Option<String>,
    /// Whether it opens more than was declared: for pipelines, by the exit code
    #[arg(long, value_name = "ID", allow_hyphen_values = true)]
    pub gate: Option<String>,
    /// Only where the sources stand
    #[arg(long)]
    pub sources: bool,
    /// Draw it into this file as well
    #[arg(long, value_name = "FILE", requires = "id", value_hint = ValueHint::FilePath)]
    pub svg: Option<PathBuf>,
    /// At most
    #[arg(long, default_value_t = 100)]
    pub limit: usize,
}

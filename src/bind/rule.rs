//! Which run a credential is of, by what its issuer says of it and what the configuration says of that. PURE.
//!
//! Metadata is chosen by whoever makes a credential. So a [`Rule`] names the one way of making it whose word it takes, and
//! the source of the runs that may be named: nobody else's metadata binds anything, and nobody's binds it to a foreign run.

use std::collections::BTreeMap;
use std::fmt;

use crate::credential::MAX_ID_BYTES;
use crate::event::run_among;
use crate::task::RunKey;

/// The longest value of a field that is taken, in bytes.
const MAX_VALUE_BYTES: usize = 512;
/// Fields of known auth methods, and usual names of claims, whose value many runs share: none of them names one run.
const SHARED: [&str; 33] = [
    "account_id",
    "actor",
    "alias_name",
    "aud",
    "branch",
    "canonical_arn",
    "client_arn",
    "environment",
    "iss",
    "job",
    "namespace",
    "nomad_job_id",
    "nomad_namespace",
    "nomad_task",
    "org",
    "project_id",
    "project_path",
    "ref",
    "repository",
    "repository_id",
    "repository_owner",
    "role",
    "role_name",
    "service_account",
    "service_account_name",
    "service_account_namespace",
    "service_account_secret_name",
    "service_account_uid",
    "serviceaccount",
    "sub",
    "subject",
    "username",
    "workflow",
];

/// How a credential was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A token, by the path at which it was asked for, such as `auth/jwt-k8s/login`.
    Token(String),
    /// A secret_id of this AppRole: `<mount>/<role>`.
    SecretId(String),
}

impl Origin {
    /// Whether what was made at `made` is meant. A login's path may go on with a user's name (`auth/userpass/login/ana`);
    /// of token creation each path is one of its own.
    fn is_of(&self, made: &Self) -> bool {
        match (self, made) {
            (Self::Token(named), Self::Token(path)) => path
                .strip_prefix(named.as_str())
                .is_some_and(|rest| rest.is_empty() || (rest.starts_with('/') && !named.starts_with(CREATION))),
            (Self::SecretId(named), Self::SecretId(role)) => named.eq_ignore_ascii_case(role),
            _ => false,
        }
    }
}

/// Where tokens are made by tokens.
pub const CREATION: &str = "auth/token/";
/// Of these, the paths at which any token may make others with any metadata, where its policies give the path.
pub const FREE: [&str; 2] = ["auth/token/create", "auth/token/create-orphan"];

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Whose metadata is taken.
    pub origin: Origin,
    /// The metadata of the alias by which it logged in, and not its own.
    pub alias: bool,
    /// Only where these fields have these values.
    pub when: BTreeMap<String, String>,
    /// The run.
    pub run: RunTemplate,
    /// Who runs it.
    pub identity: Option<Template>,
}

/// What an issuer says of one credential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// How it was made.
    pub origin: Origin,
    /// Its own metadata.
    pub meta: BTreeMap<String, String>,
    /// That of its alias, where it was asked for and is of this login.
    pub alias: Option<BTreeMap<String, String>>,
}

/// What a credential is bound to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bound {
    /// The run.
    pub run: RunKey,
    /// Who runs it.
    pub identity: Option<String>,
}

/// What the first rule that fits says; a rule that finds no run in what was said does not fit.
pub fn bind(rules: &[Rule], said: &Said) -> Option<Bound> {
    rules.iter().find_map(|rule| rule.bind(said))
}

/// Whether the alias of what was made so is to be asked for.
pub fn wants_alias(rules: &[Rule], made: &Origin) -> bool {
    rules.iter().any(|rule| rule.alias && rule.origin.is_of(made))
}

/// Whether any rule takes the word of what was made so.
pub fn concerns(rules: &[Rule], made: &Origin) -> bool {
    rules.iter().any(|rule| rule.origin.is_of(made))
}

impl Rule {
    fn bind(&self, said: &Said) -> Option<Bound> {
        if !self.origin.is_of(&said.origin) {
            return None;
        }
        let fields = if self.alias { said.alias.as_ref()? } else { &said.meta };
        if self.when.iter().any(|(name, value)| fields.get(name) != Some(value)) {
            return None;
        }
        let run = self.run.fill(fields).filter(|run| run.as_str().len() <= MAX_ID_BYTES)?;
        Some(Bound { run, identity: self.identity.as_ref().and_then(|identity| identity.fill(fields, |_| true)) })
    }
}

/// A text with fields in it: `{name}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template(Vec<Piece>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    Field(String),
}

/// The key of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RunTemplate {
    /// `<source>:<id>`; the source begins with a fixed text.
    Parts {
        /// The source.
        source: Template,
        /// The id.
        id: Template,
    },
    /// A field that holds the whole key.
    Whole {
        /// The field.
        field: String,
        /// The sources of whose runs it may be, whole or ending in `*`.
        sources: Vec<String>,
    },
}

/// Why a text is no template of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadTemplate {
    /// Braces that do not stand around a name.
    #[error("a field is written as {{name}}, of letters, digits, `_`, `-`, `.` and `/`")]
    Braces,
    /// No colon, or nothing before or after it.
    #[error("a run is written `<source>:<id>`, such as `/openlineage/prod:{{run_id}}`")]
    NoParts,
    /// The source begins with a field.
    #[error("the source of a run begins with a fixed text: else its metadata could name any source's runs")]
    NoSource,
    /// Nothing in the id tells one run from another.
    #[error("no field of this id names one run: what many runs share would die with the first of them")]
    Shared,
    /// A whole key without bounds.
    #[error("where a field holds the whole key, `sources` says of whose runs it may be")]
    Unbounded,
    /// Bounds that nothing needs.
    #[error("`sources` bounds a field that holds the whole key; here the source is fixed already")]
    BoundTwice,
}

impl Template {
    /// Reads a template.
    ///
    /// # Errors
    /// [`BadTemplate::Braces`].
    pub fn parse(text: &str) -> Result<Self, BadTemplate> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some(open) = rest.find(['{', '}']) {
            let (before, from) = rest.split_at(open);
            let (name, after) =
                from.strip_prefix('{').and_then(|inner| inner.split_once('}')).ok_or(BadTemplate::Braces)?;
            let plain = |b: u8| b.is_ascii_alphanumeric() || b"_-./".contains(&b);
            if name.is_empty() || !name.bytes().all(plain) {
                return Err(BadTemplate::Braces);
            }
            if !before.is_empty() {
                pieces.push(Piece::Text(before.to_owned()));
            }
            pieces.push(Piece::Field(name.to_owned()));
            rest = after;
        }
        if !rest.is_empty() {
            pieces.push(Piece::Text(rest.to_owned()));
        }
        Ok(Self(pieces))
    }

    fn fields(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|piece| match piece {
            Piece::Field(name) => Some(name.as_str()),
            Piece::Text(_) => None,
        })
    }

    /// With the values of `fields`; `None` where one is missing, or none that `may` stand there.
    fn fill(&self, fields: &BTreeMap<String, String>, may: impl Fn(&str) -> bool) -> Option<String> {
        let mut text = String::new();
        for piece in &self.0 {
            match piece {
                Piece::Text(fixed) => text.push_str(fixed),
                Piece::Field(name) => {
                    text.push_str(fields.get(name).filter(|value| is_plain(value) && may(value))?);
                }
            }
        }
        Some(text)
    }
}

/// A value that names something.
fn is_plain(value: &str) -> bool {
    !value.trim().is_empty() && value.len() <= MAX_VALUE_BYTES && !value.chars().any(char::is_control)
}

impl RunTemplate {
    /// Reads the template of a run's key; `sources` bounds a field that holds all of it.
    ///
    /// # Errors
    /// [`BadTemplate`].
    pub fn parse(text: &str, sources: &[String]) -> Result<Self, BadTemplate> {
        let whole = Template::parse(text)?;
        if let [Piece::Field(field)] = whole.0.as_slice() {
            return match (SHARED.contains(&field.as_str()), sources.is_empty()) {
                (true, _) => Err(BadTemplate::Shared),
                (_, true) => Err(BadTemplate::Unbounded),
                _ => Ok(Self::Whole { field: field.clone(), sources: sources.to_vec() }),
            };
        }
        if !sources.is_empty() {
            return Err(BadTemplate::BoundTwice);
        }
        // No field's name has a colon.
        let (source, id) = text.rsplit_once(':').ok_or(BadTemplate::NoParts)?;
        if source.is_empty() || id.is_empty() {
            return Err(BadTemplate::NoParts);
        }
        let (source, id) = (Template::parse(source)?, Template::parse(id)?);
        if !matches!(source.0.first(), Some(Piece::Text(_))) {
            return Err(BadTemplate::NoSource);
        }
        if id.fields().all(|field| SHARED.contains(&field)) {
            return Err(BadTemplate::Shared);
        }
        Ok(Self::Parts { source, id })
    }

    fn fill(&self, fields: &BTreeMap<String, String>) -> Option<RunKey> {
        match self {
            // A value with a slash or a colon could make another source of it.
            Self::Parts { source, id } => {
                let source = source.fill(fields, |value| !value.contains(['/', ':']))?;
                Some(RunKey::new(&source, &id.fill(fields, |_| true)?))
            }
            Self::Whole { field, sources } => {
                let key = RunKey(fields.get(field).filter(|value| is_plain(value))?.as_str().into());
                run_among(&key, None, sources)
            }
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Token(path) => f.write_str(path),
            Self::SecretId(role) => write!(f, "secret_ids of {role}"),
        }
    }
}

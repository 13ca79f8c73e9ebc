//! What one line of Vault's audit log says of use. PURE.
//!
//! Shape: `audit.Entry` of Vault's file device in JSON; since 1.11 `auth.policy_results.granting_policies` names the policies by
//! which a request was let through. Tokens, accessors and values are HMACs there, or raw where somebody switched that on: no
//! byte of a line is kept but the time, the name of a role, its mount, the id of an entity and the names of policies.

use std::borrow::Cow;

use serde::Deserialize;

/// The longest line that is read, in bytes. Vault's own limit for a request is 32 MiB; what a line says of use comes without its
/// data, but not before it.
pub const MAX_LINE: usize = 4 << 20;
/// The longest name in it that is kept, in bytes.
const MAX_NAME: usize = 512;
/// So many policies of one request are looked at.
const MOST_POLICIES: usize = 256;
/// What a token asks of itself: said by every probe, and no use of anything.
const OF_ITSELF: [&str; 2] = ["auth/token/lookup-self", "auth/token/revoke-self"];

/// It is no line of an audit log that says when. Says nothing of what stood there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a line of the audit log cannot be read")]
pub struct Unreadable;

/// What a line says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// When, by Vault's clock.
    pub at_ms: i64,
    /// What was done, where somebody did something that counts.
    pub deed: Option<Deed>,
}

/// Something that somebody did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Deed {
    /// A login: which entity is whom.
    Login {
        /// The auth method, without `auth/`.
        mount: String,
        /// The AppRole, where it is one.
        role: Option<String>,
        /// Who that is from then on.
        entity: String,
    },
    /// A request that was let through.
    Used {
        /// The AppRole that the token is of.
        role: Option<String>,
        /// The entity.
        entity: Option<String>,
        /// By which policies it was let through.
        policies: Vec<String>,
        /// It is more than what a token asks of itself.
        counts: bool,
    },
}

#[derive(Deserialize)]
struct Entry<'a> {
    #[serde(borrow)]
    time: Cow<'a, str>,
    #[serde(borrow, rename = "type", default)]
    kind: Cow<'a, str>,
    #[serde(borrow, default)]
    auth: Option<Auth<'a>>,
    #[serde(borrow, default)]
    request: Option<Request<'a>>,
}

#[derive(Deserialize)]
struct Auth<'a> {
    #[serde(borrow, default)]
    entity_id: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    metadata: Option<Metadata<'a>>,
    #[serde(borrow, default)]
    policies: Option<Vec<Cow<'a, str>>>,
    #[serde(borrow, default)]
    policy_results: Option<Results<'a>>,
}

#[derive(Deserialize)]
struct Metadata<'a> {
    #[serde(borrow, default)]
    role_name: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct Results<'a> {
    #[serde(default)]
    allowed: bool,
    #[serde(borrow, default)]
    granting_policies: Option<Vec<Granting<'a>>>,
}

#[derive(Deserialize)]
struct Granting<'a> {
    #[serde(borrow, default)]
    name: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct Request<'a> {
    #[serde(borrow, default)]
    path: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    mount_point: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    mount_type: Option<Cow<'a, str>>,
    /// Whether there was one: nothing of it is looked at.
    #[serde(default)]
    client_token: Option<serde::de::IgnoredAny>,
}

/// A name that may be kept.
fn name(text: &str) -> Result<Option<String>, Unreadable> {
    match text {
        "" => Ok(None),
        text if text.len() > MAX_NAME || text.chars().any(char::is_control) => Err(Unreadable),
        text => Ok(Some(text.to_owned())),
    }
}

fn named(text: Option<&Cow<'_, str>>) -> Result<Option<String>, Unreadable> {
    text.map_or(Ok(None), |text| name(text))
}

/// Reads one line, without its end.
///
/// # Errors
/// [`Unreadable`].
pub fn read(line: &[u8]) -> Result<Said, Unreadable> {
    let entry: Entry<'_> = serde_json::from_slice(line).map_err(|_| Unreadable)?;
    let time: jiff::Timestamp = entry.time.parse().map_err(|_| Unreadable)?;
    let at_ms = time.as_millisecond();
    let (Some(auth), Some(request)) = (&entry.auth, &entry.request) else { return Ok(Said { at_ms, deed: None }) };
    let entity = named(auth.entity_id.as_ref())?;
    // Roles of AppRoles are called alike in any case.
    let role = named(auth.metadata.as_ref().and_then(|meta| meta.role_name.as_ref()))?;
    let role = role.map(|role| role.to_lowercase());
    let mount = request.mount_point.as_deref().unwrap_or_default();
    let deed = match (&auth.policy_results, entity) {
        // No policy lets somebody log in, whatever token is sent along.
        (None, Some(entity)) if entry.kind == "response" && mount.starts_with("auth/") && mount != "auth/token/" => {
            let mount = name(mount.trim_start_matches("auth/").trim_end_matches('/'))?;
            let role = role.filter(|_| request.mount_type.as_deref() == Some("approle"));
            mount.map(|mount| Deed::Login { mount, role, entity })
        }
        (None, _) if request.client_token.is_none() => None,
        (results, entity) => {
            let granted: Vec<&str> = match results {
                Some(results) if !results.allowed => return Ok(Said { at_ms, deed: None }),
                Some(Results { granting_policies: Some(all), .. }) => {
                    all.iter().filter_map(|one| one.name.as_deref()).collect()
                }
                Some(_) => Vec::new(),
                // A Vault that does not say which: each of them may have been.
                None => auth.policies.iter().flatten().map(|policy| &**policy).collect(),
            };
            let policies = granted.into_iter().take(MOST_POLICIES).filter_map(|one| name(one).transpose());
            let policies = policies.collect::<Result<Vec<_>, _>>()?;
            let path = request.path.as_deref().unwrap_or_default();
            // A token of nobody may have come from anybody: an orphan, a child of one without an entity.
            Some(Deed::Used { role, entity, policies, counts: !OF_ITSELF.contains(&path) })
        }
    };
    Ok(Said { at_ms, deed })
}

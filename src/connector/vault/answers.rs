//! What Vault's answers mean. The one place where their text is read; held down by `tests/it/vault.rs` on a real server.
//!
//! Nothing is mapped by its status alone: 400 is "invalid lease" as well as "the database is down", 404 is "no such
//! secret_id" as well as "no such mount", 403 is "we may not" as well as "this accessor belongs elsewhere".

use std::fmt;

use secrecy::zeroize::Zeroize as _;
use serde_json::Value;

use crate::case::record::FailureKind;
use crate::connector::Failure;

/// What was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// `sys/leases/lookup`
    LeaseLookup,
    /// `sys/leases/revoke/<lease>`, synchronous
    LeaseRevoke,
    /// `auth/token/lookup-accessor`
    AccessorLookup,
    /// `auth/token/revoke-accessor`
    AccessorRevoke,
    /// `auth/<mount>/role/<role>/secret-id-accessor/lookup`
    SecretIdLookup,
    /// `auth/<mount>/role/<role>/secret-id-accessor/destroy`
    SecretIdDestroy,
    /// `auth/<mount>/role/<role>/secret-id/lookup`: which one a value is
    SecretIdFind,
    /// `auth/<mount>/role/<role>/custom-secret-id`: registers a value of ours
    SecretIdSet,
    /// `auth/<mount>/role/<role>/role-id`
    RoleId,
    /// `auth/<mount>/login`, as a consumer would
    Login,
    /// `<mount>/data/<path>`: the newest or a given version of a secret (KV version 2)
    KvRead,
    /// `<mount>/data/<path>`, written with check-and-set
    KvWrite,
    /// `<mount>/metadata/<path>`: the versions of a secret
    KvVersions,
    /// `<mount>/metadata/<path>`: how many versions are kept
    KvKeep,
    /// `<mount>/destroy/<path>`: named versions, for ever
    KvDestroy,
    /// `<mount>/metadata/<path>` deleted: the secret with all its versions
    KvForget,
    /// `<mount>/static-roles/<role>`: a static role of the database engine
    StaticRole,
    /// `<mount>/static-creds/<role>`: what it hands out
    StaticCreds,
    /// `<mount>/rotate-role/<role>`: another password
    StaticRotate,
    /// A read that makes a credential, such as `database/creds/<role>`
    Mint,
    /// `auth/token/create`
    TokenCreate,
    /// `auth/token/revoke-self`
    RevokeSelf,
    /// `sys/leases/renew`
    LeaseRenew,
    /// `sys/wrapping/wrap`
    Wrap,
    /// `<mount>/decrypt/<key>`: the transit engine unwraps
    TransitDecrypt,
    /// `<mount>/datakey/wrapped/<key>` and `<mount>/rewrap/<key>`: it wraps
    TransitWrap,
    /// `identity/lookup/entity`: who is behind a token, with its aliases
    EntityLookup,
    /// `identity/entity/id/<id>`: whether it is disabled is written, and nothing else
    EntityWrite,
    /// `sys/internal/ui/mounts/<mount>`: which engine answers there
    Mount,
    /// A read of settings that hold no secret: mounts, policies, roles, entities, groups
    Settings,
    /// `auth/<mount>/role/<role>/policies`: the list of a role's policies is replaced
    RoleWrite,
    /// A list of lease ids, accessors or secrets
    List,
    /// Login, `lookup-self`, `renew-self`, `capabilities-self`, `sys/health`
    Own,
}

impl Call {
    /// Whether a lost answer leaves in doubt what happened.
    fn has_effect(self) -> bool {
        use Call as C;
        matches!(
            self,
            C::LeaseRevoke
                | C::AccessorRevoke
                | C::SecretIdDestroy
                | C::SecretIdSet
                | C::KvWrite
                | C::KvKeep
                | C::KvDestroy
                | C::KvForget
                | C::StaticRotate
                | C::RoleWrite
                | C::EntityWrite
                | C::Mint
                | C::TokenCreate
                | C::RevokeSelf
                | C::LeaseRenew
                | C::Wrap
        )
    }
}

/// An answer as it came.
pub struct Reply {
    /// HTTP status.
    pub status: u16,
    /// `Retry-After`, in milliseconds.
    pub retry_after_ms: Option<i64>,
    /// The body. Its memory is zeroed: it may hold a secret.
    pub body: Vec<u8>,
}

impl Drop for Reply {
    fn drop(&mut self) {
        self.body.zeroize();
    }
}

/// No answer came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lost {
    /// The request was never sent: no connection.
    NotSent,
    /// It was sent, or may have been.
    Cut,
}

/// What an answer means.
pub enum Meaning {
    /// It was done, or found. `data` may hold secrets: never print it.
    Done {
        /// The whole answer.
        data: Value,
        /// Vault's id of the request.
        request_id: Option<String>,
    },
    /// Clearly not there (any more).
    Gone,
    /// Another version than the one that check-and-set named is the current one: nothing was written. Of a transit key: one
    /// that opens nothing any more.
    Outdated,
    /// The answer allows neither: half-revoked, or not as documented.
    Unclear(&'static str),
    /// 403 without a word that tells why: ours to find out by a self-check.
    Forbidden,
    /// A failure.
    Failed(Failure),
}

impl fmt::Debug for Meaning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // A login's answer holds its token, a secret's its values.
            Self::Done { request_id, .. } => write!(f, "Done({request_id:?})"),
            Self::Gone => f.write_str("Gone"),
            Self::Outdated => f.write_str("Outdated"),
            Self::Unclear(note) => write!(f, "Unclear({note})"),
            Self::Forbidden => f.write_str("Forbidden"),
            Self::Failed(failure) => write!(f, "Failed({failure})"),
        }
    }
}

/// What `reply` to `call` means.
pub fn read(call: Call, reply: Result<Reply, Lost>) -> Meaning {
    let reply = match reply {
        Ok(reply) => reply,
        Err(Lost::Cut) if call.has_effect() => return failed(FailureKind::Unknown, "the answer did not come"),
        Err(Lost::Cut) => return failed(FailureKind::Unavailable, "the answer did not come"),
        Err(Lost::NotSent) => return failed(FailureKind::Unavailable, "no connection to Vault"),
    };
    let json: Option<Value> =
        if reply.body.is_empty() { Some(Value::Null) } else { serde_json::from_slice(&reply.body).ok() };
    match reply.status {
        200..=208 => match json {
            Some(body) => success(call, reply.status, body),
            // Something between us and Vault answered: it says nothing of Vault.
            None => doubt(call, "an answer that is not Vault's"),
        },
        // A standby that does not forward names the active node; its address is not ours to follow.
        300..=399 => failed(FailureKind::Unavailable, "Vault redirects: name the active node's address"),
        429 => failed(FailureKind::Throttled { after_ms: reply.retry_after_ms }, "Vault's rate limit"),
        status => match json {
            // A version that was deleted or destroyed: 404, yet told of. Its number counts for check-and-set.
            Some(body) if call == Call::KvRead && status == 404 && body["data"]["metadata"]["version"].is_i64() => {
                success(call, status, body)
            }
            Some(body) if is_errors(&body) => refusal(call, status, &text(&body)),
            _ if matches!(status, 472 | 473) => failed(FailureKind::Unavailable, "not the active node"),
            _ => doubt(call, "an answer that is not Vault's"),
        },
    }
}

fn success(call: Call, status: u16, body: Value) -> Meaning {
    let request_id = body["request_id"].as_str().map(str::to_owned);
    let found = match call {
        Call::LeaseLookup => body["data"]["id"].is_string(),
        Call::AccessorLookup => body["data"]["accessor"].is_string(),
        Call::SecretIdLookup => {
            // Another role's accessor, asked through this role: 204 without a body.
            if status == 204 {
                return failed(FailureKind::Refused, "this secret_id accessor belongs to another role");
            }
            body["data"]["secret_id_accessor"].is_string()
        }
        // A value that is none: 204 without a body.
        Call::SecretIdFind if status == 204 => return Meaning::Gone,
        Call::SecretIdFind | Call::SecretIdSet => body["data"]["secret_id_accessor"].is_string(),
        Call::RoleId => body["data"]["role_id"].is_string(),
        Call::Login => body["auth"]["client_token"].is_string(),
        // 204: done. 200 with a warning: no such token (any more). Both are looked up afterwards.
        Call::AccessorRevoke => {
            let warned = body["warnings"].as_array().into_iter().flatten().filter_map(Value::as_str);
            if warned.into_iter().any(|w| w.contains("No token found with this accessor")) {
                return Meaning::Gone;
            }
            status == 204 || body.is_null()
        }
        // 204 also for a lease that never was: proves nothing. 202 would mean "queued", which sync excludes.
        Call::LeaseRevoke => {
            if status == 202 {
                return failed(FailureKind::Unknown, "Vault queued the revoke");
            }
            status == 204
        }
        Call::SecretIdDestroy => status == 204,
        // A secret of KV version 1 has no metadata beside it.
        Call::KvRead => body["data"]["metadata"]["version"].is_i64(),
        // KV version 1 says 204: it has written, and keeps no version.
        Call::KvWrite => body["data"]["version"].is_i64(),
        Call::KvVersions => body["data"]["versions"].is_object() && body["data"]["current_version"].is_i64(),
        // Also for what never was.
        Call::KvKeep | Call::KvDestroy | Call::KvForget => status == 204,
        Call::StaticRole | Call::StaticCreds => body["data"]["username"].is_string(),
        // Vault says neither which version nor when.
        Call::StaticRotate | Call::RoleWrite => status == 204,
        // 200 would be of a new one.
        Call::EntityWrite => status == 204,
        // What has no lease is a static secret: whoever asks looks.
        Call::Mint => body["lease_id"].is_string() && body["data"].is_object(),
        Call::TokenCreate => body["auth"]["client_token"].is_string() && body["auth"]["accessor"].is_string(),
        Call::RevokeSelf => status == 204,
        Call::LeaseRenew => body["lease_duration"].is_u64(),
        Call::Wrap => body["wrap_info"]["token"].is_string(),
        Call::TransitDecrypt => body["data"]["plaintext"].is_string(),
        Call::TransitWrap => body["data"]["ciphertext"].is_string(),
        // No such entity: 204 without a body.
        Call::EntityLookup if status == 204 => return Meaning::Gone,
        Call::EntityLookup => body["data"]["id"].is_string(),
        Call::Mount => body["data"]["type"].is_string() && body["data"]["path"].is_string(),
        Call::Settings => body["data"].is_object(),
        Call::List => body["data"]["keys"].is_array(),
        Call::Own => true,
    };
    if found { Meaning::Done { data: body, request_id } } else { doubt(call, "an answer that is not as documented") }
}

fn refusal(call: Call, status: u16, text: &str) -> Meaning {
    match (call, status) {
        (_, 503) => failed(
            FailureKind::Unavailable,
            if text.contains("sealed") { "Vault is sealed" } else { "Vault is not ready" },
        ),
        // An empty list is 404 without a text; a missing mount has one.
        (Call::List, 404) if text.is_empty() => Meaning::Done { data: Value::Null, request_id: None },
        // It was there when it was listed.
        (Call::Settings, 404) if text.is_empty() => Meaning::Gone,
        // Never written, deleted with its metadata, or a version that is not kept any more; also what KV version 1 says.
        (Call::KvRead | Call::KvVersions, 404) if text.is_empty() => Meaning::Gone,
        (Call::KvWrite, 400) if text.contains("did not match the current version") => Meaning::Outdated,
        // A role that never was, or one that mints a user for each lease.
        (Call::StaticRole, 404) if text.is_empty() => Meaning::Gone,
        (Call::StaticCreds, 400) if text.contains("unknown role") => Meaning::Gone,
        (Call::StaticRotate, 400) if text.contains("no static role found") => Meaning::Gone,
        // Just mounted, or on the way from version 1 to version 2.
        (_, 400) if text.contains("Upgrading from non-versioned to versioned data") => {
            failed(FailureKind::Unavailable, "this mount is not ready yet")
        }
        (_, 404) if text.contains("no handler for route") || text.contains("unsupported path") => {
            failed(FailureKind::Refused, "Vault has no such mount")
        }
        (Call::SecretIdLookup, 404) if text.contains("failed to find accessor entry") => Meaning::Gone,
        (Call::LeaseLookup, 400) if text.contains("invalid lease") => Meaning::Gone,
        (Call::LeaseRevoke, 400) if text.contains("invalid lease") => Meaning::Gone,
        // What the user owns keeps it from being dropped (dependent_objects_still_exist): so it will the next time. The
        // lease lives on.
        (Call::LeaseRevoke, 400) if text.contains("failed to revoke") && text.contains("SQLSTATE 2BP01") => {
            failed(FailureKind::Refused, "the system behind does not remove its user, which owns objects there")
        }
        // The database is down, or its revocation statement fails: the lease lives on with its old expiry.
        (Call::LeaseRevoke, 400) if text.contains("failed to revoke") => {
            failed(FailureKind::Unknown, "Vault could not revoke it at the system behind")
        }
        (Call::AccessorLookup | Call::AccessorRevoke, 400) if text.contains("invalid accessor") => Meaning::Gone,
        // The accessor is still known, its token is being revoked or expired: neither alive nor seen dead.
        (Call::AccessorLookup | Call::AccessorRevoke, 403) if text.contains("bad token") => {
            Meaning::Unclear("the token is half-revoked")
        }
        // It is dead already; else its policies lack the right, which `default` gives.
        (Call::RevokeSelf, 403) if text.contains("invalid token") => Meaning::Gone,
        (Call::TokenCreate, 400) if text.contains("batch tokens cannot create") => {
            failed(FailureKind::Refused, "a batch token has no children: log in for a service token")
        }
        (Call::Mint, 400) if text.contains("unknown role") => failed(FailureKind::Refused, "Vault has no such role"),
        // A path of another kind; nothing was made.
        (Call::Mint, 404) => failed(FailureKind::Refused, "Vault gives no credential there"),
        (Call::Mint, 500) => failed(FailureKind::Unknown, "Vault could not make it: does the system behind it answer?"),
        // The accessor is still known, its token is not any more: somebody else revokes it in this moment, such as its holder.
        (Call::AccessorRevoke, 400) if text.contains("token not found") => {
            Meaning::Unclear("the token is half-revoked")
        }
        (Call::SecretIdDestroy, 500) if text.contains("failed to find accessor entry") => Meaning::Gone,
        (Call::SecretIdDestroy | Call::SecretIdLookup, 403) if text.contains("invalid secret id accessor") => {
            failed(FailureKind::Refused, "this secret_id accessor belongs to another role")
        }
        // A role that never was.
        (Call::RoleId, 404) if text.is_empty() => Meaning::Gone,
        // The secret_id, or the whole role. What a network may not, or who is locked out, hears something else.
        (Call::Login, 400) if text.contains("invalid role or secret ID") || text.contains("invalid secret id") => {
            Meaning::Gone
        }
        (Call::TransitDecrypt | Call::TransitWrap, 400) => transit(text),
        // With the role all of its secret_ids are deleted. None comes back with another role of its name, but what is left of
        // their accessors looks there like another role's.
        (Call::SecretIdDestroy | Call::SecretIdLookup, 400 | 404 | 500) if is_no_role(text) => Meaning::Gone,
        (Call::SecretIdFind | Call::SecretIdSet, 400 | 404 | 500) if is_no_role(text) => {
            failed(FailureKind::Refused, "Vault has no such role")
        }
        // `capabilities-self` of a login that ended after it was let in and before it was looked up.
        (Call::Own, 400) if text.contains("invalid token") => Meaning::Forbidden,
        (_, 403) => Meaning::Forbidden,
        (_, 400 | 404 | 405 | 412) => failed(FailureKind::Refused, "Vault refuses the request as such"),
        _ => doubt(call, "an error inside Vault"),
    }
}

fn is_no_role(text: &str) -> bool {
    text.contains("role") && text.contains("does not exist")
}

fn transit(text: &str) -> Meaning {
    if text.contains("encryption key not found") {
        Meaning::Gone
    } else if text.contains("disallowed by policy (too old)") {
        Meaning::Outdated
    } else if text.contains("missing 'context'") {
        failed(FailureKind::Refused, "this transit key wants a context with each call: make one that is not `derived`")
    } else if text.contains("not supported for key type") {
        failed(FailureKind::Refused, "this transit key does not encrypt: make one of the type aes256-gcm96")
    } else if text.contains("invalid ciphertext") || text.contains("message authentication failed") {
        failed(FailureKind::Refused, "this transit key did not wrap it, or it is damaged: name the key that did")
    } else {
        failed(FailureKind::Refused, "Vault refuses the request as such")
    }
}

/// What `sys/health` says. Its status tells the role of the node, so the body alone is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// This node is the active one: what it does not know is not there.
    pub active: bool,
    /// It is sealed.
    pub sealed: bool,
    /// The cluster's own id; a sealed node does not say it.
    pub cluster_id: Option<String>,
}

/// Reads the answer of `sys/health`.
///
/// # Errors
/// `Unavailable` when it is no answer of Vault's.
pub fn health(reply: Result<Reply, Lost>) -> Result<Health, Failure> {
    let odd = || Failure::new(FailureKind::Unavailable, "Vault's health cannot be read");
    let reply = reply.map_err(|_| Failure::new(FailureKind::Unavailable, "no connection to Vault"))?;
    let body: Value = serde_json::from_slice(&reply.body).map_err(|_| odd())?;
    let sealed = body["sealed"].as_bool().ok_or_else(odd)?;
    let follows = |key: &str| body[key].as_bool().unwrap_or(false);
    let dr = body["replication_dr_mode"].as_str() == Some("secondary");
    Ok(Health {
        active: !sealed && !dr && !follows("standby") && !follows("performance_standby"),
        sealed,
        cluster_id: body["cluster_id"].as_str().filter(|id| !id.is_empty()).map(str::to_owned),
    })
}

fn doubt(call: Call, note: &'static str) -> Meaning {
    let kind = if call.has_effect() { FailureKind::Unknown } else { FailureKind::Unavailable };
    failed(kind, note)
}

fn failed(kind: FailureKind, note: &'static str) -> Meaning {
    Meaning::Failed(Failure::new(kind, note))
}

/// Whether Vault itself speaks: an AppRole's look-up says what is missing below `data`.
fn is_errors(body: &Value) -> bool {
    body["errors"].is_array() || body["data"]["error"].is_string()
}

fn text(body: &Value) -> String {
    let lines = body["errors"].as_array().into_iter().flatten().chain(body["data"].get("error"));
    lines.filter_map(Value::as_str).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(call: Call, status: u16, body: &str) -> Option<FailureKind> {
        match read(call, Ok(Reply { status, retry_after_ms: Some(7), body: body.into() })) {
            Meaning::Failed(failure) => Some(failure.kind),
            _ => None,
        }
    }

    #[test]
    fn a_status_alone_says_nothing() {
        let gone = read(
            Call::LeaseLookup,
            Ok(Reply { status: 400, retry_after_ms: None, body: br#"{"errors":["invalid lease"]}"#.to_vec() }),
        );
        assert!(matches!(gone, Meaning::Gone));
        assert_eq!(kind(Call::LeaseLookup, 400, r#"{"errors":["something else"]}"#), Some(FailureKind::Refused));
        // A proxy's page is no answer of Vault.
        assert_eq!(kind(Call::LeaseLookup, 400, "<html>"), Some(FailureKind::Unavailable));
        assert_eq!(kind(Call::LeaseRevoke, 400, "<html>"), Some(FailureKind::Unknown));
        assert_eq!(kind(Call::SecretIdLookup, 404, "<html>"), Some(FailureKind::Unavailable));
        assert_eq!(
            kind(Call::SecretIdLookup, 404, r#"{"errors":["no handler for route"]}"#),
            Some(FailureKind::Refused)
        );
        assert_eq!(kind(Call::LeaseRevoke, 500, r#"{"errors":["internal error"]}"#), Some(FailureKind::Unknown));
        assert_eq!(kind(Call::LeaseRevoke, 202, "{}"), Some(FailureKind::Unknown));
        assert_eq!(
            kind(Call::LeaseRevoke, 429, r#"{"errors":["request path: rate limit quota exceeded"]}"#),
            Some(FailureKind::Throttled { after_ms: Some(7) })
        );
    }

    /// A storage that broke in mid-revoke cannot be made here; the text is from Vault 1.18's source.
    #[test]
    fn a_half_revoked_token_is_neither_alive_nor_dead() {
        let body = br#"{"errors":["1 error occurred:\n\t* bad token\n\n"]}"#.to_vec();
        let half = read(Call::AccessorLookup, Ok(Reply { status: 403, retry_after_ms: None, body }));
        assert!(matches!(half, Meaning::Unclear(_)));
        // Met by `exec::hands::within_a_boundary`, where the task's token ends from both sides at once.
        let body = br#"{"errors":["token not found"]}"#.to_vec();
        let half = read(Call::AccessorRevoke, Ok(Reply { status: 400, retry_after_ms: None, body }));
        assert!(matches!(half, Meaning::Unclear(_)));
    }

    /// Met on a server under load (`vault::an_approle_login_…`): not to be had at will.
    #[test]
    fn a_login_that_ends_in_mid_request_is_a_dead_login() {
        let body = br#"{"errors":["invalid token"]}"#.to_vec();
        let ended = read(Call::Own, Ok(Reply { status: 400, retry_after_ms: None, body }));
        assert!(matches!(ended, Meaning::Forbidden));
    }

    /// A mount says it for a moment after it was made or upgraded: not to be had at will.
    #[test]
    fn a_mount_that_is_being_upgraded_is_asked_again() {
        let body = r#"{"errors":["Upgrading from non-versioned to versioned data. This backend will be unavailable for a brief period and will resume service shortly."]}"#;
        assert_eq!(kind(Call::KvRead, 400, body), Some(FailureKind::Unavailable));
        assert_eq!(kind(Call::KvWrite, 400, body), Some(FailureKind::Unavailable));
        // What KV version 1 says to a write is no version.
        assert_eq!(kind(Call::KvWrite, 204, ""), Some(FailureKind::Unknown));
    }

    #[test]
    fn what_was_not_sent_did_not_happen() {
        let failure = |call, lost| match read(call, Err(lost)) {
            Meaning::Failed(failure) => failure.kind,
            _ => unreachable!(),
        };
        assert_eq!(failure(Call::LeaseRevoke, Lost::NotSent), FailureKind::Unavailable);
        assert_eq!(failure(Call::LeaseRevoke, Lost::Cut), FailureKind::Unknown);
        assert_eq!(failure(Call::LeaseLookup, Lost::Cut), FailureKind::Unavailable);
    }
}

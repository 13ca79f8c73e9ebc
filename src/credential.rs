//! What a credential is called: by kind, issuer instance and the issuer's own id, never by its value.

use std::fmt;
use std::sync::Arc;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde::{Deserialize, Serialize};

/// What is left as it is in the id part of a URN: RFC 3986 unreserved characters and `/`.
const KEPT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/');
const PREFIX: &str = "urn:curfew:cred:";

/// The longest identifier that is accepted, in bytes.
pub const MAX_ID_BYTES: usize = 1024;

/// The kinds of credential that Curfew knows by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// A dynamic lease of a Vault secrets engine; its id is the lease id.
    VaultLease,
    /// A Vault service or batch token; its id is the accessor.
    VaultToken,
    /// A secret_id of a Vault AppRole; its id is `<auth mount>/<role>/<secret_id accessor>`.
    VaultSecretId,
    /// The password of a PostgreSQL role, whoever picks it; its id is the role's name, of two in turn `<one>,<other>`.
    PostgresRole,
    /// The password of a MariaDB user; its id is the account, `<user>@<host>`, of two in turn `<one>,<other>`.
    MariadbUser,
    /// A password of a Redis ACL user; its id is the user's name.
    RedisUser,
    /// A long-lived access key of an IAM user; its id is `<path><user name>/<access key id>`, the path without its first
    /// slash.
    AwsAccessKey,
    /// The access key of an IAM user that consumers read from a store; its id is `<path><user name>`.
    AwsUser,
    /// The secret_id of a Vault AppRole that consumers read from a store; its id is `<auth mount>/<role>`.
    VaultApprole,
    /// A value in a Vault KV store (or of a static role) that no recipe names: known by its fingerprints, and rotated by a
    /// person. Its id is `<mount>/<path>#<field>`.
    VaultKv,
    /// A value in AWS Secrets Manager that no recipe names, as [`Self::VaultKv`]. Its id is `<secret>#<field>`.
    AwsSecret,
    /// A kind that no connector of this build serves. It is recorded and held, never acted on.
    Unserved,
}

impl Kind {
    /// The kind's name in URNs, configuration, metrics and the journal.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::VaultLease => "vault-lease",
            Self::VaultToken => "vault-token",
            Self::VaultSecretId => "vault-secret-id",
            Self::PostgresRole => "postgres-role",
            Self::MariadbUser => "mariadb-user",
            Self::RedisUser => "redis-user",
            Self::AwsAccessKey => "aws-access-key",
            Self::AwsUser => "aws-user",
            Self::VaultApprole => "vault-approle",
            Self::VaultKv => "vault-kv",
            Self::AwsSecret => "aws-secret",
            Self::Unserved => "unserved",
        }
    }

    /// Those of which another value can take the place of their value.
    pub const ROTATED: [Self; 7] = [
        Self::PostgresRole,
        Self::MariadbUser,
        Self::RedisUser,
        Self::AwsUser,
        Self::VaultApprole,
        Self::VaultKv,
        Self::AwsSecret,
    ];

    /// Whether another value can take the place of its value: what cannot is revoked where others are rotated.
    pub fn rotates(self) -> bool {
        Self::ROTATED.contains(&self)
    }

    fn from_name(name: &str) -> Self {
        match name {
            "vault-lease" => Self::VaultLease,
            "vault-token" => Self::VaultToken,
            "vault-secret-id" => Self::VaultSecretId,
            "postgres-role" => Self::PostgresRole,
            "mariadb-user" => Self::MariadbUser,
            "redis-user" => Self::RedisUser,
            "aws-access-key" => Self::AwsAccessKey,
            "aws-user" => Self::AwsUser,
            "vault-approle" => Self::VaultApprole,
            "vault-kv" => Self::VaultKv,
            "aws-secret" => Self::AwsSecret,
            _ => Self::Unserved,
        }
    }
}

/// Why a text is no credential id. Says nothing of the text itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadId {
    /// It does not start with `urn:curfew:cred:`.
    #[error("a credential id starts with {PREFIX}")]
    Prefix,
    /// A part is missing or has characters that it may not have.
    #[error("a credential id is {PREFIX}<kind>:<instance>:<percent-encoded id>")]
    Shape,
    /// Longer than [`MAX_ID_BYTES`].
    #[error("a credential id has at most {MAX_ID_BYTES} bytes")]
    TooLong,
}

/// `urn:curfew:cred:<kind>:<instance>:<percent-encoded id>`, in its one canonical spelling.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CredentialId(Arc<str>);

impl CredentialId {
    /// Builds the id of what `instance` (a realm's name) calls `id`.
    ///
    /// # Errors
    /// [`BadId`] when a part is empty, too long or not of the allowed characters.
    pub fn new(kind: Kind, instance: &str, id: &str) -> Result<Self, BadId> {
        Self::from_parts(kind.as_str(), instance, id)
    }

    fn from_parts(kind: &str, instance: &str, id: &str) -> Result<Self, BadId> {
        let name = |text: &str| {
            !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
        };
        if !name(kind) || !name(instance) || id.is_empty() || id.chars().any(char::is_control) {
            return Err(BadId::Shape);
        }
        let urn = format!("{PREFIX}{kind}:{instance}:{}", utf8_percent_encode(id, KEPT));
        if urn.len() > MAX_ID_BYTES { Err(BadId::TooLong) } else { Ok(Self(urn.into())) }
    }

    /// Reads a URN; any correct percent-encoding is accepted and made canonical.
    ///
    /// # Errors
    /// [`BadId`].
    pub fn parse(text: &str) -> Result<Self, BadId> {
        if text.len() > MAX_ID_BYTES {
            return Err(BadId::TooLong);
        }
        let rest = text.strip_prefix(PREFIX).ok_or(BadId::Prefix)?;
        let mut parts = rest.splitn(3, ':');
        let (Some(kind), Some(instance), Some(id)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(BadId::Shape);
        };
        let id = percent_decode_str(id).decode_utf8().map_err(|_| BadId::Shape)?;
        Self::from_parts(kind, instance, &id)
    }

    /// The canonical URN.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn part(&self, n: usize) -> &str {
        self.0[PREFIX.len()..].splitn(3, ':').nth(n).expect("a credential id has three parts")
    }

    /// The kind.
    pub fn kind(&self) -> Kind {
        Kind::from_name(self.part(0))
    }

    /// The kind as the producer wrote it: also for kinds that are not served.
    pub fn kind_name(&self) -> &str {
        self.part(0)
    }

    /// The issuer's instance: a realm's name in the configuration.
    pub fn instance(&self) -> &str {
        self.part(1)
    }

    /// The issuer's own id, decoded.
    pub fn id(&self) -> String {
        percent_decode_str(self.part(2)).decode_utf8_lossy().into_owned()
    }
}

impl fmt::Debug for CredentialId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for CredentialId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for CredentialId {
    type Error = BadId;
    fn try_from(text: String) -> Result<Self, BadId> {
        Self::parse(&text)
    }
}

impl From<CredentialId> for String {
    fn from(id: CredentialId) -> Self {
        id.0.as_ref().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_id_survives_its_urn(id in "\\PC{1,80}") {
            let made = CredentialId::new(Kind::VaultLease, "prod", &id).unwrap();
            let read = CredentialId::parse(made.as_str()).unwrap();
            prop_assert_eq!(&read, &made);
            prop_assert_eq!(read.id(), id);
        }
    }

    #[test]
    fn two_spellings_are_one_credential() {
        let a = CredentialId::parse("urn:curfew:cred:vault-lease:prod:database/creds/ro/Ab").unwrap();
        let b = CredentialId::parse("urn:curfew:cred:vault-lease:prod:database%2Fcreds%2fro/%41b").unwrap();
        assert_eq!(a, b);
        assert_eq!(a.kind(), Kind::VaultLease);
    }

    #[test]
    fn what_is_no_id_is_refused() {
        for (text, why) in [
            ("vault-lease:prod:x", BadId::Prefix),
            ("urn:curfew:cred:vault-lease:prod", BadId::Shape),
            ("urn:curfew:cred:vault-lease::x", BadId::Shape),
            ("urn:curfew:cred:vault-lease:prod:%00", BadId::Shape),
            ("urn:curfew:cred:vault-lease:prod:%ff", BadId::Shape),
        ] {
            assert_eq!(CredentialId::parse(text), Err(why), "{text}");
        }
    }
}

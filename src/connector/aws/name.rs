//! What a key is called here: `<path><user name>/<access key id>`, without the path's first slash. PURE.
//!
//! The path stands in the id because the configuration allows users by it; two users never have one name, whatever their
//! paths.

/// A user and one of its keys.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeyName {
    user: String,
    key: String,
}

impl KeyName {
    /// Of a user, `<path><name>`, and the id of its key.
    pub fn new(user: &str, key: &str) -> Option<Self> {
        let (is_user, is_key) = (is_user(user), is_key_id(key));
        (is_user && is_key).then(|| Self { user: user.to_owned(), key: key.to_owned() })
    }

    /// Reads what a credential is called.
    pub fn parse(id: &str) -> Option<Self> {
        let (user, key) = id.rsplit_once('/')?;
        Self::new(user, key)
    }

    /// What a credential is called.
    pub fn id(&self) -> String {
        format!("{}/{}", self.user, self.key)
    }

    /// `<path><name>`
    pub fn user(&self) -> &str {
        &self.user
    }

    /// The name without the path: IAM's calls take it.
    pub fn user_name(&self) -> &str {
        self.user.rsplit('/').next().unwrap_or(&self.user)
    }

    /// The access key id.
    pub fn key(&self) -> &str {
        &self.key
    }
}

/// `<path><name>` of what IAM says: a path begins and ends with a slash.
pub fn full(path: &str, name: &str) -> String {
    format!("{}{name}", path.strip_prefix('/').unwrap_or(path))
}

/// The user in the ARN of a caller: of a role's session or a service none.
pub fn user_of(arn: &str) -> Option<&str> {
    let rest = arn.splitn(6, ':').nth(5)?;
    rest.strip_prefix("user/").filter(|_| arn.split(':').nth(2) == Some("iam"))
}

/// The name of the role in the ARN of a caller: of a user none. Its path is not told.
pub fn role_of(arn: &str) -> Option<&str> {
    let rest = arn.splitn(6, ':').nth(5)?;
    let rest = rest.strip_prefix("assumed-role/").filter(|_| arn.split(':').nth(2) == Some("sts"))?;
    rest.split('/').next()
}

/// The name without the path, of a user or a role: IAM's calls take it.
pub fn last(full: &str) -> &str {
    full.rsplit('/').next().unwrap_or(full)
}

/// `policy/<path><name>` of a managed policy by its ARN; AWS's own are `policy/aws/…`.
pub fn policy_name(arn: &str) -> String {
    let mut parts = arn.splitn(6, ':');
    let owner = parts.nth(4).unwrap_or_default();
    let name = parts.next().unwrap_or(arn);
    if owner == "aws" { name.replacen("policy/", "policy/aws/", 1) } else { name.to_owned() }
}

/// Whether the ARN of a caller is the account itself.
pub fn is_root(arn: &str) -> bool {
    arn.splitn(6, ':').nth(5) == Some("root")
}

fn is_user(text: &str) -> bool {
    let is_part = |part: &str| {
        !matches!(part, "" | "." | "..") && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"_+=,.@-".contains(&b))
    };
    text.len() <= 576 && text.split('/').all(is_part)
}

/// The id of a long-lived key. Those of sessions (`ASIA`) are of no user's list.
fn is_key_id(text: &str) -> bool {
    (16..=128).contains(&text.len())
        && text.starts_with("AKIA")
        && text.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "AKIAIOSFODNN7EXAMPLE";

    #[test]
    fn a_key_is_named_by_its_user_and_its_id() {
        let name = KeyName::parse(&format!("ci/build/deployer/{KEY}")).unwrap();
        assert_eq!((name.user(), name.user_name(), name.key()), ("ci/build/deployer", "deployer", KEY));
        assert_eq!(KeyName::parse(&name.id()), Some(name));
        assert_eq!(full("/ci/build/", "deployer"), "ci/build/deployer");
        assert_eq!(full("/", "ana@example.test"), "ana@example.test");
    }

    #[test]
    fn what_is_no_key_of_a_user_has_no_name() {
        for id in [KEY, "ci/AKIA", "ci//AKIAIOSFODNN7EXAMPLE", "../AKIAIOSFODNN7EXAMPLE", "a b/AKIAIOSFODNN7EXAMPLE"] {
            assert_eq!(KeyName::parse(id), None, "{id}");
        }
        assert_eq!(KeyName::parse("ci/ASIAIOSFODNN7EXAMPLE"), None, "of a session");
        assert_eq!(KeyName::parse("ci/akiaIOSFODNN7EXAMPLE"), None);
    }

    #[test]
    fn a_caller_is_a_user_a_role_or_the_account_itself() {
        assert_eq!(user_of("arn:aws:iam::123456789012:user/ci/bot"), Some("ci/bot"));
        assert_eq!(user_of("arn:aws-cn:iam::123456789012:user/bot"), Some("bot"));
        assert_eq!(user_of("arn:aws:sts::123456789012:assumed-role/curfew/i-1"), None);
        assert_eq!(role_of("arn:aws:sts::123456789012:assumed-role/curfew/i-1"), Some("curfew"));
        assert_eq!(role_of("arn:aws:iam::123456789012:user/ci/bot"), None);
        assert_eq!((last("ci/build/deployer"), last("deployer")), ("deployer", "deployer"));
        assert!(is_root("arn:aws:iam::123456789012:root"));
        assert!(!is_root("arn:aws:iam::123456789012:user/root"));
    }
}

//! How Curfew logs in to an account. Never with what it found.

use std::fmt;
use std::path::{Path, PathBuf};

use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{self, ProvideCredentials, future};
use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret as _, SecretString};

/// A file that is larger holds something else.
const MAX_FILE_BYTES: u64 = 16 * 1024;
const SECTION: &str = "[default]";

/// Whose login it is.
#[derive(Clone)]
pub enum Login {
    /// What the machine has: the environment, a web identity, the container's or the instance's role.
    Machine,
    /// A file as AWS's tools write it, of which `[default]` counts. Read again each time that it is needed.
    File(PathBuf),
    /// Given: for tests.
    Given {
        /// Its id.
        id: String,
        /// The key itself.
        secret: SecretString,
    },
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Machine => f.write_str("Machine"),
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
            Self::Given { id, .. } => f.debug_tuple("Given").field(id).finish(),
        }
    }
}

/// A login that is no machine's.
#[derive(Debug)]
pub(super) struct Own(pub(super) Login);

impl ProvideCredentials for Own {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(async {
            match &self.0 {
                Login::File(path) => read(path).await,
                Login::Given { id, secret } => {
                    Ok(Credentials::new(id, secret.expose_secret(), None, None, "curfew-given"))
                }
                Login::Machine => Err(CredentialsError::not_loaded("the machine's login is asked for elsewhere")),
            }
        })
    }
}

async fn read(path: &Path) -> provider::Result {
    let bad = |why: &'static str| CredentialsError::invalid_configuration(why);
    let size = tokio::fs::metadata(path).await.map_err(|_| bad("the login's file cannot be read"))?.len();
    if size > MAX_FILE_BYTES {
        return Err(bad("the login's file is too large"));
    }
    let text = tokio::fs::read_to_string(path).await.map_err(|_| bad("the login's file cannot be read"))?;
    parse(&Zeroizing::new(text)).ok_or_else(|| bad("the login's file has no key in [default]"))
}

/// What `[default]` says. Says nothing of the text itself.
fn parse(text: &str) -> Option<Credentials> {
    let lines = text.lines().map(str::trim).skip_while(|line| *line != SECTION).skip(1);
    let lines: Vec<(&str, &str)> = lines
        .take_while(|line| !line.starts_with('['))
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (name.trim(), value.trim()))
        .collect();
    let get = |name: &str| lines.iter().find(|(key, value)| *key == name && !value.is_empty()).map(|(_, value)| *value);
    let (id, secret) = (get("aws_access_key_id")?, get("aws_secret_access_key")?);
    Some(Credentials::new(id, secret, get("aws_session_token").map(str::to_owned), None, "curfew-file"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_of_a_file_is_the_login() {
        let text = "[other]\naws_access_key_id=AKIAOTHER\naws_secret_access_key=no\n\n[default]\n\
            aws_access_key_id = AKIAOWN\naws_secret_access_key = a/b+c=\nregion = eu-west-1\n[more]\naws_session_token=x\n";
        let login = parse(text).unwrap();
        assert_eq!((login.access_key_id(), login.secret_access_key()), ("AKIAOWN", "a/b+c="));
        assert_eq!(login.session_token(), None);
    }

    #[test]
    fn half_a_login_is_none() {
        for text in ["", "[default]", "[default]\naws_access_key_id = AKIAOWN\naws_secret_access_key =\n", "a = b"] {
            assert!(parse(text).is_none(), "{text}");
        }
    }

    #[test]
    fn a_login_says_nothing_of_its_secret() {
        let login = Login::Given { id: "AKIAOWN".to_owned(), secret: "top-secret".to_owned().into() };
        assert!(!format!("{login:?} {:?}", Own(login.clone())).contains("top-secret"));
    }
}

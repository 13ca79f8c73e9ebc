//! One node: what it is asked and told. Which of it, and why, is not decided here.

use std::collections::HashMap;
use std::time::Duration;

use aws_lc_rs::digest;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, Cmd, ConnectionInfo, FromRedisValue, InfoDict, RedisError, Value, cmd};
use secrecy::{ExposeSecret as _, SecretString};

use super::answers::{self, Login};
use crate::case::record::FailureKind;
use crate::connector::Failure;

/// What our own user must be able to do.
const NEEDS: [&[&str]; 6] = [
    &["ACL", "GETUSER", "x"],
    &["ACL", "SETUSER", "x"],
    &["ACL", "SAVE"],
    &["CLIENT", "KILL", "USER", "x"],
    &["INFO", "replication"],
    &["ACL", "DRYRUN", "x", "PING"],
];

/// How a node is reached.
pub(super) struct Node {
    client: Client,
    user: String,
    password: SecretString,
    timeout: Duration,
}

/// A user, as ACL GETUSER shows it.
pub(super) struct User {
    /// It can log in.
    pub(super) is_on: bool,
    /// Whatever password is given, it is let in.
    pub(super) takes_any: bool,
    /// SHA-256 of each of its passwords, in hexadecimal digits. They never leave this process.
    hashes: Vec<String>,
    /// It is `default`, our own, or one that could change users: never touched.
    pub(super) is_protected: bool,
}

impl User {
    /// Whether `value` is one of its passwords.
    pub(super) fn has(&self, value: &SecretString) -> bool {
        let hash = hash(value);
        self.hashes.iter().any(|known| known.eq_ignore_ascii_case(&hash))
    }

    /// Whether no other password than `value` lets it in.
    pub(super) fn is_let_in_only_by(&self, value: Option<&SecretString>) -> bool {
        let others = self.hashes.len() - usize::from(value.is_some_and(|value| self.has(value)));
        !self.is_on || (!self.takes_any && others == 0)
    }
}

/// As Redis writes it: it gets and shows no password itself.
fn hash(value: &SecretString) -> String {
    hex::encode(digest::digest(&digest::SHA256, value.expose_secret().as_bytes()))
}

/// Connected, and logged in as our own user.
pub(super) struct Session<'a> {
    node: &'a Node,
    connection: MultiplexedConnection,
}

impl Node {
    pub(super) fn new(client: Client, info: &ConnectionInfo, timeout: Duration) -> Self {
        let own = info.redis_settings();
        let user = own.username().unwrap_or("default").to_owned();
        let password = SecretString::from(own.password().unwrap_or_default().to_owned());
        Self { client, user, password, timeout }
    }

    /// A connection that is nobody's yet.
    async fn connection(&self) -> Result<MultiplexedConnection, RedisError> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.timeout))
            .set_response_timeout(Some(self.timeout));
        self.client.get_multiplexed_async_connection_with_config(&config).await
    }

    /// Logs in as our own user.
    ///
    /// # Errors
    /// `Denied` where that is refused.
    pub(super) async fn open(&self) -> Result<Session<'_>, Failure> {
        let mut connection = self.connection().await.map_err(|error| answers::failure(&error, false))?;
        let in_as = auth(&mut connection, &self.user, &self.password).await;
        in_as.map_err(|error| answers::failure(&error, false))?;
        Ok(Session { node: self, connection })
    }

    /// A login of its own as another user.
    pub(super) async fn log_in(&self, user: &str, value: &SecretString) -> Login {
        match self.connection().await {
            Ok(mut connection) => answers::login(&auth(&mut connection, user, value).await),
            Err(_) => Login::Unclear,
        }
    }
}

/// A password's command is not one that may be shown: what fails says nothing of it.
async fn auth(connection: &mut MultiplexedConnection, user: &str, value: &SecretString) -> Result<(), RedisError> {
    cmd("AUTH").arg(user).arg(value.expose_secret()).query_async(connection).await
}

fn unreadable() -> Failure {
    Failure::new(FailureKind::Unavailable, "Redis's answer cannot be read")
}

impl Session<'_> {
    async fn ask<T: FromRedisValue>(&mut self, command: &Cmd, has_effect: bool) -> Result<T, Failure> {
        let answer = command.query_async(&mut self.connection).await;
        answer.map_err(|error| answers::failure(&error, has_effect))
    }

    /// Whether `user` could run a command. It is not run.
    async fn may(&mut self, user: &str, words: &[&str]) -> Result<bool, Failure> {
        let answer: String = self.ask(cmd("ACL").arg("DRYRUN").arg(user).arg(words), false).await?;
        Ok(answer == "OK")
    }

    /// The user. `None`: there is none of this name.
    pub(super) async fn user(&mut self, name: &str) -> Result<Option<User>, Failure> {
        let shown: Option<HashMap<String, Value>> = self.ask(cmd("ACL").arg("GETUSER").arg(name), false).await?;
        let Some(mut shown) = shown else { return Ok(None) };
        let mut list = |key: &str| -> Result<Vec<String>, Failure> {
            let value = shown.remove(key).ok_or_else(unreadable)?;
            redis::from_redis_value(value).map_err(|_| unreadable())
        };
        let (flags, hashes) = (list("flags")?, list("passwords")?);
        let has = |flag: &str| flags.iter().any(|known| known == flag);
        let is_protected = name == "default"
            || name == self.node.user
            || self.may(name, &["ACL", "SETUSER", "x"]).await?
            || self.may(name, &["CONFIG", "SET", "requirepass", "x"]).await?;
        Ok(Some(User { is_on: has("on"), takes_any: has("nopass"), hashes, is_protected }))
    }

    /// One more password of a user that is there.
    pub(super) async fn add(&mut self, name: &str, value: &SecretString) -> Result<(), Failure> {
        self.ask(cmd("ACL").arg("SETUSER").arg(name).arg(format!("#{}", hash(value))), true).await
    }

    /// One password of a user less.
    pub(super) async fn remove(&mut self, name: &str, value: &SecretString) -> Result<(), Failure> {
        self.ask(cmd("ACL").arg("SETUSER").arg(name).arg(format!("!{}", hash(value))), true).await
    }

    /// From here on a restart changes nothing of it.
    pub(super) async fn save(&mut self) -> Result<(), Failure> {
        let answer: Result<(), RedisError> = cmd("ACL").arg("SAVE").query_async(&mut self.connection).await;
        answer.map_err(|error| answers::not_saved(&error))
    }

    /// Ends the connections of a user: how many.
    pub(super) async fn end_connections(&mut self, name: &str) -> Result<u32, Failure> {
        self.ask(cmd("CLIENT").arg("KILL").arg("USER").arg(name), true).await
    }

    /// How many nodes there are besides this one, as far as it knows. Each has users of its own.
    pub(super) async fn others(&mut self) -> Result<usize, Failure> {
        let info: InfoDict = self.ask(cmd("INFO").arg(&["replication", "cluster"]), false).await?;
        let replicas: usize = info.get("connected_slaves").ok_or_else(unreadable)?;
        let role: String = info.get("role").ok_or_else(unreadable)?;
        // Of a replica's siblings it knows nothing, but that there is a master.
        let near = replicas + usize::from(role != "master");
        if info.get::<u8>("cluster_enabled") != Some(1) {
            return Ok(near);
        }
        let cluster: InfoDict = self.ask(cmd("CLUSTER").arg("INFO"), false).await?;
        let known: usize = cluster.get("cluster_known_nodes").ok_or_else(unreadable)?;
        Ok(near.max(known.saturating_sub(1)))
    }

    /// What our own user lacks, if anything.
    pub(super) async fn lacks(&mut self) -> Result<Option<String>, Failure> {
        let own = self.node.user.clone();
        for words in NEEDS {
            if !self.may(&own, words).await? {
                return Ok(Some(words[..words.len().min(2)].join(" ")));
            }
        }
        Ok(None)
    }
}

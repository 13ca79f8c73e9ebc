//! `redis-user`: the password of a Redis ACL user, replaced by one that we pick. A value is dead when no node lets it in.
//!
//! A user has many passwords at once, so the new one works before the old one ends, and others of the user stay: only what
//! the recipe's place holds or held is taken away. Redis gets SHA-256 hashes, never a value.
//!
//! Users live in each node's memory, and are not replicated: each change is made on every node and saved there (ACL SAVE),
//! or a restart would let the old password in again. Where a node keeps no file of its users nothing is begun, and where
//! there are nodes that the configuration does not name nothing is proven. Connections outlive a password, and Redis does
//! not say by which of them they were opened: all of the user's are ended, and its clients connect again.
//!
//! Facts: Redis 7, <https://redis.io/docs/latest/operate/oss_and_stack/management/security/acl/>.

mod answers;
mod node;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::future::join_all;
use redis::{Client, ConnectionAddr, ConnectionInfo, IntoConnectionInfo as _, RedisConnectionInfo, TlsCertificates};
use secrecy::{ExposeSecret as _, SecretString};

use super::candidate::check;
use super::many::{self, Why};
use super::recipe::{Rotation, Which, of_store};
use super::vault::ConnectError;
use super::{Connector, Failure, Gate, Subject, within};
use crate::case::plan::Act;
use crate::case::record::{Answer, FailureKind, Level, Observation, Output, Presence, Sighting};
use crate::clock;
use crate::connector::recipe::Stored;
use crate::credential::Kind;
use crate::probe::Settle;
use answers::Login;
use node::{Node, Session, User};

/// So many nodes are named at the most.
const NODES: usize = 64;

/// How a Redis is reached.
#[derive(Debug, Clone)]
pub struct RedisSettings {
    /// `redis[s]://user:password@host:port` of each node.
    pub urls: Urls,
    /// PEM file with the authority of their certificates; `None`: those that the system trusts.
    pub ca_file: Option<PathBuf>,
    /// An upper bound of one exchange.
    pub timeout_ms: u64,
}

/// Where the URLs are.
#[derive(Debug, Clone)]
pub enum Urls {
    /// A file with one on each line.
    File(PathBuf),
    /// Here.
    Given(Vec<SecretString>),
}

/// The users of one Redis, on all of its nodes.
struct RedisUsers {
    target: String,
    timeout: Duration,
    nodes: Vec<Node>,
    clock: clock::Shared,
}

/// Makes a target's connector. Connections are opened when they are needed.
///
/// # Errors
/// [`ConnectError::Settings`].
pub async fn connect(
    target: &str,
    settings: &RedisSettings,
    clock: clock::Shared,
) -> Result<Arc<dyn Connector>, ConnectError> {
    let bad = |what: String| ConnectError::Settings(what);
    let read = |path: &PathBuf, what: &'static str| {
        let path = path.clone();
        async move {
            let text = tokio::fs::read_to_string(&path).await;
            text.map_err(|e| {
                ConnectError::Settings(format!("`{what}` {} cannot be read: {}", path.display(), e.kind()))
            })
        }
    };
    let urls = match &settings.urls {
        Urls::Given(urls) => urls.clone(),
        Urls::File(path) => {
            let text = SecretString::from(read(path, "url_file").await?);
            let lines = text.expose_secret().lines().map(str::trim).filter(|line| !line.is_empty());
            lines.map(|line| SecretString::from(line.to_owned())).collect()
        }
    };
    if !(1..=NODES).contains(&urls.len()) {
        return Err(bad(format!("a Redis has a URL for each node, one a line: 1 to {NODES}")));
    }
    let ca = match &settings.ca_file {
        Some(path) => Some(read(path, "ca_file").await?.into_bytes()),
        None => None,
    };
    let timeout = Duration::from_millis(settings.timeout_ms);
    let node = |url: &SecretString| node(url, ca.as_deref(), timeout).map_err(|what| bad(what.to_owned()));
    let nodes = urls.iter().map(node).collect::<Result<_, _>>()?;
    Ok(Arc::new(RedisUsers { target: target.to_owned(), timeout, nodes, clock }))
}

/// The library's own words can quote the URL.
fn node(url: &SecretString, ca: Option<&[u8]>, timeout: Duration) -> Result<Node, &'static str> {
    let read = url.expose_secret().into_connection_info();
    let info = read.map_err(|_| "a URL cannot be read: redis[s]://user:password@host:port")?;
    let is_near = |host: &str| {
        let host = host.trim_matches(['[', ']']);
        host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
    };
    match info.addr() {
        ConnectionAddr::Tcp(host, _) if !is_near(host) => return Err("Redis beyond loopback needs rediss://"),
        ConnectionAddr::TcpTls { insecure: true, .. } => return Err("rediss:// without its check protects nothing"),
        _ => {}
    }
    if info.redis_settings().password().is_none_or(str::is_empty) {
        return Err("a URL needs the user and the password of Curfew's own login");
    }
    // Each login is our own command: what comes of it has to be told apart.
    let nobody = RedisConnectionInfo::default().set_skip_set_lib_name();
    let bare: ConnectionInfo = info.clone().set_redis_settings(nobody);
    let client = match ca {
        Some(ca) => Client::build_with_tls(bare, TlsCertificates { client_tls: None, root_cert: Some(ca.to_vec()) }),
        None => Client::open(bare),
    };
    Ok(Node::new(client.map_err(|_| "the TLS settings cannot be used")?, &info, timeout))
}

fn refused<T>(note: &str) -> Result<T, Failure> {
    Err(Failure::new(FailureKind::Refused, note))
}

/// What is rotated, and of which user.
fn rotation(subject: &Subject) -> Result<(&Rotation, &str), Failure> {
    let Some(rotation) = &subject.rotation else { return refused("no recipe names its user") };
    let name = rotation.recipe.users.names().first().copied().unwrap_or_default();
    Ok((rotation, name))
}

/// A failure at one node, when others have taken the same away. What never will work, and what is about our access, is said
/// as it is: the value lives there.
fn beside_others(failure: Failure, changed: bool) -> Failure {
    let may_work = matches!(failure.kind, FailureKind::Unavailable | FailureKind::Throttled { .. });
    after_others(failure, changed && may_work)
}

/// A failure at one node, when others were changed before: what was begun is in doubt, whatever the reason.
fn after_others(failure: Failure, changed: bool) -> Failure {
    if !changed || failure.kind == FailureKind::Unknown {
        return failure;
    }
    Failure {
        kind: FailureKind::Unknown,
        blocks_system: false,
        is_untouched: false,
        note: format!("on one of the nodes: {}", failure.note),
    }
}

/// The user of a session, where it is ours to change.
async fn ours(session: &mut Session<'_>, name: &str) -> Result<User, Failure> {
    match session.user(name).await? {
        Some(user) if user.is_protected => refused("our own user, or an administrator: never touched"),
        Some(user) => Ok(user),
        None => Err(Failure::new(FailureKind::Gone, "the user is gone")),
    }
}

impl RedisUsers {
    /// The longest that a call takes: all nodes at once, a login and a few exchanges with each.
    fn whole(&self) -> Duration {
        self.timeout * 3
    }

    async fn within<T>(
        &self,
        kind: FailureKind,
        call: impl Future<Output = Result<T, Failure>> + Send,
    ) -> Result<T, Failure> {
        within(self.whole(), kind, call).await
    }

    async fn sessions(&self) -> Vec<Result<Session<'_>, Failure>> {
        join_all(self.nodes.iter().map(Node::open)).await
    }

    /// Whether there are nodes that the configuration does not name.
    async fn has_others(&self, session: &mut Session<'_>) -> Result<bool, Failure> {
        Ok(session.others().await? >= self.nodes.len())
    }

    /// Which nodes know the user. A leak is contained on those that answer: it does not wait for the others.
    async fn look(&self, subject: &Subject) -> Result<Observation, Failure> {
        let (rotation, name) = rotation(subject)?;
        let mut seen = Observation { at_ms: self.clock.wall_ms(), ..Observation::default() };
        let (mut known, mut unnamed, mut silent) = (0, false, None);
        for session in self.sessions().await {
            let looked = async {
                let mut session = session?;
                Ok::<_, Failure>((session.user(name).await?, self.has_others(&mut session).await?))
            };
            match looked.await {
                Ok((user, others)) => {
                    unnamed |= others;
                    known += usize::from(user.is_some());
                    seen.protected |= user.is_some_and(|user| user.is_protected);
                }
                Err(failure) => silent = Some(failure),
            }
        }
        match silent {
            Some(failure) if known == 0 || !rotation.contains => return Err(failure),
            _ => {}
        }
        if unnamed && !rotation.contains {
            return refused("this Redis has more nodes than the configuration names: each has users of its own");
        }
        seen.presence = if known > 0 { Presence::Present } else { Presence::Gone };
        // Redis gives a user no other id than its name.
        seen.principal_id = (known > 0).then(|| name.to_owned());
        Ok(seen)
    }

    /// The candidate is one of the user's passwords, on every node or on none.
    async fn set(&self, subject: &Subject) -> Result<Output, Failure> {
        let (rotation, name) = rotation(subject)?;
        let recipe = &rotation.recipe;
        let candidate = rotation.candidate().await.map_err(of_store)?;
        let current = many::read(rotation, Which::Current).await?;
        check(&candidate, current.as_ref(), name, &recipe.password)?;
        let mut sessions = self.sessions().await.into_iter().collect::<Result<Vec<_>, _>>()?;
        for session in &mut sessions {
            let user = match ours(session, name).await {
                Err(gone) if gone.kind == FailureKind::Gone => return refused("a node has no such user"),
                other => other?,
            };
            if user.takes_any {
                return refused("the user is let in with any password (`nopass`)");
            }
            if !user.is_on {
                return refused("the user is off: no password lets it in");
            }
        }
        // Before anything is changed: what cannot be saved would be lost by a restart.
        for session in &mut sessions {
            session.save().await.map_err(|failure| Failure {
                kind: if failure.kind == FailureKind::Unknown { FailureKind::Unavailable } else { failure.kind },
                ..failure
            })?;
        }
        for (at, session) in sessions.iter_mut().enumerate() {
            session.add(name, &candidate.value).await.map_err(|failure| after_others(failure, at > 0))?;
            session.save().await.map_err(|failure| after_others(failure, true))?;
        }
        Ok(Output { done_ms: Some(self.clock.wall_ms()), ..Output::default() })
    }

    async fn test(&self, subject: &Subject) -> Result<Gate, Failure> {
        let (rotation, name) = rotation(subject)?;
        let candidate = rotation.candidate().await.map_err(of_store)?;
        let logins = join_all(self.nodes.iter().map(|node| node.log_in(name, &candidate.value))).await;
        if logins.contains(&Login::Refused) {
            // Another value would fare no better: it is one of the user's passwords by now.
            return refused("the login with the candidate is refused");
        }
        if logins.contains(&Login::Unclear) {
            return Err(Failure::new(FailureKind::Unavailable, "the login with the candidate says nothing of it"));
        }
        Ok(Gate::Open)
    }

    /// Takes values away from the user, on every node: one that does not answer keeps the others from nothing.
    async fn take(&self, name: &str, values: &[Stored]) -> Result<Output, Failure> {
        let take = |session: Result<_, _>| async move {
            let mut session: Session<'_> = session?;
            let user = match ours(&mut session, name).await {
                // Without the user none of its passwords lets in; unless that was never saved.
                Err(gone) if gone.kind == FailureKind::Gone => return session.save().await,
                other => other?,
            };
            for stored in values.iter().filter(|stored| user.has(&stored.value)) {
                session.remove(name, &stored.value).await?;
            }
            session.save().await
        };
        let taken = join_all(self.sessions().await.into_iter().map(take)).await;
        let changed = taken.iter().any(Result::is_ok);
        taken.into_iter().collect::<Result<(), _>>().map_err(|failure| beside_others(failure, changed))?;
        Ok(Output::default())
    }

    async fn cut(&self, subject: &Subject) -> Result<Output, Failure> {
        let (rotation, name) = rotation(subject)?;
        let going = many::going(rotation).await?;
        let values: Vec<Stored> =
            going.into_iter().filter(|one| one.why != Why::Foreign).map(|one| one.stored).collect();
        if values.is_empty() {
            return refused("the value that goes is not stored any more: take it away from the user by hand");
        }
        self.take(name, &values).await
    }

    async fn restore(&self, subject: &Subject) -> Result<Output, Failure> {
        let (rotation, name) = rotation(subject)?;
        match many::taken_back(rotation).await? {
            Some(candidate) => self.take(name, &[candidate]).await,
            None => Ok(Output::default()),
        }
    }

    async fn end_connections(&self, subject: &Subject) -> Result<Output, Failure> {
        let (_, name) = rotation(subject)?;
        let end = |session: Result<_, _>| async move {
            let mut session: Session<'_> = session?;
            match ours(&mut session, name).await {
                Err(gone) if gone.kind == FailureKind::Gone => Ok(0),
                Err(failure) => Err(failure),
                Ok(_) => session.end_connections(name).await,
            }
        };
        let ended = join_all(self.sessions().await.into_iter().map(end)).await;
        let changed = ended.iter().any(Result::is_ok);
        let ended = ended.into_iter().collect::<Result<Vec<u32>, _>>();
        let derived = ended.map_err(|failure| beside_others(failure, changed))?.iter().sum();
        Ok(Output { derived, ..Output::default() })
    }

    /// The value that goes is not stored any more. Still it is refused where no password lets the user in but the one that
    /// consumers read.
    async fn by_logic(&self, rotation: &Rotation, name: &str) -> Result<(Answer, bool), Failure> {
        let current = many::read(rotation, Which::Current).await?.filter(|_| !rotation.ends);
        for session in self.sessions().await {
            let mut session = session?;
            let user = session.user(name).await?;
            let shut = user.is_none_or(|user| user.is_let_in_only_by(current.as_ref().map(|current| &current.value)));
            if !shut || self.has_others(&mut session).await? {
                return Ok((Answer::Unknown, false));
            }
        }
        Ok((Answer::Refused, true))
    }

    /// On every node: what goes is refused, what consumers read is let in, what nobody knows is refused.
    async fn sight(&self, subject: &Subject) -> Result<(Answer, bool), Failure> {
        let (rotation, name) = rotation(subject)?;
        let (new, tried) = many::tried(rotation).await?;
        if tried.is_empty() {
            return self.by_logic(rotation, name).await;
        }
        let nobodys = super::candidate::candidate(&rotation.recipe.password);
        let (new, tried, nobodys) = (&new, &tried, &nobodys);
        let looks = self.nodes.iter().map(|node| async move {
            let mut session = node.open().await?;
            let unnamed = self.has_others(&mut session).await?;
            let mut control = !unnamed && node.log_in(name, nobodys).await == Login::Refused;
            if let Some(new) = new {
                control &= node.log_in(name, &new.value).await == Login::In;
            }
            let mut logins = Vec::new();
            for stored in tried {
                logins.push(node.log_in(name, &stored.value).await);
            }
            Ok::<_, Failure>((logins, control, unnamed))
        });
        let (mut control, mut refused, mut accepted) = (true, true, false);
        for look in join_all(looks).await {
            let Ok((logins, believable, unnamed)) = look else {
                refused = false;
                continue;
            };
            if unnamed {
                tracing::warn!(
                    target = self.target,
                    "this Redis has more nodes than the configuration names: nothing is proven"
                );
            }
            control &= believable;
            accepted |= logins.contains(&Login::In);
            refused &= !unnamed && logins.iter().all(|login| *login == Login::Refused);
        }
        Ok(match (accepted, refused && control) {
            (true, _) => (Answer::Accepted, true),
            (false, true) => (Answer::Refused, true),
            (false, false) => (Answer::Unknown, false),
        })
    }
}

#[async_trait]
impl Connector for RedisUsers {
    fn name(&self) -> &'static str {
        Kind::RedisUser.as_str()
    }

    fn system(&self) -> &str {
        &self.target
    }

    fn call_timeout_ms(&self) -> i64 {
        i64::try_from(self.whole().as_millis()).unwrap_or(i64::MAX)
    }

    fn settle(&self) -> Settle {
        Settle { window_ms: 0, sightings: 1 }
    }

    async fn observe(&self, subject: &Subject) -> Result<Observation, Failure> {
        self.within(FailureKind::Unavailable, self.look(subject)).await
    }

    async fn perform(&self, act: Act, subject: &Subject) -> Result<Output, Failure> {
        let call = async {
            match act {
                Act::Set => self.set(subject).await,
                Act::Revoke => self.cut(subject).await,
                Act::RevokeDerived => self.end_connections(subject).await,
                Act::Restore => self.restore(subject).await,
                _ => refused("this connector has no such step"),
            }
        };
        self.within(FailureKind::Unknown, Box::pin(call)).await
    }

    async fn pass(&self, act: Act, subject: &Subject) -> Result<Gate, Failure> {
        match act {
            Act::Test => self.within(FailureKind::Unavailable, self.test(subject)).await,
            Act::Adopt => Ok(many::adopted(rotation(subject)?.0, self.clock.wall_ms())),
            _ => refused("this connector has no such gate"),
        }
    }

    async fn probe(&self, subject: &Subject) -> Sighting {
        let at_ms = self.clock.wall_ms();
        let sight = self.within(FailureKind::Unavailable, Box::pin(self.sight(subject))).await;
        let (answer, control) = sight.unwrap_or((Answer::Unknown, false));
        Sighting { level: Level::Target, answer, at_ms, control, residue: Vec::new(), request_id: None }
    }

    /// Our own user is let in on every node, and may do all that it needs to.
    async fn self_check(&self) -> Result<(), Failure> {
        let check = async {
            for session in self.sessions().await {
                if let Some(lacked) = session?.lacks().await? {
                    let note = format!("our own user lacks `{lacked}`: see deploy/redis");
                    return Err(Failure::new(FailureKind::Denied, note));
                }
            }
            Ok(())
        };
        self.within(FailureKind::Unavailable, check).await
    }
}

//! The ways in and out: Kafka, topics, HTTP. Plain text stays on this machine.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::{IpAddr, SocketAddr};

use serde_saphyr::{Location, Spanned};

use super::check::Checks;
use super::problem::said;
use super::{Http, KINDS, Kafka, Overrides, Problem, Properties, Publish, Status, Topic, file, scanners};
use crate::bind;
use crate::case::Action;
use crate::event::{self, Format, Says, Type};
use crate::guard::Authority;
use crate::kafka::settings::OURS;
use crate::reach::notice;

/// What the topic of findings is called, where nothing else is said.
pub const FINDINGS: &str = "curfew.findings";

/// Whether `host` (without port, IPv6 with or without brackets) is this machine.
pub fn is_loopback(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Whether all of comma-separated `host:port` are this machine.
pub fn brokers_are_loopback(brokers: &str) -> bool {
    brokers.split(',').all(|broker| {
        let broker = broker.trim().rsplit_once("://").map_or(broker.trim(), |(_, rest)| rest);
        is_loopback(broker.rsplit_once(':').map_or(broker, |(host, _)| host))
    })
}

/// Whether a URL is `https`, or `http` to this machine.
pub fn is_safe_url(url: &str) -> bool {
    if let Some(rest) = url.strip_prefix("https://") {
        return !rest.is_empty();
    }
    url.strip_prefix("http://").is_some_and(|rest| {
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let host = authority.rsplit_once(':').filter(|(_, port)| port.bytes().all(|b| b.is_ascii_digit()));
        !authority.contains('@') && is_loopback(host.map_or(authority, |(host, _)| host))
    })
}

pub(super) fn kafka(c: &mut Checks<'_>, raw: Option<&Spanned<file::Kafka>>, over: &Overrides) -> Option<Kafka> {
    let (raw, at) = match (raw, &over.kafka) {
        (Some(raw), _) => (raw.value.clone(), raw.referenced),
        (None, Some(_)) => (file::Kafka::default(), Location::UNKNOWN),
        (None, None) => return None,
    };
    let brokers = over.kafka.clone().unwrap_or(raw.brokers.value);
    if brokers.trim().is_empty() {
        c.wrong(at, "`kafka.brokers` is missing, such as \"127.0.0.1:9092\"");
    }
    for (name, value) in &raw.properties {
        if OURS.contains(&name.as_str()) {
            let problem = Problem::new(value.referenced, format!("`{name}` is set by Curfew"));
            c.problems.push(problem.help("nothing lost and nothing twice rest on it: remove it"));
        }
    }
    let tls = raw.properties.get("security.protocol").is_some_and(|p| p.value.to_ascii_lowercase().ends_with("ssl"));
    if !tls && !brokers_are_loopback(&brokers) {
        let problem = Problem::new(raw.brokers.referenced, "plain text to Kafka is allowed on loopback only");
        c.problems.push(problem.help("set `security.protocol: SASL_SSL` (or SSL) in `kafka.properties`"));
    }
    let properties = raw.properties.into_iter().map(|(name, value)| (name, value.value)).collect();
    Some(Kafka { brokers, group: raw.group, properties: Properties(properties) })
}

fn all_kinds() -> BTreeSet<String> {
    KINDS.map(str::to_owned).into()
}

pub(super) fn topics(
    c: &mut Checks<'_>,
    raw: Option<BTreeMap<String, Spanned<file::Topic>>>,
) -> BTreeMap<String, Topic> {
    let Some(raw) = raw else {
        let topic = |finding: bool, strongest| Topic {
            tenant: "default".into(),
            format: Format::Curfew,
            says: Says {
                types: Type::INPUTS
                    .into_iter()
                    .filter(|kind| if finding { is_of_findings(*kind) } else { is_of_tasks(*kind) })
                    .collect(),
                ..Says::default()
            },
            authority: Authority { kinds: all_kinds(), strongest },
        };
        return BTreeMap::from([
            ("curfew.tasks".to_owned(), topic(false, Action::Revoke)),
            (FINDINGS.to_owned(), topic(true, Action::Track)),
        ]);
    };
    let mut topics = BTreeMap::new();
    for (name, Spanned { value: topic, referenced: at, .. }) in raw {
        if name == event::OWN {
            c.wrong(at, "`curfew` is the name of Curfew's own events: no topic can be called so");
        }
        if name.starts_with(notice::TOPIC) {
            c.wrong(
                at,
                format!("`{}` begins the name of what Curfew finds in reach: no topic can be called so", notice::TOPIC),
            );
        }
        if name.starts_with(bind::TOPIC) {
            c.wrong(
                at,
                format!("`{}` begins the names of Curfew's own bindings: no topic can be called so", bind::TOPIC),
            );
        }
        if topic.tenant.is_empty() {
            c.wrong(at, "`tenant` is empty");
        }
        let types = match topic.events {
            None => topic.format.says().iter().copied().filter(|kind| is_of_tasks(*kind)).collect(),
            Some(names) => names.iter().filter_map(|name| event(c, name, topic.format)).collect::<HashSet<Type>>(),
        };
        for kind in topic.kinds.iter().flatten().filter(|kind| !KINDS.contains(&kind.value.as_str())) {
            let problem = Problem::new(kind.referenced, format!("{} is not a kind of credential", said(&kind.value)));
            c.problems.push(problem.nearest(&kind.value, KINDS));
        }
        let kinds = topic.kinds.map_or_else(all_kinds, |kinds| kinds.into_iter().map(|kind| kind.value).collect());
        let authority = Authority { kinds, strongest: topic.strongest };
        let sources = topic.sources.map(|sources| patterns(c, sources));
        let says = Says { types, sources, speaks_for: patterns(c, topic.speaks_for) };
        topics.insert(name, Topic { tenant: topic.tenant.into(), format: topic.format, says, authority });
    }
    warn_of_any_source(c, &topics);
    topics
}

/// What a topic's producers may say that names no `events`. An inventory's word on which fingerprints are whose decides
/// what a finding hits: it is asked for by name.
fn is_of_findings(kind: Type) -> bool {
    kind.as_str().starts_with("finding.")
}

fn is_of_tasks(kind: Type) -> bool {
    kind.as_str().starts_with("task.") || kind.as_str().starts_with("grant.")
}

/// Where schedulers were given topics of their own, one without `sources` can still speak as any of them.
fn warn_of_any_source(c: &mut Checks<'_>, topics: &BTreeMap<String, Topic>) {
    let tells_of_tasks = |topic: &Topic| topic.says.types.iter().any(|kind| is_of_tasks(*kind));
    for (name, topic) in topics.iter().filter(|(_, topic)| tells_of_tasks(topic) && topic.says.sources.is_none()) {
        let others = topics.iter().filter(|(other, it)| *other != name && it.tenant == topic.tenant);
        if others.into_iter().any(|(_, it)| tells_of_tasks(it)) {
            let warning = format!(
                "topic {} has no `sources`: its producers can end the tasks of other topics' sources",
                said(name)
            );
            c.warnings.push(warning);
        }
    }
}

/// Sources, whole or ending in `*`.
pub(super) fn patterns(c: &mut Checks<'_>, raw: Vec<Spanned<String>>) -> Vec<String> {
    for one in &raw {
        let start = one.value.strip_suffix('*').unwrap_or(&one.value);
        if one.value.is_empty() || start.contains('*') {
            c.wrong(one.referenced, "a source is written whole, such as \"/schedulers/ci\", or ends in `*`");
        }
    }
    raw.into_iter().map(|one| one.value).collect()
}

fn event(c: &mut Checks<'_>, name: &Spanned<String>, format: Format) -> Option<Type> {
    let found = Type::INPUTS.into_iter().find(|kind| kind.as_str() == name.value);
    if found.is_some_and(|kind| !format.says().contains(&kind)) {
        let message = format!("`format: {}` says nothing of the kind {}", format.as_str(), said(&name.value));
        let known: Vec<&str> = format.says().iter().map(|kind| kind.as_str()).collect();
        c.problems.push(Problem::new(name.referenced, message).help(format!("it says {}", known.join(", "))));
    }
    if found.is_none() {
        let problem = Problem::new(name.referenced, format!("{} is not an event type", said(&name.value)));
        c.problems.push(if Type::OWN.iter().any(|own| own.as_str() == name.value) {
            problem.help("only Curfew itself may say this")
        } else {
            problem.nearest(&name.value, Type::INPUTS.map(Type::as_str))
        });
    }
    found
}

pub(super) fn publish(c: &mut Checks<'_>, raw: &file::Publish, topics: &BTreeMap<String, Topic>) -> Publish {
    for topic in [&raw.outcomes, &raw.states, &raw.rotated, &raw.rejected] {
        if topics.contains_key(&topic.value) {
            c.wrong(topic.referenced, format!("{} is read from as well: Curfew would hear itself", said(&topic.value)));
        }
    }
    Publish {
        outcomes: raw.outcomes.value.clone(),
        states: raw.states.value.clone(),
        rotated: raw.rotated.value.clone(),
        rejected: raw.rejected.value.clone(),
    }
}

pub(super) fn http(
    c: &mut Checks<'_>,
    raw: Option<file::Http>,
    only_way_in: bool,
    topics: &BTreeMap<String, Topic>,
    (has_keys, remembered): (bool, file::Millis),
) -> Option<Http> {
    let given = raw.is_some();
    let mut raw = raw.or_else(|| only_way_in.then(file::Http::default))?;
    if !raw.listen.value.ip().is_loopback() {
        c.wrong(raw.listen.referenced, "intake over HTTP listens on loopback only");
    }
    let unknown = |named: &Spanned<String>| {
        let problem = Problem::new(named.referenced, format!("there is no topic {}", said(&named.value)));
        problem.nearest(&named.value, topics.keys().map(String::as_str))
    };
    if !topics.contains_key(&raw.topic.value) {
        // Only a default can be mended: the one topic that there is.
        let mut own = topics.iter().filter(|(_, topic)| topic.format != Format::Kubernetes);
        if let (false, Some((first, _))) = (given, own.next()) {
            raw.topic.value.clone_from(first);
        } else {
            c.problems.push(unknown(&raw.topic));
        }
    }
    if let Some(named) = raw.findings.as_ref().filter(|named| !topics.contains_key(&named.value)) {
        c.problems.push(unknown(named));
    }
    let usual = Some(FINDINGS).filter(|name| topics.contains_key(*name)).map(str::to_owned);
    let findings = raw.findings.map(|named| named.value).or(usual).unwrap_or_else(|| raw.topic.value.clone());
    let token_file = c.path(&raw.token_file);
    let gitlab = raw.gitlab.as_ref().map(|raw| {
        scanners::needs_keys(c, raw.referenced, "gitlab", has_keys);
        scanners::gitlab(c, raw)
    });
    let github = raw.github.as_ref().map(|raw| {
        scanners::needs_keys(c, raw.referenced, "github", has_keys);
        scanners::github(c, &raw.value, remembered)
    });
    let reach = raw.reach.as_ref().map(|raw| c.path(&raw.token_file));
    Some(Http { listen: raw.listen.value, token_file, topic: raw.topic.value, findings, gitlab, github, reach })
}

/// The status page: without a login, and in plain text. Who lets it be read beyond this machine says as whom it is called.
pub(super) fn status(c: &mut Checks<'_>, raw: Option<file::Status>, over: Option<SocketAddr>) -> Option<Status> {
    let raw = raw.or_else(|| over.map(|_| file::Status::default()))?;
    let listen = over.unwrap_or(raw.listen.value);
    for host in &raw.hosts {
        let name = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'));
        if host.value.is_empty() || !name(&host.value) {
            let message = "one of `status.hosts` is the name or IPv4 address of a host, without scheme and port";
            c.wrong(host.referenced, message);
        }
    }
    if !listen.ip().is_loopback() && raw.hosts.is_empty() {
        let problem = Problem::new(raw.listen.referenced, "the status page has no login: it listens on loopback only");
        let help = "put a proxy with TLS and a login before it; to serve it at this address all the same, name the hosts as which \
                    it may be called: `hosts: [status.corp.example]`";
        c.problems.push(problem.help(help));
    }
    Some(Status { listen, hosts: raw.hosts.into_iter().map(|host| host.value).collect() })
}

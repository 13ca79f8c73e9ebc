//! For people: tables, times, colours only where somebody looks.

use std::io::{self, IsTerminal as _};

use comfy_table::{Cell, Color, ContentArrangement, Table, presets};
use curfew::case::CaseId;
use curfew::case::derived::{Derived, Role, Says};
use curfew::case::record::Verdict;
pub use curfew::case::said::{span, time, verdict};
use curfew::config::{Config, System};
use curfew::connector::recipe::Place;

/// Whether stderr shows colours.
pub fn colour_on_stderr() -> bool {
    io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none()
}

/// An empty table with a head, as wide as the terminal.
pub fn table(head: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic).set_header(head);
    if !io::stdout().is_terminal() || std::env::var_os("NO_COLOR").is_some() {
        table.force_no_tty();
        // Wide enough that nothing is wrapped where nobody looks.
        table.set_width(400);
    }
    table
}

/// A moment that may be missing.
pub fn time_or_none(ms: Option<i64>) -> String {
    ms.map_or_else(|| "-".to_owned(), time)
}

/// What a credential's holder may have become, a line for each role. `closed_ms`: nobody opened a session with it after that.
pub fn derived(of: &Derived, closed_ms: Option<i64>) -> Vec<String> {
    let one = |role: &Role| {
        let by = if role.by == Says::Role { "its own limit" } else { "AWS's limit, its own is not known" };
        let life = match closed_ms {
            Some(closed_ms) => format!("its last session is over at {}", time(closed_ms.saturating_add(role.lasts_ms))),
            None => format!("a session lives {}", span(role.lasts_ms)),
        };
        let denied =
            role.denied_ms.map(|ms| format!(", denied what was opened before {}", time(ms))).unwrap_or_default();
        format!("{}: {life} ({by}); others that may assume it: {}{denied}", role.name, role.others)
    };
    let mut lines: Vec<String> = of.roles.iter().map(one).collect();
    if of.more > 0 {
        lines.push(format!("and {} roles more", of.more));
    }
    match (of.whole, lines.is_empty()) {
        (true, true) => lines.push("none".to_owned()),
        (true, false) => {}
        (false, true) => lines.push("not known".to_owned()),
        (false, false) => lines.push("and what is not known".to_owned()),
    }
    lines
}

/// A verdict's cell: red while it may live, green when it was seen dead.
pub fn verdict_cell(of: &Verdict) -> Cell {
    let colour = match of {
        Verdict::Dead { .. } | Verdict::Reduced { .. } | Verdict::NotFound | Verdict::Obsolete => Color::Green,
        Verdict::RolledBack { .. } => Color::Yellow,
        Verdict::Alive { .. } => Color::Red,
        Verdict::DiesAt { .. } | Verdict::Unknown { .. } => Color::Yellow,
    };
    Cell::new(verdict(of)).fg(colour)
}

fn snake(name: &str) -> String {
    let mut out = String::new();
    for c in name.chars() {
        if c.is_ascii_uppercase() && !out.is_empty() {
            out.push('_');
        }
        out.push(c.to_ascii_lowercase());
    }
    out
}

/// As many characters of the ids as tell them apart, at least 8.
pub fn short_ids(ids: &[CaseId]) -> Vec<String> {
    let mut texts: Vec<String> = ids.iter().map(ToString::to_string).collect();
    let mut sorted = texts.clone();
    sorted.sort_unstable();
    let common = |a: &str, b: &str| a.bytes().zip(b.bytes()).take_while(|(x, y)| x == y).count();
    let needed = sorted.windows(2).map(|pair| common(&pair[0], &pair[1]) + 1).max().unwrap_or(0).clamp(8, 36);
    for text in &mut texts {
        text.truncate(needed);
    }
    texts
}

/// What a right configuration says, in a few lines.
pub fn summary(config: &Config) -> String {
    let mut lines = vec![format!("journal   {}", config.journal_name())];
    if let Some(kafka) = &config.kafka {
        lines.push(format!("kafka     {} (group {})", kafka.brokers, kafka.group));
    }
    if let Some(http) = &config.http {
        lines.push(format!("http      {} into {}", http.listen, http.topic));
    }
    if let Some(status) = &config.status {
        lines.push(format!("status    http://{}/status", status.listen));
    }
    for (name, topic) in &config.topics {
        let kinds: Vec<&str> = topic.authority.kinds.iter().map(String::as_str).collect();
        lines.push(format!("topic     {name}: at most {} of {}", topic.authority.strongest.as_str(), kinds.join(", ")));
    }
    for realm in &config.realms {
        let mode = snake(&format!("{:?}", realm.rules.mode));
        lines.push(format!("realm     {}: {mode}, {}", realm.rules.name, realm.vault.address));
    }
    for target in &config.targets {
        let system = target.system.as_str();
        let more = match &target.system {
            System::Aws(aws) => {
                let mode = snake(&format!("{:?}", target.mode));
                let roles = if aws.cut_roles.is_empty() { "" } else { ", cuts sessions of " };
                format!(" {}, {mode}, users {}{roles}{}", aws.account, aws.users.join(", "), aws.cut_roles.join(", "))
            }
            System::Postgres { .. } | System::Mariadb { .. } | System::Redis { .. } => String::new(),
        };
        lines.push(format!("target    {}: {system}{more}", target.name));
    }
    for recipe in &config.recipes {
        let (id, place) = (&recipe.credential, &recipe.place);
        let targets = config.targets.iter().map(|target| (&target.name, target.mode));
        let realms = config.realms.iter().map(|realm| (&realm.rules.name, realm.rules.mode));
        let mode = targets.chain(realms).find(|(name, _)| *name == id.instance()).map(|(_, mode)| mode);
        let mode = snake(&format!("{:?}", mode.unwrap_or_default()));
        let named = |place: &Place| format!("{}/{} in {}", place.mount, place.path, place.realm);
        let copies = recipe.copies.iter().map(|copy| format!(", copied to {}", named(copy))).collect::<String>();
        let told = recipe.webhooks.iter().map(|name| format!(", tells {name}")).collect::<String>();
        let at = format!("{}{copies}{told}", named(place));
        lines.push(format!("rotation  {}: {mode}, {} at {}, stored at {at}", recipe.name, id.id(), id.instance()));
    }
    for reduction in &config.reductions {
        lines.push(format!("reduces   {}: {}", reduction.system, reduction.identities.join(", ")));
    }
    for inventory in &config.inventories {
        let all: Vec<&str> = inventory.paths.iter().chain(&inventory.static_roles).map(String::as_str).collect();
        lines.push(format!("inventory {}: {} below {}", inventory.realm, all.join(", "), inventory.mount));
    }
    for binding in &config.bindings {
        let of: Vec<String> = binding.rules.iter().map(|rule| rule.origin.to_string()).collect();
        lines.push(format!("bindings  {}: by the metadata of {}", binding.realm, of.join(", ")));
    }
    if let Some(fingerprint) = &config.fingerprint {
        let by = fingerprint.transit.as_ref();
        let by = by.map(|by| format!(", wrapped by {}/{} in {}", by.mount, by.key, by.realm)).unwrap_or_default();
        lines.push(format!("keys      {}{by}", fingerprint.key_file.display()));
    }
    lines.push("ok".to_owned());
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_words() {
        assert_eq!(snake("DerivedUnknown"), "derived_unknown");
    }

    #[test]
    fn what_outlives_a_credential_is_said_and_unknown_is_not_none() {
        use curfew::case::derived::Others;
        assert_eq!(derived(&Derived { whole: true, ..Derived::default() }, None), ["none"]);
        assert_eq!(derived(&Derived::default(), None), ["not known"]);
        let role = Role {
            name: "arn:r".to_owned(),
            lasts_ms: 3_600_000,
            by: Says::Role,
            others: Others { count: 2, at_least: true },
            denied_ms: Some(0),
        };
        let all = Derived { roles: vec![role], more: 1, whole: false };
        let said = derived(&all, Some(1_000));
        assert_eq!(
            said,
            [
                "arn:r: its last session is over at 1970-01-01T01:00:01.000Z (its own limit); others that may assume it: at \
                 least 2, denied what was opened before 1970-01-01T00:00:00.000Z",
                "and 1 roles more",
                "and what is not known",
            ]
        );
    }

    #[test]
    fn short_ids_tell_cases_apart() {
        let ids: Vec<CaseId> = ["0192f1c4-aaaa-7000-8000-000000000000", "0192f1c4-aaab-7000-8000-000000000000"]
            .iter()
            .map(|id| id.parse().unwrap())
            .collect();
        assert_eq!(short_ids(&ids), ["0192f1c4-aaaa", "0192f1c4-aaab"]);
        assert_eq!(short_ids(&ids[..1]), ["0192f1c4"]);
    }
}

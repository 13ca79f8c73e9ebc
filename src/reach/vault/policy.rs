//! What a policy of Vault says of a path. PURE.
//!
//! Of the patterns of one policy that fit a path the most specific one counts, and no other (Vault: "Policies, priority
//! matching"). Of several policies Vault takes the most specific pattern of all of them, too; here each is asked by itself, so
//! that what an identity reaches is never told too small.

use std::collections::BTreeSet;

use serde_json::Value;

/// So large may a policy be, in bytes. Vault's own limit for a request is 32 MiB.
const MAX_BYTES: usize = 1 << 20;

/// Why a policy could not be read. Says nothing of its text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadPolicy {
    /// Longer than a mebibyte.
    #[error("it is longer than a mebibyte")]
    TooLong,
    /// Neither HCL nor JSON of a policy.
    #[error("it cannot be read as HCL or JSON")]
    Unreadable,
}

/// One `path` of a policy.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Rule {
    /// `+` stands for one segment; a `*` at the end for anything.
    pattern: String,
    /// Vault fills in a part of it for each identity: it may fit, and hides no other.
    is_templated: bool,
    capabilities: BTreeSet<String>,
}

/// A policy.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policy {
    rules: Vec<Rule>,
    /// `root`: it may do everything.
    is_root: bool,
}

impl Policy {
    /// The policy that needs no text.
    pub fn root() -> Self {
        Self { rules: Vec::new(), is_root: true }
    }

    /// Reads what `sys/policies/acl/<name>` says.
    ///
    /// # Errors
    /// [`BadPolicy`].
    pub fn parse(text: &str) -> Result<Self, BadPolicy> {
        if text.len() > MAX_BYTES {
            return Err(BadPolicy::TooLong);
        }
        let mut policy = Self::default();
        if text.trim_start().starts_with('{') {
            let json: Value = serde_json::from_str(text).map_err(|_| BadPolicy::Unreadable)?;
            for (pattern, rule) in json["path"].as_object().ok_or(BadPolicy::Unreadable)? {
                policy.add(pattern, words(&rule["capabilities"]), rule["policy"].as_str());
            }
            return Ok(policy);
        }
        let body: hcl::Body = hcl::parse(text).map_err(|_| BadPolicy::Unreadable)?;
        for block in body.blocks().filter(|block| block.identifier() == "path") {
            let [label] = block.labels() else { return Err(BadPolicy::Unreadable) };
            let of = |name: &str| block.body().attributes().find(|one| one.key() == name).map(hcl::Attribute::expr);
            let capabilities = match of("capabilities") {
                Some(hcl::Expression::Array(all)) => all.iter().filter_map(text_of).collect(),
                Some(_) => return Err(BadPolicy::Unreadable),
                None => Vec::new(),
            };
            policy.add(label.as_str(), capabilities, of("policy").and_then(text_of).as_deref());
        }
        Ok(policy)
    }

    fn add(&mut self, pattern: &str, capabilities: Vec<String>, old: Option<&str>) {
        // The one word of earlier versions.
        let old: &[&str] = match old {
            Some("read") => &["read", "list"],
            Some("write") => &["create", "read", "update", "delete", "list"],
            Some("sudo") => &["create", "read", "update", "delete", "list", "sudo"],
            Some("deny") => &["deny"],
            _ => &[],
        };
        let capabilities = capabilities.into_iter().chain(old.iter().map(|word| (*word).to_owned())).collect();
        // What Vault fills in for each identity can be anything there.
        let is_templated = pattern.contains("{{");
        let filled = |part: &'_ str| match (part.contains("{{"), part.ends_with('*')) {
            (true, true) => "+*".to_owned(),
            (true, false) => "+".to_owned(),
            (false, _) => part.to_owned(),
        };
        let pattern: Vec<String> = pattern.trim_start_matches('/').split('/').map(filled).collect();
        self.rules.push(Rule { pattern: pattern.join("/"), is_templated, capabilities });
    }

    /// What it allows on `path`; empty: nothing.
    pub fn on(&self, path: &str) -> BTreeSet<String> {
        if self.is_root {
            return BTreeSet::from(["root".to_owned()]);
        }
        let fitting = || self.rules.iter().filter(|rule| fits(&rule.pattern, path));
        let certain = || fitting().filter(|rule| !rule.is_templated);
        let best = certain().max_by_key(|rule| priority(&rule.pattern));
        let all = certain().filter(|rule| best.is_some_and(|best| best.pattern == rule.pattern));
        let mut all: BTreeSet<String> = all.flat_map(|rule| rule.capabilities.clone()).collect();
        if all.contains("deny") {
            all.clear();
        }
        all.extend(granted(fitting().filter(|rule| rule.is_templated)));
        all
    }

    /// What it allows anywhere below `start`, which ends where a `*` stood: each rule that may be about something there, whatever
    /// others deny.
    pub fn below(&self, start: &str) -> BTreeSet<String> {
        if self.is_root {
            return BTreeSet::from(["root".to_owned()]);
        }
        granted(self.rules.iter().filter(|rule| overlaps(&rule.pattern, start)))
    }
}

impl Policy {
    /// Whether `other` might allow more without this one: of two patterns that may fit one path the more specific one counts, and
    /// `deny` counts always.
    pub fn holds_back(&self, other: &Self) -> bool {
        if self.is_root || other.is_root {
            return false;
        }
        self.rules.iter().any(|rule| {
            let held = |held: &&Rule| held.pattern != rule.pattern || rule.capabilities.contains("deny");
            let meets = other.rules.iter().filter(held).filter(|held| meet(&rule.pattern, &held.pattern));
            meets
                .filter(|held| !held.capabilities.contains("deny"))
                .any(|held| rule.capabilities.contains("deny") || !held.capabilities.is_subset(&rule.capabilities))
        })
    }
}

/// Whether two patterns may fit one path. In doubt they do.
fn meet(a: &str, b: &str) -> bool {
    let (mut a, mut b) = (a.split('/').peekable(), b.split('/').peekable());
    loop {
        let (one, two) = match (a.next(), b.next()) {
            (Some(one), Some(two)) => (one, two),
            (None, None) => return true,
            _ => return false,
        };
        // What stands before a `*` at the end; behind it anything may come.
        let open = |part: &str, is_last: bool| part.strip_suffix('*').filter(|_| is_last).map(str::to_owned);
        let (first, second) = (open(one, a.peek().is_none()), open(two, b.peek().is_none()));
        let is_any = |part: &str| part.starts_with('+');
        match (first, second) {
            (Some(one), Some(two)) => {
                return is_any(&one) || is_any(&two) || one.starts_with(&two) || two.starts_with(&one);
            }
            (Some(start), None) => return is_any(&start) || is_any(two) || two.starts_with(&start),
            (None, Some(start)) => return is_any(&start) || is_any(one) || one.starts_with(&start),
            (None, None) if one == two || is_any(one) || is_any(two) => {}
            (None, None) => return false,
        }
    }
}

/// What these rules give, the ones that deny left out.
fn granted<'a>(rules: impl Iterator<Item = &'a Rule>) -> BTreeSet<String> {
    rules.filter(|rule| !rule.capabilities.contains("deny")).flat_map(|rule| rule.capabilities.clone()).collect()
}

/// Whether a pattern may fit something that begins with `start`.
fn overlaps(pattern: &str, start: &str) -> bool {
    let before: String = match pattern.split('/').position(|part| part.starts_with('+')) {
        Some(at) => pattern.split('/').take(at).fold(String::new(), |before, part| before + part + "/"),
        None => pattern.trim_end_matches('*').to_owned(),
    };
    let is_open = pattern.ends_with('*') || pattern.split('/').any(|part| part == "+");
    before.starts_with(start) || (is_open && start.starts_with(&before))
}

fn text_of(expression: &hcl::Expression) -> Option<String> {
    match expression {
        hcl::Expression::String(text) => Some(text.clone()),
        _ => None,
    }
}

fn words(json: &Value) -> Vec<String> {
    json.as_array().into_iter().flatten().filter_map(|word| Some(word.as_str()?.to_owned())).collect()
}

fn fits(pattern: &str, path: &str) -> bool {
    let (pattern, open) = match pattern.strip_suffix('*') {
        Some(before) => (before, true),
        None => (pattern, false),
    };
    let (mut wanted, mut given) = (pattern.split('/').peekable(), path.split('/'));
    while let Some(part) = wanted.next() {
        let last = wanted.peek().is_none();
        let Some(there) = given.next() else { return false };
        let same = part == "+" || part == there || (open && last && there.starts_with(part));
        if !same {
            return false;
        }
    }
    open || given.next().is_none()
}

/// Greater is more specific. Where the first wildcard stands, whether it ends in `*`, how many `+`, how long, and then by
/// letters: Vault's order. Without any wildcard it is exact, and before all.
fn priority(pattern: &str) -> (bool, usize, bool, std::cmp::Reverse<usize>, usize, &str) {
    let plus = pattern.split('/').filter(|part| *part == "+").count();
    let star = pattern.ends_with('*');
    let mut at = 0;
    let mut first = if star { pattern.len() - 1 } else { usize::MAX };
    for part in pattern.split('/') {
        if part == "+" {
            first = first.min(at);
            break;
        }
        at += part.len() + 1;
    }
    (first == usize::MAX, first, !star, std::cmp::Reverse(plus), pattern.len(), pattern)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn on(policy: &str, path: &str) -> String {
        Policy::parse(policy).unwrap().on(path).into_iter().collect::<Vec<_>>().join(",")
    }

    #[test]
    fn the_most_specific_path_counts_and_no_other() {
        let policy = r#"
            # all of it
            path "kv/data/*" { capabilities = ["read", "list"] }
            path "kv/data/+/key" { capabilities = ["update"] }
            path "kv/data/secret/*" {
              capabilities = ["deny"]
            }
            path "kv/data/secret/known" { capabilities = ["read"] }
            path "database/creds/ro" { policy = "read" }
        "#;
        for (path, allowed) in [
            ("kv/data/app", "list,read"),
            ("kv/data/app/key", "update"),
            ("kv/data/secret/other", ""),
            ("kv/data/secret/known", "read"),
            ("kv/data/secret/key", ""),
            ("kv/metadata/app", ""),
            ("database/creds/ro", "list,read"),
            ("database/creds/ro/x", ""),
        ] {
            assert_eq!(on(policy, path), allowed, "{path}");
        }
    }

    #[test]
    fn wildcards_fit_as_vault_has_them() {
        for (pattern, path, fits_it) in [
            ("kv/data/app*", "kv/data/apples", true),
            ("kv/data/app*", "kv/data/ap", false),
            ("kv/data/*", "kv/data/", true),
            ("kv/data/*", "kv/data", false),
            ("*", "anything/at/all", true),
            ("+/data/app", "kv/data/app", true),
            ("+/data/app", "a/kv/data/app", false),
            ("kv/+/app/*", "kv/data/app/x/y", true),
            ("kv/data/app", "kv/data/app/", false),
        ] {
            assert_eq!(fits(pattern, path), fits_it, "{pattern} {path}");
        }
    }

    #[test]
    fn below_a_place_counts_whatever_may_be_about_something_there() {
        let policy = "path \"kv/data/pay/stripe\" { capabilities = [\"read\"] }\npath \"kv/data/+/key\" { capabilities = \
                      [\"update\"] }\npath \"kv/data/pay/*\" { capabilities = [\"deny\"] }";
        let below = |start: &str| Policy::parse(policy).unwrap().below(start).into_iter().collect::<Vec<_>>().join(",");
        assert_eq!(below("kv/data/pay/"), "read,update");
        assert_eq!(below("kv/data/pay/x/"), "update");
        assert_eq!(below("database/"), "");
    }

    #[test]
    fn a_policy_that_denies_or_is_more_specific_holds_another_one_back() {
        let policy = |path: &str, words: &str| {
            Policy::parse(&format!("path \"{path}\" {{ capabilities = [{words}] }}")).unwrap()
        };
        let broad = policy("kv/data/*", "\"read\", \"list\"");
        for (path, words, holds) in [
            ("kv/data/pay/*", "\"deny\"", true),
            ("kv/data/pay/key", "\"read\"", true),
            ("kv/+/pay", "\"list\"", true),
            ("kv/data/*", "\"deny\"", true),
            // The same pattern: what both give is joined.
            ("kv/data/*", "\"read\"", false),
            ("kv/data/pay/key", "\"list\", \"read\", \"update\"", false),
            ("kv/metadata/*", "\"deny\"", false),
            ("db/creds/ro", "\"read\"", false),
            ("kv/data", "\"deny\"", false),
        ] {
            assert_eq!(policy(path, words).holds_back(&broad), holds, "{path} {words}");
        }
        assert!(!broad.holds_back(&policy("db/creds/ro", "\"read\"")));
        assert!(broad.holds_back(&policy("kv/data/pay", "\"update\"")), "in doubt");
    }

    #[test]
    fn json_templates_and_root_are_read() {
        let json = r#"{"path": {"kv/data/{{identity.entity.id}}/*": {"capabilities": ["read"]}}}"#;
        assert_eq!(on(json, "kv/data/e-1/token"), "read");
        // What is filled in may be anything, also where the rest is open; it hides no other rule, and none hides it.
        let filled = "path \"users/{{identity.entity.name}}*\" { capabilities = [\"read\"] }\npath \"users/al*\" { capabilities = \
                      [\"deny\"] }";
        assert_eq!((on(filled, "users/bob/db"), on(filled, "users/alice")), ("read".to_owned(), "read".to_owned()));
        assert_eq!(Policy::root().on("sys/seal").into_iter().collect::<Vec<_>>(), ["root"]);
        for bad in ["path \"x\" {", "{\"path\": 1}", "path \"x\" \"y\" {}", "path \"x\" { capabilities = 1 }"] {
            assert_eq!(Policy::parse(bad), Err(BadPolicy::Unreadable), "{bad}");
        }
        assert_eq!(Policy::parse(&"#".repeat(MAX_BYTES + 1)), Err(BadPolicy::TooLong));
    }
}

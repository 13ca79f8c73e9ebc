//! `docs/config.md` has each key that is read, with the default that it has, and no other.

use std::collections::{BTreeMap, BTreeSet};

use serde_saphyr::Error;

use crate::config::file::File;

/// A key that there is not, and a word that is no value.
const NONE: &str = "zzz";
/// What else must be there for a part to be read at all: `needed` in the document, and not only by `curfew check`.
const LEAST: [(&str, &[(&str, &str)]); 26] = [
    ("journal.postgres", &[("url_file", "x")]),
    ("http.gitlab", &[("types", "[]")]),
    ("http.github.api", &[("token_file", "x")]),
    ("http.reach", &[("token_file", "x")]),
    ("fingerprint.transit", &[("realm", "x")]),
    ("realms[].targets[]", &[("prefix", "x"), ("target", "x")]),
    ("realms[].reconcile.prefixes[]", &[("prefix", "x")]),
    ("targets[]", &[("name", "x")]),
    ("targets[].postgres", &[("url_file", "x")]),
    ("targets[].mariadb", &[("url_file", "x")]),
    ("targets[].redis", &[("url_file", "x")]),
    ("targets[].aws", &[("account", "'1'"), ("region", "x")]),
    ("webhooks[]", &[("name", "x"), ("url", "x")]),
    ("rotations[]", &[("name", "x"), ("store", "{realm: x}")]),
    ("rotations[].approle", &[("realm", "x"), ("role", "x")]),
    ("rotations[].split[]", &[("agent", "x"), ("rotation", "x")]),
    ("inventory[]", &[("realm", "x")]),
    ("bindings[]", &[("realm", "x"), ("rules", "[]")]),
    ("bindings[].rules[]", &[("run", "x")]),
    ("canary", &[("realm", "x"), ("token_file", "x"), ("role", "x")]),
    ("kubernetes[]", &[("cluster", "x"), ("uid", "x"), ("topic", "x"), ("namespaces", "[]")]),
    ("reductions[]", &[("system", "x"), ("identities", "[]")]),
    ("reach.vaults[]", &[("realm", "x")]),
    ("reach.uses[]", &[("realm", "x"), ("audit_log", "x")]),
    ("reach.finds", &[("sorts", "[]")]),
    ("policy.findings[]", &[("then", "hold")]),
];

fn least(path: &str) -> Vec<(&'static str, &'static str)> {
    let of = |path: &str| LEAST.iter().find(|(of, _)| *of == path).map(|(_, keys)| keys.to_vec());
    let alike = match path {
        "rotations[].store" | "rotations[].copies[]" => vec![("realm", "x")],
        "reach.databases[]" | "reach.accounts[]" => vec![("target", "x")],
        _ if path.ends_with(".approle") => vec![("role_id_file", "x"), ("secret_id_file", "x")],
        _ => Vec::new(),
    };
    of(path).unwrap_or(alike)
}

/// The file in which the part at `path` is its least, and has `keys`.
fn file(path: &str, keys: &[(&str, &str)]) -> String {
    let least = least(path).into_iter().filter(|(name, _)| keys.iter().all(|(key, _)| key != name));
    with(path, &least.chain(keys.iter().copied()).collect::<Vec<_>>())
}

/// The file in which the part at `path` has `keys`, and nothing else.
fn with(path: &str, keys: &[(&str, &str)]) -> String {
    let inner: Vec<String> = keys.iter().map(|(name, value)| format!("{name}: {value}")).collect();
    let inner = format!("{{{}}}", inner.join(", "));
    let (above, last) = path.rsplit_once('.').unwrap_or(("", path));
    match last {
        "" => inner,
        "*" => {
            let (above, name) = above.rsplit_once('.').unwrap_or(("", above));
            file(above, &[(name, &format!("{{any: {inner}}}"))])
        }
        _ => match last.strip_suffix("[]") {
            Some(name) => file(above, &[(name, &format!("[{inner}]"))]),
            None => file(above, &[(last, &inner)]),
        },
    }
}

fn read(text: &str) -> Result<File, Error> {
    serde_saphyr::from_str_with_options(text, serde_saphyr::options! { with_snippet: false })
}

/// The keys of the part at `path`; `None`: there is no such part.
fn keys(path: &str) -> Option<BTreeSet<String>> {
    let error = read(&file(path, &[(NONE, "0")])).err()?;
    match error.without_snippet() {
        Error::SerdeUnknownField { field, expected, .. } if field == NONE => {
            Some(expected.iter().map(|name| (*name).to_owned()).collect())
        }
        _ => None,
    }
}

/// The parts of the whole file, found by asking for a key that none of them has.
fn parts() -> BTreeMap<String, BTreeSet<String>> {
    let mut found = BTreeMap::new();
    let mut next = vec![String::new()];
    while let Some(path) = next.pop() {
        let Some(known) = keys(&path) else { continue };
        for key in &known {
            let below = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            next.extend([format!("{below}[]"), format!("{below}.*"), below]);
        }
        found.insert(path, known);
    }
    found
}

/// The words that the key takes, where it takes only some.
fn words(path: &str, key: &str) -> Vec<String> {
    for value in [NONE.to_owned(), format!("[{NONE}]")] {
        if let Err(error) = read(&file(path, &[(key, &value)]))
            && let Error::SerdeUnknownVariant { variant, expected, .. } = error.without_snippet()
            && variant == NONE
        {
            return expected.iter().map(|name| (*name).to_owned()).collect();
        }
    }
    Vec::new()
}

/// What is read, without where it stood.
fn said(text: &str) -> String {
    let file = read(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    let all = format!("{file:?}");
    let (mut out, mut rest) = (String::new(), all.as_str());
    while let Some(at) = rest.find("Location {") {
        out.push_str(&rest[..at]);
        let (mut depth, mut end) = (0_usize, rest.len());
        for (offset, letter) in rest[at..].char_indices() {
            match letter {
                '{' => depth += 1,
                '}' if depth == 1 => {
                    end = at + offset + 1;
                    break;
                }
                '}' => depth -= 1,
                _ => {}
            }
        }
        rest = &rest[end..];
    }
    out + rest
}

/// One line of a table.
struct Row {
    names: Vec<String>,
    default: String,
    means: String,
}

fn ticked(text: &str) -> Vec<String> {
    text.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// The tables of the document, by the parts that they are about.
fn document() -> BTreeMap<String, Vec<Row>> {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/config.md");
    let text = std::fs::read_to_string(path).unwrap();
    let mut found = BTreeMap::new();
    for section in text.split("\n## ").skip(1) {
        let (heading, body) = section.split_once('\n').unwrap();
        // A paragraph that says where: the heading is for people then.
        let places = body.split("\n\n").find(|part| part.trim_start().starts_with("At `"));
        let mut paths = ticked(places.unwrap_or(heading));
        if paths.is_empty() {
            paths.push(String::new());
        }
        for path in paths {
            let rows = body.lines().filter(|line| line.starts_with("| `")).map(|line| {
                let cells: Vec<&str> = line.trim_matches('|').split(" |").map(str::trim).collect();
                let [names, default, means] = cells[..] else { panic!("{heading}: three cells: {line}") };
                Row { names: ticked(names), default: default.to_owned(), means: means.to_owned() }
            });
            assert!(found.insert(path.clone(), rows.collect()).is_none(), "{path} stands there twice");
        }
    }
    found
}

#[test]
fn each_key_is_documented_with_its_default() {
    let (parts, document) = (parts(), document());
    let names = |all: &BTreeMap<String, BTreeSet<String>>| all.keys().cloned().collect::<BTreeSet<_>>();
    assert_eq!(document.keys().cloned().collect::<BTreeSet<_>>(), names(&parts), "parts: document, code");
    let mut compared = 0;
    for (path, rows) in &document {
        let written: BTreeSet<String> = rows.iter().flat_map(|row| row.names.clone()).collect();
        assert_eq!(written, parts[path], "keys of `{path}`: document, code");
        let whole = said(&file(path, &[]));
        for (name, row) in rows.iter().flat_map(|row| row.names.iter().map(move |name| (name, row))) {
            let at = format!("`{path}`: `{name}`");
            let below = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            let is_part = parts.contains_key(&below);
            let is_least = least(path).iter().any(|(needed, _)| needed == name);
            assert!(!row.means.is_empty(), "{at} means nothing");
            for word in words(path, name) {
                assert!(ticked(&row.means).contains(&word), "{at} does not say `{word}`");
            }
            let default = match row.default.as_str() {
                "needed" if is_least => {
                    let mut others = least(path);
                    others.retain(|(needed, _)| needed != name);
                    let error = read(&with(path, &others)).err();
                    let missing = error.as_ref().map(Error::without_snippet);
                    let is_missing = matches!(missing, Some(Error::SerdeMissingField { field, .. }) if field == name);
                    assert!(is_missing, "{at} is not needed: {error:?}");
                    continue;
                }
                _ if is_part => continue,
                // Nothing, which is what `curfew check` refuses.
                "needed" => "''",
                "" => "null",
                shown => shown.trim_matches('`'),
            };
            assert!(!is_least, "{at} is needed");
            assert_eq!(said(&file(path, &[(name, default)])), whole, "{at} has another default than {default}");
            compared += 1;
        }
    }
    assert!(compared > 100, "{compared} defaults: are they found?");
}

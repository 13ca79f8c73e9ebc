//! What the documents show is what there is: commands parse, configurations are taken, events are events, targets of make exist. What
//! nobody can check is marked, with the reason. `tests/it/stories/documents.rs` runs what is not marked.

mod fences;

use std::path::{Path, PathBuf};

use bytes::Bytes;
use clap::Parser as _;
use clap::error::ErrorKind;
use curfew::case::HoldReason;
use curfew::config::{Config, Environment, KINDS, Overrides};
use curfew::event::{Coordinates, Delivery, Format, Limits, decode};
use curfew::reach::declared::Declared;
use serde_json::Value;

use crate::args::{Args, Role};
use fences::{Fence, commands, lines};

/// Generated from what is checked elsewhere.
const MADE: [&str; 2] = ["docs/events.md", "docs/metrics.md"];

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn markdown(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            markdown(&path, found);
        } else if path.extension().is_some_and(|end| end == "md") {
            found.push(path);
        }
    }
}

/// Each document with its text.
fn documents() -> Vec<(String, String)> {
    let mut paths: Vec<PathBuf> =
        ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md", "benches/README.md"]
            .map(|name| repository().join(name))
            .into();
    markdown(&repository().join("docs"), &mut paths);
    markdown(&repository().join("schemas/events"), &mut paths);
    paths.sort();
    let name = |path: &Path| path.strip_prefix(repository()).unwrap().to_str().unwrap().to_owned();
    paths.iter().map(|path| (name(path), std::fs::read_to_string(path).unwrap())).collect()
}

fn all(language: &str) -> Vec<Fence> {
    let documents = documents().into_iter().filter(|(name, _)| !MADE.contains(&name.as_str()));
    let all = documents.flat_map(|(name, text)| fences::fences(&name, &text));
    all.filter(|fence| fence.language == language).collect()
}

#[test]
fn each_block_says_what_it_is_and_each_mark_why() {
    for (name, text) in documents() {
        for fence in fences::fences(&name, &text) {
            let marked = fence.mark.as_ref().map(|(mark, why)| {
                assert!(why.len() >= 12, "{}: `{mark}` gives no reason", fence.at);
                mark.as_str()
            });
            let fine = match fence.language.as_str() {
                "sh" => marked.is_none_or(|mark| mark == "not-run"),
                "yaml" => marked.is_none_or(|mark| mark == "not-ours"),
                "json" | "text" | "promql" => marked.is_none(),
                // Of others: a console, a server's own file.
                "ini" | "ruby" | "sql" => marked == Some("not-run"),
                _ => false,
            };
            assert!(fine, "{}: nobody checks `{}` {marked:?}", fence.at, fence.language);
        }
    }
}

/// What clap says of it; `None`: it is one.
fn wrong(words: &[String]) -> Option<ErrorKind> {
    let kind = Args::try_parse_from(words).err()?.kind();
    (!matches!(kind, ErrorKind::DisplayHelp | ErrorKind::DisplayVersion)).then_some(kind)
}

#[test]
fn each_command_is_one() {
    let (mut seen, makefile) = (0, std::fs::read_to_string(repository().join("Makefile")).unwrap());
    for fence in all("sh") {
        for line in lines(&fence.text) {
            for words in commands(&line) {
                match words[0].as_str() {
                    "curfew" => assert_eq!(wrong(&words), None, "{}: {line}", fence.at),
                    "make" => {
                        for target in words[1..].iter().filter(|word| !word.contains('=')) {
                            assert!(makefile.contains(&format!("\n{target}:")), "{}: make {target}", fence.at);
                        }
                    }
                    program if program.contains('/') && !program.starts_with(['/', '.']) => {
                        assert!(repository().join(program).is_file(), "{}: there is no {program}", fence.at);
                    }
                    _ => {}
                }
                seen += 1;
            }
        }
    }
    assert!(seen > 90, "{seen} commands: are they found?");
}

/// The texts between single backticks, outside of blocks.
fn quoted(document: &str) -> Vec<String> {
    let mut is_open = false;
    let outside = document.lines().filter(|line| {
        let is_fence = line.trim_start().starts_with("```");
        is_open ^= is_fence;
        !is_fence && !is_open
    });
    let text = outside.collect::<Vec<_>>().join("\n");
    text.split('`').skip(1).step_by(2).map(|quote| quote.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

/// Within a sentence a command may be cut short, or name what the reader has to put there.
#[test]
fn each_command_that_a_sentence_names_is_one() {
    let mut seen = 0;
    for (name, text) in documents() {
        for quote in quoted(&text).iter().filter(|quote| quote.starts_with("curfew ")) {
            let words = commands(&quote.replace(['<', '>'], "")).remove(0);
            let words: Vec<String> = words.into_iter().take_while(|word| word != "…").collect();
            let short = [
                ErrorKind::MissingRequiredArgument,
                ErrorKind::MissingSubcommand,
                ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand,
            ];
            let wrong = wrong(&words).filter(|kind| !short.contains(kind));
            assert_eq!(wrong, None, "{name}: {quote}");
            seen += 1;
        }
    }
    assert!(seen > 120, "{seen} commands: are they found?");
}

/// What parts of a configuration rest on.
const BASE: &str = r#"
kafka: {brokers: "127.0.0.1:9092"}
fingerprint: {key_file: /etc/curfew/fingerprint.keys}
topics:
  curfew.tasks: {strongest: revoke}
  curfew.findings: {events: [finding.observed, finding.closed], strongest: revoke}
realms:
  - {name: prod, vault: {address: "https://vault.internal:8200", token_file: t}, allowed_prefixes: [database/creds/, "token:"],
     secret_id_roles: [approle/etl, approle/billing], derived_tokens: true, mode: enforce}
  - {name: dr, vault: {address: "https://dr.internal:8200", token_file: t}, mode: enforce}
targets:
  - {name: appdb, mode: enforce, postgres: {url_file: u}}
  - {name: aws-prod, mode: enforce, aws: {account: "123456789012", region: eu-west-1, users: [ci/]}}
  - {name: cloud, aws: {account: "123456789012", region: eu-west-1}}
"#;

/// `part` over `whole`: keys one by one, what has a name by its name, all else replaced.
fn merge(whole: &mut Value, part: Value) {
    match (whole, part) {
        (Value::Object(whole), Value::Object(part)) => {
            for (key, value) in part {
                merge(whole.entry(key).or_insert(Value::Null), value);
            }
        }
        (Value::Array(whole), Value::Array(part)) if part.iter().all(|one| one["name"].is_string()) => {
            for value in part {
                match whole.iter_mut().find(|one| one["name"] == value["name"]) {
                    Some(known) => merge(known, value),
                    None => whole.push(value),
                }
            }
        }
        (whole, part) => *whole = part,
    }
}

fn check(text: &str) -> Result<(), String> {
    let config = Config::parse("it", text, Path::new(""), &Overrides::default(), &Environment::default());
    config.map(drop).map_err(|invalid| invalid.report(false))
}

#[test]
fn each_configuration_is_taken() {
    let yaml = |text: &str| serde_saphyr::from_str::<Value>(text).unwrap_or_else(|error| panic!("{error}: {text}"));
    let (mut before, mut seen) = ((String::new(), Value::Null), 0);
    for fence in all("yaml").iter().filter(|fence| fence.mark.is_none()) {
        seen += 1;
        let document = fence.at.split(':').next().unwrap().to_owned();
        if before.0 != document {
            before = (document, yaml(BASE));
        }
        let part = yaml(&fence.text);
        if part["zones"].is_array() {
            assert!(Declared::parse(&fence.text).is_ok(), "{}", fence.at);
            continue;
        }
        // A whole one stands by itself; a part on what it needs, or on what the document showed before.
        if part["realms"].is_array() {
            assert_eq!(check(&fence.text), Ok(()), "{}", fence.at);
            continue;
        }
        let mut alone = yaml(BASE);
        merge(&mut alone, part.clone());
        merge(&mut before.1, part);
        if check(&alone.to_string()).is_err() {
            assert_eq!(check(&before.1.to_string()), Ok(()), "{}", fence.at);
        }
    }
    assert!(seen > 25, "{seen} configurations: are they found?");
    assert!(check("realms: [{nme: x}]").is_err(), "that it looks at all");
}

#[test]
fn each_event_is_one() {
    let mut seen = 0;
    for fence in all("json") {
        let event: Value = serde_json::from_str(&fence.text).unwrap_or_else(|error| panic!("{}: {error}", fence.at));
        if event["specversion"].is_null() {
            continue;
        }
        let at = Coordinates { cluster: "c".into(), topic: "curfew.tasks".into(), partition: 0, offset: 7 };
        let content_type = Bytes::from_static(b"application/cloudevents+json");
        let delivery = Delivery {
            at,
            tenant: "default".into(),
            format: Format::Curfew,
            broker_ms: 1_795_000_000_000,
            headers: vec![("content-type".into(), Some(content_type))],
            payload: Some(fence.text.clone().into()),
        };
        assert!(decode(&delivery, &Limits::default()).is_ok(), "{}", fence.at);
        seen += 1;
    }
    assert!(seen >= 2, "{seen} events: are they found?");
}

/// As GitHub names a heading.
fn slug(heading: &str) -> String {
    let text = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = text.chars().filter(|letter| letter.is_alphanumeric() || " -_".contains(*letter));
    kept.collect::<String>().replace(' ', "-")
}

#[test]
fn each_link_leads_somewhere() {
    let (documents, mut seen) = (documents(), 0);
    for (name, text) in &documents {
        let folder = Path::new(name).parent().unwrap();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split_once(')').map(|(link, _)| link)) {
            if link.starts_with("http") || link.contains(['`', ' ', '[']) {
                continue;
            }
            let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
            let path = if path.is_empty() { repository().join(name) } else { repository().join(folder).join(path) };
            assert!(path.exists(), "{name}: {link}");
            if !anchor.is_empty() {
                let target = std::fs::read_to_string(&path).unwrap();
                let found = target.lines().any(|line| line.starts_with('#') && slug(line) == anchor);
                assert!(found, "{name}: {link}");
            }
            seen += 1;
        }
    }
    assert!(seen > 100, "{seen} links: are they found?");
}

#[test]
fn each_file_that_is_named_is_there() {
    let (mut seen, roots) = (0, ["deploy/", "docs/", "schemas/", "src/", "workers/", "tests/", "benches/", "fuzz/"]);
    for (name, text) in documents() {
        for quote in quoted(&text) {
            let file = quote.split(['{', ' ', '*', '<', '?']).next().unwrap_or_default();
            if roots.iter().any(|root| file.starts_with(root)) {
                assert!(repository().join(file).exists(), "{name}: {quote}");
                seen += 1;
            }
        }
    }
    assert!(seen > 80, "{seen} files: are they found?");
}

/// What the code can hold a case for, and each kind that it knows, is told to whoever operates it.
#[test]
fn each_hold_and_each_kind_is_explained() {
    let documents: std::collections::BTreeMap<String, String> = documents().into_iter().collect();
    for hold in HoldReason::ALL {
        assert!(documents["docs/operate.md"].contains(&format!("`{}`", hold.as_str())), "{hold:?}");
    }
    for kind in KINDS {
        assert!(documents["docs/connectors.md"].contains(&format!("`{kind}`")), "{kind}");
    }
    for role in Role::ALL {
        assert!(documents["ARCHITECTURE.md"].contains(&format!("`{}`", role.as_str())), "{role:?}");
    }
}

#[test]
fn a_line_is_cut_as_a_shell_cuts_it() {
    let said = lines("a b # c\nd 'e # f' \\\n  g\n# h\n");
    assert_eq!(said, ["a b", "d 'e # f'    g"]);
    let cut = |line: &str| commands(line).iter().map(|words| words.join("|")).collect::<Vec<_>>();
    assert_eq!(cut("A=1 b 'c d' | e \"$(f | g)\" > h && i -- 'j' k"), ["b|c d", "e|…", "i|--|j|k"]);
    assert_eq!(cut("X='{\"a\": 1}'"), Vec::<String>::new());
}

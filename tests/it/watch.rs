//! What people who watch are given: rules, runbooks, dashboards. The real promtool fires each alert once; each has a runbook,
//! whose commands the real command line takes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use curfew::metrics::alarm::Alarm;
use curfew::metrics::catalogue::{FIGURES, Kind};
use serde_json::Value;

use crate::world::{installed, repository};

/// The alert that always fires.
pub const WATCHDOG: &str = "CurfewWatchdog";

/// Debian's Prometheus, unpacked.
pub fn prometheus(tool: &str) -> PathBuf {
    installed("prometheus").join("usr/bin").join(tool)
}

pub fn deployed(path: &str) -> PathBuf {
    repository().join("deploy").join(path)
}

fn yaml(path: &Path) -> Value {
    serde_saphyr::from_str(&fs::read_to_string(path).unwrap()).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}"))
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

/// Each rule of a file.
fn rules(file: &str) -> Vec<Value> {
    let file = yaml(&deployed(&format!("prometheus/{file}")));
    list(&file["groups"]).iter().flat_map(|group| list(&group["rules"])).cloned().collect()
}

fn alerts() -> BTreeSet<String> {
    rules("alerts.yml").iter().map(|rule| text(&rule["alert"]).to_owned()).collect()
}

/// What promtool says of it; it must be content.
pub fn promtool(args: &[&str], stdin: &[u8]) -> String {
    use std::io::Write as _;
    let mut command = Command::new(prometheus("promtool"));
    command.args(args).current_dir(deployed("prometheus")).stdin(Stdio::piped());
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(stdin).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "promtool {args:?}: {said}");
    said.into_owned()
}

#[test]
fn each_alert_fires_on_its_trouble_and_is_silent_on_a_healthy_day() {
    promtool(&["check", "config", "prometheus.yml"], b"");
    promtool(&["check", "rules", "recording.yml", "alerts.yml"], b"");
    promtool(&["test", "rules", "tests/fires.yml", "tests/healthy.yml"], b"");
    // That each is asked about there.
    let asked = |file: &str, fires: bool| {
        let file = yaml(&deployed(&format!("prometheus/tests/{file}")));
        let tests = list(&file["tests"]).iter().flat_map(|test| list(&test["alert_rule_test"]));
        let right = tests.filter(|test| list(&test["exp_alerts"]).is_empty() != fires);
        right.map(|test| text(&test["alertname"]).to_owned()).collect::<BTreeSet<_>>()
    };
    let mut all = alerts();
    assert_eq!(asked("fires.yml", true), all);
    all.remove(WATCHDOG);
    assert_eq!(asked("healthy.yml", false), all);
}

/// The texts between backticks, within a line, of all runbooks.
fn quoted() -> BTreeMap<String, BTreeSet<String>> {
    let runbooks = fs::read_dir(repository().join("docs/runbooks")).unwrap();
    let quoted = |page: &str| {
        let lines = page.lines().filter(|line| !line.starts_with("```"));
        lines.flat_map(|line| line.split('`').skip(1).step_by(2)).map(str::to_owned).collect()
    };
    let of = |path: PathBuf| {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        (name, quoted(&fs::read_to_string(path).unwrap()))
    };
    runbooks.map(|entry| of(entry.unwrap().path())).collect()
}

#[test]
fn each_alert_has_its_runbook_and_each_runbook_its_alert() {
    let squeezed = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    for rule in rules("alerts.yml") {
        let name = text(&rule["alert"]);
        let url = text(&rule["annotations"]["runbook_url"]);
        assert_eq!(url, format!("docs/runbooks/{name}.md"));
        let page = fs::read_to_string(repository().join(url)).unwrap_or_else(|_| panic!("{name} has no runbook"));
        assert!(page.starts_with(&format!("# {name}\n")), "{url}");
        for part in ["\n## Look at\n", "\n## Do\n"] {
            assert!(page.contains(part), "{url} has no {part:?}");
        }
        assert!(squeezed(&page).contains(&squeezed(text(&rule["expr"]))), "{url} shows another expression");
        let severity = text(&rule["labels"]["severity"]);
        assert!(["page", "ticket", "none"].contains(&severity) && page.contains(severity), "{url}: {severity}");
    }
    let pages: BTreeSet<String> = quoted().into_keys().map(|name| name.trim_end_matches(".md").to_owned()).collect();
    assert_eq!(pages, alerts());
    for alarm in Alarm::ALL {
        assert!(quoted()["CurfewAlarm.md"].contains(alarm.as_str()), "nobody says what to do about {alarm:?}");
    }
    // They send readers to each other, and to files that there are.
    for page in quoted().keys() {
        let whole = fs::read_to_string(repository().join("docs/runbooks").join(page)).unwrap();
        let words = whole.split(|c: char| !c.is_ascii_alphanumeric());
        for other in words.filter(|word| word.starts_with("Curfew") && *word != "Curfew") {
            assert!(alerts().contains(other), "{page} names {other}");
        }
        let files = whole
            .split(|c: char| c.is_whitespace() || "`(),;".contains(c))
            .map(|word| word.trim_end_matches(['.', ':']));
        for file in files.filter(|word| ["deploy/", "docs/", "schemas/"].iter().any(|at| word.starts_with(at))) {
            assert!(repository().join(file).exists(), "{page} names {file}");
        }
    }
}

/// Run in an empty folder, where nothing can be done: what is wrong with the line itself has an exit code of its own.
#[test]
fn each_command_of_a_runbook_is_one() {
    let mut seen = 0;
    for (page, quotes) in quoted() {
        for line in quotes.iter().filter(|quote| quote.starts_with("curfew ")) {
            let mut words: Vec<String> = Vec::new();
            for (at, part) in line.split('\'').enumerate() {
                if at % 2 == 1 {
                    words.push(part.to_owned());
                } else {
                    words.extend(part.split_whitespace().map(str::to_owned));
                }
            }
            if words[1] == "run" {
                words.push("--help".to_owned());
            }
            let folder = tempfile::tempdir().unwrap();
            let mut command = Command::new(assert_cmd::cargo::cargo_bin!("curfew"));
            command.current_dir(folder.path()).env_clear().env("USER", "ana").stdin(Stdio::null());
            let output = command.args(&words[1..]).output().unwrap();
            let code = output.status.code();
            assert!(code.is_some_and(|code| code != 2), "{page}: {line}: {}", String::from_utf8_lossy(&output.stderr));
            seen += 1;
        }
    }
    assert!(seen > 40, "{seen} commands: are they found?");
}

/// Each panel with its queries, of each dashboard.
pub fn panels() -> Vec<(String, Vec<String>)> {
    let mut panels = Vec::new();
    for entry in fs::read_dir(deployed("grafana/dashboards")).unwrap() {
        let board: Value = serde_json::from_slice(&fs::read(entry.unwrap().path()).unwrap()).unwrap();
        for panel in list(&board["panels"]) {
            let queries: Vec<String> = list(&panel["targets"]).iter().map(|it| text(&it["expr"]).to_owned()).collect();
            let is_text = ["row", "text"].contains(&text(&panel["type"]));
            assert_eq!(queries.is_empty(), is_text, "{panel}");
            if !is_text {
                panels.push((format!("{}: {}", text(&board["title"]), text(&panel["title"])), queries));
            }
        }
    }
    panels
}

/// Rules and dashboards ask for what there is, and what there is of a rule is asked for by its name.
#[test]
fn rules_and_dashboards_name_figures_that_are_exported() {
    let mut known: BTreeSet<String> = BTreeSet::new();
    for figure in FIGURES {
        match figure.kind {
            Kind::Histogram(_) => {
                known.extend(["bucket", "count", "sum"].map(|part| format!("curfew_{}_{part}", figure.name)));
            }
            Kind::Counter | Kind::Gauge => {
                known.insert(format!("curfew_{}", figure.name));
            }
        }
    }
    let recorded: BTreeSet<String> =
        rules("recording.yml").iter().map(|rule| text(&rule["record"]).to_owned()).collect();
    let mut all: Vec<(String, String)> = Vec::new();
    for file in ["recording.yml", "alerts.yml"] {
        all.extend(rules(file).iter().map(|rule| (rule.to_string(), text(&rule["expr"]).to_owned())));
    }
    for (title, queries) in panels() {
        all.extend(queries.into_iter().map(|query| (title.clone(), query)));
    }
    for (whose, query) in &all {
        let names = query.split(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != ':');
        for name in names.filter(|name| name.starts_with("curfew")) {
            let job = name == "curfew";
            assert!(job || known.contains(name) || recorded.contains(name), "{whose}: {name}");
        }
    }
    for name in recorded {
        assert!(all.iter().any(|(_, query)| query.contains(&name)), "nobody asks for {name}");
    }
}

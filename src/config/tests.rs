#[path = "tests/aws.rs"]
mod aws;
#[path = "tests/canary.rs"]
mod canary;
#[path = "tests/documented.rs"]
mod documented;
#[path = "tests/kubernetes.rs"]
mod kubernetes;
#[path = "tests/mariadb.rs"]
mod mariadb;
#[path = "tests/reach.rs"]
mod reach;
#[path = "tests/splits.rs"]
mod splits;

use super::*;
use crate::connector::recipe::{Keeper, Users};
use crate::event::{Format, Type};
use crate::executor;
use crate::task::RunKey;

fn parse(text: &str) -> Result<Config, Invalid> {
    Config::parse("curfew.yaml", text, Path::new("/etc/curfew"), &Overrides::default(), &Environment::default())
}

const WHOLE: &str = r#"
journal: {path: curfew.db}
kafka: {brokers: "127.0.0.1:9092", group: curfew, properties: {client.id: x}}
topics:
  curfew.tasks: {tenant: default, events: [task.started, task.ended], kinds: [vault-lease, vault-token], strongest: revoke}
  curfew.findings: {events: [finding.observed, finding.closed], kinds: [vault-lease], strongest: track}
publish: {outcomes: curfew.outcomes, states: curfew.outcomes, rejected: curfew.rejected}
http: {listen: "127.0.0.1:8484", token_file: intake.token, topic: curfew.tasks, gitlab: {token_file: gitlab.token, types: [gitleaks_rule_id_aws]}, github: {secret_file: github.secret, max_age: 1d, api: {url: "https://ghe.test/api/v3/", token_file: t, ca_file: ca.pem, timeout: 2s, resolve: true}}, findings: curfew.findings}
fingerprint: {key_file: fingerprint.keys, transit: {realm: prod, token_file: unwrap.token}}
metrics: {listen: "127.0.0.1:9464"}
socket: curfew.sock
realms:
  - name: prod
    mode: enforce
    vault: {address: "http://127.0.0.1:8200", namespace: null, ca_file: null, cluster_id: null, token_file: /run/x, timeout: 10s}
    allowed_prefixes: [database/creds/, "token:", "approle/ci/"]
    targets: [{prefix: database/creds/app, target: appdb}]
    reconcile: {approle: {role_id_file: r, secret_id_file: s}, prefixes: [{prefix: database/creds/, exclusive: false}], tokens: false, every: 60s}
targets:
  - {name: appdb, postgres: {url_file: /path/with/url}}
policy: {longest_life: 24h, heartbeats_missed: 3, grace: 2s}
limits: {effects_per_minute: 600, concurrency: 256, per_system: 64, calls_per_system: 16, claim_lease: 60s}
retry: {first: 500ms, ceiling: 60s}
protected: ["urn:curfew:cred:vault-lease:prod:a/b"]
retention: {seen: 14d, events: 30d, closed: 400d}
log: {json: false, level: info}
"#;

#[test]
fn the_whole_file_is_read() {
    let config = parse(WHOLE).unwrap();
    assert_eq!(config.journal, Path::new("/etc/curfew/curfew.db"));
    assert!(config.enforces());
    let fingerprint = config.fingerprint.as_ref().unwrap();
    assert_eq!(fingerprint.key_file, Path::new("/etc/curfew/fingerprint.keys"));
    let transit = fingerprint.transit.as_ref().unwrap();
    assert_eq!((&*transit.realm, &*transit.mount, &*transit.key), ("prod", "transit", "curfew-fingerprint"));
    assert!(matches!(&transit.login, Login::TokenFile(file) if file == Path::new("/etc/curfew/unwrap.token")));
    let http = config.http.as_ref().unwrap();
    assert_eq!(http.findings, "curfew.findings");
    let gitlab = http.gitlab.as_ref().unwrap();
    assert_eq!(
        (&*gitlab.token_file, &*gitlab.types),
        (Path::new("/etc/curfew/gitlab.token"), &["gitleaks_rule_id_aws".to_owned()][..])
    );
    let github = http.github.as_ref().unwrap();
    let api = github.api.as_ref().unwrap();
    assert_eq!((&*github.secret_file, github.max_age_ms), (Path::new("/etc/curfew/github.secret"), 86_400_000));
    assert_eq!(
        (&*api.url, &*api.token_file, api.timeout_ms),
        ("https://ghe.test/api/v3", Path::new("/etc/curfew/t"), 2_000)
    );
    let day_ms = 86_400_000;
    assert_eq!((config.retention.events_ms, config.retention.closed_ms), (30 * day_ms, 400 * day_ms));
    let realm = &config.realms[0];
    assert!(realm.tokens);
    assert_eq!(realm.rules.allowed_prefixes, ["database/creds/", "token:", "approle/ci/"]);
    assert_eq!(realm.secret_id_roles, ["approle/ci"]);
    assert_eq!(realm.reconcile.as_ref().unwrap().every_ms, 60_000);
    assert_eq!(config.says()["curfew.tasks"].types, [Type::TaskStarted, Type::TaskEnded].into());
    assert_eq!(config.authorities()[event::OWN].strongest, Action::Revoke);
    assert_eq!(config.authorities()["curfew.findings"].strongest, Action::Track);
    assert_eq!(config.warnings, Vec::<String>::new());
}

#[test]
fn those_who_call_about_leaks_need_keys_bounds_and_a_safe_way_back() {
    let of = |http: &str, keys: bool| {
        let keys = if keys { "fingerprint: {key_file: k}\n" } else { "" };
        let problems = parse(&format!("http: {{{http}}}\n{keys}")).err().map(|invalid| invalid.to_string());
        problems.unwrap_or_default()
    };
    for (http, wanted) in [
        ("gitlab: {types: [gitleaks_rule_id_aws]}", ""),
        ("gitlab: {types: []}", "is empty"),
        ("gitlab: {types: [Gitleaks rule]}", "as GitLab does"),
        ("github: {}", ""),
        ("github: {max_age: 15d}", "at most `retention.seen`"),
        ("github: {max_age: 1s}", "at least 1m"),
        ("github: {api: {token_file: t}}", ""),
        ("github: {api: {token_file: t, url: \"http://ghe.test\"}}", "https://"),
        ("github: {api: {token_file: t, timeout: 10s}}", "100ms to 8s"),
        ("github: {api: {}}", "`token_file` is missing"),
    ] {
        let said = of(http, true);
        assert!(said.contains(wanted) && said.is_empty() == wanted.is_empty(), "{http}: {said}");
        assert!(of(http, false).contains("fingerprint.key_file") || wanted.contains("is missing"), "{http}");
    }
}

#[test]
fn a_topic_says_in_which_format_its_records_are() {
    let theirs = |more: &str| parse(&format!("topics:\n  lineage: {{format: openlineage, strongest: revoke{more}}}\n"));
    let config = theirs(", sources: [/openlineage/prod]").unwrap();
    assert_eq!(config.topics["lineage"].format, Format::OpenLineage);
    let says = [Type::TaskStarted, Type::TaskHeartbeat, Type::TaskEnded];
    assert_eq!(config.says()["lineage"].types, says.into(), "no grants come from there");
    assert_eq!(theirs(", events: [task.ended]").unwrap().says()["lineage"].types, [Type::TaskEnded].into());
    let wrong = theirs(", events: [grant.registered]").unwrap_err().to_string();
    assert!(wrong.contains("says nothing of the kind"), "{wrong}");
    let near = parse("topics: {a: {format: openlinage}}").unwrap_err().to_string();
    assert!(near.contains("openlineage"), "{near}");
    assert!(parse(WHOLE).unwrap().topics.values().all(|topic| topic.format == Format::Curfew));
}

#[test]
fn what_the_page_on_schedulers_shows_is_a_configuration() {
    let page = include_str!("../../docs/tasks.md");
    let blocks: Vec<&str> = page.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    let mut formats = std::collections::BTreeSet::new();
    for block in blocks.iter().filter(|block| block.contains("topics:")) {
        let config = parse(block).unwrap_or_else(|wrong| panic!("{wrong}"));
        assert_eq!(config.warnings.iter().filter(|warning| warning.contains("sources")).count(), 0, "{block}");
        formats.extend(config.topics.values().map(|topic| topic.format.as_str()));
    }
    for format in Format::SCHEDULERS {
        assert!(formats.contains(format.as_str()), "{} is on the page", format.as_str());
        assert!(page.contains(&format!("/tasks/{}", format.as_str())));
    }
    let realm = "realms: [{name: prod, vault: {address: \"http://127.0.0.1:8200\", token_file: t}, \
                 allowed_prefixes: [\"token:\"], secret_id_roles: [approle/etl]}]\n";
    let bindings = blocks.iter().find(|block| block.contains("bindings:")).unwrap();
    let config = parse(&format!("{realm}{bindings}")).unwrap_or_else(|wrong| panic!("{wrong}"));
    assert_eq!((config.bindings[0].rules.len(), config.bindings[0].every_ms), (7, 10_000));
    assert_eq!(config.authorities()["bind:prod"].strongest, Action::Revoke);
    assert_eq!(config.warnings, Vec::<String>::new());
    let without = blocks.iter().find(|block| block.contains("without_credentials:")).unwrap();
    let rules = parse(without).unwrap().rules;
    assert!(rules.holds_nothing(&RunKey::new("/cdevents/docs/x", "1")));
    assert!(!rules.holds_nothing(&RunKey::new("/cdevents/ci", "1")));
}

/// One binding of realm `prod` with these rules and more.
fn bound(rules: &str, more: &str) -> Result<Config, Invalid> {
    parse(&format!(
        "realms: [{{name: prod, vault: {{address: \"http://127.0.0.1:8200\", token_file: t}}, allowed_prefixes: [\"token:\"]}}]\n\
         bindings: [{{realm: prod, token_file: b, strongest: revoke, rules: [{rules}]{more}}}]\n"
    ))
}

#[test]
fn a_binding_that_could_end_others_credentials_is_refused() {
    let run = "run: \"/ci:{run_id}\"";
    let good = format!("{{tokens_of: auth/jwt/login, {run}}}");
    assert_eq!(bound(&good, "").unwrap().bindings[0].rules.len(), 1);
    for (rules, why) in [
        (format!("{{tokens_of: auth/token/create, {run}}}"), "writes any metadata into anybody's token"),
        (format!("{{tokens_of: auth/token/create-orphan, {run}}}"), "trust_creators: true"),
        (format!("{{tokens_of: auth/token, {run}}}"), "name the role"),
        (format!("{{tokens_of: \"auth/*/login\", {run}}}"), "no wildcards"),
        (format!("{{tokens_of: jwt/login, {run}}}"), "the whole path of a login"),
        (format!("{{tokens_of: auth/jwt/login, trust_creators: true, {run}}}"), "leave it out here"),
        (format!("{{tokens_of: auth/jwt/login, secret_ids_of: approle/ci, {run}}}"), "`tokens_of` a path, or"),
        (format!("{{secret_ids_of: ci, {run}}}"), "<mount>/<role>"),
        (format!("{{secret_ids_of: approle/ci, alias: true, {run}}}"), "has no alias"),
        (
            "{tokens_of: auth/jwt/login, run: \"/ci:{service_account_name}\"}".to_owned(),
            "no field of this id names one run",
        ),
        ("{tokens_of: auth/jwt/login, run: \"{run}\"}".to_owned(), "`sources` says of whose runs"),
        ("{tokens_of: auth/jwt/login, run: \"{x}:{run}\"}".to_owned(), "begins with a fixed text"),
        (
            "{tokens_of: auth/jwt/login, run: \"/ci:{run_id}\", identity: \"{\"}".to_owned(),
            "`identity`: a field is written",
        ),
        (String::new(), "there is none"),
    ] {
        let wrong = bound(&rules, "").unwrap_err().to_string();
        assert!(wrong.contains(why), "{rules}: {wrong}");
    }
    let trusted = format!("{{tokens_of: auth/token/create, trust_creators: true, {run}}}");
    assert!(bound(&trusted, "").is_ok());
    assert!(bound(&good, ", every: 10ms").unwrap_err().to_string().contains("at least 1s"));
    let unreached = bound(&format!("{{secret_ids_of: approle/ci, {run}}}"), "").unwrap().warnings;
    assert!(unreached[0].contains("`secret_id_roles`"), "{unreached:?}");
    let topic = parse("topics: {\"bind:prod\": {strongest: revoke}}").unwrap_err().to_string();
    assert!(topic.contains("no topic can be called so"), "{topic}");
}

#[test]
fn nothing_at_all_is_a_configuration() {
    let config = parse("# nothing\n").unwrap();
    assert!(config.kafka.is_none() && config.http.is_some() && !config.enforces());
    assert_eq!(config.topics.len(), 2);
    assert_eq!(config.http.unwrap().findings, "curfew.findings");
    assert!(config.fingerprint.is_none());
    let other = parse("topics:\n  a: {events: [finding.observed]}\n").unwrap();
    assert_eq!(other.http.unwrap().findings, "a");
    assert_eq!(config.limits.effects_per_minute, Some(600));
}

#[test]
fn vault_addr_gives_a_realm_that_observes() {
    let env = Environment {
        vault_addr: Some("http://127.0.0.1:8200/".to_owned()),
        vault_token: Some("c4nary".into()),
        ..Environment::default()
    };
    let config = Config::load(None, &Overrides::default(), &env).unwrap();
    assert_eq!(config.realms[0].rules.name, "default");
    assert_eq!(config.realms[0].rules.mode, Mode::Observe);
    assert!(!format!("{config:?}").contains("c4nary"));
}

#[test]
fn flags_go_over_the_file() {
    let over = Overrides {
        journal: Some("/x/j.db".into()),
        kafka: Some("localhost:1".into()),
        log_json: true,
        ..Overrides::default()
    };
    let config = Config::parse("f", WHOLE, Path::new(""), &over, &Environment::default()).unwrap();
    assert_eq!(config.journal, Path::new("/x/j.db"));
    assert_eq!(config.kafka.unwrap().brokers, "localhost:1");
    assert!(config.log.json);
}

/// Each: what is replaced, by what, the line at fault, and words of the answer.
#[test]
fn what_is_wrong_is_said_with_its_line() {
    let cases = [
        ("longest_life", "longest_lief", 21, "did you mean `longest_life`?"),
        ("target: appdb", "target: apdb", 17, "did you mean `appdb`?"),
        ("task.ended", "task.endet", 5, "did you mean `task.ended`?"),
        ("task.ended", "deadline.passed", 5, "only Curfew itself"),
        ("vault-token", "vault-tokn", 5, "did you mean `vault-token`?"),
        ("mode: enforce", "mode: enforced", 14, "did you mean `enforce`?"),
        ("claim_lease: 60s", "claim_lease: 12s", 22, "at least 36s"),
        ("longest_life: 24h", "longest_life: 24", 21, "500ms"),
        ("longest_life: 24h", "longest_life: soon", 21, "500ms"),
        ("token_file: /run/x, ", "", 13, "exactly one of"),
        ("http://127.0.0.1:8200", "http://vault:8200", 15, "https://"),
        ("127.0.0.1:9092", "kafka:9092", 3, "loopback"),
        ("client.id", "group.id", 3, "set by Curfew"),
        ("topic: curfew.tasks", "topic: curfew.task", 8, "did you mean `curfew.tasks`?"),
        ("findings: curfew.findings}", "findings: curfew.finding}", 8, "did you mean `curfew.findings`?"),
        ("key_file", "keyfile", 9, "did you mean `key_file`?"),
        ("realm: prod, token_file: unwrap", "realm: prd, token_file: unwrap", 9, "did you mean `prod`?"),
        (", token_file: unwrap.token", "", 9, "exactly one of"),
        ("realm: prod, token_file: unwrap", "token_file: unwrap", 9, "`realm` is missing"),
        ("127.0.0.1:8484", "0.0.0.0:8484", 8, "loopback"),
        ("outcomes: curfew.outcomes", "outcomes: curfew.tasks", 7, "hear itself"),
        ("vault-lease:prod", "prod", 24, "a credential id is"),
        ("seen: 14d", "seen: 1d", 25, "8d"),
        ("database/creds/app", "pki/", 17, "allowed_prefixes"),
    ];
    for (from, to, line, words) in cases {
        let wrong = WHOLE.replacen(from, to, 1);
        assert_ne!(wrong, WHOLE, "{from}");
        let invalid = parse(&wrong).expect_err(to);
        assert!(invalid.to_string().contains(words), "{to}: {invalid}");
        assert_eq!(invalid.problems[0].line, Some(line), "{to}: {invalid}");
    }
}

#[test]
fn a_misplaced_password_is_not_shown() {
    let text = "kafka:\n  brokers: localhost:9092\n  properties: {group.id: x}\n  sasl.password: hunter2\n";
    let invalid = parse(text).unwrap_err();
    assert!(!invalid.report(false).contains("hunter2") && !invalid.to_string().contains("hunter2"), "{invalid}");
}

#[test]
fn what_kafka_s_settings_refuse_is_refused_here_with_its_line() {
    for name in crate::kafka::settings::OURS {
        let wrong = WHOLE.replacen("client.id", name, 1);
        let invalid = parse(&wrong).expect_err(name);
        assert_eq!(invalid.problems[0].line, Some(3), "{invalid}");
    }
}

#[test]
fn the_shortest_claim_is_what_the_executor_works_with() {
    let wrong = |lease: &str| parse(&WHOLE.replacen("claim_lease: 60s", &format!("claim_lease: {lease}"), 1));
    let least_ms = executor::least_claim_ms(DATABASE_CALLS * 10_000);
    assert!(wrong(&format!("{}ms", least_ms - 1)).is_err());
    assert_eq!(wrong(&format!("{least_ms}ms")).unwrap().limits.claim_lease_ms, least_ms);
}

#[test]
fn whose_runs_a_topic_speaks_of_is_written_whole_or_up_to_a_star() {
    let topic = |says: &str| parse(&format!("topics:\n  curfew.tasks: {{{says}}}\n"));
    let says = |text: &str| topic(text).unwrap().says()["curfew.tasks"].clone();
    assert_eq!((says("strongest: revoke").sources, says("strongest: revoke").speaks_for), (None, vec![]));
    let some = says(r#"sources: [/ci], speaks_for: ["/agents/*", "/x"]"#);
    assert_eq!((some.sources, some.speaks_for), (Some(vec!["/ci".into()]), vec!["/agents/*".into(), "/x".into()]));
    for bad in [r#"speaks_for: [""]"#, r#"speaks_for: ["/a*b"]"#, r#"sources: ["**"]"#] {
        let said = topic(bad).unwrap_err().to_string();
        assert!(said.contains("written whole"), "{said}");
    }
}

#[test]
fn a_topic_that_can_speak_as_the_schedulers_of_another_is_warned_of() {
    let warned = |topics: &str| {
        let config = parse(&format!("topics:\n{topics}")).unwrap();
        config.warnings.iter().filter(|warning| warning.contains("`sources`")).count()
    };
    assert_eq!(warned("  ci: {}\n"), 0, "nobody else's");
    assert_eq!(warned("  ci: {}\n  agents: {sources: [/agents]}\n"), 1);
    assert_eq!(warned("  ci: {sources: [/ci]}\n  agents: {sources: [/agents]}\n"), 0);
    assert_eq!(warned("  ci: {}\n  agents: {tenant: other}\n"), 0);
    assert_eq!(warned("  ci: {}\n  findings: {events: [finding.observed], strongest: track}\n"), 0);
}

#[test]
fn a_realm_that_reconciles_says_whose_it_is_where_there_are_several_tenants() {
    let whole = |tenant: &str, realm: &str| {
        let topics = WHOLE.replace("curfew.findings: {", &format!("curfew.findings: {{tenant: {tenant}, "));
        parse(&topics.replace("- name: prod", &format!("- name: prod\n    {realm}")))
    };
    let of = |config: Config| config.realms[0].reconcile.as_ref().unwrap().tenant.to_string();
    assert_eq!(of(whole("default", "").unwrap()), "default", "the only one");
    let said = whole("acme", "").unwrap_err().to_string();
    assert!(
        said.contains("realm `prod`") && said.contains("`tenant: NAME`") && said.contains("`acme`, `default`"),
        "{said}"
    );
    assert_eq!(of(whole("acme", "tenant: default").unwrap()), "default", "not the first of the alphabet");
    assert_eq!(of(whole("acme", "tenant: acme").unwrap()), "acme");
    let said = whole("acme", "tenant: acne").unwrap_err().to_string();
    assert!(said.contains("`acne`") && said.contains("acme"), "{said}");
}

#[test]
fn what_an_inventory_says_is_asked_for_by_name() {
    let types = |text: &str| parse(text).unwrap().says()["t"].types.clone();
    assert!(!types("topics:\n  t: {}\n").contains(&Type::CredentialRegistered));
    assert!(types("topics:\n  t: {events: [credential.registered]}\n").contains(&Type::CredentialRegistered));
    // Nor by a topic that nobody configured.
    let says = parse("").unwrap().says();
    for kind in [Type::CredentialRegistered, Type::CredentialAdopted] {
        assert!(says.values().all(|says| !says.types.contains(&kind)), "{kind:?}");
    }
}

const ROTATED: &str = "\
realms:
  - {name: prod, mode: enforce, vault: {address: \"https://vault.test:8200\", token_file: t}}
targets:
  - {name: appdb, mode: enforce, postgres: {url_file: u}}
inventory:
  - {realm: prod, token_file: i, paths: [apps/], fields: [password]}
rotations:
";

fn rotation(path: &str, more: &str) -> String {
    let store = format!("{{realm: prod, path: {path}}}");
    format!("{ROTATED}  - {{name: billing, target: appdb, roles: [billing], store: {store}{more}}}\n")
}

#[test]
fn a_rotation_says_what_is_wrong_with_it() {
    let config = parse(&rotation("apps/billing", "")).unwrap();
    assert_eq!(config.recipes[0].adoption.within_ms, 900_000);
    assert!(config.warnings.iter().all(|warning| !warning.contains("billing")), "{:?}", config.warnings);
    for (more, wanted) in [
        (", max_age: 59m", "at least 1h"),
        (", max_age: 90m, adopt_within: 1h", "at least twice `adopt_within`"),
        (", consumers_answer: true", "needs `consumers`"),
        (", password: {length: 8}", "16 to 256"),
        (", roles: []", "one user, or two"),
    ] {
        let text = rotation("apps/billing", more).replace(", roles: [billing], store", ", store");
        let text = if more.contains("roles") { text } else { text.replace(", store", ", roles: [billing], store") };
        let said = parse(&text).unwrap_err().to_string();
        assert!(said.contains(wanted), "{more}: {said}");
    }
}

#[test]
fn an_age_that_nobody_reads_is_warned_of() {
    let warned = |path: &str| {
        let config = parse(&rotation(path, ", max_age: 90d")).unwrap();
        config.warnings.iter().any(|warning| warning.contains("nobody reads how old"))
    };
    assert!(!warned("apps/billing"));
    assert!(warned("other/billing"));
    assert!(warned("apps"));
}

#[test]
fn a_rotation_is_stored_in_a_kv_engine_or_is_a_static_role() {
    let with = |rotation: &str| parse(&format!("{WHOLE}rotations:\n  - {{name: app, target: appdb, {rotation}}}\n"));
    let place = |rotation: &str| with(rotation).unwrap().recipes.remove(0).place;
    let kv = place("roles: [app], store: {realm: prod, path: apps/app}");
    assert_eq!((kv.keeper, &*kv.mount, &*kv.path), (Keeper::Kv, "kv", "apps/app"));
    let minted = place("roles: [app], store: {realm: prod, static_role: app}");
    assert_eq!((minted.keeper, &*minted.mount, &*minted.path), (Keeper::StaticRole, "database", "static-creds/app"));
    assert_eq!(place("roles: [app], store: {realm: prod, static_role: app, mount: db/x}").mount, "db/x");
    for (wrong, why) in [
        ("roles: [app], store: {realm: prod}", "a `path` of a KV engine, a `static_role`"),
        ("roles: [app], store: {realm: prod, path: a, static_role: b}", "a `path` of a KV engine, a `static_role`"),
        ("roles: [a, b], store: {realm: prod, static_role: app}", "a static role is of one user"),
        ("roles: [app], store: {realm: prod, static_role: a/b}", "names one static role"),
        ("roles: [app], store: {realm: prod, static_role: \"\"}", "names one static role"),
        ("roles: [app], store: {realm: prod, static_role: app, field: secret}", "hands out one password"),
        ("roles: [app], store: {realm: prod, static_rolle: app}", "static_role"),
        (
            "roles: [app], store: {realm: prod, static_role: app}, password: {length: 20}",
            "its engine's password policy",
        ),
    ] {
        let said = with(wrong).unwrap_err().to_string();
        assert!(said.contains(why), "{wrong}: {said}");
    }
    let twice = "roles: [app], store: {realm: prod, static_role: app}}\n  - {name: b, target: appdb, roles: [b], \
                 store: {realm: prod, static_role: app}";
    assert!(with(twice).unwrap_err().to_string().contains("two rotations share"));
}

#[test]
fn an_inventory_reads_paths_or_static_roles() {
    let with = |what: &str| parse(&format!("{WHOLE}inventory:\n  - {{realm: prod, token_file: t, {what}}}\n"));
    let one = |what: &str| with(what).unwrap().inventories.remove(0);
    assert_eq!(one("paths: [apps/]").mount, "kv");
    let roles = one("static_roles: [app]");
    assert_eq!((&*roles.mount, roles.static_roles), ("database", vec!["app".to_owned()]));
    for wrong in
        ["mount: kv", "paths: [a], static_roles: [b]", "paths: [/]", "static_roles: [a/]", "static_roles: [\"\"]"]
    {
        let said = with(wrong).unwrap_err().to_string();
        assert!(said.contains("static_roles"), "{wrong}: {said}");
    }
}

#[test]
fn a_target_is_one_system_and_a_redis_has_one_user() {
    let appdb = "  - {name: appdb, postgres: {url_file: /path/with/url}}\n";
    let parsed = |target: &str, more: &str| {
        let targets = format!("{appdb}  - {{name: cache, {target}}}\n");
        parse(&format!("{}{more}", WHOLE.replace(appdb, &targets)))
    };
    let with = |target: &str, rotation: &str| {
        let store = "store: {realm: prod, path: apps/app}";
        parsed(target, &format!("rotations:\n  - {{name: app, target: cache, {rotation}, {store}}}\n"))
    };
    let redis = "mode: enforce, redis: {url_file: cache.urls, ca_file: ca.pem}";
    let config = with(redis, "users: [sessions]").unwrap();
    let cache = config.targets.iter().find(|target| target.name == "cache").unwrap();
    assert_eq!(
        cache.system,
        System::Redis { url_file: "/etc/curfew/cache.urls".into(), ca_file: Some("/etc/curfew/ca.pem".into()) }
    );
    let recipe = &config.recipes[0];
    assert_eq!(recipe.credential.as_str(), "urn:curfew:cred:redis-user:cache:sessions");
    assert_eq!(recipe.users, Users::Many("sessions".into()));
    for (target, rotation, why) in [
        (redis, "users: [a, b]", "`users` is one"),
        (redis, "users: [a], roles: [b]", "duplicate"),
        ("redis: {url_file: u}, postgres: {url_file: u}", "users: [a]", "a target is one system"),
        ("mode: enforce", "users: [a]", "a target is one system"),
        ("redis: {url_fiel: u}", "users: [a]", "url_file"),
    ] {
        let said = with(target, rotation).unwrap_err().to_string();
        assert!(said.contains(why), "{target} {rotation}: {said}");
    }
    let field =
        "rotations:\n  - {name: app, target: cache, users: [a], store: {realm: prod, path: a, user_field: u}}\n";
    assert!(parsed(redis, field).unwrap_err().to_string().contains("in one field"));
    let opens = WHOLE.replace("target: appdb}", "target: cache}");
    let opens = opens.replace(appdb, &format!("{appdb}  - {{name: cache, redis: {{url_file: u}}}}\n"));
    assert!(parse(&opens).unwrap_err().to_string().contains("on PostgreSQL only"));
}

#[test]
fn whom_a_producer_may_name_as_the_user_of_a_lease_is_bounded() {
    let with = |more: &str| {
        let config = parse(&WHOLE.replace("url_file: /path/with/url}", &format!("url_file: /path/with/url{more}}}")))?;
        let System::Postgres { lease_users, .. } = config.targets[0].system.clone() else { panic!("no PostgreSQL") };
        Ok::<_, Invalid>(lease_users)
    };
    assert_eq!(with("").unwrap(), ["v-*"]);
    assert_eq!(with(", lease_users: [app-*, one]").unwrap(), ["app-*", "one"]);
    assert_eq!(with(", lease_users: []").unwrap(), Vec::<String>::new());
    for wrong in ["'*'", "''", "'a*b*'", "'**'"] {
        let said = with(&format!(", lease_users: [{wrong}]")).unwrap_err().to_string();
        assert!(said.contains("shut out anybody"), "{wrong}: {said}");
    }
}

#[test]
fn a_rotation_is_of_users_or_of_an_approle() {
    let with = |rotation: &str| parse(&format!("{WHOLE}rotations:\n  - {{name: app, {rotation}}}\n"));
    let store = "store: {realm: prod, path: apps/app, field: secret_id}";
    let config = with(&format!("approle: {{realm: prod, role: app}}, {store}")).unwrap();
    let recipe = &config.recipes[0];
    assert_eq!(recipe.credential.as_str(), "urn:curfew:cred:vault-approle:prod:approle/app");
    assert_eq!(recipe.users, Users::Many("approle/app".into()));
    for (wrong, why) in [
        (store.to_owned(), "a `target` and `roles`, or an `approle`"),
        (format!("target: appdb, {store}"), "a `target` and `roles`, or an `approle`"),
        (
            format!("target: appdb, roles: [a], approle: {{realm: prod, role: app}}, {store}"),
            "a `target` and `roles`, or an",
        ),
        (format!("approle: {{realm: prod, role: a/b}}, {store}"), "one role of it"),
        (format!("approle: {{realm: prod, role: \"*\"}}, {store}"), "one role of it"),
        (format!("approle: {{realm: prdo, role: app}}, {store}"), "there is no realm"),
        (
            "approle: {realm: prod, role: app}, store: {realm: prod, static_role: app}".to_owned(),
            "one field of a KV engine",
        ),
    ] {
        let said = with(&wrong).unwrap_err().to_string();
        assert!(said.contains(why), "{wrong}: {said}");
    }
}

#[test]
fn copies_and_webhooks_are_named_and_alike() {
    let with =
        |more: &str, webhooks: &str| parse(&format!("webhooks: [{webhooks}]\n{}", rotation("apps/billing", more)));
    let hook = "{name: deploy, url: \"https://deploy.test/x?key=hidden\"}";
    let config = with(", copies: [{realm: prod, path: apps/other}], webhooks: [deploy]", hook).unwrap();
    let recipe = &config.recipes[0];
    assert_eq!((recipe.copies[0].path.as_str(), recipe.copies[0].field.as_str()), ("apps/other", "password"));
    assert_eq!(recipe.webhooks, ["deploy"]);
    assert!(config.warnings.iter().all(|warning| !warning.contains("copy")), "{:?}", config.warnings);
    let observes =
        rotation("apps/billing", ", copies: [{realm: prod, path: apps/other}]").replace("prod, mode: enforce", "prod");
    let warned = parse(&observes).unwrap().warnings;
    assert!(warned.iter().any(|warning| warning.contains("realm prod observes, and holds a copy")), "{warned:?}");
    assert!(!format!("{:?}", config.webhooks).contains("hidden"), "a URL may be a secret");
    let http = hook.replace("https", "http");
    let named = |name: &str| hook.replace("deploy,", &format!("{name},"));
    for (more, webhooks, why) in [
        (", webhooks: [deplyo]", hook, "did you mean"),
        (", copies: [{realm: prdo, path: apps/other}]", "", "there is no realm"),
        (", copies: [{realm: prod, path: apps/billing}]", "", "or one names it twice"),
        (", copies: [{realm: prod, static_role: billing}]", "", "has no copies"),
        (", copies: [{realm: prod, path: curfew-pending/x}]", "", "Curfew's own candidates"),
        ("", http.as_str(), "an https:// URL"),
        ("", named("prod").as_str(), "no other webhook, realm or target"),
        ("", named("appdb").as_str(), "no other webhook, realm or target"),
    ] {
        let said = with(more, webhooks).unwrap_err().to_string();
        assert!(said.contains(why), "{more} {webhooks}: {said}");
        assert!(!said.contains("hidden") || webhooks == http, "{said}");
    }
}

#[test]
fn the_status_page_stays_on_loopback_unless_it_is_said_as_whom_it_is_called() {
    assert_eq!(parse("log: {json: false}").unwrap().status, None, "off unless asked for");
    let status = |text: &str| parse(&format!("status: {text}"));
    let page = status("{}").unwrap().status.unwrap();
    assert_eq!((page.listen, page.hosts.len()), ("127.0.0.1:8485".parse().unwrap(), 0));
    let invalid = status("{listen: \"0.0.0.0:8485\"}").unwrap_err();
    assert!(invalid.to_string().contains("loopback only") && invalid.problems[0].line == Some(1), "{invalid}");
    let page = status("{listen: \"0.0.0.0:80\", hosts: [status.corp.example]}").unwrap().status.unwrap();
    assert_eq!(page.hosts, ["status.corp.example"]);
    for wrong in ["", "http://status.corp.example", "status.corp.example:80", "*"] {
        assert!(status(&format!("{{hosts: [\"{wrong}\"]}}")).is_err(), "{wrong}");
    }
}

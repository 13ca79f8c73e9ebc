//! What binds what to which run, and what does not.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::rule::{BadTemplate, Bound, Origin, Rule, RunTemplate, Said, Template, bind, concerns, wants_alias};
use crate::task::RunKey;

fn token(path: &str) -> Origin {
    Origin::Token(path.to_owned())
}

fn fields(all: &[(&str, &str)]) -> BTreeMap<String, String> {
    all.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn rule(path: &str, run: &str) -> Rule {
    let run = RunTemplate::parse(run, &[]).unwrap();
    Rule { origin: token(path), alias: false, when: BTreeMap::new(), run, identity: None }
}

fn whole(path: &str, field: &str, sources: &[&str]) -> Rule {
    let sources: Vec<String> = sources.iter().map(|one| (*one).to_owned()).collect();
    Rule { run: RunTemplate::parse(field, &sources).unwrap(), ..rule(path, "/x:{id}") }
}

fn said(path: &str, meta: &[(&str, &str)]) -> Said {
    Said { origin: token(path), meta: fields(meta), alias: None }
}

fn run_of(rules: &[Rule], said: &Said) -> Option<String> {
    bind(rules, said).map(|bound| bound.run.as_str().to_owned())
}

const K8S: &str = "auth/jwt-k8s/login";

#[test]
fn metadata_of_a_trusted_login_names_a_run() {
    let mut k8s = rule(K8S, "/kubernetes/prod/{service_account_namespace}:{pod_uid}");
    k8s.identity = Some(Template::parse("{service_account_namespace}/{service_account_name}").unwrap());
    let pod = [("service_account_namespace", "etl"), ("service_account_name", "load"), ("pod_uid", "u-1")];
    let bound = bind(&[k8s.clone()], &said(K8S, &pod)).unwrap();
    assert_eq!(bound, Bound { run: RunKey::new("/kubernetes/prod/etl", "u-1"), identity: Some("etl/load".to_owned()) });
    // Who it is of is not known: the run is, all the same.
    let bound = bind(&[k8s.clone()], &said(K8S, &[pod[0], pod[2]])).unwrap();
    assert_eq!((bound.run.as_str(), bound.identity), ("/kubernetes/prod/etl:u-1", None));
    // A field is missing, or empty, or could make another source of it.
    let nothing: [&[(&str, &str)]; 5] = [
        &[pod[0], pod[1]],
        &[pod[0], ("pod_uid", " ")],
        &[("service_account_namespace", "etl/x"), pod[2]],
        &[("service_account_namespace", "etl:x"), pod[2]],
        &[("service_account_namespace", "e\ntl"), pod[2]],
    ];
    for meta in nothing {
        assert_eq!(bind(&[k8s.clone()], &said(K8S, meta)), None, "{meta:?}");
    }
    let long = "x".repeat(600);
    assert_eq!(bind(&[k8s], &said(K8S, &[pod[0], ("pod_uid", &long)])), None);
}

#[test]
fn only_the_named_way_of_making_it_is_believed() {
    let rules = [rule("auth/token/create/ci", "/ci:{run_id}"), rule("auth/userpass/login", "/ci:{run_id}")];
    let meta = [("run_id", "7")];
    for path in ["auth/token/create/ci", "auth/userpass/login", "auth/userpass/login/ana"] {
        assert_eq!(run_of(&rules, &said(path, &meta)).as_deref(), Some("/ci:7"), "{path}");
        assert!(concerns(&rules, &token(path)));
    }
    let foreign = [
        "auth/token/create",
        "auth/token/create-orphan",
        "auth/token/create/ci2",
        "auth/token/create/ci/x",
        "auth/userpass/logins",
        "auth/userpass2/login/ana",
        "auth/jwt/login",
        "",
    ];
    for path in foreign {
        assert_eq!(run_of(&rules, &said(path, &meta)), None, "{path}");
    }
    let secret_id = Said { origin: Origin::SecretId("auth/userpass/login".into()), ..said("", &meta) };
    assert_eq!(bind(&rules, &secret_id), None);
    let of_role = Rule { origin: Origin::SecretId("approle/CI".into()), ..rule("", "/ci:{run_id}") };
    let made = Said { origin: Origin::SecretId("approle/ci".into()), ..said("", &meta) };
    assert!(bind(std::slice::from_ref(&of_role), &made).is_some(), "Vault does not tell a role's capitals");
    assert_eq!(bind(&[of_role], &said("approle/ci", &meta)), None);
}

#[test]
fn the_first_rule_that_fits_counts() {
    let mut gitlab = rule("auth/jwt/login", "/gitlab:{job_id}");
    gitlab.when = fields(&[("role", "gitlab")]);
    let rules = [gitlab, rule("auth/jwt/login", "/github:{run_id}")];
    let of = |meta: &[(&str, &str)]| run_of(&rules, &said("auth/jwt/login", meta));
    assert_eq!(of(&[("role", "gitlab"), ("job_id", "1"), ("run_id", "2")]).as_deref(), Some("/gitlab:1"));
    assert_eq!(of(&[("role", "other"), ("job_id", "1"), ("run_id", "2")]).as_deref(), Some("/github:2"));
    assert_eq!(of(&[("role", "gitlab"), ("run_id", "2")]).as_deref(), Some("/github:2"));
    assert_eq!(of(&[("role", "gitlab")]), None);
}

#[test]
fn an_alias_speaks_only_where_a_rule_asks_for_it() {
    let by_alias = Rule { alias: true, ..rule("auth/userpass/login", "/ci:{run_id}") };
    let made = token("auth/userpass/login/ana");
    assert!(wants_alias(std::slice::from_ref(&by_alias), &made));
    assert!(!wants_alias(&[rule("auth/userpass/login", "/ci:{run_id}")], &made));
    let own = said("auth/userpass/login/ana", &[("run_id", "own")]);
    assert_eq!(bind(std::slice::from_ref(&by_alias), &own), None);
    let both = Said { alias: Some(fields(&[("run_id", "given")])), ..own };
    assert_eq!(run_of(&[by_alias], &both).as_deref(), Some("/ci:given"));
    assert_eq!(run_of(&[rule("auth/userpass/login", "/ci:{run_id}")], &both).as_deref(), Some("/ci:own"));
}

#[test]
fn a_whole_key_is_bounded_by_its_sources() {
    let rules = [whole("auth/broker/login", "{curfew_run}", &["/openlineage/prod", "/ci/*"])];
    let of = |key: &str| run_of(&rules, &said("auth/broker/login", &[("curfew_run", key)]));
    assert_eq!(of("/openlineage/prod:a").as_deref(), Some("/openlineage/prod:a"));
    assert_eq!(of("/openlineage/prod:a:b").as_deref(), Some("/openlineage/prod:a%3Ab"), "one run has one key");
    assert_eq!(of("/ci/x:9").as_deref(), Some("/ci/x:9"));
    for foreign in ["/openlineage/dev:a", "/openlineage/prod", "a", ":a", "/ci/x:", "/openlineage/prod:"] {
        assert_eq!(of(foreign), None, "{foreign}");
    }
}

#[test]
fn a_rule_that_names_no_one_run_is_none() {
    let bad = |text: &str, sources: &[&str]| {
        let sources: Vec<String> = sources.iter().map(|one| (*one).to_owned()).collect();
        RunTemplate::parse(text, &sources).unwrap_err()
    };
    assert_eq!(bad("/k8s:{service_account_name}", &[]), BadTemplate::Shared);
    assert_eq!(bad("/k8s:{namespace}-{service_account_uid}", &[]), BadTemplate::Shared);
    assert_eq!(bad("/k8s:nightly", &[]), BadTemplate::Shared);
    assert_eq!(bad("{sub}", &["/x"]), BadTemplate::Shared);
    assert_eq!(bad("{run}", &[]), BadTemplate::Unbounded);
    assert_eq!(bad("/k8s:{run}", &["/x"]), BadTemplate::BoundTwice);
    assert_eq!(bad("{source}:{run}", &[]), BadTemplate::NoSource);
    for text in ["/k8s", "/k8s:", ":{run}", "", "/k8s{run}"] {
        assert_eq!(bad(text, &[]), BadTemplate::NoParts, "{text}");
    }
    for text in ["/x:{", "/x:}", "/x:{}", "/x:{a b}", "/x:{a{b}}", "/x:{a:b}"] {
        assert_eq!(bad(text, &[]), BadTemplate::Braces, "{text}");
    }
    assert!(RunTemplate::parse("/k8s:{namespace}.{pod_uid}", &[]).is_ok(), "one that tells runs apart is enough");
}

fn any_field() -> impl Strategy<Value = String> {
    prop_oneof![
        "\\PC{0,20}",
        Just(String::new()),
        Just("/openlineage/prod:1".to_owned()),
        Just("/ci/x".to_owned()),
        Just("a:b/c".to_owned()),
        Just("x\u{0}y".to_owned()),
    ]
}

proptest! {
    /// Whatever is written into metadata: a run of a source that the rule names, in its one spelling, or nothing.
    #[test]
    fn no_metadata_names_a_run_of_another_source(
        path in prop_oneof![Just(K8S.to_owned()), Just("auth/token/create".to_owned()), "\\PC{0,20}"],
        meta in prop::collection::btree_map(
            prop_oneof![Just("a".to_owned()), Just("b".to_owned()), Just("key".to_owned())], any_field(), 0..4),
        alias in prop::option::of(prop::collection::btree_map(Just("a".to_owned()), any_field(), 0..2)),
    ) {
        let rules = [
            whole(K8S, "{key}", &["/openlineage/prod", "/ci/*"]),
            rule(K8S, "/fixed/{a}/x:{b}"),
            rule(K8S, "/fixed:{a}"),
        ];
        let said = Said { origin: token(&path), meta, alias };
        if let Some(bound) = bind(&rules, &said) {
            prop_assert_eq!(&path, K8S);
            let (source, id) = bound.run.parts().unwrap();
            prop_assert!(!id.contains(':') && !id.is_empty());
            prop_assert!(bound.run.as_str().len() <= crate::credential::MAX_ID_BYTES);
            prop_assert!(!bound.run.as_str().chars().any(char::is_control));
            let middle = source.strip_prefix("/fixed/").and_then(|rest| rest.strip_suffix("/x"));
            let fixed = source == "/fixed" || middle.is_some_and(|a| !a.is_empty() && !a.contains('/'));
            prop_assert!(fixed || source == "/openlineage/prod" || source.starts_with("/ci/"), "{}", source);
            // The same again, the same.
            prop_assert_eq!(bind(&rules, &said), Some(bound));
        }
    }
}

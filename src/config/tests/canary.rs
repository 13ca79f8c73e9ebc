//! What a canary needs so that it can die.

use super::*;

fn with(canary: &str) -> Result<Config, Invalid> {
    parse(&format!("{WHOLE}canary: {{token_file: canary.token, {canary}}}\n"))
}

#[test]
fn a_canary_that_could_not_die_is_refused() {
    let good = "realm: prod, role: database/creds/canary";
    let canary = with(good).unwrap().canary.unwrap();
    assert_eq!((canary.topic.as_str(), canary.source.as_str()), ("curfew.tasks", "/canary"));
    assert_eq!((canary.every_ms, canary.within_ms), (300_000, 120_000));
    assert_eq!(canary.token_file, Path::new("/etc/curfew/canary.token"));
    for (wrong, why) in [
        ("realm: prd, role: database/creds/canary".to_owned(), "did you mean `prod`"),
        ("realm: prod, role: kv/creds/canary".to_owned(), "may not be revoked"),
        (format!("{good}, topic: curfew.findings"), "may revoke a `vault-lease`"),
        (format!("{good}, topic: curfew.task"), "did you mean `curfew.tasks`"),
        (format!("{good}, every: 10ms"), "at least 1s"),
        (format!("{good}, within: 10ms"), "at least 1s"),
    ] {
        let said = with(&wrong).unwrap_err().report(false);
        assert!(said.contains(why), "{wrong}: {said}");
    }
    let warns = |canary: &str| with(canary).unwrap().warnings.iter().any(|said| said.contains("CurfewCanaryOverdue"));
    assert!(warns(&format!("{good}, every: 24m")) && !warns(&format!("{good}, every: 23m")));
    let observes = WHOLE.replacen("mode: enforce", "mode: observe", 1);
    let config = parse(&format!("{observes}canary: {{token_file: t, {good}}}\n")).unwrap();
    assert!(config.warnings.iter().any(|warning| warning.contains("no canary will die")), "{:?}", config.warnings);
}

#[test]
fn what_the_page_on_watching_shows_is_a_configuration() {
    let page = include_str!("../../../docs/watching.md");
    let block = page.split("```yaml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let config = parse(&format!("{WHOLE}{block}")).unwrap_or_else(|wrong| panic!("{wrong}"));
    assert_eq!(config.canary.unwrap().role, "database/creds/canary");
}

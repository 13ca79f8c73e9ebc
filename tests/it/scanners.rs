//! Real scanners: what they find in a repository that holds a secret comes out as the right finding, without the secret.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::canary::Scanner;
use crate::canary::scans::Lab;
use crate::world::{env, installed};

/// Gitleaks, as `tests/servers/servers` built it.
pub fn gitleaks() -> PathBuf {
    installed("gitleaks").join("gitleaks")
}

pub fn git(folder: &Path, args: &[&str]) {
    let who = ["-c", "user.name=Ana", "-c", "user.email=ana@example.test", "-c", "init.defaultBranch=main"];
    let mut command = Command::new("git");
    command.current_dir(folder).env("GIT_CONFIG_GLOBAL", "/dev/null").args(who).args(args);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// By chance, so that it is nobody's: `length` characters of `alphabet`.
pub fn random(length: usize, alphabet: &[u8]) -> String {
    let bytes = std::iter::repeat_with(|| uuid::Uuid::new_v4().into_bytes()[0]);
    bytes.take(length).map(|byte| char::from(alphabet[usize::from(byte) % alphabet.len()])).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_gitleaks_finds_arrives_without_the_secret() {
    let mut lab = Lab::start().await;
    let home = lab.home().to_owned();
    let repository = home.join("repository");
    std::fs::create_dir(&repository).unwrap();
    let letters = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    let token = format!("ghp_{}", random(36, letters));
    let key_id = format!("AKIA{}", random(16, b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"));
    git(&repository, &["init", "-q"]);
    let text = format!("# deploy\nGITHUB_TOKEN={token}\n\naws_access_key_id = \"{key_id}\"\n");
    std::fs::write(repository.join("deploy.env"), text).unwrap();
    git(&repository, &["add", "."]);
    git(&repository, &["commit", "-q", "-m", &format!("use {token}")]);
    std::fs::remove_file(repository.join("deploy.env")).unwrap();
    git(&repository, &["commit", "-q", "-a", "-m", "gone, but not from the history"]);

    let report = home.join("report.json");
    let mut scan = Command::new(gitleaks());
    scan.args(["git", "--report-format", "json", "--exit-code", "0", "--no-banner", "--report-path"]);
    let output = scan.arg(&report).arg(&repository).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report = std::fs::read(&report).unwrap();
    let secrets = BTreeMap::from([("the token".to_owned(), token.clone())]);
    assert_eq!(Scanner::new(&secrets).names(&report).len(), 1, "the control: {}", String::from_utf8_lossy(&report));

    let kafka = env("CURFEW_TEST_KAFKA");
    let topic = lab.topic.clone();
    let args = ["publish", "finding", "--from", "gitleaks", "report.json"];
    assert_eq!(lab.written.command(&home, &args).0, Some(2), "it does not say whose repository this is");
    let args = [&args[..], &["--repository", "https://git.test/o/r"]].concat();
    assert_eq!(lab.written.command(&home, &args).0, Some(0));
    assert_eq!(lab.written.command(&home, &[&args[..], &["--kafka", &kafka, "--topic", &topic]].concat()).0, Some(0));
    let (status, said) =
        lab.post("/findings/gitleaks?repository=https://git.test/o/r", "application/json", report).await;
    assert_eq!((status, said["accepted"].as_i64()), (200, Some(0)), "known by now: {said}");

    let found = lab.findings();
    lab.holds("finding.observed", i64::try_from(found.len()).unwrap()).await;
    let of = |detector: &str| found.iter().find(|one| one.detector == detector).unwrap_or_else(|| panic!("{found:?}"));
    let leaked = of("github-pat");
    let prints: Vec<_> = leaked.fingerprints.iter().map(|one| one.fingerprint.clone()).collect();
    assert_eq!(prints, lab.keys().of(&token));
    let place = leaked.location.clone().unwrap();
    assert_eq!((place.path.as_deref(), place.line), (Some("deploy.env"), Some(2)));
    assert_eq!((place.repo.as_deref(), place.kind.as_deref()), (Some("https://git.test/o/r"), Some("git")));
    assert_eq!((leaked.owner_hint.as_deref(), leaked.provider.as_deref()), (Some("ana@example.test"), Some("github")));
    let known = of("aws-access-token");
    assert_eq!(known.identifiers[0].value, key_id);
    assert!(known.fingerprints.is_empty(), "the id of a key is no secret");
    lab.ends_clean(&secrets).await;
}

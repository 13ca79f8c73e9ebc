//! What GitLab sends to a token revocation service: leaked tokens, each with its type and where it leaked.
//!
//! GitLab sends what secret detection finds on the default branch of public projects, at each pipeline. So what it names is
//! public, and the commit in its place is where the branch stands, not where the token came in: it is left out, and the
//! same token at the same line is the same event at each pipeline. Nobody says whether it works.
//!
//! Source: <https://docs.gitlab.com/development/sec/token_revocation_api/>, and `ScanSecurityReportSecretsWorker`.

use super::finding::Found;
use super::items::{Items, Piece};
use super::object::Object;
use super::{Adapter, BadItem, Converted, Given, Why, gitlab, parsed};

/// Tokens of one request at most.
pub const MAX_TOKENS: usize = 20_000;

/// Why nothing of a request is taken. Says nothing of what stands in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Not a list of objects.
    #[error(transparent)]
    Item(#[from] BadItem),
    /// Without a type.
    #[error("line {0}: a token without a `type`")]
    NoType(u64),
    /// Of a type that is not configured.
    #[error("line {0}: a token of a type that is not revocable")]
    Type(u64),
    /// More than [`MAX_TOKENS`].
    #[error("more than {MAX_TOKENS} tokens")]
    TooMany,
}

/// Reads a request: all of it, or nothing.
///
/// # Errors
/// [`Refused`], where one of the tokens cannot be taken.
pub fn read(body: &[u8], types: &[String], given: Given<'_>) -> Result<Vec<Converted>, Refused> {
    let is_list = body.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'[');
    if !is_list {
        return Err(BadItem { line: 1, why: Why::NoReport }.into());
    }
    let (mut items, mut made) = (Items::new(body), Vec::new());
    while let Some(item) = items.next() {
        let Piece { line } = item?;
        if made.len() == MAX_TOKENS {
            return Err(Refused::TooMany);
        }
        let node = parsed(items.bytes()).map_err(|why| BadItem { line, why })?;
        let token = Object::of(&node.0).ok_or(BadItem { line, why: Why::NoDetector })?;
        let kind = token.text("type").ok_or(Refused::NoType(line))?;
        if !types.iter().any(|known| known == kind) {
            return Err(Refused::Type(line));
        }
        let event = found(token, kind).event(Adapter::GitLab.by(), given.keys, "");
        made.push(Converted { line, ..event });
    }
    Ok(made)
}

/// One token. GitLab sends `null` where its scanner showed none, or no place.
fn found<'t>(token: Object<'t, '_>, kind: &str) -> Found<'t> {
    let place = token.text("location").map(place).unwrap_or_default();
    let mut found = Found {
        detector: kind.to_owned(),
        kind: "git",
        repo: place.project,
        path: place.path,
        line: place.line,
        public: true,
        ..Found::default()
    };
    if let Some(text) = token.text("token") {
        gitlab::secrets(&mut found, text);
    }
    found
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Place<'t> {
    project: Option<&'t str>,
    path: Option<&'t str>,
    line: Option<i64>,
}

/// Of `https://host/group/project/-/blob/<commit>/path#L5`; of another URL, all of it.
fn place(url: &str) -> Place<'_> {
    let (bare, fragment) = url.split_once('#').unwrap_or((url, ""));
    let split = ["/-/blob/", "/-/raw/", "/blob/", "/raw/"].iter().find_map(|between| {
        let (project, rest) = bare.split_once(between)?;
        Some((project, rest.split_once('/')?.1))
    });
    let Some((project, path)) = split.filter(|(_, path)| !path.is_empty()) else {
        return Place { path: Some(url), ..Place::default() };
    };
    let digits = fragment.strip_prefix('L').map(|rest| rest.split('-').next().unwrap_or_default());
    Place { project: Some(project), path: Some(path), line: digits.and_then(|digits| digits.parse().ok()) }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::fingerprint::Keys;

    const TOKEN: &str = "r8Ft2-pXq9Lm4Zs7Vb3N";
    const KIND: &str = "gitleaks_rule_id_our_token";

    fn made(body: &Value) -> Result<Vec<Converted>, Refused> {
        let keys = Keys::parse(format!("k1 {}", "1".repeat(64)).as_bytes()).unwrap();
        let given = Given { keys: Some(&keys), repository: None, now_ms: 0 };
        read(body.to_string().as_bytes(), &[KIND.to_owned()], given)
    }

    fn event(made: &Converted) -> Value {
        serde_json::from_slice(&made.body).unwrap()
    }

    #[test]
    fn a_token_is_a_public_finding_and_the_same_at_each_pipeline() {
        let at = |commit: &str| {
            let location = format!("https://git.test/g/p/-/blob/{commit}/conf/a.yaml#L5-7");
            // The last field is not in the contract, and real.
            json!([{"type": KIND, "token": TOKEN, "location": location, "vulnerability": {"title": TOKEN, "id": 1}}])
        };
        let one = made(&at("0a1b")).unwrap().remove(0);
        let said = event(&one);
        assert_eq!(one.fingerprints, 1);
        assert_eq!(said["source"], "/scanners/gitlab");
        let data = &said["data"];
        assert_eq!(data["exposure"], json!({"public": true}));
        assert_eq!(data["validity"], json!({"state": "unknown"}));
        let place = json!({"kind": "git", "repo": "https://git.test/g/p", "path": "conf/a.yaml", "line": 5});
        assert_eq!(data["location"], place);
        assert!(!said.to_string().contains(TOKEN), "{said}");
        assert_eq!(made(&at("2c3d")).unwrap(), [one], "the branch has moved on");
    }

    #[test]
    fn what_gitlab_leaves_out_is_left_out_and_what_is_wrong_is_refused_whole() {
        let bare = json!([{"type": KIND, "token": null, "location": null}]);
        assert_eq!(made(&bare).unwrap()[0].fingerprints, 0);
        assert_eq!(made(&json!([])), Ok(Vec::new()));
        let good = json!({"type": KIND, "token": TOKEN, "location": "x"});
        let bad = |why| Err(Refused::Item(BadItem { line: 1, why }));
        for (body, wanted) in [
            (json!({"type": KIND, "token": TOKEN}), bad(Why::NoReport)),
            (json!([good, 1]), bad(Why::NoDetector)),
            (json!([good, {"token": TOKEN}]), Err(Refused::NoType(1))),
            (json!([good, {"type": "other", "token": TOKEN}]), Err(Refused::Type(1))),
            (json!(vec![&good; MAX_TOKENS + 1]), Err(Refused::TooMany)),
        ] {
            assert_eq!(made(&body), wanted);
        }
        assert_eq!(made(&json!([good])).unwrap()[0].fingerprints, 1);
    }

    #[test]
    fn places() {
        let of = |project, path, line| Place { project: Some(project), path: Some(path), line };
        for (url, wanted) in [
            ("https://h/g/p/-/blob/0a/b/c.rs#L5", of("https://h/g/p", "b/c.rs", Some(5))),
            ("https://h/g/p/-/raw/0a/c.rs", of("https://h/g/p", "c.rs", None)),
            ("https://h/g/p/blob/0a/c.rs#Lx", of("https://h/g/p", "c.rs", None)),
            ("https://h/g/p/-/blob/0a/", Place { path: Some("https://h/g/p/-/blob/0a/"), ..Place::default() }),
            ("c.rs", Place { path: Some("c.rs"), ..Place::default() }),
        ] {
            assert_eq!(place(url), wanted, "{url}");
        }
    }
}

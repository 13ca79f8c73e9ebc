//! What a policy document of AWS allows. PURE.
//!
//! Told from above: `Deny`, conditions, `NotAction` with its exceptions and boundaries are not subtracted, so that what an
//! identity reaches is never told too small.

use percent_encoding::percent_decode_str;
use serde_json::Value;

/// So large may a document be, in bytes. AWS: a managed policy has at most 6 144 characters, all inline ones of a role 10 240.
const MAX_BYTES: usize = 256 << 10;

/// One statement that allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allow {
    /// Patterns of actions, in small letters; everything where a statement says `NotAction`.
    pub actions: Vec<String>,
    /// Patterns of ARNs; everything where it says `NotResource`, or in a trust policy nothing.
    pub resources: Vec<String>,
    /// Of a trust policy: ARNs and account numbers of principals, `*` for everybody.
    pub principals: Vec<String>,
    /// Of a trust policy: services of AWS.
    pub services: Vec<String>,
    /// Of a trust policy: identity providers, each of which knows many.
    pub providers: Vec<String>,
    /// Only under conditions.
    pub conditional: bool,
}

/// A document as IAM hands it out: as a part of a URL. `None`: it is too large, or no text.
pub fn decoded(encoded: &str) -> Option<String> {
    // Each byte of the text may be three.
    if encoded.len() > 3 * MAX_BYTES {
        return None;
    }
    Some(percent_decode_str(encoded).decode_utf8().ok()?.into_owned()).filter(|text| text.len() <= MAX_BYTES)
}

/// The statements that allow, of a document as IAM hands it out. `None`: it is no policy document.
pub fn allows(encoded: &str) -> Option<Vec<Allow>> {
    allows_in(&decoded(encoded)?)
}

fn statements(text: &str) -> Option<Vec<Value>> {
    let mut json: Value = serde_json::from_str(text).ok()?;
    match json.get_mut("Statement")?.take() {
        Value::Array(all) => Some(all),
        one @ Value::Object(_) => Some(vec![one]),
        _ => None,
    }
}

/// Whether a document denies anything. `None`: it is no policy document.
pub fn denies(text: &str) -> Option<bool> {
    statements(text).map(|all| all.iter().any(|one| one["Effect"].as_str() != Some("Allow")))
}

/// The statements that allow. `None`: it is no policy document.
pub fn allows_in(text: &str) -> Option<Vec<Allow>> {
    let statements = statements(text)?;
    let allowing = statements.iter().filter(|one| one["Effect"].as_str() == Some("Allow"));
    let read = allowing.map(|one| Allow {
        actions: either(one, "Action", "NotAction").into_iter().map(|word| word.to_ascii_lowercase()).collect(),
        resources: either(one, "Resource", "NotResource"),
        principals: match &one["Principal"] {
            _ if one.get("NotPrincipal").is_some() => vec!["*".to_owned()],
            Value::String(all) => vec![all.clone()],
            principal => words(&principal["AWS"]),
        },
        services: words(&one["Principal"]["Service"]),
        providers: words(&one["Principal"]["Federated"]),
        conditional: one["Condition"].is_object(),
    });
    Some(read.collect())
}

fn either(statement: &Value, named: &str, not: &str) -> Vec<String> {
    if statement.get(not).is_some() { vec!["*".to_owned()] } else { words(&statement[named]) }
}

fn words(json: &Value) -> Vec<String> {
    match json {
        Value::String(one) => vec![one.clone()],
        Value::Array(all) => all.iter().filter_map(|word| Some(word.as_str()?.to_owned())).collect(),
        _ => Vec::new(),
    }
}

/// Whether a pattern of AWS (`*` any text, `?` one character) fits.
pub fn fits(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut p, mut t, mut star) = (0, 0, None);
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(c) if *c == b'?' || *c == text[t] => {
                p += 1;
                t += 1;
            }
            _ => match star {
                Some((at, from)) => {
                    p = at + 1;
                    t = from + 1;
                    star = Some((at, from + 1));
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == b'*')
}

impl Allow {
    /// Whether it allows `action` on `resource`.
    pub fn on(&self, action: &str, resource: &str) -> bool {
        let action = action.to_ascii_lowercase();
        self.actions.iter().any(|pattern| fits(pattern, &action))
            && self.resources.iter().any(|pattern| fits(pattern, resource))
    }

    /// For people: `s3:getobject on arn:…`.
    pub fn words(&self) -> Vec<String> {
        let under = if self.conditional { " (under conditions)" } else { "" };
        let each = |action: &String| {
            self.resources.iter().map(move |resource| format!("{action} on {resource}{under}")).collect::<Vec<_>>()
        };
        self.actions.iter().flat_map(each).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_that_allow_are_read_in_all_their_shapes() {
        let document = r#"{"Version": "2012-10-17", "Statement": [
            {"Effect": "Allow", "Action": "s3:Get*", "Resource": ["arn:aws:s3:::a", "arn:aws:s3:::a/*"]},
            {"Effect": "Deny", "Action": "*", "Resource": "*"},
            {"Effect": "Allow", "NotAction": "iam:*", "Resource": "*", "Condition": {"Bool": {"aws:x": "true"}}}]}"#;
        let encoded: String =
            percent_encoding::utf8_percent_encode(document, percent_encoding::NON_ALPHANUMERIC).collect();
        let all = allows(&encoded).unwrap();
        assert_eq!(all.len(), 2, "what is denied is not subtracted");
        assert!(all[0].on("s3:GetObject", "arn:aws:s3:::a/b") && !all[0].on("s3:PutObject", "arn:aws:s3:::a/b"));
        assert!(all[1].on("iam:CreateUser", "x"), "an exception is not subtracted either");
        assert_eq!(all[1].words(), ["* on * (under conditions)"]);
        let trust = r#"{"Statement": {"Effect": "Allow", "Principal": {"AWS": "arn:aws:iam::1:root"}, "Action": "sts:AssumeRole"}}"#;
        assert_eq!(allows(trust).unwrap()[0].principals, ["arn:aws:iam::1:root"]);
        for bad in ["", "[]", "{\"Statement\": 1}", "%7B"] {
            assert_eq!(allows(bad), None, "{bad}");
        }
    }

    #[test]
    fn patterns_fit_as_aws_has_them() {
        for (pattern, text, fits_it) in [
            ("*", "", true),
            ("s3:*object", "s3:getobject", true),
            ("a?c*", "abcd", true),
            ("a?c", "ac", false),
            ("arn:*:secret:db-??????", "arn:aws:secret:db-AbCdEf", true),
            ("a*b*c", "axxbyyd", false),
        ] {
            assert_eq!(fits(pattern, text), fits_it, "{pattern} {text}");
        }
    }
}

//! The policy that ends what a user's keys opened. PURE.
//!
//! Temporary credentials cannot be revoked: they live for 15 minutes to 36 hours, whatever becomes of the key. But their
//! rights are asked for anew at each request, and they are never more than those of the user who made them. So an inline
//! policy on the user denies all that was issued before a moment. What is signed by a long-lived key has no
//! `aws:TokenIssueTime`, so the user's other key is not meant.
//!
//! The policy is called after the key that leaked, so that each case has its own: taking one off never takes another's. When
//! no session can be left that it denies, it is taken off, if it is as it was written: what a person changed is a person's.
//!
//! It cuts all sessions of the user that are older than that moment, not only those of the one key: nothing tells them
//! apart. It does not reach the sessions of roles that the user assumed: those are the role's. On a role that a rule names the
//! same policy denies those, whoever opened them; whose key it was put for stands in it, since nothing else there says so.
//!
//! Facts: <https://docs.aws.amazon.com/IAM/latest/UserGuide/id_credentials_temp_control-access_disable-perms.html>;
//! `GetSessionToken`: 36 hours at the most; `GetFederationToken`: the same; `AssumeRole`: 12 hours.

use serde_json::{Value, json};

use super::name::KeyName;

/// With what the name of each of these policies begins.
const PREFIX: &str = "curfew-sessions-";
/// The longest life of a session of a user, and what clocks may differ.
const LONGEST_MS: i64 = 36 * 3_600_000 + 600_000;
/// The same of a role.
const LONGEST_OF_ROLE_MS: i64 = 12 * 3_600_000 + 600_000;
/// What the one statement is called.
const SID: &str = "CurfewSessions";
/// On a role: before the user whose key it is of, in hexadecimal, since a `Sid` has letters and digits.
const SID_OF: &str = "CurfewSessionsOf";

/// What the policy of a key is called.
pub fn name(key: &KeyName) -> String {
    format!("{PREFIX}{}", key.key())
}

/// The key of `user` that a policy is of. `None`: it is none of ours.
pub fn key_of(user: &str, policy: &str) -> Option<KeyName> {
    KeyName::new(user, policy.strip_prefix(PREFIX)?)
}

/// Whether a policy may be one of ours, by its name.
pub fn is_ours(policy: &str) -> bool {
    policy.starts_with(PREFIX)
}

/// From when on a policy denies nothing any more, by its document. `None`: it is not as we write it.
pub fn over_ms(document: &str) -> Option<i64> {
    Some(cut_ms(document, SID)?.saturating_add(LONGEST_MS))
}

/// The key that a policy on a role is of, and from when on it denies nothing any more. `None`: it is not as we write it.
pub fn of_role(policy: &str, document: &str) -> Option<(KeyName, i64)> {
    let said: Value = serde_json::from_str(document).ok()?;
    let sid = said["Statement"][0]["Sid"].as_str()?;
    let user = String::from_utf8(hex::decode(sid.strip_prefix(SID_OF)?).ok()?).ok()?;
    let key = key_of(&user, policy)?;
    Some((key, cut_ms(document, sid)?.saturating_add(LONGEST_OF_ROLE_MS)))
}

/// The moment before which a document as we write it denies.
fn cut_ms(document: &str, sid: &str) -> Option<i64> {
    let said: Value = serde_json::from_str(document).ok()?;
    let cut = said["Statement"][0]["Condition"]["DateLessThan"]["aws:TokenIssueTime"].as_str()?;
    let cut_ms = cut.parse::<jiff::Timestamp>().ok()?.as_millisecond();
    // A second was added when it was written.
    let own: Value = serde_json::from_str(&written(sid, cut_ms.checked_sub(1)?)?).ok()?;
    (said == own).then_some(cut_ms)
}

/// Denies all sessions of a user that were issued before `cut_ms`. `None`: that is no time.
pub fn policy(cut_ms: i64) -> Option<String> {
    written(SID, cut_ms)
}

/// The same of a role, because of this key.
pub fn role_policy(key: &KeyName, cut_ms: i64) -> Option<String> {
    written(&format!("{SID_OF}{}", hex::encode(key.user())), cut_ms)
}

fn written(sid: &str, cut_ms: i64) -> Option<String> {
    // IAM compares whole seconds: a session of the last one is meant as well.
    let cut = jiff::Timestamp::from_second(cut_ms.div_euclid(1_000).saturating_add(1)).ok()?;
    let policy = json!({
        "Version": "2012-10-17",
        "Statement": [{
            "Sid": sid,
            "Effect": "Deny",
            "Action": "*",
            "Resource": "*",
            "Condition": {"DateLessThan": {"aws:TokenIssueTime": cut.to_string()}},
        }],
    });
    Some(policy.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_was_issued_before_is_denied_and_nothing_else() {
        let policy: serde_json::Value = serde_json::from_str(&policy(1_764_188_100_250).unwrap()).unwrap();
        let [one] = policy["Statement"].as_array().unwrap().as_slice() else { panic!("{policy}") };
        assert_eq!((one["Effect"].as_str(), one["Action"].as_str()), (Some("Deny"), Some("*")));
        let condition = json!({"DateLessThan": {"aws:TokenIssueTime": "2025-11-26T20:15:01Z"}});
        assert_eq!(one["Condition"], condition, "without it everything of the user would be denied");
    }

    #[test]
    fn it_is_over_when_the_longest_session_is_and_only_if_it_is_ours() {
        let (key, at_ms) = (KeyName::new("ci/bot", "AKIAIOSFODNN7EXAMPLE").unwrap(), 1_764_188_100_250);
        assert_eq!(key_of("ci/bot", &name(&key)), Some(key));
        assert_eq!(key_of("ci/bot", "curfew-sessions-x"), None);
        assert_eq!(key_of("ci/bot", "their-own"), None);
        let written = policy(at_ms).unwrap();
        assert_eq!(over_ms(&written), Some(1_764_188_101_000 + 36 * 3_600_000 + 600_000));
        // Blanks and their order say nothing.
        let parsed: Value = serde_json::from_str(&written).unwrap();
        assert!(over_ms(&serde_json::to_string_pretty(&parsed).unwrap()).is_some());
        for changed in [
            written.replace("\"*\"", "\"s3:*\""),
            written.replace("Deny", "Allow"),
            written.replace("CurfewSessions", "Ours"),
            written.replace("DateLessThan", "DateLessThanIfExists"),
            "{}".to_owned(),
        ] {
            assert_ne!(changed, written);
            assert_eq!(over_ms(&changed), None, "{changed}");
        }
    }

    #[test]
    fn on_a_role_it_says_whose_key_it_is_of() {
        let (key, at_ms) = (KeyName::new("ci/build+x/bot_1", "AKIAIOSFODNN7EXAMPLE").unwrap(), 1_764_188_100_250);
        let written = role_policy(&key, at_ms).unwrap();
        let over_ms_of_role = 1_764_188_101_000 + 12 * 3_600_000 + 600_000;
        assert_eq!(of_role(&name(&key), &written), Some((key.clone(), over_ms_of_role)));
        assert!(is_ours(&name(&key)) && !is_ours("their-own"));
        assert_eq!(over_ms(&written), None, "it is none of a user's");
        assert_eq!(of_role(&name(&key), &policy(at_ms).unwrap()), None, "nor the other way round");
        assert_eq!(of_role("their-own", &written), None);
        let sid = serde_json::from_str::<Value>(&written).unwrap()["Statement"][0]["Sid"].as_str().unwrap().to_owned();
        assert!(sid.bytes().all(|b| b.is_ascii_alphanumeric()), "as IAM asks of it: {sid}");
        for changed in
            [written.replace("\"*\"", "\"s3:*\""), written.replace(&sid, "CurfewSessionsOf61"), "{}".to_owned()]
        {
            assert_ne!(of_role(&name(&key), &changed), Some((key.clone(), over_ms_of_role)), "{changed}");
        }
    }

    #[test]
    fn it_fits_beside_the_users_own_policies() {
        // All inline policies of a user together have 2 048 characters.
        assert!(policy(1_764_188_100_250).unwrap().len() < 256);
    }
}

//! The policy that ends what a user's keys opened. PURE.
//!
//! Temporary credentials cannot be revoked: they live for 15 minutes to 36 hours, whatever becomes of the key. But their
//! rights are asked for anew at each request, and they are never more than those of the user who made them. So an inline
//! policy on the user denies all that was issued before a moment. What is signed by a long-lived key has no
//! `aws:TokenIssueTime`, so the user's other key is not meant.
//!
//! It cuts all sessions of the user that are older than that moment, not only those of the one key: nothing tells them
//! apart. It does not reach the sessions of roles that the user assumed: those are the role's.
//!
//! Facts: <https://docs.aws.amazon.com/IAM/latest/UserGuide/id_credentials_temp_control-access_disable-perms.html>.

use serde_json::json;

/// What the policy is called: one for each user, whose moment only moves on.
pub const NAME: &str = "curfew-sessions";

/// Denies all sessions that were issued before `cut_ms`. `None`: that is no time.
pub fn policy(cut_ms: i64) -> Option<String> {
    // IAM compares whole seconds: a session of the last one is meant as well.
    let cut = jiff::Timestamp::from_second(cut_ms.div_euclid(1_000).saturating_add(1)).ok()?;
    let policy = json!({
        "Version": "2012-10-17",
        "Statement": [{
            "Sid": "CurfewSessions",
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
    fn it_fits_beside_the_users_own_policies() {
        // All inline policies of a user together have 2 048 characters.
        assert!(policy(1_764_188_100_250).unwrap().len() < 256);
    }
}

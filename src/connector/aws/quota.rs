//! Which of AWS's quotas a call is counted in, and a turn at it before each call.
//!
//! AWS counts calls for each account and Region, whoever makes them. Of what it allows a part is left for others
//! (`quota_percent`). Secrets Manager's quotas cannot be raised, and are documented; so is that of STS. Those of IAM's API
//! are published nowhere: what it refuses as too much is honoured, and the target's `bears` may say less.
//!
//! Facts: <https://docs.aws.amazon.com/secretsmanager/latest/userguide/reference_limits.html>,
//! <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html>.

use std::sync::Arc;

use crate::pace::Quota;

/// Calls that AWS counts together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bucket {
    /// Values and what is said of secrets.
    Reads,
    /// New versions, and their labels: with `UpdateSecret` and what replicates.
    Writes,
    /// Rotations by AWS itself.
    Rotations,
    /// Lists of secrets and of their versions.
    Lists,
    /// Who somebody is; with whoever assumes a role.
    Identities,
}

impl Bucket {
    const ALL: [Self; 5] = [Self::Reads, Self::Writes, Self::Rotations, Self::Lists, Self::Identities];

    /// The bucket of a call, by the right that it needs.
    fn of(right: &str) -> Option<Self> {
        Some(match right {
            "secretsmanager:GetSecretValue" | "secretsmanager:DescribeSecret" => Self::Reads,
            "secretsmanager:PutSecretValue" | "secretsmanager:UpdateSecretVersionStage" => Self::Writes,
            "secretsmanager:RotateSecret" => Self::Rotations,
            // Together, as they once were: AWS allows each of them as much by now.
            "secretsmanager:ListSecretVersionIds" | "secretsmanager:ListSecrets" => Self::Lists,
            "sts:GetCallerIdentity" => Self::Identities,
            _ => return None,
        })
    }

    /// What AWS allows, in calls per second.
    fn quota(self) -> u32 {
        match self {
            Self::Reads => 10_000,
            Self::Writes | Self::Rotations | Self::Lists => 50,
            Self::Identities => 600,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Reads => "secret-reads",
            Self::Writes => "secret-writes",
            Self::Rotations => "secret-rotations",
            Self::Lists => "secret-lists",
            Self::Identities => "sts",
        }
    }
}

/// The quotas of one account in one Region, shared by all that call it in this process.
#[derive(Debug)]
pub struct Quotas([Arc<Quota>; 5]);

impl Quotas {
    /// `percent` of what AWS allows, at least one call in a second.
    pub fn new(account: &str, region: &str, percent: u32) -> Arc<Self> {
        let one = |bucket: Bucket| {
            let whole = (bucket.quota() * percent.min(100) / 100).max(1);
            Quota::new(format!("aws/{account}/{region}/{}", bucket.name()), whole)
        };
        Arc::new(Self(Bucket::ALL.map(one)))
    }

    /// All of them.
    pub fn all(&self) -> Vec<Arc<Quota>> {
        self.0.to_vec()
    }

    /// The quota of a call, by the right that it needs.
    pub(super) fn of(&self, right: &str) -> Option<&Quota> {
        let bucket = Bucket::of(right)?;
        Bucket::ALL.iter().zip(&self.0).find(|(one, _)| **one == bucket).map(|(_, quota)| quota.as_ref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_writes_a_secret_is_counted_together_and_four_percent_are_left_to_others() {
        let quotas = Quotas::new("123456789012", "eu-west-1", crate::config::QUOTA_PERCENT);
        let of = |right| quotas.of(right).map(|quota| (quota.name(), quota.whole()));
        let writes = Some(("aws/123456789012/eu-west-1/secret-writes", 48));
        assert_eq!(of("secretsmanager:PutSecretValue"), writes);
        assert_eq!(of("secretsmanager:UpdateSecretVersionStage"), writes);
        assert_eq!(of("secretsmanager:DescribeSecret").map(|one| one.1), Some(9_600));
        assert_eq!(of("sts:GetCallerIdentity").map(|one| one.1), Some(576));
        assert_eq!(of("iam:UpdateAccessKey"), None, "AWS says no figure");
    }

    #[test]
    fn a_part_of_a_quota_is_never_nothing() {
        assert_eq!(Quotas::new("a", "r", 1).of("secretsmanager:PutSecretValue").map(Quota::whole), Some(1));
    }
}

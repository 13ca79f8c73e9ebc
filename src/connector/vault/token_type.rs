//! Of which type the tokens of an AppRole are. Batch tokens have no accessor: nobody can list them, nor end one.
//!
//! Facts: `vault/router.go` of Vault 1.18: a mount's `service` or `batch` counts whatever the role says; else the role's own,
//! and where that is `default`, the mount's default. Who reaches anything at a mount may ask what it is
//! (`sys/internal/ui/mounts`); the role's own needs `read` on the role.

use super::answers::{Call, Meaning};
use super::client::Raw;
use super::{Vault, odd};
use crate::case::record::FailureKind;
use crate::connector::Failure;

/// Whether all tokens are service tokens, where the role and its mount say so.
fn are_service(role: &str, mount: &str) -> bool {
    match mount {
        "service" => true,
        "" | "default" | "default-service" => matches!(role, "" | "default" | "default-service" | "service"),
        "default-batch" => matches!(role, "default-service" | "service"),
        _ => false,
    }
}

impl Vault {
    /// Whether what the role gives is known to be service tokens. What it gave when it was set otherwise, nobody knows. Where
    /// nobody's tokens are ended it is not asked.
    ///
    /// # Errors
    /// Vault cannot be asked now. That our policy lets us not look, or that the role is gone, is no error: it is not known then.
    pub(super) async fn gives_service_tokens(&self, mount: &str, role: &str) -> Result<bool, Failure> {
        let known = async |call, path: String| match self.ask(call, Raw::get(path)).await {
            Meaning::Done { mut data, .. } => Ok(Some(data["data"].take())),
            Meaning::Gone | Meaning::Forbidden => Ok(None),
            Meaning::Failed(failure) if failure.kind == FailureKind::Refused => Ok(None),
            Meaning::Failed(failure) => Err(failure),
            Meaning::Outdated | Meaning::Unclear(_) => Err(odd()),
        };
        if !self.settings.derived_tokens {
            return Ok(false);
        }
        let Some(of_role) = known(Call::Settings, format!("auth/{mount}/role/{role}")).await? else { return Ok(false) };
        let of_mount = known(Call::Mount, format!("sys/internal/ui/mounts/auth/{mount}")).await?;
        let Some(of_mount) = of_mount.as_ref().and_then(|mount| mount["config"]["token_type"].as_str()) else {
            return Ok(false);
        };
        Ok(of_role["token_type"].as_str().is_some_and(|of_role| are_service(of_role, of_mount)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_overrules_its_roles_unless_it_only_has_a_default() {
        for (role, mount, expected) in [
            ("default", "default-service", true),
            ("service", "default-service", true),
            ("batch", "default-service", false),
            ("default-batch", "default-service", false),
            ("default", "default-batch", false),
            ("service", "default-batch", true),
            ("service", "batch", false),
            ("batch", "service", true),
            ("default", "something-new", false),
            ("something-new", "default-service", false),
        ] {
            assert_eq!(are_service(role, mount), expected, "{role} at {mount}");
        }
    }
}

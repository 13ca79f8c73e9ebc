//! Whether our login may do what it must: what tells "we lack the right" from "this credential is out of reach".

use serde_json::{Value, json};

use super::answers::{Call, Meaning};
use super::client::Raw;
use super::{Vault, odd};
use crate::case::record::FailureKind;
use crate::connector::Failure;

/// A path, and the capabilities that our policy must give on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Need {
    /// The path below `v1/`.
    pub path: String,
    /// Such as `read`, `update`.
    pub rights: &'static [&'static str],
}

impl Vault {
    /// What a 403 was about: our own access, or this one credential.
    pub async fn forbidden(&self, paths: &[String]) -> Failure {
        self.out_of_reach(&updates(paths)).await
    }

    /// Whether our login works and may update all `paths`.
    ///
    /// # Errors
    /// `Denied` when it may not; else why it could not be found out.
    pub async fn self_check(&self, paths: &[String]) -> Result<(), Failure> {
        self.check_needs(&updates(paths)).await
    }

    /// What a 403 was about, where more than updates are needed.
    pub(super) async fn out_of_reach(&self, needs: &[Need]) -> Failure {
        match self.check_needs(needs).await {
            Ok(()) => Failure::new(FailureKind::Refused, "our policy does not reach this credential"),
            Err(failure) => failure,
        }
    }

    /// Whether our login works and may do all that it needs to.
    ///
    /// # Errors
    /// `Denied` when it may not; else why it could not be found out.
    pub(super) async fn check_needs(&self, needs: &[Need]) -> Result<(), Failure> {
        if needs.is_empty() {
            return match self.ask(Call::Own, Raw::get("auth/token/lookup-self")).await {
                Meaning::Done { .. } => Ok(()),
                other => Err(own_failure(other, "our login does not work")),
            };
        }
        let paths: Vec<&str> = needs.iter().map(|need| need.path.as_str()).collect();
        let raw = Raw::post("sys/capabilities-self", json!({ "paths": paths }));
        let data = match self.ask(Call::Own, raw).await {
            Meaning::Done { data, .. } => data,
            other => return Err(own_failure(other, "our login may not ask for its own rights")),
        };
        for Need { path, rights } in needs {
            let given = data["data"][path.as_str()].as_array().into_iter().flatten().filter_map(Value::as_str);
            let given: Vec<&str> = given.collect();
            if let Some(lacks) = rights.iter().find(|right| !given.contains(right) && !given.contains(&"root")) {
                return Err(Failure::new(FailureKind::Denied, format!("our policy gives no {lacks} on {path}")));
            }
        }
        Ok(())
    }
}

fn updates(paths: &[String]) -> Vec<Need> {
    paths.iter().map(|path| Need { path: path.clone(), rights: &["update"] }).collect()
}

fn own_failure(meaning: Meaning, note: &str) -> Failure {
    match meaning {
        Meaning::Forbidden => Failure::new(FailureKind::Denied, note),
        Meaning::Failed(failure) => failure,
        _ => odd(),
    }
}

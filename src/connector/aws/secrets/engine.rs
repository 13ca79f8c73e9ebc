//! What Secrets Manager is asked: versions, labels, lists. Which of them, and why, is not decided here.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use aws_sdk_secretsmanager::operation::RequestId as _;
use aws_sdk_secretsmanager::operation::describe_secret::DescribeSecretOutput;
use aws_sdk_secretsmanager::types::{Filter, FilterNameStringType, SortByType};
use secrecy::zeroize::Zeroizing;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{Secrets, again, check_place, refused, stored};
use crate::case::record::{FailureKind, Output};
use crate::connector::Failure;
use crate::connector::aws::answers::odd;
use crate::connector::recipe::{Place, Stored, WHOLE};
use crate::connector::wiped::Wiped;
use crate::event::digest16;

/// What consumers read.
pub(crate) const CURRENT: &str = "AWSCURRENT";
/// What they read before.
pub(crate) const PREVIOUS: &str = "AWSPREVIOUS";
/// What they will read.
pub(in crate::connector::aws) const PENDING: &str = "AWSPENDING";
/// The version that Curfew wrote last.
pub(super) const OURS: &str = "curfew";
/// Versions of one secret: AWS keeps a hundred, and all of the last day.
const VERSIONS: usize = 1_000;

/// Which version.
#[derive(Debug, Clone, Copy)]
pub(in crate::connector::aws) enum By<'a> {
    /// The one with this label.
    Label(&'a str),
    /// The one with this id.
    Id(&'a str),
}

/// A version of a secret.
pub(crate) struct Found {
    /// AWS's id of it.
    pub(in crate::connector::aws) id: String,
    /// When it was made, in milliseconds: its number.
    pub(crate) number: i64,
    /// Its labels.
    pub(super) labels: Vec<String>,
    /// Its fields.
    pub(crate) content: Wiped,
    /// AWS's id of the request.
    pub(in crate::connector::aws) request_id: Option<String>,
}

/// A secret without its values.
pub(in crate::connector::aws) struct Described {
    /// Version ids to their labels; of versions without labels nothing.
    labels: HashMap<String, Vec<String>>,
}

/// A secret, as a list shows it.
pub(crate) struct Listed {
    /// Its name.
    pub(crate) name: String,
    /// Labels that its versions have.
    pub(crate) labels: BTreeSet<String>,
    /// Another one where a version, a label or anything else of it is another.
    pub(crate) digest: i64,
}

/// What a secret holds. One that is no JSON object has a single field, without a name.
fn read(text: &str) -> Result<Wiped, Failure> {
    let fields = serde_json::from_str::<Value>(text).ok().map(Wiped).filter(|all| all.fields().is_some());
    match fields {
        Some(fields) if fields.text(WHOLE).is_ok() => Err(refused("the secret has a field without a name")),
        Some(fields) => Ok(fields),
        None => Ok(Wiped(json!({WHOLE: text}))),
    }
}

/// The same, as it is written.
fn written(content: &Wiped) -> Zeroizing<String> {
    Zeroizing::new(content.text(WHOLE).map_or_else(|_| content.0.to_string(), str::to_owned))
}

impl Described {
    /// Of what AWS says.
    pub(in crate::connector::aws) fn of(said: &DescribeSecretOutput) -> Self {
        Self { labels: said.version_ids_to_stages.clone().unwrap_or_default() }
    }

    /// The id of the version that has a label.
    pub(in crate::connector::aws) fn holder(&self, label: &str) -> Option<&String> {
        self.labels.iter().find(|(_, labels)| labels.iter().any(|one| one == label)).map(|(id, _)| id)
    }

    /// Whether a version has a label.
    pub(in crate::connector::aws) fn has(&self, id: &str, label: &str) -> bool {
        self.labels.get(id).is_some_and(|labels| labels.iter().any(|one| one == label))
    }
}

impl Secrets {
    /// One version. `None`: there is no such secret, or no such version of it.
    ///
    /// # Errors
    /// `Refused` where it is binary.
    pub(in crate::connector::aws) async fn version(&self, name: &str, by: By<'_>) -> Result<Option<Found>, Failure> {
        let call = self.account.client.secrets.get_secret_value().secret_id(name);
        let call = match by {
            By::Label(label) => call.version_stage(label),
            By::Id(id) => call.version_id(id),
        };
        let Some(said) = self.account.client.look("secretsmanager:GetSecretValue", call.send()).await? else {
            return Ok(None);
        };
        let request_id = said.request_id().map(str::to_owned);
        let id = said.version_id().ok_or_else(odd)?.to_owned();
        let number = said.created_date().and_then(|at| at.to_millis().ok()).ok_or_else(odd)?;
        let labels = said.version_stages().to_vec();
        let text = said.secret_string.map(Zeroizing::new);
        let text =
            text.ok_or_else(|| refused("the secret is binary: its value is a text, or stands in a field of JSON"))?;
        let content = read(&text)?;
        Ok(Some(Found { id, number, labels, content, request_id }))
    }

    /// The version of a number: of those with labels, or of all.
    pub(in crate::connector::aws) async fn numbered(&self, name: &str, number: i64) -> Result<Option<Found>, Failure> {
        for label in [PREVIOUS, CURRENT, PENDING] {
            // One that cannot be read as a secret of ours is none of ours.
            match self.version(name, By::Label(label)).await {
                Ok(Some(found)) if found.number == number => return Ok(Some(found)),
                Err(failure) if failure.kind != FailureKind::Refused => return Err(failure),
                _ => {}
            }
        }
        let listed = self.list(name).await?;
        let mut of_number = listed.iter().filter(|(one, _)| *one == number);
        match (of_number.next(), of_number.next()) {
            (Some((_, id)), None) => self.version(name, By::Id(id)).await,
            (None, _) => Ok(None),
            _ => Err(refused("two versions of the secret were made in the same millisecond")),
        }
    }

    /// The numbers and ids of a secret's versions, the newest first.
    pub(in crate::connector::aws) async fn list(&self, name: &str) -> Result<Vec<(i64, String)>, Failure> {
        let (mut all, mut next) = (Vec::new(), None);
        loop {
            let call = self.account.client.secrets.list_secret_version_ids().secret_id(name);
            let call = call.include_deprecated(true).set_next_token(next.take()).send();
            let Some(page) = self.account.client.look("secretsmanager:ListSecretVersionIds", call).await? else {
                return Ok(Vec::new());
            };
            for version in page.versions() {
                let number = version.created_date().and_then(|at| at.to_millis().ok()).ok_or_else(odd)?;
                all.push((number, version.version_id().ok_or_else(odd)?.to_owned()));
            }
            match page.next_token().filter(|token| !token.is_empty()) {
                Some(token) if all.len() < VERSIONS => next = Some(token.to_owned()),
                Some(_) => return Err(refused("the secret has more versions than AWS keeps")),
                None => break,
            }
        }
        all.sort_unstable_by(|a, b| b.cmp(a));
        Ok(all)
    }

    /// A page of the secrets that are called so, or (with a slash at its end) that begin so; and where the next one begins.
    ///
    /// # Errors
    /// As [`Self::version`].
    pub(crate) async fn listed(
        &self,
        watched: &str,
        page: Option<String>,
    ) -> Result<(Vec<Listed>, Option<String>), Failure> {
        let named = Filter::builder().key(FilterNameStringType::Name).values(watched).build();
        let call = self.account.client.secrets.list_secrets().filters(named).max_results(100).set_next_token(page);
        let call = call.sort_by(SortByType::Name).send();
        let said = self.account.client.look("secretsmanager:ListSecrets", call).await?.ok_or_else(odd)?;
        // The filter reads no case, and a name as a beginning.
        let is_named = |name: &str| if watched.ends_with('/') { name.starts_with(watched) } else { name == watched };
        let mut all = Vec::new();
        for secret in said.secret_list() {
            let Some(name) = secret.name().filter(|name| is_named(name)) else { continue };
            if secret.deleted_date().is_some() {
                continue;
            }
            let versions: BTreeMap<&String, BTreeSet<&String>> = secret
                .secret_versions_to_stages()
                .iter()
                .flat_map(|all| all.iter())
                .map(|(id, labels)| (id, labels.iter().collect()))
                .collect();
            let changed_ms = secret.last_changed_date().and_then(|at| at.to_millis().ok());
            let digest = digest16(&[format!("{changed_ms:?} {versions:?}").as_bytes()]);
            all.push(Listed {
                name: name.to_owned(),
                labels: versions.values().flatten().map(|label| (*label).clone()).collect(),
                digest: i64::from_be_bytes(digest[..8].try_into().map_err(|_| odd())?),
            });
        }
        Ok((all, said.next_token().filter(|token| !token.is_empty()).map(str::to_owned)))
    }

    /// The version that has a label.
    ///
    /// # Errors
    /// As [`Self::version`].
    pub(crate) async fn labelled(&self, name: &str, label: &str) -> Result<Option<Found>, Failure> {
        self.version(name, By::Label(label)).await
    }

    /// The account's name in the configuration.
    pub(crate) fn target(&self) -> &str {
        &self.account.target
    }

    /// See [`crate::connector::recipe::Store::earlier`].
    pub(super) async fn before(&self, place: &Place, last: i64, most: usize) -> Result<Vec<Stored>, Failure> {
        check_place(place)?;
        let mut values = Vec::new();
        let listed = self.list(&place.path).await?;
        for (_, id) in listed.iter().filter(|(number, _)| *number <= last).take(most) {
            match self.version(&place.path, By::Id(id)).await {
                Ok(found) => values.extend(found.map(|found| stored(place, &found)).and_then(Result::ok)),
                // It is not as the recipe says: somebody else's.
                Err(failure) if failure.kind == FailureKind::Refused => {}
                Err(failure) => return Err(failure),
            }
        }
        Ok(values)
    }

    /// What AWS says of a secret. `None`: there is none.
    pub(in crate::connector::aws) async fn describe(
        &self,
        name: &str,
    ) -> Result<Option<DescribeSecretOutput>, Failure> {
        let call = self.account.client.secrets.describe_secret().secret_id(name).send();
        self.account.client.look("secretsmanager:DescribeSecret", call).await
    }

    /// The secret without its values. `None`: there is none.
    ///
    /// # Errors
    /// `Refused` where it is not ours to change: scheduled for deletion, of a service, or rotated by AWS itself.
    pub(super) async fn described(&self, name: &str) -> Result<Option<Described>, Failure> {
        let Some(said) = self.describe(name).await? else { return Ok(None) };
        if said.deleted_date().is_some() {
            return Err(refused("the secret is scheduled for deletion: restore it, or end its rotation"));
        }
        if said.owning_service().is_some_and(|service| !service.is_empty()) {
            return Err(refused("a service of AWS owns this secret, and rotates it"));
        }
        if said.rotation_enabled() == Some(true) {
            return Err(refused("AWS rotates this secret by itself: name it as `rotated_secret`, or cancel that"));
        }
        Ok(Some(Described::of(&said)))
    }

    /// A new version of this id, that nobody reads yet. What is there under this id already stays as it is.
    pub(super) async fn put(&self, name: &str, id: &str, content: Wiped, labels: &[&str]) -> Result<Output, Failure> {
        let text = written(&content);
        let call = self.account.client.secrets.put_secret_value().secret_id(name).client_request_token(id);
        let call = call.secret_string(text.as_str());
        let call = labels.iter().fold(call, |call, label| call.version_stages(*label));
        let done = self.account.client.ask("secretsmanager:PutSecretValue", true, call.send()).await?;
        let request_ids = done.request_id().map(str::to_owned).into_iter().collect();
        Ok(Output { request_ids, ..Output::default() })
    }

    /// Consumers read `to` from here on, if they read `from` until now: AWS compares, and refuses else.
    pub(super) async fn make_current(&self, name: &str, from: &str, to: &str) -> Result<Vec<String>, Failure> {
        let call = self.account.client.secrets.update_secret_version_stage().secret_id(name).version_stage(CURRENT);
        let call = call.remove_from_version_id(from).move_to_version_id(to).send();
        let done = self.account.client.ask("secretsmanager:UpdateSecretVersionStage", true, call).await?;
        Ok(done.request_id().map(str::to_owned).into_iter().collect())
    }

    /// Takes a label off the version that has it, where that one `goes`.
    pub(super) async fn strip(
        &self,
        name: &str,
        label: &str,
        known: &Described,
        goes: impl FnOnce(&Found) -> Result<bool, Failure>,
    ) -> Result<(), Failure> {
        let Some(id) = known.holder(label) else { return Ok(()) };
        let Some(found) = self.version(name, By::Id(id)).await? else { return Ok(()) };
        if !goes(&found)? {
            return Ok(());
        }
        self.unlabel(name, label, id).await
    }

    /// Takes a label off a version: AWS refuses where another one has it by now.
    pub(in crate::connector::aws) async fn unlabel(&self, name: &str, label: &str, id: &str) -> Result<(), Failure> {
        let call = self.account.client.secrets.update_secret_version_stage().secret_id(name).version_stage(label);
        let call = call.remove_from_version_id(id).send();
        self.account.client.ask("secretsmanager:UpdateSecretVersionStage", true, call).await.map(drop)
    }

    /// Puts `content` in the place of `found`, which consumers read. `why` and what it follows name the new version, so that
    /// it is made once; it has `labels` besides. Its number, and the ids of the requests.
    pub(super) async fn replace(
        &self,
        name: &str,
        found: &Found,
        content: Wiped,
        why: &str,
        labels: &[&str],
    ) -> Result<(i64, Vec<String>), Failure> {
        let id = Uuid::new_v5(&Uuid::NAMESPACE_URL, format!("urn:curfew:aws:{why}:{name}:{}", found.id).as_bytes());
        let id = id.to_string();
        if self.version(name, By::Id(&id)).await?.is_none() {
            self.put(name, &id, content, labels).await?;
        }
        let written = self.version(name, By::Id(&id)).await?;
        let written = written.ok_or_else(|| again("the new version is not to be seen yet"))?;
        let request_ids = self.make_current(name, &found.id, &id).await?;
        Ok((written.number, request_ids))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_json_object_is_one_value_and_written_as_it_is() {
        for text in ["s3cret", "\"quoted\"", "12345", "[1]", "{not json", " with blanks\n"] {
            let content = read(text).unwrap();
            assert_eq!(content.text(WHOLE), Ok(text));
            assert_eq!(written(&content).as_str(), text);
        }
        let fields = read(r#"{"password":"x","port":5432}"#).unwrap();
        assert!(fields.text(WHOLE).is_err());
        assert_eq!(written(&fields).as_str(), r#"{"password":"x","port":5432}"#);
        assert!(read(r#"{"":"x"}"#).is_err(), "it would be taken for a text");
    }
}

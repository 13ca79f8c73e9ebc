//! The entity behind an AppRole: who it is, and whether it lets in.

use serde_json::{Value, json};

use super::form::{Behind, Form, Named};
use super::{Role, VaultScope, all, place};
use crate::case::record::FailureKind;
use crate::connector::vault::answers::{Call, Meaning};
use crate::connector::vault::client::Raw;
use crate::connector::vault::odd;
use crate::connector::vault::rights::Need;
use crate::connector::{Failure, Rescope, Subject};

fn entity_path(id: &str) -> String {
    format!("identity/entity/id/{id}")
}

/// The entity that is to be given back.
fn recorded(rescope: &Rescope) -> Option<String> {
    let forms = rescope.owed().iter().filter_map(|one| serde_json::from_str::<Form>(&one.how).ok());
    forms.filter_map(|form| form.entity).next()
}

impl VaultScope {
    /// The entity as which whoever logs in by the role is known. `None`: nobody has. What else was answered is the error.
    pub(super) async fn entity(&self, subject: &Subject, role_id: &str) -> Result<Option<Value>, Meaning> {
        let (mount, _) = place(subject).map_err(Meaning::Failed)?;
        let raw = Raw::get(format!("sys/internal/ui/mounts/auth/{mount}"));
        let accessor = match self.vault.ask(Call::Mount, raw).await {
            Meaning::Done { data, .. } => data["data"]["accessor"].as_str().map(str::to_owned),
            other => return Err(other),
        };
        let accessor = accessor.ok_or_else(|| Meaning::Failed(odd()))?;
        self.look_up(json!({ "alias_name": role_id, "alias_mount_accessor": accessor })).await
    }

    async fn look_up(&self, which: Value) -> Result<Option<Value>, Meaning> {
        match self.vault.ask(Call::EntityLookup, Raw::post("identity/lookup/entity", which)).await {
            Meaning::Done { mut data, .. } => Ok(Some(data["data"].take())),
            Meaning::Gone => Ok(None),
            other => Err(other),
        }
    }

    /// Who stands behind the role, where a fence is asked of: what is given back is the one that was closed, whoever that is now.
    pub(super) async fn behind(&self, subject: &Subject, role_id: &str) -> Result<Behind, Failure> {
        let Some(rescope) = &subject.rescope else { return Ok(Behind::default()) };
        if !all(rescope)?.contains(&Named::Entity) {
            return Ok(Behind::default());
        }
        let found = if rescope.gives {
            match recorded(rescope) {
                Some(id) => self.look_up(json!({ "id": id })).await,
                None => return Ok(Behind::default()),
            }
        } else {
            self.entity(subject, role_id).await
        };
        match found {
            Ok(Some(data)) => Behind::of(&data).ok_or_else(odd),
            Ok(None) => Ok(Behind::Nobody),
            // Who may not see it closes the role all the same. What was closed is not forgotten so.
            Err(Meaning::Forbidden) if !rescope.gives => Ok(Behind::Hidden),
            Err(Meaning::Failed(failure)) if failure.kind == FailureKind::Refused && !rescope.gives => {
                Ok(Behind::Hidden)
            }
            Err(other) => Err(self.failure(other).await),
        }
    }

    /// Whether it is ours to close: not the one behind our own login, and our policy reaches it.
    pub(super) async fn may_close(&self, entity: &str) -> Result<bool, Failure> {
        let own = self.vault.session.load_full().and_then(|session| session.entity.clone());
        if own.is_some_and(|own| own == entity) {
            return Ok(false);
        }
        let need = Need { path: entity_path(entity), rights: &["update"] };
        match self.vault.check_needs(&[need]).await {
            Ok(()) => Ok(true),
            Err(failure) if failure.kind == FailureKind::Denied => Ok(false),
            Err(failure) => Err(failure),
        }
    }

    /// Disables the entity that was recorded, or enables it again, where that is still to be done. Vault's id of the request.
    pub(super) async fn write_entity(
        &self,
        role: &Role,
        owed: &[(Named<'_>, Form)],
        gives: bool,
    ) -> Result<Option<String>, Meaning> {
        let recorded = owed.iter().find(|(named, _)| *named == Named::Entity);
        let Some(id) = recorded.and_then(|(_, form)| role.settings.entity_write(form, gives)) else { return Ok(None) };
        let raw = Raw::post(entity_path(id), json!({ "disabled": !gives }));
        match self.vault.ask(Call::EntityWrite, raw).await {
            Meaning::Done { request_id, .. } => Ok(request_id),
            other => Err(other),
        }
    }
}

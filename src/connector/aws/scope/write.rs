//! The calls that change what a user of IAM was granted, one at a time.

use aws_sdk_iam::operation::RequestId;

use super::form::{self, Change, Grants};
use super::{UserScope, overlay, refused};
use crate::case::record::FailureKind;
use crate::connector::Failure;
use crate::connector::aws::{answers, document};

impl UserScope {
    /// Our own policy for the credential, as it is now.
    async fn own_now(&self, user: &Grants) -> Result<Option<String>, Failure> {
        let call = self.0.client.iam.get_user_policy().user_name(user.name()).policy_name(user.own_policy().0).send();
        match self.0.client.look("iam:GetUserPolicy", call).await? {
            Some(found) => document::decoded(found.policy_document()).ok_or_else(answers::odd).map(Some),
            None => Ok(None),
        }
    }

    /// That our own policy is what was read, before anything is changed.
    pub(super) async fn is_as_read(&self, user: &Grants) -> Result<(), Failure> {
        match self.own_now(user).await? {
            now if now.as_ref() == user.own_policy().1 => Ok(()),
            Some(other) if overlay::denied(&other).is_none() => Err(refused(form::FOREIGN)),
            // No other case writes it: IAM is late.
            _ => Err(Failure::wait("our own policy is not as it was a moment ago: it is looked at again")),
        }
    }

    /// That nobody else wrote it since: that is not written over. One of ours was compared before the first change, and what
    /// differs from it by now is an answer that is late.
    async fn is_not_foreign(&self, user: &Grants) -> Result<(), Failure> {
        match self.own_now(user).await? {
            Some(other) if overlay::denied(&other).is_none() => Err(refused(form::FOREIGN)),
            _ => Ok(()),
        }
    }

    /// One change. To take what is not there is done.
    pub(super) async fn call(&self, user: &Grants, change: &Change) -> Result<Option<String>, Failure> {
        let (client, name) = (&self.0.client, user.name());
        if change.writes(user.own_policy().0) {
            self.is_not_foreign(user).await?;
        }
        match change {
            Change::Detach(arn) => {
                let call = client.iam.detach_user_policy().user_name(name).policy_arn(arn).send();
                taken(client.ask("iam:DetachUserPolicy", true, call).await)
            }
            Change::Delete(policy) => {
                let call = client.iam.delete_user_policy().user_name(name).policy_name(policy).send();
                taken(client.ask("iam:DeleteUserPolicy", true, call).await)
            }
            Change::Leave(group) => {
                let call = client.iam.remove_user_from_group().user_name(name).group_name(group).send();
                taken(client.ask("iam:RemoveUserFromGroup", true, call).await)
            }
            Change::Attach(arn) => {
                let call = client.iam.attach_user_policy().user_name(name).policy_arn(arn).send();
                given(client.ask("iam:AttachUserPolicy", true, call).await)
            }
            Change::Put(policy, document) => {
                let call = client.iam.put_user_policy().user_name(name).policy_name(policy);
                given(client.ask("iam:PutUserPolicy", true, call.policy_document(document).send()).await)
            }
            Change::Join(group) => {
                let call = client.iam.add_user_to_group().user_name(name).group_name(group).send();
                given(client.ask("iam:AddUserToGroup", true, call).await)
            }
        }
    }

    /// Whether our own policy is as it was written, or, where IAM is late, as it was before.
    pub(super) async fn is_not_overwritten(&self, before: &Grants, changes: &[Change]) -> Result<(), Failure> {
        let (own, was) = before.own_policy();
        let written = changes.iter().find_map(|change| match change {
            Change::Put(_, document) if change.writes(own) => Some(Some(document)),
            Change::Delete(_) if change.writes(own) => Some(None),
            _ => None,
        });
        let Some(written) = written else { return Ok(()) };
        let now = self.own_now(before).await?;
        if now.as_ref() == written || now.as_ref() == was {
            return Ok(());
        }
        Err(Failure::wait("somebody else wrote our own policy at the same time: it is looked at and written again"))
    }
}

fn id_of<T: RequestId>(done: &T) -> Option<String> {
    done.request_id().map(str::to_owned)
}

/// What is not there any more is taken.
fn taken<T: RequestId>(answer: Result<T, Failure>) -> Result<Option<String>, Failure> {
    match answer {
        Ok(done) => Ok(id_of(&done)),
        Err(failure) if failure.kind == FailureKind::Gone => Ok(None),
        Err(failure) => Err(failure),
    }
}

/// What is not there any more cannot be given: the policy or the group, not the user.
fn given<T: RequestId>(answer: Result<T, Failure>) -> Result<Option<String>, Failure> {
    answer.map(|done| id_of(&done)).map_err(|failure| match failure.kind {
        FailureKind::Gone => refused("a policy, a group or the user is gone"),
        _ => failure,
    })
}

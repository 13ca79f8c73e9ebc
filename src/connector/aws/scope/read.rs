//! What a user of IAM was granted, read whole: a list of which one page fails says nothing.

use std::collections::{BTreeMap, BTreeSet};

use super::form::{Form, Grants, Named};
use crate::case::record::FailureKind;
use crate::connector::Failure;
use crate::connector::aws::document::decoded;
use crate::connector::aws::name::{full, last};
use crate::connector::aws::{Account, answers};

/// So many pages one list may have: far more than IAM's quotas allow.
const PAGES: usize = 20;
/// Entries of one page.
const PAGE: i32 = 100;

fn refused(note: &str) -> Failure {
    Failure::new(FailureKind::Refused, note)
}

fn document(encoded: Option<&str>) -> Result<String, Failure> {
    encoded.and_then(decoded).ok_or_else(|| refused("a policy's document is larger than is read, or no text"))
}

/// All pages of a list: `ask` makes the call after a marker; `of` takes a page's entries and the next marker.
macro_rules! listed {
    ($account:ident, $right:literal, $call:expr, |$page:ident| $entries:expr) => {{
        let (mut all, mut marker, mut pages) = (Vec::new(), None, 0);
        loop {
            let call = $call.max_items(PAGE).set_marker(marker.take()).send();
            let Some($page) = $account.client.look($right, call).await? else { break None };
            all.extend($entries);
            pages += 1;
            match $page.marker().filter(|_| $page.is_truncated()) {
                Some(_) if pages == PAGES => return Err(refused("one of the user's lists has no end")),
                Some(next) => marker = Some(next.to_owned()),
                None if $page.is_truncated() => return Err(answers::odd()),
                None => break Some(all),
            }
        }
    }};
}

impl Account {
    /// What the user at `<path><name>` was granted; `own`: what our policy for the credential in question is called. `None`: IAM
    /// has no user of that name.
    ///
    /// # Errors
    /// The first call that fails: of a list in part nothing is told.
    pub(super) async fn grants(&self, user: &str, own: &str) -> Result<Option<Grants>, Failure> {
        let name = last(user);
        let call = self.client.iam.get_user().user_name(name).send();
        let Some(found) = self.client.look("iam:GetUser", call).await? else { return Ok(None) };
        let found = found.user.ok_or_else(answers::odd)?;
        let boundary = found.permissions_boundary().map(|one| one.permissions_boundary_arn().unwrap_or("?").to_owned());
        let iam = &self.client.iam;
        let attached: Option<Vec<String>> =
            listed!(self, "iam:ListAttachedUserPolicies", iam.list_attached_user_policies().user_name(name), |page| {
                page.attached_policies().iter().filter_map(|one| Some(one.policy_arn()?.to_owned()))
            });
        let names: Option<Vec<String>> =
            listed!(self, "iam:ListUserPolicies", iam.list_user_policies().user_name(name), |page| page
                .policy_names()
                .iter()
                .cloned());
        let groups: Option<Vec<String>> =
            listed!(self, "iam:ListGroupsForUser", iam.list_groups_for_user().user_name(name), |page| page
                .groups()
                .iter()
                .map(|group| group.group_name().to_owned()));
        let (Some(attached), Some(names), Some(groups)) = (attached, names, groups) else { return Ok(None) };
        let mut inline = BTreeMap::new();
        for policy in names {
            let call = iam.get_user_policy().user_name(name).policy_name(&policy).send();
            let found = self.client.look("iam:GetUserPolicy", call).await?;
            let found = found.ok_or_else(|| Failure::wait("the user's policies change while they are read"))?;
            inline.insert(policy, document(Some(found.policy_document()))?);
        }
        Ok(Some(Grants {
            own: own.to_owned(),
            id: found.user_id().to_owned(),
            arn: found.arn().to_owned(),
            full: full(found.path(), found.user_name()),
            boundary,
            managed: attached.into_iter().collect(),
            inline,
            groups: groups.into_iter().collect(),
        }))
    }

    /// The managed policies that are attached to a group. A group that is gone has none.
    pub(super) async fn attached_to(&self, group: &str) -> Result<BTreeSet<String>, Failure> {
        let iam = &self.client.iam;
        let all: Option<Vec<String>> = listed!(
            self,
            "iam:ListAttachedGroupPolicies",
            iam.list_attached_group_policies().group_name(group),
            |page| page.attached_policies().iter().filter_map(|one| Some(one.policy_arn()?.to_owned()))
        );
        Ok(all.unwrap_or_default().into_iter().collect())
    }

    /// The policies by which a user has, or had, these. Of what is not there any more there is none.
    pub(super) async fn documents_of(&self, held: &[(Named<'_>, Form)]) -> Result<Vec<String>, Failure> {
        let (mut documents, mut managed) = (Vec::new(), BTreeSet::new());
        for (named, form) in held {
            match named {
                Named::Managed(_) => managed.extend(form.arn.clone()),
                Named::Inline(_) => documents.extend(form.document.clone()),
                Named::Group(group) => {
                    documents.extend(self.inline_of(group).await?);
                    managed.extend(self.attached_to(group).await?);
                }
                Named::Action(_) => {}
            }
        }
        for arn in managed {
            documents.extend(self.managed(&arn).await?);
        }
        Ok(documents)
    }

    /// The inline policies of a group.
    async fn inline_of(&self, group: &str) -> Result<Vec<String>, Failure> {
        let iam = &self.client.iam;
        let names: Option<Vec<String>> =
            listed!(self, "iam:ListGroupPolicies", iam.list_group_policies().group_name(group), |page| page
                .policy_names()
                .iter()
                .cloned());
        let mut documents = Vec::new();
        for policy in names.unwrap_or_default() {
            let call = iam.get_group_policy().group_name(group).policy_name(policy).send();
            if let Some(found) = self.client.look("iam:GetGroupPolicy", call).await? {
                documents.push(document(Some(found.policy_document()))?);
            }
        }
        Ok(documents)
    }

    /// The version of a managed policy that is in force. `None`: there is no such policy any more.
    async fn managed(&self, arn: &str) -> Result<Option<String>, Failure> {
        let call = self.client.iam.get_policy().policy_arn(arn).send();
        let Some(found) = self.client.look("iam:GetPolicy", call).await? else { return Ok(None) };
        let version = found.policy.and_then(|policy| policy.default_version_id).ok_or_else(answers::odd)?;
        let call = self.client.iam.get_policy_version().policy_arn(arn).version_id(version).send();
        let Some(found) = self.client.look("iam:GetPolicyVersion", call).await? else { return Ok(None) };
        document(found.policy_version().and_then(|version| version.document())).map(Some)
    }

    /// What IAM says of these actions of a user on one resource, by their names in small letters: `allowed`, `explicitDeny` or
    /// `implicitDeny`. `None`: our login may not ask.
    ///
    /// # Errors
    /// `Refused` where IAM does not take one of the names; `Unavailable` where it leaves one out.
    pub(super) async fn simulated(
        &self,
        user: &Grants,
        actions: &BTreeSet<String>,
        resource: &str,
    ) -> Result<Option<BTreeMap<String, String>>, Failure> {
        if actions.is_empty() {
            return Ok(Some(BTreeMap::new()));
        }
        let call = self.client.iam.simulate_principal_policy().policy_source_arn(&user.arn).resource_arns(resource);
        let call = call.set_action_names(Some(actions.iter().cloned().collect())).max_items(1_000).send();
        let said = self.client.look_where_allowed("iam:SimulatePrincipalPolicy", call).await;
        let said = said.map_err(|failure| match failure.kind {
            FailureKind::Refused => {
                refused("IAM takes the name of one of the actions for none: what it may cannot be asked")
            }
            _ => failure,
        })?;
        let Some(said) = said else { return Ok(None) };
        if said.is_truncated() {
            return Err(answers::odd());
        }
        let of = said.evaluation_results().iter();
        let of = of.map(|one| (one.eval_action_name().to_ascii_lowercase(), one.eval_decision().as_str().to_owned()));
        let said: BTreeMap<String, String> = of.collect();
        if actions.iter().any(|action| !said.contains_key(action)) {
            return Err(answers::odd());
        }
        Ok(Some(said))
    }
}

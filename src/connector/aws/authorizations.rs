//! Who may what in an account, as IAM tells it in one list (`GetAccountAuthorizationDetails`), and when keys were last used.
//! Only looks, by a login of its own: `deploy/aws/reach.json`.

use aws_sdk_iam::types::{AttachedPolicy, PolicyDetail};

use super::{Account, Listed, answers, name};
use crate::connector::Failure;

/// Pages of the list, at the most.
const PAGES: usize = 1_000;
/// Of each so many entries, the most that IAM gives.
const PAGE: i32 = 1_000;

/// A policy document, percent-encoded as IAM hands it out, and what it is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// Its name within its holder.
    pub name: String,
    /// As handed out.
    pub encoded: String,
}

/// A user, group or role.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Holder {
    /// `<path><name>` without the first slash.
    pub full: String,
    /// What others call it.
    pub arn: String,
    /// When it was made.
    pub created_ms: Option<i64>,
    /// When a role was last assumed, in a Region that IAM tracks. Of users it tells nothing here.
    pub used_ms: Option<i64>,
    /// Policies of its own.
    pub inline: Vec<Document>,
    /// ARNs of managed policies.
    pub attached: Vec<String>,
    /// Names of a user's groups.
    pub groups: Vec<String>,
    /// Of a role: who may assume it.
    pub trust: Option<String>,
    /// Whether a permissions boundary bounds it.
    pub bounded: bool,
}

/// What an account holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Authorizations {
    /// Users.
    pub users: Vec<Holder>,
    /// Groups.
    pub groups: Vec<Holder>,
    /// Roles.
    pub roles: Vec<Holder>,
    /// Managed policies that are attached: ARN, and the version in force.
    pub policies: Vec<(String, Document)>,
    /// Whether it ended before its end.
    pub cut: bool,
    /// Policies of which it did not say what they allow.
    pub unsaid: usize,
}

/// When a key was last used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Used {
    /// Then (UTC milliseconds).
    At(i64),
    /// IAM knows of no use since it began to track them (2015).
    Never,
}

fn arns(attached: &[AttachedPolicy]) -> Vec<String> {
    attached.iter().filter_map(|one| one.policy_arn().map(str::to_owned)).collect()
}

/// One without a text stays, and cannot be read: it is not left out in silence.
fn documents(inline: &[PolicyDetail]) -> Vec<Document> {
    let one = |detail: &PolicyDetail| Document {
        name: detail.policy_name().unwrap_or("(without a name)").to_owned(),
        encoded: detail.policy_document().unwrap_or_default().to_owned(),
    };
    inline.iter().map(one).collect()
}

impl Account {
    /// All of it.
    ///
    /// # Errors
    /// The first page that fails: of a list in part nothing is told.
    pub async fn authorizations(&self) -> Result<Authorizations, Failure> {
        self.client.identity().await?;
        let (mut all, mut marker) = (Authorizations::default(), None);
        for _ in 0..PAGES {
            let call = self.client.iam.get_account_authorization_details().max_items(PAGE);
            let call = call.set_marker(marker.take()).send();
            let page = self.client.look("iam:GetAccountAuthorizationDetails", call).await?.ok_or_else(answers::odd)?;
            for user in page.user_detail_list() {
                all.users.push(Holder {
                    full: name::full(user.path().unwrap_or("/"), user.user_name().unwrap_or_default()),
                    arn: user.arn().unwrap_or_default().to_owned(),
                    created_ms: user.create_date().and_then(|at| at.to_millis().ok()),
                    inline: documents(user.user_policy_list()),
                    attached: arns(user.attached_managed_policies()),
                    groups: user.group_list().to_vec(),
                    bounded: user.permissions_boundary().is_some(),
                    ..Holder::default()
                });
            }
            for group in page.group_detail_list() {
                all.groups.push(Holder {
                    full: group.group_name().unwrap_or_default().to_owned(),
                    arn: group.arn().unwrap_or_default().to_owned(),
                    inline: documents(group.group_policy_list()),
                    attached: arns(group.attached_managed_policies()),
                    ..Holder::default()
                });
            }
            for role in page.role_detail_list() {
                let used = role.role_last_used().and_then(|used| used.last_used_date());
                all.roles.push(Holder {
                    full: name::full(role.path().unwrap_or("/"), role.role_name().unwrap_or_default()),
                    arn: role.arn().unwrap_or_default().to_owned(),
                    created_ms: role.create_date().and_then(|at| at.to_millis().ok()),
                    used_ms: used.and_then(|at| at.to_millis().ok()),
                    inline: documents(role.role_policy_list()),
                    attached: arns(role.attached_managed_policies()),
                    trust: role.assume_role_policy_document().map(str::to_owned),
                    bounded: role.permissions_boundary().is_some(),
                    ..Holder::default()
                });
            }
            for policy in page.policies() {
                let current = policy.policy_version_list().iter().find(|version| version.is_default_version());
                let Some((arn, encoded)) = policy.arn().zip(current.and_then(|version| version.document())) else {
                    all.unsaid += 1;
                    continue;
                };
                let name = policy.policy_name().unwrap_or(arn).to_owned();
                all.policies.push((arn.to_owned(), Document { name, encoded: encoded.to_owned() }));
            }
            match page.marker().filter(|_| page.is_truncated()) {
                Some(next) => marker = Some(next.to_owned()),
                None => return Ok(all),
            }
        }
        all.cut = true;
        Ok(all)
    }

    /// When a key was last used.
    ///
    /// # Errors
    /// As any look. `Ok(None)`: IAM does not know the key any more.
    pub async fn last_used(&self, key: &Listed) -> Result<Option<Used>, Failure> {
        let call = self.client.iam.get_access_key_last_used().access_key_id(key.name.key()).send();
        let Some(said) = self.client.look("iam:GetAccessKeyLastUsed", call).await? else { return Ok(None) };
        let at = said.access_key_last_used().and_then(|used| used.last_used_date()).and_then(|at| at.to_millis().ok());
        Ok(Some(at.map_or(Used::Never, Used::At)))
    }
}

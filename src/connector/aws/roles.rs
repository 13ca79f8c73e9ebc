//! Roles that a user may assume: which, how long their sessions live, and the policy that denies those of a role which a rule of
//! the configuration names.
//!
//! A session of a role asks for no key any more, and nothing lists it. So the roles are told by what IAM says of who may assume
//! whom ([`assume`]), and each has a limit for its sessions.
//!
//! P6: a policy is put on a role only where `cut_roles` names its ARN, never on that of our own login.
//!
//! Facts: `MaxSessionDuration` of a role is one to twelve hours, and `GetRole` tells it (`GetAccountAuthorizationDetails` does
//! not); <https://docs.aws.amazon.com/IAM/latest/UserGuide/id_roles_use_revoke-sessions.html>: AWS's own revocation of a
//! role's sessions is the same policy, and reaches all who assumed the role before.

use aws_sdk_iam::operation::RequestId as _;

use super::name::{self, KeyName};
use super::{Account, assume, may_lack, sessions};
use crate::case::derived::{Derived, MOST_ROLES, Role, Says};
use crate::case::record::{FailureKind, Observation, Output, Presence};
use crate::connector::Failure;
use crate::guard;

/// The most that AWS allows the sessions of any role.
const LIMIT_MS: i64 = 12 * 3_600_000;

fn refused(note: &str) -> Failure {
    Failure::new(FailureKind::Refused, note)
}

impl Account {
    /// Roles whose sessions end along with keys.
    pub fn cut_roles(&self) -> &[String] {
        &self.cut_roles
    }

    /// What the user may have become.
    pub(super) async fn look_at_roles(&self, user: &str) -> Result<Observation, Failure> {
        let all = self.authorizations().await?;
        let roles = assume::Roles::new(&all);
        let mut seen = Observation { at_ms: self.clock.wall_ms(), ..Observation::default() };
        let mut derived = Derived::default();
        if let Some(found) = roles.of_user(user) {
            seen.presence = Presence::Present;
            derived.whole = found.whole;
            let is_cut = |arn: &String| self.cut_roles.contains(arn);
            let (first, then): (Vec<_>, Vec<_>) = found.roles.into_iter().partition(|role| is_cut(&role.arn));
            let mut readable = true;
            for role in first.into_iter().chain(then) {
                if derived.roles.len() >= MOST_ROLES {
                    derived.more = derived.more.saturating_add(1);
                    continue;
                }
                let own_ms = if readable { self.lasts_ms(&role.full, &mut readable).await? } else { None };
                derived.roles.push(Role {
                    name: role.arn.clone(),
                    lasts_ms: own_ms.unwrap_or(LIMIT_MS),
                    by: if own_ms.is_some() { Says::Role } else { Says::Limit },
                    others: roles.others(role, user),
                    denied_ms: None,
                });
            }
        }
        seen.derived = Some(derived);
        Ok(seen)
    }

    /// How long a role lets its sessions live. `readable`: our login may ask.
    async fn lasts_ms(&self, full: &str, readable: &mut bool) -> Result<Option<i64>, Failure> {
        let call = self.client.iam.get_role().role_name(name::last(full)).send();
        let said = match self.client.look("iam:GetRole", call).await {
            Err(failure) if failure.kind == FailureKind::Refused => {
                *readable = false;
                None
            }
            said => said?,
        };
        let secs = said.and_then(|said| said.role).and_then(|role| role.max_session_duration);
        Ok(secs.filter(|secs| *secs > 0).map(|secs| i64::from(secs).saturating_mul(1_000)))
    }

    /// The name of a role that is ours to touch: a rule names it, it is none of our own login, and it still has that ARN. `None`:
    /// there is no such role.
    async fn our_role<'a>(&self, key: &KeyName, arn: &'a str) -> Result<Option<&'a str>, Failure> {
        if self.protects(key).await? {
            return Err(refused("our own user, or one that `users` does not name: its roles are not touched"));
        }
        if !self.cut_roles.iter().any(|role| role == arn) {
            return Err(refused("a role that `cut_roles` does not name: never touched"));
        }
        let role = name::last(arn);
        let own = self.client.identity().await?.role;
        // Two roles never have one name, whatever their paths.
        if own.is_some_and(|own| own.eq_ignore_ascii_case(role)) {
            return Err(refused("the role of our own login: never touched"));
        }
        let call = self.client.iam.get_role().role_name(role).send();
        match self.client.look("iam:GetRole", call).await?.and_then(|said| said.role) {
            Some(found) if found.arn() == arn => Ok(Some(role)),
            Some(_) => Err(refused("the role has another path by now")),
            None => Ok(None),
        }
    }

    /// Denies all sessions of a role that were opened until the key is seen dead, whoever opened them.
    pub(super) async fn deny_role(&self, key: &KeyName, arn: &str) -> Result<Output, Failure> {
        let gone = || Failure::new(FailureKind::Gone, "there is no such role any more");
        let role = self.our_role(key, arn).await?.ok_or_else(gone)?;
        let cut_ms = self.clock.wall_ms().saturating_add(self.settle.window_ms);
        let policy = sessions::role_policy(key, cut_ms).ok_or_else(|| refused("our clock shows no time"))?;
        let call = self.client.iam.put_role_policy().role_name(role).policy_name(sessions::name(key));
        let done = self.client.ask("iam:PutRolePolicy", true, call.policy_document(policy).send()).await?;
        let request_ids = done.request_id().map(str::to_owned).into_iter().collect();
        Ok(Output { request_ids, done_ms: Some(cut_ms), ..Output::default() })
    }

    /// Whether what we put on a role because of this key has nothing left to deny.
    pub(super) async fn look_at_role(&self, key: &KeyName, arn: &str) -> Result<Observation, Failure> {
        let mut seen = Observation { at_ms: self.clock.wall_ms(), ..Observation::default() };
        let over = self.role_fence(name::last(arn), &sessions::name(key)).await?;
        // Whose it is stands in it: a key's id alone could be another user's by a typing error of ours.
        seen.lifts = over.is_some_and(|(of, over_ms)| of == *key && over_ms <= seen.at_ms);
        seen.presence = Presence::Present;
        Ok(seen)
    }

    /// Takes it off, if it is as we wrote it and denies nothing any more.
    pub(super) async fn lift_role(&self, key: &KeyName, arn: &str) -> Result<Output, Failure> {
        let Some(role) = self.our_role(key, arn).await? else { return Ok(Output::default()) };
        if !self.look_at_role(key, arn).await?.lifts {
            return Ok(Output::default());
        }
        let call = self.client.iam.delete_role_policy().role_name(role).policy_name(sessions::name(key)).send();
        let done = self.client.ask("iam:DeleteRolePolicy", true, call).await?;
        let request_ids = done.request_id().map(str::to_owned).into_iter().collect();
        Ok(Output { request_ids, ..Output::default() })
    }

    /// The key that a policy on a role is of, and from when on it denies nothing any more. `None`: there is none as we write it, or
    /// our login may not look.
    async fn role_fence(&self, role: &str, policy: &str) -> Result<Option<(KeyName, i64)>, Failure> {
        let call = self.client.iam.get_role_policy().role_name(role).policy_name(policy).send();
        let found = may_lack(self.client.look("iam:GetRolePolicy", call).await)?;
        Ok(found.and_then(|found| {
            let text = percent_encoding::percent_decode_str(found.policy_document()).decode_utf8().ok()?;
            sessions::of_role(policy, &text)
        }))
    }

    /// The keys of our users because of which sessions of a role were denied, where it denies nothing any more.
    ///
    /// # Errors
    /// All but that our login may not look.
    pub async fn over_at(&self, arn: &str) -> Result<Vec<KeyName>, Failure> {
        let role = name::last(arn);
        let call = self.client.iam.list_role_policies().role_name(role).send();
        let Some(list) = may_lack(self.client.look("iam:ListRolePolicies", call).await)? else { return Ok(Vec::new()) };
        let (now_ms, mut over) = (self.clock.wall_ms(), Vec::new());
        for policy in list.policy_names().iter().filter(|policy| sessions::is_ours(policy)) {
            if let Some((key, over_ms)) = self.role_fence(role, policy).await?
                && over_ms <= now_ms
                && guard::names_user(&self.users, key.user())
            {
                over.push(key);
            }
        }
        Ok(over)
    }
}

//! Whether the old value still opens anything. At most three logins for each look, below what locks a user out.

use super::sessions::Scope;
use super::{PostgresRole, Role, of_store, recorded, value, with_left};
use crate::case::record::{Answer, Level, Residue};
use crate::connector::postgres::SELF;
use crate::connector::postgres::answers::Login;
use crate::connector::recipe::{Rotation, Stored, Users, Which};
use crate::connector::turns::Holder;
use crate::connector::{Failure, Subject};

/// Whether we may end a user's sessions: by the role for it, or as a member of the user.
const MAY_END: &str = "SELECT coalesce(pg_catalog.pg_has_role(current_user, $1::bigint::oid, 'USAGE'), false)";
/// Whether any of these roles owns anything, in whatever database.
const OWN: &str = "SELECT EXISTS (SELECT 1 FROM pg_catalog.pg_shdepend WHERE deptype = 'o' \
     AND refclassid = 'pg_catalog.pg_authid'::pg_catalog.regclass AND refobjid = ANY ($1::bigint[]::oid[]))";
const PURPOSE: &str = "curfew-probe";

/// What was seen.
pub(super) struct Sight {
    pub(super) answer: Answer,
    pub(super) control: bool,
    pub(super) residue: Vec<Residue>,
    pub(super) level: Level,
}

impl Default for Sight {
    fn default() -> Self {
        Self::of(Answer::Unknown, false)
    }
}

impl Sight {
    fn of(answer: Answer, control: bool) -> Self {
        Self { answer, control, residue: Vec::new(), level: Level::Target }
    }
}

impl PostgresRole {
    /// Looks at the old value, and at what shows that the look can be believed.
    pub(super) async fn sight(&self, subject: &Subject) -> Result<Sight, Failure> {
        let Some(rotation) = &subject.rotation else { return Ok(Sight::default()) };
        let look = sqlx::query_as::<_, (bool, bool, bool)>(SELF).fetch_one(&self.pool);
        let (exists, primary, may_end) = self.bounded(false, look).await?;
        if !primary {
            return Ok(Sight::default());
        }
        let place = &rotation.recipe.place;
        let old = match &rotation.turn.old {
            Some(old) => rotation.store.read(place, Which::Version(old.version)).await.map_err(of_store)?,
            None => None,
        };
        let current = rotation.store.read(place, Which::Current).await.map_err(of_store)?;
        let holder = Holder::of(rotation, current.as_ref());
        let user = rotation.old_user().or(old.as_ref().and_then(|old| old.user.as_deref()));
        // No name that the recipe does not know.
        let user = user.filter(|user| rotation.recipe.users.names().contains(user));
        let mut sight = match (user, &old) {
            _ if rotation.ends => {
                let mut values: Vec<(&str, &Stored)> = user.zip(old.as_ref()).into_iter().collect();
                let other =
                    holder.as_ref().filter(|holder| old.as_ref().is_none_or(|o| o.version != holder.stored.version));
                values.extend(other.map(|holder| (holder.user, holder.stored)));
                self.by_end(subject, rotation, &values, exists).await?
            }
            (Some(user), Some(old)) => self.by_login(subject, rotation, user, old, holder.as_ref(), exists).await?,
            _ => {
                let sight = self.by_logic(subject, rotation, user, holder.as_ref(), exists).await?;
                // That a provider replaced it is the provider's word.
                Sight { level: if rotation.mints() { Level::Issuer } else { sight.level }, ..sight }
            }
        };
        if sight.answer != Answer::Refused {
            return Ok(sight);
        }
        let all = || rotation.recipe.users.names();
        let whose = user.filter(|_| !rotation.ends).map(|user| with_left(vec![user], rotation));
        for user in whose.unwrap_or_else(all) {
            self.count_sessions(subject, rotation, user, may_end, &mut sight).await?;
        }
        if rotation.ends && sight.answer == Answer::Refused && self.own_objects(subject, rotation).await? {
            sight.residue.push(Residue::CleanupPending);
        }
        Ok(sight)
    }

    /// Whether what the users own keeps them from being removed: a person must give that to somebody else first.
    async fn own_objects(&self, subject: &Subject, rotation: &Rotation) -> Result<bool, Failure> {
        let users = &rotation.recipe.users;
        let mut oids = Vec::new();
        for user in users.names() {
            oids.extend(self.role(subject, users, user).await?.map(|role| role.oid));
        }
        self.bounded(false, sqlx::query_scalar(OWN).bind(oids).fetch_one(&self.pool)).await
    }

    /// The old value is still stored: it is tried.
    async fn by_login(
        &self,
        subject: &Subject,
        rotation: &Rotation,
        user: &str,
        old: &Stored,
        holder: Option<&Holder<'_>>,
        exists: bool,
    ) -> Result<Sight, Failure> {
        let users = &rotation.recipe.users;
        let is_gone = self.role(subject, users, user).await?.is_none();
        if is_gone && !self.is_made_anew(subject, users, user).await? {
            return Ok(Sight::of(Answer::Refused, exists));
        }
        let login = self.log_in(user, &old.value, PURPOSE).await;
        if login == Login::In {
            return Ok(Sight::of(Answer::Accepted, exists));
        }
        if !self.is_refusal(subject, users, user, login).await? {
            return Ok(Sight::default());
        }
        let refuses = self.refuses_nobodys(subject, users, user).await?;
        let control = exists && refuses && self.lets_in_new(subject, rotation, holder).await?;
        Ok(Sight::of(Answer::Refused, control))
    }

    /// The old value is not stored any more. Still it is refused where nobody of its possible users can log in, and by
    /// whoever has another value now: a role has one password.
    async fn by_logic(
        &self,
        subject: &Subject,
        rotation: &Rotation,
        user: Option<&str>,
        holder: Option<&Holder<'_>>,
        exists: bool,
    ) -> Result<Sight, Failure> {
        let users = &rotation.recipe.users;
        let mut refuses = true;
        for user in user.map_or(users.names(), |user| vec![user]) {
            let Some(role) = self.role(subject, users, user).await? else {
                if self.is_made_anew(subject, users, user).await? {
                    return Ok(Sight::default());
                }
                continue;
            };
            if role.can_log_in {
                let later = holder.filter(|holder| holder.user == user).is_some_and(|holder| {
                    let (old, now) = (rotation.turn.old.as_ref(), holder.stored.version);
                    // What a provider calls its versions are times of its clock, which may step back.
                    old.is_some_and(|old| old.version < now || (rotation.mints() && old.version != now))
                });
                if !later || !self.lets_in(user, holder).await {
                    return Ok(Sight::default());
                }
            }
            // Two logins at most for each of two users, and only one of them can have the current value.
            refuses = refuses && self.refuses_nobodys(subject, users, user).await?;
        }
        Ok(Sight::of(Answer::Refused, exists && refuses))
    }

    /// Nothing took its place: no value that is still stored lets anybody in, and who has none of them cannot log in.
    async fn by_end(
        &self,
        subject: &Subject,
        rotation: &Rotation,
        values: &[(&str, &Stored)],
        exists: bool,
    ) -> Result<Sight, Failure> {
        let users = &rotation.recipe.users;
        let mut control = exists;
        let mut asked = false;
        for user in users.names() {
            let role = self.role(subject, users, user).await?;
            let can_log_in = match role {
                Some(role) => role.can_log_in,
                None if self.is_made_anew(subject, users, user).await? => true,
                None => continue,
            };
            let of_user: Vec<&Stored> =
                values.iter().filter(|(own, _)| *own == user).map(|(_, stored)| *stored).collect();
            if can_log_in && of_user.is_empty() {
                return Ok(Sight::default());
            }
            for stored in of_user {
                match self.log_in(user, &stored.value, PURPOSE).await {
                    Login::In => return Ok(Sight::of(Answer::Accepted, exists)),
                    login if self.is_refusal(subject, users, user, login).await? => {}
                    _ => return Ok(Sight::default()),
                }
            }
            if !std::mem::replace(&mut asked, true) {
                control = exists && self.refuses_nobodys(subject, users, user).await?;
            }
        }
        Ok(Sight::of(Answer::Refused, control))
    }

    /// What is left open. Sessions that we may end are not ended yet; others can only be reported.
    async fn count_sessions(
        &self,
        subject: &Subject,
        rotation: &Rotation,
        user: &str,
        may_end: bool,
        sight: &mut Sight,
    ) -> Result<(), Failure> {
        let users = &rotation.recipe.users;
        let role = self.role(subject, users, user).await?;
        let scope = Scope::of(rotation, user, role.as_ref());
        let Some(oid) = recorded(subject, users, user).or(role.as_ref().map(|role| role.oid)) else { return Ok(()) };
        let open = self.open(oid, scope).await?;
        if open.may_come(scope) && sight.answer == Answer::Refused {
            sight.answer = Answer::Unknown;
        }
        if open.sessions + open.unseen == 0 {
            return Ok(());
        }
        let may_end =
            may_end || self.bounded(false, sqlx::query_scalar(MAY_END).bind(oid).fetch_one(&self.pool)).await?;
        if may_end && open.sessions > 0 {
            sight.answer = Answer::Accepted;
        }
        if !sight.residue.contains(&Residue::Sessions) {
            sight.residue.push(Residue::Sessions);
        }
        Ok(())
    }

    /// Whether `login` was refused for the password's sake, or because the role cannot log in at all.
    async fn is_refusal(&self, subject: &Subject, users: &Users, user: &str, login: Login) -> Result<bool, Failure> {
        match login {
            Login::Refused => Ok(true),
            Login::Shut => self.is_shut(subject, users, user).await,
            Login::In | Login::Unclear => Ok(false),
        }
    }

    /// A control: a password that nobody knows is refused. Where everybody is let in, a refusal means something else.
    async fn refuses_nobodys(&self, subject: &Subject, users: &Users, user: &str) -> Result<bool, Failure> {
        let login = self.log_in(user, &value::nobodys()?, PURPOSE).await;
        self.is_refusal(subject, users, user, login).await
    }

    /// A control: what consumers read lets them in, where there is such a value, and its user may log in.
    async fn lets_in_new(
        &self,
        subject: &Subject,
        rotation: &Rotation,
        holder: Option<&Holder<'_>>,
    ) -> Result<bool, Failure> {
        let (Some(_), Some(holder)) = (&rotation.turn.new, holder) else { return Ok(rotation.turn.new.is_none()) };
        let role = self.role(subject, &rotation.recipe.users, holder.user).await?;
        match role {
            Some(Role { can_log_in: true, .. }) => Ok(self.lets_in(holder.user, Some(holder)).await),
            _ => Ok(true),
        }
    }

    async fn lets_in(&self, user: &str, holder: Option<&Holder<'_>>) -> bool {
        match holder.filter(|holder| holder.user == user) {
            Some(holder) => self.log_in(user, &holder.stored.value, PURPOSE).await == Login::In,
            None => false,
        }
    }
}

//! Whether the old value still opens anything. At most two wrong logins of one account in a row for each look, below what
//! blocks it (`max_password_errors`).

use secrecy::SecretString;

use super::account::Name;
use super::answers::Login;
use super::open::{Mark, Scope};
use super::session::Session;
use super::{Accounts, MariadbUsers};
use crate::case::record::{Answer, Residue};
use crate::connector::candidate::candidate;
use crate::connector::recipe::{Rotation, Stored, Which, of_store};
use crate::connector::turns::{Holder, with_left};
use crate::connector::{Failure, Subject};

/// What was seen.
pub(super) struct Sight {
    pub(super) answer: Answer,
    pub(super) control: bool,
    pub(super) residue: Vec<Residue>,
}

impl Default for Sight {
    fn default() -> Self {
        Self::of(Answer::Unknown, false)
    }
}

impl Sight {
    fn of(answer: Answer, control: bool) -> Self {
        Self { answer, control, residue: Vec::new() }
    }
}

/// How an account stands to a login from here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Door {
    /// There is none.
    Gone,
    /// It lets nobody in.
    Locked,
    /// It lets in with its password.
    Open,
    /// A login from here says nothing of it.
    Elsewhere,
}

impl MariadbUsers {
    /// Looks at the old value, and at what shows that the look can be believed.
    pub(super) async fn sight(&self, subject: &Subject) -> Result<Sight, Failure> {
        let accounts = Accounts::of(subject)?;
        let rotation = accounts.rotation;
        // A control: our own login works.
        let mut session = self.open().await?;
        if session.is_read_only {
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
                self.by_end(&mut session, &accounts, &values).await?
            }
            (Some(user), Some(old)) => self.by_login(&mut session, &accounts, user, old, holder.as_ref()).await?,
            _ => self.by_logic(&mut session, &accounts, user, holder.as_ref()).await?,
        };
        if sight.answer == Answer::Refused {
            let whose = user.filter(|_| !rotation.ends).map(|user| with_left(vec![user], rotation));
            for user in whose.unwrap_or_else(|| rotation.recipe.users.names()) {
                self.count_sessions(&mut session, rotation, accounts.named(user)?, &mut sight).await?;
            }
        }
        session.close().await;
        Ok(sight)
    }

    async fn door(&self, session: &mut Session, name: &Name) -> Result<Door, Failure> {
        let Some(account) = session.account(name).await? else { return Ok(Door::Gone) };
        if !session.reaches(&account).await? {
            return Ok(Door::Elsewhere);
        }
        Ok(if account.is_locked { Door::Locked } else { Door::Open })
    }

    /// Whether a login with `value` is let in. `None`: it cannot be said.
    async fn lets_in(&self, name: &Name, door: Door, value: &SecretString) -> Option<bool> {
        match self.log_in(name, value).await {
            // With an expired password another one can be set, and with that everything done.
            Login::In | Login::Expired => Some(true),
            Login::Refused => Some(false),
            Login::Locked | Login::Blocked if door == Door::Locked => Some(false),
            Login::Locked | Login::Blocked | Login::Unclear => None,
        }
    }

    /// A control: a password that nobody knows is refused. Where everybody is let in, a refusal means something else.
    async fn refuses_nobodys(&self, accounts: &Accounts<'_>, name: &Name, door: Door) -> bool {
        let nobodys = candidate(&accounts.rotation.recipe.password);
        self.lets_in(name, door, &nobodys).await == Some(false)
    }

    /// The old value is still stored: it is tried.
    async fn by_login(
        &self,
        session: &mut Session,
        accounts: &Accounts<'_>,
        user: &str,
        old: &Stored,
        holder: Option<&Holder<'_>>,
    ) -> Result<Sight, Failure> {
        let name = accounts.named(user)?;
        let door = self.door(session, name).await?;
        match door {
            Door::Gone => return Ok(Sight::of(Answer::Refused, true)),
            Door::Elsewhere => return Ok(Sight::default()),
            Door::Locked | Door::Open => {}
        }
        match self.lets_in(name, door, &old.value).await {
            Some(true) => return Ok(Sight::of(Answer::Accepted, true)),
            Some(false) => {}
            None => return Ok(Sight::default()),
        }
        let control =
            self.refuses_nobodys(accounts, name, door).await && self.lets_in_new(session, accounts, holder).await?;
        Ok(Sight::of(Answer::Refused, control))
    }

    /// A control: what consumers read lets them in, where there is such a value, and its user may log in.
    async fn lets_in_new(
        &self,
        session: &mut Session,
        accounts: &Accounts<'_>,
        holder: Option<&Holder<'_>>,
    ) -> Result<bool, Failure> {
        let turn = &accounts.rotation.turn;
        let (Some(_), Some(holder)) = (&turn.new, holder) else { return Ok(turn.new.is_none()) };
        let name = accounts.named(holder.user)?;
        match self.door(session, name).await? {
            Door::Open => Ok(self.log_in(name, &holder.stored.value).await == Login::In),
            Door::Gone | Door::Locked => Ok(true),
            Door::Elsewhere => Ok(false),
        }
    }

    /// The old value is not stored any more. Still it is refused where none of its possible users can log in, and by whoever
    /// has another value now: an account has one password.
    async fn by_logic(
        &self,
        session: &mut Session,
        accounts: &Accounts<'_>,
        user: Option<&str>,
        holder: Option<&Holder<'_>>,
    ) -> Result<Sight, Failure> {
        let rotation = accounts.rotation;
        let mut refuses = true;
        for user in user.map_or(rotation.recipe.users.names(), |user| vec![user]) {
            let name = accounts.named(user)?;
            let door = self.door(session, name).await?;
            match door {
                Door::Gone => continue,
                Door::Elsewhere => return Ok(Sight::default()),
                Door::Locked => {}
                Door::Open => {
                    let later = holder.filter(|holder| {
                        let old = rotation.turn.old.as_ref();
                        holder.user == user && old.is_some_and(|old| old.version < holder.stored.version)
                    });
                    let Some(later) = later else { return Ok(Sight::default()) };
                    if self.log_in(name, &later.stored.value).await != Login::In {
                        return Ok(Sight::default());
                    }
                }
            }
            refuses = refuses && self.refuses_nobodys(accounts, name, door).await;
        }
        Ok(Sight::of(Answer::Refused, refuses))
    }

    /// Nothing took its place: no value that is still stored lets anybody in, and who has none of them cannot log in.
    async fn by_end(
        &self,
        session: &mut Session,
        accounts: &Accounts<'_>,
        values: &[(&str, &Stored)],
    ) -> Result<Sight, Failure> {
        let (mut control, mut asked) = (true, false);
        for name in &accounts.all {
            let door = self.door(session, name).await?;
            let of_user: Vec<&Stored> =
                values.iter().filter(|(user, _)| *user == name.user).map(|(_, stored)| *stored).collect();
            match door {
                Door::Gone => continue,
                Door::Elsewhere => return Ok(Sight::default()),
                Door::Open if of_user.is_empty() => return Ok(Sight::default()),
                Door::Open | Door::Locked => {}
            }
            for stored in of_user {
                match self.lets_in(name, door, &stored.value).await {
                    Some(true) => return Ok(Sight::of(Answer::Accepted, true)),
                    Some(false) => {}
                    None => return Ok(Sight::default()),
                }
            }
            if !std::mem::replace(&mut asked, true) {
                control = self.refuses_nobodys(accounts, name, door).await;
            }
        }
        Ok(Sight::of(Answer::Refused, control))
    }

    /// What is left open. Sessions that we may end are not ended yet; others can only be reported.
    async fn count_sessions(
        &self,
        session: &mut Session,
        rotation: &Rotation,
        name: &Name,
        sight: &mut Sight,
    ) -> Result<(), Failure> {
        let account = session.account(name).await?;
        let scope = Scope::of(rotation, &name.user, account.as_ref(), session);
        let lacks = session.lacks().await?;
        let open = session.open_of(name, scope).await?;
        if !open.ids.is_empty() && !lacks.contains(&"CONNECTION ADMIN") {
            sight.answer = Answer::Accepted;
        }
        let is_left = !open.ids.is_empty() || open.unclear > 0 || open.anothers > 0;
        // Without this right the list shows our own sessions only; and another server's are not in it.
        let may_be_left = is_left
            || Mark::is_elsewhere(rotation, session)
            || lacks.contains(&"PROCESS")
            || session.has_others().await?;
        if may_be_left && !sight.residue.contains(&Residue::Sessions) {
            sight.residue.push(Residue::Sessions);
        }
        Ok(())
    }
}

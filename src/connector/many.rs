//! Values of which many let in at once, under one name: a role's secret_ids, the passwords of a Redis user. Which of them
//! go with a case, and which one consumers go on using. P6: only what the recipe's place holds or held, never "the others".

use secrecy::{ExposeSecret as _, SecretString};
use subtle::ConstantTimeEq as _;

use super::recipe::{Rotation, Stored, Which, of_store};
use super::{Failure, Gate};

/// Versions between the old and the new value that are looked at.
const BETWEEN: usize = 32;
/// Values that were left to end before and are tried as well: few wrong logins in a row lock a role.
const LEFT: usize = 2;
/// How often it is looked whether consumers have left the old value.
const ADOPTION_MS: i64 = 5_000;

/// Whether two values are the same. The time that it takes tells nothing of them.
pub(super) fn same(a: &SecretString, b: &SecretString) -> bool {
    a.expose_secret().as_bytes().ct_eq(b.expose_secret().as_bytes()).into()
}

/// What the store holds at the recipe's place.
///
/// # Errors
/// As [`of_store`] says.
pub(super) async fn read(rotation: &Rotation, which: Which) -> Result<Option<Stored>, Failure> {
    rotation.store.read(&rotation.recipe.place, which).await.map_err(of_store)
}

/// The value that goes. `None`: the store was not looked at yet, or has it no more.
///
/// # Errors
/// As [`read`].
pub(super) async fn old(rotation: &Rotation) -> Result<Option<Stored>, Failure> {
    match &rotation.turn.old {
        Some(old) => read(rotation, Which::Version(old.version)).await,
        None => Ok(None),
    }
}

/// What consumers go on reading: it stays.
pub(super) fn kept<'a>(rotation: &Rotation, current: Option<&'a Stored>) -> Option<&'a Stored> {
    let turn = &rotation.turn;
    let replaced = turn.new.is_some() && !rotation.ends && !(rotation.contains && turn.refuted);
    current.filter(|current| replaced && is_newer(rotation, current))
}

/// Whether `current` is another version than the one that goes.
fn is_newer(rotation: &Rotation, current: &Stored) -> bool {
    rotation.turn.old.as_ref().is_none_or(|old| old.version != current.version)
}

/// Why a value goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    /// The case is about it.
    Named,
    /// It stood at the recipe's place after that one, or was to: a candidate, or one that was replaced since.
    Superseded,
    /// Consumers read it, or did after what we know of, and it may be somebody else's: it goes only where that can be
    /// excluded.
    Foreign,
}

/// A value that goes.
pub(super) struct Going {
    pub(super) stored: Stored,
    pub(super) why: Why,
}

/// All values that go, the one that the case is about first.
///
/// # Errors
/// As [`read`].
pub(super) async fn going(rotation: &Rotation) -> Result<Vec<Going>, Failure> {
    let old = old(rotation).await?;
    let current = read(rotation, Which::Current).await?;
    let from = rotation.turn.first().unwrap_or(0);
    let to = current.as_ref().map_or(0, |current| current.version);
    let stays = kept(rotation, current.as_ref()).is_some();
    let mut all: Vec<Going> = Vec::new();
    // The same value at two places is one that goes, for the first of its reasons.
    let mut add = |stored: Option<Stored>, why: Why| {
        let Some(stored) = stored else { return };
        let is_known = all.iter().any(|one| same(&one.stored.value, &stored.value));
        let is_kept = current.as_ref().is_some_and(|current| stays && same(&current.value, &stored.value));
        if !is_known && !is_kept {
            all.push(Going { stored, why });
        }
    };
    add(old, Why::Named);
    for left in &rotation.turn.left {
        add(read(rotation, Which::Version(left.version)).await?, Why::Named);
    }
    // What we promoted followed on what we knew; what came after it somebody else wrote.
    let known = rotation.turn.new.as_ref().or(rotation.turn.old.as_ref()).map_or(0, |one| one.version);
    for version in (from + 1..to).take(BETWEEN) {
        let why = if version <= known { Why::Superseded } else { Why::Foreign };
        add(read(rotation, Which::Version(version)).await?, why);
    }
    if !stays || rotation.contains {
        add(read(rotation, Which::Candidate).await?, Why::Superseded);
    }
    if !stays {
        let is_ours = |stored: &Stored| rotation.turn.new.as_ref().is_some_and(|new| new.version == stored.version);
        // Nothing takes its place, or what we promoted did not replace the old one.
        let goes = rotation.ends || current.as_ref().is_some_and(is_ours);
        let why = if goes { Why::Named } else { Why::Foreign };
        add(read(rotation, Which::Current).await?, why);
    }
    Ok(all)
}

/// The candidate, where it is to be taken back: not what consumers read by now.
///
/// # Errors
/// As [`read`].
pub(super) async fn taken_back(rotation: &Rotation) -> Result<Option<Stored>, Failure> {
    let current = read(rotation, Which::Current).await?;
    let candidate = read(rotation, Which::Candidate).await?;
    Ok(candidate.filter(|candidate| !current.is_some_and(|current| same(&current.value, &candidate.value))))
}

/// The values to try when it is asked whether the old one is dead; and before them the new one, as a control.
///
/// # Errors
/// As [`read`].
pub(super) async fn tried(rotation: &Rotation) -> Result<(Option<Stored>, Vec<Stored>), Failure> {
    let current = read(rotation, Which::Current).await?;
    let mut tried: Vec<Stored> = old(rotation).await?.into_iter().collect();
    let newer = current.filter(|current| tried.is_empty() || is_newer(rotation, current));
    for left in rotation.turn.left.iter().rev().take(LEFT) {
        tried.extend(read(rotation, Which::Version(left.version)).await?);
    }
    if rotation.ends {
        tried.extend(newer);
        return Ok((None, tried));
    }
    Ok((newer.filter(|_| rotation.turn.new.is_some()), tried))
}

/// The system does not show who logs in with what: consumers have their time.
pub(super) fn adopted(rotation: &Rotation, now_ms: i64) -> Gate {
    let left_ms = rotation.recipe.adoption.within_ms.saturating_sub(rotation.turn.had_ms(now_ms, now_ms));
    if left_ms <= 0 {
        return Gate::Late;
    }
    Gate::Shut { again_ms: now_ms.saturating_add(left_ms.min(ADOPTION_MS)) }
}

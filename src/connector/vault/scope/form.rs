//! What of an AppRole is taken: a policy, or a part of how long what it gives lives. PURE.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::scope::{FENCE, Permission};

/// The settings that say how long what a role gives lives, in the order in which they are lowered: Vault refuses a `token_ttl` above
/// `token_max_ttl`. And the place at which each is written alone.
const SPANS: [(&str, &str); 3] =
    [("token_ttl", "token-ttl"), ("token_max_ttl", "token-max-ttl"), ("secret_id_ttl", "secret-id-ttl")];

/// From where a role lets in, and its tokens can be used; and the place at which each is written alone. An empty list means from
/// anywhere, and is written by deleting it.
const BOUNDS: [(&str, &str); 2] =
    [("secret_id_bound_cidrs", "secret-id-bound-cidrs"), ("token_bound_cidrs", "token-bound-cidrs")];

/// The fence: no packet comes from there (RFC 5737), and nobody else has a reason to write just this.
const NOWHERE: &str = "192.0.2.237/32";

/// What a fence takes beside them: that the entity behind the role counts at all.
const ENTITY: &str = "entity";

/// The entity behind a role, as far as its fence is concerned.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Behind {
    /// There is none: nobody has logged in by the role, or it was deleted.
    #[default]
    Nobody,
    /// We may not see it, or not change it.
    Hidden,
    /// There is one.
    Entity {
        /// Vault's id of it.
        id: String,
        /// It lets nobody in, and its tokens do nothing.
        disabled: bool,
        /// Nobody else logs in as it: the role's is its only alias.
        alone: bool,
    },
}

impl Behind {
    /// From the entity's `data`.
    pub fn of(data: &Value) -> Option<Self> {
        let id = data["id"].as_str()?.to_owned();
        let alone = data["aliases"].as_array()?.len() == 1;
        Some(Self::Entity { id, disabled: data["disabled"].as_bool()?, alone })
    }

    /// The entity that a fence closes: one that is open, and of the role alone. Whoever else logs in as it may stay.
    pub fn closes(&self) -> Option<&str> {
        match self {
            Self::Entity { id, disabled: false, alone: true } => Some(id),
            _ => None,
        }
    }

    /// Whether it goes on beside a fence.
    pub fn is_open(&self) -> bool {
        matches!(self, Self::Hidden | Self::Entity { disabled: false, .. })
    }
}

/// A permission of an AppRole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Named<'a> {
    /// `policy:<name>`; `default` is everybody's, and given by another setting.
    Policy(&'a str),
    /// `lifetime:<setting>=<seconds>`: all beyond that goes. Which of [`SPANS`], and the seconds.
    Lifetime(usize, u64),
    /// `fence:<setting>`: from where it is let in, or its tokens are. Which of [`BOUNDS`].
    Bound(usize),
    /// `fence:entity`: that the entity behind it is enabled.
    Entity,
}

impl<'a> Named<'a> {
    /// Reads it. `None`: no permission of an AppRole.
    pub fn of(permission: &'a Permission) -> Option<Self> {
        match permission.parts() {
            ("policy", name) if !matches!(name, "default" | "root") => Some(Self::Policy(name)),
            ("lifetime", what) => {
                let (setting, seconds) = what.split_once('=')?;
                let at = SPANS.iter().position(|(name, _)| *name == setting)?;
                let seconds = seconds.parse().ok().filter(|seconds| *seconds > 0)?;
                Some(Self::Lifetime(at, seconds))
            }
            (FENCE, ENTITY) => Some(Self::Entity),
            (FENCE, what) => BOUNDS.iter().position(|(name, _)| *name == what).map(Self::Bound),
            _ => None,
        }
    }
}

/// How a role was given it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Form {
    /// The digest of its role_id.
    pub role: String,
    /// Of a lifetime: the seconds; 0: as long as the mount allows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<u64>,
    /// Of a fence: from where it was let in before; none: from anywhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cidrs: Option<Vec<String>>,
    /// Of a fence: the id of the entity that was enabled before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entity: Option<String>,
}

/// Whether two lists name the same addresses in the same order. Vault leaves out that one address is one.
fn same(a: &[String], b: &[String]) -> bool {
    let plain = |one: &String| one.strip_suffix("/32").or_else(|| one.strip_suffix("/128")).unwrap_or(one).to_owned();
    a.iter().map(plain).eq(b.iter().map(plain))
}

/// A role's settings, as Vault has them.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Its own policies. Their order means nothing: Vault sorts what is written to the list alone.
    pub policies: Vec<String>,
    /// Seconds of each of [`SPANS`].
    spans: [u64; SPANS.len()],
    /// The lists of [`BOUNDS`].
    bounds: [Vec<String>; BOUNDS.len()],
    /// Who stands behind it, where that was asked.
    pub behind: Behind,
    /// All others.
    rest: Value,
}

impl Settings {
    /// From the role's `data`.
    pub fn of(mut data: Value) -> Self {
        let words = |value: &Value| -> Vec<String> {
            value.as_array().into_iter().flatten().filter_map(|word| Some(word.as_str()?.to_owned())).collect()
        };
        let mut policies = words(&data["token_policies"]);
        // An older name of the same list.
        policies.extend(words(&data["policies"]).into_iter().filter(|one| !policies.contains(one)).collect::<Vec<_>>());
        let spans = SPANS.map(|(name, _)| data[name].as_u64().unwrap_or(0));
        let bounds = BOUNDS.map(|(name, _)| words(&data[name]));
        if let Some(data) = data.as_object_mut() {
            for name in ["token_policies", "policies"].into_iter().chain(SPANS.map(|(name, _)| name)) {
                data.remove(name);
            }
        }
        Self { policies, spans, bounds, behind: Behind::default(), rest: data }
    }

    /// Whether the role, known by this digest, has it, and how; of a lifetime the seconds that it has beyond. What a fence of
    /// ours takes it has as long as that does not stand.
    pub fn held(&self, named: Named<'_>, role: &str) -> Option<Form> {
        let form = Form { role: role.to_owned(), seconds: None, cidrs: None, entity: None };
        match named {
            Named::Policy(name) => self.policies.iter().any(|one| one == name).then_some(form),
            Named::Lifetime(at, most) => {
                let has = self.spans[at];
                (has == 0 || has > most).then_some(Form { seconds: Some(has), ..form })
            }
            Named::Bound(at) => (!self.is_fenced(at)).then(|| Form { cidrs: Some(self.bounds[at].clone()), ..form }),
            Named::Entity => self.behind.closes().map(|id| Form { entity: Some(id.to_owned()), ..form }),
        }
    }

    /// Whether it was given back as it was recorded.
    pub fn has(&self, named: Named<'_>, form: &Form) -> bool {
        match (named, &form.cidrs) {
            (Named::Bound(at), Some(cidrs)) => same(cidrs, &self.bounds[at]),
            // One that was deleted meanwhile has nothing to be given back.
            (Named::Entity, _) => self.entity_write(form, true).is_none(),
            _ => self.held(named, &form.role).is_some_and(|held| held.seconds == form.seconds),
        }
    }

    fn is_fenced(&self, at: usize) -> bool {
        same(&self.bounds[at], &[NOWHERE.to_owned()])
    }

    /// Whether a fence of ours keeps everybody out, whichever secret_id he has.
    pub fn is_shut(&self) -> bool {
        (0..BOUNDS.len()).any(|at| self.is_fenced(at))
    }

    /// Whether all of the fence stands that is named.
    pub fn stands(&self, owed: &[(Named<'_>, Form)]) -> bool {
        owed.iter().all(|(named, form)| match named {
            Named::Bound(at) => self.is_fenced(*at),
            Named::Entity => self.entity_write(form, false).is_none(),
            Named::Policy(_) | Named::Lifetime(..) => true,
        })
    }

    /// The entity that was recorded, where it is to be written so that the fence takes it, or gives it back. Somebody else may have
    /// become it since, or enabled it: then it is left as it is.
    pub fn entity_write<'a>(&self, form: &'a Form, gives: bool) -> Option<&'a str> {
        let recorded = form.entity.as_deref()?;
        match &self.behind {
            Behind::Entity { id, disabled: true, .. } if gives && id == recorded => Some(recorded),
            behind if !gives && behind.closes() == Some(recorded) => Some(recorded),
            _ => None,
        }
    }

    /// Whether somebody has written something else in the place of a fence, or of what it was to be put in the place of.
    pub fn is_changed(&self, owed: &[(Named<'_>, Form)]) -> bool {
        owed.iter().any(|(named, form)| {
            let Named::Bound(at) = named else { return false };
            !self.is_fenced(*at) && form.cidrs.as_ref().is_none_or(|cidrs| !same(cidrs, &self.bounds[*at]))
        })
    }

    /// Why Vault, or sense, does not let it be taken. Nothing is written then.
    pub fn refuses(&self, owed: &[(Named<'_>, Form)]) -> Option<&'static str> {
        let mut spans = self.spans;
        for (named, _) in owed {
            if let Named::Lifetime(at, most) = named {
                spans[*at] = *most;
            }
        }
        let of_tokens = owed.iter().any(|(named, _)| matches!(named, Named::Lifetime(0 | 1, _)));
        let [ttl, most, _] = spans;
        if of_tokens && self.rest["token_period"].as_u64().is_some_and(|period| period > 0) {
            return Some("its tokens are periodic: they are renewed for ever, whatever their lifetime is");
        }
        (of_tokens && most > 0 && ttl > most).then_some("token_ttl would be above token_max_ttl: name both")
    }

    /// All that is not named, in lines.
    pub fn rest(&self, named: &[Named<'_>]) -> Vec<String> {
        let policies = self.policies.iter().filter(|one| !named.contains(&Named::Policy(one))).cloned();
        let mut lines: Vec<String> = policies.collect();
        lines.sort_unstable();
        for (at, (name, _)) in SPANS.iter().enumerate() {
            if !named.iter().any(|one| matches!(one, Named::Lifetime(of, _) if *of == at)) {
                lines.push(format!("{name}={}", self.spans[at]));
            }
        }
        let mut rest = self.rest.clone();
        for one in named {
            if let (Named::Bound(at), Some(rest)) = (one, rest.as_object_mut()) {
                rest.remove(BOUNDS[*at].0);
            }
        }
        lines.push(rest.to_string());
        lines
    }

    /// How many policies stay.
    pub fn others(&self, named: &[Named<'_>]) -> usize {
        self.policies.iter().filter(|one| !named.contains(&Named::Policy(one))).count()
    }
}

/// Whether one lifetime is named more than once: which was meant could not be told.
pub fn names_twice(named: &[Named<'_>]) -> bool {
    let of = |one: &Named<'_>| if let Named::Lifetime(at, _) = one { Some(*at) } else { None };
    let mut spans: Vec<usize> = named.iter().filter_map(of).collect();
    let all = spans.len();
    spans.sort_unstable();
    spans.dedup();
    spans.len() < all
}

/// One write: the place below the role, and the body. `None`: what is there is deleted.
pub type Write = (&'static str, Option<Value>);

/// The writes that take what is owed, or give it again: each place once, in an order that Vault takes.
pub fn writes(now: &Settings, owed: &[(Named<'_>, Form)], gives: bool) -> Vec<Write> {
    let mut writes = Vec::new();
    let mut policies = now.policies.clone();
    for (named, _) in owed {
        if let Named::Policy(name) = named {
            policies.retain(|one| one != name);
            if gives {
                policies.push((*name).to_owned());
            }
        }
    }
    if policies.len() != now.policies.len() {
        writes.push(("policies", Some(json!({ "token_policies": policies }))));
    }
    let mut spans: Vec<(usize, u64)> = Vec::new();
    for (named, form) in owed {
        let Named::Lifetime(at, most) = named else { continue };
        let wanted = if gives { form.seconds.unwrap_or(*most) } else { *most };
        if now.spans[*at] != wanted {
            spans.push((*at, wanted));
        }
    }
    spans.sort_unstable();
    if gives {
        spans.reverse();
    }
    writes.extend(spans.into_iter().map(|(at, seconds)| {
        let (name, place) = SPANS[at];
        (place, Some(json!({ name: seconds })))
    }));
    for (named, form) in owed {
        let Named::Bound(at) = named else { continue };
        let nowhere = [NOWHERE.to_owned()];
        let wanted = if gives { form.cidrs.as_deref().unwrap_or_default() } else { &nowhere };
        if !same(&now.bounds[*at], wanted) {
            let (name, place) = BOUNDS[*at];
            writes.push((place, (!wanted.is_empty()).then(|| json!({ name: wanted }))));
        }
    }
    writes
}

#[cfg(test)]
mod tests;

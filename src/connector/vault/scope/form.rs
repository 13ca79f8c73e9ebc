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

/// A permission of an AppRole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Named<'a> {
    /// `policy:<name>`; `default` is everybody's, and given by another setting.
    Policy(&'a str),
    /// `lifetime:<setting>=<seconds>`: all beyond that goes. Which of [`SPANS`], and the seconds.
    Lifetime(usize, u64),
    /// `fence:<setting>`: from where it is let in, or its tokens are. Which of [`BOUNDS`].
    Bound(usize),
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
        Self { policies, spans, bounds, rest: data }
    }

    /// Whether the role, known by this digest, has it, and how; of a lifetime the seconds that it has beyond. What a fence of
    /// ours takes it has as long as that does not stand.
    pub fn held(&self, named: Named<'_>, role: &str) -> Option<Form> {
        let form = |seconds, cidrs| Form { role: role.to_owned(), seconds, cidrs };
        match named {
            Named::Policy(name) => self.policies.iter().any(|one| one == name).then(|| form(None, None)),
            Named::Lifetime(at, most) => {
                let has = self.spans[at];
                (has == 0 || has > most).then(|| form(Some(has), None))
            }
            Named::Bound(at) => (!self.is_fenced(at)).then(|| form(None, Some(self.bounds[at].clone()))),
        }
    }

    /// Whether it was given back as it was recorded.
    pub fn has(&self, named: Named<'_>, form: &Form) -> bool {
        match (named, &form.cidrs) {
            (Named::Bound(at), Some(cidrs)) => same(cidrs, &self.bounds[at]),
            _ => self.held(named, &form.role).is_some_and(|held| held.seconds == form.seconds),
        }
    }

    fn is_fenced(&self, at: usize) -> bool {
        same(&self.bounds[at], &[NOWHERE.to_owned()])
    }

    /// Whether all of the fence stands that is named.
    pub fn stands(&self, owed: &[(Named<'_>, Form)]) -> bool {
        owed.iter().all(|(named, _)| !matches!(named, Named::Bound(at) if !self.is_fenced(*at)))
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
mod tests {
    use super::*;

    fn settings() -> Settings {
        Settings::of(json!({"token_policies": ["b", "a"], "token_ttl": 1200, "token_max_ttl": 0, "secret_id_ttl": 60,
            "bind_secret_id": true}))
    }

    #[test]
    fn what_is_beyond_is_taken_and_given_again_in_an_order_that_vault_takes() {
        let now = settings();
        let all: Vec<Permission> =
            ["lifetime:token_max_ttl=600", "lifetime:token_ttl=600", "policy:b", "lifetime:secret_id_ttl=60"]
                .iter()
                .map(|text| Permission::parse(text).unwrap())
                .collect();
        let named: Vec<Named<'_>> = all.iter().map(|one| Named::of(one).unwrap()).collect();
        let held: Vec<Option<Form>> = named.iter().map(|one| now.held(*one, "r")).collect();
        let seconds: Vec<Option<Option<u64>>> = held.iter().map(|one| one.as_ref().map(|one| one.seconds)).collect();
        assert_eq!(seconds, [Some(Some(0)), Some(Some(1200)), Some(None), None], "60 s are not beyond 60 s");
        let owed: Vec<(Named<'_>, Form)> =
            named.iter().zip(held).filter_map(|(one, held)| Some((*one, held?))).collect();
        assert_eq!(
            writes(&now, &owed, false),
            [
                ("policies", Some(json!({"token_policies": ["a"]}))),
                ("token-ttl", Some(json!({"token_ttl": 600}))),
                ("token-max-ttl", Some(json!({"token_max_ttl": 600}))),
            ]
        );
        assert_eq!(now.rest(&named), ["a", "{\"bind_secret_id\":true}"]);
        assert_eq!(now.others(&named), 1);
        let less = Settings::of(json!({"token_policies": ["a"], "token_ttl": 600, "token_max_ttl": 600}));
        assert_eq!(
            writes(&less, &owed, true),
            [
                ("policies", Some(json!({"token_policies": ["a", "b"]}))),
                ("token-max-ttl", Some(json!({"token_max_ttl": 0}))),
                ("token-ttl", Some(json!({"token_ttl": 1200}))),
            ]
        );
        assert!(writes(&now, &owed, true).is_empty(), "already so");
    }

    #[test]
    fn what_vault_would_refuse_half_way_is_refused_before_anything_is_written() {
        let owed = |text: &'static str| {
            let permission = Permission::parse(text).unwrap();
            let Some(Named::Lifetime(at, most)) = Named::of(&permission) else { panic!("{text}") };
            (Named::Lifetime(at, most), Form { role: "r".into(), seconds: Some(0), cidrs: None })
        };
        assert!(settings().refuses(&[owed("lifetime:token_max_ttl=600")]).is_some(), "its ttl is 1200");
        assert!(settings().refuses(&[owed("lifetime:token_max_ttl=600"), owed("lifetime:token_ttl=60")]).is_none());
        let periodic = Settings::of(json!({"token_period": 60}));
        assert!(periodic.refuses(&[owed("lifetime:token_ttl=60")]).is_some());
        assert!(periodic.refuses(&[owed("lifetime:secret_id_ttl=60")]).is_none());
        assert!(names_twice(&[Named::Lifetime(0, 1), Named::Policy("a"), Named::Lifetime(0, 2)]));
        assert!(!names_twice(&[Named::Lifetime(0, 1), Named::Policy("a"), Named::Lifetime(1, 2)]));
    }

    /// A role as it is before, fenced, and given back; and what each of that takes to write.
    #[test]
    fn a_fence_is_put_in_the_place_of_what_was_there_and_taken_off_only_where_it_stands() {
        let role = |secret_id: Value, token: Value| {
            Settings::of(
                json!({"secret_id_bound_cidrs": secret_id, "token_bound_cidrs": token, "bind_secret_id": true}),
            )
        };
        let fence = crate::scope::Cut::fence(crate::credential::Kind::VaultApprole, 1).unwrap();
        let named: Vec<Named<'_>> = fence.permissions.iter().map(|one| Named::of(one).unwrap()).collect();
        let held = |of: &Settings| -> Vec<(Named<'_>, Form)> {
            named.iter().filter_map(|one| Some((*one, of.held(*one, "r")?))).collect()
        };
        let before = role(json!(["10.0.0.0/8", "10.9.8.7/32"]), Value::Null);
        let owed = held(&before);
        assert_eq!(owed.len(), 2);
        let both = [
            ("secret-id-bound-cidrs", Some(json!({"secret_id_bound_cidrs": [NOWHERE]}))),
            ("token-bound-cidrs", Some(json!({"token_bound_cidrs": [NOWHERE]}))),
        ];
        assert_eq!(writes(&before, &owed, false), both);
        assert!(!before.stands(&owed) && !before.is_changed(&owed));
        // Vault writes one address without its length, and an empty list as none.
        let fenced = role(json!([NOWHERE]), json!(["192.0.2.237"]));
        assert!(fenced.stands(&owed) && !fenced.is_changed(&owed));
        assert_eq!(held(&fenced), [], "our own fence is not what there was before");
        assert!(writes(&fenced, &owed, false).is_empty(), "already so");
        assert_eq!(
            writes(&fenced, &owed, true),
            [
                ("secret-id-bound-cidrs", Some(json!({"secret_id_bound_cidrs": ["10.0.0.0/8", "10.9.8.7/32"]}))),
                ("token-bound-cidrs", None),
            ]
        );
        let half = role(json!([NOWHERE]), json!([]));
        assert!(!half.stands(&owed) && !half.is_changed(&owed), "what came of a kill between the two");
        assert_eq!(writes(&half, &owed, false).len(), 1);
        assert!(writes(&before, &owed, true).is_empty(), "given back already");
        for other in [json!(["10.0.0.0/8"]), json!([NOWHERE, "10.0.0.0/8"]), json!([])] {
            assert!(role(other.clone(), json!([NOWHERE])).is_changed(&owed), "somebody's own: {other}");
        }
        assert_eq!(before.rest(&named), fenced.rest(&named), "all else is as it was");
        assert_ne!(before.rest(&[]), fenced.rest(&[]), "and who names no fence sees that it was set");
    }

    #[test]
    fn what_is_no_permission_of_an_approle_is_none() {
        for text in [
            "fence:bind_secret_id",
            "policy:default",
            "member:x",
            "lifetime:token_ttl",
            "lifetime:token_ttl=0",
            "lifetime:period=60",
        ] {
            assert_eq!(Named::of(&Permission::parse(text).unwrap()), None, "{text}");
        }
    }
}

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
    let owed: Vec<(Named<'_>, Form)> = named.iter().zip(held).filter_map(|(one, held)| Some((*one, held?))).collect();
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
        (Named::Lifetime(at, most), Form { role: "r".into(), seconds: Some(0), cidrs: None, entity: None })
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
        Settings::of(json!({"secret_id_bound_cidrs": secret_id, "token_bound_cidrs": token, "bind_secret_id": true}))
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
    assert!(fenced.is_shut() && !before.is_shut() && !role(Value::Null, json!(["192.0.2.0/24"])).is_shut());
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

fn with(behind: Behind) -> Settings {
    let fenced = json!({"secret_id_bound_cidrs": [NOWHERE], "token_bound_cidrs": [NOWHERE]});
    Settings { behind, ..Settings::of(fenced) }
}

fn entity(id: &str, disabled: bool, aliases: usize) -> Behind {
    let aliases: Vec<Value> = (0..aliases).map(|no| json!({ "name": no.to_string() })).collect();
    Behind::of(&json!({"id": id, "disabled": disabled, "aliases": aliases})).unwrap()
}

#[test]
fn only_an_entity_that_is_the_role_s_alone_is_closed_and_only_that_one_is_opened_again() {
    let open = with(entity("e", false, 1));
    let form = open.held(Named::Entity, "r").unwrap();
    assert_eq!(form.entity.as_deref(), Some("e"));
    assert_eq!(serde_json::to_string(&form).unwrap(), r#"{"role":"r","entity":"e"}"#);
    let owed = [(Named::Entity, form.clone())];
    assert_eq!((open.entity_write(&form, false), open.stands(&owed)), (Some("e"), false));
    let closed = with(entity("e", true, 1));
    assert_eq!((closed.entity_write(&form, false), closed.stands(&owed)), (None, true));
    assert_eq!((closed.entity_write(&form, true), closed.has(Named::Entity, &form)), (Some("e"), false));
    assert!(open.has(Named::Entity, &form), "enabled by somebody: it is as it was before");
    // What was disabled before, or is of others as well, is not ours to change: neither now nor at its end.
    for (other, is_open) in [
        (entity("e", true, 1), false),
        (entity("e", false, 2), true),
        (entity("e", false, 0), true),
        (Behind::Hidden, true),
        (Behind::Nobody, false),
    ] {
        let settings = with(other.clone());
        assert_eq!((settings.held(Named::Entity, "r"), other.is_open()), (None, is_open), "{other:?}");
        assert_eq!(settings.entity_write(&form, false), None, "somebody has become it since: {other:?}");
    }
    // Another one stands behind the role by now, or none.
    for other in [entity("f", true, 1), entity("f", false, 1), Behind::Nobody] {
        let settings = with(other.clone());
        assert_eq!((settings.entity_write(&form, false), settings.entity_write(&form, true)), (None, None));
        assert!(settings.has(Named::Entity, &form) && settings.stands(&owed), "{other:?}");
    }
    // With others it is opened again all the same: it was we who closed it.
    assert_eq!(with(entity("e", true, 2)).entity_write(&form, true), Some("e"));
    assert_eq!(Behind::of(&json!({"id": "e"})), None, "no answer to build on");
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

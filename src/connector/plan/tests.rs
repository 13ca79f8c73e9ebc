use super::*;
use crate::case::{Directive, Trigger, Urgency};
use std::sync::Arc;

use crate::connector::recipe::{Adoption, Keeper, PasswordRules, Place, Share, Users};
use crate::credential::CredentialId;
use crate::scope::{Permission, permissions};

const TARGET: At<'_> = ("postgres-role", "appdb");
const STORE: At<'_> = ("aws-rotated-secret", "aws");

fn recipe(users: Users, consumers: &[&str]) -> Recipe {
    Recipe {
        name: "app".to_owned(),
        credential: CredentialId::new(Kind::PostgresRole, "appdb", &users.names().join(",")).unwrap(),
        place: Place {
            keeper: Keeper::AwsRotated,
            realm: "aws".to_owned(),
            mount: "secretsmanager".to_owned(),
            path: "prod/app".to_owned(),
            field: "password".to_owned(),
            user_field: Some("username".to_owned()),
        },
        copies: Vec::new(),
        webhooks: Vec::new(),
        users,
        password: PasswordRules::default(),
        adoption: Adoption {
            consumers: consumers.iter().map(|one| (*one).to_owned()).collect(),
            ..Adoption::default()
        },
        environment: None,
        owner: None,
        max_age_ms: None,
        shares: Vec::new(),
    }
}

fn state(recipe: &Recipe) -> State {
    State::opened(&Directive {
        credential: recipe.credential.clone(),
        action: Action::Rollover,
        trigger: Trigger::Finding,
        urgency: Urgency::Urgent,
        held: None,
        run: None,
        end_ms: None,
        broker_ms: 0,
        topic: "t".into(),
        grantors: Vec::new(),
        finding: None,
        generation: None,
        not_before_ms: None,
        cut: None,
    })
}

/// What is done, in order: `store` where the store does it.
fn acts(action: Action, recipe: &Recipe, state: &State) -> Vec<String> {
    let parts = Parts {
        kind: Kind::PostgresRole,
        issuer: TARGET,
        target: None,
        recipe: Some((recipe, STORE)),
        scope: None,
        moves: None,
        fence: None,
        cut_roles: None,
    };
    let plan = compose(action, parts, state).unwrap();
    assert!(plan.is_sound());
    let named = |step: &Step| format!("{}{}", if step.connector == STORE.0 { "store " } else { "" }, step.act.as_str());
    plan.steps.iter().map(named).collect()
}

const LOOKS: [&str; 2] = ["observe", "store observe"];
const ASKS: [&str; 4] = ["store begin", "store test", "store mint", "test"];
const ENDS: [&str; 3] = ["end_sessions", "prove", "store destroy"];

#[test]
fn aws_rotates_one_user_once_and_two_twice() {
    let one = recipe(Users::One("a".to_owned()), &[]);
    assert_eq!(acts(Action::Contain, &one, &state(&one)), [&LOOKS[..], &ASKS, &ENDS].concat());
    let two = recipe(Users::Two("a".to_owned(), "b".to_owned()), &["web"]);
    let twice = [&LOOKS[..], &ASKS, &ASKS, &ENDS].concat();
    assert_eq!(acts(Action::Contain, &two, &state(&two)), twice, "nobody is shut out before");
    let waits = [&LOOKS[..], &ASKS, &["adopt"], &ASKS, &ENDS].concat();
    assert_eq!(acts(Action::Rollover, &two, &state(&two)), waits);
}

#[test]
fn a_containment_makes_what_is_left_of_two_rotations() {
    let two = recipe(Users::Two("a".to_owned(), "b".to_owned()), &["web"]);
    let of = |version, user: &str| Some(Generation { version, user: Some(user.to_owned()) });
    let mut after = state(&two);
    (after.turn.old, after.turn.new) = (of(1, "a"), of(2, "b"));
    assert_eq!(acts(Action::Contain, &two, &after), [&LOOKS[..], &ASKS, &ENDS].concat(), "the leaked user's turn");
    after.turn.new = of(3, "a");
    assert_eq!(acts(Action::Contain, &two, &after), [&LOOKS[..], &ENDS].concat(), "it has come");
    after.turn.refuted = true;
    assert_eq!(acts(Action::Contain, &two, &after), [&LOOKS[..], &ASKS, &ASKS, &ENDS].concat());
}

#[test]
fn what_aws_gave_the_target_is_not_taken_back_by_us() {
    let one = recipe(Users::One("a".to_owned()), &[]);
    let mut spent = state(&one);
    spent.plan = Some(Plan { steps: Vec::new(), pivot: 0, undoes: false });
    spent.turn.rejected = crate::case::turn::Turn::CANDIDATES;
    assert_eq!(acts(Action::Contain, &one, &spent), ["store discard"]);
}

fn of_key(cut_roles: &[String]) -> Parts<'_> {
    let issuer = ("aws-access-key", "aws");
    Parts {
        kind: Kind::AwsAccessKey,
        issuer,
        target: None,
        recipe: None,
        scope: None,
        moves: None,
        fence: None,
        cut_roles: Some(cut_roles),
    }
}

/// Acts, with the place where it has one.
fn placed(plan: &Plan) -> Vec<String> {
    let place = |step: &Step| step.place.as_ref().map(|place| format!(" {place}")).unwrap_or_default();
    plan.steps.iter().map(|step| format!("{}{}", step.act.as_str(), place(step))).collect()
}

#[test]
fn what_a_key_s_user_may_have_become_is_looked_at_and_only_named_roles_are_cut() {
    let any = state(&recipe(Users::One("a".to_owned()), &[]));
    let of = |action, roles: &[String]| placed(&compose(action, of_key(roles), &any).unwrap());
    assert_eq!(of(Action::Revoke, &[]), ["observe", "disable", "end_sessions", "observe roles", "prove"]);
    let roles = ["r1".to_owned(), "r2".to_owned()];
    let cuts =
        ["observe", "disable", "end_sessions", "observe roles", "revoke_derived r1", "revoke_derived r2", "prove"];
    assert_eq!(of(Action::Revoke, &roles), cuts, "the key first");
    let lifts = ["observe", "observe r1", "observe r2", "lift", "lift r1", "lift r2", "prove"];
    assert_eq!(of(Action::Verify, &roles), lifts);
    let plan = compose(Action::Revoke, of_key(&roles), &any).unwrap();
    assert!(plan.is_sound() && plan.steps[2..6].iter().all(|step| step.optional), "none of it keeps the key alive");
    assert_eq!(residue_of(&plan.steps[3]), Some(Residue::DerivedUnknown));
    assert_eq!(residue_of(&plan.steps[4]), Some(Residue::Derived));
    let verify = compose(Action::Verify, of_key(&roles), &any).unwrap();
    assert_eq!(residue_of(&verify.steps[1]), None);
}

#[test]
fn a_contained_key_s_roles_are_cut_before_another_key_is_made_and_a_rolled_over_one_s_are_not() {
    let roles = ["r1".to_owned()];
    let mut stored = recipe(Users::Keys("ci/bot".to_owned()), &[]);
    stored.place.keeper = Keeper::Kv;
    let any = state(&stored);
    let issuer = ("aws-user", "aws");
    let recipe = Some((&stored, STORE));
    let parts = Parts {
        kind: Kind::AwsUser,
        issuer,
        target: None,
        recipe,
        scope: None,
        moves: None,
        fence: None,
        cut_roles: Some(&roles),
    };
    let of = |action| placed(&compose(action, parts, &any).unwrap());
    let cuts = ["disable", "end_sessions", "observe roles", "revoke_derived r1"].map(str::to_owned);
    for action in [Action::Contain, Action::Revoke] {
        let acts = of(action);
        assert!(acts.windows(4).any(|some| some == cuts), "{acts:?}");
        let at = |act: &str| acts.iter().position(|one| one == act);
        assert!(at("create").is_none_or(|create| Some(create) > at("revoke_derived r1")), "{acts:?}");
    }
    assert!(!of(Action::Rollover).iter().any(|act| act.contains("r1") || act.contains("roles")));
}

#[test]
fn who_has_the_new_value_and_had_one_that_goes_is_thrown_out_again_unless_its_keys_are_several() {
    let ended = |users: Users| {
        let mut stored = recipe(users, &[]);
        stored.place.keeper = Keeper::Kv;
        let mut leaked = state(&stored);
        leaked.turn.left = vec![Generation { version: 1, user: Some("a".to_owned()) }];
        let made = acts(Action::Contain, &stored, &leaked);
        made.iter().filter(|act| act.contains("end_sessions")).count()
    };
    assert_eq!(ended(Users::Two("a".to_owned(), "b".to_owned())), 2);
    // It would end what consumers have opened with the new key.
    assert_eq!(ended(Users::Keys("ci/bot".to_owned())), 1);
}

#[test]
fn a_look_at_a_dead_access_key_takes_its_policy_off() {
    let parts = of_key(&[]);
    let any = state(&recipe(Users::One("a".to_owned()), &[]));
    let plan = compose(Action::Verify, parts, &any).unwrap();
    let acts: Vec<&str> = plan.steps.iter().map(|step| step.act.as_str()).collect();
    assert_eq!(acts, ["observe", "lift", "prove"]);
    assert!(plan.steps[1].optional && plan.is_sound());
}

#[test]
fn a_reduction_is_compared_before_it_is_proven_and_undone_by_what_it_took() {
    let parts = Parts {
        kind: Kind::PostgresRole,
        issuer: ("postgres-scope", "appdb"),
        target: None,
        recipe: None,
        scope: Some(("postgres-scope", "appdb")),
        moves: None,
        fence: None,
        cut_roles: None,
    };
    let mut state = state(&recipe(Users::One("etl".to_owned()), &[]));
    let acts = |plan: &Plan| plan.steps.iter().map(|step| step.act).collect::<Vec<_>>();
    let taking = compose(Action::Reduce, parts, &state).unwrap();
    assert_eq!(acts(&taking), [Act::Observe, Act::Narrow, Act::Test, Act::Prove]);
    assert!(taking.is_sound());
    let giving = compose(Action::Restore, parts, &state).unwrap();
    assert_eq!(acts(&giving), [Act::Observe, Act::Widen, Act::Test, Act::Prove]);
    assert!(giving.is_sound());
    state.plan = Some(taking);
    state.turn.rejected = crate::case::turn::Turn::CANDIDATES;
    let undoing = compose(Action::Reduce, parts, &state).unwrap();
    assert_eq!((acts(&undoing), undoing.undoes), (vec![Act::Widen], true));
    assert!(undoing.is_sound());
    assert!(compose(Action::Reduce, Parts { scope: None, ..parts }, &state).is_none(), "nobody takes it there");
}

fn parts(recipe: &Recipe) -> Parts<'_> {
    Parts {
        kind: Kind::PostgresRole,
        issuer: TARGET,
        target: None,
        recipe: Some((recipe, ("vault-kv", "aws"))),
        scope: Some(("postgres-scope", "appdb")),
        moves: None,
        fence: None,
        cut_roles: None,
    }
}

/// Who is named is moved as by a split, with no more than it may; nothing else happens to what is shared.
#[test]
fn a_split_of_some_moves_these_and_ends_nothing() {
    let own = |name: &str| {
        let mut own = recipe(Users::One(name.to_owned()), &[]);
        (own.place.keeper, own.place.path) = (Keeper::Kv, format!("agents/{name}"));
        own
    };
    let mut shared = own("agents");
    let needs = |names: &[&str]| permissions(names).unwrap();
    let share = |name: &str, needs| Arc::new(Share::new(name, "agents", &own(name), needs).unwrap());
    shared.shares = vec![share("a", None), share("b", Some(needs(&["member:x", "member:y"]))), share("c", None)];
    let one = |agent: &str, at_most: Option<&[&str]>| Move { agent: agent.into(), at_most: at_most.map(needs) };
    let plan = |moves: &[Move]| compose(Action::Split, Parts { moves: Some(moves), ..parts(&shared) }, &state(&shared));
    let made = plan(&[one("b", None), one("nobody", None)]).unwrap();
    assert!(made.is_sound() && made.pivot + 1 == made.steps.len());
    let acts: Vec<Act> = made.steps.iter().map(|step| step.act).collect();
    use Act as A;
    let moves = [A::Observe, A::Provision, A::Observe, A::Create, A::Set, A::Test, A::Promote, A::Adopt, A::Destroy];
    assert_eq!(acts, [&[A::Observe][..], &moves, &[A::Prove]].concat());
    assert!(made.steps.iter().all(|step| step.agent.as_ref().is_none_or(|agent| agent.name == "b")));
    assert_eq!(made.steps.last().unwrap().connector, "postgres-scope", "asked is what it may");
    assert_eq!(plan(&[one("nobody", None)]), None);
    // What the configuration says that it needs, and what its task is for, have nothing in common.
    assert_eq!(plan(&[one("b", Some(&["member:z"]))]), None);
    let of = |moves: &[Move]| shared.shares_of(Some(moves)).into_iter().map(|one| (one.needs.clone(), one.is_bound));
    let got: Vec<_> = of(&[one("a", Some(&["member:x"])), one("b", Some(&["member:x"])), one("c", None)]).collect();
    assert_eq!(got, [(Some(needs(&["member:x"])), true), (Some(needs(&["member:x"])), false), (None, false)]);
}

/// Of a split: each agent's steps in their order, then those of what they share.
#[test]
fn a_split_moves_one_after_another_and_then_ends_what_they_shared() {
    let mut shared = recipe(Users::One("agents".into()), &[]);
    shared.place.keeper = Keeper::Kv;
    let own = |name: &str| {
        let mut own = recipe(Users::One(name.to_owned()), &[]);
        own.place.keeper = Keeper::Kv;
        own.place.path = format!("agents/{name}");
        own
    };
    assert_eq!(compose(Action::Split, parts(&shared), &state(&shared)), None, "nobody is named who shares it");
    let share = |name: &str| Arc::new(Share::new(name, "agents", &own(name), None).unwrap());
    shared.shares = vec![share("a"), share("b")];
    assert_eq!(compose(Action::Split, Parts { scope: None, ..parts(&shared) }, &state(&shared)), None);
    let plan = compose(Action::Split, parts(&shared), &state(&shared)).unwrap();
    assert!(plan.is_sound());
    let said: Vec<String> = plan
        .steps
        .iter()
        .map(|step| {
            let agent = step.agent.as_ref().map(|agent| format!("{} ", agent.user)).unwrap_or_default();
            format!("{agent}{}@{}", step.act.as_str(), step.connector)
        })
        .collect();
    let moves = |name: &str| {
        [
            "observe@vault-kv",
            "provision@postgres-scope",
            "observe@postgres-role",
            "create@vault-kv",
            "set@postgres-role",
            "test@postgres-role",
            "promote@vault-kv",
            "adopt@postgres-role",
            "destroy@vault-kv",
        ]
        .map(|step| format!("{name} {step}"))
    };
    let ends = ["adopt", "disable", "end_sessions"].map(|act| format!("{act}@postgres-role"));
    let rest = ["observe@vault-kv", "prove@postgres-role", "destroy@vault-kv"].map(str::to_owned);
    let wanted = [&["observe@postgres-role".to_owned()][..], &moves("a"), &moves("b"), &ends, &rest].concat();
    assert_eq!(said, wanted);
    assert_eq!(plan.steps[plan.pivot].act, Act::Disable, "until then each can go back");

    // The second cannot work with its own: it alone goes back.
    let mut spent = state(&shared);
    spent.step =
        plan.steps.iter().position(|s| s.act == Act::Adopt && s.agent.as_ref().is_some_and(|a| a.user == "b")).unwrap();
    spent.plan = Some(plan);
    spent.turn.new = Some(Generation { version: 2, user: Some("b".into()) });
    spent.turn.unhealthy = true;
    let back = compose(Action::Split, parts(&shared), &spent).unwrap();
    assert!(back.is_sound() && back.undoes);
    assert!(back.steps.iter().all(|step| step.agent.as_ref().is_some_and(|agent| agent.user == "b")));
    let acts: Vec<Act> = back.steps.iter().map(|step| step.act).collect();
    assert_eq!(acts, [Act::Revert, Act::Restore, Act::Discard]);
}

#[test]
fn who_leaves_is_closed_after_the_looks_and_before_the_first_effect() {
    let role = recipe(Users::Many("approle/etl".to_owned()), &[]);
    let (issuer, fence) = (("vault-approle", "prod"), ("vault-scope", "prod"));
    let state = state(&role);
    let parts = |kind, recipe, fence, scope| Parts {
        kind,
        issuer,
        target: None,
        recipe,
        scope,
        moves: None,
        fence,
        cut_roles: None,
    };
    let acts = |action, parts| {
        let plan = compose(action, parts, &state).unwrap();
        assert!(plan.is_sound());
        plan.steps.iter().map(|step| (step.connector.clone(), step.act, step.optional)).collect::<Vec<_>>()
    };
    let of_role = parts(Kind::VaultApprole, Some((&role, STORE)), Some((fence, true)), None);
    let closing = [("vault-scope".to_owned(), Act::Observe, true), ("vault-scope".to_owned(), Act::Fence, true)];
    for parts in [of_role, parts(Kind::VaultSecretId, None, Some((fence, true)), None)] {
        let all = acts(Action::Revoke, parts);
        let first = all.iter().position(|(_, act, _)| act.has_effect()).unwrap();
        assert_eq!(all[first - 1..=first], closing);
        assert_eq!(all[first + 1].1, Act::Revoke);
        assert!(all[..first - 1].iter().all(|(_, act, _)| *act == Act::Observe));
        let without = acts(Action::Revoke, Parts { fence: None, ..parts });
        let rest: Vec<_> = all.into_iter().filter(|one| !closing.contains(one)).collect();
        assert_eq!(rest, without, "all else is as it is without a fence");
    }
    // Whoever cannot close it says so, and the value dies all the same.
    let all = acts(Action::Revoke, Parts { fence: Some((issuer, false)), ..of_role });
    assert!(all.contains(&("vault-approle".to_owned(), Act::Fence, true)));
    let skipped = |act, optional| residue_of(&step(act, fence, optional));
    assert_eq!(
        (skipped(Act::Observe, true), skipped(Act::Fence, true)),
        (Some(Residue::NotFenced), Some(Residue::NotFenced))
    );
    // A restoration has no fence of its own.
    let back = acts(Action::Restore, Parts { scope: Some(fence), ..of_role });
    assert_eq!(
        back.iter().map(|(_, act, _)| *act).collect::<Vec<_>>(),
        [Act::Observe, Act::Widen, Act::Test, Act::Prove]
    );
}

#[test]
fn a_fence_of_another_connector_comes_back_first_and_what_else_was_taken_by_the_next_order() {
    let held = |names: &[&str]| -> Vec<Held> {
        let one = |name: &&str| Held { permission: Permission::parse(name).unwrap(), how: String::new() };
        names.iter().map(one).collect()
    };
    let both = held(&["fence:user_policy", "managed:a", "managed:b"]);
    assert_eq!(gives_back(Kind::AwsUser, both.clone(), true), (held(&["fence:user_policy"]), 2));
    assert_eq!(gives_back(Kind::AwsAccessKey, both.clone(), false), (held(&["managed:a", "managed:b"]), 0));
    // At Vault one connector has both; and what is of one sort is not parted.
    let of_role = held(&["fence:token_bound_cidrs", "policy:etl"]);
    assert_eq!(gives_back(Kind::VaultApprole, of_role.clone(), true), (of_role, 0));
    for names in [&["fence:user_policy"][..], &["managed:a"]] {
        assert_eq!(gives_back(Kind::AwsUser, held(names), false), (held(names), 0), "{names:?}");
    }
}

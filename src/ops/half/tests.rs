use super::*;
use crate::case::plan::Plan;
use crate::case::record::{Observation, Output, Record};
use crate::case::{Action, Directive, HoldReason, Trigger, Urgency};

fn case(kind: Kind, id: &str, principal: Option<&str>, records: &[Record]) -> Case {
    let directive = Directive {
        credential: CredentialId::new(kind, "prod", id).unwrap(),
        action: Action::Revoke,
        trigger: Trigger::TaskEnd,
        urgency: Urgency::Prompt,
        held: None,
        run: None,
        end_ms: None,
        broker_ms: 0,
        grantors: Vec::new(),
        finding: None,
        generation: None,
        not_before_ms: None,
        cut: None,
        topic: "t".into(),
    };
    let opened = Record::Opened { directive: directive.clone() };
    Case {
        id: uuid::Uuid::nil(),
        tenant: "default".into(),
        directive,
        system: "prod".into(),
        lane: "l".into(),
        principal: principal.map(str::to_owned),
        seen_ms: None,
        opened_ms: 0,
        traceparent: None,
        seq: 1,
        blast: None,
        charged: true,
        state: State::fold(std::iter::once(&opened).chain(records)).unwrap(),
    }
}

fn step(act: Act, system: &str) -> Step {
    Step { act, connector: system.into(), system: system.into(), optional: act != Act::Prove, place: None, agent: None }
}

fn planned(acts: &[(Act, &str)]) -> Record {
    let steps: Vec<Step> = acts.iter().map(|(act, system)| step(*act, system)).collect();
    let is_pivot = |step: &Step| matches!(step.act, Act::Revoke | Act::Destroy);
    let pivot = steps.iter().position(is_pivot).unwrap();
    Record::Planned { no: 1, plan: Plan { steps, pivot, undoes: false } }
}

/// A lease with a target: looks, disables, ends sessions, revokes, ends those that came meanwhile, proves.
fn lease() -> Record {
    planned(&[
        (Act::Observe, "prod"),
        (Act::Observe, "appdb"),
        (Act::Disable, "appdb"),
        (Act::EndSessions, "appdb"),
        (Act::Revoke, "prod"),
        (Act::EndSessions, "appdb"),
        (Act::Prove, "appdb"),
    ])
}

fn saw(step: usize) -> Record {
    let seen = Observation {
        presence: Presence::Present,
        principal_id: (step == 1).then(|| "4711".to_owned()),
        ..Observation::default()
    };
    Record::Observed { step, seen }
}

fn starts(step: usize) -> Record {
    Record::Started { step, key: uuid::Uuid::nil(), attempt: 1 }
}

fn done(step: usize) -> Record {
    Record::Succeeded { step, output: Output::default() }
}

fn held() -> Record {
    Record::Held { reason: HoldReason::Frozen }
}

fn of(records: &[Record]) -> Option<HalfMade> {
    half_made(&case(Kind::VaultLease, "database/creds/app/x1", Some("v-app"), records))
}

#[test]
fn a_user_without_login_and_its_living_lease_are_half_made() {
    let before = [lease(), saw(0), saw(1)];
    let with = |more: &[Record]| of(&[&before[..], more].concat());
    assert_eq!(with(&[held()]), None, "nothing was changed");
    let perhaps = with(&[starts(2)]).unwrap();
    assert_eq!(perhaps.what, "the user may be NOLOGIN, its lease is not revoked");
    let half = with(&[starts(2), done(2), held()]).unwrap();
    assert_eq!((half.what, half.at.as_deref()), ("the user is NOLOGIN, its lease is not revoked", Some("appdb")));
    assert!(half.goes_on);
    let runs: Vec<_> = half.by_hand.iter().map(|by| (by.to, by.run.as_str())).collect();
    let wanted = [("end it", "vault lease revoke database/creds/app/x1"), ("undo it", "ALTER ROLE \"v-app\" LOGIN;")];
    assert_eq!(runs, wanted);
    let ending = with(&[starts(2), done(2), starts(3)]).unwrap();
    assert_eq!(ending.what, "the user is NOLOGIN, its lease is not revoked");
    let fenced = [starts(2), done(2), starts(3), done(3)];
    let perhaps = with(&[&fenced[..], &[starts(4)]].concat()).unwrap();
    assert_eq!(perhaps.what, "the user is NOLOGIN, its lease may be revoked");
    let revoked = [&fenced[..], &[starts(4), done(4)]].concat();
    assert_eq!(with(&revoked), None, "only the proof is left: nobody could log in since the sessions ended");
    let not_ended = Record::Skipped { step: 3, residue: Some(Residue::Sessions) };
    let open = with(&[starts(2), done(2), starts(3), not_ended, starts(4), done(4), held()]).unwrap();
    assert_eq!(open.what, "its lease is revoked, its sessions may be open");
    let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usesysid = 4711;";
    assert_eq!(open.by_hand, [ByHand { to: "end it", run: sql.to_owned() }]);
    let abandoned = Record::Abandoned { by: "ana".into(), reason: "why".into() };
    assert!(!with(&[starts(2), done(2), abandoned]).unwrap().goes_on);
}

#[test]
fn where_the_user_was_not_fenced_nothing_is() {
    let skipped = Record::Skipped { step: 2, residue: Some(Residue::NotFenced) };
    assert_eq!(of(&[lease(), saw(0), saw(1), skipped, starts(3), done(3), starts(4)]), None);
}

#[test]
fn a_key_that_is_disabled_may_have_open_sessions() {
    let acts = [Act::Observe, Act::Disable, Act::EndSessions, Act::Prove];
    let steps = acts.map(|act| step(act, "aws")).to_vec();
    let plan = Record::Planned { no: 1, plan: Plan { steps, pivot: 3, undoes: false } };
    let with = |more: &[Record]| {
        let records = [&[plan.clone(), saw(0)], more].concat();
        half_made(&case(Kind::AwsAccessKey, "ci/bot/AKIAIOSFODNN7EXAMPLE", None, &records))
    };
    assert_eq!(with(&[held()]), None, "nothing was changed");
    let perhaps = with(&[starts(1)]).unwrap();
    assert_eq!(perhaps.what, "the key may be disabled, its user's sessions are open");
    let half = with(&[starts(1), done(1), held()]).unwrap();
    assert_eq!((half.what, half.at.as_deref()), ("the key is disabled, its user's sessions may be open", Some("aws")));
    let undo = "aws iam update-access-key --user-name bot --access-key-id AKIAIOSFODNN7EXAMPLE --status Active";
    assert_eq!(half.by_hand, [ByHand { to: "undo it", run: undo.to_owned() }]);
    assert_eq!(with(&[starts(1), done(1), starts(2), done(2)]), None, "only the proof is left");
}

#[test]
fn a_role_that_is_to_be_cut_may_have_open_sessions() {
    let acts = [Act::Observe, Act::Disable, Act::EndSessions, Act::Observe, Act::RevokeDerived, Act::Prove];
    let mut steps = acts.map(|act| step(act, "aws")).to_vec();
    (steps[3].place, steps[4].place) = (Some("roles".into()), Some("r".into()));
    let plan = Record::Planned { no: 1, plan: Plan { steps, pivot: 5, undoes: false } };
    let with = |more: &[Record]| {
        let records = [&[plan.clone(), saw(0), starts(1), done(1), starts(2), done(2)], more].concat();
        half_made(&case(Kind::AwsAccessKey, "ci/bot/AKIAIOSFODNN7EXAMPLE", None, &records)).map(|half| half.what)
    };
    let open = Some("the key is disabled or gone, sessions of roles that its user assumed may be open");
    assert_eq!((with(&[held()]), with(&[saw(3), held()])), (open, open));
    assert_eq!(with(&[saw(3), starts(4), done(4), held()]), None, "only the proof is left");
}

#[test]
fn one_effect_at_vault_has_no_half_state() {
    let plan = planned(&[(Act::Observe, "prod"), (Act::Revoke, "prod"), (Act::Prove, "prod")]);
    for kind in [Kind::VaultLease, Kind::VaultToken] {
        for records in [&[plan.clone(), saw(0), starts(1)][..], &[plan.clone(), saw(0), starts(1), done(1)]] {
            assert_eq!(half_made(&case(kind, "a/b", None, records)), None);
        }
    }
    let plan = [(Act::Observe, "prod"), (Act::Revoke, "prod"), (Act::RevokeDerived, "prod"), (Act::Prove, "prod")];
    let records = [planned(&plan), saw(0), starts(1), done(1), held()];
    let half = half_made(&case(Kind::VaultSecretId, "approle/ci/acc", None, &records)).unwrap();
    assert_eq!((half.what, half.by_hand), ("the secret_id is destroyed, its tokens may live", vec![]));
}

#[test]
fn names_from_events_stay_names() {
    assert_eq!(lets_in(Some("a\"; DROP ROLE b; --")).unwrap().run, "ALTER ROLE \"a\"\"; DROP ROLE b; --\" LOGIN;");
    for odd in ["", "a\nb", "a\u{1b}[2Jb", "a\u{202e}b", "a\\b"] {
        assert_eq!(lets_in(Some(odd)), None, "{odd:?}");
    }
    assert_eq!(for_shell("database/creds/app/x1"), "database/creds/app/x1");
    assert_eq!(for_shell("a/$(rm -rf ~)'b"), r"'a/$(rm -rf ~)'\''b'");
    assert_eq!(for_shell("-a"), "'-a'");
}

#[test]
fn a_rotation_says_between_which_values_it_stands_and_speaks_of_no_lease() {
    let plan = planned(&[
        (Act::Observe, "appdb"),
        (Act::Observe, "prod"),
        (Act::Disable, "appdb"),
        (Act::Create, "prod"),
        (Act::Set, "appdb"),
        (Act::Test, "appdb"),
        (Act::Promote, "prod"),
        (Act::Prove, "appdb"),
        (Act::Destroy, "prod"),
    ]);
    let of = |more: &[Record]| {
        let records = [&[plan.clone(), saw(0), saw(1)], more].concat();
        half_made(&case(Kind::PostgresRole, "app", None, &records)).map(|half| (half.what, half.by_hand.len()))
    };
    let promoted = |step| {
        let current = Some(crate::case::record::Generation { version: 2, user: None });
        Record::Succeeded { step, output: Output { current, ..Output::default() } }
    };
    assert_eq!(of(&[]), None);
    let shut = [starts(2), done(2)];
    assert_eq!(of(&shut), Some(("the old value may be shut out, and there is no new one yet", 0)));
    let set = [&shut[..], &[starts(3), done(3), starts(4)]].concat();
    let unread = Some(("the target may have a new value that consumers do not read yet", 0));
    assert_eq!(of(&set), unread, "in doubt");
    let tested = [&set[..], &[done(4), Record::Passed { step: 5, cut_ms: None }]].concat();
    assert_eq!(of(&tested), unread);
    // Taken over: there is no plan for a moment.
    let by = case(Kind::PostgresRole, "app", None, &[]).directive;
    assert_eq!(of(&[&tested[..], &[Record::Superseded { by }]].concat()), unread);
    let read = of(&[&tested[..], &[starts(6), promoted(6)]].concat());
    assert_eq!(read, Some(("consumers read the new value; the old one may still work", 0)));
}

#[test]
fn what_was_taken_and_not_compared_yet_is_half_made() {
    let plan = planned_for(&[Act::Observe, Act::Narrow, Act::Test, Act::Prove]);
    let seen = Observation {
        presence: Presence::Present,
        scope: Some(crate::scope::Scope {
            held: vec![crate::scope::Held {
                permission: crate::scope::Permission::parse("policy:etl").unwrap(),
                how: "0".into(),
            }],
            ..Default::default()
        }),
        ..Observation::default()
    };
    let with = |more: &[Record]| {
        let records = [&[plan.clone(), Record::Observed { step: 0, seen: seen.clone() }], more].concat();
        let mut case = case(Kind::VaultApprole, "approle/etl", None, &records);
        case.directive.action = Action::Reduce;
        half_made(&case)
    };
    assert_eq!(with(&[held()]), None, "nothing was changed");
    let perhaps = with(&[starts(1)]).unwrap();
    assert_eq!(perhaps.what, "permissions may have been taken, and nothing was compared yet");
    let taken = with(&[starts(1), done(1), held()]).unwrap();
    assert_eq!(taken.what, "permissions were taken, and that was not compared or proven yet");
    assert_eq!(taken.by_hand[0].run, "curfew rollback 00000000-0000-0000-0000-000000000000 --reason 'half-made'");
}

fn planned_for(acts: &[Act]) -> Record {
    let steps: Vec<Step> = acts.iter().map(|act| step(*act, "prod")).collect();
    Record::Planned { no: 1, plan: Plan { steps, pivot: 3, undoes: false } }
}

#[test]
fn who_is_fenced_while_no_value_has_died_is_half_made() {
    use crate::scope::{Held, Permission, Scope};
    let acts = [
        (Act::Observe, "vault"),
        (Act::Observe, "prod"),
        (Act::Fence, "prod"),
        (Act::Revoke, "vault"),
        (Act::Prove, "vault"),
    ];
    let held = Held { permission: Permission::parse("fence:token_bound_cidrs").unwrap(), how: "{}".into() };
    let scope = Some(Scope { held: vec![held], ..Scope::default() });
    let look = Record::Observed {
        step: 1,
        seen: Observation { scope, presence: Presence::Present, ..Observation::default() },
    };
    let before = [planned(&acts), saw(0), look];
    let said = |more: &[Record]| {
        let records = [&before[..], more].concat();
        half_made(&case(Kind::VaultSecretId, "approle/etl/a", None, &records))
            .map(|half| (half.what, half.by_hand.len()))
    };
    assert_eq!(said(&[]), None, "nothing was changed yet");
    let fenced = said(&[starts(2)]).unwrap();
    assert!(fenced.0.contains("fenced") && fenced.1 == 0, "{fenced:?}");
    assert_eq!(said(&[starts(2), done(2)]), Some(fenced));
    assert_eq!(said(&[starts(2), done(2), starts(3)]), None, "one effect at Vault has no half state");
}

use super::*;
use crate::connector::recipe::{Adoption, PasswordRules, Place, Users};
use crate::credential::Kind;
use crate::task::Credential;

const DAY_MS: i64 = 86_400_000;
const NOW_MS: i64 = 1_790_000_000_000;

fn aging(name: &str, path: &str) -> Aging {
    let recipe = Recipe {
        name: name.to_owned(),
        credential: CredentialId::new(Kind::PostgresRole, "appdb", name).unwrap(),
        place: Place {
            keeper: crate::connector::recipe::Keeper::Kv,
            realm: "prod".into(),
            mount: "kv".into(),
            path: path.to_owned(),
            field: "password".into(),
            user_field: None,
        },
        users: Users::One(name.to_owned()),
        password: PasswordRules::default(),
        adoption: Adoption { within_ms: 900_000, ..Adoption::default() },
        environment: None,
        owner: None,
        max_age_ms: Some(90 * DAY_MS),
        shares: Vec::new(),
        copies: Vec::new(),
        webhooks: Vec::new(),
    };
    Aging { tenant: "default".into(), max_age_ms: 90 * DAY_MS, recipe: Arc::new(recipe) }
}

type All = HashMap<(Tenant, CredentialId), Known>;

fn known(one: &Aging, version: Option<i64>, age_ms: i64, open: bool) -> ((Tenant, CredentialId), Known) {
    let id = one.recipe.credential.clone();
    let credential = Credential {
        blast: None,
        tenant: one.tenant.clone(),
        id: id.clone(),
        principal: None,
        registered_ms: 0,
        seen_ms: None,
        issued_ms: Some(NOW_MS - age_ms),
        expires_ms: None,
        dead_ms: None,
        version,
        environment: None,
        owner: None,
    };
    ((one.tenant.clone(), id), Known { credential, live: false, over_ms: None, open, looks: open })
}

fn names(judged: &Judged) -> Vec<String> {
    judged.due.iter().map(|due| due.credential.id()).collect()
}

#[test]
fn a_value_is_due_in_the_last_tenth_of_its_time_and_overdue_after_it() {
    let one = aging("a", "a");
    let at = |age_ms| judge(std::slice::from_ref(&one), &[known(&one, Some(3), age_ms, false)].into(), NOW_MS);
    assert_eq!(at(80 * DAY_MS), Judged::default());
    let due = at(90 * DAY_MS);
    assert_eq!((due.due[0].version, due.due[0].age_ms, due.overdue), (3, 90 * DAY_MS, 0));
    let overdue = at(90 * DAY_MS + 5_000);
    assert_eq!((overdue.due.len(), overdue.overdue, overdue.worst_ms), (1, 1, 5_000));
    assert!(at(91 * DAY_MS).due[0].turn > overdue.due[0].turn, "what came to nothing is tried again");
}

#[test]
fn what_was_made_on_one_day_is_not_due_on_one() {
    let all: Vec<Aging> = (0..1_000).map(|n| aging(&format!("r{n}"), &format!("p{n}"))).collect();
    let mut days = [0; 9];
    for one in &all {
        let at = usize::try_from((one.due_at_age_ms(1) - 81 * DAY_MS) / DAY_MS).unwrap().min(8);
        days[at] += 1;
    }
    // 111 a day on the average, and six standard deviations.
    assert!(days.iter().all(|count| (50..175).contains(count)), "{days:?}");
    assert_ne!(all[0].due_at_age_ms(1), all[0].due_at_age_ms(2), "another time for each version");
}

#[test]
fn a_few_at_once_at_one_target_the_oldest_first() {
    let all: Vec<Aging> = (0..30).map(|n| aging(&format!("r{n:02}"), &format!("p{n}"))).collect();
    let ages = |n: usize| 100 * DAY_MS + i64::try_from(n).unwrap() * 10 * DAY_MS;
    let mut state: All = all.iter().enumerate().map(|(n, one)| known(one, Some(1), ages(n), false)).collect();
    let judged = judge(&all, &state, NOW_MS);
    assert_eq!((judged.due.len(), judged.overdue), (AT_ONCE, 30));
    assert_eq!(names(&judged)[0], "r29");
    // Those are stuck: the rest is left alone, and the figure shows it.
    for one in &judged.due {
        state.get_mut(&(one.tenant.clone(), one.credential.clone())).unwrap().open = true;
    }
    let stuck = judge(&all, &state, NOW_MS);
    assert_eq!((stuck.due.len(), stuck.overdue), (0, 30));
}

#[test]
fn two_that_share_a_secret_never_move_within_one_window() {
    let (one, other) = (aging("a", "shared"), aging("b", "shared"));
    let all = [one.clone(), other.clone()];
    let old = |one, open| known(one, Some(1), 100 * DAY_MS, open);
    assert_eq!(judge(&all, &[old(&one, false), old(&other, false)].into(), NOW_MS).due.len(), 1);
    assert!(judge(&all, &[old(&one, true), old(&other, false)].into(), NOW_MS).due.is_empty());
    // The one has just been rotated: its consumers may still be on their way.
    let young = known(&one, Some(2), 60_000, false);
    assert!(judge(&all, &[young, old(&other, false)].into(), NOW_MS).due.is_empty());
    let settled = known(&one, Some(2), 900_000, false);
    assert_eq!(names(&judge(&all, &[settled, old(&other, false)].into(), NOW_MS)), ["b"]);
}

#[test]
fn what_is_not_known_to_be_old_is_left_alone_and_counted() {
    let all = [aging("a", "a"), aging("b", "b"), aging("c", "c")];
    let mut dead = known(&all[2], Some(1), 100 * DAY_MS, false);
    dead.1.credential.dead_ms = Some(NOW_MS);
    let judged = judge(&all, &[known(&all[0], None, 100 * DAY_MS, false), dead].into(), NOW_MS);
    assert_eq!(
        (judged.due.len(), judged.unknown, judged.overdue),
        (0, 2, 0),
        "no version, nothing at all, and a dead one"
    );
}

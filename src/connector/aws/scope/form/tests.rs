use super::*;
use crate::connector::aws::name::KeyName;
use crate::scope::permissions;

const EXTRA: &str = r#"{"Version": "2012-10-17",
  "Statement": [{"Effect": "Allow", "Action": ["s3:GetObject", "s3:Put*"], "Resource": "*"}]}"#;
const WORK: &str = r#"{"Statement": {"Effect": "Allow", "Action": ["iam:GetUser", "s3:GetObject"],
  "Resource": ["*", "arn:aws:s3:::a/*"]}}"#;
const ADMIN: &str = "arn:aws:iam::123456789012:policy/ci/admin";
const READ: &str = "arn:aws:iam::aws:policy/job-function/ViewOnlyAccess";

/// What our policy of the user's own credential is called.
fn of_user() -> String {
    overlay::name(None)
}

/// That of one of its keys.
fn of_key() -> String {
    overlay::name(Some(&KeyName::new("ci/etl", "AKIAIOSFODNN7EXAMPLE").unwrap()))
}

fn grants() -> Grants {
    Grants {
        own: of_user(),
        id: "AIDA1".into(),
        arn: "arn:aws:iam::123456789012:user/ci/etl".into(),
        full: "ci/etl".into(),
        boundary: Some("arn:aws:iam::123456789012:policy/limit".into()),
        managed: [ADMIN, READ].map(str::to_owned).into(),
        inline: [("extra", EXTRA), ("work", WORK)].map(|(name, text)| (name.to_owned(), text.to_owned())).into(),
        groups: ["devs", "ops"].map(str::to_owned).into(),
    }
}

/// What is named of `now`, as a look records it.
fn held<'a>(now: &Grants, all: &'a [Permission]) -> Vec<(Named<'a>, Form)> {
    all.iter().map(|one| Named::of(one).unwrap()).filter_map(|one| Some((one, now.held(one)?))).collect()
}

/// What the calls make of it.
fn after(now: &Grants, changes: &[Change]) -> Grants {
    let mut after = now.clone();
    for change in changes {
        match change.clone() {
            Change::Detach(arn) => after.managed.retain(|one| *one != arn),
            Change::Attach(arn) => after.managed.extend([arn]),
            Change::Delete(name) => drop(after.inline.remove(&name)),
            Change::Put(name, document) => drop(after.inline.insert(name, document)),
            Change::Leave(name) => after.groups.retain(|one| *one != name),
            Change::Join(name) => after.groups.extend([name]),
        }
    }
    after
}

fn all_of_it() -> Vec<Permission> {
    let admin = format!("managed:{ADMIN}");
    let names =
        ["managed:policy/aws/job-function/ViewOnlyAccess", "inline:extra", "group:ops", "action:s3:DeleteObject"];
    permissions(names.into_iter().chain([admin.as_str(), "action:iam:*"])).unwrap()
}

#[test]
fn what_is_taken_is_given_again_to_the_letter() {
    let (now, all) = (grants(), all_of_it());
    let owed = held(&now, &all);
    assert_eq!(owed.len(), 6);
    let taking = changes(&now, &owed, false).unwrap();
    assert_eq!(
        taking.all.last(),
        Some(&Change::Put(of_user(), denying(&["iam:*".into(), "s3:DeleteObject".into()]))),
        "what makes room comes first"
    );
    let less = after(&now, &taking.all);
    assert_eq!((less.managed.len(), less.groups.len(), less.inline.len()), (0, 1, 2));
    assert_eq!(held(&less, &all), [], "nothing is left");
    let named: Vec<Named<'_>> = owed.iter().map(|(one, _)| *one).collect();
    assert_eq!(less.rest(&named), now.rest(&named), "and nothing else is touched");
    let giving = changes(&less, &owed, true).unwrap();
    assert_eq!((giving.no, after(&less, &giving.all)), (None, now.clone()));
    // Both may be made again, also where a list is late.
    assert_eq!(after(&less, &changes(&now, &owed, true).unwrap().all), now);
    assert_eq!(after(&less, &changes(&less, &owed, false).unwrap().all), less);
}

#[test]
fn each_credential_has_a_policy_of_its_own_and_the_last_action_takes_it_along() {
    assert_eq!((of_user().as_str(), of_key().as_str()), ("curfew-reduced", "curfew-reduced-AKIAIOSFODNN7EXAMPLE"));
    let (one, both) = (["action:s3:DeleteObject"], ["action:iam:*", "action:s3:DeleteObject"]);
    let (one, both) = (permissions(one).unwrap(), permissions(both).unwrap());
    let by = |now: &Grants, own: &str| Grants { own: own.to_owned(), ..now.clone() };
    let taken = |now: &Grants, all| changes(now, &held(now, all), false).unwrap().all;
    let of_one = held(&grants(), &one);
    let first = after(&grants(), &taken(&grants(), &one));
    // The other takes the same action, though it is denied by then.
    let second = by(&first, &of_key());
    let of_both = held(&second, &both);
    assert_eq!(of_both.len(), 2);
    let second = after(&second, &taken(&second, &both));
    assert_eq!(second.overlay().unwrap(), ["iam:*", "s3:DeleteObject"]);
    // What one gives back the other still denies.
    let back = by(&second, &of_user());
    let back = after(&back, &changes(&back, &of_one, true).unwrap().all);
    assert_eq!((back.overlay().unwrap(), by(&back, &of_key()).overlay().unwrap().len()), (Vec::<String>::new(), 2));
    assert!(back.is_denied_by_us("S3:DeleteObject") && !back.is_denied_by_us("s3:GetObject"));
    let back = by(&back, &of_key());
    let back = after(&back, &changes(&back, &of_both, true).unwrap().all);
    assert_eq!(by(&back, &of_user()), grants());
    // Cases of one credential share it.
    let other = permissions(["action:iam:*"]).unwrap();
    let of_other = held(&first, &other);
    let both = after(&first, &taken(&first, &other));
    let left = after(&both, &changes(&both, &of_one, true).unwrap().all);
    assert_eq!(left.overlay().unwrap(), ["iam:*"]);
    assert_eq!(after(&left, &changes(&left, &of_other, true).unwrap().all), grants());
}

#[test]
fn names_are_the_same_in_any_letters_and_are_given_back_as_iam_spells_them() {
    let mut now = grants();
    let ops = now.groups.take("ops").unwrap();
    now.groups.extend([ops.to_uppercase()]);
    let extra = now.inline.remove("extra").unwrap();
    now.inline.insert("Extra".into(), extra);
    let all = permissions(["group:oPs", "inline:eXtra"]).unwrap();
    let owed = held(&now, &all);
    let named: Vec<Named<'_>> = owed.iter().map(|(one, _)| *one).collect();
    let less = after(&now, &changes(&now, &owed, false).unwrap().all);
    assert_eq!((owed.len(), less.groups.len(), less.inline.len()), (2, 1, 1));
    assert_eq!(less.rest(&named), now.rest(&named));
    assert_eq!(after(&less, &changes(&less, &owed, true).unwrap().all), now);
    assert!(names_twice(&[Named::Group("ops"), Named::Group("Ops")]));
    // Our own policy in other letters is the same one.
    let mut now = grants();
    now.inline.insert("Curfew-Reduced".into(), denying(&["s3:*".into()]));
    let all = permissions(["action:iam:*"]).unwrap();
    let put = Change::Put("Curfew-Reduced".into(), denying(&["iam:*".into(), "s3:*".into()]));
    assert_eq!(changes(&now, &held(&now, &all), false).unwrap().all, [put]);
}

#[test]
fn where_room_is_lacking_what_fits_is_given_back() {
    let mut now = grants();
    let all = permissions(["inline:extra", "inline:large", "group:ops"]).unwrap();
    now.inline.insert("large".into(), EXTRA.replace("s3:Put*", &"x".repeat(1_400)));
    let owed = held(&now, &all);
    let mut less = after(&now, &changes(&now, &owed, false).unwrap().all);
    less.inline.insert("theirs".into(), EXTRA.replace("s3:Put*", &"y".repeat(1_000)));
    let giving = changes(&less, &owed, true).unwrap();
    let after = after(&less, &giving.all);
    assert_eq!(giving.no, Some(NO_ROOM));
    assert!(after.groups.contains("ops") && after.inline.contains_key("extra"));
    assert!(!after.inline.contains_key("large"));
}

#[test]
fn what_is_so_already_is_told_from_what_is_not() {
    let now = grants();
    let is_so = |change: Change| change.is_so(&now);
    assert!(is_so(Change::Attach(ADMIN.into())) && !is_so(Change::Attach("x".into())));
    assert!(is_so(Change::Join("ops".into())) && !is_so(Change::Join("x".into())));
    assert!(is_so(Change::Put("work".into(), WORK.into())) && !is_so(Change::Put("work".into(), EXTRA.into())));
    assert!(is_so(Change::Delete("x".into())) && !is_so(Change::Delete("work".into())));
    assert!(!is_so(Change::Detach(ADMIN.into())) && !is_so(Change::Leave("ops".into())));
}

#[test]
fn a_policy_of_our_name_that_is_not_ours_is_somebody_else_s() {
    let own = denying(&["s3:DeleteObject".into()]);
    assert_eq!(denied(&own).unwrap(), ["s3:DeleteObject"]);
    for other in [
        own.replace("Deny", "Allow"),
        own.replace("CurfewReduced", "Ours"),
        own.replace("\"*\"", "\"arn:aws:s3:::a\""),
        own.replace("2012-10-17", "2008-10-17"),
        own.replace("[\"s3:DeleteObject\"]", "\"s3:DeleteObject\""),
        own.replace("\"s3:DeleteObject\"", ""),
        "{}".to_owned(),
    ] {
        assert_ne!(other, own);
        assert_eq!(denied(&other), None, "{other}");
        let mut now = grants();
        let named = permissions(["action:s3:DeleteObject", "group:ops"]).unwrap();
        let owed = held(&now, &named);
        now.inline.insert(of_user(), other.clone());
        assert_eq!(changes(&now, &owed, false), Err(FOREIGN));
        let giving = changes(&now, &owed, true).unwrap();
        assert_eq!((giving.all, giving.no), (vec![Change::Join("ops".into())], Some(FOREIGN)), "the rest is given");
        assert!(now.rest(&[]).iter().any(|line| line.ends_with(&other)), "it is a part of all else");
    }
}

#[test]
fn what_does_not_fit_is_refused_before_anything_is_changed() {
    let mut now = grants();
    let long: Vec<String> =
        (0..30).map(|n| format!("action:organizations:SomethingWithAVeryLongNameIndeed{n:04}")).collect();
    let all = permissions(&long).unwrap();
    let owed = held(&now, &all);
    assert!(changes(&now, &owed, false).is_ok(), "white space is not counted");
    now.inline.insert("more".into(), EXTRA.replace("s3:Put*", &"x".repeat(700)));
    assert_eq!(changes(&now, &owed, false), Err(NO_ROOM));
    // What goes makes room.
    let with: Vec<String> = long.iter().cloned().chain(["inline:more".to_owned()]).collect();
    let with = permissions(with).unwrap();
    assert!(changes(&now, &held(&now, &with), false).is_ok());
    // Less is never refused, whatever there is.
    let less = permissions(["inline:extra"]).unwrap();
    now.inline.insert("more".into(), EXTRA.replace("s3:Put*", &"x".repeat(4_000)));
    assert!(changes(&now, &held(&now, &less), false).is_ok());
}

#[test]
fn what_was_written_anew_since_is_neither_taken_nor_written_over() {
    let (mut now, all) = (grants(), permissions(["inline:extra", "group:ops"]).unwrap());
    let owed = held(&now, &all);
    now.inline.insert("extra".into(), WORK.into());
    assert_eq!(changes(&now, &owed, false), Err(ANEW));
    let giving = changes(&now, &owed, true).unwrap();
    assert_eq!((giving.all, giving.no), (vec![Change::Join("ops".into())], Some(ANEW)));
}

#[test]
fn all_else_is_the_boundary_too_but_not_what_curfew_puts_there() {
    let (now, mut other) = (grants(), grants());
    other.inline.insert(of_user(), denying(&["s3:*".into()]));
    other.inline.insert(of_key(), denying(&["iam:*".into()]));
    other.inline.insert("curfew-sessions-AKIAIOSFODNN7EXAMPLE".into(), sessions::policy(1_764_188_100_250).unwrap());
    assert_eq!(now.rest(&[]), other.rest(&[]));
    assert_eq!(now.rest(&[]).len(), 7);
    let changes: [fn(&mut Grants); 5] = [
        |it| it.boundary = None,
        |it| drop(it.managed.pop_first()),
        |it| drop(it.inline.insert("work".into(), WORK.replace("GetUser", "GetRole"))),
        |it| it.groups.extend(["more".to_owned()]),
        |it| drop(it.inline.insert("curfew-sessions-AKIAIOSFODNN7EXAMPLE".into(), "{}".into())),
    ];
    for change in changes {
        let mut other = grants();
        change(&mut other);
        assert_ne!(now.rest(&[]), other.rest(&[]));
    }
}

#[test]
fn what_stays_is_asked_where_it_can_be() {
    let now = grants();
    let all = permissions(["inline:extra"]).unwrap();
    let named = [Named::of(&all[0]).unwrap()];
    let pairs = |pairs: &[(&str, &str)]| pairs.iter().map(|(a, r)| ((*a).to_owned(), (*r).to_owned())).collect();
    let both: BTreeSet<(String, String)> = pairs(&[("iam:getuser", "*"), ("s3:getobject", "*")]);
    assert_eq!(now.kept(&named), both, "without wildcards");
    let mut denied = now.clone();
    denied.inline.insert(of_key(), denying(&["iam:*".into()]));
    assert_eq!(denied.kept(&named), both, "whatever another case denies");
    let one: BTreeSet<(String, String)> = pairs(&[("iam:getuser", "*")]);
    assert_eq!(now.kept(&[Named::Action("S3:Get*")]), one, "what is taken does not stay");
}

#[test]
fn what_denies_is_not_taken_and_who_may_become_others_is_told() {
    let denying = EXTRA.replace("Allow", "Deny");
    assert_eq!(refuses(&[EXTRA.into(), WORK.into()]), None);
    assert!(refuses(&[EXTRA.into(), denying]).is_some());
    assert!(refuses(&["[]".into()]).is_some());
    let assuming = EXTRA.replace("s3:Put*", "sts:Assume*");
    assert!(!assumes(&[EXTRA.into()], &[Named::Action("s3:*")]));
    assert!(assumes(&[assuming], &[]) && assumes(&[], &[Named::Action("sts:AssumeRole")]));
}

#[test]
fn what_is_no_permission_of_a_user_is_none() {
    for text in [
        "managed:x",
        "managed:policy/",
        "managed:arn:aws:iam::123456789012:role/x",
        "inline:curfew-reduced",
        "inline:Curfew-Reduced",
        "inline:curfew-reduced-AKIAIOSFODNN7EXAMPLE",
        "inline:curfew-sessions-AKIAIOSFODNN7EXAMPLE",
        "inline:a b",
        "group:a/b",
        "action:*",
        "action:*:*",
        "action:s3:",
        "action:s3:Get Object",
        "member:x",
    ] {
        assert_eq!(Named::of(&Permission::parse(text).unwrap()), None, "{text}");
    }
    let own = "managed:policy/aws/mine";
    let own = Permission::parse(own).unwrap();
    assert!(!Named::of(&own).unwrap().is_managed("arn:aws:iam::123456789012:policy/aws/mine"), "AWS's own is meant");
    assert!(names_twice(&[Named::Action("s3:Get"), Named::Action("S3:get")]));
    assert!(!names_twice(&[Named::Action("s3:Get"), Named::Group("s3:Get")]));
}

use super::*;
use crate::scope::permissions;

const EXTRA: &str = r#"{"Version": "2012-10-17",
  "Statement": [{"Effect": "Allow", "Action": ["s3:GetObject", "s3:Put*"], "Resource": "*"}]}"#;
const WORK: &str = r#"{"Statement": {"Effect": "Allow", "Action": ["iam:GetUser", "s3:GetObject"],
  "Resource": ["*", "arn:aws:s3:::a/*"]}}"#;
const ADMIN: &str = "arn:aws:iam::123456789012:policy/ci/admin";
const READ: &str = "arn:aws:iam::aws:policy/job-function/ViewOnlyAccess";

fn grants() -> Grants {
    Grants {
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
        Some(&Change::Put(OVERLAY.into(), denying(&["iam:*".into(), "s3:DeleteObject".into()]))),
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
fn another_case_s_actions_stay_and_the_last_takes_the_policy_along() {
    let (one, other) = (permissions(["action:s3:DeleteObject"]).unwrap(), permissions(["action:iam:*"]).unwrap());
    let mut now = grants();
    let (of_one, of_other) = (held(&now, &one), held(&now, &other));
    for owed in [&of_one, &of_other] {
        now = after(&now, &changes(&now, owed, false).unwrap().all);
    }
    assert_eq!(now.overlay().unwrap(), ["iam:*", "s3:DeleteObject"]);
    now = after(&now, &changes(&now, &of_one, true).unwrap().all);
    assert_eq!(now.overlay().unwrap(), ["iam:*"]);
    now = after(&now, &changes(&now, &of_other, true).unwrap().all);
    assert_eq!(now, grants());
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
        now.inline.insert(OVERLAY.into(), other.clone());
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
    other.inline.insert(OVERLAY.into(), denying(&["s3:*".into()]));
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

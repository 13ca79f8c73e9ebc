//! Accounts of AWS.

use super::*;
use crate::config::reductions::By;
use crate::config::{AWS_CALLS, System};

const ACCOUNT: &str = "topics: {curfew.findings: {strongest: revoke}}\n\
    targets: [{name: aws-prod, mode: enforce, aws: {account: \"012345678901\", region: eu-west-1, \
    users: [ci/, alone], inventory: {}}}]\n";

#[test]
fn an_account_is_a_target_and_a_realm_of_its_own() {
    let config = parse(ACCOUNT).unwrap();
    assert_eq!(config.warnings, Vec::<String>::new());
    assert!(config.enforces());
    let (target, aws) = config.accounts().next().unwrap();
    assert_eq!((target.timeout_ms, &*aws.account, aws.tenant.as_deref()), (5_000, "012345678901", Some("default")));
    assert_eq!(aws.inventory.as_ref().map(|list| (list.every_ms, &list.credentials_file)), Some((300_000, &None)));
    assert!(matches!(&target.system, System::Aws(aws) if aws.credentials_file.is_none()));
    let files = ACCOUNT.replace("users:", "credentials_file: own, endpoint: \"http://127.0.0.1:5000/\", users:");
    let config = parse(&files).unwrap();
    let (_, aws) = config.accounts().next().unwrap();
    assert_eq!(aws.credentials_file.as_deref(), Some(Path::new("/etc/curfew/own")));
    assert_eq!(aws.endpoint.as_deref(), Some("http://127.0.0.1:5000"));
    assert_eq!(aws.cut_roles, Vec::<String>::new(), "no role is touched where no rule names it");
    let role = "arn:aws:iam::012345678901:role/ci/deploy";
    let config = parse(&ACCOUNT.replace("users:", &format!("cut_roles: [\"{role}\"], users:"))).unwrap();
    assert_eq!(config.accounts().next().unwrap().1.cut_roles, [role]);
    let twice = ACCOUNT.replace("users:", &format!("cut_roles: [\"{role}\", \"{role}\"], users:"));
    assert!(parse(&twice).is_err(), "each once");
    assert_eq!(aws.quota_percent, 96, "four percent are left to who is not counted here");
}

#[test]
fn what_is_wrong_with_an_account_is_said() {
    for (was, is, why) in [
        ("\"012345678901\"", "\"12345678901\"", "12 digits"),
        ("eu-west-1", "\"EU (Ireland)\"", "`region`"),
        ("[ci/, alone]", "[/]", "opt-in"),
        ("[ci/, alone]", "[\"/ci/\"]", "opt-in"),
        ("[ci/, alone]", "[ci/../admin]", "opt-in"),
        ("users:", "endpoint: \"https://iam.amazonaws.com\", users:", "loopback"),
        ("users:", "endpoint: \"http://u:p@127.0.0.1\", users:", "loopback"),
        ("users:", "cut_roles: [deploy], users:", "whole ARN"),
        ("users:", "cut_roles: [\"arn:aws:iam::012345678901:role/*\"], users:", "no patterns"),
        ("users:", "cut_roles: [\"arn:aws:iam::012345678901:role/ci/\"], users:", "no patterns"),
        ("users:", "cut_roles: [\"arn:aws:iam::999999999999:role/deploy\"], users:", "of this account"),
        ("users:", "cut_roles: [\"arn:aws:iam::012345678901:user/deploy\"], users:", "roles"),
        (
            "users:",
            "cut_roles: [\"arn:aws:iam::012345678901:role/aws-service-role/x.amazonaws.com/y\"], users:",
            "AWS's own",
        ),
        ("users:", "timeout: 0s, users:", "longer than 0"),
        ("users:", "quota_percent: 0, users:", "1 to 100"),
        ("users:", "quota_percent: 101, users:", "1 to 100"),
        ("users:", "quota_percent: 100, users:", "1 to 99"),
        ("users:", "tenant: nobody, users:", "no topic is of the tenant"),
        ("aws: {", "redis: {url_file: r}, aws: {", "one of `postgres`, `mariadb`, `redis` and `aws`"),
        ("aws-prod", "\"aws:prod\"", "stands in credential ids"),
        ("{strongest: revoke}}", "{strongest: revoke}, b: {tenant: b}}", "write `tenant`"),
    ] {
        let text = ACCOUNT.replace(was, is);
        assert_ne!(text, ACCOUNT, "{was}");
        let said = parse(&text).unwrap_err().to_string();
        assert!(said.contains(why), "{is}: {said}");
    }
}

#[test]
fn a_claim_lasts_as_long_as_all_calls_of_a_step() {
    let slow = ACCOUNT.replace("users:", "timeout: 15s, users:");
    let said = parse(&slow).unwrap_err().to_string();
    let least = executor::least_claim_ms(AWS_CALLS * 15_000);
    assert!(said.contains("claim_lease") && said.contains(&file::Millis(least).to_string()), "{said}");
    assert!(parse(&format!("{slow}limits: {{claim_lease: {least}ms}}\n")).is_ok());
}

const STORED: &str = "topics: {curfew.findings: {strongest: revoke}}\n\
    realms: [{name: prod, mode: enforce, allowed_prefixes: [database/], vault: {address: \"http://127.0.0.1:8200\", \
    token_file: t}}]\n\
    targets: [{name: aws-prod, mode: enforce, aws: {account: \"012345678901\", region: eu-west-1}}, \
    {name: appdb, mode: enforce, postgres: {url_file: u}}]\n\
    rotations: [{name: app, target: appdb, roles: [a, b], \
    store: {realm: aws-prod, secret: prod/app, user_field: username}, \
    copies: [{realm: prod, path: app, user_field: username}]}]\n";

#[test]
fn a_secret_of_aws_is_a_store_and_its_account_a_realm() {
    let config = parse(STORED).unwrap();
    assert_eq!(config.warnings, Vec::<String>::new());
    let [recipe] = config.recipes.as_slice() else { panic!("one recipe") };
    assert_eq!(recipe.place.name(), "secretsmanager/prod/app#password");
    assert_eq!(recipe.place.store(), (Keeper::AwsSecret, "aws-prod"));
    assert_eq!(recipe.stores_of_copies(), [(Keeper::Kv, "prod")].into());
    assert_eq!(config.tenant_of("aws-prod").map(|tenant| &**tenant), Some("default"));
    for (was, is, why) in [
        ("secret: prod/app", "secret: \"prod app\"", "called by its name"),
        ("secret: prod/app", "secret: prod/app, path: x", "`store` has"),
        ("realm: aws-prod, secret", "realm: prod, secret", "no target `prod` with `aws`"),
        ("{realm: prod, path: app, user_field", "{realm: aws-prod, secret: prod/app, user_field", "share this secret"),
        ("target: appdb, roles: [a, b]", "approle: {realm: prod, role: ci}", "one field of a KV engine"),
    ] {
        let text = STORED.replace(was, is);
        assert_ne!(text, STORED, "{was}");
        let said = parse(&text).unwrap_err().to_string();
        assert!(said.contains(why), "{is}: {said}");
    }
}

#[test]
fn a_secret_that_is_the_value_has_no_fields() {
    let whole = STORED.replace("[a, b]", "[a]").replace("prod/app, user_field: username", "prod/app, whole: true");
    let config = parse(&whole).unwrap();
    assert_eq!(config.recipes[0].place.name(), "secretsmanager/prod/app#");
    for (was, is) in [
        ("whole: true", "whole: true, user_field: u"),
        ("path: app, user_field: username", "path: app, whole: true"),
        ("secret: prod/app", "rotated_secret: prod/app"),
    ] {
        let text = whole.replace(was, is);
        assert_ne!(text, whole, "{was}");
        let said = parse(&text).unwrap_err().to_string();
        assert!(said.contains("a field needs a name"), "{is}: {said}");
    }
}

#[test]
fn a_secret_that_aws_rotates_itself_has_its_users_as_aws_writes_them() {
    let rotated = "secret: prod/app, user_field: username}, copies: [{realm: prod, path: app, user_field: username}]}]";
    let of = |store: &str| STORED.replace(rotated, store);
    let config = parse(&of("rotated_secret: prod/app}}]")).unwrap();
    let [recipe] = config.recipes.as_slice() else { panic!("one recipe") };
    assert_eq!(recipe.place.store(), (Keeper::AwsRotated, "aws-prod"));
    assert_eq!(recipe.place.user_field.as_deref(), Some("username"));
    assert_eq!(recipe.users, Users::Two("a".into(), "b".into()));
    for (store, why) in [
        ("rotated_secret: prod/app, secret: prod/app}}]", "or a `rotated_secret`"),
        ("rotated_secret: \"prod app\"}}]", "called by its name"),
        ("rotated_secret: prod/app}, password: {length: 20}}]", "by its own rules"),
        ("rotated_secret: prod/app}, copies: [{realm: prod, path: app, user_field: u}]}]", "has no copies"),
    ] {
        let said = parse(&of(store)).unwrap_err().to_string();
        assert!(said.contains(why), "{store}: {said}");
    }
}

#[test]
fn an_access_key_is_rotated_where_it_is_stored_with_its_id() {
    let rotation = "realms: [{name: prod, vault: {address: \"http://127.0.0.1:8200\", token_file: t}}]\n\
        rotations: [{name: key, target: aws-prod, users: [ci/bot], \
        store: {realm: prod, path: a, field: secret, user_field: id}}]\n";
    let config = parse(&format!("{ACCOUNT}{rotation}")).unwrap();
    let [recipe] = config.recipes.as_slice() else { panic!("one recipe") };
    assert_eq!(recipe.users, Users::Keys("ci/bot".into()));
    assert_eq!(recipe.credential.as_str(), "urn:curfew:cred:aws-user:aws-prod:ci/bot");
    for (was, is, why) in [
        ("[ci/bot]", "[ci/bot, ci/other]", "`users` is one"),
        ("[ci/bot]", "[admin/bot]", "do not name it"),
        ("[ci/bot]", "[ci/]", "do not name it"),
        (", user_field: id", "", "a key has two parts"),
    ] {
        let text = format!("{ACCOUNT}{}", rotation.replace(was, is));
        let said = parse(&text).unwrap_err().to_string();
        assert!(said.contains(why), "{is}: {said}");
    }
}

#[test]
fn permissions_are_taken_from_an_account_s_users_by_a_login_of_its_own() {
    let reductions =
        |rest: &str| format!("{ACCOUNT}reductions: [{{system: aws-prod, identities: [\"ci/*\"]{rest}}}]\n");
    let config = parse(&reductions(", credentials_file: reduce")).unwrap();
    let [reduction] = config.reductions.as_slice() else { panic!("one") };
    assert!(matches!(&reduction.by, By::Aws(file) if file == Path::new("/etc/curfew/reduce")));
    let said = parse(&reductions("")).unwrap_err().to_string();
    assert!(said.contains("a login of their own") && said.contains("deploy/aws/reduce.json"), "{said}");
    let said = parse(&reductions(", credentials_file: r").replace("ci/*", "/ci/*")).unwrap_err().to_string();
    assert!(said.contains("without the first slash"), "{said}");
    let other = "targets: [{name: r, redis: {url_file: u}}]\nreductions: [{system: r, identities: [a], url_file: x}]\n";
    let said = parse(other).unwrap_err().to_string();
    assert!(said.contains("a Vault, a PostgreSQL or an account of AWS"), "{said}");
}

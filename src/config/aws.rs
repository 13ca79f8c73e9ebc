//! An account of AWS as a target: what must hold.

use std::collections::{BTreeMap, BTreeSet};

use serde_saphyr::Spanned;

use super::check::{Checks, positive};
use super::problem::{Problem, said};
use super::{Aws, KeyList, Topic, file};
use crate::task::Tenant;

/// Users and paths of one account.
const USERS: usize = 256;
/// Roles of one account whose sessions are denied: each is a step of a case, and a look.
const CUT_ROLES: usize = 8;

/// What is written in `aws`.
pub(super) fn account(
    c: &mut Checks<'_>,
    name: &Spanned<String>,
    raw: &file::Aws,
    topics: &BTreeMap<String, Topic>,
) -> Aws {
    if !cfg!(feature = "aws") {
        c.wrong(name.referenced, "this build is without the feature `aws`: it reaches no account");
    }
    let is_name = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
    if name.value.is_empty() || !is_name(&name.value) {
        c.wrong(name.referenced, "an account's `name` stands in credential ids: letters, digits, `-`, `_` and `.`");
    }
    let account = &raw.account;
    if account.value.len() != 12 || !account.value.bytes().all(|b| b.is_ascii_digit()) {
        c.wrong(account.referenced, "`account` has 12 digits, in quotes: a 0 at its front would be lost");
    }
    let is_region = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    if raw.region.value.is_empty() || !raw.region.value.bytes().all(is_region) {
        c.wrong(raw.region.referenced, "`region` is one of AWS's, such as `eu-west-1`");
    }
    if let Some(endpoint) = raw.endpoint.as_ref().filter(|endpoint| !is_near(&endpoint.value)) {
        c.wrong(endpoint.referenced, "`endpoint` is for tests: http:// or https:// on loopback");
    }
    let users = &raw.users;
    if users.value.len() > USERS || !users.value.iter().all(|user| is_user(user)) {
        let what =
            "`users` are opt-in: name each as `<path><name>` without the first slash, or a path that ends in `/`";
        c.wrong(users.referenced, what);
    }
    let roles = &raw.cut_roles;
    let is_one_each = roles.value.iter().collect::<BTreeSet<_>>().len() == roles.value.len();
    if roles.value.len() > CUT_ROLES || !is_one_each || !roles.value.iter().all(|role| is_role(role, &account.value)) {
        let what = "`cut_roles` are at most 8 roles of this account, each by its whole ARN, such as \
            `arn:aws:iam::123456789012:role/ci/deploy`: no patterns, and none of AWS's own";
        c.wrong(roles.referenced, what);
    }
    positive(c, &raw.timeout, "timeout");
    if !(1..=100).contains(&raw.quota_percent.value) {
        c.wrong(raw.quota_percent.referenced, "`quota_percent` is 1 to 100");
    } else if raw.inventory.is_some() && raw.quota_percent.value == 100 {
        c.wrong(raw.quota_percent.referenced, "with an `inventory`, `quota_percent` is 1 to 99: it reads by the rest");
    }
    let inventory = raw.inventory.as_ref().map(|list| KeyList {
        credentials_file: list.credentials_file.as_ref().map(|path| c.path(path)),
        every_ms: positive(c, &list.every, "every").max(1_000),
        secrets: watched(c, &list.secrets),
    });
    Aws {
        account: account.value.clone(),
        region: raw.region.value.clone(),
        tenant: tenant(c, name, raw, topics),
        credentials_file: raw.credentials_file.as_ref().map(|path| c.path(path)),
        endpoint: raw.endpoint.as_ref().map(|endpoint| endpoint.value.trim_end_matches('/').to_owned()),
        quota_percent: raw.quota_percent.value,
        users: users.value.clone(),
        cut_roles: roles.value.clone(),
        inventory,
    }
}

/// The secrets that are read.
fn watched(c: &mut Checks<'_>, secrets: &Spanned<Vec<String>>) -> Vec<String> {
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"/_+=.@-".contains(&byte);
    let is_one = |name: &String| name.trim_end_matches('/').bytes().next().is_some() && name.bytes().all(is_name);
    if secrets.value.len() > USERS || !secrets.value.iter().all(is_one) {
        c.wrong(secrets.referenced, "`secrets` are opt-in: name each, or a beginning that ends in `/`");
    }
    secrets.value.clone()
}

/// Whose keys the inventory lists: it must know.
fn tenant(
    c: &mut Checks<'_>,
    name: &Spanned<String>,
    raw: &file::Aws,
    topics: &BTreeMap<String, Topic>,
) -> Option<Tenant> {
    let tenants: BTreeSet<&Tenant> = topics.values().map(|topic| &topic.tenant).collect();
    let known = || tenants.iter().map(|tenant| &***tenant);
    match &raw.tenant {
        Some(named) if known().any(|tenant| tenant == named.value) => Some(named.value.as_str().into()),
        Some(named) => {
            let message = format!("no topic is of the tenant {}", said(&named.value));
            c.problems.push(Problem::new(named.referenced, message).nearest(&named.value, known()));
            None
        }
        None if tenants.len() > 1 => {
            if raw.inventory.is_some() {
                let message =
                    "the topics are of several tenants, and an account's `inventory` is for one: write `tenant`";
                c.wrong(name.referenced, message);
            }
            None
        }
        None => Some(tenants.first().map_or_else(|| "default".into(), |tenant| (*tenant).clone())),
    }
}

fn is_near(url: &str) -> bool {
    let Ok(url) = reqwest::Url::parse(url) else { return false };
    let is_loopback = match url.host_str() {
        Some("localhost") => true,
        Some(host) => {
            host.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
        }
        None => false,
    };
    is_loopback && matches!(url.scheme(), "http" | "https") && url.username().is_empty() && url.password().is_none()
}

/// The ARN of one role of the account. Those that AWS owns take no policies of others.
fn is_role(arn: &str, account: &str) -> bool {
    let parts: Vec<&str> = arn.splitn(6, ':').collect();
    let ["arn", "aws" | "aws-cn" | "aws-us-gov", "iam", "", of, role] = parts[..] else { return false };
    let Some(full) = role.strip_prefix("role/") else { return false };
    let is_own = full.starts_with("aws-service-role/") || full.starts_with("aws-reserved/");
    of == account && !is_own && !full.ends_with('/') && is_user(full)
}

fn is_user(text: &str) -> bool {
    let is_part = |part: &str| {
        !matches!(part, "" | "." | "..") && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"_+=,.@-".contains(&b))
    };
    let path = text.strip_suffix('/').unwrap_or(text);
    text.len() <= 576 && path.split('/').all(is_part)
}

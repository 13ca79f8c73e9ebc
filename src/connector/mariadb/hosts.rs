//! Of which account a session is. PURE.
//!
//! MariaDB shows a session's user name and its machine, not the account that let it in, and several accounts may have one
//! name. So it is worked out as MariaDB does: of the accounts that fit, the one with the most exact host counts, and a named
//! one before an anonymous one. What cannot be told is nobody's: it is never ended.
//!
//! Known are the accounts of now, and a session is of one of then. So one that another account has by now may still be of
//! ours, and beside others nothing is of an account that is gone: which of them came first is not shown.
//!
//! Facts: <https://mariadb.com/kb/en/create-user/#account-names>, and a test that asks a real server who it takes them for.

use std::net::{IpAddr, Ipv4Addr};

use super::account::Name;

/// Of which account a session is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose<'a> {
    /// Of this one.
    Of(&'a Name),
    /// Of none of them.
    Nobodys,
    /// It cannot be told.
    Unclear,
}

/// How a session stands to one account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stand {
    /// It is of it.
    Its,
    /// It never was.
    No,
    /// By the accounts of now it is of another one, and of this one if it is older than that one.
    Anothers,
    /// It cannot be told.
    Unclear,
}

/// How a session stands to the account `name`, whose user it has. Where `accounts` does not have it, it is gone, and its
/// sessions live on.
pub fn stand(accounts: &[Name], name: &Name, client: &str) -> Stand {
    let fits_here = fits(&name.host, client);
    if fits_here == Some(false) {
        return Stand::No;
    }
    match whose(accounts, &name.user, client) {
        Whose::Of(its) if its == name => Stand::Its,
        Whose::Of(_) if accounts.contains(name) => Stand::Anothers,
        // It is gone, and nobody else lets in from there.
        Whose::Nobodys if fits_here == Some(true) => Stand::Its,
        _ => Stand::Unclear,
    }
}

/// How exact a host is: the more exact one counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    /// `%`.
    Any,
    /// One with a wildcard, or a network.
    Some,
    /// One machine.
    One,
}

/// Of which of `accounts` a session of `user` is that came from the machine `client`: its name, or its address.
pub fn whose<'a>(accounts: &'a [Name], user: &str, client: &str) -> Whose<'a> {
    let own = accounts.iter().filter(|account| account.user == user || account.user.is_empty());
    let fits: Vec<(Rank, Option<bool>, &Name)> = own
        .map(|account| (rank(&account.host), fits(&account.host, client), account))
        .filter(|(_, fits, _)| *fits != Some(false))
        .collect();
    let Some(top) = fits.iter().map(|(rank, ..)| *rank).max() else { return Whose::Nobodys };
    let best: Vec<_> = fits.iter().filter(|(rank, ..)| *rank == top).collect();
    let hosts_agree = best.iter().all(|(.., account)| account.host == best[0].2.host);
    let named = best.iter().find(|(.., account)| !account.user.is_empty()).unwrap_or(&best[0]);
    match named {
        (_, Some(true), account) if hosts_agree => Whose::Of(account),
        _ => Whose::Unclear,
    }
}

/// The machine in what `PROCESSLIST.HOST` shows: a client of TCP has its port there, one of a socket has none.
pub fn without_port(shown: &str) -> &str {
    shown.rsplit_once(':').map_or(shown, |(client, _)| client)
}

fn rank(host: &str) -> Rank {
    match host {
        "%" | "" => Rank::Any,
        _ if host.contains(['%', '_', '/']) => Rank::Some,
        _ => Rank::One,
    }
}

/// Whether an account's host lets `client` in. `None`: the host is about addresses, and only the client's name is shown.
fn fits(host: &str, client: &str) -> Option<bool> {
    if matches!(host, "%" | "") {
        return Some(true);
    }
    if client.parse::<IpAddr>().is_ok() {
        return Some(fits_address(host, client));
    }
    if like(host.as_bytes(), client.as_bytes()) {
        return Some(true);
    }
    // A name that is shown has an address as well, and of one name it is known.
    let about_addresses = host.bytes().all(|b| b.is_ascii_hexdigit() || b".:%_/".contains(&b));
    let is_elsewhere = || client == "localhost" && !LOOPBACK.iter().any(|near| fits_address(host, near));
    if !about_addresses || is_elsewhere() { Some(false) } else { None }
}

/// What `localhost` may stand for.
const LOOPBACK: [&str; 2] = ["127.0.0.1", "::1"];

/// Whether a host lets this address in: as a network with its mask, or as a pattern.
fn fits_address(host: &str, address: &str) -> bool {
    let Some((network, mask)) = host.split_once('/') else { return like(host.as_bytes(), address.as_bytes()) };
    match [network, mask, address].map(bits) {
        [Some(network), Some(mask), Some(address)] => address & mask == network,
        _ => false,
    }
}

/// Networks are of IPv4 only.
fn bits(address: &str) -> Option<u32> {
    address.parse::<Ipv4Addr>().ok().map(Ipv4Addr::to_bits)
}

/// As LIKE of SQL: `%` stands for any text, `_` for one character, whatever the case.
fn like(pattern: &[u8], text: &[u8]) -> bool {
    // Where the last `%` was, and how much of the text it stands for: if the rest does not fit, it stands for more.
    let (mut at, mut from, mut star) = (0, 0, None);
    while from < text.len() {
        match pattern.get(at) {
            Some(b'%') => {
                star = Some((at, from));
                at += 1;
            }
            Some(b'_') => (at, from) = (at + 1, from + 1),
            Some(byte) if byte.eq_ignore_ascii_case(&text[from]) => (at, from) = (at + 1, from + 1),
            _ => match star {
                Some((wild, taken)) => {
                    star = Some((wild, taken + 1));
                    (at, from) = (wild + 1, taken + 1);
                }
                None => return false,
            },
        }
    }
    pattern[at..].iter().all(|byte| *byte == b'%')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(accounts: &[&str]) -> Vec<Name> {
        accounts.iter().map(|account| Name::read(account).unwrap()).collect()
    }

    #[track_caller]
    fn is_of(accounts: &[&str], machine: &str, wanted: Option<&str>) {
        let accounts = named(accounts);
        match (whose(&accounts, "app", without_port(machine)), wanted) {
            (Whose::Of(account), Some(wanted)) => assert_eq!(account.to_string(), wanted),
            (Whose::Nobodys, None) => {}
            (other, _) => panic!("{other:?} instead of {wanted:?}"),
        }
    }

    #[track_caller]
    fn is_unclear(accounts: &[&str], machine: &str) {
        assert_eq!(whose(&named(accounts), "app", without_port(machine)), Whose::Unclear);
    }

    #[test]
    fn a_session_is_of_the_account_with_the_most_exact_host() {
        let all = ["app@%", "app@10.0.%", "app@10.0.0.7", "app@localhost", "other@10.0.0.7"];
        is_of(&all, "10.0.0.7:4711", Some("app@10.0.0.7"));
        is_of(&all, "10.0.0.8:4711", Some("app@10.0.%"));
        is_of(&all, "192.0.2.1:4711", Some("app@%"));
        is_of(&all, "localhost", Some("app@localhost"));
        is_of(&["app@10.0.0.0/255.255.0.0", "app@%"], "10.0.9.9:1", Some("app@10.0.0.0/255.255.0.0"));
        is_of(&["app@10.0.0.0/255.255.0.0", "app@%"], "10.1.9.9:1", Some("app@%"));
        is_of(&["app@10.0.0.7", "app@::1"], "192.0.2.1:9", None);
        is_of(&["app@10.0.0.7", "app@::1"], "::1:4711", Some("app@::1"));
        is_of(&["app@%.example.org"], "WEB1.example.org:1", Some("app@%.example.org"));
        is_of(&["app@web_.example.org"], "web1.example.com:1", None);
        is_of(&["other@%"], "10.0.0.7:4711", None);
    }

    #[test]
    fn what_cannot_be_told_is_said_to_be_so() {
        // Only the name is shown, and an account goes by the address.
        is_unclear(&["app@10.0.%"], "web1.example.org:4711");
        is_unclear(&["app@%", "app@10.0.0.7"], "web1.example.org:4711");
        is_unclear(&["app@localhost", "app@127.0.0.1"], "localhost:4711");
        // Two patterns that fit: which one counts is not worked out.
        is_unclear(&["app@10.%", "app@10.0.%"], "10.0.0.7:4711");
        // A more exact one that fits counts, whatever the address is.
        is_of(&["app@web1.example.org", "app@10.%"], "web1.example.org:4711", Some("app@web1.example.org"));
    }

    #[test]
    fn an_anonymous_account_with_a_more_exact_host_takes_the_name() {
        let mut all = named(&["app@%"]);
        all.push(Name { user: String::new(), host: "localhost".to_owned() });
        assert_eq!(whose(&all, "app", "localhost"), Whose::Of(&all[1]));
        assert_eq!(whose(&all, "app", "10.0.0.7"), Whose::Of(&all[0]));
        all.push(Name { user: String::new(), host: "%".to_owned() });
        assert_eq!(whose(&all, "app", "10.0.0.7"), Whose::Of(&all[0]));
    }

    #[test]
    fn what_an_account_of_now_has_may_be_older_than_it() {
        for (accounts, name, machine, stands) in [
            (&["app@%"][..], "app@%", "10.0.0.7:1", Stand::Its),
            (&["app@%", "app@10.0.0.7"], "app@%", "10.0.0.7:1", Stand::Anothers),
            (&["app@%", "app@10.0.0.7"], "app@%", "10.0.0.8:1", Stand::Its),
            (&["app@%", "app@10.0.0.7"], "app@10.0.0.7", "10.0.0.8:1", Stand::No),
            (&["app@%", "app@10.0.0.7"], "app@%", "web1.example.org:1", Stand::Unclear),
            // Gone: what comes from there is let in by another one now.
            (&["app@%"], "app@10.0.0.%", "10.0.0.7:1", Stand::Unclear),
            (&["app@%"], "app@10.0.0.%", "10.0.1.7:1", Stand::No),
            (&["app@10.0.0.7"], "app@%", "10.0.0.7:1", Stand::Unclear),
            // Gone, and nobody else lets in from there.
            (&["app@10.0.0.7"], "app@%", "10.0.0.8:1", Stand::Its),
            (&["other@%"], "app@10.0.0.%", "10.0.0.7:1", Stand::Its),
            (&[], "app@10.0.0.%", "web1.example.org:1", Stand::Unclear),
        ] {
            let told = stand(&named(accounts), &Name::read(name).unwrap(), without_port(machine));
            assert_eq!(told, stands, "{accounts:?} {name} {machine}");
        }
    }

    #[test]
    fn patterns_are_those_of_like() {
        for (pattern, text, fits) in [
            ("", "", true),
            ("%", "", true),
            ("a%c%e", "abcde", true),
            ("a%c%e", "abcdef", false),
            ("a_c", "abc", true),
            ("a_c", "ac", false),
            ("%b%", "aabb", true),
            ("%ab", "aab", true),
            ("ab%", "a", false),
        ] {
            assert_eq!(like(pattern.as_bytes(), text.as_bytes()), fits, "{pattern} {text}");
        }
    }
}

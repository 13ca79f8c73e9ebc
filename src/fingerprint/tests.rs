//! One secret, one fingerprint; what is no secret has none; and no key is ever said.

use std::os::unix::fs::PermissionsExt as _;

use proptest::prelude::*;

use super::*;

const KEY: &str = "c3b1f0a7c3b1f0a7c3b1f0a7c3b1f0a7c3b1f0a7c3b1f0a7c3b1f0a7c3b1f0a7";

fn keys() -> Keys {
    Keys::parse(format!("# of the tests\n\nk2 {KEY}\nk1 {}\n", KEY.replace("c3", "d4")).as_bytes()).unwrap()
}

#[test]
fn a_fingerprint_is_hmac_of_domain_and_value_by_each_key() {
    let both = keys().of("hunter22-hunter22");
    assert_eq!(both.iter().map(Fingerprint::kid).collect::<Vec<_>>(), ["k2", "k1"]);
    // By OpenSSL: printf 'curfew.fingerprint.v1\0hunter22-hunter22' | openssl dgst -sha256 -mac HMAC -macopt hexkey:…
    assert_eq!(both[0].digits(), "efc505cffe64dbe82d10f9b4146042cdd4422095f51b2224e6fdc7938b3fa996");
    assert_ne!(both[0].digits(), both[1].digits());
    for same in [" hunter22-hunter22\n", "'hunter22-hunter22'", "\" `hunter22-hunter22` \""] {
        assert_eq!(keys().of(same), both, "{same}");
    }
    for other in ["Hunter22-hunter22", "hunter22-hunter22'", "hunter22 -hunter22"] {
        assert_ne!(keys().of(other), both, "{other}");
    }
}

#[test]
fn what_is_no_secret_is_not_fingerprinted() {
    for (value, why) in [
        ("", Unusable::Empty),
        (" \n\"\"", Unusable::Empty),
        ("hunter2", Unusable::Short),
        ("REDACTED", Unusable::Masked),
        ("<redacted>", Unusable::Masked),
        ("[REDACTED]", Unusable::Masked),
        ("***Filtered***", Unusable::Masked),
        ("AKIAIOSF...", Unusable::Masked),
        ("ghp_abcdef…", Unusable::Masked),
        ("...", Unusable::Masked),
        ("***", Unusable::Masked),
        ("********************", Unusable::Masked),
        ("ghp_************abcd", Unusable::Masked),
        ("xxxxXXXX-xxxx.XXXX", Unusable::Masked),
        ("sk-xxxxxxxxxxxx", Unusable::Masked),
        ("AAAAAAAAAAAAAAAA", Unusable::Masked),
        ("••••••••", Unusable::Masked),
    ] {
        assert_eq!(usable(value), Err(why), "{value}");
        assert!(keys().of(value).is_empty());
    }
    for value in ["changeme", "password", "correct horse", "redacted-by-nobody", "a***b***c", "exxon-xxx-box"] {
        assert_eq!(usable(value), Ok(value));
    }
}

#[test]
fn texts_of_fingerprints() {
    let digits = "0f".repeat(32);
    let text = format!("k-1._:{digits}");
    let one = Fingerprint::parse(&text).unwrap();
    assert_eq!((one.to_string(), format!("{one:?}"), one.kid()), (text.clone(), text.clone(), "k-1._"));
    assert_eq!(serde_json::from_str::<Fingerprint>(&serde_json::to_string(&one).unwrap()).unwrap(), one);
    assert_eq!(text.parse(), Ok(one));
    for (bad, why) in [
        (digits.clone(), Malformed::Shape),
        (format!(":{digits}"), Malformed::Kid),
        (format!("K1:{digits}"), Malformed::Kid),
        (format!("{}:{digits}", "k".repeat(33)), Malformed::Kid),
        (format!("k1:{}", &digits[1..]), Malformed::Digits),
        (format!("k1:{}", digits.to_uppercase()), Malformed::Digits),
        (format!("k1:{digits}0"), Malformed::Digits),
        ("k1:".to_owned(), Malformed::Digits),
    ] {
        assert_eq!(Fingerprint::parse(&bad), Err(why), "{bad}");
    }
}

#[test]
fn a_key_file_that_is_wrong_is_not_quoted() {
    let base64 = "w7Hwp8Ox8KfDsfCnw7Hwp8Ox8KfDsfCnw7Hwp8Ox8Kc=";
    let same = |text: &str| Keys::parse(text.as_bytes()).map(|keys| keys.of("a secret value"));
    assert_eq!(same(&format!("k1 {base64}")).unwrap(), same(&format!("k1\t{KEY}\r\n")).unwrap());
    for (text, why) in [
        (String::new(), BadContent::Empty),
        ("# k1\n".to_owned(), BadContent::Empty),
        (KEY.to_owned(), BadContent::Shape { line: 1 }),
        (format!("\nk1 {KEY} x"), BadContent::Shape { line: 2 }),
        (format!("K1 {KEY}"), BadContent::Kid { line: 1 }),
        (format!("k1 {}", &KEY[2..]), BadContent::Short { line: 1 }),
        (format!("k1 {KEY}!"), BadContent::Encoding { line: 1 }),
        (format!("k1 {KEY}\nk1 {KEY}"), BadContent::Twice { line: 2 }),
        (format!("k1 vault:v1:{base64}"), BadContent::Locked { line: 1 }),
        (format!("k2 {KEY}\nk1 vault:v12:{base64}"), BadContent::Locked { line: 2 }),
        (format!("k1 vault:v1:{base64}\nk1 {KEY}"), BadContent::Twice { line: 2 }),
        (format!("k1 vault:{base64}"), BadContent::NotWrapped { line: 1 }),
        (format!("k1 vault:v:{base64}"), BadContent::NotWrapped { line: 1 }),
        (format!("k1 vault:v1:{base64}:x"), BadContent::NotWrapped { line: 1 }),
        ("k1 vault:v1:".to_owned(), BadContent::NotWrapped { line: 1 }),
        (format!("k1 {KEY}\nk2 {KEY}\nk3 {KEY}"), BadContent::TooMany { line: 3 }),
    ] {
        let found = same(&text).unwrap_err();
        assert_eq!(found, why, "{text}");
        assert!(!format!("{found} {found:?}").contains(&KEY[..12]));
    }
    assert_eq!(Keys::parse(b"\xff").unwrap_err(), BadContent::NoText);
    assert_eq!(format!("{:?}", keys()), "Keys([\"k2\", \"k1\"])");
}

#[test]
fn keys_are_made_kept_and_dropped_in_a_file_of_their_owner() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys");
    assert!(matches!(Keys::read(&path), Err(BadKeys::File { .. })));
    let first = new_key(&path, false, None).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let by_first = Keys::read(&path).unwrap().of("a secret value");
    let second = new_key(&path, false, None).unwrap();
    assert_eq!((second.kept.as_ref(), second.dropped.as_ref()), (Some(&first.kid), None));
    let keys = Keys::read(&path).unwrap();
    assert_eq!(keys.kids().collect::<Vec<_>>(), [&second.kid, &first.kid]);
    assert_eq!(keys.of("a secret value")[1], by_first[0], "the older one goes on");
    assert!(new_key(&path, false, None).unwrap_err().to_string().contains("at most 2 keys"));
    let third = new_key(&path, true, None).unwrap();
    assert_eq!((third.kept, third.dropped), (Some(second.kid.clone()), Some(first.kid)));
    assert_eq!(Keys::read(&path).unwrap().kids().collect::<Vec<_>>(), [&third.kid, &second.kid]);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing half-made is left");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
    assert!(Keys::read(&path).unwrap_err().to_string().contains("chmod 600"));
    assert!(matches!(new_key(&path, true, None), Err(BadKeys::Open { .. })));
}

#[test]
fn a_file_of_keys_that_somebody_wrote_meanwhile_is_left_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys");
    new_key(&path, false, None).unwrap();
    let read = std::fs::read(&path).unwrap();
    // Between the reading and the writing there is a new key.
    new_key(&path, false, None).unwrap();
    let now = std::fs::read(&path).unwrap();
    let lost = file::replace(&path, &read, b"k1 what was made of it\n").unwrap_err();
    assert!(matches!(lost, BadKeys::Changed { .. }), "{lost}");
    assert_eq!(std::fs::read(&path).unwrap(), now);
    file::replace(&path, &now, &read).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), read);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing half-made is left");
}

proptest! {
    #[test]
    fn no_key_file_panics_and_none_is_quoted(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        text in "(k[0-9]{0,2} [a-f0-9]{60,70}[=\\- ]{0,2}\n?){0,4}",
    ) {
        for content in [&bytes[..], text.as_bytes()] {
            match Keys::parse(content) {
                Ok(keys) => prop_assert!((1..=2).contains(&keys.of("a secret value").len())),
                Err(why) => {
                    let said = format!("{why} {why:?}");
                    for word in text.split_whitespace().filter(|word| word.len() > 8) {
                        prop_assert!(!said.contains(word));
                    }
                }
            }
        }
    }

    #[test]
    fn normalising_twice_is_once(value in "[ \"'`*xa-c.…]{0,12}|\\PC{0,30}") {
        if let Ok(once) = usable(&value) {
            prop_assert_eq!(usable(once), Ok(once));
            prop_assert!(!keys().of(&value).is_empty());
        }
    }

    #[test]
    fn no_text_panics_as_a_fingerprint(text in "\\PC{0,80}", near in "[a-zA-Z0-9]{0,3}:[0-9a-f]{62,66}") {
        for text in [text, near] {
            if let Ok(read) = Fingerprint::parse(&text) {
                prop_assert_eq!(read.to_string(), text);
            }
        }
    }
}

//! RFC 3339 to UTC milliseconds.
//!
//! By hand, because `jiff::Timestamp` ends at 9999-12-30T22:00Z, so that the common spelling of "never",
//! `9999-12-31T23:59:59Z`, would be malformed instead of far away; a deadline like that is clamped, not rejected.
//! The tests hold it against `jiff`.

/// 2000-01-01T00:00:00Z: no clock of a living system showed less.
const YEAR_2000_MS: i64 = 946_684_800_000;
/// 100 years.
const CENTURY_MS: i64 = 36_525 * 86_400_000;

/// Whether a clock can have shown `ms` when the broker's showed `broker_ms`.
pub(super) fn is_plausible(ms: i64, broker_ms: i64) -> bool {
    is_recent(ms) && ms <= broker_ms.saturating_add(CENTURY_MS)
}

/// Whether `ms` lies in 2000 or later, however far.
pub(super) fn is_recent(ms: i64) -> bool {
    ms >= YEAR_2000_MS
}

/// `YYYY-MM-DDThh:mm:ss[.fraction](Z|±hh:mm)`; a leap second counts as the second before it.
pub(super) fn parse(text: &str) -> Option<i64> {
    let b = text.as_bytes();
    let sep = |at: usize, any: &[u8]| b.get(at).is_some_and(|c| any.contains(c));
    if !(sep(4, b"-") && sep(7, b"-") && sep(10, b"Tt") && sep(13, b":") && sep(16, b":")) {
        return None;
    }
    let (year, month, day) = (number(b, 0, 4)?, number(b, 5, 2)?, number(b, 8, 2)?);
    let (hour, minute, second) = (number(b, 11, 2)?, number(b, 14, 2)?, number(b, 17, 2)?);
    if !(1..=12).contains(&month) || day < 1 || day > days_in(year, month) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let (millis, rest) = fraction(&b[19..])?;
    let offset_min = match rest {
        b"Z" | b"z" => 0,
        [sign @ (b'+' | b'-'), zone @ ..] if zone.len() == 5 && zone[2] == b':' => {
            let (hours, minutes) = (number(zone, 0, 2)?, number(zone, 3, 2)?);
            if hours > 23 || minutes > 59 {
                return None;
            }
            (hours * 60 + minutes) * if *sign == b'-' { -1 } else { 1 }
        }
        _ => return None,
    };
    let minutes = (days_since_1970(year, month, day) * 24 + hour) * 60 + minute - offset_min;
    Some((minutes * 60 + second.min(59)) * 1000 + millis)
}

/// Whether it is a time but for its zone.
pub(super) fn lacks_zone(text: &str) -> bool {
    // So many have a date and a time to the second; shorter ones are none with a zone either.
    text.len() >= 19 && text.len() <= 64 && parse(text).is_none() && parse(&format!("{text}Z")).is_some()
}

fn number(b: &[u8], from: usize, len: usize) -> Option<i64> {
    b.get(from..from + len)?.iter().try_fold(0, |n, c| c.is_ascii_digit().then(|| n * 10 + i64::from(c - b'0')))
}

/// The milliseconds after the point, cut, and what follows.
fn fraction(b: &[u8]) -> Option<(i64, &[u8])> {
    let Some(rest) = b.strip_prefix(b".") else { return Some((0, b)) };
    let digits = rest.iter().take_while(|c| c.is_ascii_digit()).count();
    if digits == 0 {
        return None;
    }
    let kept = number(rest, 0, digits.min(3))?;
    Some((kept * [100, 10, 1][digits.min(3) - 1], &rest[digits..]))
}

fn days_in(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Howard Hinnant's `days_from_civil`: the year begins in March, so that the leap day is its last.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

//! Points in time, as people write them: `2026-11-01T00:00Z`. Printed as RFC 3339, in UTC, with
//! milliseconds, which is as exact as a record's timestamp is.
//!
//! Pure: the caller says what time it is now.

use std::time::{Duration, SystemTime};

const DAY_SECONDS: i64 = 86_400;

/// Parses a date with or without a time of the day: `2026-11-01`, `2026-11-01T12:30Z`,
/// `2026-11-01T12:30:15.250+01:00`. A date alone begins at midnight, UTC. A time of the day needs
/// its zone: on a server the local one is rarely what the reader of a log expects.
pub(crate) fn parse_time(text: &str) -> Result<SystemTime, String> {
    let malformed = || "write a time as 2026-11-01, 2026-11-01T12:30Z or 2026-11-01T12:30+01:00";
    let (date, time) = match text.split_once(['T', 't', ' ']) {
        Some((date, time)) => (date, Some(time)),
        None => (text, None),
    };
    let midnight = parse_date(date).ok_or_else(malformed)?;
    let of_day = match time {
        None => Duration::ZERO,
        Some(time) => {
            let (time, zone) = split_zone(time).ok_or_else(|| {
                "the time has no zone: add Z for UTC, or for example +01:00".to_owned()
            })?;
            let time = parse_time_of_day(time).ok_or_else(malformed)?;
            let seconds = midnight.checked_sub(zone).ok_or_else(malformed)?;
            return since_epoch(seconds, time).ok_or_else(|| malformed().to_owned());
        }
    };
    since_epoch(midnight, of_day).ok_or_else(|| malformed().to_owned())
}

fn since_epoch(seconds: i64, more: Duration) -> Option<SystemTime> {
    let whole = Duration::from_secs(seconds.unsigned_abs());
    let epoch = SystemTime::UNIX_EPOCH;
    let time = if seconds < 0 { epoch.checked_sub(whole) } else { epoch.checked_add(whole) };
    time?.checked_add(more)
}

/// The seconds from the beginning of 1970 to midnight of a date, `2026-11-01`.
fn parse_date(text: &str) -> Option<i64> {
    let (year, rest) = text.split_once('-')?;
    let (month, day) = rest.split_once('-')?;
    let (year, month, day) = (digits(year, 4)?, digits(month, 2)?, digits(day, 2)?);
    let is_valid = (1..=12).contains(&month) && (1..=days_of_month(year, month)).contains(&day);
    is_valid.then(|| days_from_date(year, month, day) * DAY_SECONDS)
}

/// `12:30` or `12:30:15.250`.
fn parse_time_of_day(text: &str) -> Option<Duration> {
    let (hours, rest) = text.split_once(':')?;
    let (minutes, seconds) = rest.split_once(':').unwrap_or((rest, "00"));
    let (seconds, fraction) = seconds.split_once('.').unwrap_or((seconds, "0"));
    let (hours, minutes) = (digits(hours, 2)?, digits(minutes, 2)?);
    let (seconds, nanos) = (digits(seconds, 2)?, nanos(fraction)?);
    let is_valid = hours < 24 && minutes < 60 && seconds < 60;
    let total = u64::try_from(hours * 3_600 + minutes * 60 + seconds).ok()?;
    is_valid.then(|| Duration::new(total, nanos))
}

/// A fraction of a second, of at most nine digits.
fn nanos(fraction: &str) -> Option<u32> {
    let is_valid =
        (1..=9).contains(&fraction.len()) && fraction.bytes().all(|it| it.is_ascii_digit());
    is_valid.then(|| format!("{fraction:0<9}").parse().ok()).flatten()
}

/// Splits `12:30+01:00` into the time and the seconds that its zone is ahead of UTC.
fn split_zone(text: &str) -> Option<(&str, i64)> {
    if let Some(time) = text.strip_suffix(['Z', 'z']) {
        return Some((time, 0));
    }
    let at = text.rfind(['+', '-'])?;
    let (time, zone) = text.split_at(at);
    let sign = if zone.starts_with('-') { -1 } else { 1 };
    let (hours, minutes) = zone.get(1..)?.split_once(':')?;
    let (hours, minutes) = (digits(hours, 2)?, digits(minutes, 2)?);
    (hours < 24 && minutes < 60).then_some((time, sign * (hours * 3_600 + minutes * 60)))
}

fn digits(text: &str, count: usize) -> Option<i64> {
    let is_valid = text.len() == count && text.bytes().all(|it| it.is_ascii_digit());
    is_valid.then(|| text.parse().ok()).flatten()
}

fn days_of_month(year: i64, month: i64) -> i64 {
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    match month {
        2 if is_leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days since the beginning of 1970 in the Gregorian calendar. Years are counted from March, so
/// that the day that a leap year adds is the last of its year; 400 years have 146,097 days.
fn days_from_date(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// Year, month and day: the inverse of [`days_from_date`].
fn date_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year + i64::from(month <= 2), month, day)
}

/// `2026-11-01T00:00:00.000Z`. A time before 1970, which no record has, is shown as the beginning
/// of 1970.
pub(crate) fn show_time(time: SystemTime) -> String {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let seconds = i64::try_from(since.as_secs()).unwrap_or(i64::MAX);
    let (year, month, day) = date_from_days(seconds / DAY_SECONDS);
    let of_day = seconds % DAY_SECONDS;
    let (hours, minutes, seconds) = (of_day / 3_600, of_day / 60 % 60, of_day % 60);
    let millis = since.subsec_millis();
    format!("{year:04}-{month:02}-{day:02}T{hours:02}:{minutes:02}:{seconds:02}.{millis:03}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn millis(text: &str) -> i128 {
        match parse_time(text).unwrap().duration_since(SystemTime::UNIX_EPOCH) {
            Ok(since) => i128::try_from(since.as_millis()).unwrap(),
            Err(before) => -i128::try_from(before.duration().as_millis()).unwrap(),
        }
    }

    #[test]
    fn times_are_parsed() {
        for (text, expected) in [
            ("1970-01-01", 0),
            ("2026-11-01", 1_793_491_200_000),
            ("2026-11-01T00:00Z", 1_793_491_200_000),
            ("2026-11-01 00:00:00.5z", 1_793_491_200_500),
            ("2026-11-01T01:00+01:00", 1_793_491_200_000),
            ("2026-10-31T19:30-04:30", 1_793_491_200_000),
            ("2000-02-29T23:59:59Z", 951_868_799_000),
            ("1969-12-31T23:59:59.500Z", -500),
        ] {
            assert_eq!(millis(text), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in [
            "",
            "2026",
            "2026-11",
            "2026-13-01",
            "2026-02-29",
            "2026-11-00",
            "2026-11-31",
            "26-11-01",
            "2026-11-01T",
            "2026-11-01T24:00Z",
            "2026-11-01T12Z",
            "2026-11-01T12:60Z",
            "2026-11-01T12:30:15.Z",
            "2026-11-01T12:30:15.0123456789Z",
            "2026-11-01T12:30+1:00",
            "2026-11-01T12:30+01",
            "+026-11-01",
            "2026-11-01T12:30Z ",
            "9d",
        ] {
            assert!(parse_time(text).is_err(), "{text}");
        }
        let error = parse_time("2026-11-01T12:30").unwrap_err();
        assert!(error.contains("zone"), "{error}");
    }

    #[test]
    fn times_are_printed_as_they_are_parsed() {
        // Every day of 800 years from 1970 on, twice the period of the calendar.
        for day in 0..292_194_u64 {
            let time =
                SystemTime::UNIX_EPOCH + Duration::from_millis(day * 86_400_000 + 45_296_789);
            let shown = show_time(time);
            assert_eq!(parse_time(&shown), Ok(time), "{shown}");
        }
        assert_eq!(show_time(SystemTime::UNIX_EPOCH), "1970-01-01T00:00:00.000Z");
        let before = SystemTime::UNIX_EPOCH - Duration::from_secs(1);
        assert_eq!(show_time(before), "1970-01-01T00:00:00.000Z");
    }
}

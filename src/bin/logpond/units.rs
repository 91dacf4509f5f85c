//! Sizes, durations and counts, as people write and read them: `64MiB`, `7d`, `1,204,311`.
//!
//! Pure. Written here rather than taken from a package: the packages for it bring time zones, or
//! print what they do not parse.

use std::fmt::Write;
use std::time::Duration;

const KIB: u64 = 1 << 10;

/// The units of a size, from large to small. The decimal ones are parsed and never printed.
const SIZES: [(&str, u64); 9] = [
    ("TiB", KIB * KIB * KIB * KIB),
    ("GiB", KIB * KIB * KIB),
    ("MiB", KIB * KIB),
    ("KiB", KIB),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("B", 1),
];

/// The units of a duration in milliseconds, from long to short.
const DURATIONS: [(&str, u64); 6] = [
    ("w", 604_800_000),
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

/// Parses `64MiB`, `1GB`, `512B` or `none`, which is no limit.
pub(crate) fn parse_size(text: &str) -> Result<u64, String> {
    if text == "none" {
        return Ok(u64::MAX);
    }
    let (number, unit) = split_number(text);
    let unit = unit.trim_start();
    let found = SIZES.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit));
    let size = found.and_then(|(_, bytes)| number.parse::<u64>().ok()?.checked_mul(*bytes));
    size.ok_or_else(|| "write a number and a unit, for example 64MiB, 1GB or 512B".to_owned())
}

/// Parses `7d`, `1h30m`, `500ms` or `forever`.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    if text == "forever" {
        return Ok(Duration::MAX);
    }
    let total = duration_millis(text).filter(|_| !text.is_empty());
    let total = total.map(Duration::from_millis);
    total.ok_or_else(|| {
        "write numbers with the units w, d, h, m, s and ms, for example 7d or 1h30m".to_owned()
    })
}

fn duration_millis(mut text: &str) -> Option<u64> {
    let mut total = 0_u64;
    while !text.is_empty() {
        let (number, rest) = split_number(text);
        let end = rest.find(|character: char| !character.is_ascii_alphabetic());
        let (unit, rest) = rest.split_at(end.unwrap_or(rest.len()));
        let (_, millis) = DURATIONS.iter().find(|(name, _)| *name == unit)?;
        total = total.checked_add(number.parse::<u64>().ok()?.checked_mul(*millis)?)?;
        text = rest;
    }
    Some(total)
}

/// The digits at the beginning of a text, and the rest.
fn split_number(text: &str) -> (&str, &str) {
    let end = text.find(|character: char| !character.is_ascii_digit());
    text.split_at(end.unwrap_or(text.len()))
}

/// A size in the largest unit that it fills, with one digit after the point unless that is zero.
pub(crate) fn show_size(bytes: u64) -> String {
    if bytes == u64::MAX {
        return "none".to_owned();
    }
    let binary = SIZES.iter().filter(|(name, _)| name.ends_with("iB"));
    let Some((name, unit)) = binary.into_iter().find(|(_, unit)| bytes >= *unit) else {
        return format!("{bytes}B");
    };
    let tenths = u128::from(bytes) * 10 / u128::from(*unit);
    let (whole, tenth) = (tenths / 10, tenths % 10);
    if tenth == 0 { format!("{whole}{name}") } else { format!("{whole}.{tenth}{name}") }
}

/// A duration in its two largest units; `forever` for the longest there is.
pub(crate) fn show_duration(duration: Duration) -> String {
    if duration == Duration::MAX {
        return "forever".to_owned();
    }
    let mut rest = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let (mut shown, mut parts) = (String::new(), 0);
    for (name, unit) in DURATIONS.iter().filter(|(name, _)| *name != "w") {
        let count = rest / unit;
        if count > 0 && parts < 2 {
            let _ = write!(shown, "{count}{name}");
            parts += 1;
        }
        rest %= unit;
    }
    if shown.is_empty() { "0s".to_owned() } else { shown }
}

/// A number and a noun: `1 line`, `2 lines`.
pub(crate) fn counted(count: u64, noun: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{} {noun}{plural}", show_count(count))
}

/// A number with a comma between groups of three digits.
pub(crate) fn show_count(count: u64) -> String {
    let digits = count.to_string();
    let mut shown = String::new();
    for (at, digit) in digits.char_indices() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            shown.push(',');
        }
        shown.push(digit);
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_parsed_and_printed() {
        for (text, bytes) in
            [("64MiB", 64 << 20), ("64 mib", 64 << 20), ("1GB", 1_000_000_000), ("512B", 512)]
        {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        assert_eq!(parse_size("none"), Ok(u64::MAX));
        for text in ["", "64", "MiB", "64M", "1.5GiB", "-1B", "99999999TiB", "64MiB "] {
            assert!(parse_size(text).is_err(), "{text}");
        }
        for (bytes, text) in [
            (0, "0B"),
            (1023, "1023B"),
            (1024, "1KiB"),
            (1536, "1.5KiB"),
            (64 << 20, "64MiB"),
            (u64::MAX - 1, "16777215.9TiB"),
            (u64::MAX, "none"),
        ] {
            assert_eq!(show_size(bytes), text);
        }
    }

    #[test]
    fn durations_are_parsed_and_printed() {
        for (text, seconds) in
            [("7d", 604_800), ("1w", 604_800), ("1h30m", 5_400), ("90s", 90), ("0s", 0)]
        {
            assert_eq!(parse_duration(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_duration("forever"), Ok(Duration::MAX));
        for text in ["", "7", "d", "7 d", "7y", "-1d", "1h-", "99999999999999999999d", "7dd"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
        for (millis, text) in [
            (0, "0s"),
            (604_800_000, "7d"),
            (5_400_000, "1h30m"),
            (90_061_000, "1d1h"),
            (1_500, "1s500ms"),
        ] {
            assert_eq!(show_duration(Duration::from_millis(millis)), text);
        }
        assert_eq!(show_duration(Duration::MAX), "forever");
    }

    #[test]
    fn counts_are_grouped() {
        for (count, text) in [(0, "0"), (999, "999"), (1_000, "1,000"), (1_204_311, "1,204,311")] {
            assert_eq!(show_count(count), text);
        }
        let lines = [0, 1, 2].map(|count| counted(count, "line"));
        assert_eq!(lines, ["0 lines", "1 line", "2 lines"]);
    }
}

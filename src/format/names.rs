//! Names: which ones are allowed, and what files and directories are called.
//!
//! Owns: the rules for topic names and labels, and the exact spelling of segment files and
//! partition directories. Only topic names become paths; labels (group, producer and instance ids)
//! never do. Every `parse_*` accepts exactly what its counterpart writes, so that an editor's
//! backup or a foreign file is never taken for a segment. Pure; called from any thread.

use crate::error::NameError;

/// LIMIT: 255 bytes are what a directory entry holds; Kafka's 249 leaves room for a suffix.
const TOPIC_BYTES_MAX: usize = 249;

/// LIMIT: long enough for any host name with a prefix, short enough for one small allocation.
const LABEL_BYTES_MAX: usize = 255;

/// What the engine's own topics begin with.
const INTERNAL_PREFIX: &str = "__";

const SEGMENT_SUFFIX: &str = ".log";
const TEMPORARY_SUFFIX: &str = ".tmp";

/// LIMIT: `u64::MAX` has 20 digits; with leading zeroes names sort as their numbers do.
const SEGMENT_DIGITS: usize = 20;

/// Checks a user's topic name: `[A-Za-z0-9._-]{1,249}`, not `.` or `..`, not reserved.
pub(crate) fn validate_topic(name: &str) -> Result<(), NameError> {
    validate_path_component(name)?;
    if name.starts_with(INTERNAL_PREFIX) {
        return Err(NameError::Reserved);
    }
    Ok(())
}

fn validate_path_component(name: &str) -> Result<(), NameError> {
    if name.is_empty() {
        return Err(NameError::Empty);
    }
    if name.len() > TOPIC_BYTES_MAX {
        return Err(NameError::TooLong { limit: TOPIC_BYTES_MAX });
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if let Some(refused) = name.chars().find(|c| !allowed(*c)) {
        return Err(NameError::Character(refused));
    }
    if name == "." || name == ".." {
        return Err(NameError::Directory);
    }
    Ok(())
}

/// Checks the id of a group, a producer or a static member: 1 to 255 bytes of UTF-8.
pub(crate) fn validate_label(label: &str) -> Result<(), NameError> {
    if label.is_empty() {
        return Err(NameError::Empty);
    }
    if label.len() > LABEL_BYTES_MAX {
        return Err(NameError::TooLong { limit: LABEL_BYTES_MAX });
    }
    Ok(())
}

/// `00000000000000000007.log`
pub(crate) fn segment_file_name(number: u64) -> String {
    format!("{number:0SEGMENT_DIGITS$}{SEGMENT_SUFFIX}")
}

/// The number of a segment file, if this is exactly a segment file's name.
pub(crate) fn parse_segment_file_name(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(SEGMENT_SUFFIX)?;
    if digits.len() != SEGMENT_DIGITS || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok()
}

/// The name of a segment file while it is prepared: `00000000000000000007.log.tmp`
pub(crate) fn temporary_segment_file_name(number: u64) -> String {
    segment_file_name(number) + TEMPORARY_SUFFIX
}

/// The number of a segment file in preparation, if this is exactly such a file's name.
pub(crate) fn parse_temporary_segment_file_name(name: &str) -> Option<u64> {
    parse_segment_file_name(name.strip_suffix(TEMPORARY_SUFFIX)?)
}

/// The name of a spare file of an internal log: `spare-0`
pub(crate) fn spare_file_name(number: usize) -> String {
    format!("spare-{number}")
}

/// The directory of a partition within its topic's: its number in decimal.
pub(crate) fn partition_dir_name(partition: u32) -> String {
    partition.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topic_names_are_safe_path_components() {
        let longest = "x".repeat(249);
        for good in ["a", "orders.v2", "A_b-c", "...", "_x", longest.as_str()] {
            assert_eq!(validate_topic(good), Ok(()), "{good}");
        }
        let too_long = "x".repeat(250);
        let bad = [
            ("", NameError::Empty),
            (too_long.as_str(), NameError::TooLong { limit: 249 }),
            (".", NameError::Directory),
            ("..", NameError::Directory),
            ("../x", NameError::Character('/')),
            ("a\0", NameError::Character('\0')),
            ("a b", NameError::Character(' ')),
            ("p\u{430}y", NameError::Character('\u{430}')),
            ("__meta", NameError::Reserved),
        ];
        for (name, reason) in bad {
            assert_eq!(validate_topic(name), Err(reason), "{name:?}");
        }
    }

    #[test]
    fn labels_are_bounded_and_otherwise_free() {
        assert_eq!(validate_label("../../etc/\u{1f600}"), Ok(()));
        assert_eq!(validate_label(""), Err(NameError::Empty));
        assert_eq!(validate_label(&"x".repeat(255)), Ok(()));
        assert_eq!(validate_label(&"x".repeat(256)), Err(NameError::TooLong { limit: 255 }));
    }

    #[test]
    fn segment_names_parse_back_and_nothing_else_does() {
        for number in [0, 7, u64::MAX] {
            let name = segment_file_name(number);
            assert_eq!(parse_segment_file_name(&name), Some(number));
            assert_eq!(parse_temporary_segment_file_name(&name), None);
            let temporary = temporary_segment_file_name(number);
            assert_eq!(parse_temporary_segment_file_name(&temporary), Some(number));
            assert_eq!(parse_segment_file_name(&temporary), None);
        }
        assert_eq!(segment_file_name(7), "00000000000000000007.log");
        let bad = [
            "",
            ".log",
            "7.log",
            "+0000000000000000007.log",
            "00000000000000000007.log~",
            "00000000000000000007.LOG",
            "000000000000000000007.log",
            "99999999999999999999.log",
            ".00000000000000000007.log.swp",
        ];
        for name in bad {
            assert_eq!(parse_segment_file_name(name), None, "{name}");
        }
    }
}

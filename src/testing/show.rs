//! Records and logs as text, for messages of assertions.
//!
//! Pure: values in, text out. Must not know: brokers.

use std::fmt;

use crate::message::Message;
use crate::topic::Topic;

/// LIMIT: how much of a key, a value or a header is shown: enough to recognise it.
const SHOWN: usize = 64;

/// The records of a topic, one per line: offset, key, value and headers, as text where they are
/// text, and in hexadecimal elsewhere.
pub(super) struct Log<'a> {
    pub(super) topic: &'a Topic,
    pub(super) messages: &'a [Message],
}

impl fmt::Display for Log<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for partition in self.topic.iter() {
            let (name, number) = (self.topic.name(), partition.number());
            let (start, end) = (partition.log_start_offset(), partition.log_end_offset());
            writeln!(f, "{name}-{number}: offsets from {start}, next {end}")?;
            for message in self.messages.iter().filter(|it| it.partition() == number) {
                writeln!(f, "  {}", Line(message))?;
            }
        }
        Ok(())
    }
}

/// One record.
struct Line<'a>(&'a Message);

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let message = self.0;
        write!(f, "{}", message.offset())?;
        if let Some(key) = message.key() {
            write!(f, "  key {}", Data(key))?;
        }
        match message.value() {
            Some(value) => write!(f, "  value {}", Data(value))?,
            None => f.write_str("  tombstone")?,
        }
        for (name, value) in message.headers() {
            write!(f, "  {name}: {}", Data(value))?;
        }
        Ok(())
    }
}

/// Bytes: text in quotation marks, or hexadecimal.
pub(super) struct Data<'a>(pub(super) &'a [u8]);

impl fmt::Display for Data<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = std::str::from_utf8(self.0).ok();
        let text = text.filter(|text| !text.chars().any(char::is_control));
        let is_cut = if let Some(text) = text {
            let shown: String = text.chars().take(SHOWN).collect();
            write!(f, "{shown:?}")?;
            shown.len() < text.len()
        } else {
            f.write_str("0x")?;
            self.0.iter().take(SHOWN / 2).try_for_each(|byte| write!(f, "{byte:02x}"))?;
            self.0.len() > SHOWN / 2
        };
        if is_cut { write!(f, ".. ({} bytes)", self.0.len()) } else { Ok(()) }
    }
}

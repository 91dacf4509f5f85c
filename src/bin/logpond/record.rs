//! How `tail` shows a record: as a line of text, as a line of JSON, or as a hexadecimal dump.

use std::fmt::Write;
use std::io;

use clap::ValueEnum;
use logpond::MessageRef;

use crate::failure::Failure;
use crate::tail::{Notice, TailedRecord};
use crate::text::{escape, escape_bytes, escape_json, hex_lines};
use crate::time::show_time;

/// What a record is printed as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// A line: partition, offset, time, key, value and headers, with tabs between them
    Text,
    /// A line with a JSON object
    Json,
    /// A hexadecimal dump of key, value and headers
    Hex,
}

/// One record, complete with the end of its last line.
pub(crate) fn show_record(message: &MessageRef<'_>, format: Format) -> Result<String, Failure> {
    Ok(match format {
        Format::Text => text(message),
        Format::Hex => hex(message),
        Format::Json => {
            let json = serde_json::to_string(&TailedRecord::new(message)).map_err(io::Error::from);
            let mut json = escape_json(&json.map_err(Failure::output)?);
            json.push('\n');
            json
        }
    })
}

fn text(message: &MessageRef<'_>) -> String {
    let key = message.key().map_or(String::new(), escape_bytes);
    let value = message.value().map_or_else(|| "(tombstone)".to_owned(), escape_bytes);
    let (partition, offset) = (message.partition(), message.offset());
    let time = show_time(message.timestamp());
    let mut line = format!("{partition}\t{offset}\t{time}\t{key}\t{value}");
    for (name, value) in message.headers() {
        let _ = write!(line, "\t{}={}", escape(name), escape_bytes(value));
    }
    line.push('\n');
    line
}

fn hex(message: &MessageRef<'_>) -> String {
    let (origin, offset) = (message.topic_partition(), message.offset());
    let mut shown = format!("{origin} {offset} {}\n", show_time(message.timestamp()));
    dump(&mut shown, "key", message.key());
    dump(&mut shown, "value", message.value());
    for (name, value) in message.headers() {
        dump(&mut shown, &format!("header {}", escape(name)), Some(value));
    }
    shown
}

fn dump(shown: &mut String, name: &str, bytes: Option<&[u8]>) {
    let size = bytes.map_or_else(|| "none".to_owned(), |bytes| format!("{} bytes", bytes.len()));
    let _ = writeln!(shown, "  {name}: {size}");
    for line in hex_lines(bytes.unwrap_or_default()) {
        let _ = writeln!(shown, "    {line}");
    }
}

/// What is said of a notice. Names of topics need no escape.
pub(crate) fn show_notice(notice: &Notice) -> String {
    match notice {
        Notice::Missing { partition, start, end } => format!(
            "{partition}: offsets {start}..{end} are missing: they were removed, or are damaged"
        ),
        Notice::LeftOut { partition, reason } => format!("{partition} is left out: {reason}"),
        Notice::Back { partition } => format!("{partition} can be read again"),
        Notice::Cut { partition, end } => {
            format!("{partition} was cut to offset {end}: what follows was appended after that")
        }
        Notice::Anew { topic } => {
            format!("topic {topic} is another one now: what follows begins at its first record")
        }
    }
}

//! The states that a search has seen: by the state of the members, the messages that were sent.
//!
//! Owns: sets of messages, packed. Must not know: what the messages are.

use super::numbers::Map;

/// Sets of messages, of which none has all of another, for each state of the members.
#[derive(Debug, Default)]
pub(super) struct Known {
    of: Map<u128, Vec<Packed>>,
}

/// Rising numbers, packed: the distances, in as many bytes as each needs.
type Packed = Box<[u8]>;

impl Known {
    /// Adds a set, unless a known one has all of its messages. Those that it has all of are dropped.
    pub(super) fn add(&mut self, members: u128, messages: &[u32]) -> bool {
        let sets = self.of.entry(members).or_default();
        if sets.iter().any(|set| has_all(&mut unpack(set), messages)) {
            return false;
        }
        sets.retain(|set| !is_within(set, messages));
        sets.reserve_exact(1);
        sets.push(pack(messages));
        true
    }

    /// A set that was added is still there: none came since that has more.
    pub(super) fn has(&self, members: u128, messages: &[u32]) -> bool {
        let packed = pack(messages);
        self.of.get(&members).is_some_and(|sets| sets.contains(&packed))
    }
}

fn pack(numbers: &[u32]) -> Packed {
    let mut bytes = Vec::with_capacity(numbers.len() * 2);
    let mut last = 0;
    for number in numbers {
        let mut more = number - last;
        last = *number;
        while more >= 0x80 {
            bytes.push(u8::try_from(more & 0x7F).unwrap() | 0x80);
            more >>= 7;
        }
        bytes.push(u8::try_from(more).unwrap());
    }
    bytes.into()
}

fn unpack(bytes: &[u8]) -> impl Iterator<Item = u32> {
    let mut bytes = bytes.iter();
    let mut last = 0;
    std::iter::from_fn(move || {
        let (mut more, mut shift) = (0, 0);
        loop {
            let byte = *bytes.next()?;
            more |= u32::from(byte & 0x7F) << shift;
            if byte < 0x80 {
                last += more;
                return Some(last);
            }
            shift += 7;
        }
    })
}

/// Both rise.
fn has_all(large: &mut impl Iterator<Item = u32>, small: &[u32]) -> bool {
    small.iter().all(|number| large.find(|other| other >= number) == Some(*number))
}

fn is_within(small: &[u8], large: &[u32]) -> bool {
    let mut large = large.iter();
    unpack(small).all(|number| large.find(|other| **other >= number) == Some(&number))
}

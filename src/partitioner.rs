//! Chooses the partition of a record for which the sender named none.
//!
//! Owns: the choice. It knows keys and a partition count, not topics, logs or offsets. Called on
//! the sender's thread before any lock is taken, once per record with a key, and once per call for
//! the records of a batch without keys.

use crate::sync::{AtomicU32, Ordering};

/// Chooses the partition of a record that names none.
///
/// Records with equal keys are read in order only if they are sent to the same partition. So for a
/// key the result must depend only on the key and the number of partitions.
///
/// The result must be below `partitions`; otherwise the send returns
/// [`Error::UnknownPartition`](crate::Error::UnknownPartition), and nothing is appended. The method
/// is called for every record that names no partition, by several threads at the same time, under
/// no lock of the broker. It must not block.
///
/// ```
/// use logpond::Partitioner;
///
/// /// Spreads by the first byte of the key, so that neighbours stay together.
/// struct ByFirstByte;
///
/// impl Partitioner for ByFirstByte {
///     fn partition(&self, key: Option<&[u8]>, partitions: u32) -> u32 {
///         let first = key.and_then(<[u8]>::first).copied().unwrap_or(0);
///         u32::from(first) % partitions
///     }
/// }
/// # assert_eq!(ByFirstByte.partition(Some(b"a"), 10), 7);
/// ```
pub trait Partitioner: Send + Sync + 'static {
    /// Returns a partition below `partitions`, which is at least 1. `key` is `None` for a record
    /// without a key, and `Some` of an empty slice for one with an empty key.
    fn partition(&self, key: Option<&[u8]>, partitions: u32) -> u32;
}

/// Chooses as Kafka's Java client does, so a key has the same partition number as in Kafka:
/// `murmur2(key) & 0x7fff_ffff`, modulo the number of partitions.
///
/// Records without a key are sent round robin, one partition per call. (Kafka stays with a
/// partition until a batch is full; here a batch is what one call appends.) If the producer was
/// built without a call of [`partitioner`](crate::ProducerBuilder::partitioner), it skips
/// partitions that take no appends until the broker is opened again, because their files are
/// missing or a sync has failed.
#[doc(alias = "murmur2")]
#[derive(Debug)]
pub struct DefaultPartitioner {
    /// How many keyless calls there were.
    ///
    /// ORDERING: Relaxed: each sender takes another value by one addition, nobody else reads it,
    /// and it publishes no other memory.
    keyless_count: AtomicU32,
}

impl DefaultPartitioner {
    /// Returns a partitioner whose round robin begins at partition 0.
    #[must_use]
    pub fn new() -> Self {
        Self { keyless_count: AtomicU32::new(0) }
    }
}

impl Default for DefaultPartitioner {
    fn default() -> Self {
        Self::new()
    }
}

impl Partitioner for DefaultPartitioner {
    #[inline]
    fn partition(&self, key: Option<&[u8]>, partitions: u32) -> u32 {
        let number = match key {
            Some(key) => to_positive(murmur2(key)),
            // The counter wraps after 2^32 calls; with a count that is no power of two the turn
            // then skips a few partitions once, which no spread can notice.
            None => self.keyless_count.fetch_add(1, Ordering::Relaxed),
        };
        // No topic has zero partitions, but a public method must not panic over its argument.
        number.checked_rem(partitions).unwrap_or(0)
    }
}

/// Clears the sign that the hash has in Java. Not `abs`, which has no answer for the smallest
/// number and would put half of all keys elsewhere than Kafka does.
#[inline]
fn to_positive(hash: u32) -> u32 {
    hash & 0x7fff_ffff
}

/// Austin Appleby's `MurmurHash2` as in Kafka: 32 bits, Kafka's seed, the hash's own multiplier and
/// shift, words in little endian. Another value would send keys to other partitions than Kafka's.
#[inline]
fn murmur2(key: &[u8]) -> u32 {
    const SEED: u32 = 0x9747_b28c;
    const MULTIPLIER: u32 = 0x5bd1_e995;
    const SHIFT: u32 = 24;

    // Keys fit a segment, hence 32 bits; a longer one could not exist in Java, so any answer will
    // do as long as it is always the same.
    let length = u32::try_from(key.len()).unwrap_or(u32::MAX);
    let (words, tail) = key.as_chunks::<4>();
    let mut hash = words.iter().fold(SEED ^ length, |hash, word| {
        let mut mixed = u32::from_le_bytes(*word).wrapping_mul(MULTIPLIER);
        mixed ^= mixed >> SHIFT;
        hash.wrapping_mul(MULTIPLIER) ^ mixed.wrapping_mul(MULTIPLIER)
    });
    if !tail.is_empty() {
        for (byte, shift) in tail.iter().zip([0, 8, 16]) {
            hash ^= u32::from(*byte) << shift;
        }
        hash = hash.wrapping_mul(MULTIPLIER);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(MULTIPLIER);
    hash ^ (hash >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The hash as Java prints it.
    fn signed(key: &[u8]) -> i32 {
        murmur2(key).cast_signed()
    }

    #[test]
    fn murmur2_matches_kafkas_published_vectors() {
        // Kafka's UtilsTest.testMurmur2.
        for (key, expected) in [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
        ] {
            assert_eq!(signed(key.as_bytes()), expected, "{key}");
        }
    }

    #[test]
    fn murmur2_matches_other_ports_for_every_tail_length() {
        // Akka's Murmur2Spec, made with Kafka's own code: tails of 1, 2, 3, 0 and 1 bytes.
        for (key, expected) in [
            ("1", -1_993_445_489),
            ("12", 126_087_238),
            ("123", -267_702_483),
            ("1234", -1_614_185_708),
            ("12345", -1_188_365_604),
        ] {
            assert_eq!(signed(key.as_bytes()), expected, "{key}");
        }
    }

    #[test]
    fn murmur2_matches_a_byte_wise_transcription_at_every_length() {
        // Kafka's Java, statement by statement, signed arithmetic included.
        fn transcribed(data: &[u8]) -> i32 {
            let logical = |value: i32, by: u32| (value.cast_unsigned() >> by).cast_signed();
            let at = |i: usize| i32::from(data[i]);
            let length = data.len();
            let m = 0x5bd1_e995_u32.cast_signed();
            let mut h = 0x9747_b28c_u32.cast_signed() ^ i32::try_from(length).unwrap();
            for i in 0..length / 4 {
                let i4 = i * 4;
                let mut k = at(i4) + (at(i4 + 1) << 8) + (at(i4 + 2) << 16);
                k = k.wrapping_add(at(i4 + 3) << 24).wrapping_mul(m);
                k ^= logical(k, 24);
                h = h.wrapping_mul(m) ^ k.wrapping_mul(m);
            }
            let rest = length & !3;
            if length % 4 >= 3 {
                h ^= at(rest + 2) << 16;
            }
            if length % 4 >= 2 {
                h ^= at(rest + 1) << 8;
            }
            if length % 4 >= 1 {
                h = (h ^ at(rest)).wrapping_mul(m);
            }
            h ^= logical(h, 13);
            h = h.wrapping_mul(m);
            h ^ logical(h, 15)
        }
        // High bytes, where a sign extension would show.
        let bytes: Vec<u8> = (0..64_u8).map(|i| 255 - i.wrapping_mul(37)).collect();
        for length in 0..=bytes.len() {
            let key = &bytes[..length];
            assert_eq!(signed(key), transcribed(key), "length {length}");
        }
    }

    #[test]
    fn a_key_goes_to_its_positive_hash_modulo_the_count() {
        let partitioner = DefaultPartitioner::new();
        // (-973_932_308 & 0x7fff_ffff) = 1_173_551_340
        assert_eq!(partitioner.partition(Some(b"21"), 1_000), 340);
        assert_eq!(partitioner.partition(Some(b"abc"), 1_000), 107);
        assert_eq!(partitioner.partition(Some(b""), 1), 0);
    }

    #[test]
    fn keyless_records_take_turns_and_keyed_ones_take_no_turn() {
        let partitioner = DefaultPartitioner::default();
        let mut turns = Vec::new();
        for _ in 0..7 {
            turns.push(partitioner.partition(None, 3));
            partitioner.partition(Some(b"key"), 3);
        }
        assert_eq!(turns, [0, 1, 2, 0, 1, 2, 0]);
    }

    #[test]
    fn zero_partitions_do_not_panic() {
        let partitioner = DefaultPartitioner::new();
        assert_eq!(partitioner.partition(Some(b"key"), 0), 0);
        assert_eq!(partitioner.partition(None, 0), 0);
    }
}

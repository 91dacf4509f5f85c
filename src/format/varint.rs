//! Variable-length integers: unsigned LEB128, seven bits to a byte, least significant first; the
//! high bit says that another byte follows. Signed values are zigzag-coded first.
//!
//! Invariants: 1. every value has exactly one encoding that [`get`] accepts, the shortest;
//! 2. a failed `get` takes nothing from its input. Pure; called from any thread.

/// LIMIT: 64 bits in groups of seven are ten bytes, of which the last holds one bit.
#[cfg(test)]
pub(crate) const SIZE_MAX: usize = 10;

/// How many bytes [`put`] appends for `value`.
#[inline]
pub(crate) const fn size(value: u64) -> usize {
    if value < 0x80 {
        return 1;
    }
    let bits = u64::BITS - (value | 1).leading_zeros();
    bits.div_ceil(7) as usize
}

/// Appends `value`.
#[cfg(test)]
pub(crate) fn put(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(low_bits(value) | 0x80);
        value >>= 7;
    }
    out.push(low_bits(value));
}

/// The seven bits that the next byte holds.
#[inline]
pub(super) const fn low_bits(value: u64) -> u8 {
    (value & 0x7f) as u8
}

/// Takes a value off the front of `input`; `None` when the input ends too early, the value does
/// not fit 64 bits, or a shorter encoding of it exists.
#[inline]
pub(crate) fn get(input: &mut &[u8]) -> Option<u64> {
    let (value, rest) = match input.split_first()? {
        (&first, rest) if first < 0x80 => (u64::from(first), rest),
        _ => split_long(input)?,
    };
    *input = rest;
    Some(value)
}

/// By value, so that the caller's slice can stay in registers.
fn split_long(input: &[u8]) -> Option<(u64, &[u8])> {
    let mut rest = input;
    let mut value = 0;
    let mut shift = 0;
    while let Some((&byte, tail)) = rest.split_first() {
        if shift == 63 && byte > 1 {
            return None;
        }
        value |= u64::from(byte & 0x7f) << shift;
        rest = tail;
        if byte < 0x80 {
            // A last byte of zero adds nothing: the same value has a shorter encoding.
            return (byte != 0).then_some((value, rest));
        }
        shift += 7;
    }
    None
}

/// Maps small magnitudes of either sign to small unsigned values: 0, -1, 1, -2 become 0, 1, 2, 3.
#[inline]
pub(crate) const fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}

/// The inverse of [`zigzag`].
#[inline]
pub(crate) const fn unzigzag(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ -(value & 1).cast_signed()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples() -> Vec<u64> {
        let mut values = vec![0, u64::MAX];
        for bit in 0..64 {
            let power = 1_u64 << bit;
            values.extend([power - 1, power, power + 1]);
        }
        values
    }

    #[test]
    fn values_round_trip_in_the_size_that_was_announced() {
        for value in samples() {
            let mut bytes = Vec::new();
            put(&mut bytes, value);
            assert_eq!(bytes.len(), size(value), "{value}");
            assert!(bytes.len() <= SIZE_MAX);
            let mut input = bytes.as_slice();
            assert_eq!(get(&mut input), Some(value));
            assert!(input.is_empty());
            for cut in 0..bytes.len() {
                let mut input = &bytes[..cut];
                assert_eq!(get(&mut input), None, "{value} cut to {cut}");
                assert_eq!(input.len(), cut);
            }
        }
    }

    #[test]
    fn signed_values_round_trip_and_small_ones_stay_small() {
        for value in samples() {
            for signed in [value.cast_signed(), value.cast_signed().wrapping_neg()] {
                assert_eq!(unzigzag(zigzag(signed)), signed);
            }
        }
        assert_eq!([0, -1, 1, -2, 2].map(zigzag), [0, 1, 2, 3, 4]);
        assert_eq!(zigzag(i64::MIN), u64::MAX);
    }

    #[test]
    fn overlong_and_overflowing_encodings_are_refused() {
        let eleven = [0x80_u8; 11];
        let overflow = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2];
        let not_shortest = [0x81_u8, 0x00];
        for bytes in [&eleven[..], &overflow[..], &not_shortest[..]] {
            let mut input = bytes;
            assert_eq!(get(&mut input), None, "{bytes:?}");
            assert_eq!(input, bytes);
        }
    }
}

//! Fixed fields at constant positions, and bounded reads of what varies.
//!
//! Owns: little-endian access whose bounds the compiler checks ([`field`], [`set_field`]), and
//! reads that shorten their input and can only come up short ([`take`], [`take_slice`]). Knows no
//! layout. Pure; called from any thread.

/// The `N` bytes at the constant position `AT` of a structure of `L` bytes.
#[inline]
pub(super) fn field<const AT: usize, const N: usize, const L: usize>(bytes: &[u8; L]) -> [u8; N] {
    const { assert!(AT + N <= L, "the field lies outside its structure") };
    let mut value = [0; N];
    value.copy_from_slice(&bytes[AT..AT + N]);
    value
}

/// Writes the `N` bytes at the constant position `AT` of a structure of `L` bytes.
#[inline]
pub(super) fn set_field<const AT: usize, const N: usize, const L: usize>(
    bytes: &mut [u8; L],
    value: [u8; N],
) {
    const { assert!(AT + N <= L, "the field lies outside its structure") };
    bytes[AT..AT + N].copy_from_slice(&value);
}

/// The `u32` at the constant position `AT`.
#[inline]
pub(super) fn u32_field<const AT: usize, const L: usize>(bytes: &[u8; L]) -> u32 {
    u32::from_le_bytes(field::<AT, 4, L>(bytes))
}

/// The `u64` at the constant position `AT`.
#[inline]
pub(super) fn u64_field<const AT: usize, const L: usize>(bytes: &[u8; L]) -> u64 {
    u64::from_le_bytes(field::<AT, 8, L>(bytes))
}

/// Takes `N` bytes off the front of `input`; `None`, and nothing taken, when there are fewer.
#[inline]
pub(super) fn take<const N: usize>(input: &mut &[u8]) -> Option<[u8; N]> {
    let (head, tail) = input.split_first_chunk::<N>()?;
    *input = tail;
    Some(*head)
}

/// Takes `length` bytes off the front of `input`, however large a length was read from a file.
#[inline]
pub(super) fn take_slice<'a>(input: &mut &'a [u8], length: u64) -> Option<&'a [u8]> {
    let (head, tail) = input.split_at_checked(usize::try_from(length).ok()?)?;
    *input = tail;
    Some(head)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_that_comes_up_short_takes_nothing() {
        let mut input: &[u8] = &[1, 2, 3];
        assert_eq!(take::<4>(&mut input), None);
        assert_eq!(take_slice(&mut input, u64::MAX), None);
        assert_eq!(take_slice(&mut input, 2), Some(&[1, 2][..]));
        assert_eq!(take::<1>(&mut input), Some([3]));
        assert!(input.is_empty());
    }
}

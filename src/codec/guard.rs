//! Limits what a decoder does with hostile bytes, for every type that it decodes.
//!
//! Without a recursion limit, a kilobyte can nest a recursive type so deeply that the stack
//! overflows, which ends the process. A length prefix may count elements that take no bytes, so
//! nine bytes can keep a decoder busy for years. This module wraps a serde deserializer, and
//! everything that it returns, with a [`Budget`] of nesting and of elements. Strings and byte
//! strings are taken from the input, not from a buffer whose size is a length from the input.

use std::cell::Cell;
use std::fmt;

use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, Error, MapAccess, SeqAccess, VariantAccess, Visitor,
};

/// LIMIT: how deep a value may nest. As JSON's decoder has it; leaves a thread's 2 MiB of stack
/// 16 KiB for each level.
const DEPTH_MAX: usize = 128;

/// LIMIT: how many elements without any bytes a value may have, for collections of unit values,
/// which are rare but valid.
const FREE_ELEMENTS_MAX: usize = 1 << 16;

/// What one decoding may still do.
#[derive(Debug)]
pub(super) struct Budget {
    depth: Cell<usize>,
    elements: Cell<usize>,
    exceeded: Cell<Option<Exceeded>>,
}

/// The limit that a decoding has met.
#[derive(Debug, Clone, Copy)]
pub(super) enum Exceeded {
    Depth,
    Elements,
}

impl fmt::Display for Exceeded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Depth => write!(f, "nested more than {DEPTH_MAX} levels deep"),
            Self::Elements => write!(f, "more elements than there are bytes"),
        }
    }
}

impl Budget {
    /// For an input of this length: an element takes a byte at least, or is one of the few free
    /// ones.
    pub(super) fn for_bytes(len: usize) -> Self {
        let elements = len.saturating_add(FREE_ELEMENTS_MAX);
        let (depth, exceeded) = (Cell::new(DEPTH_MAX), Cell::new(None));
        Self { depth, elements: Cell::new(elements), exceeded }
    }

    /// The limit that ended the decoding, if one did.
    pub(super) fn exceeded(&self) -> Option<Exceeded> {
        self.exceeded.get()
    }

    fn refuse<E: Error>(&self, limit: Exceeded) -> E {
        self.exceeded.set(Some(limit));
        E::custom(limit)
    }

    /// Runs what decodes one level deeper.
    fn nested<T, E: Error>(&self, decode: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
        let depth = self.depth.get();
        let Some(left) = depth.checked_sub(1) else {
            return Err(self.refuse(Exceeded::Depth));
        };
        self.depth.set(left);
        let decoded = decode();
        self.depth.set(depth);
        decoded
    }

    fn take_element<E: Error>(&self) -> Result<(), E> {
        let Some(left) = self.elements.get().checked_sub(1) else {
            return Err(self.refuse(Exceeded::Elements));
        };
        self.elements.set(left);
        Ok(())
    }
}

/// Anything of serde's, watched.
pub(super) struct Guarded<'b, I> {
    pub(super) inner: I,
    pub(super) budget: &'b Budget,
    /// Whether the type, and not the input, has the number of elements: a field may take no byte,
    /// and a hundred fields may share the byte of one element.
    is_fixed: bool,
}

impl<'b, I> Guarded<'b, I> {
    pub(super) fn new(inner: I, budget: &'b Budget) -> Self {
        Self { inner, budget, is_fixed: false }
    }

    fn fixed(inner: I, budget: &'b Budget) -> Self {
        Self { inner, budget, is_fixed: true }
    }

    /// After an element was looked for. The end of a collection is none.
    fn count<E: Error>(&self, is_there: bool) -> Result<(), E> {
        if self.is_fixed || !is_there { Ok(()) } else { self.budget.take_element() }
    }
}

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Guarded<'_, S> {
    type Value = S::Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<S::Value, D::Error> {
        self.inner.deserialize(Guarded::new(deserializer, self.budget))
    }
}

macro_rules! guard_deserialize {
    ($guard:ident: $($method:ident($($name:ident: $type:ty),*) = $forwarded:ident;)*) => {
        $(fn $method<V: Visitor<'de>>(
            self,
            $($name: $type,)*
            visitor: V,
        ) -> Result<V::Value, D::Error> {
            self.inner.$forwarded($($name,)* Guarded::$guard(visitor, self.budget))
        })*
    };
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Guarded<'_, D> {
    type Error = D::Error;

    guard_deserialize! { new:
        deserialize_any() = deserialize_any;
        deserialize_bool() = deserialize_bool;
        deserialize_i8() = deserialize_i8;
        deserialize_i16() = deserialize_i16;
        deserialize_i32() = deserialize_i32;
        deserialize_i64() = deserialize_i64;
        deserialize_i128() = deserialize_i128;
        deserialize_u8() = deserialize_u8;
        deserialize_u16() = deserialize_u16;
        deserialize_u32() = deserialize_u32;
        deserialize_u64() = deserialize_u64;
        deserialize_u128() = deserialize_u128;
        deserialize_f32() = deserialize_f32;
        deserialize_f64() = deserialize_f64;
        deserialize_char() = deserialize_char;
        // Borrowed also if the value is to be owned: the decoder's own buffer would have the size
        // of the length prefix, before a single byte of it is read.
        deserialize_str() = deserialize_str;
        deserialize_string() = deserialize_str;
        deserialize_bytes() = deserialize_bytes;
        deserialize_byte_buf() = deserialize_bytes;
        deserialize_option() = deserialize_option;
        deserialize_unit() = deserialize_unit;
        deserialize_unit_struct(name: &'static str) = deserialize_unit_struct;
        deserialize_newtype_struct(name: &'static str) = deserialize_newtype_struct;
        deserialize_seq() = deserialize_seq;
        deserialize_map() = deserialize_map;
        deserialize_enum(name: &'static str, variants: &'static [&'static str]) = deserialize_enum;
        deserialize_identifier() = deserialize_identifier;
        deserialize_ignored_any() = deserialize_ignored_any;
    }

    guard_deserialize! { fixed:
        deserialize_tuple(len: usize) = deserialize_tuple;
        deserialize_tuple_struct(name: &'static str, len: usize) = deserialize_tuple_struct;
        deserialize_struct(name: &'static str, fields: &'static [&'static str]) = deserialize_struct;
    }

    fn is_human_readable(&self) -> bool {
        self.inner.is_human_readable()
    }
}

macro_rules! visit_plain {
    ($($method:ident($type:ty);)*) => {
        $(fn $method<E: Error>(self, value: $type) -> Result<V::Value, E> {
            self.inner.$method(value)
        })*
    };
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Guarded<'_, V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.expecting(f)
    }

    visit_plain! {
        visit_bool(bool);
        visit_i8(i8);
        visit_i16(i16);
        visit_i32(i32);
        visit_i64(i64);
        visit_i128(i128);
        visit_u8(u8);
        visit_u16(u16);
        visit_u32(u32);
        visit_u64(u64);
        visit_u128(u128);
        visit_f32(f32);
        visit_f64(f64);
        visit_char(char);
        visit_str(&str);
        visit_borrowed_str(&'de str);
        visit_string(String);
        visit_bytes(&[u8]);
        visit_borrowed_bytes(&'de [u8]);
        visit_byte_buf(Vec<u8>);
    }

    fn visit_none<E: Error>(self) -> Result<V::Value, E> {
        self.inner.visit_none()
    }

    fn visit_unit<E: Error>(self) -> Result<V::Value, E> {
        self.inner.visit_unit()
    }

    fn visit_some<D: Deserializer<'de>>(self, some: D) -> Result<V::Value, D::Error> {
        self.budget.nested(|| self.inner.visit_some(Guarded::new(some, self.budget)))
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, inner: D) -> Result<V::Value, D::Error> {
        self.budget.nested(|| self.inner.visit_newtype_struct(Guarded::new(inner, self.budget)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<V::Value, A::Error> {
        let seq = Guarded { inner: seq, budget: self.budget, is_fixed: self.is_fixed };
        self.budget.nested(|| self.inner.visit_seq(seq))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<V::Value, A::Error> {
        let map = Guarded { inner: map, budget: self.budget, is_fixed: self.is_fixed };
        self.budget.nested(|| self.inner.visit_map(map))
    }

    fn visit_enum<A: EnumAccess<'de>>(self, data: A) -> Result<V::Value, A::Error> {
        self.budget.nested(|| self.inner.visit_enum(Guarded::new(data, self.budget)))
    }
}

impl<I> Guarded<'_, I> {
    /// How many elements to make room for: a hint from the input is as hostile as the input.
    fn bounded(&self, hint: Option<usize>) -> Option<usize> {
        hint.map(|hint| hint.min(self.budget.elements.get()))
    }
}

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for Guarded<'_, A> {
    type Error = A::Error;

    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, A::Error> {
        let element = self.inner.next_element_seed(Guarded::new(seed, self.budget))?;
        self.count(element.is_some())?;
        Ok(element)
    }

    fn size_hint(&self) -> Option<usize> {
        self.bounded(self.inner.size_hint())
    }
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Guarded<'_, A> {
    type Error = A::Error;

    fn next_key_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, A::Error> {
        let key = self.inner.next_key_seed(Guarded::new(seed, self.budget))?;
        self.count(key.is_some())?;
        Ok(key)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, A::Error> {
        self.inner.next_value_seed(Guarded::new(seed, self.budget))
    }

    fn size_hint(&self) -> Option<usize> {
        self.bounded(self.inner.size_hint())
    }
}

impl<'de, 'b, A: EnumAccess<'de>> EnumAccess<'de> for Guarded<'b, A> {
    type Error = A::Error;
    type Variant = Guarded<'b, A::Variant>;

    fn variant_seed<S: DeserializeSeed<'de>>(
        self,
        seed: S,
    ) -> Result<(S::Value, Self::Variant), A::Error> {
        let (value, variant) = self.inner.variant_seed(Guarded::new(seed, self.budget))?;
        Ok((value, Guarded::new(variant, self.budget)))
    }
}

impl<'de, A: VariantAccess<'de>> VariantAccess<'de> for Guarded<'_, A> {
    type Error = A::Error;

    fn unit_variant(self) -> Result<(), A::Error> {
        self.inner.unit_variant()
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, A::Error> {
        self.inner.newtype_variant_seed(Guarded::new(seed, self.budget))
    }

    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, A::Error> {
        self.inner.tuple_variant(len, Guarded::fixed(visitor, self.budget))
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, A::Error> {
        self.inner.struct_variant(fields, Guarded::fixed(visitor, self.budget))
    }
}

//! A codec for types that change: a version in front of the value.

use super::{Bincode, Codec};
use crate::error::CodecError;

/// A codec for types that change over time: it writes the version of the type in front of the value,
/// and reads values of earlier versions by the types that wrote them. `C` encodes the values,
/// [`Bincode`] by default. A topic needs it from its first record on.
///
/// Each version is a type, which says what came before it and how a value of that becomes one of
/// its own. The first one has [`NoVersion`] before it:
///
/// ```
/// use logpond::{Bincode, Broker, NoVersion, TopicConfig, Version, Versioned};
/// use serde::{Deserialize, Serialize};
///
/// /// What the first release wrote.
/// #[derive(Serialize, Deserialize)]
/// struct PriceV1 {
///     cents: u64,
/// }
///
/// impl Version for PriceV1 {
///     const NUMBER: u8 = 1;
///     type Before = NoVersion;
///     fn upgrade(before: NoVersion) -> Self {
///         match before {}
///     }
/// }
///
/// /// What the service writes now.
/// #[derive(Debug, PartialEq, Serialize, Deserialize)]
/// struct Price {
///     cents: u64,
///     currency: String,
/// }
///
/// impl Version for Price {
///     const NUMBER: u8 = 2;
///     type Before = PriceV1;
///     fn upgrade(before: PriceV1) -> Self {
///         Self { cents: before.cents, currency: "EUR".into() }
///     }
/// }
///
/// let broker = Broker::in_memory()?;
/// broker.ensure_topic("prices", TopicConfig::new(1))?;
/// let producer = broker.producer();
/// let codec = Versioned::new(Bincode);
/// producer.typed_with::<PriceV1, _>("prices", codec).send(&PriceV1 { cents: 100 })?; // years ago
/// let new = Price { cents: 120, currency: "CHF".into() };
/// producer.typed_with("prices", codec).send(&new)?;
///
/// let mut prices = broker.reader().subscribe(["prices"]).open_typed_with::<Price, _>(codec)?;
/// assert_eq!(prices.recv()?.value?, Some(Price { cents: 100, currency: "EUR".into() }));
/// assert_eq!(prices.recv()?.value?, Some(new));
/// # Ok::<(), logpond::Error>(())
/// ```
///
/// A program with an earlier version of the type cannot decode later ones: its messages have an
/// error as their value, which names both versions, and the consumer continues. So deploy the
/// consumers first. With `Json`, the version is one byte in front of the text; if other programs
/// read the text, use `Json` alone, and `#[serde(default)]` for fields that are added.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Versioned<C = Bincode>(pub C);

impl<C> Versioned<C> {
    /// Returns a codec that puts a version in front of what `codec` encodes, for example
    /// `Versioned::new(Bincode)`.
    #[must_use]
    pub const fn new(codec: C) -> Self {
        Self(codec)
    }
}

/// A version of a type whose values [`Versioned`] encodes.
pub trait Version: Sized {
    /// The number of this version: higher than that of [`Before`](Self::Before), and never used for
    /// another type of the same topic.
    const NUMBER: u8;

    /// The version before this one; [`NoVersion`] for the first.
    type Before;

    /// Returns a value of this version for one of the version before.
    fn upgrade(before: Self::Before) -> Self;
}

/// What comes before the first [`Version`] of a type. It has no values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoVersion {}

const NAME: &str = "versioned";

impl<T, C> Codec<T> for Versioned<C>
where
    T: Version,
    C: Codec<T>,
    Self: Upgrades<T::Before>,
{
    fn name(&self) -> &'static str {
        NAME
    }

    fn encode(&self, value: &T, buffer: &mut Vec<u8>) -> Result<(), CodecError> {
        buffer.push(T::NUMBER);
        self.0.encode(value, buffer)
    }

    fn decode(&self, bytes: &[u8]) -> Result<T, CodecError> {
        match bytes.split_first() {
            Some((number, value)) => {
                <Self as Upgrades<T>>::decode_version(self, *number, value, T::NUMBER)
            }
            None => Err(CodecError::new(NAME, "there is no version")),
        }
    }
}

/// Decodes values of one version and of those before it.
#[doc(hidden)]
pub trait Upgrades<T> {
    /// Decodes a value of the version `number`; `latest` is what the program knows.
    ///
    /// # Errors
    ///
    /// That of the codec; an unknown version.
    fn decode_version(&self, number: u8, bytes: &[u8], latest: u8) -> Result<T, CodecError>;
}

impl<T, C> Upgrades<T> for Versioned<C>
where
    T: Version,
    C: Codec<T>,
    Self: Upgrades<T::Before>,
{
    fn decode_version(&self, number: u8, bytes: &[u8], latest: u8) -> Result<T, CodecError> {
        if number == T::NUMBER {
            return self.0.decode(bytes);
        }
        let before = <Self as Upgrades<T::Before>>::decode_version(self, number, bytes, latest);
        before.map(T::upgrade)
    }
}

impl<C> Upgrades<NoVersion> for Versioned<C> {
    fn decode_version(&self, number: u8, _: &[u8], latest: u8) -> Result<NoVersion, CodecError> {
        let reason = format_args!("version {number} is unknown; this program knows up to {latest}");
        Err(CodecError::new(NAME, reason))
    }
}

//! Messages that a fetch returns: [`Batch`], [`Message`] and [`MessageRef`], views of checked
//! regions.
//!
//! A batch of messages is a list of [`CheckedRange`]s: ranges of a region whose batches were all
//! checked (structure and checksum) when they were fetched. Iterating cannot fail, allocates
//! nothing and touches no reference count. Only a [`Message`], which outlives the batch, holds its
//! region.
//!
//! | file | what it owns |
//! |---|---|
//! | `range` | where checked records are stored |
//! | `owned` | a message that holds its region, and its headers |
//! | `borrowed` | a message that borrows from its batch |
//! | `batch` | the messages of one fetch, and the ways to iterate them |

pub use self::batch::{Batch, BatchIter, IntoMessages};
pub use self::borrowed::MessageRef;
pub use self::owned::{Headers, Message};
pub(crate) use self::range::CheckedRange;

mod batch;
mod borrowed;
mod owned;
mod range;

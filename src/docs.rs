//! The documents behind the interface, as they lie beside the source in `src/docs/`.

#[doc = include_str!("docs/format.md")]
pub mod format {}

#[doc = include_str!("docs/versions.md")]
pub mod versions {}

#[doc = include_str!("docs/durability.md")]
pub mod durability {}

#[doc = include_str!("docs/failures.md")]
pub mod failures {}

#[doc = include_str!("docs/concurrency.md")]
pub mod concurrency {}

#[doc = include_str!("docs/groups.md")]
pub mod groups {}

#[doc = include_str!("docs/compaction.md")]
pub mod compaction {}

#[doc = include_str!("docs/changelog.md")]
pub mod changelog {}

#[doc = include_str!("docs/retention.md")]
pub mod retention {}

#[doc = include_str!("docs/metrics.md")]
pub mod metrics {}

#[doc = include_str!("docs/performance.md")]
pub mod performance {}

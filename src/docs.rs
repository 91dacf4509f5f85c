//! Pages about the crate as a whole. Their sources are the Markdown files in `src/docs/`.
//!
//! For users of the crate: [`recipes`], [`durability`], [`groups`], [`sources`], [`retention`],
//! [`compaction`], [`copies`], [`command_line`], [`failures`], [`metrics`], [`performance`],
//! [`testing_your_service`], [`versions`], [`changelog`].
//!
//! For those who read or change its code: [`architecture`], [`decisions`], [`concurrency`],
//! [`mod@format`], [`replication`], [`testing`], [`contributing`].

#[doc = include_str!("docs/architecture.md")]
pub mod architecture {}

#[doc = include_str!("docs/changelog.md")]
pub mod changelog {}

#[doc = include_str!("docs/command_line.md")]
pub mod command_line {}

#[doc = include_str!("docs/compaction.md")]
pub mod compaction {}

#[doc = include_str!("docs/concurrency.md")]
pub mod concurrency {}

#[doc = include_str!("docs/contributing.md")]
pub mod contributing {}

#[doc = include_str!("docs/copies.md")]
pub mod copies {}

#[doc = include_str!("docs/decisions.md")]
pub mod decisions {}

#[doc = include_str!("docs/durability.md")]
pub mod durability {}

#[doc = include_str!("docs/failures.md")]
pub mod failures {}

#[doc = include_str!("docs/format.md")]
pub mod format {}

#[doc = include_str!("docs/groups.md")]
pub mod groups {}

#[doc = include_str!("docs/metrics.md")]
pub mod metrics {}

#[doc = include_str!("docs/performance.md")]
pub mod performance {}

#[doc = include_str!("docs/recipes.md")]
pub mod recipes {}

#[doc = include_str!("docs/replication.md")]
pub mod replication {}

#[doc = include_str!("docs/retention.md")]
pub mod retention {}

#[doc = include_str!("docs/sources.md")]
pub mod sources {}

#[doc = include_str!("docs/testing.md")]
pub mod testing {}

#[cfg_attr(feature = "testing", doc = include_str!("docs/testing_your_service.md"))]
#[cfg_attr(not(feature = "testing"), doc = "This page needs the feature `testing`.")]
pub mod testing_your_service {}

#[doc = include_str!("docs/versions.md")]
pub mod versions {}

//! How the settings of a topic are stored: a type of its own, so that the public settings can gain
//! and lose fields without a change of what directories hold.
//!
//! The stored form has no names: fields are distinguished by their position, variants by their
//! number. This form is frozen. Other settings are a form of their own, which is written by a new
//! variant of [`CatalogChange`](super::CatalogChange) at the end.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::config::{Cleanup, Durability, TimestampType, TopicConfig};

#[derive(Serialize, Deserialize)]
enum DurabilityForm {
    Os,
    Interval { every: Duration, bytes: u64 },
    Sync,
}

#[derive(Serialize, Deserialize)]
enum CleanupForm {
    Delete,
    Compact,
    CompactAndDelete,
}

#[derive(Serialize, Deserialize)]
enum TimestampForm {
    CreateTime,
    AppendTime,
}

/// The first form.
#[derive(Serialize, Deserialize)]
struct ConfigForm {
    partitions: u32,
    durability: Option<DurabilityForm>,
    retention: Duration,
    retention_bytes: u64,
    segment_bytes: u64,
    segment_age: Duration,
    cleanup: CleanupForm,
    tombstone_retention: Duration,
    min_dirty_ratio: f64,
    max_record_bytes: Option<u32>,
    timestamps: TimestampForm,
    /// A setting that nothing ever acted on. Builds that have it refuse a 0.
    min_insync: u32,
}

impl From<&TopicConfig> for ConfigForm {
    fn from(config: &TopicConfig) -> Self {
        let durability = config.durability.map(|durability| match durability {
            Durability::Os => DurabilityForm::Os,
            Durability::Interval { every, bytes } => DurabilityForm::Interval { every, bytes },
            Durability::Sync => DurabilityForm::Sync,
        });
        Self {
            partitions: config.partitions,
            durability,
            retention: config.retention,
            retention_bytes: config.retention_bytes,
            segment_bytes: config.segment_bytes,
            segment_age: config.segment_age,
            cleanup: match config.cleanup {
                Cleanup::Delete => CleanupForm::Delete,
                Cleanup::Compact => CleanupForm::Compact,
                Cleanup::CompactAndDelete => CleanupForm::CompactAndDelete,
            },
            tombstone_retention: config.tombstone_retention,
            min_dirty_ratio: config.min_dirty_ratio,
            max_record_bytes: config.max_record_bytes,
            timestamps: match config.timestamps {
                TimestampType::CreateTime => TimestampForm::CreateTime,
                TimestampType::AppendTime => TimestampForm::AppendTime,
            },
            min_insync: 1,
        }
    }
}

impl From<ConfigForm> for TopicConfig {
    fn from(form: ConfigForm) -> Self {
        let mut config = Self::new(form.partitions);
        config.durability = form.durability.map(|durability| match durability {
            DurabilityForm::Os => Durability::Os,
            DurabilityForm::Interval { every, bytes } => Durability::Interval { every, bytes },
            DurabilityForm::Sync => Durability::Sync,
        });
        config.retention = form.retention;
        config.retention_bytes = form.retention_bytes;
        config.segment_bytes = form.segment_bytes;
        config.segment_age = form.segment_age;
        config.cleanup = match form.cleanup {
            CleanupForm::Delete => Cleanup::Delete,
            CleanupForm::Compact => Cleanup::Compact,
            CleanupForm::CompactAndDelete => Cleanup::CompactAndDelete,
        };
        config.tombstone_retention = form.tombstone_retention;
        config.min_dirty_ratio = form.min_dirty_ratio;
        config.max_record_bytes = form.max_record_bytes;
        config.timestamps = match form.timestamps {
            TimestampForm::CreateTime => TimestampType::CreateTime,
            TimestampForm::AppendTime => TimestampType::AppendTime,
        };
        config
    }
}

pub(super) fn serialize<S: Serializer>(
    config: &TopicConfig,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    ConfigForm::from(config).serialize(serializer)
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<TopicConfig, D::Error> {
    ConfigForm::deserialize(deserializer).map(TopicConfig::from)
}

//! The broker of a test: the engine itself, on a disk that can lose power and a clock that the test
//! moves.
//!
//! Nothing is imitated: a [`TestBroker`] is a [`Broker`](crate::Broker), and the code under test
//! takes it as one. It has no files and no threads, is made in less than a millisecond, and ends
//! with its last handle; so each test has its own, and any number of tests run at the same time.
//! [`docs::testing_your_service`](crate::docs::testing_your_service) is the guide.
//!
//! ```
//! use logpond::testing::TestBroker;
//! use logpond::{Broker, Record, TopicConfig};
//! use std::time::Duration;
//!
//! // The code under test.
//! fn charge_card(broker: &Broker, user: &str) -> logpond::Result<()> {
//!     broker.producer().send(Record::to("charges").key(user).value("4.99"))?;
//!     Ok(())
//! }
//!
//! let broker = TestBroker::new();
//! broker.ensure_topic("charges", TopicConfig::new(1).retention(Duration::from_secs(60)))?;
//! charge_card(&broker, "user-7")?;
//!
//! // The power fails. What was acknowledged is there when it is back, whatever the seed.
//! let broker = broker.crash().power_cut(7)?;
//! assert_eq!(broker.produced("charges").len(), 1);
//!
//! broker.advance(Duration::from_secs(61))?; // retention runs on the clock of the test
//! assert!(broker.produced("charges").is_empty());
//! # Ok::<(), logpond::Error>(())
//! ```
//!
//! | file | owns |
//! |---|---|
//! | `broker.rs` | the broker, its crashes, and the time |
//! | `faults.rs` | what the test does to the broker |
//! | `crashes.rs` | a piece of work, crashed at every moment |
//! | `show.rs` | records and logs as text |
//! | `damage.rs` | damage on the disk |
//! | `cluster.rs` | several brokers as a replicated group (feature `replication`) |
//! | `network.rs` | the network between them |
//! | `machine.rs` | what a crash does not take: the disk, the clock, the settings |

pub use std::io::ErrorKind;

pub use self::broker::{CrashedBroker, TestBroker};
#[cfg(feature = "replication")]
pub use self::cluster::{ClusterBuilder, TestCluster};
pub use self::crashes::at_every_crash;
pub use self::faults::{Faults, UnmetFaults};
#[cfg(feature = "replication")]
pub use self::network::{Link, NetworkStats, SimNetwork};
pub use crate::seams::{Call, Fault, FaultId, RebalanceKind};

mod broker;
#[cfg(feature = "replication")]
mod cluster;
mod crashes;
mod damage;
mod faults;
mod machine;
#[cfg(feature = "replication")]
mod network;
mod show;

//! Three copies of a queue in one process, over channels: the smallest group there is.
//!
//! ```text
//! cargo run --features replication --example three_members
//! ```
//!
//! In a service each member is a process of its own: `examples/replicated` has that, over TCP.
#![expect(clippy::print_stdout, reason = "an example shows what happens")]

mod channels;

use std::error::Error;
use std::time::Duration;

use channels::Channels;
use logpond::{Broker, LeaderEpoch, NodeId, Record, Replication, TopicConfig};

const NODES: [NodeId; 3] = [NodeId(1), NodeId(2), NodeId(3)];
const SECONDS: Duration = Duration::from_secs(10);

fn main() -> Result<(), Box<dyn Error>> {
    let home = std::env::temp_dir().join(format!("logpond-three-{}", std::process::id()));
    let channels = Channels::new(&NODES);
    let open = |node: NodeId| -> logpond::Result<Broker> {
        let replication = Replication::new(node, NODES, channels.of(node));
        channels.attach(node, replication.handle());
        let dir = home.join(node.to_string());
        Broker::builder().data_dir(dir).replication(replication).open()
    };
    let [one, two, three] = [open(NODES[0])?, open(NODES[1])?, open(NODES[2])?];
    let member = |broker: &Broker| broker.replication().ok_or("no replication");

    // Somebody has to say who leads: here this program, in a service a lease or a lock, or the elector.
    member(&one)?.lead(LeaderEpoch(1))?;
    member(&one)?.wait_leading(SECONDS)?;
    one.ensure_topic("orders", TopicConfig::new(1))?;
    for order in 0..1000 {
        let value = format!("order {order}");
        let delivery = one.producer().enqueue(Record::to("orders").value(&value))?;
        if order == 999 {
            // Two of the three have it, and all before it.
            let sent = delivery.wait()?;
            println!("acknowledged up to offset {}", sent.offset);
        }
    }

    // The first member dies.
    drop(one);
    member(&two)?.lead(LeaderEpoch(2))?;
    member(&two)?.wait_leading(SECONDS)?;
    two.producer().send(Record::to("orders").value("after the failover"))?;
    println!("member 2 leads epoch {}", member(&two)?.status().epoch.0);

    // The third one follows: readers there see what a majority has.
    let mut reader = three.reader().subscribe(["orders"]).open()?;
    let mut seen = 0;
    while seen < 1001 {
        let batch = reader.poll(SECONDS)?;
        if batch.is_empty() {
            return Err(format!("only {seen} records").into());
        }
        seen += batch.len();
    }
    println!("a reader at member 3 has seen all {seen} records");
    drop((two, three, reader));
    std::fs::remove_dir_all(&home)?;
    Ok(())
}

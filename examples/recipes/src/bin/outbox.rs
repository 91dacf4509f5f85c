//! Outbox and inbox beside `SQLite`: exactly once both ways, wherever the process dies.
//!
//! An order and its row in the outbox are one transaction; the row's id is its record's number. An
//! invoice and the offset at which the consumer begins are one transaction, too.

use std::path::Path;
use std::process::{Command, exit};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use logpond::{Broker, Commits, Message, Producer, Rebalance, Record, StartAt, TopicConfig};
use rusqlite::Connection;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

const DIED: i32 = 9;
const TABLES: &str = "pragma journal_mode = wal; pragma synchronous = full;
    create table if not exists orders (number integer primary key);
    create table if not exists outbox (id integer primary key autoincrement, value text);
    create table if not exists inbox (partition integer primary key, next_offset integer);
    create table if not exists invoices (number integer);";

fn service(dir: &Path) -> Result<()> {
    let mut database = Connection::open(dir.join("shop.db"))?;
    database.execute_batch(TABLES)?;
    let broker = Broker::open(dir.join("queue"))?;
    broker.ensure_topic("orders", TopicConfig::new(2))?;
    let relay = broker.producer_builder().id("orders-relay").build()?;
    relay_outbox(&database, &relay)?; // what the run before has not sent
    let placed = database.query_row("select count(*) from orders", [], |row| row.get(0))?;
    for number in placed..2 {
        let transaction = database.transaction()?;
        transaction.execute("insert into orders values (?1)", [number])?;
        step();
        transaction.execute("insert into outbox (value) values (?1)", [number.to_string()])?;
        step();
        transaction.commit()?;
        step();
        relay_outbox(&database, &relay)?;
    }
    let offsets = Connection::open(dir.join("shop.db"))?;
    let inbox = broker.consumer("billing").subscribe(["orders"]);
    let mut inbox = inbox.on_rebalance(move |it, commits| begin(&offsets, it, commits)).open()?;
    while let Some(message) = inbox.try_recv()? {
        write_invoice(&mut database, &message)?;
    }
    Ok(broker.close()?)
}

fn relay_outbox(database: &Connection, relay: &Producer) -> Result<()> {
    let mut rows = database.prepare("select id, value from outbox order by id")?;
    let mut rows = rows.query([])?;
    while let Some(row) = rows.next()? {
        let (id, value): (u64, String) = (row.get(0)?, row.get(1)?);
        relay.send_sequenced(id, Record::to("orders").key(&value).value(&value))?;
        step(); // many rows: `send_batch_sequenced`, and one `delete`
        database.execute("delete from outbox where id = ?1", [id])?;
        step();
    }
    Ok(())
}

/// After an error the poll returns nothing, and the next one asks again.
fn begin(database: &Connection, event: Rebalance<'_>, commits: &mut Commits<'_>) -> Result<()> {
    let Rebalance::Assigned(partitions) = event else { return Ok(()) };
    for it in partitions {
        let query = "select coalesce(max(next_offset), 0) from inbox where partition = ?1";
        let next = database.query_row(query, [it.partition], |row| row.get(0))?;
        commits.seek(it, StartAt::Offset(next))?;
    }
    Ok(())
}

fn write_invoice(database: &mut Connection, message: &Message) -> Result<()> {
    let transaction = database.transaction()?;
    let advance = "insert into inbox values (?1, ?3)
        on conflict do update set next_offset = ?3 where next_offset <= ?2";
    let offsets = (message.partition(), message.offset(), message.next_offset());
    if transaction.execute(advance, offsets)? == 0 {
        return Ok(()); // this member was evicted, and another one has written it
    }
    step();
    transaction.execute("insert into invoices values (cast(?1 as integer))", [message.value()])?;
    step();
    transaction.commit()?;
    step();
    Ok(())
}

static STEPS_LEFT: AtomicU64 = AtomicU64::new(0);
fn step() {
    if STEPS_LEFT.fetch_sub(1, Relaxed) == 1 {
        exit(DIED); // as by `kill -9`: no destructor runs
    }
}

fn main() -> Result<()> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    if let [dir, steps] = arguments.as_slice() {
        STEPS_LEFT.store(steps.parse()?, Relaxed);
        return service(Path::new(dir));
    }
    for steps in 1.. {
        let dir = tempfile::tempdir()?;
        let mut child = Command::new(std::env::current_exe()?);
        let code = child.arg(dir.path()).arg(steps.to_string()).status()?.code();
        service(dir.path())?; // the next run
        let database = Connection::open(dir.path().join("shop.db"))?;
        let query = "select group_concat(number order by number) from invoices";
        let invoices: String = database.query_row(query, [], |row| row.get(0))?;
        let topic = Broker::open(dir.path().join("queue"))?.topic("orders")?;
        let records: u64 = topic.iter().map(|it| it.log_end_offset()).sum();
        assert_eq!((invoices.as_str(), records), ("0,1", 2), "died at step {steps}");
        if code == Some(0) {
            println!("a process died at each of {} steps: each order has one invoice", steps - 1);
            return Ok(());
        }
    }
    Ok(())
}

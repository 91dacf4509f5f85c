//! Graceful shutdown of a service on axum and tokio. After `SIGTERM`, requests that have begun are
//! answered, the worker finishes and commits its message, and the broker is closed.

use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::{Router, routing::post};
use logpond::{Broker, Consumer, Error, Message, Producer, Record, TopicConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::spawn_blocking;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

async fn take_order(State(producer): State<Producer>, order: Bytes) -> StatusCode {
    match producer.in_async().send(Record::to("orders").value(&order)).await {
        Ok(_) => StatusCode::ACCEPTED, // it is on disk
        Err(error) if error.is_retriable() => StatusCode::SERVICE_UNAVAILABLE,
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// Ends after `ConsumerHandle::shutdown`, when the current order is packed and committed.
async fn pack_orders<W>(mut orders: Consumer, pack: impl Fn(Message) -> W) -> logpond::Result<()>
where
    W: Future<Output = ()>,
{
    let mut inbox = orders.in_async();
    loop {
        let order = match inbox.recv().await {
            Err(Error::Closed) => break,
            received => received?,
        };
        pack(order.clone()).await;
        match inbox.commit_message(&order).await {
            Err(Error::Rebalanced { .. }) => {} // its next owner packs it again
            committed => committed?,
        }
    }
    orders.close()
}

async fn serve<W>(
    broker: Broker,
    listener: TcpListener,
    pack: impl Fn(Message) -> W + Send + 'static,
) -> Result<()>
where
    W: Future<Output = ()> + Send + 'static,
{
    let orders = broker.consumer("packers").subscribe(["orders"]).open()?;
    let stop = orders.handle();
    let mut worker = tokio::spawn(pack_orders(orders, pack));
    let routes = Router::new().route("/orders", post(take_order)).with_state(broker.producer());
    let mut terminate = signal(SignalKind::terminate())?;
    let terminated = async move { terminate.recv().await.unwrap_or_default() };
    let serving = axum::serve(listener, routes).with_graceful_shutdown(terminated);
    tokio::select! {
        served = serving.into_future() => served?,
        ended = &mut worker => return Ok(ended??), // it has failed: accept no order that nobody packs
    }
    stop.shutdown();
    worker.await??;
    spawn_blocking(move || broker.close()).await??; // it waits for the disk
    Ok(())
}

async fn send_order(service: SocketAddr, order: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(service).await?;
    let (host, length) = ("Host: localhost\r\nConnection: close", order.len());
    let request =
        format!("POST /orders HTTP/1.1\r\n{host}\r\nContent-Length: {length}\r\n\r\n{order}");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

#[tokio::main]
async fn main() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let broker = Broker::open(dir.path())?;
    broker.ensure_topic("orders", TopicConfig::new(1))?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let service = listener.local_addr()?;
    let (begins, mut begun) = mpsc::unbounded_channel();
    let may_finish = Arc::new(Semaphore::new(0));
    let finish = Arc::clone(&may_finish);
    let serving = tokio::spawn(serve(broker, listener, move |order| {
        let _ = begins.send(order.offset());
        let finish = Arc::clone(&finish);
        async move { finish.acquire().await.map_or((), drop) }
    }));

    for order in ["2 apples", "1 pear", "3 plums"] {
        assert!(send_order(service, order).await?.starts_with("HTTP/1.1 202 Accepted"));
    }
    assert_eq!(begun.recv().await, Some(0), "the worker is in the middle of the first order");
    Command::new("sh").args(["-c", "kill -TERM $PPID"]).status()?;
    while TcpStream::connect(service).await.is_ok() {} // until it accepts no more requests
    may_finish.add_permits(1000);
    serving.await??;

    let packed = std::iter::from_fn(|| begun.try_recv().ok()).fold(1, |count, _| count + 1);
    let broker = Broker::open(dir.path())?;
    assert!(broker.recovery().clean_shutdown);
    assert_eq!(broker.topic("orders")?.partition(0)?.log_end_offset(), 3, "accepted, and kept");
    let group = broker.admin().describe_group("packers")?;
    let committed = group.offsets.first().and_then(|it| it.committed);
    assert_eq!(committed, Some(packed), "what was packed is committed, and nothing else");
    println!("3 orders accepted, {packed} packed before the end, the others are in the queue");
    Ok(broker.close()?)
}

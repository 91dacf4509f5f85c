//! Trace context in headers: a trace continues in the consumer of a record, by the header
//! `traceparent` of the W3C.
//!
//! A program with OpenTelemetry has a propagator for this. Its injector then adds headers to a
//! record, and its extractor reads `Message::headers`, as `to_header` and `of_message` do here.

use logpond::{Broker, Message, Record, TopicConfig};

const TRACEPARENT: &str = "traceparent";

/// What the header carries: the trace, and the span in which the record was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct TraceContext {
    trace: u128,
    span: u64,
    flags: u8,
}

impl TraceContext {
    fn to_header(self) -> String {
        format!("00-{:032x}-{:016x}-{:02x}", self.trace, self.span, self.flags)
    }

    /// Of a header that is missing or malformed, or of a version that is not allowed: `None`. The
    /// consumer then begins a trace. A later version may append fields.
    fn of_message(message: &Message) -> Option<Self> {
        let header = str::from_utf8(message.headers().get(TRACEPARENT)?).ok()?;
        let mut fields = header.split('-');
        let version = hex(fields.next()?, 2)?;
        let (trace, span) = (hex(fields.next()?, 32)?, hex(fields.next()?, 16)?);
        let flags = hex(fields.next()?, 2)?;
        let is_valid = version != 0xff && trace != 0 && span != 0;
        let is_whole = version != 0 || fields.next().is_none();
        let (span, flags) = (u64::try_from(span).ok()?, u8::try_from(flags).ok()?);
        (is_valid && is_whole).then_some(Self { trace, span, flags })
    }

    /// The span of the work on a record, in the trace of the span that has sent it.
    fn child(self, span: u64) -> Self {
        Self { span, ..self }
    }
}

/// Lower case only, as the standard says, and no sign.
fn hex(digits: &str, len: usize) -> Option<u128> {
    let is_hex = digits.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
    (is_hex && digits.len() == len).then(|| u128::from_str_radix(digits, 16).ok())?
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let broker = Broker::in_memory()?;
    broker.ensure_topic("orders", TopicConfig::new(1))?;
    broker.ensure_topic("parcels", TopicConfig::new(1))?;
    let producer = broker.producer();

    // The handler of a request, in a span that the caller's trace contains.
    let request = TraceContext { trace: 0x4bf9_2f35, span: 0x00f0_67aa, flags: 1 };
    let header = request.to_header();
    assert_eq!(header, "00-0000000000000000000000004bf92f35-0000000000f067aa-01");
    producer.send(Record::to("orders").value("2 apples").header(TRACEPARENT, &header))?;

    // A worker: its span is a child of the sender's, and what it sends carries its own.
    let mut orders = broker.consumer("packer").subscribe(["orders"]).open()?;
    let order = orders.recv()?;
    let parent = TraceContext::of_message(&order).ok_or("no trace")?;
    assert_eq!(parent, request);
    let packing = parent.child(0x1111);
    // Forwarded with the headers of the order: the last header of a name counts.
    let header = packing.to_header();
    producer.send(Record::from(&order).topic("parcels").header(TRACEPARENT, &header))?;
    orders.commit_message(&order)?;

    let mut parcels = broker.consumer("courier").subscribe(["parcels"]).open()?;
    let delivery = TraceContext::of_message(&parcels.recv()?).ok_or("no trace")?.child(0x2222);
    assert_eq!(delivery, TraceContext { trace: request.trace, span: 0x2222, flags: 1 });

    // A header that is none begins a trace, and is never an error.
    let (trace, span) = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7");
    for (header, is_valid) in [
        (format!("00-{trace}-{span}-01"), true),
        (format!("cc-{trace}-{span}-01-of-a-later-version"), true),
        (format!("00-{trace}-{span}-01-more"), false),
        (format!("ff-{trace}-{span}-01"), false),
        (format!("00-{}-{span}-01", trace.to_uppercase()), false),
        (format!("00-{:032}-{span}-01", 0), false),
        (format!("00-{trace}-{:016}-01", 0), false),
        (format!("00-{trace}-{span}"), false),
        (String::new(), false),
    ] {
        producer.send(Record::to("parcels").value("").header(TRACEPARENT, &header))?;
        let found = TraceContext::of_message(&parcels.recv()?);
        assert_eq!(found.is_some(), is_valid, "{header}");
    }
    println!("trace {:032x}: request, packing, delivery", delivery.trace);
    Ok(broker.close()?)
}

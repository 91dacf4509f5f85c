//! A transport over TCP: one connection to each member, which is made again when it breaks.
//!
//! For each other member there is a thread that writes, and two queues with a limit: what does not
//! fit is dropped, because whatever is lost is asked for again. What is small and urgent overtakes
//! records. For each connection that comes in there is a thread that reads. On the wire: the number
//! of the sender, once; then each frame with its length.

use std::collections::HashMap;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use crossbeam::channel::{Receiver, Sender, bounded, select_biased};
use logpond::{Frame, FrameClass, NodeId, ReplicationHandle, Transport, TransportError};

/// How many frames wait for a member that is slow or not there.
const QUEUE: usize = 256;
const CONNECT: Duration = Duration::from_millis(300);
const BACK_OFF: [Duration; 2] = [Duration::from_millis(10), Duration::from_millis(500)];
/// What one frame may take at most. A batch of records must fit: see `TopicConfig::max_record_bytes`.
const FRAME_BYTES: usize = 64 << 20;

/// The queues to one member.
struct Peer {
    control: Sender<Frame>,
    data: Sender<Frame>,
}

pub(crate) struct Tcp {
    peers: HashMap<NodeId, Peer>,
}

impl Tcp {
    /// A transport from `me` to all others, which are reached at these addresses.
    pub(crate) fn new(me: NodeId, members: &[(NodeId, SocketAddr)]) -> Self {
        let others = members.iter().filter(|(node, _)| *node != me);
        let peers = others.map(|(node, address)| {
            let (control, urgent) = bounded(QUEUE);
            let (data, records) = bounded(QUEUE);
            let address = *address;
            thread::spawn(move || write_for_ever(me, address, &urgent, &records));
            (*node, Peer { control, data })
        });
        Self { peers: peers.collect() }
    }

    /// Gives everything that arrives to the member.
    pub(crate) fn listen(listener: TcpListener, member: ReplicationHandle) {
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let member = member.clone();
                // A connection that breaks is made again by the other side.
                thread::spawn(move || read(stream, &member));
            }
        });
    }
}

impl Transport for Tcp {
    fn send(&self, to: NodeId, frame: Frame) -> Result<(), TransportError> {
        let peer = self.peers.get(&to).ok_or(TransportError::Unreachable)?;
        let queue = match frame.class() {
            FrameClass::Control => &peer.control,
            FrameClass::Data => &peer.data,
        };
        queue.try_send(frame).map_err(|_| TransportError::Unreachable)
    }
}

/// Connects, and writes until that fails; again and again, until the transport is dropped.
fn write_for_ever(me: NodeId, to: SocketAddr, control: &Receiver<Frame>, data: &Receiver<Frame>) {
    let [mut wait, longest] = BACK_OFF;
    loop {
        match TcpStream::connect_timeout(&to, CONNECT) {
            Ok(stream) => {
                [wait, _] = BACK_OFF;
                if write(me, stream, control, data).is_ok() {
                    return; // the transport is dropped
                }
            }
            Err(_) => wait = (wait * 2).min(longest),
        }
        // What waits by now is old. And this is the pause before the next attempt.
        while data.try_recv().is_ok() {}
        let _ = control.recv_timeout(wait);
    }
}

/// Writes frames until there are no more senders, or the connection breaks.
fn write(
    me: NodeId,
    stream: TcpStream,
    control: &Receiver<Frame>,
    data: &Receiver<Frame>,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_write_timeout(Some(Duration::from_secs(5)))?;
    let mut stream = BufWriter::with_capacity(1 << 16, stream);
    stream.write_all(&me.0.to_le_bytes())?;
    loop {
        let next = select_biased! {
            recv(control) -> frame => frame,
            recv(data) -> frame => frame,
        };
        let Ok(frame) = next else { return Ok(()) };
        let bytes = frame.as_bytes();
        let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
        stream.write_all(&length.to_le_bytes())?;
        stream.write_all(bytes)?;
        if control.is_empty() && data.is_empty() {
            stream.flush()?;
        }
    }
}

/// Reads frames until the connection breaks. Its bytes may be anybody's.
fn read(stream: TcpStream, member: &ReplicationHandle) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut stream = BufReader::with_capacity(1 << 16, stream);
    let mut sender = [0; 8];
    stream.read_exact(&mut sender)?;
    let sender = NodeId(u64::from_le_bytes(sender));
    loop {
        let mut length = [0; 4];
        stream.read_exact(&mut length)?;
        let length = u32::from_le_bytes(length) as usize;
        if length > FRAME_BYTES {
            return Err(io::ErrorKind::InvalidData.into());
        }
        // Not at once: a length is easily said.
        let mut bytes = Vec::new();
        stream.by_ref().take(length as u64).read_to_end(&mut bytes)?;
        if bytes.len() < length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let frame = Frame::from_bytes(bytes).map_err(io::Error::other)?;
        // Where there is no room the frame is lost, and asked for again.
        let _ = member.receive_and_tick(sender, frame);
    }
}

//! A blocking netlink socket: a request and its answer, a dump, a batch that is one transaction.
//!
//! Why blocking: the kernel does the work inside `send`, so there is nothing to wait for; who calls
//! from async code does so on a blocking thread.

use std::io;

use netlink_sys::{
    AsyncSocket, AsyncSocketExt, Socket as Inner, SocketAddr, TokioSocket, protocols,
};

use super::wire::{HEADER, Message, Received, attrs, messages, ne32};

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_DUMP: u16 = 0x300;
const NLM_F_DUMP_INTR: u16 = 0x10;
const NLM_F_ACK_TLVS: u16 = 0x200;
const NLMSGERR_ATTR_MSG: u16 = 1;

/// Bytes that one receive takes; the kernel fills no more than 32 KiB of a dump at a time.
const RECEIVE_BYTES: usize = 256 * 1024;
/// Bytes of answers that the kernel may queue; an error for each message of a large batch fits.
const RECEIVE_QUEUE_BYTES: usize = 8 * 1024 * 1024;
/// Bytes that one transaction may have; more is refused by the kernel with EMSGSIZE.
const BATCH_BYTES_MAX: usize = 256 * 1024 * 1024;
/// Times that a dump is begun anew because the kernel's table changed under it.
pub const DUMP_ATTEMPTS_MAX: usize = 20;

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The socket itself.
    #[error("netlink socket: {0}")]
    Socket(#[from] io::Error),
    /// The kernel refused.
    #[error("{doing}: {source}{}{text}", if text.is_empty() { "" } else { ": " })]
    Refused {
        /// What was asked for, in words.
        doing: String,
        /// The kernel's number.
        source: io::Error,
        /// The kernel's words, where it has some.
        text: String,
    },
    /// A dump never came to rest.
    #[error("{0}: the kernel's table changed {DUMP_ATTEMPTS_MAX} times while it was read")]
    Unsteady(String),
}

impl Error {
    /// The kernel's refusal: its (negative) number, and the attributes that came with it.
    pub fn refused(doing: &str, code: i32, extra: &[u8]) -> Self {
        let text = attrs(extra).find(|attr| attr.kind == NLMSGERR_ATTR_MSG);
        Self::Refused {
            doing: doing.to_owned(),
            source: io::Error::from_raw_os_error(-code),
            text: text.map(|attr| attr.text().to_owned()).unwrap_or_default(),
        }
    }

    /// The error number that the kernel gave.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Refused { source, .. } => source.raw_os_error(),
            Self::Socket(error) => error.raw_os_error(),
            Self::Unsteady(_) => None,
        }
    }
}

/// A result of this module.
pub type Result<T> = std::result::Result<T, Error>;

/// Lets the kernel say why it refuses, and gives its answers room.
pub fn prepare(socket: &mut Inner) -> Result<()> {
    socket.set_cap_ack(true)?;
    socket.set_ext_ack(true)?;
    // Needs CAP_NET_ADMIN, as everything here does; a smaller queue only means ENOBUFS later.
    let _ = rustix::net::sockopt::set_socket_recv_buffer_size_force(socket, RECEIVE_QUEUE_BYTES);
    Ok(())
}

/// A socket in the network namespace of the thread that opened it.
pub struct Socket {
    inner: Inner,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Socket {
    /// Opens a socket for requests.
    pub fn open() -> Result<Self> {
        let mut inner = Inner::new(protocols::NETLINK_NETFILTER)?;
        inner.bind_auto()?;
        prepare(&mut inner)?;
        Ok(Self { inner, sequence: 0, buffer: Vec::with_capacity(RECEIVE_BYTES) })
    }

    /// The number by which the kernel's notices name this socket as their cause.
    pub fn port(&self) -> Result<u32> {
        let mut address = SocketAddr::new(0, 0);
        self.inner.get_address(&mut address)?;
        Ok(address.port_number())
    }

    /// Sends one request and waits for its acknowledgement.
    pub fn request(&mut self, doing: &str, mut message: Message) -> Result<()> {
        message.flag(NLM_F_REQUEST | NLM_F_ACK);
        let sequence = self.next_sequence();
        self.inner.send(&message.finish(sequence), 0)?;
        loop {
            self.receive(0)?;
            for received in messages(&self.buffer) {
                if received.sequence == sequence && received.kind == NLMSG_ERROR {
                    return outcome(doing, &received);
                }
            }
        }
    }

    /// Asks for a table and keeps what `each` makes of its entries. When the kernel says that the
    /// table changed meanwhile, it is read again from the start.
    pub fn dump<T>(
        &mut self,
        doing: &str,
        message: &Message,
        mut each: impl FnMut(&mut Vec<T>, Received<'_>),
    ) -> Result<Vec<T>> {
        for _ in 0..DUMP_ATTEMPTS_MAX {
            let mut kept = Vec::new();
            if self.dump_once(doing, message.clone(), &mut |received| each(&mut kept, received))? {
                return Ok(kept);
            }
        }
        Err(Error::Unsteady(doing.to_owned()))
    }

    fn dump_once(
        &mut self,
        doing: &str,
        mut message: Message,
        each: &mut dyn FnMut(Received<'_>),
    ) -> Result<bool> {
        message.flag(NLM_F_REQUEST | NLM_F_DUMP);
        let sequence = self.next_sequence();
        self.inner.send(&message.finish(sequence), 0)?;
        let mut steady = true;
        loop {
            self.receive(0)?;
            for received in messages(&self.buffer) {
                if received.sequence != sequence {
                    continue;
                }
                steady &= received.flags & NLM_F_DUMP_INTR == 0;
                match received.kind {
                    NLMSG_DONE | NLMSG_ERROR => return outcome(doing, &received).map(|()| steady),
                    _ => each(received),
                }
            }
        }
    }

    /// Sends messages as one buffer, which nftables takes as one transaction. The last but one
    /// message (the one before the batch's end) asks for an acknowledgement, so that success is
    /// seen; failure is the first refusal.
    pub fn batch(&mut self, doing: &str, mut parts: Vec<Message>) -> Result<()> {
        if let Some(last) = parts.len().checked_sub(2) {
            parts[last].flag(NLM_F_ACK);
        }
        let mut bytes = Vec::with_capacity(parts.iter().map(Message::size).sum());
        let first = self.sequence.wrapping_add(1);
        for mut part in parts {
            part.flag(NLM_F_REQUEST);
            let sequence = self.next_sequence();
            bytes.extend_from_slice(&part.finish(sequence));
        }
        let room = (bytes.len() + 4096).min(BATCH_BYTES_MAX);
        if rustix::net::sockopt::socket_send_buffer_size(&self.inner).map_err(io::Error::from)?
            < room
        {
            rustix::net::sockopt::set_socket_send_buffer_size_force(&self.inner, room)
                .map_err(io::Error::from)?;
        }
        self.inner.send(&bytes, 0)?;
        let mut acknowledged = false;
        loop {
            match self.receive(libc::MSG_DONTWAIT) {
                Err(error) if error.errno() == Some(libc::EAGAIN) && acknowledged => return Ok(()),
                other => other?,
            }
            for received in messages(&self.buffer) {
                if received.kind != NLMSG_ERROR || received.sequence.wrapping_sub(first) > 1 << 30 {
                    continue;
                }
                let index = received.sequence.wrapping_sub(first);
                outcome(&format!("{doing} (message {index})"), &received)?;
                acknowledged = true;
            }
        }
    }

    fn next_sequence(&mut self) -> u32 {
        self.sequence = self.sequence.wrapping_add(1);
        self.sequence
    }

    fn receive(&mut self, flags: i32) -> Result<()> {
        self.buffer.clear();
        self.inner.recv(&mut self.buffer, flags)?;
        Ok(())
    }
}

/// Hears the kernel's notices of one group, for async code.
pub struct Notices {
    inner: TokioSocket,
    buffer: Vec<u8>,
}

impl Notices {
    /// Listens from now on; needs a tokio runtime.
    pub fn listen(group: u32) -> Result<Self> {
        let mut inner = TokioSocket::new(protocols::NETLINK_NETFILTER)?;
        inner.socket_mut().bind_auto()?;
        inner.socket_mut().add_membership(group)?;
        Ok(Self { inner, buffer: Vec::with_capacity(RECEIVE_BYTES) })
    }

    /// Waits for the next notices. `None`: some were lost, anything may have changed.
    pub async fn next(&mut self) -> Result<Option<impl Iterator<Item = Received<'_>>>> {
        self.buffer.clear();
        match self.inner.recv(&mut self.buffer).await {
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => return Ok(None),
            other => other?,
        };
        Ok(Some(messages(&self.buffer)))
    }
}

fn outcome(doing: &str, received: &Received<'_>) -> Result<()> {
    let code = ne32(received.payload, 0) as i32;
    if code >= 0 {
        return Ok(());
    }
    let told = received.flags & NLM_F_ACK_TLVS != 0 && received.kind == NLMSG_ERROR;
    let extra = if told { received.payload.get(4 + HEADER..).unwrap_or(&[]) } else { &[] };
    Err(Error::refused(doing, code, extra))
}

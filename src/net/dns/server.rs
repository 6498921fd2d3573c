//! The sockets: one for datagrams on each core, one that accepts streams.
//!
//! Why one a core with SO_REUSEPORT: the kernel spreads clients over them and no lock is shared; the
//! snapshot is read without one. Questions for the outside wait beside the socket's loop, not in it.

use std::future::Future;
use std::io;
use std::net::{SocketAddr, SocketAddrV4};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socket_with, sockopt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::answer::{Outcome, STREAM_BYTES_MAX, Transport, answer};
use super::forward::Forwarder;
use super::zone::Snapshot;
use crate::stdx::tasks::{RESTART, Tasks};

/// Questions of one socket that wait for the outside; more are dropped, and the client asks again.
const WAITING_MAX: usize = 1_000;
/// Streams open at once; more wait to be accepted.
const STREAMS_MAX: usize = 256;
/// How long a stream may be silent.
const STREAM_IDLE_MAX: Duration = Duration::from_secs(10);
/// Bytes of a request in a datagram.
const REQUEST_BYTES_MAX: usize = 4_096;
/// Streams that the kernel keeps for us.
const BACKLOG: i32 = 128;

/// What answers.
pub struct Server {
    /// The present names.
    pub snapshot: ArcSwap<Snapshot>,
    /// The way outside.
    pub forwarder: Forwarder,
}

impl Server {
    /// The response to a request; `None` when it deserves none.
    pub async fn respond(&self, request: &[u8], transport: Transport) -> Option<Vec<u8>> {
        let outcome = answer(request, &self.snapshot.load(), transport);
        self.finish(request, transport, outcome).await
    }

    async fn finish(
        &self,
        request: &[u8],
        transport: Transport,
        outcome: Outcome,
    ) -> Option<Vec<u8>> {
        match outcome {
            Outcome::Send(response) => Some(response),
            Outcome::Drop => None,
            Outcome::Forward(question) => {
                Some(self.forwarder.forward(request, &question, transport).await)
            }
            Outcome::Chase(question, target, response) => {
                Some(self.forwarder.chase(request, &question, target, response).await)
            }
        }
    }
}

/// Opens the sockets and serves until `tasks` stop; the address that was bound (for port 0).
pub fn start(
    server: Arc<Server>,
    address: SocketAddrV4,
    tasks: &Tasks,
) -> io::Result<SocketAddrV4> {
    let listener = stream_socket(address)?;
    let bound = match listener.local_addr()? {
        SocketAddr::V4(bound) => bound,
        SocketAddr::V6(_) => address,
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    for core in 0..cores {
        let socket = Arc::new(datagram_socket(bound)?);
        let server = server.clone();
        tasks.spawn(format!("dns udp {core}"), RESTART, move |stop| {
            datagrams(server.clone(), socket.clone(), stop)
        });
    }
    let listener = Arc::new(listener);
    tasks.spawn("dns tcp", RESTART, move |stop| streams(server.clone(), listener.clone(), stop));
    tracing::info!(address = %bound, sockets = cores, "DNS answers");
    Ok(bound)
}

fn open(address: SocketAddrV4, kind: SocketType) -> io::Result<std::os::fd::OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::INET, kind, flags, None)?;
    match kind {
        SocketType::DGRAM => sockopt::set_socket_reuseport(&socket, true)?,
        _ => sockopt::set_socket_reuseaddr(&socket, true)?,
    }
    bind(&socket, &address)?;
    Ok(socket)
}

fn datagram_socket(address: SocketAddrV4) -> io::Result<UdpSocket> {
    UdpSocket::from_std(open(address, SocketType::DGRAM)?.into())
}

fn stream_socket(address: SocketAddrV4) -> io::Result<TcpListener> {
    let socket = open(address, SocketType::STREAM)?;
    rustix::net::listen(&socket, BACKLOG)?;
    TcpListener::from_std(socket.into())
}

type Waiting = FuturesUnordered<Pin<Box<dyn Future<Output = ()> + Send>>>;

async fn datagrams(
    server: Arc<Server>,
    socket: Arc<UdpSocket>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let mut waiting: Waiting = FuturesUnordered::new();
    let mut buffer = vec![0; REQUEST_BYTES_MAX];
    loop {
        let (length, client) = tokio::select! {
            // An error is that of an earlier answer (its client has gone), not of the socket.
            received = socket.recv_from(&mut buffer) => match received {
                Ok(received) => received,
                Err(error) => {
                    tracing::debug!("DNS socket: {error}");
                    continue;
                }
            },
            Some(()) = waiting.next(), if !waiting.is_empty() => continue,
            () = stop.cancelled() => return Ok(()),
        };
        let request = &buffer[..length];
        let outcome = answer(request, &server.snapshot.load(), Transport::Udp);
        match outcome {
            Outcome::Drop => {}
            Outcome::Send(response) => send(&socket, &response, client).await,
            outcome if waiting.len() < WAITING_MAX => {
                let (server, socket, request) = (server.clone(), socket.clone(), request.to_vec());
                waiting.push(Box::pin(async move {
                    let done = server.finish(&request, Transport::Udp, outcome).await;
                    if let Some(response) = done {
                        send(&socket, &response, client).await;
                    }
                }));
            }
            _ => tracing::debug!("{WAITING_MAX} DNS questions wait: dropping one more"),
        }
    }
}

async fn send(socket: &UdpSocket, response: &[u8], client: SocketAddr) {
    if let Err(error) = socket.send_to(response, client).await {
        tracing::debug!(%client, "DNS answer not sent: {error}");
    }
}

async fn streams(
    server: Arc<Server>,
    listener: Arc<TcpListener>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let mut open: Waiting = FuturesUnordered::new();
    loop {
        tokio::select! {
            accepted = listener.accept(), if open.len() < STREAMS_MAX => {
                let (stream, client) = accepted?;
                let server = server.clone();
                open.push(Box::pin(async move {
                    if let Err(error) = serve(&server, stream).await {
                        tracing::debug!(%client, "DNS stream: {error}");
                    }
                }));
            }
            Some(()) = open.next(), if !open.is_empty() => {}
            () = stop.cancelled() => return Ok(()),
        }
    }
}

async fn serve(server: &Server, mut stream: TcpStream) -> io::Result<()> {
    loop {
        let request = match timeout(STREAM_IDLE_MAX, read(&mut stream)).await {
            Ok(Ok(Some(request))) => request,
            Ok(Ok(None)) | Err(_) => return Ok(()),
            Ok(Err(error)) => return Err(error),
        };
        let Some(response) = server.respond(&request, Transport::Tcp).await else { return Ok(()) };
        let length = response.len().min(STREAM_BYTES_MAX) as u16;
        let framed = [&length.to_be_bytes()[..], &response].concat();
        timeout(STREAM_IDLE_MAX, stream.write_all(&framed)).await??;
    }
}

/// One request; `None` at the end of the stream.
async fn read(stream: &mut TcpStream) -> io::Result<Option<Vec<u8>>> {
    let length = match stream.read_u16().await {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => usize::from(other?),
    };
    if length > REQUEST_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the request is too long"));
    }
    let mut request = vec![0; length];
    stream.read_exact(&mut request).await?;
    Ok(Some(request))
}

//! Asks the host's name servers what is not ours, and remembers it for a little while.
//!
//! Why so small: the host's resolver already has a policy of its own (search order, DNSSEC, split
//! zones); this hands questions on as they came. Everything that a client can make grow has a
//! bound: questions under way, remembered answers, their size and their age.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use hickory_proto::op::Message;
use hickory_proto::rr::RecordType;
use hickory_proto::serialize::binary::{BinEncodable, BinEncoder, NameEncoding};
use parking_lot::Mutex;
use rand::Rng;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::answer::{DATAGRAM_BYTES_MAX, Response, Transport, limit};
use super::wire::{Code, HEADER, Name, Question, kind, question, record};
use crate::stdx::clock::SharedClock;

/// Questions to others under way at once; more get SERVFAIL.
const UNDER_WAY_MAX: usize = 1_000;
/// Answers of others that are remembered; the oldest goes first.
const REMEMBERED_MAX: usize = 10_000;
/// Bytes of an answer that is remembered.
const REMEMBERED_BYTES_MAX: usize = 4_096;
/// How long an answer is remembered at most, whatever its own time to live.
const REMEMBERED_AGE_MAX: Duration = Duration::from_secs(30);
/// How long one name server may take for one try.
const TRY_TIMEOUT: Duration = Duration::from_secs(2);
/// Rounds through all name servers.
const ROUNDS: usize = 2;
/// Name servers of a resolv.conf that are used (as in the C library).
const SERVERS_MAX: usize = 3;
/// How often the file is looked at, at most.
const CONFIG_CHECK_INTERVAL: Duration = Duration::from_secs(2);

/// What tells answers apart: the question and what the client's EDNS asks for.
type Key = (Name, u16, u16, Option<bool>);

struct Remembered {
    response: Arc<[u8]>,
    at: Duration,
    until: Duration,
}

#[derive(Default)]
struct Memory {
    answers: HashMap<Key, Remembered>,
    order: VecDeque<(Key, Duration)>,
}

#[derive(Default)]
struct Servers {
    list: Vec<SocketAddr>,
    changed: Option<SystemTime>,
    checked: Option<Duration>,
}

/// The way outside.
pub struct Forwarder {
    config: PathBuf,
    own: IpAddr,
    clock: SharedClock,
    under_way: Semaphore,
    memory: Mutex<Memory>,
    servers: Mutex<Servers>,
}

impl Forwarder {
    /// Asks the name servers of the resolv.conf at `config`, which is read again when it changes,
    /// except `own`: a host that resolves through us must not be asked back.
    pub fn new(config: PathBuf, own: IpAddr, clock: SharedClock) -> Self {
        Self {
            config,
            own,
            clock,
            under_way: Semaphore::new(UNDER_WAY_MAX),
            memory: Mutex::default(),
            servers: Mutex::default(),
        }
    }

    /// Answers `request` as others would.
    pub async fn forward(
        &self,
        request: &[u8],
        question: &Question,
        transport: Transport,
    ) -> Vec<u8> {
        let Some(bytes) = self.resolve(request, question, transport).await else {
            return Response::new(request, question, transport).finish(Code::ServFail);
        };
        if bytes.len() > limit(question, transport) {
            // What was remembered from a client that takes more: this one asks again by TCP.
            let mut short = Response::new(request, question, transport).finish(Code::NoError);
            short[2] |= 2;
            return short;
        }
        bytes
    }

    /// Appends what others say about the end of a chain of aliases.
    pub async fn chase(
        &self,
        request: &[u8],
        asked: &Question,
        target: Name,
        mut response: Response,
    ) -> Vec<u8> {
        let mut bytes = request[..HEADER].to_vec();
        bytes[2..HEADER].copy_from_slice(&[1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
        bytes.extend_from_slice(&target);
        bytes.extend(asked.kind.to_be_bytes());
        bytes.extend(asked.class.to_be_bytes());
        let Ok(further) = question(&bytes) else {
            return response.finish(Code::ServFail);
        };
        let found = self.resolve(&bytes, &further, Transport::Tcp).await;
        let found = found.and_then(|bytes| Message::from_vec(&bytes).ok());
        response.not_authoritative();
        let Some(message) = found else { return response.finish(Code::ServFail) };
        for record in
            message.answers.iter().filter(|record| record.record_type() != RecordType::OPT)
        {
            let mut bytes = Vec::new();
            let mut encoder = BinEncoder::new(&mut bytes);
            encoder.set_name_encoding(NameEncoding::Uncompressed);
            if record.emit(&mut encoder).is_ok() {
                response.record(&bytes);
            }
        }
        match message.metadata.response_code.low() {
            0 => response.finish(Code::NoError),
            3 => response.finish(Code::NxDomain),
            _ => response.finish(Code::ServFail),
        }
    }

    /// What others say, with this client's id and spelling.
    async fn resolve(
        &self,
        request: &[u8],
        question: &Question,
        transport: Transport,
    ) -> Option<Vec<u8>> {
        let dnssec = question.edns.map(|edns| edns.dnssec);
        let key: Key = (question.name.clone(), question.kind, question.class, dnssec);
        let addressed = |mut response: Vec<u8>| {
            response[..2].copy_from_slice(&request[..2]);
            response[HEADER..question.end].copy_from_slice(&request[HEADER..question.end]);
            response
        };
        if let Some(response) = self.recall(&key) {
            return Some(addressed(response));
        }
        let permit = self.under_way.try_acquire();
        let Ok(_permit) = permit else {
            tracing::warn!("{UNDER_WAY_MAX} DNS questions are under way: refusing more");
            return None;
        };
        let servers = self.servers();
        for server in servers.iter().cycle().take(servers.len() * ROUNDS) {
            match timeout(TRY_TIMEOUT, ask(*server, request, question, transport)).await {
                Ok(Ok(response)) => {
                    self.remember(key, &response, question.end);
                    return Some(addressed(response));
                }
                Ok(Err(error)) => tracing::debug!(%server, "name server: {error}"),
                Err(_) => tracing::debug!(%server, "name server did not answer"),
            }
        }
        None
    }

    /// The remembered answer, its times to live reduced by its age.
    fn recall(&self, key: &Key) -> Option<Vec<u8>> {
        let now = self.clock.monotonic();
        let (mut response, age) = {
            let memory = self.memory.lock();
            let found = memory.answers.get(key).filter(|found| now < found.until)?;
            (found.response.to_vec(), (now - found.at).as_secs() as u32)
        };
        for at in ttls(&response).unwrap_or_default() {
            let ttl = u32::from_be_bytes(*response[at..].first_chunk()?);
            response[at..at + 4].copy_from_slice(&ttl.saturating_sub(age).to_be_bytes());
        }
        Some(response)
    }

    fn remember(&self, key: Key, response: &[u8], question_end: usize) {
        let Some(age) = lifetime(response, question_end) else { return };
        if age.is_zero() || response.len() > REMEMBERED_BYTES_MAX {
            return;
        }
        let now = self.clock.monotonic();
        let mut memory = self.memory.lock();
        while memory.order.len() >= REMEMBERED_MAX {
            let Some((oldest, at)) = memory.order.pop_front() else { break };
            // It may have been learnt again since.
            if memory.answers.get(&oldest).is_some_and(|found| found.at == at) {
                memory.answers.remove(&oldest);
            }
        }
        let until = now + age.min(REMEMBERED_AGE_MAX);
        memory.order.push_back((key.clone(), now));
        memory.answers.insert(key, Remembered { response: response.into(), at: now, until });
    }

    fn servers(&self) -> Vec<SocketAddr> {
        let now = self.clock.monotonic();
        let mut servers = self.servers.lock();
        if servers.checked.is_some_and(|checked| now < checked + CONFIG_CHECK_INTERVAL) {
            return servers.list.clone();
        }
        servers.checked = Some(now);
        let changed = std::fs::metadata(&self.config).and_then(|meta| meta.modified()).ok();
        if changed.is_none() || changed != servers.changed {
            servers.changed = changed;
            let text = std::fs::read_to_string(&self.config).unwrap_or_default();
            servers.list = name_servers(&text, self.own);
            tracing::info!(servers = ?servers.list, "name servers of {}", self.config.display());
        }
        servers.list.clone()
    }
}

/// The name servers of a resolv.conf. A value with a port is read too (`1.2.3.4:5353`).
fn name_servers(text: &str, own: IpAddr) -> Vec<SocketAddr> {
    const PORT: u16 = 53;
    let server = |line: &str| {
        let mut words = line.split_whitespace();
        let address = words.next().filter(|word| *word == "nameserver").and(words.next())?;
        let plain = address.parse().map(|ip| SocketAddr::new(ip, PORT));
        plain.or_else(|_| address.parse()).ok()
    };
    let found = text.lines().filter_map(server).filter(|server| server.ip() != own);
    found.take(SERVERS_MAX).collect()
}

/// Asks one server: by datagram, and by stream when its answer was cut and the client takes more.
async fn ask(
    server: SocketAddr,
    request: &[u8],
    question: &Question,
    transport: Transport,
) -> io::Result<Vec<u8>> {
    let id: [u8; 2] = rand::rng().random();
    let mut sent = request.to_vec();
    sent[..2].copy_from_slice(&id);
    let response = by_datagram(server, &sent, question).await?;
    let cut = response[2] & 2 != 0;
    if cut && transport == Transport::Tcp {
        by_stream(server, &sent, question).await
    } else {
        Ok(response)
    }
}

async fn by_datagram(server: SocketAddr, sent: &[u8], question: &Question) -> io::Result<Vec<u8>> {
    let any = if server.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    // A socket of its own has a port that nobody can guess, and only this server's answers.
    let socket = UdpSocket::bind(any).await?;
    socket.connect(server).await?;
    socket.send(sent).await?;
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX.max(REMEMBERED_BYTES_MAX)];
    loop {
        let length = socket.recv(&mut buffer).await?;
        if answers(&buffer[..length], sent, question) {
            buffer.truncate(length);
            return Ok(buffer);
        }
    }
}

async fn by_stream(server: SocketAddr, sent: &[u8], question: &Question) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    let framed = [&(sent.len() as u16).to_be_bytes()[..], sent].concat();
    stream.write_all(&framed).await?;
    let length = stream.read_u16().await?;
    let mut buffer = vec![0; usize::from(length)];
    stream.read_exact(&mut buffer).await?;
    let good = answers(&buffer, sent, question);
    good.then_some(buffer).ok_or_else(|| io::Error::other("an answer to another question"))
}

/// Whether a message is the answer to what was sent.
fn answers(message: &[u8], sent: &[u8], question: &Question) -> bool {
    message.len() >= question.end
        && message[..2] == sent[..2]
        && message[2] & 0x80 != 0
        && message[4..6] == [0, 1]
        && message[HEADER..question.end].eq_ignore_ascii_case(&sent[HEADER..question.end])
}

/// Where the times to live stand in a response, in all its sections but EDNS.
fn ttls(response: &[u8]) -> Option<Vec<usize>> {
    Some(records(response)?.iter().map(|(_, _, at)| *at).collect())
}

/// Type, time to live and its place of each record.
fn records(response: &[u8]) -> Option<Vec<(u16, u32, usize)>> {
    let header = response.first_chunk::<HEADER>()?;
    let count = |at: usize| usize::from(u16::from_be_bytes([header[at], header[at + 1]]));
    let mut at = HEADER;
    while *response.get(at)? != 0 {
        at += 1 + usize::from(response[at]);
    }
    at += 5;
    let mut found = Vec::new();
    for _ in 0..count(6) + count(8) + count(10) {
        let next = record(response, at)?;
        if next.kind != kind::OPT {
            found.push((next.kind, next.ttl, next.ttl_at));
        }
        at = next.end;
    }
    Some(found)
}

/// How long a response may be remembered: its shortest time to live; "no" as its SOA says. Failures
/// and cut answers are not remembered.
fn lifetime(response: &[u8], question_end: usize) -> Option<Duration> {
    const CUT: u8 = 2;
    let header = response.first_chunk::<HEADER>().filter(|_| response.len() >= question_end)?;
    let code = header[3] & 0xf;
    if header[2] & CUT != 0 || !matches!(code, 0 | 3) {
        return None;
    }
    let shortest = records(response)?.into_iter().map(|(_, ttl, _)| ttl).min();
    shortest.map(|seconds| Duration::from_secs(u64::from(seconds)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stdx::clock::ManualClock;

    const OWN: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 43, 0, 10));

    #[test]
    fn name_servers_are_read_without_our_own_address() {
        let text = "# made by hand\nnameserver 10.43.0.10\nnameserver 1.1.1.1 # one\n\
            search x\nnameserver fd00::1\nnameserver 127.0.0.1:5353\nnameserver 9.9.9.9\n";
        let found: Vec<String> =
            name_servers(text, OWN).iter().map(SocketAddr::to_string).collect();
        assert_eq!(found, ["1.1.1.1:53", "[fd00::1]:53", "127.0.0.1:5353"]);
    }

    fn response(name: &str, ttl: u32) -> (Key, Vec<u8>, usize) {
        let name = super::super::wire::name(name).unwrap();
        let mut bytes = vec![0, 0, 0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0];
        bytes.extend_from_slice(&name);
        bytes.extend([0, 1, 0, 1]);
        let end = bytes.len();
        bytes.extend(super::super::zone::record_bytes(&[0xc0, 12], kind::A, ttl, &[1, 2, 3, 4]));
        ((name, kind::A, 1, None), bytes, end)
    }

    #[test]
    fn what_is_remembered_ages_and_is_bounded() {
        let clock = ManualClock::at(jiff::Timestamp::UNIX_EPOCH);
        let forwarder = Forwarder::new(PathBuf::from("/nowhere"), OWN, clock.clone());
        let (key, bytes, end) = response("example.org", 20);
        forwarder.remember(key.clone(), &bytes, end);
        clock.advance(Duration::from_secs(5));
        let aged = forwarder.recall(&key).unwrap();
        assert_eq!(records(&aged).unwrap()[0].1, 15);
        clock.advance(Duration::from_secs(15));
        assert!(forwarder.recall(&key).is_none());
        for n in 0..REMEMBERED_MAX + 10 {
            let (key, bytes, end) = response(&format!("n{n}.example.org"), 20);
            forwarder.remember(key, &bytes, end);
        }
        assert_eq!(forwarder.memory.lock().answers.len(), REMEMBERED_MAX);
        let (key, mut bytes, end) = response("failed.example.org", 20);
        bytes[3] |= 2;
        forwarder.remember(key.clone(), &bytes, end);
        assert!(forwarder.recall(&key).is_none(), "a failure is not remembered");
    }
}

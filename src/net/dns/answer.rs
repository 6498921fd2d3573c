//! From a request and a snapshot to a response: a pure function but for what has to be asked
//! outside.

use super::wire::{Code, HEADER, Name, OPT_BYTES, Question, Unanswerable, kind};
use super::zone::{Found, RecordSet, Snapshot, TTL_SECONDS, record_bytes};

/// Bytes of a datagram to a client without EDNS.
const DATAGRAM_BYTES: usize = 512;
/// Bytes of a datagram that passes any link unfragmented; more is asked for again over TCP.
pub const DATAGRAM_BYTES_MAX: usize = 1_232;
/// Bytes of a message over TCP.
pub const STREAM_BYTES_MAX: usize = 65_535;
/// Aliases that are followed in one answer; a longer chain is a failure.
const ALIASES_MAX: usize = 8;

const INTERNET: u16 = 1;
const ANY_CLASS: u16 = 255;

/// How a request came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// In a datagram.
    Udp,
    /// On a stream.
    Tcp,
}

/// What is to be done with a request.
#[derive(Debug)]
pub enum Outcome {
    /// Send this.
    Send(Vec<u8>),
    /// Send nothing.
    Drop,
    /// Ask others for the question as it stands.
    Forward(Question),
    /// Ask others for the name at the end of a chain of aliases and append what they say.
    Chase(Question, Name, Response),
}

/// Bytes that a response to this question may have.
pub fn limit(question: &Question, transport: Transport) -> usize {
    match (transport, question.edns) {
        (Transport::Tcp, _) => STREAM_BYTES_MAX,
        (Transport::Udp, None) => DATAGRAM_BYTES,
        (Transport::Udp, Some(edns)) => {
            usize::from(edns.size).clamp(DATAGRAM_BYTES, DATAGRAM_BYTES_MAX)
        }
    }
}

/// Answers a request.
pub fn answer(request: &[u8], snapshot: &Snapshot, transport: Transport) -> Outcome {
    let question = match super::wire::question(request) {
        Ok(question) => question,
        Err(Unanswerable::Silently) => return Outcome::Drop,
        Err(Unanswerable::With(code)) => return Outcome::Send(bare(request, code)),
    };
    let mut response = Response::new(request, &question, transport);
    if question.edns.is_some_and(|edns| edns.version != 0) {
        return Outcome::Send(response.finish_bad_version());
    }
    if !matches!(question.class, INTERNET | ANY_CLASS) {
        return Outcome::Send(response.finish(Code::Refused));
    }
    match snapshot.find(&question.name) {
        Found::Outside => return Outcome::Forward(question),
        // Whoever cannot know yet must not say no: clients would believe it.
        Found::Nothing(_) if !snapshot.complete => {
            return Outcome::Send(response.finish(Code::ServFail));
        }
        Found::Nothing(zone) => {
            response.negative(&question, zone, snapshot);
            return Outcome::Send(response.finish(Code::NxDomain));
        }
        Found::Pod(address) if matches!(question.kind, kind::A | kind::ANY) => {
            response.record(&record_bytes(&OWNER, kind::A, TTL_SECONDS, &address.octets()));
        }
        Found::Node(node) if node.alias.is_some() => {
            return follow(question, snapshot, response);
        }
        Found::Node(node) => response.sets(&node.sets, question.kind, OWNER),
        Found::Pod(_) | Found::Empty => {}
    }
    if question.name == snapshot.zone && question.kind == kind::SOA {
        response.record(&record_bytes(&OWNER, kind::SOA, TTL_SECONDS, &snapshot.soa));
    }
    if response.answers == 0 && !response.truncated {
        response.negative(&question, apex(&question, snapshot), snapshot);
    }
    Outcome::Send(response.finish(Code::NoError))
}

const OWNER: [u8; 2] = [0xc0, HEADER as u8];

/// Bytes of the part of the name that the SOA belongs to.
fn apex(question: &Question, snapshot: &Snapshot) -> usize {
    if question.name.ends_with(&snapshot.zone) { snapshot.zone.len() } else { question.name.len() }
}

/// Follows an alias: through names of ours here, further outside.
fn follow(question: Question, snapshot: &Snapshot, mut response: Response) -> Outcome {
    let mut at = question.name.clone();
    let mut owner = OWNER;
    for _ in 0..ALIASES_MAX {
        let node = match snapshot.find(&at) {
            Found::Node(node) => node,
            Found::Pod(address) => {
                if question.kind == kind::A {
                    let bytes = record_bytes(&owner, kind::A, TTL_SECONDS, &address.octets());
                    response.record(&bytes);
                }
                return Outcome::Send(response.finish(Code::NoError));
            }
            Found::Outside => return Outcome::Chase(question, at, response),
            Found::Nothing(_) => return Outcome::Send(response.finish(Code::NxDomain)),
            Found::Empty => return Outcome::Send(response.finish(Code::NoError)),
        };
        let Some(alias) = &node.alias else {
            response.sets(&node.sets, question.kind, owner);
            return Outcome::Send(response.finish(Code::NoError));
        };
        // The target stands at the end of the record in full, and is the next record's owner.
        let bytes = record_bytes(&owner, kind::CNAME, TTL_SECONDS, alias);
        response.record(&bytes);
        let target = (response.bytes.len() - alias.len()) as u16;
        owner = (0xc000 | target).to_be_bytes();
        if matches!(question.kind, kind::CNAME | kind::ANY) || response.truncated {
            return Outcome::Send(response.finish(Code::NoError));
        }
        at = alias.clone();
    }
    Outcome::Send(response.finish(Code::ServFail))
}

/// A response without even a question.
fn bare(request: &[u8], code: Code) -> Vec<u8> {
    let mut bytes = request.get(..HEADER).unwrap_or(&[0; HEADER]).to_vec();
    bytes[2] = 0x80 | (bytes[2] & 0x79);
    bytes[3] = 0x80 | code as u8;
    bytes[4..HEADER].fill(0);
    bytes
}

/// A response that is being written.
#[derive(Debug)]
pub struct Response {
    bytes: Vec<u8>,
    limit: usize,
    edns: bool,
    answers: u16,
    authorities: u16,
    additionals: u16,
    truncated: bool,
}

impl Response {
    /// Begins one: the header and the question as the client wrote it.
    pub fn new(request: &[u8], question: &Question, transport: Transport) -> Self {
        let mut bytes = Vec::with_capacity(DATAGRAM_BYTES);
        bytes.extend_from_slice(&request[..question.end]);
        // A response, authoritative, with the client's wish for recursion, which is available.
        bytes[2] = 0x84 | (request[2] & 1);
        bytes[3] = 0x80;
        bytes[4..HEADER].copy_from_slice(&[0, 1, 0, 0, 0, 0, 0, 0]);
        let edns = question.edns.is_some();
        let limit = limit(question, transport) - if edns { OPT_BYTES } else { 0 };
        let (answers, authorities, additionals) = (0, 0, 0);
        Self { bytes, limit, edns, answers, authorities, additionals, truncated: false }
    }

    /// Appends an answer, or notes that it does not fit.
    pub fn record(&mut self, record: &[u8]) {
        if self.truncated || self.bytes.len() + record.len() > self.limit {
            self.truncated = true;
        } else {
            self.bytes.extend_from_slice(record);
            self.answers += 1;
        }
    }

    /// Others' words follow: the answer is no longer ours alone.
    pub fn not_authoritative(&mut self) {
        self.bytes[2] &= !4;
    }

    /// Appends what of `sets` was asked for, each record owned by the name at `owner`. Clients take
    /// the first address, so which one that is changes with each request's id.
    fn sets(&mut self, sets: &[RecordSet], asked: u16, owner: [u8; 2]) {
        let id = usize::from(u16::from_be_bytes([self.bytes[0], self.bytes[1]]));
        for set in sets.iter().filter(|set| asked == set.kind || asked == kind::ANY) {
            let start = id % set.records.len().max(1);
            let (later, first) = set.records.split_at(start);
            for record in first.iter().chain(later) {
                let at = self.bytes.len();
                let before = self.answers;
                self.record(record);
                if self.answers > before {
                    self.bytes[at..at + 2].copy_from_slice(&owner);
                }
            }
        }
        for extra in sets.iter().filter(|set| asked == set.kind).flat_map(|set| &set.additional) {
            if !self.truncated && self.bytes.len() + extra.len() <= self.limit {
                self.bytes.extend_from_slice(extra);
                self.additionals += 1;
            }
        }
    }

    /// The SOA that says how long "no" holds; it belongs to the last `zone` bytes of the name.
    fn negative(&mut self, question: &Question, zone: usize, snapshot: &Snapshot) {
        let at = HEADER + question.name.len() - zone.min(question.name.len());
        let owner = (0xc000 | at as u16).to_be_bytes();
        let record = record_bytes(&owner, kind::SOA, TTL_SECONDS, &snapshot.soa);
        if self.bytes.len() + record.len() <= self.limit {
            self.bytes.extend_from_slice(&record);
            self.authorities = 1;
        }
    }

    /// Ends it.
    pub fn finish(self, code: Code) -> Vec<u8> {
        self.end(code as u8, 0)
    }

    fn finish_bad_version(self) -> Vec<u8> {
        // BADVERS is 16: its upper bits stand in the EDNS record.
        self.end(0, 1)
    }

    fn end(mut self, code: u8, extended: u8) -> Vec<u8> {
        if self.edns {
            let [high, low] = (DATAGRAM_BYTES_MAX as u16).to_be_bytes();
            let opt = [0, 0, kind::OPT as u8, high, low, extended, 0, 0, 0, 0, 0];
            self.bytes.extend_from_slice(&opt);
            self.additionals += 1;
        }
        if self.truncated {
            self.bytes[2] |= 2;
        }
        self.bytes[3] |= code;
        let counts = [self.answers, self.authorities, self.additionals].map(u16::to_be_bytes);
        self.bytes[6..HEADER].copy_from_slice(&counts.concat());
        self.bytes
    }
}

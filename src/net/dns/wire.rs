//! DNS's bytes: names, the question of a request, the records of an answer.
//!
//! Why not a message type: an answer from the snapshot is the request's own question with
//! pre-rendered records behind it; nothing is parsed into objects or compressed anew for it.

use std::net::Ipv4Addr;

/// Bytes of a DNS header.
pub const HEADER: usize = 12;
/// Bytes that a name may have.
const NAME_BYTES_MAX: usize = 255;
/// Bytes of an EDNS record without options.
pub const OPT_BYTES: usize = 11;

/// Record types that are treated by name.
pub mod kind {
    #![allow(missing_docs)] // they are called what they are
    pub const A: u16 = 1;
    pub const NS: u16 = 2;
    pub const CNAME: u16 = 5;
    pub const SOA: u16 = 6;
    pub const PTR: u16 = 12;
    pub const TXT: u16 = 16;
    pub const SRV: u16 = 33;
    pub const OPT: u16 = 41;
    pub const ANY: u16 = 255;
}

/// Response codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// An answer, maybe an empty one.
    NoError = 0,
    /// The request makes no sense.
    FormErr = 1,
    /// Something that the answer depends on failed.
    ServFail = 2,
    /// There is no such name.
    NxDomain = 3,
    /// Not this kind of request.
    NotImp = 4,
    /// Not from here.
    Refused = 5,
}

/// A name as it is sent, in lower case.
pub type Name = Box<[u8]>;

/// A name from its text; `None` when it is none.
pub fn name(text: &str) -> Option<Name> {
    let mut bytes = Vec::with_capacity(text.len() + 2);
    for label in text.trim_end_matches('.').split('.').filter(|_| !text.is_empty()) {
        if label.is_empty() || label.len() > 63 {
            return None;
        }
        bytes.push(label.len() as u8);
        bytes.extend(label.bytes().map(|byte| byte.to_ascii_lowercase()));
    }
    bytes.push(0);
    (bytes.len() <= NAME_BYTES_MAX).then(|| bytes.into())
}

/// The name in `in-addr.arpa` of an address.
pub fn reverse(address: Ipv4Addr) -> Name {
    let [a, b, c, d] = address.octets();
    name(&format!("{d}.{c}.{b}.{a}.in-addr.arpa")).unwrap_or_default()
}

/// The labels of a name.
pub fn labels(name: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = name;
    std::iter::from_fn(move || {
        let (length, after) = rest.split_first()?;
        let (label, after) = after.split_at_checked(usize::from(*length))?;
        rest = after;
        (!label.is_empty()).then_some(label)
    })
}

/// The name above, "" for the root.
pub fn parent(name: &[u8]) -> Option<&[u8]> {
    let length = usize::from(*name.first()?);
    if length == 0 { None } else { name.get(1 + length..) }
}

/// The address that a name in `in-addr.arpa` stands for.
pub fn address_of_reverse(name: &[u8]) -> Option<Ipv4Addr> {
    let mut all = labels(name);
    let mut octet = || std::str::from_utf8(all.next()?).ok()?.parse::<u8>().ok();
    let (d, c, b, a) = (octet()?, octet()?, octet()?, octet()?);
    let rest = (all.next(), all.next(), all.next());
    (rest == (Some(b"in-addr"), Some(b"arpa"), None)).then(|| Ipv4Addr::new(a, b, c, d))
}

/// What a request asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// The name in lower case.
    pub name: Name,
    /// The record type.
    pub kind: u16,
    /// The class.
    pub class: u16,
    /// Where the question ends.
    pub end: usize,
    /// The client's EDNS record, if it sent one.
    pub edns: Option<Edns>,
}

/// What a client says of itself by EDNS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edns {
    /// Bytes that it takes in one datagram.
    pub size: u16,
    /// The version; there is only 0.
    pub version: u8,
    /// It wants DNSSEC records.
    pub dnssec: bool,
}

/// Why a request has no question to answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unanswerable {
    /// Say nothing: too short, or itself a response.
    Silently,
    /// Answer with this code.
    With(Code),
}

/// Reads a request.
pub fn question(request: &[u8]) -> Result<Question, Unanswerable> {
    let header = request.first_chunk::<HEADER>().ok_or(Unanswerable::Silently)?;
    if header[2] & 0x80 != 0 {
        return Err(Unanswerable::Silently);
    }
    if header[2] & 0x78 != 0 {
        return Err(Unanswerable::With(Code::NotImp));
    }
    let wrong = Unanswerable::With(Code::FormErr);
    let count = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
    if count(4) != 1 || count(6) != 0 {
        return Err(wrong);
    }
    let length = plain_name(&request[HEADER..]).ok_or(wrong)?;
    let end = HEADER + length + 4;
    let fixed = request.get(HEADER + length..end).ok_or(wrong)?;
    let name = request[HEADER..HEADER + length].to_ascii_lowercase();
    let edns = edns(request, end, count(8) + count(10)).ok_or(wrong)?;
    Ok(Question {
        name: name.into(),
        kind: u16::from_be_bytes([fixed[0], fixed[1]]),
        class: u16::from_be_bytes([fixed[2], fixed[3]]),
        end,
        edns,
    })
}

/// The length of a name without compression.
fn plain_name(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        let length = usize::from(*bytes.get(at)?);
        at += 1 + length;
        match length {
            0 => return (at <= NAME_BYTES_MAX).then_some(at),
            1..=63 => {}
            _ => return None,
        }
    }
}

fn edns(request: &[u8], mut at: usize, records: u16) -> Option<Option<Edns>> {
    for _ in 0..records {
        let record = record(request, at)?;
        at = record.end;
        if record.kind == kind::OPT {
            let [_, version, flags, _] = record.ttl.to_be_bytes();
            let (size, dnssec) = (record.class, flags & 0x80 != 0);
            return Some(Some(Edns { size, version, dnssec }));
        }
    }
    Some(None)
}

/// A record in a message.
#[derive(Clone, Copy, Debug)]
pub struct Record {
    /// Its type.
    pub kind: u16,
    /// Its class.
    pub class: u16,
    /// Its time to live in seconds.
    pub ttl: u32,
    /// Where the time to live stands.
    pub ttl_at: usize,
    /// Where it ends.
    pub end: usize,
}

/// Reads the record at an offset.
pub fn record(message: &[u8], at: usize) -> Option<Record> {
    let at = skip_name(message, at)?;
    let fixed: &[u8; 10] = message.get(at..)?.first_chunk()?;
    let end = at + 10 + usize::from(u16::from_be_bytes([fixed[8], fixed[9]]));
    (end <= message.len()).then(|| Record {
        kind: u16::from_be_bytes([fixed[0], fixed[1]]),
        class: u16::from_be_bytes([fixed[2], fixed[3]]),
        ttl: u32::from_be_bytes([fixed[4], fixed[5], fixed[6], fixed[7]]),
        ttl_at: at + 4,
        end,
    })
}

fn skip_name(message: &[u8], mut at: usize) -> Option<usize> {
    loop {
        let length = usize::from(*message.get(at)?);
        match length {
            0 => return Some(at + 1),
            1..=63 => at += 1 + length,
            192.. => return Some(at + 2),
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_lower_case_and_bounded() {
        assert_eq!(&*name("Web.Default").unwrap(), b"\x03web\x07default\0");
        assert_eq!(&*name("").unwrap(), b"\0");
        assert_eq!(name("a..b"), None);
        assert_eq!(name(&"a.".repeat(200)), None);
        assert_eq!(name(&"a".repeat(64)), None);
        assert_eq!(parent(b"\x01a\x01b\0"), Some(&b"\x01b\0"[..]));
        let address = Ipv4Addr::new(10, 43, 0, 1);
        assert_eq!(address_of_reverse(&reverse(address)), Some(address));
        assert_eq!(address_of_reverse(&name("0.10.in-addr.arpa").unwrap()), None);
    }

    #[test]
    fn broken_requests_are_refused_without_a_panic() {
        let good =
            [&[1, 2, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0][..], b"\x03Web\0", &[0, 1, 0, 1]].concat();
        assert_eq!(&*question(&good).unwrap().name, b"\x03web\0");
        for end in 0..good.len() {
            assert!(question(&good[..end]).is_err());
        }
        let mut response = good.clone();
        response[2] |= 0x80;
        assert_eq!(question(&response), Err(Unanswerable::Silently));
        let mut pointer = good;
        pointer[12] = 0xc0;
        assert_eq!(question(&pointer), Err(Unanswerable::With(Code::FormErr)));
    }
}

//! Netlink's bytes: a message that is being written, and the attributes of one that was read.
//!
//! Why one growing buffer: attributes nest, and a length is only known when the nest ends; patching
//! it in place costs nothing and needs no tree of types.

/// Bytes of `struct nlmsghdr`.
pub const HEADER: usize = 16;
/// Set on an attribute that holds attributes.
const NESTED: u16 = 0x8000;
/// The bits of an attribute's type that are its number.
const KIND_MASK: u16 = 0x3fff;

/// A message that is being written.
#[derive(Clone, Debug)]
pub struct Message {
    bytes: Vec<u8>,
}

impl Message {
    /// Starts a message of this type and these `NLM_F_` flags, with the family's own fixed header.
    pub fn new(kind: u16, flags: u16, fixed: &[u8]) -> Self {
        let mut bytes = vec![0; HEADER];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
        let mut message = Self { bytes };
        message.raw(fixed);
        message
    }

    /// Appends bytes and pads them to four.
    pub fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.bytes.extend_from_slice(bytes);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
        self
    }

    /// Appends an attribute.
    pub fn attr(&mut self, kind: u16, value: &[u8]) -> &mut Self {
        let length = (value.len() + 4) as u16;
        self.bytes.extend_from_slice(&length.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.raw(value)
    }

    /// Appends a number as the network writes it.
    pub fn be32(&mut self, kind: u16, value: u32) -> &mut Self {
        self.attr(kind, &value.to_be_bytes())
    }

    /// Appends a text with its final zero byte.
    pub fn text(&mut self, kind: u16, value: &str) -> &mut Self {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.attr(kind, &bytes)
    }

    /// Appends an attribute whose content `fill` writes. Content ends at 64 KiB: who writes lists
    /// splits them over messages.
    pub fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) -> &mut Self {
        let start = self.bytes.len();
        self.attr(kind | NESTED, &[]);
        fill(self);
        let length = self.bytes.len() - start;
        debug_assert!(length <= usize::from(u16::MAX), "an attribute ends at 64 KiB");
        self.bytes[start..start + 2].copy_from_slice(&(length as u16).to_ne_bytes());
        self
    }

    /// Adds `NLM_F_` flags.
    pub fn flag(&mut self, flags: u16) -> &mut Self {
        let now = u16::from_ne_bytes([self.bytes[6], self.bytes[7]]) | flags;
        self.bytes[6..8].copy_from_slice(&now.to_ne_bytes());
        self
    }

    /// Bytes so far.
    pub fn size(&self) -> usize {
        self.bytes.len()
    }

    /// The bytes to send.
    pub fn finish(mut self, sequence: u32) -> Vec<u8> {
        let length = self.bytes.len() as u32;
        self.bytes[0..4].copy_from_slice(&length.to_ne_bytes());
        self.bytes[8..12].copy_from_slice(&sequence.to_ne_bytes());
        self.bytes
    }
}

/// An attribute that was read.
#[derive(Clone, Copy, Debug)]
pub struct Attr<'a> {
    /// Its number.
    pub kind: u16,
    /// Its bytes.
    pub value: &'a [u8],
}

impl<'a> Attr<'a> {
    /// The attributes in it.
    pub fn attrs(&self) -> impl Iterator<Item = Attr<'a>> + use<'a> {
        attrs(self.value)
    }

    /// Its text, without the final zero byte.
    pub fn text(&self) -> &'a str {
        let bytes = self.value.strip_suffix(&[0]).unwrap_or(self.value);
        std::str::from_utf8(bytes).unwrap_or("")
    }

    /// Its number in the network's order.
    pub fn be32(&self) -> u32 {
        self.value.first_chunk().map_or(0, |bytes| u32::from_be_bytes(*bytes))
    }
}

/// The attributes in `bytes`; it ends at the first broken one.
pub fn attrs(mut bytes: &[u8]) -> impl Iterator<Item = Attr<'_>> {
    std::iter::from_fn(move || {
        let length = usize::from(ne16(bytes, 0));
        if length < 4 || length > bytes.len() {
            return None;
        }
        let attr = Attr { kind: ne16(bytes, 2) & KIND_MASK, value: &bytes[4..length] };
        bytes = &bytes[length.next_multiple_of(4).min(bytes.len())..];
        Some(attr)
    })
}

/// One message in a buffer that was received.
#[derive(Clone, Copy, Debug)]
pub struct Received<'a> {
    /// Its type.
    pub kind: u16,
    /// Its `NLM_F_` flags.
    pub flags: u16,
    /// The number of the request that it answers.
    pub sequence: u32,
    /// The socket whose request caused it.
    pub port: u32,
    /// What follows the header.
    pub payload: &'a [u8],
}

/// The messages in `bytes`.
pub fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Received<'_>> {
    std::iter::from_fn(move || {
        let length = ne32(bytes, 0) as usize;
        if length < HEADER || length > bytes.len() {
            return None;
        }
        let message = Received {
            kind: ne16(bytes, 4),
            flags: ne16(bytes, 6),
            sequence: ne32(bytes, 8),
            port: ne32(bytes, 12),
            payload: &bytes[HEADER..length],
        };
        bytes = &bytes[length.next_multiple_of(4).min(bytes.len())..];
        Some(message)
    })
}

/// The 16-bit number at `offset`, 0 beyond the end.
pub fn ne16(bytes: &[u8], offset: usize) -> u16 {
    let part = bytes.get(offset..).and_then(|rest| rest.first_chunk());
    part.map_or(0, |bytes| u16::from_ne_bytes(*bytes))
}

/// The 32-bit number at `offset`, 0 beyond the end.
pub fn ne32(bytes: &[u8], offset: usize) -> u32 {
    let part = bytes.get(offset..).and_then(|rest| rest.first_chunk());
    part.map_or(0, |bytes| u32::from_ne_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let mut message = Message::new(7, 1, &[2, 0, 0, 0]);
        message.text(1, "eth0").nest(2, |inner| {
            inner.be32(3, 80).attr(4, &[9]);
        });
        let bytes = message.finish(5);
        let read: Vec<_> = messages(&bytes).collect();
        assert_eq!((read.len(), read[0].kind, read[0].sequence), (1, 7, 5));
        let found: Vec<_> = attrs(&read[0].payload[4..]).collect();
        assert_eq!((found[0].kind, found[0].text()), (1, "eth0"));
        let inner: Vec<_> = found[1].attrs().collect();
        assert_eq!((inner[0].be32(), inner[1].value), (80, &[9][..]));
    }

    #[test]
    fn a_broken_length_ends_the_walk() {
        assert_eq!(attrs(&[3, 0, 1, 0]).count(), 0);
        assert_eq!(attrs(&[200, 0, 1, 0]).count(), 0);
        assert_eq!(messages(&[1, 2, 3]).count(), 0);
    }
}

//! Bytes on disk: variable-length numbers, byte strings, and the envelope around each row.
//!
//! Why our own: a row must be read back by every later version, and a derive macro's format is
//! nobody's promise. The envelope (format, key id, checksum) makes a flipped bit an error and
//! leaves room for encryption at rest without touching the rows themselves.

use bytes::Bytes;

use super::error::Error;

/// The envelope's format: payload in clear, CRC-32 behind it.
const FORMAT_PLAIN: u8 = 1;
/// The key id of payloads in clear.
const KEY_NONE: u8 = 0;
/// Bytes that the envelope adds.
const ENVELOPE_BYTES: usize = 6;

/// Wraps a payload: `format, key id, payload, crc32`.
pub(super) fn seal(payload: impl FnOnce(&mut Writer)) -> Vec<u8> {
    let mut writer = Writer(vec![FORMAT_PLAIN, KEY_NONE]);
    payload(&mut writer);
    let mut bytes = writer.0;
    let sum = crc32fast::hash(&bytes);
    bytes.extend_from_slice(&sum.to_le_bytes());
    bytes
}

/// Checks an envelope and gives its payload.
pub(super) fn unseal(bytes: &[u8]) -> Result<&[u8], Error> {
    let corrupt = |what: &str| Error::Corrupt(what.to_owned());
    if bytes.len() < ENVELOPE_BYTES {
        return Err(corrupt("a row is too short"));
    }
    let (body, sum) = bytes.split_at(bytes.len() - 4);
    if crc32fast::hash(body).to_le_bytes() != sum {
        return Err(corrupt("a row's checksum does not match"));
    }
    match body[..2] {
        [FORMAT_PLAIN, KEY_NONE] => Ok(&body[2..]),
        [format, key] => Err(corrupt(&format!("a row of unknown format {format}, key {key}"))),
        _ => Err(corrupt("a row is too short")),
    }
}

/// Appends values to a buffer.
#[derive(Default)]
pub(super) struct Writer(pub(super) Vec<u8>);

impl Writer {
    pub(super) fn byte(&mut self, byte: u8) {
        self.0.push(byte);
    }

    pub(super) fn number(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.0.push(number as u8 | 0x80);
            number >>= 7;
        }
        self.0.push(number as u8);
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    /// An optional number: 0 is none, else the number plus one.
    pub(super) fn maybe(&mut self, number: Option<u64>) {
        self.number(number.map_or(0, |number| number.saturating_add(1)));
    }
}

/// Takes values from a buffer; everything that does not fit is [`Error::Corrupt`].
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn take(&mut self, length: usize) -> Result<&'a [u8], Error> {
        if length > self.0.len() {
            return Err(Error::Corrupt("a record ends early".to_owned()));
        }
        let (taken, rest) = self.0.split_at(length);
        self.0 = rest;
        Ok(taken)
    }

    pub(super) fn byte(&mut self) -> Result<u8, Error> {
        Ok(self.take(1)?[0])
    }

    pub(super) fn number(&mut self) -> Result<u64, Error> {
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(Error::Corrupt("a number is too long".to_owned()))
    }

    pub(super) fn slice(&mut self) -> Result<&'a [u8], Error> {
        let length = self.number()?;
        self.take(usize::try_from(length).unwrap_or(usize::MAX))
    }

    /// A byte string in a buffer of its own: a slice would keep the whole record alive.
    pub(super) fn bytes(&mut self) -> Result<Bytes, Error> {
        Ok(Bytes::copy_from_slice(self.slice()?))
    }

    pub(super) fn maybe(&mut self) -> Result<Option<u64>, Error> {
        Ok(self.number()?.checked_sub(1))
    }

    /// How many items follow; each takes at least a byte, so a lying count is caught here.
    pub(super) fn count(&mut self) -> Result<usize, Error> {
        let count = self.number()?;
        if count > self.0.len() as u64 {
            return Err(Error::Corrupt("a record counts more items than it holds".to_owned()));
        }
        Ok(count as usize)
    }

    pub(super) fn end(&self) -> Result<(), Error> {
        match self.0.len() {
            0 => Ok(()),
            more => Err(Error::Corrupt(format!("{more} bytes behind a record"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_bytes_come_back() {
        let numbers = [0, 1, 127, 128, 300, u64::from(u32::MAX), u64::MAX];
        let mut writer = Writer::default();
        numbers.iter().for_each(|number| writer.number(*number));
        writer.bytes(b"key");
        writer.maybe(None);
        writer.maybe(Some(7));
        let mut reader = Reader(&writer.0);
        for number in numbers {
            assert_eq!(reader.number().unwrap(), number);
        }
        assert_eq!(reader.bytes().unwrap(), "key");
        assert_eq!(reader.maybe().unwrap(), None);
        assert_eq!(reader.maybe().unwrap(), Some(7));
        reader.end().unwrap();
        assert!(reader.byte().is_err());
    }

    #[test]
    fn every_flipped_bit_of_an_envelope_is_found() {
        let sealed = seal(|writer| writer.bytes(b"payload"));
        assert_eq!(unseal(&sealed).unwrap(), b"\x07payload");
        for bit in 0..sealed.len() * 8 {
            let mut bad = sealed.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(unseal(&bad).is_err(), "bit {bit}");
        }
        assert!(unseal(&sealed[..5]).is_err());
    }
}

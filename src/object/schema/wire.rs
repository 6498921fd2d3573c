//! The protobuf wire format: varints, length-delimited fields, and the envelope around objects.
//!
//! Why by hand: the table knows the numbers, so no generated struct is needed; a reader of thirty
//! lines serves every kind.

/// What stands before every protobuf object of Kubernetes.
pub(super) const MAGIC: &[u8] = b"k8s\0";

/// One field's payload.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Payload<'a> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'a [u8]),
    Fixed32(u32),
}

impl<'a> Payload<'a> {
    pub(super) fn bytes(self) -> Result<&'a [u8], String> {
        match self {
            Payload::Bytes(bytes) => Ok(bytes),
            other => Err(format!("proto: wrong wireType for a length-delimited field: {other:?}")),
        }
    }

    pub(super) fn text(self) -> Result<String, String> {
        Ok(String::from_utf8_lossy(self.bytes()?).into_owned())
    }

    pub(super) fn varint(self) -> Result<u64, String> {
        match self {
            Payload::Varint(number) => Ok(number),
            other => Err(format!("proto: wrong wireType for an integer: {other:?}")),
        }
    }
}

/// Iterates over the fields of one message.
pub(super) struct Fields<'a>(pub &'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], String> {
        if length > self.0.len() {
            return Err("unexpected EOF".to_owned());
        }
        let (taken, rest) = self.0.split_at(length);
        self.0 = rest;
        Ok(taken)
    }

    /// One varint.
    pub(super) fn varint(&mut self) -> Result<u64, String> {
        let mut number = 0u64;
        for shift in (0..70).step_by(7) {
            let byte = self.take(1)?[0];
            number |= u64::from(byte & 0x7f).checked_shl(shift).unwrap_or(0);
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err("proto: integer overflow".to_owned())
    }

    fn field(&mut self) -> Result<(u16, Payload<'a>), String> {
        let key = self.varint()?;
        let number = u16::try_from(key >> 3).unwrap_or(u16::MAX);
        let payload = match key & 7 {
            0 => Payload::Varint(self.varint()?),
            1 => {
                let mut bytes = [0; 8];
                bytes.copy_from_slice(self.take(8)?);
                Payload::Fixed64(u64::from_le_bytes(bytes))
            }
            2 => {
                let length = usize::try_from(self.varint()?).unwrap_or(usize::MAX);
                Payload::Bytes(self.take(length)?)
            }
            5 => {
                let mut bytes = [0; 4];
                bytes.copy_from_slice(self.take(4)?);
                Payload::Fixed32(u32::from_le_bytes(bytes))
            }
            other => return Err(format!("proto: illegal wireType {other}")),
        };
        if number == 0 {
            return Err("proto: illegal tag 0".to_owned());
        }
        Ok((number, payload))
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u16, Payload<'a>), String>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.0 = &[];
        }
        Some(field)
    }
}

/// Appends a varint.
pub(super) fn put_varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push((number as u8) | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Appends a field that holds a varint.
pub(super) fn put_number(out: &mut Vec<u8>, field: u16, number: u64) {
    put_varint(out, u64::from(field) << 3);
    put_varint(out, number);
}

/// Appends a field that holds eight bytes.
pub(super) fn put_fixed64(out: &mut Vec<u8>, field: u16, number: u64) {
    put_varint(out, u64::from(field) << 3 | 1);
    out.extend_from_slice(&number.to_le_bytes());
}

/// Appends a length-delimited field.
pub(super) fn put_bytes(out: &mut Vec<u8>, field: u16, bytes: &[u8]) {
    put_varint(out, u64::from(field) << 3 | 2);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

//! Whether a Parquet file is encrypted, from its last bytes: an encrypted footer has a magic of its own, a plain one says by
//! a field how the columns are encrypted ([the format]). The Parquet reader understands neither and says so in other words.
//!
//! [the format]: https://github.com/apache/parquet-format/blob/master/Encryption.md

/// Length of the footer's length and the magic behind it.
pub(super) const TAIL: u64 = 8;
const ENCRYPTED_FOOTER: &[u8; 4] = b"PARE";
/// `FileMetaData.encryption_algorithm`.
const ENCRYPTION_ALGORITHM: i64 = 8;
/// Structures are nested this deep at most; the format needs seven levels.
const MAX_DEPTH: usize = 32;

/// What the last eight bytes of a file say.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Tail {
    EncryptedFooter,
    /// A footer of this many bytes before the tail.
    Footer(u64),
}

pub(super) fn read_tail(tail: [u8; 8]) -> Tail {
    let [a, b, c, d, magic @ ..] = tail;
    if magic == *ENCRYPTED_FOOTER {
        Tail::EncryptedFooter
    } else {
        Tail::Footer(u32::from_le_bytes([a, b, c, d]).into())
    }
}

/// Whether a plain footer tells of encrypted columns; false when it can't be understood.
pub(super) fn has_encrypted_columns(footer: &[u8]) -> bool {
    let mut reader = Compact { bytes: footer };
    let mut last = 0;
    while let Some((id, kind)) = reader.field(last) {
        if id == ENCRYPTION_ALGORITHM {
            return true;
        }
        last = id;
        if reader.skip(kind, 0).is_none() {
            break;
        }
    }
    false
}

/// A reader of Thrift's [compact protocol]; `None` is the end, or bytes that make no sense.
///
/// [compact protocol]: https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md
struct Compact<'a> {
    bytes: &'a [u8],
}

impl Compact<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.bytes.split_first()?;
        self.bytes = rest;
        Some(*first)
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn skip_bytes(&mut self, count: u64) -> Option<()> {
        self.bytes = self.bytes.get(usize::try_from(count).ok()?..)?;
        Some(())
    }

    /// Id and type of the next field of a structure; `None` at its end.
    fn field(&mut self, last: i64) -> Option<(i64, u8)> {
        let header = self.byte()?;
        if header == 0 {
            return None;
        }
        let id = match header >> 4 {
            0 => {
                let zigzag = self.varint()?;
                i64::try_from(zigzag >> 1).ok()? ^ -i64::from(zigzag & 1 == 1)
            }
            delta => last.checked_add(delta.into())?,
        };
        Some((id, header & 0x0f))
    }

    fn skip(&mut self, kind: u8, depth: usize) -> Option<()> {
        if depth > MAX_DEPTH {
            return None;
        }
        match kind {
            // Booleans of fields are in the header.
            1 | 2 => Some(()),
            3 => self.skip_bytes(1),
            4..=6 => self.varint().map(|_| ()),
            7 => self.skip_bytes(8),
            8 => {
                let length = self.varint()?;
                self.skip_bytes(length)
            }
            9 | 10 => {
                let header = self.byte()?;
                let count = match header >> 4 {
                    15 => self.varint()?,
                    count => count.into(),
                };
                let element = header & 0x0f;
                for _ in 0..count {
                    match element {
                        1 | 2 => self.skip_bytes(1)?,
                        element => self.skip(element, depth + 1)?,
                    }
                }
                Some(())
            }
            12 => {
                let mut last = 0;
                loop {
                    if *self.bytes.first()? == 0 {
                        return self.skip_bytes(1);
                    }
                    let (id, kind) = self.field(last)?;
                    last = id;
                    self.skip(kind, depth + 1)?;
                }
            }
            // The footer has no maps.
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;

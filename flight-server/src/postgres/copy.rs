//! The frame of PostgreSQL's binary COPY format (PostgreSQL documentation, COPY, "Binary Format").

use super::error::PostgresError;

const SIGNATURE: &[u8; 11] = b"PGCOPY\n\xff\r\n\0";
/// Signature, flags, length of the header's extension.
const FIXED_HEADER: usize = SIGNATURE.len() + 4 + 4;

/// Cuts the bytes of a COPY into rows, however the bytes were split into messages.
#[derive(Debug, Default)]
pub(super) struct CopyReader {
    state: State,
    /// What an earlier message left over: less than one row.
    rest: Vec<u8>,
    /// Start and end of each field of the current row; `None` for NULL.
    fields: Vec<Option<(usize, usize)>>,
}

#[derive(Debug, Default, PartialEq, Eq, Clone, Copy)]
enum State {
    #[default]
    Header,
    Rows,
    End,
}

/// One row's fields as they are on the wire; `None` for NULL.
#[derive(Debug, Clone, Copy)]
pub(super) struct CopyRow<'r> {
    bytes: &'r [u8],
    fields: &'r [Option<(usize, usize)>],
}

impl<'r> CopyRow<'r> {
    /// A row that didn't come by COPY; `fields` are places in `bytes`.
    pub(super) fn new(bytes: &'r [u8], fields: &'r [Option<(usize, usize)>]) -> Self {
        Self { bytes, fields }
    }

    pub(super) fn len(&self) -> usize {
        self.fields.len()
    }

    pub(super) fn field(&self, index: usize) -> Option<&'r [u8]> {
        self.fields[index].map(|(start, end)| &self.bytes[start..end])
    }

    /// Size of the row on the wire, without its frame.
    pub(super) fn size(&self) -> usize {
        self.fields.iter().flatten().map(|(start, end)| end - start).sum()
    }
}

impl CopyReader {
    /// Gives every row that is complete to `on_row`.
    pub(super) fn read(
        &mut self,
        message: &[u8],
        mut on_row: impl FnMut(CopyRow<'_>) -> Result<(), PostgresError>,
    ) -> Result<(), PostgresError> {
        if self.rest.is_empty() {
            let used = self.read_whole(message, &mut on_row)?;
            self.rest.extend_from_slice(&message[used..]);
        } else {
            let mut bytes = std::mem::take(&mut self.rest);
            bytes.extend_from_slice(message);
            let used = self.read_whole(&bytes, &mut on_row)?;
            bytes.drain(..used);
            self.rest = bytes;
        }
        Ok(())
    }

    /// Whether the trailer came: everything was read.
    pub(super) fn is_complete(&self) -> bool {
        self.state == State::End && self.rest.is_empty()
    }

    /// Reads whole rows from the start of `bytes` and returns how many bytes they took.
    fn read_whole(
        &mut self,
        bytes: &[u8],
        on_row: &mut impl FnMut(CopyRow<'_>) -> Result<(), PostgresError>,
    ) -> Result<usize, PostgresError> {
        let mut at = 0;
        if self.state == State::Header {
            let Some(extension) = read_header(bytes)? else { return Ok(0) };
            at = extension;
            self.state = State::Rows;
        }
        while self.state == State::Rows {
            let Some(count) = bytes.get(at..at + 2) else { return Ok(at) };
            let count = i16::from_be_bytes([count[0], count[1]]);
            if count == -1 {
                self.state = State::End;
                return Ok(at + 2);
            }
            let Ok(count) = usize::try_from(count) else {
                return Err(PostgresError::internal("PostgreSQL sent a COPY row with a negative number of fields"));
            };
            match self.read_row(bytes, at + 2, count)? {
                Some(end) => {
                    on_row(CopyRow { bytes, fields: &self.fields })?;
                    at = end;
                }
                None => return Ok(at),
            }
        }
        Ok(at)
    }

    /// Finds the fields of one row; the place behind it, or `None` when it isn't whole yet.
    fn read_row(&mut self, bytes: &[u8], mut at: usize, count: usize) -> Result<Option<usize>, PostgresError> {
        self.fields.clear();
        for _ in 0..count {
            let Some(length) = read_i32(bytes, at) else { return Ok(None) };
            at += 4;
            if length == -1 {
                self.fields.push(None);
                continue;
            }
            let Ok(length) = usize::try_from(length) else {
                return Err(PostgresError::internal("PostgreSQL sent a COPY field with a negative length"));
            };
            if bytes.len() < at + length {
                return Ok(None);
            }
            self.fields.push(Some((at, at + length)));
            at += length;
        }
        Ok(Some(at))
    }
}

/// The place behind the header, or `None` when it isn't whole yet.
fn read_header(bytes: &[u8]) -> Result<Option<usize>, PostgresError> {
    if bytes.len() < FIXED_HEADER {
        return Ok(None);
    }
    if &bytes[..SIGNATURE.len()] != SIGNATURE {
        return Err(PostgresError::internal("PostgreSQL sent no binary COPY header"));
    }
    let extension = read_i32(bytes, SIGNATURE.len() + 4).and_then(|length| usize::try_from(length).ok());
    let Some(extension) = extension else {
        return Err(PostgresError::internal("PostgreSQL sent a bad binary COPY header"));
    };
    let end = FIXED_HEADER + extension;
    Ok((bytes.len() >= end).then_some(end))
}

/// A big-endian integer at a place, when it is there.
pub(super) fn read_i32(bytes: &[u8], at: usize) -> Option<i32> {
    let bytes = bytes.get(at..at + 4)?;
    Some(i32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// The bytes of a COPY with these rows.
    pub(in crate::postgres) fn encode(rows: &[Vec<Option<Vec<u8>>>]) -> Vec<u8> {
        let mut bytes = SIGNATURE.to_vec();
        bytes.extend([0; 8]);
        for row in rows {
            bytes.extend(i16::try_from(row.len()).unwrap().to_be_bytes());
            for field in row {
                match field {
                    Some(field) => {
                        bytes.extend(i32::try_from(field.len()).unwrap().to_be_bytes());
                        bytes.extend(field);
                    }
                    None => bytes.extend((-1_i32).to_be_bytes()),
                }
            }
        }
        bytes.extend((-1_i16).to_be_bytes());
        bytes
    }

    #[test]
    fn rows_survive_any_split_into_messages() {
        let rows = vec![
            vec![Some(b"abc".to_vec()), None, Some(Vec::new())],
            vec![None, Some(vec![1, 2, 3, 4]), Some(b"x".to_vec())],
        ];
        let bytes = encode(&rows);
        for size in 1..=bytes.len() {
            let mut reader = CopyReader::default();
            let mut read = Vec::new();
            for message in bytes.chunks(size) {
                let collect = |row: CopyRow<'_>| {
                    read.push((0..row.len()).map(|index| row.field(index).map(<[u8]>::to_vec)).collect::<Vec<_>>());
                    Ok(())
                };
                reader.read(message, collect).unwrap();
            }
            assert!(reader.is_complete(), "messages of {size}");
            assert_eq!(read, rows, "messages of {size}");
        }
    }

    #[test]
    fn a_cut_copy_is_not_complete() {
        let bytes = encode(&[vec![Some(b"abc".to_vec())]]);
        let mut reader = CopyReader::default();
        reader.read(&bytes[..bytes.len() - 2], |_| Ok(())).unwrap();
        assert!(!reader.is_complete());
        assert!(CopyReader::default().read(&[0; 19], |_| Ok(())).is_err());
    }
}

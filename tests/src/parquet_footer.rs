//! Surgery on Parquet footers: files with the traits of other writers, which no writer here can be asked for. A footer is
//! taken apart into the fields of Thrift's compact protocol, whatever they mean, changed, and put together again.

use anyhow::{Context, Result, bail, ensure};

/// Fields of a structure by id.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Struct(Vec<(i16, Field)>);

/// A value of the compact protocol.
#[derive(Debug, Clone, PartialEq)]
pub enum Field {
    Bool(bool),
    Byte(u8),
    I16(i64),
    I32(i64),
    I64(i64),
    Double([u8; 8]),
    Binary(Vec<u8>),
    /// The code of the element type, and the elements.
    List(u8, Vec<Field>),
    Struct(Struct),
}

impl Struct {
    pub fn field(&self, id: i16) -> Option<&Field> {
        self.0.iter().find(|(found, _)| *found == id).map(|(_, field)| field)
    }

    pub fn field_mut(&mut self, id: i16) -> Option<&mut Field> {
        self.0.iter_mut().find(|(found, _)| *found == id).map(|(_, field)| field)
    }

    /// Sets a field, or adds it.
    pub fn set(&mut self, id: i16, field: Field) {
        self.remove(id);
        self.0.push((id, field));
        self.0.sort_by_key(|(id, _)| *id);
    }

    pub fn remove(&mut self, id: i16) {
        self.0.retain(|(found, _)| *found != id);
    }

    /// The structures of a list of structures.
    ///
    /// # Errors
    /// The field is none.
    pub fn structs(&mut self, id: i16) -> Result<Vec<&mut Struct>> {
        match self.0.iter_mut().find(|(found, _)| *found == id) {
            Some((_, Field::List(_, fields))) => fields
                .iter_mut()
                .map(|field| match field {
                    Field::Struct(found) => Ok(found),
                    other => bail!("{other:?} is no structure"),
                })
                .collect(),
            other => bail!("field {id} is {other:?}, no list"),
        }
    }
}

/// Changes the footer of a Parquet file: `FileMetaData` of the format's `parquet.thrift`.
///
/// # Errors
/// The bytes are no Parquet file, or the change fails.
pub fn with_footer(file: &[u8], change: impl FnOnce(&mut Struct) -> Result<()>) -> Result<Vec<u8>> {
    ensure!(file.ends_with(b"PAR1") && file.len() > 12, "no Parquet file");
    let tail = file.len() - 8;
    let length = u32::from_le_bytes(file[tail..tail + 4].try_into()?) as usize;
    let start = tail.checked_sub(length).context("the footer is longer than the file")?;
    let mut footer = Reader(&file[start..tail]).structure()?;
    change(&mut footer)?;
    let mut content = file[..start].to_vec();
    write_struct(&footer, &mut content);
    let length = u32::try_from(content.len() - start)?;
    content.extend(length.to_le_bytes());
    content.extend(b"PAR1");
    Ok(content)
}

/// Where the footer of a Parquet file begins.
///
/// # Errors
/// The bytes are no Parquet file.
pub fn footer_start(file: &[u8]) -> Result<usize> {
    let tail = file.len().checked_sub(8).context("no Parquet file")?;
    let length = u32::from_le_bytes(file[tail..tail + 4].try_into()?) as usize;
    tail.checked_sub(length).context("the footer is longer than the file")
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take(&mut self, count: usize) -> Result<&[u8]> {
        let (taken, rest) = self.0.split_at_checked(count).context("the footer is cut")?;
        self.0 = rest;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8> {
        Ok(self.take(1)?[0])
    }

    fn varint(&mut self) -> Result<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        bail!("a number has no end")
    }

    #[expect(clippy::cast_possible_wrap, reason = "zigzag numbers wrap by design")]
    fn zigzag(&mut self) -> Result<i64> {
        let number = self.varint()?;
        Ok((number >> 1) as i64 ^ -((number & 1) as i64))
    }

    fn structure(&mut self) -> Result<Struct> {
        let mut fields = Vec::new();
        let mut last = 0;
        loop {
            let header = self.byte()?;
            if header == 0 {
                return Ok(Struct(fields));
            }
            let id = match header >> 4 {
                0 => i16::try_from(self.zigzag()?)?,
                delta => last + i16::from(delta),
            };
            last = id;
            let field = match header & 0x0f {
                1 => Field::Bool(true),
                2 => Field::Bool(false),
                kind => self.field(kind)?,
            };
            fields.push((id, field));
        }
    }

    fn field(&mut self, kind: u8) -> Result<Field> {
        Ok(match kind {
            1 | 2 => Field::Bool(self.byte()? == 1),
            3 => Field::Byte(self.byte()?),
            4 => Field::I16(self.zigzag()?),
            5 => Field::I32(self.zigzag()?),
            6 => Field::I64(self.zigzag()?),
            7 => Field::Double(self.take(8)?.try_into()?),
            8 => {
                let length = usize::try_from(self.varint()?)?;
                Field::Binary(self.take(length)?.to_vec())
            }
            9 | 10 => {
                let header = self.byte()?;
                let count = match header >> 4 {
                    15 => self.varint()?,
                    count => count.into(),
                };
                let element = header & 0x0f;
                Field::List(element, (0..count).map(|_| self.field(element)).collect::<Result<_>>()?)
            }
            12 => Field::Struct(self.structure()?),
            other => bail!("the footer has a field of type {other}"),
        })
    }
}

fn write_varint(mut number: u64, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

#[expect(clippy::cast_sign_loss, reason = "zigzag numbers wrap by design")]
fn write_zigzag(number: i64, out: &mut Vec<u8>) {
    write_varint(((number << 1) ^ (number >> 63)) as u64, out);
}

fn kind(field: &Field) -> u8 {
    match field {
        Field::Bool(true) => 1,
        Field::Bool(false) => 2,
        Field::Byte(_) => 3,
        Field::I16(_) => 4,
        Field::I32(_) => 5,
        Field::I64(_) => 6,
        Field::Double(_) => 7,
        Field::Binary(_) => 8,
        Field::List(..) => 9,
        Field::Struct(_) => 12,
    }
}

fn write_struct(structure: &Struct, out: &mut Vec<u8>) {
    let mut last = 0;
    for (id, field) in &structure.0 {
        match u8::try_from(id - last) {
            Ok(delta @ 1..=15) => out.push(delta << 4 | kind(field)),
            _ => {
                out.push(kind(field));
                write_zigzag((*id).into(), out);
            }
        }
        last = *id;
        if !matches!(field, Field::Bool(_)) {
            write_field(field, out);
        }
    }
    out.push(0);
}

fn write_field(field: &Field, out: &mut Vec<u8>) {
    match field {
        Field::Bool(value) => out.push(if *value { 1 } else { 2 }),
        Field::Byte(value) => out.push(*value),
        Field::I16(value) | Field::I32(value) | Field::I64(value) => write_zigzag(*value, out),
        Field::Double(bytes) => out.extend(bytes),
        Field::Binary(bytes) => {
            write_varint(bytes.len() as u64, out);
            out.extend(bytes);
        }
        Field::List(element, fields) => {
            match u8::try_from(fields.len()) {
                Ok(count @ 0..=14) => out.push(count << 4 | element),
                _ => {
                    out.push(0xf0 | element);
                    write_varint(fields.len() as u64, out);
                }
            }
            fields.iter().for_each(|field| write_field(field, out));
        }
        Field::Struct(structure) => write_struct(structure, out),
    }
}

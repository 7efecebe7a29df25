//! The index of one immutable file: which row ids it holds, at which positions, how old, and which of them are tombstones.
//!
//! ```text
//! magic │ identity of the file │ block … │ fences: a block's first id, place, length, rows and checksum │ rows │ trailer
//! ```
//! The fences stay in memory, about 24 bytes for each thousand rows; blocks are read where they stand. Every block and the
//! fences carry a checksum, and the trailer comes last: an index that was cut off has none.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::block::{BLOCK_ROWS, Block, Entry, pack};

/// Its number is raised with the form, and with what is refused: an index of before is built anew.
const MAGIC: &[u8; 8] = b"tcvidx02";
const HEADER: usize = MAGIC.len() + 32;
const FENCE: usize = 16 + 8 + 4 + 4 + 4;
/// The number of rows.
const FIGURES: usize = 8;
/// Length of the fences with the figures, their checksum, the magic once more.
const TRAILER: usize = 8 + 4 + MAGIC.len();

/// What an index belongs to: a digest of the lake, and the file's path, etag and size.
pub(crate) type Identity = [u8; 32];

/// Why an index can't be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum IndexError {
    #[error("cannot {action} the version index {}", path.display())]
    Io {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("the version index {} is damaged, cut off or of another file", path.display())]
    Damaged { path: PathBuf },
    #[error("the row ids of a file came out of order")]
    OutOfOrder,
}

/// Where a block stands and what it begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Fence {
    first: u128,
    offset: u64,
    length: u32,
    rows: u32,
    checksum: u32,
}

/// An index that is open.
#[derive(Debug)]
pub(crate) struct FileIndex {
    path: PathBuf,
    file: File,
    bytes: u64,
    fences: Vec<Fence>,
    rows: u64,
}

/// Writes an index, entry by entry in the order of (id, position).
#[derive(Debug)]
pub(crate) struct IndexWriter {
    path: PathBuf,
    file: BufWriter<File>,
    offset: u64,
    entries: Vec<Entry>,
    last: Option<(u128, u32)>,
    fences: Vec<Fence>,
    rows: u64,
}

impl IndexWriter {
    /// Begins an index at a path where nothing is yet.
    pub(crate) fn create(path: &Path, identity: &Identity) -> Result<Self, IndexError> {
        let opened = File::options().write(true).create_new(true).open(path);
        let file = opened.map_err(io(path, "create"))?;
        let mut writer = Self {
            path: path.to_owned(),
            file: BufWriter::new(file),
            offset: 0,
            entries: Vec::with_capacity(BLOCK_ROWS),
            last: None,
            fences: Vec::new(),
            rows: 0,
        };
        writer.write(&[MAGIC.as_slice(), identity.as_slice()].concat())?;
        Ok(writer)
    }

    pub(crate) fn push(&mut self, entry: Entry) -> Result<(), IndexError> {
        let place = (entry.id, entry.position);
        if self.last.is_some_and(|last| last >= place) {
            return Err(IndexError::OutOfOrder);
        }
        self.last = Some(place);
        self.rows += 1;
        self.entries.push(entry);
        if self.entries.len() == BLOCK_ROWS { self.end_block() } else { Ok(()) }
    }

    /// Completes the index. It isn't durable: one that a crash damages is built anew.
    pub(crate) fn finish(mut self) -> Result<(), IndexError> {
        self.end_block()?;
        let mut footer = Vec::with_capacity(self.fences.len() * FENCE + FIGURES);
        for fence in &self.fences {
            footer.extend(fence.first.to_le_bytes());
            footer.extend(fence.offset.to_le_bytes());
            for number in [fence.length, fence.rows, fence.checksum] {
                footer.extend(number.to_le_bytes());
            }
        }
        footer.extend(self.rows.to_le_bytes());
        let mut trailer = (footer.len() as u64).to_le_bytes().to_vec();
        trailer.extend(crc32fast::hash(&footer).to_le_bytes());
        trailer.extend(MAGIC);
        self.write(&footer)?;
        self.write(&trailer)?;
        self.file.flush().map_err(io(&self.path, "write"))
    }

    fn end_block(&mut self) -> Result<(), IndexError> {
        let Some(first) = self.entries.first() else { return Ok(()) };
        let mut bytes = Vec::new();
        pack(&self.entries, &mut bytes);
        self.fences.push(Fence {
            first: first.id,
            offset: self.offset,
            length: u32::try_from(bytes.len()).unwrap_or(u32::MAX),
            rows: u32::try_from(self.entries.len()).unwrap_or(u32::MAX),
            checksum: crc32fast::hash(&bytes),
        });
        self.entries.clear();
        self.write(&bytes)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), IndexError> {
        self.offset += bytes.len() as u64;
        self.file.write_all(bytes).map_err(io(&self.path, "write"))
    }
}

impl FileIndex {
    /// Opens an index and checks that it is whole and of this identity.
    pub(crate) fn open(path: &Path, identity: &Identity) -> Result<Self, IndexError> {
        let file = File::open(path).map_err(io(path, "open"))?;
        let bytes = file.metadata().map_err(io(path, "open"))?.len();
        let damaged = || IndexError::Damaged { path: path.to_owned() };
        let read = |offset: u64, length: usize| {
            let mut buffer = vec![0; length];
            file.read_exact_at(&mut buffer, offset).map_err(|_| damaged())?;
            Ok::<_, IndexError>(buffer)
        };
        let header = read(0, HEADER)?;
        if header[..MAGIC.len()] != *MAGIC || header[MAGIC.len()..] != *identity {
            return Err(damaged());
        }
        let trailer_at = bytes.checked_sub(TRAILER as u64).ok_or_else(damaged)?;
        let trailer = read(trailer_at, TRAILER)?;
        let length = number(&trailer[..8]).ok_or_else(damaged)?;
        let footer_at = trailer_at.checked_sub(length).filter(|at| *at >= HEADER as u64).ok_or_else(damaged)?;
        let footer = read(footer_at, usize::try_from(length).map_err(|_| damaged())?)?;
        let fences = footer.len().checked_sub(FIGURES).filter(|length| length.is_multiple_of(FENCE));
        let fences = fences.ok_or_else(damaged)?;
        if trailer[12..] != *MAGIC || trailer[8..12] != crc32fast::hash(&footer).to_le_bytes() {
            return Err(damaged());
        }
        let (fences, figures) = footer.split_at(fences);
        let fences: Option<Vec<Fence>> = fences.chunks_exact(FENCE).map(fence).collect();
        let (fences, rows) = (fences.ok_or_else(damaged)?, number(figures).ok_or_else(damaged)?);
        Ok(Self { path: path.to_owned(), file, bytes, fences, rows })
    }

    /// Size on disk.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn rows(&self) -> u64 {
        self.rows
    }

    /// Where the index is kept.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Tells of every version of these ids, which are in ascending order. Walks forward through fences and blocks by leaps:
    /// few ids cost a block each, many cost a merge. No block is read twice, and none that can hold none of the ids.
    pub(crate) fn lookup(&self, ids: &[u128], mut found: impl FnMut(Entry)) -> Result<(), IndexError> {
        let mut read: Option<(usize, Block)> = None;
        let (mut at, mut from) = (0, 0);
        for id in ids.iter().copied() {
            // The block before the first one that begins with the id may end with it.
            let next = self.fences.get(at + 1).is_some_and(|fence| fence.first < id);
            if next {
                at += self.fences[at..].partition_point(|fence| fence.first < id) - 1;
                from = 0;
            }
            let mut block_at = at;
            while self.fences.get(block_at).is_some_and(|fence| fence.first <= id) {
                if read.as_ref().is_none_or(|(index, _)| *index != block_at) {
                    read = Some((block_at, self.block(block_at)?));
                    from = 0;
                }
                let Some((_, block)) = &read else { break };
                from = block.lower_bound(id, from);
                (from..block.rows()).take_while(|index| block.id(*index) == id).for_each(|i| found(block.entry(i)));
                at = block_at;
                block_at += 1;
            }
        }
        Ok(())
    }

    /// All entries in the order of their ids.
    pub(crate) fn cursor(&self) -> Result<Cursor<'_>, IndexError> {
        let mut cursor = Cursor { index: self, next_block: 0, block: None, at: 0, current: None };
        cursor.advance()?;
        Ok(cursor)
    }

    fn block(&self, at: usize) -> Result<Block, IndexError> {
        let damaged = || IndexError::Damaged { path: self.path.clone() };
        let fence = self.fences.get(at).ok_or_else(damaged)?;
        let mut bytes = vec![0; fence.length as usize];
        self.file.read_exact_at(&mut bytes, fence.offset).map_err(io(&self.path, "read"))?;
        if crc32fast::hash(&bytes) != fence.checksum {
            return Err(damaged());
        }
        Block::read(bytes).filter(|block| block.rows() == fence.rows as usize).ok_or_else(damaged)
    }
}

/// A walk over the entries of an index.
#[derive(Debug)]
pub(crate) struct Cursor<'a> {
    index: &'a FileIndex,
    next_block: usize,
    block: Option<Block>,
    at: usize,
    current: Option<Entry>,
}

impl Cursor<'_> {
    /// The entry it stands at; `None` at the end.
    pub(crate) fn current(&self) -> Option<Entry> {
        self.current
    }

    pub(crate) fn advance(&mut self) -> Result<(), IndexError> {
        loop {
            if let Some(block) = &self.block
                && self.at < block.rows()
            {
                self.current = Some(block.entry(self.at));
                self.at += 1;
                return Ok(());
            }
            if self.next_block == self.index.fences.len() {
                self.current = None;
                return Ok(());
            }
            self.block = Some(self.index.block(self.next_block)?);
            (self.at, self.next_block) = (0, self.next_block + 1);
        }
    }
}

fn io(path: &Path, action: &'static str) -> impl Fn(std::io::Error) -> IndexError {
    move |source| IndexError::Io { action, path: path.to_owned(), source }
}

fn number(bytes: &[u8]) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.try_into().ok()?))
}

fn fence(bytes: &[u8]) -> Option<Fence> {
    let short = |from: usize| Some(u32::from_le_bytes(bytes.get(from..from + 4)?.try_into().ok()?));
    Some(Fence {
        first: u128::from_le_bytes(bytes.get(..16)?.try_into().ok()?),
        offset: number(bytes.get(16..24)?)?,
        length: short(24)?,
        rows: short(28)?,
        checksum: short(32)?,
    })
}

#[cfg(test)]
mod tests;

//! A block of an index: up to [`BLOCK_ROWS`] entries in the order of their ids, packed so that each is found by arithmetic.
//!
//! ```text
//! prefix length u8 │ width of times u8 │ form of positions u8 │ tombstones? u8 │ rows u32 │ least time i64 │ first position u32
//! prefix │ rest of each id, big-endian │ times above the least │ positions, unless one follows the other │ tombstone bits
//! ```
//! Numbers are little-endian where nothing else is said.

/// Entries of a block at most: a lookup reads one block.
pub(super) const BLOCK_ROWS: usize = 1024;

const HEADER: usize = 20;
const ID: usize = 16;

/// One version of a row in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) id: u128,
    /// Unix milliseconds; the least number when the file has none.
    pub(crate) changed_at: i64,
    pub(crate) is_tombstone: bool,
    /// The row's number in its file, from 0.
    pub(crate) position: u32,
}

/// A block as it was read.
#[derive(Debug)]
pub(super) struct Block {
    bytes: Vec<u8>,
    rows: usize,
    prefix: usize,
    time_width: usize,
    has_positions: bool,
    has_tombstones: bool,
    least_time: i64,
    first_position: u32,
}

/// Packs entries, which are in order, not empty, and at most [`BLOCK_ROWS`].
pub(super) fn pack(entries: &[Entry], out: &mut Vec<u8>) {
    let (first, last) = (entries.first().map_or(0, |entry| entry.id), entries.last().map_or(0, |entry| entry.id));
    // One byte of each id stays, so that no entry is of no size.
    let prefix = ((first ^ last).leading_zeros() as usize / 8).min(ID - 1);
    let least_time = entries.iter().map(|entry| entry.changed_at).min().unwrap_or(0);
    let above = |entry: &Entry| entry.changed_at.wrapping_sub(least_time).cast_unsigned();
    let greatest = entries.iter().map(above).max().unwrap_or(0);
    let time_width = 8 - greatest.leading_zeros() as usize / 8;
    let first_position = entries.first().map_or(0, |entry| entry.position);
    let follows =
        |(index, entry): (usize, &Entry)| u64::from(entry.position) == u64::from(first_position) + index as u64;
    let is_run = entries.iter().enumerate().all(follows);
    let has_tombstones = entries.iter().any(|entry| entry.is_tombstone);
    let rows = u32::try_from(entries.len()).unwrap_or(u32::MAX);
    #[expect(clippy::cast_possible_truncation, reason = "at most 16")]
    out.extend([prefix as u8, time_width as u8, u8::from(!is_run), u8::from(has_tombstones)]);
    out.extend(rows.to_le_bytes());
    out.extend(least_time.to_le_bytes());
    out.extend(first_position.to_le_bytes());
    out.extend(&first.to_be_bytes()[..prefix]);
    entries.iter().for_each(|entry| out.extend(&entry.id.to_be_bytes()[prefix..]));
    entries.iter().for_each(|entry| out.extend(&above(entry).to_le_bytes()[..time_width]));
    if !is_run {
        entries.iter().for_each(|entry| out.extend(entry.position.to_le_bytes()));
    }
    if has_tombstones {
        out.extend(entries.chunks(8).map(|entries| {
            entries.iter().enumerate().fold(0u8, |bits, (index, entry)| bits | (u8::from(entry.is_tombstone) << index))
        }));
    }
}

impl Block {
    /// A block from its bytes; `None` when they are none.
    pub(super) fn read(bytes: Vec<u8>) -> Option<Self> {
        let header = bytes.get(..HEADER)?;
        let block = Self {
            prefix: usize::from(header[0]),
            time_width: usize::from(header[1]),
            has_positions: header[2] != 0,
            has_tombstones: header[3] != 0,
            rows: u32::from_le_bytes(header[4..8].try_into().ok()?) as usize,
            least_time: i64::from_le_bytes(header[8..16].try_into().ok()?),
            first_position: u32::from_le_bytes(header[16..20].try_into().ok()?),
            bytes,
        };
        let is_whole = block.rows <= BLOCK_ROWS && block.prefix < ID && block.time_width <= 8;
        (is_whole && block.bytes.len() == block.end()).then_some(block)
    }

    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    pub(super) fn id(&self, index: usize) -> u128 {
        let mut id = [0; ID];
        id[..self.prefix].copy_from_slice(&self.bytes[HEADER..HEADER + self.prefix]);
        let rest = ID - self.prefix;
        let start = HEADER + self.prefix + index * rest;
        id[self.prefix..].copy_from_slice(&self.bytes[start..start + rest]);
        u128::from_be_bytes(id)
    }

    pub(super) fn entry(&self, index: usize) -> Entry {
        let mut above = [0; 8];
        let start = self.times() + index * self.time_width;
        above[..self.time_width].copy_from_slice(&self.bytes[start..start + self.time_width]);
        let is_tombstone = self.has_tombstones && self.bytes[self.tombstones() + index / 8] & (1 << (index % 8)) != 0;
        Entry {
            id: self.id(index),
            changed_at: self.least_time.wrapping_add(u64::from_le_bytes(above).cast_signed()),
            is_tombstone,
            position: self.position(index),
        }
    }

    /// The index of the first entry from `from` on whose id isn't below this one. Near ones are found fast.
    pub(super) fn lower_bound(&self, id: u128, from: usize) -> usize {
        let (mut low, mut step) = (from, 1);
        while low + step < self.rows && self.id(low + step) < id {
            low += step;
            step *= 2;
        }
        let mut high = (low + step).min(self.rows);
        while low < high {
            let middle = low.midpoint(high);
            if self.id(middle) < id { low = middle + 1 } else { high = middle }
        }
        low
    }

    fn position(&self, index: usize) -> u32 {
        if !self.has_positions {
            #[expect(clippy::cast_possible_truncation, reason = "below BLOCK_ROWS")]
            return self.first_position + index as u32;
        }
        let start = self.positions() + index * 4;
        let mut position = [0; 4];
        position.copy_from_slice(&self.bytes[start..start + 4]);
        u32::from_le_bytes(position)
    }

    fn times(&self) -> usize {
        HEADER + self.prefix + self.rows * (ID - self.prefix)
    }

    fn positions(&self) -> usize {
        self.times() + self.rows * self.time_width
    }

    fn tombstones(&self) -> usize {
        self.positions() + if self.has_positions { self.rows * 4 } else { 0 }
    }

    fn end(&self) -> usize {
        self.tombstones() + if self.has_tombstones { self.rows.div_ceil(8) } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip(entries: &[Entry]) -> usize {
        let mut bytes = Vec::new();
        pack(entries, &mut bytes);
        let size = bytes.len();
        let block = Block::read(bytes).expect("a block");
        assert_eq!((0..block.rows()).map(|index| block.entry(index)).collect::<Vec<_>>(), entries);
        size
    }

    fn entry(id: u128, changed_at: i64, is_tombstone: bool, position: u32) -> Entry {
        Entry { id, changed_at, is_tombstone, position }
    }

    #[test]
    fn what_is_packed_comes_back() {
        round_trip(&[entry(u128::MAX, i64::MIN, true, u32::MAX)]);
        round_trip(&[entry(0, i64::MIN, false, 7), entry(u128::MAX, i64::MAX, true, 3)]);
        let many: Vec<Entry> =
            (0..1024u32).map(|n| entry(u128::from(n / 3) << 60, 1000 - i64::from(n), n % 5 == 0, n * 7)).collect();
        round_trip(&many);
    }

    #[test]
    fn rows_in_the_order_of_their_ids_take_little_room() {
        let sorted: Vec<Entry> = (0..1024u32)
            .map(|n| entry((0x0190 << 112) | u128::from(n) << 40, 1_700_000_000_000 + i64::from(n), false, n))
            .collect();
        // Nine bytes of each id differ, and two of each time.
        assert!(round_trip(&sorted) < 1024 * 12);
    }

    #[test]
    fn bounds_are_found() {
        let mut bytes = Vec::new();
        pack(&[entry(2, 0, false, 0), entry(4, 0, false, 1), entry(4, 0, false, 2), entry(9, 0, false, 3)], &mut bytes);
        let block = Block::read(bytes).unwrap();
        assert_eq!([0, 2, 3, 4, 5, 9, 10].map(|id| block.lower_bound(id, 0)), [0, 0, 1, 1, 3, 3, 4]);
        assert_eq!([4, 5, 9, 10].map(|id| block.lower_bound(id, 1)), [1, 3, 3, 4]);
    }

    #[test]
    fn bytes_of_another_length_are_no_block() {
        let mut bytes = Vec::new();
        pack(&[entry(2, 0, true, 0), entry(4, 0, false, 9)], &mut bytes);
        assert!(Block::read(bytes.clone()).is_some());
        bytes.push(0);
        assert!(Block::read(bytes.clone()).is_none());
        bytes.truncate(bytes.len() - 2);
        assert!(Block::read(bytes).is_none());
        assert!(Block::read(Vec::new()).is_none());
    }
}

//! What the server's copy of dirty rows needs of a snapshot: which data it is of, and the stamps of dirty rows.

use futures::StreamExt;
use tokio_postgres::SimpleQueryMessage;
use translator::postgres::identity_sql;

use super::copy::{CopyReader, CopyRow};
use super::error::{PostgresError, PostgresErrorKind};
use super::{CopyStream, Snapshot};

/// Where a snapshot's data come from, and which transactions it sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotIdentity {
    pub source: SourceIdentity,
    pub seen: SeenTransactions,
}

/// One history of one database: data of another are never combined with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceIdentity {
    /// The cluster's own identifier.
    pub system: String,
    /// Another one after a promotion or a restore to a point in time.
    pub timeline: u64,
    /// Object ids of the database and of the tables.
    pub objects: String,
}

/// A `pg_snapshot`: the transactions that a snapshot sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenTransactions {
    /// Everything below has ended.
    xmin: u64,
    /// Nothing from here on is seen.
    xmax: u64,
    /// Between the two, what had not ended, in ascending order.
    in_progress: Vec<u64>,
}

/// What changes with every write of a dirty row: the transaction, in 64 bits, and the place of its `change_log` row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Stamp {
    transaction: u64,
    place: u64,
}

/// A row and the stamp of its dirty entry; `None`: the row isn't dirty.
pub type Stamped = (u128, Option<Stamp>);

impl Stamp {
    #[cfg(test)]
    pub(crate) fn of(transaction: u64, place: u64) -> Self {
        Self { transaction, place }
    }
}

impl SeenTransactions {
    /// Reads the text of a `pg_snapshot`, `xmin:xmax:xip,…`.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.splitn(3, ':');
        let mut number = || parts.next()?.parse::<u64>().ok();
        let (xmin, xmax) = (number()?, number()?);
        let in_progress = parts.next()?;
        let in_progress: Option<Vec<u64>> = match in_progress {
            "" => Some(Vec::new()),
            list => list.split(',').map(|id| id.parse().ok()).collect(),
        };
        Some(Self { xmin, xmax, in_progress: in_progress? })
    }

    /// Whether a snapshot that sees these sees all that `older` sees.
    pub fn holds(&self, older: &Self) -> bool {
        self.xmax >= older.xmax && self.in_progress.iter().all(|id| !older.sees(*id))
    }

    fn sees(&self, id: u64) -> bool {
        id < self.xmin || (id < self.xmax && self.in_progress.binary_search(&id).is_err())
    }

    /// The 64-bit id of a transaction whose lower half stands in a row that is seen.
    ///
    /// The id is below `xmax`. Of a row that was written a whole epoch ago and frozen since, the id comes out too great: it
    /// then changes now and again while the row doesn't, which costs a read and is never wrong, for a version that follows
    /// has another place.
    fn widen(&self, id: u32) -> u64 {
        // Ids below this one are PostgreSQL's own marks.
        const FIRST: u32 = 3;
        const EPOCH: u64 = 1 << 32;
        if id < FIRST {
            return id.into();
        }
        let same_epoch = (self.xmax & !(EPOCH - 1)) | u64::from(id);
        if same_epoch < self.xmax { same_epoch } else { same_epoch.saturating_sub(EPOCH) }
    }
}

impl std::fmt::Display for SeenTransactions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let in_progress: Vec<String> = self.in_progress.iter().map(u64::to_string).collect();
        write!(f, "{}:{}:{}", self.xmin, self.xmax, in_progress.join(","))
    }
}

impl SnapshotIdentity {
    /// Whether this snapshot is of the same history and holds all that the other one holds.
    pub fn continues(&self, older: &Self) -> bool {
        self.source == older.source && self.seen.holds(&older.seen)
    }
}

impl Snapshot {
    /// Tells which data this snapshot is of.
    ///
    /// # Errors
    /// Unavailable, Misconfigured: the role may not ask for the cluster's identity, or this PostgreSQL is too old.
    pub async fn identity(&mut self) -> Result<SnapshotIdentity, PostgresError> {
        self.start()?;
        let messages = self.client()?.simple_query(&identity_sql(&self.plain_tables())).await?;
        self.statement_running = false;
        let row = messages.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        });
        let read = || {
            let text = |index: usize| row?.get(index);
            let recovering = text(3)? == "t";
            // On a standby the number is decimal; the name of a WAL file has it in hexadecimal digits.
            let timeline = u64::from_str_radix(text(2)?, if recovering { 10 } else { 16 }).ok()?;
            let source = SourceIdentity { system: text(1)?.to_owned(), timeline, objects: text(4)?.to_owned() };
            Some(SnapshotIdentity { source, seen: SeenTransactions::parse(text(0)?)? })
        };
        read().ok_or_else(|| PostgresError::internal("a snapshot's identity can't be understood"))
    }

    /// Runs a statement that returns one `text`, or NULL or no row.
    ///
    /// # Errors
    /// Unavailable, Misconfigured, StatementTimeout.
    pub async fn text(&mut self, sql: &str) -> Result<Option<String>, PostgresError> {
        self.start()?;
        let messages = self.client()?.simple_query(sql).await?;
        self.statement_running = false;
        Ok(messages.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
            _ => None,
        }))
    }

    /// Runs a statement that returns `row_id uuid`, `xmin xid`, `ctid tid`. `seen` is this snapshot's.
    ///
    /// # Errors
    /// Unavailable, Misconfigured, StatementTimeout.
    pub async fn stamps(&mut self, sql: &str, seen: &SeenTransactions) -> Result<Vec<Stamped>, PostgresError> {
        let mut stream: CopyStream = self.copy_out(sql).await?;
        let mut reader = CopyReader::default();
        let mut stamps = Vec::new();
        while let Some(message) = stream.next().await {
            reader.read(&message?, |row| {
                let stamped = read_stamped(row, seen)
                    .ok_or_else(|| PostgresError::internal("a dirty set returned something else than stamps"))?;
                stamps.push(stamped);
                Ok(())
            })?;
        }
        if !reader.is_complete() {
            return Err(PostgresError::new(PostgresErrorKind::Unavailable, "PostgreSQL ended a COPY before its end"));
        }
        self.statement_running = false;
        Ok(stamps)
    }
}

fn read_stamped(row: CopyRow<'_>, seen: &SeenTransactions) -> Option<Stamped> {
    if row.len() != 3 {
        return None;
    }
    let id = u128::from_be_bytes(row.field(0)?.try_into().ok()?);
    let stamp = match (row.field(1), row.field(2)) {
        (Some(transaction), Some(place)) => {
            let transaction = u32::from_be_bytes(transaction.try_into().ok()?);
            // Four bytes of block, two of place in the block.
            let place: [u8; 6] = place.try_into().ok()?;
            let place = place.iter().fold(0, |place, byte| (place << 8) | u64::from(*byte));
            Some(Stamp { transaction: seen.widen(transaction), place })
        }
        (None, None) => None,
        _ => return None,
    };
    Some((id, stamp))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(text: &str) -> SeenTransactions {
        SeenTransactions::parse(text).unwrap()
    }

    #[test]
    fn a_snapshot_holds_another_one_when_it_sees_all_that_that_sees() {
        let older = seen("10:20:12,15");
        assert_eq!(older.to_string(), "10:20:12,15");
        for (newer, holds) in [
            ("10:20:12,15", true),
            ("15:25:15", true),
            ("30:30:", true),
            ("10:20:12", true),
            // 13 was seen before.
            ("10:20:12,13,15", false),
            ("9:30:9", false),
            ("10:19:12,15", false),
            // What begins later is new to both.
            ("12:22:12,15,20,21", true),
        ] {
            assert_eq!(seen(newer).holds(&older), holds, "{newer}");
        }
        assert_eq!(SeenTransactions::parse("1:2"), None);
        assert_eq!(SeenTransactions::parse("1:x:"), None);
        assert_eq!(SeenTransactions::parse("1:2:a"), None);
    }

    #[test]
    fn ids_are_widened_by_the_epoch_they_were_given_in() {
        const EPOCH: u64 = 1 << 32;
        let wide = |xmax: u64, id: u32| seen(&format!("{xmax}:{xmax}:")).widen(id);
        assert_eq!(wide(100, 99), 99);
        assert_eq!(wide(EPOCH + 100, 99), EPOCH + 99);
        assert_eq!(wide(EPOCH + 100, 100), 100, "not seen yet in this epoch: it is of the last one");
        assert_eq!(wide(EPOCH + 100, u32::MAX), EPOCH - 1);
        assert_eq!(wide(3 * EPOCH + 5, 7), 2 * EPOCH + 7);
        assert_eq!(wide(3 * EPOCH + 5, 2), 2, "frozen by pg_upgrade");
    }

    #[test]
    fn another_history_is_never_continued() {
        let source = SourceIdentity { system: "1".to_owned(), timeline: 1, objects: "5 6".to_owned() };
        let older = SnapshotIdentity { source: source.clone(), seen: seen("10:10:") };
        let newer = |source: SourceIdentity| SnapshotIdentity { source, seen: seen("20:20:") };
        assert!(newer(source.clone()).continues(&older));
        assert!(!newer(SourceIdentity { timeline: 2, ..source.clone() }).continues(&older));
        assert!(!newer(SourceIdentity { system: "2".to_owned(), ..source.clone() }).continues(&older));
        assert!(!newer(SourceIdentity { objects: "7 6".to_owned(), ..source }).continues(&older));
        assert!(!older.continues(&newer(older.source.clone())), "only forward");
    }
}

//! Bound statements, remembered: parsing, admitting and binding is a function of the text, its values and the catalog, and
//! FlightInfo and DoGet of one query need the same.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arrow::array::RecordBatch;

use super::statement::BoundStatement;
use crate::engine::ShapeDatabase;

/// Statements that are remembered.
const STATEMENTS: usize = 256;
/// A statement that is longer, with its values, isn't: few come twice.
const MAX_BYTES: usize = 64 * 1024;

/// The statements that were used last.
#[derive(Debug, Default)]
pub(super) struct BoundMemory(Mutex<Entries>);

#[derive(Debug, Default)]
struct Entries {
    by_text: HashMap<String, Vec<Entry>>,
    count: usize,
    /// Uses so far.
    clock: u64,
}

#[derive(Debug)]
struct Entry {
    values: Option<RecordBatch>,
    bound: Arc<BoundStatement>,
    used_at: u64,
}

impl BoundMemory {
    /// The statement with these values, as it was bound over this catalog.
    pub(super) fn get(
        &self,
        shape: &Arc<ShapeDatabase>,
        sql: &str,
        values: Option<&RecordBatch>,
    ) -> Option<Arc<BoundStatement>> {
        let mut entries = self.lock();
        entries.clock += 1;
        let now = entries.clock;
        let found = entries.by_text.get_mut(sql)?;
        let entry =
            found.iter_mut().find(|entry| Arc::ptr_eq(&entry.bound.shape, shape) && entry.values.as_ref() == values)?;
        entry.used_at = now;
        Some(Arc::clone(&entry.bound))
    }

    /// Remembers a statement, and forgets the one that wasn't used for the longest time when there are too many.
    pub(super) fn put(&self, sql: &str, values: Option<&RecordBatch>, bound: &Arc<BoundStatement>) {
        let bytes = sql.len() + values.map_or(0, RecordBatch::get_array_memory_size);
        if bytes > MAX_BYTES {
            return;
        }
        let mut entries = self.lock();
        entries.clock += 1;
        let entry = Entry { values: values.cloned(), bound: Arc::clone(bound), used_at: entries.clock };
        let known = entries.by_text.entry(sql.to_owned()).or_default();
        let before = known.len();
        // Bound by another query meanwhile.
        known.retain(|other| !Arc::ptr_eq(&other.bound.shape, &bound.shape) || other.values.as_ref() != values);
        known.push(entry);
        let after = known.len();
        entries.count = entries.count + after - before;
        if entries.count > STATEMENTS {
            entries.forget_oldest();
        }
    }

    /// Forgets all of them: another catalog is in force.
    pub(super) fn clear(&self) {
        let mut entries = self.lock();
        entries.by_text.clear();
        entries.count = 0;
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entries {
    fn forget_oldest(&mut self) {
        let ages = self.by_text.iter().flat_map(|(sql, known)| known.iter().map(move |entry| (entry.used_at, sql)));
        let Some((oldest, sql)) = ages.min().map(|(oldest, sql)| (oldest, sql.clone())) else { return };
        if let Some(known) = self.by_text.get_mut(&sql) {
            known.retain(|entry| entry.used_at != oldest);
            if known.is_empty() {
                self.by_text.remove(&sql);
            }
            self.count -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::Int32Array;
    use translator::catalog::Catalog;

    use super::super::statement::bind;
    use super::*;

    fn shape() -> Arc<ShapeDatabase> {
        let text = "[[entity]]\nname = \"a\"\nschema_id = 1\n[[entity.attribute]]\nname = \"n\"\ntype = \"text\"\ncolumn = \"text_01\"";
        Arc::new(ShapeDatabase::new(Arc::new(Catalog::parse(text).unwrap())).unwrap())
    }

    fn number(value: i32) -> RecordBatch {
        RecordBatch::try_from_iter([("$1", Arc::new(Int32Array::from(vec![value])) as arrow::array::ArrayRef)]).unwrap()
    }

    #[test]
    fn a_statement_is_of_one_catalog_and_one_set_of_values() {
        let (memory, shape, other) = (BoundMemory::default(), shape(), shape());
        let sql = "SELECT n FROM a WHERE n = ?";
        for value in [1, 2] {
            let values = number(value);
            let bound = Arc::new(bind(&shape, sql, Some(&values)).unwrap());
            memory.put(sql, Some(&values), &bound);
        }
        let found = |shape, values: Option<&RecordBatch>| memory.get(shape, sql, values).is_some();
        assert!(found(&shape, Some(&number(1))) && found(&shape, Some(&number(2))));
        assert!(!found(&shape, Some(&number(3))) && !found(&shape, None) && !found(&other, Some(&number(1))));
        let bound = Arc::new(bind(&other, sql, Some(&number(1))).unwrap());
        memory.put(sql, Some(&number(1)), &bound);
        assert!(found(&other, Some(&number(1))));
        assert!(found(&shape, Some(&number(2))), "who sees something else has statements of their own");
        assert_eq!(memory.lock().count, 3);
        memory.clear();
        assert!(!found(&other, Some(&number(1))));
        assert_eq!(memory.lock().count, 0);
    }

    #[test]
    fn the_statements_that_were_used_last_stay() {
        let (memory, shape) = (BoundMemory::default(), shape());
        let bound = Arc::new(bind(&shape, "SELECT n FROM a", None).unwrap());
        let sql = |number: usize| format!("SELECT n FROM a -- {number}");
        for number in 0..STATEMENTS {
            memory.put(&sql(number), None, &bound);
        }
        assert!(memory.get(&shape, &sql(0), None).is_some());
        memory.put(&sql(STATEMENTS), None, &bound);
        assert!(memory.get(&shape, &sql(0), None).is_some(), "it was used");
        assert!(memory.get(&shape, &sql(1), None).is_none(), "it was not");
        assert_eq!(memory.lock().count, STATEMENTS);
        memory.put(&"x".repeat(MAX_BYTES + 1), None, &bound);
        assert_eq!(memory.lock().count, STATEMENTS, "long ones come once");
    }
}

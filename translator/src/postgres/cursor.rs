//! The cursor of the change log: optional objects by which a reader finds what changed since a snapshot of its own.
//!
//! ```text
//! change_log.changed_tx      the transaction that wrote the row last, set by a trigger whoever writes
//! change_log_tx              index (schema_id, changed_tx)
//! change_log_epoch           one row for each transaction that took dirty rows away (DELETE, TRUNCATE, another row_id)
//! ```
//!
//! A transaction that an older snapshot didn't see has an id of at least its `pg_snapshot_xmin`. So the rows with
//! `changed_tx >= pg_snapshot_xmin(older)` hold all that changed since, and whatever else is read once more is harmless.
//! A row that is gone leaves no such trace: when [`dirty_rows_taken_sql`] says that some went, the whole set is read anew.
//! Purging flushed entries takes no dirty row away and leaves no mark.
//!
//! Marks are rows of their own instead of a number that is raised: writers that delete neither wait for each other nor
//! can they meet in a deadlock. Names of all objects start with the name of the change log and stand in its schema.

use super::TableNames;
use crate::quote::{Ident, TableName, postgres_text};

/// Names of the cursor's objects, unquoted, without a schema.
struct Names<'a> {
    schema: Option<&'a str>,
    log: &'a str,
}

impl<'a> Names<'a> {
    fn new(tables: &'a TableNames) -> Self {
        match tables.change_log.split_once('.') {
            Some((schema, log)) => Self { schema: Some(schema), log },
            None => Self { schema: None, log: &tables.change_log },
        }
    }

    /// The name with this suffix, in the schema of the change log.
    fn of(&self, suffix: &str) -> String {
        let name = self.plain(suffix);
        match self.schema {
            Some(schema) => format!("{}.{}", Ident(schema), Ident(&name)),
            None => Ident(&name).to_string(),
        }
    }

    fn plain(&self, suffix: &str) -> String {
        format!("{}_{suffix}", self.log)
    }
}

/// The statements that install the cursor, each safe to run again. Together they are one transaction.
///
/// Adding the triggers waits for transactions that write the change log, and holds new ones up until it commits.
pub fn cursor_ddl(tables: &TableNames) -> Vec<String> {
    let names = Names::new(tables);
    let log = TableName(&tables.change_log);
    let (stamp, mark, epoch) = (names.of("stamp"), names.of("mark"), names.of("epoch"));
    let trigger = |name: &str, when: &str, function: &str| {
        let name = Ident(&names.plain(name)).to_string();
        [
            format!("DROP TRIGGER IF EXISTS {name} ON {log}"),
            format!("CREATE TRIGGER {name} {when} EXECUTE FUNCTION {function}()"),
            format!("ALTER TABLE {log} ENABLE ALWAYS TRIGGER {name}"),
        ]
    };
    let mut statements = vec![
        format!("ALTER TABLE {log} ADD COLUMN IF NOT EXISTS changed_tx xid8"),
        // Partial, so that no look-up of one row takes it for its index: a planner that knows nothing yet of the table may.
        format!(
            "CREATE INDEX IF NOT EXISTS {} ON {log} (schema_id, changed_tx) WHERE changed_tx IS NOT NULL",
            Ident(&names.plain("tx"))
        ),
        format!("CREATE TABLE IF NOT EXISTS {epoch} (changed_tx xid8 PRIMARY KEY)"),
        format!(
            "CREATE OR REPLACE FUNCTION {stamp}() RETURNS trigger LANGUAGE plpgsql AS $$\nBEGIN\n  NEW.changed_tx := \
             pg_current_xact_id();\n  RETURN NEW;\nEND $$"
        ),
        // Whoever may delete from the change log may leave the mark. The table is found where the change log is.
        format!(
            "CREATE OR REPLACE FUNCTION {mark}() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER \
             SET search_path = pg_catalog AS $$\nBEGIN\n  EXECUTE format('INSERT INTO %I.%I VALUES (pg_current_xact_id()) \
             ON CONFLICT DO NOTHING', TG_TABLE_SCHEMA, TG_TABLE_NAME || '_epoch');\n  RETURN NULL;\nEND $$"
        ),
    ];
    statements.extend(trigger("stamp", &format!("BEFORE INSERT OR UPDATE ON {log} FOR EACH ROW"), &stamp));
    statements.extend(trigger(
        "deleted",
        &format!("AFTER DELETE ON {log} FOR EACH ROW WHEN (OLD.flushed_at = 0)"),
        &mark,
    ));
    statements.extend(trigger(
        "moved",
        &format!(
            "AFTER UPDATE OF schema_id, row_id ON {log} FOR EACH ROW WHEN (OLD.flushed_at = 0 AND (OLD.schema_id, \
             OLD.row_id) IS DISTINCT FROM (NEW.schema_id, NEW.row_id))"
        ),
        &mark,
    ));
    statements.extend(trigger("truncated", &format!("AFTER TRUNCATE ON {log} FOR EACH STATEMENT"), &mark));
    statements
}

/// The statements that take the cursor away again and leave the change log as it was.
pub fn cursor_removal(tables: &TableNames) -> Vec<String> {
    let names = Names::new(tables);
    let log = TableName(&tables.change_log);
    let mut statements: Vec<String> =
        TRIGGERS.iter().map(|name| format!("DROP TRIGGER IF EXISTS {} ON {log}", Ident(&names.plain(name)))).collect();
    statements.extend([
        format!("DROP FUNCTION IF EXISTS {}()", names.of("stamp")),
        format!("DROP FUNCTION IF EXISTS {}()", names.of("mark")),
        format!("DROP TABLE IF EXISTS {}", names.of("epoch")),
        format!("ALTER TABLE {log} DROP COLUMN IF EXISTS changed_tx"),
    ]);
    statements
}

const TRIGGERS: [&str; 4] = ["stamp", "deleted", "moved", "truncated"];

/// Asks whether the cursor is there and whole: one `text`, NULL when it isn't.
///
/// The text is a fingerprint. It is another one after a trigger was switched off, even when it was switched on again
/// since: what was written in between has no stamp, so a reader whose last snapshot had another fingerprint reads the
/// whole set anew.
pub fn cursor_fingerprint_sql(tables: &TableNames) -> String {
    let names = Names::new(tables);
    // The names are quoted as identifiers within a text, as `to_regclass` reads them.
    let text = |name: &str| postgres_text(name).unwrap_or_else(|| "NULL".to_owned());
    let regclass = |name: &str| format!("to_regclass({})", text(name));
    let log = regclass(&TableName(&tables.change_log).to_string());
    let triggers: Vec<String> = TRIGGERS.iter().map(|name| text(&names.plain(name))).collect();
    format!(
        "SELECT string_agg(t.oid::text || '.' || t.xmin::text, ' ' ORDER BY t.tgname) FROM pg_catalog.pg_trigger t \
         WHERE t.tgrelid = {log} AND t.tgenabled = 'A' AND t.tgname IN ({}) \
         AND {epoch} IS NOT NULL \
         AND EXISTS (SELECT FROM pg_catalog.pg_attribute a WHERE a.attrelid = {log} AND a.attname = 'changed_tx' \
           AND a.atttypid = 'pg_catalog.xid8'::regtype AND NOT a.attisdropped) \
         AND EXISTS (SELECT FROM pg_catalog.pg_index i WHERE i.indexrelid = {index} AND i.indrelid = {log} AND i.indisvalid) \
         HAVING count(*) = {}",
        triggers.join(", "),
        TRIGGERS.len(),
        epoch = regclass(&names.of("epoch")),
        index = regclass(&names.of("tx")),
    )
}

/// Asks whether a transaction that `older`, the text of a `pg_snapshot`, doesn't see has taken dirty rows away: one
/// `bool`, as of the snapshot that asks. `older` is a text of digits, colons and commas.
pub fn dirty_rows_taken_sql(tables: &TableNames, older: &str) -> String {
    let older = postgres_text(older).unwrap_or_else(|| "NULL".to_owned());
    format!(
        "SELECT EXISTS (SELECT FROM {} e WHERE e.changed_tx >= pg_snapshot_xmin({older}::pg_snapshot) AND NOT \
         pg_visible_in_snapshot(e.changed_tx, {older}::pg_snapshot))",
        Names::new(tables).of("epoch")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_stand_beside_the_change_log() {
        let tables = TableNames { change_log: "app.log".to_owned(), ..TableNames::default() };
        let ddl = cursor_ddl(&tables).join(";\n");
        for part in [
            "ALTER TABLE \"app\".\"log\" ADD COLUMN IF NOT EXISTS changed_tx xid8",
            "CREATE INDEX IF NOT EXISTS \"log_tx\" ON \"app\".\"log\" (schema_id, changed_tx)",
            "CREATE TABLE IF NOT EXISTS \"app\".\"log_epoch\"",
            "CREATE OR REPLACE FUNCTION \"app\".\"log_stamp\"()",
            "ENABLE ALWAYS TRIGGER \"log_stamp\"",
        ] {
            assert!(ddl.contains(part), "{part} is not in\n{ddl}");
        }
        assert!(cursor_fingerprint_sql(&tables).contains("to_regclass('\"app\".\"log_tx\"')"));
        assert!(dirty_rows_taken_sql(&tables, "1:2:").contains("FROM \"app\".\"log_epoch\" e"));
        assert!(
            cursor_removal(&tables).iter().all(|statement| !statement.contains("DROP TABLE IF EXISTS \"app\".\"log\""))
        );
    }
}

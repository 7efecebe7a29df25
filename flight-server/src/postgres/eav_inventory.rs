//! What an EAV installation holds, for `thermocline init --eav`.

use super::{PostgresError, PostgresSource};

/// An attribute that rows of `eav_data` have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EavAttribute {
    pub attr_id: i16,
    /// Whether some of its rows are elements of a list.
    pub is_list: bool,
    /// Rows with a number, and rows with a text.
    pub numbers: u64,
    pub texts: u64,
    /// Whether every number is 0 or 1, or a whole number.
    pub all_flags: bool,
    pub all_whole: bool,
    /// Whether every text is a UUID, or an object or array of JSON by its looks.
    pub all_uuid: bool,
    pub all_json: bool,
}

impl PostgresSource {
    /// The attributes of a schema, by `attr_id`. Reads all its rows.
    ///
    /// # Errors
    /// Unavailable, Misconfigured.
    pub async fn eav_attributes(&self, schema_id: i16) -> Result<Vec<EavAttribute>, PostgresError> {
        let sql = format!(
            "SELECT attr_id::int2, bool_or(array_indices <> ''), count(value_numeric), count(value_text), \
             COALESCE(bool_and(value_numeric IN (0, 1)), false), \
             COALESCE(bool_and(value_numeric = floor(value_numeric) AND abs(value_numeric) < 9e15), false), \
             COALESCE(bool_and(value_text ~ '^[0-9a-fA-F]{{8}}(-[0-9a-fA-F]{{4}}){{3}}-[0-9a-fA-F]{{12}}$'), false), \
             COALESCE(bool_and(value_text ~ '^\\s*[{{\\[].*[}}\\]]\\s*$'), false) \
             FROM {} WHERE schema_id = $1 GROUP BY attr_id ORDER BY attr_id",
            self.tables().eav_data
        );
        let mut snapshot = self.begin().await?;
        snapshot.start()?;
        let rows = snapshot.client()?.query(&sql, &[&schema_id]).await?;
        snapshot.statement_running = false;
        snapshot.finish().await?;
        let count = |number: i64| u64::try_from(number).unwrap_or(0);
        rows.iter()
            .map(|row| {
                Ok(EavAttribute {
                    attr_id: row.try_get(0)?,
                    is_list: row.try_get(1)?,
                    numbers: count(row.try_get(2)?),
                    texts: count(row.try_get(3)?),
                    all_flags: row.try_get(4)?,
                    all_whole: row.try_get(5)?,
                    all_uuid: row.try_get(6)?,
                    all_json: row.try_get(7)?,
                })
            })
            .collect()
    }

    /// Those of the columns of `entity_main` in which some row of the schema has a value. Reads all its rows.
    ///
    /// # Errors
    /// Unavailable, Misconfigured.
    pub async fn used_main_columns(&self, schema_id: i16, columns: &[String]) -> Result<Vec<String>, PostgresError> {
        if columns.is_empty() {
            return Ok(Vec::new());
        }
        let counts: Vec<String> =
            columns.iter().map(|column| format!("count({}) > 0", translator::quote::Ident(column))).collect();
        let sql = format!(
            "SELECT ARRAY[{}] FROM {} WHERE ltbase_schema_id = $1",
            counts.join(", "),
            self.tables().entity_main
        );
        let mut snapshot = self.begin().await?;
        snapshot.start()?;
        let used: Vec<bool> = snapshot.client()?.query_one(&sql, &[&schema_id]).await?.try_get(0)?;
        snapshot.statement_running = false;
        snapshot.finish().await?;
        Ok(columns.iter().zip(used).filter(|(_, used)| *used).map(|(column, _)| column.clone()).collect())
    }
}

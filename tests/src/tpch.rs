//! TPC-H's tables as entities: what the generator makes, spread over the tiers with stale versions underneath, and the
//! same rows as text for a plain DuckDB.

use std::path::Path;

use anyhow::{Context, Result};
use tpchgen::csv::{CustomerCsv, LineItemCsv, NationCsv, OrderCsv, PartCsv, PartSuppCsv, RegionCsv, SupplierCsv};
use tpchgen::generators::{
    CustomerGenerator, LineItemGenerator, NationGenerator, OrderGenerator, PartGenerator, PartSuppGenerator,
    RegionGenerator, SupplierGenerator,
};

use crate::lake::LakeFile;
use crate::model::{Entity, Kind, Value, Version};
use crate::oracle::{HotVersion, Stored};
use crate::scenario::live;

const MONEY: Kind = Kind::Decimal { precision: 15, scale: 2 };
/// Tells the fields of a line apart; no value has it.
const DELIMITER: char = '|';

/// A table as the generator makes it.
#[derive(Debug)]
pub struct Table {
    pub entity: Entity,
    /// One line a row, fields in the entity's order.
    pub lines: Vec<String>,
}

/// All eight tables.
pub fn tables(scale: f64) -> Vec<Table> {
    use Kind::{Date, Integer, Text};
    macro_rules! lines {
        ($generator:expr, $csv:ident) => {
            $generator.iter().map(|row| $csv::with_delimiter(row, DELIMITER).to_string()).collect()
        };
    }
    vec![
        table(
            301,
            "region",
            &[("r_regionkey", Integer), ("r_name", Text), ("r_comment", Text)],
            lines!(RegionGenerator::default(), RegionCsv),
        ),
        table(
            302,
            "nation",
            &[("n_nationkey", Integer), ("n_name", Text), ("n_regionkey", Integer), ("n_comment", Text)],
            lines!(NationGenerator::default(), NationCsv),
        ),
        table(
            303,
            "part",
            &[
                ("p_partkey", Integer),
                ("p_name", Text),
                ("p_mfgr", Text),
                ("p_brand", Text),
                ("p_type", Text),
                ("p_size", Integer),
                ("p_container", Text),
                ("p_retailprice", MONEY),
                ("p_comment", Text),
            ],
            lines!(PartGenerator::new(scale, 1, 1), PartCsv),
        ),
        table(
            304,
            "supplier",
            &[
                ("s_suppkey", Integer),
                ("s_name", Text),
                ("s_address", Text),
                ("s_nationkey", Integer),
                ("s_phone", Text),
                ("s_acctbal", MONEY),
                ("s_comment", Text),
            ],
            lines!(SupplierGenerator::new(scale, 1, 1), SupplierCsv),
        ),
        table(
            305,
            "customer",
            &[
                ("c_custkey", Integer),
                ("c_name", Text),
                ("c_address", Text),
                ("c_nationkey", Integer),
                ("c_phone", Text),
                ("c_acctbal", MONEY),
                ("c_mktsegment", Text),
                ("c_comment", Text),
            ],
            lines!(CustomerGenerator::new(scale, 1, 1), CustomerCsv),
        ),
        table(
            306,
            "partsupp",
            &[
                ("ps_partkey", Integer),
                ("ps_suppkey", Integer),
                ("ps_availqty", Integer),
                ("ps_supplycost", MONEY),
                ("ps_comment", Text),
            ],
            lines!(PartSuppGenerator::new(scale, 1, 1), PartSuppCsv),
        ),
        table(
            307,
            "orders",
            &[
                ("o_orderkey", Integer),
                ("o_custkey", Integer),
                ("o_orderstatus", Text),
                ("o_totalprice", MONEY),
                ("o_orderdate", Date),
                ("o_orderpriority", Text),
                ("o_clerk", Text),
                ("o_shippriority", Integer),
                ("o_comment", Text),
            ],
            lines!(OrderGenerator::new(scale, 1, 1), OrderCsv),
        ),
        table(
            308,
            "lineitem",
            &[
                ("l_orderkey", Integer),
                ("l_partkey", Integer),
                ("l_suppkey", Integer),
                ("l_linenumber", Integer),
                ("l_quantity", MONEY),
                ("l_extendedprice", MONEY),
                ("l_discount", MONEY),
                ("l_tax", MONEY),
                ("l_returnflag", Text),
                ("l_linestatus", Text),
                ("l_shipdate", Date),
                ("l_commitdate", Date),
                ("l_receiptdate", Date),
                ("l_shipinstruct", Text),
                ("l_shipmode", Text),
                ("l_comment", Text),
            ],
            lines!(LineItemGenerator::new(scale, 1, 1), LineItemCsv),
        ),
    ]
}

fn table(schema_id: i16, name: &str, columns: &[(&str, Kind)], lines: Vec<String>) -> Table {
    let mut entity = Entity::new(name, schema_id);
    let (mut integers, mut bigints, mut doubles, mut texts) = (0, 0, 0, 0);
    for (attr_id, (column, kind)) in (401..).zip(columns) {
        let (prefix, used, there) = match kind {
            Kind::Integer => ("integer", &mut integers, 3),
            Kind::Date => ("bigint", &mut bigints, 5),
            Kind::Decimal { .. } => ("double", &mut doubles, 3),
            _ => ("text", &mut texts, 3),
        };
        *used += 1;
        entity = if *used <= there {
            entity.main(column, *kind, &format!("{prefix}_{used:02}"))
        } else {
            entity.eav(column, *kind, attr_id)
        };
    }
    Table { entity, lines }
}

impl Table {
    /// Of ten rows six lie in base only, two are newer in a delta file, one is new there, and two are newest in PostgreSQL.
    /// Whatever lies below a newer version is another row's values.
    ///
    /// # Errors
    /// A line doesn't fit the columns.
    pub fn stored(&self) -> Result<Stored> {
        let mut stored = Stored::new(&self.entity);
        let (mut base, mut delta) = (Vec::new(), Vec::new());
        for (index, line) in self.lines.iter().enumerate() {
            let number = u128::try_from(index)?;
            let version =
                |line: &str, changed_at: i64| -> Result<Version> { Ok(live(number, changed_at, self.values(line)?)) };
            let stale = &self.lines[(index + 1) % self.lines.len()];
            match index % 10 {
                0..=5 => base.push(version(line, 10)?),
                6 | 7 => {
                    base.push(version(stale, 10)?);
                    delta.push(version(line, 20)?);
                }
                8 => {
                    base.push(version(stale, 10)?);
                    delta.push(version(stale, 20)?);
                    stored.hot.push(HotVersion { version: version(line, 30)?, dirty: true, has_main: true });
                }
                _ => stored.hot.push(HotVersion { version: version(line, 30)?, dirty: true, has_main: true }),
            }
        }
        stored.files =
            vec![LakeFile::base(&self.entity, "a.parquet", base), LakeFile::delta(&self.entity, "a.parquet", delta)];
        stored.files.retain(|file| !file.versions.is_empty());
        Ok(stored)
    }

    fn values(&self, line: &str) -> Result<Vec<Value>> {
        let fields: Vec<&str> = line.split(DELIMITER).map(|field| field.trim_matches('"')).collect();
        anyhow::ensure!(fields.len() == self.entity.attributes.len(), "{line} has other columns");
        let value = |(kind, text): (Kind, &str)| -> Result<Value> {
            Ok(match kind {
                Kind::Integer => Value::Integer(text.parse()?),
                Kind::Decimal { .. } => {
                    let (whole, cents) = text.split_once('.').unwrap_or((text, "00"));
                    Value::Decimal(format!("{whole}{cents:0<2}").parse()?)
                }
                Kind::Date => {
                    let date: chrono::NaiveDate = text.parse()?;
                    Value::Date(i32::try_from(date.signed_duration_since(chrono::NaiveDate::default()).num_days())?)
                }
                _ => Value::text(text),
            })
        };
        let kinds = self.entity.attributes.iter().map(|attribute| attribute.kind);
        kinds.zip(fields).map(value).collect::<Result<_>>().with_context(|| format!("cannot read {line}"))
    }

    /// Makes the table in a plain DuckDB.
    ///
    /// # Errors
    /// DuckDB refuses a value.
    pub fn load(&self, duckdb: &duckdb::Connection, directory: &Path) -> Result<()> {
        let name = &self.entity.name;
        let path = directory.join(format!("{name}.csv"));
        std::fs::write(&path, self.lines.join("\n"))?;
        let columns = self.entity.attributes.iter();
        let columns: Vec<String> =
            columns.map(|attribute| format!("{} {}", attribute.column(), attribute.duckdb_type())).collect();
        duckdb.execute_batch(&format!(
            "CREATE TABLE {name} ({}); COPY {name} FROM '{}' (FORMAT csv, DELIMITER '{DELIMITER}', HEADER false)",
            columns.join(", "),
            path.display()
        ))?;
        Ok(())
    }
}

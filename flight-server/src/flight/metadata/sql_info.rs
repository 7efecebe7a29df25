//! GetSqlInfo: every id of the standard, with what is true of this server and of DuckDB's SQL.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{AsArray, BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{SchemaRef, UInt32Type};
use arrow_flight::sql::metadata::{SqlInfoData, SqlInfoDataBuilder};
use arrow_flight::sql::{
    CommandGetSqlInfo, SqlInfo, SqlNullOrdering, SqlOuterJoinsSupportLevel, SqlSupportedCaseSensitivity,
    SqlSupportedGroupBy, SqlSupportedResultSetConcurrency, SqlSupportedResultSetType, SqlSupportedSubqueries,
    SqlSupportedTransaction, SqlSupportedUnions, SqlSupportsConvert, SqlTransactionIsolationLevel, SupportedSqlGrammar,
};

use super::pattern::ESCAPE;
use crate::flight::failure::{Failure, Outcome};
use crate::query::SqlVocabulary;

const SERVER_NAME: &str = "thermocline";
/// The version of the Arrow columnar format that IPC messages are written in.
const ARROW_FORMAT_VERSION: &str = "1.5.0";
/// The standard's value for a limit that does not exist or is not known.
const NO_LIMIT: i64 = 0;

pub(super) fn schema() -> SchemaRef {
    Arc::new(SqlInfoDataBuilder::schema().clone())
}

/// The ids asked for, or all. Ids that nobody knows are left out, as the standard wants.
pub(super) fn answer(command: &CommandGetSqlInfo, vocabulary: &SqlVocabulary) -> Outcome<RecordBatch> {
    let all = data(vocabulary)?.record_batch([]).map_err(Failure::internal)?;
    if command.info.is_empty() {
        return Ok(all);
    }
    let wanted: BTreeSet<u32> = command.info.iter().copied().collect();
    let ids = all.column(0).as_primitive::<UInt32Type>();
    let keep: BooleanArray = ids.values().iter().map(|id| Some(wanted.contains(id))).collect();
    filter_record_batch(&all, &keep).map_err(Failure::internal)
}

fn data(vocabulary: &SqlVocabulary) -> Outcome<SqlInfoData> {
    let mut builder = SqlInfoDataBuilder::new();
    server(&mut builder);
    syntax(&mut builder, vocabulary);
    abilities(&mut builder);
    limits(&mut builder);
    transactions(&mut builder);
    builder.build().map_err(Failure::internal)
}

fn server(builder: &mut SqlInfoDataBuilder) {
    builder.append(SqlInfo::FlightSqlServerName, SERVER_NAME);
    builder.append(SqlInfo::FlightSqlServerVersion, env!("CARGO_PKG_VERSION"));
    builder.append(SqlInfo::FlightSqlServerArrowVersion, ARROW_FORMAT_VERSION);
    builder.append(SqlInfo::FlightSqlServerReadOnly, true);
    builder.append(SqlInfo::FlightSqlServerSql, true);
    builder.append(SqlInfo::FlightSqlServerSubstrait, false);
    builder.append(SqlInfo::FlightSqlServerSubstraitMinVersion, "");
    builder.append(SqlInfo::FlightSqlServerSubstraitMaxVersion, "");
    builder.append(SqlInfo::FlightSqlServerTransaction, SqlSupportedTransaction::None as i32);
    builder.append(SqlInfo::FlightSqlServerCancel, true);
    builder.append(SqlInfo::FlightSqlServerBulkIngestion, false);
    builder.append(SqlInfo::FlightSqlServerIngestTransactionsSupported, false);
    // Handles hold their statement and never expire; transactions there are none.
    builder.append(SqlInfo::FlightSqlServerStatementTimeout, 0_i32);
    builder.append(SqlInfo::FlightSqlServerTransactionTimeout, 0_i32);
}

fn syntax(builder: &mut SqlInfoDataBuilder, vocabulary: &SqlVocabulary) {
    // Names keep the case they were written in and match in any, quoted or not.
    builder.append(SqlInfo::SqlIdentifierCase, SqlSupportedCaseSensitivity::SqlCaseSensitivityCaseInsensitive as i32);
    builder.append(SqlInfo::SqlIdentifierQuoteChar, "\"");
    builder.append(
        SqlInfo::SqlQuotedIdentifierCase,
        SqlSupportedCaseSensitivity::SqlCaseSensitivityCaseInsensitive as i32,
    );
    builder.append(SqlInfo::SqlKeywords, vocabulary.keywords.clone());
    builder.append(SqlInfo::SqlNumericFunctions, vocabulary.numeric_functions.clone());
    builder.append(SqlInfo::SqlStringFunctions, vocabulary.string_functions.clone());
    builder.append(SqlInfo::SqlSystemFunctions, vocabulary.system_functions.clone());
    builder.append(SqlInfo::SqlDatetimeFunctions, vocabulary.datetime_functions.clone());
    builder.append(SqlInfo::SqlSearchStringEscape, ESCAPE.to_string().as_str());
    builder.append(SqlInfo::SqlExtraNameCharacters, "$");
    builder.append(SqlInfo::SqlSchemaTerm, "schema");
    builder.append(SqlInfo::SqlProcedureTerm, "");
    builder.append(SqlInfo::SqlCatalogTerm, "catalog");
    builder.append(SqlInfo::SqlCatalogAtStart, true);
}

fn abilities(builder: &mut SqlInfoDataBuilder) {
    for (id, able) in [
        (SqlInfo::SqlDdlCatalog, false),
        (SqlInfo::SqlDdlSchema, false),
        (SqlInfo::SqlDdlTable, false),
        (SqlInfo::SqlAllTablesAreSelectable, true),
        (SqlInfo::SqlSupportsColumnAliasing, true),
        (SqlInfo::SqlNullPlusNullIsNull, true),
        (SqlInfo::SqlSupportsTableCorrelationNames, true),
        (SqlInfo::SqlSupportsDifferentTableCorrelationNames, false),
        (SqlInfo::SqlSupportsExpressionsInOrderBy, true),
        (SqlInfo::SqlSupportsOrderByUnrelated, true),
        (SqlInfo::SqlSupportsLikeEscapeClause, true),
        (SqlInfo::SqlSupportsNonNullableColumns, false),
        (SqlInfo::SqlSupportsIntegrityEnhancementFacility, false),
        (SqlInfo::SqlSelectForUpdateSupported, false),
        (SqlInfo::SqlStoredProceduresSupported, false),
        (SqlInfo::SqlCorrelatedSubqueriesSupported, true),
        (SqlInfo::SqlBatchUpdatesSupported, false),
        (SqlInfo::SqlNamedParametersSupported, false),
        (SqlInfo::SqlLocatorsUpdateCopy, false),
        (SqlInfo::SqlStoredFunctionsUsingCallSyntaxSupported, false),
    ] {
        builder.append(id, able);
    }
    // `default_null_order` of DuckDB: last, in ascending and descending order alike.
    builder.append(SqlInfo::SqlNullOrdering, SqlNullOrdering::SqlNullsSortedAtEnd as i32);
    builder.append(SqlInfo::SqlSupportsConvert, conversions());
    builder.append(
        SqlInfo::SqlSupportedGroupBy,
        bits([SqlSupportedGroupBy::SqlGroupByUnrelated as i32, SqlSupportedGroupBy::SqlGroupByBeyondSelect as i32]),
    );
    builder.append(
        SqlInfo::SqlSupportedGrammar,
        bits([SupportedSqlGrammar::SqlMinimumGrammar as i32, SupportedSqlGrammar::SqlCoreGrammar as i32]),
    );
    // ANSI92_ENTRY_SQL, the first bit; the enum of the standard is not among arrow-flight's public names.
    builder.append(SqlInfo::SqlAnsi92SupportedLevel, 1_i32);
    builder.append(SqlInfo::SqlOuterJoinsSupportLevel, SqlOuterJoinsSupportLevel::SqlFullOuterJoins as i32);
    // Neither schemas nor catalogs occur in procedures, indexes or privileges, because there are none of these.
    builder.append(SqlInfo::SqlSchemasSupportedActions, 0_i32);
    builder.append(SqlInfo::SqlCatalogsSupportedActions, 0_i32);
    builder.append(SqlInfo::SqlSupportedPositionedCommands, 0_i32);
    builder.append(
        SqlInfo::SqlSupportedSubqueries,
        bits([
            SqlSupportedSubqueries::SqlSubqueriesInComparisons as i32,
            SqlSupportedSubqueries::SqlSubqueriesInExists as i32,
            SqlSupportedSubqueries::SqlSubqueriesInIns as i32,
            SqlSupportedSubqueries::SqlSubqueriesInQuantifieds as i32,
        ]),
    );
    builder.append(
        SqlInfo::SqlSupportedUnions,
        bits([SqlSupportedUnions::SqlUnion as i32, SqlSupportedUnions::SqlUnionAll as i32]),
    );
}

fn limits(builder: &mut SqlInfoDataBuilder) {
    for id in [
        SqlInfo::SqlMaxBinaryLiteralLength,
        SqlInfo::SqlMaxCharLiteralLength,
        SqlInfo::SqlMaxColumnNameLength,
        SqlInfo::SqlMaxColumnsInGroupBy,
        SqlInfo::SqlMaxColumnsInIndex,
        SqlInfo::SqlMaxColumnsInOrderBy,
        SqlInfo::SqlMaxColumnsInSelect,
        SqlInfo::SqlMaxColumnsInTable,
        SqlInfo::SqlMaxConnections,
        SqlInfo::SqlMaxCursorNameLength,
        SqlInfo::SqlMaxIndexLength,
        SqlInfo::SqlDbSchemaNameLength,
        SqlInfo::SqlMaxProcedureNameLength,
        SqlInfo::SqlMaxCatalogNameLength,
        SqlInfo::SqlMaxRowSize,
        SqlInfo::SqlMaxStatementLength,
        SqlInfo::SqlMaxStatements,
        SqlInfo::SqlMaxTableNameLength,
        SqlInfo::SqlMaxTablesInSelect,
        SqlInfo::SqlMaxUsernameLength,
    ] {
        builder.append(id, NO_LIMIT);
    }
    builder.append(SqlInfo::SqlMaxRowSizeIncludesBlobs, true);
}

fn transactions(builder: &mut SqlInfoDataBuilder) {
    // The standard says int32; the JDBC driver, and Java's reference server with it, takes this one for an int64.
    let isolation = SqlTransactionIsolationLevel::SqlTransactionNone;
    builder.append(SqlInfo::SqlDefaultTransactionIsolation, i64::from(isolation as i32));
    builder.append(SqlInfo::SqlTransactionsSupported, false);
    builder.append(
        SqlInfo::SqlSupportedTransactionsIsolationLevels,
        bits([SqlTransactionIsolationLevel::SqlTransactionNone as i32]),
    );
    builder.append(SqlInfo::SqlDataDefinitionCausesTransactionCommit, false);
    builder.append(SqlInfo::SqlDataDefinitionsInTransactionsIgnored, false);
    builder.append(SqlInfo::SqlSavepointsSupported, false);
    let read_only = bits([SqlSupportedResultSetConcurrency::SqlResultSetConcurrencyReadOnly as i32]);
    builder.append(
        SqlInfo::SqlSupportedResultSetTypes,
        bits([SqlSupportedResultSetType::SqlResultSetTypeForwardOnly as i32]),
    );
    builder.append(SqlInfo::SqlSupportedConcurrenciesForResultSetUnspecified, 0_i32);
    builder.append(SqlInfo::SqlSupportedConcurrenciesForResultSetForwardOnly, read_only);
    builder.append(SqlInfo::SqlSupportedConcurrenciesForResultSetScrollSensitive, 0_i32);
    builder.append(SqlInfo::SqlSupportedConcurrenciesForResultSetScrollInsensitive, 0_i32);
}

/// A bitmask of the ordinals.
fn bits<const N: usize>(ordinals: [i32; N]) -> i32 {
    ordinals.into_iter().fold(0, |mask, ordinal| mask | 1 << ordinal)
}

/// What CAST converts into what, in the standard's types.
fn conversions() -> BTreeMap<i32, Vec<i32>> {
    use SqlSupportsConvert as Type;
    let numbers = [
        Type::SqlConvertBigint,
        Type::SqlConvertBit,
        Type::SqlConvertDecimal,
        Type::SqlConvertFloat,
        Type::SqlConvertInteger,
        Type::SqlConvertNumeric,
        Type::SqlConvertReal,
        Type::SqlConvertSmallint,
        Type::SqlConvertTinyint,
    ];
    let texts = [Type::SqlConvertChar, Type::SqlConvertLongvarchar, Type::SqlConvertVarchar];
    let binaries = [Type::SqlConvertBinary, Type::SqlConvertLongvarbinary, Type::SqlConvertVarbinary];
    let intervals = [Type::SqlConvertIntervalDayTime, Type::SqlConvertIntervalYearMonth];
    let times = [Type::SqlConvertDate, Type::SqlConvertTime, Type::SqlConvertTimestamp];

    let mut map = BTreeMap::new();
    let mut add = |from: &[Type], to: &[&[Type]]| {
        let to: BTreeSet<i32> = to.iter().flat_map(|types| types.iter()).map(|to| *to as i32).collect();
        for from in from {
            map.insert(*from as i32, to.iter().copied().collect());
        }
    };
    add(&numbers, &[&numbers, &texts]);
    add(&texts, &[&numbers, &texts, &binaries, &intervals, &times]);
    add(&binaries, &[&binaries, &texts]);
    add(&intervals, &[&intervals, &texts]);
    add(&[Type::SqlConvertDate], &[&[Type::SqlConvertDate, Type::SqlConvertTimestamp], &texts]);
    add(&[Type::SqlConvertTime], &[&[Type::SqlConvertTime], &texts]);
    add(&[Type::SqlConvertTimestamp], &[&times, &texts]);
    map
}

#[cfg(test)]
mod tests;

//! GetXdbcTypeInfo: the types that results can hold, under the names that GetTables uses.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow_flight::sql::metadata::{XdbcTypeInfo, XdbcTypeInfoDataBuilder};
use arrow_flight::sql::{CommandGetXdbcTypeInfo, Nullable, Searchable, XdbcDataType, XdbcDatetimeSubcode};

use crate::flight::failure::{Failure, Outcome};

pub(super) fn schema() -> SchemaRef {
    XdbcTypeInfoDataBuilder::new().schema()
}

pub(super) fn answer(command: CommandGetXdbcTypeInfo) -> Outcome<RecordBatch> {
    let mut builder = XdbcTypeInfoDataBuilder::new();
    for info in types() {
        builder.append(info);
    }
    let data = builder.build().map_err(Failure::internal)?;
    command.into_builder(&data).build().map_err(Failure::internal)
}

fn types() -> Vec<XdbcTypeInfo> {
    use XdbcDataType as Type;
    use XdbcDatetimeSubcode as Subcode;
    vec![
        integer("TINYINT", Type::XdbcTinyint, 3),
        integer("SMALLINT", Type::XdbcSmallint, 5),
        integer("INTEGER", Type::XdbcInteger, 10),
        integer("BIGINT", Type::XdbcBigint, 19),
        integer("HUGEINT", Type::XdbcNumeric, 38),
        XdbcTypeInfo {
            create_params: Some(vec!["precision".to_owned(), "scale".to_owned()]),
            minimum_scale: Some(0),
            maximum_scale: Some(38),
            fixed_prec_scale: true,
            ..exact("DECIMAL", Type::XdbcDecimal, 38)
        },
        // Binary floating point: the column size counts bits.
        XdbcTypeInfo { num_prec_radix: Some(2), ..exact("FLOAT", Type::XdbcReal, 24) },
        XdbcTypeInfo { num_prec_radix: Some(2), ..exact("DOUBLE", Type::XdbcDouble, 53) },
        XdbcTypeInfo { column_size: Some(1), ..plain("BOOLEAN", Type::XdbcBit) },
        text("VARCHAR", Type::XdbcVarchar),
        text("JSON", Type::XdbcVarchar),
        XdbcTypeInfo { column_size: Some(36), case_sensitive: false, ..text("UUID", Type::XdbcVarchar) },
        XdbcTypeInfo {
            literal_prefix: Some("'".to_owned()),
            literal_suffix: Some("'::BLOB".to_owned()),
            ..plain("BLOB", Type::XdbcVarbinary)
        },
        datetime("DATE", Type::XdbcDate, 10, None, "DATE '", None),
        datetime("TIME", Type::XdbcTime, 15, Some(6), "TIME '", Some(Subcode::XdbcSubcodeTime)),
        datetime("TIMESTAMP", Type::XdbcTimestamp, 26, Some(6), "TIMESTAMP '", Some(Subcode::XdbcSubcodeTimestamp)),
        datetime(
            "TIMESTAMP WITH TIME ZONE",
            Type::XdbcTimestamp,
            29,
            Some(6),
            "TIMESTAMPTZ '",
            Some(Subcode::XdbcSubcodeTimestampWithTimezone),
        ),
    ]
}

fn plain(name: &str, data_type: XdbcDataType) -> XdbcTypeInfo {
    XdbcTypeInfo {
        type_name: name.to_owned(),
        data_type,
        nullable: Nullable::NullabilityNullable,
        searchable: Searchable::Full,
        local_type_name: Some(name.to_owned()),
        sql_data_type: data_type,
        ..XdbcTypeInfo::default()
    }
}

fn exact(name: &str, data_type: XdbcDataType, digits: i32) -> XdbcTypeInfo {
    XdbcTypeInfo {
        column_size: Some(digits),
        unsigned_attribute: Some(false),
        auto_increment: Some(false),
        num_prec_radix: Some(10),
        ..plain(name, data_type)
    }
}

fn integer(name: &str, data_type: XdbcDataType, digits: i32) -> XdbcTypeInfo {
    XdbcTypeInfo { minimum_scale: Some(0), maximum_scale: Some(0), ..exact(name, data_type, digits) }
}

fn text(name: &str, data_type: XdbcDataType) -> XdbcTypeInfo {
    XdbcTypeInfo {
        literal_prefix: Some("'".to_owned()),
        literal_suffix: Some("'".to_owned()),
        case_sensitive: true,
        ..plain(name, data_type)
    }
}

fn datetime(
    name: &str,
    data_type: XdbcDataType,
    characters: i32,
    fraction: Option<i32>,
    prefix: &str,
    subcode: Option<XdbcDatetimeSubcode>,
) -> XdbcTypeInfo {
    XdbcTypeInfo {
        column_size: Some(characters),
        literal_prefix: Some(prefix.to_owned()),
        literal_suffix: Some("'".to_owned()),
        minimum_scale: fraction,
        maximum_scale: fraction,
        sql_data_type: XdbcDataType::XdbcDatetime,
        // The standard has no code for dates; 1 is theirs in ODBC, where the standard's enum says YEAR.
        datetime_subcode: Some(subcode.unwrap_or(XdbcDatetimeSubcode::XdbcSubcodeYear)),
        ..plain(name, data_type)
    }
}

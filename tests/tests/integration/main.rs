//! Integration tests: the real server process over real PostgreSQL, real Parquet files and the real S3 protocol.
//!
//! One binary, so that it links once. Each test has its own database, lake and server. `cargo xtask test --long`
//! runs many more random cases and longer races.

#![allow(clippy::unwrap_used, reason = "a test that can't go on should panic")]

mod agreement;
mod bound_values;
mod cases;
mod chaos;
mod check;
mod clients;
mod command_line;
mod connections;
mod deployment;
mod docs;
mod failures;
mod foreign_files;
mod harness;
mod hot_scan;
mod lifecycle;
mod logins;
mod metrics;
mod moments;
mod nycflights;
mod one_schema;
mod operations;
mod own_tables;
mod package;
mod parameter_fuzz;
mod physical_types;
mod plan;
mod positions;
mod prepared;
mod protocol;
mod protocol_fuzz;
mod pushdown;
mod random;
mod refusals;
mod rounding;
mod semantics;
mod shell;
mod sources;
mod strategies;
mod streaming;
mod telemetry;
mod tpch;
mod transport;
mod unread;
mod writer;
mod writers;

use thermocline_tests::is_long;

/// A small entity that most tests use: a text and an integer in main columns, a text and a number in `eav_data`.
fn things() -> thermocline_tests::model::Entity {
    use thermocline_tests::model::{Entity, Kind};
    Entity::new("things", 100)
        .main("name", Kind::Text, "text_01")
        .main("n", Kind::Integer, "integer_01")
        .eav("note", Kind::Text, 201)
        .eav("size.cm", Kind::Double, 202)
}

/// Values of a row of [`things`]: the number is the integer and the size, the name also the note.
fn thing(name: &str, n: i32) -> Vec<thermocline_tests::model::Value> {
    use thermocline_tests::model::Value;
    vec![Value::text(name), Value::Integer(n.into()), Value::text(&format!("note of {name}")), Value::Double(n.into())]
}

//! The translator beside the two databases it speaks to: golden cases with DuckDB's parser, predicates on real
//! PostgreSQL, hostile input.
//!
//! These tests call the translator itself, where the `integration` tests ask a server.

#![allow(clippy::unwrap_used, reason = "a test that can't go on should panic")]

mod duck;
mod fuzz;
mod golden;
mod predicates;
mod printing;

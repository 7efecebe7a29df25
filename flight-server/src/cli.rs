//! The commands of the `thermocline` binary.

pub mod auth;
pub mod check;
mod client;
mod output;
pub mod query;
pub mod sql;

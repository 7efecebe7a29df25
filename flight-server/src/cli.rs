//! The commands of the `thermocline` binary.

pub mod check;
pub mod query;

//! The commands of the `thermocline` binary.

pub mod query;

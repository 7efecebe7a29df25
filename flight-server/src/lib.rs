//! The Thermocline server: Flight SQL over hot PostgreSQL rows and Parquet files.

pub mod cli;
pub mod config;
pub(crate) mod engine;
pub mod flight;
pub mod lake;
pub mod postgres;
pub mod query;
pub mod serve;

//! The Thermocline server: Flight SQL over hot PostgreSQL rows and Parquet files.

pub mod admin;
pub mod cli;
pub mod config;
mod conform;
pub(crate) mod engine;
mod failpoint;
pub mod flight;
pub mod health;
pub mod lake;
pub(crate) mod plan_tree;
pub mod postgres;
pub mod query;
pub(crate) mod s3_requests;
pub mod serve;
pub mod telemetry;
pub mod writer;

//! The Thermocline server: Flight SQL over hot PostgreSQL rows and Parquet files.

pub mod access;
pub mod admin;
mod blame;
mod breaker;
mod catalog_file;
pub mod cli;
pub mod config;
mod conform;
pub(crate) mod engine;
mod failpoint;
pub mod flight;
pub mod health;
pub mod init;
pub mod lake;
pub(crate) mod moments;
pub mod moving;
mod parts;
pub(crate) mod plan_tree;
pub mod postgres;
pub mod query;
pub(crate) mod s3_requests;
mod second_reader;
pub mod serve;
pub mod telemetry;
pub(crate) mod transport;
pub(crate) mod versions;
pub mod writer;

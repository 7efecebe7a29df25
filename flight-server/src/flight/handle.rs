//! Tickets and prepared-statement handles. Both hold all that the server needs to answer them, so no replica keeps state
//! for a statement, and both hold the user's SQL, never SQL that the server made.

use std::time::Duration;

use arrow::array::RecordBatch;
use bytes::Bytes;
use prost::Message;
use translator::options::QueryOptions;

use super::failure::{Failure, Outcome};
use super::handle_seal::{HandleSeal, damaged};
use super::parameters::{self, ParameterMessage};

/// What DoGet executes: a query whose options are settled.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct StatementHandle {
    pub(super) query_id: String,
    pub(super) sql: String,
    pub(super) parameters: Option<RecordBatch>,
    pub(super) options: QueryOptions,
    /// Digest of the schema that FlightInfo promised; 0 in a ticket from before there was one.
    pub(super) schema_digest: u64,
}

/// A prepared statement, with its parameters once they are bound.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct PreparedHandle {
    pub(super) sql: String,
    pub(super) parameters: Option<RecordBatch>,
    /// Options from the headers of the call that prepared it; they count as headers of each call that executes it.
    pub(super) call_options: Vec<(String, String)>,
}

#[derive(Clone, PartialEq, Message)]
struct HandleMessage {
    #[prost(enumeration = "HandleKind", tag = "1")]
    kind: i32,
    #[prost(string, tag = "2")]
    query_id: String,
    #[prost(string, tag = "3")]
    sql: String,
    /// A schema and one batch of one row; empty when nothing is bound.
    #[prost(message, repeated, tag = "4")]
    parameters: Vec<ParameterMessage>,
    #[prost(message, repeated, tag = "5")]
    options: Vec<OptionMessage>,
    #[prost(fixed64, tag = "6")]
    schema_digest: u64,
}

#[derive(Clone, PartialEq, Message)]
struct OptionMessage {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    value: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
enum HandleKind {
    Unspecified = 0,
    Statement = 1,
    Prepared = 2,
}

impl StatementHandle {
    pub(super) fn encode(&self, by: &HandleSeal) -> Outcome<Bytes> {
        let mut options = self.options.clone();
        // The text form counts whole milliseconds, and none at all would be no timeout.
        options.timeout = options.timeout.map(|timeout| timeout.max(Duration::from_millis(1)));
        let options = options.entries().map(|(name, value)| OptionMessage { name: name.to_owned(), value });
        let message = HandleMessage {
            kind: HandleKind::Statement.into(),
            query_id: self.query_id.clone(),
            sql: self.sql.clone(),
            parameters: parameters::encode(self.parameters.as_ref())?,
            options: options.into(),
            schema_digest: self.schema_digest,
        };
        by.seal(&message.encode_to_vec())
    }

    pub(super) fn decode(bytes: &[u8], by: &HandleSeal) -> Outcome<Self> {
        let message = open(bytes, by, HandleKind::Statement)?;
        let mut options = QueryOptions::default();
        for option in &message.options {
            super::context::set(&mut options, &option.name, &option.value)?;
        }
        if uuid::Uuid::parse_str(&message.query_id).is_err() {
            return Err(damaged());
        }
        let parameters = parameters::decode(message.parameters)?;
        let HandleMessage { query_id, sql, schema_digest, .. } = message;
        Ok(Self { query_id, sql, parameters, options, schema_digest })
    }
}

impl PreparedHandle {
    pub(super) fn encode(&self, by: &HandleSeal) -> Outcome<Bytes> {
        let options = self.call_options.iter();
        let message = HandleMessage {
            kind: HandleKind::Prepared.into(),
            query_id: String::new(),
            sql: self.sql.clone(),
            parameters: parameters::encode(self.parameters.as_ref())?,
            options: options.map(|(name, value)| OptionMessage { name: name.clone(), value: value.clone() }).collect(),
            schema_digest: 0,
        };
        by.seal(&message.encode_to_vec())
    }

    pub(super) fn decode(bytes: &[u8], by: &HandleSeal) -> Outcome<Self> {
        let message = open(bytes, by, HandleKind::Prepared)?;
        let mut checked = QueryOptions::default();
        for option in &message.options {
            super::context::set(&mut checked, &option.name, &option.value)?;
        }
        let parameters = parameters::decode(message.parameters)?;
        let call_options = message.options.into_iter().map(|option| (option.name, option.value)).collect();
        Ok(Self { sql: message.sql, parameters, call_options })
    }
}

/// Only the query id of a ticket: what cancelling needs.
pub(super) fn query_id(bytes: &[u8], by: &HandleSeal) -> Outcome<String> {
    Ok(open(bytes, by, HandleKind::Statement)?.query_id)
}

fn open(bytes: &[u8], by: &HandleSeal, expected: HandleKind) -> Outcome<HandleMessage> {
    let body = by.open(bytes)?;
    let message = HandleMessage::decode(body).map_err(|_| damaged())?;
    match (message.kind(), expected) {
        (HandleKind::Statement, HandleKind::Statement) | (HandleKind::Prepared, HandleKind::Prepared) => Ok(message),
        (HandleKind::Prepared, _) => {
            Err(Failure::invalid("a prepared statement's handle is no ticket: ask GetFlightInfo for one"))
        }
        (HandleKind::Statement, _) => Err(Failure::invalid("a query's ticket is no handle of a prepared statement")),
        (HandleKind::Unspecified, _) => Err(damaged()),
    }
}

#[cfg(test)]
mod tests;

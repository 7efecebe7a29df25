//! Bytes from clients, parsed once at the edge: descriptors, tickets and actions as closed enums.

use arrow_flight::flight_descriptor::DescriptorType;
use arrow_flight::sql::{
    ActionCancelQueryRequest, ActionClosePreparedStatementRequest, ActionCreatePreparedStatementRequest, Any, Command,
    CommandGetCatalogs, CommandGetTableTypes, ProstMessageExt,
};
use arrow_flight::{Action, CancelFlightInfoRequest, FlightDescriptor, RenewFlightEndpointRequest, Ticket};
use bytes::Bytes;
use prost::Message;

use super::failure::{Failure, Outcome};
use super::handle::{PreparedHandle, StatementHandle};
use super::handle_seal::HandleSeal;
use super::metadata::MetadataCommand;
use super::session::messages::{CloseSessionRequest, GetSessionOptionsRequest, SetSessionOptionsRequest};
use super::table_path::select_path;

/// What a descriptor asks for.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum FlightSqlCommand {
    /// Run this SQL. A descriptor with a path means all of that table.
    Statement {
        sql: String,
    },
    /// Run this prepared statement.
    PreparedStatement(PreparedHandle),
    Metadata(MetadataCommand),
    /// Something that changes data or needs another language: understood, and refused.
    Refused(RefusedCommand),
}

/// Commands that a read-only SQL server refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RefusedCommand {
    Update,
    Ingest,
    Substrait,
}

/// What a ticket is good for.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum FlightSqlTicket {
    Statement(StatementHandle),
    Metadata(MetadataCommand),
}

/// What a DoPut stream is about.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum FlightSqlPut {
    BindParameters(PreparedHandle),
    Refused(RefusedCommand),
}

/// What an action asks for.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum FlightSqlAction {
    CreatePreparedStatement {
        sql: String,
    },
    ClosePreparedStatement,
    CancelFlightInfo(CancelFlightInfoRequest),
    CancelQuery(ActionCancelQueryRequest),
    RenewFlightEndpoint(RenewFlightEndpointRequest),
    SetSessionOptions(SetSessionOptionsRequest),
    GetSessionOptions,
    CloseSession,
    /// Transactions, savepoints and Substrait plans, by the action's name.
    Refused(&'static str),
}

impl FlightSqlCommand {
    pub(super) fn parse(descriptor: &FlightDescriptor, seal: &HandleSeal) -> Outcome<Self> {
        match descriptor.r#type() {
            DescriptorType::Cmd => Self::of_message(unpack(&descriptor.cmd, "descriptor")?, seal),
            DescriptorType::Path => Ok(Self::Statement { sql: select_path(&descriptor.path)? }),
            DescriptorType::Unknown => Err(Failure::invalid("the descriptor is neither a command nor a path")),
        }
    }

    fn of_message(command: Command, seal: &HandleSeal) -> Outcome<Self> {
        Ok(match command {
            Command::CommandStatementQuery(command) => {
                refuse_transaction(command.transaction_id.as_ref())?;
                Self::Statement { sql: command.query }
            }
            Command::CommandPreparedStatementQuery(command) => {
                Self::PreparedStatement(PreparedHandle::decode(&command.prepared_statement_handle, seal)?)
            }
            Command::CommandStatementUpdate(_) | Command::CommandPreparedStatementUpdate(_) => {
                Self::Refused(RefusedCommand::Update)
            }
            Command::CommandStatementIngest(_) => Self::Refused(RefusedCommand::Ingest),
            Command::CommandStatementSubstraitPlan(_) => Self::Refused(RefusedCommand::Substrait),
            other => Self::Metadata(MetadataCommand::parse(other, "descriptor")?),
        })
    }
}

impl FlightSqlTicket {
    pub(super) fn parse(ticket: &Ticket, seal: &HandleSeal) -> Outcome<Self> {
        Ok(match unpack(&ticket.ticket, "ticket")? {
            Command::TicketStatementQuery(ticket) => {
                Self::Statement(StatementHandle::decode(&ticket.statement_handle, seal)?)
            }
            Command::CommandStatementQuery(_) | Command::CommandPreparedStatementQuery(_) => {
                return Err(Failure::invalid("a command is no ticket: ask GetFlightInfo for one"));
            }
            other => Self::Metadata(MetadataCommand::parse(other, "ticket")?),
        })
    }
}

impl FlightSqlPut {
    pub(super) fn parse(descriptor: &FlightDescriptor, seal: &HandleSeal) -> Outcome<Self> {
        match FlightSqlCommand::parse(descriptor, seal)? {
            FlightSqlCommand::PreparedStatement(handle) => Ok(Self::BindParameters(handle)),
            FlightSqlCommand::Refused(command) => Ok(Self::Refused(command)),
            FlightSqlCommand::Statement { .. } | FlightSqlCommand::Metadata(_) => {
                Err(Failure::invalid("DoPut binds the parameters of a prepared statement; this descriptor names none"))
            }
        }
    }
}

impl FlightSqlAction {
    pub(super) fn parse(action: &Action) -> Outcome<Self> {
        let body = &action.body;
        Ok(match action.r#type.as_str() {
            "CreatePreparedStatement" => {
                let request: ActionCreatePreparedStatementRequest = unpack_as(body)?;
                refuse_transaction(request.transaction_id.as_ref())?;
                Self::CreatePreparedStatement { sql: request.query }
            }
            // Any handle may be closed, a damaged one too: there is nothing to let go of.
            "ClosePreparedStatement" => {
                let _: ActionClosePreparedStatementRequest = unpack_as(body)?;
                Self::ClosePreparedStatement
            }
            "CancelFlightInfo" => Self::CancelFlightInfo(decode(body, "CancelFlightInfoRequest")?),
            "CancelQuery" => Self::CancelQuery(unpack_as(body)?),
            "RenewFlightEndpoint" => Self::RenewFlightEndpoint(decode(body, "RenewFlightEndpointRequest")?),
            "SetSessionOptions" => Self::SetSessionOptions(decode(body, "SetSessionOptionsRequest")?),
            "GetSessionOptions" => {
                let _: GetSessionOptionsRequest = decode(body, "GetSessionOptionsRequest")?;
                Self::GetSessionOptions
            }
            "CloseSession" => {
                let _: CloseSessionRequest = decode(body, "CloseSessionRequest")?;
                Self::CloseSession
            }
            "BeginTransaction" => Self::Refused("BeginTransaction"),
            "EndTransaction" => Self::Refused("EndTransaction"),
            "BeginSavepoint" => Self::Refused("BeginSavepoint"),
            "EndSavepoint" => Self::Refused("EndSavepoint"),
            "CreatePreparedSubstraitPlan" => Self::Refused("CreatePreparedSubstraitPlan"),
            other => {
                let name: String = other.chars().take(80).collect();
                return Err(Failure::unsupported(format!("unknown action `{name}`; ListActions names the known ones")));
            }
        })
    }
}

impl RefusedCommand {
    pub(super) fn failure(self) -> Failure {
        Failure::unsupported(match self {
            Self::Update => "this server is read-only: it runs SELECT statements and no updates",
            Self::Ingest => "this server is read-only: rows are written by the application, not ingested here",
            Self::Substrait => "Substrait plans are not supported: send SQL",
        })
    }
}

fn refuse_transaction(transaction_id: Option<&Bytes>) -> Outcome<()> {
    match transaction_id {
        Some(id) if !id.is_empty() => Err(Failure::not_found("unknown transaction: this server has none")),
        Some(_) | None => Ok(()),
    }
}

fn unpack(bytes: &[u8], what: &str) -> Outcome<Command> {
    let foreign = || Failure::invalid(format!("the {what} is not a Flight SQL message"));
    let any = Any::decode(bytes).map_err(|_| foreign())?;
    if any.type_url.is_empty() {
        return Err(foreign());
    }
    Command::try_from(any).map_err(|_| foreign())
}

fn unpack_as<M: ProstMessageExt>(bytes: &[u8]) -> Outcome<M> {
    let name = M::type_url().rsplit('.').next().unwrap_or_default();
    let foreign = || Failure::invalid(format!("the action's body is not a {name}"));
    let any = Any::decode(bytes).map_err(|_| foreign())?;
    any.unpack().map_err(|_| foreign())?.ok_or_else(foreign)
}

fn decode<M: Message + Default>(bytes: &[u8], name: &str) -> Outcome<M> {
    M::decode(bytes).map_err(|_| Failure::invalid(format!("the action's body is not a {name}")))
}

impl MetadataCommand {
    fn parse(command: Command, what: &str) -> Outcome<Self> {
        Ok(match command {
            Command::CommandGetSqlInfo(command) => Self::SqlInfo(command),
            Command::CommandGetXdbcTypeInfo(command) => Self::XdbcTypeInfo(command),
            Command::CommandGetCatalogs(CommandGetCatalogs {}) => Self::Catalogs,
            Command::CommandGetDbSchemas(command) => Self::DbSchemas(command),
            Command::CommandGetTables(command) => Self::Tables(command),
            Command::CommandGetTableTypes(CommandGetTableTypes {}) => Self::TableTypes,
            Command::CommandGetPrimaryKeys(command) => Self::PrimaryKeys(command),
            Command::CommandGetExportedKeys(command) => Self::ExportedKeys(command),
            Command::CommandGetImportedKeys(command) => Self::ImportedKeys(command),
            Command::CommandGetCrossReference(command) => Self::CrossReference(command),
            Command::Unknown(any) => {
                let url: String = any.type_url.chars().take(120).collect();
                return Err(Failure::unsupported(format!("unknown Flight SQL command `{url}`")));
            }
            // Actions, results and statements, which the callers have dealt with where they are right.
            Command::ActionBeginSavepointRequest(_)
            | Command::ActionBeginSavepointResult(_)
            | Command::ActionBeginTransactionRequest(_)
            | Command::ActionBeginTransactionResult(_)
            | Command::ActionCancelQueryRequest(_)
            | Command::ActionCancelQueryResult(_)
            | Command::ActionClosePreparedStatementRequest(_)
            | Command::ActionCreatePreparedStatementRequest(_)
            | Command::ActionCreatePreparedStatementResult(_)
            | Command::ActionCreatePreparedSubstraitPlanRequest(_)
            | Command::ActionEndSavepointRequest(_)
            | Command::ActionEndTransactionRequest(_)
            | Command::CommandPreparedStatementQuery(_)
            | Command::CommandPreparedStatementUpdate(_)
            | Command::CommandStatementIngest(_)
            | Command::CommandStatementQuery(_)
            | Command::CommandStatementSubstraitPlan(_)
            | Command::CommandStatementUpdate(_)
            | Command::DoPutPreparedStatementResult(_)
            | Command::DoPutUpdateResult(_)
            | Command::TicketStatementQuery(_) => {
                return Err(Failure::invalid(format!("a message of this kind is no {what}")));
            }
        })
    }

    /// The bytes of a ticket for this command.
    pub(super) fn to_ticket(&self) -> Bytes {
        let any = match self {
            Self::SqlInfo(command) => command.as_any(),
            Self::XdbcTypeInfo(command) => command.as_any(),
            Self::Catalogs => CommandGetCatalogs {}.as_any(),
            Self::DbSchemas(command) => command.as_any(),
            Self::Tables(command) => command.as_any(),
            Self::TableTypes => CommandGetTableTypes {}.as_any(),
            Self::PrimaryKeys(command) => command.as_any(),
            Self::ExportedKeys(command) => command.as_any(),
            Self::ImportedKeys(command) => command.as_any(),
            Self::CrossReference(command) => command.as_any(),
        };
        any.encode_to_vec().into()
    }
}

#[cfg(test)]
mod tests;

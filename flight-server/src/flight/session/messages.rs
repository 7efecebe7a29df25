//! The session messages of `Flight.proto`, which arrow-flight does not generate. Tags and types are the standard's.

use std::collections::HashMap;

use prost::{Enumeration, Message, Oneof};

#[derive(Clone, PartialEq, Message)]
pub(in crate::flight) struct SetSessionOptionsRequest {
    #[prost(map = "string, message", tag = "1")]
    pub(in crate::flight) session_options: HashMap<String, SessionOptionValue>,
}

#[derive(Clone, PartialEq, Message)]
pub(in crate::flight) struct SetSessionOptionsResult {
    /// Empty when every option was set.
    #[prost(map = "string, message", tag = "1")]
    pub(in crate::flight) errors: HashMap<String, SetSessionOptionError>,
}

#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub(in crate::flight) struct SetSessionOptionError {
    #[prost(enumeration = "SetSessionOptionErrorValue", tag = "1")]
    pub(in crate::flight) value: i32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Enumeration)]
#[repr(i32)]
pub(in crate::flight) enum SetSessionOptionErrorValue {
    Unspecified = 0,
    InvalidName = 1,
    InvalidValue = 2,
    Error = 3,
}

/// The value of an option; none at all unsets it.
#[derive(Clone, PartialEq, Message)]
pub(in crate::flight) struct SessionOptionValue {
    #[prost(oneof = "OptionValue", tags = "1, 2, 3, 4, 5")]
    pub(in crate::flight) option_value: Option<OptionValue>,
}

#[derive(Clone, PartialEq, Oneof)]
pub(in crate::flight) enum OptionValue {
    #[prost(string, tag = "1")]
    Text(String),
    #[prost(bool, tag = "2")]
    Bool(bool),
    #[prost(sfixed64, tag = "3")]
    Integer(i64),
    #[prost(double, tag = "4")]
    Double(f64),
    #[prost(message, tag = "5")]
    TextList(StringListValue),
}

#[derive(Clone, PartialEq, Eq, Message)]
pub(in crate::flight) struct StringListValue {
    #[prost(string, repeated, tag = "1")]
    pub(in crate::flight) values: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub(in crate::flight) struct GetSessionOptionsRequest {}

#[derive(Clone, PartialEq, Message)]
pub(in crate::flight) struct GetSessionOptionsResult {
    #[prost(map = "string, message", tag = "1")]
    pub(in crate::flight) session_options: HashMap<String, SessionOptionValue>,
}

#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub(in crate::flight) struct CloseSessionRequest {}

#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub(in crate::flight) struct CloseSessionResult {
    #[prost(enumeration = "CloseSessionStatus", tag = "1")]
    pub(in crate::flight) status: i32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Enumeration)]
#[repr(i32)]
pub(in crate::flight) enum CloseSessionStatus {
    Unspecified = 0,
    Closed = 1,
    Closing = 2,
    NotCloseable = 3,
}

impl SessionOptionValue {
    pub(in crate::flight) fn text(value: impl Into<String>) -> Self {
        Self { option_value: Some(OptionValue::Text(value.into())) }
    }

    /// The value in the options' text form; `None` unsets the option.
    pub(in crate::flight) fn to_text(&self) -> Option<String> {
        Some(match self.option_value.as_ref()? {
            OptionValue::Text(text) => text.clone(),
            OptionValue::Bool(value) => value.to_string(),
            OptionValue::Integer(value) => value.to_string(),
            OptionValue::Double(value) => value.to_string(),
            OptionValue::TextList(list) => list.values.join(","),
        })
    }
}

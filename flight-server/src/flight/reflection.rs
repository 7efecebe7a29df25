//! Flight's service and messages as gRPC reflection describes them; arrow-flight doesn't carry its descriptor.
//! Names, numbers and types are those of Flight's protocol.

use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{
    DescriptorProto, EnumDescriptorProto, EnumValueDescriptorProto, FieldDescriptorProto, FileDescriptorProto,
    FileDescriptorSet, MethodDescriptorProto, ServiceDescriptorProto,
};

const PACKAGE: &str = "arrow.flight.protocol";

/// Name, number and type of a field: a scalar, or a message or enumeration by its name; `[]` after it repeats.
type Field = (&'static str, i32, &'static str);

const MESSAGES: &[(&str, &[Field])] = &[
    ("HandshakeRequest", &[("protocol_version", 1, "uint64"), ("payload", 2, "bytes")]),
    ("HandshakeResponse", &[("protocol_version", 1, "uint64"), ("payload", 2, "bytes")]),
    ("BasicAuth", &[("username", 2, "string"), ("password", 3, "string")]),
    ("Empty", &[]),
    ("ActionType", &[("type", 1, "string"), ("description", 2, "string")]),
    ("Criteria", &[("expression", 1, "bytes")]),
    ("Action", &[("type", 1, "string"), ("body", 2, "bytes")]),
    ("CancelFlightInfoRequest", &[("info", 1, "FlightInfo")]),
    ("RenewFlightEndpointRequest", &[("endpoint", 1, "FlightEndpoint")]),
    ("Result", &[("body", 1, "bytes")]),
    ("CancelFlightInfoResult", &[("status", 1, "CancelStatus")]),
    ("SchemaResult", &[("schema", 1, "bytes")]),
    (
        "FlightDescriptor",
        &[("type", 1, "FlightDescriptor.DescriptorType"), ("cmd", 2, "bytes"), ("path", 3, "string[]")],
    ),
    (
        "FlightInfo",
        &[
            ("schema", 1, "bytes"),
            ("flight_descriptor", 2, "FlightDescriptor"),
            ("endpoint", 3, "FlightEndpoint[]"),
            ("total_records", 4, "int64"),
            ("total_bytes", 5, "int64"),
            ("ordered", 6, "bool"),
            ("app_metadata", 7, "bytes"),
        ],
    ),
    (
        "PollInfo",
        &[
            ("info", 1, "FlightInfo"),
            ("flight_descriptor", 2, "FlightDescriptor"),
            ("progress", 3, "double"),
            ("expiration_time", 4, "google.protobuf.Timestamp"),
        ],
    ),
    (
        "FlightEndpoint",
        &[
            ("ticket", 1, "Ticket"),
            ("location", 2, "Location[]"),
            ("expiration_time", 3, "google.protobuf.Timestamp"),
            ("app_metadata", 4, "bytes"),
        ],
    ),
    ("Location", &[("uri", 1, "string")]),
    ("Ticket", &[("ticket", 1, "bytes")]),
    (
        "FlightData",
        &[
            ("flight_descriptor", 1, "FlightDescriptor"),
            ("data_header", 2, "bytes"),
            ("app_metadata", 3, "bytes"),
            ("data_body", 1000, "bytes"),
        ],
    ),
    ("PutResult", &[("app_metadata", 1, "bytes")]),
];

const DESCRIPTOR_TYPES: &[&str] = &["UNKNOWN", "PATH", "CMD"];
const CANCEL_STATUSES: &[&str] = &[
    "CANCEL_STATUS_UNSPECIFIED",
    "CANCEL_STATUS_CANCELLED",
    "CANCEL_STATUS_CANCELLING",
    "CANCEL_STATUS_NOT_CANCELLABLE",
];

/// Name, request and answer of a method; `stream` before a message for many of it.
const METHODS: &[(&str, &str, &str)] = &[
    ("Handshake", "stream HandshakeRequest", "stream HandshakeResponse"),
    ("ListFlights", "Criteria", "stream FlightInfo"),
    ("GetFlightInfo", "FlightDescriptor", "FlightInfo"),
    ("PollFlightInfo", "FlightDescriptor", "PollInfo"),
    ("GetSchema", "FlightDescriptor", "SchemaResult"),
    ("DoGet", "Ticket", "stream FlightData"),
    ("DoPut", "stream FlightData", "stream PutResult"),
    ("DoExchange", "stream FlightData", "stream FlightData"),
    ("DoAction", "Action", "stream Result"),
    ("ListActions", "Empty", "stream ActionType"),
];

/// Flight's file descriptor and the one it imports.
pub(crate) fn file_descriptors() -> FileDescriptorSet {
    let flight = FileDescriptorProto {
        name: Some("Flight.proto".to_owned()),
        package: Some(PACKAGE.to_owned()),
        dependency: vec!["google/protobuf/timestamp.proto".to_owned()],
        message_type: MESSAGES.iter().map(|(name, fields)| message(name, fields)).collect(),
        enum_type: vec![enumeration("CancelStatus", CANCEL_STATUSES)],
        service: vec![ServiceDescriptorProto {
            name: Some("FlightService".to_owned()),
            method: METHODS.iter().map(|(name, input, output)| method(name, input, output)).collect(),
            options: None,
        }],
        syntax: Some("proto3".to_owned()),
        ..FileDescriptorProto::default()
    };
    let timestamp = FileDescriptorProto {
        name: Some("google/protobuf/timestamp.proto".to_owned()),
        package: Some("google.protobuf".to_owned()),
        message_type: vec![message("Timestamp", &[("seconds", 1, "int64"), ("nanos", 2, "int32")])],
        syntax: Some("proto3".to_owned()),
        ..FileDescriptorProto::default()
    };
    FileDescriptorSet { file: vec![timestamp, flight] }
}

fn message(name: &str, fields: &[Field]) -> DescriptorProto {
    let inner = if name == "FlightDescriptor" { vec![enumeration("DescriptorType", DESCRIPTOR_TYPES)] } else { vec![] };
    DescriptorProto {
        name: Some(name.to_owned()),
        field: fields.iter().map(field).collect(),
        enum_type: inner,
        ..DescriptorProto::default()
    }
}

fn field((name, number, kind): &Field) -> FieldDescriptorProto {
    let (kind, label) = match kind.strip_suffix("[]") {
        Some(kind) => (kind, Label::Repeated),
        None => (*kind, Label::Optional),
    };
    let (scalar, named) = match kind {
        "bool" => (Type::Bool, None),
        "bytes" => (Type::Bytes, None),
        "double" => (Type::Double, None),
        "int32" => (Type::Int32, None),
        "int64" => (Type::Int64, None),
        "string" => (Type::String, None),
        "uint64" => (Type::Uint64, None),
        "CancelStatus" | "FlightDescriptor.DescriptorType" => (Type::Enum, Some(full_name(kind))),
        _ => (Type::Message, Some(full_name(kind))),
    };
    FieldDescriptorProto {
        name: Some((*name).to_owned()),
        number: Some(*number),
        label: Some(label.into()),
        r#type: Some(scalar.into()),
        type_name: named,
        ..FieldDescriptorProto::default()
    }
}

fn full_name(name: &str) -> String {
    if name.starts_with("google.") { format!(".{name}") } else { format!(".{PACKAGE}.{name}") }
}

fn enumeration(name: &str, values: &[&str]) -> EnumDescriptorProto {
    let value = |(number, name): (i32, &&str)| EnumValueDescriptorProto {
        name: Some((*name).to_owned()),
        number: Some(number),
        options: None,
    };
    EnumDescriptorProto {
        name: Some(name.to_owned()),
        value: (0..).zip(values).map(value).collect(),
        ..EnumDescriptorProto::default()
    }
}

fn method(name: &str, input: &str, output: &str) -> MethodDescriptorProto {
    let side = |text: &str| match text.strip_prefix("stream ") {
        Some(message) => (Some(full_name(message)), Some(true)),
        None => (Some(full_name(text)), None),
    };
    let ((input_type, client_streaming), (output_type, server_streaming)) = (side(input), side(output));
    MethodDescriptorProto {
        name: Some(name.to_owned()),
        input_type,
        output_type,
        client_streaming,
        server_streaming,
        options: None,
    }
}

#[cfg(test)]
mod tests {
    use arrow_flight::{Action, FlightData, FlightDescriptor, FlightEndpoint, FlightInfo, Location, PollInfo, Ticket};
    use prost::Message;
    use prost::bytes::Bytes;
    use prost::encoding::{WireType, decode_key, decode_varint};

    use super::*;

    /// Every field that arrow-flight writes is described, with a type of the wire form it has.
    fn check(name: &str, message: &impl Message) {
        let (_, fields) = MESSAGES.iter().find(|(known, _)| *known == name).expect("a described message");
        let mut bytes = Bytes::from(message.encode_to_vec());
        let mut seen = Vec::new();
        while !bytes.is_empty() {
            let (number, wire) = decode_key(&mut bytes).expect("a key");
            let number = i32::try_from(number).expect("a field number");
            let described = fields.iter().find(|(_, known, _)| *known == number).expect("a described field");
            let wanted = match described.2 {
                "bool" | "int32" | "int64" | "uint64" | "CancelStatus" | "FlightDescriptor.DescriptorType" => {
                    WireType::Varint
                }
                "double" => WireType::SixtyFourBit,
                _ => WireType::LengthDelimited,
            };
            assert_eq!(wire, wanted, "{name}.{}", described.0);
            match wire {
                WireType::Varint => drop(decode_varint(&mut bytes).expect("a number")),
                WireType::SixtyFourBit => drop(bytes.split_to(8)),
                _ => {
                    let length = decode_varint(&mut bytes).expect("a length");
                    drop(bytes.split_to(usize::try_from(length).expect("a length")));
                }
            }
            seen.push(number);
        }
        let mut described: Vec<i32> = fields.iter().map(|(_, number, _)| *number).collect();
        described.sort_unstable();
        seen.sort_unstable();
        assert_eq!(seen, described, "{name}");
    }

    #[test]
    fn the_description_is_what_goes_over_the_wire() {
        let some = Bytes::from_static(b"x");
        let descriptor = FlightDescriptor { r#type: 2, cmd: some.clone(), path: vec!["p".to_owned()] };
        let time = prost_types::Timestamp { seconds: 1, nanos: 1 };
        let endpoint = FlightEndpoint {
            ticket: Some(Ticket { ticket: some.clone() }),
            location: vec![Location { uri: "u".to_owned() }],
            expiration_time: Some(time),
            app_metadata: some.clone(),
        };
        let info = FlightInfo {
            schema: some.clone(),
            flight_descriptor: Some(descriptor.clone()),
            endpoint: vec![endpoint.clone()],
            total_records: 1,
            total_bytes: 1,
            ordered: true,
            app_metadata: some.clone(),
        };
        let poll = PollInfo {
            info: Some(info.clone()),
            flight_descriptor: Some(descriptor.clone()),
            progress: Some(0.5),
            expiration_time: Some(time),
        };
        let data = FlightData {
            flight_descriptor: Some(descriptor.clone()),
            data_header: some.clone(),
            app_metadata: some.clone(),
            data_body: some.clone(),
        };
        check("FlightDescriptor", &descriptor);
        check("FlightEndpoint", &endpoint);
        check("FlightInfo", &info);
        check("PollInfo", &poll);
        check("FlightData", &data);
        check("Action", &Action { r#type: "t".to_owned(), body: some });
    }

    #[test]
    fn every_type_that_is_named_is_described() {
        let known = |name: &str| {
            let name = name.trim_end_matches("[]").trim_start_matches("stream ");
            let scalar = ["bool", "bytes", "double", "int32", "int64", "string", "uint64"].contains(&name);
            let other =
                ["CancelStatus", "FlightDescriptor.DescriptorType", "google.protobuf.Timestamp"].contains(&name);
            scalar || other || MESSAGES.iter().any(|(message, _)| *message == name)
        };
        for (_, _, kind) in MESSAGES.iter().flat_map(|(_, fields)| *fields) {
            assert!(known(kind), "{kind}");
        }
        for (method, input, output) in METHODS {
            assert!(known(input) && known(output), "{method}");
        }
    }
}

use super::*;
use crate::query::QueryError;

/// Written out a second time on purpose: a changed code must be changed in two places.
const CODES: [(ErrorKind, Code); 12] = [
    (ErrorKind::InvalidQuery, Code::InvalidArgument),
    (ErrorKind::NotFound, Code::NotFound),
    (ErrorKind::Unauthenticated, Code::Unauthenticated),
    (ErrorKind::PermissionDenied, Code::PermissionDenied),
    (ErrorKind::LimitExceeded, Code::ResourceExhausted),
    (ErrorKind::Unavailable, Code::Unavailable),
    (ErrorKind::DeadlineExceeded, Code::DeadlineExceeded),
    (ErrorKind::Cancelled, Code::Cancelled),
    (ErrorKind::Misconfigured, Code::Unavailable),
    (ErrorKind::UnreadableValue, Code::Unavailable),
    (ErrorKind::Unsupported, Code::Unimplemented),
    (ErrorKind::Internal, Code::Internal),
];

#[test]
fn every_kind_has_its_code_and_java_holds_it() {
    let foreign_to_java = [Code::FailedPrecondition, Code::Aborted, Code::OutOfRange, Code::DataLoss];
    for (kind, expected) in CODES {
        assert_eq!(code(kind), expected, "{kind:?}");
        assert!(!foreign_to_java.contains(&code(kind)), "{kind:?}");
    }
}

#[test]
fn a_retry_hint_is_in_the_details() {
    use std::time::Duration;
    use tonic_types::StatusExt;
    let error = QueryError::new(ErrorKind::LimitExceeded, "max_queued").retry_after(Duration::from_secs(3));
    let status = Status::from(Failure::of_query(error, "q-1", "SELECT 1"));
    assert_eq!(status.code(), Code::ResourceExhausted);
    let hint = status.get_details_retry_info().expect("a hint");
    assert_eq!(hint.retry_delay, Some(Duration::from_secs(3)));
    assert!(Status::from(Failure::invalid("no")).get_details_retry_info().is_none());
}

#[test]
fn the_text_points_at_the_place() {
    let sql = "SELECT carrier\nFROM flights\nWHERE carier = 'AA'";
    let error = QueryError::new(ErrorKind::InvalidQuery, "no column `carier`").at(sql.find("carier"));
    let status = Status::from(Failure::of_query(error, "q-1", sql));
    assert_eq!(status.code(), Code::InvalidArgument);
    assert_eq!(
        status.message(),
        "no column `carier`\n  at line 3, column 7\n  WHERE carier = 'AA'\n        ^\n(query id q-1)"
    );
}

#[test]
fn an_internal_error_tells_the_query_id_only() {
    let error = QueryError::internal(anyhow::anyhow!("password is hunter2")).at(Some(3));
    let text = Status::from(Failure::of_query(QueryError::internal(error), "q-2", "SELECT")).message().to_owned();
    assert_eq!(text, "internal error\n(query id q-2)");
}

#[test]
fn columns_count_characters_and_long_lines_are_cut() {
    let sql = format!("SELECT '{}', x FROM t WHERE {}", "é".repeat(200), "y ".repeat(200));
    let offset = sql.find("x FROM").unwrap();
    let position = Position::of(&sql, offset).unwrap();
    assert_eq!((position.line, position.column), (1, 8 + 200 + 4));
    assert!(position.excerpt.chars().count() <= 2 * EXCERPT_CHARS + 2);
    let caret = position.caret.chars().count() - 1;
    assert_eq!(position.excerpt.chars().nth(caret), Some('x'));
}

#[test]
fn any_offset_is_survived() {
    let sql = "SELECT 'é'\n\n";
    for offset in 0..sql.len() + 5 {
        assert_eq!(Position::of(sql, offset).is_some(), offset <= sql.len());
    }
    assert_eq!(Position::of("", 0).unwrap().excerpt, "");
}

/// Header bytes of a status as gRPC counts them: name, value and 32 for each.
fn wire_bytes(status: &Status) -> usize {
    let headers = status.clone().into_http::<()>().into_parts().0.headers;
    headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 32).sum()
}

#[test]
fn a_long_message_is_cut_by_what_it_takes_on_the_wire() {
    let words = "the file `/lake/base/1/a.parquet` can't be read; ".repeat(1_000);
    for text in [
        "日".repeat(10_000),
        "🦆".repeat(10_000),
        "ü ".repeat(10_000),
        words,
        "x".repeat(100_000),
        "\n{}\"".repeat(9_000),
    ] {
        let sql = format!("SELECT '{}' FROM t, u WHERE '{}'", "日".repeat(500), "🦆".repeat(500));
        let error = QueryError::new(ErrorKind::LimitExceeded, text.clone())
            .at(sql.find("FROM"))
            .retry_after(std::time::Duration::from_secs(1));
        let status = Status::from(Failure::of_query(error, "01890a5d-ac96-774b-bcce-b302099a8057", &sql));
        assert!(status.message().starts_with(&text[..12]), "{}", status.message());
        assert!(
            status.message().contains('…')
                && status.message().ends_with("(query id 01890a5d-ac96-774b-bcce-b302099a8057)")
        );
        assert!(wire_bytes(&status) < 8_192, "{} bytes of {}", wire_bytes(&status), &text[..12]);
    }
}

#[test]
fn an_unknown_session_clears_the_cookie() {
    let status = Status::from(Failure::unknown_session());
    assert_eq!(status.code(), Code::NotFound);
    let cookie = status.metadata().get("set-cookie").unwrap().to_str().unwrap();
    assert!(cookie.starts_with("arrow_flight_session_id=;") && cookie.contains("Max-Age=0"), "{cookie}");
}

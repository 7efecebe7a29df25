//! EXPLAIN before a query: DuckDB's parser gives no tree for it, so it is cut off.

use super::error::{ErrorKind, QueryError};

/// What is asked of a statement beside its rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Explain {
    No,
    Plan(ExplainFormat),
    Analyze(ExplainFormat),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ExplainFormat {
    Text,
    Json,
}

/// Words that a query in parentheses starts with.
const QUERY_WORDS: [&str; 10] =
    ["select", "with", "from", "values", "table", "show", "describe", "summarize", "pivot", "unpivot"];

/// Cuts `EXPLAIN [ANALYZE]` or `EXPLAIN (ANALYZE, FORMAT json)` off. The offset is where the query starts.
///
/// # Errors
/// An option that isn't one, with its place.
pub(super) fn split_explain(sql: &str) -> Result<(Explain, usize), QueryError> {
    let start = skip_blanks(sql, 0);
    let Some(after) = keyword(sql, start, "EXPLAIN") else { return Ok((Explain::No, 0)) };
    let after = skip_blanks(sql, after);
    if let Some(end) = keyword(sql, after, "ANALYZE") {
        return Ok((Explain::Analyze(ExplainFormat::Text), end));
    }
    match options_start(sql, after) {
        Some(options) => options_of(sql, options),
        None => Ok((Explain::Plan(ExplainFormat::Text), after)),
    }
}

/// Where a list of options starts, after its parenthesis; `None` when the parenthesis is the query's.
fn options_start(sql: &str, at: usize) -> Option<usize> {
    let open = sql[at..].starts_with('(').then_some(at + 1)?;
    let inside = skip_blanks(sql, open);
    let is_query =
        sql[inside..].starts_with('(') || QUERY_WORDS.iter().any(|word| keyword(sql, inside, word).is_some());
    (!is_query).then_some(open)
}

fn options_of(sql: &str, mut at: usize) -> Result<(Explain, usize), QueryError> {
    let refused = |what: &str, at: usize| {
        let message = format!("{what}; EXPLAIN takes the options ANALYZE, FORMAT text and FORMAT json");
        QueryError::new(ErrorKind::InvalidQuery, message).at(Some(at))
    };
    let (mut analyze, mut format) = (None, None);
    loop {
        let (name_at, name) = word(sql, skip_blanks(sql, at));
        let (value_at, value) = word(sql, skip_blanks(sql, name_at + name.len()));
        let end = skip_blanks(sql, value_at + value.len());
        let value = value.trim_matches('\'').to_ascii_lowercase();
        let is_repeated = match (name.to_ascii_lowercase().as_str(), value.as_str()) {
            ("analyze", "" | "true" | "on" | "1") => analyze.replace(true).is_some(),
            ("analyze", "false" | "off" | "0") => analyze.replace(false).is_some(),
            ("format", "text") => format.replace(ExplainFormat::Text).is_some(),
            ("format", "json") => format.replace(ExplainFormat::Json).is_some(),
            ("format", "") => return Err(refused("FORMAT has no value", name_at)),
            ("format" | "analyze", _) => return Err(refused(&format!("`{name} {value}` is not supported"), value_at)),
            ("", _) => return Err(refused("an option is missing", name_at)),
            _ => return Err(refused(&format!("unknown option `{name}`"), name_at)),
        };
        if is_repeated {
            return Err(refused(&format!("`{name}` is given twice"), name_at));
        }
        match sql[end..].chars().next() {
            Some(',') => at = end + 1,
            Some(')') => {
                let format = format.unwrap_or(ExplainFormat::Text);
                let explain = if analyze == Some(true) { Explain::Analyze(format) } else { Explain::Plan(format) };
                return Ok((explain, end + 1));
            }
            _ => return Err(refused("the list of options isn't closed", end)),
        }
    }
}

/// The word or quoted text at a place; empty when there is none.
fn word(sql: &str, at: usize) -> (usize, &str) {
    let rest = &sql[at..];
    let quoted = rest.strip_prefix('\'').and_then(|inner| inner.find('\'')).map(|end| end + 2);
    let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
    (at, &rest[..quoted.unwrap_or(end)])
}

fn keyword(sql: &str, at: usize, word: &str) -> Option<usize> {
    let end = at + word.len();
    let matches = sql.get(at..end)?.eq_ignore_ascii_case(word);
    let continues = sql[end..].starts_with(|c: char| c.is_alphanumeric() || c == '_' || c == '$');
    (matches && !continues).then_some(end)
}

/// Skips white space and comments.
fn skip_blanks(sql: &str, mut at: usize) -> usize {
    loop {
        let rest = &sql[at..];
        let trimmed = rest.trim_start();
        at += rest.len() - trimmed.len();
        if trimmed.starts_with("--") {
            at += trimmed.find('\n').unwrap_or(trimmed.len());
        } else if let Some(comment) = trimmed.strip_prefix("/*") {
            at += comment.find("*/").map_or(trimmed.len(), |end| end + 4);
        } else {
            return at;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: ExplainFormat = ExplainFormat::Text;
    const JSON: ExplainFormat = ExplainFormat::Json;

    fn cut(sql: &str) -> (Explain, &str) {
        let (explain, at) = split_explain(sql).expect(sql);
        (explain, sql[at..].trim())
    }

    #[test]
    fn explain_is_cut_off() {
        assert_eq!(split_explain("SELECT 1").unwrap(), (Explain::No, 0));
        assert_eq!(split_explain(" explain\tselect 1").unwrap(), (Explain::Plan(TEXT), 9));
        assert_eq!(split_explain("EXPLAIN ANALYZE SELECT 1").unwrap(), (Explain::Analyze(TEXT), 15));
        assert_eq!(cut("-- x\n/* y */ EXPLAIN /**/ ANALYZE SELECT 1").0, Explain::Analyze(TEXT));
        assert_eq!(split_explain("EXPLAINED").unwrap(), (Explain::No, 0));
        assert_eq!(split_explain("/* open").unwrap(), (Explain::No, 0));
    }

    #[test]
    fn options_are_read_in_any_order_and_case() {
        assert_eq!(cut("EXPLAIN (FORMAT json) SELECT 1"), (Explain::Plan(JSON), "SELECT 1"));
        assert_eq!(cut("explain(Analyze,format 'JSON')select 1"), (Explain::Analyze(JSON), "select 1"));
        assert_eq!(cut("EXPLAIN ( FORMAT text , ANALYZE true ) SELECT 1"), (Explain::Analyze(TEXT), "SELECT 1"));
        assert_eq!(cut("EXPLAIN (ANALYZE off) SELECT 1"), (Explain::Plan(TEXT), "SELECT 1"));
        assert_eq!(cut("EXPLAIN /* a */ (-- b\nANALYZE) (SELECT 1)"), (Explain::Analyze(TEXT), "(SELECT 1)"));
        // A parenthesis of the query's own.
        assert_eq!(cut("EXPLAIN (SELECT 1)"), (Explain::Plan(TEXT), "(SELECT 1)"));
        assert_eq!(cut("EXPLAIN ANALYZE ((SELECT 1))"), (Explain::Analyze(TEXT), "((SELECT 1))"));
        assert_eq!(cut("EXPLAIN ((VALUES (1)))"), (Explain::Plan(TEXT), "((VALUES (1)))"));
    }

    #[test]
    fn other_options_are_refused_in_their_place() {
        for (sql, place, words) in [
            ("EXPLAIN (FORMAT html) SELECT 1", 16, "`FORMAT html`"),
            ("EXPLAIN (VERBOSE) SELECT 1", 9, "unknown option `VERBOSE`"),
            ("EXPLAIN (FORMAT) SELECT 1", 9, "no value"),
            ("EXPLAIN () SELECT 1", 9, "missing"),
            ("EXPLAIN (ANALYZE, ANALYZE) SELECT 1", 18, "twice"),
            ("EXPLAIN (ANALYZE SELECT 1", 17, "`ANALYZE select`"),
            ("EXPLAIN (ANALYZE", 16, "isn't closed"),
            ("EXPLAIN (FORMAT '日", 16, "no value"),
        ] {
            let error = split_explain(sql).expect_err(sql);
            assert!(error.message().contains(words), "{sql}: {}", error.message());
            if words != "no value" {
                assert_eq!(error.position(), Some(place), "{sql}");
            }
        }
    }
}

//! DuckDB's SQL cut into tokens, as much as an editor needs: what is a word, what is quoted, what is left open.

use std::ops::Range;

/// What a token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A keyword or a plain name.
    Word,
    /// `"a name"`
    QuotedName,
    /// `'text'` or `$$text$$`
    Text,
    Number,
    Comment,
    Semicolon,
    Other,
}

/// A token and its place in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) kind: Kind,
    pub(super) place: Range<usize>,
    /// A quote or a comment whose end isn't there yet.
    pub(super) is_open: bool,
}

/// All tokens in their order, white space left out.
pub(super) fn tokens(text: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut at = 0;
    while let Some(character) = text[at..].chars().next() {
        if character.is_whitespace() {
            at += character.len_utf8();
            continue;
        }
        let (kind, length, is_open) = token(&text[at..], character);
        tokens.push(Token { kind, place: at..at + length, is_open });
        at += length;
    }
    tokens
}

/// Kind and length of the token that the text begins with, and whether it is open.
fn token(text: &str, first: char) -> (Kind, usize, bool) {
    let while_in = |belongs: fn(char) -> bool| text.find(|c| !belongs(c)).unwrap_or(text.len());
    match first {
        '\'' | '"' => {
            let kind = if first == '"' { Kind::QuotedName } else { Kind::Text };
            // A doubled quote stands for itself: the two halves are read as two quoted parts side by side, so only the
            // end counts.
            match text[1..].find(first) {
                Some(end) => (kind, end + 2, false),
                None => (kind, text.len(), true),
            }
        }
        '$' => dollar_quoted(text).unwrap_or((Kind::Other, 1, false)),
        '-' if text.starts_with("--") => (Kind::Comment, text.find('\n').unwrap_or(text.len()), false),
        '/' if text.starts_with("/*") => match text[2..].find("*/") {
            Some(end) => (Kind::Comment, end + 4, false),
            None => (Kind::Comment, text.len(), true),
        },
        ';' => (Kind::Semicolon, 1, false),
        _ if first.is_ascii_digit() => {
            (Kind::Number, while_in(|c| c.is_ascii_alphanumeric() || c == '.' || c == '_'), false)
        }
        _ if first.is_alphabetic() || first == '_' => {
            (Kind::Word, while_in(|c| c.is_alphanumeric() || c == '_'), false)
        }
        _ => (Kind::Other, first.len_utf8(), false),
    }
}

/// `$$…$$` or `$tag$…$tag$`; `None` for a parameter such as `$1`.
fn dollar_quoted(text: &str) -> Option<(Kind, usize, bool)> {
    let end = text[1..].find('$')? + 2;
    let tag = &text[..end];
    if !tag[1..end - 1].chars().all(|c| c.is_alphanumeric() || c == '_')
        || tag[1..].starts_with(|c: char| c.is_numeric())
    {
        return None;
    }
    Some(match text[end..].find(tag) {
        Some(close) => (Kind::Text, end + close + tag.len(), false),
        None => (Kind::Text, text.len(), true),
    })
}

/// Whether a text ends with a `;` that no quote or comment holds, so that nothing more is to come.
pub(super) fn is_complete(text: &str) -> bool {
    tokens(text)
        .iter()
        .rev()
        .find(|token| token.kind != Kind::Comment || token.is_open)
        .is_some_and(|token| token.kind == Kind::Semicolon)
}

/// The statements of a text without their `;`; what holds nothing but comments is left out.
pub(super) fn statements(text: &str) -> Vec<&str> {
    let mut statements = Vec::new();
    let mut start = None;
    let mut end = 0;
    for token in tokens(text) {
        match token.kind {
            Kind::Semicolon => statements.extend(start.take().map(|start: usize| &text[start..end])),
            Kind::Comment => {}
            Kind::Word | Kind::QuotedName | Kind::Text | Kind::Number | Kind::Other => {
                start.get_or_insert(token.place.start);
                end = token.place.end;
            }
        }
    }
    statements.extend(start.map(|start| &text[start..end]));
    statements
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_and_comments_hold_semicolons() {
        let text = "SELECT ';', \";\" -- ;\n FROM a /* ; */; SELECT $$;$$ || $x$ ; $$ $x$, $1 ;; -- the end";
        let found = statements(text);
        assert_eq!(found, ["SELECT ';', \";\" -- ;\n FROM a", "SELECT $$;$$ || $x$ ; $$ $x$, $1"]);
        assert_eq!(statements(" -- nothing\n ; "), [] as [&str; 0]);
        assert_eq!(statements("SELECT 'it''s;'"), ["SELECT 'it''s;'"]);
    }

    #[test]
    fn a_statement_is_complete_with_its_semicolon() {
        for text in ["SELECT 1;", "SELECT 1; -- done", "SELECT 'a''b';", "SELECT 1; /* so */ "] {
            assert!(is_complete(text), "{text}");
        }
        for text in
            ["", "SELECT 1", "SELECT ';", "SELECT 1; /* more", "SELECT 1 -- ;", "SELECT $a$ ;", "SELECT 1; SELECT"]
        {
            assert!(!is_complete(text), "{text}");
        }
    }
}

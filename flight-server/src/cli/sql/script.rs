//! A text of statements and commands, such as a file or what was pasted, cut into pieces.

use super::{command, lexer};

/// One thing to do.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece<'a> {
    Command(&'a str),
    /// A statement without its `;`.
    Statement(&'a str),
}

/// The pieces in their order. A command is a line that begins with a backslash where no statement is open.
pub(super) fn pieces(text: &str) -> Vec<Piece<'_>> {
    let mut pieces = Vec::new();
    let mut start = 0;
    let mut end = 0;
    for line in text.split_inclusive('\n') {
        let begins_anew =
            lexer::tokens(&text[start..end]).iter().all(|token| token.kind == lexer::Kind::Comment && !token.is_open);
        if begins_anew && command::is_command(line) {
            pieces.push(Piece::Command(line.trim()));
            end += line.len();
            start = end;
            continue;
        }
        end += line.len();
        if lexer::is_complete(&text[start..end]) {
            pieces.extend(lexer::statements(&text[start..end]).into_iter().map(Piece::Statement));
            start = end;
        }
    }
    pieces.extend(lexer::statements(&text[start..]).into_iter().map(Piece::Statement));
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_stand_between_statements() {
        let text = "-- first\n\\timing\nSELECT 1,\n  '\n\\d'; SELECT 2;\n\\d things\nSELECT 3";
        let wanted = [
            Piece::Command(r"\timing"),
            Piece::Statement("SELECT 1,\n  '\n\\d'"),
            Piece::Statement("SELECT 2"),
            Piece::Command(r"\d things"),
            Piece::Statement("SELECT 3"),
        ];
        assert_eq!(pieces(text), wanted);
        assert_eq!(pieces(" \n -- nothing\n"), []);
    }
}

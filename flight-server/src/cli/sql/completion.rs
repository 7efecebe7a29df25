//! What may stand where the cursor is.

use super::command::COMMANDS;
use super::lexer::{Kind, Token, tokens};
use super::words::{KEYWORDS, Words, plain};

/// Where the word to complete begins, in bytes, and what it may become, best first.
pub(super) type Completion = (usize, Vec<String>);

/// Completes the word that ends at the end of `before`; `after` is the rest of the text.
/// `None` where the name of a file stands.
pub(super) fn complete(words: &Words, before: &str, after: &str) -> Option<Completion> {
    if before.trim_start().starts_with('\\') {
        return command(words, before);
    }
    let found = tokens(before);
    if found.last().is_some_and(|token| token.is_open && token.kind != Kind::QuotedName) {
        // Inside a text or a comment there is nothing to know.
        return Some((before.len(), Vec::new()));
    }
    Some(sql(words, before, &found, after))
}

fn command(words: &Words, before: &str) -> Option<Completion> {
    let indent = before.len() - before.trim_start().len();
    let Some((name, _)) = before[indent..].split_once(char::is_whitespace) else {
        let names = COMMANDS.iter().map(|(name, ..)| *name).filter(|name| name.starts_with(&before[indent..]));
        return Some((indent, names.map(str::to_owned).collect()));
    };
    let start = before.rfind(char::is_whitespace).map_or(0, |space| space + 1);
    let typed = &before[start..];
    match name {
        r"\d" => Some((start, beginning(words.tables(), typed))),
        r"\set" => {
            let is_first = before[indent + name.len()..start].trim().is_empty();
            let options = words.options().iter().map(String::as_str);
            Some((start, if is_first { beginning(options, typed) } else { Vec::new() }))
        }
        r"\plan" => {
            let found = tokens(before);
            Some(sql(words, before, &found, ""))
        }
        r"\i" | r"\o" => None,
        _ => Some((start, Vec::new())),
    }
}

fn sql(words: &Words, before: &str, found: &[Token], after: &str) -> Completion {
    // The word under the cursor with what qualifies it: `f.dep_`.
    let start = before
        .rfind(|c: char| !(c.is_alphanumeric() || "_.\"".contains(c)))
        .map_or(0, |at| at + before[at..].chars().next().map_or(1, char::len_utf8));
    let typed = &before[start..];
    let earlier: Vec<&Token> = found.iter().filter(|token| token.place.end <= start).collect();
    let previous = earlier.last().filter(|token| token.kind == Kind::Word).map(|token| &before[token.place.clone()]);
    if let Some((qualifier, name)) = typed.rsplit_once('.') {
        let offset = start + qualifier.len() + 1;
        let whole = format!("{before}{after}");
        let table = table_of(&whole, qualifier);
        if let Some(columns) =
            words.columns(table.as_deref().unwrap_or(qualifier)).filter(|columns| !columns.is_empty())
        {
            let columns: Vec<String> = columns.iter().map(|column| plain(column)).collect();
            return (offset, beginning(columns.iter().map(String::as_str), name));
        }
        return (start, beginning(words.tables(), typed));
    }
    let wants_table = previous.is_some_and(|word| {
        ["FROM", "JOIN", "DESCRIBE", "SUMMARIZE"].iter().any(|keyword| keyword.eq_ignore_ascii_case(word))
    });
    if wants_table {
        return (start, beginning(words.tables(), typed));
    }
    let mut candidates = Vec::new();
    if !typed.is_empty() || previous.is_some() {
        candidates.extend(beginning(columns_in(words, &format!("{before}{after}")).iter().map(String::as_str), typed));
    }
    if !typed.is_empty() {
        let cased = |keyword: &&str| {
            let is_lower = typed.chars().all(|c| !c.is_uppercase());
            if is_lower { keyword.to_ascii_lowercase() } else { (*keyword).to_owned() }
        };
        let keywords: Vec<String> = KEYWORDS.iter().map(cased).collect();
        candidates.extend(beginning(keywords.iter().map(String::as_str), typed));
        candidates.extend(beginning(Words::functions().iter().copied(), typed));
        candidates.extend(beginning(words.tables(), typed));
    }
    let mut told = std::collections::HashSet::new();
    candidates.retain(|candidate| told.insert(candidate.clone()));
    (start, candidates)
}

/// Those of the names that begin with what was typed, whatever the letter case.
fn beginning<'a>(names: impl Iterator<Item = &'a str>, typed: &str) -> Vec<String> {
    let starts = |name: &str| name.get(..typed.len()).is_some_and(|start| start.eq_ignore_ascii_case(typed));
    names.filter(|name| starts(name)).map(str::to_owned).collect()
}

/// The columns of the tables that the text mentions.
fn columns_in(words: &Words, text: &str) -> Vec<String> {
    let mut columns = Vec::new();
    for (table, _) in references(text) {
        columns.extend(words.columns(&table).into_iter().flatten().map(|column| plain(column)));
    }
    columns
}

/// The table that an alias stands for.
fn table_of(text: &str, alias: &str) -> Option<String> {
    references(text)
        .into_iter()
        .find(|(_, found)| found.as_deref().is_some_and(|found| found.eq_ignore_ascii_case(alias)))
        .map(|(table, _)| table)
}

/// Tables after FROM, JOIN and commas, with their aliases.
fn references(text: &str) -> Vec<(String, Option<String>)> {
    let found: Vec<Token> = tokens(text).into_iter().filter(|token| token.kind != Kind::Comment).collect();
    let word = |index: usize| found.get(index).map_or("", |token| &text[token.place.clone()]);
    let is_name = |index: usize| {
        found.get(index).is_some_and(|token| {
            token.kind == Kind::QuotedName
                || token.kind == Kind::Word
                    && KEYWORDS.binary_search(&text[token.place.clone()].to_ascii_uppercase().as_str()).is_err()
        })
    };
    let mut references = Vec::new();
    let mut in_from = false;
    for index in 0..found.len() {
        let keyword = word(index).to_ascii_uppercase();
        match keyword.as_str() {
            "FROM" => in_from = true,
            "WHERE" | "SELECT" | "GROUP" | "ORDER" | "ON" | "USING" | "LIMIT" | ";" => in_from = false,
            _ => {}
        }
        let introduces = matches!(keyword.as_str(), "FROM" | "JOIN") || (keyword == "," && in_from);
        if !introduces || !is_name(index + 1) {
            continue;
        }
        let mut at = index + 1;
        let mut table = word(at).to_owned();
        while word(at + 1) == "." && is_name(at + 2) {
            table = format!("{table}.{}", word(at + 2));
            at += 2;
        }
        let alias_at = if word(at + 1).eq_ignore_ascii_case("AS") { at + 2 } else { at + 1 };
        let alias = is_name(alias_at).then(|| word(alias_at).to_owned());
        references.push((table, alias));
    }
    references
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words() -> Words {
        Words::of(
            &[
                ("flights", &["carrier", "dep_delay", "dest"]),
                ("airlines", &["carrier", "name"]),
                ("system.tiers", &["rows"]),
            ],
            &["consistency", "tiers"],
        )
    }

    fn offered(before: &str, after: &str) -> Vec<String> {
        complete(&words(), before, after).unwrap().1
    }

    #[test]
    fn sql_is_completed_by_its_place() {
        assert_eq!(offered("SELECT * FROM fl", ""), ["flights"]);
        assert_eq!(offered("SELECT * FROM ", ""), ["airlines", "flights", "system.tiers"]);
        assert_eq!(offered("SELECT * FROM system.t", ""), ["system.tiers"]);
        assert_eq!(offered("SELECT f.de", " FROM flights AS f"), ["dep_delay", "dest"]);
        assert_eq!(offered("SELECT f.", " FROM airlines a JOIN flights f USING (carrier)").len(), 3);
        assert_eq!(offered("SELECT dep", " FROM flights"), ["dep_delay"]);
        assert_eq!(offered("SELECT * FROM flights WHER", ""), ["WHERE"]);
        assert_eq!(offered("select * from flights whe", ""), ["when", "where"]);
        assert!(offered("SELECT c", "").contains(&"count".to_owned()));
        assert_eq!(offered("SELECT 'FROM fl", ""), [] as [&str; 0]);
        assert_eq!(complete(&words(), "SELECT f.de", " FROM flights f").unwrap().0, 9);
    }

    #[test]
    fn commands_are_completed_too() {
        assert_eq!(offered(r"\t", ""), [r"\tiers", r"\timing"]);
        assert_eq!(offered(r"\d fl", ""), ["flights"]);
        assert_eq!(offered(r"\set con", ""), ["consistency"]);
        assert_eq!(offered(r"\set consistency ", ""), [] as [&str; 0]);
        assert_eq!(offered(r"\plan SELECT * FROM fl", ""), ["flights"]);
        assert_eq!(complete(&words(), r"\i some", ""), None);
    }
}

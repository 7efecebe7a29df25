//! Filters of metadata commands.

use translator::catalog::{CATALOG_NAME, SCHEMA_NAME};

/// The character that takes `%` and `_` in a pattern literally, as GetSqlInfo tells.
pub(super) const ESCAPE: char = '\\';

/// Whether the one catalog passes a filter: `None` filters nothing, an empty name means objects without a catalog, and
/// there are none.
pub(super) fn catalog_matches(filter: Option<&str>) -> bool {
    filter.is_none_or(|name| name.eq_ignore_ascii_case(CATALOG_NAME))
}

/// Whether the one schema has this exact name; `None` filters nothing.
pub(super) fn schema_is(filter: Option<&str>) -> bool {
    filter.is_none_or(|name| name.eq_ignore_ascii_case(SCHEMA_NAME))
}

/// Whether the one schema passes a pattern; `None` filters nothing.
pub(super) fn schema_matches(pattern: Option<&str>) -> bool {
    name_matches(pattern, SCHEMA_NAME)
}

/// Whether a name passes a pattern; `None` filters nothing. Names are case-insensitive, as in SQL.
pub(super) fn name_matches(pattern: Option<&str>, name: &str) -> bool {
    pattern.is_none_or(|pattern| like(&parse(pattern), name))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    /// `%`
    AnyText,
    /// `_`
    AnyCharacter,
    Character(char),
}

/// A trailing escape character stands for itself.
fn parse(pattern: &str) -> Vec<Part> {
    let mut characters = pattern.chars();
    let mut parts = Vec::new();
    while let Some(character) = characters.next() {
        parts.push(match character {
            '%' => Part::AnyText,
            '_' => Part::AnyCharacter,
            ESCAPE => Part::Character(characters.next().unwrap_or(ESCAPE)),
            other => Part::Character(other),
        });
    }
    parts
}

/// Greedy matching that goes back to the last `%` only, so that no pattern takes more than pattern × name steps.
fn like(pattern: &[Part], name: &str) -> bool {
    let name: Vec<char> = name.chars().collect();
    let (mut at_pattern, mut at_name) = (0, 0);
    let mut retry = None;
    while at_name < name.len() {
        match pattern.get(at_pattern) {
            Some(Part::AnyText) => {
                retry = Some((at_pattern + 1, at_name));
                at_pattern += 1;
                continue;
            }
            Some(Part::AnyCharacter) => {
                at_pattern += 1;
                at_name += 1;
                continue;
            }
            Some(Part::Character(character)) if same_letter(*character, name[at_name]) => {
                at_pattern += 1;
                at_name += 1;
                continue;
            }
            Some(Part::Character(_)) | None => {}
        }
        let Some((after_any, taken_to)) = retry else { return false };
        retry = Some((after_any, taken_to + 1));
        at_pattern = after_any;
        at_name = taken_to + 1;
    }
    pattern[at_pattern..].iter().all(|part| *part == Part::AnyText)
}

fn same_letter(left: char, right: char) -> bool {
    left == right || left.to_lowercase().eq(right.to_lowercase())
}

#[cfg(test)]
mod tests;

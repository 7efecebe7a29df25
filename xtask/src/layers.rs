//! The house rules of ARCHITECTURE.md, read from the code: what a room doesn't know, and no circle of files.
//!
//! Arrows are paths in the source (`crate::a::B`, `super::b`, `tonic::Status`), found in its tokens. A module and its own
//! parts are one room: arrows between a file and the files of its submodules don't count. Tests don't count either.

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use proc_macro2::{TokenStream, TokenTree};

/// A room, what it must not name, and why.
struct Room {
    place: &'static str,
    never: &'static [&'static str],
    why: &'static str,
}

/// As the code map of ARCHITECTURE.md has it. A place is a folder or a file of a crate's `src`, without `.rs`.
const ROOMS: &[Room] = &[
    Room {
        place: "flight-server/src/flight",
        never: &[
            "duckdb",
            "libduckdb_sys",
            "tokio_postgres",
            "object_store",
            "crate::engine",
            "crate::postgres",
            "crate::lake",
        ],
        why: "the wire knows neither DuckDB nor the sources: it asks the query pipeline",
    },
    Room {
        place: "flight-server/src/query",
        never: &["tonic", "arrow_flight", "prost", "crate::flight", "crate::cli", "crate::admin", "crate::serve"],
        why: "the query pipeline knows neither tonic nor Flight",
    },
    Room {
        place: "flight-server/src/engine",
        never: &[
            "tonic",
            "arrow_flight",
            "tokio_postgres",
            "crate::flight",
            "crate::query",
            "crate::postgres",
            "crate::writer",
        ],
        why: "the engine knows DuckDB and nothing above it",
    },
    Room {
        place: "flight-server/src/postgres",
        never: &[
            "tonic",
            "arrow_flight",
            "duckdb",
            "libduckdb_sys",
            "crate::flight",
            "crate::query",
            "crate::engine",
            "crate::writer",
        ],
        why: "a source knows neither Flight nor DuckDB",
    },
    Room {
        place: "flight-server/src/lake",
        never: &[
            "tonic",
            "arrow_flight",
            "duckdb",
            "libduckdb_sys",
            "crate::flight",
            "crate::query",
            "crate::engine",
            "crate::writer",
        ],
        why: "a source knows neither Flight nor DuckDB",
    },
    Room {
        place: "flight-server/src/writer",
        never: &["tonic", "arrow_flight", "crate::flight", "crate::query"],
        why: "writers work beside the server, not through it",
    },
    Room {
        place: "flight-server/src/telemetry",
        never: &["crate::flight", "crate::query", "crate::engine", "crate::postgres", "crate::lake", "crate::writer"],
        why: "everybody reports to telemetry, so it stands under everybody",
    },
    Room {
        place: "flight-server/src/config",
        never: &[
            "crate::flight",
            "crate::query",
            "crate::engine",
            "crate::postgres",
            "crate::lake",
            "crate::writer",
            "crate::telemetry",
        ],
        why: "everybody is configured, so configuration stands under everybody",
    },
];

/// The crates whose files are looked at.
const CRATES: &[&str] = &["translator", "flight-server", "benchmarks", "xtask"];

/// Looks at every file of the workspace's programs.
///
/// # Errors
/// Each arrow that a room must not have, with the reason, and each circle of files.
pub(crate) fn check(root: &Path) -> Result<()> {
    let mut faults = Vec::new();
    let mut files = 0;
    for name in CRATES {
        let house = House::read(root, name)?;
        files += house.arrows.len();
        faults.extend(house.forbidden());
        faults.extend(house.circles());
    }
    ensure!(faults.is_empty(), "the house rules of ARCHITECTURE.md are broken:\n{}", faults.join("\n"));
    println!("   {files} files: no room names what it must not know, and no circle");
    Ok(())
}

/// The files of one crate and what each of them names.
#[derive(Debug)]
struct House {
    /// Path of `src` in the workspace.
    src: String,
    /// By module path (`query/pipeline`, "" for the root), what the file names: other modules of the crate.
    arrows: BTreeMap<String, BTreeSet<String>>,
    /// By module path, all paths in the file as text (`tonic::Status`, `crate::lake::Lake`).
    names: BTreeMap<String, BTreeSet<String>>,
}

impl House {
    fn read(root: &Path, name: &str) -> Result<Self> {
        let src = root.join(name).join("src");
        let mut sources = BTreeMap::new();
        read_folder(&src, &src, &mut sources)?;
        Self::from_sources(format!("{name}/src"), &sources)
    }

    fn from_sources(src: String, sources: &BTreeMap<String, String>) -> Result<Self> {
        let mut house = Self { src, arrows: BTreeMap::new(), names: BTreeMap::new() };
        for (module, text) in sources {
            let tokens: TokenStream =
                text.parse().map_err(|error| anyhow::anyhow!("`{module}` can't be read as Rust: {error}"))?;
            let mut names = BTreeSet::new();
            collect(&[], tokens, &mut names);
            let names: BTreeSet<String> = names.iter().map(|name| absolute(module, name)).collect();
            let arrows = names
                .iter()
                .filter_map(|name| name.strip_prefix("crate::"))
                .filter_map(|name| deepest(name, sources))
                .filter(|target| !is_within(target, module) && !is_within(module, target))
                .collect();
            house.arrows.insert(module.clone(), arrows);
            house.names.insert(module.clone(), names);
        }
        Ok(house)
    }

    fn forbidden(&self) -> Vec<String> {
        let mut faults = Vec::new();
        for (module, names) in &self.names {
            let place = format!("{}/{module}", self.src);
            for room in ROOMS.iter().filter(|room| is_within(&place, room.place)) {
                for name in names {
                    if room.never.iter().any(|never| name == never || name.starts_with(&format!("{never}::"))) {
                        faults.push(format!("  {place} names {name}: {}", room.why));
                    }
                }
            }
        }
        faults
    }

    /// Files that lead back to themselves, a message for each circle.
    fn circles(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let mut told = BTreeSet::new();
        for start in self.arrows.keys() {
            if told.contains(start) {
                continue;
            }
            let circle: BTreeSet<&String> =
                self.reachable(start).into_iter().filter(|other| self.reachable(other).contains(start)).collect();
            if circle.is_empty() {
                continue;
            }
            let mut fault = format!("  a circle in {}:", self.src);
            for module in &circle {
                let onward = self.arrows[*module].iter().filter(|target| circle.contains(target));
                let onward: Vec<&str> = onward.map(String::as_str).collect();
                // Writing to a string can't fail.
                let _ = write!(fault, " {module} → {};", onward.join(", "));
            }
            told.extend(circle.into_iter().cloned());
            faults.push(fault);
        }
        faults
    }

    /// What arrows lead to from `start`, in one step or more.
    fn reachable(&self, start: &str) -> BTreeSet<&String> {
        let mut seen = BTreeSet::new();
        let mut open: Vec<&String> = self.arrows.get(start).into_iter().flatten().collect();
        while let Some(module) = open.pop() {
            if seen.insert(module) {
                open.extend(self.arrows.get(module).into_iter().flatten());
            }
        }
        seen
    }
}

/// Reads the sources below `folder` by module path, without tests.
fn read_folder(src: &Path, folder: &Path, sources: &mut BTreeMap<String, String>) -> Result<()> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot list `{}`", folder.display()))?;
    let mut paths = entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<Vec<PathBuf>, _>>()?;
    paths.sort();
    for path in paths {
        let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        if stem == "tests" || stem.starts_with("test_") {
            continue;
        }
        if path.is_dir() {
            read_folder(src, &path, sources)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).with_context(|| format!("cannot read `{}`", path.display()))?;
            let relative = path.strip_prefix(src)?.with_extension("").to_string_lossy().into_owned();
            let module = match relative.as_str() {
                "main" | "lib" => String::new(),
                module => module.strip_suffix("/mod").unwrap_or(module).to_owned(),
            };
            sources.entry(module).or_default().push_str(&text);
        }
    }
    Ok(())
}

/// All paths of two names and more in the tokens, groups of `use` spread out: `a::{b, c::D}` is `a::b` and `a::c::D`.
/// `prefix` is what stands before the group that the tokens are the inside of.
fn collect(prefix: &[String], tokens: TokenStream, names: &mut BTreeSet<String>) {
    let mut path = Vec::new();
    let mut colons = 0;
    let mut flush = |path: &mut Vec<String>| {
        let whole: Vec<&str> =
            prefix.iter().chain(path.iter()).map(String::as_str).filter(|name| *name != "self").collect();
        if !path.is_empty() && whole.len() > 1 {
            names.insert(whole.join("::"));
        }
        path.clear();
    };
    let mut groups = Vec::new();
    let mut renamed = false;
    for token in tokens {
        match token {
            // `as B`: the new name says nothing of where the thing is.
            TokenTree::Ident(ident) if ident == "as" => {
                flush(&mut path);
                renamed = true;
                continue;
            }
            TokenTree::Ident(_) if renamed => {}
            TokenTree::Ident(ident) => {
                if colons != 2 {
                    flush(&mut path);
                }
                path.push(ident.to_string());
            }
            TokenTree::Punct(punct) if punct.as_char() == ':' => {
                colons += 1;
                continue;
            }
            TokenTree::Group(group) => {
                let inner = if colons == 2 {
                    let inner = prefix.iter().chain(path.iter()).cloned().collect();
                    path.clear();
                    inner
                } else {
                    flush(&mut path);
                    Vec::new()
                };
                groups.push((inner, group.stream()));
            }
            TokenTree::Punct(_) | TokenTree::Literal(_) => flush(&mut path),
        }
        colons = 0;
        renamed = false;
    }
    flush(&mut path);
    for (prefix, stream) in groups {
        collect(&prefix, stream, names);
    }
}

/// A path as `crate::…`, if it starts at this module; others stay as they are.
fn absolute(module: &str, name: &str) -> String {
    let mut at: Vec<&str> = module.split('/').filter(|part| !part.is_empty()).collect();
    let mut rest = name;
    let mut relative = false;
    while let Some(next) = rest.strip_prefix("super::") {
        at.pop();
        rest = next;
        relative = true;
    }
    if !relative {
        return name.to_owned();
    }
    let base = std::iter::once("crate").chain(at).collect::<Vec<_>>().join("::");
    format!("{base}::{rest}")
}

/// The file that a path inside the crate leads to: the deepest module on it.
fn deepest(name: &str, sources: &BTreeMap<String, String>) -> Option<String> {
    let parts: Vec<&str> = name.split("::").collect();
    (1..=parts.len()).rev().map(|length| parts[..length].join("/")).find(|module| sources.contains_key(module))
}

/// Whether a place is `room` or lies in it.
fn is_within(place: &str, room: &str) -> bool {
    room.is_empty() || place == room || place.strip_prefix(room).is_some_and(|rest| rest.starts_with('/'))
}

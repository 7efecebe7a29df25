//! Where the program's own parts lie: what it is shipped with, found from where it is itself.
//!
//! The loader finds libduckdb by the run paths in the binary (`.cargo/config.toml`), which name the same places.

use std::path::{Path, PathBuf};

/// DuckDB's extensions, in the first place that holds any: beside the binary, as packages install them, and where
/// `cargo xtask setup` puts them.
pub(crate) fn extension_directory() -> Option<PathBuf> {
    let binary = std::env::current_exe().ok()?.canonicalize().ok()?;
    let places = extension_places(&binary, setup_cache().as_deref());
    places.into_iter().find(|place| holds_extensions(place))
}

fn extension_places(binary: &Path, cache: Option<&Path>) -> Vec<PathBuf> {
    let mut places = Vec::new();
    if let Some(folder) = binary.parent() {
        places.extend(["extensions", "../lib/thermocline/extensions"].map(|place| folder.join(place)));
        // In target/debug or target/debug/deps, of a checkout or of the cache.
        let built = ["../../.deps", "../../../.deps", "../..", "../../.."];
        places.extend(built.map(|place| folder.join(place).join("duckdb/extensions")));
    }
    places.extend(cache.map(|cache| cache.join("duckdb/extensions")));
    places
}

/// The cache of `cargo xtask setup`, by the same rules as there.
fn setup_cache() -> Option<PathBuf> {
    let named = |variable: &str| std::env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from);
    named("THERMOCLINE_CACHE")
        .or_else(|| named("XDG_CACHE_HOME").map(|base| base.join("thermocline")))
        .or_else(|| named("HOME").map(|home| home.join(".cache/thermocline")))
}

/// Whether a directory has DuckDB's form: `v1.5.5/linux_amd64/httpfs.duckdb_extension`.
fn holds_extensions(directory: &Path) -> bool {
    let folders = |directory: &Path| -> Vec<PathBuf> {
        std::fs::read_dir(directory)
            .map(|entries| entries.filter_map(|entry| entry.ok().map(|entry| entry.path())).collect())
            .unwrap_or_default()
    };
    folders(directory)
        .iter()
        .flat_map(|version| folders(version))
        .any(|platform| platform.join("httpfs.duckdb_extension").is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extensions_lie_beside_the_program_under_lib_or_where_setup_put_them() {
        let root = tempfile::tempdir().unwrap();
        let found = |binary: &str| {
            let places = extension_places(&root.path().join(binary), Some(&root.path().join("cache")));
            places.into_iter().find(|place| holds_extensions(place))
        };
        let put = |directory: &str| {
            let directory = root.path().join(directory).join("v1.5.5/linux_amd64");
            std::fs::create_dir_all(&directory).unwrap();
            std::fs::write(directory.join("httpfs.duckdb_extension"), "").unwrap();
        };
        for folder in ["opt/bin", "target/debug/deps"] {
            std::fs::create_dir_all(root.path().join(folder)).unwrap();
        }
        assert_eq!(found("opt/bin/thermocline"), None);
        put("cache/duckdb/extensions");
        assert_eq!(found("opt/bin/thermocline"), Some(root.path().join("cache/duckdb/extensions")));
        put("opt/lib/thermocline/extensions");
        assert_eq!(found("opt/bin/thermocline"), Some(root.path().join("opt/bin/../lib/thermocline/extensions")));
        put(".deps/duckdb/extensions");
        assert_eq!(
            found("target/debug/deps/thermocline"),
            Some(root.path().join("target/debug/deps/../../../.deps/duckdb/extensions"))
        );
    }
}

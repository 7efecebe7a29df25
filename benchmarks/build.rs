//! Lets the programs and tests of this crate find libduckdb where cargo's configuration says it is.

fn main() {
    println!("cargo:rerun-if-env-changed=DUCKDB_LIB_DIR");
    if let Ok(dir) = std::env::var("DUCKDB_LIB_DIR")
        && let Ok(dir) = std::fs::canonicalize(dir)
    {
        println!("cargo:rustc-link-arg=-Wl,-rpath,{}", dir.display());
    }
}

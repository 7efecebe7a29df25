//! Lets the binaries find libduckdb where it was linked from.

use std::path::PathBuf;

fn main() {
    println!("cargo:rerun-if-env-changed=DUCKDB_LIB_DIR");
    let Some(directory) = std::env::var_os("DUCKDB_LIB_DIR").map(PathBuf::from) else { return };
    // The directory is a link inside the checkout; what it points at outlives the checkout.
    let directory = directory.canonicalize().unwrap_or(directory);
    println!("cargo:rustc-link-arg=-Wl,-rpath,{}", directory.display());
}

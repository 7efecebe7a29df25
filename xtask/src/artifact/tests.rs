use std::{env, io::Write, process};

use super::*;
use crate::postgres;

const PLAIN: Artifact = Artifact {
    path: "some/file",
    // printf hello | sha256sum
    sha256: "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824",
    sources: &[],
};

/// A checkout with an empty cache, in a directory of its own.
fn checkout(name: &str) -> Checkout {
    let root = env::temp_dir().join(format!("xtask-{name}-{}", process::id()));
    fs::create_dir_all(root.join("cache")).unwrap();
    Checkout::at(root.clone(), root.join("cache"))
}

fn write(path: &Path, content: &[u8]) {
    File::create(path).unwrap().write_all(content).unwrap();
}

#[test]
fn a_file_is_taken_only_with_its_digest() {
    let checkout = checkout("digest");
    let file = checkout.staging("artifact").unwrap().join("file");
    write(&file, b"hell0");
    let refused = PLAIN.install(&checkout, &file).unwrap_err().to_string();
    assert!(refused.ends_with("not 2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824 as pinned"));
    assert!(!PLAIN.is_cached(&checkout).unwrap());

    write(&file, b"hello");
    PLAIN.install(&checkout, &file).unwrap();
    assert!(PLAIN.is_cached(&checkout).unwrap());
    fs::remove_dir_all(checkout.root()).unwrap();
}

#[test]
fn a_damaged_file_counts_as_missing() {
    let checkout = checkout("damaged");
    fs::create_dir_all(checkout.cache().join("some")).unwrap();
    write(&checkout.cache().join(PLAIN.path), b"hello, but longer");
    assert!(!PLAIN.is_cached(&checkout).unwrap());
    let error = PLAIN.ensure(&checkout).unwrap_err().to_string();
    assert!(error.starts_with("no source gave `some/file`"), "{error}");
    fs::remove_dir_all(checkout.root()).unwrap();
}

#[test]
fn every_pinned_digest_is_one() {
    let packages = postgres::VERSIONS.iter().map(|version| &version.package);
    let always = DUCKDB.iter().chain(crate::nycflights13::FILES).chain([&postgres::FALLBACK]);
    for artifact in always.chain(packages) {
        assert_eq!(hex::decode(artifact.sha256).map(|digest| digest.len()), Ok(32), "{}", artifact.path);
    }
}

#[test]
fn the_link_follows_the_cache_and_spares_what_is_not_a_link() {
    let checkout = checkout("link");
    checkout.link().unwrap();
    checkout.link().unwrap();
    let link = checkout.root().join(".deps");
    assert_eq!(fs::read_link(&link).unwrap(), checkout.cache());
    let moved = Checkout::at(checkout.root().to_owned(), checkout.root().join("elsewhere"));
    moved.link().unwrap();
    assert_eq!(fs::read_link(&link).unwrap(), moved.cache());

    fs::remove_file(&link).unwrap();
    fs::create_dir(&link).unwrap();
    assert!(checkout.link().unwrap_err().to_string().contains("is in the way"));
    fs::remove_dir_all(checkout.root()).unwrap();
}

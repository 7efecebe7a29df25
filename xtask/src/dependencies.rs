//! What the workspace depends on: licences, sources and bans (`deny.toml`), advisories, and dependencies nobody uses.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, process::Command};

use anyhow::{Context, Result};

use crate::{
    artifact::{self, Artifact},
    cache::Checkout,
    process,
};

/// What keeps the advisories from being asked, for the summary.
pub(crate) const ADVISORIES_TOOL: &str = "the RustSec database (a way to its repository on the web)";

/// Fetches the programs that look at dependencies.
pub(crate) fn ensure(checkout: &Checkout) -> Result<()> {
    for tool in [&artifact::CARGO_DENY, &artifact::CARGO_SHEAR] {
        tool.ensure(checkout)?;
        make_executable(&checkout.cache().join(tool.path))?;
    }
    Ok(())
}

/// Licences, sources and bans as `deny.toml` has them, and no dependency that nothing uses.
pub(crate) fn check(checkout: &Checkout) -> Result<()> {
    process::run(tool(checkout, &artifact::CARGO_DENY).args(["check", "bans", "licenses", "sources"]))?;
    process::run(tool(checkout, &artifact::CARGO_SHEAR).arg("--locked"))
}

/// No dependency has a known vulnerability; false when the database of them is out of reach.
pub(crate) fn check_advisories(checkout: &Checkout) -> Result<bool> {
    // The database is a git repository on the web; a machine without a way there says so and goes on.
    if !process::works(tool(checkout, &artifact::CARGO_DENY).args(["fetch", "db"]))? {
        return Ok(false);
    }
    process::run(tool(checkout, &artifact::CARGO_DENY).args(["--offline", "check", "advisories"])).map(|()| true)
}

fn tool(checkout: &Checkout, artifact: &Artifact) -> Command {
    let mut tool = Command::new(checkout.cache().join(artifact.path));
    tool.current_dir(checkout.root());
    tool
}

fn make_executable(path: &Path) -> Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
        .with_context(|| format!("cannot make `{}` executable", path.display()))
}

//! `tests/go`: arrow-go's Flight SQL client and its driver for Go's `database/sql`.

use anyhow::Result;
use tokio::process::Command;

use super::{Findings, address, repository, run, server};

pub(super) const CLIENTS: &[&str] = &["arrow-go", "arrow-go's database/sql driver"];

#[tokio::test]
async fn go_clients_read_every_type() -> Result<()> {
    let scenario = server().await?;
    let cache = thermocline_tests::cache_dir()?.join("go");
    let directory = tempfile::tempdir()?;
    let program = directory.path().join("client");
    let mut go = Command::new("go");
    go.current_dir(repository().join("tests/go")).args(["build", "-o"]).arg(&program).arg(".");
    // As `cargo xtask setup` compiles it, but with nothing left to fetch.
    go.env("GOMODCACHE", cache.join("mod")).env("GOCACHE", cache.join("build")).env("GOPROXY", "off");
    go.env("GOFLAGS", "-mod=readonly -modcacherw -buildvcs=false").env("GOTOOLCHAIN", "local");
    run(&mut go, &scenario).await?;
    let mut client = Command::new(program);
    Findings::of_output("arrow-go", &run(client.arg(address(&scenario)), &scenario).await?)?.check()
}

//! What `cargo xtask package` makes: each package works on its own, with nothing of this machine's set-up.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use thermocline_tests::lake::LakeFile;
use thermocline_tests::oracle::Stored;
use thermocline_tests::scenario::{LakeKind, Scenario, live};
use thermocline_tests::server::binary;
use tokio::process::Command;

use crate::{thing, things};

#[tokio::test]
async fn packages_work_where_nothing_is_set_up() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let packages = directory.path().join("dist");
    let mut package = xtask();
    package.args(["package", "--profile", "dev", "--binary"]).arg(binary()?).arg("--output").arg(&packages);
    succeed(package).await?;

    let entity = things();
    let mut stored = Stored::new(&entity);
    let versions = vec![live(1, 10, thing("one", 1)), live(2, 10, thing("two", 2))];
    stored.files = vec![LakeFile::base(&entity, "a.parquet", versions)];
    // Over S3: the extension comes out of the package.
    let scenario = Scenario::start(vec![stored], LakeKind::S3).await?;
    tokio::try_join!(wheel(&packages, directory.path(), &scenario), archives(&packages, directory.path()),)?;
    Ok(())
}

/// Into a fresh environment of Python, and used from there. Only the libraries it depends on are the tests' own.
async fn wheel(packages: &Path, directory: &Path, scenario: &Scenario) -> Result<()> {
    let wheel = only(packages, ".whl")?;
    ensure!(wheel.to_string_lossy().contains("-manylinux_2_"), "{}", wheel.display());
    let python = std::env::var("THERMOCLINE_PYTHON").context("start with `cargo xtask test`")?;
    let venv = directory.join("venv");
    let mut make = Command::new(&python);
    make.args(["-m", "venv", "--without-pip"]).arg(&venv);
    succeed(make).await?;
    let inside = venv.join("bin/python");
    let mut install = Command::new(&python);
    install.args(["-m", "pip", "--python"]).arg(&inside).args(["install", "--no-deps", "--no-index", "--quiet"]);
    install.arg("--disable-pip-version-check").arg(&wheel);
    succeed(install).await?;

    let mut libraries = Command::new(&python);
    libraries.args(["-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]);
    let libraries = succeed(libraries).await?;
    // The same sources and lake, and a server's own free ports.
    let config = directory.join("thermocline.toml");
    let mut sections: toml::Table = std::fs::read_to_string(scenario.server.config_path())?.parse()?;
    for own in ["duckdb", "cache"] {
        sections.remove(own);
    }
    std::fs::write(&config, sections.to_string())?;
    let mut used = bare(&inside, directory)?;
    used.env("PYTHONPATH", libraries.trim()).env("PYTHONWARNINGS", "ignore");
    used.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/python/wheel.py")).arg(&config);
    let said = succeed(used).await?;
    ensure!(said.ends_with("the package works\n"), "{said}");
    Ok(())
}

/// The tarball and the Debian package, unpacked as they would be installed.
async fn archives(packages: &Path, directory: &Path) -> Result<()> {
    let tree = directory.join("tree");
    std::fs::create_dir(&tree)?;
    let mut unpack = Command::new("tar");
    unpack.arg("-xzf").arg(only(packages, ".tar.gz")?).args(["--strip-components=1", "-C"]).arg(&tree);
    succeed(unpack).await?;
    starts(&tree.join("bin/thermocline"), directory).await?;

    let root = directory.join("root");
    std::fs::create_dir(&root)?;
    let mut members = Command::new("ar");
    members.arg("t").arg(only(packages, ".deb")?);
    assert_eq!(succeed(members).await?, "debian-binary\ncontrol.tar.gz\ndata.tar.gz\n");
    let mut unpack = Command::new("sh");
    unpack.args(["-c", r#"ar p "$0" control.tar.gz | tar -xzO && ar p "$0" data.tar.gz | tar -xzC "$1""#]);
    let control = succeed({
        unpack.arg(only(packages, ".deb")?).arg(&root);
        unpack
    })
    .await?;
    for line in ["Package: thermocline\n", "Architecture: amd64\n", "Depends: libc6 (>= 2."] {
        ensure!(control.contains(line), "no {line:?} in {control:?}");
    }
    starts(&root.join("usr/bin/thermocline"), directory).await
}

/// The program starts, with its own library, and takes a configuration of an S3 lake for which it needs its extension.
async fn starts(program: &Path, directory: &Path) -> Result<()> {
    let mut version = bare(program, directory)?;
    version.arg("--version");
    let version = succeed(version).await?;
    ensure!(version.starts_with("thermocline "), "{version}");
    let config = directory.join("s3.toml");
    let text = "[postgres]\nurl = \"postgresql://127.0.0.1:1/none\"\n[lake]\nurl = \"s3://none/none\"\n\
                [lake.s3]\nendpoint = \"http://127.0.0.1:1\"\nallow_http = true\n";
    std::fs::write(&config, text)?;
    let mut check = bare(program, directory)?;
    check.args(["check", "--print-config", "--config"]).arg(&config);
    let effective = succeed(check).await?;
    let program = program.canonicalize()?;
    let home = program.parent().and_then(Path::parent).context("a tree")?;
    let line = effective.lines().find(|line| line.starts_with("extension_directory")).context("no such key")?;
    ensure!(line.contains(&format!("{}/bin/../lib/thermocline/extensions", home.display())), "{line}");
    Ok(())
}

/// A program with an empty home and nothing that set-up or cargo put into the environment.
fn bare(program: &Path, directory: &Path) -> Result<Command> {
    let home = directory.join("home");
    std::fs::create_dir_all(&home)?;
    let mut command = Command::new(program);
    command.env_clear().env("HOME", home).env("PATH", "/usr/bin:/bin").current_dir(directory);
    Ok(command)
}

/// The program that runs the gate, or the same by cargo.
fn xtask() -> Command {
    if let Some(xtask) = std::env::var_os("THERMOCLINE_XTASK") {
        return Command::new(xtask);
    }
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["run", "--quiet", "--package", "xtask", "--"]);
    cargo
}

fn only(directory: &Path, ending: &str) -> Result<PathBuf> {
    let mut found = std::fs::read_dir(directory)?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<Vec<PathBuf>, _>>()?;
    found.retain(|path| path.to_string_lossy().ends_with(ending));
    ensure!(found.len() == 1, "expected one {ending}: {found:?}");
    Ok(found.remove(0))
}

async fn succeed(mut command: Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output().await?;
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "{command:?}: {}\n{out}\n{err}", output.status);
    Ok(out.into_owned())
}

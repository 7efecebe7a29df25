//! Every sample of README.md and docs/: commands run, SQL and Python are asked of a server, configurations are loaded.
//! What needs a container engine, a cluster or a build of this repository is looked up instead, and named below.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use thermocline_tests::r#gen;
use thermocline_tests::nycflights;
use thermocline_tests::oracle::Stored;
use thermocline_tests::scenario::{LakeKind, Scenario};
use thermocline_tests::server::{binary, run};
use tokio::process::Command;

/// Commands that a test can't run, by how they begin, and where what they name is looked up.
const LOOKED_UP: [(&str, &str); 4] = [
    // The demo, the gate and set-up run this very test or build everything anew.
    ("cargo xtask ", "xtask/src/main.rs"),
    ("cargo build ", "Cargo.toml"),
    // No container engine and no cluster here; what the files say is held to the code in `deployment.rs`.
    ("docker compose ", "compose/compose.yaml"),
    ("kubectl apply ", "compose/kubernetes/thermocline.yaml"),
];
/// Commands that go on until they are told to stop.
const ENDLESS: [&str; 2] = [" serve ", " --every "];

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// A fenced block of a page.
#[derive(Debug)]
struct Sample {
    /// `docs/quick-start.md:5`
    place: String,
    language: String,
    text: String,
}

fn pages() -> Result<Vec<PathBuf>> {
    let mut pages = vec![repository().join("README.md")];
    for entry in std::fs::read_dir(repository().join("docs"))? {
        pages.push(entry?.path());
    }
    pages.retain(|page| page.extension().is_some_and(|extension| extension == "md"));
    pages.sort();
    Ok(pages)
}

fn samples(page: &Path) -> Result<Vec<Sample>> {
    let text = std::fs::read_to_string(page)?;
    let name = page.strip_prefix(repository())?.display().to_string();
    let mut samples = Vec::new();
    let mut open: Option<Sample> = None;
    for (index, line) in text.lines().enumerate() {
        let fence = line.trim_start().strip_prefix("```");
        match (&mut open, fence) {
            (None, Some(language)) => {
                open = Some(Sample {
                    place: format!("{name}:{}", index + 1),
                    language: language.to_owned(),
                    text: String::new(),
                });
            }
            (Some(_), Some("")) => samples.extend(open.take()),
            (Some(sample), _) => sample.text += &format!("{line}\n"),
            (None, None) => {}
        }
    }
    ensure!(open.is_none(), "{name}: a block has no end");
    Ok(samples)
}

#[tokio::test]
async fn every_sample_works() -> Result<()> {
    let entities = nycflights::all_entities();
    let mut rng = r#gen::rng(7);
    let stored: Vec<Stored> = entities.iter().map(|entity| r#gen::stored(&mut rng, entity, 40)).collect();
    let scenario = Scenario::start(stored, LakeKind::Local).await?;
    let place = Place::new(&scenario)?;
    let mut ran = 0;
    for page in pages()? {
        // Later samples of a page use what earlier ones import.
        let mut python = String::new();
        for sample in samples(&page)? {
            let checked = match sample.language.as_str() {
                "sh" => place.shell(&sample.text).await,
                "toml" => place.toml(&sample.text).await,
                "sql" => sql(&scenario, &sample.text).await,
                "json" => serde_json::from_str::<serde_json::Value>(&sample.text).map(drop).map_err(Into::into),
                "python" => {
                    python += &sample.text;
                    Ok(())
                }
                // Pictures.
                "text" => Ok(()),
                other => Err(anyhow::anyhow!("nobody checks a sample in `{other}`")),
            };
            checked.with_context(|| sample.place.clone())?;
            ran += 1;
        }
        if !python.is_empty() {
            place.python(&scenario, &python).await.with_context(|| page.display().to_string())?;
        }
    }
    ensure!(ran > 15, "only {ran} samples were found");
    Ok(())
}

async fn sql(scenario: &Scenario, text: &str) -> Result<()> {
    for statement in text.split(';').map(str::trim).filter(|statement| !statement.is_empty()) {
        scenario.ask(&scenario.client, statement).await?;
    }
    Ok(())
}

/// A directory as the samples expect it: `thermocline.toml`, and the program on the path and where cargo would put it.
struct Place {
    directory: tempfile::TempDir,
    server: String,
}

impl Place {
    fn new(scenario: &Scenario) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        std::fs::create_dir_all(directory.path().join("target/release"))?;
        std::fs::create_dir(directory.path().join("bin"))?;
        for link in ["target/release/thermocline", "bin/thermocline"] {
            std::os::unix::fs::symlink(binary()?, directory.path().join(link))?;
        }
        for file in ["thermocline.toml", "catalog.toml"] {
            std::fs::copy(scenario.server.dir().join(file), directory.path().join(file))?;
        }
        Ok(Self { directory, server: scenario.server.grpc_uri() })
    }

    async fn shell(&self, text: &str) -> Result<()> {
        for line in text.lines().filter(|line| !line.trim().is_empty()) {
            match LOOKED_UP.iter().find(|(start, _)| line.starts_with(start)) {
                Some((start, file)) => look_up(line, start, file)?,
                None => self.command(line).await.with_context(|| line.to_owned())?,
            }
        }
        Ok(())
    }

    async fn command(&self, line: &str) -> Result<()> {
        let path = format!("{}:{}", self.directory.path().join("bin").display(), std::env::var("PATH")?);
        let mut command = Command::new("sh");
        command.args(["-c", &format!("exec {line}")]).current_dir(self.directory.path()).env("PATH", path);
        // The samples speak to the default address.
        command.env("THERMOCLINE_SERVER", &self.server);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let child = command.spawn()?;
        if ENDLESS.iter().any(|word| line.contains(word)) {
            let pid = child.id().context("a running program")?;
            // It has started to work when it handles the signal: a program that doesn't know its arguments has ended by then.
            tokio::time::timeout(Duration::from_secs(20), async {
                while !handles_sigterm(pid)? {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                Ok::<_, anyhow::Error>(())
            })
            .await
            .context("it doesn't start")??;
            thermocline_tests::supervise::send_signal("TERM", &[pid])?;
        }
        let output = tokio::time::timeout(Duration::from_secs(60), child.wait_with_output()).await??;
        let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).join("\n");
        ensure!(output.status.success(), "{}\n{said}", output.status);
        Ok(())
    }

    /// A catalog, or a part of a configuration over the smallest one.
    async fn toml(&self, text: &str) -> Result<()> {
        let directory = tempfile::tempdir()?;
        let path = directory.path().join("thermocline.toml");
        let table: toml::Table = text.parse()?;
        let mut config: toml::Table =
            "[postgres]\nurl = \"postgresql://127.0.0.1:1/none\"\n[lake]\nurl = \"file:///nowhere\"\n".parse()?;
        let is_catalog = table.contains_key("entity");
        if is_catalog {
            std::fs::write(directory.path().join("catalog.toml"), text)?;
        } else {
            config.extend(table);
        }
        std::fs::write(&path, config.to_string())?;
        let path = path.display().to_string();
        if is_catalog {
            let output = run(&["check", "--config", &path]).await?;
            ensure!(output.stdout.contains("ok    catalog"), "{}", output.stdout);
        } else {
            let output = run(&["check", "--print-config", "--config", &path]).await?;
            ensure!(output.success, "{}{}", output.stdout, output.stderr);
        }
        Ok(())
    }

    async fn python(&self, scenario: &Scenario, text: &str) -> Result<()> {
        let python = thermocline_tests::cache_dir()?.join("python/bin/python");
        ensure!(python.is_file(), "no {}; run `cargo xtask setup`", python.display());
        let address = scenario.server.grpc_uri().trim_start_matches("grpc://").to_owned();
        let script = self.directory.path().join("sample.py");
        std::fs::write(&script, text.replace("127.0.0.1:32010", &address))?;
        // The module that the wheel holds.
        let module = repository().join("python");
        let output = Command::new(python)
            .arg(&script)
            .env("PYTHONPATH", module)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }
}

/// Whether a process has taken SIGTERM into its own hands.
fn handles_sigterm(pid: u32) -> Result<bool> {
    const SIGTERM: u32 = 15;
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).context("it has ended")?;
    let line = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).context("it has ended")?;
    Ok(u64::from_str_radix(line.trim(), 16)? & (1 << (SIGTERM - 1)) != 0)
}

/// Files, subcommands and flags of a command that can't run here.
fn look_up(line: &str, start: &str, file: &str) -> Result<()> {
    let command = line.split('#').next().unwrap_or_default();
    ensure!(repository().join(file).is_file(), "{file} isn't there");
    let text = std::fs::read_to_string(repository().join(file))?.to_lowercase();
    for word in command.trim_start_matches(start).split_whitespace() {
        if word.contains('/') {
            ensure!(repository().join(word).exists(), "{line}: {word} isn't there");
        } else if start == "cargo xtask " {
            let name = word.trim_start_matches("--").replace('-', "_");
            let is_known = if word.starts_with("--") {
                text.contains(&format!("{name}: bool"))
            } else {
                [",", " {", "("].iter().any(|after| text.contains(&format!("    {name}{after}")))
            };
            ensure!(is_known, "{line}: xtask has no {word}");
        } else if !["--file", "--filename", "up", "--build", "--release"].contains(&word) {
            bail!("{line}: nobody checks {word}");
        }
    }
    Ok(())
}

/// Links between the pages lead somewhere, and the table of contents names every page.
#[test]
fn links_lead_somewhere() -> Result<()> {
    let contents = std::fs::read_to_string(repository().join("docs/README.md"))?;
    let mut pages = pages()?;
    pages.push(repository().join("ARCHITECTURE.md"));
    for page in &pages {
        let text = std::fs::read_to_string(page)?;
        let folder = page.parent().context("a folder")?;
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let target = link.split('#').next().unwrap_or_default();
            if target.is_empty() || target.contains("://") {
                continue;
            }
            ensure!(folder.join(target).exists(), "{}: {link} leads nowhere", page.display());
        }
        let name = page.file_name().and_then(|name| name.to_str()).context("a name")?;
        if folder.ends_with("docs") && name != "README.md" {
            ensure!(contents.contains(&format!("({name})")), "docs/README.md doesn't name {name}");
        }
    }
    for topic in ["quick-start", "concepts", "configuration", "operations", "failure-modes", "clients", "sql", "plan"] {
        ensure!(pages.iter().any(|page| page.ends_with(format!("docs/{topic}.md"))), "no page on {topic}");
    }
    ensure!(contents.contains("ARCHITECTURE.md"), "the architecture isn't in the contents");
    Ok(())
}

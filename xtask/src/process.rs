//! Running programs.

use std::{
    io,
    os::unix::process::CommandExt,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};

/// Runs a program with our standard output and error; it gets no input.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let line = describe(command);
    let status = command.stdin(Stdio::null()).status().with_context(|| format!("cannot start `{line}`"))?;
    ensure!(status.success(), "`{line}` failed: {status}");
    Ok(())
}

/// Runs a program and returns its standard output; what it printed is part of the error.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let line = describe(command);
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("cannot start `{line}`"))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        let stdout = String::from_utf8_lossy(&output.stdout);
        bail!("`{line}` failed: {}\n{}{}", output.status, stdout.trim_end(), stderr.trim_end());
    }
    String::from_utf8(output.stdout).with_context(|| format!("`{line}` printed no UTF-8"))
}

/// Whether the program can be started and is content.
pub(crate) fn works(command: &mut Command) -> Result<bool> {
    match command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status() {
        Ok(status) => Ok(status.success()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error).with_context(|| format!("cannot start `{}`", describe(command))),
    }
}

/// Does something that needs the network, three times at most: a moment's failure of a server isn't the set-up's.
pub(crate) fn with_network<T>(mut work: impl FnMut() -> Result<T>) -> Result<T> {
    for pause in [2, 15] {
        match work() {
            Ok(done) => return Ok(done),
            Err(error) => println!("   trying again in {pause} s: {error:#}"),
        }
        thread::sleep(Duration::from_secs(pause));
    }
    work()
}

/// Turns this process into the given program.
pub(crate) fn replace(mut command: Command) -> Result<()> {
    let line = describe(&command);
    Err(command.exec()).with_context(|| format!("cannot start `{line}`"))
}

fn describe(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

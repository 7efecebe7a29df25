//! Places where a test can halt the program, to let it go on or to kill it, or make it fail. Release builds ignore them.

/// Passes, unless `THERMOCLINE_FAILPOINT` names this place in a build with debug assertions: `name=wait:FILE` makes
/// `FILE.reached` and waits until `FILE` is there; `name=panic:FILE` panics once for each time that `FILE` is there, and
/// removes it.
pub(crate) async fn failpoint(name: &str) {
    let Some(action) = wanted(name) else { return };
    panic_once(name, &action);
    let Some(file) = action.strip_prefix("wait:") else { return };
    if std::fs::write(format!("{file}.reached"), "").is_err() {
        return;
    }
    while !std::path::Path::new(file).exists() {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

/// A place outside the async runtime, which can only panic.
pub(crate) fn panic_point(name: &str) {
    if let Some(action) = wanted(name) {
        panic_once(name, &action);
    }
}

/// What is to happen at a place.
fn wanted(name: &str) -> Option<String> {
    if !cfg!(debug_assertions) {
        return None;
    }
    let wanted = std::env::var("THERMOCLINE_FAILPOINT").ok()?;
    wanted.strip_prefix(name)?.strip_prefix('=').map(str::to_owned)
}

fn panic_once(name: &str, action: &str) {
    // Only one of several callers can remove the file.
    if action.strip_prefix("panic:").is_some_and(|file| std::fs::remove_file(file).is_ok()) {
        panic!("the failpoint {name} was asked to panic");
    }
}

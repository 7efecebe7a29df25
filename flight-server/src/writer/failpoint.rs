//! Places where a test can kill or halt a writer. Release builds ignore them.

/// Passes, unless `THERMOCLINE_FAILPOINT` names this place in a build with debug assertions: `name` ends the process at
/// once, without any clean-up; `name=wait:FILE` makes `FILE.reached` and waits until `FILE` is there.
pub(super) async fn failpoint(name: &str) {
    if !cfg!(debug_assertions) {
        return;
    }
    let Ok(wanted) = std::env::var("THERMOCLINE_FAILPOINT") else { return };
    if wanted == name {
        std::process::abort();
    }
    if let Some(file) = wanted.strip_prefix(name).and_then(|rest| rest.strip_prefix("=wait:")) {
        if std::fs::write(format!("{file}.reached"), "").is_err() {
            return;
        }
        while !std::path::Path::new(file).exists() {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    }
}

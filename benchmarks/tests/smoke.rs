//! The benchmarks run to their end and write their report, at a tiny scale: the numbers mean nothing here.

#![allow(clippy::unwrap_used, reason = "a test that can't go on should panic")]

use std::process::Command;

#[test]
fn a_tiny_run_writes_its_report() {
    let out = tempfile::tempdir().unwrap();
    let run = Command::new(env!("CARGO_BIN_EXE_benchmarks"))
        .args(["--rows", "20000", "--runs", "1", "--ids", "time", "--out"])
        .arg(out.path())
        .output()
        .unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    assert!(run.status.success(), "{said}");
    let report = std::fs::read_to_string(out.path().join("report.json")).unwrap();
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    assert!(report["cases"].as_array().unwrap().len() >= 9, "{said}");
    let text = std::fs::read_to_string(out.path().join("report.md")).unwrap();
    assert!(text.contains("aggregate over everything"), "{text}");
}

//! The report: JSON for programs, Markdown with plots for people.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::{Value as Json, json};

use crate::duck;
use crate::samples::Samples;

/// What a figure should be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Target {
    AtMost(f64),
    AtLeast(f64),
    /// Reported only.
    None,
}

#[derive(Debug)]
struct Figure {
    name: String,
    value: f64,
    target: Target,
}

#[derive(Debug)]
struct Series {
    name: String,
    unit: &'static str,
    samples: Samples,
}

/// One row of the table of targets.
#[derive(Debug)]
pub(crate) struct Case {
    name: String,
    ids: &'static str,
    figures: Vec<Figure>,
    series: Vec<Series>,
    notes: Vec<String>,
    line: Vec<f64>,
    profile: Option<String>,
}

/// Everything that one run measured.
#[derive(Debug)]
pub(crate) struct Report {
    rows: u64,
    runs: usize,
    machine: Json,
    cases: Vec<Case>,
}

impl Target {
    fn is_met(self, value: f64) -> Option<bool> {
        match self {
            Self::AtMost(limit) => Some(value <= limit),
            Self::AtLeast(limit) => Some(value >= limit),
            Self::None => None,
        }
    }

    fn text(self) -> String {
        match self {
            Self::AtMost(limit) => format!("≤ {}", round(limit)),
            Self::AtLeast(limit) => format!("≥ {}", round(limit)),
            Self::None => "reported".to_owned(),
        }
    }
}

impl Case {
    pub(crate) fn new(name: &str, ids: &'static str) -> Self {
        Self {
            name: name.to_owned(),
            ids,
            figures: Vec::new(),
            series: Vec::new(),
            notes: Vec::new(),
            line: Vec::new(),
            profile: None,
        }
    }

    pub(crate) fn ratio(&mut self, name: &str, value: f64, target: Target) {
        self.figures.push(Figure { name: name.to_owned(), value, target });
    }

    pub(crate) fn series(&mut self, name: &str, unit: &'static str, samples: Samples) {
        self.series.push(Series { name: name.to_owned(), unit, samples });
    }

    pub(crate) fn note(&mut self, note: String) {
        self.notes.push(note);
    }

    /// What `EXPLAIN ANALYZE` says of the query's sources, and of the operators that take time. Statements and names of
    /// files stay out: they are long, and tell where this machine keeps its files.
    pub(crate) fn profile(&mut self, text: &str) {
        let matters = |line: &&str| match line.strip_suffix(" ms").and_then(|line| line.rsplit(' ').next()) {
            Some(time) => time.parse().is_ok_and(|ms: f64| ms >= 1.0),
            None => [" files, ", "about ", "executed: "].iter().any(|part| line.contains(part)),
        };
        let lines: Vec<&str> = text.lines().filter(matters).filter(|line| !line.contains('\'')).collect();
        self.profile = Some(lines.join("\n"));
    }

    /// Values in the order of time, to draw.
    pub(crate) fn line(&mut self, values: Vec<f64>) {
        self.line = values;
    }

    /// For a terminal.
    pub(crate) fn summary(&self) -> String {
        let mut text = format!("-- {} ({} ids)", self.name, self.ids);
        for figure in &self.figures {
            // Writing to a string can't fail.
            let _ = write!(text, "\n   {}: {} (target {})", figure.name, round(figure.value), figure.target.text());
        }
        for series in &self.series {
            let samples = &series.samples;
            let _ = write!(
                text,
                "\n   {:<40} {:>10} {} ({} to {}, n = {})",
                series.name,
                round(samples.median()),
                series.unit,
                round(samples.min()),
                round(samples.max()),
                samples.len()
            );
        }
        for note in &self.notes {
            let _ = write!(text, "\n   {note}");
        }
        text
    }

    fn to_json(&self) -> Json {
        let figures = self.figures.iter().map(|figure| {
            json!({"name": figure.name, "value": round(figure.value), "target": figure.target.text(),
                "met": figure.target.is_met(figure.value)})
        });
        let series = self.series.iter().map(|series| {
            let mut json = series.samples.to_json();
            json["name"] = json!(series.name);
            json["unit"] = json!(series.unit);
            json
        });
        json!({"case": self.name, "ids": self.ids, "figures": figures.collect::<Vec<_>>(),
            "series": series.collect::<Vec<_>>(), "notes": self.notes})
    }
}

impl Report {
    pub(crate) fn new(rows: u64, runs: usize) -> Result<Self> {
        Ok(Self { rows, runs, machine: machine()?, cases: Vec::new() })
    }

    pub(crate) fn add(&mut self, case: Case) {
        self.cases.push(case);
    }

    /// Writes `report.json`, `report.md` and the plots.
    pub(crate) fn write(&self, directory: &Path) -> Result<()> {
        let write = |name: &str, text: String| {
            let path = directory.join(name);
            std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
        };
        std::fs::create_dir_all(directory)?;
        let json = json!({"machine": self.machine, "base_rows": self.rows, "runs": self.runs,
            "cases": self.cases.iter().map(Case::to_json).collect::<Vec<_>>()});
        write("report.json", format!("{}\n", serde_json::to_string_pretty(&json)?))?;
        let mut plots = Vec::new();
        for case in &self.cases {
            let name = format!("{}-{}.svg", file_name(&case.name), case.ids);
            if let Some(svg) = plot(case) {
                write(&name, svg)?;
                plots.push((case, name));
            }
        }
        write("report.md", self.markdown(&plots))
    }

    fn markdown(&self, plots: &[(&Case, String)]) -> String {
        let mut text = String::from("# Benchmarks\n\n");
        let machine = |key: &str| self.machine[key].as_str().unwrap_or("?").to_owned();
        // Writing to a string can't fail.
        let _ = writeln!(
            text,
            "Written by `cargo xtask bench` on {}, {} cores, {} of memory, {}; DuckDB {}, {}, {}. {} base rows in 10 files, \
             {} delta rows in 20 files, {} rows in `entity_main` of which {} dirty, 2 EAV attributes; PostgreSQL has {} of shared \
             buffers. Every DuckDB has {} threads and {}. Medians of {} runs after one to warm up (2 of the naive statement, 3 of the streams).\n\n\
             - **plain**: DuckDB in the measuring process scans the base files alone.\n\
             - **naive**: DuckDB in the measuring process, one statement over three PostgreSQL scans, pivoted, and all files.\n\
             - **quack**: DuckDB's own remote protocol, the plain scan from another process.\n\
             - **bare Flight**: a Flight server that sends the batches of the plain scan from memory.\n",
            machine("cpu"),
            self.machine["cores"],
            machine("memory"),
            machine("os"),
            machine("duckdb"),
            machine("postgres"),
            machine("rustc"),
            self.rows,
            self.rows / 50,
            self.rows / 10,
            self.rows / 200,
            std::env::var("THERMOCLINE_TEST_SHARED_BUFFERS").unwrap_or_else(|_| "128MB".to_owned()),
            duck::THREADS,
            duck::MEMORY_LIMIT,
            self.runs
        );
        text.push_str("| ids | case | figure | value | target | |\n| --- | --- | --- | ---: | --- | --- |\n");
        for case in &self.cases {
            for figure in &case.figures {
                let met = match figure.target.is_met(figure.value) {
                    Some(true) => "met",
                    Some(false) => "**missed**",
                    None => "",
                };
                let _ = writeln!(
                    text,
                    "| {} | {} | {} | {} | {} | {met} |",
                    case.ids,
                    case.name,
                    figure.name,
                    round(figure.value),
                    figure.target.text()
                );
            }
        }
        text.push_str("\n## Measured\n\n| ids | case | series | median | least | most | n |\n");
        text.push_str("| --- | --- | --- | ---: | ---: | ---: | ---: |\n");
        for case in &self.cases {
            for series in &case.series {
                let samples = &series.samples;
                let _ = writeln!(
                    text,
                    "| {} | {} | {} | {} {} | {} | {} | {} |",
                    case.ids,
                    case.name,
                    series.name,
                    round(samples.median()),
                    series.unit,
                    round(samples.min()),
                    round(samples.max()),
                    samples.len()
                );
            }
        }
        text.push_str("\n## Notes\n\n");
        for case in &self.cases {
            for note in &case.notes {
                let _ = writeln!(text, "- {} ({} ids): {note}", case.name, case.ids);
            }
        }
        text.push_str("\n## Plots\n\n");
        for (case, file) in plots {
            let _ = writeln!(text, "![{} with {} ids]({file})\n", case.name, case.ids);
        }
        text.push_str("## Where the time goes\n\nWhat `EXPLAIN ANALYZE` says, one run each.\n");
        for case in &self.cases {
            if let Some(profile) = &case.profile {
                let _ =
                    write!(text, "\n### {} ({} ids)\n\n```text\n{}\n```\n", case.name, case.ids, profile.trim_end());
            }
        }
        text
    }
}

/// Three significant digits or so.
fn round(value: f64) -> f64 {
    let factor = if value.abs() < 10.0 { 100.0 } else { 10.0 };
    (value * factor).round() / factor
}

/// A case's name as a file's: letters, digits and single hyphens, which every file system takes.
fn file_name(case: &str) -> String {
    case.split(|letter: char| !letter.is_ascii_alphanumeric())
        .filter(|word| !word.is_empty())
        .collect::<Vec<_>>()
        .join("-")
}

/// Bars of a case's times, or the line of its values; `None` when there is nothing to compare.
fn plot(case: &Case) -> Option<String> {
    const WIDTH: f64 = 640.0;
    let escape = |text: &str| text.replace('&', "&amp;").replace('<', "&lt;");
    let title = format!("{} ({} ids)", escape(&case.name), case.ids);
    let mut body = String::new();
    let height = if case.line.len() > 1 {
        let most = case.line.iter().copied().fold(1.0, f64::max);
        let points: Vec<String> = case
            .line
            .iter()
            .enumerate()
            .map(|(index, value)| {
                let x = 10.0 + (WIDTH - 20.0) * index as f64 / (case.line.len() - 1) as f64;
                format!("{x:.1},{:.1}", 190.0 - 150.0 * value / most)
            })
            .collect();
        // Writing to a string can't fail.
        let _ = write!(
            body,
            "<polyline fill=\"none\" stroke=\"#2a6f97\" stroke-width=\"2\" points=\"{}\"/>\
             <text x=\"10\" y=\"38\">at most {} MB</text>",
            points.join(" "),
            round(most)
        );
        200.0
    } else if case.series.len() > 1 && case.series.iter().all(|series| series.unit == "ms") {
        let most = case.series.iter().map(|series| series.samples.max()).fold(0.0, f64::max);
        let mut y = 34.0;
        for series in &case.series {
            let scale = |value: f64| (WIDTH - 380.0) * value / most;
            let samples = &series.samples;
            let _ = write!(
                body,
                "<text x=\"10\" y=\"{:.0}\">{}</text>\
                 <rect x=\"220\" y=\"{y:.0}\" width=\"{:.1}\" height=\"18\" fill=\"{}\"/>\
                 <line x1=\"{:.1}\" x2=\"{:.1}\" y1=\"{mid:.0}\" y2=\"{mid:.0}\" stroke=\"#333\"/>\
                 <text x=\"{:.1}\" y=\"{:.0}\">{} ms</text>",
                y + 14.0,
                escape(&series.name),
                scale(samples.median()).max(1.0),
                if series.name.starts_with("server") { "#2a6f97" } else { "#a9b4c2" },
                220.0 + scale(samples.min()),
                220.0 + scale(samples.max()),
                228.0 + scale(samples.max()),
                y + 14.0,
                round(samples.median()),
                mid = y + 9.0,
            );
            y += 26.0;
        }
        y + 6.0
    } else {
        return None;
    };
    Some(format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" \
         font-family=\"sans-serif\" font-size=\"13\"><rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\
         <text x=\"10\" y=\"20\" font-weight=\"bold\">{title}</text>{body}</svg>\n"
    ))
}

/// What the numbers were measured on, without naming the machine.
fn machine() -> Result<Json> {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let field = |text: &str, name: &str| -> String {
        let line = text.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.split_once(':')).map_or("?", |(_, value)| value.trim()).to_owned()
    };
    let said = |program: &str, argument: &str| {
        let output = Command::new(program).arg(argument).output();
        output.map_or_else(|_| "?".to_owned(), |output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let memory: u64 = field(&read("/proc/meminfo"), "MemTotal").trim_end_matches(" kB").parse().unwrap_or(0);
    let duckdb: String = duck::open()?.query_row("SELECT version()", [], |row| row.get(0))?;
    Ok(json!({
        "cpu": field(&read("/proc/cpuinfo"), "model name"),
        "cores": std::thread::available_parallelism()?.get(),
        "memory": format!("{} GiB", memory >> 20),
        "os": said("uname", "-sr"),
        "duckdb": duckdb,
        "postgres": postgres_version(),
        "rustc": said("rustc", "--version"),
    }))
}

fn postgres_version() -> String {
    let bin = thermocline_tests::postgres::binaries();
    let output = bin.ok().and_then(|bin| Command::new(bin.join("postgres")).arg("--version").output().ok());
    output.map_or_else(|| "PostgreSQL".to_owned(), |output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

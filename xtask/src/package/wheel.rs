//! The wheel: the tree inside a small Python package ([the format](https://packaging.python.org/en/latest/specifications/binary-distribution-format/)).

use std::{
    fs::{self, File},
    io::Write,
    path::PathBuf,
};

use anyhow::{Context, Result};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD as URL_SAFE_NO_PAD};
use sha2::{Digest, Sha256};
use zip::{CompressionMethod, ZipWriter, write::SimpleFileOptions};

use super::{Contents, VERSION, read};

/// Writes the wheel. Its tag says which glibc it needs, by what the parts ask for.
pub(super) fn write(contents: &Contents<'_>) -> Result<PathBuf> {
    let Contents { checkout, parts, needs, output, compression } = contents;
    let tag = format!("py3-none-manylinux_{}_x86_64", needs.glibc.with_underscores());
    let path = output.join(format!("thermocline-{VERSION}-{tag}.whl"));
    let level = i64::from(compression.level());
    let mut wheel = Wheel { archive: ZipWriter::new(File::create(&path)?), level, record: String::new() };
    for part in parts {
        wheel.add(&format!("thermocline/{}", part.path), part.mode, &read(&part.file)?)?;
    }
    let sources = checkout.root().join("python/thermocline");
    let mut modules = fs::read_dir(&sources)
        .with_context(|| format!("cannot list `{}`", sources.display()))?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<Vec<PathBuf>, _>>()?;
    modules.retain(|module| module.extension().is_some_and(|extension| extension == "py"));
    modules.sort();
    for module in modules {
        let name = module.file_name().context("a module has a name")?.to_string_lossy().into_owned();
        wheel.add(&format!("thermocline/{name}"), 0o644, &read(&module)?)?;
    }
    let info = format!("thermocline-{VERSION}.dist-info");
    wheel.add(&format!("{info}/METADATA"), 0o644, metadata().as_bytes())?;
    wheel.add(&format!("{info}/WHEEL"), 0o644, wheel_file(&tag).as_bytes())?;
    let entry_points = "[console_scripts]\nthermocline = thermocline._program:main\n";
    wheel.add(&format!("{info}/entry_points.txt"), 0o644, entry_points.as_bytes())?;
    wheel.add(&format!("{info}/licenses/LICENSE"), 0o644, &read(&checkout.root().join("LICENSE"))?)?;
    wheel.finish(&format!("{info}/RECORD"))?;
    Ok(path)
}

fn metadata() -> String {
    format!(
        "Metadata-Version: 2.4\nName: thermocline\nVersion: {VERSION}\n\
         Summary: One Arrow Flight SQL server over hot PostgreSQL rows and Parquet files\n\
         License-Expression: Apache-2.0\nLicense-File: LICENSE\nRequires-Python: >=3.9\n\
         Requires-Dist: adbc-driver-flightsql\nRequires-Dist: pyarrow\n"
    )
}

fn wheel_file(tag: &str) -> String {
    format!("Wheel-Version: 1.0\nGenerator: cargo xtask package\nRoot-Is-Purelib: false\nTag: {tag}\n")
}

struct Wheel {
    archive: ZipWriter<File>,
    level: i64,
    /// Path, digest and size of each file.
    record: String,
}

impl Wheel {
    fn add(&mut self, path: &str, mode: u32, content: &[u8]) -> Result<()> {
        let options = match self.level {
            // The zip crate has a method of its own for what isn't squeezed.
            0 => SimpleFileOptions::default().compression_method(CompressionMethod::Stored),
            level => SimpleFileOptions::default()
                .compression_method(CompressionMethod::Deflated)
                .compression_level(Some(level)),
        };
        let options = options.unix_permissions(mode);
        self.archive.start_file(path, options)?;
        self.archive.write_all(content)?;
        self.record +=
            &format!("{path},sha256={},{}\n", URL_SAFE_NO_PAD.encode(Sha256::digest(content)), content.len());
        Ok(())
    }

    /// Adds the list of files, which holds no digest of itself.
    fn finish(mut self, path: &str) -> Result<()> {
        let record = format!("{}{path},,\n", self.record);
        self.archive.start_file(path, SimpleFileOptions::default().unix_permissions(0o644))?;
        self.archive.write_all(record.as_bytes())?;
        self.archive.finish()?;
        Ok(())
    }
}

//! The Debian package: an `ar` archive of two tar archives (deb(5)), made without Debian's tools.

use std::{
    collections::BTreeSet,
    fs::File,
    io::Write,
    path::{Path, PathBuf},
};

use anyhow::Result;
use flate2::write::GzEncoder;

use super::{Contents, VERSION, append, program::Needs, read, root_owned};

/// The tree, beside no other package's libraries.
const HOME: &str = "./usr/lib/thermocline";

pub(super) fn write(contents: &Contents<'_>) -> Result<PathBuf> {
    let Contents { checkout, parts, needs, output, compression } = contents;
    let path = output.join(format!("thermocline_{VERSION}_amd64.deb"));
    let mut kilobytes = 0;
    let mut data = tar::Builder::new(GzEncoder::new(Vec::new(), *compression));
    // dpkg makes no directory that isn't in the archive.
    let mut folders = BTreeSet::from([PathBuf::from("./usr/bin"), PathBuf::from("./usr/share/doc/thermocline")]);
    folders.extend(parts.iter().filter_map(|part| Path::new(HOME).join(&part.path).parent().map(Path::to_owned)));
    let with_parents: BTreeSet<PathBuf> = folders
        .iter()
        .flat_map(|folder| folder.ancestors())
        .filter(|it| it.starts_with("./usr"))
        .map(Path::to_owned)
        .collect();
    for folder in with_parents {
        let mut header = root_owned(tar::EntryType::Directory, 0o755);
        data.append_data(&mut header, format!("{}/", folder.display()), std::io::empty())?;
    }
    for part in parts {
        let content = read(&part.file)?;
        kilobytes += content.len().div_ceil(1024);
        append(&mut data, &format!("{HOME}/{}", part.path), part.mode, &content)?;
    }
    let copyright = read(&checkout.root().join("LICENSE"))?;
    append(&mut data, "./usr/share/doc/thermocline/copyright", 0o644, &copyright)?;
    let mut link = root_owned(tar::EntryType::Symlink, 0o777);
    data.append_link(&mut link, "./usr/bin/thermocline", "../lib/thermocline/bin/thermocline")?;
    let data = data.into_inner()?.finish()?;

    let mut control = tar::Builder::new(GzEncoder::new(Vec::new(), *compression));
    append(&mut control, "./control", 0o644, description(needs, kilobytes).as_bytes())?;
    let control = control.into_inner()?.finish()?;

    let mut archive = File::create(&path)?;
    archive.write_all(b"!<arch>\n")?;
    for (name, content) in
        [("debian-binary", b"2.0\n".as_slice()), ("control.tar.gz", &control), ("data.tar.gz", &data)]
    {
        // Name, time, user, group, mode and size, each in a field of its own width.
        archive.write_all(
            format!("{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`\n", 0, 0, 0, 100_644, content.len()).as_bytes(),
        )?;
        archive.write_all(content)?;
        if content.len() % 2 == 1 {
            archive.write_all(b"\n")?;
        }
    }
    Ok(path)
}

fn description(needs: &Needs, kilobytes: usize) -> String {
    format!(
        "Package: thermocline\nVersion: {VERSION}\nArchitecture: amd64\nMaintainer: The Thermocline authors\n\
         Installed-Size: {kilobytes}\nDepends: libc6 (>= {}), libgcc-s1, libstdc++6, ca-certificates\n\
         Section: database\nPriority: optional\n\
         Description: Flight SQL over hot PostgreSQL rows and Parquet files\n \
         One Arrow Flight SQL server that makes hot PostgreSQL rows and warm and cold\n \
         Parquet files look like one always-fresh table.\n",
        needs.glibc
    )
}

//! The audit log: verified as it is, then with one byte changed; and no value readable in any file.

use std::fs;
use std::path::{Path, PathBuf};

use vault_core::Error;
use vault_core::audit::{LogVerifier, Report as Verdict, VerifyOptions, verify};
use vault_core::fs::OsFs;

use super::Failed;
use super::data::fields;
use super::report::Report;
use super::scene::{Scene, copy_dir};

pub(super) async fn log(scene: &Scene, report: &mut Report) -> Result<(), Failed> {
    let verifier = LogVerifier::parse(&fs::read_to_string(scene.dir.join("audit.vkey"))?)?;
    let copy = scene.dir.join("audit-copy");
    copy_dir(&scene.audit_dir(), &copy)?;
    let check = |dir: &Path| -> Result<Verdict, Error> { verify(&OsFs, dir, &verifier, &VerifyOptions::default()) };
    let verdict = report.time(async { check(&copy) }).await?;
    report.step(
        "the audit log, from a copy of its files and the verifier key alone",
        verdict.is_sound() && verdict.entries > 0,
        verdict.to_string(),
    );

    let entries = copy.join("entries.log");
    let mut bytes = fs::read(&entries)?;
    let at = bytes.len() / 2;
    if let Some(byte) = bytes.get_mut(at) {
        *byte ^= 0x20;
    }
    fs::write(&entries, bytes)?;
    let (caught, how) = match report.time(async { check(&copy) }).await {
        Ok(verdict) => (!verdict.is_sound(), verdict.to_string()),
        Err(error) => (true, error.to_string()),
    };
    report.step(format!("the same with byte {at} of its entries changed"), caught, how);
    fs::remove_dir_all(&copy)?;

    let (files, found) = report.time(async { readable(&scene.dir.join("data")) }).await?;
    report.step(
        "looking for the customers' values in every file the gateway wrote",
        files > 0 && found == 0,
        format!("{files} files, {found} values found"),
    );
    Ok(())
}

/// Files below a directory, and values of the shipped records that can be read in them.
fn readable(dir: &Path) -> Result<(usize, usize), Failed> {
    // What every email address contains, and a sample of the rest: each needle costs a pass over every file.
    let sample =
        fields()?.into_iter().filter(|f| f.column == "iban" || f.column == "name").step_by(20).map(|f| f.value);
    let values: Vec<String> = sample.chain(["@example.com".to_owned()]).collect();
    let (mut files, mut found) = (0, 0);
    let mut dirs: Vec<PathBuf> = vec![dir.into()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir)? {
            let path = entry?.path();
            if path.is_dir() {
                dirs.push(path);
                continue;
            }
            files += 1;
            let text = String::from_utf8_lossy(&fs::read(&path)?).into_owned();
            found += values.iter().filter(|value| text.contains(value.as_str())).count();
        }
    }
    Ok((files, found))
}

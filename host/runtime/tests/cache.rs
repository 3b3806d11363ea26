//! The code cache trusts nobody.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::{fs, os::unix::fs::PermissionsExt};

use support::{Bench, guest};
use tidemill_runtime::{Interruption, Runtime, RuntimeConfig};

fn code_files(bench: &Bench) -> Vec<std::path::PathBuf> {
    let files = fs::read_dir(bench.dir.path().join("code")).unwrap();
    files
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "cwasm"))
        .collect()
}

#[test]
fn code_survives_a_restart_of_the_process_that_compiled_it() {
    let bench = Bench::new(Interruption::Page);
    let hash = bench.runtime.compile(&guest(&[], "")).unwrap();
    let again = Runtime::new(RuntimeConfig::new(bench.dir.path().join("code"))).unwrap();
    assert!(again.load(&hash).unwrap().is_some());
}

#[test]
fn forged_or_damaged_code_counts_as_absent() {
    let bench = Bench::new(Interruption::Page);
    let component = guest(&[], "");
    let hash = bench.runtime.compile(&component).unwrap();
    let path = code_files(&bench).remove(0);
    let good = fs::read(&path).unwrap();
    let mut forged = good.clone();
    *forged.last_mut().unwrap() ^= 1;
    for bad in [&forged[..], &good[..good.len() / 2], &good[..10], b""] {
        fs::write(&path, bad).unwrap();
        assert!(bench.runtime.load(&hash).unwrap().is_none());
        assert!(!path.exists());
    }
    // Somebody else's code under this name.
    fs::write(&path, &good).unwrap();
    let other = bench
        .runtime
        .compile(&guest(&[("process", "(loop $l (br $l)) ok")], ""))
        .unwrap();
    fs::copy(
        code_files(&bench).into_iter().find(|p| *p != path).unwrap(),
        &path,
    )
    .unwrap();
    assert!(bench.runtime.load(&hash).unwrap().is_none());
    assert!(bench.runtime.load(&other).unwrap().is_some());
}

#[test]
fn code_for_other_settings_is_not_found() {
    let bench = Bench::new(Interruption::Page);
    let hash = bench.runtime.compile(&guest(&[], "")).unwrap();
    let config = RuntimeConfig {
        interruption: Interruption::Epoch,
        ..RuntimeConfig::new(bench.dir.path().join("code"))
    };
    assert!(Runtime::new(config).unwrap().load(&hash).unwrap().is_none());
}

#[test]
fn a_directory_that_others_can_enter_is_refused() {
    let dir = tempfile::TempDir::new().unwrap();
    let code = dir.path().join("code");
    fs::create_dir(&code).unwrap();
    fs::set_permissions(&code, fs::Permissions::from_mode(0o777)).unwrap();
    let error = Runtime::new(RuntimeConfig::new(&code)).unwrap_err();
    assert!(error.to_string().contains("chmod 700"), "{error}");
}

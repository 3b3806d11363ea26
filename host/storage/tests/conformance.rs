//! One suite that every store must pass.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::collections::BTreeMap;

use bytes::Bytes;
use tidemill_storage::{Location, StorageError};

/// Whether the server in the test looks and writes in one step. `s3s-fs` does not (S3 itself does),
/// so that only creates one after the other can be tested on it.
#[derive(Clone, Copy, PartialEq)]
enum Creates {
    Atomic,
    LookFirst,
}

async fn conforms(root: &Location, creates: Creates) {
    what_is_put_is_read_back(root).await;
    what_exists_is_not_created_again(root).await;
    if creates == Creates::Atomic {
        only_one_of_many_creates_succeeds(root).await;
    }
    listing_shows_what_is_below_and_nothing_else(root).await;
    missing_objects_are_told_apart(root).await;
    names_cannot_lead_outside(root).await;
    root.check_writable().await.unwrap();
    assert_eq!(root.list("").await.unwrap(), []);
}

async fn what_is_put_is_read_back(root: &Location) {
    let big = Bytes::from(vec![7u8; 6 << 20]);
    root.put("a/big", big.clone()).await.unwrap();
    assert_eq!(root.get("a/big").await.unwrap(), big);
    assert_eq!(
        root.get_range("a/big", 10..13).await.unwrap(),
        &[7, 7, 7][..]
    );
    assert_eq!(root.size("a/big").await.unwrap(), Some(6 << 20));
    root.put("a/big", Bytes::from_static(b"small"))
        .await
        .unwrap();
    assert_eq!(
        root.join("a").unwrap().get("big").await.unwrap(),
        &b"small"[..]
    );
    root.put("a/empty", Bytes::new()).await.unwrap();
    assert_eq!(root.get("a/empty").await.unwrap(), Bytes::new());
    root.put("a/b c+[ü]%41~", Bytes::from_static(b"odd"))
        .await
        .unwrap();
    assert_eq!(root.get("a/b c+[ü]%41~").await.unwrap(), &b"odd"[..]);
    assert!(
        root.list("a")
            .await
            .unwrap()
            .iter()
            .any(|e| e.name == "a/b c+[ü]%41~")
    );
    root.delete_all("a").await.unwrap();
    assert_eq!(root.list("a").await.unwrap(), []);
}

async fn what_exists_is_not_created_again(root: &Location) {
    root.put_if_absent("one/first", Bytes::from_static(b"1"))
        .await
        .unwrap();
    let error = root
        .put_if_absent("one/first", Bytes::from_static(b"2"))
        .await
        .unwrap_err();
    assert_eq!(
        error,
        StorageError::AlreadyExists {
            uri: root.uri_of("one/first")
        }
    );
    assert_eq!(root.get("one/first").await.unwrap(), &b"1"[..]);
    root.delete("one/first").await.unwrap();
    root.put_if_absent("one/first", Bytes::new()).await.unwrap();
    root.delete("one/first").await.unwrap();
}

async fn only_one_of_many_creates_succeeds(root: &Location) {
    let attempts = (0..8u8).map(|n| root.put_if_absent("one/winner", vec![n]));
    let results = futures::future::join_all(attempts).await;
    let winners: Vec<u8> = (0..)
        .zip(&results)
        .filter(|(_, r)| r.is_ok())
        .map(|(n, _)| n)
        .collect();
    assert_eq!(winners.len(), 1, "{results:?}");
    for error in results.into_iter().filter_map(Result::err) {
        assert_eq!(
            error,
            StorageError::AlreadyExists {
                uri: root.uri_of("one/winner")
            }
        );
    }
    assert_eq!(root.get("one/winner").await.unwrap().as_ref(), &winners[..]);
    root.delete("one/winner").await.unwrap();
}

async fn listing_shows_what_is_below_and_nothing_else(root: &Location) {
    for name in [
        "chk-1/_metadata",
        "chk-1/x/y",
        "chk-10/_metadata",
        "shared/z",
    ] {
        root.put(name, name.as_bytes().to_vec()).await.unwrap();
    }
    let names = |entries: Vec<tidemill_storage::ObjectEntry>| -> Vec<String> {
        entries.into_iter().map(|entry| entry.name).collect()
    };
    assert_eq!(
        names(root.list("chk-1").await.unwrap()),
        ["chk-1/_metadata", "chk-1/x/y"]
    );
    let inner = root.join("chk-1").unwrap();
    assert_eq!(names(inner.list("").await.unwrap()), ["_metadata", "x/y"]);
    assert_eq!(inner.list("").await.unwrap()[1].size, 9);
    assert_eq!(
        root.folders("").await.unwrap(),
        ["chk-1", "chk-10", "shared"]
    );
    assert_eq!(inner.folders("").await.unwrap(), ["x"]);
    root.delete_all("chk-1").await.unwrap();
    assert_eq!(root.folders("").await.unwrap(), ["chk-10", "shared"]);
    root.delete_all("chk-10").await.unwrap();
    root.delete_all("shared").await.unwrap();
    assert_eq!(root.list("nothing/here").await.unwrap(), []);
    assert_eq!(root.folders("nothing").await.unwrap(), Vec::<String>::new());
}

async fn missing_objects_are_told_apart(root: &Location) {
    let missing = StorageError::NotFound {
        uri: root.uri_of("no/such"),
    };
    assert_eq!(root.get("no/such").await.unwrap_err(), missing);
    assert_eq!(root.get_range("no/such", 0..1).await.unwrap_err(), missing);
    assert_eq!(root.size("no/such").await.unwrap(), None);
    root.delete("no/such").await.unwrap();
}

async fn names_cannot_lead_outside(root: &Location) {
    for name in ["../x", "a/../../x", "a/./b", "a\nb"] {
        let error = root.put(name, Bytes::new()).await.unwrap_err();
        assert!(matches!(error, StorageError::Refused(_)), "{error}");
    }
    assert!(root.join("..").is_err());
    assert!(matches!(
        root.delete_all("/").await,
        Err(StorageError::Refused(_))
    ));
}

fn none() -> BTreeMap<String, String> {
    BTreeMap::new()
}

#[tokio::test]
async fn memory_conforms() {
    conforms(
        &Location::open("memory://conformance/some/where", &none()).unwrap(),
        Creates::Atomic,
    )
    .await;
}

#[tokio::test]
async fn local_conforms_and_stays_in_its_folder() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("check points/ü");
    conforms(
        &Location::open(path.to_str().unwrap(), &none()).unwrap(),
        Creates::Atomic,
    )
    .await;
    assert!(path.is_dir(), "the folder itself stays");
    assert_eq!(
        std::fs::read_dir(&path).unwrap().count(),
        0,
        "folders in it do not"
    );
    let uri = format!("file://{}/other/", dir.path().display());
    let location = Location::open(&uri, &none()).unwrap();
    conforms(&location, Creates::Atomic).await;
    location.put("x", Bytes::new()).await.unwrap();
    assert!(dir.path().join("other/x").is_file());
}

#[tokio::test]
async fn s3_conforms() {
    let s3 = tidemill_testkit::S3::start().await.unwrap();
    let uri = format!("s3://{}/some/where", s3.bucket());
    conforms(
        &Location::open(&uri, &s3.config()).unwrap(),
        Creates::LookFirst,
    )
    .await;
}

#[tokio::test]
async fn a_wrong_s3_secret_is_refused_clearly() {
    let s3 = tidemill_testkit::S3::start().await.unwrap();
    let mut config = s3.config();
    config.insert("s3.secret-key".into(), "wrong".into());
    let location = Location::open(&format!("s3a://{}/x", s3.bucket()), &config).unwrap();
    let error = location.check_writable().await.unwrap_err();
    assert!(matches!(error, StorageError::Refused(_)), "{error:?}");
}

#[tokio::test]
async fn a_folder_that_cannot_be_written_is_refused_clearly() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("file"), b"").unwrap();
    let uri = format!("file://{}/file/below", dir.path().display());
    let error = Location::open(&uri, &none())
        .unwrap()
        .check_writable()
        .await
        .unwrap_err();
    assert!(matches!(error, StorageError::Refused(_)), "{error:?}");
    assert!(error.to_string().contains(&uri), "{error}");
}

#[test]
fn what_is_no_location_is_refused() {
    for uri in [
        "relative/path",
        "hdfs://host/x",
        "ftp://host/x",
        "file://host/x",
        "/a/../b",
        "s3:///x",
    ] {
        let error = Location::open(uri, &none()).unwrap_err();
        assert!(matches!(error, StorageError::Refused(_)), "{error}");
    }
}

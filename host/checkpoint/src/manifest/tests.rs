//! What is written is read again; what is damaged is refused.

use super::*;
use crate::fixture::manifest;

#[test]
fn what_was_written_is_read() {
    let manifest = manifest(&[2, 3]);
    let bytes = manifest.to_bytes();
    assert_eq!(Manifest::from_bytes(&bytes).unwrap(), manifest);
    assert_eq!(manifest.vertices[1].subtasks.len(), 3);
    assert!(manifest.state_bytes() > 0);
}

#[test]
fn truncated_anywhere_it_is_refused() {
    let bytes = manifest(&[1, 1]).to_bytes();
    for len in 0..bytes.len() {
        assert!(
            Manifest::from_bytes(&bytes[..len]).is_err(),
            "cut to {len} of {}",
            bytes.len()
        );
    }
    let mut longer = bytes;
    longer.push(b' ');
    assert!(matches!(
        Manifest::from_bytes(&longer),
        Err(FormatError::Length { .. })
    ));
}

#[test]
fn any_changed_byte_is_noticed() {
    let bytes = manifest(&[1, 1]).to_bytes();
    for at in 0..bytes.len() {
        for flip in [1, 0x80] {
            let mut damaged = bytes.clone();
            damaged[at] ^= flip;
            if let Ok(read) = Manifest::from_bytes(&damaged) {
                // Only the letter case of the checksum may change without a difference.
                assert_eq!(read.to_bytes(), bytes, "byte {at}");
            }
        }
    }
}

#[test]
fn foreign_data_and_other_versions_are_named() {
    assert_eq!(Manifest::from_bytes(b""), Err(FormatError::Foreign));
    assert_eq!(
        Manifest::from_bytes(b"PAR1 not ours"),
        Err(FormatError::Foreign)
    );
    let bytes = manifest(&[1, 1]).to_bytes();
    let text = String::from_utf8(bytes).unwrap();
    let newer = text.replacen("checkpoint 1 ", "checkpoint 2 ", 1);
    assert_eq!(
        Manifest::from_bytes(newer.as_bytes()),
        Err(FormatError::Version(2))
    );
    assert_eq!(
        Manifest::from_bytes(b"tidemill-checkpoint what"),
        Err(FormatError::Frame)
    );
}

#[test]
fn a_manifest_that_contradicts_itself_is_refused() {
    let mut manifest = manifest(&[2, 2]);
    manifest.vertices[0].subtasks.pop();
    let error = Manifest::from_bytes(&manifest.to_bytes()).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("\"READ\" has 1 subtask states at parallelism 2"),
        "{error}"
    );
}

//! The fast path against `serde_json`.

use std::collections::BTreeMap;
use std::fmt::Debug;

use serde::Deserialize;
use serde_json::Value;

use super::*;

#[derive(Debug, PartialEq, Deserialize)]
struct Event {
    timestamp: i64,
    page: String,
    price: Option<f64>,
    kind: Option<Kind>,
    #[serde(default)]
    tags: Vec<String>,
    #[serde(default)]
    more: BTreeMap<String, i32>,
}

#[derive(Debug, PartialEq, Deserialize)]
enum Kind {
    View,
    Click,
    Other(String),
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(untagged)]
enum Loose {
    Number(i32),
    Text(String),
}

const DOCUMENTS: &[&str] = &[
    r#"{"timestamp":1,"page":"/help"}"#,
    r#" { "timestamp" : -12 , "page" : "/a-much-longer-page-than-eight" } "#,
    r#"{"timestamp":1,"page":"/help"}x"#,
    r#"{"timestamp":1,"page":"/help",}"#,
    r#"{"timestamp":1,"page":"/help""#,
    r#"{"timestamp":1,"timestamp":2,"page":"/help"}"#,
    r#"{"timestamp":01,"page":"/help"}"#,
    r#"{"timestamp":-0,"page":"/help"}"#,
    r#"{"timestamp":1.0,"page":"/help"}"#,
    r#"{"timestamp":99999999999999999999,"page":"/help"}"#,
    r#"{"timestamp":9223372036854775807,"page":"/help"}"#,
    r#"{"timestamp":-9223372036854775808,"page":"/help"}"#,
    r#"{"timestamp":1,"page":"/h\u00e4lp"}"#,
    r#"{"timestamp":1,"page":"/hälp and more of it"}"#,
    "{\"timestamp\":1,\"page\":\"/h\nlp\"}",
    r#"{"timestamp":1,"page":"","price":1.5e3,"kind":"Click"}"#,
    r#"{"timestamp":1,"page":"","price":0.1,"kind":"View"}"#,
    r#"{"timestamp":1,"page":"","price":7,"kind":{"Other":"x"}}"#,
    r#"{"timestamp":1,"page":"","price":null,"kind":"Unknown"}"#,
    r#"{"timestamp":1,"page":"","tags":["a","b"],"more":{"a":1,"b":-2}}"#,
    r#"{"timestamp":1,"page":"","tags":[,],"more":{}}"#,
    r#"{"timestamp":1,"page":"","tags":[],"unknown":[1,{"a":[true,false,null,"x",1.5]}]}"#,
    r#"{"page":""}"#,
    r#"[1,"/help"]"#,
    "",
    "{",
    "null",
    "true",
    "tru",
    "\"text\"",
    "12",
    "-12",
    "-",
    "1.",
    "1e999",
    "[1,2]",
    "[1 2]",
    "{\"a\"}",
];

/// Whatever the fast path reads, serde_json reads as the same.
fn agrees<T: DeserializeOwned + PartialEq + Debug>(bytes: &[u8]) -> bool {
    let Some(fast) = read::<T>(bytes) else {
        return false;
    };
    assert_eq!(
        Some(&fast),
        serde_json::from_slice::<T>(bytes).ok().as_ref(),
        "{bytes:?}"
    );
    true
}

fn agrees_on_all_types(bytes: &[u8]) {
    agrees::<Event>(bytes);
    agrees::<Value>(bytes);
    agrees::<Loose>(bytes);
    agrees::<Kind>(bytes);
    agrees::<BTreeMap<String, Value>>(bytes);
    agrees::<BTreeMap<i32, Value>>(bytes);
    agrees::<Vec<f64>>(bytes);
    agrees::<(u8, String)>(bytes);
    agrees::<Option<i8>>(bytes);
}

#[test]
fn what_it_reads_is_what_serde_json_reads() {
    for document in DOCUMENTS {
        agrees_on_all_types(document.as_bytes());
    }
}

#[test]
fn damaged_documents_are_read_alike_or_not_at_all() {
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = |below: usize| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        usize::try_from(random % below as u64).unwrap()
    };
    let alphabet = b"{}[]\",:\\ 0123456789-+.eEtruefalsn\xc3\xa4\x01/";
    for _ in 0..200_000 {
        let mut bytes = DOCUMENTS[next(DOCUMENTS.len())].as_bytes().to_vec();
        for _ in 0..=next(3) {
            if bytes.is_empty() {
                break;
            }
            let at = next(bytes.len());
            match next(3) {
                0 => bytes[at] = alphabet[next(alphabet.len())],
                1 => drop(bytes.remove(at)),
                _ => bytes.insert(at, alphabet[next(alphabet.len())]),
            }
        }
        agrees_on_all_types(&bytes);
    }
}

#[test]
fn numbers_of_any_length_are_read() {
    let mut number = 0_u64;
    for digit in 1..=17 {
        number = number * 10 + digit % 10;
        let text = number.to_string();
        assert_eq!(read::<u64>(text.as_bytes()), Some(number));
        assert_eq!(
            read::<Vec<u64>>(format!("[{text},{text}]").as_bytes()),
            Some(vec![number; 2])
        );
        assert!(agrees::<i64>(format!("-{text}").as_bytes()));
        assert!(read::<u64>(format!("{text}/").as_bytes()).is_none());
        assert!(read::<u64>(format!("{text}:").as_bytes()).is_none());
    }
}

#[test]
fn text_of_any_length_is_copied_whole() {
    let text = "äbcdefghijklmnopqrstuvwxyz";
    for end in (0..=text.len()).filter(|end| text.is_char_boundary(*end)) {
        assert_eq!(own(&text[..end]), text[..end]);
    }
}

#[test]
fn plain_events_take_the_fast_path() {
    assert!(agrees::<Event>(DOCUMENTS[0].as_bytes()));
    assert!(agrees::<Event>(DOCUMENTS[1].as_bytes()));
    assert!(agrees::<Event>(
        "{\"timestamp\":1,\"page\":\"/hälp and more\",\"x\":[]}".as_bytes()
    ));
}

#[test]
fn deep_documents_do_not_exhaust_the_stack() {
    assert!(read::<Value>("[".repeat(100_000).as_bytes()).is_none());
}

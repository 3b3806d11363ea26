//! Derived schemas.

#![expect(dead_code, reason = "the types are only described")]

use serde::{Deserialize, Serialize};
use tidemill::{Definitions, Schema};

fn schema<T: Schema>() -> String {
    T::schema(&mut Definitions::default())
}

#[derive(Serialize, Deserialize, Schema)]
struct Visit {
    page: String,
    #[serde(rename = "took-ms")]
    took: Option<u32>,
    #[serde(skip)]
    note: String,
}

#[derive(Serialize, Deserialize, Schema)]
struct Name(String);

#[derive(Serialize, Deserialize, Schema)]
enum Level {
    Low,
    High,
}

#[derive(Serialize, Deserialize, Schema)]
enum Shape {
    Empty,
    Circle(f64),
    Box { width: i32 },
}

#[derive(Serialize, Deserialize, Schema)]
struct Pair<A, B> {
    a: A,
    b: B,
}

#[test]
fn a_struct_is_a_record_of_its_fields() {
    assert_eq!(
        schema::<Visit>(),
        concat!(
            r#"{"type":"record","name":"Visit","fields":[{"name":"page","type":"string"},"#,
            r#"{"name":"took_ms","type":["null","long"]}]}"#
        )
    );
}

#[test]
fn a_struct_around_one_value_is_that_value() {
    assert_eq!(schema::<Name>(), r#""string""#);
}

#[test]
fn an_enum_is_an_enum_or_a_union() {
    assert_eq!(
        schema::<Level>(),
        r#"{"type":"enum","name":"Level","symbols":["Low","High"]}"#
    );
    assert_eq!(
        schema::<Shape>(),
        concat!(
            r#"{"type":"record","name":"Shape","fields":[{"name":"value","type":["#,
            r#"{"type":"record","name":"Shape_Empty","fields":[]},"#,
            r#"{"type":"record","name":"Shape_Circle","fields":[{"name":"f0","type":"double"}]},"#,
            r#"{"type":"record","name":"Shape_Box","fields":[{"name":"width","type":"int"}]}"#,
            r#"]}]}"#
        )
    );
}

#[test]
fn no_union_is_in_another_one() {
    let nested = schema::<Option<Option<i32>>>();
    let expected = concat!(
        r#"["null",{"type":"record","name":"Nested","#,
        r#""fields":[{"name":"value","type":["null","int"]}]}]"#
    );
    assert_eq!(nested, expected);
    assert!(schema::<Option<Shape>>().starts_with(r#"["null",{"type":"record","name":"Shape","#));
}

#[test]
fn a_generic_type_is_another_one_for_each_use() {
    let pair = schema::<(Pair<i32, bool>, Pair<bool, Level>)>();
    assert!(pair.contains(r#""name":"Pair","#), "{pair}");
    assert!(pair.contains(r#""name":"Pair2","#), "{pair}");
}

#[test]
fn every_schema_is_json() {
    for text in [
        schema::<Visit>(),
        schema::<Shape>(),
        schema::<Pair<Vec<Visit>, Option<Visit>>>(),
    ] {
        serde_json::from_str::<serde_json::Value>(&text).unwrap();
    }
}

//! Generated data as a source.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod suite;

#[tokio::test]
async fn generated_records_come_exactly_once() {
    for (format, splits) in [
        ("click-event", "3"),
        ("sequence", "1"),
        ("random-text", "8"),
    ] {
        let options = [("format", format), ("records", "500"), ("splits", splits)];
        let config = suite::config("datagen", &options);
        let expected = suite::read_bounded(&config).await;
        assert_eq!(expected.len(), 500);
        suite::source_conforms(&config, &expected, 30).await;
    }
}

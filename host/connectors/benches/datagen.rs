//! What a generated record costs: `cargo bench -p tidemill-connectors`.

#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::disallowed_types,
    reason = "a measurement"
)]

use std::time::Instant;

use tidemill_connectors::{BatchBudget, Registry, SourceContext, SourceEvent};
use tidemill_types::{Attempt, ConnectorConfig, JobId, TenantId};

const RECORDS: usize = 20_000_000;
const BUDGET: BatchBudget = BatchBudget {
    records: 4096,
    bytes: 1 << 20,
};

fn context() -> SourceContext {
    SourceContext {
        job: JobId::from_name("bench"),
        tenant: TenantId::default_tenant(),
        vertex_uid: "vertex".to_owned(),
        source_uid: "source".to_owned(),
        subtask: 0,
        parallelism: 1,
        max_parallelism: 128,
        attempt: Attempt(0),
    }
}

async fn measure(name: &str, options: &[(&str, &str)]) {
    let config = ConnectorConfig {
        kind: "datagen".to_owned(),
        options: options
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect(),
    };
    let registry = Registry::standard();
    let mut source = registry
        .open_source(&config, context(), None)
        .await
        .unwrap();
    let start = Instant::now();
    let mut records = 0;
    while records < RECORDS {
        if let SourceEvent::Batch { batch, .. } = source.next(BUDGET).await.unwrap() {
            records += batch.len();
        }
    }
    let each = start.elapsed().as_nanos() / records as u128;
    println!("{name}: {each} ns a record");
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    measure("click events", &[]).await;
    measure("click events, 100 µs apart", &[("us-per-record", "100")]).await;
    measure("numbers", &[("format", "sequence")]).await;
}

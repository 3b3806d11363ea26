//! Real jobs, as `make jobs` builds them.

use std::path::PathBuf;

use tidemill_runtime::{Guest, Limits, Module, PlanRequest, Runtime};
use tidemill_types::{Batch, BatchBuilder, JobGraph};

use super::{env, open_request, task::Task};

/// The bytes of a job's component.
pub fn bytes(name: &str) -> Vec<u8> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..");
    let path = root
        .join("target/wasm32-wasip2/job")
        .join(format!("{name}.wasm"));
    std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}; run `make jobs`", path.display()))
}

/// Compiles a job.
pub fn load(runtime: &Runtime, name: &str) -> Module {
    let hash = runtime
        .compile(&bytes(name))
        .unwrap_or_else(|e| panic!("{e}"));
    runtime.load(&hash).unwrap().expect("compiled a moment ago")
}

/// A new instance, planned.
pub async fn planned(module: &Module, args: &[&str], task: &Task) -> (Guest, JobGraph) {
    let limits = Limits::default();
    let mut guest = module
        .instantiate(limits, env(), Box::new(task.clone()))
        .await
        .unwrap();
    let request = PlanRequest {
        args: args.iter().map(|arg| (*arg).to_owned()).collect(),
        config: vec![],
    };
    let graph = guest.plan(&request).await.unwrap_or_else(|e| panic!("{e}"));
    (guest, graph)
}

/// An instance that runs one vertex.
pub async fn opened(module: &Module, args: &[&str], vertex: u32) -> (Guest, Task) {
    let task = Task::default();
    let (mut guest, _) = planned(module, args, &task).await;
    let request = tidemill_runtime::OpenRequest {
        vertex,
        cache_bytes: 32 << 20,
        ..open_request()
    };
    guest.open(&request).await.unwrap_or_else(|e| panic!("{e}"));
    (guest, task)
}

/// The pages that are clicked on.
pub const PAGES: [&str; 6] = ["/help", "/index", "/shop", "/jobs", "/about", "/news"];

/// Click events: six pages in turn, 1,000 of each in 15 seconds of event time.
pub fn clicks(events: std::ops::Range<u64>) -> Batch {
    let mut batch = BatchBuilder::new();
    for event in events {
        let page = PAGES[usize::try_from(event % 6).unwrap()];
        let timestamp = (event / 6) * 15;
        let json = format!(r#"{{"timestamp":{timestamp},"page":"{page}"}}"#);
        batch.push(tidemill_types::NO_TIMESTAMP, None, Some(json.as_bytes()));
    }
    batch.take()
}

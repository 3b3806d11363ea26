//! The planner process, asked through its client. This target is its own planner: started with
//! the argument `planner` it serves, otherwise it runs the tests.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test target with its own main"
)]

mod support;

use std::{path::PathBuf, process::ExitCode, time::Duration};

use support::guest;
use tempfile::TempDir;
use tidemill_planner::{PlanError, PlanJob, Planner, PlannerConfig, hash_module};
use tidemill_runtime::{Runtime, RuntimeConfig};
use tidemill_types::{ErrorKind, JobGraph, JobId};

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some("planner") {
        return tidemill_runtime::planner::main(preflight);
    }
    let filter = std::env::args().nth(1).filter(|arg| !arg.starts_with('-'));
    let executor = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    for (name, test) in TESTS {
        if filter.as_ref().is_none_or(|filter| name.contains(filter)) {
            executor.block_on(test());
            println!("test {name} ... ok");
        }
    }
    ExitCode::SUCCESS
}

type Test = fn() -> std::pin::Pin<Box<dyn Future<Output = ()>>>;

macro_rules! tests {
    ($($name:ident),* $(,)?) => {
        const TESTS: &[(&str, Test)] = &[$((stringify!($name), || Box::pin($name()))),*];
    };
}

tests!(
    a_graph_is_planned_and_the_code_is_in_the_cache,
    the_authors_own_error_reaches_the_submitter_as_it_is,
    preflight_failures_reject_the_job,
    an_endless_plan_is_interrupted,
    a_plan_that_eats_memory_is_stopped,
    a_module_that_is_none_is_rejected,
    types_nested_ten_thousand_deep_are_rejected,
    a_module_that_compiles_for_too_long_is_killed,
    a_program_that_is_no_planner_is_an_error,
);

fn preflight(graph: &JobGraph) -> Result<(), String> {
    if graph.config.contains_key("unreachable") {
        Err("no broker there".into())
    } else {
        Ok(())
    }
}

struct Place {
    dir: TempDir,
    config: PlannerConfig,
}

impl Place {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let program = std::env::current_exe().unwrap();
        let config = PlannerConfig::new(program, dir.path().join("code"));
        Self { dir, config }
    }

    fn module(&self, bytes: &[u8]) -> PathBuf {
        let path = self.dir.path().join("module.wasm");
        std::fs::write(&path, bytes).unwrap();
        path
    }

    async fn plan(&self, bytes: &[u8]) -> Result<JobGraph, PlanError> {
        Planner::new(self.config.clone())
            .plan(&self.module(bytes), job(false))
            .await
    }
}

fn job(preflight: bool) -> PlanJob {
    PlanJob {
        args: vec!["--input".into(), "x".into()],
        config: vec![],
        job: JobId::from_u128(1),
        submitted_at_ms: 0,
        preflight,
    }
}

/// Writes ok(graph "j" with one vertex "v" that has a datagen source) and (config) into memory.
fn planning(config: bool) -> Vec<u8> {
    // The result is at 4096: tag, then the graph at 4100.
    let mut body = String::from(
        "(i32.store (i32.const 4100) (i32.const 512)) (i32.store (i32.const 4104) (i32.const 1))
         (i32.store (i32.const 4108) (i32.const 5000)) (i32.store (i32.const 4112) (i32.const 1))",
    );
    if config {
        body += "(i32.store (i32.const 4124) (i32.const 6000)) (i32.store (i32.const 4128) (i32.const 1))
          (i32.store (i32.const 6000) (i32.const 520)) (i32.store (i32.const 6004) (i32.const 11))
          (i32.store (i32.const 6008) (i32.const 512)) (i32.store (i32.const 6012) (i32.const 1))";
    }
    body += &vertex();
    guest(
        &[("plan", &format!("{body} (i32.const 4096)"))],
        r#"(data (i32.const 512) "jv......unreachable")"#,
    )
}

/// A vertex at 5000, by the layout of the canonical ABI.
fn vertex() -> String {
    let mut stores = String::new();
    let mut store = |at: u32, value: u32| {
        stores += &format!("(i32.store (i32.const {at}) (i32.const {value}))");
    };
    // uid, name
    for at in [5000, 5008] {
        store(at, 513);
        store(at + 4, 1);
    }
    // parallelism and max-parallelism: none (16..32); source: some, aligned to 8.
    store(5032, 1);
    // source at 5040: uid, name, connector { kind, options }, idle-timeout.
    for at in [5040, 5048, 5056] {
        store(at, 513);
        store(at + 4, 1);
    }
    stores
}

async fn a_graph_is_planned_and_the_code_is_in_the_cache() {
    let place = Place::new();
    let bytes = planning(false);
    let graph = place.plan(&bytes).await.unwrap();
    assert_eq!((graph.name.as_str(), graph.vertices.len()), ("j", 1));
    assert_eq!(
        graph.vertices[0].source.as_ref().unwrap().connector.kind,
        "v"
    );
    let runtime = Runtime::new(RuntimeConfig::new(place.dir.path().join("code"))).unwrap();
    assert!(runtime.load(&hash_module(&bytes)).unwrap().is_some());
}

async fn the_authors_own_error_reaches_the_submitter_as_it_is() {
    let body =
        "(i32.store8 (i32.const 4096) (i32.const 1)) (i32.store (i32.const 4100) (i32.const 512))
        (i32.store (i32.const 4104) (i32.const 20)) (i32.const 4096)";
    let bytes = guest(
        &[("plan", body)],
        r#"(data (i32.const 512) "--input-topic needed")"#,
    );
    let error = Place::new().plan(&bytes).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.to_string()),
        (ErrorKind::Invalid, "--input-topic needed".into())
    );
}

async fn preflight_failures_reject_the_job() {
    let place = Place::new();
    let planner = Planner::new(place.config.clone());
    let module = place.module(&planning(true));
    planner.plan(&module, job(false)).await.unwrap();
    let error = planner.plan(&module, job(true)).await.unwrap_err();
    assert!(
        matches!(&error, PlanError::Rejected(text) if text == "no broker there"),
        "{error}"
    );
}

async fn an_endless_plan_is_interrupted() {
    let mut place = Place::new();
    place.config.plan_timeout = Duration::from_millis(200);
    let bytes = guest(&[("plan", "(loop $l (br $l)) ok")], "");
    let error = place.plan(&bytes).await.unwrap_err();
    assert!(matches!(error, PlanError::Rejected(_)), "{error:?}");
    assert!(
        error.to_string().contains("interrupted after 0.2 s"),
        "{error}"
    );
}

async fn a_plan_that_eats_memory_is_stopped() {
    let bytes = guest(
        &[(
            "plan",
            "(loop $l (drop (memory.grow (i32.const 64))) (br $l)) ok",
        )],
        "",
    );
    let error = Place::new().plan(&bytes).await.unwrap_err();
    assert!(
        error.to_string().contains("exceeded 256 MiB of memory"),
        "{error}"
    );
}

async fn a_module_that_is_none_is_rejected() {
    let place = Place::new();
    let planner = Planner::new(place.config.clone());
    let error = planner
        .compile(&place.module(b"nonsense"))
        .await
        .unwrap_err();
    assert!(matches!(error, PlanError::Rejected(_)), "{error:?}");
    let error = planner
        .compile(&place.dir.path().join("absent.wasm"))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Retry, "{error:?}");
}

async fn types_nested_ten_thousand_deep_are_rejected() {
    let mut types = vec![1];
    for _ in 0..10_000 {
        types.extend_from_slice(&[0x41, 1, 1]);
    }
    types.extend_from_slice(&[0x41, 0]);
    let mut bytes = b"\0asm\x0d\0\x01\0\x07".to_vec();
    let mut len = types.len();
    while len >= 0x80 {
        bytes.push(u8::try_from(len & 0x7f).unwrap() | 0x80);
        len >>= 7;
    }
    bytes.push(u8::try_from(len).unwrap());
    bytes.extend(types);
    let error = Place::new().plan(&bytes).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error:?}");
}

async fn a_module_that_compiles_for_too_long_is_killed() {
    let mut place = Place::new();
    place.config.compile_timeout = Duration::from_millis(500);
    place.config.plan_timeout = Duration::ZERO;
    // One function of a hundred thousand nested blocks with branches.
    let body =
        "(if (global.get $top) (then (global.set $top (i32.mul (global.get $top) (i32.const 3)))))"
            .repeat(200_000);
    let bytes = guest(&[("process", &format!("{body} ok"))], "");
    let error = place.plan(&bytes).await.unwrap_err();
    assert!(matches!(error, PlanError::TimedOut { .. }), "{error:?}");
}

async fn a_program_that_is_no_planner_is_an_error() {
    let mut place = Place::new();
    place.config.program = "/bin/false".into();
    let error = place.plan(&guest(&[], "")).await.unwrap_err();
    assert!(matches!(error, PlanError::Crashed { .. }), "{error:?}");
    place.config.program = "/nonexistent/tidemill".into();
    let error = place.plan(&guest(&[], "")).await.unwrap_err();
    assert!(matches!(error, PlanError::Io { .. }), "{error:?}");
}

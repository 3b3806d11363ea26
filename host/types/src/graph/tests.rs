//! What a guest may not plan.

use super::*;

fn vertex(name: &str, source: bool) -> Vertex {
    Vertex {
        uid: name.into(),
        name: name.into(),
        parallelism: None,
        max_parallelism: None,
        source: source.then(|| SourceBinding {
            uid: "s".into(),
            name: "s".into(),
            connector: ConnectorConfig {
                kind: "datagen".into(),
                options: BTreeMap::new(),
            },
            idle_timeout_ms: None,
        }),
        operators: vec![],
        sinks: vec![],
        states: vec![],
        wants_watermarks: false,
        makes_watermarks: false,
    }
}

fn edge(from: u32, to: u32) -> Edge {
    Edge {
        from,
        port: 0,
        to,
        input: 0,
        strategy: ShipStrategy::Forward,
    }
}

fn graph(vertices: Vec<Vertex>, edges: Vec<Edge>) -> JobGraph {
    JobGraph {
        name: "job".into(),
        vertices,
        edges,
        config: BTreeMap::new(),
    }
}

#[test]
fn a_chain_of_two_is_accepted() {
    let graph = graph(
        vec![vertex("a", true), vertex("b", false)],
        vec![edge(0, 1)],
    );
    graph.validate().unwrap();
    assert_eq!(graph.topological_order().unwrap(), [0, 1]);
}

#[test]
fn cycles_dangling_edges_and_duplicates_are_refused() {
    let cycle = graph(
        vec![vertex("a", true), vertex("b", false), vertex("c", false)],
        vec![edge(0, 1), edge(1, 2), edge(2, 1)],
    );
    assert!(cycle.validate().unwrap_err().0.contains("cycle"));
    let dangling = graph(vec![vertex("a", true)], vec![edge(0, 7)]);
    assert!(dangling.validate().is_err());
    let twice = graph(vec![vertex("a", true), vertex("a", true)], vec![]);
    assert!(twice.validate().unwrap_err().0.contains("uid"));
    assert!(graph(vec![vertex("a", false)], vec![]).validate().is_err());
    assert!(graph(vec![], vec![]).validate().is_err());
}

#[test]
fn names_are_bounded_and_printable() {
    assert!(
        graph(vec![vertex(&"x".repeat(1_000_000), true)], vec![])
            .validate()
            .is_err()
    );
    assert!(
        graph(vec![vertex("a\u{1b}[31m", true)], vec![])
            .validate()
            .is_err()
    );
}

//! A job graph as the API draws it.

use serde_json::{Value, json};
use tidemill_types::{JobGraph, JobId, Vertex};

/// The plan of a job.
pub(super) fn plan(id: JobId, name: &str, graph: &JobGraph, parallelism: &[u32]) -> Value {
    let order = graph.topological_order().unwrap_or_default();
    let nodes: Vec<Value> = order
        .into_iter()
        .filter_map(|position| {
            let vertex = graph.vertices.get(position as usize)?;
            Some(node(
                graph,
                position,
                vertex,
                *parallelism.get(position as usize)?,
            ))
        })
        .collect();
    json!({ "jid": id.to_string(), "name": name, "type": "STREAMING", "nodes": nodes })
}

fn node(graph: &JobGraph, position: u32, vertex: &Vertex, parallelism: u32) -> Value {
    let inputs: Vec<Value> = graph
        .inputs_of(position)
        .zip(0..)
        .filter_map(|(edge, num)| {
            let from = graph.vertices.get(edge.from as usize)?;
            Some(json!({
                "num": num,
                "id": from.id().to_string(),
                "ship_strategy": edge.strategy.as_str(),
                "exchange": "pipelined_bounded",
            }))
        })
        .collect();
    let mut node = json!({
        "id": vertex.id().to_string(),
        "parallelism": parallelism,
        "operator": "",
        "operator_strategy": "",
        "description": description(vertex),
        "optimizer_properties": {},
    });
    if !inputs.is_empty() {
        node["inputs"] = Value::Array(inputs);
    }
    node
}

/// The parts of a chain, one on a line.
fn description(vertex: &Vertex) -> String {
    let source = vertex
        .source
        .iter()
        .map(|source| format!("Source: {}", source.name));
    let operators = vertex.operators.iter().map(|operator| {
        if operator.description.is_empty() {
            operator.name.clone()
        } else {
            operator.description.clone()
        }
    });
    let sinks = vertex
        .sinks
        .iter()
        .map(|sink| format!("Sink: {}", sink.name));
    let parts: Vec<String> = source
        .chain(operators)
        .chain(sinks)
        .map(|part| escape(&part))
        .collect();
    if parts.is_empty() {
        return format!("{}<br/>", escape(&vertex.name));
    }
    parts.join("<br/>+- ") + "<br/>"
}

/// Names come from a module and end up in web pages.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

//! Figures over several things: percentiles, aggregates.

use serde_json::{Value, json};

/// The distribution of some numbers, in the shape of checkpoint statistics. Without numbers the
/// percentiles are the text "NaN", as clients of the API know it.
pub(super) fn distribution(values: impl IntoIterator<Item = i64>) -> Value {
    let mut values: Vec<i64> = values.into_iter().collect();
    values.sort_unstable();
    let (Some(min), Some(max)) = (values.first(), values.last()) else {
        return json!({
            "min": 0, "max": 0, "avg": 0,
            "p50": "NaN", "p90": "NaN", "p95": "NaN", "p99": "NaN", "p999": "NaN",
        });
    };
    let average = values.iter().sum::<i64>() / values.len() as i64;
    let at = |percent: f64| percentile(&values, percent);
    json!({
        "min": min, "max": max, "avg": average,
        "p50": at(50.0), "p90": at(90.0), "p95": at(95.0), "p99": at(99.0), "p999": at(99.9),
    })
}

/// The same for the subtasks of a vertex.
pub(super) fn quartiles(values: impl IntoIterator<Item = i64>) -> Value {
    let mut values: Vec<i64> = values.into_iter().collect();
    values.sort_unstable();
    let (Some(min), Some(max)) = (values.first(), values.last()) else {
        return json!({ "min": 0, "max": 0, "avg": 0, "sum": 0, "median": 0, "p25": 0, "p75": 0, "p95": 0 });
    };
    let sum: i64 = values.iter().sum();
    #[expect(
        clippy::cast_possible_truncation,
        reason = "percentiles lie between two i64"
    )]
    let at = |percent: f64| percentile(&values, percent) as i64;
    json!({
        "min": min, "max": max, "avg": sum / values.len() as i64, "sum": sum,
        "median": at(50.0), "p25": at(25.0), "p75": at(75.0), "p95": at(95.0),
    })
}

/// By linear interpolation between the neighbours; beyond the ends, the ends.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "figures for people; positions are within the list"
)]
fn percentile(sorted: &[i64], percent: f64) -> f64 {
    let position = percent / 100.0 * (sorted.len() + 1) as f64;
    let below = position.floor();
    if below < 1.0 {
        return sorted[0] as f64;
    }
    if below as usize >= sorted.len() {
        return sorted[sorted.len() - 1] as f64;
    }
    let (low, high) = (
        sorted[below as usize - 1] as f64,
        sorted[below as usize] as f64,
    );
    low + (position - below) * (high - low)
}

/// Aggregates of one metric over several things, as far as they are asked for.
#[expect(clippy::cast_precision_loss, reason = "figures for people")]
pub(super) fn aggregate(id: &str, values: &[f64], wanted: &[String], with_skew: bool) -> Value {
    let sum: f64 = values.iter().sum();
    let count = values.len().max(1) as f64;
    let average = sum / count;
    let min = values.iter().copied().fold(f64::INFINITY, f64::min);
    let max = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let deviation = values.iter().map(|v| (v - average).abs()).sum::<f64>() / count;
    let skew = if average == 0.0 {
        0.0
    } else {
        deviation / average * 100.0
    };
    let all = wanted.is_empty();
    let mut entry = json!({ "id": id });
    let figures = [
        ("min", min),
        ("max", max),
        ("avg", average),
        ("sum", sum),
        ("skew", skew),
    ];
    for (name, figure) in figures {
        let asked = wanted.iter().any(|w| w.eq_ignore_ascii_case(name));
        if asked || (all && (name != "skew" || with_skew)) {
            entry[name] = json!(figure);
        }
    }
    entry
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_interpolated() {
        let stats = distribution([33, 13, 15, 15, 16, 28]);
        assert_eq!(
            (stats["min"].as_i64(), stats["max"].as_i64()),
            (Some(13), Some(33))
        );
        assert_eq!(stats["p50"], json!(15.5));
        assert_eq!(stats["p999"], json!(33.0));
        assert_eq!(distribution([])["p50"], json!("NaN"));
    }

    #[test]
    fn skew_is_the_mean_deviation_in_percent() {
        let entry = aggregate("busy", &[30.0, 32.0], &[], true);
        assert_eq!(entry["avg"], json!(31.0));
        assert!((entry["skew"].as_f64().unwrap() - 3.225_806).abs() < 1e-5);
        let only = aggregate("busy", &[30.0, 32.0], &["max".to_owned()], true);
        assert_eq!(only, json!({ "id": "busy", "max": 32.0 }));
    }
}

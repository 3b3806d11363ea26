//! The misdeeds that the SDK does not commit: calls of the host with arguments that make no sense.

#[cfg(target_family = "wasm")]
mod imp {
    use tidemill::bindings::tidemill::job::logging::{Level, log};
    use tidemill::bindings::tidemill::job::types::{Batch, Column, Header, TimeDomain, TimerBatch};
    use tidemill::bindings::tidemill::job::{metrics, output, state, timers};

    fn column(data: usize, ends: &[u32], nulls: &[u32]) -> Column {
        Column {
            data: vec![b'x'; data],
            ends: ends.to_vec(),
            nulls: nulls.to_vec(),
        }
    }

    fn batch(values: Column) -> Batch {
        Batch {
            timestamps: vec![0, 0],
            keys: column(0, &[], &[]),
            values,
            headers: Vec::new(),
        }
    }

    pub(crate) fn commit(mode: &str) {
        let good = || batch(column(2, &[1, 2], &[]));
        match mode {
            "bad-port" => output::emit(77, &good()),
            "bad-ends" => output::emit(0, &batch(column(2, &[1, 1000], &[]))),
            "decreasing-ends" => output::emit(0, &batch(column(2, &[2, 1], &[]))),
            "short-column" => output::emit(0, &batch(column(1, &[1], &[]))),
            "bad-null" => output::emit(0, &batch(column(2, &[1, 2], &[9]))),
            "bad-header" => {
                let headers = vec![Header {
                    record: 9,
                    name: "h".to_owned(),
                    value: None,
                }];
                output::emit(0, &Batch { headers, ..good() });
            }
            "bad-state" => drop(state::get_many(
                77,
                &column(1, &[1], &[]),
                &column(0, &[], &[]),
            )),
            "huge-key" => write_key(column(100 << 20, &[100 << 20], &[])),
            "foreign-key" => (0..1000_u32).for_each(|n| {
                let data = n.to_be_bytes().to_vec();
                write_key(Column {
                    data,
                    ends: vec![4],
                    nulls: Vec::new(),
                });
            }),
            "bad-operator" => timers::set_many(&TimerBatch {
                domain: TimeDomain::EventTime,
                operator: 77,
                timestamps: vec![1],
                keys: column(1, &[1], &[]),
                namespaces: column(0, &[], &[]),
            }),
            "log-flood" => (0..u64::MAX).for_each(|_| log(Level::Info, Some(77), "a flood")),
            "metric-flood" => metrics_flood(),
            _ => {}
        }
    }

    fn write_key(keys: Column) {
        let entries = state::Entries {
            keys,
            subkeys: column(0, &[], &[]),
            values: column(1, &[1], &[]),
            expiries: Vec::new(),
        };
        state::put_many(0, &entries);
    }

    /// Metrics by the million would fill the worker's tables.
    fn metrics_flood() {
        (0..10_000_000).for_each(|n| metrics::add(0, &format!("metric-{n}"), 1));
    }

    #[expect(clippy::disallowed_types, reason = "a plan that depends on the clock")]
    pub(crate) fn unstable_number() -> u128 {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        now.map_or(0, |now| now.as_nanos())
    }
}

#[cfg(not(target_family = "wasm"))]
mod imp {
    pub(crate) fn commit(_mode: &str) {}

    pub(crate) fn unstable_number() -> u128 {
        0
    }
}

pub(crate) use imp::{commit, unstable_number};

//! From where to where partitions are read: turns modes into offsets.

use std::{sync::Arc, time::Duration};

use rdkafka::{
    Offset, TopicPartitionList,
    consumer::{Consumer as _, StreamConsumer},
    error::KafkaResult,
};

use super::{
    client::{Context, blocking},
    errors,
    options::{Bound, Reset, SourceOptions, Startup},
    split::{EARLIEST, Position},
};
use crate::ConnectorError;

/// How long a broker may take to answer one of these questions.
const PATIENCE: Duration = Duration::from_secs(20);

/// A partition, by topic and number.
pub(super) type Partition = (String, i32);

type Client = Arc<StreamConsumer<Context>>;

/// The positions at which partitions without a checkpoint begin and end.
///
/// `discovered` partitions appeared while the job was running: they are read from their start.
pub(super) async fn resolve(
    client: &Client,
    options: &SourceOptions,
    partitions: Vec<Partition>,
    discovered: bool,
) -> Result<Vec<Position>, ConnectorError> {
    if partitions.is_empty() {
        return Ok(Vec::new());
    }
    let startup = if discovered {
        Startup::Earliest
    } else {
        options.startup
    };
    let (bound, reset) = (options.bound, options.reset);
    let client = Arc::clone(client);
    let positions = blocking(move || {
        let starts = starts(&client, startup, reset, &partitions)?;
        let stops = stops(&client, bound, &partitions)?;
        Ok(partitions
            .into_iter()
            .zip(starts)
            .zip(stops)
            .map(|(((topic, partition), offset), stop)| Position {
                topic,
                partition,
                offset,
                stop,
            })
            .collect())
    });
    positions.await?
}

fn starts(
    client: &Client,
    startup: Startup,
    reset: Option<Reset>,
    partitions: &[Partition],
) -> Result<Vec<i64>, ConnectorError> {
    match startup {
        Startup::Earliest => Ok(vec![EARLIEST; partitions.len()]),
        Startup::Latest => ends(client, partitions),
        Startup::Timestamp(ms) => at_time(client, ms, partitions),
        Startup::Group => committed(client, reset, partitions),
    }
}

fn stops(
    client: &Client,
    bound: Bound,
    partitions: &[Partition],
) -> Result<Vec<Option<i64>>, ConnectorError> {
    let some = |offsets: Vec<i64>| offsets.into_iter().map(Some).collect();
    match bound {
        Bound::Never => Ok(vec![None; partitions.len()]),
        Bound::Latest => ends(client, partitions).map(some),
        Bound::Timestamp(ms) => at_time(client, ms, partitions).map(some),
    }
}

fn answered<T>(
    client: &Client,
    what: &str,
    (topic, partition): &Partition,
    answer: KafkaResult<T>,
) -> Result<T, ConnectorError> {
    let trouble = client.context().watch.trouble();
    answer.map_err(|error| {
        let what = format!("kafka source: cannot find out {what} of {topic}-{partition}");
        errors::sort(&what, &error, trouble.as_deref())
    })
}

fn ends(client: &Client, partitions: &[Partition]) -> Result<Vec<i64>, ConnectorError> {
    let end = |partition: &Partition| {
        let answer = client.fetch_watermarks(&partition.0, partition.1, PATIENCE);
        answered(client, "the end", partition, answer).map(|(_, high)| high)
    };
    partitions.iter().map(end).collect()
}

/// The first offsets whose records are not older than `ms`; the ends where there are none.
fn at_time(client: &Client, ms: i64, partitions: &[Partition]) -> Result<Vec<i64>, ConnectorError> {
    // The ends first: what arrives between the two questions must not be passed over.
    let ends = ends(client, partitions)?;
    let mut query = TopicPartitionList::new();
    for (topic, partition) in partitions {
        let added = query.add_partition_offset(topic, *partition, Offset::Offset(ms));
        answered(client, "a point in time", &partitions[0], added)?;
    }
    let answer = client.offsets_for_times(query, PATIENCE);
    let found = answered(
        client,
        "offsets for a point in time",
        &partitions[0],
        answer,
    )?;
    let offset = |(partition, end): (&Partition, i64)| {
        let element = found.find_partition(&partition.0, partition.1);
        let Some(element) = element else {
            return Ok(end);
        };
        answered(
            client,
            "the offset for a point in time",
            partition,
            element.error(),
        )?;
        Ok(match element.offset() {
            Offset::Offset(offset) => offset,
            _ => end,
        })
    };
    partitions.iter().zip(ends).map(offset).collect()
}

/// What the group has committed.
fn committed(
    client: &Client,
    reset: Option<Reset>,
    partitions: &[Partition],
) -> Result<Vec<i64>, ConnectorError> {
    let mut query = TopicPartitionList::new();
    for (topic, partition) in partitions {
        query.add_partition(topic, *partition);
    }
    let answer = client.committed_offsets(query, PATIENCE);
    let found = answered(client, "the committed offset", &partitions[0], answer)?;
    let offset = |partition: &Partition| {
        let element = found.find_partition(&partition.0, partition.1);
        match (element.map(|element| element.offset()), reset) {
            (Some(Offset::Offset(offset)), _) => Ok(offset),
            (_, Some(Reset::Earliest)) => Ok(EARLIEST),
            (_, Some(Reset::Latest)) => {
                let answer = client.fetch_watermarks(&partition.0, partition.1, PATIENCE);
                answered(client, "the end", partition, answer).map(|(_, high)| high)
            }
            (_, None) => Err(ConnectorError::invalid(format!(
                "kafka source: the group has committed no offset for {}-{}; set `properties.auto.offset.reset` to earliest or latest",
                partition.0, partition.1
            ))),
        }
    };
    partitions.iter().map(offset).collect()
}

/// Says which positions do not exist any more, for an error.
pub(super) fn out_of_range(client: &Client, positions: &[(Partition, i64)]) -> String {
    let lost = positions.iter().filter_map(|((topic, partition), offset)| {
        let (low, high) = client
            .fetch_watermarks(topic, *partition, PATIENCE / 4)
            .ok()?;
        let fine = *offset < 0 || (low..=high).contains(offset);
        (!fine).then(|| format!("{topic}-{partition} at {offset} (there are {low} to {high})"))
    });
    lost.collect::<Vec<_>>().join(", ")
}

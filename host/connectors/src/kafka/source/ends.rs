//! Where partitions end, and positions that are gone.

use std::sync::Arc;

use futures::{FutureExt as _, future::BoxFuture};

use super::KafkaSource;
use crate::{
    ConnectorError,
    kafka::{client, offsets, split::Split},
};

impl KafkaSource {
    /// The end of a partition of that number was met; librdkafka does not say of which topic.
    pub(super) fn meet_end(&mut self, partition: i32) {
        let reason = self.watch.take_reason();
        let offset = reason.as_deref().and_then(end_offset);
        let open = |split: &&mut (usize, &mut Split)| {
            split.1.partition == partition && !split.1.at_end && !split.1.finished
        };
        let fits = |split: &&mut (usize, &mut Split)| {
            offset.is_none_or(|offset| split.1.pulled() <= offset)
        };
        let mut all: Vec<_> = self.splits.iter_mut().enumerate().collect();
        let mut candidates: Vec<_> = all.iter_mut().filter(open).filter(fits).collect();
        let mut stopped = None;
        match candidates.as_mut_slice() {
            [] => {}
            [(index, split)] => {
                split.meet_end(offset.unwrap_or_else(|| split.pulled()));
                stopped = split.finished.then_some(*index);
            }
            _ => self.ambiguous = true,
        }
        if let Some(index) = stopped {
            self.stop(index);
        }
    }

    /// The statistics say which ends were met.
    pub(super) fn read_ends(&mut self) {
        self.ambiguous = false;
        let mut stopped = Vec::new();
        for (index, split) in self.splits.iter_mut().enumerate() {
            if split.at_end || split.finished {
                continue;
            }
            match self.watch.end(&split.topic, split.partition) {
                Some(end) if end.met >= split.pulled() && end.met >= end.high => {
                    split.meet_end(end.met);
                    if split.finished {
                        stopped.push(index);
                    }
                }
                _ => self.ambiguous = true,
            }
        }
        stopped.into_iter().for_each(|index| self.stop(index));
    }

    /// A position does not exist any more: says which.
    pub(super) fn describe_loss(
        &self,
    ) -> BoxFuture<'static, Result<ConnectorError, ConnectorError>> {
        let consumer = Arc::clone(self.consumer());
        let open = self.splits.iter().filter(|split| !split.finished);
        let positions: Vec<_> = open
            .map(|split| ((split.topic.to_string(), split.partition), split.pulled()))
            .collect();
        let describe = async move {
            let lost =
                client::blocking(move || offsets::out_of_range(&consumer, &positions)).await?;
            Ok(ConnectorError::lost(format!(
                "kafka source: records were deleted before they were read: {lost}; set `properties.auto.offset.reset` to go on with those that are left"
            )))
        };
        describe.boxed()
    }
}

/// Reads `123` out of `… end of partition at offset 123 (…`.
fn end_offset(reason: &str) -> Option<i64> {
    let (_, rest) = reason.split_once("end of partition at offset ")?;
    rest.split(|c: char| !c.is_ascii_digit())
        .next()?
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_partition_is_read_from_the_message() {
        let text = "Fetch from broker 1 reached end of partition at offset 42 (HighwaterMark 42)";
        assert_eq!(end_offset(text), Some(42));
        assert_eq!(end_offset("something else"), None);
    }
}

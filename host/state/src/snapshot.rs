//! A snapshot: state as it was at one moment, shared with the store that goes on.

use std::sync::Arc;

use tidemill_types::KeyGroupRange;

use crate::{StateError, arena::Arena, format, keyed::StateNames, timers::TimerImage};

/// What to do with state that the vertex does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnknownState {
    /// Refuse the snapshot.
    Refuse,
    /// Leave it behind: the user allowed that, or it belongs to operators of another vertex.
    Skip,
}

impl UnknownState {
    pub(crate) fn judge(self, name: impl FnOnce() -> (String, String)) -> Result<(), StateError> {
        match self {
            Self::Skip => Ok(()),
            Self::Refuse => {
                let (operator, state) = name();
                Err(StateError::NotRestored { operator, state })
            }
        }
    }
}

/// Keyed state and timers of a task at one moment. Taking it copies nothing; it may be encoded on
/// another thread, and should be dropped soon: what is written meanwhile copies the groups it
/// touches.
#[derive(Debug, Clone)]
pub struct Snapshot {
    pub(crate) range: KeyGroupRange,
    pub(crate) max_parallelism: u32,
    pub(crate) names: Arc<StateNames>,
    pub(crate) groups: Vec<Arc<Arena>>,
    pub(crate) timers: TimerImage,
    pub(crate) now_ms: i64,
}

impl Snapshot {
    /// The key groups it covers.
    #[must_use]
    pub const fn range(&self) -> KeyGroupRange {
        self.range
    }

    /// Whether there is neither an entry nor a timer in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.timers.is_empty() && self.groups.iter().all(|group| group.is_empty())
    }

    /// Its bytes, in the format of [`crate::format`].
    ///
    /// # Errors
    ///
    /// [`StateError::Full`] when one key group has more than can be written.
    pub fn encode(&self) -> Result<Vec<u8>, StateError> {
        format::encode(self)
    }
}

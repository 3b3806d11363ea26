//! `file`: lines of text in files, as source and sink, on the local file system.
//!
//! # Source
//!
//! | option | meaning |
//! |---|---|
//! | `path` | a file or a folder: a local path, or `file:///…` |
//! | `recursive` | also folders in folders; default `true` |
//! | `monitor-interval` | look so often for new files, without end; unset: those there at the start |
//!
//! A split is a file. A value is a line without its end (`\n` or `\r\n`); a last line may lack it.
//! Names that begin with `.` or `_` are passed over. Files must not change once they are there. A
//! file goes to the subtask that the hash of its path names, so that each subtask can list on its
//! own.
//!
//! # Sink
//!
//! | option | meaning |
//! |---|---|
//! | `path` | a folder; made if it does not exist |
//! | `rolling.file-size` | begin another part at this size; default `128 mb` |
//! | `rolling.interval` | … at this age; default `1 min` |
//! | `rolling.inactivity` | … after so long without records; default `1 min` |
//! | `part-prefix`, `part-suffix` | of the names of parts; default `part` and nothing |
//!
//! A value per line. Parts are written as hidden files, and get their names when the checkpoint
//! that covers them is complete, or at the end of the input; every barrier ends a part. A restored
//! sink first names what its checkpoint covers. What a failed attempt wrote after that stays
//! behind as a hidden file and is never read.

mod chunks;
mod listing;
mod path;
mod sink;
mod source;

pub(crate) use self::{
    sink::{FileSink, SinkOptions},
    source::{FileSource, SourceOptions},
};

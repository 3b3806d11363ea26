//! What survives every process: the object store, and the system that results are committed to.

use std::collections::{BTreeMap, BTreeSet};

/// Objects by name.
#[derive(Debug, Default)]
pub(crate) struct Store {
    objects: BTreeMap<String, Vec<u8>>,
}

impl Store {
    /// Creates an object unless there is one; returns whether it was created.
    pub(crate) fn create(&mut self, name: &str, bytes: &[u8]) -> bool {
        let absent = !self.objects.contains_key(name);
        if absent {
            self.objects.insert(name.to_owned(), bytes.to_vec());
        }
        absent
    }

    pub(crate) fn get(&self, name: &str) -> Option<&[u8]> {
        self.objects.get(name).map(Vec::as_slice)
    }

    pub(crate) fn delete(&mut self, name: &str) {
        self.objects.remove(name);
    }

    /// Objects whose names begin with `prefix`, and the rest of the names.
    pub(crate) fn list<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a str, &'a [u8])> {
        let all = self.objects.iter();
        all.filter_map(move |(name, bytes)| Some((name.strip_prefix(prefix)?, bytes.as_slice())))
    }
}

/// One result: the `n`-th record of a key.
pub(crate) type Row = (String, u64);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Status {
    Prepared,
    Committed,
    Aborted,
}

#[derive(Debug)]
struct Transaction {
    status: Status,
    attempt: u32,
    owner: u32,
    rows: Vec<Row>,
}

/// A system with transactions that outlive their writers.
#[derive(Debug, Default)]
pub(crate) struct Transactions {
    all: BTreeMap<String, Transaction>,
    pub(crate) committed: BTreeSet<Row>,
}

impl Transactions {
    pub(crate) fn prepare(&mut self, id: &str, (attempt, owner): (u32, u32), rows: Vec<Row>) {
        let transaction = Transaction {
            status: Status::Prepared,
            attempt,
            owner,
            rows,
        };
        let before = self.all.insert(id.to_owned(), transaction);
        assert!(before.is_none(), "transaction {id} was prepared twice");
    }

    /// Commits a prepared transaction; doing so again changes nothing.
    pub(crate) fn commit(&mut self, id: &str) -> Result<(), String> {
        let transaction = self
            .all
            .get_mut(id)
            .ok_or(format!("there is no transaction {id}"))?;
        match transaction.status {
            Status::Committed => return Ok(()),
            Status::Aborted => {
                return Err(format!("transaction {id} was aborted: results are lost"));
            }
            Status::Prepared => transaction.status = Status::Committed,
        }
        for row in &transaction.rows {
            if !self.committed.insert(row.clone()) {
                return Err(format!(
                    "{row:?} was committed twice, the second time by {id}"
                ));
            }
        }
        Ok(())
    }

    /// Aborts what older attempts have left behind.
    pub(crate) fn abort_older(&mut self, attempt: u32, mine: impl Fn(u32) -> bool) {
        for transaction in self.all.values_mut() {
            let open = transaction.status == Status::Prepared;
            if open && transaction.attempt < attempt && mine(transaction.owner) {
                transaction.status = Status::Aborted;
            }
        }
    }
}

//! State as an author holds it.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::Rc;

use crate::StateValue;
use crate::bindings::exports::tidemill::job::planner::{State, StateKind};
use crate::graph::VertexDraft;
use crate::key::Key;
use crate::schema;
use crate::state::{Column, SlotIndex, Store};

/// Where an operator declares its state.
pub struct States<'a> {
    pub(crate) vertex: &'a mut VertexDraft,
    pub(crate) operator: u32,
    pub(crate) store: &'a mut Store,
    pub(crate) current: Rc<Cell<SlotIndex>>,
    pub(crate) key_schema: String,
}

impl<'a> States<'a> {
    pub(crate) fn new<K: Key>(
        vertex: &'a mut VertexDraft,
        operator: u32,
        store: &'a mut Store,
        current: Rc<Cell<SlotIndex>>,
    ) -> Self {
        Self {
            vertex,
            operator,
            store,
            current,
            key_schema: schema::of::<K>(),
        }
    }

    /// A state that holds one value per key. Its name is unique within the operator and stays the
    /// same when the job changes.
    pub fn value<V: StateValue>(&mut self, name: &str) -> ValueState<V> {
        let column = Rc::new(RefCell::new(Column::new(self.vertex.add_state(State {
            name: name.to_owned(),
            operator: self.operator,
            kind: StateKind::Value,
            key_schema: self.key_schema.clone(),
            subkey_schema: String::new(),
            value_schema: schema::of::<V>(),
            ttl_ms: None,
        }))));
        let any: Rc<RefCell<Column<V>>> = Rc::clone(&column);
        self.store.add_column(any);
        ValueState {
            column,
            current: Rc::clone(&self.current),
        }
    }
}

impl fmt::Debug for States<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("States")
            .field("operator", &self.operator)
            .finish_non_exhaustive()
    }
}

/// One value per key: always the one of the key that is being handled.
pub struct ValueState<V> {
    column: Rc<RefCell<Column<V>>>,
    current: Rc<Cell<SlotIndex>>,
}

impl<V: StateValue> ValueState<V> {
    /// The value, if there is one.
    #[must_use]
    pub fn get(&self) -> Option<V>
    where
        V: Clone,
    {
        self.column.borrow().get(self.current.get()).cloned()
    }

    /// Shows the value to `f`, without copying it.
    pub fn with<R>(&self, f: impl FnOnce(Option<&V>) -> R) -> R {
        f(self.column.borrow().get(self.current.get()))
    }

    /// Replaces the value.
    pub fn set(&self, value: V) {
        *self.column.borrow_mut().get_mut(self.current.get()) = Some(value);
    }

    /// Changes the value in place, beginning with the default one.
    pub fn update<R>(&self, f: impl FnOnce(&mut V) -> R) -> R
    where
        V: Default,
    {
        f(self
            .column
            .borrow_mut()
            .get_mut(self.current.get())
            .get_or_insert_default())
    }

    /// Takes the value away and returns it.
    pub fn take(&self) -> Option<V> {
        self.column.borrow_mut().take(self.current.get())
    }

    /// Takes the value away.
    pub fn clear(&self) {
        drop(self.take());
    }
}

impl<V> fmt::Debug for ValueState<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ValueState")
    }
}

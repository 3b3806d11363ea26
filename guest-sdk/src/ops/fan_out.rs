//! Streams that are used more than once, and streams whose making is hidden.

use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;

use crate::chain::{Collector, Pipe, Signal};
use crate::context::Context;

type Branches<T> = Rc<RefCell<Vec<Box<dyn Collector<T>>>>>;

/// See [`Stream::share`](crate::Stream::share).
pub struct Shared<T> {
    branches: Branches<T>,
}

impl<T: Clone + 'static> Shared<T> {
    pub(crate) fn of<P: Pipe<Out = T>>(pipe: P) -> Self {
        let branches = Branches::default();
        pipe.attach(FanOut {
            branches: Rc::clone(&branches),
        });
        Self { branches }
    }
}

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Self {
        Self {
            branches: Rc::clone(&self.branches),
        }
    }
}

impl<T> fmt::Debug for Shared<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

impl<T: Clone + 'static> Pipe for Shared<T> {
    type Out = T;

    fn attach<C: Collector<T>>(self, down: C) {
        self.branches.borrow_mut().push(Box::new(down));
    }
}

struct FanOut<T> {
    branches: Branches<T>,
}

impl<T: Clone + 'static> Collector<T> for FanOut<T> {
    fn push(&mut self, cx: &mut Context, value: T, timestamp: i64) {
        let mut branches = self.branches.borrow_mut();
        let Some((last, others)) = branches.split_last_mut() else {
            return;
        };
        for branch in others {
            branch.push(cx, value.clone(), timestamp);
        }
        last.push(cx, value, timestamp);
    }

    fn signal(&mut self, cx: &mut Context, signal: Signal) {
        for branch in self.branches.borrow_mut().iter_mut() {
            branch.signal(cx, signal);
        }
    }
}

/// See [`Stream::boxed`](crate::Stream::boxed).
pub struct Boxed<T> {
    attach: Box<dyn FnOnce(Box<dyn Collector<T>>)>,
}

impl<T: 'static> Boxed<T> {
    pub(crate) fn of<P: Pipe<Out = T>>(pipe: P) -> Self {
        Self {
            attach: Box::new(move |down| pipe.attach(down)),
        }
    }
}

impl<T> fmt::Debug for Boxed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Boxed").finish_non_exhaustive()
    }
}

impl<T: 'static> Pipe for Boxed<T> {
    type Out = T;

    fn attach<C: Collector<T>>(self, down: C) {
        (self.attach)(Box::new(down));
    }
}

//! Putting values together, one by one.

use std::fmt;
use std::marker::PhantomData;
use std::ops::AddAssign;

use crate::StateValue;

/// Puts values of type `T` together.
///
/// What has been put together so far is the accumulator, which is kept in state. `merge` must be
/// associative, and adding a value to an empty accumulator and merging that must be the same as
/// adding the value: the parts of a window may be put together in different places.
pub trait Aggregate<T>: 'static {
    /// What has been put together so far.
    type Acc: StateValue;
    /// What comes out in the end.
    type Out: 'static;

    /// An accumulator of nothing.
    fn create(&self) -> Self::Acc;
    /// Adds a value.
    fn add(&self, acc: &mut Self::Acc, value: &T);
    /// Adds what another accumulator holds.
    fn merge(&self, acc: &mut Self::Acc, other: Self::Acc);
    /// What comes out.
    fn result(&self, acc: Self::Acc) -> Self::Out;

    /// The aggregate for people, as in a plan.
    fn describe(&self) -> String {
        let name = std::any::type_name::<Self>();
        let name = name.split('<').next().unwrap_or(name);
        name.rsplit("::").next().unwrap_or(name).to_owned()
    }
}

/// How many values there are.
#[derive(Debug, Clone, Copy, Default)]
pub struct Count;

impl<T> Aggregate<T> for Count {
    type Acc = u64;
    type Out = u64;

    fn create(&self) -> u64 {
        0
    }

    #[inline]
    fn add(&self, acc: &mut u64, _value: &T) {
        *acc += 1;
    }

    #[inline]
    fn merge(&self, acc: &mut u64, other: u64) {
        *acc += other;
    }

    fn result(&self, acc: u64) -> u64 {
        acc
    }
}

/// Defines an aggregate over a number that is read from each value.
macro_rules! over_a_field {
    ($(#[$doc:meta])* $name:ident, $acc:ty, $bound:ident, |$into:ident, $value:ident| $add:expr, $create:expr, |$acc_out:ident| $result:expr, $out:ty) => {
        $(#[$doc])*
        pub struct $name<F, V> {
            field: F,
            values: PhantomData<fn() -> V>,
        }

        impl<F, V> $name<F, V> {
            /// The aggregate over what `field` reads.
            pub fn of<T>(field: F) -> Self
            where
                F: Fn(&T) -> V,
            {
                Self { field, values: PhantomData }
            }
        }

        impl<F, V> fmt::Debug for $name<F, V> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(stringify!($name))
            }
        }

        impl<T, F, V> Aggregate<T> for $name<F, V>
        where
            F: Fn(&T) -> V + 'static,
            V: StateValue + $bound + Default + Copy,
        {
            type Acc = $acc;
            type Out = $out;

            fn create(&self) -> $acc {
                $create
            }

            #[inline]
            fn add(&self, $into: &mut $acc, value: &T) {
                let $value = (self.field)(value);
                $add
            }

            #[inline]
            fn merge(&self, acc: &mut $acc, other: $acc) {
                over_a_field!(@merge $name, acc, other);
            }

            fn result(&self, $acc_out: $acc) -> $out {
                $result
            }
        }
    };
    (@merge Sum, $acc:ident, $other:ident) => { *$acc += $other; };
    (@merge Min, $acc:ident, $other:ident) => {
        if let Some(other) = $other { *$acc = Some($acc.map_or(other, |own| if other < own { other } else { own })); }
    };
    (@merge Max, $acc:ident, $other:ident) => {
        if let Some(other) = $other { *$acc = Some($acc.map_or(other, |own| if other > own { other } else { own })); }
    };
}

over_a_field!(
    /// The sum of a number.
    Sum, V, AddAssign, |acc, v| *acc += v, V::default(), |acc| acc, V
);
over_a_field!(
    /// The smallest of a number; none if there are no values.
    Min, Option<V>, PartialOrd, |acc, v| *acc = Some(acc.map_or(v, |own| if v < own { v } else { own })), None, |acc| acc, Option<V>
);
over_a_field!(
    /// The largest of a number; none if there are no values.
    Max, Option<V>, PartialOrd, |acc, v| *acc = Some(acc.map_or(v, |own| if v > own { v } else { own })), None, |acc| acc, Option<V>
);

/// Values put together two by two into one of their kind.
pub struct Reduce<F> {
    f: F,
}

impl<F> Reduce<F> {
    pub(crate) fn new(f: F) -> Self {
        Self { f }
    }
}

impl<F> fmt::Debug for Reduce<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reduce")
    }
}

impl<T, F> Aggregate<T> for Reduce<F>
where
    T: StateValue + Clone,
    F: Fn(T, T) -> T + 'static,
{
    type Acc = Option<T>;
    type Out = T;

    fn create(&self) -> Option<T> {
        None
    }

    fn add(&self, acc: &mut Option<T>, value: &T) {
        let value = value.clone();
        *acc = Some(match acc.take() {
            Some(own) => (self.f)(own, value),
            None => value,
        });
    }

    fn merge(&self, acc: &mut Option<T>, other: Option<T>) {
        *acc = match (acc.take(), other) {
            (Some(own), Some(other)) => Some((self.f)(own, other)),
            (own, other) => own.or(other),
        };
    }

    fn result(&self, acc: Option<T>) -> T {
        acc.expect("a window comes into being with its first value")
    }
}

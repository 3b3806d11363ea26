//! The types of keys and state as Avro schemas, which is how the host, savepoints and later
//! versions of a job know them.
//!
//! What is written for a schema is in [`crate::avro`]: both follow serde's data model, fields in
//! order, options as unions with null, enums as Avro enums or unions of records.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::hash::{BuildHasher, Hash};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// A type with an Avro schema.
///
/// Derived for structs and enums that also derive serde's traits:
///
/// ```
/// #[derive(Default, serde::Serialize, serde::Deserialize, tidemill::Schema)]
/// struct Visit {
///     page: String,
///     seconds: u32,
/// }
/// ```
pub trait Schema {
    /// The schema as JSON.
    fn schema(known: &mut Definitions) -> String;
}

/// What can be kept in state: anything with a schema that serde can write and read.
pub trait StateValue: Schema + Serialize + DeserializeOwned + 'static {}

impl<T: Schema + Serialize + DeserializeOwned + 'static> StateValue for T {}

/// A field of a record: its name, and what gives its schema.
pub type Field<'a> = (&'a str, fn(&mut Definitions) -> String);

/// The named types of a schema that have been defined so far: Avro defines each only once.
#[derive(Debug, Default)]
pub struct Definitions {
    names: BTreeSet<String>,
}

impl Definitions {
    /// A record type with these fields.
    pub fn record(&mut self, name: &str, fields: &[Field<'_>]) -> String {
        let name = self.unused_name(name);
        self.record_named(&name, fields)
    }

    /// A type that goes by the name of a Rust type: a reference if it has been defined already.
    pub fn named(&mut self, name: &str, define: impl FnOnce(&mut Self, &str) -> String) -> String {
        let name = avro_name(name);
        if !self.names.insert(name.clone()) {
            return format!("\"{name}\"");
        }
        define(self, &name)
    }

    /// A type that goes by the name of a generic Rust type, which is another one for each use.
    pub fn generic(
        &mut self,
        name: &str,
        define: impl FnOnce(&mut Self, &str) -> String,
    ) -> String {
        let name = self.unused_name(name);
        define(self, &name)
    }

    /// A record type under a name that is its own.
    pub fn record_named(&mut self, name: &str, fields: &[Field<'_>]) -> String {
        let fields = fields.iter().map(|(field, schema)| {
            format!(
                r#"{{"name":"{}","type":{}}}"#,
                avro_name(field),
                schema(self)
            )
        });
        let fields: Vec<String> = fields.collect();
        format!(
            r#"{{"type":"record","name":"{name}","fields":[{}]}}"#,
            fields.join(",")
        )
    }

    /// One of several records, as a record around it.
    pub fn union(&mut self, name: &str, branches: &[String]) -> String {
        let union = format!("[{}]", branches.join(","));
        wrapped(name, &union)
    }

    /// An enum without data.
    pub fn symbols(&mut self, name: &str, symbols: &[&str]) -> String {
        let symbols: Vec<String> = symbols
            .iter()
            .map(|symbol| format!("\"{}\"", avro_name(symbol)))
            .collect();
        format!(
            r#"{{"type":"enum","name":"{name}","symbols":[{}]}}"#,
            symbols.join(",")
        )
    }

    /// A name like this one that no type has yet.
    fn unused_name(&mut self, name: &str) -> String {
        let name = avro_name(name);
        let mut candidate = name.clone();
        let mut n = 2;
        while !self.names.insert(candidate.clone()) {
            candidate = format!("{name}{n}");
            n += 1;
        }
        candidate
    }
}

/// The schema of `T`, complete in itself.
pub(crate) fn of<T: Schema>() -> String {
    T::schema(&mut Definitions::default())
}

/// A record around one value, which is written as the value is.
fn wrapped(name: &str, schema: &str) -> String {
    format!(r#"{{"type":"record","name":"{name}","fields":[{{"name":"value","type":{schema}}}]}}"#)
}

/// Avro's names are letters, digits and underscores.
fn avro_name(name: &str) -> String {
    let mut own: String = name
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '_' })
        .collect();
    if !own.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') {
        own.insert(0, '_');
    }
    own
}

macro_rules! primitive {
    ($($name:literal: $($type:ty),+;)+) => {
        $($(impl Schema for $type {
            fn schema(_known: &mut Definitions) -> String {
                concat!("\"", $name, "\"").to_owned()
            }
        })+)+
    };
}

primitive! {
    "boolean": bool;
    "int": i8, i16, i32, u8, u16;
    "long": i64, u32, u64, isize, usize;
    "float": f32;
    "double": f64;
    "string": String, char;
    "null": ();
}

impl<T: Schema> Schema for Option<T> {
    fn schema(known: &mut Definitions) -> String {
        let value = T::schema(known);
        // A union may not be in another one, and null not be there twice.
        if value.starts_with('[') || value == "\"null\"" {
            let name = known.unused_name("Nested");
            return format!(r#"["null",{}]"#, wrapped(&name, &value));
        }
        format!(r#"["null",{value}]"#)
    }
}

impl<T: Schema> Schema for Box<T> {
    fn schema(known: &mut Definitions) -> String {
        T::schema(known)
    }
}

fn array<T: Schema>(known: &mut Definitions) -> String {
    format!(r#"{{"type":"array","items":{}}}"#, T::schema(known))
}

/// Maps have keys of any type, as arrays of entries: Avro's own maps only have strings.
fn entries<K: Schema, V: Schema>(known: &mut Definitions) -> String {
    let entry = known.record("Entry", &[("key", K::schema), ("value", V::schema)]);
    format!(r#"{{"type":"array","items":{entry}}}"#)
}

impl<T: Schema> Schema for Vec<T> {
    fn schema(known: &mut Definitions) -> String {
        array::<T>(known)
    }
}

impl<T: Schema> Schema for VecDeque<T> {
    fn schema(known: &mut Definitions) -> String {
        array::<T>(known)
    }
}

impl<T: Schema + Ord> Schema for BTreeSet<T> {
    fn schema(known: &mut Definitions) -> String {
        array::<T>(known)
    }
}

impl<T: Schema + Hash + Eq, S: BuildHasher> Schema for HashSet<T, S> {
    fn schema(known: &mut Definitions) -> String {
        array::<T>(known)
    }
}

impl<K: Schema + Ord, V: Schema> Schema for BTreeMap<K, V> {
    fn schema(known: &mut Definitions) -> String {
        entries::<K, V>(known)
    }
}

impl<K: Schema + Hash + Eq, V: Schema, S: BuildHasher> Schema for HashMap<K, V, S> {
    fn schema(known: &mut Definitions) -> String {
        entries::<K, V>(known)
    }
}

macro_rules! tuple {
    ($($field:literal: $type:ident),+) => {
        impl<$($type: Schema),+> Schema for ($($type,)+) {
            fn schema(known: &mut Definitions) -> String {
                known.record("Tuple", &[$(($field, $type::schema as fn(&mut Definitions) -> String)),+])
            }
        }
    };
}

tuple!("f0": A);
tuple!("f0": A, "f1": B);
tuple!("f0": A, "f1": B, "f2": C);
tuple!("f0": A, "f1": B, "f2": C, "f3": D);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_used_twice_is_defined_once() {
        struct Point;
        impl Schema for Point {
            fn schema(known: &mut Definitions) -> String {
                known.named("Point", |known, name| {
                    known.record_named(name, &[("x", i32::schema)])
                })
            }
        }
        assert_eq!(
            of::<(Point, Option<Point>)>(),
            concat!(
                r#"{"type":"record","name":"Tuple","fields":[{"name":"f0","type":"#,
                r#"{"type":"record","name":"Point","fields":[{"name":"x","type":"int"}]}},"#,
                r#"{"name":"f1","type":["null","Point"]}]}"#
            )
        );
    }
}

//! The forms of answers in JSON, as JSON Schemas: generated from the facts' own types, committed under `schemas/`.

use std::fmt;

use schemars::{JsonSchema, SchemaGenerator};

/// The form of one kind of facts.
#[derive(Clone, Copy)]
pub struct Schema {
    /// Its name, by which a file under `schemas/` and an answer's `schema` are called.
    pub name: &'static str,
    /// Adds it to a schema that is being generated, and returns what stands for it there.
    pub generate: fn(&mut SchemaGenerator) -> schemars::Schema,
}

impl Schema {
    /// That of `F`.
    pub const fn of<F: JsonSchema>(name: &'static str) -> Self {
        Self { name, generate: |generator| generator.subschema_for::<F>() }
    }
}

impl fmt::Debug for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Schema").field(&self.name).finish()
    }
}

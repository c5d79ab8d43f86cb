//! Lines of JSON that no command is answered with: of a watch, a gate, a plan. Each says of which committed schema it is, as
//! commands' lines do (`line`).

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde::Serialize;
use serde_json::{Value, json};

use super::line::id;
use crate::check::Gate;
use crate::leaks::Comparison;
use crate::output;

/// What such a line says.
pub trait OwnLine: Serialize + JsonSchema {
    /// The name of its schema.
    const NAME: &'static str;
}

impl OwnLine for Gate {
    const NAME: &'static str = "check";
}

impl OwnLine for Comparison {
    const NAME: &'static str = "diff";
}

#[derive(Serialize)]
struct Named<'a, T> {
    schema: String,
    #[serde(flatten)]
    facts: &'a T,
}

/// The line.
#[must_use]
pub fn own_line<T: OwnLine>(facts: &T) -> String {
    output::json(&own_value(facts)) + "\n"
}

/// The same as a value.
///
/// # Panics
/// If it is more than structures, lists, texts and numbers.
#[must_use]
pub fn own_value<T: OwnLine>(facts: &T) -> Value {
    let value = serde_json::to_value(Named { schema: id(T::NAME), facts });
    value.expect("lines are structures, lists, texts and numbers")
}

/// Its schema.
#[must_use]
pub fn schema_of_line<T: OwnLine>() -> Value {
    let settings = SchemaSettings::draft2020_12().for_serialize();
    let mut schema = settings.into_generator().into_root_schema_for::<T>().to_value();
    schema["title"] = id(T::NAME).into();
    schema["properties"]["schema"] = json!({ "const": id(T::NAME) });
    if let Some(required) = schema["required"].as_array_mut() {
        required.push("schema".into());
    }
    schema["additionalProperties"] = false.into();
    schema
}

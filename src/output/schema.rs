//! How what is printed specially looks in a JSON Schema.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use super::escape::TargetText;
use super::reading::Reading;

/// A number in JSON's place of one that would lose bits: `"0xfffffa8005400000"`.
#[derive(Debug)]
pub enum Hex {}

impl JsonSchema for Hex {
    fn schema_name() -> Cow<'static, str> {
        "Hex".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^0x[0-9a-f]+$", "description": "A number in hexadecimal." })
    }
}

impl JsonSchema for TargetText {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "TargetText".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        String::json_schema(generator)
    }
}

impl JsonSchema for Reading {
    fn schema_name() -> Cow<'static, str> {
        "Reading".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A number, or why it could not be read.",
            "oneOf": [
                { "type": "integer", "minimum": 0 },
                {
                    "type": "object",
                    "properties": { "unreadable": { "type": "string" } },
                    "required": ["unreadable"],
                    "additionalProperties": false,
                },
            ],
        })
    }
}

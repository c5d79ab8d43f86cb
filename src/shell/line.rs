//! A command and what became of it, as one JSON object on one line.

use schemars::generate::SchemaSettings;
use schemars::{SchemaGenerator, json_schema};
use serde::Serialize;
use serde_json::{Value, json};

use crate::commands::{Facts, Note, Schema};
use crate::debugger::{Answered, AskError, ErrorCode, Stamp, Stats};
use crate::output;

/// The version of all schemas: it grows when something that a program may rest on goes or changes.
const VERSION: u32 = 1;
/// The name of the schema of what was paid beside commands.
const BESIDE: &str = "beside";
/// The name of the schema of commands without an answer.
const FAILED: &str = "failed";

/// What becomes of a command: one object, whatever the command was.
#[derive(Serialize)]
struct Line<'a> {
    /// Which of the committed schemas it is of.
    schema: String,
    /// The command as it was typed.
    command: &'a str,
    /// What it found; nothing if it failed.
    answer: Option<&'a dyn Facts>,
    /// What must be known beside it.
    notes: &'a [Note],
    /// Why there is no answer.
    errors: &'a [Problem],
    /// What it took.
    stats: Stats,
    /// Of which moment it is.
    stamp: Stamp,
}

/// Why there is no answer.
#[derive(Serialize, schemars::JsonSchema)]
struct Problem {
    /// What went wrong, for programs.
    code: ErrorCode,
    /// The same for people.
    text: String,
}

/// The line of a command that was answered.
pub(super) fn answered(command: &str, answered: &Answered) -> String {
    line(&answered_value(command, answered))
}

/// The same as a value.
pub(super) fn answered_value(command: &str, answered: &Answered) -> Value {
    let Answered { facts, notes, stamp, cost } = answered;
    value(&Line {
        schema: id(facts.schema().name),
        command,
        answer: Some(&**facts),
        notes,
        errors: &[],
        stats: *cost,
        stamp: *stamp,
    })
}

/// The line of a command that has no answer.
pub(super) fn failed(command: &str, error: &AskError, stamp: Stamp, stats: Stats) -> String {
    line(&failed_value(command, error, stamp, stats))
}

/// The same as a value.
pub(super) fn failed_value(command: &str, error: &AskError, stamp: Stamp, stats: Stats) -> Value {
    let problem = Problem { code: error.code(), text: output::screened(&error.to_string()) };
    value(&Line { schema: id(FAILED), command, answer: None, notes: &[], errors: &[problem], stats, stamp })
}

/// The line of what was paid beside commands: for a `(stop)`, a `(resume)`.
pub(super) fn beside(what: &str, stats: Stats, stamp: Stamp) -> String {
    let schema = id(BESIDE);
    line(&value(&Line { schema, command: what, answer: None, notes: &[], errors: &[], stats, stamp }))
}

/// The schema of the line of a command with such an answer.
#[must_use]
pub fn schema_of(answer: Schema) -> Value {
    schema(answer.name, answer.generate, None)
}

/// The schema of the line of a command without an answer.
#[must_use]
pub fn schema_of_failure() -> Value {
    let none = |_: &mut SchemaGenerator| json_schema!({ "type": "null" });
    schema(FAILED, none, Some(|generator| generator.subschema_for::<Problem>()))
}

/// The schema of the line of what was paid beside commands.
#[must_use]
pub fn schema_of_beside() -> Value {
    schema(BESIDE, |_: &mut SchemaGenerator| json_schema!({ "type": "null" }), None)
}

fn schema(
    name: &str,
    answer: fn(&mut SchemaGenerator) -> schemars::Schema,
    problem: Option<fn(&mut SchemaGenerator) -> schemars::Schema>,
) -> Value {
    let mut generator = SchemaSettings::draft2020_12().for_serialize().into_generator();
    let answer = answer(&mut generator);
    let errors = match problem {
        None => json!({ "type": "array", "maxItems": 0 }),
        Some(problem) => json!({ "type": "array", "items": problem(&mut generator), "minItems": 1 }),
    };
    let properties = json!({
        "schema": { "const": id(name) },
        "command": { "type": "string", "description": "The command as it was typed." },
        "answer": answer,
        "notes": generator.subschema_for::<Vec<Note>>(),
        "errors": errors,
        "stats": generator.subschema_for::<Stats>(),
        "stamp": generator.subschema_for::<Stamp>(),
    });
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": id(name),
        "type": "object",
        "properties": properties,
        "required": ["schema", "command", "answer", "notes", "errors", "stats", "stamp"],
        "additionalProperties": false,
        "$defs": generator.take_definitions(true),
    })
}

/// The name of a schema, as lines have it.
pub(super) fn id(name: &str) -> String {
    format!("verikd/{name}/{VERSION}")
}

fn value(line: &Line<'_>) -> Value {
    serde_json::to_value(line).expect("facts are structures, lists, texts and numbers")
}

fn line(value: &Value) -> String {
    output::json(value) + "\n"
}

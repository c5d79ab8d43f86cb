//! Schemas that are committed, of files and of lines.

use serde_json::Value;

/// Makes sure that `value` is of the schema `schemas/{path}.json`, and that this is what the program's types say.
pub(crate) fn assert_committed(path: &str, generated: &Value, value: &Value) {
    let file = format!("{}/schemas/{path}.json", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("UPDATE_EXPECTED").is_some() {
        std::fs::write(&file, serde_json::to_string_pretty(generated).unwrap() + "\n").unwrap();
    }
    let schema: Value = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
    assert_eq!(&schema, generated, "schemas/{path}.json is old; UPDATE_EXPECTED=1 rewrites it");
    let validator = jsonschema::validator_for(&schema).unwrap();
    let wrong: Vec<String> = validator.iter_errors(value).map(|error| error.to_string()).collect();
    assert!(wrong.is_empty(), "{path}: {wrong:#?}\n{value:#}");
}

//! A number that may be missing.

use std::fmt;

use serde::{Serialize, Serializer};

/// A number of the target, or why it could not be read: one unreadable field spoils that field only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reading {
    /// The number.
    Value(u64),
    /// Why there is none.
    Unreadable(String),
}

impl Reading {
    /// Keeps a number or the text of an error.
    pub fn of<E: fmt::Display>(result: Result<u64, E>) -> Self {
        result.map_or_else(|error| Self::Unreadable(error.to_string()), Self::Value)
    }

    /// The number, if there is one.
    #[must_use]
    pub const fn value(&self) -> Option<u64> {
        match self {
            Self::Value(value) => Some(*value),
            Self::Unreadable(_) => None,
        }
    }

    /// `0xa`.
    #[must_use]
    pub fn hex(&self) -> String {
        self.value().map_or_else(|| "??".to_owned(), |value| format!("{value:#x}"))
    }

    /// `009ce000`, as `%08x` prints it.
    #[must_use]
    pub fn hex8(&self) -> String {
        self.value().map_or_else(|| "????????".to_owned(), |value| format!("{value:08x}"))
    }

    /// `009CE000`, as `%08X` prints it.
    #[must_use]
    pub fn upper_hex8(&self) -> String {
        self.hex8().to_uppercase()
    }
}

/// A number, or `{"unreadable": "why"}`.
impl Serialize for Reading {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeMap;
        match self {
            Self::Value(value) => serializer.serialize_u64(*value),
            Self::Unreadable(why) => {
                let mut map = serializer.serialize_map(Some(1))?;
                map.serialize_entry("unreadable", why)?;
                map.end()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_number_is_seen_as_such() {
        let missing = Reading::of::<&str>(Err("not mapped"));
        assert_eq!((missing.hex(), missing.hex8()), ("??".into(), "????????".into()));
        assert_eq!(serde_json::to_string(&missing).unwrap(), r#"{"unreadable":"not mapped"}"#);
        assert_eq!(Reading::Value(0x9c_e000).upper_hex8(), "009CE000");
    }
}

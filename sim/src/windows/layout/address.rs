//! Addresses as layout files have them.

use super::error::LayoutError;

/// ``fffff800`0141b000`` as a number.
pub(super) fn address(text: &str) -> Result<u64, LayoutError> {
    u64::from_str_radix(&text.replace('`', ""), 16).map_err(|_| LayoutError::Address(text.to_owned()))
}

//! Units of memory as characters.

use crate::output::is_hazard;

/// Each unit as one character: a dot where none can be printed, a question mark where none can be read.
pub(super) fn characters(units: &[Option<u64>]) -> String {
    let character = |unit: &Option<u64>| match unit {
        None => '?',
        Some(unit @ 0x20..0x7f) => *unit as u8 as char,
        Some(unit @ 0x100..) => {
            let character = u32::try_from(*unit).ok().and_then(char::from_u32);
            character.filter(|c| !is_hazard(*c)).unwrap_or('.')
        }
        Some(_) => '.',
    };
    units.iter().map(character).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_are_printable_whatever_they_are() {
        let units =
            [Some(0x41), Some(0x1b), None, Some(0xe9), Some(0x3042), Some(0xd800), Some(0x202e), Some(0x20)];
        assert_eq!(characters(&units), "A.?.\u{3042}.. ");
    }
}

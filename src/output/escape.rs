//! Text of the target's on its way to a terminal: nothing in it may move the cursor, ring, colour, hide or reorder.
//!
//! ```text
//!  names, strings  --TargetText, Escaped-->  one line each: a newline in them is shown as \n
//!  whole answers   --Screen-->  every control but the answer's own newlines
//!  JSON            --json-->    \u001b: the fact is kept, and no raw control is printed
//! ```
//! Whatever an answer holds, it goes through [`Screen`] or [`json`] last, so that a name that somebody forgot to wrap costs
//! a line, never the terminal.

use std::fmt::{self, Write};

use serde::{Serialize, Serializer};

/// Most characters of a name that are printed: the longest symbol that WinDbg shows.
const MAX_SHOWN: usize = 2000;

/// True for characters that must not reach a terminal as they are: controls, and what makes text read otherwise than it
/// is written, by direction, width or invisibility.
#[must_use]
pub fn is_hazard(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{ad}'
                | '\u{61c}'
                | '\u{115f}'
                | '\u{1160}'
                | '\u{180e}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{3164}'
                | '\u{feff}'
                | '\u{ffa0}'
                | '\u{fff9}'..='\u{fffb}'
                | '\u{e0000}'..='\u{e0fff}'
        )
}

/// Writes a character, escaped if it is a hazard: `\n`, `\x1b`, `\u{202e}`.
fn write_escaped(out: &mut (impl Write + ?Sized), c: char) -> fmt::Result {
    match c {
        '\n' => out.write_str("\\n"),
        '\r' => out.write_str("\\r"),
        '\t' => out.write_str("\\t"),
        '\0'..='\u{ff}' if is_hazard(c) => write!(out, "\\x{:02x}", u32::from(c)),
        c if is_hazard(c) => write!(out, "\\u{{{:x}}}", u32::from(c)),
        c => out.write_char(c),
    }
}

/// A text of the target's on one line, every hazard in it escaped, and cut where no name goes on.
#[derive(Clone, Copy, Debug)]
pub struct Escaped<'a>(pub &'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = String::with_capacity(self.0.len().min(MAX_SHOWN));
        let mut characters = self.0.chars();
        characters.by_ref().take(MAX_SHOWN).try_for_each(|c| write_escaped(&mut shown, c))?;
        if characters.next().is_some() {
            shown.push_str("...");
        }
        f.pad(&shown)
    }
}

/// A text of the target's, kept as it is: prints [`Escaped`], and serialises whole.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TargetText(String);

impl TargetText {
    /// The text as it is, for comparing.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<String> for TargetText {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl From<&str> for TargetText {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl fmt::Display for TargetText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Escaped(&self.0).fmt(f)
    }
}

impl Serialize for TargetText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

/// Shows every hazard as a dot, as WinDbg shows what it cannot print in a text of the target's memory.
#[must_use]
pub fn dotted(text: &str) -> String {
    text.chars().map(|c| if is_hazard(c) { '.' } else { c }).collect()
}

/// A writer through which lines of text go to a terminal: escapes every hazard but newlines and tabs.
#[derive(Debug)]
pub struct Screen<W>(pub W);

impl<W: Write> Write for Screen<W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut rest = text;
        // What is harmless goes on in one piece.
        while let Some(at) = rest.find(|c| is_hazard(c) && !matches!(c, '\n' | '\t')) {
            self.0.write_str(&rest[..at])?;
            let mut characters = rest[at..].chars();
            characters.next().map_or(Ok(()), |c| write_escaped(&mut self.0, c))?;
            rest = characters.as_str();
        }
        self.0.write_str(rest)
    }
}

/// Lines of text as [`Screen`] lets them through.
#[must_use]
pub fn screened(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    Screen(&mut shown).write_str(text).expect("a String takes any text");
    shown
}

/// A JSON document on one line, in which hazards are escaped as JSON does it.
#[must_use]
pub fn json(value: &serde_json::Value) -> String {
    let plain = value.to_string();
    if !plain.contains(is_hazard) {
        return plain;
    }
    let mut text = String::with_capacity(plain.len());
    // Outside of its strings a document on one line has none of these characters.
    for c in plain.chars() {
        if is_hazard(c) {
            c.encode_utf16(&mut [0; 2]).iter().for_each(|unit| text.push_str(&format!("\\u{unit:04x}")));
        } else {
            text.push(c);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOSTILE: &str = "a\u{1b}[2J\u{7}\0\n\r\t\u{9b}m\u{202e}b\u{200b}\u{feff}\u{2028}\u{e0041}é漢";

    #[test]
    fn a_name_prints_on_one_line_without_any_control() {
        let shown = TargetText::from(HOSTILE).to_string();
        assert_eq!(
            shown,
            "a\\x1b[2J\\x07\\x00\\n\\r\\t\\x9bm\\u{202e}b\\u{200b}\\u{feff}\\u{2028}\\u{e0041}é漢"
        );
        assert_eq!(format!("{:<4}|", Escaped("ab")), "ab  |", "columns hold");
        assert_eq!(Escaped(&"x".repeat(5000)).to_string().len(), MAX_SHOWN + 3);
        assert_eq!(dotted("a\u{202e}\nb"), "a..b");
    }

    #[test]
    fn a_screen_keeps_lines_and_nothing_else() {
        assert_eq!(screened("a\tb\n\u{1b}[0mc\u{202e}\n"), "a\tb\n\\x1b[0mc\\u{202e}\n");
    }

    #[test]
    fn json_keeps_the_fact_and_prints_no_control() {
        let value = serde_json::json!({ "name": HOSTILE, "\u{202e}": [1, "\u{9b}"] });
        let text = json(&value);
        assert!(!text.contains(is_hazard), "{text}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap(), value);
    }
}

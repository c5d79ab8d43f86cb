//! A command's arguments: words, expressions, ranges.

use super::error::QueryError;
use super::expression::Expression;
use super::spec::CommandSpec;
use crate::target::{Target, VirtAddr};

/// Longest range without `L?`, as in WinDbg: beyond it a missing digit is likelier than a wish.
const MAX_RANGE: u64 = 0x1000_0000;

/// What is left of a command's arguments.
pub(super) struct Arguments<'a> {
    spec: &'static CommandSpec,
    rest: &'a str,
    options_follow: bool,
}

/// A range of memory, as typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TypedRange {
    /// First byte.
    pub(super) start: VirtAddr,
    /// Bytes; nothing if only the start was typed.
    pub(super) len: Option<u64>,
}

/// How far a stretch reaches, as typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stretch {
    /// So many things.
    Count(u64),
    /// Up to the one at this address.
    End(VirtAddr),
}

impl<'a> Arguments<'a> {
    pub(super) fn new(spec: &'static CommandSpec, text: &'a str) -> Self {
        Self { spec, rest: text.trim(), options_follow: false }
    }

    /// The same for a command whose options may follow an expression: what looks like one ends it, so that `10 -v` is a
    /// number and an option, and `10-v` and `10 - v` are differences.
    pub(super) fn with_options(spec: &'static CommandSpec, text: &'a str) -> Self {
        Self { options_follow: true, ..Self::new(spec, text) }
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// All that is left, unread.
    pub(super) const fn rest(&self) -> &'a str {
        self.rest
    }

    /// The next word, which stays.
    pub(super) fn peek(&self) -> Option<&'a str> {
        self.rest.split_whitespace().next()
    }

    /// Passes over `text` if it comes next, whatever is glued to it. True if it did.
    pub(super) fn skip(&mut self, text: &str) -> bool {
        let found = self.rest.strip_prefix(text).map(str::trim_start);
        self.rest = found.unwrap_or(self.rest);
        found.is_some()
    }

    /// The next word.
    pub(super) fn word(&mut self) -> Option<&'a str> {
        let word = self.peek()?;
        self.rest = self.rest[word.len()..].trim_start();
        Some(word)
    }

    /// The option that comes next, without its sign.
    pub(super) fn option(&mut self) -> Option<&'a str> {
        let option = self.peek().and_then(option_name)?;
        self.word();
        Some(option)
    }

    /// The number of things that comes next, in decimal unless a prefix says otherwise.
    pub(super) fn count(&mut self, of: &str) -> Result<usize, QueryError> {
        let word = self.word().ok_or_else(|| self.usage(format!("how many {of}?")))?;
        let count = match word.get(..2) {
            Some("0x" | "0n") => number(word).and_then(|number| number.try_into().ok()),
            _ => word.parse().ok(),
        };
        count.ok_or_else(|| self.usage(format!("`{word}` is no decimal number of {of}")))
    }

    /// The name that comes next: a word, or what stands between quotes. A quote that is missing at the end is made up for.
    pub(super) fn name(&mut self) -> Option<&'a str> {
        self.text().map(str::trim)
    }

    /// Goes on behind what was read otherwise.
    pub(super) fn go_on_at(&mut self, rest: &'a str) {
        self.rest = rest.trim_start();
    }

    /// The same with the blanks that stand within the quotes.
    pub(super) fn text(&mut self) -> Option<&'a str> {
        let Some(quoted) = self.rest.strip_prefix('"') else { return self.word() };
        let (text, rest) = quoted.split_once('"').unwrap_or((quoted, ""));
        self.rest = rest.trim_start();
        Some(text)
    }

    /// The value of the expression that comes next.
    pub(super) fn expression(&mut self, target: &Target<'_>) -> Result<u64, QueryError> {
        let failed = |source| QueryError::Expression { command: self.spec.names[0], source };
        let text = if self.options_follow { before_options(self.rest) } else { self.rest };
        let (expression, rest) = Expression::parse_prefix(text).map_err(failed)?;
        if !rest.is_empty() && !rest.starts_with(char::is_whitespace) {
            return Err(self.usage(format!("cannot read `{rest}`")));
        }
        self.rest = self.rest[text.len() - rest.len()..].trim_start();
        expression.evaluate(text, target).map_err(failed)
    }

    /// The same where names with wildcards may follow: a `*` that begins a word is one of theirs, no multiplication.
    pub(super) fn address_before_names(&mut self, target: &Target<'_>) -> Result<VirtAddr, QueryError> {
        let whole = self.rest;
        let begins_name = |at: &usize| {
            let after = &whole[at + 1..];
            whole[..*at].ends_with(char::is_whitespace)
                && after.starts_with(|c: char| c.is_alphanumeric() || c == '_')
        };
        let names = whole.match_indices('*').map(|(at, _)| at).find(begins_name).unwrap_or(whole.len());
        self.rest = &whole[..names];
        let address = self.address(target)?;
        self.rest = whole[names - self.rest.len()..].trim_start();
        Ok(address)
    }

    /// The address that comes next, in any form of an expression.
    pub(super) fn address(&mut self, target: &Target<'_>) -> Result<VirtAddr, QueryError> {
        self.expression(target).map(|number| target.address(number))
    }

    /// An address, and how far it reaches from there in elements of `unit` bytes.
    ///
    /// ```text
    ///  ADDRESS                 no length
    ///  ADDRESS L20             20 elements        L?20 the same, however long
    ///  ADDRESS L-20            the 20 elements before
    ///  ADDRESS END             up to the element at END
    /// ```
    pub(super) fn range(&mut self, target: &Target<'_>, unit: u64) -> Result<TypedRange, QueryError> {
        let mut start = self.address(target)?;
        if self.is_empty() {
            return Ok(TypedRange { start, len: None });
        }
        let (len, is_unlimited) = match self.length_text() {
            Some(text) => {
                let is_unlimited = text.starts_with('?');
                let is_before = text.starts_with('-');
                self.rest = text.trim_start_matches(['?', '-']);
                let elements = self.expression(target)?;
                let len = elements.checked_mul(unit).ok_or_else(|| self.usage("the range is too long"))?;
                if is_before {
                    start = VirtAddr(start.0.wrapping_sub(len));
                }
                (len, is_unlimited)
            }
            None => {
                let end = self.address(target)?;
                if end < start {
                    return Err(self.usage(format!(
                        "the range ends at {}, before it begins at {}",
                        target.shown(end),
                        target.shown(start)
                    )));
                }
                // The end names the last element, which may lie at the very end of the address space.
                (end.since(start).saturating_add(1).checked_next_multiple_of(unit).unwrap_or(u64::MAX), false)
            }
        };
        if len > MAX_RANGE && !is_unlimited {
            return Err(
                self.usage(format!("{len:#x} bytes are more than {MAX_RANGE:#x}; if you mean it, write L?"))
            );
        }
        Ok(TypedRange { start, len: Some(len) })
    }

    /// How far a stretch of things of no fixed size reaches from its start: `L20`, so many; `END`, up to the one there.
    pub(super) fn stretch(&mut self, target: &Target<'_>) -> Result<Option<Stretch>, QueryError> {
        if self.is_empty() {
            return Ok(None);
        }
        match self.length_text() {
            Some(text) => {
                self.rest = text.trim_start_matches('?');
                self.expression(target).map(|count| Some(Stretch::Count(count)))
            }
            None => self.address(target).map(|end| Some(Stretch::End(end))),
        }
    }

    /// What follows the `L` of a length; nothing if the next argument is none.
    fn length_text(&self) -> Option<&'a str> {
        let after = self.rest.strip_prefix(['L', 'l'])?;
        let begins_number = |c: char| c.is_ascii_hexdigit() || c.is_whitespace() || "?-(@".contains(c);
        let is_symbol = self.peek().is_some_and(|word| word.contains(['!', '_']));
        ((after.is_empty() || after.starts_with(begins_number)) && !is_symbol).then(|| after.trim_start())
    }

    /// Makes sure that nothing is left.
    pub(super) fn end(&self) -> Result<(), QueryError> {
        match self.peek() {
            None => Ok(()),
            Some(word) => Err(self.usage(format!("`{word}` is one argument too many"))),
        }
    }

    /// An error about the form of the arguments.
    pub(super) fn usage(&self, problem: impl Into<String>) -> QueryError {
        QueryError::Usage { command: self.spec.names[0], problem: problem.into(), usage: self.spec.usage }
    }
}

/// What stands behind the dash or the slash of an option.
fn option_name(word: &str) -> Option<&str> {
    word.strip_prefix(['-', '/']).filter(|name| name.starts_with(|c: char| c.is_ascii_alphabetic()))
}

/// What stands before the first option behind an expression.
fn before_options(text: &str) -> &str {
    let begins_option =
        |at: &usize| text[..*at].ends_with(char::is_whitespace) && option_name(&text[*at..]).is_some();
    let end = text.match_indices(['-', '/']).map(|(at, _)| at).find(begins_option);
    &text[..end.unwrap_or(text.len())]
}

/// Reads a number: hexadecimal unless a prefix says otherwise.
///
/// ```text
///  80   0x80   fffffa80`05400000   0n10 decimal   0t17 octal   0y101 binary
/// ```
/// Nothing if it is no number, or does not fit 64 bits.
#[must_use]
pub fn number(text: &str) -> Option<u64> {
    let prefix = text.get(..2).map(str::to_ascii_lowercase);
    let (digits, radix) = match prefix.as_deref() {
        Some("0x") => (&text[2..], 16),
        Some("0n") => (&text[2..], 10),
        Some("0t") => (&text[2..], 8),
        Some("0y") => (&text[2..], 2),
        _ => (text, 16),
    };
    let digits = match digits.split_once('`') {
        // WinDbg's backtick stands before the lower eight digits only.
        Some((upper, lower)) if radix == 16 && lower.len() == 8 && !upper.is_empty() => {
            format!("{upper}{lower}")
        }
        Some(_) => return None,
        None => digits.to_owned(),
    };
    if digits.starts_with(['+', '-']) {
        return None;
    }
    u64::from_str_radix(&digits, radix).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_option_ends_what_stands_before_it() {
        for (text, before) in [
            ("10 -v", "10 "),
            ("10-v", "10-v"),
            ("10 - v", "10 - v"),
            ("poi(nt!Vf + 8) -f 2", "poi(nt!Vf + 8) "),
            ("10 -8 /k", "10 -8 "),
            ("10\t-é -all -v", "10\t-é "),
            ("", ""),
        ] {
            assert_eq!(before_options(text), before, "{text:?}");
        }
    }

    #[test]
    fn numbers_are_hexadecimal_unless_they_say_otherwise() {
        let cases = [
            ("80", Some(0x80)),
            ("0x80", Some(0x80)),
            ("0X8f", Some(0x8f)),
            ("fffffa80`05400000", Some(0xffff_fa80_0540_0000)),
            ("0xfffffa80`05400000", Some(0xffff_fa80_0540_0000)),
            ("0n10", Some(10)),
            ("0t17", Some(15)),
            ("0y101", Some(5)),
            ("", None),
            ("0x", None),
            ("g", None),
            ("+1", None),
            ("-1", None),
            ("1`0", None),
            ("`05400000", None),
            ("fffffa80`05400000`0", None),
            ("10000000000000000", None),
            ("é0", None),
        ];
        for (text, value) in cases {
            assert_eq!(number(text), value, "{text:?}");
        }
    }
}

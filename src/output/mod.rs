//! How answers show addresses, numbers that may be missing, and columns; files that are whole. A leaf: knows no command and no
//! target.

mod escape;
mod exception;
mod number;
mod reading;
mod schema;
mod whole_file;
mod wrap;

use std::fmt;

use serde::Serializer;

use kd_protocol::VirtAddr;

pub use escape::{Escaped, Screen, TargetText, dotted, is_hazard, json, screened};
pub use exception::exception;
pub use number::{binary, counted, general, grouped, iso_time, unix_ms_of_filetime, unix_time, unix_time_ms};
pub use reading::Reading;
pub use schema::Hex;
pub use whole_file::{may_write, reads_file, whole_file};
pub use wrap::wrapped;

/// Serialises an address as `"0xfffffa8005400000"`: JSON numbers lose bits past 2^53.
///
/// # Errors
/// The serializer's.
pub fn address<S: Serializer>(address: &VirtAddr, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{:#x}", address.0))
}

/// The same for an address that may be absent: `null`.
///
/// # Errors
/// The serializer's.
pub fn address_or_null<S: Serializer>(value: &Option<VirtAddr>, serializer: S) -> Result<S::Ok, S::Error> {
    match value {
        Some(value) => address(value, serializer),
        None => serializer.serialize_none(),
    }
}

/// Serialises a number as `"0x6b61654c"`.
///
/// # Errors
/// The serializer's.
pub fn hex<S: Serializer>(value: &u32, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{value:#x}"))
}

/// An address as WinDbg's `%p` prints it: 16 digits, or 8 where `pointer_size` is 4, and no backtick.
///
/// Of an address that KD has sign-extended only the digits that the target has are printed.
#[derive(Clone, Copy, Debug)]
pub struct Pointer {
    /// The address.
    pub address: VirtAddr,
    /// Bytes of a pointer in the target.
    pub pointer_size: usize,
}

impl fmt::Display for Pointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (width, mask) = (2 * self.pointer_size, u64::MAX >> (64 - 8 * self.pointer_size.clamp(1, 8)));
        write!(f, "{:0width$x}", self.address.0 & mask)
    }
}

/// An address as WinDbg prints it in its columns: ``fffff800`01400000``, or eight digits where `pointer_size` is 4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// The address.
    pub address: VirtAddr,
    /// Bytes of a pointer in the target.
    pub pointer_size: usize,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { address, pointer_size } = *self;
        if pointer_size == 4 { Pointer { address, pointer_size }.fmt(f) } else { address.wide().fmt(f) }
    }
}

/// Writes rows whose columns line up, two spaces apart; the last column is as long as it is.
///
/// # Errors
/// The writer's.
pub fn write_columns<const N: usize>(out: &mut dyn fmt::Write, rows: &[[&str; N]]) -> fmt::Result {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    for row in rows {
        for (column, cell) in row.iter().enumerate() {
            if column + 1 == N {
                out.write_str(cell)?;
            } else {
                write!(out, "{cell:<0$}  ", widths[column])?;
            }
        }
        out.write_char('\n')?;
    }
    Ok(())
}

/// Writes a term and what it means in lines of at most `columns` characters, broken between words: the meaning behind the
/// term, or below it where that is too long, `indent` from the left.
///
/// # Errors
/// The writer's.
pub fn write_term(
    out: &mut dyn fmt::Write,
    (term, meaning): (&str, &str),
    indent: usize,
    columns: usize,
) -> fmt::Result {
    /// A meaning begins here.
    const BEHIND: usize = 26;
    let columns = columns.max(BEHIND + 20);
    let mut at = indent;
    write!(out, "{:indent$}", "")?;
    // A term that needs several lines goes on a little to the right.
    write_words(out, term, &mut at, indent + 4, columns)?;
    if at + 2 > BEHIND {
        out.write_char('\n')?;
        at = 0;
    }
    write!(out, "{:1$}", "", BEHIND - at)?;
    at = BEHIND;
    write_words(out, meaning, &mut at, BEHIND, columns)?;
    out.write_char('\n')
}

/// Writes words from column `at` on, and goes on at `indent` where a line is full.
fn write_words(
    out: &mut dyn fmt::Write,
    text: &str,
    at: &mut usize,
    indent: usize,
    columns: usize,
) -> fmt::Result {
    for (number, word) in text.split(' ').enumerate() {
        let len = word.chars().count();
        if number > 0 && *at + 1 + len > columns {
            write!(out, "\n{:indent$}", "")?;
            *at = indent;
        } else if number > 0 {
            out.write_char(' ')?;
            *at += 1;
        }
        out.write_str(word)?;
        *at += len;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let mut text = String::new();
        write_columns(&mut text, &[["lm", "modules"], ["!verifier", "Driver Verifier"]]).unwrap();
        assert_eq!(text, "lm         modules\n!verifier  Driver Verifier\n");
    }

    #[test]
    fn a_meaning_is_broken_between_words() {
        let written = |term, meaning| {
            let mut text = String::new();
            write_term(&mut text, (term, meaning), 0, 50).unwrap();
            text
        };
        assert_eq!(
            written("lm", "list modules and where they are in memory"),
            "lm                        list modules and where\n                          they are in memory\n"
        );
        assert_eq!(
            written("x [/0|/1|/2] [/n|/a] [MODULE!]PATTERN", "list symbols"),
            "x [/0|/1|/2] [/n|/a] [MODULE!]PATTERN\n                          list symbols\n"
        );
    }

    #[test]
    fn addresses_are_as_wide_as_the_target_s() {
        let of = |address, pointer_size| {
            let address = VirtAddr(address);
            (Pointer { address, pointer_size }.to_string(), Address { address, pointer_size }.to_string())
        };
        assert_eq!(of(0xffff_fa80_0540_0000, 8), ("fffffa8005400000".into(), "fffffa80`05400000".into()));
        assert_eq!(of(0x8422_6b28, 4), ("84226b28".into(), "84226b28".into()));
        assert_eq!(of(0xffff_ffff_8422_6b28, 4).0, "84226b28", "as KD sign-extends it");
    }
}

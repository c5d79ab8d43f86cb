//! `!poolused` as WinDbg prints it: today's, and that of the debuggers up to Windows 8.
//!
//! | | brief | verbose |
//! |---|---|---|
//! | today's | 9, 12 | 11, 11, 9, 12 |
//! | old | 8, 8 | 8, 8, 8, 8: no sample shows it |
//!
//! are the widths of nonpaged pool's columns, each behind a blank; paged pool's follow one blank further on. What is longer pushes the
//! rest to the right.
//! Source: pool.md 2.5.

use std::fmt::{self, Write};

use super::report::{Order, PoolUsed, Saved};
use super::row::{PoolSide, TagRow};
use crate::commands::answer::{AnswerFile, Facts};
use crate::commands::context::{Context, VerifierFormat};
use crate::commands::schema::Schema;
use crate::output::unix_time;

impl Saved {
    fn file<'a>(&'a self, of: &'a PoolUsed) -> AnswerFile<'a> {
        AnswerFile { path: &self.path, write: Box::new(|moment| self.write(of.unix_ms(moment.unix_ms))) }
    }
}

/// Widths and words of one format.
struct Format {
    is_new: bool,
    brief: [usize; 2],
    verbose: [usize; 4],
}

const NEW: Format = Format { is_new: true, brief: [9, 12], verbose: [11, 11, 9, 12] };
const OLD: Format = Format { is_new: false, brief: [8, 8], verbose: [8, 8, 8, 8] };

impl Facts for PoolUsed {
    fn schema(&self) -> Schema {
        Self::SCHEMA
    }

    fn files(&self) -> Vec<AnswerFile<'_>> {
        self.saved.iter().map(|saved| saved.file(self)).collect()
    }

    fn write_text(&self, context: &Context, out: &mut dyn Write) -> fmt::Result {
        let format = match context.style.verifier {
            VerifierFormat::Old => &OLD,
            VerifierFormat::New => &NEW,
            VerifierFormat::Auto if self.is_new => &NEW,
            VerifierFormat::Auto => &OLD,
        };
        format.write_head(self, out)?;
        for row in &self.rows {
            let TagRow { tag, nonpaged, paged, .. } = row;
            write!(out, " {tag}")?;
            format.write_sides(self.verbose, nonpaged, paged, out)?;
            if format.is_new {
                out.write_char('\t')?;
            }
            write_description(row, out)?;
            writeln!(out)?;
        }
        if let Some(overflow) = &self.overflow {
            write!(out, " Ovfl")?;
            format.write_sides(self.verbose, &overflow.nonpaged, &overflow.paged, out)?;
            writeln!(
                out,
                "{}counted without a tag: the tables are full",
                if format.is_new { "\t" } else { "" }
            )?;
        }
        let Some(total) = &self.total else { return Ok(()) };
        if format.is_new {
            write!(out, "\nTOTAL")?;
        } else {
            write!(out, " TOTAL")?;
        }
        format.write_sides(self.verbose, &total.nonpaged, &total.paged, out)?;
        writeln!(out)
    }
}

impl Format {
    fn write_head(&self, used: &PoolUsed, out: &mut dyn Write) -> fmt::Result {
        let order = match used.order {
            Order::Nonpaged => "NonPaged Pool Consumed",
            Order::Paged => "Paged Pool Consumed",
            Order::Tag => "Tag",
        };
        let changed = match (used.is_difference, &used.since) {
            (false, _) => String::new(),
            (true, None) => ", changes since the last time".to_owned(),
            (true, Some(since)) => {
                format!(", changes since {} UTC", unix_time((since.unix_ms / 1000).cast_signed()))
            }
        };
        match (self.is_new, used.verbose) {
            (true, false) => write!(
                out,
                " Sorting by {order}{changed}\n\n               NonPaged                  Paged\n Tag     Allocs         Used     Allocs         Used\n\n"
            ),
            (true, true) => write!(
                out,
                " Sorting by {order}{changed}\n\n                            NonPaged                                         Paged\n Tag       \
                 Allocs       Frees      Diff         Used       Allocs       Frees      Diff         Used\n\n"
            ),
            (false, false) => write!(
                out,
                "   Sorting by  {order}{changed}\n\n  Pool Used:\n            NonPaged            Paged\n Tag    Allocs     Used    Allocs     Used\n"
            ),
            (false, true) => write!(
                out,
                "   Sorting by  {order}{changed}\n\n  Pool Used:\n            NonPaged                            Paged\n Tag    Allocs    \
                 Frees     Diff     Used    Allocs    Frees     Diff     Used\n"
            ),
        }
    }

    fn write_sides(
        &self,
        verbose: bool,
        nonpaged: &PoolSide,
        paged: &PoolSide,
        out: &mut dyn Write,
    ) -> fmt::Result {
        if verbose {
            let [allocs, frees, diff, used] = self.verbose;
            for (gap, side) in [("", nonpaged), (" ", paged)] {
                let PoolSide { allocs: a, frees: f, outstanding, bytes } = side;
                write!(out, "{gap} {a:>allocs$} {f:>frees$} {outstanding:>diff$} {bytes:>used$}")?;
            }
            return Ok(());
        }
        let [allocs, used] = self.brief;
        for (gap, side) in [("", nonpaged), (" ", paged)] {
            write!(out, "{gap} {:>allocs$} {:>used$}", side.outstanding, side.bytes)?;
        }
        Ok(())
    }
}

/// As WinDbg says whose a tag is.
fn write_description(row: &TagRow, out: &mut dyn Write) -> fmt::Result {
    match (&row.description, &row.binary) {
        (Some(text), Some(binary)) => write!(out, "{text} , Binary: {binary}"),
        (Some(text), None) => write!(out, "{text} "),
        (None, _) => write!(out, "UNKNOWN pooltag '{}', please update pooltag.txt", row.tag),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::context::Style;
    use crate::commands::pool::tag::PoolTag;
    use crate::commands::pool::used::row::Total;

    fn row(
        tag: &str,
        nonpaged: [i64; 4],
        paged: [i64; 4],
        description: Option<(&str, Option<&str>)>,
    ) -> TagRow {
        let tag = PoolTag::parse(tag).unwrap();
        let side =
            |[allocs, frees, outstanding, bytes]: [i64; 4]| PoolSide { allocs, frees, outstanding, bytes };
        TagRow {
            tag,
            tag_hex: tag.0,
            nonpaged: side(nonpaged),
            paged: side(paged),
            description: description.map(|(text, _)| text.to_owned()),
            binary: description.and_then(|(_, binary)| binary.map(str::to_owned)),
        }
    }

    fn used(order: Order, verbose: bool, is_new: bool, rows: Vec<TagRow>) -> PoolUsed {
        let total = rows.first().map(|row| Total { nonpaged: row.nonpaged, paged: row.paged });
        PoolUsed { verbose, is_new, ..PoolUsed::of_rows(order, rows, total) }
    }

    fn text(used: &PoolUsed) -> String {
        let mut text = String::new();
        let context = Context { pointer_size: 8, style: Style::default() };
        used.write_text(&context, &mut text).unwrap();
        text
    }

    /// The samples of pool.md 2.5.
    #[test]
    fn todays_columns_are_those_of_public_samples() {
        let rows = vec![row("amda", [0, 0, 5_768_754, 1_938_325_232], [0, 0, 32, 9360], None)];
        let shown = text(&used(Order::Nonpaged, false, true, rows));
        assert_eq!(
            shown,
            " Sorting by NonPaged Pool Consumed\n\n               NonPaged                  Paged\n Tag     Allocs         Used     Allocs         \
             Used\n\n amda   5768754   1938325232         32         9360\tUNKNOWN pooltag 'amda', please update pooltag.txt\n\n\
             TOTAL   5768754   1938325232         32         9360\n"
        );
        let alpc = Some(("ALPC port objects", Some("nt!alpc")));
        let rows = vec![
            row("Hack", [1, 0, 1, 112], [0; 4], None),
            row("ALPC", [4528, 2111, 2417, 1_440_624], [0; 4], alpc),
        ];
        let shown = text(&used(Order::Tag, true, true, rows));
        let expected = [
            " Sorting by Tag",
            "",
            "                            NonPaged                                         Paged",
            " Tag       Allocs       Frees      Diff         Used       Allocs       Frees      Diff         Used",
            "",
            " Hack           1           0         1          112            0           0         0            0\tUNKNOWN pooltag 'Hack', please update pooltag.txt",
            " ALPC        4528        2111      2417      1440624            0           0         0            0\tALPC port objects , Binary: nt!alpc",
            "",
            "TOTAL           1           0         1          112            0           0         0            0",
        ];
        assert_eq!(shown.lines().collect::<Vec<_>>(), expected);
    }

    /// The documentation's sample.
    #[test]
    fn old_columns_are_those_of_the_documentation() {
        let keyboard = Some(("PS/2 kb and mouse", Some("i8042prt.sys")));
        let rows = vec![
            row("1394", [0, 0, 1, 520], [0; 4], None),
            row("8042", [0, 0, 4, 3944], [0; 4], keyboard),
            row("AcdN", [0, 0, 2, 1072], [0; 4], Some(("TDI AcdObjectInfoG", None))),
        ];
        let shown = text(&used(Order::Tag, false, false, rows));
        let expected = [
            "   Sorting by  Tag",
            "",
            "  Pool Used:",
            "            NonPaged            Paged",
            " Tag    Allocs     Used    Allocs     Used",
            " 1394        1      520         0        0UNKNOWN pooltag '1394', please update pooltag.txt",
            " 8042        4     3944         0        0PS/2 kb and mouse , Binary: i8042prt.sys",
            " AcdN        2     1072         0        0TDI AcdObjectInfoG ",
            " TOTAL        1      520         0        0",
        ];
        assert_eq!(shown.lines().collect::<Vec<_>>(), expected);
    }
}

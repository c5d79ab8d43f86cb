//! A flame graph as an image of its own, drawn by the crate `inferno`. It opens in a browser, where a click goes into a frame and
//! Ctrl+F searches; it asks for nothing from anywhere.

use std::io::{self, Write};

use inferno::flamegraph::color::{BackgroundColor, BasicPalette, Palette};
use inferno::flamegraph::{self, Options, TextTruncateDirection};

use super::caption::{moment, title, total};
use super::folded::folded;
use super::snapshot::Snapshot;
use super::stack::Weight;

/// More than any machine can hold, and no more than the crate can count: sums must not wrap.
const MOST: usize = if usize::BITS > 52 { 1 << 52 } else { usize::MAX };

/// Writes a flame graph: a driver on the bottom, the call path above it, as wide as what it holds.
///
/// # Errors
/// The writer's; [`io::ErrorKind::InvalidData`] if nothing is held, or more than a machine can hold.
pub fn write_svg(snapshot: &Snapshot, weight: Weight, out: &mut dyn Write) -> io::Result<()> {
    let stacks = folded(snapshot, weight);
    let sum = stacks.values().fold(0_u64, |sum, count| sum.saturating_add(*count));
    let cannot = |why: &str| io::Error::new(io::ErrorKind::InvalidData, why);
    if sum == 0 {
        return Err(cannot("there is nothing to draw"));
    }
    if sum > MOST as u64 {
        return Err(cannot("the snapshot's groups hold more than any machine has: it is damaged"));
    }
    let mut options = Options::default();
    options.title = format!("{} by {}", title(snapshot), weight.name());
    options.subtitle =
        Some(format!("{}; build {}, {}", total(snapshot.held()), snapshot.boot.build, moment(snapshot)));
    options.count_name = weight.name().to_owned();
    options.name_type = "Frame:".to_owned();
    options.colors = Palette::Basic(BasicPalette::Hot);
    options.bgcolors = Some(BackgroundColor::Grey);
    // One file for one snapshot, however often it is drawn.
    options.hash = true;
    options.text_truncate_direction = TextTruncateDirection::Right;
    options.font_type = "monospace".to_owned();
    let lines: Vec<_> = stacks.iter().map(|(stack, count)| format!("{stack} {count}")).collect();
    flamegraph::from_lines(&mut options, lines.iter().map(String::as_str), out)
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    fn svg(snapshot: &Snapshot) -> io::Result<String> {
        let mut out = Vec::new();
        write_svg(snapshot, Weight::Bytes, &mut out)?;
        Ok(String::from_utf8(out).expect("an image is text"))
    }

    #[test]
    fn a_frame_is_as_wide_as_what_it_holds() {
        let groups = vec![
            sample::group("myfault.sys", &["myfault!A", "nt!Io"], 3, 0x300),
            sample::group("myfault.sys", &["myfault!B", "nt!Io"], 1, 0x100),
        ];
        let drawn = svg(&sample::snapshot(0, groups)).unwrap();
        for frame in [
            "<title>nt!Io (1,024 bytes, 100.00%)</title>",
            "<title>myfault!A (768 bytes, 75.00%)</title>",
            "<title>myfault!B (256 bytes, 25.00%)</title>",
            "Outstanding pool of myfault.sys by bytes",
            "4 blocks, 0x400 bytes (1.00 KiB); build 7601, Wed Nov 26 00:00:00 2025 UTC",
        ] {
            assert!(drawn.contains(frame), "{frame}\n{drawn}");
        }
    }

    #[test]
    fn a_name_of_markup_is_text() {
        let hostile = "<script>alert(1)</script>";
        let mut snapshot = sample::snapshot(0, vec![sample::group(hostile, &[hostile, "]]>\"'&"], 1, 1)]);
        snapshot.tag = Some("-->".into());
        let drawn = svg(&snapshot).unwrap();
        assert_eq!(drawn.matches("<script").count(), 1, "that of the crate");
        assert!(drawn.contains("&lt;script&gt;alert(1)&lt;/script&gt; (1 bytes"), "{drawn}");
        assert!(drawn.contains("with tag --&gt;"), "{drawn}");
    }

    #[test]
    fn what_cannot_be_drawn_is_said() {
        assert!(svg(&sample::snapshot(0, Vec::new())).unwrap_err().to_string().contains("nothing to draw"));
        let group = sample::group("a.sys", &["a!F"], 1, u64::MAX);
        let error = svg(&sample::snapshot(0, vec![group.clone(), group])).unwrap_err();
        assert!(error.to_string().contains("it is damaged"), "{error}");
    }

    #[test]
    fn a_snapshot_is_drawn_the_same_twice() {
        let snapshot = sample::snapshot(0, vec![sample::group("a.sys", &["a!F", "a!G"], 1, 1)]);
        assert_eq!(svg(&snapshot).unwrap(), svg(&snapshot).unwrap());
    }
}

//! What is held as a page to look at: one file that asks for nothing from anywhere, and shows the last of its snapshots, and how
//! each call path grew over all of them.
//!
//! ```text
//!  page/page.html   the page, its names in @..@     filled in here, once: what is filled in is not looked at again
//!  page/page.css    how it looks                    in the page; allowed by its hash
//!  page/page.js     tables, curves, flame graph     in the page; allowed by its hash, draws what is looked at
//!  data             JSON in the page: blocks are rows of numbers, texts are kept once
//! ```
//! Every name comes from a target. Here it becomes text without controls, in JSON without `<`; the script sets it as text; and if
//! both were wrong, the page's policy runs no script but this one and loads nothing.

use std::collections::HashMap;
use std::io::{self, Write};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::caption::{moment, title};
use super::diff::{NotComparable, compare, key};
use super::snapshot::{Held, SavedBlock, SavedFrame, SavedGroup, Snapshot};
use super::stack::{name, stack, text};
use crate::output::{Escaped, binary, grouped, unix_time};

const PAGE: &str = include_str!("page/page.html");
const STYLE: &str = include_str!("page/page.css");
const SCRIPT: &str = include_str!("page/page.js");
/// Most notes that are shown.
const MOST_NOTES: usize = 50;

/// Why there is no page.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PageError {
    /// It cannot be written.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The snapshots are not of the same thing.
    #[error("the snapshots cannot be shown together: {0}")]
    NotComparable(#[from] NotComparable),
}

/// Writes a page about snapshots, the oldest first. The last is shown whole, the others as what each call path held.
///
/// Call paths of several snapshots are told apart by their names, as [`compare`] does.
///
/// # Errors
/// [`PageError`].
///
/// # Panics
/// If there is no snapshot.
pub fn write_html(snapshots: &[Snapshot], out: &mut dyn Write) -> Result<(), PageError> {
    let last = snapshots.last().expect("a page is about a snapshot");
    let mut notes = notes(snapshots);
    if snapshots.len() > 1 {
        let compared = compare(snapshots)?;
        if !compared.is_same_boot {
            notes.insert(
                0,
                "The snapshots are of different boots: call paths are compared by their names.".into(),
            );
        }
        for driver in &compared.drivers_of_one_only {
            notes.push(format!("Not every snapshot is about {}.", text(driver)));
        }
    }
    // A checkout with other ends of lines has the script that a browser reads, and hashes, with these.
    let (style, script) = (STYLE.replace("\r\n", "\n"), SCRIPT.replace("\r\n", "\n"));
    let hash = |text: &str| BASE64_STANDARD.encode(Sha256::digest(text));
    let data = Data::of(snapshots);
    let figures = figures(snapshots, data.groups.len());
    let mut parts = PAGE.split('@');
    while let Some(plain) = parts.next() {
        out.write_all(plain.as_bytes())?;
        let Some(part) = parts.next() else { break };
        let filled = match part {
            "TITLE" => markup(&title(last)),
            "SUBTITLE" => markup(&subtitle(snapshots)),
            "FIGURES" => figures.clone(),
            "NOTES" => note_section(&notes),
            "FOOTER" => markup(&footer(last)),
            "STYLE_HASH" => hash(&style),
            "SCRIPT_HASH" => hash(&script),
            "STYLE" => style.clone(),
            "SCRIPT" => script.clone(),
            "DATA" => json(&data),
            other => panic!("the page has no @{other}@"),
        };
        out.write_all(filled.as_bytes())?;
    }
    Ok(())
}

/// A text as markup shows it.
fn markup(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => shown.push_str("&amp;"),
            '<' => shown.push_str("&lt;"),
            '>' => shown.push_str("&gt;"),
            '"' => shown.push_str("&quot;"),
            '\'' => shown.push_str("&#39;"),
            c => shown.push(c),
        }
    }
    shown
}

/// JSON that ends no script: these characters stand in strings only.
fn json(data: &Data) -> String {
    let text = serde_json::to_string(data).expect("numbers and texts are JSON");
    text.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026")
}

fn subtitle(snapshots: &[Snapshot]) -> String {
    let last = &snapshots[snapshots.len() - 1];
    let build = match last.boot.build {
        0 => String::new(),
        build => format!("; Windows build {build}"),
    };
    match snapshots {
        [only] => format!("{}{build}", moment(only)),
        [first, .., last] => {
            format!("{} snapshots from {} to {}{build}", snapshots.len(), moment(first), moment(last))
        }
        [] => String::new(),
    }
}

fn footer(last: &Snapshot) -> String {
    let base = match last.boot.kernel_base.0 {
        0 => String::new(),
        base => format!(" The kernel is at {}.", pointer(last, base)),
    };
    let log = last.log.map_or_else(String::new, |log| {
        format!(" The pool log has room for {} entries.", grouped(log.length))
    });
    format!("Written by {}.{base}{log} This page asks for nothing from anywhere.", Escaped(&last.program))
}

/// What is said of the snapshots: what is said of each, once; else with when it was first said.
fn notes(snapshots: &[Snapshot]) -> Vec<String> {
    let mut notes: Vec<(&str, usize, String)> = Vec::new();
    for snapshot in snapshots {
        for note in &snapshot.notes {
            match notes.iter().position(|(known, ..)| known == note) {
                Some(at) => notes[at].1 += 1,
                None if notes.len() < MOST_NOTES => notes.push((note, 1, moment(snapshot))),
                None => {}
            }
        }
    }
    let shown = |(note, times, first): (&str, usize, String)| {
        if times == snapshots.len() { text(note) } else { format!("{first}: {}", text(note)) }
    };
    notes.into_iter().map(shown).collect()
}

fn note_section(notes: &[String]) -> String {
    if notes.is_empty() {
        return String::new();
    }
    let items: String = notes.iter().map(|note| format!("<li>{}</li>", markup(note))).collect();
    format!(
        "<section class=\"notes\" aria-labelledby=\"notes-title\"><h2 id=\"notes-title\">Notes</h2><ul>{items}</ul></section>"
    )
}

/// The figures at the top: a name, a figure, and what it means.
fn figures(snapshots: &[Snapshot], paths: usize) -> String {
    let (first, last) = (&snapshots[0], &snapshots[snapshots.len() - 1]);
    let held = last.held();
    let known = last.groups.iter().fold(0_u64, |sum, group| sum.saturating_add(group.stacks_known));
    let mut figures = vec![
        ("Held", binary(held.bytes), format!("{:#x} bytes", held.bytes)),
        ("Blocks", grouped(held.blocks), average(held)),
        ("Call paths", grouped(paths as u64), largest(last)),
        ("Stacks read", grouped(known), format!("of {} of the blocks", share(known, held.blocks))),
    ];
    if last.drivers.len() > 1 {
        figures.insert(0, ("Drivers", grouped(last.drivers.len() as u64), drivers(last)));
    }
    if snapshots.len() > 1 {
        let bytes = signed(first.held().bytes, held.bytes, binary);
        let minutes = last.unix_ms.saturating_sub(first.unix_ms) / 60_000;
        let blocks = signed(first.held().blocks, held.blocks, grouped);
        figures.push(("Growth", bytes, format!("{blocks} blocks in {} minutes", grouped(minutes))));
    }
    let one = |(name, figure, meaning): (&str, String, String)| {
        format!("<div><dt>{name}</dt><dd>{}</dd><dd>{}</dd></div>", markup(&figure), markup(&meaning))
    };
    figures.into_iter().map(one).collect()
}

fn average(held: Held) -> String {
    match held.bytes.checked_div(held.blocks) {
        Some(average) => format!("{} on average", binary(average)),
        None => "nothing is held".into(),
    }
}

fn largest(snapshot: &Snapshot) -> String {
    let most = snapshot.groups.iter().map(|group| group.held.bytes).max().unwrap_or(0);
    format!("one holds {}", share(most, snapshot.held().bytes))
}

fn drivers(snapshot: &Snapshot) -> String {
    const SHOWN: usize = 4;
    let mut drivers: Vec<_> = snapshot.drivers.iter().collect();
    drivers.sort_by_key(|driver| std::cmp::Reverse(driver.held.bytes));
    let shown: Vec<_> = drivers
        .iter()
        .take(SHOWN)
        .map(|driver| format!("{} {}", text(&driver.name), binary(driver.held.bytes)))
        .collect();
    let more = if drivers.len() > SHOWN { ", .." } else { "" };
    format!("{}{more}", shown.join(", "))
}

fn share(part: u64, whole: u64) -> String {
    format!("{:.1} %", part as f64 / whole.max(1) as f64 * 100.0)
}

fn signed(old: u64, new: u64, shown: impl Fn(u64) -> String) -> String {
    match new.checked_sub(old) {
        Some(0) => shown(0),
        Some(more) => format!("+{}", shown(more)),
        None => format!("\u{2212}{}", shown(old - new)),
    }
}

/// An address as the target's are written, in 8 digits or 16. Of one that KD has sign-extended, the digits that the target has.
fn pointer(snapshot: &Snapshot, address: u64) -> String {
    match snapshot.pointer_size {
        4 => format!("{:08x}", address & u64::from(u32::MAX)),
        _ => format!("{address:016x}"),
    }
}

/// What the page's script reads. Texts are numbers of `words`.
#[derive(Serialize)]
struct Data {
    moments: Vec<Moment>,
    words: Vec<String>,
    /// The address, the name, and whether it has a symbol.
    frames: Vec<(usize, usize, bool)>,
    groups: Vec<Group>,
}

#[derive(Serialize)]
struct Moment {
    ms: u64,
    text: String,
    /// Short, for a scale.
    clock: String,
    bytes: u64,
    blocks: u64,
}

#[derive(Serialize)]
struct Group {
    driver: usize,
    bytes: u64,
    blocks: u64,
    smallest: u64,
    largest: u64,
    tags: Vec<usize>,
    newest: Option<u64>,
    oldest: Option<u64>,
    known: u64,
    gone: u64,
    /// Frames, innermost first.
    allocator: Vec<usize>,
    path: Vec<usize>,
    /// Words, outermost first, as in every picture.
    stack: Vec<usize>,
    /// Bytes and blocks at each moment.
    history: Vec<(u64, u64)>,
    list: Vec<Block>,
}

/// Address, size, tag, event and thread.
#[derive(Serialize)]
struct Block(String, u64, usize, Option<u32>, Option<usize>);

impl Data {
    fn of(snapshots: &[Snapshot]) -> Self {
        let last = &snapshots[snapshots.len() - 1];
        let mut words = Words::default();
        let groups = histories(snapshots).iter().map(|history| words.group(last, history)).collect();
        let moments = moments(snapshots);
        Self { moments, words: words.words, frames: words.frames, groups }
    }
}

fn moments(snapshots: &[Snapshot]) -> Vec<Moment> {
    const DAY_MS: u64 = 86_400_000;
    let span = snapshots[snapshots.len() - 1].unix_ms.saturating_sub(snapshots[0].unix_ms);
    let of = |snapshot: &Snapshot| {
        let time = unix_time(i64::try_from(snapshot.unix_ms / 1000).unwrap_or_default());
        // `Wed Nov 26 00:00:00 2025`: a day, a time, or both.
        let mut parts = time.split_whitespace().skip(1);
        let mut part = || parts.next().unwrap_or_default();
        let (month, day, clock) = (part(), part(), part());
        let clock = if span > DAY_MS { format!("{month} {day} {clock}") } else { clock.to_owned() };
        let Held { blocks, bytes } = snapshot.held();
        Moment { ms: snapshot.unix_ms, text: moment(snapshot), clock, bytes, blocks }
    };
    snapshots.iter().map(of).collect()
}

/// The groups of one call path, in each snapshot.
type History<'a> = Vec<Vec<&'a SavedGroup>>;

/// Each call path once; of one snapshot each group, since they may differ by what is no path.
fn histories(snapshots: &[Snapshot]) -> Vec<History<'_>> {
    if let [only] = snapshots {
        return only.groups.iter().map(|group| vec![vec![group]]).collect();
    }
    let mut order = HashMap::new();
    let mut histories: Vec<History<'_>> = Vec::new();
    for (moment, snapshot) in snapshots.iter().enumerate() {
        for group in &snapshot.groups {
            let at = *order.entry(key(group)).or_insert_with(|| {
                histories.push(vec![Vec::new(); snapshots.len()]);
                histories.len() - 1
            });
            histories[at][moment].push(group);
        }
    }
    histories
}

/// Texts and frames, each kept once.
#[derive(Default)]
struct Words {
    words: Vec<String>,
    word_at: HashMap<String, usize>,
    frames: Vec<(usize, usize, bool)>,
    frame_at: HashMap<(usize, usize, bool), usize>,
}

impl Words {
    fn word(&mut self, word: String) -> usize {
        if let Some(at) = self.word_at.get(&word) {
            return *at;
        }
        self.words.push(word.clone());
        self.word_at.insert(word, self.words.len() - 1);
        self.words.len() - 1
    }

    fn frame(&mut self, snapshot: &Snapshot, frame: &SavedFrame) -> usize {
        let address = self.word(pointer(snapshot, frame.address.0));
        let frame = (address, self.word(name(frame)), frame.symbol.is_some());
        *self.frame_at.entry(frame).or_insert_with(|| {
            self.frames.push(frame);
            self.frames.len() - 1
        })
    }

    fn group(&mut self, last: &Snapshot, history: &History<'_>) -> Group {
        let shown = history.iter().rev().find_map(|groups| groups.first()).expect("a path is of a group");
        let present = &history[history.len() - 1][..];
        let total = |groups: &[&SavedGroup], of: fn(&SavedGroup) -> u64| {
            groups.iter().fold(0_u64, |sum, group| sum.saturating_add(of(group)))
        };
        let mut tags: Vec<_> = if present.is_empty() { shown.tags.iter().collect() } else { Vec::new() };
        tags.extend(present.iter().flat_map(|group| &group.tags));
        tags.sort_unstable();
        tags.dedup();
        let held = |groups: &[&SavedGroup]| {
            (total(groups, |group| group.held.bytes), total(groups, |group| group.held.blocks))
        };
        let (bytes, blocks) = held(present);
        Group {
            driver: self.word(text(&shown.driver)),
            bytes,
            blocks,
            smallest: present.iter().map(|group| group.smallest).min().unwrap_or(0),
            largest: present.iter().map(|group| group.largest).max().unwrap_or(0),
            tags: tags.into_iter().map(|tag| self.word(tag_text(tag))).collect(),
            newest: present.iter().filter_map(|group| group.newest_age).min(),
            oldest: present.iter().filter_map(|group| group.oldest_age).max(),
            known: total(present, |group| group.stacks_known),
            gone: total(present, |group| group.not_in_log),
            allocator: shown.allocator.iter().map(|frame| self.frame(last, frame)).collect(),
            path: shown.path.iter().map(|frame| self.frame(last, frame)).collect(),
            stack: stack(shown).into_iter().map(|name| self.word(name.into_owned())).collect(),
            history: history.iter().map(|groups| held(groups)).collect(),
            list: present.iter().flat_map(|group| &group.list).map(|block| self.block(last, block)).collect(),
        }
    }

    fn block(&mut self, snapshot: &Snapshot, block: &SavedBlock) -> Block {
        Block(
            pointer(snapshot, block.address.0),
            block.size,
            self.word(tag_text(&block.tag)),
            block.event,
            block.thread.map(|thread| self.word(pointer(snapshot, thread.0))),
        )
    }
}

fn tag_text(tag: &str) -> String {
    if tag.is_empty() { "(none)".to_owned() } else { text(tag) }
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::super::snapshot::HexNumber;
    use super::*;

    fn page(snapshots: &[Snapshot]) -> String {
        let mut out = Vec::new();
        write_html(snapshots, &mut out).unwrap();
        String::from_utf8(out).expect("a page is text")
    }

    /// The JSON in a page, as its script reads it.
    fn data(page: &str) -> serde_json::Value {
        let (_, rest) = page.split_once(r#"<script type="application/json" id="data">"#).unwrap();
        serde_json::from_str(rest.split_once("</script>").unwrap().0).unwrap()
    }

    #[test]
    fn a_page_has_all_that_the_snapshot_has() {
        let path = ["myfault!MyfaultDeviceControl+0x358", "nt!NtDeviceIoControlFile+0x56"];
        let page = page(&[sample::snapshot(0, vec![sample::group("myfault.sys", &path, 10, 0x9c_e000)])]);
        for text in
            ["<title>Outstanding pool of myfault.sys</title>", "9.80 MiB", "0x9ce000 bytes", "100.0 %"]
        {
            assert!(page.contains(text), "{text}");
        }
        let data = data(&page);
        let group = &data["groups"][0];
        let words = |list: &serde_json::Value| -> Vec<String> {
            let word = |at: &serde_json::Value| {
                data["words"][at.as_u64().unwrap() as usize].as_str().unwrap().to_owned()
            };
            list.as_array().unwrap().iter().map(word).collect()
        };
        assert_eq!(words(&group["stack"]), [path[1], path[0]]);
        assert_eq!(group["list"].as_array().unwrap().len(), 10);
        assert_eq!(group["list"][9][0], "fffffa8005d00000");
        assert_eq!(group["history"], serde_json::json!([[0x9c_e000, 10]]));
    }

    #[test]
    fn a_name_of_markup_is_text_wherever_it_stands() {
        let hostile = "</script><script>alert(1)</script><!--\u{202e}@DATA@";
        let mut snapshot = sample::snapshot(0, vec![sample::group(hostile, &[hostile, hostile], 1, 1)]);
        snapshot.tag = Some(hostile.into());
        snapshot.program = hostile.into();
        snapshot.notes = vec![hostile.into()];
        snapshot.groups[0].tags = vec![hostile.into()];
        snapshot.groups[0].list[0].tag = hostile.into();
        snapshot.pointer_size = u32::MAX;
        let page = page(&[snapshot]);
        assert_eq!((page.matches("<script").count(), page.matches("</script").count()), (2, 2));
        assert!(!page.contains("<!--") && !page.contains('\u{202e}'));
        assert!(page.contains("&lt;script&gt;alert(1)&lt;/script&gt;&lt;!--\\u{202e}@DATA@"));
        let data = data(&page);
        let shown = hostile.replace('\u{202e}', "\\u{202e}");
        assert!(data["words"].as_array().unwrap().contains(&shown.into()));
    }

    #[test]
    fn the_page_s_policy_allows_its_own_script_and_nothing_else() {
        let page = page(&[sample::snapshot(0, Vec::new())]);
        let between = |start: &str, end: &str| page.split_once(start).unwrap().1.split_once(end).unwrap().0;
        let policy = between(r#"http-equiv="Content-Security-Policy" content=""#, "\"");
        let script = between("</script>\n<script>", "</script>");
        let style = between("<style>", "</style>");
        let hash = |text| format!("'sha256-{}'", BASE64_STANDARD.encode(Sha256::digest(text)));
        let allowed = format!(
            "default-src 'none'; script-src {}; style-src {}; img-src data:; base-uri 'none'; form-action 'none'",
            hash(script),
            hash(style)
        );
        assert_eq!(policy, allowed);
        assert_eq!(page.matches("http://").count(), 1, "the name of SVG alone");
        assert!(!page.contains("https://") && !style.contains("url("));
    }

    #[test]
    fn addresses_are_as_wide_as_the_target_s() {
        let mut snapshot = sample::snapshot(0, vec![sample::group("a.sys", &["a!F"], 1, 1)]);
        snapshot.pointer_size = 4;
        snapshot.groups[0].list[0].address = HexNumber(0xffff_ffff_8422_6b28);
        assert_eq!(data(&page(&[snapshot]))["groups"][0]["list"][0][0], "84226b28");
    }

    #[test]
    fn several_snapshots_become_a_history_of_each_path() {
        let at = |minute, leaking| {
            let groups = vec![
                sample::group("a.sys", &["a!Leak", "nt!Io"], leaking, leaking * 0x100),
                sample::group("a.sys", &["a!Keep", "nt!Io"], 2, 0x200),
            ];
            sample::snapshot(minute, groups)
        };
        let mut last = at(2, 9);
        last.groups.pop();
        last.notes = vec!["seen late".into()];
        let page = page(&[at(0, 1), at(1, 5), last]);
        let data = data(&page);
        let histories: Vec<_> = (0..2).map(|it| data["groups"][it]["history"].clone()).collect();
        assert_eq!(
            histories,
            [
                serde_json::json!([[0x100, 1], [0x500, 5], [0x900, 9]]),
                serde_json::json!([[0x200, 2], [0x200, 2], [0, 0]])
            ]
        );
        assert_eq!(data["groups"][1]["list"], serde_json::json!([]), "what is gone has no block");
        assert_eq!(data["moments"][1]["clock"], "00:01:00");
        assert!(page.contains("3 snapshots from Wed Nov 26 00:00:00 2025 UTC"));
        assert!(page.contains("+6 blocks in 2 minutes"));
        assert!(page.contains("<li>Wed Nov 26 00:02:00 2025 UTC: seen late</li>"));
    }

    #[test]
    fn snapshots_of_different_things_are_on_no_page() {
        let of = |driver| sample::snapshot(0, vec![sample::group(driver, &["a!F"], 1, 1)]);
        let error = write_html(&[of("a.sys"), of("b.sys")], &mut io::sink()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the snapshots cannot be shown together: they are of different drivers: a.sys; b.sys"
        );
    }
}

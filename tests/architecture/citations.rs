//! What comments and pages cite is there: `verifier.md 4.2` names a page of this repository and a section of it, and paths
//! and links in pages lead somewhere.
//!
//! ```text
//!  // Source: verifier.md 4.1, 5.                   page, sections      a heading that begins with the number
//!  // Source: kd-serial.md, "Packets".              page, heading       a heading of these words
//!  [how](docs/adding.md), `src/commands/mod.rs`     in a page           a file or folder
//! ```

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::source::{block_comment_len, character_len, quoted_len, raw_string_len};

/// Folders whose comments are read, where they exist.
const CITING: &[&str] = &["src", "protocol", "sim", "images", "tests", "benches", "fuzz", "examples"];
/// How a path inside the repository, or inside a package of it, begins.
const OWN_PATHS: &[&str] = &[
    "src/",
    "protocol/",
    "sim/",
    "images/",
    "tests/",
    "benches/",
    "fuzz/",
    "docs/",
    "examples/",
    "images/",
    ".ci/",
];
/// Folders that are not the project's.
const FOREIGN: &[&str] = &["target", ".git", ".venv-interop"];

#[test]
fn every_page_and_section_that_a_comment_cites_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let pages = pages(root);
    let mut cited = 0;
    let mut dangling = Vec::new();
    for folder in CITING {
        for file in files(&root.join(folder)) {
            let comments = match file.extension().and_then(|extension| extension.to_str()) {
                Some("rs") => rust_comments(&read(&file)),
                Some("toml" | "py") => hash_comments(&read(&file)),
                _ => continue,
            };
            for (line, comment) in comments {
                let found = citations(&comment);
                cited += found.len();
                let place = format!("{}:{line}", inside(root, &file));
                dangling
                    .extend(found.iter().filter_map(|it| Some(format!("{place} {}", it.missing(&pages)?))));
            }
        }
    }
    assert!(cited > 50, "only {cited} citations were found");
    assert!(dangling.is_empty(), "citations without what they cite:\n  {}", dangling.join("\n  "));
}

#[test]
fn every_link_and_path_in_a_page_leads_somewhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut followed = 0;
    let mut dangling = Vec::new();
    for page in files(root).into_iter().filter(|file| file.extension().is_some_and(|it| it == "md")) {
        let text = read(&page);
        let folder = page.parent().expect("a file lies in a folder");
        let links = links(&text).map(|link| (link, vec![folder]));
        // A page of a package says `tests/pair.rs` for the package's own.
        let paths = own_paths(&text)
            .map(|path| (path, folder.ancestors().take_while(|it| it.starts_with(root)).collect()));
        for (target, bases) in links.chain(paths) {
            followed += 1;
            if !bases.iter().any(|base| base.join(target).exists()) {
                dangling.push(format!("{}: {target}", inside(root, &page)));
            }
        }
    }
    assert!(followed > 40, "only {followed} links and paths were found");
    assert!(dangling.is_empty(), "links and paths to nowhere:\n  {}", dangling.join("\n  "));
}

#[test]
fn every_hop_of_the_two_lives_is_a_function_of_its_file() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = read(&root.join("docs/life.md"));
    let hops: Vec<_> = page.lines().filter_map(hop).collect();
    assert!(hops.len() > 20, "only {} hops were found", hops.len());
    for (file, function) in hops {
        assert!(
            defines(&read(&root.join(file)), function),
            "docs/life.md: {file} has no function {function}"
        );
    }
    assert_eq!(hop("| It is sent | `src/a.rs` | `drain` |"), Some(("src/a.rs", "drain")));
    assert!(defines("pub async fn drain(", "drain") && defines("fn drain<T>(", "drain"));
    assert!(!defines("fn drain_line() { drain(); }", "drain"));
}

#[test]
fn a_citation_is_read_however_it_is_written() {
    let shown = |comment: &str| -> Vec<String> {
        citations(comment).iter().map(|it| format!("{} {:?}", it.page, it.sections)).collect()
    };
    assert_eq!(shown("Source: verifier.md 4.1, 5."), [r#"verifier.md ["4.1", "5"]"#]);
    assert_eq!(shown("PROTOCOL.md 7 and 14; 526 of 526"), [r#"PROTOCOL.md ["7", "14"]"#]);
    assert_eq!(
        shown("verifier.md 3.4, samples.md S5 to S9"),
        [r#"verifier.md ["3.4"]"#, r#"samples.md ["S5", "S9"]"#]
    );
    assert_eq!(shown(r#"kd-serial.md, "Packets"."#), [r#"kd-serial.md ["Packets"]"#]);
    assert_eq!(shown(r#"PROTOCOL.md 14, "Going on""#), [r#"PROTOCOL.md ["14", "Going on"]"#]);
    assert_eq!(shown("(`tests/FAULTS.md`) and 3 others"), [r#"tests/FAULTS.md []"#]);
    assert_eq!(shown("a_file.mdx, .md, x.md5"), [""; 0]);

    let comments =
        rust_comments("//! See verifier.md\n//! 4.2.\nlet x = \"a.md 1\"; // b.md 2\n/* c.md 3 */\n");
    let cited: Vec<_> = comments
        .iter()
        .flat_map(|(line, text)| citations(text).into_iter().map(|it| (*line, it.page)))
        .collect();
    assert_eq!(cited, [(1, "verifier.md".into()), (3, "b.md".into()), (4, "c.md".into())]);
    assert_eq!(citations(&comments[0].1)[0].sections, ["4.2"], "a citation may be broken by a line's end");
}

#[test]
fn a_citation_of_what_is_not_there_is_found() {
    let page = "# Title\n\n## 4. The log\n\n### 4.1 Data\n\n## S4c. A session\n\n## Packets\n";
    let pages = BTreeMap::from([("docs/verifier.md".to_owned(), page.to_owned())]);
    let missing = |comment: &str| citations(comment).iter().find_map(|it| it.missing(&pages));
    for there in [
        "verifier.md",
        "docs/verifier.md 4",
        "verifier.md 4.1",
        "verifier.md S4c",
        r#"verifier.md, "Packets""#,
    ] {
        assert_eq!(missing(there), None, "{there}");
    }
    assert_eq!(missing("kdnet.md 8.2").unwrap(), "cites kdnet.md, which is no page here");
    assert_eq!(missing("tests/verifier.md").unwrap(), "cites tests/verifier.md, which is no page here");
    assert_eq!(missing("verifier.md 4.2").unwrap(), "cites verifier.md 4.2, which no heading has");
    assert_eq!(missing("verifier.md 1").unwrap(), "cites verifier.md 1, which no heading has");
    assert_eq!(missing("verifier.md S4").unwrap(), "cites verifier.md S4, which no heading has");
    assert_eq!(missing(r#"verifier.md, "size""#).unwrap(), "cites verifier.md size, which no heading has");
}

/// File and function of a row of a table of hops.
fn hop(row: &str) -> Option<(&str, &str)> {
    let mut cells = row.split('|').map(str::trim).skip(2);
    let mut code = || cells.next()?.strip_prefix('`')?.strip_suffix('`');
    Some((code()?, code()?))
}

fn defines(source: &str, function: &str) -> bool {
    source
        .match_indices(&format!("fn {function}"))
        .any(|(at, found)| source[at + found.len()..].starts_with(['(', '<']))
}

/// A page that is cited, and which parts of it.
struct Citation {
    page: String,
    /// Numbers (`4.2`, `S4c`) and words of headings.
    sections: Vec<String>,
}

impl Citation {
    /// What of it is not in `pages`, which are texts by path.
    fn missing(&self, pages: &BTreeMap<String, String>) -> Option<String> {
        let is_it = |path: &str| {
            path.strip_suffix(&self.page).is_some_and(|rest| rest.is_empty() || rest.ends_with('/'))
        };
        let texts: Vec<_> = pages.iter().filter(|(path, _)| is_it(path)).map(|(_, text)| text).collect();
        if texts.is_empty() {
            return Some(format!("cites {}, which is no page here", self.page));
        }
        let has = |section: &String| {
            texts.iter().any(|text| headings(text).any(|heading| is_headed(heading, section)))
        };
        let lost = self.sections.iter().find(|section| !has(section))?;
        Some(format!("cites {} {lost}, which no heading has", self.page))
    }
}

/// The texts of a page's headings.
fn headings(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches('#').trim())
}

/// True if `heading` is that of a section: it begins with its number, or consists of its words.
fn is_headed(heading: &str, section: &str) -> bool {
    let number = heading.split_whitespace().next().unwrap_or_default().trim_end_matches(['.', ':']);
    number == section || heading == section
}

/// What a comment cites.
fn citations(comment: &str) -> Vec<Citation> {
    const END: &str = ".md";
    let is_of_name = |c: char| c.is_ascii_alphanumeric() || "._-/".contains(c);
    let mut citations = Vec::new();
    for (dot, _) in comment.match_indices(END) {
        let (before, after) = (&comment[..dot], &comment[dot + END.len()..]);
        let name = &before[before.trim_end_matches(is_of_name).len()..];
        if name.is_empty() || after.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_') {
            continue;
        }
        let page = format!("{}{END}", name.trim_start_matches("../"));
        citations.push(Citation { page, sections: sections(after) });
    }
    citations
}

/// The sections that follow a page's name: `4.1, 5`, `S5 to S9`, `14, "Going on"`.
fn sections(mut rest: &str) -> Vec<String> {
    let mut sections = Vec::new();
    loop {
        let next =
            [" and ", " to ", ", section ", ", ", " "].iter().find_map(|between| rest.strip_prefix(between));
        let Some(next) = next else { return sections };
        let section = match next.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').map(|(words, _)| (words, words.len() + 2)),
            None => number(next).map(|number| (number, number.len())),
        };
        let Some((section, len)) = section else { return sections };
        sections.push(section.to_owned());
        rest = &next[len..];
    }
}

/// `4`, `4.2` or `S4c` at the beginning of `text`.
fn number(text: &str) -> Option<&str> {
    let word = &text[..text.find(|c: char| !c.is_ascii_alphanumeric() && c != '.').unwrap_or(text.len())];
    let word = word.trim_end_matches('.');
    let digits = word.strip_prefix('S').unwrap_or(word);
    let is_number = digits.starts_with(|c: char| c.is_ascii_digit())
        && digits
            .trim_end_matches(|c: char| c.is_ascii_lowercase())
            .chars()
            .all(|c| c.is_ascii_digit() || c == '.');
    is_number.then_some(word)
}

/// Where Markdown links of a page lead inside of the repository, without the part behind `#`.
fn links(text: &str) -> impl Iterator<Item = &str> {
    text.split("](").skip(1).filter_map(|rest| {
        let target = rest.split_once(')')?.0.split('#').next()?;
        (!target.is_empty() && !target.contains("://")).then_some(target)
    })
}

/// Paths of the repository that a page names as `code`; those with a placeholder (`NAME`, `*`) are left out.
fn own_paths(text: &str) -> impl Iterator<Item = &str> {
    let is_path = |code: &&str| {
        OWN_PATHS.iter().any(|start| code.starts_with(start))
            && code.chars().all(|c| c.is_ascii_alphanumeric() || "._-/".contains(c))
            && !code.contains("NAME")
    };
    text.split('`').skip(1).step_by(2).filter(is_path)
}

/// Comments of a Rust source and the lines that they begin in; line comments that follow each other are one.
fn rust_comments(text: &str) -> Vec<(usize, String)> {
    let mut comments: Vec<(usize, String)> = Vec::new();
    let (mut rest, mut line) = (text, 1);
    let mut follows_comment = false;
    while let Some(first) = rest.chars().next() {
        let word = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        let len = if rest.starts_with("//") {
            let len = rest.find('\n').unwrap_or(rest.len());
            let said = rest[..len].trim_start_matches(['/', '!']).trim();
            match comments.last_mut().filter(|_| follows_comment) {
                Some((_, comment)) => *comment = format!("{comment} {said}"),
                None => comments.push((line, said.to_owned())),
            }
            follows_comment = true;
            len
        } else if rest.starts_with("/*") {
            let len = block_comment_len(rest);
            comments.push((line, rest[..len].to_owned()));
            len
        } else if let Some(len) = raw_string_len(rest) {
            len
        } else if first == '"' || rest.starts_with("b\"") || rest.starts_with("c\"") {
            let open = rest.find('"').expect("it is there") + 1;
            open + quoted_len(&rest[open..], '"')
        } else if let Some(len) = character_len(rest) {
            len
        } else {
            word.max(first.len_utf8())
        };
        follows_comment &= rest.starts_with("//") || first.is_whitespace();
        line += rest[..len].matches('\n').count();
        rest = &rest[len..];
    }
    comments
}

/// Comments of a TOML or Python file that have lines of their own; neighbours are one.
fn hash_comments(text: &str) -> Vec<(usize, String)> {
    let mut comments: Vec<(usize, String)> = Vec::new();
    let mut ends_in = 0;
    for (line, said) in
        (1..).zip(text.lines()).filter_map(|(line, text)| Some((line, text.trim().strip_prefix('#')?)))
    {
        match comments.last_mut().filter(|_| ends_in + 1 == line) {
            Some((_, comment)) => *comment = format!("{comment} {}", said.trim()),
            None => comments.push((line, said.trim().to_owned())),
        }
        ends_in = line;
    }
    comments
}

/// Every page of the repository by its path.
fn pages(root: &Path) -> BTreeMap<String, String> {
    let pages =
        files(root).into_iter().filter(|file| file.extension().is_some_and(|extension| extension == "md"));
    pages.map(|file| (inside(root, &file), read(&file))).collect()
}

/// Every file below `folder`, in order; nothing if it is not there.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten() {
            let path = entry.expect("a folder of the repository can be listed").path();
            let is_foreign = path.file_name().is_some_and(|name| FOREIGN.iter().any(|it| name == *it));
            match path.is_dir() {
                true if !is_foreign => folders.push(path),
                true => {}
                false => found.push(path),
            }
        }
    }
    found.sort();
    found
}

fn read(file: &Path) -> String {
    fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

/// The path of `file` inside the repository, with slashes.
fn inside(root: &Path, file: &Path) -> String {
    let inside = file.strip_prefix(root).expect("it lies in the repository");
    inside.iter().map(|part| part.to_string_lossy()).collect::<Vec<_>>().join("/")
}

//! The picture on the README's first screen: the demo's session, drawn from what it prints today.

use std::fmt::Write as _;
use std::path::PathBuf;

use crate::program::command;

/// Pixels of a character, and of a line.
const CHARACTER: f64 = 8.4;
const LINE: usize = 19;
/// Around the text.
const MARGIN: usize = 16;
/// Rows of the list of blocks that are drawn.
const BLOCKS: usize = 3;

/// `UPDATE_EXPECTED=1 cargo test --test program picture` draws it anew.
#[test]
fn the_readme_s_picture_shows_what_the_demo_prints() {
    let drawn = svg(&session());
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs/demo.svg");
    if std::env::var_os("UPDATE_EXPECTED").is_some() {
        std::fs::write(&file, &drawn).unwrap();
    }
    let committed = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(committed == drawn, "docs/demo.svg is old; UPDATE_EXPECTED=1 draws it anew:\n{drawn}");
    let readme = std::fs::read_to_string(file.with_file_name("../README.md")).unwrap();
    assert!(
        readme.lines().take(40).any(|line| line.contains("](docs/demo.svg)")),
        "it is not on the first screen"
    );
}

/// What the demo prints, from its first command on, with fewer rows.
fn session() -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("session");
    let both = std::fs::File::create(&file).unwrap();
    let status = command(&["demo", "--batch"])
        .stdin(std::process::Stdio::null())
        .stdout(both.try_clone().unwrap())
        .stderr(both)
        .status()
        .unwrap();
    assert!(status.success());
    let text = std::fs::read_to_string(&file).unwrap();
    let lines: Vec<&str> = text.lines().skip_while(|line| !line.contains("kd> ")).collect();
    assert!(lines.iter().any(|line| line.contains("myfault!MyfaultDeviceControl")), "{text}");
    let mut shown = vec!["$ cargo run --release -- demo".to_owned()];
    let mut blocks = 0;
    for line in lines {
        let is_block = line.trim_start().starts_with("fffffa80") && line.contains("0x");
        blocks += usize::from(is_block);
        match blocks {
            _ if !is_block => shown.push(line.replace('\t', "    ").trim_end().to_owned()),
            1..=BLOCKS => shown.push(line.trim_end().to_owned()),
            _ if blocks == BLOCKS + 1 => shown.push("...".to_owned()),
            _ => {}
        }
    }
    while shown.last().is_some_and(|line| line.is_empty()) {
        shown.pop();
    }
    shown
}

fn svg(lines: &[String]) -> String {
    let columns = lines.iter().map(|line| line.chars().count()).max().unwrap_or(0);
    let width = 2 * MARGIN + (columns as f64 * CHARACTER).ceil() as usize;
    let height = 2 * MARGIN + lines.len() * LINE;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" role=\"img\" \
         aria-label=\"The demo finds which call path leaks\">\n<rect width=\"{width}\" height=\"{height}\" rx=\"6\" fill=\"#16191f\"/>\n\
         <g font-family=\"ui-monospace, Menlo, Consolas, 'DejaVu Sans Mono', monospace\" font-size=\"14\" fill=\"#d6d9df\" \
         xml:space=\"preserve\">\n"
    );
    for (row, line) in lines.iter().enumerate() {
        let y = MARGIN + (row + 1) * LINE - 5;
        let colour = match line {
            line if line.starts_with("$ ") || line.contains("kd> ") => {
                " fill=\"#7fd1ff\" font-weight=\"bold\""
            }
            line if line.contains("myfault!") => " fill=\"#ffb86b\"",
            _ => "",
        };
        let text = line.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
        writeln!(svg, "<text x=\"{MARGIN}\" y=\"{y}\"{colour}>{text}</text>").unwrap();
    }
    svg + "</g>\n</svg>\n"
}

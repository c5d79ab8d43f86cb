//! Pictures of what drivers hold, in the browser that people look at them with. Where there is no chromium with its driver
//! (Debian's packages chromium and chromium-driver), these tests say so and look at nothing.

mod browser;
mod snapshots;

use std::fs::File;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use serde_json::json;
use tempfile::TempDir;
use verikd::leaks::{Snapshot, Weight, write_html, write_svg};

use browser::Browser;
use snapshots::{Path, snapshot, three_drivers};

/// WebDriver's names of keys.
const DOWN: &str = "\u{e015}";
const ENTER: &str = "\u{e007}";
const ESCAPE: &str = "\u{e00c}";
const TAB: &str = "\u{e004}";

#[test]
fn a_page_opens_without_an_error_or_a_request_sorts_and_shows_a_blocks_stack() {
    looked_at(&[three_drivers(0)], |browser| {
        assert_eq!(browser.texts("h1"), ["Outstanding pool of 3 drivers"]);
        assert_eq!(browser.texts("#groups tr.group").len(), 6);
        let first =
            |column: usize| browser.texts(&format!("#groups tr.group:first-child td:nth-child({column})"));
        assert_eq!(first(1), ["myfault!MyfaultDeviceControl+0x358"], "what holds the most comes first");
        assert_eq!(first(4), ["9.80 MiB"]);

        browser.click("#columns th:nth-child(6) button");
        assert_eq!(first(1), ["netfilt!FilterReceiveNetBufferLists+0x4c"], "by blocks");
        assert_eq!(
            browser.run("return document.querySelector('#columns th:nth-child(6)').ariaSort"),
            "descending"
        );
        browser.click("#columns th:nth-child(6) button");
        assert_eq!(first(1), ["usbstor2!AddDevice+0x44"]);
        assert_eq!(browser.texts("#columns th[aria-sort]").len(), 1);

        browser.click("#groups tr.group:first-child button");
        assert!(
            browser.texts("#groups tr.detail > td")[0].contains("the stack is not known, only the caller")
        );
        browser.click("#columns th:nth-child(4) button");
        browser.click("#groups tr.group:first-child button");
        browser.click("#groups tr.detail .blocks tr.block:nth-child(2) button");
        let [block] = &browser.texts("#groups .blocks tr.detail")[..] else { panic!("one block is open") };
        for fact in [
            "fffffa8005410000",
            "0xfb000 (1,028,096)",
            "Leak",
            "fffffa8003c01060",
            "nt!VerifierExAllocatePoolEx+0x1d",
            "fffff8800447d634 myfault!MyfaultDeviceControl+0x358",
            "nt!KiSystemServiceCopyEnd+0x13",
        ] {
            assert!(block.contains(fact), "{fact} is not in:\n{block}");
        }
        assert_eq!(browser.texts(".notes li"), ["usbstor2.sys counts 19 allocations, and 17 are listed"]);
    });
}

#[test]
fn a_flame_graph_is_gone_through_by_keys() {
    looked_at(&[three_drivers(0)], |browser| {
        let focused = || browser.run("return document.activeElement.textContent");
        browser.run("document.querySelector('#flame [tabindex=\"0\"]').focus()");
        browser.press(&[DOWN, DOWN].concat());
        assert_eq!(focused(), "nt!KiSystemServiceCopyEnd+0x13");
        let told = browser.texts("#told")[0].clone();
        assert_eq!(told, "nt!KiSystemServiceCopyEnd+0x13: 9.88 MiB (0x9e2000), 71.6 %, 50 blocks");
        let frames = || browser.texts("#flame .frame").len();
        let all = frames();
        browser.press(ENTER);
        assert!(frames() < all, "only what is in the frame, and what it is in");
        assert_eq!(focused(), "nt!KiSystemServiceCopyEnd+0x13");
        browser.press(ESCAPE);
        assert_eq!(frames(), all);
        browser.click("#flame-weight button:nth-child(2)");
        assert_eq!(browser.texts("#flame-weight [aria-pressed=true]"), ["by blocks"]);
        // One stop in the order of Tab, however many frames there are.
        browser.run("document.querySelector('#flame [tabindex=\"0\"]').focus()");
        browser.press(TAB);
        assert_eq!(browser.run("return document.activeElement.id"), "find");
    });
}

#[test]
fn a_name_of_markup_is_text_on_the_page() {
    let hostile = "<script>document.title='run'</script><img src=x onerror=\"document.title='run'\">";
    let paths =
        [Path { driver: hostile, tag: "<b>", frames: &[hostile, "</script><h1>"], blocks: 2, size: 0x100 }];
    let mut shown = snapshot(0, &paths);
    shown.notes = vec![hostile.into()];
    looked_at(&[shown], |browser| {
        browser.click("#groups tr.group button");
        browser.click("#groups .blocks tr.block button");
        assert_eq!(browser.run("return document.scripts.length"), 2);
        assert_eq!(browser.run("return document.querySelectorAll('img, b').length"), 0);
        assert_eq!(browser.texts("h1"), [format!("Outstanding pool of {hostile}")]);
        assert_eq!(browser.run("return document.title"), format!("Outstanding pool of {hostile}"));
        assert_eq!(browser.texts(".notes li"), [hostile]);
        assert_eq!(browser.texts("#groups tr.group td")[..3], [hostile, hostile, "<b>"]);
        assert!(browser.texts("#groups .blocks .stack")[0].contains("</script><h1>"));
        assert!(browser.texts("#flame .frame").contains(&"</script><h1>".to_owned()));
    });
}

#[test]
fn twenty_thousand_blocks_are_on_the_page_and_few_of_them_drawn() {
    let frames: &[&str] = &["a!Leak+0x10", "nt!Io"];
    let path = |tag, blocks| Path { driver: "a.sys", tag, frames, blocks, size: 0x80 };
    looked_at(&[snapshot(0, &[path("One", 15_000), path("Two", 5_000)])], |browser| {
        assert_eq!(browser.texts("tr.block").len(), 0);
        browser.click("#groups tr.group:first-child button");
        assert_eq!(browser.texts("tr.block").len(), 100);
        assert!(browser.texts("#groups .detail")[0].contains("100 of 15,000 blocks"));
        browser.click("#groups .detail .more button");
        assert_eq!(browser.texts("tr.block").len(), 1000);
        browser.click("#groups tr.group:first-child button");
        // An address inside of the last block.
        let inside = 0xffff_fa80_0540_0000_u64 + 19_999 * 0x1_0000 + 0x7f;
        browser.click("#find");
        browser.press(&format!("{inside:x}"));
        assert_eq!(browser.texts("#groups tr.group td:nth-child(3)"), ["Two"]);
        assert!(browser.texts(".blocks tr.detail")[0].contains(&format!("{:x}", inside - 0x7f)));
    });
}

#[test]
fn several_snapshots_show_what_grew() {
    let all: Vec<_> = [0, 1, 2, 5, 10].map(three_drivers).into();
    looked_at(&all, |browser| {
        assert_eq!(browser.texts("#growth h2"), ["Growth"]);
        assert_eq!(browser.run("return document.querySelectorAll('#chart .series').length"), 3);
        let legend = browser.texts("#chart-legend li");
        assert!(
            legend[1].starts_with("myfault.sys: myfault!MyfaultDeviceControl+0x358 (+29.41 MiB)"),
            "{legend:?}"
        );
        browser.click("#columns th:nth-child(9) button");
        let growth = browser.texts("#groups td:nth-child(9)");
        assert_eq!(growth[0], "+29.41 MiB each time");
        assert_eq!(growth[5], "\u{2212}40.00 KiB");
        browser.click("#growth-weight button:nth-child(2)");
        assert!(browser.texts("#chart-legend li")[0].starts_with("all (+120 blocks)"));
    });
}

#[test]
fn a_snapshot_that_holds_nothing_has_a_page() {
    looked_at(&[Snapshot::empty()], |browser| {
        assert_eq!(browser.texts("h1"), ["Outstanding pool of no driver"]);
        assert_eq!(browser.texts("section:not([hidden])").len(), 0);
    });
}

#[test]
fn an_image_opens_without_an_error_or_a_request() {
    in_browser(
        "leaks.svg",
        |file| write_svg(&three_drivers(0), Weight::Bytes, file).expect("an image"),
        |browser| {
            let frames = browser.texts("#frames g > text").len();
            assert!(frames > 15, "{frames}");
            browser.click("#frames g:nth-child(3) rect");
            assert_eq!(
                browser.run("return document.getElementById('unzoom').classList.contains('hide')"),
                false
            );
        },
    );
}

/// Looks at a page about snapshots, and holds the page to silence.
fn looked_at(snapshots: &[Snapshot], look: impl FnOnce(&Browser)) {
    in_browser("leaks.html", |file| write_html(snapshots, file).expect("a page"), look);
}

fn in_browser(name: &str, write: impl FnOnce(&mut File), look: impl FnOnce(&Browser)) {
    /// One browser at a time: each takes all that a small machine has.
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(browser) = Browser::start() else {
        eprintln!("skipped: there is no chromium with its chromedriver here to look at {name} with");
        return;
    };
    let folder: TempDir = tempfile::tempdir().expect("a folder");
    let page: PathBuf = folder.path().join(name);
    write(&mut File::create(&page).expect("a file"));
    let own = format!("file:///{}", page.display().to_string().replace('\\', "/").trim_start_matches('/'));
    browser.open(&own);
    look(&browser);
    assert_eq!(json!(browser.console()), json!([]), "nothing is written to the console");
    let foreign: Vec<_> =
        browser.requests().into_iter().filter(|url| *url != own && !url.starts_with("data:")).collect();
    assert!(foreign.is_empty(), "requests to {foreign:?}");
}

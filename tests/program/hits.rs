//! `!poolhit` as it is typed: what it prints, where it leaves the machine, what it refuses.

use crate::program::{Setup, verikd};
use crate::reviewed::assert_reviewed;

/// The line that tells times, without them.
fn timeless(text: &str) -> String {
    let is_of_times = |line: &&str| line.contains("The machine stood still for");
    let cut = |line: &str| {
        if is_of_times(&line) {
            line.split(" The machine stood").next().unwrap_or_default().to_owned()
        } else {
            line.to_owned()
        }
    };
    text.lines().map(|line| cut(line) + "\n").collect()
}

#[test]
fn who_allocates_the_tag_is_reviewed_and_the_prompt_stands_where_the_last_did() {
    let setup = Setup::new();
    let options = ["--callers", "3", "--leak-every", "100ms", "--scenario", "verifier-off"];
    let mut target = setup.target(&options);
    let ended = setup.debug(&["-b", "-c", "!poolhit Leak -n 3; k; ? poi(nt!PoolHitTag) & 0xffffffff"]);
    assert_eq!(ended.code, 0, "{}", ended.err);
    assert_reviewed("pool", "hits", &timeless(&ended.out));
    target.wait_for("Runs on");
}

#[test]
fn a_stack_that_was_to_end_within_the_pool_has_no_caller() {
    let setup = Setup::new();
    let _target = setup.target(&["--callers", "3", "--leak-every", "100ms", "--scenario", "verifier-off"]);
    let ended = setup.debug(&["-b", "-c", "!poolhit Leak -n 1 -k 1"]);
    assert_eq!(ended.code, 0, "{}", ended.err);
    assert!(ended.out.contains("1. 1 allocation, 100.0 %, driver not known\n"), "{}", ended.out);
    assert!(ended.out.contains("allocator:\n") && !ended.out.contains("call path:\n"), "{}", ended.out);
    assert!(ended.out.contains("there may be more than 1 frame"), "{}", ended.out);
}

#[test]
fn pictures_are_of_the_allocations() {
    let setup = Setup::new();
    let mut target = setup.target(&["--callers", "3", "--leak-every", "50ms", "--scenario", "verifier-off"]);
    let file = |name: &str| setup.folder.path().join(name).display().to_string();
    let (folded, svg, html) = (file("hits.folded"), file("hits.svg"), file("hits.html"));
    let (connection, symbols) = (setup.connection("1.2.3.4"), setup.symbols().display().to_string());
    let line = ["hits", "-k", &connection, "-y", &symbols, "--tag", "Leak", "--count", "6"];
    let pictures = ["--folded", &folded, "--svg", &svg, "--html", &html];
    let ended = verikd(&[&line[..], &pictures].concat());
    assert_eq!(ended.code, 0, "{}", ended.err);
    let text = |path: &str| std::fs::read_to_string(path).unwrap();
    let counts =
        text(&folded).lines().map(|it| it.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum::<u64>();
    assert_eq!(counts, 6, "{}", text(&folded));
    assert!(text(&svg).contains("Allocations with tag Leak by blocks"), "{}", text(&svg));
    assert!(text(&html).contains("<title>Allocations with tag Leak</title>"));
    assert!(!text(&html).contains("The kernel is at 0"));
    target.wait_for("Runs on");
}

#[test]
fn what_cannot_be_is_refused_before_anything_is_written() {
    let setup = Setup::new();
    let _target = setup.target(&[]);
    for (line, said) in [
        ("!poolhit", "a tag is missing"),
        ("!poolhit Leaks", "a tag has four characters"),
        ("!poolhit Leak -n none", "no decimal number of hits"),
        ("!poolhit L*", "one tag is wanted"),
    ] {
        let refused = setup.debug(&["-b", "-c", line]);
        assert!(refused.code == 2 && refused.err.contains(said), "{line}: {}", refused.err);
    }
}

//! Where options may stand: before and behind what they are options of, which an expression must not take for its own.

use crate::support::everything::named;
use crate::support::text::{run, text};

/// Lines that mean the same, each with an option behind a number or a name.
const SAME: [&[&str]; 10] = [
    &["!leaks -v -top 5", "!leaks -top 5 -v", "!leaks -top 0n5 /v", "!leaks -top 0x5 -v"],
    &[
        "!leaks -all -min 100",
        "!leaks -min 100 -all",
        "!leaks -min 0x80+80 -all",
        "!leaks -min 180 - 80 -all",
    ],
    &["!leaks -by caller -depth 3", "!leaks -depth 3 -by caller"],
    &["!leaks -tree -top 1 -min 10", "!leaks -min 10 -top 1 -tree"],
    &["!leaks -top 12 -by size", "!leaks -by size -top 0xc"],
    &["!pool -f -k fffffa800a000010", "!pool fffffa800a000010 -k -f", "!pool -k fffffa800a000008+8 /f"],
    &["!pool -k fffffa800a000010 2", "!pool fffffa800a000010 2 -k", "!pool fffffa800a000010 -k 2"],
    &["dt -r nt!_LIST_ENTRY fffffa800a000000", "dt nt!_LIST_ENTRY fffffa800a000000 -r"],
    &["!poolused /t 10 2", "!poolused 2 /t10", "!poolused 2 -t 0xa", "!poolused 2 /t 0n10"],
    &["!pooltag -q Leak", "!pooltag Leak -q", "!pooltag \"Leak\" -q", "!pooltag 0x6b61654c -q"],
];

#[test]
fn an_option_means_the_same_before_and_behind() {
    let booted = named("name").boot();
    for lines in SAME {
        let texts = lines.iter().map(|line| text(&booted.target(), line));
        let texts: Vec<_> = texts.collect();
        for (line, found) in lines.iter().zip(&texts) {
            assert_eq!(found, &texts[0], "{line}");
            assert!(!found.contains("usage: "), "{line}: {found}");
        }
    }
}

#[test]
fn what_is_no_option_is_named_and_nothing_is_computed_of_it() {
    let booted = named("name").boot();
    for (line, part) in [
        ("!pool fffffa800a000010 -x", "`-x` is none of the options"),
        ("!pool fffffa800a000010 -k 2 2", "`2` is one argument too many"),
        ("!leaks -top 5 -x", "`-x` is none of the options"),
        ("!leaks -top -v", "`-v` is no decimal number of groups"),
        ("!leaks -top", "how many groups?"),
        ("!leaks -top 1f", "`1f` is no decimal number of groups"),
        ("!leaks -min -1", "-min needs a number of bytes"),
        ("!leaks -min -top 5", "-min needs a number of bytes"),
        ("dt nt!_LIST_ENTRY fffffa800a000000 -x", "`-x` is no option"),
        ("!poolused /t abc", "`abc` is no decimal number of rows"),
        ("!poolused /txyz", "`-txyz` is none of the options"),
        ("!pooltag Leak -x", "`-x` is none of the options"),
        ("!pooltag L*", "`L*`: one tag is wanted"),
    ] {
        let error = run(&booted.target(), line).map(|_| ()).unwrap_err();
        assert!(error.is_usage() && error.to_string().contains(part), "{line}: {error}");
    }
}

//! What a user types.

use super::{run, text};
use crate::support::text::WithNotes as _;
use crate::support::verifier::*;

#[test]
fn a_driver_may_be_named_without_extension_and_in_any_case() {
    let booted = leak(Build::Windows7).boot();
    let expected = text(&booted, "!verifier 3 myfault.sys");
    for line in ["!verifier 3 MYFAULT.SYS", "!verifier 0x3 myfault", "!VERIFIER 0n3 MyFault", "!verifier 3"] {
        assert_eq!(text(&booted, line), expected, "{line}");
    }
}

/// "Type !verifier 3 drivername.sys for info on the allocations that were leaked": bug check 0xC4/0x62, typed as people do.
#[test]
fn what_bug_check_c4_62_tells_people_to_type_works_as_they_type_it() {
    let booted = leak(Build::Windows7).boot();
    let expected = text(&booted, "!verifier 3 myfault.sys");
    assert!(expected.contains("     Leak      "), "{expected}");
    for line in [
        "!verifier 3 \"myfault.sys\"",
        "!verifier 3 \"MYFAULT\"",
        "!verifier 3 \"myfault.sys",
        "!verifier 0x3 MyFault.sys",
        "!Verifier  3   myfault.sys  ",
        r"!verifier 3 \SystemRoot\System32\drivers\myfault.sys",
        r#"!verifier 3 "C:\Program Files\Notmyfault\myfault.sys""#,
        "!verifier 3 \"\"",
    ] {
        assert_eq!(text(&booted, line), expected, "{line}");
    }
    let error = run(&booted, "!verifier 3 my fault.sys").err().unwrap().to_string();
    assert!(error.contains("`fault.sys` is one argument too many"), "{error}");
}

#[test]
fn the_second_argument_of_80_is_an_address_a_quantity_or_an_expression() {
    let booted = leak(Build::Windows7).boot();
    let of = |line: &str| {
        let log = run(&booted, line).unwrap().with_notes();
        (log["address"].clone(), log["quantity"].clone())
    };
    let address = (serde_json::json!("0xfffffa8005400000"), serde_json::Value::Null);
    for line in [
        "!verifier 80 fffffa8005400000",
        "!verifier 0x80 0xfffffa8005400000",
        "!VERIFIER 0X80 0XFFFFFA8005400000",
        "!verifier 80 fffffa80`05400000",
        "!verifier 80 0n18446738026483679232",
        "!verifier 80 poi(fffffa80`03220ec0)",
        "!verifier 80 (fffffa8005000000+400000)",
    ] {
        assert_eq!(of(line), address, "{line}");
    }
    for (line, quantity) in
        [("80 10", 0x10), ("80 0n10", 10), ("80 0x10", 0x10), ("80", 0x40), ("80 10*2", 0x20)]
    {
        assert_eq!(of(&format!("!verifier {line}")), (serde_json::Value::Null, quantity.into()), "{line}");
    }
}

#[test]
fn flags_decide_how_much_is_shown() {
    let booted = leak(Build::Windows7).boot();
    let settings = text(&booted, "!verifier");
    assert!(settings.contains("\tAll pool allocations checked on unload\n") && !settings.contains("Entry"));
    assert_eq!(text(&booted, "!verifier 0"), settings);
    assert_eq!(text(&booted, "!verifier 2"), settings, "2 needs 1");
    let rows = text(&booted, "!verifier 1");
    assert!(rows.starts_with(&settings) && rows.ends_with("00000000    myfault.sys\n"), "{rows}");
}

#[test]
fn the_forms_of_the_command_are_listed() {
    let booted = leak(Build::Windows7).boot();
    let manual = text(&booted, "!verifier -?");
    assert!(
        manual.contains("!verifier [-v] 80 [ADDRESS|QUANTITY]") && manual.lines().count() == 10,
        "{manual}"
    );
}

#[test]
fn a_line_that_cannot_be_read_says_what_is_taken() {
    let booted = leak(Build::Windows7).boot();
    for (line, problem) in [
        ("!verifier x", "`x` is no hexadecimal number for flags"),
        ("!verifier 3 a b", "`b` is one argument too many"),
        ("!verifier 80 1 2", "`2` is one argument too many"),
        ("!verifier 20", "0x20: Driver Hang Verification is of Windows XP"),
        ("!verifier 803", "0x803: how VerifierExt keeps the log"),
        ("!verifier 1003", "0x1000 is none of the flags"),
        ("!verifier -disable", "-disable would write to the target's memory"),
    ] {
        let error = run(&booted, line).err().unwrap();
        assert!(error.is_usage() && error.to_string().contains(problem), "{line}: {error}");
        assert!(error.to_string().contains("\nusage: !verifier [0|1|3 [DRIVER] | 4|8|40 [QUANTITY]"));
    }
}

#[test]
fn an_address_may_be_any_expression() {
    let booted = leak(Build::Windows7).boot();
    let plain = text(&booted, "!verifier 80 fffffa8005400000");
    let log = run(&booted, "!verifier 80 fffffa8005400000").unwrap().with_notes();
    let entry = format!("poi(poi(nt!VfPoolTraces) + 0n128 * 0n{})", log["entries"][0]["slot"]);
    for address in ["fffffa80`053ff000 + 0n4096".to_owned(), entry] {
        assert_eq!(text(&booted, &format!("!verifier 80 {address}")), plain, "{address}");
    }
    let error = run(&booted, "!verifier 80 nt!x").err().unwrap();
    assert!(!error.is_usage());
    assert!(
        error.to_string().starts_with("!verifier: Couldn't resolve error at 'nt!x': nt!x not found in"),
        "{error}"
    );
    assert!(run(&booted, "!verifier 80 1+").err().unwrap().is_usage());
}

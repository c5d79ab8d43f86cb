//! The target is changed where that was allowed, as it was typed, and nowhere else.

use serde_json::Value;

use crate::program::{Finished, Setup};

/// What a script prints, an object a line.
fn objects(finished: &Finished) -> Vec<Value> {
    finished.out.lines().map(|line| serde_json::from_str(line).expect(line)).collect()
}

fn error_of(object: &Value) -> &str {
    object["errors"][0]["text"].as_str().unwrap_or_default()
}

#[test]
fn what_was_written_is_there_also_for_a_later_session() {
    let setup = Setup::new();
    let _target = setup.target(&[]);
    let script = "db fffffa8005400000 L8; eb fffffa8005400000 1 2 'a' ff; db fffffa8005400000 L8; ed fffffa8005400000+4 'kaeL'; \
                  ew fffffa8005400000+8 1234 (-1); eq fffffa8005400010 fffff800`0141b000; eza fffffa8005400020 \"a b\"; \
                  eu fffffa8005400030 \"xy\"";
    let finished = setup.debug(&["-b", "--write", "--json", "-c", script]);
    assert_eq!(finished.code, 0, "{}{}", finished.out, finished.err);
    let told = objects(&finished);
    assert_eq!(told[1]["answer"]["bytes"], "01 02 61 ff");
    assert_eq!(told[1]["answer"]["took"], true);
    assert_ne!(told[0]["answer"]["elements"], told[2]["answer"]["elements"], "not what was read before");
    let later = setup.debug(&["-b", "-c", "db fffffa8005400000 L38"]);
    let shown: Vec<&str> = later.out.lines().map(|line| &line[19..66]).collect();
    assert_eq!(shown[0], "01 02 61 ff 4c 65 61 6b-34 12 ff ff 00 00 00 00");
    assert_eq!(&shown[1][..23], "00 b0 41 01 00 f8 ff ff");
    assert_eq!(&shown[2][..11], "61 20 62 00");
    assert_eq!(&shown[3][..11], "78 00 79 00");
}

/// As part 5 of Microsoft's series types it.
#[test]
fn a_tag_that_is_written_by_hand_stops_the_machine_until_it_is_cleared() {
    let setup = Setup::new();
    let _target = setup.target(&["--leak-every", "50ms"]);
    let script =
        "ed nt!PoolHitTag 'kaeL'; g; k; dd nt!PoolHitTag L1; g; ed nt!PoolHitTag 0; dd nt!PoolHitTag L1";
    let finished = setup.debug(&["-b", "--write", "-c", script]);
    assert_eq!(finished.code, 0, "{}{}", finished.out, finished.err);
    assert_eq!(finished.out.matches("myfault!MyfaultDeviceControl+0x358").count(), 1, "{}", finished.out);
    let words: Vec<&str> = finished.out.lines().filter_map(|line| line.split("  ").nth(1)).collect();
    assert!(words.contains(&"6b61654c") && words.contains(&"00000000"), "{}", finished.out);
    assert!(!finished.err.contains("nobody here"), "{}", finished.err);
    // One that was not taken away is, when the session ends.
    let left = setup.debug(&["-b", "--write", "-c", "ed nt!PoolHitTag 'kaeL'"]);
    assert_eq!(left.code, 0, "{}{}", left.out, left.err);
    let later = setup.debug(&["-b", "-c", "dd nt!PoolHitTag L1"]);
    assert!(later.out.contains("00000000"), "{}", later.out);
}

#[test]
fn nothing_is_written_that_nobody_has_allowed() {
    let setup = Setup::new();
    let _target = setup.target(&[]);
    let script = setup.folder.path().join("script");
    let refused = ["eb fffffa8005400000 1", "r rax=1", ".allow_write", "ea fffffa8005400000 \"x\""];
    std::fs::write(&script, refused.join("\n") + "\ndb fffffa8005400000 L1\n").unwrap();
    let finished = setup.debug(&["-b", "--json", "-cf", script.to_str().unwrap()]);
    assert_eq!(finished.code, 1, "{}", finished.err);
    let told = objects(&finished);
    for object in &told[..refused.len()] {
        assert!(error_of(object).contains("unless that is allowed: start it with --write"), "{object}");
        assert_eq!(object["errors"][0]["code"], "not_allowed");
    }
    assert_eq!(told[refused.len()]["answer"]["elements"][0], "0x0", "{}", finished.out);
}

#[test]
fn a_register_that_was_written_is_what_everything_shows() {
    let setup = Setup::new();
    let _target = setup.target(&[]);
    let script = "r rbx; r rbx=1122334455667788, zf=0; r bl=ff; r rbx, zf; ? @rbx; ~1s; r rbx=5; r rbx; ~0s; r rbx; r $csp=fffff80012345670, $retreg=7; r rsp, rax";
    let finished = setup.debug(&["-b", "--write", "-c", script]);
    assert_eq!(finished.code, 0, "{}{}", finished.out, finished.err);
    let lines: Vec<&str> = finished.out.lines().filter(|line| !line.contains("kd>")).collect();
    assert_eq!(
        lines[1..],
        [
            "rbx=11223344556677ff zf=0",
            "Evaluate expression: 1234605616436508671 = 11223344`556677ff",
            "rbx=0000000000000005",
            "rbx=11223344556677ff",
            "rsp=fffff80012345670 rax=0000000000000007"
        ]
    );
}

#[test]
fn a_wrong_line_changes_nothing() {
    let setup = Setup::new();
    let _target = setup.target(&[]);
    let wrong = [
        ("eb fffffa8005400000", "a value is missing"),
        ("eb fffffa8005400000 1 100", "0x100 does not fit 1 byte\n"),
        ("ew fffffa8005400000 1 x!y", "x"),
        ("ed fffffa8005400000 123456789", "does not fit 4 bytes"),
        ("ea fffffa8005400000 x", "the text stands in quotes"),
        ("ea fffffa8005400000 \"é\"", "ASCII"),
        ("r rax=", "r: "),
        ("r rax=1, cs=2", "`cs` is not written here"),
        ("r rax=1, rbx", "`rbx` is no REGISTER=VALUE"),
        ("r al=100", "does not fit al"),
        (".allow_write maybe", "neither 0 nor 1"),
        ("eb 1000 1", "0x1 bytes at 00000000`00001000 were not written: not mapped"),
    ];
    let lines: Vec<&str> = wrong.iter().map(|(line, _)| *line).collect();
    let script = setup.folder.path().join("script");
    // Each on a line of its own: one that changes something is not run behind one that failed.
    let then = "db fffffa8005400000 L1\nr rax\n.allow_write 0\neb fffffa8005400000 1\n";
    std::fs::write(&script, lines.join("\n") + "\n" + then).unwrap();
    let finished = setup.debug(&["-b", "--write", "--json", "-cf", script.to_str().unwrap()]);
    let told = objects(&finished);
    for ((line, why), object) in wrong.iter().zip(&told) {
        assert!(error_of(object).contains(why), "{line}: {object}");
    }
    let [byte, register, _, refused] = &told[wrong.len()..] else { panic!("{}", finished.out) };
    assert_eq!(byte["answer"]["elements"][0], "0x0", "{byte}");
    assert_ne!(register["answer"]["registers"][0]["value"], "0x0000000000000001", "{register}");
    assert!(error_of(refused).contains("unless that is allowed"), "{refused}");
}

#[test]
fn memory_is_written_to_a_file_up_to_a_hole() {
    let setup = Setup::new();
    let _target = setup.target(&[]);
    let file = setup.folder.path().join("kept.bin");
    let ask = |range: &str| setup.debug(&["-b", "-c", &format!(".writemem {} {range}", file.display())]);
    let finished = ask("nt L1000");
    assert_eq!((finished.code, finished.out.trim()), (0, "Writing 1000 bytes.."), "{}", finished.err);
    let kept = std::fs::read(&file).unwrap();
    assert_eq!((kept.len(), &kept[..2]), (0x1000, &b"MZ"[..]));
    let cut = ask("fffffa8005400000 L?200000");
    assert_eq!(cut.code, 3, "{}{}", cut.out, cut.err);
    assert!(cut.err.contains("The file ends at fffffa80`05"), "{}", cut.err);
    let kept = std::fs::read(&file).unwrap().len();
    assert!(kept > 0x1000 && kept < 0x20_0000, "{kept:#x}");
    let none = ask("1000 L10");
    assert_eq!(none.code, 1, "{}", none.err);
    assert_eq!(std::fs::read(&file).unwrap().len(), kept, "a file is not lost to a range that is not there");
}

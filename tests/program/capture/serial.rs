//! Serial traffic: raw bytes, JSON lines, gzipped or not.

use std::path::{Path, PathBuf};

use serde_json::Value;
use verikd::capture::{CaptureError, Options, Summary, run};

/// Windows XP SP3 and WinDbg: the protocol crate's vector.
const XP_SP3: &str = "protocol/tests/vectors/xp-sp3-serial.bin";

fn shown(path: &Path, json: bool) -> (String, Result<Summary, CaptureError>) {
    let options = Options { file: path.to_path_buf(), key: None, json, all: false, serial: true };
    let mut out = Vec::new();
    let result = run(&options, &mut out);
    (String::from_utf8(out).unwrap(), result)
}

fn shown_of(bytes: &[u8], json: bool) -> (String, Result<Summary, CaptureError>) {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    shown(file.path(), json)
}

fn xp() -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join(XP_SP3)).unwrap()
}

fn json_line(direction: &str, bytes: &[u8]) -> String {
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{{\"t\": 1.5, \"dir\": \"{direction}\", \"hex\": \"{hex}\"}}\n")
}

#[test]
fn the_bytes_of_a_real_line_show_every_packet() {
    let (text, result) = shown_of(&xp(), false);
    result.unwrap();
    assert!(text.contains("RESET id=00000000") && text.contains("GetVersion"), "{text}");
    assert!(text.ends_with("1460 bytes, 27 packets, 0 break-ins\n"), "{text}");
    assert!(!text.contains("DAMAGED") && !text.contains("belong to no packet"), "{text}");
}

#[test]
fn json_has_one_object_a_packet_and_the_summary() {
    let (text, result) = shown_of(&xp(), true);
    result.unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 28);
    assert_eq!(lines[27]["summary"]["packets"], 27);
    assert!(lines.iter().any(|line| line["api"] == "GetVersion"), "{text}");
}

#[test]
fn pieces_of_both_directions_are_put_together() {
    let mut recorded = json_line("open", b"");
    recorded += &json_line("t2h", b"Loading bb...\r\n");
    recorded += &json_line("h2t", b"b");
    for byte in xp() {
        recorded += &json_line("t2h", &[byte]);
    }
    recorded += &json_line("close-target", b"");
    let (text, result) = shown_of(recorded.as_bytes(), false);
    result.unwrap();
    assert!(text.contains("1.500000  H>T  serial  BREAK_IN"), "{text}");
    assert!(text.contains("-- close-target"), "{text}");
    assert!(text.ends_with("1476 bytes, 27 packets, 1 break-ins\n"), "a loader's letters are none: {text}");
}

#[test]
fn damage_is_named_and_what_follows_is_found() {
    let mut bytes = xp();
    let at = bytes.windows(4).position(|it| it == b"0000").unwrap();
    bytes[at + 20] ^= 0x55;
    let (text, result) = shown_of(&bytes, false);
    result.unwrap();
    assert!(text.contains("DAMAGED: a packet that has another sum"), "{text}");
    assert!(text.contains("26 packets"), "{text}");
}

#[test]
fn a_line_that_is_none_is_named() {
    for (line, wanted) in
        [("{\"dir\": 3}", "is not a JSON object"), ("{\"dir\":\"h2t\",\"hex\":\"6\"}", "hexadecimal")]
    {
        let recorded = json_line("h2t", b"b") + line + "\n";
        let (text, result) = shown_of(recorded.as_bytes(), false);
        let error = result.unwrap_err().to_string();
        assert!(error.contains(wanted) && error.contains("line 2"), "{error}");
        assert!(text.contains("BREAK_IN"), "what came before is shown: {text}");
    }
}

/// Recorded sessions with a kernel that nobody here wrote; a clone of the repository alone does not have them.
#[test]
fn recorded_sessions_with_reactos_are_shown_whole() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/captures/reactos-serial");
    let Ok(entries) = std::fs::read_dir(&folder) else {
        eprintln!("skipped: {} is not there", folder.display());
        return;
    };
    let files: Vec<PathBuf> = entries.map(|it| it.unwrap().path()).collect();
    let mut seen = 0;
    for file in files.iter().filter(|it| it.extension().is_some_and(|it| it == "gz")) {
        let (text, result) = shown(file, false);
        let summary = result.unwrap();
        assert!(summary.line_pieces > 0 && !text.contains("DAMAGED"), "{}: {text}", file.display());
        let packets = summary.census.rows().map(|row| row.count).sum::<u64>();
        assert!(packets >= 2, "{}: {packets} packets\n{text}", file.display());
        seen += 1;
    }
    assert_eq!(seen, 4);
}

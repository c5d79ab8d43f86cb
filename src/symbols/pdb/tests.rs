use std::path::Path;

use super::container::check_superblock;
use super::*;

/// A container header with these four fields, in a file of `file_len` bytes.
fn check(fields: [u32; 4], file_len: u64) -> Result<(), String> {
    let mut head = b"Microsoft C/C++ MSF 7.00\r\n\x1aDS\0\0\0".to_vec();
    head.extend(fields.iter().flat_map(|field| field.to_le_bytes()));
    check_superblock(Path::new("x.pdb"), &head, file_len).map_err(|error| error.to_string())
}

#[test]
fn a_header_that_promises_more_than_the_file_has_is_refused_before_anything_is_allocated() {
    assert_eq!(check([0x1000, 1, 4, 0x100], 0x4000), Ok(()));
    let wrong = |fields| check(fields, 0x4000).unwrap_err();
    assert_eq!(
        wrong([0x1000, 1, 5, 0x100]),
        "x.pdb: damaged: container header: cut off: it should have 0x5000 bytes and has 0x4000"
    );
    assert!(wrong([0x1000, 1, u32::MAX, 0x100]).contains("cut off"));
    assert!(wrong([0x1000, 1, 4, u32::MAX]).contains("a stream directory of 0xffffffff bytes"));
    assert!(wrong([0x1001, 1, 4, 0x100]).contains("pages of 0x1001 bytes"));
    assert!(wrong([0x8000_0000, 1, 4, 0x100]).contains("pages of 0x80000000 bytes"));
}

#[test]
fn what_is_no_pdb_is_named() {
    let what =
        |head: &[u8]| check_superblock(Path::new("x"), head, head.len() as u64).unwrap_err().to_string();
    assert_eq!(what(b""), "x: not a PDB");
    assert_eq!(what(b"MZ\x90\0"), "x: not a PDB");
    assert!(what(b"Microsoft MSFZ Container\r\n").contains("compressed PDB (MSFZ)"));
    assert!(what(b"MSCF\0\0\0\0").contains("cabinet"));
    assert!(what(b"BSJB\x01\0").contains("portable PDB"));
    assert!(what(b"Microsoft C/C++ MSF 7.00\r\n\x1aDS\0\0\0\x00\x10").contains("damaged: container header"));
}

#[test]
fn a_missing_file_and_a_folder_are_told_apart() {
    let error = PdbFile::open(Path::new("/no/such/file.pdb")).unwrap_err();
    assert!(matches!(error, SymbolError::Io { .. }), "{error}");
    let error = PdbFile::open(Path::new("/")).unwrap_err();
    assert_eq!(error.to_string(), "/: not a file");
}

//! PE headers of an image, as far as a debugger reads them.

use verikd::symbols::PdbIdentity;

/// Headers, debug directory and RSDS record of an x64 image of `size` bytes.
pub fn pe_image(size: u32, pdb: &PdbIdentity) -> Vec<u8> {
    const PE: usize = 0xe8;
    const DIRECTORY: usize = 0x400;
    const RECORD: usize = 0x438;
    let mut bytes = vec![0; RECORD + 24 + pdb.name.len() + 1];
    let mut put = |at: usize, field: &[u8]| bytes[at..at + field.len()].copy_from_slice(field);
    let word = |value: usize| u32::try_from(value).unwrap().to_le_bytes();
    put(0, b"MZ");
    put(0x3c, &word(PE));
    put(PE, b"PE\0\0\x64\x86");
    put(PE + 8, &word(0x5000_0000));
    put(PE + 24, &0x20b_u16.to_le_bytes());
    put(PE + 24 + 56, &size.to_le_bytes());
    put(PE + 24 + 108, &word(16));
    put(PE + 24 + 112 + 6 * 8, &[word(DIRECTORY), word(28)].concat());
    let record_size = 24 + pdb.name.len() + 1;
    put(DIRECTORY + 12, &[word(2), word(record_size), word(RECORD)].concat());
    put(RECORD, b"RSDS");
    put(RECORD + 4, &pdb.guid.0);
    put(RECORD + 20, &pdb.age.to_le_bytes());
    put(RECORD + 24, pdb.name.as_bytes());
    bytes
}

//! Headers of images of which nothing else is there.

/// What headers say of an image.
#[derive(Clone, Copy, Debug)]
pub(super) struct Headers<'a> {
    pub(super) is_32_bit: bool,
    pub(super) base: u64,
    /// Bytes in memory.
    pub(super) size: u32,
    pub(super) check_sum: u32,
    pub(super) timestamp: u32,
    pub(super) pdb: &'a str,
}

/// Bytes of headers, debug directory and debug record.
pub(super) const SIZE: usize = 0x400;

/// Where the signature is, the debug directory and its record.
const PE: u32 = 0x80;
const DEBUG_AT: u32 = 0x300;
const RECORD_AT: u32 = 0x340;
/// From the signature to the optional header.
const OPTIONAL_HEADER: u32 = PE + 0x18;

/// From an image's base to the seventh data directory, that of debug records.
pub(super) const fn debug_directory(is_32_bit: bool) -> u32 {
    OPTIONAL_HEADER + if is_32_bit { 0x60 } else { 0x70 } + 6 * 8
}

impl Headers<'_> {
    /// PE32 or PE32+ headers with one section, and a debug record that names the PDB.
    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; SIZE];
        let mut put = |at: u32, value: &[u8]| {
            bytes[at as usize..at as usize + value.len()].copy_from_slice(value);
        };
        put(0, b"MZ");
        put(0x3c, &PE.to_le_bytes());
        put(PE, b"PE\0\0");
        let file_header = PE + 4;
        let (machine, optional_size, characteristics, magic) =
            if self.is_32_bit { (0x14c, 0xe0, 0x10e, 0x10b) } else { (0x8664, 0xf0, 0x22, 0x20b) };
        // Machine, NumberOfSections, SizeOfOptionalHeader, Characteristics; Magic.
        for (at, value) in [
            (file_header, machine),
            (file_header + 2, 1),
            (file_header + 0x10, optional_size),
            (file_header + 0x12, characteristics),
            (OPTIONAL_HEADER, magic),
        ] {
            put(at, &u16::to_le_bytes(value));
        }
        put(file_header + 4, &self.timestamp.to_le_bytes());
        match self.is_32_bit {
            true => put(OPTIONAL_HEADER + 0x1c, &(self.base as u32).to_le_bytes()),
            false => put(OPTIONAL_HEADER + 0x18, &self.base.to_le_bytes()),
        }
        // AddressOfEntryPoint, alignments, SizeOfImage, SizeOfHeaders, CheckSum; NumberOfRvaAndSizes.
        for (offset, value) in [
            (0x10, 0x1000),
            (0x20, 0x1000),
            (0x24, 0x200),
            (0x38, self.size),
            (0x3c, SIZE as u32),
            (0x40, self.check_sum),
            (if self.is_32_bit { 0x5c } else { 0x6c }, 16),
        ] {
            put(OPTIONAL_HEADER + offset, &value.to_le_bytes());
        }
        const DEBUG_ENTRY_SIZE: u32 = 28;
        let directory = debug_directory(self.is_32_bit);
        put(directory, &DEBUG_AT.to_le_bytes());
        put(directory + 4, &DEBUG_ENTRY_SIZE.to_le_bytes());
        let section = OPTIONAL_HEADER + u32::from(optional_size);
        put(section, b".text\0\0\0");
        for (offset, value) in [(8, self.size - 0x1000), (0xc, 0x1000), (0x24, 0x6000_0020)] {
            put(section + offset, &value.to_le_bytes());
        }
        let record = self.record();
        const CODEVIEW: u32 = 2;
        for (offset, value) in
            [(4, self.timestamp), (0xc, CODEVIEW), (0x10, record.len() as u32), (0x14, RECORD_AT)]
        {
            put(DEBUG_AT + offset, &value.to_le_bytes());
        }
        put(RECORD_AT, &record);
        bytes
    }

    /// An RSDS record whose GUID is nobody else's.
    fn record(&self) -> Vec<u8> {
        const AGE: u32 = 1;
        let mut record = b"RSDS".to_vec();
        record.extend(self.timestamp.to_le_bytes());
        record.extend((self.base as u32).to_le_bytes());
        record.extend(b"verikd-x");
        record.extend(AGE.to_le_bytes());
        record.extend(self.pdb.as_bytes());
        record.push(0);
        record
    }
}

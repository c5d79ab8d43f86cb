//! Images of the 32-bit machine: their headers, which are all that a debugger without symbols looks at.

/// An image that is loaded.
#[derive(Clone, Copy, Debug)]
pub(super) struct Module {
    pub(super) file: &'static str,
    folder: &'static str,
    pdb: &'static str,
    pub(super) base: u32,
    /// Bytes in memory, whole pages.
    pub(super) size: u32,
    pub(super) check_sum: u32,
    pub(super) timestamp: u32,
}

/// Base, size and checksum are those that a real Windows XP SP3 announced.
pub(super) const NT: Module = Module {
    file: "ntkrnlpa.exe",
    folder: r"\WINDOWS\system32\",
    pdb: "ntkrpamp.pdb",
    base: 0x804d_8000,
    size: 0x1f_9000,
    check_sum: 0x20_50d3,
    timestamp: 0x4802_516a,
};

pub(super) const HAL: Module = Module {
    file: "hal.dll",
    folder: r"\WINDOWS\system32\",
    pdb: "halmacpi.pdb",
    base: 0x806d_1000,
    size: 0x2_1000,
    check_sum: 0x2_5e49,
    timestamp: 0x4802_517f,
};

pub(super) const DRIVER: Module = Module {
    file: "myfault.sys",
    folder: r"\??\C:\WINDOWS\system32\drivers\",
    pdb: "myfault.pdb",
    base: 0xf8a8_e000,
    size: 0x8000,
    check_sum: 0xa1b2,
    timestamp: 0x51c0_0004,
};

/// From an image's base to its directory of debug records: signature, file header, optional header, seventh directory.
pub(super) const DEBUG_DIRECTORY: u32 = PE + 0x18 + 0x60 + 6 * 8;

/// Where the headers are, the debug directory and its record.
const PE: u32 = 0x80;
const DEBUG_AT: u32 = 0x300;
const RECORD_AT: u32 = 0x340;
const HEADERS_SIZE: usize = 0x400;

impl Module {
    pub(super) fn path(&self) -> String {
        format!("{}{}", self.folder, self.file)
    }

    /// A PE32 image's headers with one section, and a debug record that names the PDB.
    pub(super) fn headers(&self) -> Vec<u8> {
        let mut bytes = vec![0; HEADERS_SIZE];
        let mut put = |at: u32, value: &[u8]| {
            bytes[at as usize..at as usize + value.len()].copy_from_slice(value);
        };
        put(0, b"MZ");
        put(0x3c, &PE.to_le_bytes());
        put(PE, b"PE\0\0");
        let file_header = PE + 4;
        // Machine, NumberOfSections, SizeOfOptionalHeader, Characteristics.
        for (offset, value) in [(0, 0x14c_u16), (2, 1), (0x10, 0xe0), (0x12, 0x10e)] {
            put(file_header + offset, &value.to_le_bytes());
        }
        put(file_header + 4, &self.timestamp.to_le_bytes());
        let optional_header = PE + 0x18;
        put(optional_header, &0x10b_u16.to_le_bytes());
        for (offset, value) in [
            (0x10, 0x1000),
            (0x1c, self.base),
            (0x20, 0x1000),
            (0x24, 0x200),
            (0x38, self.size),
            (0x3c, HEADERS_SIZE as u32),
            (0x40, self.check_sum),
            (0x5c, 16),
        ] {
            put(optional_header + offset, &value.to_le_bytes());
        }
        const DEBUG_ENTRY_SIZE: u32 = 28;
        put(DEBUG_DIRECTORY, &DEBUG_AT.to_le_bytes());
        put(DEBUG_DIRECTORY + 4, &DEBUG_ENTRY_SIZE.to_le_bytes());
        let section = optional_header + 0xe0;
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
        record.extend(self.base.to_le_bytes());
        record.extend(b"verikd-x");
        record.extend(AGE.to_le_bytes());
        record.extend(self.pdb.as_bytes());
        record.push(0);
        record
    }
}

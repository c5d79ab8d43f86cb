//! Images of the 32-bit machine: their headers, which are all that a debugger without symbols looks at.

use crate::windows::headers::Headers;

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

impl Module {
    pub(super) fn path(&self) -> String {
        format!("{}{}", self.folder, self.file)
    }

    pub(super) fn headers(&self) -> Vec<u8> {
        let Self { base, size, check_sum, timestamp, pdb, .. } = *self;
        Headers { is_32_bit: true, base: base.into(), size, check_sum, timestamp, pdb }.bytes()
    }
}

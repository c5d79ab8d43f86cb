//! Where the fields of each kind of file's headers are: offset, bytes.

use verikd_sim::DumpKind;

pub(crate) type Field = (u64, usize);

/// `DUMP_HEADER64`.
const HEADER_64: &[Field] = &[
    (0x0, 4),
    (0x4, 4),
    (0x8, 4),
    (0xc, 4),
    (0x10, 8),
    (0x18, 8),
    (0x20, 8),
    (0x28, 8),
    (0x30, 4),
    (0x34, 4),
    (0x38, 4),
    (0x3c, 4),
    (0x40, 8),
    (0x48, 8),
    (0x50, 8),
    (0x58, 8),
    (0x60, 8),
    (0x80, 8),
    // PhysicalMemoryBlock: NumberOfRuns, NumberOfPages, the first runs.
    (0x88, 4),
    (0x90, 8),
    (0x98, 8),
    (0xa0, 8),
    (0xa8, 8),
    (0xb0, 8),
    // ContextRecord: ContextFlags, MxCsr, segments, flags, Rsp, Rip.
    (0x348, 8),
    (0x378, 4),
    (0x37c, 4),
    (0x380, 8),
    (0x38c, 4),
    (0x3e0, 8),
    (0x440, 8),
    // Exception: Code, Flags, Record, Address, NumberParameters, the first of them.
    (0xf00, 4),
    (0xf04, 4),
    (0xf08, 8),
    (0xf10, 8),
    (0xf18, 4),
    (0xf20, 8),
    // DumpType, RequiredDumpSpace, SystemTime, Comment.
    (0xf98, 4),
    (0xfa0, 8),
    (0xfa8, 8),
    (0xfb0, 8),
    // SystemUpTime, MiniDumpFields, SecondaryDataState, ProductType, SuiteMask, WriterStatus.
    (0x1030, 8),
    (0x1038, 4),
    (0x103c, 4),
    (0x1040, 4),
    (0x1044, 4),
    (0x1048, 4),
    // KdSecondaryVersion, Attributes, BootId.
    (0x104c, 4),
    (0x1050, 4),
    (0x1054, 4),
];

/// `DUMP_HEADER32`.
pub(crate) const HEADER_32: &[Field] = &[
    (0x0, 4),
    (0x4, 4),
    (0x8, 4),
    (0xc, 4),
    (0x10, 4),
    (0x14, 4),
    (0x18, 4),
    (0x1c, 4),
    (0x20, 4),
    (0x24, 4),
    (0x28, 4),
    (0x2c, 4),
    (0x30, 4),
    (0x34, 4),
    (0x38, 4),
    (0x3c, 4),
    (0x5c, 1),
    (0x5d, 1),
    (0x60, 4),
    (0x64, 4),
    (0x68, 4),
    (0x6c, 4),
    (0x70, 4),
    (0x74, 4),
    (0x78, 4),
    (0x320, 4),
    (0x3d8, 4),
    (0x3e4, 4),
    (0x7d0, 4),
    (0x7d4, 4),
    (0x7d8, 4),
    (0x7dc, 4),
    (0x7e0, 4),
    (0x820, 8),
    (0x8a0, 4),
    (0x8a4, 4),
    (0xf88, 4),
    (0xf8c, 4),
    (0xf90, 4),
    (0xf94, 4),
    (0xf98, 4),
    (0xf9c, 4),
    (0xfa0, 8),
    (0xfb8, 8),
    (0xfc0, 8),
];

/// Behind the header: signatures, options, first page, pages, bits, the first of the bitmap.
const BITMAP: &[Field] =
    &[(0x2000, 4), (0x2004, 4), (0x2008, 4), (0x200c, 4), (0x2020, 8), (0x2028, 8), (0x2030, 8), (0x2038, 8)];

/// Behind the header: signatures, metadata, first page, count, total, the first ranges.
const RANGES: &[Field] = &[
    (0x2000, 4),
    (0x2004, 4),
    (0x2008, 4),
    (0x200c, 4),
    (0x2010, 8),
    (0x2018, 8),
    (0x2020, 4),
    (0x2028, 8),
    (0x2030, 8),
    (0x2038, 8),
    (0x2040, 8),
    (0x2048, 8),
];

/// `Elf64_Ehdr`, two `Elf64_Phdr`, the first note.
const ELF: &[Field] = &[
    (0, 4),
    (4, 1),
    (5, 1),
    (6, 1),
    (16, 2),
    (18, 2),
    (20, 4),
    (24, 8),
    (32, 8),
    (40, 8),
    (48, 4),
    (52, 2),
    (54, 2),
    (56, 2),
    (58, 2),
    (60, 2),
    (62, 2),
    (0x40, 4),
    (0x44, 4),
    (0x48, 8),
    (0x50, 8),
    (0x58, 8),
    (0x60, 8),
    (0x68, 8),
    (0x70, 8),
    (0x78, 4),
    (0x7c, 4),
    (0x80, 8),
    (0x88, 8),
    (0x90, 8),
    (0x98, 8),
    (0xa0, 8),
    (0xa8, 8),
    // Lengths of name and description, type, name; version, size; rsp, rip; cs; IDT; cr0, cr3, cr4; kernel_gs_base.
    (0xb0, 4),
    (0xb4, 4),
    (0xb8, 4),
    (0xbc, 8),
    (0xc4, 4),
    (0xc8, 4),
    (0xfc, 8),
    (0x14c, 8),
    (0x15c, 4),
    (0x244, 8),
    (0x24c, 8),
    (0x264, 8),
    (0x26c, 8),
    (0x274, 8),
];

const LIME: &[Field] = &[(0, 4), (4, 4), (8, 8), (16, 8), (24, 8)];

/// Every field of the headers of such a file.
pub(crate) fn of(kind: DumpKind) -> Vec<Field> {
    let behind: Vec<Field> = match kind {
        DumpKind::Elf => return ELF.to_vec(),
        DumpKind::Lime => return LIME.to_vec(),
        DumpKind::Full => Vec::new(),
        DumpKind::Active | DumpKind::Kernel => BITMAP.to_vec(),
        DumpKind::Ranges => RANGES.to_vec(),
        // TRIAGE_DUMP64 and what follows it: words of four bytes, but for three.
        DumpKind::Triage => {
            let words = (0x2000..0x20e0).step_by(4).map(|at| (at, 4));
            words.chain([(0x2048, 8), (0x2060, 8), (0x20d8, 8)]).collect()
        }
    };
    [HEADER_64, &behind].concat()
}

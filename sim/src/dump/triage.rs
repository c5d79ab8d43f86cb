//! A small memory dump: what Windows keeps of a crash where nothing more was wanted.
//!
//! ```text
//!  header | TRIAGE_DUMP64 | Mm | unloaded drivers | stack | drivers | names | debugger data | blocks | TRGD
//! ```
//! Places in the file are counted from its start.
//!
//! Source: `TRIAGE_DUMP64`, `DUMP_MM_STORAGE64` of the Windows SDK's `mindumpdef.h`; the order, and how unloaded drivers and
//! names are counted, of a real small dump of build 22000.

use kd_protocol::VirtAddr;

use super::{Writer, put};

const HEADER: usize = 0x2000;
/// What a real small dump has of the parts that there are, and 0x100: `DUMP_MM_STORAGE64` is filled.
const MINI_DUMP_FIELDS: u32 = 0xcff | 0x100;
const MM: usize = 0x50;
/// Bytes of the stack, from the stack pointer up.
const STACK: u64 = 0x2000;
/// `_KLDR_DATA_TABLE_ENTRY`, as far as it is kept.
const LIST_ENTRY: usize = 0x88;
const FULL_DLL_NAME: u64 = 0x48;
/// `_UNLOADED_DRIVERS`: name, start, end, when.
const UNLOADED: usize = 0x28;
const MAX_UNLOADED: u64 = 50;
/// Bytes of code on both sides of where the processor stood.
const CODE: u64 = 0x80;

impl Writer<'_> {
    /// The whole file: it is small.
    pub(super) fn triage(&self) -> Vec<u8> {
        let mut file = self.header(4);
        // The block that lists runs of pages was never set.
        for byte in (0x88..0x348).step_by(4) {
            put(&mut file, byte, b"PAGE");
        }
        put(&mut file, 0x1038, &MINI_DUMP_FIELDS.to_le_bytes());
        file.resize(HEADER + 0x88, 0);
        let field = |at: usize, value: usize| (HEADER + at, (value as u32).to_le_bytes());
        // Context and exception are the header's.
        let mut fields = vec![field(0xc, 0x348), field(0x10, 0xf00), field(0x44, 0xffff_ffff)];

        fields.push(field(0x14, file.len()));
        let mut mm = [0; MM];
        put(&mut mm, 0, &1_u32.to_le_bytes());
        put(&mut mm, 4, &(MM as u32).to_le_bytes());
        // MmVerifyDriverLevel: the first field of _MM_DRIVER_VERIFIER_DATA.
        mm[0x10..0x14].copy_from_slice(&self.bytes(self.variable("MmVerifierData"), 4));
        file.extend(mm);

        fields.push(field(0x18, file.len()));
        file.extend(self.unloaded());

        let context = &self.machine.processors()[0].context;
        let register = |at: usize| u64::from_le_bytes(context[at..at + 8].try_into().expect("eight bytes"));
        let (rsp, rip) = (register(0x98), register(0xf8));
        let stack = self.bytes(VirtAddr(rsp), STACK);
        fields.extend([field(0x28, file.len()), field(0x2c, stack.len())]);
        put(&mut file, HEADER + 0x48, &rsp.to_le_bytes());
        file.extend(stack);

        let drivers = self.drivers();
        fields.extend([field(0x30, file.len()), field(0x34, drivers.len())]);
        let mut name_at = file.len() + drivers.len() * (8 + LIST_ENTRY);
        let mut names = Vec::new();
        for (entry, name) in &drivers {
            file.extend((name_at as u64).to_le_bytes());
            file.extend(entry);
            let mut text = (name.len() as u32 / 2).to_le_bytes().to_vec();
            text.extend(name);
            text.resize((text.len() + 2).next_multiple_of(8), 0);
            name_at += text.len();
            names.extend(text);
        }
        fields.extend([field(0x38, file.len()), field(0x3c, names.len())]);
        file.extend(names);

        let block = self.variable("KdDebuggerDataBlock");
        let size = u32::from_le_bytes(self.bytes(block.offset(0x14), 4).try_into().expect("four bytes"));
        fields.extend([field(0x70, file.len()), field(0x74, size as usize)]);
        file.extend(self.bytes(block, size.into()));

        // What the parameters of a bug check lead to, and the code that ran.
        let bug_check = self.variable("KiBugCheckData");
        let mut blocks = vec![(bug_check, 40), (VirtAddr(rip - CODE), 2 * CODE)];
        let parameters = (1..5).map(|index| VirtAddr(self.word(bug_check.offset(8 * index))));
        blocks.extend(parameters.filter(|it| it.0 >> 47 == 0x1_ffff).map(|it| (it, 0x100)));
        let blocks: Vec<_> = blocks.into_iter().map(|(at, len)| (at, self.bytes(at, len))).collect();
        fields.extend([field(0x78, file.len()), field(0x7c, blocks.len())]);
        let mut at = file.len() + 16 * blocks.len();
        for (address, bytes) in &blocks {
            file.extend(address.0.to_le_bytes());
            file.extend((at as u32).to_le_bytes());
            file.extend((bytes.len() as u32).to_le_bytes());
            at += bytes.len();
        }
        blocks.into_iter().for_each(|(_, bytes)| file.extend(bytes));

        fields.push(field(0x8, file.len()));
        file.extend(b"TRGD");
        fields.push(field(0x4, file.len()));
        fields.into_iter().for_each(|(at, value)| put(&mut file, at, &value));
        file
    }

    /// Bytes of the machine's memory, up to the first page that is not mapped.
    fn bytes(&self, at: VirtAddr, len: u64) -> Vec<u8> {
        let mut bytes = vec![0; usize::try_from(len).expect("a few pages")];
        let got = self.machine.read_virtual(at, &mut bytes);
        bytes.truncate(got);
        bytes
    }

    /// The text of a `UNICODE_STRING`, UTF-16.
    fn text(&self, at: VirtAddr) -> Vec<u8> {
        self.bytes(VirtAddr(self.word(at.offset(8))), self.word(at) & 0xfffe)
    }

    /// Each loaded module's entry and path.
    fn drivers(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let head = self.machine.version().ps_loaded_module_list;
        let mut at = VirtAddr(self.word(head));
        let mut drivers = Vec::new();
        while at != head && drivers.len() < 0x1000 {
            let mut entry = self.bytes(at, LIST_ENTRY as u64);
            entry.resize(LIST_ENTRY, 0);
            drivers.push((entry, self.text(at.offset(FULL_DLL_NAME))));
            at = VirtAddr(self.word(at));
        }
        drivers
    }

    /// How many drivers were unloaded, and {UNICODE_STRING, twelve characters, start, end} of each.
    fn unloaded(&self) -> Vec<u8> {
        let array = VirtAddr(self.word(self.variable("MmUnloadedDrivers")));
        let entry = |index: u64| array.offset(index * UNLOADED as u64);
        let is_used = |at: &VirtAddr| self.word(at.offset(0x10)) != 0;
        let entries: Vec<_> = (0..MAX_UNLOADED).map(entry).filter(is_used).collect();
        let mut list = (entries.len() as u64).to_le_bytes().to_vec();
        for at in entries {
            let mut name = self.text(at);
            name.resize(24, 0);
            list.extend(self.bytes(at, 16));
            list.extend(name);
            list.extend(self.bytes(at.offset(0x10), 16));
        }
        list
    }
}

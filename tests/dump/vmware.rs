//! States of VMware's machines, with the memory beside them or in them, written here as docs/dumps.md 5 describes them.

use std::io::{Seek, SeekFrom, Write};
use std::path::Path;

use kd_protocol::PhysAddr;
use support::text::text;
use verikd::dump;
use verikd::source::Source;
use verikd_sim::windows::{Machine, WINDOWS_7_SP1};

use super::{debugger, folder, support, symbols};

const PAGE: u64 = 0x1000;
/// Frames of the first region; the file has the second before it.
const SPLIT: u64 = 0x400;

/// A tag with a short value.
fn tag(name: &str, indices: &[u32], value: &[u8]) -> Vec<u8> {
    let mut bytes = vec![(indices.len() as u8) << 6 | value.len() as u8, name.len() as u8];
    bytes.extend(name.as_bytes());
    bytes.extend(indices.iter().flat_map(|index| index.to_le_bytes()));
    bytes.extend(value);
    bytes
}

/// The head of a tag of `len` bytes whose data begins `padding` bytes behind it.
fn long_tag(name: &str, is_old: bool, len: u64, padding: u16) -> Vec<u8> {
    let mut bytes = vec![62, name.len() as u8];
    bytes.extend(name.as_bytes());
    for size in [len, len] {
        bytes.extend(&size.to_le_bytes()[..if is_old { 4 } else { 8 }]);
    }
    bytes.extend(padding.to_le_bytes());
    bytes.resize(bytes.len() + usize::from(padding), 0xcc);
    bytes
}

/// A state whose memory group has these tags; of the processors it has CR3.
fn state(magic: [u8; 4], cr3: u64, memory: &[u8]) -> Vec<u8> {
    let mut bytes = magic.to_vec();
    bytes.extend([8, 0, 0, 0, 2, 0, 0, 0]);
    let cpu =
        [tag("hv", &[0], &[1]), tag("CR64", &[0, 0], &[1; 8]), tag("CR64", &[0, 3], &cr3.to_le_bytes())];
    let cpu = [&cpu.concat()[..], &[0, 0]].concat();
    let behind_groups = 12 + 2 * 80;
    for (name, offset, len) in
        [("cpu", behind_groups, cpu.len()), ("memory", behind_groups + cpu.len(), memory.len())]
    {
        let mut group = name.as_bytes().to_vec();
        group.resize(64, 0);
        group.extend((offset as u64).to_le_bytes());
        group.extend((len as u64).to_le_bytes());
        bytes.extend(group);
    }
    bytes.extend(cpu);
    bytes.extend(memory);
    bytes
}

/// Two regions: the first lies in the file behind the second.
fn regions(frames: u64) -> Vec<u8> {
    let word = |value: u64| (value as u32).to_le_bytes();
    [
        tag("regionsCount", &[], &word(2)),
        tag("regionPPN", &[0], &word(0)),
        tag("regionPageNum", &[0], &word(frames - SPLIT)),
        tag("regionSize", &[0], &word(SPLIT)),
        tag("regionPPN", &[1], &word(SPLIT)),
        tag("regionPageNum", &[1], &word(0)),
        tag("regionSize", &[1], &word(frames - SPLIT)),
    ]
    .concat()
}

/// The machine's pages, each where `place` says, from `start` on.
fn write_memory(path: &Path, start: u64, machine: &Machine, place: impl Fn(u64) -> u64) {
    let mut file = std::fs::OpenOptions::new().create(true).truncate(false).write(true).open(path).unwrap();
    file.set_len(start + machine.ram()).unwrap();
    for frame in machine.pages_in_use() {
        let mut page = [0; PAGE as usize];
        machine.read_physical(PhysAddr(frame * PAGE), &mut page);
        file.seek(SeekFrom::Start(start + place(frame) * PAGE)).unwrap();
        file.write_all(&page).unwrap();
    }
}

fn stopped() -> Machine {
    let mut machine = Machine::new(&WINDOWS_7_SP1);
    machine.break_in();
    machine
}

fn is_the_machine(path: &Path, machine: &Machine) {
    let opened = debugger(path, &symbols(&WINDOWS_7_SP1));
    let target = opened.target().unwrap();
    assert_eq!(target.kernel().version().base, machine.version().kern_base);
    let told = text(&target, "!verifier 3 myfault.sys");
    assert_eq!(told.matches("     Leak      fffff8800447d634").count(), 10, "{told}");
    let registers = text(&target, "r");
    assert!(registers.contains("registers: no processor's are known of it"), "{registers}");
}

#[test]
fn a_state_leads_to_the_memory_beside_it() {
    let machine = stopped();
    let folder = folder("vmware");
    let frames = machine.ram() / PAGE;
    let (memory, named) = (folder.join("win.vmem"), folder.join("win.vmss"));
    write_memory(
        &memory,
        0,
        &machine,
        |frame| if frame < SPLIT { frame + frames - SPLIT } else { frame - SPLIT },
    );
    let tags = [&regions(frames)[..], &[0, 0]].concat();
    std::fs::write(&named, state(*b"\xd2\xbe\xd2\xbe", machine.page_table_root().0, &tags)).unwrap();
    is_the_machine(&named, &machine);
    // Whoever names the memory has the state beside it.
    is_the_machine(&memory, &machine);
    // Without registers the tables are looked for.
    std::fs::write(&named, state(*b"\xd3\xbe\xd3\xbe", 0, &tags)).unwrap();
    is_the_machine(&named, &machine);
    std::fs::remove_file(&memory).unwrap();
    let refused = dump::open(&named, None).unwrap_err().to_string();
    assert!(refused.contains("win.vmem"), "{refused}");
}

#[test]
fn a_snapshot_may_have_the_memory_in_it() {
    let machine = stopped();
    for (magic, is_old, padding) in [(*b"\xd0\xbe\xd2\xbe", true, 5_u16), (*b"\xd1\xba\xd1\xba", false, 0)] {
        let path = folder("vmware").join(format!("{is_old}.vmsn"));
        let _ = std::fs::remove_file(&path);
        let tags = [tag("regionsCount", &[], &[0; 4]), long_tag("Memory", is_old, machine.ram(), padding)];
        let head = state(magic, machine.page_table_root().0, &tags.concat());
        std::fs::write(&path, &head).unwrap();
        write_memory(&path, head.len() as u64, &machine, |frame| frame);
        // The end of the group's tags.
        std::fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(&[0, 0]).unwrap();
        is_the_machine(&path, &machine);
    }
}

/// Every byte of a state set to what it cannot be, and the state cut anywhere.
#[test]
fn a_state_of_another_form_is_refused_or_opened_for_what_it_has() {
    let machine = stopped();
    let folder = folder("vmware-hostile");
    let (memory, named) = (folder.join("win.vmem"), folder.join("win.vmss"));
    write_memory(&memory, 0, &machine, |frame| frame);
    std::fs::OpenOptions::new().write(true).open(&memory).unwrap().set_len(1 << 20).unwrap();
    let tags = [&regions(0x800)[..], &long_tag("Memory", false, 0x10, 3), &[0; 0x10], &[0, 0]].concat();
    let whole = state(*b"\xd2\xbe\xd2\xbe", machine.page_table_root().0, &tags);
    let told = |bytes: &[u8]| {
        std::fs::write(&named, bytes).unwrap();
        let opened = dump::open(&named, None).map(|it| it.source.place());
        assert!(opened.is_ok() || !opened.unwrap_err().to_string().is_empty());
    };
    for at in 4..whole.len() {
        for value in [0, 0x3e, 0xff] {
            let mut changed = whole.clone();
            changed[at] = value;
            told(&changed);
        }
    }
    (4..whole.len()).step_by(3).for_each(|len| told(&whole[..len]));
}

//! Snapshots whose pages are looked at.

use verikd::leaks::{
    BootIdentity, Held, HexNumber, SavedBlock, SavedDriver, SavedFrame, SavedGroup, Snapshot,
};

/// A call path of a driver, innermost frame first, and blocks of one size.
pub(super) struct Path<'a> {
    pub(super) driver: &'a str,
    pub(super) tag: &'a str,
    pub(super) frames: &'a [&'a str],
    pub(super) blocks: u64,
    pub(super) size: u64,
}

/// What these paths hold in a minute of a day. Blocks lie one after another, 0x10000 apart, from fffffa8005400000 on.
pub(super) fn snapshot(minute: u64, paths: &[Path<'_>]) -> Snapshot {
    let mut address = 0xffff_fa80_0540_0000;
    let mut drivers: Vec<SavedDriver> = Vec::new();
    let mut groups = Vec::new();
    for path in paths {
        let held = Held { blocks: path.blocks, bytes: path.blocks * path.size };
        match drivers.iter_mut().find(|driver| driver.name == path.driver) {
            Some(driver) => {
                driver.held.blocks += held.blocks;
                driver.held.bytes += held.bytes;
            }
            None => drivers.push(SavedDriver { name: path.driver.into(), held }),
        }
        let mut block = |at: u64| {
            address += 0x1_0000;
            SavedBlock {
                address: HexNumber(address - 0x1_0000),
                size: path.size,
                tag: path.tag.into(),
                event: u32::try_from(at).ok(),
                thread: Some(HexNumber(0xffff_fa80_03c0_1060)),
            }
        };
        groups.push(SavedGroup {
            driver: path.driver.into(),
            held,
            smallest: path.size,
            largest: path.size,
            tags: vec![path.tag.into()],
            newest_age: Some(3),
            oldest_age: Some(3 + path.blocks),
            stacks_known: path.blocks,
            not_in_log: 0,
            allocator: frames(&[
                "nt!VeAllocatePoolWithTagPriority+0x2b4",
                "nt!VerifierExAllocatePoolEx+0x1d",
            ]),
            path: frames(path.frames),
            list: (0..path.blocks).map(&mut block).collect(),
        });
    }
    Snapshot {
        unix_ms: 1_764_115_200_000 + minute * 60_000,
        boot: BootIdentity { build: 7601, kernel_base: HexNumber(0xffff_f800_0280_0000), boot_time: None },
        drivers,
        groups,
        ..Snapshot::empty()
    }
}

fn frames(names: &[&str]) -> Vec<SavedFrame> {
    let frame = |(at, name): (u64, &&str)| SavedFrame {
        address: HexNumber(0xffff_f880_0447_d634 + at * 0x100),
        symbol: Some((*name).into()),
    };
    (0..).zip(names).map(frame).collect()
}

/// Three drivers, of which one holds the most.
pub(super) fn three_drivers(minute: u64) -> Snapshot {
    let path = |driver, tag, frames, blocks, size| Path { driver, tag, frames, blocks, size };
    let mut snapshot = snapshot(
        minute,
        &[
            path("myfault.sys", "Leak", IOCTL, 10 + 3 * minute, 0xf_b000),
            path("myfault.sys", "Leak", CREATE, 40, 0x800),
            path("netfilt.sys", "NfPk", RECEIVE, 2_000 + minute * 10, 0x240),
            path("netfilt.sys", "NfCx", CONNECT, 300 - minute, 0x1000),
            path("usbstor2.sys", "UsbS", &["usbstor2!StartIo+0x91", "nt!IoStartPacket+0x5f"], 12, 0x2_0000),
            path("usbstor2.sys", "UsbT", &["usbstor2!AddDevice+0x44"], 5, 0x8000),
        ],
    );
    let unknown = &mut snapshot.groups[5];
    (unknown.stacks_known, unknown.not_in_log) = (0, unknown.held.blocks);
    (unknown.newest_age, unknown.oldest_age) = (None, None);
    unknown.list.iter_mut().for_each(|block| (block.event, block.thread) = (None, None));
    snapshot.notes = vec!["usbstor2.sys counts 19 allocations, and 17 are listed".into()];
    snapshot
}

const IOCTL: &[&str] = &[
    "myfault!MyfaultDeviceControl+0x358",
    "nt!IovCallDriver+0x566",
    "nt!IopXxxControlFile+0x607",
    "nt!NtDeviceIoControlFile+0x56",
    "nt!KiSystemServiceCopyEnd+0x13",
];
const CREATE: &[&str] = &[
    "myfault!MyfaultCreate+0x24",
    "nt!IovCallDriver+0x566",
    "nt!IopParseDevice+0x5a5",
    "nt!ObpLookupObjectName+0x588",
    "nt!NtCreateFile+0x78",
    "nt!KiSystemServiceCopyEnd+0x13",
];
const RECEIVE: &[&str] = &[
    "netfilt!FilterReceiveNetBufferLists+0x4c",
    "ndis!ndisMIndicateNetBufferListsToOpen+0xac",
    "ndis!ndisInterruptDpc+0x151",
    "nt!KiRetireDpcList+0x1bc",
    "nt!KiIdleLoop+0x5a",
];
const CONNECT: &[&str] = &[
    "netfilt!ConnectNotify+0x1f0",
    "tcpip!TcpCreateAndConnectTcbComplete+0x1a2",
    "nt!KiSystemServiceCopyEnd+0x13",
];

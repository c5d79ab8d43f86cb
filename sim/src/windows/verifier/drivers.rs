//! Drivers that are verified, or were chosen to be: suspect entries, driver objects, and the tree of those that are loaded.
//!
//! ```text
//!  ViTargetDriversAvl -> table -> node | _VF_TARGET_DRIVER -> _VF_TARGET_VERIFIED_DRIVER_DATA -> _VF_SUSPECT_DRIVER_ENTRY
//!                                        (printed Entry)       | PoolPageHeaders, PoolTrackers      ^
//!                                                                              VfSuspectDriversList |
//! ```
//! The tree has one table, or several by image address. In each, a driver's image address is its key.

use kd_protocol::VirtAddr;

use super::trackers::{self, DATA};
use crate::physical::PAGE_SIZE;
use crate::windows::kernel::Kernel;
use crate::windows::modules;
use crate::windows::verified::Driver;

/// Bytes from a suspect entry to its name, and to its full name.
const NAME: u64 = 0x50;
const FULL_NAME: u64 = 0xb0;
/// Bytes from a driver object to its name.
const OBJECT_NAME: u64 = 0x190;
/// Where the tree's tables are.
const TABLES: VirtAddr = VirtAddr(0xffff_fa80_0319_9010);
/// `_VF_TARGET_VERIFIED_DRIVER_DATA.Signature`.
const DATA_SIGNATURE: u64 = 0x9876_1940;

const ENTRY: &str = "_VF_TARGET_DRIVER";
const SUSPECT: &str = "_VF_SUSPECT_DRIVER_ENTRY";

/// Puts a driver at the end of the list of those chosen to be verified.
pub(super) fn choose(kernel: &mut Kernel, driver: &Driver, loads: u64, unloads: u64) {
    let file = kernel.image(driver.module).file.clone();
    let full_name = modules::full_name(kernel.image(driver.module));
    let at = driver.suspect;
    kernel.pool_block(at, kernel.size_of(SUSPECT), b"VfSD");
    kernel.set_all(at, SUSPECT, &[("Loads", loads), ("Unloads", unloads)]);
    for (field, text, offset) in [("BaseName", &file, NAME), ("FullName", &full_name, FULL_NAME)] {
        // A driver that was never loaded has no full name yet.
        if kernel.has(SUSPECT, field) && (field == "BaseName" || loads > 0) {
            let buffer = at.offset(offset);
            kernel.pool_block(buffer, text.len() as u64 * 2 + 2, b"VfSN");
            let field = at.offset(kernel.offset_of(SUSPECT, field));
            kernel.unicode_string(field, buffer, text);
        }
    }
    let list = kernel.symbol("VfSuspectDriversList");
    kernel.list_append(list, at);
}

/// Creates what is kept of a driver that is loaded and verified: empty counters and lists.
pub(super) fn verify(kernel: &mut Kernel, driver: &Driver) {
    kernel.pool_block(driver.data, kernel.size_of(DATA), b"VfVD");
    let fields = [("SuspectDriverEntry", driver.suspect.0), ("Signature", DATA_SIGNATURE)];
    kernel.set_all(driver.data, DATA, &fields);
    for list in ["EtwHandlesListHead", "ContiguousMemoryListHead"] {
        let head = driver.data.offset(kernel.offset_of(DATA, list));
        kernel.list_init(head);
    }
    trackers::initialize(kernel, driver);

    let node = node_of(kernel, driver);
    kernel.pool_block(node, links_size(kernel) + kernel.size_of(ENTRY), b"VfTD");
    let object = driver_object(kernel, driver);
    let image = kernel.image(driver.module);
    let (base, size) = (image.base, image.size_of_image());
    // Trees that can be told apart by session have the range inside another structure.
    let range = if kernel.has(ENTRY, "TreeNode.Base.p") { "TreeNode.Base" } else { "TreeNode" };
    let fields = [
        (&*format!("{range}.p"), base),
        (&*format!("{range}.RangeSize"), size.into()),
        ("VerifiedData", driver.data.0),
    ];
    kernel.set_all(driver.entry, ENTRY, &fields);
    kernel.set_existing(driver.entry, ENTRY, &[("DriverObject", object.0)]);
}

/// Makes the tree of these drivers.
pub(super) fn plant(kernel: &mut Kernel, drivers: &[&Driver]) {
    let tree = kernel.symbol("ViTargetDriversAvl");
    let tables_no = u64::from(kernel.layouts.release.driver_tables);
    let fields = [
        ("Tables", TABLES.0),
        ("TablesNo", tables_no),
        ("NodeCount", drivers.len() as u64),
        ("u1.NodeSize", kernel.size_of(ENTRY)),
    ];
    kernel.set_all(tree, "_VF_AVL_TREE", &fields);
    let table_size = kernel.size_of("_VF_AVL_TABLE");
    kernel.pool_block(TABLES, table_size * tables_no, b"VfAT");
    for number in 0..tables_no {
        let mut nodes: Vec<_> = drivers
            .iter()
            .map(|driver| (kernel.image(driver.module).base, node_of(kernel, driver)))
            .filter(|(base, _)| base / PAGE_SIZE % tables_no == number)
            .collect();
        nodes.sort_unstable();
        let table = TABLES.offset(number * table_size);
        let root = table.offset(kernel.offset_of("_VF_AVL_TABLE", "RtlTable.BalancedRoot"));
        let (first, depth) = subtree(kernel, &nodes, root);
        let fields = [
            ("RtlTable.BalancedRoot.Parent", root.0),
            ("RtlTable.BalancedRoot.RightChild", first.0),
            ("RtlTable.NumberGenericTableElements", nodes.len() as u64),
            ("RtlTable.DepthOfTree", depth),
            ("RtlTable.CompareRoutine", kernel.symbol("ViAvlCompareNode").0),
            ("RtlTable.AllocateRoutine", kernel.symbol("ViAvlAllocateNode").0),
        ];
        kernel.set_all(table, "_VF_AVL_TABLE", &fields);
    }
}

/// Links sorted nodes into a balanced tree below `parent`. Returns its root, null if there are none, and its depth.
pub(super) fn subtree(kernel: &mut Kernel, nodes: &[(u64, VirtAddr)], parent: VirtAddr) -> (VirtAddr, u64) {
    let Some((_, node)) = nodes.get(nodes.len() / 2) else { return (VirtAddr(0), 0) };
    let (left, left_depth) = subtree(kernel, &nodes[..nodes.len() / 2], *node);
    let (right, right_depth) = subtree(kernel, &nodes[nodes.len() / 2 + 1..], *node);
    let balance = right_depth.wrapping_sub(left_depth) & 0xff;
    let fields = [("Parent", parent.0), ("LeftChild", left.0), ("RightChild", right.0), ("Balance", balance)];
    kernel.set_all(*node, "_RTL_BALANCED_LINKS", &fields);
    (*node, 1 + left_depth.max(right_depth))
}

/// A driver's node: links in front of its entry.
fn node_of(kernel: &Kernel, driver: &Driver) -> VirtAddr {
    VirtAddr(driver.entry.0 - links_size(kernel))
}

pub(super) fn links_size(kernel: &Kernel) -> u64 {
    kernel.size_of("_RTL_BALANCED_LINKS")
}

/// Creates the driver's object, with its name; where it is.
fn driver_object(kernel: &mut Kernel, driver: &Driver) -> VirtAddr {
    const OBJECT: &str = "_DRIVER_OBJECT";
    const TYPE_DRIVER: u64 = 4;
    let object_size = kernel.size_of(OBJECT);
    let header_size = kernel.offset_of("_OBJECT_HEADER", "Body");
    let header = VirtAddr(driver.object.0 - header_size);
    kernel.pool_block(header, header_size + object_size, b"Driv");
    kernel.set_all(header, "_OBJECT_HEADER", &[("PointerCount", 3)]);
    let image = kernel.image(driver.module);
    let (base, size) = (image.base, image.size_of_image());
    let fields = [
        ("Type", TYPE_DRIVER),
        ("Size", object_size),
        ("DriverStart", base),
        ("DriverSize", size.into()),
        ("DriverSection", modules::entry_of(kernel, driver.module).0),
    ];
    kernel.set_all(driver.object, OBJECT, &fields);
    let buffer = driver.object.offset(OBJECT_NAME);
    kernel.pool_block(buffer, 0x30, b"IoNm");
    let name = driver.object.offset(kernel.offset_of(OBJECT, "DriverName"));
    kernel.unicode_string(name, buffer, &format!(r"\Driver\{}", driver.module));
    driver.object
}

#!/usr/bin/env python3
"""Writes the layout files of the simulated builds since Windows 8.1 from facts about real kernels.

    python3 images/layouts.py ../shared/data sim/src/windows

`layouts.json` has the structures of Driver Verifier for every build; `isf/` has all types and symbols of some kernels, as
volatility's symbol tables; `pool-layouts.json` has those of pool and of the memory manager up to Windows 11 21H2, and what changed later. A structure that `layouts.json` lacks is taken from the nearest earlier kernel of `isf/`; each
section of what is written says from where. The result is committed: nobody needs the facts to build the project.

    common/types.toml       structures that all these builds have alike
    BUILD/types.toml        the others; builds since 10-22h2 list only what differs from it
    BUILD/nt.toml           its `without`: symbols of Windows 7's image that the build lacks, where a symbol table says so
"""

import json
import lzma
import sys
import tomllib
from pathlib import Path

# Build, then its sources, the nearest first: keys of layouts.json, and versions of symbol tables.
BUILDS = {
    "8.1": ["6.3.9600"],
    "10-1607": ["10.0.14393"],
    "10-1809": ["10.0.17763"],
    "10-1903": ["10.0.18362"],
    "10-22h2": ["10.0.19041"],
    "2022": ["10.0.20348", "10.0.19041"],
    "11-21h2": ["10.0.22000", "10.0.19041"],
    "11-23h2": ["10.0.22621", "10.0.22000", "10.0.19041"],
    "11-24h2": ["10.0.26100", "10.0.22000", "10.0.19041"],
    "11-25h2": ["10.0.26200", "10.0.26100", "10.0.22000", "10.0.19041"],
}
# Builds whose files say only what differs from this one's.
BASE, BASED = "10-22h2", ["2022", "11-21h2", "11-23h2", "11-24h2", "11-25h2"]

VERIFIER = """_MM_DRIVER_VERIFIER_DATA _VF_TARGET_DRIVER _VF_TARGET_VERIFIED_DRIVER_DATA _VF_SUSPECT_DRIVER_ENTRY
 _VF_AVL_TABLE _VF_AVL_TREE _VF_AVL_TREE_NODE _VF_AVL_TREE_NODE_EX _VF_POOL_TRACE _VF_KE_CRITICAL_REGION_TRACE _VF_TRACKER
 _VF_TRACKER_STAMP _VF_WATCHDOG_IRP _VF_ADDRESS_RANGE _VF_DRIVER_IO_CALLBACKS _VF_TARGET_ALL_SHARED_EXPORT_THUNKS
 _VI_POOL_ENTRY _VI_POOL_ENTRY_INUSE _VI_POOL_PAGE_HEADER _VI_VERIFIER_POOL_HEADER _VI_FAULT_TRACE _VI_TRACK_IRQL
 _VI_VERIFIER_ISSUE _IOV_IRP_TRACE _IOV_FORCED_PENDING_TRACE _RTL_AVL_TABLE _RTL_BALANCED_LINKS _SLIST_HEADER _SLIST_ENTRY
 _POOL_TRACKER_TABLE _POOL_TRACKER_BIG_PAGES _POOL_HEADER""".split()
SYSTEM = """_KLDR_DATA_TABLE_ENTRY _LDR_DATA_TABLE_ENTRY _DRIVER_OBJECT _OBJECT_HEADER _KPCR _KPRCB _EPROCESS _ETHREAD
 _KUSER_SHARED_DATA _CONTEXT _KSPECIAL_REGISTERS _KPROCESSOR_STATE _KTRAP_FRAME _KEXCEPTION_FRAME _KTSS64 _KIDTENTRY64
 _KGDTENTRY64 _KAFFINITY_EX _PHYSICAL_MEMORY_DESCRIPTOR _PHYSICAL_MEMORY_RUN _MMPTE_HARDWARE _DBGKD_GET_VERSION64
 _IMAGE_DOS_HEADER _IMAGE_NT_HEADERS64 _IMAGE_SECTION_HEADER _IMAGE_DEBUG_DIRECTORY _PEB_LDR_DATA _LIST_ENTRY
 _SINGLE_LIST_ENTRY _UNICODE_STRING _STRING _LARGE_INTEGER _ULARGE_INTEGER _GUID _CLIENT_ID _MDL _DISPATCHER_HEADER
 _EXCEPTION_RECORD""".split()
POOL = """_RTLP_HP_HEAP_GLOBALS _EX_POOL_HEAP_MANAGER_STATE _EX_HEAP_POOL_NODE _SEGMENT_HEAP _HEAP_SEG_CONTEXT
 _HEAP_PAGE_SEGMENT _HEAP_PAGE_RANGE_DESCRIPTOR _HEAP_VS_SUBSEGMENT _HEAP_VS_CHUNK_HEADER _HEAP_LFH_SUBSEGMENT _MI_PARTITION
 _MI_VISIBLE_STATE _MI_SYSTEM_INFORMATION _MM_PAGED_POOL_INFO _MMPFNLIST _MMPAGING_FILE""".split()
# Of the largest structures only what a debugger looks at when it attaches, lists and unwinds.
CHOSEN = {
    "_KPRCB": """MxCsr LegacyNumber InterruptRequest IdleHalt CurrentThread NextThread IdleThread NestingLevel
     ClockOwner IdleState Number RspBase PrcbLock PriorityState ProcessorState CpuType CpuID CpuStep CpuStepping CpuModel
     MHz MinorVersion MajorVersion BuildType CpuVendor CoresPerPhysicalProcessor LogicalProcessorsPerCore Group
     GroupSetMember GroupIndex Context ContextFlagsInit InitialApicId DpcData DpcStack DpcRoutineActive NormalDpcState
     IsrStack FeatureBits VendorString InterruptCount KernelTime UserTime DpcTime InterruptTime ExceptionStack
     WaitListHead ParentNode""",
    "_KPROCESS": """Header ProfileListHead DirectoryTableBase UserDirectoryTableBase ThreadListHead ReadyListHead
     ActiveProcessors Affinity BasePriority QuantumReset Visited ProcessListEntry KernelTime UserTime CycleTime
     StackCount AddressPolicy""",
    "_EPROCESS": """Pcb ProcessLock RundownProtect UniqueProcessId ActiveProcessLinks Flags2 Flags CreateTime ExitTime
     ObjectTable Token Session Peb Wow64Process WoW64Process InheritedFromUniqueProcessId ImageFileName ImageFilePointer
     ThreadListHead ActiveThreads SectionObject SectionBaseAddress VadRoot ExitStatus PriorityClass Job ImagePathHash
     MmProcessLinks Protection SignatureLevel""",
    "_KTHREAD": """Header InitialStack StackLimit StackBase ThreadLock CycleTime KernelStack StateSaveArea Running
     WaitRegister ApcState Priority NextProcessor WaitStatus WaitBlockList WaitListEntry Queue Teb TrapFrame FirstArgument
     BasePriority ContextSwitches State WaitIrql WaitMode WaitReason KernelStackResident Process QueueListEntry WaitTime
     ThreadListEntry MutantListHead IdealProcessor UserIdealProcessor SystemAffinityActive PreviousMode KernelTime UserTime
     SuspendCount Win32Thread KernelApcDisable SpecialApcDisable ApcQueueable ApcStateIndex""",
    "_ETHREAD": """Tcb CreateTime ExitTime StartAddress Win32StartAddress Cid IrpList ThreadListEntry ExitStatus
     CrossThreadFlags ActiveTimerListHead RundownProtect""",
    "_KUSER_SHARED_DATA": """TickCountLowDeprecated TickCountMultiplier InterruptTime SystemTime TimeZoneBias
     ImageNumberLow ImageNumberHigh NtSystemRoot MaxStackTraceDepth NtBuildNumber NtProductType ProductTypeIsValid
     NtMajorVersion NtMinorVersion ProcessorFeatures SuiteMask KdDebuggerEnabled NXSupportPolicy ActiveConsoleId
     NumberOfPhysicalPages SafeBootMode SharedDataFlags TickCount TickCountQuad Cookie ActiveProcessorCount
     ActiveGroupCount""",
    "_SEGMENT_HEAP": "Signature SegContexts",
    "_HEAP_SEG_CONTEXT": """SegmentMask UnitShift PagesPerUnitShift FirstDescriptorIndex MaxAllocationSize Heap SegmentListHead
     SegmentCount""",
    "_HEAP_PAGE_SEGMENT": "ListEntry Signature",
    "_HEAP_PAGE_RANGE_DESCRIPTOR": "TreeSignature UnusedBytes RangeFlags CommittedPageCount UnitOffset UnitSize",
    "_HEAP_VS_SUBSEGMENT": "ListEntry CommitBitmap Size Signature",
    "_HEAP_VS_CHUNK_HEADER": "Sizes AllocatedChunkBits",
    "_HEAP_VS_CHUNK_HEADER_SIZE": "HeaderBits MemoryCost UnsafeSize UnsafePrevSize Allocated",
    "_HEAP_LFH_SUBSEGMENT": "ListEntry FreeCount BlockCount FreeHint BlockOffsets BlockBitmap",
    "_RTLP_HP_HEAP_GLOBALS": "HeapKey LfhKey",
    "_EX_HEAP_POOL_NODE": "Heaps",
    "_EX_POOL_HEAP_MANAGER_STATE": "NumberOfPools PoolNode",
    "_MI_PARTITION": "Vp",
    "_MI_VISIBLE_PARTITION": """NumberOfPhysicalPages NumberOfPagingFiles PagingFile AvailablePages ResidentAvailablePages
     TotalCommittedPages ModifiedPageListHead TotalCommitLimit SharedCommit""",
    "_MI_VISIBLE_STATE": "PagedPoolInfo MaximumNonPagedPoolInPages SizeOfPagedPoolInPages SystemVaRegions SharedCommit",
    "_MI_SYSTEM_INFORMATION": "Pools",
    "_MI_POOL_STATE": "AllocatedNonPagedPool",
    "_MI_SYSTEM_VA_ASSIGNMENT": "BaseAddress NumberOfBytes",
    "_MM_PAGED_POOL_INFO": "AllocatedPagedPool FirstPteForPagedPool PagedPoolCommit",
    "_MMPFNLIST": "Total",
    "_MMPAGING_FILE": "Size MaximumSize MinimumSize FreeSpace PageFileName",
}
# What a source beyond the others says of one build: size, and where chosen fields are.
LATER = {
    "10.0.26200": {
        "_HEAP_LFH_SUBSEGMENT": ("25H2", {
            "ListEntry": "_LIST_ENTRY", "FreeCount": "unsigned short", "BlockCount": "unsigned short",
            "FreeHint": "unsigned char", "BlockOffsets": "_HEAP_LFH_SUBSEGMENT_ENCODED_OFFSETS",
            "BlockBitmap": "unsigned long long[1]",
        }),
        "_EX_POOL_HEAP_MANAGER_STATE": ("25H2", {
            "NumberOfPools": "unsigned long", "PoolNode": "_EX_HEAP_POOL_NODE[64]",
        }),
    },
}
CHOSEN = {name: set(fields.split()) for name, fields in CHOSEN.items()}


def main():
    data, windows = Path(sys.argv[1]), Path(sys.argv[2])
    layouts = json.loads((data / "layouts.json").read_text())
    pool = json.loads((data / "pool-layouts.json").read_text())
    tables = {path.name.split("-")[1]: path for path in sorted((data / "isf").glob("*.xz"))}
    tables = {version: json.loads(lzma.open(path).read()) for version, path in tables.items()}
    builds = {}
    for build, sources in BUILDS.items():
        of_build = [reader for source in sources for reader in readers(source, layouts, tables, pool)]
        builds[build] = collect(of_build)
    common = {
        name: found for name, found in builds["8.1"].items()
        if all(other.get(name, (None,))[0] == found[0] for other in builds.values())
    }
    header = "the same in every build from 8.1 to 11 25H2, as far as facts say"
    write_types(windows / "common/types.toml", header, common, unnamed=True)
    base = builds[BASE]
    for build, types in builds.items():
        own = {name: found for name, found in types.items() if name not in common}
        without = []
        header = "those that are not in ../common/types.toml"
        if build in BASED:
            own = {name: found for name, found in own.items() if base.get(name, (None,))[0] != found[0]}
            without = [name for name in base if name not in types]
            header = f"what differs from ../{BASE}/types.toml"
        write_types(windows / build / "types.toml", header, own, without=without)
        for version, table in tables.items():
            if build not in BASED and version.startswith(BUILDS[build][0]):
                absent_symbols(windows, build, (version, table))


class Isf:
    """A symbol table of volatility's."""

    def __init__(self, version, table):
        self.source, self.table = f"symbols of ntoskrnl.exe {version}", table

    def find(self, name):
        found = self.table["user_types"].get(name)
        if found is None:
            return None
        fields = []
        for field, at in found["fields"].items():
            if name not in CHOSEN or field in CHOSEN[name] or self.is_unnamed(at["type"]):
                self.add(fields, at["offset"], field, at["type"], CHOSEN.get(name))
        return tidy(found["kind"] == "union", found["size"], fields)

    def is_unnamed(self, kind):
        return kind["kind"] in ("struct", "union", "class") and kind["name"].startswith("__")

    def add(self, fields, offset, name, kind, chosen=None):
        if not self.is_unnamed(kind):
            return fields.append((offset, name, self.text(kind)))
        inner = self.table["user_types"][kind["name"]]
        fields.append((offset, name, f"{'union' if kind['kind'] == 'union' else 'struct'} {inner['size']}"))
        before = len(fields)
        for field, at in inner["fields"].items():
            if chosen is None or name in chosen or field in chosen or self.is_unnamed(at["type"]):
                deeper = None if chosen is None or name in chosen or field in chosen else chosen
                self.add(fields, offset + at["offset"], f"{name}.{field}", at["type"], deeper)
        if len(fields) == before:
            fields.pop()

    def text(self, kind):
        match kind["kind"]:
            case "base":
                return {"f32": "unsigned long", "HRESULT": "long"}.get(kind["name"], kind["name"])
            case "pointer":
                target = kind["subtype"]
                named = target["kind"] in ("struct", "class", "union") and target["name"].startswith("_")
                if target["kind"] in ("function", "enum") or not named and target["kind"] in ("struct", "union"):
                    return "void*"
                return ("union " if target["kind"] == "union" else "") + self.text(target) + "*"
            case "array":
                element, counts = kind, ""
                while element["kind"] == "array":
                    counts += f"[{element['count']}]"
                    element = element["subtype"]
                if self.is_unnamed(element):
                    return f"unsigned char[{self.size(kind)}]"
                return self.text(element) + counts
            case "bitfield":
                return f"{self.text(kind['type'])}:{kind['bit_length']}@{kind['bit_position']}"
            case "enum":
                return self.table["enums"][kind["name"]]["base"]
            case _:
                return kind["name"]

    def size(self, kind):
        if kind["kind"] == "array":
            return kind["count"] * self.size(kind["subtype"])
        return self.table["user_types"][kind["name"]]["size"]


class Layouts:
    """One build of layouts.json; it may list only some fields of a structure."""

    def __init__(self, key, structures):
        self.source, self.structures = f"layouts of {key}", structures

    def find(self, name):
        found = self.structures.get(name)
        if found is None or "fields" not in found or found.get("size") is None:
            return None
        fields, names = [], set(found["fields"])
        for path, at in found["fields"].items():
            outer = path.rpartition(".")[0]
            if outer and outer not in names:
                # A member of an unnamed aggregate that is not listed itself: it starts where its first member does.
                names.add(outer)
                members = [at for name, at in found["fields"].items() if name.startswith(outer + ".")]
                start = min(at["offset"] for at in members)
                end = max(at["offset"] + at["size"] for at in members)
                kind = "struct" if len({at["offset"] for at in members}) > 1 else "union"
                fields.append((start, outer, f"{kind} {end - start}"))
            fields.append((at["offset"], path, self.text(at, any(other.startswith(path + ".") for other in names))))
        return tidy(found.get("kind") == "union", found["size"], fields)

    def text(self, at, has_members):
        text = at["type"]
        if "anonymous" in text:
            kind = "union" if "union" in text else "struct"
            return f"{kind} {at['size']}" if has_members else f"unsigned char[{at['size']}]"
        if "bit_length" in at:
            return f"{text}:{at['bit_length']}@{at['bit_position']}"
        if text in ("_POOL_TYPE", "_LDR_DLL_LOAD_REASON", "_LDR_HOT_PATCH_STATE"):
            return "int"
        return text.replace("function*", "void*").replace("void**", "void*")


class PoolLayouts(Layouts):
    """One family of pool-layouts.json: those structures that this script asks it for, and of them the chosen fields."""

    def __init__(self, family, pool):
        structures = {}
        for name, known in pool["structs"].items():
            # It has a part of what a debugger looks at, too, which the other sources have whole.
            if not name.startswith(("_EX_", "_HEAP_", "_MI_", "_MM", "_RTLP_", "_SEGMENT_")) or name not in CHOSEN:
                continue
            of_family = [layout for layout in known if family in layout.get("families", {})]
            if of_family:
                most = max(of_family, key=lambda layout: layout["families"][family])
                fields = {
                    path: at for path, at in most["fields"].items()
                    if path.partition(".")[0] in CHOSEN.get(name, [path.partition(".")[0]])
                }
                structures[name] = {"kind": most["kind"], "size": most["size"], "fields": fields}
        super().__init__(family, structures)
        self.source = f"pool layouts of {family}"


class Later(Layouts):
    """What is known of one build from elsewhere."""

    def __init__(self, build, pool):
        structures = {}
        for name, (edition, types) in LATER[build].items():
            known = pool["external"][name][edition]
            fields = {field: {"offset": known["fields"][field], "type": kind, "size": 0} for field, kind in types.items()}
            structures[name] = {"kind": "struct", "size": known["size"], "fields": fields}
        super().__init__(build, structures)
        self.source = f"pool layouts of {build}, from another source"


def readers(source, layouts, tables, pool):
    if source in LATER:
        yield Later(source, pool)
    for key, structures in layouts.items():
        if key.startswith(source):
            yield Layouts(key, structures)
            break
    for version, table in tables.items():
        if version.startswith(source):
            yield Isf(version, table)
    if any(build["family"] == source for build in pool["builds"].values()):
        yield PoolLayouts(source, pool)


def tidy(union, size, fields):
    """A structure in comparable form: fields by offset, members behind the aggregate they are in."""
    def order(field):
        offset, name, kind = field
        bit = int(kind.partition("@")[2] or 0)
        return (offset, bit, name)
    by_outer = {}
    for field in sorted(fields, key=order):
        by_outer.setdefault(field[1].rpartition(".")[0], []).append(field)
    def flat(outer):
        for field in by_outer.get(outer, []):
            yield field
            yield from flat(field[1])
    return (union, size, tuple(flat("")))


def collect(readers):
    """Every wanted structure and those inside them: name -> (structure, source)."""
    types, wanted = {}, VERIFIER + SYSTEM + POOL
    while wanted:
        name = wanted.pop()
        if name in types:
            continue
        found = next(((structure, reader.source) for reader in readers if (structure := reader.find(name))), None)
        if found is None or name == "_VF_AVL_TREE_NODE_EX" and not readers[0].find(name):
            continue
        whole = next((structure for reader in readers[1:] if (structure := reader.find(name))), None)
        if whole and whole != found[0] and is_part(found[0], whole):
            found = (whole, found[1] + ", whole as in an earlier kernel")
        types[name] = found
        for _, _, kind in found[0][2]:
            inner = kind.removeprefix("union ").partition("[")[0]
            if inner.startswith("_") and not inner.endswith("*"):
                wanted.append(inner)
    return types


def is_part(structure, whole):
    """True if `structure` lists some of the fields of `whole`, at the same places."""
    union, size, fields = structure
    places = {name: offset for offset, name, _ in whole[2]}
    return (union, size) == whole[:2] and all(places.get(name) == offset for offset, name, _ in fields)


def write_types(path, header, types, without=(), unnamed=False):
    lines = [
        f"# Structures of a Windows kernel for the simulated target and its PDB: {header}.",
        "#",
        "# Written by images/layouts.py from facts about real kernels. The notation is that of ../7sp1/types.toml; of the",
        "# largest structures only chosen fields are listed, and enumerations are the integers they are stored as.",
        "",
    ]
    if unnamed:
        lines += ['unnamed = "<unnamed-tag>"', ""]
    if without:
        lines += [f"without = [{', '.join(json.dumps(name) for name in sorted(without))}]", ""]
    sources = sorted({source for _, source in types.values()})
    for source in sources:
        lines += [f"# From the {source}.", ""]
        for name in sorted(name for name, found in types.items() if found[1] == source):
            union, size, fields = types[name][0]
            lines += [f"[{'union' if union else 'struct'}.{name}]", f"size = {size:#x}", "fields = ["]
            lines += [f'  [{offset:#05x}, "{field}", "{kind}"],' for offset, field, kind in fields]
            lines += ["]", ""]
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join(lines).rstrip() + "\n")


def absent_symbols(windows, build, table):
    """Which symbols of Windows 7's image the build's symbol table lacks."""
    path = windows / build / "nt.toml"
    version, table = table
    names = [
        name for section in tomllib.loads((windows / "7sp1/nt.toml").read_text())["section"]
        for _, name in section.get("symbols", []) if name not in table["symbols"]
    ]
    mark = "# Symbols of ../7sp1/nt.toml that "
    before, _, after = path.read_text().partition(mark)
    rest = after.partition("]\n")[2]
    lines, line = [f"{mark}ntoskrnl.exe {version} lacks; written by images/layouts.py.", "without = ["], " "
    for name in names:
        if len(line) + len(name) + 4 > 110:
            lines.append(line)
            line = " "
        line += f' "{name}",'
    path.write_text(before + "\n".join(lines + [line, "]"]) + "\n" + rest)


main()

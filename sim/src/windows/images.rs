//! The committed images and PDBs of the simulated builds.

use super::layout::{ImageLayout, LayoutError, Release, Types};

/// A simulated Windows build: its structures and its images, the kernel first.
#[derive(Debug)]
pub struct Build {
    /// Name of its directory, `7sp1`.
    pub name: &'static str,
    release: &'static str,
    /// Its files of structures, the most basic first.
    types: &'static [&'static str],
    /// Its images in the order they were loaded; the first is the kernel.
    pub images: &'static [Image],
}

impl Build {
    /// The build of this name, in any case: `11-24h2`.
    #[must_use]
    pub fn find(name: &str) -> Option<&'static Self> {
        BUILDS.iter().copied().chain([&WINDOWS_XP_X86]).find(|build| build.name.eq_ignore_ascii_case(name))
    }

    /// True for a 32-bit one, which has no images with symbols.
    #[must_use]
    pub const fn is_32_bit(&self) -> bool {
        self.images.is_empty()
    }

    /// What is known of it beside structures and images.
    ///
    /// # Errors
    /// [`LayoutError`] says what is wrong with the file; the committed ones are kept right by a test.
    pub fn release(&self) -> Result<Release, LayoutError> {
        Release::parse(self.release)
    }

    /// Every image that a machine with this Windows may load: its own, and those of [`FILTER_DRIVERS`].
    pub fn all_images(&self) -> impl Iterator<Item = &'static Image> {
        let drivers = if self.is_32_bit() { &[] } else { FILTER_DRIVERS };
        self.images.iter().chain(drivers)
    }

    /// The structures of this build's kernel.
    ///
    /// # Errors
    /// As [`release`](Self::release).
    pub fn types(&self) -> Result<Types, LayoutError> {
        Types::parse(self.types)
    }
}

/// A committed image, its PDB and the layout files that both were made from.
pub struct Image {
    /// File name, `ntoskrnl.exe`.
    pub file: &'static str,
    /// The PE file.
    pub bytes: &'static [u8],
    /// PDB name, `ntkrnlmp.pdb`.
    pub pdb_file: &'static str,
    /// The PDB.
    pub pdb: &'static [u8],
    /// Its layout files, the most basic first.
    layout: &'static [&'static str],
}

impl Image {
    /// Sections and symbols.
    ///
    /// # Errors
    /// [`LayoutError`] says what is wrong with the file; the committed ones are kept right by a test.
    pub fn layout(&self) -> Result<ImageLayout, LayoutError> {
        ImageLayout::parse(self.layout)
    }
}

/// Prints names and sizes, not the bytes.
impl std::fmt::Debug for Image {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({} bytes, {} {} bytes)", self.file, self.bytes.len(), self.pdb_file, self.pdb.len())
    }
}

/// An image whose files are in `$directory`, made from `$layout`, the most basic first.
macro_rules! image {
    ($directory:literal, $file:literal, $pdb:literal, [$($layout:literal),+]) => {
        Image {
            file: $file,
            bytes: include_bytes!(concat!($directory, "/images/", $file)),
            pdb_file: $pdb,
            pdb: include_bytes!(concat!($directory, "/images/", $pdb)),
            layout: &[$(include_str!($layout)),+],
        }
    };
}

/// Nothing in these images differs between builds.
macro_rules! build {
    ($name:literal, types: [$($types:literal),+], nt: [$($nt:literal),+]) => {
        Build {
            name: $name,
            release: include_str!(concat!($name, "/release.toml")),
            types: &[$(include_str!($types)),+],
            images: &[
                image!($name, "ntoskrnl.exe", "ntkrnlmp.pdb", [$($nt),+]),
                image!("7sp1", "hal.dll", "hal.pdb", ["7sp1/hal.toml"]),
                image!("7sp1", "ndis.sys", "ndis.pdb", ["7sp1/ndis.toml"]),
                image!("7sp1", "myfault.sys", "myfault.pdb", ["7sp1/myfault.toml"]),
            ],
        }
    };
}

/// Drivers that only some scenarios load, the same on all builds.
pub static FILTER_DRIVERS: &[Image] = &[
    image!("drivers", "netfilt.sys", "netfilt.pdb", ["drivers/netfilt.toml"]),
    image!("drivers", "storfilt.sys", "storfilt.pdb", ["drivers/storfilt.toml"]),
];

/// Windows 7 SP1 x64, build 7601.
pub static WINDOWS_7_SP1: Build = build!("7sp1", types: ["7sp1/types.toml"], nt: ["7sp1/nt.toml"]);

/// Windows XP SP3 x86, build 2600: a 32-bit machine with a PAE kernel. It has no images of its own and no symbols.
pub static WINDOWS_XP_X86: Build =
    Build { name: "xp-x86", release: include_str!("xp-x86/release.toml"), types: &[], images: &[] };

/// Every simulated build of x64, the oldest first.
pub static BUILDS: &[&Build] = &[
    &WINDOWS_7_SP1,
    &build!(
        "8.1",
        types: ["common/types.toml", "8.1/types.toml"],
        nt: ["7sp1/nt.toml", "common/nt.toml", "8.1/nt.toml"]
    ),
    &build!(
        "10-1607",
        types: ["common/types.toml", "10-1607/types.toml", "common/regions-1607.toml"],
        nt: ["7sp1/nt.toml", "common/nt.toml", "10-1607/nt.toml"]
    ),
    &build!(
        "10-1809",
        types: ["common/types.toml", "10-1809/types.toml"],
        nt: ["7sp1/nt.toml", "common/nt.toml", "10-1809/nt.toml"]
    ),
    &build!(
        "10-1903",
        types: ["common/types.toml", "10-1903/types.toml"],
        nt: ["7sp1/nt.toml", "common/nt.toml", "10-1903/nt.toml"]
    ),
    &build!(
        "10-22h2",
        types: ["common/types.toml", "10-22h2/types.toml"],
        nt: ["7sp1/nt.toml", "common/nt.toml", "10-22h2/nt.toml"]
    ),
    &build!(
        "2022",
        types: ["common/types.toml", "10-22h2/types.toml", "2022/types.toml"],
        nt: ["7sp1/nt.toml", "common/nt.toml", "10-22h2/nt.toml", "2022/nt.toml"]
    ),
    &build!(
        "11-21h2",
        types: ["common/types.toml", "10-22h2/types.toml", "11-21h2/types.toml"],
        nt: ["7sp1/nt.toml", "common/nt.toml", "10-22h2/nt.toml", "11-21h2/nt.toml"]
    ),
    &build!(
        "11-23h2",
        types: ["common/types.toml", "10-22h2/types.toml", "11-23h2/types.toml"],
        nt: ["7sp1/nt.toml", "common/nt.toml", "10-22h2/nt.toml", "11-21h2/nt.toml", "11-23h2/nt.toml"]
    ),
    &build!(
        "11-24h2",
        types: ["common/types.toml", "10-22h2/types.toml", "11-24h2/types.toml"],
        nt: ["7sp1/nt.toml", "common/nt.toml", "10-22h2/nt.toml", "11-21h2/nt.toml", "11-24h2/nt.toml"]
    ),
    &build!(
        "11-25h2",
        types: ["common/types.toml", "10-22h2/types.toml", "11-25h2/types.toml"],
        nt: ["7sp1/nt.toml", "common/nt.toml", "10-22h2/nt.toml", "11-21h2/nt.toml", "11-25h2/nt.toml"]
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn committed_layouts_are_as_their_images() {
        assert_eq!(WINDOWS_XP_X86.release().unwrap().number, 2600);
        for build in BUILDS {
            build.types().unwrap();
            build.release().unwrap();
            for image in build.all_images() {
                let layout = image.layout().unwrap();
                assert_eq!((layout.file.as_str(), layout.pdb.as_str()), (image.file, image.pdb_file));
            }
        }
    }

    #[test]
    fn return_addresses_of_the_leak_are_those_of_the_published_transcript() {
        for build in BUILDS {
            let layouts: Vec<_> = build.images.iter().map(|image| image.layout().unwrap()).collect();
            for (address, module, routine, displacement) in [
                (0xffff_f800_0192_7cc6_u64, "nt", "VeAllocatePoolWithTagPriority", 0x2b6),
                (0xffff_f800_0192_7d3d, "nt", "VerifierExAllocatePoolEx", 0x1d),
                (0xffff_f880_0447_d634, "myfault", "MyfaultDeviceControl", 0x358),
                (0xffff_f880_0447_d727, "myfault", "MyfaultDispatch", 0xb7),
                (0xffff_f800_0193_2750, "nt", "IovCallDriver", 0xa0),
                (0xffff_f800_017a_7a97, "nt", "IopXxxControlFile", 0x607),
                (0xffff_f800_017a_82f6, "nt", "NtDeviceIoControlFile", 0x56),
                (0xffff_f800_0148_bed3, "nt", "KiSystemServiceCopyEnd", 0x13),
            ] {
                let layout = layouts.iter().find(|layout| layout.module == module).unwrap();
                let at = u32::try_from(address - layout.base).unwrap();
                let symbols = layout.symbols();
                assert_eq!(symbols[routine] + displacement, at, "{}: {routine}", build.name);
                let nearer = symbols.values().any(|symbol| (symbols[routine] + 1..=at).contains(symbol));
                assert!(!nearer, "{}: a symbol lies between {routine} and {address:x}", build.name);
            }
        }
    }
}

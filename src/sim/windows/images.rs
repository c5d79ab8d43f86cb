//! The committed images and PDBs of the simulated builds.

use super::layout::{ImageLayout, LayoutError, Types};

/// A simulated Windows build: its structures and its images, the kernel first.
#[derive(Debug)]
pub struct Build {
    /// Name of its directory, `7sp1`.
    pub name: &'static str,
    /// Its `types.toml`.
    types: &'static str,
    /// Its images in the order they were loaded; the first is the kernel.
    pub images: &'static [Image],
}

impl Build {
    /// The structures of this build's kernel.
    ///
    /// # Errors
    /// [`LayoutError`] says what is wrong with the file; the committed ones are kept right by a test.
    pub fn types(&self) -> Result<Types, LayoutError> {
        Types::parse(self.types)
    }
}

/// A committed image, its PDB and the layout file that both were made from.
pub struct Image {
    /// File name, `ntoskrnl.exe`.
    pub file: &'static str,
    /// The PE file.
    pub bytes: &'static [u8],
    /// PDB name, `ntkrnlmp.pdb`.
    pub pdb_file: &'static str,
    /// The PDB.
    pub pdb: &'static [u8],
    layout: &'static str,
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

macro_rules! image {
    ($build:literal, $layout:literal, $file:literal, $pdb:literal) => {
        Image {
            file: $file,
            bytes: include_bytes!(concat!($build, "/images/", $file)),
            pdb_file: $pdb,
            pdb: include_bytes!(concat!($build, "/images/", $pdb)),
            layout: include_str!(concat!($build, "/", $layout)),
        }
    };
}

/// Windows 7 SP1 x64, build 7601.
pub static WINDOWS_7_SP1: Build = Build {
    name: "7sp1",
    types: include_str!("7sp1/types.toml"),
    images: &[
        image!("7sp1", "nt.toml", "ntoskrnl.exe", "ntkrnlmp.pdb"),
        image!("7sp1", "hal.toml", "hal.dll", "hal.pdb"),
        image!("7sp1", "ndis.toml", "ndis.sys", "ndis.pdb"),
        image!("7sp1", "myfault.toml", "myfault.sys", "myfault.pdb"),
    ],
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn committed_layouts_are_as_their_images() {
        WINDOWS_7_SP1.types().unwrap();
        for image in WINDOWS_7_SP1.images {
            let layout = image.layout().unwrap();
            assert_eq!((layout.file.as_str(), layout.pdb.as_str()), (image.file, image.pdb_file));
        }
    }

    #[test]
    fn return_addresses_of_the_leak_are_those_of_the_published_transcript() {
        let layouts: Vec<_> = WINDOWS_7_SP1.images.iter().map(|image| image.layout().unwrap()).collect();
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
            let at = u32::try_from(address - layout.base()).unwrap();
            let symbols = layout.symbols();
            assert_eq!(symbols[routine] + displacement, at, "{routine}");
            let nearer = symbols.values().any(|symbol| (symbols[routine] + 1..=at).contains(symbol));
            assert!(!nearer, "a symbol lies between {routine} and {address:x}");
        }
    }
}

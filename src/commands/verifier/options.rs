//! The bits of `MmVerifierData.Level`: what each is called, by debuggers then and now, and which Windows has it.
//!
//! Source: verifier.md 3.5.

use serde::Serialize;

use super::format::Era;

/// One option of Driver Verifier.
#[derive(Clone, Debug, Serialize, schemars::JsonSchema)]
pub struct VerifierOption {
    /// Its bit in the level; 0 stands for what is always checked.
    pub flag: u32,
    /// What today's debuggers call it.
    pub name: &'static str,
    /// What the debuggers of Windows 7's time called it.
    pub old_name: &'static str,
    /// Where today's debuggers list it.
    pub section: Section,
    /// It is on.
    pub enabled: bool,
}

/// A part of the list of options.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Section {
    /// What `verifier /standard` turns on.
    Standard,
    /// What has to be asked for.
    Additional,
    /// Bits without a name.
    Reserved,
}

const UNNAMED: &str = "Unused or reserved flag";

/// Bit, today's name, old name, section, the first Windows whose list has it.
///
/// No sample shows the old names of 0x200 and 0x400 and of the bits since Windows 8; those are today's.
const KNOWN: &[(u32, &str, &str, Section, Era)] = {
    use Era::{Windows7, Windows8, Windows10};
    use Section::{Additional, Standard};
    &[
        (0x1, "Special pool", "Special pool", Standard, Windows7),
        (0x2, "Force IRQL checking", "Special irql", Standard, Windows7),
        (
            0x4,
            "Randomized low resources simulation",
            "Inject random low-resource API failures",
            Additional,
            Windows7,
        ),
        (0x8, "Pool tracking", "All pool allocations checked on unload", Standard, Windows7),
        (0x10, "I/O verification", "Io subsystem checking enabled", Standard, Windows7),
        (0x20, "Deadlock detection", "Deadlock detection enabled", Standard, Windows7),
        (0x80, "DMA checking", "DMA checking enabled", Standard, Windows7),
        (0x100, "Security checks", "Security checks enabled", Standard, Windows7),
        (0x200, "Force pending I/O requests", "Force pending I/O requests", Additional, Windows7),
        (0x400, "IRP logging", "IRP logging", Additional, Windows7),
        (0x800, "Miscellaneous checks", "Miscellaneous checks enabled", Standard, Windows7),
        (
            0x2000,
            "Invariant MDL checking for stack",
            "Invariant MDL checking for stack",
            Additional,
            Windows8,
        ),
        (
            0x4000,
            "Invariant MDL checking for driver",
            "Invariant MDL checking for driver",
            Additional,
            Windows8,
        ),
        (0x8000, "Power framework delay fuzzing", "Power framework delay fuzzing", Additional, Windows8),
        (
            0x1_0000,
            "Port/miniport interface checking",
            "Port/miniport interface checking",
            Additional,
            Windows10,
        ),
        (0x2_0000, "DDI compliance checking", "DDI compliance checking", Standard, Windows8),
        (
            0x4_0000,
            "Systematic low resources simulation",
            "Systematic low resources simulation",
            Additional,
            Windows8,
        ),
        (
            0x8_0000,
            "DDI compliance checking (additional)",
            "DDI compliance checking (additional)",
            Additional,
            Windows8,
        ),
        (0x20_0000, "NDIS/WIFI verification", "NDIS/WIFI verification", Additional, Windows8),
        (
            0x80_0000,
            "Kernel synchronization delay fuzzing",
            "Kernel synchronization delay fuzzing",
            Additional,
            Windows8,
        ),
        (0x100_0000, "VM switch verification", "VM switch verification", Additional, Windows8),
        (0x200_0000, "Code integrity checks", "Code integrity checks", Additional, Windows10),
    ]
};

/// The options that a kernel of `era` has, on or off, and whatever else is on in `level`; ascending.
pub(super) fn options(level: u32, era: Era) -> Vec<VerifierOption> {
    let automatic = VerifierOption {
        flag: 0,
        name: "Automatic Checks",
        old_name: "Automatic Checks",
        section: Section::Standard,
        enabled: level != 0,
    };
    let option = |bit: u32| {
        let flag = 1 << bit;
        let enabled = level & flag != 0;
        match KNOWN.iter().find(|(known, .., since)| *known == flag && (*since <= era || enabled)) {
            Some((_, name, old_name, section, _)) => {
                Some(VerifierOption { flag, name, old_name, section: *section, enabled })
            }
            None if enabled => Some(VerifierOption {
                flag,
                name: UNNAMED,
                old_name: UNNAMED,
                section: Section::Reserved,
                enabled,
            }),
            None => None,
        }
    };
    std::iter::once(automatic).chain((0..32).filter_map(option)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_options_of_a_published_level_have_their_published_names() {
        // verifier-samples.md S2.
        let on = |option: &VerifierOption| option.enabled && option.flag != 0;
        let names: Vec<_> =
            options(0x9bb, Era::Windows7).into_iter().filter(on).map(|option| option.old_name).collect();
        assert_eq!(
            names,
            [
                "Special pool",
                "Special irql",
                "All pool allocations checked on unload",
                "Io subsystem checking enabled",
                "Deadlock detection enabled",
                "DMA checking enabled",
                "Security checks enabled",
                "Miscellaneous checks enabled",
            ]
        );
    }

    #[test]
    fn each_era_has_its_own_list() {
        let flags = |level, era, section| -> Vec<u32> {
            let options = options(level, era).into_iter().filter(|option| option.section == section);
            options.map(|option| option.flag).collect()
        };
        let windows_7 = [0, 1, 2, 8, 0x10, 0x20, 0x80, 0x100, 0x800];
        assert_eq!(flags(8, Era::Windows7, Section::Standard), windows_7);
        assert_eq!(flags(8, Era::Windows7, Section::Additional), [4, 0x200, 0x400]);
        assert_eq!(flags(8, Era::Windows8, Section::Additional).len(), 11);
        assert_eq!(flags(8, Era::Windows10, Section::Additional).len(), 13);
        assert_eq!(flags(0x12_09bb, Era::Windows10, Section::Reserved), [0x10_0000]);
        assert_eq!(flags(0x8000_0000, Era::Windows7, Section::Reserved), [0x8000_0000]);
        assert!(
            flags(0x2_0000, Era::Windows7, Section::Standard).contains(&0x2_0000),
            "what is on is listed"
        );
    }
}

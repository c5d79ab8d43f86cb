//! Bug checks in words: what Driver Verifier found, and which driver it was.
//!
//! Source: Microsoft's documentation, "Bug Check 0xC4: DRIVER_VERIFIER_DETECTED_VIOLATION" and "Bug Check Code Reference".

/// `DRIVER_VERIFIER_DETECTED_VIOLATION`.
const DRIVER_VERIFIER_DETECTED_VIOLATION: u32 = 0xc4;

const CODES: &[(u32, &str)] = &[
    (0x0a, "IRQL_NOT_LESS_OR_EQUAL"),
    (0x19, "BAD_POOL_HEADER"),
    (0x1e, "KMODE_EXCEPTION_NOT_HANDLED"),
    (0x3b, "SYSTEM_SERVICE_EXCEPTION"),
    (0x50, "PAGE_FAULT_IN_NONPAGED_AREA"),
    (0x7e, "SYSTEM_THREAD_EXCEPTION_NOT_HANDLED"),
    (0x9f, "DRIVER_POWER_STATE_FAILURE"),
    (0xc1, "SPECIAL_POOL_DETECTED_MEMORY_CORRUPTION"),
    (0xc2, "BAD_POOL_CALLER"),
    (0xc4, "DRIVER_VERIFIER_DETECTED_VIOLATION"),
    (0xc9, "DRIVER_VERIFIER_IOMANAGER_VIOLATION"),
    (0xce, "DRIVER_UNLOADED_WITHOUT_CANCELLING_PENDING_OPERATIONS"),
    (0xd1, "DRIVER_IRQL_NOT_LESS_OR_EQUAL"),
    (0xe2, "MANUALLY_INITIATED_CRASH"),
    (0xe6, "DRIVER_VERIFIER_DMA_VIOLATION"),
];

const VIOLATIONS: &[(u64, &str)] = &[
    (0x00, "a driver asked for a pool allocation of no bytes"),
    (0x01, "a driver allocated paged pool above APC_LEVEL"),
    (0x02, "a driver allocated nonpaged pool above DISPATCH_LEVEL"),
    (0x10, "a driver freed an address that was not allocated"),
    (0x11, "a driver freed paged pool above APC_LEVEL"),
    (0x12, "a driver freed nonpaged pool above DISPATCH_LEVEL"),
    (0x13, "a driver freed pool twice"),
    (0x60, "a driver was unloaded and left pool allocations behind"),
    (0x61, "a driver allocated pool while it was being unloaded"),
    (0x62, "a driver was unloaded and left pool allocations behind"),
    (0xf6, "a driver used a user-mode handle as a kernel handle"),
];

/// A bug check in a sentence; `driver` is the driver that its parameters name, if one is known.
#[must_use]
pub fn decoded(code: u32, parameters: Option<[u64; 4]>, driver: Option<&str>) -> String {
    let name = CODES.iter().find(|(known, _)| *known == code).map_or("an unknown code", |(_, name)| name);
    let mut text = format!("Bug check {code:#x}, {name}");
    if let (DRIVER_VERIFIER_DETECTED_VIOLATION, Some([violation, ..])) = (code, parameters) {
        let found = VIOLATIONS.iter().find(|(known, _)| *known == violation);
        let what = found.map_or("a violation that is not known here", |(_, what)| what);
        text += &format!(", {violation:#x}: {what}");
    }
    if let Some(driver) = driver {
        text += &format!("; the driver is {driver}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leak_at_unload_names_its_driver() {
        let parameters = Some([0x62, 0xffff_fa80_0000_1000, 0, 10]);
        assert_eq!(
            decoded(0xc4, parameters, Some("myfault.sys")),
            "Bug check 0xc4, DRIVER_VERIFIER_DETECTED_VIOLATION, 0x62: a driver was unloaded and left pool allocations \
             behind; the driver is myfault.sys"
        );
        assert_eq!(decoded(0xabc, None, None), "Bug check 0xabc, an unknown code");
    }
}

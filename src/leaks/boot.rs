//! Whether two snapshots are of one boot.

use super::snapshot::{BootIdentity, Snapshot};

/// Whether two moments are of one boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SameBoot {
    /// The machine says when it booted, and it is the same.
    Yes,
    /// Something says that it is another.
    No,
    /// Nothing says that it is another, and when it booted is not known of both.
    NotKnown,
}

impl BootIdentity {
    /// Whether `other` is of the same boot.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> SameBoot {
        /// A boot's time is worked out of clocks where the kernel does not name it, which are set right by fractions of a second.
        /// No machine restarts within this.
        const ROUGHLY: u64 = 20_000_000;
        if (self.build, self.kernel_base) != (other.build, other.kernel_base) {
            return SameBoot::No;
        }
        match self.boot_time.zip(other.boot_time) {
            Some((one, other)) if one.0.abs_diff(other.0) <= ROUGHLY => SameBoot::Yes,
            Some(_) => SameBoot::No,
            None => SameBoot::NotKnown,
        }
    }
}

/// Whether `new` is of the same boot as `old`, which is earlier: the log goes on then too.
pub(super) fn same_boot(old: &Snapshot, new: &Snapshot) -> SameBoot {
    let index = |it: &Snapshot| it.log.map(|log| log.index);
    // The index wraps after 2^32 events; a new boot begins at 0.
    let goes_on = index(old).zip(index(new)).is_none_or(|(old, new)| new.wrapping_sub(old) < u32::MAX / 2);
    if goes_on { old.boot.is_same(&new.boot) } else { SameBoot::No }
}

#[cfg(test)]
mod tests {
    use super::super::snapshot::{HexNumber, LogState};
    use super::*;

    #[test]
    fn a_boot_is_known_by_its_time_and_is_another_where_the_log_begins_anew() {
        let boot = |time: Option<u64>| BootIdentity {
            build: 7601,
            kernel_base: HexNumber(7),
            boot_time: time.map(HexNumber),
        };
        assert_eq!(boot(Some(5)).is_same(&boot(Some(6))), SameBoot::Yes);
        assert_eq!(boot(Some(5)).is_same(&boot(Some(400_000_005))), SameBoot::No);
        assert_eq!(boot(Some(5)).is_same(&boot(None)), SameBoot::NotKnown);
        assert_eq!(boot(None).is_same(&BootIdentity { build: 9600, ..boot(None) }), SameBoot::No);
        let of = |index| Snapshot {
            boot: boot(None),
            log: Some(LogState { length: 0x100, index }),
            ..Snapshot::empty()
        };
        assert_eq!(same_boot(&of(u32::MAX - 5), &of(20)), SameBoot::NotKnown);
        assert_eq!(same_boot(&of(500), &of(20)), SameBoot::No);
    }
}

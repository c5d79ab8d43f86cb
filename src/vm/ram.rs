//! The ways to a machine's RAM, best first: the file that backs it, the memory of QEMU's process, its monitor.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::error::QmpError;
use super::layout::RamRange;
use super::monitor::{Monitor, PAGE};
use crate::memory::{PhysAddr, PhysicalMemory, ReadCause};
use crate::physical::{FilePages, PageMap, PositionedFile, Run};

/// Through the monitor a page costs a millisecond: page tables are looked for in this much.
const SCANNED_BY_MONITOR: u64 = 4 << 20;

/// A way to the RAM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Road {
    /// Shared files that back it.
    Files(Vec<PathBuf>),
    /// The memory of this process.
    Process(u32),
    /// The monitor, page by page.
    Monitor,
}

impl fmt::Display for Road {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Files(files) => {
                let files: Vec<_> = files.iter().map(|file| file.display().to_string()).collect();
                f.write_str(&files.join(", "))
            }
            Self::Process(pid) => write!(f, "the memory of process {pid}"),
            Self::Monitor => f.write_str("the monitor, page by page"),
        }
    }
}

/// RAM and the way to it.
pub(super) struct Ram {
    pub(super) road: Road,
    pub(super) physical: Arc<dyn PhysicalMemory>,
}

/// The ways that are open to RAM in these ranges, best first; and why the others are not.
pub(super) fn roads(
    monitor: &Arc<Mutex<Monitor>>,
    ranges: &[RamRange],
) -> Result<(Vec<Ram>, Vec<String>), QmpError> {
    let (mut open, mut closed) = (Vec::new(), Vec::new());
    let mut asked = monitor.lock().unwrap_or_else(PoisonError::into_inner);
    match of_files(&mut asked, ranges)? {
        Ok(ram) => open.push(ram),
        Err(why) => closed.push(why),
    }
    match of_process(&mut asked, ranges)? {
        Ok(ram) => open.push(ram),
        Err(why) => closed.push(why),
    }
    drop(asked);
    let ranges = ranges.iter().map(|range| range.at.clone()).collect();
    let physical = Arc::new(MonitorPages { monitor: Arc::clone(monitor), ranges });
    open.push(Ram { road: Road::Monitor, physical });
    Ok((open, closed))
}

type Opened = Result<Ram, String>;

fn of_files(monitor: &mut Monitor, ranges: &[RamRange]) -> Result<Opened, QmpError> {
    let backends: BTreeSet<&str> = ranges.iter().map(|range| range.backend.as_str()).collect();
    let (mut pieces, mut paths) = (Vec::new(), Vec::new());
    for backend in backends {
        let Some(path) = monitor.shared_file(backend)? else {
            return Ok(Err(format!("{backend} is in no shared file (-object memory-backend-file,share=on)")));
        };
        let runs = ranges.iter().filter(|range| range.backend == backend);
        let runs = runs.map(|range| run(&range.at, range.offset));
        match PositionedFile::open(&path)
            .map_err(|error| error.to_string())
            .and_then(|file| pages(file, runs))
        {
            Ok(piece) => pieces.push(piece),
            Err(why) => return Ok(Err(format!("{}: {why}", path.display()))),
        }
        paths.push(path);
    }
    Ok(Ok(Ram { road: Road::Files(paths), physical: Arc::new(Pieces(pieces)) }))
}

fn of_process(monitor: &mut Monitor, ranges: &[RamRange]) -> Result<Opened, QmpError> {
    let Some(pid) = monitor.qmp.peer() else {
        return Ok(Err("QEMU's process is not known: its monitor is no Unix socket of this machine".into()));
    };
    let path = format!("/proc/{pid}/mem");
    let file = match PositionedFile::open_endless(Path::new(&path)) {
        Ok(file) => file,
        Err(error) => {
            return Ok(Err(format!(
                "{path}: {error}. It takes the same user and leave to trace: root, setcap cap_sys_ptrace=ep on verikd, or \
                 kernel.yama.ptrace_scope 0"
            )));
        }
    };
    let mut runs = Vec::new();
    for range in ranges {
        let Some(host) = monitor.host_address(range.at.start)? else {
            return Ok(Err(format!("the monitor does not say where it has {:#x} (gpa2hva)", range.at.start)));
        };
        runs.push(run(&range.at, host));
    }
    Ok(pages(file, runs.into_iter())
        .map(|piece| Ram { road: Road::Process(pid), physical: Arc::new(Pieces(vec![piece])) }))
}

const fn run(at: &Range<u64>, offset: u64) -> Run {
    Run { start: at.start, len: at.end - at.start, offset }
}

fn pages(file: PositionedFile, runs: impl Iterator<Item = Run>) -> Result<FilePages, String> {
    let mut map = PageMap::default();
    for run in runs {
        map.push(run).map_err(|bad| bad.to_string())?;
    }
    let map = map.sorted().map_err(|bad| bad.to_string())?;
    if map.file_end() > file.len() {
        return Err(format!(
            "it has {:#x} bytes, the machine's RAM ends at {:#x}",
            file.len(),
            map.file_end()
        ));
    }
    Ok(FilePages { file: Arc::new(file), map })
}

/// RAM in several files.
struct Pieces(Vec<FilePages>);

impl PhysicalMemory for Pieces {
    fn read(&self, address: PhysAddr, buf: &mut [u8]) -> Result<(), (usize, ReadCause)> {
        let mut got = 0;
        loop {
            let (before, mut why) = (got, ReadCause::NotMapped);
            for piece in &self.0 {
                match piece.read(PhysAddr(address.0.saturating_add(got as u64)), &mut buf[got..]) {
                    Ok(()) => return Ok(()),
                    Err((some, ReadCause::NotKept)) => got += some,
                    Err((some, cause)) => {
                        got += some;
                        why = cause;
                    }
                }
            }
            if got == before {
                return Err((got, why));
            }
        }
    }

    fn ranges(&self) -> Vec<Range<u64>> {
        let mut ranges: Vec<_> = self.0.iter().flat_map(FilePages::ranges).collect();
        ranges.sort_by_key(|range| range.start);
        ranges
    }

    fn end(&self) -> PhysAddr {
        self.0.iter().map(FilePages::end).max().unwrap_or_default()
    }
}

/// RAM that a monitor is asked for.
struct MonitorPages {
    monitor: Arc<Mutex<Monitor>>,
    /// In order.
    ranges: Vec<Range<u64>>,
}

impl PhysicalMemory for MonitorPages {
    fn read(&self, address: PhysAddr, buf: &mut [u8]) -> Result<(), (usize, ReadCause)> {
        let mut got = 0;
        while got < buf.len() {
            let at = address.0.checked_add(got as u64).ok_or((got, ReadCause::NotMapped))?;
            // Elsewhere are devices: reading them has effects.
            if !self.ranges.iter().any(|range| range.contains(&at)) {
                return Err((got, ReadCause::NotMapped));
            }
            let into = at as usize % PAGE;
            let page = {
                let mut monitor = self.monitor.lock().unwrap_or_else(PoisonError::into_inner);
                monitor.page(at - into as u64).map_err(|error| (got, error.into()))?
            };
            let len = (PAGE - into).min(buf.len() - got);
            buf[got..got + len].copy_from_slice(&page[into..into + len]);
            got += len;
        }
        Ok(())
    }

    fn ranges(&self) -> Vec<Range<u64>> {
        let below = |range: &Range<u64>| range.start..range.end.min(SCANNED_BY_MONITOR);
        self.ranges.iter().map(below).filter(|range| range.start < range.end).collect()
    }

    fn end(&self) -> PhysAddr {
        PhysAddr(self.ranges.last().map_or(0, |range| range.end))
    }
}

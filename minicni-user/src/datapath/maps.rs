//! Typed views of the pinned maps.

use std::path::{Path, PathBuf};

use aya::maps::{Array, MapData, MapError, PerCpuArray};
use minicni_common::{
    Counters,
    names::{COUNTERS, EPOCH, GENERATIONS, GLOBAL_GENERATION, slot},
};
use nix::time::{ClockId, clock_gettime};

use super::{DatapathError, Pins, load::open_map};

pub(super) fn failed(action: &'static str, path: &Path) -> impl FnOnce(MapError) -> DatapathError {
    let path = path.to_path_buf();
    move |source| DatapathError::Map { action, path, source }
}

/// Whether an entry was not there to be removed.
pub(super) fn is_absence(error: &MapError) -> bool {
    match error {
        MapError::KeyNotFound => true,
        MapError::SyscallError(error) => error.io_error.raw_os_error() == Some(nix::libc::ENOENT),
        _ => false,
    }
}

/// The generations: bumping one makes every flow noted under it prove itself again.
pub struct Generations {
    map: Array<MapData, u64>,
    path: PathBuf,
}

impl Generations {
    /// Opens the pinned map.
    pub fn open(pins: &Pins) -> Result<Self, DatapathError> {
        let path = pins.map(GENERATIONS);
        let map = Array::try_from(open_map(pins, GENERATIONS)?).map_err(failed("open", &path))?;
        Ok(Self { map, path })
    }

    /// Voids what was proven of flows that enter or leave at an interface.
    pub fn bump(&mut self, ifindex: u32) -> Result<(), DatapathError> {
        self.set(slot(ifindex))
    }

    /// Voids what was proven of any flow: routes or firewall rules changed.
    pub fn bump_all(&mut self) -> Result<(), DatapathError> {
        self.set(GLOBAL_GENERATION)
    }

    // The time since boot is a value that the entry never had, without a read-modify-write that two processes could
    // interleave.
    fn set(&mut self, index: u32) -> Result<(), DatapathError> {
        let now = clock_gettime(ClockId::CLOCK_BOOTTIME).map_err(|errno| DatapathError::Pin {
            action: "read CLOCK_BOOTTIME for",
            path: self.path.clone(),
            source: errno.into(),
        })?;
        let generation = now.tv_sec().unsigned_abs() * 1_000_000_000 + now.tv_nsec().unsigned_abs();
        // The epoch after what it stands for: who saw the one must see the other.
        for index in [index, EPOCH] {
            self.map.set(index, generation, 0).map_err(failed("write", &self.path))?;
        }
        Ok(())
    }
}

/// The counters, summed over all CPUs.
pub fn counters(pins: &Pins) -> Result<Counters, DatapathError> {
    let path = pins.map(COUNTERS);
    let map: PerCpuArray<_, Counters> =
        PerCpuArray::try_from(open_map(pins, COUNTERS)?).map_err(failed("open", &path))?;
    let mut sum = Counters::default();
    for cpu in map.get(&0, 0).map_err(failed("read", &path))?.iter() {
        sum.add(cpu);
    }
    Ok(sum)
}

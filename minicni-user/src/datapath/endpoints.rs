use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
};

use aya::maps::{Array, HashMap, MapData, MapError};
use minicni_common::{
    Endpoint, EndpointSlot,
    names::{ENDPOINT_SLOTS, ENDPOINTS, endpoint_slot},
};

use super::{
    DatapathError, Pins,
    load::open_map,
    maps::{failed, is_absence},
};

/// `BPF_ANY` and `BPF_NOEXIST` of linux/bpf.h.
const ANY: u64 = 0;
const NOEXIST: u64 = 1;

/// What each interface is: the endpoint map, and the slots in which the programs look first.
///
/// An interface that has a slot has the same entry in the map, so who dies in between leaves one that is found more slowly.
pub struct Endpoints {
    map: HashMap<MapData, u32, Endpoint>,
    path: PathBuf,
    slots: Array<MapData, EndpointSlot>,
    slots_path: PathBuf,
    dir: PathBuf,
}

impl Endpoints {
    /// Opens the pinned maps.
    pub fn open(pins: &Pins) -> Result<Self, DatapathError> {
        let (path, slots_path) = (pins.map(ENDPOINTS), pins.map(ENDPOINT_SLOTS));
        let map = HashMap::try_from(open_map(pins, ENDPOINTS)?).map_err(failed("open", &path))?;
        let slots = Array::try_from(open_map(pins, ENDPOINT_SLOTS)?).map_err(failed("open", &slots_path))?;
        Ok(Self { map, path, slots, slots_path, dir: pins.dir().to_path_buf() })
    }

    /// Enters or changes an interface.
    pub fn insert(&mut self, ifindex: u32, endpoint: &Endpoint) -> Result<(), DatapathError> {
        let _lock = self.lock()?;
        if self.get(ifindex)?.as_ref() != Some(endpoint) {
            self.vacate(ifindex)?;
        }
        self.map.insert(ifindex, endpoint, ANY).map_err(failed("insert into", &self.path))?;
        self.occupy(ifindex, endpoint)
    }

    /// Enters an interface, unless somebody has.
    pub(super) fn insert_new(&mut self, ifindex: u32, endpoint: &Endpoint) -> Result<(), DatapathError> {
        let _lock = self.lock()?;
        match self.map.insert(ifindex, endpoint, NOEXIST) {
            Err(MapError::SyscallError(error)) if error.io_error.raw_os_error() == Some(nix::libc::EEXIST) => Ok(()),
            result => {
                result.map_err(failed("insert into", &self.path))?;
                self.occupy(ifindex, endpoint)
            }
        }
    }

    /// What is known of an interface.
    pub fn get(&self, ifindex: u32) -> Result<Option<Endpoint>, DatapathError> {
        match self.map.get(&ifindex, 0) {
            Ok(endpoint) => Ok(Some(endpoint)),
            Err(MapError::KeyNotFound) => Ok(None),
            Err(error) => Err(failed("read", &self.path)(error)),
        }
    }

    /// Removes an interface; says whether it was there.
    pub fn remove(&mut self, ifindex: u32) -> Result<bool, DatapathError> {
        let _lock = self.lock()?;
        self.vacate(ifindex)?;
        match self.map.remove(&ifindex) {
            Ok(()) => Ok(true),
            Err(error) if is_absence(&error) => Ok(false),
            Err(error) => Err(failed("remove from", &self.path)(error)),
        }
    }

    /// Every interface, in no order.
    pub fn all(&self) -> Result<Vec<(u32, Endpoint)>, DatapathError> {
        self.map.iter().collect::<Result<_, _>>().map_err(failed("read", &self.path))
    }

    /// Takes its slot from an interface, and nothing else of what is in it: the programs may read it.
    fn vacate(&mut self, ifindex: u32) -> Result<(), DatapathError> {
        let found = self.slot(ifindex)?;
        if found.ifindex != ifindex {
            return Ok(());
        }
        self.write(ifindex, &EndpointSlot { ifindex: 0, ..found })
    }

    /// Gives an interface its slot, unless another one has it.
    ///
    /// The kernel copies a value byte by byte, while the programs read it. So a slot is nobody's while its endpoint changes. A program
    /// that found the owner before may still read a mixture; of an interface that sends, nothing ever changes but its flags.
    fn occupy(&mut self, ifindex: u32, endpoint: &Endpoint) -> Result<(), DatapathError> {
        let found = self.slot(ifindex)?;
        let wanted = EndpointSlot { ifindex, endpoint: *endpoint };
        let is_anothers = found.ifindex != 0 && found.ifindex != ifindex && self.get(found.ifindex)?.is_some();
        if found == wanted || is_anothers {
            return Ok(());
        }
        self.write(ifindex, &EndpointSlot { ifindex: 0, ..found })?;
        self.write(ifindex, &EndpointSlot { ifindex: 0, ..wanted })?;
        self.write(ifindex, &wanted)
    }

    fn slot(&self, ifindex: u32) -> Result<EndpointSlot, DatapathError> {
        self.slots.get(&endpoint_slot(ifindex), 0).map_err(failed("read", &self.slots_path))
    }

    fn write(&mut self, ifindex: u32, slot: &EndpointSlot) -> Result<(), DatapathError> {
        self.slots.set(endpoint_slot(ifindex), slot, 0).map_err(failed("write", &self.slots_path))
    }

    /// Waits until nobody else changes slots, of which two interfaces may want the same.
    fn lock(&self) -> Result<File, DatapathError> {
        lock(&self.dir).map_err(|source| DatapathError::Pin { action: "lock", path: self.dir.clone(), source })
    }
}

fn lock(dir: &Path) -> io::Result<File> {
    let dir = File::open(dir)?;
    loop {
        match dir.lock() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            done => return done.map(|()| dir),
        }
    }
}

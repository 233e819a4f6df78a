use std::{borrow::Cow, fs, path::Path};

use aya::{
    Ebpf, EbpfLoader,
    maps::{Map, MapData, MapInfo, MapType},
    programs::{ProgramError, SchedClassifier},
};
use minicni_common::{
    Bucket4, Bucket6, Counters, Endpoint, EndpointSlot, Flow, FlowKey4, FlowKey6, Note4, Note6,
    names::{
        BUCKETS, BUCKETS4, BUCKETS6, COUNTERS, EGRESS, ENDPOINT_SLOT_ENTRIES, ENDPOINT_SLOTS, ENDPOINTS, FLOWS4,
        FLOWS6, GENERATION_ENTRIES, GENERATIONS, INGRESS, MAPS, MAX_ENDPOINTS, MAX_FLOWS, MapName, NOTE_ENTRIES,
        NOTES4, NOTES6, constants,
    },
};

use super::{Constants, DatapathError, Pins, Programs};

/// The eBPF object, as `cargo xtask build-ebpf` committed it.
pub static OBJECT: &[u8] = aya::include_bytes_aligned!("../../ebpf/minicni.o");

/// Loads the programs and pins them and their maps. Maps that are pinned already are kept, with what they remember.
///
/// Programs that are pinned already are replaced: the new ones are pinned under a temporary name and renamed, which
/// an attached filter does not notice (see `link`'s block filter to replace those). `log_level` is that of aya-log:
/// 0 is off, and then the verifier removes the code.
///
/// The caller holds the node's lock. It takes 20 to 50 ms, most of them to parse the kernel's BTF.
pub fn load(pins: &Pins, object: &[u8], constants: &Constants, log_level: u8) -> Result<Programs, DatapathError> {
    pins.create_dir()?;
    for shape in shapes() {
        shape.check(pins)?;
    }
    let tcp = u8::from(constants.tcp);
    let mut loader = EbpfLoader::new();
    for map in &MAPS {
        loader.map_pin_path(map.symbol, Cow::Owned(pins.map(*map)));
    }
    let mut ebpf = loader
        .override_global(constants::PROOFS, &constants.proofs, true)
        .override_global(constants::SKIPPED, &constants.skipped, true)
        .override_global(constants::REFRESH, &constants.refresh, true)
        .override_global(constants::IDLE, &constants.idle, true)
        .override_global(constants::GRACE, &constants.grace, true)
        .override_global(constants::TCP, &tcp, true)
        .override_global(aya_log::LEVEL, &log_level, true)
        .load(object)?;
    for name in [INGRESS, EGRESS] {
        load_program(&mut ebpf, name, &pins.program(name))?;
    }
    pins.open_programs()
}

fn load_program(ebpf: &mut Ebpf, name: &'static str, pin: &Path) -> Result<(), DatapathError> {
    let program: &mut SchedClassifier = ebpf
        .program_mut(name)
        .ok_or(DatapathError::NoProgram { name })?
        .try_into()
        .map_err(|_: ProgramError| DatapathError::NoProgram { name })?;
    program.load().map_err(|source| DatapathError::Program { name, source })?;
    // bpffs refuses dots in names.
    let temporary = pin.with_file_name(format!("{name}-new"));
    let pin_error = |action, path: &Path| {
        let path = path.to_owned();
        move |source| DatapathError::Pin { action, path, source }
    };
    if temporary.exists() {
        fs::remove_file(&temporary).map_err(pin_error("remove", &temporary))?;
    }
    program.pin(&temporary).map_err(|source| DatapathError::PinProgram { path: temporary.clone(), source })?;
    fs::rename(&temporary, pin).map_err(pin_error("rename to", pin))
}

/// The shape of a map, because aya reuses a pinned map without a look at it.
pub(super) struct Shape {
    map: MapName,
    kind: MapType,
    key: usize,
    value: usize,
    entries: u32,
}

impl Shape {
    const fn new(map: MapName, kind: MapType, key: usize, value: usize, entries: u32) -> Self {
        Self { map, kind, key, value, entries }
    }

    fn check(&self, pins: &Pins) -> Result<(), DatapathError> {
        let path = pins.map(self.map);
        if !path.exists() {
            return Ok(());
        }
        match self.difference(&path)? {
            None => Ok(()),
            Some((property, found, expected)) => Err(DatapathError::Shape { path, property, found, expected }),
        }
    }

    /// What the map pinned on a path has otherwise: the property, what it is, and what it should be.
    pub(super) fn difference(&self, path: &Path) -> Result<Option<(&'static str, u64, u64)>, DatapathError> {
        let failed = |source| DatapathError::Map { action: "inspect", path: path.to_path_buf(), source };
        let found = MapInfo::from_pin(path).map_err(failed)?;
        let kind = found.map_type().map_err(failed)?;
        let properties = [
            ("type", kind as u64, self.kind as u64),
            ("key size", u64::from(found.key_size()), self.key as u64),
            ("value size", u64::from(found.value_size()), self.value as u64),
            ("max entries", u64::from(found.max_entries()), u64::from(self.entries)),
        ];
        Ok(properties.into_iter().find(|(_, found, expected)| found != expected))
    }
}

/// The shape of the endpoint map.
pub(super) const ENDPOINT_SHAPE: Shape =
    Shape::new(ENDPOINTS, MapType::Hash, size_of::<u32>(), size_of::<Endpoint>(), MAX_ENDPOINTS);

/// The shapes of the maps that the object declares.
fn shapes() -> [Shape; 10] {
    const INDEX: usize = size_of::<u32>();
    [
        ENDPOINT_SHAPE,
        Shape::new(ENDPOINT_SLOTS, MapType::Array, INDEX, size_of::<EndpointSlot>(), ENDPOINT_SLOT_ENTRIES),
        Shape::new(FLOWS4, MapType::LruHash, size_of::<FlowKey4>(), size_of::<Flow>(), MAX_FLOWS),
        Shape::new(FLOWS6, MapType::LruHash, size_of::<FlowKey6>(), size_of::<Flow>(), MAX_FLOWS),
        Shape::new(BUCKETS4, MapType::Array, INDEX, size_of::<Bucket4>(), BUCKETS),
        Shape::new(BUCKETS6, MapType::Array, INDEX, size_of::<Bucket6>(), BUCKETS),
        Shape::new(NOTES4, MapType::Array, INDEX, size_of::<Note4>(), NOTE_ENTRIES),
        Shape::new(NOTES6, MapType::Array, INDEX, size_of::<Note6>(), NOTE_ENTRIES),
        Shape::new(GENERATIONS, MapType::Array, INDEX, size_of::<u64>(), GENERATION_ENTRIES),
        Shape::new(COUNTERS, MapType::PerCpuArray, INDEX, size_of::<Counters>(), 1),
    ]
}

/// Opens a pinned map for one of aya's typed views.
pub(super) fn open_map(pins: &Pins, map: MapName) -> Result<Map, DatapathError> {
    let path = pins.map(map);
    MapData::from_pin(&path).and_then(Map::from_map_data).map_err(|source| DatapathError::Map {
        action: "open",
        path,
        source,
    })
}

use std::{
    fs,
    path::{Path, PathBuf},
};

use aya::maps::{HashMap, Map, MapData};
use minicni_common::{
    Endpoint,
    names::{ENDPOINTS, LAYOUT_VERSION},
};

use super::{DatapathError, Endpoints, Pins, load::ENDPOINT_SHAPE, maps::failed};

/// Takes the endpoints over from the pins of other layouts, and removes those pins.
///
/// To be called when the programs are loaded and before they replace those of pods that are wired already: they would not
/// know these pods. Where the endpoint map had another shape, its pins stay, and its pods stay unknown until their next
/// ADD.
pub fn adopt(pins: &Pins) -> Result<(), DatapathError> {
    for dir in others(pins)? {
        let pin = dir.join(ENDPOINTS.pin);
        if pin.exists() {
            if ENDPOINT_SHAPE.difference(&pin)?.is_some() {
                continue;
            }
            let known = Known::open(&pin)?;
            known.copy(pins)?;
            remove(dir)?;
            // Whoever had the map open and entered a pod meanwhile.
            known.copy(pins)?;
        } else {
            remove(dir)?;
        }
    }
    Ok(())
}

/// The directories of other layouts beside ours.
fn others(pins: &Pins) -> Result<Vec<PathBuf>, DatapathError> {
    let Some(parent) = pins.dir().parent() else { return Ok(Vec::new()) };
    let entries = fs::read_dir(parent).map_err(|source| DatapathError::Pin {
        action: "list",
        path: parent.to_path_buf(),
        source,
    })?;
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let is_other = |name: &String| {
        let number = name.strip_prefix('v').is_some_and(|number| number.parse::<u32>().is_ok());
        number && name != LAYOUT_VERSION
    };
    Ok(names.filter(is_other).map(|name| parent.join(name)).collect())
}

fn remove(dir: PathBuf) -> Result<(), DatapathError> {
    fs::remove_dir_all(&dir).map_err(|source| DatapathError::Pin { action: "remove", path: dir, source })
}

/// The endpoints of another layout, also when their pin is gone.
struct Known {
    from: PathBuf,
    endpoints: HashMap<MapData, u32, Endpoint>,
}

impl Known {
    fn open(from: &Path) -> Result<Self, DatapathError> {
        let endpoints = MapData::from_pin(from).and_then(Map::from_map_data).and_then(HashMap::try_from);
        Ok(Self { from: from.to_owned(), endpoints: endpoints.map_err(failed("open", from))? })
    }

    fn copy(&self, pins: &Pins) -> Result<(), DatapathError> {
        let mut new = Endpoints::open(pins)?;
        let endpoints: Vec<_> = self.endpoints.iter().collect::<Result<_, _>>().map_err(failed("read", &self.from))?;
        for (ifindex, endpoint) in endpoints {
            // Who is there was entered by somebody who took over before us and was ended half way, or anew by an ADD.
            new.insert_new(ifindex, &endpoint)?;
        }
        Ok(())
    }
}

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    os::fd::AsFd as _,
    path::PathBuf,
};

use aya::{
    Pod,
    maps::{HashMap, MapData},
};
use minicni_common::{
    Flow, FlowKey4, FlowKey6,
    names::{FLOWS4, FLOWS6, MapName},
};

use super::{
    DatapathError, Pins, batch,
    load::open_map,
    maps::{failed, is_absence},
};

/// The normalised 5-tuple of a flow.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum FlowKey {
    /// Of an IPv4 flow.
    V4(FlowKey4),
    /// Of an IPv6 flow.
    V6(FlowKey6),
}

impl FlowKey {
    /// The two ends, in the order of [`Flow::directions`]: packets of the first direction go from the first to the second.
    pub fn ends(&self) -> [SocketAddr; 2] {
        let end = |address: IpAddr, port| SocketAddr::new(address, port);
        match self {
            Self::V4(FlowKey4 { addresses: [one, other], ports, .. }) => {
                [end((*one).into(), ports[0]), end((*other).into(), ports[1])]
            }
            Self::V6(FlowKey6 { addresses: [one, other], ports, .. }) => {
                [end((*one).into(), ports[0]), end((*other).into(), ports[1])]
            }
        }
    }

    /// 6 for TCP, 17 for UDP.
    pub fn protocol(&self) -> u32 {
        match self {
            Self::V4(key) => key.protocol,
            Self::V6(key) => key.protocol,
        }
    }
}

/// `10.1.0.2:1000 > 10.1.0.3:53 udp`
impl fmt::Display for FlowKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [one, other] = self.ends();
        write!(f, "{one} > {other} ")?;
        match self.protocol() {
            6 => f.write_str("tcp"),
            17 => f.write_str("udp"),
            number => write!(f, "protocol {number}"),
        }
    }
}

/// The flow caches, of IPv4 and of IPv6.
#[derive(Debug)]
pub struct Flows {
    ipv4: Cache<FlowKey4>,
    ipv6: Cache<FlowKey6>,
}

impl Flows {
    /// Opens the pinned maps.
    pub fn open(pins: &Pins) -> Result<Self, DatapathError> {
        Ok(Self { ipv4: Cache::open(pins, FLOWS4)?, ipv6: Cache::open(pins, FLOWS6)? })
    }

    /// Every flow that was seen lately, in no order. Flows come and go meanwhile.
    pub fn all(&self) -> Result<Vec<(FlowKey, Flow)>, DatapathError> {
        let mut all = self.ipv4.all(FlowKey::V4)?;
        all.extend(self.ipv6.all(FlowKey::V6)?);
        Ok(all)
    }

    /// Tells the state of every flow, as a number, without keeping them: there may be many.
    pub fn each_state(&self, mut tell: impl FnMut(u32)) -> Result<(), DatapathError> {
        self.ipv4.each_state(&mut tell)?;
        self.ipv6.each_state(&mut tell)
    }

    /// Forgets one flow. It proves itself again when its shortcuts are over, or at once after [`Generations::bump_all`](super::Generations::bump_all).
    pub fn remove(&mut self, key: &FlowKey) -> Result<(), DatapathError> {
        match key {
            FlowKey::V4(key) => self.ipv4.remove(key),
            FlowKey::V6(key) => self.ipv6.remove(key),
        }
    }
}

#[derive(Debug)]
struct Cache<K: Pod> {
    map: HashMap<MapData, K, Flow>,
    path: PathBuf,
}

impl<K: Pod + bytemuck::Pod> Cache<K> {
    fn open(pins: &Pins, name: MapName) -> Result<Self, DatapathError> {
        let path = pins.map(name);
        let map = HashMap::try_from(open_map(pins, name)?).map_err(failed("open", &path))?;
        Ok(Self { map, path })
    }

    fn all(&self, key: impl Fn(K) -> FlowKey) -> Result<Vec<(FlowKey, Flow)>, DatapathError> {
        let flows = self.map.iter().map(|entry| entry.map(|(found, flow)| (key(found), flow)));
        flows.collect::<Result<_, _>>().map_err(failed("read", &self.path))
    }

    fn each_state(&self, mut tell: impl FnMut(u32)) -> Result<(), DatapathError> {
        let map = MapData::from_pin(&self.path).map_err(failed("open", &self.path))?;
        let told = batch::each_value::<K, Flow>(map.fd().as_fd(), |flow| tell(flow.state));
        told.map_err(|source| DatapathError::Pin { action: "count the flows of", path: self.path.clone(), source })
    }

    fn remove(&mut self, key: &K) -> Result<(), DatapathError> {
        match self.map.remove(key) {
            Ok(()) => Ok(()),
            Err(error) if is_absence(&error) => Ok(()),
            Err(error) => Err(failed("remove from", &self.path)(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flow_is_written_as_people_write_it() {
        let (key, _) =
            FlowKey4::new((u32::from_ne_bytes([10, 1, 0, 2]), 1000), (u32::from_ne_bytes([10, 1, 0, 3]), 53), 17);
        assert_eq!(FlowKey::V4(key).to_string(), "10.1.0.2:1000 > 10.1.0.3:53 udp");
        let mut addresses = [[0; 16]; 2];
        for (address, last) in addresses.iter_mut().zip([2, 3]) {
            (address[0], address[15]) = (0xfd, last);
        }
        let key = FlowKey::V6(FlowKey6 { addresses, ports: [1000, 80], protocol: 6 });
        assert_eq!(key.to_string(), "[fd00::2]:1000 > [fd00::3]:80 tcp");
    }
}

//! An upgrade over pins of another layout.

use std::{fs, path::Path};

use aya::maps::MapData;
use minicni::datapath::{Endpoints, Pins, adopt, load};
use minicni_common::{Reason, names};

use crate::{
    bench::{OK, Pod, SHOT, patient, run},
    packets::Frame,
};

#[test]
fn pods_that_an_older_layout_knew_are_known_after_an_upgrade_and_its_pins_are_gone() {
    run("older", patient(), |bench| {
        let (a, b) = (bench.a, bench.b);
        // What the older programs left: another endpoint map, which knows both pods.
        let older = Pins::new(Path::new("/mnt/older"));
        load(&older, minicni::datapath::OBJECT, &patient(), 0).unwrap();
        let mut known = Endpoints::open(&older).unwrap();
        let mut endpoints = Endpoints::open(&bench.pins).unwrap();
        for pod in [a, b] {
            known.insert(pod.ifindex, &endpoints.get(pod.ifindex).unwrap().unwrap()).unwrap();
        }
        let dir = bench.pins.dir().with_file_name("v0");
        let pin = |from, name: &str| {
            fs::create_dir_all(&dir).unwrap();
            MapData::from_pin(older.map(from)).unwrap().pin(dir.join(name)).unwrap();
        };
        pin(names::ENDPOINTS, "endpoints");
        pin(names::FLOWS4, "flows");
        // Only one has been wired since; it has another address now.
        endpoints.remove(a.ifindex).unwrap();
        let anew = Pod { ipv4: [10, 1, 0, 77].into(), ipv6: "fd00::77".parse().unwrap(), ..b };
        bench.enter(anew, 0);

        adopt(&bench.pins).unwrap();
        assert!(!dir.exists());
        bench.expect(&[Reason::Learning], OK, |bench| bench.ingress(a, &Frame::udp(a, 1, b, 2).bytes()));
        bench.expect(&[Reason::SpoofedSource], SHOT, |bench| {
            bench.ingress(a, &Frame { source_mac: a.mac, ..Frame::udp(b, 1, b, 2) }.bytes())
        });
        bench.expect(&[Reason::SpoofedSource], SHOT, |bench| bench.ingress(b, &Frame::udp(b, 1, a, 2).bytes()));
        adopt(&bench.pins).unwrap();

        // Of another shape: nothing to understand, nothing to remove.
        pin(names::GENERATIONS, "endpoints");
        adopt(&bench.pins).unwrap();
        assert!(dir.join("endpoints").exists() && bench.pins.map(names::ENDPOINTS).exists());
    });
}

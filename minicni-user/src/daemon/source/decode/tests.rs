//! `recorded` has what a kube-apiserver 1.20.2 answered when it was asked for the same in both encodings.

use std::collections::BTreeMap;

use hyper::http::HeaderValue;
use proptest::prelude::*;

use super::*;
use crate::daemon::source::frames::Frames;
use crate::daemon::source::object::Known;

const LIST: [(Encoding, &[u8]); 2] =
    [(Encoding::Json, include_bytes!("recorded/list.json")), (Encoding::Protobuf, include_bytes!("recorded/list.pb"))];
const WATCH: [(Encoding, &[u8]); 2] = [
    (Encoding::Json, include_bytes!("recorded/watch.json")),
    (Encoding::Protobuf, include_bytes!("recorded/watch.pb")),
];
const REFUSAL: &[u8] = include_bytes!("recorded/refusal.pb");

fn frames(encoding: Encoding, bytes: &[u8]) -> Vec<Bytes> {
    let mut frames = Frames::new(encoding);
    frames.push(bytes);
    let all = std::iter::from_fn(|| frames.next().unwrap()).collect();
    frames.finish().unwrap();
    all
}

/// What an event says, to the node `me`: its kind, its version, and the node.
fn said(event: Event, me: &str) -> (&'static str, String, Option<Known>) {
    match event {
        Event::Set(object) => ("set", object.metadata.resource_version.clone(), Some(Known::new(object, me))),
        Event::Deleted(object) => ("deleted", object.metadata.resource_version.clone(), Some(Known::new(object, me))),
        Event::Bookmark(version) => ("bookmark", version, None),
        Event::Refused(refusal) => panic!("{refusal:?}"),
    }
}

fn events((encoding, bytes): (Encoding, &[u8]), me: &str) -> Vec<(&'static str, String, Option<Known>)> {
    frames(encoding, bytes).into_iter().map(|frame| said(encoding.event(frame).unwrap(), me)).collect()
}

#[test]
fn a_real_server_lists_the_same_nodes_in_both_encodings() {
    for me in ["a", "somebody"] {
        let [json, protobuf] = LIST.map(|(encoding, body)| {
            let page = encoding.page(Bytes::from_static(body)).unwrap();
            let known: BTreeMap<_, _> = page
                .items
                .into_iter()
                .map(|object| {
                    let metadata = object.metadata.clone();
                    (metadata.name, (metadata.resource_version, Known::new(object, me)))
                })
                .collect();
            (page.metadata.resource_version, page.metadata.more, known)
        });
        assert!(json.1.as_ref().is_some_and(|more| !more.is_empty()), "it is the first page");
        assert_eq!(json.2.len(), 2);
        let (_, known) = &protobuf.2["a"];
        assert_eq!(known.condition.is_some(), me == "a");
        assert_eq!(known.node.as_ref().unwrap().pod_cidrs, ["10.244.1.0/24".parse().unwrap()]);
        assert_eq!(protobuf.2["b"].1.node.as_ref().unwrap().pod_cidrs.len(), 2);
        assert_eq!(json, protobuf);
    }
}

#[test]
fn a_real_server_tells_the_same_in_both_encodings_and_a_heartbeat_means_nothing() {
    for me in ["c", "somebody"] {
        let [json, protobuf] = WATCH.map(|watch| events(watch, me));
        assert_eq!(json, protobuf);
        let kinds: Vec<_> = protobuf.iter().map(|(kind, ..)| *kind).collect();
        assert_eq!(kinds, ["set", "set", "deleted"]);
        // The second is that the kubelet was heard.
        assert_eq!(protobuf[0].2, protobuf[1].2);
        assert_ne!(protobuf[0].1, protobuf[1].1);
    }
}

#[test]
fn what_is_not_called_protobuf_is_json() {
    let of = |kind: &'static str| Encoding::of(&HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(kind))]));
    assert_eq!(Encoding::of(&HeaderMap::new()), Encoding::Json);
    assert_eq!(of("application/json"), Encoding::Json);
    assert_eq!(of("application/vnd.kubernetes.protobuf"), Encoding::Protobuf);
    assert_eq!(of("application/vnd.kubernetes.protobuf;stream=watch"), Encoding::Protobuf);
}

#[test]
fn a_refusal_is_understood_in_both_encodings_and_in_neither() {
    let real = Encoding::Protobuf.refusal(404, &Bytes::from_static(REFUSAL));
    assert_eq!(real, Refusal { code: 404, message: "nodes \"nobody\" not found".to_owned() });
    let status =
        br#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"too old","code":410}"#;
    let refusal = Refusal { code: 410, message: "too old".to_owned() };
    assert_eq!(Encoding::Json.refusal(500, &Bytes::from_static(status)), refusal);
    for encoding in [Encoding::Json, Encoding::Protobuf] {
        let proxy = encoding.refusal(502, &Bytes::from_static(b"<h1>Bad gateway</h1>\nnginx"));
        assert_eq!(proxy, Refusal { code: 502, message: "HTTP status 502: <h1>Bad gateway</h1>".to_owned() });
    }
}

/// A field of bytes in protobuf.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut field = vec![number << 3 | 2];
    prost::encode_length_delimiter(bytes.len(), &mut field).unwrap();
    [field, bytes.to_vec()].concat()
}

fn enveloped(kind: &str, object: &[u8]) -> Vec<u8> {
    [b"k8s\0".to_vec(), field(1, &field(2, kind.as_bytes())), field(2, object)].concat()
}

fn protobuf_event(kind: &str, object: &[u8]) -> Result<Event, DecodeError> {
    Encoding::Protobuf.event([field(1, kind.as_bytes()), field(2, &field(1, object))].concat().into())
}

#[test]
fn a_version_that_is_gone_is_told_of_in_the_stream_in_both_encodings() {
    // message is field 3 of a Status, code is field 6.
    let status = [field(3, b"too old resource version: 1 (7)"), vec![6 << 3, 0x9a, 0x03]].concat();
    let json: &[u8] = br#"{"type":"ERROR","object":{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"too old resource version: 1 (7)","reason":"Expired","code":410}}"#;
    let bare: &[u8] = br#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"too old resource version: 1 (7)","reason":"Expired","code":410}"#;
    let events = [
        protobuf_event("ERROR", &enveloped("Status", &status)),
        Encoding::Json.event(Bytes::from_static(json)),
        Encoding::Json.event(Bytes::from_static(bare)),
    ];
    for event in events {
        let Event::Refused(refusal) = event.unwrap() else { panic!("it is refused") };
        assert_eq!((refusal.code, refusal.message.as_str()), (410, "too old resource version: 1 (7)"));
    }
}

#[test]
fn what_is_wrong_with_an_answer_is_said() {
    let error = |result: Result<Event, DecodeError>| result.err().unwrap().to_string();
    let node = |metadata: &[u8]| enveloped("Node", &field(1, metadata));
    assert!(error(protobuf_event("ADDED", b"{}")).contains("does not begin"));
    assert!(error(protobuf_event("ADDED", &enveloped("Pod", b""))).contains("kind \"Pod\" instead of Node"));
    assert!(error(protobuf_event("ADDED", &node(&field(6, b"7")))).contains("metadata.name"));
    assert!(error(protobuf_event("ADDED", &node(&field(1, b"a")))).contains("metadata.resourceVersion"));
    assert!(error(protobuf_event("BOOKMARK", &node(b""))).contains("metadata.resourceVersion"));
    assert!(error(protobuf_event("MOVED", &node(b""))).contains("\"MOVED\""));
    assert!(error(protobuf_event("ADDED", &[b"k8s\0".to_vec(), vec![0xff; 9]].concat())).contains("protobuf"));
    assert!(error(Encoding::Json.event(Bytes::from_static(b"{"))).contains("JSON"));
    let list = enveloped("NodeList", &field(2, b""));
    assert!(Encoding::Protobuf.page(list.into()).err().unwrap().to_string().contains("metadata.resourceVersion"));
}

proptest! {
    #[test]
    fn garbage_is_refused_and_never_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), enveloped in any::<bool>()) {
        let bytes = if enveloped { [b"k8s\0".as_slice(), &bytes].concat() } else { bytes };
        for encoding in [Encoding::Json, Encoding::Protobuf] {
            let bytes = Bytes::from(bytes.clone());
            let _ = encoding.event(bytes.clone());
            let _ = encoding.refusal(400, &bytes);
            prop_assert!(encoding.page(bytes).is_err());
        }
    }

    #[test]
    fn an_answer_that_was_damaged_on_its_way_is_never_a_panic(
        place in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<prop::sample::Index>(),
    ) {
        for (encoding, body) in LIST {
            let mut body = body.to_vec();
            let place = place.index(body.len());
            body[place] = byte;
            let _ = encoding.page(body.clone().into());
            // JSON may lose the end of its line, and an envelope the two empty fields at its end.
            body.truncate(cut.index(body.len() - 4));
            prop_assert!(encoding.page(body.into()).is_err());
        }
        for (encoding, stream) in WATCH {
            let mut frame = frames(encoding, stream).swap_remove(0).to_vec();
            let place = place.index(frame.len());
            frame[place] = byte;
            let _ = encoding.event(frame.clone().into());
            frame.truncate(cut.index(frame.len()));
            prop_assert!(encoding.event(frame.into()).is_err());
        }
    }
}

use proptest::prelude::*;

use super::*;

fn any_frames() -> impl Strategy<Value = Vec<Vec<u8>>> {
    // What ends a line of JSON stands in none.
    prop::collection::vec(prop::collection::vec(any::<u8>().prop_map(|byte| byte.max(b' ')), 0..50), 0..8)
}

fn stream(encoding: Encoding, frames: &[Vec<u8>]) -> Vec<u8> {
    let on_the_wire = |frame: &Vec<u8>| match encoding {
        Encoding::Json => [frame.as_slice(), b"\n"].concat(),
        Encoding::Protobuf => [u32::try_from(frame.len()).unwrap().to_be_bytes().as_slice(), frame.as_slice()].concat(),
    };
    frames.iter().flat_map(on_the_wire).collect()
}

proptest! {
    #[test]
    fn however_the_stream_is_cut_the_same_events_come_out(
        events in any_frames(), cuts in prop::collection::vec(1..30usize, 1..20), json in any::<bool>(),
    ) {
        let encoding = if json { Encoding::Json } else { Encoding::Protobuf };
        let stream = stream(encoding, &events);
        let (mut frames, mut found, mut rest) = (Frames::new(encoding), Vec::new(), stream.as_slice());
        for length in cuts.iter().cycle() {
            let (piece, after) = rest.split_at(rest.len().min(*length));
            frames.push(piece);
            while let Some(frame) = frames.next().unwrap() {
                found.push(frame.to_vec());
            }
            rest = after;
            if rest.is_empty() {
                break;
            }
        }
        prop_assert_eq!(found, events);
        frames.finish().unwrap();
    }

    #[test]
    fn a_stream_that_ends_early_gives_what_was_whole_and_says_that_there_was_more(
        events in any_frames(), end in any::<prop::sample::Index>(), json in any::<bool>(),
    ) {
        let encoding = if json { Encoding::Json } else { Encoding::Protobuf };
        let stream = stream(encoding, &events);
        let mut frames = Frames::new(encoding);
        let end = end.index(stream.len() + 1);
        frames.push(&stream[..end]);
        let mut whole = Vec::new();
        while let Some(frame) = frames.next().unwrap() {
            whole.push(frame.to_vec());
        }
        prop_assert_eq!(&whole[..], &events[..whole.len()]);
        let used = super::tests::stream(encoding, &whole).len();
        match frames.finish() {
            Ok(()) => prop_assert_eq!(used, end),
            Err(DecodeError::Truncated(left)) => prop_assert_eq!(used + left, end),
            Err(error) => panic!("{error}"),
        }
    }

    #[test]
    fn a_length_that_no_event_has_is_refused_before_anything_is_kept_for_it(length in any::<u32>()) {
        let mut frames = Frames::new(Encoding::Protobuf);
        frames.push(&length.to_be_bytes());
        let refused = matches!(frames.next(), Err(DecodeError::TooLong(_)));
        prop_assert_eq!(refused, length as usize > LONGEST);
    }
}

#[test]
fn a_line_without_end_is_refused() {
    let mut frames = Frames::new(Encoding::Json);
    frames.push(&vec![b' '; LONGEST]);
    assert!(frames.next().unwrap().is_none());
    frames.push(b" ");
    assert!(matches!(frames.next(), Err(DecodeError::TooLong(_))));
}

use super::*;

const T: Duration = Duration::from_millis(1);

#[test]
fn the_first_change_is_called_after_20_ms_and_the_next_ones_at_least_200_ms_apart() {
    let start = Instant::now();
    for (heard, called, expected) in [
        (0, None, 20),
        // Long after the last call: at once.
        (1_000, Some(0), 1_020),
        (180, Some(0), 200),
        // Soon after it: later, but never forgotten.
        (1, Some(0), 200),
        (0, Some(0), 200),
        (190, Some(0), 210),
    ] {
        assert_eq!(turn(start + heard * T, called.map(|called| start + called * T)), start + expected * T);
    }
}

//! The sum over a packet that some network cards leave beside it (`skb->csum`, `CHECKSUM_COMPLETE`).

use std::{
    io,
    os::fd::{AsRawFd as _, BorrowedFd},
};

use nix::{libc, sys::utsname::uname};

use crate::{
    bench::{REDIRECT, context, patient, run},
    packets::Frame,
    tagged::bpf_status,
};

#[test]
fn the_sum_that_a_network_card_left_beside_a_packet_is_right_after_the_redirect() {
    run("sum", patient(), |bench| {
        let (a, b) = (bench.a, bench.b);
        for (there, back) in [
            (Frame::udp(a, 1000, b, 53), Frame::udp(b, 53, a, 1000)),
            (Frame::tcp(a, 1000, b, 80), Frame::tcp(b, 80, a, 1000)),
        ] {
            bench.promote(&there, &back);
            let program = bench.pins.open_programs().unwrap();
            for ttl in 2..=255 {
                let frame = Frame { ttl, ..there.clone() }.bytes();
                match run_with_sum(program.ingress(), &context(a.ifindex), &frame) {
                    Err(error) if error.raw_os_error() == Some(libc::EINVAL) && kernel() < (6, 17) => {
                        return eprintln!("NOT TESTED: before Linux 6.17 no test packet bears such a sum");
                    }
                    action => assert_eq!(action.unwrap(), u64::from(REDIRECT)),
                }
            }
            bench.forget();
        }
    });
}

/// The running kernel's version, major and minor.
fn kernel() -> (u32, u32) {
    let release = uname().unwrap().release().to_string_lossy().into_owned();
    let mut numbers = release.split(['.', '-']).map(|number| number.parse().unwrap());
    (numbers.next().unwrap(), numbers.next().unwrap())
}

/// Runs a program on a test packet that bears the sum of its bytes, as some network cards leave it (`CHECKSUM_COMPLETE`),
/// and gives its action. Fails with EBADMSG when the sum is wrong afterwards, with EINVAL before Linux 6.17.
fn run_with_sum(program: BorrowedFd<'_>, context: &[u8], frame: &[u8]) -> io::Result<u64> {
    const BPF_F_TEST_SKB_CHECKSUM_COMPLETE: u64 = 1 << 2;
    let mut attributes = [0_u64; 16];
    attributes[0] = u64::from(program.as_raw_fd().unsigned_abs()); // program, return value
    attributes[1] = frame.len() as u64; // size of data in, out
    attributes[2] = frame.as_ptr() as u64;
    attributes[5] = context.len() as u64; // size of context in, out
    attributes[6] = context.as_ptr() as u64;
    attributes[8] = BPF_F_TEST_SKB_CHECKSUM_COMPLETE; // flags, CPU
    bpf_status(10, &mut attributes)?;
    Ok(attributes[0] >> 32)
}

//! The two TC programs of minicni. `ingress` sees packets enter the host, `egress` sees what the stack delivers.
//!
//! The kernel decides, eBPF remembers: a flow is redirected only after the stack was seen to carry it unchanged in
//! both directions. Whatever is not provably so is left to the stack.

#![no_std]
#![no_main]

mod bucket;
mod egress;
mod exit;
mod flow;
mod header;
mod ingress;
mod ipv4;
mod ipv6;
mod maps;
mod parse;
mod shortcut;
mod sketch;

use aya_ebpf::{
    bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC},
    macros::classifier,
    programs::TcContext,
};
use minicni_common::Reason;

/// A packet enters the host at an interface.
#[classifier]
#[inline(always)]
pub fn ingress(ctx: TcContext) -> i32 {
    ingress::run(&ctx)
}

/// The stack delivers a packet at an interface.
#[classifier]
#[inline(always)]
pub fn egress(ctx: TcContext) -> i32 {
    egress::run(&ctx)
}

/// Leaves a packet to the stack, for a reason. Programs of others behind ours still see it, as they would not after
/// `TC_ACT_OK`, which would also take the packet's tag away (`tc_run` in net/core/dev.c).
#[inline(always)]
fn stack(reason: Reason) -> i32 {
    maps::count(reason);
    TC_ACT_UNSPEC
}

/// Drops a packet, for a reason.
#[inline(always)]
fn drop(reason: Reason) -> i32 {
    maps::count(reason);
    TC_ACT_SHOT
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    // Nothing here can panic: the verifier would reject the loop.
    loop {}
}

// The helpers that minicni calls are reserved to programs under a licence compatible with the GPL:
// https://docs.kernel.org/bpf/bpf_licensing.html
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

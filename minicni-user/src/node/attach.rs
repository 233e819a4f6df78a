//! The two tc blocks that every pod's interface shares.
//!
//! The programs are attached once, to the blocks, so that wiring a pod attaches nothing and replacing the program of
//! every pod is one request. A block lives while a device uses it, so each ADD makes the filters anew, if need be.

use nix::errno::Errno;

use crate::{
    datapath::Programs,
    link::{LinkError, Request, Socket, block_filter, clsact, delete_block_filter},
};

/// The block of what enters the host from pods; the number is ours ("mni" and 1), blocks are counted per namespace.
pub const INGRESS_BLOCK: u32 = 0x6d6e_6901;
/// The block of what the stack delivers to pods.
pub const EGRESS_BLOCK: u32 = 0x6d6e_6902;

pub(super) const INGRESS_NAME: &str = "minicni ingress";
pub(super) const EGRESS_NAME: &str = "minicni egress";

/// The requests that attach the programs to a pod's interface.
pub fn attachments(ifindex: u32, programs: &Programs) -> [Request<'_>; 3] {
    [
        clsact(ifindex, INGRESS_BLOCK, EGRESS_BLOCK),
        block_filter(INGRESS_BLOCK, programs.ingress(), INGRESS_NAME, false).tolerate(Errno::EEXIST),
        block_filter(EGRESS_BLOCK, programs.egress(), EGRESS_NAME, false).tolerate(Errno::EEXIST),
    ]
}

/// The requests that replace the programs of each block, for all pods at once.
pub fn replacements(programs: &Programs) -> [(u32, Request<'_>); 2] {
    [
        (INGRESS_BLOCK, block_filter(INGRESS_BLOCK, programs.ingress(), INGRESS_NAME, true)),
        (EGRESS_BLOCK, block_filter(EGRESS_BLOCK, programs.egress(), EGRESS_NAME, true)),
    ]
}

/// The kernel's id of our program on a block; `None` where the block or the program is missing.
pub fn attached(socket: &mut Socket, block: u32) -> Result<Option<u32>, LinkError> {
    let ours = |name: Option<&str>| matches!(name, Some(INGRESS_NAME | EGRESS_NAME));
    let filters = socket.block_filters(block)?;
    Ok(filters.into_iter().filter(|filter| ours(filter.name.as_deref())).find_map(|filter| filter.prog_id))
}

/// The requests that detach the programs from all pods.
pub fn detachments() -> [Request<'static>; 2] {
    [delete_block_filter(INGRESS_BLOCK), delete_block_filter(EGRESS_BLOCK)]
}

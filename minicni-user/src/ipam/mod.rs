//! ipam: which pod has which address, on disk. It knows no network.
//!
//! A pool is a [`RangeSet`]; a [`Store`] is the directory of one network (`<stateDir>/ipam/<network>`):
//!
//! ```text
//! lock              flock, held during one call
//! boot_id           the boot everything here belongs to
//! last              symlink; its text is the address last handed out per range set
//! cooldown          symlink; its text is how many seconds a released address rests
//! attachments       empty; its bytes are the locks of attachments
//! leases/<address>  JSON: who holds the address, or since when it cools
//! owners/<owner>    symlink; its text is the addresses of that owner, separated by commas
//! ```
//!
//! The lease file is the truth, the symlink only finds it. The symlink is created before the lease and removed after
//! it, so a call that is killed at any point leaves at most a symlink that says too much, which the next call checks
//! against the lease. Symlinks, because one is created and read in a single system call and is never half written.

mod allocate;
mod clock;
mod error;
mod files;
mod lease;
mod owner;
mod pool;
mod range;
mod range_set;
mod release;
mod store;
mod sweep;

#[cfg(test)]
mod damage_tests;
#[cfg(test)]
mod exclude_tests;
#[cfg(test)]
mod fault;
#[cfg(test)]
mod kill_tests;
#[cfg(test)]
mod request_tests;
#[cfg(test)]
mod store_tests;

pub use clock::boottime;
pub use error::{IpamError, Result};
pub use lease::{Lease, LeaseState};
pub use owner::Owner;
pub use pool::Pool;
pub use range::Range;
pub use range_set::RangeSet;
pub use store::Store;
pub use sweep::Swept;

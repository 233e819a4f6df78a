//! minicni
fn main() {}

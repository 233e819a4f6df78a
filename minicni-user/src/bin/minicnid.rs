//! minicnid
fn main() {}

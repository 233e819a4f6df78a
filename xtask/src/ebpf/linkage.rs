//! Which functions of the object are global.
//!
//! The kernel verifies a global function by itself, and looks for the type of its context in its own BTF, which not every kernel has
//! (`CONFIG_DEBUG_INFO_BTF`). Ours are called by our programs alone, but have plain names, and the compiler takes these for global.
//! <https://elixir.bootlin.com/linux/v6.12/source/kernel/bpf/btf.c>, `btf_prepare_func_args`

use std::{collections::BTreeSet, ops::Range};

use anyhow::{Context as _, Result};
use object::{Object as _, ObjectSection as _, ObjectSymbol as _, SymbolKind};

/// Where the compiler puts functions that are no programs.
const FUNCTIONS: &str = ".text";

/// `BTF_KIND_FUNC`.
const FUNC: u32 = 12;

/// Has the object's BTF say of all functions but the programs that they are static.
pub(super) fn make_static(object: &mut [u8]) -> Result<()> {
    let (names, btf) = {
        let elf = object::File::parse(&*object).context("the object is no ELF")?;
        let functions = elf.section_by_name(FUNCTIONS).context("the object has no functions")?.index();
        let ours = elf.symbols().filter(|it| it.kind() == SymbolKind::Text && it.section_index() == Some(functions));
        let names: BTreeSet<String> = ours.filter_map(|it| it.name().ok().map(str::to_owned)).collect();
        let btf = elf.section_by_name(".BTF").and_then(|it| it.file_range()).context("the object has no BTF")?;
        (names, usize::try_from(btf.0)?..usize::try_from(btf.0 + btf.1)?)
    };
    walk(object.get_mut(btf).context("the object ends before its BTF")?, &names)
        .context("the object's BTF is malformed")
}

/// `None` where something ends too early.
fn walk(btf: &mut [u8], names: &BTreeSet<String>) -> Option<()> {
    let [header, types, types_length, strings] = [4, 8, 12, 16].map(|at| word(btf, at));
    let (types, strings) = (header? + types?, header? + strings?);
    let Range { mut start, end } = types..types + types_length?;
    while start < end {
        let (name, info) = (word(btf, start)?, u32::try_from(word(btf, start + 4)?).ok()?);
        let (kind, members) = (info >> 24 & 0x1f, info & 0xffff);
        let name = btf.get(strings + name..)?.split(|byte| *byte == 0).next()?;
        if kind == FUNC && names.contains(&*String::from_utf8_lossy(name)) {
            // The number of members is the linkage: `BTF_FUNC_STATIC`, 0.
            btf.get_mut(start + 4..start + 8)?.copy_from_slice(&(info & !0xffff).to_le_bytes());
        }
        start += 12 + followed_by(kind, usize::try_from(members).ok()?)?;
    }
    Some(())
}

/// The length of what stands behind a type with so many members: <https://docs.kernel.org/bpf/btf.html>.
fn followed_by(kind: u32, members: usize) -> Option<usize> {
    match kind {
        // INT, VAR, DECL_TAG
        1 | 14 | 17 => Some(4),
        // ARRAY
        3 => Some(12),
        // STRUCT, UNION, DATASEC, ENUM64
        4 | 5 | 15 | 19 => Some(12 * members),
        // ENUM, FUNC_PROTO
        6 | 13 => Some(8 * members),
        0..=19 => Some(0),
        _ => None,
    }
}

fn word(bytes: &[u8], at: usize) -> Option<usize> {
    let word = bytes.get(at..at + 4)?.try_into().ok()?;
    usize::try_from(u32::from_le_bytes(word)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_object_has_no_global_functions_but_its_programs_and_a_malformed_one_is_an_error() {
        let committed = include_bytes!("../../../minicni-user/ebpf/minicni.o").to_vec();
        let mut object = committed.clone();
        make_static(&mut object).unwrap();
        assert!(object == committed);
        assert!(make_static(&mut object[..100]).is_err());
        let names = BTreeSet::new();
        // A header of BTF that promises a type, and nothing behind it.
        let mut btf: Vec<u8> = [0_u32, 24, 0, 12, 12, 0].into_iter().flat_map(u32::to_le_bytes).collect();
        assert_eq!(walk(&mut btf, &names), None);
    }
}

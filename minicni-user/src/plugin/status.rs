use super::config::Config;
use crate::{
    cni::{CniError, Code, Request},
    node::{Datapath, Facts},
};

/// Fails where an ADD could not be served. Reads a few files, waits for nobody, changes nothing.
pub(super) fn status(request: &Request) -> Result<(), CniError> {
    let config = Config::new(&request.config)?;
    let facts = Facts::read(&config.state)?;
    let sets = config.ranges(facts.as_ref())?;
    if config.datapath == Datapath::Ebpf
        && let Err(error) = config.pins.open_programs()
        && !error.is_missing()
    {
        return Err(CniError::new(Code::NotAvailable, error.to_string()));
    }
    let Some(store) = config.existing_store()? else { return Ok(()) };
    for (set, usage) in sets.iter().zip(store.capacity(&sets)?) {
        if usage.leased >= usage.size {
            return Err(CniError::new(
                Code::NotAvailable,
                format!("all {} addresses of {set} are leased; delete pods or widen the range", usage.size),
            ));
        }
    }
    Ok(())
}

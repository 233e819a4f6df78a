use super::config::Config;
use crate::{
    cni::{CniError, Code, Request},
    node::{Datapath, Facts},
};

/// Fails where an ADD could not be served. Reads a few files, waits for nobody, changes nothing.
pub(super) fn status(request: &Request) -> Result<(), CniError> {
    let config = Config::new(&request.config)?;
    served(&config).map_err(|error| CniError { code: Code::NotAvailable, ..error })
}

fn served(config: &Config) -> Result<(), CniError> {
    config.state.check()?;
    let facts = Facts::read(&config.state)?;
    let sets = config.ranges(facts.as_ref())?;
    if config.datapath == Datapath::Ebpf && config.opened()?.is_none() {
        config.pins.check()?;
    }
    let Some(store) = config.existing_store()? else { return Ok(()) };
    if let Some(set) = store.exhausted(&sets)? {
        let msg = format!("all {} addresses of {set} are leased; delete pods or widen the range", set.size());
        return Err(CniError::new(Code::NotAvailable, msg));
    }
    Ok(())
}

//! Who the process is, and what it may do as that.

use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set, set_capabilities, set_no_new_privs,
};

use crate::config::Environment;

/// Root is for development only.
pub(super) fn refuse_root(environment: Environment, is_root: bool) -> Result<(), &'static str> {
    if environment == Environment::Production && is_root {
        return Err("\"production\" does not run as root; start it as a user of its own");
    }
    Ok(())
}

/// Gives up all capabilities of this thread, but that to listen on a port below 1024 where one is to be listened on, and
/// the way to new ones: no program that it might run gets more than it has.
pub(super) fn drop_all(keep_ports: bool) -> Result<(), &'static str> {
    set_no_new_privs(true).map_err(|_| "the kernel does not let the process give up new privileges")?;
    // Of no importance where there is no such set: capabilities go below.
    let _ = clear_ambient_capability_set();
    let held = capabilities(None).map_err(|_| "the kernel does not tell capabilities")?;
    let kept = if keep_ports { held.permitted & CapabilitySet::NET_BIND_SERVICE } else { CapabilitySet::empty() };
    let wanted = CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() };
    // Whoever has none need not ask, and may not be allowed to.
    if held == wanted {
        return Ok(());
    }
    set_capabilities(None, wanted).map_err(|_| "the kernel does not let the process drop its capabilities")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_is_refused_outside_development_and_nobody_else_is() {
        assert!(refuse_root(Environment::Production, true).unwrap_err().contains("root"));
        refuse_root(Environment::Production, false).unwrap();
        refuse_root(Environment::Dev, true).unwrap();
    }
}

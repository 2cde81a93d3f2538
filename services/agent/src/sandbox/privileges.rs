//! Giving up what a process may do beyond its user's rights.

use rustix::thread::{
    CapabilitySet, CapabilitySets, capability_is_in_bounding_set, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities, set_no_new_privs,
};

/// Gives up every capability, and the chance to gain any.
pub(crate) fn drop_all() -> Result<(), String> {
    let failed = |e| format!("it cannot give up its privileges: {e}");
    for (_, capability) in CapabilitySet::all().iter_names() {
        // One that is not known here is not there; who has none may remove none, and needs not.
        if capability_is_in_bounding_set(capability) == Ok(true) {
            let _ = remove_capability_from_bounding_set(capability);
        }
    }
    clear_ambient_capability_set().map_err(failed)?;
    let none = CapabilitySets {
        effective: CapabilitySet::empty(),
        permitted: CapabilitySet::empty(),
        inheritable: CapabilitySet::empty(),
    };
    set_capabilities(None, none).map_err(failed)?;
    set_no_new_privs(true).map_err(failed)
}

//! A way to hosts that a task may reach, and to no other: an HTTP proxy that names are resolved
//! by out here, where what they mean is checked.

mod allow;
mod proxy;

pub use allow::{AllowList, is_public};
pub use proxy::Egress;

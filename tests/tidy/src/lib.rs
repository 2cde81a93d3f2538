//! The rules of ARCHITECTURE.md as tests: what may depend on what, what pure means, and
//! what a file may look like. They are all in `tests/`.

//! End-to-end tests: the real binary against real servers. They are all in `tests/e2e/`.

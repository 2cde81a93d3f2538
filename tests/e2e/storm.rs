//! A storm of submissions from clients that know nothing of Conductor, and of kills.

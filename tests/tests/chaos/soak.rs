//! A soak.

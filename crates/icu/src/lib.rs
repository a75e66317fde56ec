//! In place of the crate `icu`, of which `plsfix` uses the normalizer alone: all of it (calendars, dates,
//! plurals, …) takes a minute and a half to compile. `Cargo.toml` of the workspace patches it in.

pub use icu_normalizer as normalizer;

//! What other programs call the parameters that this program has, and what becomes of each of their
//! keys.

pub mod official;

//! Tests against public tables. They say so and pass where the tables are absent.

mod fit;
mod references;
mod support;
mod wordnet;

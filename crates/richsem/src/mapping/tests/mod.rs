//! Tests of the mapping. Those against public tables say so and pass where the tables are absent.

mod fit;
mod learned;
mod look;
mod read;
mod references;
mod review;
mod support;
mod wordnet;
mod words;

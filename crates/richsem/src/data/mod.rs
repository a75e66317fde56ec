//! From annotation files and pictures to batches.

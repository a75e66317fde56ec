//! Every trap of the protocol by itself. All pictures are drawn on a grid of tenths.

use super::*;

//! Soft labels computed once and kept on disk: what a frozen teacher says of a box depends on the
//! pixels alone, and without crops and mosaics there are only so many images that training can
//! show. Each is a *view*: (image, shorter side, mirrored). [`crate::prepare`] asks the teacher about
//! every view; in training the loader's threads read the answers ([`PreparedSource`]), and the teacher is
//! never loaded.
//!
//! What is kept of a box are its features, of length one, in 16 bits: the logits over the whole
//! vocabulary follow from them and the text table, which is kept beside them.
//!
//! ```text
//! FOLDER/prepared.json                    what it was made of: see `Manifest`
//! FOLDER/text.safetensors                 text_table [C, D], logit_scale [] f32
//! FOLDER/train/shard-00000.safetensors    rows [images, views] i32, features [Σ rows, D] f16
//! FOLDER/extra.NAME/…                     the same of an extra set of single images
//! ```
//!
//! **Precision.** An image is shown to the teacher as the learner would in a batch of its own (its
//! two mirror images side by side), padded to `data.pad_multiple`. On the CPU, in f32, against the
//! labels of the same batch computed on the fly: features differ by less than 5e-4 of their length
//! (the rounding to 16 bits; 2.2e-4 measured), logits by less than 0.01 (0.0013 measured), a step's
//! `loss_semantic` by less than 1 % of itself (0.23 % measured). The same holds for batches of
//! images of one size. In a batch of images of different sizes, training on the fly pads the
//! smaller ones further, and a teacher that convolves sees that near the border, so that its labels
//! depend on the company; prepared ones do not. On pairs of images of 64 to 128 pixels, a random
//! CLIP-ResNet's features differ by up to 0.16 of their length for that, logits by up to 1.1: the
//! larger the images against the padding, the less. The tests of [`crate::prepare`] measure all of this.
//!
//! **Room.** Two bytes a number: LVIS's 1.27 million boxes in 22 views (11 scales, mirrored or not) of
//! width 1,024 are 57 GB on disk. In memory are four bytes a view, 9 MB of them; a step reads its own
//! rows. Whether labels belong to a run is seen from ids, classes, boxes and settings; what is in the
//! image files is not looked at again.
//!
//! **What cannot be prepared** is refused by key: crops and mosaics (random places: no view is ever
//! seen twice), and `semantic.target_boxes` other than the annotated boxes (they are what a step
//! predicts).

pub(crate) mod manifest;
pub(crate) mod plan;
pub(crate) mod read;
pub(crate) mod shard;
mod source;

pub use read::Prepared;
pub(crate) use read::{activation, check_data};
pub use source::PreparedSource;

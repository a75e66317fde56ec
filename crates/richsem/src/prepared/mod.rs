//! Soft labels that are computed once and kept on disk. What a frozen teacher says of a box depends on the
//! pixels alone, and without crops and mosaics there are only so many images that training can show. Each is
//! a *view*: (image, shorter side, mirrored). [`crate::prepare`] asks the teacher about every view. In
//! training the loader's threads read the answers ([`PreparedSource`]), and the teacher is never loaded.
//!
//! What is kept of a box are its features, of length one, in 16 bits. The logits over the whole vocabulary
//! follow from them and from the text table, which is kept beside them.
//!
//! ```text
//! FOLDER/prepared.json                    what it was made of: see `Manifest`
//! FOLDER/text.safetensors                 text_table [C, D], logit_scale [] f32
//! FOLDER/train/shard-00000.safetensors    rows [images, views] i32, features [Σ rows, D] f16
//! FOLDER/extra.NAME/…                     the same of an extra set of single images
//! ```
//!
//! **Precision.** The teacher sees an image as the learner would see it in a batch of its own (its two mirror
//! images side by side), padded to `data.pad_multiple`. Compared on the CPU, in f32, with the labels of the
//! same batch computed on the fly:
//!
//! - features differ by less than 5e-4 of their length (the rounding to 16 bits; 2.2e-4 measured),
//! - logits by less than 0.01 (0.0013 measured),
//! - a step's `loss_semantic` by less than 1 % of itself (0.23 % measured).
//!
//! The same holds for batches of images of one size. In a batch of images of different sizes, training on the
//! fly pads the smaller ones further. A teacher that convolves sees that near the border, so its labels depend
//! on the other images of the batch; prepared ones do not. On pairs of images of 64 to 128 pixels, a random
//! CLIP-ResNet's features differ for that reason by up to 0.16 of their length, and logits by up to 1.1. The
//! larger the images are against the padding, the smaller is the difference. The tests of [`crate::prepare`]
//! measure all of this.
//!
//! **Room.** A number takes two bytes: LVIS's 1.27 million boxes in 22 views (11 scales, mirrored or not) of
//! width 1,024 are 57 GB on disk. A view takes four bytes in memory, 9 MB for all of them. A step reads its
//! own rows. Whether labels belong to a run is checked by ids, classes, boxes and settings. The contents of the
//! image files are not checked again.
//!
//! **What cannot be prepared** is refused by key: crops and mosaics, since no random view is ever seen twice,
//! and `semantic.target_boxes` other than the annotated boxes, since a step predicts these.

pub(crate) mod manifest;
pub(crate) mod plan;
pub(crate) mod read;
pub(crate) mod shard;
mod source;

pub use read::Prepared;
pub(crate) use read::{activation, check_data};
pub use source::PreparedSource;

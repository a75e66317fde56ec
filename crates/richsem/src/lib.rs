//! Object detection on long-tailed data: detectors, the RichSem method (arXiv 2310.12152), and everything
//! around them, from annotation files to a trained, evaluated detector.
//!
//! # Detect
//!
//! ```no_run
//! use richsem::prelude::*;
//!
//! fn main() -> richsem::Result<()> {
//!     let detector = Detector::open("runs/mine", Device::Cpu)?;
//!     for found in detector.predict(&read_image("holiday.jpg")?, 0.3)? {
//!         println!("{} {:.2} {:?}", found.name, found.score, found.bbox);
//!     }
//!     Ok(())
//! }
//! ```
//!
//! # Train
//!
//! ```no_run
//! use richsem::prelude::*;
//!
//! fn main() -> richsem::Result<()> {
//!     let config = Config::load("configs/tiny.toml".as_ref(), &["train.epochs=3".to_owned()])?;
//!     let run = NewRun::claim("runs/mine".as_ref())?;
//!     // The first GPU, or the CPU where there is none.
//!     let worker = Worker::alone(DeviceChoice::Auto.resolve()?);
//!     let stop = AtomicBool::new(false);
//!     match train(Start::new(config, run), &worker, &mut Logged, &stop)? {
//!         Outcome::Finished { summary, .. } => println!("AP {:?}", summary.and_then(|s| s.get("AP"))),
//!         Outcome::Stopped(step) => println!("stopped at step {step}"),
//!     }
//!     Ok(())
//! }
//! ```
//!
//! More programs are in the folder `examples/`: predict, train with an observer of one's own, evaluate two
//! files of detections, and a teacher of one's own; `examples/own-crate` is a crate outside of this
//! repository's workspace.
//!
//! # libtorch
//!
//! This crate computes with libtorch 2.11 through [`tch`], which it exports: use that one, or tensors are of
//! two kinds. To build, the environment variable `LIBTORCH` names a folder with libtorch (of a PyTorch wheel:
//! `site-packages/torch`). To run, the program must find `libtorch_cpu.so`: this crate tells the build
//! scripts of crates that depend on it where it is, and three lines write that into a program:
//!
//! ```ignore
//! // build.rs
//! fn main() {
//!     println!("cargo:rustc-link-arg=-Wl,-rpath,{}", std::env::var("DEP_RICHSEM_LIB_DIR").unwrap());
//! }
//! ```
//!
//! The CUDA half is opened when a GPU is asked for ([`torch_ext::DeviceChoice`]); it lies beside.
//!
//! # Where things are
//!
//! Data flows one way: annotation files → [`data::dataset::Dataset`] → [`data::transforms::Sample`] →
//! [`data::batch::Batch`] → [`train::Learner`] (or [`detector::Detector`]) → checkpoint (or detections →
//! [`evaluate::Evaluator`] → [`report`]). A detector's network is of one of the families that there are
//! ([`models::network::Network`]); what a family learns by is in [`families`].
//!
//! Functions return [`Error`]s that name file, field, expected and got, and what to do. None of them panics on
//! a user's file. Grad mode and autocast are a thread's own in libtorch: a [`detector::Detector`] belongs to
//! one thread at a time.
#![forbid(unsafe_code)]

pub mod argument;
pub mod bench;
mod bounds;
pub mod boxes;
pub mod checkpoint_io;
pub mod collective;
pub mod config;
pub mod convert;
pub mod data;
pub mod detections;
pub mod detector;
pub mod doctor;
pub mod draw;
pub mod error;
pub mod evaluate;
pub mod families;
pub mod gallery;
pub mod geometry;
mod hash;
pub mod info;
mod json;
mod lock;
pub mod losses;
pub mod mapping;
pub mod merge;
pub mod models;
pub mod normalization;
pub mod plural;
pub mod precision;
pub mod predict;
pub mod prelude;
pub mod prepare;
pub mod prepared;
pub mod pretrain;
pub mod random;
pub mod recipe;
mod recordings;
pub mod report;
pub mod semantic_branch;
mod settings;
pub mod settings_reference;
pub mod shell;
mod stand_in;
mod statistics;
pub mod stored_batch;
pub mod study;
pub mod synth;
pub mod targets;
pub mod teacher;
pub mod tensorboard;
#[doc(hidden)]
pub mod testing;
pub mod train;
pub mod vocabulary;
pub mod weights;

pub use error::{Error, Result};
pub use image;
pub use tch;
pub use torch_ext;

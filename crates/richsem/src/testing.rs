//! What tests and examples share: test data, a run that takes seconds, data of LVIS's size, classes,
//! targets and random tensors.

mod large;
mod learning;
mod lvis;
mod small;

use std::path::{Path, PathBuf};

use tch::Tensor;

use crate::{
    boxes::Cxcywh,
    random::{Random, Stream},
    targets::{LabelKnowledge, Target},
    vocabulary::{Category, CategoryId, ClassIndex, Frequency},
};

pub use large::{resident_mb, write_nested_tar, write_openimages};
pub use learning::{
    StopAt, learner, new_run, rows_without_speed, run_in_pieces, taught_run, write_taught_set,
};
pub use lvis::{LvisCounts, write_lvis};
pub use small::{small_run, small_run_of, small_set, write_set, write_small_set};

/// Standard normal numbers of that shape, by `key` alone. libtorch's own generator is shared by the
/// tests that run side by side: what one gets depends on the others.
pub fn normal(key: u64, shape: &[i64]) -> Tensor {
    let mut random = Random::new(0, Stream::Test, key, 0);
    drawn(shape, || random.normal())
}

/// Uniform numbers in [0, 1) of that shape, by `key` alone.
pub fn uniform(key: u64, shape: &[i64]) -> Tensor {
    let mut random = Random::new(1, Stream::Test, key, 0);
    drawn(shape, || random.uniform())
}

fn drawn(shape: &[i64], mut draw: impl FnMut() -> f64) -> Tensor {
    let values: Vec<f32> = (0..shape.iter().product()).map(|_: i64| draw() as f32).collect();
    Tensor::from_slice(&values).reshape(shape)
}

/// A rare class of one box in one image.
#[must_use]
pub fn category(id: i64, name: impl Into<String>) -> Category {
    Category {
        key: None,
        id: CategoryId(id),
        name: name.into(),
        image_count: 1,
        instance_count: 1,
        frequency: Frequency::Rare,
        synset: None,
        wnid: None,
        text_row: None,
    }
}

/// A target with these classes and boxes (cxcywh, relative), of an image of 10 by 10 pixels. Nothing else
/// is known of the image.
#[must_use]
pub fn target(objects: &[(u32, [f32; 4])]) -> Target {
    Target {
        image_id: 1,
        boxes: objects.iter().map(|&(_, bbox)| Cxcywh(bbox)).collect(),
        labels: objects.iter().map(|&(class, _)| ClassIndex(class)).collect(),
        knowledge: LabelKnowledge::default(),
        size: [10, 10],
        original_size: [10, 10],
        view: None,
        geometry: None,
    }
}

/// The file or folder `path` below the project's test data, or `None`, with a line on stderr
/// saying so, where that data is absent (it is public, but not part of this repository).
///
/// Looked for in the folder that `RICHSEM_SHARED` names, then in `shared/data` in any folder
/// above this crate.
#[must_use]
pub fn shared(path: &str) -> Option<PathBuf> {
    let named = std::env::var_os("RICHSEM_SHARED").map(PathBuf::from);
    let (roots, place) = match named {
        Some(root) => (vec![root.clone(), root.join("data")], root.display().to_string()),
        None => {
            let crate_folder = Path::new(env!("CARGO_MANIFEST_DIR"));
            let roots = crate_folder.ancestors().map(|above| above.join("shared/data")).collect();
            (roots, "`shared/data` above the crate".to_owned())
        }
    };
    let found = roots.iter().map(|root| root.join(path)).find(|p| p.exists());
    if found.is_none() {
        use std::io::Write as _;
        let line = format!("skipped: no `{path}` in {place}; RICHSEM_SHARED can name the folder\n");
        // Straight to stderr: the test harness swallows what a passing test prints.
        let _ = std::io::stderr().write_all(line.as_bytes());
    }
    found
}

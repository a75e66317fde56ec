//! The README.md that goes with a set.

use super::{QUALITY, SECOND_OBJECT, SynthConfig, SynthReport};
use crate::vocabulary::Frequency;
use std::fmt::Write as _;

pub(super) const FILE: &str = "README.md";

/// First line; also how an earlier set is recognised.
pub(super) const TITLE: &str = "# A long-tailed detection set drawn by `richsem synth`\n";

/// What it is, how it was made, and what is in it.
pub(super) fn text(config: &SynthConfig, report: &SynthReport) -> String {
    let SynthConfig { seed, classes, train_images, val_images, .. } = config;
    let ((small, large), (fewest, most)) = (config.image_size, config.objects_per_image);
    let (per_class, side) = (config.classification_per_class, config.classification_size);
    let [f, c, r] = [Frequency::Frequent, Frequency::Common, Frequency::Rare]
        .map(|group| report.classes_of(group));
    let (train_boxes, val_boxes) = (report.train_boxes(), report.val_boxes());
    let captioned = config.captioned_images;
    let more = match captioned {
        0 => String::new(),
        _ => format!(" \\\n        --captioned-images {captioned}"),
    };
    let mut text = format!(
        "{TITLE}
Textured, coloured shapes among clutter, hiding parts of each other. Nobody's photographs, no
licence to heed: use it as you like.

    richsem synth FOLDER --seed {seed} --classes {classes} \\
        --train-images {train_images} --val-images {val_images} \\
        --image-size {small},{large} --objects-per-image {fewest},{most} \\
        --classification-per-class {per_class} --classification-size {side}{more}

The same command and version give the same files, byte for byte, with any number of threads.

| | images | boxes | classes |
|---|---|---|---|
| `train.json`, `images/train/` | {train_images} | {train_boxes} | {f} frequent, {c} common, {r} rare |
| `val.json`, `images/val/` | {val_images} | {val_boxes} | about equally often |
"
    );
    if per_class > 0 {
        let _ = writeln!(
            text,
            "| `classification/CLASS/` | {} | none | {per_class} images each |",
            report.classification_images
        );
    }
    if captioned > 0 {
        let _ = writeln!(text, "| `captions.jsonl`, `captioned/` | {captioned} | none | in turn |");
    }
    let _ = write!(
        text,
        "
- The annotation files have the format of LVIS v1. Frequent classes are in more than 100 training
  images, common ones in 11 to 100, rare ones in at most 10. Category ids start at 1 and have
  holes. Image ids of the two splits differ.
- `bbox` is the tight box of the visible pixels, `area` their number. `segmentation` is the box's
  corners: there are no masks.
- Every class is annotated completely: `neg_category_ids` lists all classes that an image does not
  show, `not_exhaustive_category_ids` is empty.
- Lines, lumps and splinters of no class are not annotated; some wear a class's colour and texture.
"
    );
    if per_class > 0 {
        let _ = writeln!(
            text,
            "- A classification image shows one object of its folder's class near the middle; about \
             {} % also\n  show a smaller one of another class, which nothing tells.",
            (SECOND_OBJECT * 100.0).round()
        );
    }
    if captioned > 0 {
        let _ = writeln!(
            text,
            "- A captioned image shows one object, or a small one of another class too, and its \
             caption names\n  them. `richsem pretrain-teacher` learns from these: they are in none \
             of the other folders."
        );
    }
    let _ = write!(
        text,
        "- All images are JPEG, quality {QUALITY}.

| id | class | group | train images | train boxes | val boxes |
|---|---|---|---|---|---|
"
    );
    for (category, val) in report.vocabulary.categories().iter().zip(&report.val_instances) {
        let (id, name, group) = (category.id.0, &category.name, category.frequency.letter());
        let (images, boxes) = (category.image_count, category.instance_count);
        let _ = writeln!(text, "| {id} | {name} | {group} | {images} | {boxes} | {val} |");
    }
    text
}

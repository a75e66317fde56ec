//! From images and their label files to records.

use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::{
    Files, Images,
    images::Image,
    labels::{Label, Problem, Rows},
    named, no_images,
};
use crate::{
    boxes::Xywh,
    data::{
        reading::{FILES, Reading, Watch},
        records::{Annotation, ClassRecord, ImageRecord, Records, Unit},
    },
    error::{Error, Result},
    plural::{clause, counted},
    vocabulary::ClassIndex,
};

/// One label file of so many may be broken. If there are more, the mistake is another one: pixels in place
/// of shares, or another format.
const ONE_BROKEN_OF: usize = 10;

/// What label files belong to.
pub(in crate::data::formats) struct Labels<'a> {
    pub(in crate::data::formats) files: &'a Files,
    /// The file that names the images, and the field that does.
    pub(in crate::data::formats) file: &'a Path,
    pub(in crate::data::formats) field: &'a str,
    pub(in crate::data::formats) names: &'a [String],
    pub(in crate::data::formats) rows: Rows,
    /// Whether there must be labels.
    pub(in crate::data::formats) annotated: bool,
}

/// What became of the label file of an image.
enum Outcome {
    /// There is none.
    None,
    Read(Label),
    Broken(Problem),
}

/// What is counted over all files.
#[derive(Default)]
struct Tally {
    /// Images without a label file.
    without: Vec<String>,
    /// Images whose label file is broken, and the message of each.
    broken: Vec<String>,
    read: usize,
    repeated: usize,
    polygons: usize,
}

impl Labels<'_> {
    /// Reads the label files of all images. An image whose file has a bad row is left out, with a warning.
    ///
    /// # Errors
    /// No images, no labels, too many files with bad rows, a class that the set does not have, a file that
    /// cannot be read.
    pub(in crate::data::formats) fn read(
        &self,
        mut images: Images,
        watch: Watch<'_>,
    ) -> Result<Records> {
        let mut notes = images.notes();
        if images.all.is_empty() {
            return Err(no_images(self.file, self.field, &notes));
        }
        let mut outcomes = Vec::with_capacity(images.all.len());
        for some in images.all.chunks(FILES) {
            let read: Result<Vec<Outcome>> = some.par_iter().map(|p| self.outcome(p)).collect();
            outcomes.append(&mut read?);
            watch(Reading::Files { done: outcomes.len(), of: images.all.len() })?;
        }
        self.check(&images, &outcomes)?;
        let alone = images.labels_alone(self.files)?;
        let mut records = Records {
            classes: (0..).zip(self.names).map(|(id, n)| ClassRecord::named(id, n)).collect(),
            unit: Unit::Shares,
            images_at: Some(images.at),
            ..Records::default()
        };
        let mut tally = Tally::default();
        for ((id, image), outcome) in (1..).zip(images.all).zip(outcomes) {
            match outcome {
                Outcome::None => tally.without.push(image.name.clone()),
                Outcome::Read(label) => {
                    tally.read += 1;
                    tally.repeated += label.repeated;
                    tally.polygons += label.polygons;
                    add_boxes(&mut records, &label);
                }
                Outcome::Broken(problem) => {
                    tally.broken.push(self.error(&image.label, &problem).to_string());
                    continue;
                }
            }
            records.images.push(ImageRecord {
                id,
                file_name: image.name,
                size: None,
                ..ImageRecord::default()
            });
        }
        if let Some(first) = tally.broken.first() {
            records.warnings.push(format!(
                "{} left out because a row of the label file is wrong, as Ultralytics does. The first: {first}",
                clause(tally.broken.len(), "image", ["is", "are"])
            ));
        }
        notes.extend(self.notes(&tally, &alone));
        records.notes = notes;
        Ok(records)
    }

    fn outcome(&self, image: &Image) -> Result<Outcome> {
        let Some(bytes) = self.files.read(&image.label)? else { return Ok(Outcome::None) };
        Ok(match self.rows.parse(&bytes) {
            Ok(label) => Outcome::Read(label),
            Err(problem) => Outcome::Broken(problem),
        })
    }

    /// Refuses a set whose labels are not what they should be as a whole.
    fn check(&self, images: &Images, outcomes: &[Outcome]) -> Result<()> {
        let of = |is: fn(&Outcome) -> bool| outcomes.iter().filter(|o| is(o)).count();
        let broken = of(|outcome| matches!(outcome, Outcome::Broken(_)));
        let strangers = of(|outcome| matches!(outcome, Outcome::Broken(p) if p.no_class));
        let files = outcomes.len() - of(|outcome| matches!(outcome, Outcome::None));
        if files == 0 && self.annotated {
            let looked: Option<&PathBuf> = images.all.first().map(|image| &image.label);
            let problem = format!(
                "none of the {} images has a label file; the first was looked for at {}",
                outcomes.len(),
                looked.map(|path| path.display().to_string()).unwrap_or_default()
            );
            return Err(Error::invalid(self.file, self.field, problem).with_hint(
                "labels lie beside the images, or in a folder `labels` in place of the last folder \
                 `images` of their path",
            ));
        }
        if strangers == 0 && broken * ONE_BROKEN_OF <= files {
            return Ok(());
        }
        let first = images.all.iter().zip(outcomes).find_map(|(image, outcome)| match outcome {
            Outcome::Broken(problem) if strangers == 0 || problem.no_class => {
                Some((&image.label, problem))
            }
            _ => None,
        });
        let Some((label, problem)) = first else { return Ok(()) };
        let count = if strangers > 0 { strangers } else { broken };
        let message = if count > 1 {
            let such = format!("{}; so it is in {count} of {files} files", problem.problem);
            Problem { problem: such, field: problem.field, hint: problem.hint, ..*problem }
        } else {
            Problem { problem: problem.problem.clone(), ..*problem }
        };
        Err(self.error(label, &message))
    }

    fn error(&self, label: &Path, problem: &Problem) -> Error {
        let field = format!("line {}: {}", problem.line, problem.field);
        let hint = if problem.no_class {
            format!(
                "{} ({} in {})",
                problem.hint,
                counted(self.names.len(), "class"),
                self.file.display()
            )
        } else {
            problem.hint.to_owned()
        };
        Error::invalid(label, field, problem.problem.clone()).with_hint(hint)
    }

    fn notes(&self, tally: &Tally, alone: &[String]) -> Vec<String> {
        let mut notes = Vec::new();
        if !tally.without.is_empty() && tally.read > 0 {
            notes.push(format!(
                "images without a label file, taken for background: {}",
                named(&tally.without)
            ));
        }
        if !alone.is_empty() {
            notes.push(format!("label files without an image, passed over: {}", named(alone)));
        }
        for (what, count) in [
            ("rows that repeat an earlier one of their file, left out", tally.repeated),
            ("polygons, of which the box around them is taken", tally.polygons),
        ] {
            if count > 0 {
                notes.push(format!("{what}: {count}"));
            }
        }
        if self.rows.keypoints.is_some() {
            notes.push("keypoints are passed over, their boxes are taken".to_owned());
        }
        notes
    }
}

/// Adds the boxes of the image that comes next.
fn add_boxes(records: &mut Records, label: &Label) {
    let image = records.images.len() as u32;
    for object in &label.objects {
        let [.., w, h] = object.xywh;
        records.annotations.push(Annotation {
            id: records.annotations.len() as i64 + 1,
            image,
            class: ClassIndex(object.class),
            bbox: Xywh(object.xywh),
            area: w * h,
            crowd: false,
            ignore: false,
        });
    }
}

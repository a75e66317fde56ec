//! OpenImages' results files as detections of a data set, and back.

use std::{collections::BTreeMap, io::Read as _, path::Path};

use crate::{
    boxes::Xywh,
    data::{
        dataset::Dataset,
        formats::Unit,
        openimages::{Kind, Names, read_predictions, read_submission, write_submission},
    },
    detections::Detection,
    error::{Error, Result, first_few},
    evaluate::ScoredBox,
    json,
    vocabulary::{CategoryId, ClassIndex},
};

/// The contents of a file of predictions or a submission.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Results {
    /// In the order of the file; boxes in the unit of the data set.
    pub detections: Vec<Detection>,
    /// Predictions in images that the set does not have: passed over.
    pub other_images: usize,
    /// Predictions of classes that the set does not have, by MID: passed over.
    pub other_classes: BTreeMap<String, usize>,
    /// Detections whose XMin is above XMax or YMin above YMax: they match nothing.
    pub negative: usize,
}

/// Whether a file is to be read as OpenImages' evaluator reads predictions, or as Kaggle does: it is CSV. What
/// other CSV it is, or what is wrong with it, [`read_results`] says.
#[must_use]
pub fn is_results(path: &Path) -> bool {
    let name = path.to_string_lossy().to_ascii_lowercase();
    let named = [".csv", ".csv.gz"].iter().any(|end| name.ends_with(end));
    named && !begins_as_json(path) || matches!(Kind::of_file(path), Ok(Some(_)))
}

fn begins_as_json(path: &Path) -> bool {
    let mut head = Vec::new();
    let read = json::open(path).map(|file| file.take(1 << 10).read_to_end(&mut head));
    let text = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&head).trim_ascii_start();
    read.is_ok() && matches!(text.first(), Some(b'[' | b'{'))
}

/// Reads predictions (`ImageID,LabelName,Score,XMin,…`) or a submission (`ImageId,PredictionString`) for the
/// images and classes of a data set.
///
/// # Errors
/// A file that cannot be read or is not as it should be; a prediction whose image or class is one of several
/// of that name; an image whose size is not known, if the set is in pixels.
pub fn read_results(path: &Path, dataset: &Dataset) -> Result<Results> {
    let (images, classes) = (Keys::of_images(dataset), Keys::of_classes(dataset));
    let (mut image_names, mut class_names) = (images.names.clone(), classes.names.clone());
    let is_submission = Kind::of_file(path)? == Some(Kind::Submission);
    let found = if is_submission {
        read_submission(path, &mut image_names, &mut class_names)?
    } else {
        read_predictions(path, &mut image_names, &mut class_names)?
    };
    let class_column = if is_submission { "PredictionString" } else { "LabelName" };
    let refuse = |column: &str, problem: String| {
        Error::invalid(path, format!("column {column}"), problem).with_hint(AMBIGUOUS)
    };
    let mut results = Results::default();
    for found in found.boxes {
        let Some(class) = classes.of(found.class) else {
            let mid = class_names.get(found.class).unwrap_or_default().to_owned();
            *results.other_classes.entry(mid).or_default() += 1;
            continue;
        };
        let Some(image) = images.of(found.image) else {
            results.other_images += 1;
            continue;
        };
        let class = class.map_err(|problem| refuse(class_column, problem))?;
        let image = image.map_err(|problem| refuse("ImageID", problem))?;
        let [x0, y0, x1, y1] = found.bbox;
        results.negative += usize::from(x0 > x1 || y0 > y1);
        results.detections.push(detection(&found, [image, class], dataset)?);
    }
    Ok(results)
}

const AMBIGUOUS: &str =
    "give the detections as COCO results JSON: its records name images and classes by their ids";

fn detection(
    found: &ScoredBox,
    [image, class]: [usize; 2],
    dataset: &Dataset,
) -> Result<Detection> {
    let [width, height] = sides(dataset, image)?;
    let [x0, y0, x1, y1] = found.bbox;
    Ok(Detection {
        image_id: dataset.images()[image].id,
        category_id: dataset.vocabulary().category(ClassIndex(class as u32)).id,
        bbox: Xywh([x0 * width, y0 * height, (x1 - x0) * width, (y1 - y0) * height]),
        score: found.score,
    })
}

/// Whether detections of a data set can be written as a submission: for before they are made.
///
/// # Errors
/// An image whose size is not known; images or classes of one name; a class with a space in what a submission
/// calls it.
pub fn check_results(path: &Path, dataset: &Dataset) -> Result<()> {
    let refuse = |problem: String| {
        Error::invalid(path, "submission", problem).with_hint(
            "choose a name that ends in .json: COCO results JSON has room for all of them",
        )
    };
    for keys in [Keys::of_images(dataset), Keys::of_classes(dataset)] {
        if let Some(problem) = keys.shared() {
            return Err(refuse(problem));
        }
    }
    let classes = Keys::of_classes(dataset);
    if let Some(class) = classes.names.iter().find(|name| name.contains(char::is_whitespace)) {
        return Err(refuse(format!(
            "the class `{class}` has a space in its name, and a submission separates words by spaces"
        )));
    }
    (0..dataset.images().len()).try_for_each(|image| sides(dataset, image).map(drop))
}

/// Writes detections as a submission, which has a row for every image of the set.
///
/// # Errors
/// Those of [`check_results`]; a file that cannot be written; detections of another set.
pub fn write_results(path: &Path, detections: &[Detection], dataset: &Dataset) -> Result<()> {
    check_results(path, dataset)?;
    let place: BTreeMap<i64, usize> =
        dataset.images().iter().enumerate().map(|(at, image)| (image.id, at)).collect();
    let scored = |detection: &Detection| -> Result<ScoredBox> {
        let unknown = || Error::other(format!("a detection of another set: {detection:?}"));
        let image = *place.get(&detection.image_id).ok_or_else(unknown)?;
        let class = class_of(dataset, detection.category_id).ok_or_else(unknown)?;
        let [width, height] = sides(dataset, image)?;
        let Xywh([x, y, w, h]) = detection.bbox;
        let bbox = [x / width, y / height, (x + w) / width, (y + h) / height];
        Ok(ScoredBox { image: image as u32, class, score: detection.score, bbox })
    };
    let found: Vec<ScoredBox> = detections.iter().map(scored).collect::<Result<_>>()?;
    // No two share a name, so that numbers of names are positions in the set.
    let (images, classes) = (Keys::of_images(dataset), Keys::of_classes(dataset));
    write_submission(path, &found, &images.names, &classes.names)
}

fn class_of(dataset: &Dataset, id: CategoryId) -> Option<u32> {
    dataset.vocabulary().class_of(id).map(|class| class.0)
}

/// Width and height that shares are of; 1 if the set's boxes are shares themselves.
fn sides(dataset: &Dataset, image: usize) -> Result<[f64; 2]> {
    if dataset.unit() == Unit::Shares {
        return Ok([1.0; 2]);
    }
    let record = &dataset.images()[image];
    let [height, width] = record.size.ok_or_else(|| {
        let problem = "unknown, and predictions are shares of it";
        Error::invalid(dataset.path(), format!("size of {}", record.file_name), problem)
    })?;
    Ok([f64::from(width), f64::from(height)])
}

/// What results call the images or the classes of a set. Several can have one name.
struct Keys<'a> {
    /// What these are, in the plural.
    what: &'static str,
    /// All names, each once.
    names: Names,
    /// How many have one of these.
    count: u32,
    /// Of each name, its first owner's position in the set.
    first: Vec<u32>,
    /// The others, of names that several have.
    others: BTreeMap<u32, Vec<u32>>,
    /// What the set itself calls that of a position.
    own: Box<dyn Fn(u32) -> String + 'a>,
}

impl<'a> Keys<'a> {
    /// Images are called by their ids where these are texts, or by the names of their files.
    fn of_images(dataset: &'a Dataset) -> Self {
        let mut keys = Self::new("images", |at| dataset.images()[at as usize].file_name.clone());
        for (at, image) in dataset.images().iter().enumerate() {
            let file = image.file_name.rsplit('/').next().unwrap_or_default();
            let stem = file.rsplit_once('.').map_or(file, |(stem, _)| stem);
            keys.add(dataset.text_id(at).unwrap_or(stem));
        }
        keys
    }

    /// Classes are called by their MIDs, or by name where a set has none.
    fn of_classes(dataset: &'a Dataset) -> Self {
        let id = |at| dataset.vocabulary().category(ClassIndex(at)).id.0;
        let mut keys = Self::new("classes", move |at| format!("id {}", id(at)));
        for category in dataset.vocabulary().categories() {
            keys.add(category.key.as_deref().unwrap_or(&category.name));
        }
        keys
    }

    fn new(what: &'static str, own: impl Fn(u32) -> String + 'a) -> Self {
        let (names, first, others) = (Names::new(), Vec::new(), BTreeMap::new());
        Self { what, names, count: 0, first, others, own: Box::new(own) }
    }

    fn add(&mut self, name: &str) {
        // Fields are read without white space around them.
        let number = self.names.add(name.trim());
        if number as usize == self.first.len() {
            self.first.push(self.count);
        } else {
            self.others.entry(number).or_default().push(self.count);
        }
        self.count += 1;
    }

    /// The position in the set of what has the name of that number; none if nothing has it.
    ///
    /// # Errors
    /// Several have the name.
    fn of(&self, number: u32) -> Option<Result<usize, String>> {
        let &first = self.first.get(number as usize)?;
        let others = self.others.get(&number);
        Some(others.map_or(Ok(first as usize), |others| Err(self.several(number, others))))
    }

    /// What is wrong if several have one name.
    fn shared(&self) -> Option<String> {
        let (&number, others) = self.others.first_key_value()?;
        Some(self.several(number, others))
    }

    fn several(&self, number: u32, others: &[u32]) -> String {
        let name = self.names.get(number).unwrap_or_default();
        let all: Vec<u32> =
            std::iter::once(self.first[number as usize]).chain(others.iter().copied()).collect();
        let own = first_few(all.iter().map(|&at| (self.own)(at)));
        format!("`{name}` may be any of {} {} of the annotations: {own}", all.len(), self.what)
    }
}

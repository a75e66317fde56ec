//! Images, or boxes in them, each with a caption.

use std::{
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
};

use serde::Deserialize;

use crate::{
    boxes::{Xywh, Xyxy},
    data::{dataset::Dataset, image_io::Orientation, image_store::ImageStore},
    error::{Error, Result, problem_in_line},
    random::{Random, Stream},
    teacher::clip::Tokenizer,
};

/// `item`s of [`Stream::Pretrain`] that are no image of a step.
const SPLIT: u64 = u64::MAX;

/// Images evaluated on, at most: enough to know a share to one per cent.
const MOST_HELD_OUT: usize = 2048;

/// An image, or a box in it, with its caption.
#[derive(Debug, Clone, PartialEq)]
pub struct Captioned {
    /// Its file, as the store names it.
    pub image: String,
    /// The part that the caption is about, in pixels, clipped to the image when it is read;
    /// absent: all of it.
    pub region: Option<Xyxy>,
    /// Number of the caption in [`CaptionSet::captions`]: images with equal captions share it.
    pub caption: usize,
}

/// Captioned images, ready to be read.
#[derive(Debug)]
pub struct CaptionSet {
    path: PathBuf,
    store: ImageStore,
    images: Vec<Captioned>,
    captions: Vec<String>,
}

/// A line of a captions file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CaptionLine {
    image: String,
    caption: String,
    bbox: Option<Xywh>,
}

const LINE_FORMAT: &str = "a line is {\"image\": \"a.jpg\", \"caption\": \"a photo of a cat.\"}; \
                    \"bbox\": [x, y, width, height] in pixels may say where";

impl CaptionSet {
    /// Reads captions, and finds their images in a folder or `.tar` (absent: the folder of the
    /// file). A file that ends in `.json` is a COCO or LVIS file, whose boxes are captioned with
    /// their classes by `template`; any other holds one JSON object a line, with `image`, `caption`
    /// and perhaps `bbox`.
    ///
    /// # Errors
    /// A file that cannot be read, or a line that is not such an object, has no caption, or names an
    /// image that is not there: with file and line. Fewer than two different captions.
    pub fn open(path: &Path, images: Option<&Path>, template: &str) -> Result<Self> {
        let beside = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let store = ImageStore::open(images.unwrap_or(beside), Orientation::Exif)?;
        let mut set =
            Self { path: path.to_owned(), store, images: Vec::new(), captions: Vec::new() };
        if path.extension().is_some_and(|e| e.eq_ignore_ascii_case("json")) {
            set.read_annotations(template)?;
        } else {
            set.read_lines()?;
        }
        if set.captions.len() < 2 {
            let problem = format!("expected at least 2 different ones, got {}", set.captions.len());
            return Err(Error::invalid(path, "captions", problem).with_hint(format!(
                "contrastive training tells different captions apart; {LINE_FORMAT}"
            )));
        }
        Ok(set)
    }

    fn read_lines(&mut self) -> Result<()> {
        let bytes = fs_err::read(&self.path)?;
        let bytes = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(&bytes);
        let mut numbers = HashMap::new();
        for (i, line) in bytes.split(|&b| b == b'\n').enumerate() {
            let wrong = |key: &str, problem: String| {
                let key = if key.is_empty() { String::new() } else { format!(": {key}") };
                Error::invalid(&self.path, format!("line {}{key}", i + 1), problem)
            };
            let line = match std::str::from_utf8(line) {
                Ok(line) => line.trim(),
                Err(error) => {
                    let problem = format!("not UTF-8 from byte {} on", error.valid_up_to() + 1);
                    return Err(wrong("", problem).with_hint("save the file as UTF-8"));
                }
            };
            if line.is_empty() {
                continue;
            }
            let CaptionLine { image, caption, bbox } = serde_json::from_str(line)
                .map_err(|e| wrong("", problem_in_line(&e)).with_hint(LINE_FORMAT))?;
            let caption = caption.trim();
            if caption.is_empty() {
                return Err(wrong("caption", "empty".into())
                    .with_hint("say what the image shows, or take the line out"));
            }
            if !self.store.contains(&image) {
                let place = self.store.display_path(&image);
                return Err(wrong("image", format!("there is no file `{}`", place.display()))
                    .with_hint("names are relative to the folder or .tar of the images"));
            }
            let region = bbox.map(Xywh::to_xyxy);
            if let Some(Xyxy([x0, y0, x1, y1])) = region
                && !(x1 - x0 > 0.0
                    && y1 - y0 > 0.0
                    && [x0, y0, x1, y1].iter().all(|v| v.is_finite()))
            {
                let problem = "expected [x, y, width, height] with a width and height above 0";
                return Err(wrong("bbox", problem.into()));
            }
            let caption = number(&mut numbers, &mut self.captions, caption);
            self.images.push(Captioned { image, region, caption });
        }
        Ok(())
    }

    fn read_annotations(&mut self, template: &str) -> Result<()> {
        let dataset = Dataset::open(&self.path)?;
        let names = dataset.images().iter().map(|image| image.file_name.as_str());
        if let Some(problem) = self.store.holds_none_of(names) {
            return Err(Error::invalid(&self.path, "images", problem)
                .with_hint("give what the file names in the annotations are relative to"));
        }
        let mut numbers = HashMap::new();
        for (i, image) in dataset.images().iter().enumerate() {
            for (region, class) in dataset.training_boxes(i) {
                let name = &dataset.vocabulary().category(class).name;
                let caption = template.replace("{}", name);
                let caption = number(&mut numbers, &mut self.captions, &caption);
                let image = image.file_name.clone();
                self.images.push(Captioned { image, region: Some(region), caption });
            }
        }
        Ok(())
    }

    /// The folder or archive that holds the images.
    #[must_use]
    pub fn store(&self) -> &ImageStore {
        &self.store
    }

    /// All images, in the order of the file.
    #[must_use]
    pub fn images(&self) -> &[Captioned] {
        &self.images
    }

    /// The captions, each once, in the order in which they were read.
    #[must_use]
    pub fn captions(&self) -> &[String] {
        &self.captions
    }

    /// The captions' tokens, cut at `context_length`, and how many were cut.
    pub(super) fn tokens(&self, context_length: usize) -> (Vec<Vec<i64>>, usize) {
        let tokenizer = Tokenizer::new();
        let mut cut = 0;
        let tokens = self.captions.iter().map(|caption| {
            let mut ids = tokenizer.encode(caption);
            if ids.len() > context_length {
                cut += 1;
                ids.truncate(context_length - 1);
                ids.push(Tokenizer::END);
            }
            ids
        });
        (tokens.collect(), cut)
    }

    /// Positions of the images to train on, and of those to evaluate on. The second are at most the
    /// share `held_out`. No image is in both, not even in parts.
    pub(super) fn split(&self, held_out: f64, seed: u64) -> (Vec<usize>, Vec<usize>) {
        let mut by_image: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for (at, captioned) in self.images.iter().enumerate() {
            by_image.entry(&captioned.image).or_default().push(at);
        }
        let mut groups: Vec<Vec<usize>> = by_image.into_values().collect();
        Random::new(seed, Stream::Pretrain, 0, SPLIT).shuffle(&mut groups);
        let most = ((held_out * self.images.len() as f64).round() as usize).min(MOST_HELD_OUT);
        let (mut train, mut held) = (Vec::new(), Vec::new());
        for group in groups {
            let to = if held.len() + group.len() <= most { &mut held } else { &mut train };
            to.extend(group);
        }
        (train, held)
    }
}

/// The number of a caption. A new caption gets the next number.
fn number(
    numbers: &mut HashMap<String, usize>,
    captions: &mut Vec<String>,
    caption: &str,
) -> usize {
    if let Some(&number) = numbers.get(caption) {
        return number;
    }
    captions.push(caption.to_owned());
    numbers.insert(caption.to_owned(), captions.len() - 1);
    captions.len() - 1
}

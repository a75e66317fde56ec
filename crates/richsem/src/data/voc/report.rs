//! What a conversion wrote, and what it met on the way: nothing is dropped or chosen without a count.

use std::{fmt, path::PathBuf};

use crate::{argument::Argument, data::listing::PassedOver};

/// Things of one kind, and the names of the first of them, for whoever wants to look.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Named {
    /// How many things of this kind there are.
    pub count: usize,
    /// Names of the first ones, each once.
    pub names: Vec<String>,
}

/// Names that a message shows of each kind. One more is kept, to know that there are more.
const SHOWN: usize = 5;

impl Named {
    pub(super) fn add(&mut self, name: &str) {
        self.count += 1;
        // Those of one name come one after the other.
        if self.names.len() <= SHOWN && self.names.last().is_none_or(|last| last != name) {
            self.names.push(name.to_owned());
        }
    }

    /// The first names in brackets: ` (a, b, …)`.
    fn shown(&self) -> String {
        let shown = &self.names[..self.names.len().min(SHOWN)];
        let more = if self.names.len() > SHOWN { ", …" } else { "" };
        format!(" ({}{more})", shown.join(", "))
    }
}

/// What [`super::convert`] wrote. `Display` gives a few lines.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConversionReport {
    /// The files: train, val, trainval, test, and other image sets by name.
    pub splits: Vec<SplitReport>,
    /// Class names of all of them, in the order of their category ids, from 1.
    pub classes: Vec<String>,
    /// The folder that `file_name` is relative to: `output/images` for an archive, the set's own
    /// `JPEGImages` for a folder (nothing is copied).
    pub image_root: PathBuf,
    /// Objects marked difficult, now `iscrowd`.
    pub difficult: usize,
    /// Objects that are dropped because their box has no inside. Named by their annotations.
    pub degenerate: Named,
    /// Objects that are not difficult and whose box lies partly beyond the image: written as they are, and
    /// clipped for training. Named by their annotations.
    pub beyond: Named,
    /// Objects that are not difficult and whose box lies wholly beyond the image: written as they are, and
    /// dropped from training. Named by their annotations.
    pub outside: Named,
    /// Objects whose box begins at pixel 0, which VOC does not have: it counts from 1.
    pub from_zero: usize,
    /// Images whose size was read from the image because the XML has none.
    pub sizes_from_images: usize,
    /// Annotations whose width and height are the image's height and width, and whose boxes lie in
    /// the image: its own size is taken.
    pub swapped_sizes: Named,
    /// The same where the boxes would lie in the XML's size, too: its own size is taken.
    pub unclear_sizes: Named,
    /// Annotations that have the size of an image's pixels as they are stored, before its EXIF
    /// orientation turns them: so is the frame of their boxes.
    pub stored_frames: Named,
    /// Annotations of any other size than their image's, which was changed since: the size is
    /// kept, and so the image will be refused by name.
    pub other_sizes: Named,
    /// Images whose headers cannot be read: the XML's size is taken.
    pub unread_images: Named,
    /// Annotated images that no image set lists: not written.
    pub unlisted: usize,
    /// Lines of image sets that name an image for the second time: it is written once.
    pub listed_twice: Named,
    /// Files that are no annotation, image or image set; lists of a class, as VOC's devkit has them
    /// (`aeroplane_train.txt`), among them.
    pub passed_over: PassedOver,
    /// Image sets that list nothing: no file written.
    pub empty_splits: Vec<String>,
}

/// What was written of one image set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SplitReport {
    /// The name of its list; `all` for a folder or archive without image sets.
    pub name: String,
    /// The JSON file that was written.
    pub path: PathBuf,
    /// Images in the file.
    pub images: usize,
    /// Boxes in the file, difficult ones included.
    pub boxes: usize,
    /// Boxes that training can use: not difficult, and with an inside in their image.
    pub learnable: usize,
}

impl fmt::Display for ConversionReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for split in &self.splits {
            let SplitReport { path, images, boxes, .. } = split;
            writeln!(f, "{}: {images} images, {boxes} boxes", path.display())?;
        }
        write!(f, "  {} classes: {}", self.classes.len(), self.classes.join(", "))?;
        write!(f, "\n  image root: {}", self.image_root.display())?;
        let plain = |count: usize, what| (count, what, String::new());
        let named = |named: &Named, what| (named.count, what, named.shown());
        for (count, what, names) in [
            plain(self.difficult, "difficult objects, kept as crowd regions (not trained on)"),
            named(&self.degenerate, "boxes without an inside, dropped"),
            named(&self.beyond, "boxes partly beyond their image, clipped for training"),
            named(&self.outside, "boxes wholly beyond their image, dropped from training"),
            plain(self.sizes_from_images, "sizes missing from the XML, read from the images"),
            named(
                &self.swapped_sizes,
                "sizes with width and height exchanged in the XML, the images' taken",
            ),
            named(&self.unread_images, "images that cannot be read, the XML's size taken"),
            plain(self.unlisted, "annotated images in no image set, left out"),
            named(&self.listed_twice, "images listed again in their image set, written once"),
        ] {
            if count > 0 {
                write!(f, "\n  {count} {what}{names}")?;
            }
        }
        for name in &self.empty_splits {
            write!(f, "\n  {name}: lists nothing, not written")?;
        }
        if !self.passed_over.is_empty() {
            write!(f, "\n  passed over: {}", self.passed_over)?;
        }
        self.warnings().iter().try_for_each(|warning| write!(f, "\n  warning: {warning}"))
    }
}

impl ConversionReport {
    /// What the files will be refused for, or are probably not meant to be, each a sentence.
    fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        for split in self.splits.iter().filter(|split| split.learnable == 0) {
            let why = match split.boxes {
                0 => "no boxes",
                _ => "only boxes that are difficult or wholly beyond their images",
            };
            warnings.push(format!("{} has {why}: it cannot be trained on", split.name));
        }
        if self.stored_frames.count > 0 {
            warnings.push(format!(
                "{} sizes are those before the image's EXIF orientation turns it: the boxes were drawn \
                 on the pixels as stored; set data.train.orientation and data.val.orientation to \
                 \"stored\", and pass {} stored to eval and predict{}",
                self.stored_frames.count,
                Argument::Orientation,
                self.stored_frames.shown()
            ));
        }
        if self.unclear_sizes.count > 0 {
            warnings.push(format!(
                "{} sizes have width and height exchanged in the XML, and the boxes fit both ways; the images' \
                 are taken. If these images were turned after they were annotated, their boxes are elsewhere: \
                 look at some (`richsem report`, or a viewer){}",
                self.unclear_sizes.count,
                self.unclear_sizes.shown()
            ));
        }
        if self.other_sizes.count > 0 {
            warnings.push(format!(
                "{} sizes are not their image's, which was resized, turned or replaced after it was \
                 annotated: training and evaluation will refuse these images{}",
                self.other_sizes.count,
                self.other_sizes.shown()
            ));
        }
        if self.from_zero > 0 {
            warnings.push(format!(
                "{} boxes begin at pixel 0, where VOC counts from 1: if this set counts from 0, all its \
                 boxes are written one pixel too far to the left and top",
                self.from_zero
            ));
        }
        warnings
    }
}

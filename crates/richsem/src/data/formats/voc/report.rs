//! What reading a set met on the way: nothing is dropped or chosen without a count.

use super::frame::Agreement;
use crate::{
    argument::Argument,
    boxes::Xywh,
    data::{image_io::Orientation, listing::PassedOver},
    plural::{clause, counted},
};

/// Things of one kind, and the names of the first of them, for whoever wants to look.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Named {
    /// How many things of this kind there are.
    pub(super) count: usize,
    /// Names of the first ones, each once.
    pub(super) names: Vec<String>,
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

/// Of one image set, unless it says otherwise.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Report {
    /// Boxes, difficult ones included.
    pub(super) boxes: usize,
    /// Boxes that training can use: not difficult, and with an inside in their image.
    pub(super) learnable: usize,
    /// Objects marked difficult, now crowd regions.
    pub(super) difficult: usize,
    /// Objects that are dropped because their box has no inside. Named by their annotations.
    pub(super) degenerate: Named,
    /// Objects that are not difficult and whose box lies partly beyond the image. Named by their annotations.
    pub(super) beyond: Named,
    /// Objects that are not difficult and whose box lies wholly beyond the image. Named by their annotations.
    pub(super) outside: Named,
    /// Objects whose box begins at pixel 0, which VOC does not have: it counts from 1.
    pub(super) from_zero: usize,
    /// Images whose size was read from the image because the XML has none.
    pub(super) sizes_from_images: usize,
    /// Those of them with an EXIF orientation. Named by their annotations.
    pub(super) turned_sizes: Named,
    /// Which way up the user says that the images are.
    pub(super) orientation: Orientation,
    /// See [`Agreement`], as the next four. Named by their annotations.
    pub(super) swapped_sizes: Named,
    pub(super) unclear_sizes: Named,
    pub(super) stored_frames: Named,
    pub(super) other_sizes: Named,
    pub(super) unread_images: Named,
    /// Annotated images that no image set lists.
    pub(super) unlisted: usize,
    /// Lines that name an image for the second time: it is read once.
    pub(super) listed_twice: Named,
    /// Of the whole set: files that are no annotation, image or image set; lists of a class, as VOC's devkit
    /// has them (`aeroplane_train.txt`), among them.
    pub(super) passed_over: PassedOver,
    /// Of the whole set: image sets that list nothing.
    pub(super) empty_sets: Vec<String>,
    /// Of the whole set: folders that are called as parts are, but are none.
    pub(super) unused_parts: Vec<String>,
}

impl Report {
    /// Counts where an image's size is from.
    pub(super) fn count_frame(&mut self, found: Agreement, stem: &str) {
        let named = match found {
            Agreement::Same => return,
            Agreement::OfImage => {
                self.sizes_from_images += 1;
                return;
            }
            Agreement::OfTurnedImage => {
                self.sizes_from_images += 1;
                &mut self.turned_sizes
            }
            Agreement::Unread => &mut self.unread_images,
            Agreement::Swapped => &mut self.swapped_sizes,
            Agreement::Unclear => &mut self.unclear_sizes,
            Agreement::Stored => &mut self.stored_frames,
            Agreement::Other => &mut self.other_sizes,
        };
        named.add(stem);
    }

    /// Counts a box with an inside, in an image of `[height, width]`.
    pub(super) fn count_box(&mut self, bbox: Xywh, difficult: bool, size: [u32; 2], stem: &str) {
        let corners = bbox.to_xyxy();
        let clipped = corners.clipped(size[1], size[0]);
        let [x, y, ..] = bbox.0;
        self.boxes += 1;
        self.from_zero += usize::from(x == -1.0 || y == -1.0);
        self.difficult += usize::from(difficult);
        if difficult {
            return;
        }
        self.learnable += usize::from(!clipped.is_degenerate());
        if clipped.is_degenerate() {
            self.outside.add(stem);
        } else if clipped != corners {
            self.beyond.add(stem);
        }
    }

    /// What was understood in a way that a user should know, each a line.
    pub(super) fn notes(&self) -> Vec<String> {
        let plain = |count: usize, one, what| (count, one, what, String::new());
        let named = |named: &Named, one, what| (named.count, one, what, named.shown());
        let missing = "missing from the XML, read from the images";
        let swapped = "with width and height exchanged in the XML, the images' taken";
        let kinds = [
            plain(self.difficult, "difficult object", "kept as crowd (not trained on)"),
            named(&self.degenerate, "box", "without an inside, dropped"),
            named(&self.beyond, "box", "partly beyond the image, clipped for training"),
            named(&self.outside, "box", "wholly beyond the image, dropped from training"),
            plain(self.sizes_from_images, "size", missing),
            named(&self.swapped_sizes, "size", swapped),
            named(&self.unread_images, "image", "that cannot be read, the XML's size taken"),
            plain(self.unlisted, "annotated image", "in no image set, left out"),
            named(&self.listed_twice, "image", "listed again in the image set, taken once"),
        ];
        let kinds = kinds.into_iter().filter(|(count, ..)| *count > 0);
        let mut notes: Vec<String> = kinds
            .map(|(count, one, what, names)| {
                let comma = if what.starts_with("kept") { "," } else { "" };
                format!("{}{comma} {what}{names}", counted(count, one))
            })
            .collect();
        notes.extend(self.empty_sets.iter().map(|name| format!("{name}: lists nothing, left out")));
        if !self.passed_over.is_empty() {
            notes.push(format!("passed over: {}", self.passed_over));
        }
        notes
    }

    /// What will be refused later, or is probably not meant to be, each a sentence. `set` is the name of the
    /// image set.
    pub(super) fn warnings(&self, set: &str) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.learnable == 0 {
            let why = match self.boxes {
                0 => "no boxes",
                _ => "only boxes that are difficult or wholly beyond their images",
            };
            warnings.push(format!("{set} has {why}: it cannot be trained on"));
        }
        let mut named = |named: &Named, text: String| {
            if named.count > 0 {
                warnings.push(format!("{text}{}", named.shown()));
            }
        };
        named(
            &self.stored_frames,
            format!(
                "{} from before the EXIF orientation turns the image, by the size or, without one, by the boxes: the boxes were drawn on the pixels as stored; to use the set as it lies, set data.train.orientation and data.val.orientation to \"stored\", and \
                 pass {} stored to eval and predict",
                clause(self.stored_frames.count, "frame", ["is", "are"]),
                Argument::Orientation
            ),
        );
        let (taken, otherwise, value) = match self.orientation {
            Orientation::Exif => ("what viewers show", "the pixels as stored", "stored"),
            Orientation::Stored => ("the pixels as stored", "what viewers show", "exif"),
        };
        named(
            &self.turned_sizes,
            format!(
                "{} an EXIF orientation and no size in the XML: nothing shows which way up the boxes were drawn. \
                 They are taken as drawn on {taken}; if it was {otherwise}, set orientation to \"{value}\" for this \
                 set, or pass {} {value}",
                clause(self.turned_sizes.count, "image", ["has", "have"]),
                Argument::Orientation
            ),
        );
        named(
            &self.unclear_sizes,
            format!(
                "{} width and height exchanged in the XML, and the boxes fit both ways: what the images say is taken. \
                 If images were turned after they were annotated, their boxes are elsewhere: look at some \
                 (`richsem dataset show`, or a viewer)",
                clause(self.unclear_sizes.count, "size", ["has", "have"])
            ),
        );
        named(
            &self.other_sizes,
            format!(
                "{} not the image's, which was resized, turned or replaced after it was annotated: training and \
                 evaluation will refuse it",
                clause(self.other_sizes.count, "size", ["is", "are"])
            ),
        );
        if !self.unused_parts.is_empty() {
            warnings.push(format!(
                "there are annotations in folders of the name of a part ({}) and others in none: all are read as one \
                 part, `{set}`. Give one of the folders, or move the others into folders of parts",
                self.unused_parts.join(", ")
            ));
        }
        if self.from_zero > 0 {
            warnings.push(format!(
                "{} at pixel 0, where VOC counts from 1: if this set counts from 0, all its boxes are taken one \
                 pixel too far to the left and top",
                clause(self.from_zero, "box", ["begins", "begin"])
            ));
        }
        warnings
    }
}

//! The labels of a set on its images, before anything is trained: are the boxes right?

use std::collections::BTreeMap;

use image::RgbImage;

use super::{choose, groups, labeled};
use crate::{
    boxes::{Xywh, Xyxy},
    data::{
        dataset::{Annotation, Dataset},
        detection_source::ImageEntry,
        formats::Unit,
        image_store::ImageStore,
    },
    draw::{self, Labeled},
    error::Result,
    targets::LabelKnowledge,
    vocabulary::ClassIndex,
};

/// An image with all its labels drawn.
#[derive(Debug, Clone)]
pub struct Labels {
    /// The image in its own size. Regions of many objects, and boxes that do not count, are dashed, and their
    /// names say so.
    pub image: RgbImage,
    /// Boxes that are drawn, dashed ones included.
    pub boxes: usize,
    /// Of these, regions of many objects (COCO's `iscrowd`, OpenImages' `IsGroupOf`).
    pub crowds: usize,
    /// Boxes without an inside in the image, which cannot be drawn.
    pub unseen: usize,
    /// Name of each class that is drawn and its boxes, the most first.
    pub classes: Vec<(String, usize)>,
}

/// Images for a look at a set, at most `count`, as positions in [`Dataset::images`], in the set's order.
///
/// With `classes`, images that show one of them; otherwise any. Where there are more than `count`, images that
/// show what others do not are chosen first, rare classes before frequent ones. The choice depends on the
/// set alone. Images without boxes come last.
#[must_use]
pub fn choose_images(dataset: &Dataset, classes: &[ClassIndex], count: usize) -> Vec<usize> {
    let of = |at: usize| dataset.annotations_of(at).iter().map(|a| a.class);
    let is_wanted = |at: &usize| classes.is_empty() || of(*at).any(|c| classes.contains(&c));
    let wanted: Vec<usize> = (0..dataset.images().len()).filter(is_wanted).collect();
    if wanted.len() <= count {
        return wanted;
    }
    let labels = wanted.iter().map(|&at| of(at).collect());
    let groups = groups(dataset.vocabulary(), dataset.vocabulary());
    let mut chosen: Vec<usize> = choose(labels, &groups, count)
        .into_iter()
        .map(|position| wanted[position as usize])
        .collect();
    chosen.sort_unstable();
    chosen
}

/// Draws the labels of one image. `image` is a position in [`Dataset::images`]; boxes may be in pixels or
/// shares of the image.
///
/// # Errors
/// The image cannot be read, or is of another size than annotated.
///
/// # Panics
/// If `image` is not an index into [`Dataset::images`].
pub fn draw_labels(dataset: &Dataset, store: &ImageStore, image: usize) -> Result<Labels> {
    let record = &dataset.images()[image];
    let entry = ImageEntry {
        name: record.file_name.clone(),
        id: record.id,
        size: record.size,
        boxes: Vec::new(),
        labels: Vec::new(),
        knowledge: LabelKnowledge::default(),
    };
    let mut drawn = entry.read(store)?;
    let (width, height) = drawn.dimensions();
    let scale = match dataset.unit() {
        Unit::Pixels => [1.0; 2],
        Unit::Shares => [width, height].map(f64::from),
    };
    let annotations = dataset.annotations_of(image);
    let is_seen = |label: &Labeled| !label.bbox.clipped(width, height).is_degenerate();
    let (mut crowds, mut classes) = (0, BTreeMap::<ClassIndex, usize>::new());
    let mut labels = Vec::with_capacity(annotations.len());
    for annotation in annotations {
        let label = label(dataset, annotation, scale);
        if is_seen(&label) {
            labels.push(label);
            crowds += usize::from(annotation.crowd);
            *classes.entry(annotation.class).or_default() += 1;
        }
    }
    draw::draw(&mut drawn, &labels);
    let name = |class: ClassIndex| dataset.vocabulary().category(class).name.clone();
    let mut classes: Vec<(String, usize)> =
        classes.into_iter().map(|(class, boxes)| (name(class), boxes)).collect();
    classes.sort_by_key(|(_, boxes)| std::cmp::Reverse(*boxes));
    Ok(Labels {
        image: drawn,
        boxes: labels.len(),
        crowds,
        unseen: annotations.len() - labels.len(),
        classes,
    })
}

fn label(dataset: &Dataset, annotation: &Annotation, [width, height]: [f64; 2]) -> Labeled {
    let [x, y, w, h] = annotation.bbox.0;
    let bbox: Xyxy = Xywh([x * width, y * height, w * width, h * height]).to_xyxy();
    let mut label = labeled(bbox, dataset.vocabulary().category(annotation.class), None);
    let why = match annotation {
        Annotation { crowd: true, .. } => " (crowd)",
        Annotation { ignore: true, .. } => " (ignored)",
        _ => "",
    };
    label.class_name += why;
    label.dashed = !why.is_empty();
    label
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::path::Path;

    use image::Rgb;

    use super::*;
    use crate::data::{formats::Opening, image_io::Orientation};

    const GREY: Rgb<u8> = Rgb([128; 3]);

    /// Three images, of which the last has no boxes.
    fn write(folder: &Path) {
        for name in ["a.png", "b.png", "c.png"] {
            RgbImage::from_pixel(200, 160, GREY).save(folder.join(name)).unwrap();
        }
        let text = r#"{
            "images": [{"id": 1, "file_name": "a.png", "width": 200, "height": 160},
                       {"id": 2, "file_name": "b.png", "width": 200, "height": 160},
                       {"id": 3, "file_name": "c.png", "width": 200, "height": 160}],
            "categories": [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}],
            "annotations": [
                {"id": 1, "image_id": 1, "category_id": 7, "bbox": [20, 40, 60, 100], "iscrowd": 1},
                {"id": 2, "image_id": 1, "category_id": 3, "bbox": [120, 40, 60, 100]},
                {"id": 3, "image_id": 1, "category_id": 3, "bbox": [300, 40, 60, 100]},
                {"id": 4, "image_id": 2, "category_id": 3, "bbox": [20, 40, 60, 100]}]}"#;
        fs_err::write(folder.join("a.json"), text).unwrap();
    }

    #[test]
    fn every_box_is_drawn_and_regions_are_dashed() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path());
        let dataset = Dataset::open(&folder.path().join("a.json")).unwrap();
        let store = ImageStore::open(folder.path(), Orientation::Exif).unwrap();
        let drawn = draw_labels(&dataset, &store, 0).unwrap();
        assert_eq!((drawn.boxes, drawn.crowds, drawn.unseen), (2, 1, 1));
        assert_eq!(drawn.classes, [("cat".to_owned(), 1), ("dog".to_owned(), 1)]);
        // The left edges, below the names.
        let inked = |x: u32, id: u64| {
            let edge = (70..130).map(|y| *drawn.image.get_pixel(x, y));
            edge.filter(|&pixel| pixel == draw::color(id)).count()
        };
        assert_eq!(inked(120, 3), 60);
        assert!((15..45).contains(&inked(20, 7)), "{}", inked(20, 7));
        let empty = draw_labels(&dataset, &store, 2).unwrap();
        assert_eq!((empty.boxes, empty.classes.len()), (0, 0));
        assert!(empty.image.pixels().all(|&pixel| pixel == GREY));
    }

    #[test]
    fn shares_of_an_image_are_drawn_where_pixels_would_be() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("images/train/a.png");
        fs_err::create_dir_all(file.parent().unwrap()).unwrap();
        RgbImage::from_pixel(200, 160, GREY).save(&file).unwrap();
        fs_err::create_dir_all(folder.path().join("labels/train")).unwrap();
        let label = folder.path().join("labels/train/a.txt");
        fs_err::write(label, "0 0.5 0.5 0.5 0.5\n").unwrap();
        let yaml = "train: images/train\nval: images/train\nnames: [cat]\n";
        fs_err::write(folder.path().join("data.yaml"), yaml).unwrap();
        let of = |pixels: bool| {
            let opening = Opening { pixels, split: Some("train".to_owned()), ..Opening::default() };
            let dataset = Dataset::open_as(&folder.path().join("data.yaml"), &opening).unwrap();
            let store = ImageStore::open(dataset.images_at().unwrap(), Orientation::Exif).unwrap();
            draw_labels(&dataset, &store, 0).unwrap().image
        };
        assert!(of(true) == of(false));
        let edge = *of(false).get_pixel(50, 100);
        assert_ne!(edge, GREY);
    }

    #[test]
    fn a_choice_is_of_the_wanted_classes_and_in_the_sets_order() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path());
        let dataset = Dataset::open(&folder.path().join("a.json")).unwrap();
        let [cat, dog] = [ClassIndex(0), ClassIndex(1)];
        assert_eq!(choose_images(&dataset, &[], 9), [0, 1, 2]);
        assert_eq!(choose_images(&dataset, &[], 2), [0, 1]);
        // Both classes are in the first.
        assert_eq!(choose_images(&dataset, &[], 1), [0]);
        assert_eq!(choose_images(&dataset, &[cat], 9), [0, 1]);
        assert_eq!(choose_images(&dataset, &[dog], 9), [0]);
        assert!(choose_images(&dataset, &[dog], 0).is_empty());
    }
}

//! What is left when all lists are read: ids are resolved, and what should be known is told.

use std::{collections::HashMap, path::PathBuf};

use super::{
    absolute,
    builder::{Builder, RELATIVE, Tally},
    ids::{Ids, known_ids},
    records::RawCategory,
};
use crate::{
    data::{
        records::{AnnotationFormat, ReadCounts, Records},
        texts::Texts,
    },
    error::Result,
    json::Id,
    plural::counted,
    vocabulary::ClassIndex,
};

impl Builder {
    /// Resolves the slots.
    pub(super) fn finish(mut self) -> Result<Records> {
        for (list, empty) in
            [("images", self.images.is_empty()), ("categories", self.categories.is_empty())]
        {
            if empty {
                return Err(self
                    .invalid(list.to_owned(), "the list is empty")
                    .with_hint("did the program that wrote this file filter everything out?"));
            }
        }
        let images_at = self.absolute_names()?;
        self.check_annotation_ids()?;
        self.number_annotations();
        self.check_mentions()?;

        for annotation in &mut self.annotations {
            let seen = &self.image_ids.seen[annotation.image as usize];
            annotation.image = seen.declared.expect("check_mentions found every id declared");
        }
        let removed_listed = self.resolve_classes();
        let mut notes = self.notes();
        notes.extend(self.annotation_ids.as_ref().map(|ids| {
            let first = ids.get(0).unwrap_or_default();
            format!(
                "ids of annotations are texts, as `{first}`: messages number the annotations from 1, in the \
                 order of the file"
            )
        }));
        notes.extend(self.boxless_classes());
        let warnings = self.warnings();
        let image_ids = self.number_images();
        let verified =
            if self.listing > 0 { AnnotationFormat::Lvis } else { AnnotationFormat::Coco };
        Ok(Records {
            images: self.images,
            annotations: self.annotations,
            classes: self.categories.into_iter().map(RawCategory::into_class).collect(),
            verified,
            images_at,
            image_ids,
            annotation_ids: self.annotation_ids,
            notes,
            warnings,
            counts: ReadCounts {
                computed_area: self.computed_area,
                removed_listed,
                lists: self.lists,
                listing: self.listing,
            },
            ..Records::default()
        })
    }

    /// Replaces the slots of classes by positions in the file's list. Gives the number of entries in LVIS's
    /// lists that are no category of the file.
    fn resolve_classes(&mut self) -> usize {
        let seen = &self.category_ids.seen;
        let resolve = |class: &mut ClassIndex| {
            let declared = seen[class.0 as usize].declared;
            *class = ClassIndex(declared.expect("check_mentions found every id declared"));
        };
        self.annotations.iter_mut().for_each(|a| resolve(&mut a.class));
        // LVIS's lists may have ids of classes that were removed from the file.
        let mut removed = 0;
        for (_, list) in &mut self.present {
            let all = list.len();
            list.retain(|slot| seen[slot.0 as usize].declared.is_some());
            removed += all - list.len();
            list.iter_mut().for_each(resolve);
        }
        for image in &mut self.images {
            for list in [&mut image.neg_classes, &mut image.not_exhaustive_classes] {
                let all = list.len();
                list.retain(|slot| seen[slot.0 as usize].declared.is_some());
                removed += all - list.len();
                list.iter_mut().for_each(resolve);
            }
        }
        removed
    }

    /// If the ids of the annotations are texts, numbers all of them.
    fn number_annotations(&mut self) {
        if self.annotation_ids.is_some() {
            (1..).zip(&mut self.annotations).for_each(|(id, annotation)| annotation.id = id);
        }
    }

    /// No two annotations have the same id.
    fn check_annotation_ids(&self) -> Result<()> {
        const HINT: &str = "number the annotations anew: the program that wrote this file, or a merge of two \
                            files, used the id twice";
        if let Some(written) = &self.annotation_ids {
            let mut first: HashMap<&str, usize> = HashMap::new();
            for (at, id) in written.iter().enumerate() {
                if let Some(earlier) = first.insert(id, at) {
                    let id = Id::Text(id.to_owned());
                    return Err(self.duplicate(("annotations", at), earlier, &id, HINT));
                }
            }
            return Ok(());
        }
        if self.annotations.is_sorted_by(|a, b| a.id < b.id) {
            return Ok(());
        }
        let mut order: Vec<(i64, u32)> =
            self.annotations.iter().zip(0..).map(|(a, position)| (a.id, position)).collect();
        order.sort_unstable();
        let repeated = order.windows(2).filter(|w| w[0].0 == w[1].0).min_by_key(|w| w[1].1);
        match repeated {
            None => Ok(()),
            Some(pair) => Err(self.duplicate(
                ("annotations", pair[1].1 as usize),
                pair[0].1 as usize,
                &Id::Number(pair[0].0),
                HINT,
            )),
        }
    }

    /// Every id that was used must be declared.
    fn check_mentions(&self) -> Result<()> {
        let undeclared = |ids: &Ids| {
            let mut seen = ids.seen.iter().filter(|seen| seen.declared.is_none());
            seen.find_map(|seen| Some((seen.id.clone(), seen.mentioned?)))
        };
        if let Some((id, at)) = undeclared(&self.image_ids) {
            return Err(self
                .invalid(format!("annotations[{at}].image_id"), format!("no image has the id {id}"))
                .with_hint(known_ids("images", self.written_ids.iter(), &id)));
        }
        if let Some((id, at)) = undeclared(&self.category_ids) {
            let field = format!("annotations[{at}].category_id");
            let ids: Vec<Id> = self.categories.iter().map(|c| Id::Number(c.id.0)).collect();
            return Err(self
                .invalid(field, format!("no category has the id {id}"))
                .with_hint(known_ids("categories", ids.iter(), &id)));
        }
        Ok(())
    }

    /// If the ids of the images are texts, numbers them in the order of the file, and gives the texts.
    fn number_images(&mut self) -> Option<Texts> {
        if !self.written_ids.iter().any(Id::is_text) {
            return None;
        }
        for (image, id) in self.images.iter_mut().zip(1..) {
            image.id = id;
        }
        Some(std::mem::take(&mut self.written_ids).into_iter().map(Id::into_text).collect())
    }

    /// Adds the classes that an image has without a box to those that are not exhaustively annotated there.
    /// Gives a note on how many they are.
    fn boxless_classes(&mut self) -> Option<String> {
        if self.present.is_empty() {
            return None;
        }
        let mut boxed: Vec<(u32, ClassIndex)> =
            self.annotations.iter().map(|a| (a.image, a.class)).collect();
        boxed.sort_unstable();
        let (mut classes, mut images) = (0, 0);
        for (at, present) in std::mem::take(&mut self.present) {
            let list = &mut self.images[at as usize].not_exhaustive_classes;
            let before = list.len();
            for class in present {
                if boxed.binary_search(&(at, class)).is_err() && !list.contains(&class) {
                    list.push(class);
                }
            }
            classes += list.len() - before;
            images += usize::from(list.len() > before);
        }
        (classes > 0).then(|| {
            format!(
                "classes that images have without a box (pos_category_ids), taken as not exhaustively annotated: \
                 {classes} in {}",
                counted(images, "image")
            )
        })
    }

    /// Where all images are named by absolute paths, calls them by what is below the folder that they share. Gives
    /// that folder.
    fn absolute_names(&mut self) -> Result<Option<PathBuf>> {
        let Tally { count, first } = self.seen.absolute;
        if count == 0 {
            return Ok(None);
        }
        let example = &self.first_absolute;
        if count < self.images.len() {
            let problem = format!(
                "expected a relative path, as others have, got an absolute one: `{}`",
                example.escape_debug()
            );
            return Err(self
                .invalid(format!("images[{first}].file_name"), problem)
                .with_hint(RELATIVE));
        }
        let folder = absolute::name_below_folder(&mut self.images);
        // Of a drive or a server, the folder is none of this machine.
        Ok((example.starts_with('/') && !example.starts_with("//")).then_some(folder))
    }

    fn notes(&self) -> Vec<String> {
        let seen = &self.seen;
        let annotation =
            |tally: &Tally| format!("{} (the first has the id {})", tally.count, tally.first);
        let name = |tally: &Tally| {
            let first = &self.images[tally.first as usize].file_name;
            format!("{} (as {first})", tally.count)
        };
        let all = [
            (&seen.urls, "images named by a URL, its path below the host is taken", true),
            (
                &seen.absolute,
                "images named by absolute paths, taken below the folder that all are in",
                true,
            ),
            (&seen.nameless, "images whose names have no extension, taken as they are", true),
            (
                &seen.from_outlines,
                "annotations without a box, the box around their outline is taken",
                false,
            ),
            (
                &seen.turned,
                "boxes with a rotation, as CVAT writes it; the upright box around is taken",
                false,
            ),
            (&seen.groups, "boxes around a group (isgroupof), taken as crowd regions", false),
        ];
        let told = all.into_iter().filter(|(tally, ..)| tally.count > 0);
        told.map(|(tally, what, image)| {
            format!("{what}: {}", if image { name(tally) } else { annotation(tally) })
        })
        .collect()
    }

    fn warnings(&self) -> Vec<String> {
        let masks = self.seen.cvat_masks.count;
        let warning = || {
            format!(
                "{}: not trained on, ignored in evaluation. CVAT writes `iscrowd` 1 for every mask: if these \
                 are single objects, set it to 0 in the file",
                counted(masks, "crowd region")
            )
        };
        (masks > 0).then(warning).into_iter().collect()
    }
}

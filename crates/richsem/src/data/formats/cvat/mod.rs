//! CVAT's XML for images: one file for a task, or for a project with its subsets.

mod shapes;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    path::{Path, PathBuf},
};

use roxmltree::{Document, Node};

use super::{Format, Place, Request, below_root, images_at};
use crate::{
    boxes::Xywh,
    data::{
        formats::voc::xml::decoded,
        records::{Annotation, ClassRecord, ImageRecord, Records},
    },
    error::{Error, Result},
    vocabulary::ClassIndex,
};
use shapes::{Element, Shape};

pub(super) const FORMAT: Format = Format {
    name: "cvat",
    title: "CVAT XML for images",
    recognise,
    splits: |place| {
        let parts = parts(place)?;
        let whole = matches!(&*parts, [only] if only.subset.is_none());
        Ok(if whole { Vec::new() } else { parts.into_iter().map(|part| part.name).collect() })
    },
    read,
};

/// The subset of images that name none, where others do.
const DEFAULT: &str = "default";

fn recognise(place: &Place) -> Option<String> {
    if place.is_folder() {
        // The first one: a folder of Pascal VOC has thousands.
        let first = place.files().find(|name| is_xml(name)).and_then(|name| place.below(name))?;
        let name = first.path().file_name().unwrap_or_default().to_string_lossy().into_owned();
        return is_cvat(&first).then(|| format!("{name} has <annotations>"));
    }
    is_cvat(place).then(|| "it has <annotations>".to_owned())
}

fn is_xml(name: &str) -> bool {
    name.to_ascii_lowercase().ends_with(".xml")
}

fn is_cvat(place: &Place) -> bool {
    let text = place.text();
    text.trim_start().starts_with('<') && text.contains("<annotations")
}

/// A part of the set: a file, or a subset in it.
struct Part {
    file: PathBuf,
    subset: Option<String>,
    name: String,
}

fn parts(place: &Place) -> Result<Vec<Part>> {
    let mut files = vec![place.path().to_owned()];
    if place.is_folder() {
        let places = place.files().filter(|name| is_xml(name)).filter_map(|n| place.below(n));
        files = places.filter(is_cvat).map(|file| file.path().to_owned()).collect();
    }
    let mut parts = Vec::new();
    for file in &files {
        let stem = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let text = text_of(file)?;
        let document = parse(file, &text)?;
        let images = document.root_element().children().filter(|n| n.has_tag_name("image"));
        let mut subsets: Vec<Option<&str>> = Vec::new();
        for subset in images.map(|image| image.attribute("subset")) {
            if !subsets.contains(&subset) {
                subsets.push(subset);
            }
        }
        if subsets.iter().all(Option::is_none) {
            parts.push(Part { file: file.clone(), subset: None, name: stem });
            continue;
        }
        for subset in subsets {
            let subset = subset.unwrap_or(DEFAULT).to_owned();
            let name = if files.len() > 1 { format!("{stem}/{subset}") } else { subset.clone() };
            parts.push(Part { file: file.clone(), subset: Some(subset), name });
        }
    }
    Ok(parts)
}

fn text_of(file: &Path) -> Result<String> {
    let bytes = fs_err::read(file)?;
    if bytes.is_empty() {
        return Err(Error::invalid(file, "XML", "the file is empty").with_hint("export it again"));
    }
    Ok(decoded(file, &bytes)?.into_owned())
}

fn parse<'a>(file: &Path, text: &'a str) -> Result<Document<'a>> {
    let document = Document::parse(text).map_err(|problem| {
        Error::invalid(file, "XML", format!("broken: {problem}"))
            .with_hint("is the file truncated? export or copy it again, or mend it at that line")
    })?;
    let root = document.root_element();
    if root.tag_name().name() != "annotations" {
        let problem = format!("expected <annotations>, got <{}>", root.tag_name().name());
        return Err(
            Error::invalid(file, "XML", problem).with_hint("expected CVAT's XML for images")
        );
    }
    if root.children().any(|node| node.has_tag_name("track")) {
        return Err(Error::invalid(file, "track", "this is CVAT's XML for videos")
            .with_hint("export the task as `CVAT for images`, or as COCO"));
    }
    if !root.children().any(|node| node.has_tag_name("image")) {
        return Err(Error::invalid(file, "image", "missing: the file lists no images")
            .with_hint("was the task exported before anything was uploaded?"));
    }
    Ok(document)
}

fn read(request: &Request<'_>) -> Result<Records> {
    let parts = parts(&Place::new(request.path)?)?;
    let part = parts.iter().find(|part| request.split.is_empty() || part.name == request.split);
    let part = part.ok_or_else(|| {
        Error::invalid(request.path, "split", format!("there is no part `{}`", request.split))
    })?;
    let text = text_of(&part.file)?;
    let document = parse(&part.file, &text)?;
    let mut reader = Reader::new(&part.file, &document);
    let images = document.root_element().children().filter(|n| n.has_tag_name("image"));
    for (index, image) in images.enumerate() {
        let subset = part.subset.as_deref();
        if subset.is_none_or(|subset| image.attribute("subset").unwrap_or(DEFAULT) == subset) {
            reader.image(index, image)?;
        }
    }
    let mut records = reader.finish();
    let folder = part.file.parent().unwrap_or(Path::new("")).to_owned();
    let subset = part.subset.as_deref().unwrap_or_default();
    let near = ["", "images", &format!("images/{subset}"), subset, "images.tar"];
    let near = near.map(|name| folder.join(name)).to_vec();
    let there: Vec<PathBuf> = near.into_iter().filter(|path| path.exists()).collect();
    images_at::find(there, request, &mut records)?;
    Ok(records)
}

/// Takes the images of a file one after the other.
struct Reader<'a, 'i> {
    file: &'a Path,
    document: &'a Document<'i>,
    /// Names in the order of the file, and the position of each.
    names: Vec<String>,
    class_at: HashMap<String, u32>,
    records: Records,
    /// Numbers of what is no box and has none, by element.
    passed_over: BTreeMap<String, usize>,
    unlabeled: usize,
    turned: usize,
    around: usize,
}

impl<'a, 'i> Reader<'a, 'i> {
    /// The classes are those that the whole file declares, and then those that it only uses: the same for
    /// every subset.
    fn new(file: &'a Path, document: &'a Document<'i>) -> Self {
        let declared = document.descendants().filter(|n| n.has_tag_name("label"));
        // Parts of a skeleton have a parent.
        let whole = declared.filter(|n| text_in(*n, "parent").is_none());
        let declared = whole.filter_map(|n| text_in(n, "name"));
        let images = document.root_element().children().filter(|n| n.has_tag_name("image"));
        let shapes = images.flat_map(|image| image.children());
        let boxed = shapes.filter(|node| Shape::has_box(node.tag_name().name()));
        let used = boxed.filter_map(|node| node.attribute("label").map(str::to_owned));
        let (mut names, mut class_at) = (Vec::new(), HashMap::new());
        for name in declared.chain(used).filter(|name| !name.trim().is_empty()) {
            if !class_at.contains_key(&name) {
                class_at.insert(name.clone(), names.len() as u32);
                names.push(name);
            }
        }
        Self {
            file,
            document,
            names,
            class_at,
            records: Records::default(),
            passed_over: BTreeMap::new(),
            unlabeled: 0,
            turned: 0,
            around: 0,
        }
    }

    fn image(&mut self, index: usize, node: Node<'a, 'i>) -> Result<()> {
        let element = Element {
            file: self.file,
            document: self.document,
            node,
            place: format!("image[{index}]"),
        };
        let side = |name| element.size(name);
        let size = match (side("height")?, side("width")?) {
            (Some(height), Some(width)) => Some([height, width]),
            _ => None,
        };
        let name = element.text("name")?;
        let file_name = below_root(name).map_err(|problem| {
            element
                .wrong("name", problem)
                .with_hint("names are relative to the folder of the images")
        })?;
        let id = node.attribute("id").and_then(|id| id.parse().ok()).unwrap_or(-1);
        let position = self.records.images.len() as u32;
        self.records.images.push(ImageRecord { id, file_name, size, ..ImageRecord::default() });
        for (i, child) in node.children().filter(Node::is_element).enumerate() {
            let place = format!("image[{index}].{}[{i}]", child.tag_name().name());
            let shape = Element { node: child, place, ..element };
            self.shape(position, &shape)?;
        }
        Ok(())
    }

    fn shape(&mut self, image: u32, element: &Element<'a, 'a, 'i>) -> Result<()> {
        let name = element.node.tag_name().name();
        let Some(shape) = Shape::of(element)? else {
            *self.passed_over.entry(name.to_owned()).or_default() += 1;
            return Ok(());
        };
        let label = element.node.attribute("label").unwrap_or_default();
        let Some(&class) = self.class_at.get(label) else {
            self.unlabeled += 1;
            return Ok(());
        };
        self.turned += usize::from(shape.turned);
        self.around += usize::from(name != "box");
        let [_, _, w, h] = shape.bbox;
        self.records.annotations.push(Annotation {
            id: self.records.annotations.len() as i64 + 1,
            image,
            class: ClassIndex(class),
            bbox: Xywh(shape.bbox),
            area: w * h,
            crowd: false,
            ignore: false,
        });
        Ok(())
    }

    fn finish(self) -> Records {
        let mut records = self.records;
        let ids: HashSet<i64> = records.images.iter().map(|image| image.id).collect();
        if ids.len() < records.images.len() || ids.contains(&-1) {
            records
                .notes
                .push("the images' ids are missing or used twice: numbered anew".to_owned());
            for (image, id) in records.images.iter_mut().zip(1..) {
                image.id = id;
            }
        }
        let classes = self.names.into_iter().zip(1..);
        records.classes = classes.map(|(name, id)| ClassRecord::named(id, name)).collect();
        records.numbered = true;
        let mut told = |what: &str, count: usize| {
            if count > 0 {
                records.notes.push(format!("{what}: {count}"));
            }
        };
        told("boxes made of polygons, ellipses and masks", self.around);
        told("shapes with a rotation, the upright box around is taken", self.turned);
        told("shapes without a label, passed over", self.unlabeled);
        for (element, count) in &self.passed_over {
            told(&format!("<{element}>, passed over: it has no box"), *count);
        }
        records
    }
}

/// The trimmed text of a child, if there is any.
fn text_in(node: Node<'_, '_>, name: &str) -> Option<String> {
    let child = node.children().find(|n| n.has_tag_name(name))?;
    child.text().map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
}

//! The frame that boxes are in: what the XML says of its size, and what the image is.

use super::xml::{Annotated, Object};
use crate::{
    boxes::Xywh,
    data::{
        image_io::{Frame, Orientation, SLACK, fits},
        image_store::ImageStore,
    },
    error::{Error, Result},
};

/// An object's box as COCO has it. VOC counts pixels from 1 and includes both ends.
pub(super) fn coco_box(object: &Object) -> Xywh {
    let [x0, y0, x1, y1] = object.corners;
    Xywh([x0 - 1.0, y0 - 1.0, x1 - x0 + 1.0, y1 - y0 + 1.0])
}

/// How the size in the XML and the image's own agree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Agreement {
    /// They are the same.
    Same,
    /// The XML has none: the image's is taken.
    OfImage,
    /// So, too, and the image has an EXIF orientation: nothing shows which way up its boxes were drawn.
    OfTurnedImage,
    /// The image cannot be read: the XML's is taken.
    Unread,
    /// Width and height are exchanged in the XML, and the boxes lie in the image as it is: its own is taken.
    Swapped,
    /// The same where the boxes would lie in the XML's, too.
    Unclear,
    /// The XML's is the size of the pixels as they are stored, before the EXIF orientation turns them.
    Stored,
    /// Any other: the XML's is kept, and so the image will be refused by name.
    Other,
}

/// `[height, width]` of the frame that the boxes are in, and how it was found.
///
/// Some programs exchange width and height in the XML. They are also exchanged if somebody turned the image
/// later. If the boxes lie in the image as it is, and not in a turned one, it was the program. If they lie
/// in both, nothing tells. The image's own size is taken in both cases.
///
/// Otherwise the XML's size is kept. The image is then refused when it is read, and no training uses boxes
/// that are elsewhere. It is also kept if it is the size of the pixels as stored, and the boxes nearly lie
/// in it.
///
/// `orientation` is what the user says of all images. A size that the XML lacks is the image's that way up, or that
/// of the pixels as stored, if the boxes lie in that alone. If the boxes are said to be on the pixels as stored and
/// the XML has their size, nothing is asked.
///
/// `store` reads images as viewers show them, and `name` is the image's in it.
pub(super) fn frame(
    store: &ImageStore,
    name: &str,
    annotated: &Annotated,
    orientation: Orientation,
) -> Result<([u32; 2], Agreement)> {
    let (width, height) = annotated.size;
    let in_xml = [height, width];
    let boxes = annotated.objects.iter().map(coco_box);
    let fits = |size, slack| boxes.clone().all(|bbox| fits(bbox, size, slack));
    if width == 0 || height == 0 {
        let frame = header(store, name)?;
        let (size, shown) = frame.size_of_boxes(orientation, boxes.clone());
        let found = match shown {
            true if size != frame.size(orientation) => Agreement::Stored,
            false if frame.is_turned() && boxes.len() > 0 => Agreement::OfTurnedImage,
            _ => Agreement::OfImage,
        };
        return Ok((size, found));
    }
    let Ok(header) = store.frame(name) else { return Ok((in_xml, Agreement::Unread)) };
    let own = header.size(Orientation::Exif);
    let stored = header.stored == in_xml;
    if own == in_xml || (stored && orientation == Orientation::Stored) {
        return Ok((in_xml, Agreement::Same));
    }
    if own == [width, height] && fits(own, 0.0) && !(stored && fits(in_xml, SLACK)) {
        let unclear = fits(in_xml, 0.0);
        return Ok((own, if unclear { Agreement::Unclear } else { Agreement::Swapped }));
    }
    Ok((in_xml, if stored { Agreement::Stored } else { Agreement::Other }))
}

/// What the header of the image itself says.
fn header(store: &ImageStore, name: &str) -> Result<Frame> {
    store.frame(name).map_err(|e| {
        let problem = format!("the XML gives none, and the image's is unreadable: {e}");
        Error::invalid(&store.display_path(name), "size", problem)
            .with_hint("write width and height into the XML, or replace the image")
    })
}

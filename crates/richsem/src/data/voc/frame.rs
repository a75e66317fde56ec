//! The frame that boxes are in: what the XML says of its size, and what the image is.

use std::path::Path;

use super::{
    report::ConversionReport,
    xml::{Annotated, Object},
};
use crate::{
    boxes::Xywh,
    data::image_io::{self, Orientation},
    error::{Error, Result},
};

/// An object's box as COCO has it. VOC counts pixels from 1 and includes both ends.
pub(super) fn coco_box(object: &Object) -> Xywh {
    let [x0, y0, x1, y1] = object.corners;
    Xywh([x0 - 1.0, y0 - 1.0, x1 - x0 + 1.0, y1 - y0 + 1.0])
}

/// Width and height of the frame that the boxes are in. Cases where the XML and the image do not agree are
/// counted.
///
/// Some programs exchange width and height in the XML. They are also exchanged if somebody turned the image
/// later. If the boxes lie in the image as it is, and not in a turned one, it was the program. If they lie
/// in both, nothing tells. The image's own size is taken in both cases.
///
/// Otherwise the XML's size is kept. The image is then refused when it is read, and no training uses boxes
/// that are elsewhere. It is also kept if it is the size of the pixels as stored, and the boxes nearly lie
/// in it.
pub(super) fn frame(
    path: &Path,
    stem: &str,
    annotated: &Annotated,
    report: &mut ConversionReport,
) -> Result<(u32, u32)> {
    let in_xml = annotated.size;
    if in_xml.0 == 0 || in_xml.1 == 0 {
        report.sizes_from_images += 1;
        return header_size(path);
    }
    let size =
        |orientation| image_io::size(path, orientation).map(|[height, width]| (width, height));
    let Ok(own) = size(Orientation::Exif) else {
        report.unread_images.add(stem);
        return Ok(in_xml);
    };
    if own == in_xml {
        return Ok(in_xml);
    }
    // Boxes that end a little beyond are usual.
    let fits = |(width, height): (u32, u32), slack: f64| {
        let within = |object: &Object| {
            let Xywh([x, y, w, h]) = coco_box(object);
            let most = |side: u32| f64::from(side) + (f64::from(side) * slack).ceil();
            x + w <= most(width) && y + h <= most(height)
        };
        annotated.objects.iter().all(within)
    };
    let stored = size(Orientation::Stored).is_ok_and(|stored| stored == in_xml);
    if own == (in_xml.1, in_xml.0) && fits(own, 0.0) && !(stored && fits(in_xml, 0.05)) {
        let unclear = fits(in_xml, 0.0);
        let swapped = if unclear { &mut report.unclear_sizes } else { &mut report.swapped_sizes };
        swapped.add(stem);
        return Ok(own);
    }
    let kept = if stored { &mut report.stored_frames } else { &mut report.other_sizes };
    kept.add(stem);
    Ok(in_xml)
}

/// Width and height by the header of the image itself.
fn header_size(path: &Path) -> Result<(u32, u32)> {
    let [height, width] = image_io::size(path, Orientation::Exif).map_err(|e| {
        let problem = format!("the XML gives none, and the image's is unreadable: {e}");
        Error::invalid(path, "size", problem)
            .with_hint("write width and height into the XML, or replace the image")
    })?;
    Ok((width, height))
}

//! What is wrong with a place that no format fits because its files are empty, broken or cut short.

use super::{Place, coco, hints, members::members, openimages, voc};
use crate::{data::listing::PassedOver, error::Error};

/// The mistake, if there is one that shows.
pub(super) fn of(place: &Place) -> Option<Error> {
    if place.packed().is_some() {
        return None;
    }
    if place.is_tar() {
        let read = members(place.path(), usize::MAX, &mut PassedOver::default(), |_| Ok(()));
        if let Err(error) = read {
            return Some(error);
        }
    } else if let Some(mistake) = openimages::mistake(place) {
        return Some(mistake);
    } else if !place.is_folder() || hints::labels_alone(place).is_some() {
        return None;
    }
    coco::mistake(place).or_else(|| voc::mistake(place))
}

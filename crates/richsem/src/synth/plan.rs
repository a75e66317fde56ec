//! Which classes are asked of which image: the long tail of the training split, the balance of
//! the validation split.

use crate::random::Random;

/// Images that should show each class, by rank (0 = most frequent), such that LVIS's three groups
/// (more than 100 images, 11 to 100, at most 10) each get a third of the classes. A group that so
/// few images cannot hold leaves its classes to the next one down.
///
/// Counts fall geometrically within a group and keep away from its limits, because a crowded image
/// may lose an object that finds no place.
pub(super) fn long_tail(classes: usize, images: usize) -> Vec<usize> {
    let mut bands = Vec::with_capacity(3);
    if images >= 130 {
        bands.push(((images * 45 / 100).max(130), 113));
    }
    if images >= 24 {
        bands.push(((images * 60 / 100).min(85), 14));
    }
    bands.push((images.min(9), images.min(3)));
    let mut counts = Vec::with_capacity(classes);
    for (index, &(high, low)) in bands.iter().enumerate() {
        // The share of each group, the first ones one larger where it does not divide evenly.
        let size = (classes + bands.len() - 1 - index) / bands.len();
        let (high, low) = (high as f64, low as f64);
        counts.extend((0..size).map(|i| {
            let along = i as f64 / (size.max(2) - 1) as f64;
            (high * (low / high).powf(along)).round() as usize
        }));
    }
    counts
}

/// Lowers the largest counts to one common limit until all fit in `places`.
fn cap(targets: &[usize], places: usize) -> Vec<usize> {
    let mut limit = targets.iter().copied().max().unwrap_or(0);
    let capped = |limit: usize| targets.iter().map(|&t| t.min(limit)).collect::<Vec<_>>();
    while limit > 1 && capped(limit).iter().sum::<usize>() > places {
        limit = (limit * 19 / 20).min(limit - 1);
    }
    capped(limit)
}

/// The ranks asked of each image, rarest first. `places[i]` is how many objects image `i` gets;
/// each rank goes to `targets[rank]` different images where there is room, rarest first, and the
/// places left over are filled with second objects of a class already there, or with ranks drawn
/// by the weights `fill`.
pub(super) fn assign(
    random: &mut Random,
    places: &[usize],
    targets: &[usize],
    fill: &[usize],
) -> Vec<Vec<usize>> {
    let targets = cap(targets, places.iter().sum());
    let mut images: Vec<Vec<usize>> = vec![Vec::new(); places.len()];
    for (rank, &target) in targets.iter().enumerate().rev() {
        let mut free: Vec<usize> =
            (0..places.len()).filter(|&i| images[i].len() < places[i]).collect();
        random.shuffle(&mut free);
        for image in free.into_iter().take(target) {
            images[image].push(rank);
        }
    }
    let total: usize = fill.iter().sum();
    for (image, &places) in images.iter_mut().zip(places) {
        while image.len() < places {
            let rank = match random.pick(image) {
                Some(&present) if random.chance(0.35) => present,
                _ => {
                    let mut ticket = random.below(total);
                    fill.iter()
                        .position(|&weight| {
                            let drawn = ticket < weight;
                            ticket = ticket.saturating_sub(weight);
                            drawn
                        })
                        .unwrap_or(0)
                }
            };
            image.push(rank);
        }
    }
    images
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{random::Stream, vocabulary::Frequency};

    fn groups(classes: usize, images: usize) -> [usize; 3] {
        let counts = long_tail(classes, images);
        assert_eq!(counts.len(), classes);
        assert!(counts.iter().all(|&c| (1..=images).contains(&c)), "{counts:?}");
        assert!(counts.is_sorted_by(|a, b| a >= b), "{counts:?}");
        [Frequency::Frequent, Frequency::Common, Frequency::Rare]
            .map(|g| counts.iter().filter(|&&c| Frequency::of(c as u32) == g).count())
    }

    #[test]
    fn a_third_of_the_classes_falls_in_each_group_that_the_images_allow() {
        assert_eq!(groups(40, 1200), [14, 13, 13]);
        assert_eq!(groups(12, 300), [4, 4, 4]);
        assert_eq!(groups(12, 129), [0, 6, 6]);
        assert_eq!(groups(12, 20), [0, 0, 12]);
        assert_eq!(groups(3, 130), [1, 1, 1]);
        assert_eq!(groups(1, 1), [0, 0, 1]);
    }

    #[test]
    fn rare_classes_keep_their_images_when_places_are_short() {
        let mut random = Random::new(0, Stream::Test, 0, 0);
        let targets = long_tail(12, 300);
        let images = assign(&mut random, &[1; 300], &targets, &targets);
        let count = |rank| images.iter().filter(|i| i.contains(&rank)).count();
        for rank in 8..12 {
            assert!(count(rank) >= 3, "{rank}");
        }
        assert!(images.iter().all(|i| i.len() == 1));
    }

    #[test]
    fn filling_follows_the_weights_and_never_exceeds_the_places() {
        let mut random = Random::new(0, Stream::Test, 0, 1);
        let places: Vec<usize> = (0..100).map(|i| i % 5).collect();
        let images = assign(&mut random, &places, &[10, 5, 2], &[1, 0, 0]);
        for (image, places) in images.iter().zip(&places) {
            assert_eq!(image.len(), *places);
        }
        let count = |rank| images.iter().filter(|i| i.contains(&rank)).count();
        assert_eq!([count(1), count(2)], [5, 2], "a rank of weight 0 gains no image");
        assert!(count(0) > 10);
    }
}

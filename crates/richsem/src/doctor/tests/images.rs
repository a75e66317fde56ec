use image::imageops;

use super::{
    super::{
        look::{Look, MOST_BITS},
        neighbours::Index,
    },
    *,
};

#[test]
fn an_image_encoded_anew_resized_or_mirrored_looks_the_same() {
    let looks: Vec<Look> = (0..30).map(|key| Look::of(&painted(key, 120, 90))).collect();
    for (key, look) in (0..).zip(&looks) {
        let image = painted(key, 120, 90);
        let coded = image::load_from_memory(&jpeg(&image, 30)).unwrap().into_rgb8();
        let half = imageops::resize(&image, 60, 45, imageops::FilterType::Triangle);
        let stretched = imageops::resize(&image, 200, 200, imageops::FilterType::Triangle);
        for other in [coded, half, stretched] {
            let likeness = look.likeness(&Look::of(&other)).unwrap();
            assert!(!likeness.mirrored && likeness.correlation > 0.97, "{key} {likeness:?}");
        }
        let mirrored = Look::of(&imageops::flip_horizontal(&image));
        assert!(look.likeness(&mirrored).unwrap().mirrored);
        assert!((look.mirrored_hash() ^ mirrored.hash).count_ones() <= 4);
        for other in looks.iter().filter(|other| *other != look) {
            assert_eq!(look.likeness(other), None, "{key}");
        }
    }
}

#[test]
fn images_with_nothing_in_them_are_told_apart() {
    let plain = |value| RgbImage::from_pixel(50, 40, Rgb([value; 3]));
    for image in [plain(0), plain(130), plain(255), RgbImage::new(1, 1), RgbImage::new(0, 0)] {
        assert!(Look::of(&image).is_plain());
    }
    assert!(!Look::of(&painted(1, 40, 40)).is_plain());
    // An image smaller than the grid.
    assert!(!Look::of(&painted(2, 9, 7)).is_plain());
}

#[test]
fn near_hashes_are_those_that_comparing_all_finds() {
    let mut random = Random::new(0, Stream::Test, 79, 0);
    let mut hashes: Vec<u64> = (0..400).map(|_| random.bits()).collect();
    // Neighbours at every distance around the limit.
    for at in 0..400 {
        let mut near = hashes[at];
        for _ in 0..=random.below(2 * MOST_BITS as usize) {
            near ^= 1 << random.below(64);
        }
        hashes.push(near);
    }
    let index = Index::new(hashes.clone());
    let mut total = 0;
    for (at, hash) in (0..).zip(&hashes) {
        let mut found = Vec::new();
        index.near(*hash, at + 1, |place| found.push(place));
        found.sort_unstable();
        let near = |other: &u32| (hashes[*other as usize] ^ hash).count_ones() <= MOST_BITS;
        let wanted: Vec<u32> = (at + 1..hashes.len() as u32).filter(near).collect();
        assert_eq!(found, wanted, "each once, none missing");
        total += wanted.len();
    }
    assert!((100..400).contains(&total), "{total}");
}

#[test]
fn stopping_ends_it() {
    let folder = Folder::new();
    std::fs::write(folder.path("a.jpg"), jpeg(&painted(1, 100, 80), 90)).unwrap();
    let files = ["a.jpg".to_owned()];
    let set = folder.annotations("t.json", &files, &[(0, 1, [1.0, 1.0, 9.0, 9.0])], &[(1, "a")]);
    let store = folder.store();
    let parts = [Part::annotated(Role::Train, &set, Some(&store))];
    let stop = AtomicBool::new(true);
    let watch = Watch { stop: &stop, progress: &|_, _| {} };
    let ended = examine(&parts, None, &Options::default(), &watch);
    assert!(matches!(ended, Err(crate::Error::Stopped)));
    assert!(examine(&[], None, &Options::default(), &watch).is_err());
}

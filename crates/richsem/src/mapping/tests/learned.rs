use crate::{
    mapping::learned::{Seen, audit, combine},
    random::{Random, Stream},
};

const CLASSES: usize = 40;

/// A teacher that gives the right class a share of `right`, a similar one the half of that, and spreads the
/// rest; it sees class 0 everywhere.
fn seen(class: Option<usize>, images: usize, right: f64, random: &mut Random) -> Seen {
    let image = |random: &mut Random| {
        let mut p: Vec<f64> = (0..CLASSES).map(|_| (2.0 * random.normal()).exp()).collect();
        p[0] *= 4.0;
        let rest: f64 = p.iter().sum();
        let sure = class.map_or(0.0, |_| right * (0.5 + random.uniform()));
        p.iter_mut().for_each(|value| *value *= (1.0 - 1.5 * sure) / rest);
        if let Some(class) = class {
            p[class] += sure;
            p[(class + 1) % CLASSES] += sure / 2.0;
        }
        p.into_iter().map(|value| value as f32).collect::<Vec<f32>>()
    };
    let images: Vec<Vec<f32>> = (0..images).map(|_| image(random)).collect();
    Seen::of(images.iter().map(Vec::as_slice)).unwrap()
}

#[test]
fn a_mean_and_an_entropy_are_those_of_the_images() {
    let seen = Seen::of([[0.5f32, 0.5, 0.0].as_slice(), &[1.0, 0.0, 0.0]]).unwrap();
    assert_eq!((seen.images, seen.mean.clone()), (2, vec![0.75, 0.25, 0.0]));
    assert!((seen.entropy - 2f64.ln() / 2.0).abs() < 1e-12);
    assert!((seen.peak() - (3f64.ln() - 2f64.ln() / 4.0)).abs() < 1e-12);
    assert_eq!(Seen::of([[0.5f32, 0.5].as_slice(), &[1.0]]), None);
    assert_eq!(Seen::of([[f32::NAN, 0.5].as_slice()]), None);
    assert_eq!(Seen::of([[-0.5f32, 1.5].as_slice()]), None);
    assert_eq!(Seen::of([]), Some(Seen::default()));
}

#[test]
fn wrong_entries_are_found_and_right_ones_left() {
    let mut random = Random::new(3, Stream::Test, 16, 0);
    let all: Vec<Seen> = (0..CLASSES).map(|c| seen(Some(c), 50, 0.3, &mut random)).collect();
    let (mut wrong, mut found, mut right, mut alarms) = (0, 0, 0, 0);
    for round in 0..20 {
        let mut random = Random::new(round, Stream::Test, 16, 1);
        let mut map: Vec<Vec<usize>> = (0..CLASSES).map(|class| vec![class]).collect();
        let mut places: Vec<usize> = (0..CLASSES).collect();
        random.shuffle(&mut places);
        let corrupted = &places[..CLASSES / 5];
        for &place in corrupted {
            map[place] = vec![(place + 1 + random.below(CLASSES - 1)) % CLASSES];
        }
        let audit = audit(&map, &all).unwrap();
        assert!(audit.suspects.is_sorted_by(|a, b| a.score >= b.score));
        let hits = audit.suspects.iter().filter(|s| corrupted.contains(&s.from)).count();
        (wrong, right) = (wrong + corrupted.len(), right + CLASSES - corrupted.len());
        (found, alarms) = (found + hits, alarms + audit.suspects.len() - hits);
    }
    assert_eq!((wrong, right), (160, 640));
    assert!(found >= 144 && alarms <= 32, "{found} of {wrong} found, {alarms} of {right} alarms");
}

#[test]
fn images_decide_between_senses_and_say_that_there_is_none() {
    let mut random = Random::new(5, Stream::Test, 16, 2);
    let mut all: Vec<Seen> = (0..30).map(|c| seen(Some(c), 50, 0.3, &mut random)).collect();
    all.push(seen(None, 50, 0.3, &mut random));
    all.push(Seen::default());
    let prior: Vec<Vec<(usize, f64)>> = vec![vec![(5, 0.49), (6, 0.49)]; 32];
    let found = combine(&prior, &all).unwrap();
    assert_eq!(found[5].classes[0].0, 5);
    assert_eq!(found[6].classes[0].0, 6);
    assert!(found[5].classes[0].1 > 0.6 && found[5].none < 0.1, "{:?}", found[5]);
    let nothing = combine(&vec![vec![(5, 0.3)]; 32], &all).unwrap();
    assert!(nothing[30].none > 0.5, "{:?}", nothing[30]);
    // Without images, names alone count.
    assert_eq!(found[31].classes, [(5, 0.49), (6, 0.49)]);
    let sum: f64 = found[31].none + 0.98;
    assert!((sum - 1.0).abs() < 1e-9);
}

#[test]
fn classes_without_images_are_told_and_wrong_sizes_refused() {
    let seen = [Seen::of([[0.9f32, 0.1].as_slice()]).unwrap(), Seen::default()];
    let audited = audit(&[vec![0], vec![1]], &seen).unwrap();
    assert_eq!((audited.suspects.len(), audited.unseen), (0, vec![1]));
    assert!(audit(&[vec![0]], &seen).is_err());
    let message = audit(&[vec![2], vec![]], &seen).unwrap_err().to_string();
    assert!(message.contains("names class 2 of 2"), "{message}");
    let other = [seen[0].clone(), Seen::of([[1.0f32].as_slice()]).unwrap()];
    assert!(audit(&[vec![0], vec![0]], &other).is_err());
    assert!(combine(&[vec![(7, 0.5)], vec![]], &seen).is_err());
}

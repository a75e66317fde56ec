//! tinylvis's classification images, its teacher, and maps with mistakes.

use std::{ops::ControlFlow, sync::OnceLock};

use tch::Device;

use crate::{
    mapping::{
        learned::{Seen, audit, combine},
        look::{Looking, look, vocabulary},
        read::Names,
    },
    random::{Random, Stream},
    teacher::{self, TeacherConfig, TeacherText},
    testing::shared,
};

/// Images of each class: the test is to be quick.
const IMAGES: usize = 12;

struct Tiny {
    seen: Vec<Seen>,
    /// The true class of each folder, by wnid.
    truth: Vec<usize>,
}

/// Read once: the teacher takes most of the time.
fn tiny() -> Option<&'static Tiny> {
    static TINY: OnceLock<Option<Tiny>> = OnceLock::new();
    let read = || {
        let from = Names::read(&shared("tinylvis/classification.tar")?).unwrap();
        let to = Names::read(&shared("tinylvis/train.json")?).unwrap();
        let weights = shared("tinylvis/small_clip_rn.safetensors")?;
        let table = shared("lvis/lvis_v1_clip_a+cname.npy")?;
        let config = TeacherConfig::of(&weights, TeacherText::Table { table });
        let teacher = teacher::open(&config, &vocabulary(&to), Device::Cpu).unwrap();
        let how = Looking { device: Device::Cpu, size: 224, images: IMAGES };
        let looked = look(&from, &from.images().unwrap(), teacher.as_ref(), &how, &mut |_| {
            ControlFlow::Continue(())
        })
        .unwrap();
        assert_eq!(looked.unread, 0);
        let wnids: Vec<_> = to.classes().into_iter().map(|class| class.wnid.unwrap()).collect();
        let place = |id: &str| wnids.iter().position(|wnid| wnid == id).unwrap();
        let truth = from.classes().iter().map(|class| place(&class.id)).collect();
        Some(Tiny { seen: looked.seen, truth })
    };
    TINY.get_or_init(read).as_ref()
}

#[test]
fn most_mistakes_of_a_map_are_found_and_few_right_entries_doubted() {
    let Some(tiny) = tiny() else { return };
    let classes = tiny.truth.len();
    let (mut found, mut wrong, mut doubted, mut right, mut mended) = (0, 0, 0, 0, 0);
    for corruption in 0..20 {
        let mut random = Random::new(corruption, Stream::Test, 0, 0);
        let mut order: Vec<usize> = (0..classes).collect();
        random.shuffle(&mut order);
        let mut entries = tiny.truth.clone();
        for &at in &order[..classes / 5] {
            let other = random.below(classes - 1);
            entries[at] = if other < tiny.truth[at] { other } else { other + 1 };
        }
        let entries: Vec<Vec<usize>> = entries.into_iter().map(|to| vec![to]).collect();
        let suspects = audit(&entries, &tiny.seen).unwrap().suspects;
        for (at, entry) in entries.iter().enumerate() {
            let suspect = suspects.iter().find(|suspect| suspect.from == at);
            let is_wrong = entry[0] != tiny.truth[at];
            *(if is_wrong { &mut wrong } else { &mut right }) += 1;
            if let Some(suspect) = suspect {
                *(if is_wrong { &mut found } else { &mut doubted }) += 1;
                mended += usize::from(is_wrong && suspect.better == tiny.truth[at]);
            }
        }
    }
    println!("found {found} of {wrong} (mended {mended}), doubted {doubted} of {right}");
    assert!(found * 10 >= wrong * 9, "{found} of {wrong}");
    assert!(doubted * 20 <= right, "{doubted} of {right}");
    assert!(mended * 10 >= wrong * 9, "{mended} of {wrong}");
}

/// Names that fit two classes as well, and names that fit a class alone that is not the right one: the images
/// say which it is, or that it is none.
#[test]
fn images_decide_where_names_leave_it_open() {
    let Some(tiny) = tiny() else { return };
    let classes = tiny.truth.len();
    let (mut right, mut none) = (0, 0);
    for draw in 0..5 {
        let mut random = Random::new(draw, Stream::Test, 0, 1);
        let mut other = |truth: usize| {
            let other = random.below(classes - 1);
            if other < truth { other } else { other + 1 }
        };
        let others: Vec<usize> = tiny.truth.iter().map(|&truth| other(truth)).collect();
        let pairs = tiny.truth.iter().zip(&others);
        let open: Vec<_> =
            pairs.map(|(&truth, &other)| vec![(other, 0.45), (truth, 0.45)]).collect();
        let decided = combine(&open, &tiny.seen).unwrap();
        right +=
            decided.iter().zip(&tiny.truth).filter(|(p, truth)| p.classes[0].0 == **truth).count();
        // A vocabulary without the right class: what is left of the means still sums to 1.
        for (at, (&truth, &other)) in tiny.truth.iter().zip(&others).enumerate() {
            let mut seen = tiny.seen.clone();
            for seen in &mut seen {
                seen.mean[truth] = 0.0;
                let sum: f64 = seen.mean.iter().sum();
                seen.mean.iter_mut().for_each(|p| *p /= sum);
            }
            let mut priors = vec![Vec::new(); classes];
            priors[at] = vec![(other, 0.6)];
            let decided = combine(&priors, &seen).unwrap();
            none += usize::from(decided[at].classes[0].1 < 0.65);
        }
    }
    let all = 5 * classes;
    println!("of {all}: {right} decided rightly, {none} not mapped to a wrong class");
    assert!(right * 100 >= all * 95 && none * 100 >= all * 95, "{right}, {none} of {all}");
}

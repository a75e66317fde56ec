//! tinylvis's classification images, its teacher, and maps with mistakes.

use std::{ops::ControlFlow, sync::OnceLock};

use tch::Device;

use crate::{
    mapping::{
        Decision, Options,
        learned::{Seen, audit},
        look::{Looking, look, vocabulary},
        map,
        read::Names,
    },
    random::{Random, Stream},
    teacher::{self, TeacherConfig, TeacherText},
    testing::shared,
};

/// Images of each class: the test is to be quick.
const IMAGES: usize = 12;

struct Tiny {
    from: Names,
    to: Names,
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
        let looked =
            look(&from, teacher.as_ref(), &how, &mut |_| ControlFlow::Continue(())).unwrap();
        assert_eq!(looked.unread, 0);
        let wnids: Vec<_> = to.classes().into_iter().map(|class| class.wnid.unwrap()).collect();
        let place = |id: &str| wnids.iter().position(|wnid| wnid == id).unwrap();
        let truth = from.classes().iter().map(|class| place(&class.id)).collect();
        Some(Tiny { from, to, seen: looked.seen, truth })
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

/// The same folders under other names than LVIS's, and half of LVIS's classes taken away: the images say which
/// is which, and which has no counterpart.
#[test]
fn images_decide_where_names_say_nothing() {
    let Some(tiny) = tiny() else { return };
    let mut from = tiny.from.classes();
    for (at, class) in from.iter_mut().enumerate() {
        (class.id, class.name, class.wnid) = (format!("thing {at}"), format!("thing {at}"), None);
        class.synonyms.clear();
    }
    let to = tiny.to.classes();
    let options = Options::default();
    let mut mapping = map(&from, &to, &options);
    mapping.see(&tiny.seen, &options).unwrap();
    let (mut same, mut right) = (0, 0);
    for (class, truth) in mapping.classes.iter().zip(&tiny.truth) {
        if let Decision::Same(to) = class.decision {
            same += 1;
            right += usize::from(to == *truth);
        }
    }
    println!("mapped {same} of {}, {right} rightly", from.len());
    assert!(
        same * 2 >= from.len() && right * 10 >= same * 9,
        "{right} of {same} of {}",
        from.len()
    );
}

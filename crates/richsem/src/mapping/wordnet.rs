//! The nouns of WordNet 3.0: words, senses, kinds, glosses.
//!
//! A wnid, as ImageNet has it, is `n` and an offset of version 3.0; a synset name, as LVIS has it, is a
//! word and the number of its sense (`mouse.n.04`). The extract (`wordnet/nouns.gz`, 2 MB) is part of the
//! program; `scripts/wordnet.py` made it, and says how it is laid out. Its licence is
//! `wordnet/LICENSE`, and [`WordNet::licence`].

use std::{
    io::Read as _,
    sync::{LazyLock, OnceLock},
};

/// The extract, packed.
static PACKED: &[u8] = include_bytes!("wordnet/nouns.gz");

/// A meaning: a set of words that share it. A number of this extract, in the order of offsets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Synset(u32);

/// One sense of a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Sense {
    word: &'static str,
    /// 1 is the most usual one.
    number: u16,
    synset: Synset,
}

/// The nouns of WordNet 3.0. There is one ([`WordNet::get`]), unpacked when it is first asked for.
#[derive(Debug)]
pub struct WordNet {
    licence: &'static str,
    offsets: Vec<u32>,
    /// Numbers of lexicographer files.
    files: Vec<u8>,
    hypernyms: Vec<Vec<Synset>>,
    instances: Vec<bool>,
    wholes: Vec<Vec<Synset>>,
    words: Vec<Vec<&'static str>>,
    glosses: Vec<&'static str>,
    /// Sorted.
    senses: Vec<Sense>,
    /// Plural and singular, sorted.
    exceptions: Vec<(&'static str, &'static str)>,
}

/// Which kinds of things can be in an image, as classes of detectors are: animals, artifacts, body
/// parts, food, objects, people, plants, shapes, substances, and the roots of these (numbers of
/// lexicographer files).
const VISIBLE: [u8; 10] = [3, 5, 6, 8, 13, 17, 18, 20, 25, 27];

impl WordNet {
    /// The one that there is. Unpacking takes about a tenth of a second, once.
    #[must_use]
    pub fn get() -> &'static Self {
        static WORDNET: LazyLock<WordNet> = LazyLock::new(|| {
            WordNet::unpack().expect("a test unpacks the extract that is part of the program")
        });
        &WORDNET
    }

    fn unpack() -> Option<Self> {
        static TEXT: OnceLock<String> = OnceLock::new();
        let mut text = String::new();
        flate2::read::GzDecoder::new(PACKED).read_to_string(&mut text).ok()?;
        let mut parts = TEXT.get_or_init(|| text).split('\u{1e}');
        let licence = parts.next()?;
        let mut offset = 0;
        let offsets = parts.next()?.split('\n').map(|step| {
            offset += step.parse::<u32>().ok()?;
            Some(offset)
        });
        let offsets = offsets.collect::<Option<Vec<u32>>>()?;
        let files = parts.next()?.split('\n').map(|n| n.parse().ok()).collect::<Option<_>>()?;
        let above = parts.next()?;
        let hypernyms = above.split('\n').map(numbers).collect::<Option<_>>()?;
        let instances = above.split('\n').map(|line| line.starts_with('i')).collect();
        let wholes = parts.next()?.split('\n').map(numbers).collect::<Option<_>>()?;
        let (mut words, mut senses) = (Vec::with_capacity(offsets.len()), Vec::new());
        for (synset, line) in (0..).map(Synset).zip(parts.next()?.split('\n')) {
            let of_line = line.split(' ').map(|word| {
                let (word, number) = word.split_once('#').unwrap_or((word, "1"));
                senses.push(Sense { word, number: number.parse().ok()?, synset });
                Some(word)
            });
            words.push(of_line.collect::<Option<Vec<&str>>>()?);
        }
        senses.sort_unstable();
        let glosses = parts.next()?.split('\n').collect();
        let pair = |line: &'static str| line.split_once(' ');
        let mut exceptions = parts.next()?.split('\n').map(pair).collect::<Option<Vec<_>>>()?;
        exceptions.sort_unstable();
        Some(Self {
            licence,
            offsets,
            files,
            hypernyms,
            instances,
            wholes,
            words,
            glosses,
            senses,
            exceptions,
        })
    }

    /// The licence of WordNet 3.0, which goes with every copy of the program.
    #[must_use]
    pub fn licence(&self) -> &'static str {
        self.licence
    }

    /// Number of synsets: 82,115.
    #[must_use]
    pub fn len(&self) -> usize {
        self.offsets.len()
    }

    /// Never: the extract is part of the program.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.offsets.is_empty()
    }

    /// The synset of a wnid, as `n02690373`.
    #[must_use]
    pub fn by_wnid(&self, wnid: &str) -> Option<Synset> {
        let digits = wnid
            .strip_prefix('n')
            .filter(|d| d.len() == 8 && d.bytes().all(|b| b.is_ascii_digit()))?;
        let offset = digits.parse().ok()?;
        self.offsets.binary_search(&offset).ok().map(|at| Synset(at as u32))
    }

    /// The synset of a name, as `mouse.n.04`.
    #[must_use]
    pub fn by_name(&self, name: &str) -> Option<Synset> {
        let (word, number) = name.rsplit_once(".n.")?;
        let number: u16 = number.parse().ok()?;
        let word = word.to_lowercase();
        self.senses_in(&word).iter().find(|sense| sense.number == number).map(|sense| sense.synset)
    }

    /// The senses of a word, the most usual one first. In lower case; between parts of a compound a
    /// space or `_`.
    pub fn senses(&self, word: &str) -> impl ExactSizeIterator<Item = Synset> + '_ {
        self.senses_in(&word.replace(' ', "_")).iter().map(|sense| sense.synset)
    }

    fn senses_in(&self, word: &str) -> &[Sense] {
        let first = self.senses.partition_point(|sense| sense.word < word);
        let rest = &self.senses[first..];
        &rest[..rest.partition_point(|sense| sense.word == word)]
    }

    /// Its id as ImageNet writes it, `n02690373`.
    #[must_use]
    pub fn wnid(&self, synset: Synset) -> String {
        format!("n{:08}", self.offsets[synset.0 as usize])
    }

    /// Its name as LVIS writes it: its first word and the number of that word's sense, `mouse.n.04`.
    #[must_use]
    pub fn name(&self, synset: Synset) -> String {
        let word = self.words(synset)[0];
        let of_word = self.senses_in(word).iter().find(|sense| sense.synset == synset);
        format!("{word}.n.{:02}", of_word.map_or(1, |sense| sense.number))
    }

    /// Its words, in lower case with `_` between parts; at least one.
    #[must_use]
    pub fn words(&self, synset: Synset) -> &[&'static str] {
        &self.words[synset.0 as usize]
    }

    /// What it means, without examples. Empty for what cannot be seen ([`Self::is_visible`]).
    #[must_use]
    pub fn gloss(&self, synset: Synset) -> &'static str {
        self.glosses[synset.0 as usize]
    }

    /// What it is a kind of (or an instance of), directly.
    #[must_use]
    pub fn hypernyms(&self, synset: Synset) -> &[Synset] {
        &self.hypernyms[synset.0 as usize]
    }

    /// What it is a part of, directly.
    #[must_use]
    pub fn wholes(&self, synset: Synset) -> &[Synset] {
        &self.wholes[synset.0 as usize]
    }

    /// Whether it is one certain thing or person, as a city, and no kind.
    #[must_use]
    pub fn is_instance(&self, synset: Synset) -> bool {
        self.instances[synset.0 as usize]
    }

    /// Whether it is a kind of thing that can be in an image: no act, feeling, time, group …
    #[must_use]
    pub fn is_visible(&self, synset: Synset) -> bool {
        !self.is_instance(synset) && VISIBLE.contains(&self.files[synset.0 as usize])
    }

    /// Steps up from a synset to one that it is a kind of; 0 if they are the same, none if it is no kind
    /// of it.
    #[must_use]
    pub fn steps_up(&self, from: Synset, to: Synset) -> Option<usize> {
        self.above(from).into_iter().find(|(synset, _)| *synset == to).map(|(_, steps)| steps)
    }

    /// A synset and all that it is a kind of, each with the fewest steps up to it, nearest first.
    #[must_use]
    pub fn above(&self, from: Synset) -> Vec<(Synset, usize)> {
        let mut found = vec![(from, 0)];
        let mut next = 0;
        while let Some(&(synset, steps)) = found.get(next) {
            next += 1;
            for &up in self.hypernyms(synset) {
                if !found.iter().any(|(known, _)| *known == up) {
                    found.push((up, steps + 1));
                }
            }
        }
        found
    }

    /// The singular of an irregular plural.
    pub(super) fn exception(&self, plural: &str) -> Option<&'static str> {
        let at = self.exceptions.binary_search_by_key(&plural, |(plural, _)| plural).ok()?;
        Some(self.exceptions[at].1)
    }
}

/// Numbers of synsets between commas; an `i` before one says that the line is of an instance.
fn numbers(line: &str) -> Option<Vec<Synset>> {
    let fields = line.split(',').filter(|field| !field.is_empty());
    fields.map(|field| field.trim_start_matches('i').parse().ok().map(Synset)).collect()
}

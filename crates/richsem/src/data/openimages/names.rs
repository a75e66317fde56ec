//! Texts that have numbers: images by their ids, classes by their MIDs.

use indexmap::IndexSet;

/// Texts in the order in which they were first met. The position of a text is its number, from 0.
///
/// Several files share one list, so that an image has the same number in all of them. To know which
/// classes a file has beyond a list of one's own, fill the list first: what is beyond its length was new.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Names(IndexSet<Box<str>>);

impl Names {
    /// An empty list.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The number of a text. It is added if it is new.
    pub fn add(&mut self, name: &str) -> u32 {
        let position = match self.0.get_index_of(name) {
            Some(position) => position,
            None => self.0.insert_full(name.into()).0,
        };
        // 2³² texts would be hundreds of gigabytes.
        position as u32
    }

    /// The number of a text, where it has one.
    #[must_use]
    pub fn position(&self, name: &str) -> Option<u32> {
        self.0.get_index_of(name).map(|position| position as u32)
    }

    /// The text of a number, where there is one.
    #[must_use]
    pub fn get(&self, position: u32) -> Option<&str> {
        self.0.get_index(position as usize).map(AsRef::as_ref)
    }

    /// All texts, by their numbers.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &str> {
        self.0.iter().map(AsRef::as_ref)
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Of each text, its rank in the order of the alphabet (of bytes). It does not depend on the order of
    /// the files, as the numbers do.
    #[must_use]
    pub fn ranks(&self) -> Vec<u32> {
        let mut order: Vec<u32> = (0..self.len() as u32).collect();
        order.sort_unstable_by_key(|&position| self.get(position));
        let mut ranks = vec![0; order.len()];
        for (rank, position) in (0..).zip(order) {
            ranks[position as usize] = rank;
        }
        ranks
    }
}

impl<'a> FromIterator<&'a str> for Names {
    fn from_iter<T: IntoIterator<Item = &'a str>>(texts: T) -> Self {
        Self(texts.into_iter().map(Into::into).collect())
    }
}

/// A record of a file whose rows name an image and a class.
pub(super) trait Numbered {
    /// The numbers of the image and of the class.
    fn numbers(&mut self) -> (&mut u32, &mut u32);
}

/// Records of one part of a file, with numbers of its own: parts are read at the same time.
#[derive(Debug)]
pub(super) struct Part<R, C> {
    images: Names,
    classes: Names,
    pub(super) records: Vec<R>,
    pub(super) counts: C,
    /// Image and class of the last record: those of the next one are often the same.
    last: (u32, u32),
}

impl<R: Numbered, C: Default> Part<R, C> {
    pub(super) fn new() -> Self {
        let (images, classes) = (Names::new(), Names::new());
        Self { images, classes, records: Vec::new(), counts: C::default(), last: (0, 0) }
    }

    pub(super) fn image(&mut self, name: &str) -> u32 {
        if self.images.get(self.last.0) != Some(name) {
            self.last.0 = self.images.add(name);
        }
        self.last.0
    }

    pub(super) fn class(&mut self, mid: &str) -> u32 {
        if self.classes.get(self.last.1) != Some(mid) {
            self.last.1 = self.classes.add(mid);
        }
        self.last.1
    }

    /// Puts the records behind `all`, with the numbers of `images` and `classes`.
    pub(super) fn append_to(
        mut self,
        all: &mut Vec<R>,
        images: &mut Names,
        classes: &mut Names,
    ) -> C {
        let image: Vec<u32> = self.images.iter().map(|name| images.add(name)).collect();
        let class: Vec<u32> = self.classes.iter().map(|mid| classes.add(mid)).collect();
        for record in &mut self.records {
            let (of_image, of_class) = record.numbers();
            (*of_image, *of_class) = (image[*of_image as usize], class[*of_class as usize]);
        }
        all.append(&mut self.records);
        self.counts
    }
}

//! Which class is a kind of which other.

use std::{collections::BTreeSet, path::Path};

use serde_json::{Map, Value};

use super::Names;
use crate::{
    error::{Error, Result, read_text},
    vocabulary::ClassIndex,
};

/// The hierarchy of OpenImages' classes, as `bbox_labels_600_hierarchy.json` and
/// `challenge-2019-label500-hierarchy.json` have it.
///
/// - The root is no class.
/// - `Part` says what belongs to what, not what is what: parts are no subclasses.
/// - A class can stand in several places. Its ancestors are those of all of them, as in the challenge's
///   evaluation (`oid_hierarchical_labels_expansion.py`): what stands below a class in one place is not
///   below it in another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hierarchy {
    root: String,
    classes: Names,
    /// Of each class, sorted by number.
    ancestors: Vec<BTreeSet<u32>>,
    descendants: Vec<BTreeSet<u32>>,
    parts: usize,
}

impl Hierarchy {
    /// Reads a file.
    ///
    /// # Errors
    /// A file that cannot be read, or is no hierarchy; a class that is an ancestor of itself.
    pub fn open(path: &Path) -> Result<Self> {
        let text = read_text(path)?;
        let root: Value = serde_json::from_str(&text)
            .map_err(|error| Error::invalid(path, "JSON", error.to_string()))?;
        let mut reader = Reader { path, found: Self::empty(), above: Vec::new() };
        let fields = reader.fields("top level", &root)?;
        reader.found.root = reader.label("top level", fields)?.to_owned();
        reader.children("", fields)?;
        if reader.found.classes.is_empty() {
            return Err(
                Error::invalid(path, "Subcategory", "there are no classes").with_hint(EXAMPLE)
            );
        }
        Ok(reader.found)
    }

    fn empty() -> Self {
        let (root, classes) = (String::new(), Names::new());
        Self { root, classes, ancestors: Vec::new(), descendants: Vec::new(), parts: 0 }
    }

    /// The MID of the root, which is no class.
    #[must_use]
    pub fn root(&self) -> &str {
        &self.root
    }

    /// The MIDs of all classes, in the order of the file.
    #[must_use]
    pub fn classes(&self) -> &Names {
        &self.classes
    }

    /// How many entries are parts of a class: no subclasses.
    #[must_use]
    pub fn parts(&self) -> usize {
        self.parts
    }

    /// What a class is a kind of, in the order of the file. None of a class that is not in the hierarchy.
    pub fn ancestors(&self, mid: &str) -> impl Iterator<Item = &str> {
        self.of(&self.ancestors, mid)
    }

    /// What is a kind of a class, in the order of the file. None of a class that is not in the hierarchy.
    pub fn descendants(&self, mid: &str) -> impl Iterator<Item = &str> {
        self.of(&self.descendants, mid)
    }

    /// A class and all that is below it, over any number of places.
    fn reached_from(&self, class: u32) -> BTreeSet<u32> {
        let (mut reached, mut next) = (BTreeSet::from([class]), vec![class]);
        while let Some(class) = next.pop() {
            let below = &self.descendants[class as usize];
            next.extend(below.iter().copied().filter(|&class| reached.insert(class)));
        }
        reached
    }

    fn of<'a>(&'a self, sets: &'a [BTreeSet<u32>], mid: &str) -> impl Iterator<Item = &'a str> {
        let set = self.classes.position(mid).map(|position| &sets[position as usize]);
        set.into_iter().flatten().filter_map(|&position| self.classes.get(position))
    }

    /// The same for a list of classes, by their positions in it.
    #[must_use]
    pub fn over(&self, classes: &Names) -> Relations {
        let positions = |set: &mut dyn Iterator<Item = &str>| {
            let mut found: Vec<u32> = set.filter_map(|mid| classes.position(mid)).collect();
            found.sort_unstable();
            found
        };
        let unknown = (0..).zip(classes.iter());
        let unknown = unknown.filter(|(_, mid)| self.classes.position(mid).is_none());
        Relations {
            ancestors: classes.iter().map(|mid| positions(&mut self.ancestors(mid))).collect(),
            descendants: classes.iter().map(|mid| positions(&mut self.descendants(mid))).collect(),
            outside: unknown.map(|(position, _)| position).collect(),
        }
    }
}

const EXAMPLE: &str = "such as {\"LabelName\": \"/m/0bl9f\", \"Subcategory\": [{\"LabelName\": \
                       \"/m/0jbk\", \"Subcategory\": […]}, …]}";

/// Walks down the tree.
struct Reader<'a> {
    path: &'a Path,
    found: Hierarchy,
    /// The classes above the one at hand.
    above: Vec<u32>,
}

impl Reader<'_> {
    fn children(&mut self, place: &str, fields: &Map<String, Value>) -> Result<()> {
        self.found.parts += match fields.get("Part") {
            Some(Value::Array(parts)) => parts.len(),
            _ => 0,
        };
        let list = format!("{place}Subcategory");
        let children = match fields.get("Subcategory") {
            None | Some(Value::Null) => return Ok(()),
            Some(Value::Array(children)) => children,
            Some(_) => return Err(self.wrong(&list, "expected a list")),
        };
        for (i, child) in children.iter().enumerate() {
            let place = format!("{list}[{i}]");
            let fields = self.fields(&place, child)?;
            let mid = self.label(&place, fields)?;
            let class = self.add(&place, mid)?;
            self.above.push(class);
            self.children(&format!("{place}."), fields)?;
            self.above.pop();
        }
        Ok(())
    }

    /// Adds a class below those above it.
    fn add(&mut self, place: &str, mid: &str) -> Result<u32> {
        let found = &mut self.found;
        let class = found.classes.add(mid);
        if class as usize == found.ancestors.len() {
            found.ancestors.push(BTreeSet::new());
            found.descendants.push(BTreeSet::new());
        }
        let below = found.reached_from(class);
        let cycle = self.above.iter().find(|above| below.contains(above));
        let cycle = cycle.and_then(|&above| found.classes.get(above));
        if let Some(above) = cycle {
            let problem = format!("`{mid}` is below `{above}` here, and above it elsewhere");
            return Err(self.wrong(&format!("{place}.LabelName"), problem));
        }
        for &above in &self.above {
            found.ancestors[class as usize].insert(above);
            found.descendants[above as usize].insert(class);
        }
        Ok(class)
    }

    fn fields<'v>(&self, place: &str, value: &'v Value) -> Result<&'v Map<String, Value>> {
        let wrong = || self.wrong(place, "expected an object");
        value.as_object().ok_or_else(wrong)
    }

    fn label<'v>(&self, place: &str, fields: &'v Map<String, Value>) -> Result<&'v str> {
        let label = fields.get("LabelName").and_then(Value::as_str).filter(|mid| !mid.is_empty());
        label.ok_or_else(|| self.wrong(place, "expected a `LabelName`, a MID as /m/01g317"))
    }

    fn wrong(&self, place: &str, problem: impl Into<String>) -> Error {
        Error::invalid(self.path, place, problem).with_hint(EXAMPLE)
    }
}

/// Which class is a kind of which other, by their positions in a list of classes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Relations {
    ancestors: Vec<Vec<u32>>,
    descendants: Vec<Vec<u32>>,
    outside: Vec<u32>,
}

/// What the labels of an image say, with the hierarchy. Positions of classes, sorted; no class is in two of
/// the lists.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Knowledge {
    /// Classes that are there: those annotated and their ancestors.
    pub present: Vec<u32>,
    /// Classes that are not there: those verified absent and their descendants.
    pub absent: Vec<u32>,
    /// Descendants of an annotated class: an `Animal` may be a `Dog`, nobody said. The loss must not count
    /// them as absent.
    pub unknown: Vec<u32>,
    /// Classes that the labels say are there and are not. They count as present, since somebody drew or saw
    /// them.
    pub contradictory: Vec<u32>,
}

impl Relations {
    /// Classes of which none is a kind of another.
    #[must_use]
    pub fn none(classes: usize) -> Self {
        let none = vec![Vec::new(); classes];
        Self { ancestors: none.clone(), descendants: none, outside: (0..classes as u32).collect() }
    }

    /// The same where the classes are in another order: `place` says where each is now.
    pub(in crate::data) fn moved(&self, place: &[ClassIndex]) -> Self {
        let moved = |classes: &[u32]| -> Vec<u32> {
            let places: BTreeSet<u32> =
                classes.iter().map(|&class| place[class as usize].0).collect();
            places.into_iter().collect()
        };
        let lists = |of: &[Vec<u32>]| {
            let mut lists = vec![Vec::new(); of.len()];
            for (list, place) in of.iter().zip(place) {
                lists[place.0 as usize] = moved(list);
            }
            lists
        };
        Self {
            ancestors: lists(&self.ancestors),
            descendants: lists(&self.descendants),
            outside: moved(&self.outside),
        }
    }

    /// How many classes there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ancestors.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ancestors.is_empty()
    }

    /// Classes of the list that the hierarchy does not have: they are related to none.
    #[must_use]
    pub fn outside(&self) -> &[u32] {
        &self.outside
    }

    /// What a class is a kind of, sorted. A box of the class is a box of all of them.
    #[must_use]
    pub fn ancestors(&self, class: u32) -> &[u32] {
        self.ancestors.get(class as usize).map_or(&[], Vec::as_slice)
    }

    /// What is a kind of a class, sorted. Of a box of the class nobody said whether it is one of these.
    #[must_use]
    pub fn descendants(&self, class: u32) -> &[u32] {
        self.descendants.get(class as usize).map_or(&[], Vec::as_slice)
    }

    /// What an image's labels say of all classes, for training, as UniDet does (arXiv 2102.13086): ancestors
    /// of what is there are there, descendants of it are unknown, descendants of what is absent are absent.
    /// `present` are the classes of its boxes and those verified present.
    #[must_use]
    pub fn expand(&self, present: &[u32], absent: &[u32]) -> Knowledge {
        let with = |classes: &[u32], more: &dyn Fn(u32) -> Vec<u32>| -> BTreeSet<u32> {
            classes.iter().flat_map(|&class| more(class)).chain(classes.iter().copied()).collect()
        };
        let below = |class| self.descendants(class).to_vec();
        let there = with(present, &|class| self.ancestors(class).to_vec());
        let not_there = with(absent, &below);
        let open = with(present, &below);
        let is_known = |class: &u32| there.contains(class) || not_there.contains(class);
        Knowledge {
            absent: not_there.difference(&there).copied().collect(),
            contradictory: not_there.intersection(&there).copied().collect(),
            unknown: open.iter().copied().filter(|class| !is_known(class)).collect(),
            present: there.iter().copied().collect(),
        }
    }
}

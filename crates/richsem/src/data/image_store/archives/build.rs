//! From archives to an index: all headers are read once, and what is known is written down on the way.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use super::{
    super::{
        Indexing, Progress,
        index::{BlocksWriter, Directory, Index, Span, merge},
    },
    Part,
    journal::Journal,
    keep::{self, Identity, Keeping},
    naming::{self, Inner, Naming},
    region::Region,
    state::State,
    tally::Tally,
    walk::{self, Found},
};
use crate::{Error, Result};

/// How often progress is told.
const TELL_EVERY: Duration = Duration::from_millis(200);

/// Names and places in the order they were found.
#[derive(Default)]
struct Pending {
    text: String,
    entries: Vec<(usize, usize, Span)>,
}

impl Pending {
    fn push(&mut self, name: &str, span: Span) {
        self.entries.push((self.text.len(), name.len(), span));
        self.text.push_str(name);
    }

    fn name(&self, &(start, length, _): &(usize, usize, Span)) -> &str {
        &self.text[start..start + length]
    }

    /// As blocks in order, and empty then. Of equal names the last counts; the others are counted.
    fn take(&mut self, tally: &mut Tally) -> Result<(Vec<u8>, Directory)> {
        let mut entries = std::mem::take(&mut self.entries);
        // Keeps the order of equal names.
        entries.sort_by(|a, b| self.name(a).cmp(self.name(b)));
        let mut writer = BlocksWriter::new(Vec::new(), 0);
        for (i, entry) in entries.iter().enumerate() {
            let name = self.name(entry);
            match entries.get(i + 1) {
                Some(next) if self.name(next) == name => tally.repeated(name),
                _ => writer.push(name, entry.2)?,
            }
        }
        self.text.clear();
        Ok(writer.finish()?)
    }
}

/// Indexes archives.
pub(super) struct Builder<'a> {
    parts: &'a [Part],
    identity: Identity,
    keeping: &'a Keeping,
    progress: Progress<'a>,
    state: State,
    pending: Pending,
    lists: Vec<Index>,
    journal: Option<Journal>,
    written: Instant,
    told: Instant,
}

impl<'a> Builder<'a> {
    /// Of archives, with a prefix of names each.
    ///
    /// # Errors
    /// An archive cannot be looked at.
    pub(super) fn new(
        parts: &'a [Part],
        keeping: &'a Keeping,
        progress: Progress<'a>,
    ) -> Result<Self> {
        let now = Instant::now();
        Ok(Self {
            parts,
            identity: Identity::of(parts.iter().map(|part| &*part.path))?,
            keeping,
            progress,
            state: State::default(),
            pending: Pending::default(),
            lists: Vec::new(),
            journal: None,
            written: now,
            told: now,
        })
    }

    /// The index that is kept, or else a new one, which is kept if it is large.
    ///
    /// # Errors
    /// An archive cannot be read, or is not whole; [`Error::Stopped`] if progress says so.
    pub(super) fn index(mut self) -> Result<(Index, Tally)> {
        for place in &self.keeping.places {
            if let Some(kept) = keep::read(place, &self.identity) {
                return Ok(kept);
            }
        }
        for place in &self.keeping.places {
            if place.with_extension(super::journal::EXTENSION).exists()
                && let Some((journal, Some(earlier))) = Journal::open(place, &self.identity)
            {
                self.journal = Some(journal);
                (self.state, self.lists) = (earlier.state, earlier.lists);
                break;
            }
        }
        let walked = self.walk_all();
        if matches!(walked, Err(Error::Stopped)) && self.state.tally.files >= self.keeping.from {
            self.write_down();
        }
        walked?;
        let now = Identity::of(self.parts.iter().map(|part| &*part.path))?;
        if now != self.identity {
            let path = &self.parts[0].path;
            return Err(Error::invalid(path, "tar archive", "changed while it was indexed")
                .with_hint("start again when it is complete"));
        }
        self.finish()
    }

    fn walk_all(&mut self) -> Result<()> {
        let parts = self.parts;
        while let Some(part) = parts.get(self.state.part) {
            let file = fs_err::File::open(&part.path)?;
            let end = file.metadata()?.len();
            let whole = Region { file: &file, path: &part.path, inner: None, start: 0, end };
            if self.state.inner.is_none() {
                walk::check(&whole)?;
                self.walk_outer(whole, part)?;
            }
            self.walk_inners(whole, part)?;
            let next = self.state.part + 1;
            let (tally, done) = (std::mem::take(&mut self.state.tally), self.state.done);
            self.state = State { part: next, before: tally.files, tally, done, ..State::default() };
        }
        Ok(())
    }

    /// The archive's own members; archives among them are for later.
    fn walk_outer(&mut self, whole: Region<'_>, part: &Part) -> Result<()> {
        let naming = Naming::of_part(part);
        let number = self.state.part as u32;
        let marked = walk::walk(whole, self.state.at.unwrap_or(0), |found, next| {
            self.state.at = Some(next);
            if let Found::File { name, offset, length } = found
                && naming::is_archive(whole, name, (offset, length))?
            {
                let inner = Inner { name: name.to_owned(), offset, length };
                self.state.inners.push(inner);
                return self.pause();
            }
            if let Found::File { name, length, .. } = &found {
                self.state.loose |= crate::data::listing::is_image(name);
                self.state.done += length + 512;
            }
            self.add(found, &naming, number)
        })?;
        self.state.tally.end_group();
        let name = part.path.file_name().unwrap_or_default().to_string_lossy();
        if !marked {
            self.state.tally.unmarked(&name);
        }
        if self.state.inners.is_empty() && self.state.tally.files == self.state.before {
            self.state.tally.empty(&name);
        }
        self.state.inner = Some(0);
        self.state.at = None;
        self.state.before = self.state.tally.files;
        Ok(())
    }

    fn walk_inners(&mut self, whole: Region<'_>, part: &Part) -> Result<()> {
        let root = naming::root(&self.state.inners, self.state.loose);
        let number = self.state.part as u32;
        while let Some(inner) = self.state.inner.and_then(|i| self.state.inners.get(i)).cloned() {
            let naming = Naming::of_inner(part, &inner, &root);
            let (start, end) = (inner.offset, inner.offset + inner.length);
            let region = Region { inner: Some(&inner.name), start, end, ..whole };
            let marked = walk::walk(region, self.state.at.unwrap_or(start), |found, next| {
                self.state.at = Some(next);
                if let Found::File { length, .. } = &found {
                    self.state.done += length + 512;
                }
                self.add(found, &naming, number)
            })?;
            self.state.tally.end_group();
            if !marked {
                self.state.tally.unmarked(&inner.name);
            }
            if self.state.tally.files == self.state.before {
                self.state.tally.empty(&inner.name);
            }
            self.state.before = self.state.tally.files;
            self.state.at = None;
            self.state.inner = self.state.inner.map(|i| i + 1);
        }
        Ok(())
    }

    fn add(&mut self, found: Found<'_>, naming: &Naming, part: u32) -> Result<()> {
        match found {
            Found::File { name, offset, length } => {
                let name = naming.name(name);
                self.state.tally.file(&name);
                self.pending.push(&name, Span { part, offset, length });
            }
            Found::Link { name, target } => match target {
                Some(target) => {
                    let link = (naming.name(name), naming.name(&target));
                    self.state.tally.links.push(link);
                }
                None => self.state.tally.broken.push(naming.name(name)),
            },
            Found::Other { kind, name } => self.state.tally.other(kind, &naming.name(name)),
        }
        self.pause()
    }

    /// Tells how far it is and writes down what is known, where the time for it has come.
    fn pause(&mut self) -> Result<()> {
        let now = Instant::now();
        if self.pending.entries.len() >= self.keeping.run
            || now.duration_since(self.written) >= self.keeping.every
        {
            self.write_down();
        }
        if now.duration_since(self.told) >= TELL_EVERY || self.keeping.every.is_zero() {
            self.told = now;
            let (of, files) = (self.identity.bytes(), self.state.tally.files);
            let bytes = self.state.done.min(of);
            if (self.progress)(Indexing { bytes, of, files }).is_break() {
                return Err(Error::Stopped);
            }
        }
        Ok(())
    }

    /// Moves what was found to disk. Where that is not possible it stays in memory.
    fn write_down(&mut self) {
        self.written = Instant::now();
        if self.journal.is_none() {
            let places = &self.keeping.places;
            let named = places.iter().find_map(|place| Journal::open(place, &self.identity));
            self.journal = named.map(|(journal, _)| journal).or_else(Journal::unnamed);
        }
        let mut tally = self.state.tally.clone();
        let Ok((blocks, directory)) = self.pending.take(&mut tally) else { return };
        self.state.tally = tally;
        let journal = self.journal.as_mut();
        let added = journal.map(|journal| journal.add(&self.state, &blocks, directory.clone()));
        self.lists.push(match added {
            Some(Ok(list)) => list,
            _ => Index::in_memory(blocks, directory, &self.parts[0].path),
        });
    }

    fn finish(mut self) -> Result<(Index, Tally)> {
        let large = !self.lists.is_empty() || self.state.tally.files >= self.keeping.from;
        let mut tally = std::mem::take(&mut self.state.tally);
        let (blocks, directory) = self.pending.take(&mut tally)?;
        let path = &self.parts[0].path;
        self.lists.push(Index::in_memory(blocks, directory, path));
        let links = resolve(&mut tally, &self.lists)?;
        self.lists.push(Index::of(links, path)?);
        let merged = |put: &mut dyn FnMut(&str, Span) -> Result<()>| {
            let mut tally = tally.clone();
            let lists = self.lists.iter().map(Index::blocks).collect();
            merge(lists, put, |name| tally.repeated(name))?;
            Ok(tally)
        };
        let places = if large { &self.keeping.places[..] } else { &[] };
        for place in places {
            // One that cannot be written costs the next run its time, and nothing else.
            if keep::write(place, &self.identity, merged).is_ok()
                && let Some(kept) = keep::read(place, &self.identity)
            {
                drop(self.lists);
                self.journal.into_iter().for_each(Journal::remove);
                return Ok(kept);
            }
        }
        let mut writer = BlocksWriter::new(Vec::new(), 0);
        let tally = merged(&mut |name, span| Ok(writer.push(name, span)?))?;
        let (blocks, directory) = writer.finish()?;
        self.journal.into_iter().for_each(Journal::remove);
        Ok((Index::in_memory(blocks, directory, path), tally))
    }
}

/// The links that lead to a file, perhaps by way of other links, with the file's place. Others are noted
/// as broken.
fn resolve(tally: &mut Tally, lists: &[Index]) -> Result<Vec<(String, Span)>> {
    let mut links = std::mem::take(&mut tally.links);
    let mut resolved: BTreeMap<String, Span> = BTreeMap::new();
    loop {
        let (mut more, mut left) = (Vec::new(), Vec::new());
        for (name, target) in links {
            let mut span = resolved.get(&target).copied();
            for list in lists.iter().rev() {
                if span.is_none() {
                    span = list.find(&target)?;
                }
            }
            match span {
                Some(span) => more.push((name, span)),
                None => left.push((name, target)),
            }
        }
        links = left;
        if more.is_empty() {
            break;
        }
        resolved.extend(more);
    }
    tally.broken.extend(links.into_iter().map(|(name, _)| name));
    tally.broken.sort_unstable();
    tally.broken.dedup();
    Ok(resolved.into_iter().collect())
}

//! A YAML file as a tree that knows its lines.
//!
//! Every scalar stays the text that it is: a class called `yes`, `1.0` or `null` keeps its name. Tags say
//! nothing here. What is wrong with the syntax, the parser says.

use std::path::Path;

use saphyr_parser::{Event, Parser, ScalarStyle};

use crate::error::{Error, Result};

/// Most values of a file, those that aliases repeat included: a few lines of aliases of aliases can mean
/// billions.
const MOST: usize = 1 << 18;

/// Deepest nesting that is read.
const DEEPEST: usize = 64;

/// A value, and the line on which it begins.
#[derive(Debug, Clone)]
pub(super) struct Node {
    /// From 1.
    pub(super) line: usize,
    pub(super) value: Value,
}

#[derive(Debug, Clone)]
pub(super) enum Value {
    /// A text, number or whatever else has no parts. `plain`: without quotes.
    Scalar {
        text: String,
        plain: bool,
    },
    List(Vec<Node>),
    /// In the order of the file; a key may come twice.
    Map(Vec<(Node, Node)>),
}

impl Node {
    /// The text of a scalar, without the spaces around it.
    pub(super) fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Scalar { text, .. } => Some(text.trim()),
            _ => None,
        }
    }

    /// The text of a scalar as it is written: quotes keep the spaces around it.
    pub(super) fn written(&self) -> Option<&str> {
        match &self.value {
            Value::Scalar { text, .. } => Some(text),
            _ => None,
        }
    }

    /// Whether it is left empty.
    pub(super) fn is_null(&self) -> bool {
        match &self.value {
            Value::Scalar { text, plain } => {
                *plain && matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL")
            }
            _ => false,
        }
    }

    /// What it is, for a message.
    pub(super) fn describe(&self) -> String {
        match &self.value {
            _ if self.is_null() => "nothing".to_owned(),
            Value::Scalar { text, .. } => {
                format!("`{}`", text.chars().take(40).collect::<String>().escape_debug())
            }
            Value::List(items) => format!("a list of {}", items.len()),
            Value::Map(entries) => format!("a mapping of {} keys", entries.len()),
        }
    }

    /// Number of values in it, itself included, and how deep they are nested.
    fn measure(&self) -> (usize, usize) {
        let parts: Vec<&Self> = match &self.value {
            Value::Scalar { .. } => Vec::new(),
            Value::List(items) => items.iter().collect(),
            Value::Map(entries) => entries.iter().flat_map(|(key, value)| [key, value]).collect(),
        };
        let of = parts.into_iter().map(Self::measure);
        of.fold((1, 1), |(size, depth), (s, d)| (size + s, depth.max(d + 1)))
    }
}

/// Reads a text of one document.
///
/// # Errors
/// A syntax error, several documents, more values or nesting than such a file has.
pub(super) fn parse(file: &Path, text: &str) -> Result<Node> {
    let mut builder = Builder { file, open: Vec::new(), root: None, anchors: Vec::new(), count: 0 };
    let mut parser = Parser::new_from_str(text.strip_prefix('\u{feff}').unwrap_or(text));
    while let Some(event) = parser.next_event() {
        let (event, span) = event.map_err(|error| {
            let place = error.marker();
            builder
                .invalid(place.line(), format!("{}, at column {}", error.info(), place.col() + 1))
        })?;
        builder.add(event, span.start.line())?;
    }
    let root = builder.root.take();
    root.ok_or_else(|| builder.invalid(1, "expected keys and values, got an empty file"))
}

/// A list or mapping whose end has not come yet.
struct Open {
    node: Node,
    anchor: usize,
    /// The key whose value comes next.
    key: Option<Node>,
}

struct Builder<'a> {
    file: &'a Path,
    open: Vec<Open>,
    root: Option<Node>,
    /// What anchors stand for, by their number.
    anchors: Vec<Option<Node>>,
    /// Values so far.
    count: usize,
}

impl Builder<'_> {
    fn add(&mut self, event: Event<'_>, line: usize) -> Result<()> {
        match event {
            Event::DocumentStart(_) if self.root.is_some() => {
                Err(self.invalid(line, "expected one document, got a second one"))
            }
            Event::Scalar(text, style, anchor, _) => {
                let plain = matches!(style, ScalarStyle::Plain);
                let value = Value::Scalar { text: text.into_owned(), plain };
                self.grow(line, 1, 1)?;
                self.put(Node { line, value }, anchor);
                Ok(())
            }
            Event::SequenceStart(anchor, _) => self.begin(line, Value::List(Vec::new()), anchor),
            Event::MappingStart(anchor, _) => self.begin(line, Value::Map(Vec::new()), anchor),
            Event::SequenceEnd | Event::MappingEnd => {
                if let Some(Open { node, anchor, .. }) = self.open.pop() {
                    self.put(node, anchor);
                }
                Ok(())
            }
            Event::Alias(anchor) => {
                let Some(Some(node)) = self.anchors.get(anchor) else {
                    return Err(self.invalid(line, "an alias of what is not complete"));
                };
                let (size, depth) = node.measure();
                let node = Node { line, value: node.value.clone() };
                self.grow(line, size, depth)?;
                self.put(node, 0);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Counts values that come, nested so deep.
    fn grow(&mut self, line: usize, size: usize, depth: usize) -> Result<()> {
        self.count += size;
        if self.count > MOST {
            return Err(self.invalid(line, format!("more than {MOST} values")));
        }
        if self.open.len() + depth > DEEPEST {
            return Err(self.invalid(line, format!("nested more than {DEEPEST} deep")));
        }
        Ok(())
    }

    fn begin(&mut self, line: usize, value: Value, anchor: usize) -> Result<()> {
        self.grow(line, 1, 1)?;
        self.open.push(Open { node: Node { line, value }, anchor, key: None });
        Ok(())
    }

    /// Puts a whole value where it belongs.
    fn put(&mut self, node: Node, anchor: usize) {
        if anchor > 0 {
            if self.anchors.len() <= anchor {
                self.anchors.resize(anchor + 1, None);
            }
            self.anchors[anchor] = Some(node.clone());
        }
        match self.open.last_mut() {
            None => self.root = Some(node),
            Some(Open { node: Node { value: Value::List(items), .. }, .. }) => items.push(node),
            Some(Open { node: Node { value: Value::Map(entries), .. }, key, .. }) => {
                match key.take() {
                    Some(key) => entries.push((key, node)),
                    None => *key = Some(node),
                }
            }
            Some(_) => {}
        }
    }

    fn invalid(&self, line: usize, problem: impl Into<String>) -> Error {
        Error::invalid(self.file, format!("line {line}"), problem)
            .with_hint("expected YAML, as `train: images/train`; is the file whole?")
    }
}

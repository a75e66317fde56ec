//! The report of a conversion: what becomes of every tensor.

/// What becomes of one tensor, or of one parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// Taken under the same name, with all values.
    Taken,
    /// Taken under another name or in part; the text says how.
    TakenAs(String),
    /// One more name of a tensor that is taken; the text is the first name.
    Again(String),
    /// Left out; the text says why.
    Left(String),
    /// Not in the input; the text says what it is made from.
    Made(String),
    /// Does not fit, which was allowed: it starts anew or is left out; the text says why.
    Allowed(String),
    /// Does not fit, and nothing is written; the text says how.
    Problem(String),
}

impl Fate {
    /// A few words for a table. Tensors of different reasons have different titles.
    #[must_use]
    pub fn title(&self) -> String {
        match self {
            Self::Taken => "taken".into(),
            Self::TakenAs(_) => "taken, renamed or in part".into(),
            Self::Again(_) => "taken, one more name".into(),
            Self::Left(why) => format!("left out: {why}"),
            Self::Made(from) => format!("made: {from}"),
            Self::Allowed(_) => "allowed to differ".into(),
            Self::Problem(_) => "DOES NOT FIT".into(),
        }
    }

    /// What a list of tensors says beside the name.
    #[must_use]
    pub fn detail(&self) -> String {
        match self {
            Self::TakenAs(how) => format!("taken: {how}"),
            Self::Again(first) => format!("the same as {first}"),
            Self::Allowed(how) => format!("allowed: {how}"),
            Self::Problem(how) => format!("does not fit: {how}"),
            other => other.title(),
        }
    }
}

/// What the report says about one tensor.
#[derive(Debug, Clone)]
pub struct Line {
    /// The tensor's name in the input; of a tensor that is made or missing, its name in the output.
    pub name: String,
    /// 1 for a tensor. For a key beside the weights, the number of tensors below it.
    pub tensors: usize,
    /// The number of its values; 0 if they were not looked at.
    pub values: usize,
    /// What becomes of the tensor.
    pub fate: Fate,
}

impl Line {
    /// The part of the model that it belongs to.
    #[must_use]
    pub fn part(&self) -> &str {
        let name = self.name.as_str();
        let parts = [
            ("backbone.", "backbone"),
            ("class_embed.clip.", "CLIP"),
            ("transformer.enc_out_class_embed.clip.", "CLIP"),
            ("transformer.encoder.", "encoder"),
            ("transformer.decoder.layers.", "decoder"),
            ("transformer.decoder.norm.", "decoder"),
            ("transformer.decoder.ref_point_head.", "decoder"),
            ("transformer.decoder.bbox_embed.", "box head"),
            ("transformer.decoder.class_embed.", "class head"),
            ("transformer.enc_out_bbox_embed.", "box head"),
            ("transformer.enc_out_class_embed.", "class head"),
            ("transformer.resblocks.", "text encoder"),
            ("transformer.", "queries and proposals"),
            ("bbox_embed.", "box head"),
            ("class_embed.", "class head"),
            ("text_table", "text table"),
            ("input_proj.", "input_proj"),
        ];
        let known = parts.iter().find(|(prefix, _)| name.starts_with(prefix)).map(|(_, p)| *p);
        known.unwrap_or_else(|| name.split('.').next().unwrap_or(name))
    }
}

/// What a conversion does with every tensor.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// What the input is, in words: "a checkpoint of DINO".
    pub input: String,
    /// What the output is, in words.
    pub output: String,
    /// Every tensor of the input, and every one of the output that does not come from there.
    pub lines: Vec<Line>,
    /// What else a user should know, a sentence each.
    pub notes: Vec<String>,
}

impl Report {
    pub(super) fn new(input: String, output: impl Into<String>) -> Self {
        Self { input, output: output.into(), ..Self::default() }
    }

    pub(super) fn add(&mut self, name: impl Into<String>, values: usize, fate: Fate) {
        self.lines.push(Line { name: name.into(), tensors: 1, values, fate });
    }

    /// What a file has beside its weights.
    pub(super) fn add_beside(&mut self, beside: &[(String, usize)]) {
        self.lines.extend(beside.iter().map(|(key, tensors)| Line {
            name: key.clone(),
            tensors: *tensors,
            values: 0,
            fate: Fate::Left("beside the weights".into()),
        }));
    }

    /// Tensors that do not fit.
    pub fn problems(&self) -> impl Iterator<Item = &Line> {
        self.lines.iter().filter(|line| matches!(line.fate, Fate::Problem(_)))
    }

    /// Rows of a table, in order of appearance: part, title of the fate, number of tensors, number of values.
    #[must_use]
    pub fn summary(&self) -> Vec<(String, String, usize, usize)> {
        let mut rows: Vec<(String, String, usize, usize)> = Vec::new();
        for line in &self.lines {
            let (part, title) = (line.part().to_owned(), line.fate.title());
            match rows.iter_mut().find(|row| row.0 == part && row.1 == title) {
                Some(row) => {
                    row.2 += line.tensors;
                    row.3 += line.values;
                }
                None => rows.push((part, title, line.tensors, line.values)),
            }
        }
        rows
    }
}

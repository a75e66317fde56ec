//! A detector as one piece: the model, the classes it is asked for, and how images are prepared.
//! Evaluation, prediction and export take this and nothing else.

use std::{cell::RefCell, collections::BTreeMap, path::Path};

use serde::{Deserialize, Serialize};
use tch::{Device, Tensor};

use crate::{
    checkpoint_io::{
        checked_text_table, not_ours,
        prefix::{self, Known},
        read_text_table, safetensors,
    },
    config::{ClassHeadConfig, Config},
    data::batch::Batch,
    error::{Error, Result, guarded},
    models::{
        class_head::{ClassSpace, TextTable},
        dino::{Dino, InferenceOutput, Input},
        padding::Padding,
        parameters::ParameterStore,
        postprocess::{ScoredBox, postprocess},
    },
    recordings::{
        At, Recordings, Size,
        buckets::{BATCHES_EACH, Plan},
    },
    stored_batch::StoredBatch,
    vocabulary::Vocabulary,
};

/// Key of this program's record in a weights file.
pub(crate) const METADATA: &str = "richsem";
/// Where that record is, for messages.
const RECORD: &str = "__metadata__.richsem";
/// What a wrong record means.
const ANOTHER: &str = "another release wrote these weights, or the file was changed: load them \
                       with the release that trained them";
/// Tensor that holds the text table in a weights file.
pub(crate) const TEXT_TABLE: &str = "text_table";

/// What a weights file says about itself.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    /// The run's settings, as TOML.
    config: String,
    /// The classes, in order.
    vocabulary: Vocabulary,
}

impl Record {
    fn of(metadata: &safetensors::Metadata, path: &Path) -> Result<Self> {
        let record = metadata.get(METADATA).ok_or_else(|| not_ours(path))?;
        let record: Self = serde_json::from_str(record)
            .map_err(|e| Error::invalid(path, RECORD, e.to_string()).with_hint(ANOTHER))?;
        if record.vocabulary.is_empty() {
            let problem = "no classes: nothing to detect";
            return Err(
                Error::invalid(path, format!("{RECORD}.vocabulary"), problem).with_hint(ANOTHER)
            );
        }
        Ok(record)
    }

    fn config(&self, path: &Path) -> Result<Config> {
        Config::parse_saved(&self.config, path).map_err(|error| match error {
            Error::Invalid { file, field, problem, .. } => {
                Error::invalid(&file, format!("{RECORD}.config: {field}"), problem)
                    .with_hint(ANOTHER)
            }
            other => other,
        })
    }
}

/// What makes a network less.
pub(crate) const SMALLER_NETWORK: &str =
    "lower the sizes in model.dino: backbone, hidden_dim, dim_feedforward, enc_layers, dec_layers";

/// A detector with its vocabulary.
#[derive(Debug)]
pub struct Detector {
    /// All parameters and buffers.
    pub store: ParameterStore,
    /// The network.
    pub model: Dino,
    /// The classes it is asked for.
    pub vocabulary: Vocabulary,
    /// Their embeddings, if the class head compares with text.
    pub text: Option<TextTable>,
    /// Settings of its run; `model`, `data.resize` and `eval` matter here.
    pub config: Config,
    recordings: RefCell<Recordings>,
}

impl Detector {
    /// With initial weights. `given` is a text table from elsewhere, with its logit scale: that of
    /// the teacher, where the settings name no file.
    ///
    /// # Errors
    /// Settings that contradict each other, a text table that is missing or cannot be read.
    pub fn new(
        config: &Config,
        vocabulary: Vocabulary,
        device: Device,
        given: Option<(&TextTable, f64)>,
    ) -> Result<Self> {
        let mut scale = None;
        let text = match (&config.model.class_head, given) {
            (ClassHeadConfig::Linear {}, _) => None,
            (ClassHeadConfig::Text { table: Some(table) }, _) => {
                Some(read_text_table(table, &vocabulary)?)
            }
            (ClassHeadConfig::Text { table: None }, Some((text, logit_scale))) => {
                scale = Some(logit_scale);
                Some(TextTable::new(&text.rows))
            }
            (ClassHeadConfig::Text { table: None }, None) => {
                let problem = "missing: the class head compares with text, and there is none";
                return Err(Error::config("model.class_head.table", problem)
                    .with_hint("give a table, or a [teacher] whose text it takes"));
            }
        };
        let store = ParameterStore::new(device, config.seed);
        let detector = Self::with_text(config, vocabulary, text, store)?;
        if let Some(scale) = scale {
            detector.model.set_logit_scale(scale);
        }
        Ok(detector)
    }

    /// With that text table, and the weights that the store starts with.
    pub(crate) fn with_text(
        config: &Config,
        vocabulary: Vocabulary,
        text: Option<TextTable>,
        store: ParameterStore,
    ) -> Result<Self> {
        let device = store.device();
        if vocabulary.is_empty() {
            return Err(Error::Other("the vocabulary has no classes: nothing to detect".into()));
        }
        let space = match &text {
            Some(table) => ClassSpace::Text(table.dim()),
            None => ClassSpace::Classes(vocabulary.len() as i64),
        };
        let model = guarded(|| Dino::new(&store, &config.model.dino, space)).map_err(|error| {
            error.for_work(|| "the weights of the network".to_owned(), SMALLER_NETWORK)
        })?;
        let text = text.map(|t| TextTable::new(&t.rows.to_device(device)));
        let mut config = config.clone();
        // Its file says it, whatever the default is by then.
        config.model.dino.padding = Some(config.model.dino.padding());
        let recordings = RefCell::new(Recordings::of(&config, device));
        Ok(Self { store, model, vocabulary, text, config, recordings })
    }

    /// From a weights file that this program wrote.
    ///
    /// # Errors
    /// A file of another program, another version, or with missing or misshapen tensors.
    pub fn load(path: &Path, device: Device) -> Result<Self> {
        let (tensors, metadata) = safetensors::read(path)?;
        let record = Record::of(&metadata, path)?;
        // Another program may have put a prefix before all names.
        let tensors = prefix::without_wrappers(tensors, path)?;
        let mut tensors = prefix::find(tensors, &[Known::Detector], path)?.tensors;
        let config = record.config(path)?;
        let text = match (&config.model.class_head, tensors.remove(TEXT_TABLE)) {
            (ClassHeadConfig::Linear {}, _) => None,
            (ClassHeadConfig::Text { .. }, Some(rows)) => {
                Some(checked_text_table(&rows, &record.vocabulary, path)?)
            }
            (ClassHeadConfig::Text { .. }, None) => {
                return Err(Error::invalid(path, TEXT_TABLE, "missing: the class head needs it"));
            }
        };
        let store = ParameterStore::to_be_loaded(device);
        let detector = Self::with_text(&config, record.vocabulary, text, store)?;
        detector.store.load(&tensors, path)?;
        Ok(detector)
    }

    /// The settings and classes that a weights file of this program names.
    pub(crate) fn said_by(
        metadata: &safetensors::Metadata,
        path: &Path,
    ) -> Result<(Config, Vocabulary)> {
        let record = Record::of(metadata, path)?;
        Ok((record.config(path)?, record.vocabulary))
    }

    /// Writes all that inference needs into one file, which names none of this machine's.
    ///
    /// # Errors
    /// An unwritable folder or a full disk.
    pub fn save(&self, path: &Path) -> Result<()> {
        let mut tensors: BTreeMap<String, Tensor> = self.store.named_tensors();
        if let Some(text) = &self.text {
            tensors.insert(TEXT_TABLE.into(), text.rows.shallow_clone());
        }
        let config = self.config.without_paths().to_toml();
        let record = Record { config, vocabulary: self.vocabulary.clone() };
        let record = serde_json::to_string(&record)
            .map_err(|e| Error::Other(format!("{}: {e}", path.display())))?;
        let metadata = [("format".to_owned(), "pt".to_owned()), (METADATA.to_owned(), record)];
        safetensors::write(path, &tensors, &metadata.into())
    }

    /// Where the weights are.
    #[must_use]
    pub fn device(&self) -> Device {
        self.store.device()
    }

    /// Logits and boxes of a batch, in the precision of the run.
    ///
    /// # Errors
    /// What libtorch refuses.
    pub fn infer(&self, batch: &Batch) -> Result<InferenceOutput> {
        let found = guarded(|| {
            let few_tokens = self.few_tokens(batch.targets.iter().map(|target| target.size));
            let of = [batch.len() as i64, few_tokens.into()];
            let mut recordings = self.recordings.borrow_mut();
            let at = recordings.at(&of, batch.size());
            let size = at.size(batch.size());
            let normalization = self.config.model.normalization();
            let (images, mask) = batch.normalize_to(self.device(), &normalization, size)?;
            if let At::New(_) = at {
                self.record(&mut recordings, &of, size, [&images, &mask])?;
            }
            if at != At::Own
                && let Some(replay) = recordings.replay(&of, size, &[&images, &mask])?
            {
                // They are the recording's.
                let result = |i: usize| -> Result<Tensor> {
                    let mut own = replay.results()[i].f_empty_like()?;
                    own.f_copy_(&replay.results()[i])?;
                    Ok(own)
                };
                return Ok(InferenceOutput { pred_logits: result(0)?, pred_boxes: result(1)? });
            }
            self.infer_normalized(&Input { few_tokens, ..Input::new(&images, &mask) })
        });
        found.map_err(|error| {
            error.for_work(
                || format!("detection in {}", batch.describe()),
                "lower eval.batch_size or data.resize, or set train.precision = \"bf16\"",
            )
        })
    }

    /// Has passes for batches of these shapes, `[images, height, width]`, recorded at few sizes, each when a
    /// batch first needs it: see [`Plan`]. Nothing where nothing is recorded, where padding would change
    /// results, and where there are too few batches to be worth it.
    pub(crate) fn plan_recordings(&self, shapes: &[[i64; 3]]) {
        let masked = self.config.model.dino.padding() == Padding::Masked;
        if masked && shapes.len() >= BATCHES_EACH {
            let mut recordings = self.recordings.borrow_mut();
            for (images, size) in Plan::new(shapes).sizes {
                let few_tokens = self.few_tokens([size.map(|side| side as u32)]);
                recordings.plan(&[images, few_tokens.into()], size);
            }
        }
    }

    fn record(
        &self,
        recordings: &mut Recordings,
        of: &[i64],
        size: Size,
        inputs: [&Tensor; 2],
    ) -> Result<()> {
        let few_tokens = of[1] != 0;
        if recordings.is_empty() {
            // Kernels are loaded and constants made by a pass that is not recorded.
            self.infer_normalized(&Input { few_tokens, ..Input::new(inputs[0], inputs[1]) })?;
        }
        recordings.record(of, size, &inputs, &[], |places| {
            let input = Input { few_tokens, ..Input::new(&places[0], &places[1]) };
            let InferenceOutput { pred_logits, pred_boxes } = self.infer_normalized(&input)?;
            Ok(vec![pred_logits, pred_boxes])
        });
        Ok(())
    }

    /// Logits and boxes of a batch that was normalised elsewhere.
    ///
    /// # Errors
    /// Tokens that these images or this detector do not have; what libtorch refuses.
    pub fn infer_stored(&self, batch: &StoredBatch) -> Result<InferenceOutput> {
        let to = |x: &Tensor| x.f_to_device(self.device());
        let tokens = batch.tokens_for(&self.config.model.dino)?.map(to).transpose()?;
        let (images, mask) = (to(&batch.images)?, to(&batch.mask)?);
        let input = Input { tokens: tokens.as_ref(), ..Input::new(&images, &mask) };
        guarded(|| self.infer_normalized(&input))
    }

    /// See [`Input::few_tokens`]; `sizes` are `[height, width]` without padding.
    pub(crate) fn few_tokens(&self, sizes: impl IntoIterator<Item = [u32; 2]>) -> bool {
        self.config.model.dino.few_tokens(sizes)
    }

    fn infer_normalized(&self, input: &Input) -> Result<InferenceOutput> {
        let input = Input { text: self.text.as_ref(), ..*input };
        self.config.train.precision.run(self.device(), || self.model.infer(&input))
    }

    /// What happened to its recorded passes that a user should know, once.
    pub fn take_news(&self) -> Option<String> {
        self.recordings.borrow_mut().take_news()
    }

    /// Detections of a batch, by image, in pixels of the original images.
    ///
    /// # Errors
    /// What libtorch refuses.
    pub fn detect(&self, batch: &Batch) -> Result<Vec<Vec<ScoredBox>>> {
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        self.boxes(&self.infer(batch)?, batch)
    }

    /// Detections of what [`Self::infer`] gave for a batch, as [`Self::detect`].
    ///
    /// # Errors
    /// What libtorch refuses.
    pub fn boxes(&self, output: &InferenceOutput, batch: &Batch) -> Result<Vec<Vec<ScoredBox>>> {
        let sizes: Vec<[u32; 2]> = batch.targets.iter().map(|t| t.original_size).collect();
        guarded(|| postprocess(output, &sizes, self.config.eval.max_detections))
    }
}

//! A detector as one piece: the network, the classes it is asked for, and how images are prepared.
//! Evaluation, prediction and export take this and nothing else.

mod classes;
mod config;
mod images;

use std::{cell::RefCell, collections::BTreeMap, path::Path};

use serde::{Deserialize, Serialize};
use tch::{Device, Tensor};

pub use classes::ClassSet;
pub(crate) use config::MOVED;
pub use config::{DetectorConfig, EvalConfig};
pub use images::{Prediction, read_image, weights_in};

use crate::{
    checkpoint_io::{
        checked_text_table, not_ours,
        prefix::{self, Known},
        read_text_table, safetensors,
    },
    data::batch::Batch,
    error::{Error, Result, guarded},
    models::{
        class_head::{ClassSpace, TextTable},
        config::ClassHeadConfig,
        network::{Images, Network, NetworkOutput, PassForm},
        padding::Padding,
        parameters::{Parameter, ParameterStore},
        scored_box::ScoredBox,
    },
    precision::Precision,
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
    /// The detector's settings, as TOML.
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

    fn config(&self, path: &Path) -> Result<DetectorConfig> {
        DetectorConfig::parse(&self.config, path).map_err(|error| match error {
            Error::Invalid { file, field, problem, .. } => {
                Error::invalid(&file, format!("{RECORD}.config: {field}"), problem)
                    .with_hint(ANOTHER)
            }
            other => other,
        })
    }
}

/// A detector with its classes.
///
/// It belongs to one thread at a time: give each thread its own, or send one along.
#[derive(Debug)]
pub struct Detector {
    /// All parameters and buffers.
    store: ParameterStore,
    network: Network,
    classes: ClassSet,
    config: DetectorConfig,
    recordings: RefCell<Recordings>,
}

impl Detector {
    /// With initial weights, which `seed` decides. `given` is a text table from elsewhere, with its logit
    /// scale: that of the teacher, where the settings name no file.
    ///
    /// # Errors
    /// Settings that contradict each other, a text table that is missing or cannot be read.
    pub fn new(
        config: &DetectorConfig,
        vocabulary: Vocabulary,
        (device, seed): (Device, u64),
        given: Option<(&TextTable, f64)>,
    ) -> Result<Self> {
        let read;
        let mut scale = None;
        let text = match (&config.model.class_head, given) {
            (ClassHeadConfig::Linear {}, _) => None,
            (ClassHeadConfig::Text { table: Some(table) }, _) => {
                read = read_text_table(table, &vocabulary)?;
                Some(&read)
            }
            (ClassHeadConfig::Text { table: None }, Some((text, logit_scale))) => {
                scale = Some(logit_scale);
                Some(text)
            }
            (ClassHeadConfig::Text { table: None }, None) => {
                let problem = "missing: the class head compares with text, and there is none";
                return Err(Error::config("model.class_head.table", problem)
                    .with_hint("give a table, or a [teacher] whose text it takes"));
            }
        };
        let classes = ClassSet::new(vocabulary, text, device)?;
        let detector = Self::of(config, classes, ParameterStore::new(device, seed))?;
        if let Some(scale) = scale {
            detector.network.set_logit_scale(scale);
        }
        Ok(detector)
    }

    /// For these classes, with the weights that the store starts with.
    pub(crate) fn of(
        config: &DetectorConfig,
        classes: ClassSet,
        store: ParameterStore,
    ) -> Result<Self> {
        let space = match classes.text() {
            Some(table) => ClassSpace::Text(table.dim()),
            None => ClassSpace::Classes(classes.vocabulary().len() as i64),
        };
        let network = guarded(|| Network::new(&store, &config.model, space)).map_err(|error| {
            error.for_work(|| "the weights of the network".to_owned(), config.model.smaller())
        })?;
        let mut config = config.clone();
        // Its file says it, whatever the default is by then.
        config.model.set_padding(Some(config.model.padding()));
        let recordings = RefCell::new(config.recordings(store.device()));
        Ok(Self { store, network, classes, config, recordings })
    }

    /// The same detector with other tensors as its parameters, by name; what is not among them is shared. It
    /// follows their changes.
    pub(crate) fn over(&self, parameters: BTreeMap<String, Tensor>) -> Result<Self> {
        let mut tensors = self.store.named_tensors();
        tensors.extend(parameters);
        let store = ParameterStore::over(self.device(), tensors);
        Self::of(&self.config, self.classes.share(), store)
    }

    /// From a weights file that this program wrote.
    ///
    /// # Errors
    /// A file of another program, another version, or with missing or misshapen tensors.
    pub fn load(path: &Path, device: Device) -> Result<Self> {
        std::thread::scope(|scope| {
            scope.spawn(|| torch_ext::open_libraries(device));
            Self::read(path, device)
        })
    }

    fn read(path: &Path, device: Device) -> Result<Self> {
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
        let classes = guarded(|| ClassSet::new(record.vocabulary, text.as_ref(), device))?;
        let detector = Self::of(&config, classes, ParameterStore::to_be_loaded(device))?;
        detector.store.load(&tensors, path)?;
        Ok(detector)
    }

    /// The settings and classes that a weights file of this program names.
    pub(crate) fn named_in(
        metadata: &safetensors::Metadata,
        path: &Path,
    ) -> Result<(DetectorConfig, Vocabulary)> {
        let record = Record::of(metadata, path)?;
        Ok((record.config(path)?, record.vocabulary))
    }

    /// Writes all that inference needs into one file, which names none of this machine's.
    ///
    /// # Errors
    /// An unwritable folder or a full disk.
    pub fn save(&self, path: &Path) -> Result<()> {
        let mut tensors: BTreeMap<String, Tensor> = self.store.named_tensors();
        if let Some(text) = self.classes.text() {
            tensors.insert(TEXT_TABLE.into(), text.rows.shallow_clone());
        }
        let vocabulary = self.classes.vocabulary().clone();
        let record = Record { config: self.config.to_record(), vocabulary };
        let record = serde_json::to_string(&record)
            .map_err(|e| Error::other(format!("{}: {e}", path.display())))?;
        let metadata = [("format".to_owned(), "pt".to_owned()), (METADATA.to_owned(), record)];
        safetensors::write(path, &tensors, &metadata.into())
    }

    /// Where the weights are.
    #[must_use]
    pub fn device(&self) -> Device {
        self.store.device()
    }

    /// Its settings.
    #[must_use]
    pub fn config(&self) -> &DetectorConfig {
        &self.config
    }

    /// The network.
    #[must_use]
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// The classes that it is asked for.
    #[must_use]
    pub fn classes(&self) -> &ClassSet {
        &self.classes
    }

    /// The names of its classes.
    #[must_use]
    pub fn vocabulary(&self) -> &Vocabulary {
        self.classes.vocabulary()
    }

    /// Asks it for other classes from now on. Only one that compares with text can be asked for others than
    /// it was trained with.
    ///
    /// # Errors
    /// Classes without text embeddings for a detector that needs them, or with some of another width or on
    /// another device; other classes for a linear class head.
    pub fn set_classes(&mut self, classes: ClassSet) -> Result<()> {
        let width = |set: &ClassSet| set.text().map(TextTable::dim);
        let (own, given) = (width(&self.classes), width(&classes));
        if let Some(text) = classes.text()
            && text.rows.device() != self.device()
        {
            let (given, own) = (text.rows.device(), self.device());
            return Err(Error::other(format!(
                "other classes for a detector: their text embeddings are on {given:?}, it is on {own:?}"
            )));
        }
        if own != given {
            let describe = |width: Option<i64>| {
                width.map_or("no text embeddings".into(), |w| {
                    format!("text embeddings of width {w}")
                })
            };
            let problem = format!("expected {}, got {}", describe(own), describe(given));
            return Err(Error::other(format!("other classes for a detector: {problem}")));
        }
        if own.is_none() && classes.vocabulary() != self.vocabulary() {
            return Err(Error::other(
                "other classes for a detector with a linear class head: it knows those that it was \
                 trained with",
            ));
        }
        self.classes = classes;
        Ok(())
    }

    /// Computes in that precision from now on.
    pub fn set_precision(&mut self, precision: Precision) {
        if self.config.precision() != precision {
            self.config.eval.precision = Some(precision);
            // They were made in another.
            self.recordings = RefCell::new(self.config.recordings(self.device()));
        }
    }

    /// Its parameters and buffers by name. They share their memory with the network.
    #[must_use]
    pub fn weights(&self) -> BTreeMap<String, Tensor> {
        self.store.named_tensors()
    }

    /// As [`Self::weights`], with what each is.
    #[must_use]
    pub fn parameters(&self) -> Vec<Parameter> {
        self.store.parameters()
    }

    /// Number of values that training changes.
    #[must_use]
    pub fn trainable_count(&self) -> usize {
        self.store.trainable_count()
    }

    /// Takes other weights, by name. `what` says in messages where they are from.
    ///
    /// # Errors
    /// Every name that is missing, unexpected or of another shape, or a value that is not finite; nothing is
    /// changed then.
    pub fn load_weights(&mut self, values: &BTreeMap<String, Tensor>, what: &Path) -> Result<()> {
        // What was recorded may hold what was made of the former ones.
        self.recordings = RefCell::new(self.config.recordings(self.device()));
        self.store.load(values, what)
    }

    pub(crate) fn store(&self) -> &ParameterStore {
        &self.store
    }

    /// What the network makes of a batch.
    ///
    /// # Errors
    /// What libtorch refuses.
    pub fn infer(&self, batch: &Batch) -> Result<NetworkOutput> {
        let tensors = guarded(|| {
            let form = self.form(batch);
            let of = [batch.len() as i64, form.0, self.classes.id()];
            let mut recordings = self.recordings.borrow_mut();
            let at = recordings.at(&of, batch.size());
            let size = at.size(batch.size());
            let normalization = self.config.model.normalization();
            let (pixels, mask) = batch.normalize_to(self.device(), &normalization, size)?;
            let images = Images::new(&pixels, &mask);
            if let At::New(_) = at {
                self.record(&mut recordings, &of, size, images)?;
            }
            if at != At::Own
                && let Some(replay) = recordings.replay(&of, size, &[&pixels, &mask])?
            {
                // They are the recording's.
                let own = |result: &Tensor| -> Result<Tensor> {
                    let mut own = result.f_empty_like()?;
                    own.f_copy_(result)?;
                    Ok(own)
                };
                return replay.results().iter().map(own).collect();
            }
            self.pass(images, form, None)
        });
        let tensors = tensors.map_err(|error| {
            error.for_work(
                || format!("detection in {}", batch.describe()),
                "lower eval.batch_size or data.resize, or compute in bf16",
            )
        })?;
        Ok(self.named(tensors))
    }

    /// Which form of the pass a batch needs.
    pub(crate) fn form(&self, batch: &Batch) -> PassForm {
        self.network.form(batch.targets.iter().map(|target| target.size))
    }

    fn named(&self, tensors: Vec<Tensor>) -> NetworkOutput {
        let names = self.network.output_names().iter().copied();
        NetworkOutput { named: names.zip(tensors).collect() }
    }

    /// Has passes for batches of these shapes, `[images, height, width]`, recorded at few sizes, each when a
    /// batch first needs it: see [`Plan`]. Nothing where nothing is recorded, where padding would change
    /// results, and where there are too few batches to be worth it.
    pub(crate) fn plan_recordings(&self, shapes: &[[i64; 3]]) {
        let masked = self.config.model.padding() == Padding::Masked;
        if masked && shapes.len() >= BATCHES_EACH {
            let mut recordings = self.recordings.borrow_mut();
            for (images, size) in Plan::new(shapes).sizes {
                let form = self.network.form([size.map(|side| side as u32)]);
                recordings.plan(&[images, form.0, self.classes.id()], size);
            }
        }
    }

    fn record(
        &self,
        recordings: &mut Recordings,
        of: &[i64],
        size: Size,
        images: Images,
    ) -> Result<()> {
        let form = PassForm(of[1]);
        if recordings.is_empty() {
            // Kernels are loaded and constants made by a pass that is not recorded.
            self.pass(images, form, None)?;
        }
        recordings.record(of, size, &[images.pixels, images.mask], &[], |places| {
            self.pass(Images::new(&places[0], &places[1]), form, None)
        });
        Ok(())
    }

    /// What the network makes of a batch that was normalised elsewhere.
    ///
    /// # Errors
    /// Sides that are no multiples of what the backbone needs; proposals that these images or this detector do not
    /// have; what libtorch refuses.
    pub fn infer_stored(&self, batch: &StoredBatch) -> Result<NetworkOutput> {
        batch.check_sides(self.config.model.backbone().pad_multiple())?;
        batch.check_proposals(&self.network)?;
        let to = |x: &Tensor| x.f_to_device(self.device());
        let proposals = batch.tokens.as_ref().map(to).transpose()?;
        let (pixels, mask) = (to(&batch.images)?, to(&batch.mask)?);
        let images = Images::new(&pixels, &mask);
        // How large each image is, the mask alone says.
        let form = self.network.form_of_any_size();
        guarded(|| self.pass(images, form, proposals.as_ref())).map(|tensors| self.named(tensors))
    }

    fn pass(
        &self,
        images: Images,
        form: PassForm,
        proposals: Option<&Tensor>,
    ) -> Result<Vec<Tensor>> {
        self.config.precision().run(self.device(), || {
            self.network.infer_at(images, form, self.classes.text(), proposals)
        })
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
    pub fn boxes(&self, output: &NetworkOutput, batch: &Batch) -> Result<Vec<Vec<ScoredBox>>> {
        let sizes: Vec<[u32; 2]> = batch.targets.iter().map(|t| t.original_size).collect();
        guarded(|| self.network.boxes(output, &sizes, self.config.eval.max_detections))
    }
}

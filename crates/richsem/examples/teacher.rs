//! Trains with a teacher of one's own: here the mean colour of a box, compared with a colour for each class.
//! A teacher sees pixels and boxes, and says what it thinks of each class.
//!
//!     cargo run --release --example teacher -- configs/tiny.toml runs/mine

use richsem::{
    models::class_head::TextTable,
    prelude::*,
    random::{Random, Stream},
    teacher::TeacherConfig,
};
use tch::{Kind, Tensor};

/// Compares mean colours.
#[derive(Debug)]
struct Colours {
    /// `[C, 3]`: one for each class, in place of a text embedding.
    classes: TextTable,
}

impl Colours {
    fn open(
        _: &TeacherConfig,
        vocabulary: &Vocabulary,
        device: Device,
    ) -> Result<Box<dyn Teacher>> {
        let mut random = Random::new(0, Stream::Test, 0, 0);
        let rows: Vec<f32> = (0..3 * vocabulary.len()).map(|_| random.uniform() as f32).collect();
        let rows = Tensor::from_slice(&rows).view([-1, 3]).to_device(device);
        Ok(Box::new(Self { classes: TextTable::new(&rows) }))
    }
}

impl Teacher for Colours {
    fn encode(&self, images: &Tensor) -> Result<DenseMap> {
        Ok(DenseMap { features: images.f_avg_pool2d([8], [8], [0], true, true, None)?, stride: 8 })
    }

    fn label(&self, map: &DenseMap, boxes: &Tensor) -> Result<SoftLabels> {
        let scale = 1.0 / map.stride as f64;
        let cells = torch_ext::roi_align(&map.features, boxes, (1, 1), scale, 0, true)?;
        let colours = cells.f_flatten(1, -1)?.f_to_kind(Kind::Float)?;
        Ok(SoftLabels::new(&colours, self.text(), self.logit_scale()))
    }

    fn text(&self) -> &TextTable {
        &self.classes
    }

    fn logit_scale(&self) -> f64 {
        10f64.ln()
    }

    fn describe(&self) -> String {
        "a teacher that compares mean colours".to_owned()
    }
}

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [config, folder] = &arguments[..] else { anyhow::bail!("usage: teacher CONFIG RUN") };
    // The semantic branch learns from it.
    let more = ["teacher.activation=gelu", "semantic.weight=0.5"].map(str::to_owned);
    let config = Config::load(config.as_ref(), &more)?;
    let run = NewRun::claim(folder.as_ref())?;
    let worker = Worker::alone(DeviceChoice::Auto.resolve()?);
    let start = Start::new(config, run);
    let stop = AtomicBool::new(false);
    train_with_teacher(start, &worker, &Colours::open, &mut Silent, &stop)?;
    Ok(())
}

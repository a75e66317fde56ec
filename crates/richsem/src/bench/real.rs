//! Training steps on batches of as many sizes as a data set has: what a training does from its first step
//! on, without its images.

use std::{ops::ControlFlow, path::Path, sync::Arc, time::Instant};

use image::RgbImage;
use serde::Serialize;
use tch::Device;

use super::{Steps, target, vocabulary};
use crate::{
    collective::Single,
    config::Config,
    data::{
        batch::Batch,
        loader::{BatchSource, Loader},
        transforms::TransformConfig,
    },
    error::{Error, Result, read_text},
    random::{Random, Stream},
    train::{Learner, inputs},
};

/// What is measured: steps on images of these sizes, augmented as the settings say.
#[derive(Debug, Clone)]
pub struct RealSizes {
    /// Height and width in pixels, each as often as images have it.
    pub sizes: Vec<[u32; 2]>,
    /// Every other batch has images of this height and width instead: mosaics.
    pub mosaic: Option<u32>,
    /// Boxes an image, on average.
    pub boxes: usize,
    /// Classes.
    pub classes: usize,
    /// Steps.
    pub steps: usize,
}

impl RealSizes {
    /// Sizes from a file with a line `HEIGHT WIDTH COUNT` each; those that start with `#` are comments.
    ///
    /// # Errors
    /// A file that cannot be read, a line that is something else, no sizes.
    pub fn read(path: &Path) -> Result<Vec<[u32; 2]>> {
        let text = read_text(path)?;
        let mut sizes = Vec::new();
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let numbers: Option<Vec<u32>> =
                line.split_whitespace().map(|number| number.parse().ok()).collect();
            match numbers.as_deref() {
                Some(&[height, width, count])
                    if (1..=16_384).contains(&height)
                        && (1..=16_384).contains(&width)
                        && count <= 1_000_000 =>
                {
                    sizes.extend(vec![[height, width]; count as usize]);
                }
                _ => {
                    let problem =
                        format!("expected height, width (1 to 16384) and a count, got `{line}`");
                    return Err(Error::invalid(path, format!("line {}", number + 1), problem)
                        .with_hint("as `480 640 12`; benches/lvis_sizes.txt is such a file"));
                }
            }
        }
        if sizes.is_empty() {
            return Err(Error::invalid(path, "sizes", "expected at least one, got none")
                .with_hint("a line is height, width and how many images have that size"));
        }
        Ok(sizes)
    }
}

/// Some steps in a row.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct WindowTiming {
    /// The first of them, from 0.
    pub from: usize,
    /// The first behind them.
    pub to: usize,
    /// Images.
    pub images: usize,
    /// Seconds, all of them together.
    pub seconds: f64,
    /// Pixels of the batches, each padded to a multiple of `data.pad_multiple`.
    pub pixels: f64,
    /// Share of the steps that take more than twice the median time a pixel.
    pub slow: f64,
}

/// What was measured.
#[derive(Debug, Clone, Serialize)]
pub struct RealTiming {
    /// Seconds from here to the first step: the network made, passes recorded ahead.
    pub start_seconds: f64,
    /// What was recorded ahead.
    pub recorded: Option<String>,
    /// What became of the recordings.
    pub news: Vec<String>,
    /// The first 200 steps, those to 1,200, and what comes after.
    pub windows: Vec<WindowTiming>,
    /// Of each step: images, height, width and milliseconds.
    pub steps: Vec<(i64, i64, i64, f64)>,
    /// Most memory that libtorch held on the GPU, in MiB; `None` on the CPU.
    pub memory_mib: Option<f64>,
}

/// Where the windows begin.
const WINDOWS: [usize; 3] = [0, 200, 1200];

/// Trains on noise of these sizes.
///
/// # Errors
/// Settings that contradict each other, a device without enough memory.
pub fn run_real(config: &Config, work: &RealSizes, device: Device) -> Result<RealTiming> {
    let start = Instant::now();
    let source = Arc::new(Noise::new(config, work));
    let positions = 0..work.steps as u64;
    let workers = inputs::workers(config.data.workers);
    let mut loader =
        Loader::new(Arc::clone(&source) as _, positions.clone(), workers, config.data.prefetch)?;
    let vocabulary = vocabulary(work.classes);
    let mut learner = Learner::new(config, vocabulary, device, Arc::new(Single))?;
    let shapes: Vec<_> = positions.filter_map(|position| source.shape(position)).collect();
    let recorded = learner.record_ahead(&shapes, |_, _| ControlFlow::Continue(()))?;
    torch_ext::synchronize(device)?;
    let start_seconds = start.elapsed().as_secs_f64();
    let (mut steps, mut news) = (Vec::with_capacity(work.steps), Vec::new());
    let mut clock = Instant::now();
    if let Some(first) = loader.next() {
        let mut training = Steps::new(&mut learner, first?)?;
        for _ in 0..work.steps {
            let images = training.batch.len() as i64;
            let [height, width] = training.batch.size();
            training.next(|| loader.next().transpose())?;
            steps.push((images, height, width, clock.elapsed().as_secs_f64() * 1e3));
            clock = Instant::now();
            news.extend(training.learner.take_news());
        }
    }
    let ends = WINDOWS[1..].iter().copied().chain([usize::MAX]);
    let windows = WINDOWS.into_iter().zip(ends).filter_map(|(from, to)| window(&steps, from, to));
    let memory = torch_ext::memory(device);
    Ok(RealTiming {
        start_seconds,
        recorded,
        news,
        windows: windows.collect(),
        memory_mib: memory.map(|m| m.peak_reserved as f64 / f64::from(1 << 20)),
        steps,
    })
}

fn window(steps: &[(i64, i64, i64, f64)], from: usize, to: usize) -> Option<WindowTiming> {
    let to = to.min(steps.len());
    let steps = steps.get(from..to).filter(|steps| !steps.is_empty())?;
    let pixels =
        |&(images, height, width, _): &(i64, i64, i64, f64)| (images * height * width) as f64;
    let mut a_pixel: Vec<f64> = steps.iter().map(|step| step.3 / pixels(step)).collect();
    a_pixel.sort_by(f64::total_cmp);
    let median = a_pixel[a_pixel.len() / 2];
    let slow = a_pixel.iter().filter(|&&time| time > 2.0 * median).count();
    Some(WindowTiming {
        from,
        to,
        images: steps.iter().map(|step| step.0 as usize).sum(),
        seconds: steps.iter().map(|step| step.3).sum::<f64>() / 1e3,
        pixels: steps.iter().map(pixels).sum(),
        slow: slow as f64 / steps.len() as f64,
    })
}

/// Batches of noise: sizes are drawn and augmented, pixels are of one image.
struct Noise {
    sizes: Vec<[u32; 2]>,
    augment: TransformConfig,
    mosaic: Option<u32>,
    batch: usize,
    pad_multiple: u32,
    boxes: usize,
    classes: usize,
    /// Enough for the largest image.
    pixels: Vec<u8>,
}

impl Noise {
    fn new(config: &Config, work: &RealSizes) -> Self {
        let augment = config.data.augment.clone();
        // A shorter side that was rounded up makes the longer one a little more than `max_size`.
        let largest = work.mosaic.unwrap_or(0).max(augment.max_size.saturating_mul(2)) as usize;
        let mut random = Random::new(0, Stream::Test, 1, 0);
        Self {
            sizes: work.sizes.clone(),
            augment,
            mosaic: work.mosaic,
            batch: config.data.batch_size,
            pad_multiple: config.data.pad_multiple,
            boxes: work.boxes,
            classes: work.classes,
            pixels: (0..largest * largest * 3).map(|_| random.bits() as u8).collect(),
        }
    }

    /// Height and width of each image, and how many boxes it has.
    fn images(&self, position: u64) -> Vec<([u32; 2], usize)> {
        let image = |i: usize| {
            let mut random = Random::new(0, Stream::Test, position + 2, i as u64);
            if let Some(side) = self.mosaic.filter(|_| position % 2 == 1) {
                return ([side; 2], 4);
            }
            let [height, width] = self.sizes[random.below(self.sizes.len())];
            let (width, height) = self.augment.size((width, height), &mut random);
            ([height, width], random.between(0, 2 * self.boxes))
        };
        (0..self.batch).map(image).collect()
    }
}

impl BatchSource for Noise {
    fn build(&self, position: u64) -> Result<Batch> {
        let samples = self.images(position).into_iter().enumerate().map(|(i, (size, boxes))| {
            let [height, width] = size;
            let bytes = self.pixels[..(height * width * 3) as usize].to_vec();
            let image = RgbImage::from_raw(width, height, bytes)
                .expect("the buffer has three bytes a pixel");
            let mut random = Random::new(1, Stream::Test, position + 2, i as u64);
            (image, target(i as i64, size, (boxes, self.classes), &mut random))
        });
        Batch::collate(samples.collect(), Vec::new(), self.pad_multiple)
    }

    fn shape(&self, position: u64) -> Option<[i64; 3]> {
        let padded = |side: u32| i64::from(side.next_multiple_of(self.pad_multiple.max(1)));
        let images = self.images(position);
        let largest = |at: usize| images.iter().map(|(size, _)| size[at]).max().unwrap_or(0);
        Some([self.batch as i64, padded(largest(0)), padded(largest(1))])
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use fs_err as fs;

    use super::*;
    use crate::recordings::buckets::{buckets, excess};

    #[test]
    fn batches_are_of_the_sizes_that_were_told() {
        let config = Config::parse("version = 1", "test.toml".as_ref()).unwrap();
        let work = RealSizes {
            sizes: vec![[480, 640], [640, 427]],
            mosaic: Some(256),
            boxes: 3,
            classes: 5,
            steps: 0,
        };
        let source = Noise::new(&config, &work);
        let mut shapes = Vec::new();
        for position in 0..12 {
            let batch = source.build(position).unwrap();
            let [height, width] = batch.size();
            let shape = [batch.len() as i64, height, width];
            assert_eq!(source.shape(position), Some(shape));
            assert_eq!(shape == [2, 256, 256], position % 2 == 1);
            shapes.push(shape);
        }
        shapes.dedup();
        assert!(shapes.len() > 3, "{shapes:?}");
    }

    /// What benches/README.md says of them; `-- --nocapture` prints it.
    #[test]
    fn few_sizes_serve_batches_of_lvis() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../benches/lvis_sizes.txt");
        let config = Config::parse("version = 1", "test.toml".as_ref()).unwrap();
        let sizes = RealSizes::read(file.as_ref()).unwrap();
        assert_eq!(sizes.len(), 100);
        let work = RealSizes { sizes, mosaic: None, boxes: 10, classes: 5, steps: 0 };
        let source = Noise::new(&config, &work);
        let shapes = (0..2000).filter_map(|position| source.shape(position));
        let sizes: Vec<_> = shapes.map(|[_, height, width]| [height, width]).collect();
        let mut different = sizes.clone();
        different.sort_unstable();
        different.dedup();
        println!("{} batches of {} sizes", sizes.len(), different.len());
        for (most, limit) in [(8, 0.3), (16, 0.2), (24, 0.14), (32, 0.11), (64, 0.06), (128, 0.03)]
        {
            let more = excess(&buckets(&sizes, most), &sizes);
            println!("{most} sizes: {:.1} % more pixels", more * 100.0);
            assert!(more < limit, "{most}: {more}");
        }
    }

    #[test]
    fn windows_count_steps_that_take_long_for_their_pixels() {
        let mut steps = vec![(2, 100, 100, 10.0); 9];
        steps.push((2, 100, 200, 41.0));
        let all = window(&steps, 0, usize::MAX).unwrap();
        assert_eq!((all.from, all.to, all.images, all.slow), (0, 10, 20, 0.1));
        assert!((all.seconds - 0.131).abs() < 1e-12 && all.pixels == 220_000.0);
        assert!(window(&steps, 10, 20).is_none());
        assert_eq!(window(&steps, 0, 9).unwrap().slow, 0.0);
    }

    #[test]
    fn a_list_of_sizes_is_read_or_its_wrong_line_named() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("sizes.txt");
        fs::write(&file, "# of nothing\n\n 480 640 2\n427 640 1\n").unwrap();
        assert_eq!(RealSizes::read(&file).unwrap(), [[480, 640], [480, 640], [427, 640]]);
        for (text, expected) in
            [("480 640", "line 1"), ("# none", "at least one"), ("0 4 1", "line 1")]
        {
            fs::write(&file, text).unwrap();
            let error = RealSizes::read(&file).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}

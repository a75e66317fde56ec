//! Denoising queries from the official run's own random numbers.

use richsem::models::dino::denoising::{CopyNoise, DenoisingConfig, DenoisingQueries, may_attend};
use tch::{Device, Kind, Tensor};

use crate::support::*;

/// `number` counts positive queries, as `dn_number` does from 50 on. (Below, the official code takes
/// it for half the number of groups.)
#[test]
fn queries_follow_the_numbers_drawn() {
    for name in ["text", "linear"] {
        let (golden, facts) = (tensors(name), json::<Facts>(name));
        let config = DenoisingConfig { number: 50, ..DenoisingConfig::default() };
        let targets = targets(&golden, "");
        let numbers = |key: &str| {
            Vec::<f64>::try_from(golden[key].to_kind(Kind::Double).flatten(0, -1)).unwrap()
        };
        let (flip, label) = (numbers("noise.flip"), numbers("noise.label"));
        let (sign, part) = (numbers("noise.sign"), numbers("noise.part"));
        let total: usize = targets.iter().map(|t| t.boxes.len()).sum();
        let noise = |copy: richsem::models::dino::denoising::Copied| {
            // Copy by copy, in each the boxes of all images.
            let before = if copy.image == 0 { 0 } else { targets[0].boxes.len() };
            let negative = usize::from(copy.negative);
            let n = (2 * copy.group as usize + negative) * total + before + copy.target;
            let flips = |n: usize| flip[n] < config.label_noise / 2.0;
            let earlier = (0..n).filter(|&n| flips(n)).count();
            CopyNoise {
                label: flips(n).then(|| label[earlier] as i64),
                moves: std::array::from_fn(|k| {
                    (part[4 * n + k] + negative as f64) * (2.0 * sign[4 * n + k] - 1.0)
                }),
            }
        };
        let most = targets.iter().map(|t| t.boxes.len()).max().unwrap();
        let ours = DenoisingQueries::with_noise(&targets, &config, most, noise, Device::Cpu, |p| p);
        let ours = ours.unwrap();
        let wanted = facts.denoising(&golden, "", Kind::Float);
        assert_eq!(ours.layout, wanted.layout);
        assert_eq!(ours.labels, wanted.labels);
        assert_eq!(ours.used, wanted.used);
        // Boxes in f32 of [0, 1]; the inverse sigmoid of theirs loses three digits at its clamp.
        let boxes = |x: &Tensor| x.to_kind(Kind::Double).sigmoid();
        let official = &golden["noised.references"];
        close("boxes", &boxes(&ours.references), &boxes(official), 1e-6);
        close("references", &ours.references, official, 1e-5);
        let visible = may_attend(&ours.groups, 12);
        assert_eq!(visible.logical_not(), golden["noised.hidden"]);
    }
}

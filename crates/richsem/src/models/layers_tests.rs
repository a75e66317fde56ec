//! The layers, against their formulas in loops.

use super::*;
use crate::models::parameters::ParameterStore;
use crate::testing::normal;
use tch::Device;

/// softmax(Q Kᵀ / √d) V a head, in loops, from the packed projections.
#[test]
fn attention_follows_its_formula_and_its_mask() {
    let (q, d, heads) = (3usize, 4usize, 2usize);
    let store = ParameterStore::new(Device::Cpu, 7);
    let attention = MultiheadAttention::new(&store.root(), d as i64, heads as i64);
    let bias = Tensor::arange(3 * d as i64, (Kind::Float, Device::Cpu)) * 0.1;
    torch_ext::no_grad(|| attention.in_proj_bias.shallow_clone().copy_(&bias));
    let (qk, v) = (normal(1, &[1, 3, 4]), normal(2, &[1, 3, 4]));
    let sees = [[true, true, false], [true, true, true], [false, true, true]];
    let mask = Tensor::from_slice(&sees.concat()).view([3, 3]);
    let got = attention.forward(&qk, &v, Some(&mask));

    let project = |x: &Tensor, token: usize, row: usize| -> f64 {
        (0..d)
            .map(|k| {
                x.double_value(&[0, token as i64, k as i64])
                    * attention.in_proj_weight.double_value(&[row as i64, k as i64])
            })
            .sum::<f64>()
            + 0.1 * row as f64
    };
    let width = d / heads;
    let mut mixed = vec![vec![0.0; d]; q];
    for head in 0..heads {
        for i in 0..q {
            let scores: Vec<f64> = (0..q)
                .map(|j| {
                    let dot: f64 = (0..width)
                        .map(|k| head * width + k)
                        .map(|k| project(&qk, i, k) * project(&qk, j, d + k))
                        .sum();
                    if sees[i][j] { (dot / (width as f64).sqrt()).exp() } else { 0.0 }
                })
                .collect();
            let total: f64 = scores.iter().sum();
            for k in (0..width).map(|k| head * width + k) {
                mixed[i][k] = (0..q).map(|j| scores[j] / total * project(&v, j, 2 * d + k)).sum();
            }
        }
    }
    for (i, row) in mixed.iter().enumerate() {
        for o in 0..d {
            let weight = |k: usize| attention.out_proj.weight.double_value(&[o as i64, k as i64]);
            let expected: f64 = (0..d).map(|k| row[k] * weight(k)).sum();
            let got = got.double_value(&[0, i as i64, o as i64]);
            assert!((got - expected).abs() < 1e-5, "{i} {o}: {got} {expected}");
        }
    }
}

#[test]
fn inverse_sigmoid_clamps_both_ends() {
    let x = Tensor::from_slice(&[-1.0f64, 0.0, 0.0005, 0.3, 0.9999, 2.0]);
    let got = Vec::<f64>::try_from(inverse_sigmoid(&x)).unwrap();
    let end = (1e-3f64 / 1.0).ln();
    let expected =
        [end, end, (1e-3f64 / 0.9995).ln(), (0.3f64 / 0.7).ln(), (0.9999f64 / 1e-3).ln(), -end];
    for (got, expected) in got.iter().zip(expected) {
        assert!((got - expected).abs() < 1e-9, "{got} {expected}");
    }
}

#[test]
fn a_row_of_zeros_stays_zero_and_has_a_gradient() {
    let rows = normal(5, &[4, 6]);
    let plain = |x: &Tensor| x / x.norm_scalaropt_dim(2.0, [-1i64], true);
    // Rows that have a direction are the reference's to the last bit, gradients too.
    let gradient = |f: &dyn Fn(&Tensor) -> Tensor, x: &Tensor| {
        let x = x.detach().set_requires_grad(true);
        let y = f(&x);
        (&y * normal(6, &[4, 6])).sum(Kind::Float).backward();
        (y.detach(), x.grad())
    };
    assert_eq!(gradient(&l2_normalize, &rows), gradient(&plain, &rows));
    let _ = rows.get(2).zero_();
    let (y, grad) = gradient(&l2_normalize, &rows);
    assert_eq!(y.get(2).abs().max().double_value(&[]), 0.0);
    assert_eq!(grad.get(2), normal(6, &[4, 6]).get(2));
    let (of_plain, _) = gradient(&plain, &rows);
    assert_eq!(
        y.index_select(0, &Tensor::from_slice(&[0i64, 1, 3])),
        of_plain.index_select(0, &Tensor::from_slice(&[0i64, 1, 3]))
    );
    assert_eq!(grad.isfinite().all().int64_value(&[]), 1);
}

#[test]
fn a_box_head_starts_at_zero() {
    let store = ParameterStore::new(Device::Cpu, 7);
    let head = Mlp::box_head(&store.root(), 8);
    let x = normal(3, &[5, 8]);
    assert_eq!(head.forward(&x).abs().max().double_value(&[]), 0.0);
}

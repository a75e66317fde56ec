//! Means with Student's intervals.

use serde::Serialize;

/// A mean, and how certain it is.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Estimate {
    /// Number of values.
    pub n: usize,
    /// Mean of the values.
    pub mean: f64,
    /// Standard deviation of the values (n − 1). `None` for one value.
    pub sd: Option<f64>,
    /// Lower end of the 95 % t-interval of the mean; `None` for one value.
    pub low: Option<f64>,
    /// Upper end of the same interval; `None` for one value.
    pub high: Option<f64>,
}

impl Estimate {
    /// The estimate from these values; `None` if there are none.
    #[must_use]
    pub fn of(values: &[f64]) -> Option<Self> {
        let n = values.len();
        if n == 0 {
            return None;
        }
        let mean = values.iter().sum::<f64>() / n as f64;
        let squares: f64 = values.iter().map(|v| (v - mean).powi(2)).sum();
        let sd = (n > 1).then(|| (squares / (n - 1) as f64).sqrt());
        let half = sd.map(|sd| t_quantile(n - 1) * sd / (n as f64).sqrt());
        Some(Self { n, mean, sd, low: half.map(|h| mean - h), high: half.map(|h| mean + h) })
    }

    /// Half the width of the interval; `None` for one value.
    #[must_use]
    pub fn half_width(&self) -> Option<f64> {
        self.high.map(|high| high - self.mean)
    }
}

/// The bound that |t| of Student's distribution stays below with a probability of 95 %. `freedom`
/// is at least one.
pub(crate) fn t_quantile(freedom: usize) -> f64 {
    // Over the angle of `within`, which grows with it. 100 halvings are more than f64 tells apart.
    let (mut low, mut high) = (0.0, std::f64::consts::FRAC_PI_2);
    for _ in 0..100 {
        let middle = (low + high) / 2.0;
        *(if within(middle, freedom) < 0.95 { &mut low } else { &mut high }) = middle;
    }
    (freedom as f64).sqrt() * low.tan()
}

/// The probability that |t| ≤ √freedom · tan(angle): the finite sums of Abramowitz and Stegun,
/// Handbook of Mathematical Functions, 26.7.3 (odd) and 26.7.4 (even).
fn within(angle: f64, freedom: usize) -> f64 {
    let (sin, cos) = angle.sin_cos();
    let odd = freedom % 2 == 1;
    let mut term = if odd { cos } else { 1.0 };
    let mut sum = 0.0;
    // Odd: cos + 2/3 cos³ + 2·4/(3·5) cos⁵ …; even: 1 + 1/2 cos² + 1·3/(2·4) cos⁴ …
    for i in 0..freedom / 2 {
        sum += term;
        let (above, below) = if odd { (2 * i + 2, 2 * i + 3) } else { (2 * i + 1, 2 * i + 2) };
        term *= above as f64 / below as f64 * cos * cos;
    }
    if odd { std::f64::consts::FRAC_2_PI * (angle + sin * sum) } else { sin * sum }
}

// The losses of a set-prediction detector, one thread a pair. f32; compiled behind cuda/values.cuh.
//
// Rows, labels and classes are numbers of the device's memory, which the host has not seen: one out of
// range makes what it belongs to NaN, and nothing is read or written at its place.

constexpr float EPS = 1e-6f;

__device__ __forceinline__ float not_a_number() {
  return __uint_as_float(0x7fc00000u);
}

__device__ __forceinline__ bool below(long long index, int count) {
  return index >= 0 && index < count;
}

// -log sigmoid(x)
__device__ __forceinline__ float softplus_of_minus(float x) {
  return fmaxf(-x, 0.0f) + log1pf(expf(-fabsf(x)));
}

__device__ __forceinline__ float sigmoid(float x) {
  return 1.0f / (1.0f + expf(-x));
}

struct Corners {
  float x0, y0, x1, y1;

  __device__ __forceinline__ Corners(float4 box)
      : x0(box.x - 0.5f * box.z),
        y0(box.y - 0.5f * box.w),
        x1(box.x + 0.5f * box.z),
        y1(box.y + 0.5f * box.w) {}

  __device__ __forceinline__ float area() const {
    return (x1 - x0) * (y1 - y0);
  }
};

__device__ __forceinline__ float l1(float4 a, float4 b) {
  return fabsf(a.x - b.x) + fabsf(a.y - b.y) + fabsf(a.z - b.z) + fabsf(a.w - b.w);
}

// What GIoU is made of.
struct Overlap {
  // Of the intersection and of the hull, before they are cut off at zero.
  float width, height, hull_width, hull_height;
  float intersection, united, hull;

  __device__ __forceinline__ Overlap(const Corners& a, const Corners& b)
      : width(fminf(a.x1, b.x1) - fmaxf(a.x0, b.x0)),
        height(fminf(a.y1, b.y1) - fmaxf(a.y0, b.y0)),
        hull_width(fmaxf(a.x1, b.x1) - fminf(a.x0, b.x0)),
        hull_height(fmaxf(a.y1, b.y1) - fminf(a.y0, b.y0)),
        intersection(fmaxf(width, 0.0f) * fmaxf(height, 0.0f)),
        united(a.area() + b.area() - intersection),
        hull(fmaxf(hull_width, 0.0f) * fmaxf(hull_height, 0.0f)) {}

  __device__ __forceinline__ float giou() const {
    return intersection / (united + EPS) - (hull - united) / (hull + EPS);
  }
};

// logits [S, B, Q, C], boxes [S, B, Q, 4], labels [B, T], truth [B, T, 4], cost [S, B, T, Q]
extern "C" __global__ void __launch_bounds__(256) matching_cost(
    const float* __restrict__ logits,
    const float4* __restrict__ boxes,
    const long long* __restrict__ labels,
    const float4* __restrict__ truth,
    float* __restrict__ cost,
    int pairs,
    int images,
    int queries,
    int classes,
    int targets,
    float class_weight,
    float l1_weight,
    float giou_weight,
    float alpha) {
  const int at = blockIdx.x * 256 + threadIdx.x;
  if (at >= pairs) {
    return;
  }
  const int of_set = at / queries / targets;
  const int slot = of_set * queries + at % queries;
  const int target = of_set % images * targets + at / queries % targets;
  const long long label = labels[target];
  if (!below(label, classes)) {
    cost[at] = not_a_number();
    return;
  }
  const float p = sigmoid(logits[static_cast<size_t>(slot) * classes + label]);
  const float absent = 1.0f - p;
  const float negative = (1.0f - alpha) * p * p * -logf(absent + 1e-8f);
  const float positive = alpha * absent * absent * -logf(p + 1e-8f);
  const float4 a = boxes[slot], b = truth[target];
  cost[at] = class_weight * (positive - negative) + l1_weight * l1(a, b) -
      giou_weight * Overlap(Corners(a), Corners(b)).giou();
}

// boxes [R, 4], slots [N] rows of them, truth [N, 4], losses [2, N]: L1 and 1 - GIoU
extern "C" __global__ void __launch_bounds__(256) box_losses_forward(
    const float4* __restrict__ boxes,
    const long long* __restrict__ slots,
    const float4* __restrict__ truth,
    float* __restrict__ losses,
    int pairs,
    int rows) {
  const int at = blockIdx.x * 256 + threadIdx.x;
  if (at >= pairs) {
    return;
  }
  const long long slot = slots[at];
  if (!below(slot, rows)) {
    losses[at] = losses[static_cast<size_t>(pairs) + at] = not_a_number();
    return;
  }
  const float4 a = boxes[slot], b = truth[at];
  losses[at] = l1(a, b);
  losses[static_cast<size_t>(pairs) + at] = 1.0f - Overlap(Corners(a), Corners(b)).giou();
}

// The part of min(a, b)'s gradient that is a's; ties share, as libtorch's do.
__device__ __forceinline__ float of_min(float a, float b) {
  return a < b ? 1.0f : a == b ? 0.5f : 0.0f;
}

__device__ __forceinline__ float of_max(float a, float b) {
  return of_min(b, a);
}

__device__ __forceinline__ float sign(float x) {
  return x > 0.0f ? 1.0f : x < 0.0f ? -1.0f : 0.0f;
}

// grad [2, N]; adds to grad_boxes [R, 4], which is zero before.
extern "C" __global__ void __launch_bounds__(256) box_losses_backward(
    const float* __restrict__ grad,
    const float4* __restrict__ boxes,
    const long long* __restrict__ slots,
    const float4* __restrict__ truth,
    float* __restrict__ grad_boxes,
    int pairs,
    int rows) {
  const int at = blockIdx.x * 256 + threadIdx.x;
  if (at >= pairs) {
    return;
  }
  const long long slot = slots[at];
  if (!below(slot, rows)) {
    return;
  }
  const float4 box = boxes[slot], other = truth[at];
  const Corners a(box), b(other);
  const Overlap o(a, b);
  const float u = o.united + EPS, h = o.hull + EPS;
  // Of 1 - GIoU = 1 - I / u + (hull - united) / h; united = area(a) + area(b) - I.
  const float g = grad[static_cast<size_t>(pairs) + at];
  const float d_united = g * (o.intersection / (u * u) - 1.0f / h);
  const float d_intersection = -g / u - d_united;
  const float d_hull = g * (u / (h * h));
  const float d_width = o.width >= 0.0f ? d_intersection * fmaxf(o.height, 0.0f) : 0.0f;
  const float d_height = o.height >= 0.0f ? d_intersection * fmaxf(o.width, 0.0f) : 0.0f;
  const float d_hull_width = o.hull_width >= 0.0f ? d_hull * fmaxf(o.hull_height, 0.0f) : 0.0f;
  const float d_hull_height = o.hull_height >= 0.0f ? d_hull * fmaxf(o.hull_width, 0.0f) : 0.0f;
  const float area_width = d_united * (a.y1 - a.y0), area_height = d_united * (a.x1 - a.x0);
  const float d_x1 = d_width * of_min(a.x1, b.x1) + d_hull_width * of_max(a.x1, b.x1) + area_width;
  const float d_x0 = -d_width * of_max(a.x0, b.x0) - d_hull_width * of_min(a.x0, b.x0) - area_width;
  const float d_y1 =
      d_height * of_min(a.y1, b.y1) + d_hull_height * of_max(a.y1, b.y1) + area_height;
  const float d_y0 =
      -d_height * of_max(a.y0, b.y0) - d_hull_height * of_min(a.y0, b.y0) - area_height;
  const float f = grad[at];
  float* target = grad_boxes + slot * 4;
  // A query may answer for several boxes.
  atomicAdd(target, d_x0 + d_x1 + f * sign(box.x - other.x));
  atomicAdd(target + 1, d_y0 + d_y1 + f * sign(box.y - other.y));
  atomicAdd(target + 2, 0.5f * (d_x1 - d_x0) + f * sign(box.z - other.z));
  atomicAdd(target + 3, 0.5f * (d_y1 - d_y0) + f * sign(box.w - other.w));
}

// One term of the focal loss: where its logit lies, and what it is to be.
struct Term {
  bool inside;
  // Whether it has a logit: its class is a column.
  bool there;
  size_t logit;
  bool positive;
  float weight;

  // Blocks never span two sets. `within` counts the terms [B, Q, W] of a set.
  __device__ __forceinline__ Term(
      int set,
      int within,
      const long long* __restrict__ labels,
      const long long* __restrict__ classes,
      const float* __restrict__ known,
      int images,
      int queries,
      int count,
      int width) {
    inside = within < images * queries * width;
    if (!inside) {
      return;
    }
    const int slot = set * images * queries + within / width;
    const int column = within % width;
    const long long c = classes != nullptr ? classes[set * width + column] : column;
    const long long label = labels[slot];
    there = below(c, count);
    logit = static_cast<size_t>(slot) * count + c;
    positive = label == c;
    const int image = within / width / queries;
    if (!there || !(label == -1 || below(label, count))) {
      weight = not_a_number();
    } else {
      weight = known != nullptr && !positive ? known[static_cast<size_t>(image) * count + c] : 1.0f;
    }
  }
};

__device__ __forceinline__ float power(float base, float exponent) {
  return exponent == 2.0f ? base * base : powf(base, exponent);
}

// logits [S, B, Q, C]; labels [S, B, Q], -1 for none; classes [S, W] or null; known [B, C] or null;
// sums [S, blocks of a set].
extern "C" __global__ void __launch_bounds__(256) focal_forward(
    const float* __restrict__ logits,
    const long long* __restrict__ labels,
    const long long* __restrict__ classes,
    const float* __restrict__ known,
    float* __restrict__ sums,
    int blocks,
    int images,
    int queries,
    int count,
    int width,
    float alpha,
    float gamma) {
  const int set = blockIdx.x / blocks;
  const int within = blockIdx.x % blocks * 256 + threadIdx.x;
  const Term term(set, within, labels, classes, known, images, queries, count, width);
  float loss = 0.0f;
  if (term.inside) {
    const float x = term.there ? logits[term.logit] : 0.0f;
    const float p = sigmoid(x);
    loss = term.positive ? alpha * power(1.0f - p, gamma) * softplus_of_minus(x)
                         : (1.0f - alpha) * power(p, gamma) * softplus_of_minus(-x);
    loss *= term.weight;
  }
  __shared__ float warps[8];
#pragma unroll
  for (int step = 16; step > 0; step /= 2) {
    loss += __shfl_xor_sync(0xffffffffu, loss, step);
  }
  if (threadIdx.x % 32 == 0) {
    warps[threadIdx.x / 32] = loss;
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    float sum = 0.0f;
    for (int i = 0; i < 8; ++i) {
      sum += warps[i];
    }
    sums[blockIdx.x] = sum;
  }
}

// grad [S]; writes grad_logits [S, B, Q, C] at the chosen classes alone.
extern "C" __global__ void __launch_bounds__(256) focal_backward(
    const float* __restrict__ grad,
    const float* __restrict__ logits,
    const long long* __restrict__ labels,
    const long long* __restrict__ classes,
    const float* __restrict__ known,
    float* __restrict__ grad_logits,
    int blocks,
    int images,
    int queries,
    int count,
    int width,
    float alpha,
    float gamma) {
  const int set = blockIdx.x / blocks;
  const int within = blockIdx.x % blocks * 256 + threadIdx.x;
  const Term term(set, within, labels, classes, known, images, queries, count, width);
  if (!term.inside || !term.there) {
    return;
  }
  const float x = logits[term.logit];
  const float p = sigmoid(x), q = 1.0f - p;
  const float slope = term.positive
      ? -alpha * power(q, gamma) * (gamma * p * softplus_of_minus(x) + q)
      : (1.0f - alpha) * power(p, gamma) * (gamma * q * softplus_of_minus(-x) + p);
  grad_logits[term.logit] = grad[set] * term.weight * slope;
}

// Multi-scale deformable attention. `G` neighbouring threads share one (image, query, head) and
// hold `VEC`-wide chunks of its `D` features; a warp's loads of a pixel are whole lines.
//
// Compiled with D, L, P, VEC, G and REF as constants, behind cuda/values.cuh. REF says what the
// points are given as: 0, locations and weights; else offsets around a reference (2: a point, 4: a
// box), and logits of the weights.

// Chunks a thread holds.
constexpr int CHUNKS = (D + VEC * G - 1) / (VEC * G);

struct Levels {
  int height[L];
  int width[L];
  int start[L];
};

// Where the gradient of the values is added up: `copies` maps of each level, the first at `start`.
struct Sums {
  int copies[L];
  int start[L];
  int positions;
};

// The four pixels around a point: where their features start, and their bilinear coefficients.
struct Corners {
  bool inside[4];
  int offset[4];
  float coefficient[4];
  float x;
  float y;

  // `stride`: values from one pixel to the next. A point outside (or not a number) reads nothing.
  __device__ __forceinline__ Corners(float2 point, int height, int width, int stride) {
    x = point.x;
    y = point.y;
    if (!(x > -1.0f && y > -1.0f && x < width && y < height)) {
      x = -2.0f;
      y = -2.0f;
    }
    const float floor_x = floorf(x);
    const float floor_y = floorf(y);
    const int left = static_cast<int>(floor_x);
    const int top = static_cast<int>(floor_y);
    x -= floor_x;
    y -= floor_y;
    const bool in_left = left >= 0, in_right = left >= -1 && left + 1 < width;
    const bool in_top = top >= 0, in_bottom = top >= -1 && top + 1 < height;
    inside[0] = in_top && in_left;
    inside[1] = in_top && in_right;
    inside[2] = in_bottom && in_left;
    inside[3] = in_bottom && in_right;
    offset[0] = (top * width + left) * stride;
    offset[1] = offset[0] + stride;
    offset[2] = offset[0] + width * stride;
    offset[3] = offset[2] + stride;
    coefficient[0] = (1.0f - y) * (1.0f - x);
    coefficient[1] = (1.0f - y) * x;
    coefficient[2] = y * (1.0f - x);
    coefficient[3] = y * x;
  }
};

#if REF == 0
typedef float weight_t;
#else
typedef value_t weight_t;
#endif

// An item's points: where they lie, in pixels of their level, and what they weigh.
struct Points {
  const float2* locations;
  const weight_t* weights;
#if REF == 0

  __device__ __forceinline__ Points(
      const float2* locations, const weight_t* weights, const float*, size_t item, int)
      : locations(locations + item * (L * P)), weights(weights + item * (L * P)) {}

  __device__ __forceinline__ float weight(int i) const { return weights[i]; }

  __device__ __forceinline__ float2 at(int i, int height, int width) const {
    const float2 location = locations[i];
    return make_float2(location.x * width - 0.5f, location.y * height - 0.5f);
  }

  // How far a point moves, in pixels, with its location.
  __device__ __forceinline__ float2 slope(int, int height, int width) const {
    return make_float2(width, height);
  }

#else

  const float* reference;
  float largest;
  float scale;

  __device__ __forceinline__ Points(
      const float2* offsets,
      const weight_t* logits,
      const float* references,
      size_t item,
      int heads)
      : locations(offsets + item * (L * P)),
        weights(logits + item * (L * P)),
        reference(references + item / heads * (L * REF)) {
    largest = to_float(weights[0]);
#pragma unroll
    for (int i = 1; i < L * P; ++i) {
      largest = fmaxf(largest, to_float(weights[i]));
    }
    float sum = 0.0f;
#pragma unroll
    for (int i = 0; i < L * P; ++i) {
      sum += __expf(to_float(weights[i]) - largest);
    }
    scale = 1.0f / sum;
  }

  __device__ __forceinline__ float weight(int i) const {
    return __expf(to_float(weights[i]) - largest) * scale;
  }

  __device__ __forceinline__ float2 at(int i, int height, int width) const {
    const float* r = reference + i / P * REF;
    const float2 offset = locations[i], by = slope(i, height, width);
    return make_float2(
        r[0] * width + offset.x * by.x - 0.5f, r[1] * height + offset.y * by.y - 0.5f);
  }

  // How far a point moves, in pixels, with its offset.
  __device__ __forceinline__ float2 slope(int i, int height, int width) const {
#if REF == 2
    return make_float2(1.0f, 1.0f);
#else
    const float* r = reference + i / P * REF;
    return make_float2(r[2] * width * (0.5f / P), r[3] * height * (0.5f / P));
#endif
  }

#endif
};

typedef Pack<value_t, VEC> Chunk;

// Reads chunk `c` of a pixel, or zeros.
__device__ __forceinline__ void load(const value_t* pixel, bool inside, float (&to)[VEC]) {
  Chunk chunk = {};
  if (inside) {
    chunk = *reinterpret_cast<const Chunk*>(pixel);
  }
#pragma unroll
  for (int i = 0; i < VEC; ++i) {
    to[i] = to_float(chunk.at[i]);
  }
}

// value [B, S, M, D], locations [items, L, P, 2], weights [items, L, P], references [B·Q, L, REF],
// unread [B·Q] (may be null), output [items, D], where items = B·Q·M.
extern "C" __global__ void __launch_bounds__(256) ms_deform_attn_forward(
    const value_t* __restrict__ value,
    const float2* __restrict__ locations,
    const weight_t* __restrict__ weights,
    const float* __restrict__ references,
    const bool* __restrict__ unread,
    value_t* __restrict__ output,
    Levels levels,
    int items,
    int queries,
    int heads,
    int positions) {
  const unsigned thread = blockIdx.x * 256u + threadIdx.x;
  const int item = thread / G;
  const int lane = thread % G;
  if (item >= items) {
    return;
  }
  const int head = item % heads;
  const int image = item / heads / queries;
  const int stride = heads * D;
  const value_t* map = value + static_cast<size_t>(image) * positions * stride + head * D;
  const Points points(locations, weights, references, item, heads);
  const int levels_read = unread != nullptr && unread[item / heads] ? 0 : L;

  float sum[CHUNKS][VEC] = {};
  for (int level = 0; level < levels_read; ++level) {
    const int height = levels.height[level];
    const int width = levels.width[level];
    const value_t* start = map + static_cast<size_t>(levels.start[level]) * stride;
#pragma unroll
    for (int point = 0; point < P; ++point) {
      const int i = level * P + point;
      const float weight = points.weight(i);
      const Corners corners(points.at(i, height, width), height, width, stride);
#pragma unroll
      for (int c = 0; c < CHUNKS; ++c) {
        const int feature = (c * G + lane) * VEC;
        const bool mine = feature < D;
#pragma unroll
        for (int corner = 0; corner < 4; ++corner) {
          float pixel[VEC];
          load(start + corners.offset[corner] + feature, corners.inside[corner] && mine, pixel);
          const float k = corners.coefficient[corner] * weight;
#pragma unroll
          for (int i = 0; i < VEC; ++i) {
            sum[c][i] += k * pixel[i];
          }
        }
      }
    }
  }
#pragma unroll
  for (int c = 0; c < CHUNKS; ++c) {
    const int feature = (c * G + lane) * VEC;
    if (feature < D) {
      Chunk chunk;
#pragma unroll
      for (int i = 0; i < VEC; ++i) {
        chunk.at[i] = from_float(sum[c][i]);
      }
      *reinterpret_cast<Chunk*>(output + static_cast<size_t>(item) * D + feature) = chunk;
    }
  }
}

// Sum over the `G` threads of an item.
__device__ __forceinline__ float sum_over_item(float x) {
#pragma unroll
  for (int step = G / 2; step > 0; step /= 2) {
    x += __shfl_xor_sync(0xffffffffu, x, step);
  }
  return x;
}

// The gradient of the values is added up by reductions in the L2 cache, whose bytes are what the
// backward pass takes its time for. So values of 16 bits have it added up in 16 bits: as f16, which
// has eight times the resolution of bf16, scaled by a power of two so that no sum can overflow. A
// coarse level's pixels are read by very many queries, and a sum of very many is rounded as often:
// its queries take turns at several copies of the level, which are summed in f32.
#if KIND == 0

typedef float sum_t;

__device__ __forceinline__ float sum_scale(const unsigned*, int) { return 1.0f; }

#else

typedef f16_t sum_t;

// `bound`: bits of a number that no query adds more than to any place.
__device__ __forceinline__ float sum_scale(const unsigned* bound, int queries) {
  const float most = __uint_as_float(*bound) * queries;
  // All zero, or not finite: then the sums are, whatever the scale.
  if (!(most > 0.0f && most < 3e38f)) {
    return 1.0f;
  }
  // most < 2^exponent; a sum stays below 2^15, half of what f16 holds.
  const int exponent = static_cast<int>(__float_as_uint(most) >> 23) - 126;
  const int power = min(max(15 - exponent, -100), 100);
  return __uint_as_float(static_cast<unsigned>(power + 127) << 23);
}

// Largest product of an item's largest gradient and the sum of its weights, to `bound` (zero
// before; weights of logits add up to one, and are not read). Numbers that are not negative are
// ordered as their bits are, infinity and NaN last. Of items of unread queries nothing is read: they
// add to no place.
extern "C" __global__ void __launch_bounds__(256) ms_deform_attn_bound(
    const value_t* __restrict__ grad,
    const weight_t* __restrict__ weights,
    const bool* __restrict__ unread,
    unsigned* __restrict__ bound,
    int items,
    int heads) {
  const unsigned thread = blockIdx.x * 256u + threadIdx.x;
  const int item = min(thread / G, items - 1u);
  const int lane = thread % G;
  const bool read = unread == nullptr || !unread[item / heads];
  unsigned largest = 0;
#pragma unroll
  for (int c = 0; c < CHUNKS; ++c) {
    const int feature = (c * G + lane) * VEC;
    float g[VEC];
    load(grad + static_cast<size_t>(item) * D + feature, feature < D && read, g);
#pragma unroll
    for (int i = 0; i < VEC; ++i) {
      largest = max(largest, __float_as_uint(fabsf(g[i])));
    }
  }
  float sum = REF == 0 ? 0.0f : 1.0f / G;
  for (int i = lane; REF == 0 && i < L * P; i += G) {
    sum += fabsf(weights[static_cast<size_t>(item) * (L * P) + i]);
  }
#pragma unroll
  for (int step = G / 2; step > 0; step /= 2) {
    sum += __shfl_xor_sync(0xffffffffu, sum, step);
    largest = max(largest, __shfl_xor_sync(0xffffffffu, largest, step));
  }
  largest = __float_as_uint(fabsf(__uint_as_float(largest) * sum));
#pragma unroll
  for (int step = 16; step >= G; step /= 2) {
    largest = max(largest, __shfl_xor_sync(0xffffffffu, largest, step));
  }
  if (threadIdx.x % 32 == 0) {
    atomicMax(bound, largest);
  }
}

// Copies' sums to grad_value [B, S, M, D] of `count` chunks, `width` of them a position's.
extern "C" __global__ void __launch_bounds__(256) ms_deform_attn_collect(
    const Pack<sum_t, VEC>* __restrict__ sums,
    const unsigned* __restrict__ bound,
    Pack<value_t, VEC>* __restrict__ grad_value,
    Levels levels,
    Sums layout,
    int queries,
    int positions,
    int width,
    int count) {
  const unsigned at = blockIdx.x * 256u + threadIdx.x;
  if (at >= count) {
    return;
  }
  const int chunk = at % width, position = at / width % positions, image = at / width / positions;
  int level = 0;
#pragma unroll
  for (int i = 1; i < L; ++i) {
    level = position >= levels.start[i] ? i : level;
  }
  const size_t first = static_cast<size_t>(image) * layout.positions + layout.start[level] +
      position - levels.start[level];
  const int area = levels.height[level] * levels.width[level];
  float total[VEC] = {};
#pragma unroll 4
  for (int copy = 0; copy < layout.copies[level]; ++copy) {
    const Pack<sum_t, VEC> sum = sums[(first + static_cast<size_t>(copy) * area) * width + chunk];
#pragma unroll
    for (int i = 0; i < VEC; ++i) {
      total[i] += f16_to_float(sum.at[i]);
    }
  }
  const float scale = 1.0f / sum_scale(bound, queries);
  Pack<value_t, VEC> result;
#pragma unroll
  for (int i = 0; i < VEC; ++i) {
    result.at[i] = from_float(total[i] * scale);
  }
  grad_value[at] = result;
}

#endif

// grad [items, D]; adds to sums [B, positions of the layout, M, D] (zero before), which may be null;
// writes grad_locations [items, L, P, 2] and grad_weights [items, L, P]. `bound` as above, null with
// KIND 0. What is unread takes the time of a write where a whole warp is, as heads of one query are.
extern "C" __global__ void __launch_bounds__(256) ms_deform_attn_backward(
    const value_t* __restrict__ grad,
    const value_t* __restrict__ value,
    const float2* __restrict__ locations,
    const weight_t* __restrict__ weights,
    const float* __restrict__ references,
    const bool* __restrict__ unread,
    sum_t* __restrict__ sums,
    float2* __restrict__ grad_locations,
    weight_t* __restrict__ grad_weights,
    const unsigned* __restrict__ bound,
    Levels levels,
    Sums layout,
    int items,
    int queries,
    int heads,
    int positions) {
  const unsigned thread = blockIdx.x * 256u + threadIdx.x;
  const bool active = thread / G < static_cast<unsigned>(items);
  // Threads past the end repeat the last item and write nothing: the sums below want whole warps.
  const int item = active ? thread / G : items - 1;
  const int lane = thread % G;
  const bool read = unread == nullptr || !unread[item / heads];
  if (__all_sync(0xffffffffu, !read)) {
    for (int i = lane; active && i < L * P; i += G) {
      grad_locations[static_cast<size_t>(item) * (L * P) + i] = make_float2(0.0f, 0.0f);
      grad_weights[static_cast<size_t>(item) * (L * P) + i] = from_float(0.0f);
    }
    return;
  }
  const int head = item % heads;
  const int image = item / heads / queries;
  const int stride = heads * D;
  const size_t base = static_cast<size_t>(image) * positions * stride + head * D;
  const size_t first = static_cast<size_t>(item) * (L * P);
  const Points points(locations, weights, references, item, heads);
#if REF != 0
  // Gradients of the weights, and their sum by the weights: what softmax's gradient wants.
  __shared__ float of_weights[256 / G][L * P];
  float of_all = 0.0f;
#endif

  const float scale = sums == nullptr ? 1.0f : sum_scale(bound, queries);
  const int query = item / heads % queries;
  const size_t sums_base = static_cast<size_t>(image) * layout.positions * stride + head * D;
  float g[CHUNKS][VEC];
#pragma unroll
  for (int c = 0; c < CHUNKS; ++c) {
    const int feature = (c * G + lane) * VEC;
    load(grad + static_cast<size_t>(item) * D + feature, feature < D && read, g[c]);
  }

  for (int level = 0; level < L; ++level) {
    const int height = levels.height[level];
    const int width = levels.width[level];
    const size_t start = base + static_cast<size_t>(levels.start[level]) * stride;
    const int copy = query % layout.copies[level];
    const size_t sums_start =
        sums_base + static_cast<size_t>(layout.start[level] + copy * height * width) * stride;
#pragma unroll
    for (int point = 0; point < P; ++point) {
      const int i = level * P + point;
      const float weight = points.weight(i);
      const Corners corners(points.at(i, height, width), height, width, stride);
      // Products of the output's gradient with the four pixels, this thread's share.
      float product[4] = {};
#pragma unroll
      for (int c = 0; c < CHUNKS; ++c) {
        const int feature = (c * G + lane) * VEC;
        const bool mine = feature < D && read;
#pragma unroll
        for (int corner = 0; corner < 4; ++corner) {
          float pixel[VEC];
          load(
              value + start + corners.offset[corner] + feature,
              corners.inside[corner] && mine,
              pixel);
#pragma unroll
          for (int i = 0; i < VEC; ++i) {
            product[corner] += g[c][i] * pixel[i];
          }
        }
        if (sums != nullptr && active && mine) {
#pragma unroll
          for (int corner = 0; corner < 4; ++corner) {
            if (corners.inside[corner]) {
              const float k = corners.coefficient[corner] * (weight * scale);
              float add[VEC];
#pragma unroll
              for (int i = 0; i < VEC; ++i) {
                add[i] = k * g[c][i];
              }
              atomic_add(sums + sums_start + corners.offset[corner] + feature, add);
            }
          }
        }
      }
      const float x = corners.x, y = corners.y;
      const float grad_weight = sum_over_item(
          corners.coefficient[0] * product[0] + corners.coefficient[1] * product[1] +
          corners.coefficient[2] * product[2] + corners.coefficient[3] * product[3]);
      const float grad_x = sum_over_item(
          (1.0f - y) * (product[1] - product[0]) + y * (product[3] - product[2]));
      const float grad_y = sum_over_item(
          (1.0f - x) * (product[2] - product[0]) + x * (product[3] - product[1]));
      const float2 by = points.slope(i, height, width);
      if (active && lane == 0) {
        grad_locations[first + i] = make_float2(weight * by.x * grad_x, weight * by.y * grad_y);
      }
#if REF == 0
      if (active && lane == 0) {
        grad_weights[first + i] = grad_weight;
      }
#else
      of_all += weight * grad_weight;
      if (lane == 0) {
        of_weights[threadIdx.x / G][i] = grad_weight;
      }
#endif
    }
  }
#if REF != 0
  __syncwarp();
  for (int i = lane; active && i < L * P; i += G) {
    const float grad_weight = of_weights[threadIdx.x / G][i];
    grad_weights[first + i] = from_float(points.weight(i) * (grad_weight - of_all));
  }
#endif
}

// Multi-scale deformable attention. `G` neighbouring threads share one (image, query, head) and
// hold `VEC`-wide chunks of its `D` features; a warp's loads of a pixel are whole lines.
//
// Compiled with D, L, P, VEC and G as constants, behind cuda/values.cuh.

// Chunks a thread holds.
constexpr int CHUNKS = (D + VEC * G - 1) / (VEC * G);

struct Levels {
  int height[L];
  int width[L];
  int start[L];
};

// The four pixels around a point: where their features start, and their bilinear coefficients.
struct Corners {
  bool inside[4];
  int offset[4];
  float coefficient[4];
  float x;
  float y;

  // `stride`: values from one pixel to the next. A point outside (or not a number) reads nothing.
  __device__ __forceinline__ Corners(float2 location, int height, int width, int stride) {
    x = location.x * width - 0.5f;
    y = location.y * height - 0.5f;
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

// value [B, S, M, D], locations [items, L, P, 2], weights [items, L, P], output [items, D], where
// items = B·Q·M.
extern "C" __global__ void __launch_bounds__(256) ms_deform_attn_forward(
    const value_t* __restrict__ value,
    const float2* __restrict__ locations,
    const float* __restrict__ weights,
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
  locations += static_cast<size_t>(item) * (L * P);
  weights += static_cast<size_t>(item) * (L * P);

  float sum[CHUNKS][VEC] = {};
  for (int level = 0; level < L; ++level) {
    const int height = levels.height[level];
    const int width = levels.width[level];
    const value_t* start = map + static_cast<size_t>(levels.start[level]) * stride;
#pragma unroll
    for (int point = 0; point < P; ++point) {
      const float weight = weights[level * P + point];
      const Corners corners(locations[level * P + point], height, width, stride);
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

// grad [items, D]; adds to grad_value [B, S, M, D] (f32, zero before), which may be null; writes
// grad_locations [items, L, P, 2] and grad_weights [items, L, P].
extern "C" __global__ void __launch_bounds__(256) ms_deform_attn_backward(
    const value_t* __restrict__ grad,
    const value_t* __restrict__ value,
    const float2* __restrict__ locations,
    const float* __restrict__ weights,
    float* __restrict__ grad_value,
    float2* __restrict__ grad_locations,
    float* __restrict__ grad_weights,
    Levels levels,
    int items,
    int queries,
    int heads,
    int positions) {
  const unsigned thread = blockIdx.x * 256u + threadIdx.x;
  const bool active = thread / G < static_cast<unsigned>(items);
  // Threads past the end repeat the last item and write nothing: the sums below want whole warps.
  const int item = active ? thread / G : items - 1;
  const int lane = thread % G;
  const int head = item % heads;
  const int image = item / heads / queries;
  const int stride = heads * D;
  const size_t base = static_cast<size_t>(image) * positions * stride + head * D;
  const size_t first = static_cast<size_t>(item) * (L * P);

  float g[CHUNKS][VEC];
#pragma unroll
  for (int c = 0; c < CHUNKS; ++c) {
    const int feature = (c * G + lane) * VEC;
    load(grad + static_cast<size_t>(item) * D + feature, feature < D, g[c]);
  }

  for (int level = 0; level < L; ++level) {
    const int height = levels.height[level];
    const int width = levels.width[level];
    const size_t start = base + static_cast<size_t>(levels.start[level]) * stride;
#pragma unroll
    for (int point = 0; point < P; ++point) {
      const size_t index = first + level * P + point;
      const float weight = weights[index];
      const Corners corners(locations[index], height, width, stride);
      // Products of the output's gradient with the four pixels, this thread's share.
      float product[4] = {};
#pragma unroll
      for (int c = 0; c < CHUNKS; ++c) {
        const int feature = (c * G + lane) * VEC;
        const bool mine = feature < D;
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
        if (grad_value != nullptr && active && mine) {
#pragma unroll
          for (int corner = 0; corner < 4; ++corner) {
            if (corners.inside[corner]) {
              const float k = corners.coefficient[corner] * weight;
              float add[VEC];
#pragma unroll
              for (int i = 0; i < VEC; ++i) {
                add[i] = k * g[c][i];
              }
              atomic_add(grad_value + start + corners.offset[corner] + feature, add);
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
      if (active && lane == 0) {
        grad_weights[index] = grad_weight;
        grad_locations[index] =
            make_float2(weight * width * grad_x, weight * height * grad_y);
      }
    }
  }
}

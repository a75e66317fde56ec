// A sum of two maps, normalised over its last dimension: a warp a row. Compiled with D, VEC and OTHER
// (the kind of the second map) as constants, behind cuda/values.cuh.

// Chunks a thread holds.
constexpr int CHUNKS = (D + VEC * 32 - 1) / (VEC * 32);

typedef Pack<value_t, VEC> Chunk;
typedef Values<OTHER> Other;
typedef Pack<Other::type, VEC> OtherChunk;

__device__ __forceinline__ float sum_over_row(float x) {
#pragma unroll
  for (int step = 16; step > 0; step /= 2) {
    x += __shfl_xor_sync(0xffffffffu, x, step);
  }
  return x;
}

__device__ __forceinline__ int column(int c) { return (c * 32 + threadIdx.x % 32) * VEC; }

// x, residual (may be null), sum (written where there is a residual), output [rows, D]; weight, bias
// [D]; statistics [rows, 2]: mean and 1 / standard deviation.
extern "C" __global__ void __launch_bounds__(256) add_layer_norm_forward(
    const value_t* __restrict__ x,
    const Other::type* __restrict__ residual,
    const float* __restrict__ weight,
    const float* __restrict__ bias,
    value_t* __restrict__ sum,
    value_t* __restrict__ output,
    float2* __restrict__ statistics,
    float eps,
    int rows) {
  const int row = blockIdx.x * 8 + threadIdx.x / 32;
  if (row >= rows) {
    return;
  }
  const size_t start = static_cast<size_t>(row) * D;
  float values[CHUNKS][VEC];
  float total = 0.0f;
#pragma unroll
  for (int c = 0; c < CHUNKS; ++c) {
    const bool mine = column(c) < D;
    Chunk chunk = {};
    if (mine) {
      chunk = *reinterpret_cast<const Chunk*>(x + start + column(c));
      if (residual != nullptr) {
        const OtherChunk other =
            *reinterpret_cast<const OtherChunk*>(residual + start + column(c));
#pragma unroll
        for (int i = 0; i < VEC; ++i) {
          // Rounded, as what the backward pass reads is.
          chunk.at[i] = from_float(to_float(chunk.at[i]) + Other::to_float(other.at[i]));
        }
        *reinterpret_cast<Chunk*>(sum + start + column(c)) = chunk;
      }
    }
#pragma unroll
    for (int i = 0; i < VEC; ++i) {
      values[c][i] = to_float(chunk.at[i]);
      total += values[c][i];
    }
  }
  const float mean = sum_over_row(total) * (1.0f / D);
  float squares = 0.0f;
#pragma unroll
  for (int c = 0; c < CHUNKS; ++c) {
#pragma unroll
    for (int i = 0; i < VEC; ++i) {
      const float d = values[c][i] - mean;
      squares += column(c) < D ? d * d : 0.0f;
    }
  }
  const float scale = rsqrtf(sum_over_row(squares) * (1.0f / D) + eps);
  if (threadIdx.x % 32 == 0) {
    statistics[row] = make_float2(mean, scale);
  }
#pragma unroll
  for (int c = 0; c < CHUNKS; ++c) {
    if (column(c) < D) {
      Chunk chunk;
#pragma unroll
      for (int i = 0; i < VEC; ++i) {
        const float y = (values[c][i] - mean) * scale;
        chunk.at[i] = from_float(y * weight[column(c) + i] + bias[column(c) + i]);
      }
      *reinterpret_cast<Chunk*>(output + start + column(c)) = chunk;
    }
  }
}

// Adds the block's share of a gradient of [D]: `own` of each of 8 warps' threads.
__device__ __forceinline__ void add_columns(float* target, const float (&own)[CHUNKS][VEC]) {
  __shared__ float shared[8][32 * VEC];
#pragma unroll
  for (int c = 0; c < CHUNKS; ++c) {
    __syncthreads();
#pragma unroll
    for (int i = 0; i < VEC; ++i) {
      shared[threadIdx.x / 32][threadIdx.x % 32 * VEC + i] = own[c][i];
    }
    __syncthreads();
    const int at = c * 32 * VEC + threadIdx.x;
    if (threadIdx.x < 32 * VEC && at < D) {
      float total = 0.0f;
#pragma unroll
      for (int warp = 0; warp < 8; ++warp) {
        total += shared[warp][threadIdx.x];
      }
      atomicAdd(target + at, total);
    }
  }
}

// grad, sum, grad_sum and grad_residual [rows, D]; grad_residual is grad_sum in the kind of the second
// map, and may be null; grad_weight and grad_bias [D] are added to (zero before), and may be null
// together. A block takes `rows_of_block` rows.
extern "C" __global__ void __launch_bounds__(256) add_layer_norm_backward(
    const value_t* __restrict__ grad,
    const value_t* __restrict__ sum,
    const float* __restrict__ weight,
    const float2* __restrict__ statistics,
    value_t* __restrict__ grad_sum,
    Other::type* __restrict__ grad_residual,
    float* __restrict__ grad_weight,
    float* __restrict__ grad_bias,
    int rows,
    int rows_of_block) {
  float of_weight[CHUNKS][VEC] = {};
  float of_bias[CHUNKS][VEC] = {};
  const int first = blockIdx.x * rows_of_block;
  const int end = min(first + rows_of_block, rows);
  for (int row = first + threadIdx.x / 32; row < end; row += 8) {
    const size_t start = static_cast<size_t>(row) * D;
    const float2 mean_scale = statistics[row];
    float g[CHUNKS][VEC];
    float y[CHUNKS][VEC];
    float mean_g = 0.0f;
    float mean_gy = 0.0f;
#pragma unroll
    for (int c = 0; c < CHUNKS; ++c) {
      Chunk of_grad = {};
      Chunk of_sum = {};
      const bool mine = column(c) < D;
      if (mine) {
        of_grad = *reinterpret_cast<const Chunk*>(grad + start + column(c));
        of_sum = *reinterpret_cast<const Chunk*>(sum + start + column(c));
      }
#pragma unroll
      for (int i = 0; i < VEC; ++i) {
        g[c][i] = to_float(of_grad.at[i]);
        y[c][i] = mine ? (to_float(of_sum.at[i]) - mean_scale.x) * mean_scale.y : 0.0f;
        of_weight[c][i] += g[c][i] * y[c][i];
        of_bias[c][i] += g[c][i];
        g[c][i] *= mine ? weight[column(c) + i] : 0.0f;
        mean_g += g[c][i];
        mean_gy += g[c][i] * y[c][i];
      }
    }
    mean_g = sum_over_row(mean_g) * (1.0f / D);
    mean_gy = sum_over_row(mean_gy) * (1.0f / D);
#pragma unroll
    for (int c = 0; c < CHUNKS; ++c) {
      if (column(c) < D) {
        Chunk chunk;
        OtherChunk other;
#pragma unroll
        for (int i = 0; i < VEC; ++i) {
          const float of_sum = mean_scale.y * (g[c][i] - mean_g - y[c][i] * mean_gy);
          chunk.at[i] = from_float(of_sum);
          other.at[i] = Other::from_float(of_sum);
        }
        *reinterpret_cast<Chunk*>(grad_sum + start + column(c)) = chunk;
        if (grad_residual != nullptr) {
          *reinterpret_cast<OtherChunk*>(grad_residual + start + column(c)) = other;
        }
      }
    }
  }
  if (grad_weight != nullptr) {
    add_columns(grad_weight, of_weight);
    add_columns(grad_bias, of_bias);
  }
}

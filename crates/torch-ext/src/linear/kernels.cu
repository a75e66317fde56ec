// Rows of a linear layer that become zero; backward of its bias, and of what follows it. Compiled
// with VEC and MODE (of linear/mod.rs) as constants, behind cuda/values.cuh.

typedef Pack<value_t, VEC> Chunk;

#define RELU (MODE == 1)
#define ZERO_ROWS (MODE == 2)

// output [chunks · VEC], `width` chunks a row; zero [chunks / width].
extern "C" __global__ void __launch_bounds__(256) zero_rows(
    Chunk* __restrict__ output,
    const bool* __restrict__ zero,
    int chunks,
    int width) {
  const int at = blockIdx.x * 256 + threadIdx.x;
  if (at < chunks && zero[at / width]) {
    output[at] = Chunk{};
  }
}

// A block sums `rows_of_block` rows of a strip of 32 chunks: 8 rows at a time, 32 threads a row.
//
// grad [rows, width · VEC]; sums [width · VEC] (zero before, may be null) take the sum of its rows.
// `by` says what of the gradient passes, and `passed` takes that: with RELU it is what ReLU gave, of
// the same shape; with ZERO_ROWS the rows that do not pass, bool.
extern "C" __global__ void __launch_bounds__(256) column_sums(
    const Chunk* __restrict__ grad,
    const void* __restrict__ by,
    Chunk* __restrict__ passed,
    float* __restrict__ sums,
    int rows,
    int width,
    int rows_of_block) {
  __shared__ float shared[8][32 * VEC];
  const int strips = (width + 31) / 32;
  const int chunk = blockIdx.x % strips * 32 + threadIdx.x % 32;
  const int row_in_block = threadIdx.x / 32;
  const int first = blockIdx.x / strips * rows_of_block;
  const int end = min(first + rows_of_block, rows);
  float sum[VEC] = {};
  if (chunk < width) {
#pragma unroll 4
    for (int row = first + row_in_block; row < end; row += 8) {
      const size_t at = static_cast<size_t>(row) * width + chunk;
      Chunk g = grad[at];
      if (RELU) {
        const Chunk y = static_cast<const Chunk*>(by)[at];
#pragma unroll
        for (int i = 0; i < VEC; ++i) {
          if (to_float(y.at[i]) <= 0.0f) {
            g.at[i] = 0;
          }
        }
      }
      if (ZERO_ROWS && static_cast<const bool*>(by)[row]) {
        g = Chunk{};
      }
      if (MODE != 0) {
        passed[at] = g;
      }
#pragma unroll
      for (int i = 0; i < VEC; ++i) {
        sum[i] += to_float(g.at[i]);
      }
    }
  }
  if (sums == nullptr) {
    return;
  }
#pragma unroll
  for (int i = 0; i < VEC; ++i) {
    shared[row_in_block][threadIdx.x % 32 * VEC + i] = sum[i];
  }
  __syncthreads();
  const int column = blockIdx.x % strips * 32 * VEC + threadIdx.x;
  if (threadIdx.x < 32 * VEC && column < width * VEC) {
    float total = 0.0f;
#pragma unroll
    for (int row = 0; row < 8; ++row) {
      total += shared[row][threadIdx.x];
    }
    atomicAdd(sums + column, total);
  }
}

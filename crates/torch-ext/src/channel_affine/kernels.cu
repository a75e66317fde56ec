// Scale and shift of a channel, another map added, ReLU: one pass. Channels are the fastest
// dimension. Compiled with VEC and RELU as constants, behind cuda/values.cuh.

typedef Pack<value_t, VEC> Chunk;

// x, residual (may be null) and output hold `chunks` chunks of VEC channels; `width` of them are
// one pixel's. scale, shift [C].
extern "C" __global__ void __launch_bounds__(256) channel_affine_forward(
    const Chunk* __restrict__ x,
    const float* __restrict__ scale,
    const float* __restrict__ shift,
    const Chunk* __restrict__ residual,
    Chunk* __restrict__ output,
    int chunks,
    int width) {
  const int at = blockIdx.x * 256 + threadIdx.x;
  if (at >= chunks) {
    return;
  }
  const int channel = at % width * VEC;
  Chunk chunk = x[at];
  Chunk other = {};
  if (residual != nullptr) {
    other = residual[at];
  }
#pragma unroll
  for (int i = 0; i < VEC; ++i) {
    float y = to_float(chunk.at[i]) * scale[channel + i] + shift[channel + i];
    if (residual != nullptr) {
      y += to_float(other.at[i]);
    }
    if (RELU) {
      // As libtorch's: a NaN stays one.
      y = y < 0.0f ? 0.0f : y;
    }
    chunk.at[i] = from_float(y);
  }
  output[at] = chunk;
}

// grad and output as above (output is read with RELU alone); grad_x and grad_residual (may be null)
// are written.
extern "C" __global__ void __launch_bounds__(256) channel_affine_backward(
    const Chunk* __restrict__ grad,
    const Chunk* __restrict__ output,
    const float* __restrict__ scale,
    Chunk* __restrict__ grad_x,
    Chunk* __restrict__ grad_residual,
    int chunks,
    int width) {
  const int at = blockIdx.x * 256 + threadIdx.x;
  if (at >= chunks) {
    return;
  }
  const int channel = at % width * VEC;
  Chunk g = grad[at];
  if (RELU) {
    const Chunk y = output[at];
#pragma unroll
    for (int i = 0; i < VEC; ++i) {
      if (to_float(y.at[i]) <= 0.0f) {
        g.at[i] = 0;
      }
    }
  }
  if (grad_residual != nullptr) {
    grad_residual[at] = g;
  }
  if (grad_x != nullptr) {
#pragma unroll
    for (int i = 0; i < VEC; ++i) {
      g.at[i] = from_float(to_float(g.at[i]) * scale[channel + i]);
    }
    grad_x[at] = g;
  }
}

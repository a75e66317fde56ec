// A convolution with one square kernel for each channel, which keeps the size; channels last. A thread has VECTOR
// neighbouring channels and STRIP pixels of a row, which it adds up in registers. Compiled with SIDE (of the kernel,
// odd), VECTOR and STRIP as constants, behind cuda/values.cuh.

constexpr int HALF = SIDE / 2;
constexpr int WINDOW = STRIP + SIDE - 1;

typedef Pack<value_t, VECTOR> pack_t;
typedef Pack<float, VECTOR> floats_t;

__device__ __forceinline__ void read(const value_t* from, float (&to)[VECTOR]) {
  const pack_t values = *reinterpret_cast<const pack_t*>(from);
#pragma unroll
  for (int i = 0; i < VECTOR; ++i) {
    to[i] = to_float(values.at[i]);
  }
}

// x, output [B, height, width, C]; weight [SIDE · SIDE, C]; bias [C] or null. `flipped`: the kernel is turned by half a
// turn, which makes of the output's gradient the input's. `threads`: one for each pack of channels of each strip.
extern "C" __global__ void __launch_bounds__(256) depthwise_forward(
    const value_t* __restrict__ x,
    const float* __restrict__ weight,
    const float* __restrict__ bias,
    value_t* __restrict__ output,
    int threads,
    int height,
    int width,
    int channels,
    int flipped) {
  const unsigned index = blockIdx.x * 256u + threadIdx.x;
  if (index >= threads) {
    return;
  }
  const unsigned packs = channels / VECTOR;
  const unsigned strips = (width + STRIP - 1) / STRIP;
  const int channel = index % packs * VECTOR;
  const int first = index / packs % strips * STRIP;
  const unsigned line = index / packs / strips;
  const int row = line % height;
  const size_t image = static_cast<size_t>(line / height) * height;
  float sums[STRIP][VECTOR];
#pragma unroll
  for (int i = 0; i < VECTOR; ++i) {
    const float start = bias ? bias[channel + i] : 0.0f;
#pragma unroll
    for (int t = 0; t < STRIP; ++t) {
      sums[t][i] = start;
    }
  }
#pragma unroll 1
  for (int r = 0; r < SIDE; ++r) {
    const int y = row + r - HALF;
    if (y < 0 || y >= height) {
      continue;
    }
    float weights[SIDE][VECTOR];
#pragma unroll
    for (int s = 0; s < SIDE; ++s) {
      const int cell = flipped ? SIDE * SIDE - 1 - r * SIDE - s : r * SIDE + s;
      const floats_t own = *reinterpret_cast<const floats_t*>(
          weight + static_cast<size_t>(cell) * channels + channel);
#pragma unroll
      for (int i = 0; i < VECTOR; ++i) {
        weights[s][i] = own.at[i];
      }
    }
    const value_t* from = x + ((image + y) * width + first - HALF) * channels + channel;
#pragma unroll
    for (int w = 0; w < WINDOW; ++w) {
      const int column = first + w - HALF;
      if (column < 0 || column >= width) {
        continue;
      }
      float values[VECTOR];
      read(from + static_cast<size_t>(w) * channels, values);
#pragma unroll
      for (int t = 0; t < STRIP; ++t) {
        if (w - t >= 0 && w - t < SIDE) {
#pragma unroll
          for (int i = 0; i < VECTOR; ++i) {
            sums[t][i] += values[i] * weights[w - t][i];
          }
        }
      }
    }
  }
  value_t* to = output + ((image + row) * width + first) * channels + channel;
#pragma unroll
  for (int t = 0; t < STRIP; ++t) {
    if (first + t < width) {
      pack_t result;
#pragma unroll
      for (int i = 0; i < VECTOR; ++i) {
        result.at[i] = from_float(sums[t][i]);
      }
      *reinterpret_cast<pack_t*>(to + static_cast<size_t>(t) * channels) = result;
    }
  }
}

// x, grad [B, height, width, C]; sums [chunks, SIDE · SIDE + 1, C]: of the lines of each chunk, the kernel's gradient and
// behind it the bias's. A thread has a pack of channels, one row of the kernel and the `lines` of a chunk.
extern "C" __global__ void __launch_bounds__(256) depthwise_weight(
    const value_t* __restrict__ x,
    const value_t* __restrict__ grad,
    float* __restrict__ sums,
    int threads,
    int images,
    int height,
    int width,
    int channels,
    int lines) {
  const unsigned index = blockIdx.x * 256u + threadIdx.x;
  if (index >= threads) {
    return;
  }
  const unsigned packs = channels / VECTOR;
  const int channel = index % packs * VECTOR;
  const int r = index / packs % SIDE;
  const unsigned chunk = index / packs / SIDE;
  const unsigned end = min((chunk + 1) * lines, static_cast<unsigned>(images) * height);
  float own[SIDE][VECTOR] = {};
  float total[VECTOR] = {};
#pragma unroll 1
  for (unsigned line = chunk * lines; line < end; ++line) {
    const int y = static_cast<int>(line % height) + r - HALF;
    const bool inside = y >= 0 && y < height;
    // The bias's is the business of the kernel's first row.
    if (!inside && r != 0) {
      continue;
    }
    const value_t* grads = grad + static_cast<size_t>(line) * width * channels + channel;
    const value_t* values =
        x + (static_cast<size_t>(line / height) * height + (inside ? y : 0)) * width * channels + channel;
#pragma unroll 1
    for (int first = 0; first < width; first += STRIP) {
      float of[STRIP][VECTOR] = {};
#pragma unroll
      for (int t = 0; t < STRIP; ++t) {
        if (first + t < width) {
          read(grads + static_cast<size_t>(first + t) * channels, of[t]);
        }
#pragma unroll
        for (int i = 0; i < VECTOR; ++i) {
          total[i] += of[t][i];
        }
      }
      if (!inside) {
        continue;
      }
#pragma unroll
      for (int w = 0; w < WINDOW; ++w) {
        const int column = first + w - HALF;
        if (column < 0 || column >= width) {
          continue;
        }
        float value[VECTOR];
        read(values + static_cast<size_t>(column) * channels, value);
#pragma unroll
        for (int t = 0; t < STRIP; ++t) {
          if (w - t >= 0 && w - t < SIDE) {
#pragma unroll
            for (int i = 0; i < VECTOR; ++i) {
              own[w - t][i] += value[i] * of[t][i];
            }
          }
        }
      }
    }
  }
  float* to = sums + (static_cast<size_t>(chunk) * (SIDE * SIDE + 1) + r * SIDE) * channels + channel;
#pragma unroll
  for (int s = 0; s < SIDE; ++s) {
#pragma unroll
    for (int i = 0; i < VECTOR; ++i) {
      to[static_cast<size_t>(s) * channels + i] = own[s][i];
    }
  }
  if (r == 0) {
    float* of_bias =
        sums + (static_cast<size_t>(chunk) * (SIDE * SIDE + 1) + SIDE * SIDE) * channels + channel;
#pragma unroll
    for (int i = 0; i < VECTOR; ++i) {
      of_bias[i] = total[i];
    }
  }
}

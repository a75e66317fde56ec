// Group normalisation of maps [B, H·W, C], of the image's pixels alone. Compiled with C, GROUPS, VEC
// and COLUMNS as constants, behind cuda/values.cuh. VEC divides the channels of a group.

// Vectors of a pixel, and of a group.
constexpr int VECTORS = C / VEC;
constexpr int OF_GROUP = C / GROUPS / VEC;
// A block: COLUMNS vectors of ROWS pixels at a time. Where a pixel has more vectors than a block has
// threads, blocks take tiles of them.
constexpr int ROWS = 256 / COLUMNS;
constexpr int TILES = (VECTORS + COLUMNS - 1) / COLUMNS;

typedef Pack<value_t, VEC> Chunk;

// What a thread works on: a vector of channels of every ROWS-th pixel in [first, end).
struct Place {
  int image;
  int vector;
  int first;
  int end;
  bool mine;
  // Of the image's first number.
  size_t start;

  __device__ __forceinline__ Place(int area, int of_block) {
    const int chunks = (area + of_block - 1) / of_block;
    const int tile = blockIdx.x % TILES;
    const int chunk = blockIdx.x / TILES % chunks;
    image = blockIdx.x / TILES / chunks;
    vector = tile * COLUMNS + threadIdx.x % COLUMNS;
    first = chunk * of_block + threadIdx.x / COLUMNS;
    end = min(chunk * of_block + of_block, area);
    mine = threadIdx.x < ROWS * COLUMNS && vector < VECTORS;
    start = static_cast<size_t>(image) * area * C;
  }

  __device__ __forceinline__ int group() const { return vector / OF_GROUP; }

  __device__ __forceinline__ int channel() const { return vector * VEC; }

  __device__ __forceinline__ size_t at(int pixel) const {
    return start + static_cast<size_t>(pixel) * C + channel();
  }
};

// Whether the pixel counts. `padding` may be null.
__device__ __forceinline__ bool counts(
    const unsigned char* padding, const Place& place, int pixel, int area) {
  return padding == nullptr || padding[static_cast<size_t>(place.image) * area + pixel] == 0;
}

// What a group's numbers are taken relative to, so that a mean far from zero costs no digits: the
// first channel at the image's first pixel.
__device__ __forceinline__ float pivot_of(
    const value_t* x, const int2* pixels, const Place& place) {
  const int pixel = pixels == nullptr ? 0 : pixels[place.image].y;
  const int channel = place.group() * (C / GROUPS);
  return to_float(x[place.start + static_cast<size_t>(pixel) * C + channel]);
}

// Of a group of an image.
struct Statistics {
  float pivot;
  // Mean - pivot.
  float shift;
  // 1 / standard deviation.
  float scale;
  // 1 / how many numbers.
  float share;

  __device__ __forceinline__ Statistics(
      const value_t* x, const int2* pixels, const float2* sums, const Place& place, float eps,
      int area) {
    pivot = pivot_of(x, pixels, place);
    const int number = pixels == nullptr ? area : pixels[place.image].x;
    // At least one, for images of padding alone.
    share = 1.0f / (static_cast<float>(max(number, 1)) * (C / GROUPS));
    const float2 sum = sums[place.image * GROUPS + place.group()];
    shift = sum.x * share;
    const float variance = sum.y * share - shift * shift;
    // A rounding below zero at most; a NaN stays one.
    scale = rsqrtf((variance < 0.0f ? 0.0f : variance) + eps);
  }
};

// padding [B, area] -> pixels [B]: how many count, and the first of them. A block an image.
extern "C" __global__ void __launch_bounds__(256) group_norm_pixels(
    const unsigned char* __restrict__ padding, int2* __restrict__ pixels, int area) {
  __shared__ int number;
  __shared__ int first;
  if (threadIdx.x == 0) {
    number = 0;
    first = area;
  }
  __syncthreads();
  const unsigned char* own = padding + static_cast<size_t>(blockIdx.x) * area;
  int my_number = 0;
  int my_first = area;
  for (int pixel = threadIdx.x; pixel < area; pixel += 256) {
    if (own[pixel] == 0) {
      ++my_number;
      my_first = min(my_first, pixel);
    }
  }
  atomicAdd(&number, my_number);
  atomicMin(&first, my_first);
  __syncthreads();
  if (threadIdx.x == 0) {
    // An image of padding alone has no first pixel, and nobody uses what is read there.
    pixels[blockIdx.x] = make_int2(number, number > 0 ? first : 0);
  }
}

// partial [blocks, GROUPS]: each block's sums of x - pivot and of its square, at the groups that it has
// channels of; nothing is written at others. `padding` and `pixels` may be null together, here and
// below.
extern "C" __global__ void __launch_bounds__(256) group_norm_sums(
    const value_t* __restrict__ x,
    const unsigned char* __restrict__ padding,
    const int2* __restrict__ pixels,
    float2* __restrict__ partial,
    int area,
    int of_block) {
  __shared__ float2 shared[256];
  const Place place(area, of_block);
  float2 own = make_float2(0.0f, 0.0f);
  if (place.mine) {
    const float pivot = pivot_of(x, pixels, place);
    for (int pixel = place.first; pixel < place.end; pixel += ROWS) {
      if (counts(padding, place, pixel, area)) {
        const Chunk chunk = *reinterpret_cast<const Chunk*>(x + place.at(pixel));
#pragma unroll
        for (int i = 0; i < VEC; ++i) {
          const float d = to_float(chunk.at[i]) - pivot;
          own.x += d;
          own.y += d * d;
        }
      }
    }
  }
  shared[threadIdx.x] = own;
  __syncthreads();
  const int column = threadIdx.x;
  if (column < COLUMNS) {
    for (int row = 1; row < ROWS; ++row) {
      own.x += shared[row * COLUMNS + column].x;
      own.y += shared[row * COLUMNS + column].y;
    }
    shared[column] = own;
  }
  __syncthreads();
  // The first column of each group in the tile adds up the group's. What lies beyond the channels is
  // zero and of no group.
  const bool leads = column == 0 || place.vector % OF_GROUP == 0;
  if (column < COLUMNS && place.vector < VECTORS && leads) {
    const int columns = min(OF_GROUP - place.vector % OF_GROUP, COLUMNS - column);
    for (int i = 1; i < columns; ++i) {
      own.x += shared[column + i].x;
      own.y += shared[column + i].y;
    }
    partial[static_cast<size_t>(blockIdx.x) * GROUPS + place.group()] = own;
  }
}

// partial as above -> sums [B, GROUPS], added up in a fixed order. A block a group of an image.
extern "C" __global__ void __launch_bounds__(256) group_norm_totals(
    const float2* __restrict__ partial, float2* __restrict__ sums, int area, int of_block) {
  __shared__ float2 shared[256];
  const int chunks = (area + of_block - 1) / of_block;
  const int image = blockIdx.x / GROUPS;
  const int group = blockIdx.x % GROUPS;
  // Tiles that have channels of the group.
  const int first = group * OF_GROUP / COLUMNS;
  const int tiles = (group * OF_GROUP + OF_GROUP - 1) / COLUMNS - first + 1;
  float2 own = make_float2(0.0f, 0.0f);
  for (int i = threadIdx.x; i < chunks * tiles; i += 256) {
    const size_t block = static_cast<size_t>(image * chunks + i / tiles) * TILES + first + i % tiles;
    const float2 part = partial[block * GROUPS + group];
    own.x += part.x;
    own.y += part.y;
  }
  for (int half = 128; half > 0; half /= 2) {
    shared[threadIdx.x] = own;
    __syncthreads();
    if (threadIdx.x < half) {
      own.x += shared[threadIdx.x + half].x;
      own.y += shared[threadIdx.x + half].y;
    }
    __syncthreads();
  }
  if (threadIdx.x == 0) {
    sums[blockIdx.x] = own;
  }
}

// weight, bias [C]; output as x.
extern "C" __global__ void __launch_bounds__(256) group_norm_forward(
    const value_t* __restrict__ x,
    const unsigned char* __restrict__ padding,
    const int2* __restrict__ pixels,
    const float2* __restrict__ sums,
    const float* __restrict__ weight,
    const float* __restrict__ bias,
    value_t* __restrict__ output,
    float eps,
    int area,
    int of_block) {
  const Place place(area, of_block);
  if (!place.mine) {
    return;
  }
  const Statistics of(x, pixels, sums, place, eps, area);
  float factors[VEC];
  float terms[VEC];
#pragma unroll
  for (int i = 0; i < VEC; ++i) {
    factors[i] = of.scale * weight[place.channel() + i];
    terms[i] = bias[place.channel() + i] - of.shift * factors[i];
  }
  for (int pixel = place.first; pixel < place.end; pixel += ROWS) {
    Chunk chunk = {};
    if (counts(padding, place, pixel, area)) {
      chunk = *reinterpret_cast<const Chunk*>(x + place.at(pixel));
#pragma unroll
      for (int i = 0; i < VEC; ++i) {
        chunk.at[i] = from_float((to_float(chunk.at[i]) - of.pivot) * factors[i] + terms[i]);
      }
    }
    *reinterpret_cast<Chunk*>(output + place.at(pixel)) = chunk;
  }
}

// Adds a block's sums to target [C], one image's: `own` of each thread's channels, over its rows.
__device__ __forceinline__ void add_columns(
    float* target, float* shared, const Place& place, const float (&own)[VEC]) {
  __syncthreads();
#pragma unroll
  for (int i = 0; i < VEC; ++i) {
    shared[threadIdx.x * VEC + i] = own[i];
  }
  __syncthreads();
  const int first = place.channel() - threadIdx.x % COLUMNS * VEC;
  for (int i = threadIdx.x; i < COLUMNS * VEC && first + i < C; i += 256) {
    float total = 0.0f;
    for (int row = 0; row < ROWS; ++row) {
      total += shared[row * COLUMNS * VEC + i];
    }
    atomicAdd(target + first + i, total);
  }
}

// grad as x. Adds to columns [2, B, C], zero before: sums of grad times the normalised numbers, and of
// grad.
extern "C" __global__ void __launch_bounds__(256) group_norm_columns(
    const value_t* __restrict__ grad,
    const value_t* __restrict__ x,
    const unsigned char* __restrict__ padding,
    const int2* __restrict__ pixels,
    const float2* __restrict__ sums,
    float* __restrict__ columns,
    float eps,
    int images,
    int area,
    int of_block) {
  __shared__ float shared[256 * VEC];
  const Place place(area, of_block);
  float of_weight[VEC] = {};
  float of_bias[VEC] = {};
  if (place.mine) {
    const Statistics of(x, pixels, sums, place, eps, area);
    for (int pixel = place.first; pixel < place.end; pixel += ROWS) {
      if (counts(padding, place, pixel, area)) {
        const Chunk grads = *reinterpret_cast<const Chunk*>(grad + place.at(pixel));
        const Chunk xs = *reinterpret_cast<const Chunk*>(x + place.at(pixel));
#pragma unroll
        for (int i = 0; i < VEC; ++i) {
          const float g = to_float(grads.at[i]);
          of_weight[i] += g * ((to_float(xs.at[i]) - of.pivot - of.shift) * of.scale);
          of_bias[i] += g;
        }
      }
    }
  }
  float* target = columns + static_cast<size_t>(place.image) * C;
  add_columns(target, shared, place, of_weight);
  add_columns(target + static_cast<size_t>(images) * C, shared, place, of_bias);
}

// columns as above, whole; grad_x as x.
extern "C" __global__ void __launch_bounds__(256) group_norm_backward(
    const value_t* __restrict__ grad,
    const value_t* __restrict__ x,
    const unsigned char* __restrict__ padding,
    const int2* __restrict__ pixels,
    const float2* __restrict__ sums,
    const float* __restrict__ columns,
    const float* __restrict__ weight,
    value_t* __restrict__ grad_x,
    float eps,
    int images,
    int area,
    int of_block) {
  const Place place(area, of_block);
  if (!place.mine) {
    return;
  }
  const Statistics of(x, pixels, sums, place, eps, area);
  // Means over the group of the gradient of the normalised numbers, and of its product with them.
  float mean = 0.0f;
  float mean_product = 0.0f;
  const float* products = columns + static_cast<size_t>(place.image) * C;
  const float* grads = products + static_cast<size_t>(images) * C;
  const int group = place.group() * (C / GROUPS);
  for (int channel = group; channel < group + C / GROUPS; ++channel) {
    mean += weight[channel] * grads[channel];
    mean_product += weight[channel] * products[channel];
  }
  mean *= of.share;
  mean_product *= of.share;
  float own[VEC];
#pragma unroll
  for (int i = 0; i < VEC; ++i) {
    own[i] = weight[place.channel() + i];
  }
  for (int pixel = place.first; pixel < place.end; pixel += ROWS) {
    Chunk chunk = {};
    if (counts(padding, place, pixel, area)) {
      const Chunk g = *reinterpret_cast<const Chunk*>(grad + place.at(pixel));
      const Chunk xs = *reinterpret_cast<const Chunk*>(x + place.at(pixel));
#pragma unroll
      for (int i = 0; i < VEC; ++i) {
        const float y = (to_float(xs.at[i]) - of.pivot - of.shift) * of.scale;
        const float d = to_float(g.at[i]) * own[i] - mean - y * mean_product;
        chunk.at[i] = from_float(of.scale * d);
      }
    }
    *reinterpret_cast<Chunk*>(grad_x + place.at(pixel)) = chunk;
  }
}

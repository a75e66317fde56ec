// RoIAlign over maps of several sizes, channels last: one thread a bin and VECTOR neighbouring channels. Each
// box is read from one map, its level. Compiled behind cuda/values.cuh.

constexpr int LEVELS = 8;

// The maps [B, H_l, W_l, C]; the first `count` are there.
struct Maps {
  void* at[LEVELS];
};

struct Sizes {
  int height[LEVELS], width[LEVELS];
  // Feature pixels for each image pixel.
  float scale[LEVELS];
  int count;
};

typedef Pack<value_t, VECTOR> pack_t;

// What a thread works on.
struct Bin {
  // Whether box, image and level are there.
  bool there;
  int level;
  // The first of the thread's channels in its image's map, in values.
  size_t first;
  // Where the image ends in feature pixels; values of a row of the map.
  int height, width, pitch, channels;
  // Where the bin starts in feature pixels, its size, and its points across and down.
  float x, y, bin_width, bin_height;
  int columns, rows;

  // Feature pixels of a side of an image; none where it is not a number.
  static __device__ __forceinline__ int end(float side, float scale, int whole) {
    const float pixels = ceilf(side * scale);
    return pixels > 0.0f ? static_cast<int>(fminf(pixels, static_cast<float>(whole))) : 0;
  }

  // `index` counts the packs of the outputs [N, down, across, C].
  __device__ __forceinline__ Bin(
      unsigned index,
      const float* __restrict__ boxes,
      const long long* __restrict__ levels,
      const float* __restrict__ image_sizes,
      const Sizes& sizes,
      int images,
      int channels,
      int down,
      int across,
      int ratio,
      int aligned)
      : channels(channels) {
    const unsigned packs = channels / VECTOR;
    const unsigned bin = index / packs;
    const int column = bin % across;
    const int row = bin / across % down;
    const unsigned number = bin / across / down;
    const float* box = boxes + static_cast<size_t>(number) * 5;
    const long long own = levels ? levels[number] : 0;
    const int image = static_cast<int>(box[0]);
    there = own >= 0 && own < sizes.count && image >= 0 && image < images;
    level = there ? static_cast<int>(own) : 0;
    height = sizes.height[level];
    width = sizes.width[level];
    pitch = width * channels;
    first = static_cast<size_t>(there ? image : 0) * height * pitch + (index % packs) * VECTOR;
    const float scale = sizes.scale[level];
    if (image_sizes && there) {
      // The map goes on beyond its image.
      height = end(image_sizes[2 * image], scale, height);
      width = end(image_sizes[2 * image + 1], scale, width);
      there = height > 0 && width > 0;
    }
    const float offset = aligned ? 0.5f : 0.0f;
    x = box[1] * scale - offset;
    y = box[2] * scale - offset;
    float box_width = box[3] * scale - offset - x;
    float box_height = box[4] * scale - offset - y;
    if (!aligned) {
      box_width = fmaxf(box_width, 1.0f);
      box_height = fmaxf(box_height, 1.0f);
    }
    bin_width = box_width / across;
    bin_height = box_height / down;
    x += column * bin_width;
    y += row * bin_height;
    columns = ratio > 0 ? ratio : static_cast<int>(ceilf(bin_width));
    rows = ratio > 0 ? ratio : static_cast<int>(ceilf(bin_height));
  }

  __device__ __forceinline__ float share() const {
    return 1.0f / fmaxf(static_cast<float>(columns) * static_cast<float>(rows), 1.0f);
  }

  // The place of the thread's channels at a pixel.
  __device__ __forceinline__ size_t pixel(int row, int column) const {
    return first + static_cast<size_t>(row) * pitch + static_cast<size_t>(column) * channels;
  }
};

// Pixels on both sides of a coordinate, and the fraction of the way between.
struct Neighbours {
  bool inside;
  int low;
  int high;
  float fraction;

  __device__ __forceinline__ Neighbours(float v, int size) {
    inside = v >= -1.0f && v <= size;
    v = inside ? fmaxf(v, 0.0f) : 0.0f;
    low = static_cast<int>(v);
    high = low + 1;
    fraction = v - low;
    if (high >= size) {
      low = high = size - 1;
      fraction = 0.0f;
    }
  }
};

// Calls `read(place, weight)` for the four pixels of each point of a bin.
template <typename Read>
__device__ __forceinline__ void each_pixel(const Bin& bin, Read read) {
  for (int row = 0; row < bin.rows; ++row) {
    const Neighbours y(bin.y + (row + 0.5f) * bin.bin_height / bin.rows, bin.height);
    if (!y.inside) {
      continue;
    }
    for (int column = 0; column < bin.columns; ++column) {
      const Neighbours x(bin.x + (column + 0.5f) * bin.bin_width / bin.columns, bin.width);
      if (x.inside) {
        read(bin.pixel(y.low, x.low), (1.0f - y.fraction) * (1.0f - x.fraction));
        read(bin.pixel(y.low, x.high), (1.0f - y.fraction) * x.fraction);
        read(bin.pixel(y.high, x.low), y.fraction * (1.0f - x.fraction));
        read(bin.pixel(y.high, x.high), y.fraction * x.fraction);
      }
    }
  }
}

// boxes [N, 5], levels [N] or null where all are of the first map, image_sizes [B, 2] or null where maps end with
// their images, output [N, down, across, C].
extern "C" __global__ void __launch_bounds__(256) roi_align_forward(
    const Maps maps,
    const Sizes sizes,
    const float* __restrict__ boxes,
    const long long* __restrict__ levels,
    const float* __restrict__ image_sizes,
    pack_t* __restrict__ output,
    int outputs,
    int images,
    int channels,
    int down,
    int across,
    int ratio,
    int aligned) {
  const unsigned index = blockIdx.x * 256u + threadIdx.x;
  if (index >= outputs) {
    return;
  }
  const Bin bin(
      index, boxes, levels, image_sizes, sizes, images, channels, down, across, ratio, aligned);
  float sum[VECTOR] = {};
  if (bin.there) {
    const value_t* __restrict__ map = static_cast<const value_t*>(maps.at[bin.level]);
    each_pixel(bin, [&](size_t place, float weight) {
      const pack_t values = *reinterpret_cast<const pack_t*>(map + place);
#pragma unroll
      for (int i = 0; i < VECTOR; ++i) {
        sum[i] += weight * to_float(values.at[i]);
      }
    });
  }
  const float share = bin.share();
  pack_t result;
#pragma unroll
  for (int i = 0; i < VECTOR; ++i) {
    result.at[i] = from_float(sum[i] * share);
  }
  output[index] = result;
}

// grad [N, down, across, C]; adds to the maps, which are f32 here and zero before.
extern "C" __global__ void __launch_bounds__(256) roi_align_backward(
    const Maps maps,
    const Sizes sizes,
    const float* __restrict__ boxes,
    const long long* __restrict__ levels,
    const float* __restrict__ image_sizes,
    const pack_t* __restrict__ grad,
    int outputs,
    int images,
    int channels,
    int down,
    int across,
    int ratio,
    int aligned) {
  const unsigned index = blockIdx.x * 256u + threadIdx.x;
  if (index >= outputs) {
    return;
  }
  const Bin bin(
      index, boxes, levels, image_sizes, sizes, images, channels, down, across, ratio, aligned);
  if (!bin.there) {
    return;
  }
  const pack_t own = grad[index];
  const float share = bin.share();
  float* map = static_cast<float*>(maps.at[bin.level]);
  each_pixel(bin, [&](size_t place, float weight) {
    float values[VECTOR];
#pragma unroll
    for (int i = 0; i < VECTOR; ++i) {
      values[i] = weight * share * to_float(own.at[i]);
    }
    atomic_add<VECTOR>(map + place, values);
  });
}

// RoIAlign, one thread a bin and channel. Compiled behind cuda/values.cuh.

struct Bin {
  int image;
  int channel;
  // Where the bin starts in feature pixels, its size, and its points across and down.
  float x, y, width, height;
  int columns, rows;

  // `index` counts the outputs [N, C, down, across].
  __device__ __forceinline__ Bin(
      int index,
      const float* __restrict__ boxes,
      int channels,
      int down,
      int across,
      int ratio,
      int aligned,
      float scale) {
    const int column = index % across;
    const int row = index / across % down;
    channel = index / across / down % channels;
    const float* box = boxes + index / across / down / channels * 5;
    image = static_cast<int>(box[0]);
    const float offset = aligned ? 0.5f : 0.0f;
    x = box[1] * scale - offset;
    y = box[2] * scale - offset;
    float box_width = box[3] * scale - offset - x;
    float box_height = box[4] * scale - offset - y;
    if (!aligned) {
      box_width = fmaxf(box_width, 1.0f);
      box_height = fmaxf(box_height, 1.0f);
    }
    width = box_width / across;
    height = box_height / down;
    x += column * width;
    y += row * height;
    columns = ratio > 0 ? ratio : static_cast<int>(ceilf(width));
    rows = ratio > 0 ? ratio : static_cast<int>(ceilf(height));
  }

  __device__ __forceinline__ float share() const {
    return 1.0f / fmaxf(static_cast<float>(columns) * static_cast<float>(rows), 1.0f);
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

// features [B, C, H, W], boxes [N, 5], output [N, C, down, across].
extern "C" __global__ void __launch_bounds__(256) roi_align_forward(
    const value_t* __restrict__ features,
    const float* __restrict__ boxes,
    value_t* __restrict__ output,
    int outputs,
    int images,
    int channels,
    int height,
    int width,
    int down,
    int across,
    int ratio,
    int aligned,
    float scale) {
  const unsigned index = blockIdx.x * 256u + threadIdx.x;
  if (index >= outputs) {
    return;
  }
  const Bin bin(index, boxes, channels, down, across, ratio, aligned, scale);
  float sum = 0.0f;
  if (bin.image >= 0 && bin.image < images) {
    const value_t* map =
        features + (static_cast<size_t>(bin.image) * channels + bin.channel) * height * width;
    for (int row = 0; row < bin.rows; ++row) {
      const Neighbours y(bin.y + (row + 0.5f) * bin.height / bin.rows, height);
      for (int column = 0; column < bin.columns; ++column) {
        const Neighbours x(bin.x + (column + 0.5f) * bin.width / bin.columns, width);
        if (x.inside && y.inside) {
          const value_t* top = map + y.low * width;
          const value_t* bottom = map + y.high * width;
          sum += (1.0f - y.fraction) *
                  ((1.0f - x.fraction) * to_float(top[x.low]) + x.fraction * to_float(top[x.high])) +
              y.fraction *
                  ((1.0f - x.fraction) * to_float(bottom[x.low]) +
                   x.fraction * to_float(bottom[x.high]));
        }
      }
    }
  }
  output[index] = from_float(sum * bin.share());
}

// grad [N, C, down, across]; adds to grad_features [B, C, H, W] (f32, zero before).
extern "C" __global__ void __launch_bounds__(256) roi_align_backward(
    const value_t* __restrict__ grad,
    const float* __restrict__ boxes,
    float* __restrict__ grad_features,
    int outputs,
    int images,
    int channels,
    int height,
    int width,
    int down,
    int across,
    int ratio,
    int aligned,
    float scale) {
  const unsigned index = blockIdx.x * 256u + threadIdx.x;
  if (index >= outputs) {
    return;
  }
  const Bin bin(index, boxes, channels, down, across, ratio, aligned, scale);
  if (bin.image < 0 || bin.image >= images) {
    return;
  }
  float* map =
      grad_features + (static_cast<size_t>(bin.image) * channels + bin.channel) * height * width;
  const float g = to_float(grad[index]) * bin.share();
  for (int row = 0; row < bin.rows; ++row) {
    const Neighbours y(bin.y + (row + 0.5f) * bin.height / bin.rows, height);
    for (int column = 0; column < bin.columns; ++column) {
      const Neighbours x(bin.x + (column + 0.5f) * bin.width / bin.columns, width);
      if (x.inside && y.inside) {
        atomicAdd(map + y.low * width + x.low, (1.0f - y.fraction) * (1.0f - x.fraction) * g);
        atomicAdd(map + y.low * width + x.high, (1.0f - y.fraction) * x.fraction * g);
        atomicAdd(map + y.high * width + x.low, y.fraction * (1.0f - x.fraction) * g);
        atomicAdd(map + y.high * width + x.high, y.fraction * x.fraction * g);
      }
    }
  }
}

// Maps [B·H·W, C]. Compiled with C and VEC as constants, behind cuda/values.cuh. VEC divides C.

constexpr int VECTORS = C / VEC;

typedef Pack<value_t, VEC> Chunk;

// maps: zero in the pixels that are `outside`; the others are not touched. A block 256 pixels.
extern "C" __global__ void __launch_bounds__(256) zero_outside(
    const unsigned char* __restrict__ outside, value_t* __restrict__ maps, int pixels) {
  __shared__ unsigned char own[256];
  const int first = blockIdx.x * 256;
  const int number = min(256, pixels - first);
  const int mine = threadIdx.x < number ? outside[first + threadIdx.x] : 0;
  own[threadIdx.x] = static_cast<unsigned char>(mine);
  if (!__syncthreads_or(mine)) {
    return;
  }
  Chunk* chunks = reinterpret_cast<Chunk*>(maps + static_cast<size_t>(first) * C);
  for (int i = threadIdx.x; i < number * VECTORS; i += 256) {
    if (own[i / VECTORS]) {
      chunks[i] = Chunk{};
    }
  }
}

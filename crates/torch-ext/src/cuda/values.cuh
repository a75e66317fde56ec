// Reading and writing values of the kind the program is compiled for, `KIND`: 0 f32, 1 bf16,
// 2 f16. Arithmetic is in f32 throughout. The conversions are written out because NVRTC has no
// CUDA headers at hand.

typedef unsigned short f16_t;

__device__ __forceinline__ float f16_to_float(f16_t v) {
  float f;
  asm("cvt.f32.f16 %0, %1;" : "=f"(f) : "h"(v));
  return f;
}

__device__ __forceinline__ f16_t f16_from_float(float f) {
  f16_t v;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(v) : "f"(f));
  return v;
}

template <int K>
struct Values;

template <>
struct Values<0> {
  typedef float type;
  static __device__ __forceinline__ float to_float(type v) { return v; }
  static __device__ __forceinline__ type from_float(float f) { return f; }
};

template <>
struct Values<1> {
  typedef unsigned short type;
  static __device__ __forceinline__ float to_float(type v) {
    return __uint_as_float(static_cast<unsigned>(v) << 16);
  }
  // To the nearest, ties to even; a NaN stays one.
  static __device__ __forceinline__ type from_float(float f) {
    const unsigned bits = __float_as_uint(f);
    if (f != f) {
      return 0x7fff;
    }
    return static_cast<type>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
  }
};

template <>
struct Values<2> {
  typedef f16_t type;
  static __device__ __forceinline__ float to_float(type v) { return f16_to_float(v); }
  static __device__ __forceinline__ type from_float(float f) { return f16_from_float(f); }
};

typedef Values<KIND>::type value_t;

__device__ __forceinline__ float to_float(value_t v) { return Values<KIND>::to_float(v); }

__device__ __forceinline__ value_t from_float(float f) { return Values<KIND>::from_float(f); }

// `N` neighbouring values, read and written as one vector of up to 16 bytes.
template <typename T, int N>
struct alignas(sizeof(T) * N) Pack {
  T at[N];
};

// Adds `N` neighbouring numbers to memory that other threads add to as well.
template <int N>
__device__ __forceinline__ void atomic_add(float* target, const float (&values)[N]) {
// PTX knows this since CUDA 12.1; a CUDA of the system's may come before ours.
#if __CUDA_ARCH__ >= 900 && __CUDACC_VER_MAJOR__ * 100 + __CUDACC_VER_MINOR__ >= 1201
  if constexpr (N % 4 == 0) {
#pragma unroll
    for (int i = 0; i < N; i += 4) {
      asm volatile(
          "red.relaxed.gpu.global.add.v4.f32 [%0], {%1, %2, %3, %4};" ::"l"(target + i),
          "f"(values[i]),
          "f"(values[i + 1]),
          "f"(values[i + 2]),
          "f"(values[i + 3])
          : "memory");
    }
    return;
  }
#endif
#pragma unroll
  for (int i = 0; i < N; ++i) {
    atomicAdd(target + i, values[i]);
  }
}

// The same for f16 numbers, whatever KIND is.
template <int N>
__device__ __forceinline__ void atomic_add(f16_t* target, const float (&values)[N]) {
  if constexpr (N % 2 != 0) {
#pragma unroll
    for (int i = 0; i < N; ++i) {
      asm volatile("red.relaxed.gpu.global.add.noftz.f16 [%0], %1;" ::"l"(target + i),
                   "h"(f16_from_float(values[i]))
                   : "memory");
    }
  } else {
    unsigned pairs[N / 2];
#pragma unroll
    for (int i = 0; i < N / 2; ++i) {
      pairs[i] = f16_from_float(values[2 * i]) |
          static_cast<unsigned>(f16_from_float(values[2 * i + 1])) << 16;
    }
#if __CUDA_ARCH__ >= 900 && __CUDACC_VER_MAJOR__ * 100 + __CUDACC_VER_MINOR__ >= 1201
    if constexpr (N % 8 == 0) {
#pragma unroll
      for (int i = 0; i < N / 2; i += 4) {
        asm volatile(
            "red.relaxed.gpu.global.add.noftz.v4.f16x2 [%0], {%1, %2, %3, %4};" ::"l"(
                target + 2 * i),
            "r"(pairs[i]),
            "r"(pairs[i + 1]),
            "r"(pairs[i + 2]),
            "r"(pairs[i + 3])
            : "memory");
      }
      return;
    }
#endif
#pragma unroll
    for (int i = 0; i < N / 2; ++i) {
      asm volatile("red.relaxed.gpu.global.add.noftz.f16x2 [%0], %1;" ::"l"(target + 2 * i),
                   "r"(pairs[i])
                   : "memory");
    }
  }
}

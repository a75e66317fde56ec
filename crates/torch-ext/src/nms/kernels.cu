// Non-maximum suppression. Boxes come group by group, the best of each group first. One kernel compares all
// pairs within a group, one thread 64 pairs; another decides, one warp a group, which boxes stay. Compiled with
// REAL, the kind of the boxes: 0 f32, 1 f64.

// Compilers make one operation of a product and a sum, whose last digit differs from the host's: these do not.
#if REAL
typedef double real_t;
__device__ __forceinline__ real_t add(real_t a, real_t b) { return __dadd_rn(a, b); }
__device__ __forceinline__ real_t multiply(real_t a, real_t b) { return __dmul_rn(a, b); }
__device__ __forceinline__ real_t divide(real_t a, real_t b) { return __ddiv_rn(a, b); }
#else
typedef float real_t;
__device__ __forceinline__ real_t add(real_t a, real_t b) { return __fadd_rn(a, b); }
__device__ __forceinline__ real_t multiply(real_t a, real_t b) { return __fmul_rn(a, b); }
__device__ __forceinline__ real_t divide(real_t a, real_t b) { return __fdiv_rn(a, b); }
#endif

typedef unsigned long long word_t;

constexpr int THREADS = 256;

struct alignas(sizeof(real_t) * 4) Box {
  real_t x0, y0, x1, y1;

  __device__ __forceinline__ real_t area() const {
    return multiply(add(x1, -x0), add(y1, -y0));
  }
};

// Length of what two intervals share. With NaN, what the host makes of it.
__device__ __forceinline__ real_t shared_side(real_t low, real_t other_low, real_t high, real_t other_high) {
  low = low > other_low ? low : other_low;
  high = high < other_high ? high : other_high;
  return high > low ? add(high, -low) : real_t(0);
}

__device__ __forceinline__ real_t overlap(const Box& a, real_t area, const Box& b) {
  const real_t shared =
      multiply(shared_side(a.x0, b.x0, a.x1, b.x1), shared_side(a.y0, b.y0, a.y1, b.y1));
  return divide(shared, add(add(area, b.area()), -shared));
}

// boxes [count], groups and starts [count]: the group of each box and where it begins. Writes held
// [words, count]: bit b of word w of a box says that the box at 64 w + b of its group, which comes before it,
// overlaps it by more than the threshold. Words of boxes that come later are not written. Of a group at most
// `largest` boxes are looked at, and none of a negative group. `threshold` is one number of the device's memory.
extern "C" __global__ void __launch_bounds__(THREADS) nms_overlaps(
    const Box* __restrict__ boxes,
    const long long* __restrict__ groups,
    const int* __restrict__ starts,
    const real_t* __restrict__ threshold,
    word_t* __restrict__ held,
    int count,
    int words,
    int largest) {
  const unsigned thread = blockIdx.x * static_cast<unsigned>(THREADS) + threadIdx.x;
  const int word = thread / count, at = thread % count;
  if (word >= words || groups[at] < 0) {
    return;
  }
  const int start = starts[at], place = at - start;
  if (place >= largest || word * 64 > place) {
    return;
  }
  const Box box = boxes[at];
  const real_t area = box.area(), limit = *threshold;
  const int before = min(64, place - word * 64);
  const Box* others = boxes + start + word * 64;
  word_t bits = 0;
  for (int other = 0; other < before; ++other) {
    if (overlap(box, area, others[other]) > limit) {
      bits |= word_t(1) << other;
    }
  }
  held[static_cast<size_t>(word) * count + at] = bits;
}

// Writes stays [count], at the rows that `rows` names. A warp sees to the groups that begin at 32 boxes of
// its own, one after the other, and walks through a group 64 boxes at a time: each thread has two. Scratch: kept
// [count], of which a group has a word for each 64 boxes, from its start on.
extern "C" __global__ void __launch_bounds__(THREADS) nms_decide(
    const long long* __restrict__ groups,
    const int* __restrict__ starts,
    const word_t* __restrict__ held,
    const long long* __restrict__ rows,
    volatile word_t* kept,
    unsigned char* __restrict__ stays,
    int count,
    int largest) {
  constexpr unsigned ALL = 0xffffffffu;
  const int lane = threadIdx.x % 32;
  const long long first =
      (static_cast<long long>(blockIdx.x) * THREADS + threadIdx.x) / 32 * 32;
  const bool mine = first + lane < count;
  const bool counts = mine && groups[first + lane] >= 0;
  if (mine && !counts) {
    stays[rows[first + lane]] = 0;
  }
  unsigned begins = __ballot_sync(ALL, counts && starts[first + lane] == first + lane);
  for (; begins != 0; begins &= begins - 1) {
    const int start = static_cast<int>(first) + __ffs(begins) - 1;
    for (int word = 0;; ++word) {
      int at[2];
      bool in_group[2], free[2];
      word_t own[2];
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int place = word * 64 + half * 32 + lane;
        at[half] = start + place;
        in_group[half] = place < count - start && starts[at[half]] == start;
        free[half] = in_group[half] && place < largest;
        own[half] = 0;
      }
      // Held back by boxes of former words that stay.
      word_t back[2] = {0, 0};
#pragma unroll 4
      for (int former = 0; former < word; ++former) {
        const word_t others = kept[start + former];
        const word_t* row = held + static_cast<size_t>(former) * count;
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          back[half] |= free[half] ? row[at[half]] & others : 0;
        }
      }
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        own[half] = free[half] ? held[static_cast<size_t>(word) * count + at[half]] : 0;
        free[half] = free[half] && back[half] == 0;
      }
      // Among these 64: whoever is held back by none that stays, stays. Each round is right for one box
      // more of a chain at least, and nothing changes once all are.
      word_t staying = 0, before;
      bool stay[2] = {free[0], free[1]};
      staying = __ballot_sync(ALL, stay[0]) | word_t(__ballot_sync(ALL, stay[1])) << 32;
      do {
        before = staying;
        stay[0] = free[0] && (own[0] & before) == 0;
        stay[1] = free[1] && (own[1] & before) == 0;
        staying = __ballot_sync(ALL, stay[0]) | word_t(__ballot_sync(ALL, stay[1])) << 32;
      } while (staying != before);
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        if (in_group[half]) {
          stays[rows[at[half]]] = stay[half];
        }
      }
      // Whether the group goes on behind the last of the 64.
      const bool more = __shfl_sync(ALL, in_group[1], 31);
      if (!more) {
        break;
      }
      if (lane == 0) {
        kept[start + word] = staying;
      }
      __threadfence_block();
      __syncwarp();
    }
  }
}

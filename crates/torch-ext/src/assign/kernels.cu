// The linear assignment problem by shortest augmenting paths (Jonker and Volgenant 1987, in the form of
// Crouse 2016), a block a problem: what a path looks for next, all threads look for together. Rows are
// targets, columns are queries. Costs are f32, their sums f64. Compiled behind cuda/values.cuh.

constexpr int THREADS = 256;
constexpr int WARPS = THREADS / 32;
constexpr int NONE = 0x7fffffff;

// A column that a path may go on to: the least, free ones before others, the first of equals.
struct Column {
  double cost;
  int number;
  bool taken;

  __device__ __forceinline__ bool before(const Column& other) const {
    if (cost != other.cost) {
      return cost < other.cost;
    }
    if (taken != other.taken) {
      return other.taken;
    }
    return number < other.number;
  }

  __device__ __forceinline__ Column least_of_warp() const {
    Column least = *this;
#pragma unroll
    for (int step = 16; step > 0; step /= 2) {
      const Column other = {
          __shfl_xor_sync(0xffffffffu, least.cost, step),
          __shfl_xor_sync(0xffffffffu, least.number, step),
          __shfl_xor_sync(0xffffffffu, static_cast<int>(least.taken), step) != 0};
      if (other.before(least)) {
        least = other;
      }
    }
    return least;
  }
};

__device__ __forceinline__ double infinity() {
  return __longlong_as_double(0x7ff0000000000000ll);
}

// cost [problems, rows, columns]; counts [images], of which each is the number of rows of the problems
// of an image: at most `rows`, at most `columns`. Writes query [problems, rows], -1 beyond an image's
// count, and finite [problems]: zero, or NaN where a cost is not finite (the queries are then 0, 1, 2 …).
// At most 64 columns a thread.
//
// Scratch, by problem: potential and shortest [columns], of_row [rows], via and row_of [columns],
// column_of [rows].
extern "C" __global__ void __launch_bounds__(THREADS) assign(
    const float* __restrict__ all_costs,
    const long long* __restrict__ counts,
    long long* __restrict__ all_queries,
    float* __restrict__ finite,
    double* __restrict__ doubles,
    int* __restrict__ ints,
    int images,
    int rows,
    int columns) {
  __shared__ bool wrong;
  __shared__ Column of_warps[2][WARPS];
  const int thread = threadIdx.x, warp = thread / 32, lane = thread % 32;
  const size_t problem = blockIdx.x;
  const int count = static_cast<int>(counts[problem % images]);
  const float* cost = all_costs + problem * rows * columns;
  long long* query = all_queries + problem * rows;
  double* potential = doubles + problem * (2 * columns + rows);
  double* shortest = potential + columns;
  double* of_row = shortest + columns;
  int* via = ints + problem * (2 * columns + rows);
  int* row_of = via + columns;
  int* column_of = row_of + columns;

  if (thread == 0) {
    wrong = false;
  }
  for (int j = thread; j < columns; j += THREADS) {
    potential[j] = 0.0;
    row_of[j] = NONE;
  }
  __syncthreads();
  // Each row wants its least column; of those that want the same the first row gets it.
  for (int i = warp; i < count; i += WARPS) {
    Column least = {infinity(), NONE, false};
    bool bad = false;
    for (int j = lane; j < columns; j += 32) {
      const float c = cost[static_cast<size_t>(i) * columns + j];
      bad = bad || !isfinite(c);
      const Column column = {c, j, false};
      if (column.before(least)) {
        least = column;
      }
    }
    least = least.least_of_warp();
    if (bad) {
      wrong = true;
    }
    if (lane == 0 && least.number != NONE) {
      of_row[i] = least.cost;
      column_of[i] = least.number;
      atomicMin(row_of + least.number, i);
    }
  }
  __syncthreads();
  if (wrong) {
    for (int i = thread; i < rows; i += THREADS) {
      query[i] = i < count ? i : -1;
    }
    if (thread == 0) {
      finite[problem] = __uint_as_float(0x7fc00000u);
    }
    return;
  }
  for (int i = thread; i < count; i += THREADS) {
    if (row_of[column_of[i]] != i) {
      column_of[i] = NONE;
    }
  }
  __syncthreads();

  int turn = 0;
  for (int start = 0; start < count; ++start) {
    if (column_of[start] != NONE) {
      continue;
    }
    for (int j = thread; j < columns; j += THREADS) {
      shortest[j] = infinity();
    }
    // Columns that the path has reached, of this thread.
    unsigned long long reached = 0;
    int row = start;
    Column next = {0.0, NONE, false};
    while (row != NONE) {
      Column least = {infinity(), NONE, true};
      const double before = next.cost - of_row[row];
      for (int j = thread, k = 0; j < columns; j += THREADS, ++k) {
        if (reached >> k & 1) {
          continue;
        }
        const double length = before + cost[static_cast<size_t>(row) * columns + j] - potential[j];
        if (length < shortest[j]) {
          shortest[j] = length;
          via[j] = row;
        }
        const Column column = {shortest[j], j, row_of[j] != NONE};
        if (column.before(least)) {
          least = column;
        }
      }
      least = least.least_of_warp();
      // Two places in turns: nobody writes what another may still read.
      if (lane == 0) {
        of_warps[turn][warp] = least;
      }
      __syncthreads();
      next = of_warps[turn][0];
#pragma unroll
      for (int i = 1; i < WARPS; ++i) {
        if (of_warps[turn][i].before(next)) {
          next = of_warps[turn][i];
        }
      }
      turn = 1 - turn;
      if (next.number % THREADS == thread) {
        reached |= 1ull << (next.number / THREADS);
      }
      row = row_of[next.number];
    }
    for (int j = thread, k = 0; j < columns; j += THREADS, ++k) {
      if (reached >> k & 1 && j != next.number) {
        const double by = next.cost - shortest[j];
        potential[j] -= by;
        of_row[row_of[j]] += by;
      }
    }
    if (thread == 0) {
      of_row[start] += next.cost;
    }
    __syncthreads();
    if (thread == 0) {
      int column = next.number;
      while (true) {
        const int i = via[column];
        row_of[column] = i;
        const int taken = column_of[i];
        column_of[i] = column;
        if (i == start) {
          break;
        }
        column = taken;
      }
    }
    __syncthreads();
  }
  for (int i = thread; i < rows; i += THREADS) {
    query[i] = i < count ? column_of[i] : -1;
  }
  if (thread == 0) {
    finite[problem] = 0.0f;
  }
}

// The adapter's thin matrix products: a tall matrix, read once, times a few columns.
//
// Each block of threads takes kRows rows and all columns and walks along the inner dimension, with several
// tiles on their way from memory at a time. The r x r product that follows is made from the result while it is
// still in shared memory.
#include "common.cuh"

namespace fedft {
namespace {

constexpr int kDepth = 64;   // inner dimension of a tile
constexpr int kStages = 4;   // tiles in flight
constexpr int kPad = 8;      // elements after each row in shared memory: fragment loads never collide
constexpr int kPitch = kDepth + kPad;
constexpr int kMaxColumns = 192;
constexpr int kPartialRows = 64;  // rows behind one partial sum of R's gradient

// Two neighbouring elements as the tensor cores take them.
template <typename T>
__device__ uint32_t pair_at(const T* p) {
  return *reinterpret_cast<const uint32_t*>(p);
}

template <typename T>
__device__ uint32_t pair_of(T low, T high) {
  T both[2] = {low, high};
  uint32_t bits;
  memcpy(&bits, both, 4);
  return bits;
}

// The fragment of rows g and g + 8 of a row-major matrix, 16 columns from `p`.
template <typename T>
__device__ void load_rows(uint32_t (&a)[4], const T* p, int pitch, int g, int t) {
  a[0] = pair_at(p + g * pitch + 2 * t);
  a[1] = pair_at(p + (g + 8) * pitch + 2 * t);
  a[2] = pair_at(p + g * pitch + 2 * t + 8);
  a[3] = pair_at(p + (g + 8) * pitch + 2 * t + 8);
}

// Starts copying a tile, `rows` x kDepth, of a row-major matrix; zeros where the matrix ends.
template <typename T, int kRows, int kThreads>
__device__ void copy_tile(T* tile, const T* matrix, int64_t first_row, int64_t rows, int64_t column, int64_t columns) {
  constexpr int kChunks = kDepth / 8;  // of 16 bytes
  for (int c = static_cast<int>(threadIdx.x); c < kRows * kChunks; c += kThreads) {
    const int row = c / kChunks, chunk = c % kChunks * 8;
    const bool inside = first_row + row < rows && column + chunk < columns;
    const T* from = inside ? matrix + (first_row + row) * columns + column + chunk : matrix;
    copy_async(tile + row * kPitch + chunk, from, inside);
  }
}

// partial[part] = scale * yᵀ u over each kPartialRows rows of a block, of which `rows` exist; both factors are read
// down their columns.
template <typename T, int kRows, int kWide>
__device__ void gradient_of_R(const T* y, const T* u, float scale, int64_t rows, int r, float* partial) {
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  const int g = lane / 4, t = lane % 4;
  for (int part = 0; part < kRows / kPartialRows; ++part) {
    if (part * kPartialRows >= rows) return;
    float* result = partial + part * r * r;
    for (int tile = warp; tile < r / 16 * (r / 8); tile += kRows / 16) {
      const int m = tile % (r / 16) * 16, c = tile / (r / 16) * 8;
      float product[4] = {};
      for (int k = part * kPartialRows; k < (part + 1) * kPartialRows; k += 16) {
        const T* l = y + (k + 2 * t) * kWide + m + g;
        const T* p = u + (k + 2 * t) * kWide + c + g;
        const T* l8 = l + 8 * kWide;
        const T* p8 = p + 8 * kWide;
        const uint32_t left[4] = {pair_of(l[0], l[kWide]), pair_of(l[8], l[kWide + 8]), pair_of(l8[0], l8[kWide]),
                                  pair_of(l8[8], l8[kWide + 8])};
        const uint32_t right[2] = {pair_of(p[0], p[kWide]), pair_of(p8[0], p8[kWide])};
        multiply<T>(product, left, right);
      }
      for (int half = 0; half < 2; ++half) {
        result[(m + g + half * 8) * r + c + 2 * t] = scale * product[2 * half];
        result[(m + g + half * 8) * r + c + 2 * t + 1] = scale * product[2 * half + 1];
      }
    }
  }
}

// y = x aᵀ [n, kColumns] for x[n, inner], a[columns, inner]; then per group z_g = scale * y_g M_g with M_g = R_gᵀ, or
// R_g when kBackward. kBackward also adds up partial[block] = scale * yᵀ u over the block's rows.
template <typename T, int kRows, int kColumns, bool kBackward>
__global__ void __launch_bounds__(kRows * 2)
    thin(const T* x, const T* a, const float* R, const T* u, float scale, int64_t n, int64_t inner, int columns, int r,
         T* y, T* z, float* partial) {
  constexpr int kThreads = kRows * 2;  // a warp for every 16 rows
  constexpr int kTiles = kColumns / 8;
  constexpr int kStage = (kRows + kColumns) * kPitch;
  FEDFT_DYNAMIC_SHARED(shared);
  T* stages = reinterpret_cast<T*>(shared);
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  const int g = lane / 4, t = lane % 4;
  const int64_t first = static_cast<int64_t>(blockIdx.x) * kRows;
  const int steps = static_cast<int>((inner + kDepth - 1) / kDepth);

  const auto fetch = [&](int step) {
    if (step < steps) {
      T* stage = stages + step % kStages * kStage;
      copy_tile<T, kRows, kThreads>(stage, x, first, n, static_cast<int64_t>(step) * kDepth, inner);
      copy_tile<T, kColumns, kThreads>(stage + kRows * kPitch, a, 0, columns, static_cast<int64_t>(step) * kDepth,
                                       inner);
    }
    commit_copies();  // an empty group at the end keeps the count of groups right
  };

  float sum[kTiles][4] = {};
  for (int step = 0; step < kStages - 1; ++step) fetch(step);
  for (int step = 0; step < steps; ++step) {
    wait_copies<kStages - 2>();
    __syncthreads();  // the tile is there for all, and nobody reads the one that is overwritten next
    fetch(step + kStages - 1);
    const T* rows = stages + step % kStages * kStage + warp * 16 * kPitch;
    const T* cols = stages + step % kStages * kStage + kRows * kPitch;
#pragma unroll
    for (int k = 0; k < kDepth; k += 16) {
      uint32_t left[4];
      load_rows(left, rows + k, kPitch, g, t);
#pragma unroll
      for (int tile = 0; tile < kTiles; ++tile) {
        const T* p = cols + (tile * 8 + g) * kPitch + k + 2 * t;
        const uint32_t right[2] = {pair_at(p), pair_at(p + 8)};
        multiply<T>(sum[tile], left, right);
      }
    }
  }
  wait_copies<0>();
  __syncthreads();

  // From here on the stages hold y [kRows, kColumns], M [columns, r] with M transposed, and u.
  constexpr int kWide = kColumns + kPad;
  T* own = stages;
  T* square = own + kRows * kWide;
  const int narrow = r + kPad;
#pragma unroll
  for (int tile = 0; tile < kTiles; ++tile) {
    T* p = own + (warp * 16 + g) * kWide + tile * 8 + 2 * t;
    *reinterpret_cast<uint32_t*>(p) = pair_of(from_float<T>(sum[tile][0]), from_float<T>(sum[tile][1]));
    *reinterpret_cast<uint32_t*>(p + 8 * kWide) = pair_of(from_float<T>(sum[tile][2]), from_float<T>(sum[tile][3]));
  }
  for (int i = static_cast<int>(threadIdx.x); i < columns * r; i += kThreads) {
    const int group = i / (r * r), row = i / r % r, column = i % r;
    const int at = kBackward ? column * narrow + row : row * narrow + column;
    square[group * r * narrow + at] = from_float<T>(R[i]);
  }
  T* other = square + columns * narrow;
  if (kBackward) {
    for (int i = static_cast<int>(threadIdx.x); i < kRows * columns; i += kThreads) {
      const int row = i / columns, column = i % columns;
      other[row * kWide + column] = first + row < n ? u[(first + row) * columns + column] : from_float<T>(0.0f);
    }
  }
  __syncthreads();

  for (int i = static_cast<int>(threadIdx.x); i < kRows * columns; i += kThreads) {
    const int row = i / columns, column = i % columns;
    if (first + row < n) y[(first + row) * columns + column] = own[row * kWide + column];
  }
  for (int tile = 0; tile < columns / 8; ++tile) {
    const int group = tile * 8 / r;
    const T* matrix = square + group * r * narrow + (tile * 8 % r) * narrow;
    float product[4] = {};
    for (int k = 0; k < r; k += 16) {
      uint32_t left[4];
      load_rows(left, own + warp * 16 * kWide + group * r + k, kWide, g, t);
      const T* p = matrix + g * narrow + k + 2 * t;
      const uint32_t right[2] = {pair_at(p), pair_at(p + 8)};
      multiply<T>(product, left, right);
    }
    for (int half = 0; half < 2; ++half) {
      const int64_t row = first + warp * 16 + g + half * 8;
      if (row < n)
        *reinterpret_cast<uint32_t*>(z + row * columns + tile * 8 + 2 * t) =
            pair_of(from_float<T>(scale * product[2 * half]), from_float<T>(scale * product[2 * half + 1]));
    }
  }
  if constexpr (kBackward)
    gradient_of_R<T, kRows, kWide>(own, other, scale, n - first, r,
                                   partial + static_cast<int64_t>(blockIdx.x) * (kRows / kPartialRows) * r * r);
}

// out[i] = Σ_p partial[p][i] in a fixed order: eight threads for each i, then their sums.
__global__ void reduce(const float* partial, int64_t count, int size, float* out) {
  __shared__ float sums[8][32];
  const int x = static_cast<int>(threadIdx.x) % 32, slice = static_cast<int>(threadIdx.x) / 32;
  const int i = static_cast<int>(blockIdx.x) * 32 + x;
  float sum = 0.0f;
#pragma unroll 4
  for (int64_t p = slice; p < count; p += 8) sum += i < size ? partial[p * size + i] : 0.0f;
  sums[slice][x] = sum;
  __syncthreads();
  if (slice != 0 || i >= size) return;
  for (int other = 1; other < 8; ++other) sum += sums[other][x];
  out[i] = sum;
}

template <typename T, int kRows, int kColumns, bool kBackward>
int launch_thin(const void* x, const void* a, const float* R, const void* u, float scale, int64_t n, int64_t inner,
                int columns, int r, void* y, void* z, float* partial, void* stream) {
  constexpr size_t kStagesBytes = sizeof(T) * kStages * (kRows + kColumns) * kPitch;
  const size_t after = sizeof(T) * (static_cast<size_t>(kRows) * (kColumns + kPad) * (kBackward ? 2 : 1) +
                                    static_cast<size_t>(columns) * static_cast<size_t>(r + kPad));
  const size_t bytes = after > kStagesBytes ? after : kStagesBytes;
  const auto kernel = thin<T, kRows, kColumns, kBackward>;
  const cudaError_t error =
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes));
  if (error != cudaSuccess) return FEDFT_CUDA_ERROR + static_cast<int>(error);
  const int64_t grid = ceil_div(n, kRows);
  if (!fits(grid)) return FEDFT_UNSUPPORTED;
  FEDFT_LAUNCH(kernel, grid_of(grid), kRows * 2, bytes, stream, static_cast<const T*>(x), static_cast<const T*>(a), R,
               static_cast<const T*>(u), scale, n, inner, columns, r, static_cast<T*>(y), static_cast<T*>(z), partial);
  return launched();
}

// Fewer rows a block where blocks are few, more where the repeated reading of `a` would cost.
template <typename T, int kColumns, bool kBackward, typename... Args>
int choose_rows(int64_t n, const Args&... args) {
  return n >= 4096 ? launch_thin<T, 128, kColumns, kBackward>(args...)
                   : launch_thin<T, 64, kColumns, kBackward>(args...);
}

template <bool kBackward, typename T, typename... Args>
int choose_columns(int columns, int64_t n, const Args&... args) {
  if (columns <= 16) return choose_rows<T, 16, kBackward>(n, args...);
  if (columns <= 32) return choose_rows<T, 32, kBackward>(n, args...);
  if (columns <= 64) return choose_rows<T, 64, kBackward>(n, args...);
  if (columns <= 128) return choose_rows<T, 128, kBackward>(n, args...);
  return launch_thin<T, 64, kMaxColumns, kBackward>(args...);
}

bool aligned(const void* p) { return reinterpret_cast<uintptr_t>(p) % 16 == 0; }

template <bool kBackward>
int run(const void* x, const void* a, const float* R, const void* u, float scale, int dtype, int64_t n, int64_t inner,
        int columns, int r, void* y, void* z, float* partial, void* stream) {
  const bool fitting = r >= 16 && r % 16 == 0 && columns <= kMaxColumns && inner > 0 && inner % 8 == 0;
  if (!fitting || !aligned(x) || !aligned(a) || !aligned(z)) return FEDFT_UNSUPPORTED;
  if (n == 0) return FEDFT_OK;
  if (dtype == FEDFT_BF16)
    return choose_columns<kBackward, __nv_bfloat16>(columns, n, x, a, R, u, scale, n, inner, columns, r, y, z, partial,
                                                    stream);
  if (dtype == FEDFT_F16)
    return choose_columns<kBackward, __half>(columns, n, x, a, R, u, scale, n, inner, columns, r, y, z, partial,
                                             stream);
  return FEDFT_UNSUPPORTED;
}

}  // namespace
}  // namespace fedft

using namespace fedft;

int fedft_cuda_adapter_down(const void* x, const void* a, const float* R, float scale, int dtype, int64_t n, int64_t in,
                            int groups, int r, void* u, void* w, void* stream) {
  if (n < 0 || groups < 1 || r < 1) return FEDFT_BAD_ARGUMENT;
  return run<false>(x, a, R, nullptr, scale, dtype, n, in, groups * r, r, u, w, nullptr, stream);
}

int64_t fedft_cuda_adapter_partials(int64_t n) { return ceil_div(n, kPartialRows); }

int fedft_cuda_adapter_up_bwd(const void* g, const void* bt, const float* R, const void* u, float scale, int dtype,
                              int64_t n, int64_t out, int r, void* v, void* z, float* partial, float* gR,
                              void* stream) {
  if (n < 0 || r < 1) return FEDFT_BAD_ARGUMENT;
  const int status = run<true>(g, bt, R, u, scale, dtype, n, out, r, r, v, z, partial, stream);
  if (status != FEDFT_OK) return status;
  FEDFT_LAUNCH(reduce, grid_of(ceil_div(r * r, 32)), 256, 0, stream, partial, fedft_cuda_adapter_partials(n), r * r, gR);
  return launched();
}

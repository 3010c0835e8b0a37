// Ternary bit planes, the same bits as the CPU library.
#include "common.cuh"

namespace fedft {
namespace {

constexpr int kThreads = 256;

// One thread an element; a warp's votes are four bytes of each plane.
template <typename T>
__global__ void pack(const T* x, int64_t n, uint8_t* pos, uint8_t* neg) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  const T value = i < n ? x[i] : T(0);
  const unsigned plus = __ballot_sync(0xffffffffu, value > T(0)), minus = __ballot_sync(0xffffffffu, value < T(0));
  const int lane = static_cast<int>(threadIdx.x % 32);
  if (lane % 8 == 0 && i < n) {
    pos[i / 8] = static_cast<uint8_t>(plus >> lane);
    neg[i / 8] = static_cast<uint8_t>(minus >> lane);
  }
}

__device__ int sign_at(const uint8_t* pos, const uint8_t* neg, int64_t i) {
  return (pos[i / 8] >> (i % 8) & 1) - (neg[i / 8] >> (i % 8) & 1);
}

__global__ void unpack_i8(const uint8_t* pos, const uint8_t* neg, int64_t n, int8_t* out) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i < n) out[i] = static_cast<int8_t>(sign_at(pos, neg, i));
}

__global__ void unpack_f32(const uint8_t* pos, const uint8_t* neg, int64_t n, float scale, float* out) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= n) return;
  const int t = sign_at(pos, neg, i);
  out[i] = t == 0 ? 0.0f : t > 0 ? scale : -scale;
}

__global__ void add_f32(const uint8_t* pos, const uint8_t* neg, int64_t n, float scale, float* sum) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= n) return;
  const int t = sign_at(pos, neg, i);
  if (t != 0) sum[i] = __fadd_rn(sum[i], t > 0 ? scale : -scale);
}

__global__ void accumulate(const uint8_t* pos, const uint8_t* neg, int64_t clients, int64_t n, const int64_t* weights,
                           int64_t* sum) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= n) return;
  const int64_t stride = (n + 7) / 8;
  uint64_t total = static_cast<uint64_t>(sum[i]);
  for (int64_t c = 0; c < clients; ++c) {
    const int t = sign_at(pos + c * stride, neg + c * stride, i);
    total += static_cast<uint64_t>(static_cast<int64_t>(t)) * static_cast<uint64_t>(weights[c]);
  }
  sum[i] = static_cast<int64_t>(total);
}

}  // namespace
}  // namespace fedft

using namespace fedft;

int fedft_cuda_ternary_pack(const void* x, int is_float, int64_t n, uint8_t* pos, uint8_t* neg, void* stream) {
  if (n <= 0) return n < 0 ? FEDFT_BAD_ARGUMENT : FEDFT_OK;
  const int64_t grid = ceil_div(n, kThreads);
  if (!fits(grid)) return FEDFT_UNSUPPORTED;
  if (is_float)
    FEDFT_LAUNCH(pack<float>, grid_of(grid), kThreads, 0, stream, static_cast<const float*>(x), n, pos, neg);
  else
    FEDFT_LAUNCH(pack<int8_t>, grid_of(grid), kThreads, 0, stream, static_cast<const int8_t*>(x), n, pos, neg);
  return launched();
}

int fedft_cuda_ternary_unpack(const uint8_t* pos, const uint8_t* neg, int64_t n, float scale, int is_float, void* out,
                              void* stream) {
  if (n <= 0) return n < 0 ? FEDFT_BAD_ARGUMENT : FEDFT_OK;
  const int64_t grid = ceil_div(n, kThreads);
  if (!fits(grid)) return FEDFT_UNSUPPORTED;
  if (is_float)
    FEDFT_LAUNCH(unpack_f32, grid_of(grid), kThreads, 0, stream, pos, neg, n, scale, static_cast<float*>(out));
  else
    FEDFT_LAUNCH(unpack_i8, grid_of(grid), kThreads, 0, stream, pos, neg, n, static_cast<int8_t*>(out));
  return launched();
}

int fedft_cuda_ternary_add_f32(const uint8_t* pos, const uint8_t* neg, int64_t n, float scale, float* sum,
                               void* stream) {
  if (n <= 0) return n < 0 ? FEDFT_BAD_ARGUMENT : FEDFT_OK;
  const int64_t grid = ceil_div(n, kThreads);
  if (!fits(grid)) return FEDFT_UNSUPPORTED;
  FEDFT_LAUNCH(add_f32, grid_of(grid), kThreads, 0, stream, pos, neg, n, scale, sum);
  return launched();
}

int fedft_cuda_ternary_accumulate(const uint8_t* pos, const uint8_t* neg, int64_t clients, int64_t n,
                                  const int64_t* weights, int64_t* sum, void* stream) {
  if (n < 0 || clients < 0) return FEDFT_BAD_ARGUMENT;
  if (n == 0 || clients == 0) return FEDFT_OK;
  const int64_t grid = ceil_div(n, kThreads);
  if (!fits(grid)) return FEDFT_UNSUPPORTED;
  FEDFT_LAUNCH(accumulate, grid_of(grid), kThreads, 0, stream, pos, neg, clients, n, weights, sum);
  return launched();
}

// Per-sample gradients of R, their norms, and the clipped sum.
#include "common.cuh"

namespace fedft {
namespace {

constexpr int kTile = 32;

// One block a tile of 32 x 32 of one sample's G = scale * vᵀ u.
template <typename T>
__global__ void per_sample(const T* u, const T* v, const int64_t* seg, int r, float scale, float* G) {
  __shared__ float left[kTile][kTile + 1], right[kTile][kTile + 1];  // [row][column]
  const int64_t sample = blockIdx.x;
  const int x = static_cast<int>(threadIdx.x) % kTile, y = static_cast<int>(threadIdx.x) / kTile;  // y: 0 to 7
  const int m = static_cast<int>(blockIdx.y) * kTile, c = static_cast<int>(blockIdx.z) * kTile;
  float sum[4] = {};
  for (int64_t start = seg[sample]; start < seg[sample + 1]; start += kTile) {
    for (int row = y; row < kTile; row += 8) {
      const int64_t at = start + row;
      const bool inside = at < seg[sample + 1];
      left[row][x] = inside && m + x < r ? to_float(v[at * r + m + x]) : 0.0f;
      right[row][x] = inside && c + x < r ? to_float(u[at * r + c + x]) : 0.0f;
    }
    __syncthreads();
    for (int row = 0; row < kTile; ++row)
      for (int i = 0; i < 4; ++i) sum[i] += left[row][y + 8 * i] * right[row][x];
    __syncthreads();
  }
  for (int i = 0; i < 4; ++i)
    if (m + y + 8 * i < r && c + x < r) G[(sample * r + m + y + 8 * i) * r + c + x] = scale * sum[i];
}

// One block a sample: |G|², summed in a fixed order.
__global__ void square_norms(const float* G, int size, float* sqnorm, int add) {
  __shared__ float sums[256];
  float sum = 0.0f;
  for (int i = static_cast<int>(threadIdx.x); i < size; i += 256) {
    const float value = G[static_cast<int64_t>(blockIdx.x) * size + i];
    sum += value * value;
  }
  sums[threadIdx.x] = sum;
  for (unsigned half = 128; half > 0; half /= 2) {
    __syncthreads();
    if (threadIdx.x < half) sums[threadIdx.x] += sums[threadIdx.x + half];
  }
  if (threadIdx.x == 0) sqnorm[blockIdx.x] = (add ? sqnorm[blockIdx.x] : 0.0f) + sums[0];
}

__global__ void clip_and_sum(const float* G, const float* sqnorm, int64_t b, int size, float clip, float* out) {
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i >= size) return;
  float sum = 0.0f;
  for (int64_t s = 0; s < b; ++s) {
    // Rounded down, so that the clipped norm is never above the limit.
    const float factor = fminf(1.0f, __fdiv_rd(clip, __fsqrt_ru(sqnorm[s])));
    sum = __fadd_rn(sum, __fmul_rn(factor, G[s * size + i]));
  }
  out[i] = sum;
}

}  // namespace
}  // namespace fedft

using namespace fedft;

int fedft_cuda_adapter_grad_persample(const void* u, const void* v, const int64_t* seg, int64_t b, int r, float scale,
                                      int dtype, float* G, float* sqnorm, int add, void* stream) {
  if (b < 0 || r < 1) return FEDFT_BAD_ARGUMENT;
  if (b == 0) return FEDFT_OK;
  const unsigned tiles = static_cast<unsigned>(ceil_div(r, kTile));
  if (!fits(b) || tiles > 1000) return FEDFT_UNSUPPORTED;
  const dim3 grid(static_cast<unsigned>(b), tiles, tiles);
  switch (dtype) {
    case FEDFT_F32:
      FEDFT_LAUNCH(per_sample<float>, grid, 256, 0, stream, static_cast<const float*>(u),
                        static_cast<const float*>(v), seg, r, scale, G);
      break;
    case FEDFT_BF16:
      FEDFT_LAUNCH(per_sample<__nv_bfloat16>, grid, 256, 0, stream, static_cast<const __nv_bfloat16*>(u),
                        static_cast<const __nv_bfloat16*>(v), seg, r, scale, G);
      break;
    case FEDFT_F16:
      FEDFT_LAUNCH(per_sample<__half>, grid, 256, 0, stream, static_cast<const __half*>(u),
                        static_cast<const __half*>(v), seg, r, scale, G);
      break;
    default: return FEDFT_BAD_ARGUMENT;
  }
  const int status = launched();
  if (status != FEDFT_OK) return status;
  FEDFT_LAUNCH(square_norms, grid_of(b), 256, 0, stream, G, r * r, sqnorm, add);
  return launched();
}

int fedft_cuda_clip_accumulate(const float* G, const float* sqnorm, int64_t b, int r, float clip, float* sum,
                               void* stream) {
  if (b < 0 || r < 1) return FEDFT_BAD_ARGUMENT;
  FEDFT_LAUNCH(clip_and_sum, grid_of(ceil_div(r * r, 256)), 256, 0, stream, G, sqnorm, b, r * r, clip, sum);
  return launched();
}

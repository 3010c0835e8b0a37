// NF4 quantisation and dequantisation, the same bits as the CPU library.
#include "common.cuh"

namespace fedft {
namespace {

constexpr int kBlock = 64;
constexpr int kNested = 256;
constexpr int kThreads = 256;
constexpr int kPerThread = 8;  // weights: four packed bytes, one 16-byte store of a 16-bit type
constexpr int kTeam = kBlock / kPerThread;
constexpr int kUnroll = 4;  // independent loads in flight for each thread

__constant__ const float kCode[16] = {
    -1.0f, -0.6961928009986877f, -0.5250730514526367f, -0.39491748809814453f, -0.28444138169288635f,
    -0.18477343022823334f, -0.09105003625154495f, 0.0f, 0.07958029955625534f, 0.16093020141124725f,
    0.24611230194568634f, 0.33791524171829224f, 0.44070982933044434f, 0.5626170039176941f, 0.7229568362236023f, 1.0f};
constexpr float kMinScale = 1e-38f;

__device__ float level(int i) { return kCode[i]; }

// The number of midpoints below x: the nearest level, the lower one on a tie.
__device__ unsigned nearest(float x) {
  int c = 0;
#pragma unroll
  for (int half = 8; half > 0; half /= 2) {
    const int below = c + half - 1;
    c += x > __fmul_rn(__fadd_rn(level(below), level(below + 1)), 0.5f) ? half : 0;
  }
  return static_cast<unsigned>(c);
}

// Eight threads a block of 64. A partial last block is divided by its absmax, as on the CPU.
template <typename T>
__global__ void quantize(const T* w, int64_t n, uint8_t* q, float* absmax) {
  const int64_t thread = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  const int64_t start = thread * kPerThread, block = thread / kTeam;
  float x[kPerThread];
  unsigned largest = 0;  // the bits of non-negative floats are ordered like the floats
#pragma unroll
  for (int i = 0; i < kPerThread; ++i) {
    x[i] = start + i < n ? to_float(w[start + i]) : 0.0f;
    largest = max(largest, __float_as_uint(x[i]) & 0x7fffffffu);
  }
#pragma unroll
  for (int other = kTeam / 2; other > 0; other /= 2)
    largest = max(largest, __shfl_xor_sync(0xffffffffu, largest, other));
  const float scale = __uint_as_float(largest), divisor = fmaxf(scale, kMinScale);
  const bool partial = (block + 1) * kBlock > n;
  const float inverse = __fdiv_rn(1.0f, divisor);
  if (start < n && thread % kTeam == 0) absmax[block] = partial && scale < kMinScale ? kMinScale : scale;
#pragma unroll
  for (int i = 0; i < kPerThread; i += 2) {
    if (start + i >= n) return;
    const unsigned first = nearest(partial ? __fdiv_rn(x[i], divisor) : __fmul_rn(x[i], inverse));
    const unsigned second = nearest(partial ? __fdiv_rn(x[i + 1], divisor) : __fmul_rn(x[i + 1], inverse));
    q[(start + i) / 2] = static_cast<uint8_t>(first << 4 | second);
  }
}

// The scale of block b, each product and sum rounded to float.
__device__ float scale_of(const uint8_t* q8, const float* code, const float* absmax, float offset, int64_t b) {
  if (!q8) return __ldg(absmax + b);
  return __fadd_rn(__fmul_rn(__ldg(code + __ldg(q8 + b)), __ldg(absmax + b / kNested)), offset);
}

template <typename T>
struct alignas(16) Eight {
  T value[kPerThread];
};

template <typename T>
__global__ void dequantize(const uint8_t* q, const uint8_t* q8, const float* code, const float* absmax, float offset,
                           int64_t n, T* out) {
  __shared__ float table[16];  // one level a bank: lookups never collide
  if (threadIdx.x < 16) table[threadIdx.x] = level(static_cast<int>(threadIdx.x));
  __syncthreads();
  const int64_t first = static_cast<int64_t>(blockIdx.x) * kThreads * kUnroll + threadIdx.x;
  unsigned packed[kUnroll];
  float scale[kUnroll];
#pragma unroll
  for (int k = 0; k < kUnroll; ++k) {
    const int64_t start = (first + k * kThreads) * kPerThread;
    packed[k] = 0;
    scale[k] = 0.0f;
    if (start + kPerThread <= n) packed[k] = __ldg(reinterpret_cast<const unsigned*>(q + start / 2));
    if (start < n) scale[k] = scale_of(q8, code, absmax, offset, start / kBlock);
  }
#pragma unroll
  for (int k = 0; k < kUnroll; ++k) {
    const int64_t start = (first + k * kThreads) * kPerThread;
    if (start + kPerThread <= n) {
      Eight<T> eight;
#pragma unroll
      for (int i = 0; i < kPerThread; ++i) {
        const unsigned shift = static_cast<unsigned>(i / 2 * 8 + (i % 2 == 0 ? 4 : 0));
        eight.value[i] = from_float<T>(__fmul_rn(table[packed[k] >> shift & 15u], scale[k]));
      }
      *reinterpret_cast<Eight<T>*>(out + start) = eight;
    } else {
      for (int64_t i = start; i < n; ++i)
        out[i] = from_float<T>(__fmul_rn(table[i % 2 == 0 ? q[i / 2] >> 4 : q[i / 2] & 15], scale[k]));
    }
  }
}

bool misaligned(const void* p) { return reinterpret_cast<uintptr_t>(p) % 16 != 0; }

}  // namespace
}  // namespace fedft

using namespace fedft;

int fedft_cuda_nf4_quantize(const void* w, int dtype, int64_t n, uint8_t* q, float* absmax, void* stream) {
  if (n < 0) return FEDFT_BAD_ARGUMENT;
  if (n == 0) return FEDFT_OK;
  const int64_t grid = ceil_div(n, kThreads * kPerThread);
  if (!fits(grid)) return FEDFT_UNSUPPORTED;
  switch (dtype) {
    case FEDFT_F32:
      FEDFT_LAUNCH(quantize<float>, grid_of(grid), kThreads, 0, stream, static_cast<const float*>(w), n, q, absmax);
      break;
    case FEDFT_BF16:
      FEDFT_LAUNCH(quantize<__nv_bfloat16>, grid_of(grid), kThreads, 0, stream, static_cast<const __nv_bfloat16*>(w), n, q,
                   absmax);
      break;
    case FEDFT_F16:
      FEDFT_LAUNCH(quantize<__half>, grid_of(grid), kThreads, 0, stream, static_cast<const __half*>(w), n, q, absmax);
      break;
    default: return FEDFT_BAD_ARGUMENT;
  }
  return launched();
}

int fedft_cuda_nf4_dequantize(const uint8_t* q, const uint8_t* q8, const float* code, const float* absmax,
                              float offset, int64_t n, void* out, int dtype, void* stream) {
  if (n < 0 || (q8 && !code)) return FEDFT_BAD_ARGUMENT;
  if (n == 0) return FEDFT_OK;
  if (misaligned(q) || misaligned(out)) return FEDFT_UNSUPPORTED;
  const int64_t grid = ceil_div(n, kThreads * kPerThread * kUnroll);
  if (!fits(grid)) return FEDFT_UNSUPPORTED;
  switch (dtype) {
    case FEDFT_F32:
      FEDFT_LAUNCH(dequantize<float>, grid_of(grid), kThreads, 0, stream, q, q8, code, absmax, offset, n,
                   static_cast<float*>(out));
      break;
    case FEDFT_BF16:
      FEDFT_LAUNCH(dequantize<__nv_bfloat16>, grid_of(grid), kThreads, 0, stream, q, q8, code, absmax, offset, n,
                   static_cast<__nv_bfloat16*>(out));
      break;
    case FEDFT_F16:
      FEDFT_LAUNCH(dequantize<__half>, grid_of(grid), kThreads, 0, stream, q, q8, code, absmax, offset, n,
                   static_cast<__half*>(out));
      break;
    default: return FEDFT_BAD_ARGUMENT;
  }
  return launched();
}

#if !defined(FEDFT_BUILD_ID)
#define FEDFT_BUILD_ID ""
#endif

int fedft_abi_version(void) { return FEDFT_ABI_VERSION; }
const char* fedft_build_id(void) { return FEDFT_BUILD_ID; }

const char* fedft_cuda_error_string(int status) {
  if (status >= FEDFT_CUDA_ERROR) return cudaGetErrorString(static_cast<cudaError_t>(status - FEDFT_CUDA_ERROR));
  if (status == FEDFT_UNSUPPORTED) return "no kernel for this shape or alignment";
  return status == FEDFT_OK ? "no error" : "bad argument";
}

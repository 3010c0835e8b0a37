// What the kernels share: 16-bit types, asynchronous copies, tensor-core products, launches.
//
// With FEDFT_EMULATE the same kernels compile as ordinary C++ against tests/emulate.h, which runs the threads
// of a block one after another on the processor: their arithmetic is tested on machines without a GPU.
#ifndef FEDFT_COMMON_CUH
#define FEDFT_COMMON_CUH

#include <stdint.h>

#include "fedft_cuda.h"

#if defined(FEDFT_EMULATE)
#include "emulate.h"
#else
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#define FEDFT_LAUNCH(kernel, grid, block, shared, stream, ...) \
  kernel<<<grid, block, shared, static_cast<cudaStream_t>(stream)>>>(__VA_ARGS__)
#define FEDFT_DYNAMIC_SHARED(name) extern __shared__ __align__(16) unsigned char name[]
#endif

namespace fedft {

inline int64_t ceil_div(int64_t a, int64_t b) { return a / b + (a % b != 0); }

inline int launched() {
  const cudaError_t error = cudaGetLastError();
  return error == cudaSuccess ? FEDFT_OK : FEDFT_CUDA_ERROR + static_cast<int>(error);
}

// Grids have at most 2^31 - 1 blocks in their first dimension.
inline bool fits(int64_t blocks) { return blocks > 0 && blocks <= INT32_MAX; }
inline unsigned grid_of(int64_t blocks) { return static_cast<unsigned>(blocks); }

template <typename T>
__device__ float to_float(T x);
template <>
__device__ inline float to_float(float x) {
  return x;
}
template <>
__device__ inline float to_float(__nv_bfloat16 x) {
  return __bfloat162float(x);
}
template <>
__device__ inline float to_float(__half x) {
  return __half2float(x);
}

template <typename T>
__device__ T from_float(float x);
template <>
__device__ inline float from_float(float x) {
  return x;
}
template <>
__device__ inline __nv_bfloat16 from_float(float x) {
  return __float2bfloat16_rn(x);
}
template <>
__device__ inline __half from_float(float x) {
  return __float2half_rn(x);
}

#if !defined(FEDFT_EMULATE)
// 16 bytes from global to shared memory in the background; zeros when not valid.
__device__ inline void copy_async(void* to, const void* from, bool valid) {
  const unsigned address = static_cast<unsigned>(__cvta_generic_to_shared(to));
  const int size = valid ? 16 : 0;
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\n" ::"r"(address), "l"(from), "r"(size) : "memory");
}
__device__ inline void commit_copies() { asm volatile("cp.async.commit_group;\n" ::: "memory"); }
template <int kPending>
__device__ inline void wait_copies() {
  asm volatile("cp.async.wait_group %0;\n" ::"n"(kPending) : "memory");
}

// d += a b for a 16x16 (rows g, g + 8 of lane group g = lane / 4; columns 2t, 2t + 8 of t = lane % 4), b 16x8
// (rows 2t, 2t + 8, column g), d 16x8 (rows g, g + 8, columns 2t, 2t + 1): PTX ISA, mma.m16n8k16.
template <typename T>
__device__ void multiply(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]);
template <>
__device__ inline void multiply<__nv_bfloat16>(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};\n"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
template <>
__device__ inline void multiply<__half>(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};\n"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
#endif

}  // namespace fedft

#endif

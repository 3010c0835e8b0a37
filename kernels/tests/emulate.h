// Enough of CUDA to run the kernels on the processor: the threads of a block are fibers that take turns, so that
// barriers, warp operations, tensor-core products and asynchronous copies mean what they mean on a GPU.
// Shared memory starts out as NaNs, and a copy arrives as late as the waits allow.
#ifndef FEDFT_EMULATE_H
#define FEDFT_EMULATE_H

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

#include <algorithm>
#include <functional>
#include <memory>
#include <type_traits>
#include <vector>

#include "../csrc/cpu/convert.h"

#define __global__
#define __device__
#define __constant__
#define __shared__ static
#define __launch_bounds__(n)
#define FEDFT_DYNAMIC_SHARED(name) unsigned char* name = emulate::shared.data()
#define FEDFT_LAUNCH(kernel, grid, block, bytes, stream, ...) \
  (static_cast<void>(stream), emulate::launch(grid, block, bytes, [&] { kernel(__VA_ARGS__); }))

struct dim3 {
  dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
  unsigned x, y, z;
};
inline dim3 threadIdx, blockIdx, blockDim;

enum cudaError_t { cudaSuccess = 0 };
enum { cudaFuncAttributeMaxDynamicSharedMemorySize };
inline cudaError_t cudaGetLastError() { return cudaSuccess; }
inline const char* cudaGetErrorString(cudaError_t) { return "emulated"; }
template <typename K>
cudaError_t cudaFuncSetAttribute(K, int, int) {
  return cudaSuccess;
}

struct __nv_bfloat16 {
  uint16_t bits;
};
struct __half {
  uint16_t bits;
};
inline float __bfloat162float(__nv_bfloat16 x) { return from_bf16(x.bits); }
inline float __half2float(__half x) { return from_f16(x.bits); }
inline __nv_bfloat16 __float2bfloat16_rn(float x) { return {to_bf16(x)}; }
inline __half __float2half_rn(float x) { return {to_f16(x)}; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fdiv_rd(float a, float b) { return nextafterf(a / b, 0.0f); }
inline float __fsqrt_ru(float a) { return a == 0.0f ? 0.0f : nextafterf(sqrtf(a), INFINITY); }
inline unsigned __float_as_uint(float x) { return bits_of(x); }
inline float __uint_as_float(unsigned x) { return float_of(x); }
template <typename T>
T __ldg(const T* p) {
  return *p;
}
inline unsigned max(unsigned a, unsigned b) { return std::max(a, b); }

namespace emulate {

struct Copy {
  void* to;
  unsigned char bytes[16];
};

struct Fiber {
  ucontext_t context;
  std::vector<unsigned char> stack;
  std::vector<std::vector<Copy>> groups;  // committed copies that have not been waited for
  std::vector<Copy> open;
  bool done = false;
};

struct Warp {
  unsigned arrived = 0, generation = 0;
  uint32_t in[32][6];
  float value[32][4];
};

inline std::vector<unsigned char> shared;
inline std::vector<std::unique_ptr<Fiber>> fibers;
inline std::vector<Warp> warps;
inline Fiber* current;
inline ucontext_t scheduler;
inline const std::function<void()>* body;
inline unsigned barrier_arrived, barrier_generation;

inline void yield() {
  Fiber* self = current;
  swapcontext(&self->context, &scheduler);
}

inline void enter() {
  (*body)();
  current->done = true;
  yield();
}

inline void run_block(unsigned threads) {
  warps.assign(threads / 32, Warp());
  barrier_arrived = 0;
  for (unsigned i = 0; i < threads; ++i) {
    Fiber& fiber = *fibers[i];
    fiber.done = false;
    fiber.groups.clear();
    fiber.open.clear();
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack.data();
    fiber.context.uc_stack.ss_size = fiber.stack.size();
    makecontext(&fiber.context, enter, 0);
  }
  unsigned running = threads;
  for (int round = 0; running > 0; ++round) {
    if (round > 1000000) {
      fprintf(stderr, "emulated block does not end: a barrier that not all threads reach\n");
      abort();
    }
    for (unsigned i = 0; i < threads; ++i) {
      if (fibers[i]->done) continue;
      current = fibers[i].get();
      threadIdx = dim3(i);
      swapcontext(&scheduler, &current->context);
      running -= current->done;
    }
  }
}

inline void launch(dim3 grid, unsigned threads, size_t bytes, const std::function<void()>& kernel) {
  body = &kernel;
  blockDim = dim3(threads);
  while (fibers.size() < threads) {
    fibers.push_back(std::make_unique<Fiber>());
    fibers.back()->stack.resize(size_t{1} << 16);
  }
  for (unsigned z = 0; z < grid.z; ++z)
    for (unsigned y = 0; y < grid.y; ++y)
      for (unsigned x = 0; x < grid.x; ++x) {
        blockIdx = dim3(x, y, z);
        shared.assign(bytes, 0xff);  // NaN in every float type
        run_block(threads);
      }
}

// Waits for the 32 threads of a warp; the last to come computes for all.
inline Warp& meet(const std::function<void(Warp&)>& compute) {
  Warp& warp = warps[threadIdx.x / 32];
  if (++warp.arrived == 32) {
    compute(warp);
    warp.arrived = 0;
    ++warp.generation;
  } else {
    const unsigned now = warp.generation;
    while (warp.generation == now) yield();
  }
  return warp;
}

}  // namespace emulate

inline void __syncthreads() {
  using namespace emulate;
  if (++barrier_arrived == blockDim.x) {
    barrier_arrived = 0;
    ++barrier_generation;
    return;
  }
  const unsigned now = barrier_generation;
  while (barrier_generation == now) yield();
}

inline unsigned __shfl_xor_sync(unsigned, unsigned value, int other) {
  const unsigned lane = threadIdx.x % 32;
  emulate::warps[threadIdx.x / 32].in[lane][0] = value;
  return emulate::meet([other](emulate::Warp& w) {
           for (unsigned i = 0; i < 32; ++i) w.in[i][1] = w.in[i ^ static_cast<unsigned>(other)][0];
         })
      .in[lane][1];
}

inline unsigned __ballot_sync(unsigned, bool vote) {
  const unsigned lane = threadIdx.x % 32;
  emulate::warps[threadIdx.x / 32].in[lane][0] = vote;
  return emulate::meet([](emulate::Warp& w) {
           unsigned all = 0;
           for (unsigned i = 0; i < 32; ++i) all |= w.in[i][0] << i;
           for (unsigned i = 0; i < 32; ++i) w.in[i][1] = all;
         })
      .in[lane][1];
}

namespace fedft {

inline void copy_async(void* to, const void* from, bool valid) {
  emulate::Copy copy{to, {}};
  if (reinterpret_cast<uintptr_t>(from) % 16 || reinterpret_cast<uintptr_t>(to) % 16) abort();
  if (valid) memcpy(copy.bytes, from, 16);
  emulate::current->open.push_back(copy);
}

inline void commit_copies() {
  emulate::current->groups.push_back(emulate::current->open);
  emulate::current->open.clear();
}

template <int kPending>
void wait_copies() {
  auto& groups = emulate::current->groups;
  while (groups.size() > kPending) {
    for (const emulate::Copy& copy : groups.front()) memcpy(copy.to, copy.bytes, 16);
    groups.erase(groups.begin());
  }
}

template <typename T>
float emulated_value(uint32_t pair, int half) {
  const uint16_t bits = static_cast<uint16_t>(half ? pair >> 16 : pair);
  return std::is_same<T, __half>::value ? from_f16(bits) : from_bf16(bits);
}

// The layout of fragments as the PTX ISA documents it for mma.m16n8k16 with 16-bit floats.
template <typename T>
void multiply(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  const unsigned lane = threadIdx.x % 32;
  emulate::Warp& mine = emulate::warps[threadIdx.x / 32];
  memcpy(mine.in[lane], a, 16);
  memcpy(mine.in[lane] + 4, b, 8);
  memcpy(mine.value[lane], d, 16);
  emulate::Warp& warp = emulate::meet([](emulate::Warp& w) {
    float left[16][16], right[16][8];
    for (int i = 0; i < 32; ++i) {
      const int g = i / 4, t = i % 4;
      for (int j = 0; j < 4; ++j)
        for (int h = 0; h < 2; ++h) left[g + j % 2 * 8][2 * t + h + j / 2 * 8] = emulated_value<T>(w.in[i][j], h);
      for (int j = 0; j < 2; ++j)
        for (int h = 0; h < 2; ++h) right[2 * t + h + j * 8][g] = emulated_value<T>(w.in[i][4 + j], h);
    }
    for (int i = 0; i < 32; ++i)
      for (int j = 0; j < 4; ++j) {
        const int row = i / 4 + j / 2 * 8, column = i % 4 * 2 + j % 2;
        for (int k = 0; k < 16; ++k) w.value[i][j] += left[row][k] * right[k][column];
      }
  });
  memcpy(d, warp.value[lane], 16);
}

}  // namespace fedft

#endif

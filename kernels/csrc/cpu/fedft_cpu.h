// The C interface of the CPU kernels. Plain C types only, so that ctypes or any other caller can use
// it and one build serves every torch version. Pointers are to dense buffers owned by the caller.
// Every function returns 0 on success or one of the Status values. Nothing allocates, nothing throws.
#ifndef FEDFT_CPU_H
#define FEDFT_CPU_H

#include <stdint.h>

#define FEDFT_ABI_VERSION 1
#define FEDFT_API extern "C" __attribute__((visibility("default")))

enum FedftStatus { FEDFT_OK = 0, FEDFT_BAD_ARGUMENT = 1, FEDFT_NOT_FINITE = 2, FEDFT_UNSUPPORTED = 3 };
enum FedftDtype { FEDFT_F32 = 0, FEDFT_BF16 = 1, FEDFT_F16 = 2 };
enum FedftTier { FEDFT_TIER_SCALAR = 0, FEDFT_TIER_AVX2 = 1, FEDFT_TIER_AVX512 = 2, FEDFT_TIER_AVX512_BF16 = 3 };

FEDFT_API int fedft_abi_version(void);
FEDFT_API const char* fedft_build_id(void);  // names the sources and flags it was built from

// The instruction set in use, the best this processor has, and a way to force a lower one (-1: best).
FEDFT_API int fedft_cpu_tier(void);
FEDFT_API int fedft_cpu_best_tier(void);
FEDFT_API int fedft_cpu_set_tier(int tier);
FEDFT_API int fedft_cpu_openmp(void);  // 1 when built with OpenMP

// NF4 with blocks of 64: w[n] of dtype -> q[(n+1)/2] (first weight in the high nibble), absmax[ceil(n/64)].
FEDFT_API int fedft_nf4_quantize(const void* w, int dtype, int64_t n, uint8_t* q, float* absmax,
                                 int threads);

// The second quantisation: absmax[count] -> q8[count], absmax2[ceil(count/256)] and the mean, offset[1].
FEDFT_API int fedft_nf4_nest(const float* absmax, int64_t count, const float* code, uint8_t* q8,
                             float* absmax2, float* offset, int threads);

// w[i] = nf4[q_i] * scale, where scale is absmax[i/64] when q8 is null, and otherwise
// code[q8[i/64]] * absmax[i/64/256] + offset, with absmax the second-level absmax.
FEDFT_API int fedft_nf4_dequantize(const uint8_t* q, const uint8_t* q8, const float* code,
                                   const float* absmax, float offset, int64_t n, void* out, int dtype,
                                   int threads);

// Ternary vectors as two bit planes, little-endian bits, ceil(n/8) bytes each. An element whose bit is
// set in both planes counts as zero; bits beyond n are ignored on input and zero on output.
FEDFT_API int fedft_ternary_pack(const void* x, int is_float, int64_t n, uint8_t* pos, uint8_t* neg);
FEDFT_API int fedft_ternary_unpack_i8(const uint8_t* pos, const uint8_t* neg, int64_t n, int8_t* out);
FEDFT_API int fedft_ternary_unpack_f32(const uint8_t* pos, const uint8_t* neg, int64_t n, float scale,
                                       float* out);
FEDFT_API int fedft_ternary_add_f32(const uint8_t* pos, const uint8_t* neg, int64_t n, float scale,
                                    float* sum);
// sum[i] += weights[c] * t[c][i] over clients c, exactly; planes are [clients, ceil(n/8)].
FEDFT_API int fedft_ternary_accumulate(const uint8_t* pos, const uint8_t* neg, int64_t clients, int64_t n,
                                       const int64_t* weights, int64_t* sum);

#endif

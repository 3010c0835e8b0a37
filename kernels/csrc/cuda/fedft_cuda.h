// The C interface of the CUDA kernels. Pointers are device memory of the current device; `stream` is a
// cudaStream_t. Nothing allocates, synchronises or changes the current device, so every call can be
// captured into a graph. Every function returns 0, FEDFT_UNSUPPORTED for a shape that has no kernel, or
// FEDFT_CUDA_ERROR plus the cudaError_t.
#ifndef FEDFT_CUDA_H
#define FEDFT_CUDA_H

#include <stdint.h>

#define FEDFT_ABI_VERSION 1
#define FEDFT_API extern "C" __attribute__((visibility("default")))

enum FedftStatus { FEDFT_OK = 0, FEDFT_BAD_ARGUMENT = 1, FEDFT_UNSUPPORTED = 3, FEDFT_CUDA_ERROR = 1000 };
enum FedftDtype { FEDFT_F32 = 0, FEDFT_BF16 = 1, FEDFT_F16 = 2 };

FEDFT_API int fedft_abi_version(void);
FEDFT_API const char* fedft_build_id(void);
FEDFT_API const char* fedft_cuda_error_string(int status);

// As the CPU functions of the same name. An absmax that is not finite tells of a weight that is not.
FEDFT_API int fedft_cuda_nf4_quantize(const void* w, int dtype, int64_t n, uint8_t* q, float* absmax, void* stream);
FEDFT_API int fedft_cuda_nf4_dequantize(const uint8_t* q, const uint8_t* q8, const float* code, const float* absmax,
                                        float offset, int64_t n, void* out, int dtype, void* stream);

// The adapter's matrices, dtype bfloat16 or float16; r a multiple of 16, groups * r at most 192, the inner
// dimension a multiple of 8, rows 16-byte aligned.
//
// x[n, in], a[groups * r, in], R[groups, r, r] float -> u = x aᵀ [n, groups * r], w = scale * u_g R_gᵀ.
FEDFT_API int fedft_cuda_adapter_down(const void* x, const void* a, const float* R, float scale, int dtype, int64_t n,
                                      int64_t in, int groups, int r, void* u, void* w, void* stream);
// g[n, out], bt = Bᵀ[r, out], R[r, r], u[n, r] -> v = g B [n, r], z = scale * v R, gR = scale * vᵀ u [r, r] float.
// partial: float[fedft_cuda_adapter_partials(n) * r * r], for sums in a fixed order.
FEDFT_API int64_t fedft_cuda_adapter_partials(int64_t n);
FEDFT_API int fedft_cuda_adapter_up_bwd(const void* g, const void* bt, const float* R, const void* u, float scale,
                                        int dtype, int64_t n, int64_t out, int r, void* v, void* z, float* partial,
                                        float* gR, void* stream);

// Per-sample gradients: rows seg[i] to seg[i + 1] of u and v, [n, r], belong to sample i of b.
// G[i] = scale * v_iᵀ u_i, [b, r, r] float; sqnorm[i] += |G[i]|² when add, else = |G[i]|².
FEDFT_API int fedft_cuda_adapter_grad_persample(const void* u, const void* v, const int64_t* seg, int64_t b, int r,
                                                float scale, int dtype, float* G, float* sqnorm, int add, void* stream);
// sum[r, r] = Σ_i min(1, clip / sqrt(sqnorm[i])) G[i], in the order of i.
FEDFT_API int fedft_cuda_clip_accumulate(const float* G, const float* sqnorm, int64_t b, int r, float clip, float* sum,
                                         void* stream);

// As the CPU functions of the same name.
FEDFT_API int fedft_cuda_ternary_pack(const void* x, int is_float, int64_t n, uint8_t* pos, uint8_t* neg, void* stream);
FEDFT_API int fedft_cuda_ternary_unpack(const uint8_t* pos, const uint8_t* neg, int64_t n, float scale, int is_float,
                                        void* out, void* stream);
FEDFT_API int fedft_cuda_ternary_add_f32(const uint8_t* pos, const uint8_t* neg, int64_t n, float scale, float* sum,
                                         void* stream);
FEDFT_API int fedft_cuda_ternary_accumulate(const uint8_t* pos, const uint8_t* neg, int64_t clients, int64_t n,
                                            const int64_t* weights, int64_t* sum, void* stream);

#endif

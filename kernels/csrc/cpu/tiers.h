// One table of inner loops per instruction set. A loop sees whole blocks only; tails, arguments and
// threads are api.cpp's. Every tier gives the same bits: no reassociation, no fused multiply-add.
//
// Files that are compiled with different instruction sets must share no inline function with external
// linkage: the linker would keep one copy, perhaps one that this processor can't run. Hence the
// anonymous namespaces in the headers, and no standard library templates in the tier files.
#ifndef FEDFT_TIERS_H
#define FEDFT_TIERS_H

#include <stdint.h>

constexpr int64_t kBlock = 64;    // weights per absmax
constexpr int64_t kNested = 256;  // absmax values per second-level absmax

static constexpr int64_t ceil_div(int64_t a, int64_t b) { return a / b + (a % b != 0); }

struct Tier {
  // Returns false when a value is not finite.
  bool (*quantize)(const void* w, int dtype, int64_t blocks, uint8_t* q, float* absmax);
  // The scale of block b is scale[b] when q8 is null, and otherwise scale[q8[b]] from a table of 256.
  void (*dequantize)(const uint8_t* q, const uint8_t* q8, const float* scale, int64_t blocks, void* out, int dtype,
                     bool stream);
  // `bytes` counts bytes of one bit plane: eight elements each.
  void (*pack_i8)(const int8_t* x, int64_t bytes, uint8_t* pos, uint8_t* neg);
  void (*pack_f32)(const float* x, int64_t bytes, uint8_t* pos, uint8_t* neg);
  void (*unpack_i8)(const uint8_t* pos, const uint8_t* neg, int64_t bytes, int8_t* out);
  void (*unpack_f32)(const uint8_t* pos, const uint8_t* neg, int64_t bytes, float scale, float* out);
  void (*add_f32)(const uint8_t* pos, const uint8_t* neg, int64_t bytes, float scale, float* sum);
  void (*add_i64)(const uint8_t* pos, const uint8_t* neg, int64_t bytes, int64_t weight, int64_t* sum);
};

const Tier& tier();  // the one in use

extern const Tier kScalarTier;
#if defined(__x86_64__)
extern const Tier kAvx2Tier;
extern const Tier kAvx512Tier;
extern const Tier kAvx512Bf16Tier;
void dequantize_avx512_bf16(const uint8_t* q, const uint8_t* q8, const float* scale, int64_t blocks, void* out,
                            int dtype, bool stream);
#endif

#endif

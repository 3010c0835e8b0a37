// AVX2 + F16C. See scalar.cpp for what every function computes.
#include <immintrin.h>

#include "codebook.h"
#include "fedft_cpu.h"
#include "tiers.h"

namespace {

__m256 load8(const void* w, int dtype, int64_t i) {
  if (dtype == FEDFT_F32) return _mm256_loadu_ps(static_cast<const float*>(w) + i);
  const __m128i half = _mm_loadu_si128(reinterpret_cast<const __m128i*>(static_cast<const uint16_t*>(w) + i));
  if (dtype == FEDFT_F16) return _mm256_cvtph_ps(half);
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16));
}

uint32_t largest_of(__m256i v) {
  __m128i m = _mm_max_epu32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
  m = _mm_max_epu32(m, _mm_shuffle_epi32(m, 0x4e));
  m = _mm_max_epu32(m, _mm_shuffle_epi32(m, 0xb1));
  return static_cast<uint32_t>(_mm_cvtsi128_si32(m));
}

// Looks up 8 entries of a 16-entry table; bits above the lowest four of an index are ignored.
__m256 lookup16(__m256 low, __m256 high, __m256i index) {
  const __m256 upper = _mm256_castsi256_ps(_mm256_slli_epi32(index, 28));
  return _mm256_blendv_ps(_mm256_permutevar8x32_ps(low, index), _mm256_permutevar8x32_ps(high, index), upper);
}

// Four steps of a binary search among the midpoints, as `nearest` in scalar.cpp.
__m256i nearest(__m256 x, __m256 low, __m256 high) {
  const auto step = [&](__m256i c, int add) {
    const __m256 mid = lookup16(low, high, _mm256_add_epi32(c, _mm256_set1_epi32(add - 1)));
    const __m256i above = _mm256_castps_si256(_mm256_cmp_ps(x, mid, _CMP_GT_OQ));
    return _mm256_add_epi32(c, _mm256_and_si256(above, _mm256_set1_epi32(add)));
  };
  return step(step(step(step(_mm256_setzero_si256(), 8), 4), 2), 1);
}

bool quantize(const void* w, int dtype, int64_t blocks, uint8_t* q, float* absmax) {
  const __m256 low = _mm256_load_ps(kMid), high = _mm256_load_ps(kMid + 8);
  const __m256i magnitude = _mm256_set1_epi32(0x7fffffff);
  for (int64_t b = 0; b < blocks; ++b) {
    __m256 x[8];
    __m256i largest = _mm256_setzero_si256();
    for (int j = 0; j < 8; ++j) {
      x[j] = load8(w, dtype, b * kBlock + j * 8);
      largest = _mm256_max_epu32(largest, _mm256_and_si256(_mm256_castps_si256(x[j]), magnitude));
    }
    const uint32_t top = largest_of(largest);
    if (top >= 0x7f800000u) return false;
    const float scale = _mm_cvtss_f32(_mm_castsi128_ps(_mm_cvtsi32_si128(static_cast<int>(top))));
    const __m256 inverse = _mm256_set1_ps(1.0f / (scale < kMinScale ? kMinScale : scale));
    for (int j = 0; j < 8; j += 4) {
      __m256i c[4];
      for (int k = 0; k < 4; ++k) c[k] = nearest(_mm256_mul_ps(x[j + k], inverse), low, high);
      // The two packs leave groups of four weights in the order 0 2 4 6 1 3 5 7.
      const __m256i bytes = _mm256_packus_epi16(_mm256_packus_epi32(c[0], c[1]), _mm256_packus_epi32(c[2], c[3]));
      const __m256i ordered = _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
      const __m256i pairs = _mm256_maddubs_epi16(ordered, _mm256_set1_epi16(0x0110));  // 16 * first + second
      const __m128i packed = _mm_packus_epi16(_mm256_castsi256_si128(pairs), _mm256_extracti128_si256(pairs, 1));
      _mm_storeu_si128(reinterpret_cast<__m128i*>(q + (b * kBlock + j * 8) / 2), packed);
    }
    absmax[b] = scale;
  }
  return true;
}

// The table as 16 words of the 16-bit output type: round to nearest even, NaN stays NaN.
__m256i table16(__m256 low, __m256 high, int dtype) {
  if (dtype == FEDFT_F16)
    return _mm256_set_m128i(_mm256_cvtps_ph(high, _MM_FROUND_TO_NEAREST_INT),
                            _mm256_cvtps_ph(low, _MM_FROUND_TO_NEAREST_INT));
  const auto round = [](__m256 x) {
    const __m256i b = _mm256_castps_si256(x);
    const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(b, 16), _mm256_set1_epi32(1));
    const __m256i up = _mm256_add_epi32(_mm256_add_epi32(b, _mm256_set1_epi32(0x7fff)), odd);
    const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_UNORD_Q));
    return _mm256_blendv_epi8(_mm256_srli_epi32(up, 16), _mm256_set1_epi32(0x7fc0), nan);
  };
  return _mm256_permute4x64_epi64(_mm256_packus_epi32(round(low), round(high)), 0xd8);
}

template <bool kStream>
void store(void* out, __m256i v) {
  if (kStream)
    _mm256_stream_si256(static_cast<__m256i*>(out), v);
  else
    _mm256_storeu_si256(static_cast<__m256i*>(out), v);
}

template <bool kStream>
void expand16(const uint8_t* q, __m256i table, uint16_t* out) {
  const __m256i byte = _mm256_set1_epi16(0x00ff);
  const __m256i packed = _mm256_packus_epi16(_mm256_and_si256(table, byte), _mm256_srli_epi16(table, 8));
  const __m256i low = _mm256_permute4x64_epi64(packed, 0x88), high = _mm256_permute4x64_epi64(packed, 0xdd);
  for (int j = 0; j < 2; ++j) {
    const __m256i v = _mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(q + 16 * j)));
    const __m256i index = _mm256_and_si256(_mm256_or_si256(_mm256_srli_epi16(v, 4), _mm256_slli_epi16(v, 8)),
                                           _mm256_set1_epi8(15));
    const __m256i l = _mm256_shuffle_epi8(low, index), h = _mm256_shuffle_epi8(high, index);
    const __m256i first = _mm256_unpacklo_epi8(l, h), second = _mm256_unpackhi_epi8(l, h);
    store<kStream>(out + 32 * j, _mm256_permute2x128_si256(first, second, 0x20));
    store<kStream>(out + 32 * j + 16, _mm256_permute2x128_si256(first, second, 0x31));
  }
}

template <bool kStream>
void expand32(const uint8_t* q, __m256 low, __m256 high, float* out) {
  const __m256i shifts = _mm256_setr_epi32(4, 0, 12, 8, 20, 16, 28, 24);
  for (int j = 0; j < 8; ++j) {
    int four;
    __builtin_memcpy(&four, q + 4 * j, 4);
    const __m256i index = _mm256_srlv_epi32(_mm256_set1_epi32(four), shifts);
    store<kStream>(out + 8 * j, _mm256_castps_si256(lookup16(low, high, index)));
  }
}

template <bool kStream, bool kIndexed>
void expand(const uint8_t* q, const uint8_t* q8, const float* scale, int64_t blocks, void* out, int dtype) {
  const __m256 code_low = _mm256_load_ps(kCode), code_high = _mm256_load_ps(kCode + 8);
  for (int64_t b = 0; b < blocks; ++b) {
    const __m256 s = _mm256_broadcast_ss(scale + (kIndexed ? q8[b] : b));
    const __m256 low = _mm256_mul_ps(code_low, s), high = _mm256_mul_ps(code_high, s);
    const uint8_t* from = q + b * (kBlock / 2);
    if (dtype == FEDFT_F32)
      expand32<kStream>(from, low, high, static_cast<float*>(out) + b * kBlock);
    else
      expand16<kStream>(from, table16(low, high, dtype), static_cast<uint16_t*>(out) + b * kBlock);
  }
  if (kStream) _mm_sfence();
}

void dequantize(const uint8_t* q, const uint8_t* q8, const float* scale, int64_t blocks, void* out, int dtype,
                bool stream) {
  const auto run = stream ? (q8 ? expand<true, true> : expand<true, false>)
                          : (q8 ? expand<false, true> : expand<false, false>);
  run(q, q8, scale, blocks, out, dtype);
}

void pack_i8(const int8_t* x, int64_t bytes, uint8_t* pos, uint8_t* neg) {
  int64_t b = 0;
  for (; b + 4 <= bytes; b += 4) {
    const __m256i v = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(x + b * 8));
    const int m = _mm256_movemask_epi8(v), p = _mm256_movemask_epi8(_mm256_cmpgt_epi8(v, _mm256_setzero_si256()));
    __builtin_memcpy(pos + b, &p, 4);
    __builtin_memcpy(neg + b, &m, 4);
  }
  kScalarTier.pack_i8(x + b * 8, bytes - b, pos + b, neg + b);
}

void pack_f32(const float* x, int64_t bytes, uint8_t* pos, uint8_t* neg) {
  const __m256 zero = _mm256_setzero_ps();
  for (int64_t b = 0; b < bytes; ++b) {
    const __m256 v = _mm256_loadu_ps(x + b * 8);
    pos[b] = static_cast<uint8_t>(_mm256_movemask_ps(_mm256_cmp_ps(v, zero, _CMP_GT_OQ)));
    neg[b] = static_cast<uint8_t>(_mm256_movemask_ps(_mm256_cmp_ps(v, zero, _CMP_LT_OQ)));
  }
}

// 32 bits -> 32 bytes of 0 or -1.
__m256i spread8(const uint8_t* plane) {
  int word;
  __builtin_memcpy(&word, plane, 4);
  const __m256i which = _mm256_setr_epi64x(0, 0x0101010101010101, 0x0202020202020202, 0x0303030303030303);
  const __m256i bit = _mm256_set1_epi64x(static_cast<long long>(0x8040201008040201));
  const __m256i v = _mm256_shuffle_epi8(_mm256_set1_epi32(word), which);
  return _mm256_cmpeq_epi8(_mm256_and_si256(v, bit), bit);
}

// 8 bits -> 8 lanes of 0 or -1.
__m256i spread32(uint8_t bits) {
  const __m256i bit = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
  return _mm256_cmpeq_epi32(_mm256_and_si256(_mm256_set1_epi32(bits), bit), bit);
}

void unpack_i8(const uint8_t* pos, const uint8_t* neg, int64_t bytes, int8_t* out) {
  int64_t b = 0;
  for (; b + 4 <= bytes; b += 4)
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + b * 8),
                        _mm256_sub_epi8(spread8(neg + b), spread8(pos + b)));
  kScalarTier.unpack_i8(pos + b, neg + b, bytes - b, out + b * 8);
}

void unpack_f32(const uint8_t* pos, const uint8_t* neg, int64_t bytes, float scale, float* out) {
  const __m256 plus = _mm256_set1_ps(scale), minus = _mm256_set1_ps(-scale);
  for (int64_t b = 0; b < bytes; ++b) {
    const __m256 p = _mm256_castsi256_ps(spread32(pos[b] & ~neg[b]));
    const __m256 m = _mm256_castsi256_ps(spread32(neg[b] & ~pos[b]));
    _mm256_storeu_ps(out + b * 8, _mm256_or_ps(_mm256_and_ps(p, plus), _mm256_and_ps(m, minus)));
  }
}

void add_f32(const uint8_t* pos, const uint8_t* neg, int64_t bytes, float scale, float* sum) {
  const __m256 plus = _mm256_set1_ps(scale), minus = _mm256_set1_ps(-scale);
  for (int64_t b = 0; b < bytes; ++b) {
    const __m256 old = _mm256_loadu_ps(sum + b * 8);
    const __m256 p = _mm256_castsi256_ps(spread32(pos[b] & ~neg[b]));
    const __m256 m = _mm256_castsi256_ps(spread32(neg[b] & ~pos[b]));
    const __m256 up = _mm256_blendv_ps(old, _mm256_add_ps(old, plus), p);
    _mm256_storeu_ps(sum + b * 8, _mm256_blendv_ps(up, _mm256_add_ps(old, minus), m));
  }
}

void add_i64(const uint8_t* pos, const uint8_t* neg, int64_t bytes, int64_t weight, int64_t* sum) {
  const __m256i w = _mm256_set1_epi64x(weight);
  for (int64_t b = 0; b < bytes; ++b) {
    const __m256i p = spread32(pos[b]), m = spread32(neg[b]);
    for (int half = 0; half < 2; ++half) {
      __m256i* at = reinterpret_cast<__m256i*>(sum + b * 8 + half * 4);
      const __m128i p4 = half ? _mm256_extracti128_si256(p, 1) : _mm256_castsi256_si128(p);
      const __m128i m4 = half ? _mm256_extracti128_si256(m, 1) : _mm256_castsi256_si128(m);
      const __m256i up = _mm256_and_si256(_mm256_cvtepi32_epi64(p4), w);
      const __m256i down = _mm256_and_si256(_mm256_cvtepi32_epi64(m4), w);
      _mm256_storeu_si256(at, _mm256_sub_epi64(_mm256_add_epi64(_mm256_loadu_si256(at), up), down));
    }
  }
}

}  // namespace

const Tier kAvx2Tier = {quantize,  dequantize, pack_i8, pack_f32,
                        unpack_i8, unpack_f32, add_f32, add_i64};

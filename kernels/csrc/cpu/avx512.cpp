// AVX-512 F, BW, DQ and VL. See scalar.cpp for what every function computes.
#include <immintrin.h>

#include "codebook.h"
#include "fedft_cpu.h"
#include "tiers.h"

namespace {

__m512 load16(const void* w, int dtype, int64_t i) {
  if (dtype == FEDFT_F32) return _mm512_loadu_ps(static_cast<const float*>(w) + i);
  const __m256i half = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(static_cast<const uint16_t*>(w) + i));
  if (dtype == FEDFT_F16) return _mm512_cvtph_ps(half);
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
}

// The first candidate for each of 32 bins of [-1, 1]: how many midpoints lie below the bin. Midpoints are
// farther apart than the width of a bin, so that at most one more can lie below a number in it, and as far
// from the bins' edges as the rounding of the bin number needs.
struct Bins {
  alignas(64) int32_t below[32];
};

constexpr Bins make_bins() {
  Bins bins{};
  for (int bin = 0; bin < 32; ++bin) {
    const float low = static_cast<float>(bin - 16) / 16.0f;
    int count = 0;
    while (count < 15 && kMid[count] < low) ++count;
    bins.below[bin] = count;
  }
  return bins;
}

constexpr bool separated() {
  for (int i = 0; i < 14; ++i)
    if (kMid[i + 1] - kMid[i] < 1.0f / 16.0f + 1e-5f) return false;
  for (int bin = 0; bin <= 32; ++bin)
    for (int i = 0; i < 15; ++i) {
      const float gap = kMid[i] - static_cast<float>(bin - 16) / 16.0f;
      if (gap < 1e-5f && gap > -1e-5f) return false;
    }
  return true;
}

constexpr Bins kBins = make_bins();
static_assert(separated(), "a bin may hold one midpoint at most, and none at an edge");

// The nearest level, the lower one on a tie, as `nearest` in scalar.cpp.
__m512i nearest(__m512 x, __m512 mid) {
  const __m512 sixteen = _mm512_set1_ps(16.0f);
  const __m512i raw = _mm512_cvttps_epi32(_mm512_add_ps(_mm512_mul_ps(x, sixteen), sixteen));
  const __m512i bin = _mm512_min_epi32(raw, _mm512_set1_epi32(31));
  const __m512i below =
      _mm512_permutex2var_epi32(_mm512_load_si512(kBins.below), bin, _mm512_load_si512(kBins.below + 16));
  const __mmask16 above = _mm512_cmp_ps_mask(x, _mm512_permutexvar_ps(below, mid), _CMP_GT_OQ);
  return _mm512_mask_add_epi32(below, above, below, _mm512_set1_epi32(1));
}

bool quantize(const void* w, int dtype, int64_t blocks, uint8_t* q, float* absmax) {
  const __m512 mid = _mm512_load_ps(kMid);
  const __m512i magnitude = _mm512_set1_epi32(0x7fffffff);
  for (int64_t b = 0; b < blocks; ++b) {
    __m512 x[4];
    __m512i largest = _mm512_setzero_si512();
    for (int j = 0; j < 4; ++j) {
      x[j] = load16(w, dtype, b * kBlock + j * 16);
      largest = _mm512_max_epu32(largest, _mm512_and_si512(_mm512_castps_si512(x[j]), magnitude));
    }
    const uint32_t top = _mm512_reduce_max_epu32(largest);
    if (top >= 0x7f800000u) return false;
    const float scale = _mm_cvtss_f32(_mm_castsi128_ps(_mm_cvtsi32_si128(static_cast<int>(top))));
    const __m512 inverse = _mm512_set1_ps(1.0f / (scale < kMinScale ? kMinScale : scale));
    for (int j = 0; j < 4; ++j) {
      const __m128i codes = _mm512_cvtepi32_epi8(nearest(_mm512_mul_ps(x[j], inverse), mid));
      const __m128i pairs = _mm_maddubs_epi16(codes, _mm_set1_epi16(0x0110));  // 16 * first + second
      const __m128i packed = _mm_packus_epi16(pairs, pairs);
      _mm_storel_epi64(reinterpret_cast<__m128i*>(q + (b * kBlock + j * 16) / 2), packed);
    }
    absmax[b] = scale;
  }
  return true;
}

// The scaled table as 16 words of the 16-bit output type, twice: an index has five significant bits.
// For bfloat16 the scale must be finite: rounding in integers would make a number of a NaN.
__m512i table16(__m512 x, int dtype) {
  if (dtype == FEDFT_F16) return _mm512_broadcast_i64x4(_mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT));
  const __m512i upper_words = _mm512_set_epi16(31, 29, 27, 25, 23, 21, 19, 17, 15, 13, 11, 9, 7, 5, 3, 1, 31, 29, 27,
                                               25, 23, 21, 19, 17, 15, 13, 11, 9, 7, 5, 3, 1);
  const __m512i b = _mm512_castps_si512(x);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(b, 16), _mm512_set1_epi32(1));
  const __m512i rounded = _mm512_add_epi32(_mm512_add_epi32(b, _mm512_set1_epi32(0x7fff)), odd);
  return _mm512_permutexvar_epi16(upper_words, rounded);
}

template <bool kStream>
void store(void* out, __m512i v) {
  if (kStream)
    _mm512_stream_si512(static_cast<__m512i*>(out), v);
  else
    _mm512_storeu_si512(out, v);
}

template <bool kStream>
void expand16(const uint8_t* q, __m512i table, uint16_t* out) {
  // Byte k of the input to words 2k and 2k+1; the first weight of a byte is in its high nibble.
  const __m512i spread = _mm512_set_epi64(
      static_cast<long long>(0x800f800f800e800e), static_cast<long long>(0x800d800d800c800c),
      static_cast<long long>(0x800b800b800a800a), static_cast<long long>(0x8009800980088008),
      static_cast<long long>(0x8007800780068006), static_cast<long long>(0x8005800580048004),
      static_cast<long long>(0x8003800380028002), static_cast<long long>(0x8001800180008000));
  const __m512i shifts = _mm512_set1_epi32(4);
  for (int j = 0; j < 2; ++j) {
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(q + 16 * j));
    const __m512i v = _mm512_shuffle_epi8(_mm512_broadcast_i32x4(bytes), spread);
    const __m512i index = _mm512_srlv_epi16(v, shifts);
    store<kStream>(out + 32 * j, _mm512_permutexvar_epi16(index, table));
  }
}

template <bool kStream>
void expand32(const uint8_t* q, __m512 table, float* out) {
  const __m512i shifts = _mm512_set1_epi64(4);
  for (int j = 0; j < 4; ++j) {
    // Byte k of the input to lanes 2k and 2k+1.
    const __m128i eight = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(q + 8 * j));
    const __m512i v = _mm512_cvtepu8_epi32(_mm_unpacklo_epi8(eight, eight));
    const __m512i index = _mm512_srlv_epi32(v, shifts);
    store<kStream>(out + 16 * j, _mm512_castps_si512(_mm512_permutexvar_ps(index, table)));
  }
}

template <bool kStream, bool kIndexed>
void expand(const uint8_t* q, const uint8_t* q8, const float* scale, int64_t blocks, void* out, int dtype) {
  const __m512 code = _mm512_load_ps(kCode);
  for (int64_t b = 0; b < blocks; ++b) {
    const __m512 table = _mm512_mul_ps(code, _mm512_set1_ps(scale[kIndexed ? q8[b] : b]));
    const uint8_t* from = q + b * (kBlock / 2);
    if (dtype == FEDFT_F32)
      expand32<kStream>(from, table, static_cast<float*>(out) + b * kBlock);
    else
      expand16<kStream>(from, table16(table, dtype), static_cast<uint16_t*>(out) + b * kBlock);
  }
  if (kStream) _mm_sfence();
}

bool all_finite(const float* scale, int64_t count) {
  __mmask16 finite = 0xffff;
  for (int64_t i = 0; i < count; i += 16) {
    const __mmask16 here = static_cast<__mmask16>(count - i >= 16 ? 0xffff : (1 << (count - i)) - 1);
    const __m512 s = _mm512_abs_ps(_mm512_maskz_loadu_ps(here, scale + i));
    finite &= _mm512_cmp_ps_mask(s, _mm512_set1_ps(3.402823466e38f), _CMP_LE_OQ);
  }
  return finite == 0xffff;
}

void dequantize(const uint8_t* q, const uint8_t* q8, const float* scale, int64_t blocks, void* out, int dtype,
                bool stream) {
  if (!all_finite(scale, q8 ? 256 : blocks))
    return kScalarTier.dequantize(q, q8, scale, blocks, out, dtype, false);
  const auto run = stream ? (q8 ? expand<true, true> : expand<true, false>)
                          : (q8 ? expand<false, true> : expand<false, false>);
  run(q, q8, scale, blocks, out, dtype);
}

void pack_i8(const int8_t* x, int64_t bytes, uint8_t* pos, uint8_t* neg) {
  int64_t b = 0;
  for (; b + 8 <= bytes; b += 8) {
    const __m512i v = _mm512_loadu_si512(x + b * 8);
    const uint64_t m = _mm512_movepi8_mask(v), p = _mm512_cmpgt_epi8_mask(v, _mm512_setzero_si512());
    __builtin_memcpy(pos + b, &p, 8);
    __builtin_memcpy(neg + b, &m, 8);
  }
  kScalarTier.pack_i8(x + b * 8, bytes - b, pos + b, neg + b);
}

void pack_f32(const float* x, int64_t bytes, uint8_t* pos, uint8_t* neg) {
  const __m512 zero = _mm512_setzero_ps();
  int64_t b = 0;
  for (; b + 2 <= bytes; b += 2) {
    const __m512 v = _mm512_loadu_ps(x + b * 8);
    const uint16_t p = _mm512_cmp_ps_mask(v, zero, _CMP_GT_OQ), m = _mm512_cmp_ps_mask(v, zero, _CMP_LT_OQ);
    __builtin_memcpy(pos + b, &p, 2);
    __builtin_memcpy(neg + b, &m, 2);
  }
  kScalarTier.pack_f32(x + b * 8, bytes - b, pos + b, neg + b);
}

void unpack_i8(const uint8_t* pos, const uint8_t* neg, int64_t bytes, int8_t* out) {
  int64_t b = 0;
  for (; b + 8 <= bytes; b += 8) {
    uint64_t p, m;
    __builtin_memcpy(&p, pos + b, 8);
    __builtin_memcpy(&m, neg + b, 8);
    _mm512_storeu_si512(out + b * 8, _mm512_sub_epi8(_mm512_movm_epi8(m), _mm512_movm_epi8(p)));
  }
  kScalarTier.unpack_i8(pos + b, neg + b, bytes - b, out + b * 8);
}

void unpack_f32(const uint8_t* pos, const uint8_t* neg, int64_t bytes, float scale, float* out) {
  const __m512 plus = _mm512_set1_ps(scale), minus = _mm512_set1_ps(-scale);
  int64_t b = 0;
  for (; b + 2 <= bytes; b += 2) {
    uint16_t p, m;
    __builtin_memcpy(&p, pos + b, 2);
    __builtin_memcpy(&m, neg + b, 2);
    const __m512 up = _mm512_maskz_mov_ps(static_cast<__mmask16>(p & ~m), plus);
    _mm512_storeu_ps(out + b * 8, _mm512_mask_mov_ps(up, static_cast<__mmask16>(m & ~p), minus));
  }
  kScalarTier.unpack_f32(pos + b, neg + b, bytes - b, scale, out + b * 8);
}

void add_f32(const uint8_t* pos, const uint8_t* neg, int64_t bytes, float scale, float* sum) {
  const __m512 plus = _mm512_set1_ps(scale), minus = _mm512_set1_ps(-scale);
  int64_t b = 0;
  for (; b + 2 <= bytes; b += 2) {
    uint16_t p, m;
    __builtin_memcpy(&p, pos + b, 2);
    __builtin_memcpy(&m, neg + b, 2);
    __m512 v = _mm512_loadu_ps(sum + b * 8);
    v = _mm512_mask_add_ps(v, static_cast<__mmask16>(p & ~m), v, plus);
    v = _mm512_mask_add_ps(v, static_cast<__mmask16>(m & ~p), v, minus);
    _mm512_storeu_ps(sum + b * 8, v);
  }
  kScalarTier.add_f32(pos + b, neg + b, bytes - b, scale, sum + b * 8);
}

void add_i64(const uint8_t* pos, const uint8_t* neg, int64_t bytes, int64_t weight, int64_t* sum) {
  const __m512i w = _mm512_set1_epi64(weight);
  for (int64_t b = 0; b < bytes; ++b) {
    __m512i v = _mm512_loadu_si512(sum + b * 8);
    v = _mm512_mask_add_epi64(v, pos[b], v, w);
    v = _mm512_mask_sub_epi64(v, neg[b], v, w);
    _mm512_storeu_si512(sum + b * 8, v);
  }
}

}  // namespace

const Tier kAvx512Tier = {quantize,  dequantize, pack_i8, pack_f32,
                          unpack_i8, unpack_f32, add_f32, add_i64};

const Tier kAvx512Bf16Tier = {quantize,  dequantize_avx512_bf16,  pack_i8, pack_f32,
                              unpack_i8, unpack_f32,             add_f32, add_i64};

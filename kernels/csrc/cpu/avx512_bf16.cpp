// AVX-512 BF16 and VBMI: a faster dequantisation to bfloat16 than the one in avx512.cpp, the same bits.
#include <immintrin.h>

#include "codebook.h"
#include "fedft_cpu.h"
#include "tiers.h"

namespace {

// The hardware's conversion flushes subnormal numbers, which tiny scales would make; NaN and infinity
// are left to the other tier as well.
bool all_regular(const float* scale, int64_t count) {
  __mmask16 regular = 0xffff;
  for (int64_t i = 0; i < count; i += 16) {
    const __mmask16 here = static_cast<__mmask16>(count - i >= 16 ? 0xffff : (1 << (count - i)) - 1);
    const __m512 s = _mm512_abs_ps(_mm512_maskz_loadu_ps(here, scale + i));
    const __mmask16 zero = _mm512_cmp_ps_mask(s, _mm512_setzero_ps(), _CMP_EQ_OQ);
    const __mmask16 large = _mm512_cmp_ps_mask(s, _mm512_set1_ps(0x1p-100f), _CMP_GT_OQ);
    regular &= zero | (large & _mm512_cmp_ps_mask(s, _mm512_set1_ps(3.402823466e38f), _CMP_LE_OQ));
  }
  return regular == 0xffff;
}

template <bool kStream>
void expand16(const uint8_t* q, __m512i table, uint16_t* out) {
  // From each pair of bytes the four nibbles, first weight first, to the low bits of four words. The
  // lookup reads five bits of a word; the table holds its 16 entries twice, so the fifth doesn't matter.
  const __m512i nibbles = _mm512_set1_epi64(0x0008000c00000004);
  for (int j = 0; j < 2; ++j) {
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(q + 16 * j));
    const __m512i index = _mm512_multishift_epi64_epi8(nibbles, _mm512_cvtepu16_epi64(bytes));
    const __m512i words = _mm512_permutexvar_epi16(index, table);
    if (kStream)
      _mm512_stream_si512(reinterpret_cast<__m512i*>(out + 32 * j), words);
    else
      _mm512_storeu_si512(out + 32 * j, words);
  }
}

template <bool kStream, bool kIndexed>
void expand(const uint8_t* q, const uint8_t* q8, const float* scale, int64_t blocks, uint16_t* out) {
  const __m512 code = _mm512_load_ps(kCode);
  for (int64_t b = 0; b < blocks; ++b) {
    const __m512 levels = _mm512_mul_ps(code, _mm512_set1_ps(scale[kIndexed ? q8[b] : b]));
    const __m512bh twice = _mm512_cvtne2ps_pbh(levels, levels);
    __m512i table;
    __builtin_memcpy(&table, &twice, sizeof table);
    expand16<kStream>(q + b * (kBlock / 2), table, out + b * kBlock);
  }
  if (kStream) _mm_sfence();
}

}  // namespace

void dequantize_avx512_bf16(const uint8_t* q, const uint8_t* q8, const float* scale, int64_t blocks, void* out,
                            int dtype, bool stream) {
  if (dtype != FEDFT_BF16 || !all_regular(scale, q8 ? 256 : blocks))
    return kAvx512Tier.dequantize(q, q8, scale, blocks, out, dtype, stream);
  const auto run = stream ? (q8 ? expand<true, true> : expand<true, false>)
                          : (q8 ? expand<false, true> : expand<false, false>);
  run(q, q8, scale, blocks, static_cast<uint16_t*>(out));
}

// Kernels for AVX-512 with VPOPCNTDQ: eight words are counted by one instruction.
#include <immintrin.h>

#include "common.h"

namespace edgewright {
namespace {

constexpr int kUnits = 2;
constexpr int kLanes = 8;  // filters of a register
constexpr int kRegisters = kBlock / kLanes;
constexpr int64_t kStrip = 64;

// Filters i * 8 + lane of four registers become 32 counts in order. A lane has 64 bits, so the four share one register first.
inline __m512i narrowed(__m512i a, __m512i b, __m512i c, __m512i d) {
  const __m512i low = _mm512_or_si512(a, _mm512_slli_epi64(b, 16));
  const __m512i high = _mm512_or_si512(_mm512_slli_epi64(c, 32), _mm512_slli_epi64(d, 48));
  alignas(64) static constexpr uint16_t order[32] = {0, 4, 8,  12, 16, 20, 24, 28, 1, 5, 9,  13, 17, 21, 25, 29,
                                                     2, 6, 10, 14, 18, 22, 26, 30, 3, 7, 11, 15, 19, 23, 27, 31};
  return _mm512_permutexvar_epi16(_mm512_load_si512(order), _mm512_or_si512(low, high));
}

void count(const Tile& tile, uint16_t* counts) {
  __m512i sums[kUnits * kRegisters];
#pragma GCC unroll 16
  for (int i = 0; i < kUnits * kRegisters; ++i) sums[i] = _mm512_setzero_si512();
  const auto* weights = static_cast<const uint64_t*>(tile.weights);
  const auto* a = static_cast<const uint64_t*>(tile.inputs[0]);
  const auto* b = static_cast<const uint64_t*>(tile.inputs[1]);
  for (const Run* run = tile.runs; run != tile.runs + tile.run_count; ++run)
    for (int64_t k = run->offset; k < run->offset + run->length; ++k, weights += kBlock) {
      const __m512i bits_a = _mm512_set1_epi64(static_cast<int64_t>(a[k])), bits_b = _mm512_set1_epi64(static_cast<int64_t>(b[k]));
#pragma GCC unroll 8
      for (int i = 0; i < kRegisters; ++i) {
        __m512i weight = _mm512_loadu_si512(weights + i * kLanes);
        asm("" : "+v"(weight));  // loaded once, not by both that read it
        __m512i &first = sums[i], &second = sums[kRegisters + i];
        first = _mm512_add_epi64(first, _mm512_popcnt_epi64(_mm512_xor_si512(bits_a, weight)));
        second = _mm512_add_epi64(second, _mm512_popcnt_epi64(_mm512_xor_si512(bits_b, weight)));
      }
    }
#pragma GCC unroll 4
  for (int i = 0; i < kUnits * kRegisters; i += 4)
    _mm512_storeu_si512(counts + i * kLanes, narrowed(sums[i], sums[i + 1], sums[i + 2], sums[i + 3]));
}

void reached(const uint16_t* counts, int64_t pixels, const uint16_t* limits, uint64_t* words) {
  for (int64_t pixel = 0; pixel < pixels; ++pixel, counts += kBlock) {
    const uint64_t low = _mm512_cmpge_epu16_mask(_mm512_loadu_si512(counts), _mm512_loadu_si512(limits));
    const uint64_t high = _mm512_cmpge_epu16_mask(_mm512_loadu_si512(counts + 32), _mm512_loadu_si512(limits + 32));
    words[pixel] = low | high << 32;
  }
}

inline __mmask16 up_to_sixteen(int64_t floats) { return static_cast<__mmask16>(floats < 16 ? (1u << floats) - 1 : 0xffff); }

// Sixteen channels at a time; every operation rounds as in affine_plain.
uint64_t affine(const uint16_t* counts, int64_t channels, const Affine& how, float* result) {
  const __m512i bits = _mm512_set1_epi32(static_cast<int32_t>(how.bits));
  const __m512 zero = _mm512_setzero_ps(), low = _mm512_set1_ps(how.low), high = _mm512_set1_ps(how.high);
  uint64_t below = 0;
  for (int64_t i = 0; i < channels; i += 16) {
    const __mmask16 here = up_to_sixteen(channels - i);
    // There are counts for 64 filters, whatever the layer has.
    const __m512i count = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(counts + i)));
    const __m512 dots = _mm512_cvtepi32_ps(_mm512_sub_epi32(bits, _mm512_slli_epi32(count, 1)));
    const __m512 scaled = _mm512_mul_ps(dots, _mm512_maskz_loadu_ps(here, how.scale + i));
    __m512 y = _mm512_add_ps(scaled, _mm512_maskz_loadu_ps(here, how.shift + i));
    if (how.residual) y = _mm512_add_ps(y, _mm512_maskz_loadu_ps(here, how.residual + i));
    if (how.slope) y = _mm512_mask_mul_ps(y, _mm512_cmp_ps_mask(y, zero, _CMP_LT_OQ), y, _mm512_maskz_loadu_ps(here, how.slope + i));
    y = _mm512_min_ps(high, _mm512_max_ps(low, y));  // in this order what is no number stays
    _mm512_mask_storeu_ps(result + i, here, y);
    const __m512 limit = how.thresholds ? _mm512_maskz_loadu_ps(here, how.thresholds + i) : zero;
    below |= uint64_t{_mm512_mask_cmp_ps_mask(here, y, limit, _CMP_LT_OQ)} << i;
  }
  return below;
}

// Channels are contiguous: four comparisons make a word.
void pack_last(const Floats& floats, uint64_t* words) {
  for (int64_t pixel = 0; pixel < floats.pixels; ++pixel)
    for (int64_t start = 0; start < floats.channels; start += kWordBits, ++words) {
      const float* data = floats.data + pixel * floats.pixel_step + start;
      const float* thresholds = floats.thresholds ? floats.thresholds + start : nullptr;
      const int64_t channels = std::min(floats.channels - start, kWordBits);
      uint64_t bits = 0;
      for (int64_t c = 0; c < channels; c += 16) {
        const __mmask16 here = up_to_sixteen(channels - c);
        const __m512 limit = thresholds ? _mm512_maskz_loadu_ps(here, thresholds + c) : _mm512_setzero_ps();
        bits |= uint64_t{_mm512_mask_cmp_ps_mask(here, _mm512_maskz_loadu_ps(here, data + c), limit, _CMP_LT_OQ)} << c;
      }
      *words = bits;
    }
}

inline void bytes_of_eight(const Floats& floats, int64_t pixel, int64_t channel, uint8_t* to) {
  __m512i bytes = _mm512_setzero_si512();
  const int64_t channels = std::min<int64_t>(8, floats.channels - channel);
  for (int64_t c = 0; c < channels; ++c) {
    const float* plane = floats.data + (channel + c) * floats.channel_step + pixel;
    const __m512 limit = floats.thresholds ? _mm512_set1_ps(floats.thresholds[channel + c]) : _mm512_setzero_ps();
    const auto below = [&](int i) { return _mm512_cmp_ps_mask(_mm512_loadu_ps(plane + i * 16), limit, _CMP_LT_OQ); };
    const __mmask32 first = _mm512_kunpackw(below(1), below(0)), second = _mm512_kunpackw(below(3), below(2));
    const __m512i bit = _mm512_set1_epi8(static_cast<char>(1 << c));
    bytes = _mm512_mask_add_epi8(bytes, _mm512_kunpackd(second, first), bytes, bit);
  }
  _mm512_store_si512(to, bytes);
}

inline void transpose(const uint8_t* bytes, int64_t step, int64_t per_pixel, uint64_t* words) {
  __m512i rows[8], twos[8], fours[8];
  for (int i = 0; i < 8; ++i) rows[i] = _mm512_load_si512(bytes + i * step);
  for (int i = 0; i < 4; ++i) {
    twos[i] = _mm512_unpacklo_epi8(rows[2 * i], rows[2 * i + 1]);
    twos[4 + i] = _mm512_unpackhi_epi8(rows[2 * i], rows[2 * i + 1]);
  }
  for (int i = 0; i < 4; ++i) {
    fours[i] = _mm512_unpacklo_epi16(twos[2 * i], twos[2 * i + 1]);
    fours[4 + i] = _mm512_unpackhi_epi16(twos[2 * i], twos[2 * i + 1]);
  }
  for (int pair = 0; pair < 8; ++pair) {  // pixels 2 * pair and the next of every sixteen, as unpacks work by quarters
    const int at = pair / 4 * 2 + pair / 2 % 2 * 4;
    const __m512i found = pair % 2 ? _mm512_unpackhi_epi32(fours[at], fours[at + 1]) : _mm512_unpacklo_epi32(fours[at], fours[at + 1]);
    alignas(64) uint64_t eight[8];
    _mm512_store_si512(eight, found);
    for (int i = 0; i < 8; ++i) words[(i / 2 * 16 + pair * 2 + i % 2) * per_pixel] = eight[i];
  }
}

void pack_few(const Floats& floats, uint64_t* words) { avx2_variant.pack(floats, words); }

}  // namespace
}  // namespace edgewright

#include "packing_impl.h"

namespace edgewright {

const Variant avx512_variant = {"avx512", Layout::words, kBlock, kUnits, 1, count, reached, affine, pack, nullptr, nullptr, &avx512_floats};

}  // namespace edgewright

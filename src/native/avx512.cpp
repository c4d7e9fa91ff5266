// Kernels for AVX-512 with VPOPCNTDQ: eight words are counted by one instruction.
#include <immintrin.h>

#include <limits>
#include <utility>

#include "common.h"

namespace edgewright {
namespace {

constexpr int kUnits = 3;
constexpr int kLanes = 8;  // filters of a register
constexpr int kRegisters = kBlock / kLanes;
constexpr int kParts = kBlock / 16;
constexpr int64_t kStrip = 64;

// Sixteen filters take turns in two registers, whose sums are then the halves of sixteen counts of 32 bits in order.
int place(int filter) { return filter / 16 * 16 + filter % 2 * kLanes + filter % 16 / 2; }

using Sums = __m512i[kRegisters];

inline __m512i sixteen(const Sums& sums, int part) { return _mm512_or_si512(sums[2 * part], _mm512_slli_epi64(sums[2 * part + 1], 32)); }

// Counts a tile; `finish` gets the sums of each pixel while they are in registers.
template <class Finish>
__attribute__((always_inline)) inline void counted(const Tiles& tiles, int64_t tile, Finish&& finish) {
  Sums sums[kUnits];
#pragma GCC unroll 32
  for (int i = 0; i < kUnits * kRegisters; ++i) sums[i / kRegisters][i % kRegisters] = _mm512_setzero_si512();
  const auto* weights = static_cast<const uint64_t*>(tiles.weights);
  const uint64_t* inputs[kUnits];
  for (int unit = 0; unit < kUnits; ++unit) inputs[unit] = static_cast<const uint64_t*>(tiles.inputs[tile * kUnits + unit]);
  for (const Run* run = tiles.runs; run != tiles.runs + tiles.run_count; ++run)
    for (int64_t k = run->offset; k < run->offset + run->length; ++k, weights += kBlock) {
      __m512i bits[kUnits];
#pragma GCC unroll 4
      for (int unit = 0; unit < kUnits; ++unit) bits[unit] = _mm512_set1_epi64(static_cast<int64_t>(inputs[unit][k]));
#pragma GCC unroll 8
      for (int i = 0; i < kRegisters; ++i) {
        __m512i weight = _mm512_loadu_si512(weights + i * kLanes);
        asm("" : "+v"(weight));  // loaded once, not by all that read it
#pragma GCC unroll 4
        for (int unit = 0; unit < kUnits; ++unit)
          sums[unit][i] = _mm512_add_epi64(sums[unit][i], _mm512_popcnt_epi64(_mm512_xor_si512(bits[unit], weight)));
      }
    }
#pragma GCC unroll 4
  for (int unit = 0; unit < kUnits; ++unit) finish(unit, sums[unit]);
}

void count(const Tiles& tiles, int64_t tile, uint16_t* counts) {
  counted(tiles, tile, [&](int unit, const Sums& sums) __attribute__((always_inline)) {
#pragma GCC unroll 4
    for (int i = 0; i < kParts; ++i)
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(counts + unit * kBlock + i * 16), _mm512_cvtepi32_epi16(sixteen(sums, i)));
  });
}

inline uint64_t joined(const __mmask16 (&parts)[kParts]) {
  return _mm512_kunpackd(_mm512_kunpackw(parts[3], parts[2]), _mm512_kunpackw(parts[1], parts[0]));
}

void signs(const Tiles& tiles, const uint16_t* limits, uint64_t* words) {
  for (int64_t tile = 0; tile < tiles.count; ++tile)
    counted(tiles, tile, [&](int, const Sums& sums) __attribute__((always_inline)) {
      __mmask16 found[kParts];
#pragma GCC unroll 4
      for (int i = 0; i < kParts; ++i) {
        const __m512i limit = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(limits + i * 16)));
        found[i] = _mm512_cmpge_epu32_mask(sixteen(sums, i), limit);
      }
      *words++ = joined(found);
    });
}

inline __mmask16 up_to_sixteen(int64_t floats) {
  return static_cast<__mmask16>(floats >= 16 ? 0xffff : floats > 0 ? (1u << floats) - 1 : 0);
}

// What a tile's results need: known to the compiler, so that nothing else is left in the code.
enum { kResidual = 1, kSloped = 2, kLimited = 4, kPartial = 8, kNeeds = 16 };

// Sixteen channels at a time; every operation rounds as in affine_plain.
template <int needs>
__attribute__((always_inline)) inline uint64_t affine_pixel(const Sums& sums, const Affine& how, __m512 bits, AffinePixel pixel) {
  static constexpr float kZeros[kBlock] = {};
  const __m512 two = _mm512_set1_ps(2), zero = _mm512_setzero_ps();
  const float* thresholds = how.thresholds ? how.thresholds : kZeros;
  __mmask16 below[kParts];
#pragma GCC unroll 4
  for (int i = 0; i < kParts; ++i) {
    const __mmask16 here = needs & kPartial ? up_to_sixteen(how.channels - i * 16) : 0xffff;
    const auto load = [&](const float* values) __attribute__((always_inline)) {
      return needs & kPartial ? _mm512_maskz_loadu_ps(here, values + i * 16) : _mm512_loadu_ps(values + i * 16);
    };
    const __m512 differ = _mm512_cvtepi32_ps(sixteen(sums, i));
    const __m512 dots = _mm512_fnmadd_ps(differ, two, bits);  // whole numbers below 2^24: exact
    __m512 y = _mm512_add_ps(_mm512_mul_ps(dots, load(how.scale)), load(how.shift));
    if (needs & kResidual) y = _mm512_add_ps(y, load(pixel.residual));
    if (needs & kSloped) y = _mm512_mask_mul_ps(y, _mm512_cmp_ps_mask(y, zero, _CMP_LT_OQ), y, load(how.slope));
    // In this order what is no number stays.
    if (needs & kLimited) y = _mm512_min_ps(_mm512_set1_ps(how.high), _mm512_max_ps(_mm512_set1_ps(how.low), y));
    if (needs & kPartial)
      _mm512_mask_storeu_ps(pixel.results + i * 16, here, y);
    else
      _mm512_storeu_ps(pixel.results + i * 16, y);
    below[i] = _mm512_mask_cmp_ps_mask(here, y, load(thresholds), _CMP_LT_OQ);
  }
  return joined(below);
}

template <int needs>
void affine_of(const Tiles& tiles, const Affine& given, AffinePixel* pixel) {
  const Affine how = given;  // which no store of results can change
  const __m512 bits = _mm512_set1_ps(static_cast<float>(how.bits));
  for (int64_t tile = 0; tile < tiles.count; ++tile)
    counted(tiles, tile, [&](int, const Sums& sums) __attribute__((always_inline)) {
      if (pixel->results) pixel->signs = affine_pixel<needs>(sums, how, bits, *pixel);
      ++pixel;
    });
}

template <int... needs>
constexpr auto affine_for(int wanted, std::integer_sequence<int, needs...>) {
  constexpr decltype(Variant::affine) made[] = {affine_of<needs>...};
  return made[wanted];
}

void affine(const Tiles& tiles, const Affine& how, AffinePixel* pixels) {
  constexpr float infinity = std::numeric_limits<float>::infinity();
  const bool limited = how.low > -infinity || how.high < infinity;
  // The first pixel is real, and has a residual where others have.
  const int needs = (pixels->residual ? kResidual : 0) | (how.slope ? kSloped : 0) | (limited ? kLimited : 0) | (how.channels < kBlock ? kPartial : 0);
  affine_for(needs, std::make_integer_sequence<int, kNeeds>())(tiles, how, pixels);
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

const Variant avx512_variant = {"avx512", Layout::words, kBlock, kUnits, 1, place, count, signs, affine, pack, nullptr, nullptr, &avx512_floats};

}  // namespace edgewright

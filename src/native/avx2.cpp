// Kernels for AVX2, which has no instruction that counts bits.
//
// A shuffle of bytes looks sixteen values up at once. Here the table of a nibble of activations a says for each nibble of
// weights w how many of their bits differ; the weights of 32 output channels are the indices, so neither xor nor masks
// are needed. Two pixels share a lookup: the low half of each byte in the table counts for the first, the high half for
// the second. Three lookups are added before the halves are parted, since 3 * 4 < 16.
//
// The halves are parted with four instructions: the low ones, masked, are summed in bytes. The rest is shifted by four and
// summed in 16 bits, where a word holds  high(even) + 16 * low(odd) + 256 * high(odd)  modulo 2^16; with low(odd) known
// from the first sum, both high counts come out of it exactly as long as they stay below 256.
#include <immintrin.h>

#include "common.h"

namespace edgewright {
namespace {

constexpr int kSpan = 2;        // pixels of a pair
constexpr int kRegister = 32;   // filters of a register
constexpr int kTableBytes = 16;  // for one nibble of two pixels
constexpr int64_t kStrip = 32;

struct Tables {
  alignas(64) uint8_t bytes[256 * kTableBytes];
  constexpr Tables() : bytes{} {
    for (int both = 0; both < 256; ++both)
      for (int weight = 0; weight < 16; ++weight) {
        const int first = ones((both & 15) ^ weight), second = ones((both >> 4) ^ weight);
        bytes[both * kTableBytes + weight] = static_cast<uint8_t>(first | second << 4);
      }
  }
  static constexpr int ones(int nibble) { return (nibble & 1) + (nibble >> 1 & 1) + (nibble >> 2 & 1) + (nibble >> 3); }
};
constexpr Tables kTables;

// The running sums of 32 channels for a pair of pixels.
struct Sums {
  __m256i low, rest;
};

inline __m256i table(uint16_t entry) {
  return _mm256_broadcastsi128_si256(*reinterpret_cast<const __m128i*>(kTables.bytes + entry));
}

inline void widen(Sums& sums, __m256i triple) {
  sums.low = _mm256_add_epi8(sums.low, _mm256_and_si256(triple, _mm256_set1_epi8(15)));
  sums.rest = _mm256_add_epi16(sums.rest, _mm256_srli_epi16(triple, 4));
}

// Adds to counts[0..31] of the first pixel and of the second, which follows 64 later.
inline void flush(const Sums& sums, uint16_t* counts, bool first) {
  const __m256i bytes = _mm256_set1_epi16(255);
  const __m256i low_even = _mm256_and_si256(sums.low, bytes), low_odd = _mm256_srli_epi16(sums.low, 8);
  const __m256i high = _mm256_sub_epi16(sums.rest, _mm256_slli_epi16(low_odd, 4));
  const __m256i parts[4] = {low_even, low_odd, _mm256_and_si256(high, bytes), _mm256_srli_epi16(high, 8)};
  for (int i = 0; i < 4; ++i) {
    auto* at = reinterpret_cast<__m256i*>(counts + i / 2 * kBlock + i % 2 * 16);
    _mm256_storeu_si256(at, first ? parts[i] : _mm256_add_epi16(_mm256_loadu_si256(at), parts[i]));
  }
}

// Counts of even and odd bytes are parted, so that 16 filters in order are 16 even bytes, the next 16 odd ones.
int place(int filter) { return filter / 32 * 32 + filter % 16 * 2 + filter % 32 / 16; }

// A tile of `pairs` of pixels by 32 * `registers` filters; pairs * registers = 4 sums fill the 16 registers of a CPU.
template <int pairs, int registers>
void count(const Tiles& tiles, int64_t tile, uint16_t* counts) {
  const __m256i zero = _mm256_setzero_si256();
  const auto* weights = static_cast<const __m256i*>(tiles.weights);
  Sums sums[pairs][registers];
  for (auto& pair : sums)
    for (Sums& sum : pair) sum = {zero, zero};
  bool first = true;
  for (const Run* run = tiles.runs; run != tiles.runs + tiles.run_count; ++run) {
    const uint16_t* entries[pairs];
    for (int i = 0; i < pairs; ++i) entries[i] = static_cast<const uint16_t*>(tiles.inputs[tile * pairs + i]) + run->offset;
    for (int64_t triple = 0; triple < run->length; ++triple, weights += registers * kTriple) {
      __m256i found[pairs][registers];
      for (int j = 0; j < kTriple; ++j)
        for (int i = 0; i < pairs; ++i) {
          const __m256i differ = table(entries[i][triple * kTriple + j]);
          for (int r = 0; r < registers; ++r) {
            const __m256i bits = _mm256_shuffle_epi8(differ, weights[j * registers + r]);
            found[i][r] = j ? _mm256_add_epi8(found[i][r], bits) : bits;
            asm("" : "+x"(found[i][r]));  // in this order: reordered, the sums no longer fit the registers
          }
        }
      for (int i = 0; i < pairs; ++i)
        for (int r = 0; r < registers; ++r) widen(sums[i][r], found[i][r]);
    }
    if (!run->fills) continue;
    for (int i = 0; i < pairs; ++i)
      for (int r = 0; r < registers; ++r) {
        flush(sums[i][r], counts + i * kSpan * kBlock + r * kRegister, first);
        sums[i][r] = {zero, zero};
      }
    first = false;
  }
}

uint64_t reached(const uint16_t* counts, const uint16_t* limits) {
  __m256i found[4];
  for (int i = 0; i < 4; ++i) {
    const __m256i value = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(counts) + i);
    const __m256i limit = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(limits) + i);
    found[i] = _mm256_cmpeq_epi16(_mm256_max_epu16(value, limit), value);  // unsigned value >= limit
  }
  // The packs work by halves of registers; 0xd8 puts the quarters back in order.
  const __m256i low = _mm256_permute4x64_epi64(_mm256_packs_epi16(found[0], found[1]), 0xd8);
  const __m256i high = _mm256_permute4x64_epi64(_mm256_packs_epi16(found[2], found[3]), 0xd8);
  return static_cast<uint32_t>(_mm256_movemask_epi8(low)) | static_cast<uint64_t>(static_cast<uint32_t>(_mm256_movemask_epi8(high))) << 32;
}

// Eight channels at a time; every operation rounds as in affine_plain.
uint64_t affine(const Affine& how, const uint16_t* counts, const AffinePixel& pixel) {
  const __m256i bits = _mm256_set1_epi32(static_cast<int32_t>(how.bits));
  const __m256 zero = _mm256_setzero_ps(), low = _mm256_set1_ps(how.low), high = _mm256_set1_ps(how.high);
  uint64_t below = 0;
  int64_t i = 0;
  for (; i + 8 <= how.channels; i += 8) {
    const __m256i count = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(counts + i)));
    const __m256 dots = _mm256_cvtepi32_ps(_mm256_sub_epi32(bits, _mm256_slli_epi32(count, 1)));
    __m256 y = _mm256_add_ps(_mm256_mul_ps(dots, _mm256_loadu_ps(how.scale + i)), _mm256_loadu_ps(how.shift + i));
    if (pixel.residual) y = _mm256_add_ps(y, _mm256_loadu_ps(pixel.residual + i));
    if (how.slope)
      y = _mm256_blendv_ps(y, _mm256_mul_ps(y, _mm256_loadu_ps(how.slope + i)), _mm256_cmp_ps(y, zero, _CMP_LT_OQ));
    y = _mm256_min_ps(high, _mm256_max_ps(low, y));  // in this order what is no number stays
    _mm256_storeu_ps(pixel.results + i, y);
    const __m256 limit = how.thresholds ? _mm256_loadu_ps(how.thresholds + i) : zero;
    below |= static_cast<uint64_t>(static_cast<uint32_t>(_mm256_movemask_ps(_mm256_cmp_ps(y, limit, _CMP_LT_OQ)))) << i;
  }
  return i < how.channels ? below | affine_rest(how, counts, i, pixel) : below;
}

// The 16 entries of a word.
inline __m256i entries_of(uint64_t first, uint64_t second) {
  const __m128i low = _mm_set1_epi8(15), high = _mm_set1_epi8(-16);
  const __m128i a = _mm_cvtsi64_si128(static_cast<int64_t>(first)), b = _mm_cvtsi64_si128(static_cast<int64_t>(second));
  const __m128i even = _mm_or_si128(_mm_and_si128(a, low), _mm_and_si128(_mm_slli_epi16(b, 4), high));
  const __m128i odd = _mm_or_si128(_mm_and_si128(_mm_srli_epi16(a, 4), low), _mm_and_si128(b, high));
  return _mm256_slli_epi16(_mm256_cvtepu8_epi16(_mm_unpacklo_epi8(even, odd)), 4);  // * kTableBytes
}

void pair(const uint64_t* words, const uint64_t* partners, int64_t pixels, int64_t channels, uint16_t* entries) {
  constexpr int64_t kWordEntries = 16;
  const int64_t whole = channels / kWordBits, rest = divided_up(channels % kWordBits, 4);
  if (rest == 0) {
    for (int64_t i = 0; i < pixels * whole; ++i, entries += kWordEntries)
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(entries), entries_of(words[i], partners[i]));
    return;
  }
  for (int64_t pixel = 0; pixel < pixels; ++pixel) {
    for (int64_t i = 0; i < whole; ++i, entries += kWordEntries)
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(entries), entries_of(*words++, *partners++));
    alignas(32) uint16_t last[kWordEntries];
    _mm256_store_si256(reinterpret_cast<__m256i*>(last), entries_of(*words++, *partners++));
    entries = std::copy(last, last + rest, entries);
  }
}

// Channels are contiguous: 8 comparisons make a byte.
void pack_last(const Floats& floats, uint64_t* words) {
  for (int64_t pixel = 0; pixel < floats.pixels; ++pixel)
    for (int64_t start = 0; start < floats.channels; start += kWordBits, ++words) {
      const float* data = floats.data + pixel * floats.pixel_step + start;
      const float* thresholds = floats.thresholds ? floats.thresholds + start : nullptr;
      const int64_t channels = std::min(floats.channels - start, kWordBits);
      uint64_t bits = 0;
      int64_t c = 0;
      for (; c + 8 <= channels; c += 8) {
        const __m256 limit = thresholds ? _mm256_loadu_ps(thresholds + c) : _mm256_setzero_ps();
        const __m256 below = _mm256_cmp_ps(_mm256_loadu_ps(data + c), limit, _CMP_LT_OQ);
        bits |= static_cast<uint64_t>(static_cast<uint32_t>(_mm256_movemask_ps(below))) << c;
      }
      for (; c < channels; ++c) bits |= static_cast<uint64_t>(data[c] < (thresholds ? thresholds[c] : 0.0f)) << c;
      *words = bits;
    }
}

inline void bytes_of_eight(const Floats& floats, int64_t pixel, int64_t channel, uint8_t* to) {
  __m256i bytes = _mm256_setzero_si256();
  const int64_t channels = std::min<int64_t>(8, floats.channels - channel);
  for (int64_t c = 0; c < channels; ++c) {
    const float* plane = floats.data + (channel + c) * floats.channel_step + pixel;
    const __m256 limit = floats.thresholds ? _mm256_set1_ps(floats.thresholds[channel + c]) : _mm256_setzero_ps();
    __m256i below[4];
    for (int i = 0; i < 4; ++i)
      below[i] = _mm256_castps_si256(_mm256_cmp_ps(_mm256_loadu_ps(plane + i * 8), limit, _CMP_LT_OQ));
    const __m256i found = _mm256_packs_epi16(_mm256_packs_epi32(below[0], below[1]), _mm256_packs_epi32(below[2], below[3]));
    bytes = _mm256_or_si256(bytes, _mm256_and_si256(found, _mm256_set1_epi8(static_cast<char>(1 << c))));
  }
  // The packs work by halves of registers: four pixels of each half in turn.
  bytes = _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
  _mm256_store_si256(reinterpret_cast<__m256i*>(to), bytes);
}

inline void transpose(const uint8_t* bytes, int64_t step, int64_t per_pixel, uint64_t* words) {
  __m256i rows[8], twos[8], fours[8];
  for (int i = 0; i < 8; ++i) rows[i] = _mm256_load_si256(reinterpret_cast<const __m256i*>(bytes + i * step));
  for (int i = 0; i < 4; ++i) {
    twos[i] = _mm256_unpacklo_epi8(rows[2 * i], rows[2 * i + 1]);
    twos[4 + i] = _mm256_unpackhi_epi8(rows[2 * i], rows[2 * i + 1]);
  }
  for (int i = 0; i < 4; ++i) {
    fours[i] = _mm256_unpacklo_epi16(twos[2 * i], twos[2 * i + 1]);
    fours[4 + i] = _mm256_unpackhi_epi16(twos[2 * i], twos[2 * i + 1]);
  }
  for (int quarter = 0; quarter < 4; ++quarter) {  // pixels 4 * quarter and up, of each half
    const int at = quarter / 2 * 2 + quarter % 2 * 4;
    alignas(32) uint64_t found[2][4];
    _mm256_store_si256(reinterpret_cast<__m256i*>(found[0]), _mm256_unpacklo_epi32(fours[at], fours[at + 1]));
    _mm256_store_si256(reinterpret_cast<__m256i*>(found[1]), _mm256_unpackhi_epi32(fours[at], fours[at + 1]));
    for (int i = 0; i < 8; ++i) words[(i / 4 * 16 + quarter * 4 + i % 4) * per_pixel] = found[i % 4 / 2][i / 4 * 2 + i % 2];
  }
}

void pack_few(const Floats& floats, uint64_t* words) { pack_plain(floats, 0, floats.pixels, words); }

}  // namespace
}  // namespace edgewright

#include "packing_impl.h"

namespace edgewright {

const Variant avx2_narrow = {"avx2", Layout::pairs, 32, 4, kSpan, place, count<4, 1>, signs_of<4 * kSpan, count<4, 1>, reached>,
                             affine_of<4 * kSpan, count<4, 1>, affine>, pack, pair, nullptr, &avx2_floats};
const Variant avx2_variant = {"avx2", Layout::pairs, kBlock, 2, kSpan, place, count<2, 2>, signs_of<2 * kSpan, count<2, 2>, reached>,
                              affine_of<2 * kSpan, count<2, 2>, affine>, pack, pair, &avx2_narrow, &avx2_floats};

}  // namespace edgewright

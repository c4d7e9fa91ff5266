// What one set of kernels (portable, avx2, avx512, neon) gives to the code that all of them share.
#pragma once

#include <cstdint>
#include <vector>

#include "floats.h"

namespace edgewright {

constexpr int kBlock = 64;     // output channels that a tile has
constexpr int kMostUnits = 4;  // units that a tile has at most
constexpr int kMostSpan = 2;   // neighbouring output pixels that a unit has at most
constexpr int kMostTiles = 16;  // that a thread takes at once
constexpr int kMostPixels = kMostTiles * kMostUnits * kMostSpan;
constexpr int kTriple = 3;     // nibbles that the paired layout adds before it widens

// How kernels want their inputs. A row of inputs is a run of entries, the channels of one pixel after the other.
enum class Layout {
  words,  // an entry is a word of 64 channels; weights: [block][word of the window][filters]
  pairs,  // an entry is a nibble of 4 channels of two pixels at once; weights: [block][nibble of the window][filters]
};

constexpr int64_t kMostTriples = 255 / (4 * kTriple);  // whose counts fit a byte

// Entries that are read one after the other from an offset against a unit's first.
struct Run {
  int64_t offset;
  int64_t length;  // of Layout::words in entries, of Layout::pairs in triples, up to kMostTriples
  bool fills;      // Layout::pairs: the next run's counts no longer fit the byte as well
};

// Tiles, each of a few output pixels by 64 output channels, that have the same weights.
struct Tiles {
  const void* inputs[kMostTiles * kMostUnits];  // the first entry of each unit's window
  int64_t count;
  const Run* runs;
  int64_t run_count;
  const void* weights;
};

// Float results for up to 64 channels: limit(slope(dot * scale + shift + residual)).
struct Affine {
  int64_t bits;           // of a dot product, which is bits - 2 * count
  int64_t channels;
  const float* scale;     // by channel, as are the others
  const float* shift;
  const float* slope;     // of negative results; null: none
  float low, high;
  const float* thresholds;  // that the signs of results compare with; null: all 0
};

// One pixel of such results.
struct AffinePixel {
  const float* residual;  // null: none
  float* results;         // null for a pixel whose results are dropped
  uint64_t signs;         // of the results: bit i is set where results[i] lies below its threshold
};

// Floats whose signs are packed: pixels by channels, of which one axis is contiguous.
struct Floats {
  const float* data;
  int64_t pixels, channels;
  int64_t pixel_step, channel_step;  // in floats
  const float* thresholds;           // by channel; null: all 0
};

struct Variant {
  const char* name;
  Layout layout;
  int filters;      // of a block that are counted; counts and limits always have room for 64
  int units, span;  // of a tile
  // Where a filter of a block stands among the weights of an entry.
  int (*place)(int filter);
  // counts[units * span][64] of one tile: bits of the window that differ from the filter's.
  void (*count)(const Tiles& tiles, int64_t tile, uint16_t* counts);
  // words[tiles][units * span]: bit i is set where filter i counts limits[i] or more.
  void (*signs)(const Tiles& tiles, const uint16_t* limits, uint64_t* words);
  // pixels[tiles][units * span]: their results, where there is room for them, and signs.
  void (*affine)(const Tiles& tiles, const Affine& how, AffinePixel* pixels);
  // words[pixels][words]: bit set where a float lies below its channel's threshold.
  void (*pack)(const Floats& floats, uint64_t* words);
  // entries[pixels][channels / 4]: nibbles of each pixel and its partner, as offsets into the kernel's table. Pixels and
  // partners have whole words. Null for Layout::words.
  void (*pair)(const uint64_t* words, const uint64_t* partners, int64_t pixels, int64_t channels, uint16_t* entries);
  // The same for layers with no more filters than this one has in a block, or null.
  const Variant* narrow;
  const FloatKernels* floats;
};

extern const Variant portable_variant, avx2_variant, avx512_variant, neon_variant;

// The variants that this machine can run, fastest first: the one place that looks at the CPU.
std::vector<const Variant*> variants();

}  // namespace edgewright

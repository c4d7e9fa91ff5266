// Float kernels that one instruction set gives to the steps of a network. Tensors are channels-last.
#pragma once

#include <cstdint>

namespace edgewright {

constexpr int kMostRows = 12;       // output pixels of a tile at most
constexpr int kMostFilters = 64;    // output channels of a tile at most

// What follows a sum, by channel: limit(slope(sum * scale + shift + residual)).
struct Finish {
  const float* scale;  // null: 1, as for the others that may be null
  const float* shift;
  const float* slope;  // of negative results
  float low, high;
};

// A few output pixels by a block of filters. Weights, shift and slope have whole blocks.
struct FloatTile {
  const float* const* inputs;  // [runs][rows of a tile]
  int64_t runs, length;        // floats of a run
  const int64_t* offsets;      // of tile_apart, which has one run: [length], where its floats lie
  const float* weights;        // [runs * length][filters of a block]
  int64_t rows, filters;       // that exist
  float* const* outputs;           // [rows]
  const float* const* residuals;   // [rows], or null
  Finish finish;               // without scale
};

// Output pixels of a row whose channels have a window each, all of the same taps.
struct Window {
  int64_t count, step;         // pixels, and floats of the input from one's window to the next one's
  const float* const* inputs;  // [taps] of the first, only those inside the input
  const int64_t* numbers;      // [taps]: which of the window's they are
  int64_t taps, channels;
  const float* weights;        // [taps of the window][channels]
  float* output;
  const float* residual;       // or null
  Finish finish;               // without scale
};

// Minimal filtering: tiles of three outputs along an axis, from six neighbours by four taps.
constexpr int kTile = 3, kPartTaps = 4, kPoints = kTile + kPartTaps - 1;

// One axis of a window of up to eight taps in two parts: the even and the odd ones where outputs are two inputs apart, else
// halves. The first part is not the shorter one.
struct WinogradAxis {
  int64_t stride, first[2], taps[2];
  // At infinity only a last tap counts.
  int64_t parts(int point) const { return point < kPoints - 1 ? 2 : (taps[0] == kPartTaps) + (taps[1] == kPartTaps); }
  // Tiles beyond its own that a window reads.
  int64_t reach() const { return (first[1] + (kPoints - 1) * stride) / (kTile * stride); }
};

// A row of tiles.
struct WinogradTiles {
  WinogradAxis vertical, horizontal;
  const float* rows[2 * kPoints];  // of the input, as far as windows reach: [column of a tile][channels][plane: that column of all tiles]
  int64_t plane, channels, filters, count;
  const float* weights; // at each two points: [block of filters][part of the column][part of the row][channels][filters]
  float *lines, *points, *sums;  // scratch
  int64_t height, width, output_row;  // of the output: how many exist, floats from one row to the next
  float* output;
  const float* residual;  // or null
  Finish finish;        // without scale, in whole blocks
};

struct FloatKernels {
  int rows, filters;  // of a tile
  void (*tile)(const FloatTile& tile);    // rows of a tile, of which the last ones may repeat others
  void (*single)(const FloatTile& tile);  // one row
  void (*tile_apart)(const FloatTile& tile);  // as tile, but a run's floats lie apart
  void (*depthwise)(const Window& window);
  void (*largest)(const Window& window);                 // weights and finish are not read
  void (*summed)(const Window& window, float factor);    // the same, times the factor
  // Floats [pixels][channels] from such ones; residual may be null.
  void (*pointwise)(const float* x, const float* residual, int64_t pixels, int64_t channels, const Finish& how, float* y);
  void (*winograd)(const WinogradTiles& tiles);
};

extern const FloatKernels portable_floats, avx2_floats, avx512_floats, neon_floats;

}  // namespace edgewright

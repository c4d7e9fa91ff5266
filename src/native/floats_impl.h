// The float kernels, written once with the compiler's vectors. Before this file is included, kLanes says how many floats a
// register has, kRows and kVectors how large a tile is: its sums, a row of weights and one input fill the registers.
//
// Everything has internal linkage, as in common.h.
#pragma once

#include <cstring>
#include <limits>

#include "floats.h"

namespace edgewright {
namespace {

typedef float Vector __attribute__((vector_size(kLanes * 4)));

constexpr int kTileFilters = kLanes * kVectors;
static_assert(kRows <= kMostRows && kTileFilters <= kMostFilters, "scratch arrays have this size");

inline Vector load(const float* from) {
  Vector v;
  std::memcpy(&v, from, sizeof v);
  return v;
}

inline void store(float* to, Vector v) { std::memcpy(to, &v, sizeof v); }

inline Vector splat(float x) { return x - Vector{}; }  // exact, -0 included, which compilers know

// The channels from c on of what Finish says; the scale has its own place, since tiles have none.
inline Vector finished(Vector y, const float* residual, const Finish& how, int64_t c) {
  if (how.shift) y += load(how.shift + c);
  if (residual) y += load(residual + c);
  if (how.slope) y = y < 0 ? y * load(how.slope + c) : y;
  const Vector low = splat(how.low), high = splat(how.high);
  y = y > low ? y : low;
  return y < high ? y : high;
}

inline float finished(float y, const float* residual, const Finish& how, int64_t c) {
  if (how.shift) y += how.shift[c];
  if (residual) y += residual[c];
  if (how.slope && y < 0) y *= how.slope[c];
  y = y > how.low ? y : how.low;
  return y < how.high ? y : how.high;
}

template <int rows>
inline void accumulate(const float* const (&inputs)[rows], int64_t at, const float* weights, Vector (&sums)[rows][kVectors]) {
  Vector row[kVectors];
  for (int v = 0; v < kVectors; ++v) row[v] = load(weights + v * kLanes);
  for (int r = 0; r < rows; ++r) {
    const Vector x = splat(inputs[r][at]);
    for (int v = 0; v < kVectors; ++v) sums[r][v] += x * row[v];
  }
}

template <int rows>
inline void finish_tile(const FloatTile& tile, const Vector (&sums)[rows][kVectors]) {
  const bool whole = tile.filters == kTileFilters;
  for (int r = 0; r < rows && r < tile.rows; ++r) {
    float results[kTileFilters], rest[kTileFilters] = {};
    const float* residual = tile.residuals ? tile.residuals[r] : nullptr;
    if (residual && !whole) {
      std::memcpy(rest, residual, static_cast<size_t>(tile.filters) * sizeof(float));
      residual = rest;
    }
    float* to = whole ? tile.outputs[r] : results;
    for (int v = 0; v < kVectors; ++v) store(to + v * kLanes, finished(sums[r][v], residual, tile.finish, v * kLanes));
    if (!whole) std::memcpy(tile.outputs[r], results, static_cast<size_t>(tile.filters) * sizeof(float));
  }
}

template <int rows>
void tile_of(const FloatTile& tile) {
  Vector sums[rows][kVectors] = {};
  const float* weights = tile.weights;
  for (int64_t run = 0; run < tile.runs; ++run) {
    const float* inputs[rows];
    for (int r = 0; r < rows; ++r) inputs[r] = tile.inputs[run * rows + r];
    for (int64_t k = 0; k < tile.length; ++k, weights += kTileFilters) accumulate(inputs, k, weights, sums);
  }
  finish_tile(tile, sums);
}

// The same for one run whose floats lie apart: short runs after one another cost more than looking up where they are.
template <int rows>
void tile_apart(const FloatTile& tile) {
  Vector sums[rows][kVectors] = {};
  const float* weights = tile.weights;
  const float* inputs[rows];
  for (int r = 0; r < rows; ++r) inputs[r] = tile.inputs[r];
  for (int64_t k = 0; k < tile.length; ++k, weights += kTileFilters) accumulate(inputs, tile.offsets[k], weights, sums);
  finish_tile(tile, sums);
}

void depthwise(const Window& w) {
  for (int64_t pixel = 0; pixel < w.count; ++pixel) {
    const int64_t from = pixel * w.step, to = pixel * w.channels;
    const float* residual = w.residual ? w.residual + to : nullptr;
    int64_t c = 0;
    for (; c + kLanes <= w.channels; c += kLanes) {
      Vector sum = {};
      for (int64_t i = 0; i < w.taps; ++i) sum += load(w.inputs[i] + from + c) * load(w.weights + w.numbers[i] * w.channels + c);
      store(w.output + to + c, finished(sum, residual, w.finish, c));
    }
    for (; c < w.channels; ++c) {
      float sum = 0;
      for (int64_t i = 0; i < w.taps; ++i) sum += w.inputs[i][from + c] * w.weights[w.numbers[i] * w.channels + c];
      w.output[to + c] = finished(sum, residual, w.finish, c);
    }
  }
}

// The largest of the taps' floats from one place on; several vectors at once, of which none waits for another.
template <int vectors>
inline void largest_of(const Window& w, int64_t from, float* to) {
  Vector most[vectors];
  for (Vector& v : most) v = splat(-std::numeric_limits<float>::infinity());
  for (int64_t i = 0; i < w.taps; ++i)
    for (int v = 0; v < vectors; ++v) {
      const Vector x = load(w.inputs[i] + from + v * kLanes);
      most[v] = x > most[v] ? x : most[v];
    }
  for (int v = 0; v < vectors; ++v) store(to + v * kLanes, most[v]);
}

void largest(const Window& w) {
  for (int64_t pixel = 0; pixel < w.count; ++pixel) {
    const int64_t from = pixel * w.step;
    float* to = w.output + pixel * w.channels;
    int64_t c = 0;
    for (; c + 4 * kLanes <= w.channels; c += 4 * kLanes) largest_of<4>(w, from + c, to + c);
    for (; c + kLanes <= w.channels; c += kLanes) largest_of<1>(w, from + c, to + c);
    for (; c < w.channels; ++c) {
      float most = -std::numeric_limits<float>::infinity();
      for (int64_t i = 0; i < w.taps; ++i) most = w.inputs[i][from + c] > most ? w.inputs[i][from + c] : most;
      to[c] = most;
    }
  }
}

void summed(const Window& w, float factor) {
  for (int64_t pixel = 0; pixel < w.count; ++pixel) {
    const int64_t from = pixel * w.step;
    float* to = w.output + pixel * w.channels;
    int64_t c = 0;
    for (; c + kLanes <= w.channels; c += kLanes) {
      Vector sum = {};
      for (int64_t i = 0; i < w.taps; ++i) sum += load(w.inputs[i] + from + c);
      store(to + c, sum * factor);
    }
    for (; c < w.channels; ++c) {
      float sum = 0;
      for (int64_t i = 0; i < w.taps; ++i) sum += w.inputs[i][from + c];
      to[c] = sum * factor;
    }
  }
}

void pointwise(const float* x, const float* residual, int64_t pixels, int64_t channels, const Finish& how, float* y) {
  for (int64_t pixel = 0; pixel < pixels; ++pixel, x += channels, y += channels) {
    int64_t c = 0;
    for (; c + kLanes <= channels; c += kLanes) {
      const Vector v = how.scale ? load(x + c) * load(how.scale + c) : load(x + c);
      store(y + c, finished(v, residual, how, c));
    }
    for (; c < channels; ++c) y[c] = finished(how.scale ? x[c] * how.scale[c] : x[c], residual, how, c);
    if (residual) residual += channels;
  }
}

}  // namespace
}  // namespace edgewright

#include "winograd_impl.h"

namespace edgewright {
namespace {

constexpr FloatKernels kFloats = {kRows, kTileFilters, tile_of<kRows>, tile_of<1>, tile_apart<kRows>, depthwise, largest, summed, pointwise, winograd};

}  // namespace
}  // namespace edgewright

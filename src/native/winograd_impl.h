// Minimal filtering with the vectors of floats_impl.h: F(3 x 3, 4 x 4), nine outputs from 36 products instead of 144. Three
// outputs by four taps are a product of polynomials, known by its values at six points: 0, 1, -1, 1/2, -2 and infinity, which
// keep the error small and whose transforms of inputs and results have exact factors.
//
// Source: Lavin and Gray, "Fast algorithms for convolutional neural networks", 2016; the points: Barabasz et al., "Error
// analysis and improving the accuracy of Winograd convolution for deep neural networks", 2020.
#pragma once

#include <utility>

#include "floats_impl.h"

namespace edgewright {
namespace {

// From six neighbours to the six points.
inline void to_points(const Vector (&d)[kPoints], Vector (&at)[kPoints]) {
  const Vector first = d[3] - d[1], second = d[4] - d[2];
  at[0] = second - (d[2] - d[0]) + 1.5f * first;
  at[1] = second + first + 1.5f * (d[3] + d[2]);
  at[2] = second - first + 1.5f * (d[3] - d[2]);
  at[3] = second + 2.0f * first;
  at[4] = second - 0.5f * first;
  at[5] = d[5] - d[3] - first + 1.5f * second;
}

// From the points to three outputs.
inline void from_points(const Vector (&at)[kPoints], Vector (&y)[kTile]) {
  const Vector even = at[1] + at[2], odd = at[1] - at[2];
  y[0] = at[0] + even + (at[3] + at[4]);
  y[1] = odd + 0.5f * at[3] - 2.0f * at[4];
  y[2] = even + 0.25f * at[3] + 4.0f * at[4] + at[5];
}

inline void load_points(const float* from, int64_t step, Vector (&d)[kPoints]) {
  for (int i = 0; i < kPoints; ++i) d[i] = load(from + i * step);
}

inline int64_t lanes(int64_t count) { return (count + kLanes - 1) / kLanes * kLanes; }

// Columns to the points: lines are [point][part][column of a tile, channel][tiles and those beyond that windows reach].
void transform_columns(const WinogradTiles& w) {
  const int64_t planes = kTile * w.horizontal.stride * w.channels, line = lanes(w.count) + kLanes;
  const int64_t read = lanes(w.count + w.horizontal.reach());
  for (int part = 0; part < 2; ++part) {
    const float* rows[kPoints];
    for (int i = 0; i < kPoints; ++i) rows[i] = w.rows[w.vertical.first[part] + i * w.vertical.stride];
    for (int64_t plane = 0; plane < planes; ++plane) {
      float* to = w.lines + (part * planes + plane) * line;
      for (int64_t t = 0; t < line; t += kLanes) {
        Vector d[kPoints] = {}, at[kPoints];
        for (int i = 0; i < kPoints && t < read; ++i) d[i] = load(rows[i] + plane * w.plane + t);
        to_points(d, at);
        for (int i = 0; i < kPoints; ++i) store(to + i * 2 * planes * line + t, at[i]);
      }
    }
  }
}

// Rows to the points, for one point of the columns: [point][part of the column][part of the row][channel][tiles].
void transform_rows(const WinogradTiles& w, int above) {
  const int64_t planes = kTile * w.horizontal.stride * w.channels, wide = lanes(w.count), line = wide + kLanes;
  const int64_t points = 4 * w.channels * wide;
  for (int64_t upper = 0; upper < w.vertical.parts(above); ++upper)
    for (int64_t part = 0; part < 2; ++part)
      for (int64_t c = 0; c < w.channels; ++c) {
        const float* from[kPoints];
        float* to[kPoints];
        for (int i = 0; i < kPoints; ++i) {
          const int64_t column = w.horizontal.first[part] + i * w.horizontal.stride, period = kTile * w.horizontal.stride;
          from[i] = w.lines + ((above * 2 + upper) * planes + column % period * w.channels + c) * line + column / period;
          to[i] = w.points + i * points + ((upper * w.horizontal.parts(i) + part) * w.channels + c) * wide;
        }
        const int used = part < w.horizontal.parts(kPoints - 1) ? kPoints : kPoints - 1;
        for (int64_t t = 0; t < wide; t += kLanes) {
          Vector d[kPoints], at[kPoints];
          for (int i = 0; i < kPoints; ++i) d[i] = load(from[i] + t);
          to_points(d, at);
          for (int i = 0; i < used; ++i) store(to[i] + t, at[i]);
        }
      }
}

// Sums of products at one point, of a few tiles by a block of filters.
template <int rows>
void multiply(const float* points, int64_t step, int64_t depth, const float* weights, float* to) {
  Vector sums[rows * kVectors];
  // Loops are unrolled by name: only then does GCC 12 keep all sums in registers from the first line to the last.
#pragma GCC unroll 64
  for (int i = 0; i < rows * kVectors; ++i) sums[i] = Vector{};
  for (int64_t k = 0; k < depth; ++k, points += step, weights += kTileFilters) {
    Vector row[kVectors];
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) row[v] = load(weights + v * kLanes);
#pragma GCC unroll 64
    for (int i = 0; i < rows * kVectors; ++i) sums[i] += splat(points[i / kVectors]) * row[i % kVectors];
  }
#pragma GCC unroll 64
  for (int i = 0; i < rows * kVectors; ++i) store(to + i * kLanes, sums[i]);
}

using Multiply = void (*)(const float*, int64_t, int64_t, const float*, float*);

template <int... rows>
constexpr Multiply multiply_of(int64_t wanted, std::integer_sequence<int, rows...>) {
  constexpr Multiply found[] = {multiply<rows + 1>...};
  return found[wanted - 1];
}

// All sums at one point of the columns, back from the points of the rows: [output of a row][tiles][filters].
void multiply_rows(const WinogradTiles& w, int above, const float* weights, float* to) {
  const int64_t wide = lanes(w.count), parts = w.vertical.parts(above), count = w.count, groups = (count + kRows - 1) / kRows;
  const int64_t filters = (w.filters + kTileFilters - 1) / kTileFilters * kTileFilters;
  alignas(64) float sums[kPoints][kRows * kTileFilters];
  for (int64_t block = 0; block < filters; block += kTileFilters) {
    const float* next = weights;
    for (int64_t group = 0; group < groups; ++group) {
      const int64_t first = count * group / groups, rows = count * (group + 1) / groups - first;
      const Multiply call = multiply_of(rows, std::make_integer_sequence<int, kRows>());
      next = weights;
      for (int i = 0; i < kPoints; ++i) {
        const int64_t depth = parts * w.horizontal.parts(i) * w.channels;
        call(w.points + i * 4 * w.channels * wide + first, wide, depth, next, sums[i]);
        next += depth * kTileFilters;
      }
      for (int64_t r = 0; r < rows; ++r)
        for (int v = 0; v < kVectors; ++v) {
          Vector at[kPoints], y[kTile];
          load_points(sums[0] + r * kTileFilters + v * kLanes, kRows * kTileFilters, at);
          from_points(at, y);
          for (int j = 0; j < kTile; ++j) store(to + (j * count + first + r) * filters + block + v * kLanes, y[j]);
        }
    }
    weights = next;
  }
}

inline void put(const WinogradTiles& w, Vector sum, int64_t at, int64_t c) {
  const float* residual = w.residual ? w.residual + at : nullptr;
  float* to = w.output + at;
  if (c + kLanes <= w.filters) return store(to + c, finished(sum, residual, w.finish, c));
  for (int64_t i = c; i < w.filters; ++i) to[i] = finished(sum[i - c], residual, w.finish, i);
}

// Back from the points of the columns, and what follows the sums. The tiles are a copy, so that no store can change what they say.
void finish_tiles(const WinogradTiles w) {
  const int64_t filters = (w.filters + kTileFilters - 1) / kTileFilters * kTileFilters, step = kTile * w.count * filters;
  for (int64_t x = 0; x < w.width; ++x)
    for (int64_t c = 0; c < w.filters; c += kLanes) {
      Vector at[kPoints], y[kTile];
      load_points(w.sums + (x % kTile * w.count + x / kTile) * filters + c, step, at);
      from_points(at, y);
#pragma GCC unroll 8
      for (int i = 0; i < kTile; ++i)
        if (i < w.height) put(w, y[i], i * w.output_row + x * w.filters, c);
    }
}

void winograd(const WinogradTiles& w) {
  const int64_t filters = (w.filters + kTileFilters - 1) / kTileFilters * kTileFilters;
  const float* weights = w.weights;
  transform_columns(w);
  for (int above = 0; above < kPoints; ++above) {
    transform_rows(w, above);
    multiply_rows(w, above, weights, w.sums + above * kTile * w.count * filters);
    for (int i = 0; i < kPoints; ++i) weights += w.vertical.parts(above) * w.horizontal.parts(i) * w.channels * filters;
  }
  finish_tiles(w);
}

}  // namespace
}  // namespace edgewright

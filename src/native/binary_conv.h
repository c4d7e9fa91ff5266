// Binary convolution: sizes, weights and window of one layer made ready for one variant's kernels.
#pragma once

#include <cstdint>
#include <limits>
#include <memory>
#include <vector>

#include "pool.h"
#include "shape.h"
#include "variant.h"

namespace edgewright {

// Bytes that start on a cache line.
class Buffer {
 public:
  explicit Buffer(int64_t bytes);
  template <class T>
  T* as() const {
    return reinterpret_cast<T*>(bytes_.get());
  }

 private:
  struct Free {
    void operator()(unsigned char* bytes) const;
  };
  std::unique_ptr<unsigned char, Free> bytes_;
};

// Where results go; the last axis of each is channels.
struct SignsOut {
  uint64_t* words;  // [batch, output_h, output_w, output_words]: bit set where dot < threshold, or where not, if flipped
};
struct FloatsOut {
  const float* residual;  // [batch, output_h, output_w, filters], or null
  float* values;          // the same
  uint64_t* words = nullptr;          // of their signs, [batch, output_h, output_w, output_words], or null; of one group
  const float* thresholds = nullptr;  // f32[filters] that the signs compare with; null: all 0
};
struct DotsOut {
  int32_t* values;  // [batch, output_h, output_w, filters]
};

// What tiles are of: `size` output pixels (or kNoPixel) and a block of up to 64 filters.
struct Place {
  int64_t group, block;
  int64_t first, filters;  // the block's
  int64_t size;
  int64_t pixels[kMostPixels];
};
constexpr int64_t kNoPixel = -1;

class BinaryConv {
 public:
  // `weights`: u64[filters, kernel_h, kernel_w, group_words]. Throws std::invalid_argument where sizes cannot be.
  BinaryConv(const Shape& shape, const Variant& variant, const uint64_t* weights, int threads);

  const Shape& shape() const { return shape_; }
  const Variant& variant() const { return variant_; }
  int threads() const { return threads_; }
  int64_t workspace_bytes() const { return map_bytes_ + threads_ * row_words_ * int64_t{8}; }

  // i32[filters]; flip: a byte for each filter, 0 or 1.
  void set_thresholds(const int32_t* thresholds, const uint8_t* flip);
  // f32[filters]; slope may be null.
  void set_affine(const float* scale, const float* shift, const float* slope, float low, float high);

  // `words`: u64[batch, height, width, input_words]; bits beyond the channels are 0. `workspace` starts on a cache line
  // and has workspace_bytes(); the pool has at most threads() threads. Nothing is allocated.
  void run(const uint64_t* words, const SignsOut& out, void* workspace, Pool& pool) const;
  void run(const uint64_t* words, const FloatsOut& out, void* workspace, Pool& pool) const;
  void run(const uint64_t* words, const DotsOut& out, void* workspace, Pool& pool) const;

 private:
  template <class Out>
  void run_all(const uint64_t* words, const Out& out, void* workspace, Pool& pool) const;
  template <class Out>
  void run_tiles(const void* map, const Out& out, int64_t image, int64_t group, int64_t part) const;
  void fill_row(const uint64_t* image, int64_t group, int64_t row, uint64_t* scratch, void* map) const;
  void group_bits(const uint64_t* pixels, int64_t group, uint64_t* words) const;
  void pad(uint64_t* words, int64_t pixels) const;
  void plan_map();
  void plan_runs();
  void add_run(int64_t offset, int64_t length);
  void order_weights(const uint64_t* weights);
  void count(const Tiles& tiles, const Place& place, const SignsOut& out) const;
  void count(const Tiles& tiles, const Place& place, const FloatsOut& out) const;
  void count(const Tiles& tiles, const Place& place, const DotsOut& out) const;

  Shape shape_;
  const Variant& variant_;
  int threads_;
  int64_t pixel_entries_, row_entries_, map_rows_, map_columns_, map_bytes_, scratch_columns_, row_words_;
  int64_t blocks_, block_bytes_, units_a_row_, tiles_;
  std::vector<Run> runs_;
  int64_t held_ = 0;  // triples since the last run that fills a byte, while runs are planned
  Buffer weights_{0};  // [group][block] as the variant's layout wants them
  std::vector<uint16_t> limits_;  // [group][block][64]: counts from which a dot product is below its threshold
  std::vector<uint64_t> flips_;   // [group][block]
  std::vector<float> scale_, shift_, slope_;
  float low_ = -std::numeric_limits<float>::infinity(), high_ = std::numeric_limits<float>::infinity();
};

}  // namespace edgewright

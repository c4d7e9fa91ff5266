// Convolutions as sums over windows, for which pixels of outputs are taken together; and which way each is computed.
#include <algorithm>

#include "float_shape.h"

namespace edgewright {
namespace {

constexpr int64_t kTilesAPart = 16;
constexpr int64_t kFewChannels = 16;  // up to here a window is one run, whose floats lie apart

// A convolution, or a linear layer whose batch is the width of one row.
class Conv : public Convolution {
 public:
  explicit Conv(const Given& given) : Convolution(given) {
    const Shape& s = shape_;
    blocks_ = divided_up(s.group_filters(), kernels_.filters);
    joined_ = s.groups == 1 && s.channels <= kFewChannels && s.dilation_w == 1;
    padded_ = joined_ && (s.top || s.left || s.bottom || s.right);
    runs_ = joined_ ? 1 : s.kernel_h * s.kernel_w;
    length_ = s.group_channels() * (joined_ ? s.kernel_h * s.kernel_w : 1);
    row_ = (s.width + (padded_ ? s.left + s.right : 0)) * s.channels;
    padded_bytes_ = padded_ ? to_line(product(s.height + s.top + s.bottom, row_ * 4)) : 0;
    table_bytes_ = to_line(product(runs_, kTilesAPart * kernels_.rows * static_cast<int64_t>(sizeof(float*))));
    order(given.constant<float>(0, product(product(s.filters, s.kernel_h * s.kernel_w), s.group_channels())));
    for (int64_t i = 0; joined_ && i < s.kernel_h; ++i)
      for (int64_t k = 0; k < s.kernel_w * s.channels; ++k) offsets_.push_back(i * s.dilation_h * row_ + k);
    zeros_.assign(static_cast<size_t>(length_), 0.0f);  // no more than the weights, which are there
    shift_ = in_blocks(given.constant<float>(1, s.filters, true));
    slope_ = in_blocks(given.constant<float>(2, s.filters, true));
  }

  int64_t workspace_bytes() const override { return padded_bytes_ + threads_ * table_bytes_; }

  void prepare(const float* image, uint8_t* workspace, Pool& pool) const override {
    float* to = reinterpret_cast<float*>(workspace);
    if (padded_) pool.run(shape_.height + shape_.top + shape_.bottom, [&](int64_t row, int) { pad_row(image, row, to + row * row_); });
  }

  void run(const float* image, const Rows& all, uint8_t* workspace, Pool& pool) const override {
    const int64_t chunks = divided_up(divided_up(shape_.output_h() * shape_.output_w(), kernels_.rows), kTilesAPart);
    // Small images are shared out by filters as well.
    const int64_t blocks = blocks_ * shape_.groups, splits = chunks >= 4 * threads_ ? 1 : std::min(blocks, int64_t{8} * threads_);
    pool.run(chunks * splits, [&](int64_t part, int thread) {
      const int64_t split = part % splits;
      run_chunk(chunk_of(image, all, part / splits, workspace, thread), blocks * split / splits, blocks * (split + 1) / splits);
    });
  }

  void run_some(Band& band, const Rows& rows) const override {
    const int64_t chunks = divided_up(divided_up((rows.last - rows.first) * shape_.output_w(), kernels_.rows), kTilesAPart);
    for (int64_t chunk = 0; chunk < chunks; ++chunk)
      run_chunk(chunk_of(band.image, rows, chunk, band.workspace, band.thread), 0, blocks_ * shape_.groups);
  }

 private:
  void pad_row(const float* image, int64_t row, float* to) const {
    const Shape& s = shape_;
    const int64_t y = row - s.top, inner = s.width * s.channels, left = s.left * s.channels;
    if (y < 0 || y >= s.height) {
      std::fill(to, to + row_, 0.0f);
      return;
    }
    std::fill(to, to + left, 0.0f);
    std::copy(image + y * inner, image + (y + 1) * inner, to + left);
    std::fill(to + left + inner, to + row_, 0.0f);
  }

  // Output pixels of one image from `first` on, `last` not included, and the table of where their runs start.
  struct Chunk {
    const float* input;
    int64_t first, last;
    const float* residual;  // of the first pixel, or null
    float* output;
    const float** table;  // [tiles][runs][rows]
  };

  Chunk chunk_of(const float* image, const Rows& rows, int64_t number, uint8_t* workspace, int thread) const {
    const int64_t wide = shape_.output_w(), start = number * kTilesAPart * kernels_.rows, first = rows.first * wide + start;
    const float* input = padded_ ? reinterpret_cast<const float*>(workspace) : image;
    return {input, first, std::min(rows.last * wide, first + kTilesAPart * kernels_.rows),
            rows.residual ? rows.residual + start * shape_.filters : nullptr, rows.output + start * shape_.filters,
            reinterpret_cast<const float**>(workspace + padded_bytes_ + thread * table_bytes_)};
  }

  // Blocks of filters (of all groups' blocks) from `from` on: weights of one are read for all tiles before the next one's.
  void run_chunk(const Chunk& chunk, int64_t from, int64_t to) const {
    for (int64_t block = from, group = -1; block < to; ++block) {
      if (group != block / blocks_) fill_table(chunk, group = block / blocks_);
      run_block(chunk, group, block);
    }
  }

  void run_block(const Chunk& chunk, int64_t group, int64_t block) const {
    const Shape& s = shape_;
    const int64_t within = block % blocks_ * kernels_.filters, filter = group * s.group_filters() + within;
    float* outputs[kMostRows];
    const float* residuals[kMostRows];
    const Finish finish = {nullptr, shift_.empty() ? nullptr : shift_.data() + block * kernels_.filters,
                           slope_.empty() ? nullptr : slope_.data() + block * kernels_.filters, low_, high_};
    FloatTile tile = {chunk.table, runs_, length_, offsets_.data(), weights_.data() + block * runs_ * length_ * kernels_.filters, 0,
                      std::min<int64_t>(kernels_.filters, s.group_filters() - within), outputs, chunk.residual ? residuals : nullptr, finish};
    for (int64_t pixel = chunk.first; pixel < chunk.last; pixel += tile.rows, tile.inputs += runs_ * kernels_.rows) {
      tile.rows = std::min<int64_t>(kernels_.rows, chunk.last - pixel);
      int64_t at_filter = (pixel - chunk.first) * s.filters + filter;
      for (int64_t r = 0; r < tile.rows; ++r, at_filter += s.filters) {
        outputs[r] = chunk.output + at_filter;
        if (chunk.residual) residuals[r] = chunk.residual + at_filter;
      }
      (joined_ ? kernels_.tile_apart : tile.rows == 1 ? kernels_.single : kernels_.tile)(tile);
    }
  }

  void fill_table(const Chunk& chunk, int64_t group) const {
    const Shape& s = shape_;
    const float* input = chunk.input + group * s.group_channels();
    const float** table = chunk.table;
    int64_t y = chunk.first / s.output_w(), x = chunk.first % s.output_w();
    for (int64_t pixel = chunk.first; pixel < chunk.last; table += runs_ * kernels_.rows) {
      const int64_t rows = std::min<int64_t>(kernels_.rows, chunk.last - pixel), width = rows == 1 && !joined_ ? 1 : kernels_.rows;
      for (int64_t r = 0; r < rows; ++r, ++pixel) {
        point(input, y, x, table + r, width);
        if (++x == s.output_w()) x = 0, ++y;
      }
      for (int64_t r = rows; r < width; ++r)  // rows beyond the last repeat it
        for (int64_t i = 0; i < runs_; ++i) table[i * width + r] = table[i * width + rows - 1];
    }
  }

  // The runs of one output pixel, `step` apart in the table.
  void point(const float* input, int64_t y, int64_t x, const float** table, int64_t step) const {
    const Shape& s = shape_;
    if (joined_) {
      table[0] = input + y * s.stride_h * row_ + x * s.stride_w * s.channels;
      return;
    }
    if (runs_ == 1 && s.top == 0 && s.left == 0 && s.bottom == 0 && s.right == 0) {
      table[0] = input + (y * s.stride_h * s.width + x * s.stride_w) * s.channels;
      return;
    }
    for (int64_t i = 0; i < runs_; ++i) table[i * step] = zeros_.data();
    each_tap(s, y, x, [&](int64_t number, int64_t row, int64_t column) { table[number * step] = input + (row * s.width + column) * s.channels; });
  }

  // [filters][taps][channels of a group] -> [group][block][taps][channels of a group][filters of a block]
  void order(const std::vector<float>& weights) {
    const Shape& s = shape_;
    const int64_t wide = kernels_.filters, depth = runs_ * length_;
    weights_.assign(static_cast<size_t>(product(product(s.groups, blocks_), product(depth, wide))), 0.0f);
    for (int64_t filter = 0; filter < s.filters; ++filter) {
      const int64_t within = filter % s.group_filters(), block = filter / s.group_filters() * blocks_ + within / wide;
      float* to = weights_.data() + block * depth * wide + within % wide;
      for (int64_t k = 0; k < depth; ++k) to[k * wide] = weights[static_cast<size_t>(filter * depth + k)];
    }
  }

  std::vector<float> in_blocks(const std::vector<float>& values) const {
    const Shape& s = shape_;
    const int64_t wide = kernels_.filters;
    std::vector<float> found(values.empty() ? 0 : static_cast<size_t>(s.groups * blocks_ * wide), 0.0f);
    for (size_t filter = 0; filter < values.size(); ++filter) {
      const int64_t group = static_cast<int64_t>(filter) / s.group_filters(), within = static_cast<int64_t>(filter) % s.group_filters();
      found[static_cast<size_t>(group * blocks_ * wide + within)] = values[filter];
    }
    return found;
  }

  int64_t blocks_, runs_, length_, row_, padded_bytes_, table_bytes_;
  bool joined_, padded_;
  std::vector<int64_t> offsets_;
  std::vector<float> weights_, shift_, slope_, zeros_;
};

}  // namespace

std::unique_ptr<Convolution> make_convolution(const Given& given) {
  return winograd_wins(shape_of(given)) ? make_winograd(given) : std::make_unique<Conv>(given);
}

}  // namespace edgewright

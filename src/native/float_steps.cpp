// Steps on floats that have weights or windows: convolutions, pools, and what is done by channel.
#include <algorithm>

#include "float_shape.h"

namespace edgewright {
namespace {

constexpr int64_t kTilesAPart = 16;
constexpr int64_t kFewChannels = 16;  // up to here a window is one run, whose floats lie apart

// The inputs of a window at an output pixel, as offsets of pixels; calls `tap(number, y * width + x)` for those inside.
template <class Tap>
void each_tap(const Shape& s, int64_t y, int64_t x, Tap&& tap) {
  for (int64_t i = 0; i < s.kernel_h; ++i) {
    const int64_t row = y * s.stride_h - s.top + i * s.dilation_h;
    if (row < 0 || row >= s.height) continue;
    for (int64_t j = 0; j < s.kernel_w; ++j) {
      const int64_t column = x * s.stride_w - s.left + j * s.dilation_w;
      if (column >= 0 && column < s.width) tap(i * s.kernel_w + j, row * s.width + column);
    }
  }
}

// A convolution, or a linear layer whose batch is the width of one row.
class Conv : public ConvStep {
 public:
  explicit Conv(const Given& given) : ConvStep(given) {
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

  void run(const Memory& memory) const override {
    const Shape& s = shape_;
    const int64_t pixels = s.output_h() * s.output_w(), tiles = divided_up(pixels, kernels_.rows);
    const int64_t chunks = divided_up(tiles, kTilesAPart);
    // Small images are shared out by filters as well.
    const int64_t splits = chunks >= 4 * threads_ ? 1 : std::min(blocks_ * s.groups, int64_t{8} * threads_);
    for (int64_t image = 0; image < s.batch; ++image) {
      const float* input = at<float>(memory, input_) + image * s.height * s.width * s.channels;
      if (padded_) {
        float* to = reinterpret_cast<float*>(memory.workspace);
        memory.pool.run(s.height + s.top + s.bottom, [&](int64_t row, int) { pad_row(input, row, to + row * row_); });
        input = to;
      }
      memory.pool.run(chunks * splits, [&](int64_t part, int thread) {
        const int64_t split = part % splits, first = part / splits * kTilesAPart * kernels_.rows;
        const Chunk chunk = {input, image * pixels, first, std::min(pixels, first + kTilesAPart * kernels_.rows),
                             reinterpret_cast<const float**>(memory.workspace + padded_bytes_ + thread * table_bytes_)};
        run_chunk(memory, chunk, blocks_ * s.groups * split / splits, blocks_ * s.groups * (split + 1) / splits);
      });
    }
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
    int64_t image_pixels, first, last;
    const float** table;  // [tiles][runs][rows]
  };

  // Blocks of filters (of all groups' blocks) from `from` on: weights of one are read for all tiles before the next one's.
  void run_chunk(const Memory& memory, const Chunk& chunk, int64_t from, int64_t to) const {
    for (int64_t block = from, group = -1; block < to; ++block) {
      if (group != block / blocks_) fill_table(chunk, group = block / blocks_);
      run_block(memory, chunk, group, block);
    }
  }

  void run_block(const Memory& memory, const Chunk& chunk, int64_t group, int64_t block) const {
    const Shape& s = shape_;
    const int64_t within = block % blocks_ * kernels_.filters, filter = group * s.group_filters() + within;
    float* outputs[kMostRows];
    const float* residuals[kMostRows];
    const Finish finish = {nullptr, shift_.empty() ? nullptr : shift_.data() + block * kernels_.filters,
                           slope_.empty() ? nullptr : slope_.data() + block * kernels_.filters, low_, high_};
    FloatTile tile = {chunk.table, runs_, length_, offsets_.data(), weights_.data() + block * runs_ * length_ * kernels_.filters, 0,
                      std::min<int64_t>(kernels_.filters, s.group_filters() - within), outputs, residual_ < 0 ? nullptr : residuals, finish};
    for (int64_t pixel = chunk.first; pixel < chunk.last; pixel += tile.rows, tile.inputs += runs_ * kernels_.rows) {
      tile.rows = std::min<int64_t>(kernels_.rows, chunk.last - pixel);
      int64_t at_filter = (chunk.image_pixels + pixel) * s.filters + filter;
      for (int64_t r = 0; r < tile.rows; ++r, at_filter += s.filters) {
        outputs[r] = at<float>(memory, output_) + at_filter;
        if (residual_ >= 0) residuals[r] = at<float>(memory, residual_) + at_filter;
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
    each_tap(s, y, x, [&](int64_t number, int64_t place) { table[number * step] = input + place * s.channels; });
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

// What steps with a window for each channel share: a thread takes rows of outputs and has a list of taps.
class Windows : public Step {
 public:
  Windows(const Given& given, const Shape& shape) : shape_(shape), kernels_(*given.variant.floats), threads_(given.threads) {
    taps_ = product(shape_.kernel_h, shape_.kernel_w);
    table_bytes_ = to_line(taps_ * 16);
    input_ = given.read(0, input_bytes(shape_));
    output_ = given.write(0, output_bytes(shape_));
  }

  int64_t workspace_bytes() const override { return threads_ * table_bytes_; }

 protected:
  template <class Call>
  void each_window(const Memory& memory, Call&& call) const {
    const Shape& s = shape_;
    memory.pool.run(s.batch * s.output_h(), [&](int64_t row, int thread) {
      auto* inputs = reinterpret_cast<const float**>(memory.workspace + thread * table_bytes_);
      auto* numbers = reinterpret_cast<int64_t*>(inputs + taps_);
      const float* image = at<float>(memory, input_) + row / s.output_h() * s.height * s.width * s.channels;
      int64_t found = 0;
      for (int64_t x = 0; x < s.output_w(); ++x) {
        if (x > 0 && inside(x - 1) && inside(x)) {  // the same taps, one step to the right
          for (int64_t i = 0; i < found; ++i) inputs[i] += s.stride_w * s.channels;
        } else {
          found = 0;
          each_tap(s, row % s.output_h(), x, [&](int64_t number, int64_t place) {
            inputs[found] = image + place * s.channels;
            numbers[found++] = number;
          });
        }
        const int64_t to = (row * s.output_w() + x) * s.channels;
        call(Window{inputs, numbers, found, s.channels, nullptr, at<float>(memory, output_) + to, nullptr, {}}, to);
      }
    });
  }

  // Whether all columns of an output's window lie inside the input.
  bool inside(int64_t x) const {
    const int64_t first = x * shape_.stride_w - shape_.left;
    return first >= 0 && first + (shape_.kernel_w - 1) * shape_.dilation_w < shape_.width;
  }

  Shape shape_;
  const FloatKernels& kernels_;
  int threads_;
  int64_t taps_, table_bytes_, input_, output_;
};

class Depthwise : public Windows {
 public:
  explicit Depthwise(const Given& given) : Windows(given, shape_of(given)) {
    given.expect(16, 2, 2, 1, 3);
    const Shape& s = shape_;
    if (s.groups != s.channels || s.filters != s.channels) throw std::invalid_argument("each channel has a filter of its own");
    residual_ = given.read(1, output_bytes(s), true);
    low_ = given.number(0), high_ = given.number(1);
    const std::vector<float> weights = given.constant<float>(0, product(s.channels, taps_));
    weights_.resize(weights.size());
    for (int64_t c = 0; c < s.channels; ++c)
      for (int64_t i = 0; i < taps_; ++i) weights_[static_cast<size_t>(i * s.channels + c)] = weights[static_cast<size_t>(c * taps_ + i)];
    shift_ = given.constant<float>(1, s.filters, true);
    slope_ = given.constant<float>(2, s.filters, true);
  }

  void run(const Memory& memory) const override {
    const Finish finish = {nullptr, shift_.empty() ? nullptr : shift_.data(), slope_.empty() ? nullptr : slope_.data(), low_, high_};
    each_window(memory, [&](Window window, int64_t to) {
      window.weights = weights_.data();
      window.finish = finish;
      if (residual_ >= 0) window.residual = at<float>(memory, residual_) + to;
      kernels_.depthwise(window);
    });
  }

 private:
  int64_t residual_;
  float low_, high_;
  std::vector<float> weights_, shift_, slope_;
};

enum Pooling { kLargest = 0, kMean = 1, kMeanOfAll = 2 };  // the last one counts padding as zeros

class PoolStep : public Windows {
 public:
  explicit PoolStep(const Given& given) : Windows(given, shape_of(given)), pooling_(given.size(16, 0, 2)) {
    given.expect(17, 0, 1, 1, 0);
    if (shape_.filters != shape_.channels) throw std::invalid_argument("a pool makes as many channels as it reads");
  }

  void run(const Memory& memory) const override {
    each_window(memory, [&](const Window& window, int64_t) {
      if (pooling_ == kLargest) return kernels_.largest(window);
      const int64_t count = pooling_ == kMeanOfAll ? taps_ : std::max<int64_t>(window.taps, 1);
      kernels_.summed(window, 1.0f / static_cast<float>(count));
    });
  }

 private:
  int64_t pooling_;
};

// limit(slope(x * scale + shift + residual)) by channel; the scale may be a tensor, one for each image.
class Pointwise : public Step {
 public:
  explicit Pointwise(const Given& given) : kernels_(*given.variant.floats) {
    given.expect(3, 2, 3, 1, 3);
    batch_ = given.size(0), pixels_ = given.size(1, 1, kMostElements), channels_ = given.size(2, 1, kMostElements);
    const int64_t bytes = product(product(batch_, pixels_), product(channels_, 4));
    input_ = given.read(0, bytes);
    residual_ = given.read(1, bytes, true);
    factor_ = given.read(2, product(batch_, product(channels_, 4)), true);
    output_ = given.write(0, bytes);
    low_ = given.number(0), high_ = given.number(1);
    scale_ = given.constant<float>(0, channels_, true);
    shift_ = given.constant<float>(1, channels_, true);
    slope_ = given.constant<float>(2, channels_, true);
    if (factor_ >= 0 && !scale_.empty()) throw std::invalid_argument("there are two scales");
  }

  void run(const Memory& memory) const override {
    constexpr int64_t kFloatsAPart = 8192;
    const int64_t each = std::max<int64_t>(1, kFloatsAPart / channels_), parts = divided_up(pixels_, each);
    memory.pool.run(batch_ * parts, [&](int64_t part, int) {
      const int64_t image = part / parts, first = part % parts * each;
      const int64_t from = (image * pixels_ + first) * channels_;
      const float* scale = factor_ >= 0 ? at<float>(memory, factor_) + image * channels_ : scale_.empty() ? nullptr : scale_.data();
      const Finish how = {scale, shift_.empty() ? nullptr : shift_.data(), slope_.empty() ? nullptr : slope_.data(), low_, high_};
      const float* residual = residual_ < 0 ? nullptr : at<float>(memory, residual_) + from;
      kernels_.pointwise(at<float>(memory, input_) + from, residual, std::min(each, pixels_ - first), channels_, how, at<float>(memory, output_) + from);
    });
  }

 private:
  const FloatKernels& kernels_;
  int64_t batch_, pixels_, channels_, input_, residual_, factor_, output_;
  float low_, high_;
  std::vector<float> scale_, shift_, slope_;
};

}  // namespace

std::unique_ptr<Step> make_conv(const Given& given) {
  return winograd_wins(shape_of(given)) ? make_winograd(given) : std::make_unique<Conv>(given);
}
std::unique_ptr<Step> make_depthwise(const Given& given) { return std::make_unique<Depthwise>(given); }
std::unique_ptr<Step> make_pool(const Given& given) { return std::make_unique<PoolStep>(given); }
std::unique_ptr<Step> make_pointwise(const Given& given) { return std::make_unique<Pointwise>(given); }

}  // namespace edgewright

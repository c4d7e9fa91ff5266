// Steps on signs, and those that only move or look at single floats.
#include <algorithm>
#include <cmath>

#include "network.h"

namespace edgewright {
namespace {

// The same as `transpose` for the three colours of an image; compilers make vectors of it.
void transpose_colours(const float* __restrict from, int64_t columns, float* __restrict to) {
  for (int64_t c = 0; c < columns; ++c)
    for (int64_t r = 0; r < 3; ++r) to[c * 3 + r] = from[r * columns + c];
}

// [rows][columns] -> [columns][rows]
void transpose(const float* from, int64_t rows, int64_t columns, float* to) {
  if (rows == 3) return transpose_colours(from, columns, to);
  constexpr int64_t kSquare = 16;  // whose lines stay in the cache
  for (int64_t column = 0; column < columns; column += kSquare)
    for (int64_t row = 0; row < rows; row += kSquare)
      for (int64_t c = column; c < std::min(columns, column + kSquare); ++c)
        for (int64_t r = row; r < std::min(rows, row + kSquare); ++r) to[c * rows + r] = from[r * columns + c];
}

// Matrices between the order of the caller's arrays and the network's own, in parts of columns.
void transpose_all(const float* from, int64_t batch, int64_t rows, int64_t columns, float* to) {
  for (int64_t i = 0; i < batch; ++i) transpose(from + i * rows * columns, rows, columns, to + i * rows * columns);
}

class Transpose : public Step {
 public:
  explicit Transpose(const Given& given) {
    given.expect(3, 0, 1, 1, 0);
    batch_ = given.size(0), rows_ = given.size(1), columns_ = given.size(2);
    const int64_t bytes = product(product(batch_, rows_), product(columns_, 4));
    input_ = given.read(0, bytes), output_ = given.write(0, bytes);
  }
  void run(const Memory& memory) const override {
    transpose_all(at<float>(memory, input_), batch_, rows_, columns_, at<float>(memory, output_));
  }

 private:
  int64_t batch_, rows_, columns_, input_, output_;
};

// A tensor of four axes repeated along some of them.
class Expand : public Step {
 public:
  explicit Expand(const Given& given) {
    given.expect(8, 0, 1, 1, 0);
    int64_t read = 1, made = 1;
    for (size_t axis = 4; axis-- > 0;) {
      sizes_[axis] = given.size(axis, 1, kMostElements);
      const bool repeats = given.size(4 + axis, 0, 1) == 1;
      steps_[axis] = repeats ? 0 : read;
      made = product(made, sizes_[axis]);
      if (!repeats) read = product(read, sizes_[axis]);
    }
    input_ = given.read(0, product(read, 4)), output_ = given.write(0, product(made, 4));
  }
  void run(const Memory& memory) const override {
    const float* x = at<float>(memory, input_);
    float* y = at<float>(memory, output_);
    for (int64_t i = 0; i < sizes_[0]; ++i)
      for (int64_t j = 0; j < sizes_[1]; ++j)
        for (int64_t k = 0; k < sizes_[2]; ++k) {
          const float* row = x + i * steps_[0] + j * steps_[1] + k * steps_[2];
          for (int64_t l = 0; l < sizes_[3]; ++l) *y++ = row[l * steps_[3]];
        }
  }

 private:
  int64_t sizes_[4], steps_[4], input_, output_;
};

// Every so-and-so-many values of a tensor of four axes; where a place lies outside of it, a fixed value.
class Slice : public Step {
 public:
  explicit Slice(const Given& given) : fill_(0) {
    given.expect(20, 1, 1, 1, 0);
    fill_ = given.number(0);
    int64_t read = 1, made = 1;
    for (size_t axis = 0; axis < 4; ++axis) {
      sizes_[axis] = given.size(axis), made_[axis] = given.size(4 + axis);
      first_[axis] = given.size(8 + axis, 0) - given.size(12 + axis, 0), steps_[axis] = given.size(16 + axis);
      read = product(read, sizes_[axis]), made = product(made, made_[axis]);
    }
    input_ = given.read(0, product(read, 4)), output_ = given.write(0, product(made, 4));
  }
  void run(const Memory& memory) const override {
    const float* x = at<float>(memory, input_);
    float* y = at<float>(memory, output_);
    for (int64_t i = 0; i < made_[0]; ++i)
      for (int64_t j = 0; j < made_[1]; ++j)
        for (int64_t k = 0; k < made_[2]; ++k, y += made_[3]) {
          const int64_t a = place(0, i), b = place(1, j), c = place(2, k);
          if (a < 0 || b < 0 || c < 0) {
            std::fill_n(y, made_[3], fill_);
            continue;
          }
          const float* row = x + ((a * sizes_[1] + b) * sizes_[2] + c) * sizes_[3];
          for (int64_t l = 0; l < made_[3]; ++l) {
            const int64_t from = place(3, l);
            y[l] = from < 0 ? fill_ : row[from];
          }
        }
  }

 private:
  // The place that number `i` of an axis comes from; negative where it lies outside.
  int64_t place(size_t axis, int64_t i) const {
    const int64_t from = first_[axis] + i * steps_[axis];
    return from < sizes_[axis] ? from : -1;
  }

  int64_t sizes_[4], made_[4], first_[4], steps_[4], input_, output_;
  float fill_;
};

// A caller's array to or from the arena: [batch][rows][columns] outside is [batch][columns][rows] inside.
class Exchange : public Step {
 public:
  explicit Exchange(const Given& given, bool feeds) : feeds_(feeds) {
    given.expect(5, 0, feeds ? 0 : 1, feeds ? 1 : 0, 0);
    index_ = given.size(0, 0), item_ = given.size(1, 1, 4), batch_ = given.size(2), rows_ = given.size(3), columns_ = given.size(4, 1, kMostElements);
    bytes_ = product(product(batch_, rows_), product(columns_, item_));
    place_ = feeds ? given.write(0, bytes_) : given.read(0, bytes_);
    moves_ = rows_ > 1 && columns_ > 1;
    if (moves_ && item_ != 4) throw std::invalid_argument("only floats change their order");
  }
  void run(const Memory& memory) const override {
    const void* from = feeds_ ? memory.inputs[index_] : at<void>(memory, place_);
    void* to = feeds_ ? at<void>(memory, place_) : memory.outputs[index_];
    if (!moves_) {
      std::memcpy(to, from, static_cast<size_t>(bytes_));
    } else if (feeds_) {
      transpose_all(static_cast<const float*>(from), batch_, rows_, columns_, static_cast<float*>(to));
    } else {
      transpose_all(static_cast<const float*>(from), batch_, columns_, rows_, static_cast<float*>(to));
    }
  }

 private:
  bool feeds_, moves_;
  int64_t index_, item_, batch_, rows_, columns_, bytes_, place_;
};

// Runs of each part after one another, for each of `outer`.
class Concat : public Step {
 public:
  explicit Concat(const Given& given) : outer_(given.size(0, 1, kMostElements)) {
    given.expect(given.sizes(), 0, given.sizes() - 1, 1, 0);
    for (size_t i = 0; i < given.reads(); ++i) {
      lengths_.push_back(given.size(i + 1, 1, kMostElements));
      inputs_.push_back(given.read(i, product(outer_, product(lengths_.back(), 4))));
      total_ += lengths_.back();
    }
    output_ = given.write(0, product(outer_, product(total_, 4)));
  }
  void run(const Memory& memory) const override {
    float* to = at<float>(memory, output_);
    for (int64_t i = 0; i < outer_; ++i)
      for (size_t part = 0; part < inputs_.size(); ++part)
        to = std::copy_n(at<float>(memory, inputs_[part]) + i * lengths_[part], lengths_[part], to);
  }

 private:
  int64_t outer_, total_ = 0, output_;
  std::vector<int64_t> inputs_, lengths_;
};

class Softmax : public Step {
 public:
  explicit Softmax(const Given& given) {
    given.expect(2, 0, 1, 1, 0);
    rows_ = given.size(0, 1, kMostElements), columns_ = given.size(1, 1, kMostElements);
    const int64_t bytes = product(rows_, product(columns_, 4));
    input_ = given.read(0, bytes), output_ = given.write(0, bytes);
  }
  void run(const Memory& memory) const override {
    memory.pool.run(rows_, [&](int64_t row, int) {
      const float* x = at<float>(memory, input_) + row * columns_;
      float* y = at<float>(memory, output_) + row * columns_;
      const float most = *std::max_element(x, x + columns_);
      float sum = 0;
      for (int64_t i = 0; i < columns_; ++i) sum += y[i] = std::exp(x[i] - most);
      for (int64_t i = 0; i < columns_; ++i) y[i] /= sum;
    });
  }

 private:
  int64_t rows_, columns_, input_, output_;
};

// A function of each float alone.
class Map : public Step {
 public:
  explicit Map(const Given& given) {
    given.expect(2, 0, 1, 1, 0);
    function_ = given.size(0, 0, 2), count_ = given.size(1, 1, kMostElements);
    input_ = given.read(0, product(count_, 4)), output_ = given.write(0, product(count_, 4));
  }
  void run(const Memory& memory) const override {
    const float* x = at<float>(memory, input_);
    float* y = at<float>(memory, output_);
    const auto all = [&](auto f) { std::transform(x, x + count_, y, f); };
    if (function_ == 0) all([](float v) { return 1 / (1 + std::exp(-v)); });
    if (function_ == 1) all([](float v) { return std::tanh(v); });
    if (function_ == 2) all([](float v) { return std::exp(v); });
  }

 private:
  int64_t function_, count_, input_, output_;
};

class Pack : public Step {
 public:
  explicit Pack(const Given& given) : variant_(given.variant) {
    given.expect(2, 0, 1, 1, 1);
    pixels_ = given.size(0, 1, kMostElements), channels_ = given.size(1);
    words_ = divided_up(channels_, kWordBits);
    input_ = given.read(0, product(pixels_, product(channels_, 4)));
    output_ = given.write(0, product(pixels_, product(words_, 8)));
    thresholds_ = given.constant<float>(0, channels_, true);
  }
  void run(const Memory& memory) const override {
    constexpr int64_t kPixelsAPart = 128;
    memory.pool.run(divided_up(pixels_, kPixelsAPart), [&](int64_t part, int) {
      const int64_t first = part * kPixelsAPart;
      const Floats floats = {at<float>(memory, input_) + first * channels_, std::min(kPixelsAPart, pixels_ - first), channels_, channels_, 1,
                             thresholds_.empty() ? nullptr : thresholds_.data()};
      variant_.pack(floats, at<uint64_t>(memory, output_) + first * words_);
    });
  }

 private:
  const Variant& variant_;
  int64_t pixels_, channels_, words_, input_, output_;
  std::vector<float> thresholds_;
};

Shape binary_shape(const Given& given) {
  Shape s;
  int64_t* const sizes[] = {&s.batch, &s.height, &s.width, &s.channels, &s.filters, &s.kernel_h, &s.kernel_w, &s.stride_h,
                            &s.stride_w, &s.dilation_h, &s.dilation_w, &s.top, &s.left, &s.bottom, &s.right, &s.groups};
  for (size_t i = 0; i < 16; ++i) *sizes[i] = given.size(i, 0);
  s.pads_minus = given.size(16, 0, 1) == 1;
  s.check();
  return s;
}

std::vector<uint64_t> binary_weights(const Given& given) {
  const Shape s = binary_shape(given);
  return given.constant<uint64_t>(0, product(product(s.filters, s.kernel_h * s.kernel_w), s.group_words()));
}

// What both binary steps share.
class Binary : public Step {
 public:
  explicit Binary(const Given& given) : conv_(binary_shape(given), given.variant, binary_weights(given).data(), given.threads) {
    const Shape& s = conv_.shape();
    input_ = given.read(0, product(product(s.batch * s.height, s.width), s.input_words() * 8));
    pixels_ = product(s.batch * s.output_h(), s.output_w());
  }
  int64_t workspace_bytes() const override { return conv_.workspace_bytes(); }

 protected:
  BinaryConv conv_;
  int64_t input_, pixels_;
};

// Floats by scale, shift, residual, slope and limits, and, where they are asked for, their signs.
class BinaryFloats : public Binary {
 public:
  explicit BinaryFloats(const Given& given) : Binary(given) {
    given.expect(17, 2, 2, 2, 5);
    const int64_t filters = conv_.shape().filters, bytes = product(pixels_, product(filters, 4));
    residual_ = given.read(1, bytes, true);
    output_ = given.write(0, bytes);
    signs_ = given.write(1, product(pixels_, conv_.shape().output_words() * 8), true);
    const auto scale = given.constant<float>(1, filters), shift = given.constant<float>(2, filters), slope = given.constant<float>(3, filters, true);
    conv_.set_affine(scale.data(), shift.data(), slope.empty() ? nullptr : slope.data(), given.number(0), given.number(1));
    thresholds_ = given.constant<float>(4, filters, true);
    if (signs_ >= 0 && conv_.shape().groups > 1) throw std::invalid_argument("signs are packed for one group alone");
  }
  void run(const Memory& memory) const override {
    const FloatsOut out = {at<float>(memory, residual_), at<float>(memory, output_), at<uint64_t>(memory, signs_), thresholds_.empty() ? nullptr : thresholds_.data()};
    conv_.run(at<uint64_t>(memory, input_), out, memory.workspace, memory.pool);
  }

 private:
  int64_t residual_, output_, signs_;
  std::vector<float> thresholds_;
};

class BinarySigns : public Binary {
 public:
  explicit BinarySigns(const Given& given) : Binary(given) {
    given.expect(17, 0, 1, 1, 3);
    const int64_t filters = conv_.shape().filters;
    output_ = given.write(0, product(pixels_, conv_.shape().output_words() * 8));
    const auto thresholds = given.constant<int32_t>(1, filters);
    const auto flip = given.constant<uint8_t>(2, filters);
    conv_.set_thresholds(thresholds.data(), flip.data());
  }
  void run(const Memory& memory) const override {
    conv_.run(at<uint64_t>(memory, input_), SignsOut{at<uint64_t>(memory, output_)}, memory.workspace, memory.pool);
  }

 private:
  int64_t output_;
};

}  // namespace

std::unique_ptr<Step> make_transpose(const Given& given) { return std::make_unique<Transpose>(given); }
std::unique_ptr<Step> make_concat(const Given& given) { return std::make_unique<Concat>(given); }
std::unique_ptr<Step> make_softmax(const Given& given) { return std::make_unique<Softmax>(given); }
std::unique_ptr<Step> make_map(const Given& given) { return std::make_unique<Map>(given); }
std::unique_ptr<Step> make_expand(const Given& given) { return std::make_unique<Expand>(given); }
std::unique_ptr<Step> make_slice(const Given& given) { return std::make_unique<Slice>(given); }
std::unique_ptr<Step> make_pack(const Given& given) { return std::make_unique<Pack>(given); }
std::unique_ptr<Step> make_binary_conv(const Given& given) { return std::make_unique<BinaryFloats>(given); }
std::unique_ptr<Step> make_binary_signs(const Given& given) { return std::make_unique<BinarySigns>(given); }
std::unique_ptr<Step> make_feed(const Given& given) { return std::make_unique<Exchange>(given, true); }
std::unique_ptr<Step> make_take(const Given& given) { return std::make_unique<Exchange>(given, false); }

}  // namespace edgewright

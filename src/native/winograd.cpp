// Stems: convolutions of few channels by a large window, as minimal filtering (see winograd_impl.h). Both axes of the window are
// cut in two parts of up to four taps, and the sums of the four parts of the window meet before they are transformed back.
#include <algorithm>
#include <cmath>

#include "float_shape.h"

namespace edgewright {
namespace {

constexpr int64_t kMostTiles = 48;  // of a row at once: what belongs to them stays in the caches
constexpr int64_t kAligned = 16;    // floats of a register at most
constexpr double kFinite[kPoints - 1] = {0, 1, -1, 0.5, -2};

int64_t aligned(int64_t floats) { return divided_up(floats, kAligned) * kAligned; }

WinogradAxis axis(int64_t kernel, int64_t stride) {
  const int64_t half = divided_up(kernel, 2);
  return {stride, {0, stride == 1 ? half : 1}, {half, kernel - half}};
}

// What a tap weighs at a point: its power by the point's differences to the others.
double weight(int point, int64_t tap) {
  if (point == kPoints - 1) return tap == kPartTaps - 1;
  double differences = 1;
  for (double other : kFinite)
    if (other != kFinite[point]) differences *= kFinite[point] - other;
  return std::pow(kFinite[point], static_cast<double>(tap)) / differences;
}

typedef float Four __attribute__((vector_size(16)));

// Two halves in turn: the first ones, or the second ones.
Four low(Four a, Four b) { return Four{a[0], b[0], a[1], b[1]}; }
Four high(Four a, Four b) { return Four{a[2], b[2], a[3], b[3]}; }

// Four by four floats.
void transpose_square(const float* from, int64_t from_step, float* to, int64_t to_step) {
  Four rows[4];
  for (int i = 0; i < 4; ++i) std::memcpy(&rows[i], from + i * from_step, sizeof(Four));
  const Four even[2] = {low(rows[0], rows[2]), high(rows[0], rows[2])}, odd[2] = {low(rows[1], rows[3]), high(rows[1], rows[3])};
  for (int i = 0; i < 2; ++i) rows[2 * i] = low(even[i], odd[i]), rows[2 * i + 1] = high(even[i], odd[i]);
  for (int i = 0; i < 4; ++i) std::memcpy(to + i * to_step, &rows[i], sizeof(Four));
}

// [rows][columns] -> [columns][rows]; rows are a multiple of four.
void transpose(const float* from, int64_t rows, int64_t columns, float* to) {
  for (int64_t row = 0; row < rows; row += 4) {
    int64_t column = 0;
    for (; column + 4 <= columns; column += 4) transpose_square(from + row * columns + column, columns, to + column * rows + row, rows);
    for (; column < columns; ++column)
      for (int64_t i = row; i < row + 4; ++i) to[column * rows + i] = from[i * columns + column];
  }
}

class Winograd : public Convolution {
 public:
  explicit Winograd(const Given& given) : Convolution(given) {
    const Shape& s = shape_;
    vertical_ = axis(s.kernel_h, s.stride_h), horizontal_ = axis(s.kernel_w, s.stride_w);
    plan();
    transform(given.constant<float>(0, product(product(s.filters, s.kernel_h * s.kernel_w), s.channels)));
    shift_ = in_blocks(given.constant<float>(1, s.filters, true));
    slope_ = in_blocks(given.constant<float>(2, s.filters, true));
  }

  int64_t workspace_bytes() const override { return threads_ * scratch_ * 4; }

  void run(const float* image, const Rows& all, uint8_t* workspace, Pool& pool) const override {
    const int64_t bands = pool.threads() == 1 ? 1 : std::min<int64_t>(tile_rows_, 4 * pool.threads());
    pool.run(bands, [&](int64_t number, int thread) {
      const int64_t first = tile_rows_ * number / bands * kTile, last = std::min(all.last, tile_rows_ * (number + 1) / bands * kTile);
      const int64_t place = first * shape_.output_w() * shape_.filters;
      Band band = {image, workspace, thread};
      run_some(band, {first, last, all.residual ? all.residual + place : nullptr, all.output + place});
    });
  }

  void run_some(Band& band, const Rows& rows) const override {
    float* parted = reinterpret_cast<float*>(band.workspace) + band.thread * scratch_;
    float* scratch = parted + reach_ * row_;
    for (int64_t tile_row = rows.first / kTile; tile_row * kTile < rows.last; ++tile_row) {
      const int64_t first = tile_row * kTile * shape_.stride_h;
      for (int64_t row = std::max(band.known, first); row < first + reach_; ++row) part_row(band.image, row, scratch, parted + row % reach_ * row_);
      band.known = first + reach_;
      for (int64_t strip = 0; strip < strips_; ++strip) run_tiles(rows, tile_row, strip, parted, scratch);
    }
  }

 private:
  void plan() {
    const Shape& s = shape_;
    filters_ = divided_up(s.filters, kernels_.filters) * kernels_.filters;
    tile_rows_ = divided_up(s.output_h(), kTile), tiles_ = divided_up(s.output_w(), kTile);
    strip_ = aligned(divided_up(tiles_, divided_up(tiles_, kMostTiles)));
    strips_ = divided_up(tiles_, strip_);
    const int64_t planes = kTile * s.stride_w * s.channels;
    reach_ = vertical_.first[1] + (kPoints - 1) * s.stride_h + 1;
    plane_ = aligned(tiles_ + horizontal_.reach());
    row_ = product(planes, plane_);
    lines_ = product(kPoints * 2 * planes, strip_ + kAligned);
    points_ = product(kPoints * 4 * s.channels, strip_);
    scratch_ = reach_ * row_ + std::max(row_, lines_ + points_ + product(kPoints * kTile * strip_, filters_));
  }

  // A padded row, parted by where columns lie in a tile, so that tiles are neighbours: [column of a tile][channels][tiles].
  void part_row(const float* image, int64_t row, float* line, float* to) const {
    const Shape& s = shape_;
    const int64_t y = row - s.top, planes = kTile * s.stride_w * s.channels, columns = plane_ * kTile * s.stride_w;
    if (y < 0 || y >= s.height) {
      std::fill(to, to + row_, 0.0f);
      return;
    }
    const int64_t first = std::min(s.left, columns), count = std::min(s.width, columns - first);
    const float* from = image + y * s.width * s.channels;
    std::fill(line, line + first * s.channels, 0.0f);
    float* end = std::copy(from, from + count * s.channels, line + first * s.channels);
    std::fill(end, line + row_, 0.0f);
    transpose(line, plane_, planes, to);
  }

  void run_tiles(const Rows& rows, int64_t tile_row, int64_t strip, const float* parted, float* scratch) const {
    const Shape& s = shape_;
    const int64_t first = strip * strip_, count = std::min(strip_, tiles_ - first), y = tile_row * kTile, x = first * kTile;
    const int64_t place = ((y - rows.first) * s.output_w() + x) * s.filters;
    WinogradTiles tiles;
    tiles.vertical = vertical_, tiles.horizontal = horizontal_;
    for (int64_t i = 0; i < reach_; ++i) tiles.rows[i] = parted + (y * s.stride_h + i) % reach_ * row_ + first;
    tiles.plane = plane_, tiles.channels = s.channels, tiles.filters = s.filters, tiles.count = count;
    tiles.weights = weights_.data();
    tiles.lines = scratch, tiles.points = scratch + lines_, tiles.sums = tiles.points + points_;
    tiles.height = std::min<int64_t>(kTile, rows.last - y), tiles.width = std::min(count * kTile, s.output_w() - x);
    tiles.output_row = s.output_w() * s.filters;
    tiles.output = rows.output + place;
    tiles.residual = rows.residual ? rows.residual + place : nullptr;
    tiles.finish = {nullptr, shift_.empty() ? nullptr : shift_.data(), slope_.empty() ? nullptr : slope_.data(), low_, high_};
    kernels_.winograd(tiles);
  }

  // [filters][taps][channels] to both axes' points, in the order that WinogradTiles has.
  void transform(const std::vector<float>& weights) {
    const int64_t wide = kernels_.filters;
    for (int above = 0; above < kPoints; ++above)
      for (int64_t block = 0; block < filters_; block += wide)
        for (int point = 0; point < kPoints; ++point)
          for (int64_t upper = 0; upper < vertical_.parts(above); ++upper)
            for (int64_t part = 0; part < horizontal_.parts(point); ++part)
              for (int64_t c = 0; c < shape_.channels; ++c)
                for (int64_t filter = block; filter < block + wide; ++filter)
                  weights_.push_back(filter < shape_.filters ? at_points(weights, filter, c, {above, upper}, {point, part}) : 0);
  }

  struct Place {
    int point;
    int64_t part;
  };

  // One filter's channel of a part of the window, at a point of both axes. In double: it is rounded once.
  float at_points(const std::vector<float>& weights, int64_t filter, int64_t channel, Place down, Place along) const {
    const Shape& s = shape_;
    double sum = 0;
    for (int64_t i = 0; i < vertical_.taps[down.part]; ++i)
      for (int64_t j = 0; j < horizontal_.taps[along.part]; ++j) {
        const int64_t y = vertical_.first[down.part] + i * s.stride_h, x = horizontal_.first[along.part] + j * s.stride_w;
        const float tap = weights[static_cast<size_t>(((filter * s.kernel_h + y) * s.kernel_w + x) * s.channels + channel)];
        sum += weight(down.point, i) * weight(along.point, j) * tap;
      }
    return static_cast<float>(sum);
  }

  std::vector<float> in_blocks(std::vector<float> values) const {
    if (!values.empty()) values.resize(static_cast<size_t>(filters_), 0.0f);
    return values;
  }

  WinogradAxis vertical_, horizontal_;
  int64_t filters_, tile_rows_, tiles_, strip_, strips_;  // filters: of whole blocks
  int64_t reach_;                                         // rows of the input that a row of tiles reads
  int64_t plane_, row_, lines_, points_, scratch_;        // counts of floats
  std::vector<float> weights_, shift_, slope_;
};

}  // namespace

// Measured: windows of 5 x 5 gain nothing, nor do few filters or outputs, which share the transforms of inputs. Those of 3 x 3
// stay out for another reason too: of stems whose sums are exact in any order no bit may change.
bool winograd_wins(const Shape& s) {
  const auto fits = [](int64_t kernel, int64_t stride) { return kernel >= 6 && kernel <= 2 * kPartTaps && stride <= 2; };
  return s.groups == 1 && s.channels <= 16 && s.filters >= 16 && s.output_h() * s.output_w() >= 256 && s.dilation_h == 1 &&
         s.dilation_w == 1 && fits(s.kernel_h, s.stride_h) && fits(s.kernel_w, s.stride_w);
}

std::unique_ptr<Convolution> make_winograd(const Given& given) { return std::make_unique<Winograd>(given); }

}  // namespace edgewright

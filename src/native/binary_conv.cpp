#include "binary_conv.h"

#include <algorithm>
#include <cstring>
#include <new>
#include <type_traits>

namespace edgewright {
namespace {

constexpr int64_t kLine = 64;             // bytes of a cache line
constexpr int64_t kNibbleBits = 4;
constexpr uint8_t kNoWeight = 0x80;       // a shuffle gives 0 for an index with this bit

// The `count` (1..64) bits from bit `first` on.
uint64_t bits_from(const uint64_t* words, int64_t first, int64_t count) {
  const int64_t word = first / kWordBits, shift = first % kWordBits;
  uint64_t bits = words[word] >> shift;
  if (shift && shift + count > kWordBits) bits |= words[word + 1] << (kWordBits - shift);
  return count == kWordBits ? bits : bits & ((uint64_t{1} << count) - 1);
}

const Variant& fitting(const Shape& shape, const Variant& variant) {
  return variant.narrow && shape.filters <= variant.narrow->filters * shape.groups ? *variant.narrow : variant;
}

}  // namespace

Buffer::Buffer(int64_t bytes)
    : bytes_(bytes ? static_cast<unsigned char*>(::operator new(static_cast<size_t>(bytes), std::align_val_t(kLine))) : nullptr) {}

void Buffer::Free::operator()(unsigned char* bytes) const { ::operator delete(bytes, std::align_val_t(kLine)); }

BinaryConv::BinaryConv(const Shape& shape, const Variant& variant, const uint64_t* weights, int threads)
    : shape_(shape), variant_(fitting(shape, variant)), threads_(threads) {
  shape_.check();
  blocks_ = divided_up(shape_.group_filters(), kBlock);
  plan_map();
  plan_runs();
  order_weights(weights);
}

// The map holds one group of one padded image, entry by entry as the windows read it.
void BinaryConv::plan_map() {
  const Shape& s = shape_;
  const bool pairs = variant_.layout == Layout::pairs;
  units_a_row_ = divided_up(s.output_w(), variant_.span);
  tiles_ = divided_up(units_a_row_ * s.output_h(), variant_.units);
  pixel_entries_ = pairs ? divided_up(s.group_channels(), kNibbleBits) : s.group_words();
  map_rows_ = (s.output_h() - 1) * s.stride_h + (s.kernel_h - 1) * s.dilation_h + 1;
  map_columns_ = (units_a_row_ - 1) * variant_.span * s.stride_w + (s.kernel_w - 1) * s.dilation_w + 1;
  row_entries_ = map_columns_ * pixel_entries_;
  const int64_t slack = pairs ? kTriple - 1 : 0;  // the last run is read in triples
  const int64_t entries = product(map_rows_, row_entries_) + slack;
  map_bytes_ = divided_up(entries * (pairs ? 2 : 8), kLine) * kLine;
  // Columns beyond the padding belong to results that are dropped; a stride may leave columns unread.
  scratch_columns_ = std::max(map_columns_ + (variant_.span - 1) * s.stride_w, s.left + s.width + s.right);
  row_words_ = divided_up(product(scratch_columns_, s.group_words()), 8) * 8;
}

void BinaryConv::plan_runs() {
  const Shape& s = shape_;
  const bool joined = s.dilation_w == 1;  // a row of the window is one run
  const int64_t length = pixel_entries_ * (joined ? s.kernel_w : 1);
  for (int64_t y = 0; y < s.kernel_h; ++y)
    for (int64_t x = 0; x < (joined ? 1 : s.kernel_w); ++x)
      add_run(y * s.dilation_h * row_entries_ + x * s.dilation_w * pixel_entries_, length);
  runs_.back().fills = true;
}

void BinaryConv::add_run(int64_t offset, int64_t length) {
  if (variant_.layout == Layout::words) {
    runs_.push_back({offset, length, false});
    return;
  }
  const int64_t triples = divided_up(length, kTriple), parts = divided_up(triples, kMostTriples);
  for (int64_t part = 0; part < parts; ++part) {  // of about the same length
    const int64_t from = triples * part / parts, to = triples * (part + 1) / parts;
    held_ += to - from;
    if (held_ > kMostTriples) {
      runs_.back().fills = true;
      held_ = to - from;
    }
    runs_.push_back({offset + from * kTriple, to - from, false});
  }
}

void BinaryConv::order_weights(const uint64_t* weights) {
  const Shape& s = shape_;
  const bool pairs = variant_.layout == Layout::pairs, joined = s.dilation_w == 1;
  // Entries of a filter as they lie in `weights`, before each run is filled up to whole triples.
  const int64_t rows = s.kernel_h * (joined ? 1 : s.kernel_w), length = pixel_entries_ * (joined ? s.kernel_w : 1);
  const int64_t steps = pairs ? divided_up(length, kTriple) * kTriple : length;
  const int64_t wide = variant_.filters;
  block_bytes_ = product(product(rows, steps), wide) * (pairs ? 1 : 8);
  const int64_t bytes = product(product(s.groups, blocks_), block_bytes_);
  weights_ = Buffer(bytes);
  std::memset(weights_.as<uint8_t>(), pairs ? kNoWeight : 0, static_cast<size_t>(bytes));
  for (int64_t filter = 0; filter < s.filters; ++filter) {
    const int64_t within = filter % s.group_filters(), place = variant_.place(static_cast<int>(within % kBlock));
    uint8_t* block = weights_.as<uint8_t>() + (filter / s.group_filters() * blocks_ + within / kBlock) * block_bytes_;
    const uint64_t* pixel = weights + filter * s.kernel_h * s.kernel_w * s.group_words();
    for (int64_t row = 0; row < rows; ++row)
      for (int64_t entry = 0; entry < length; ++entry) {
        const int64_t step = row * steps + entry, at = entry % pixel_entries_;
        if (pairs)
          block[step * wide + place] = static_cast<uint8_t>(bits_from(pixel, at * kNibbleBits, kNibbleBits));
        else
          reinterpret_cast<uint64_t*>(block)[step * wide + place] = pixel[at];
        if (at == pixel_entries_ - 1) pixel += s.group_words();
      }
  }
}

void BinaryConv::set_thresholds(const int32_t* thresholds, const uint8_t* flip) {
  const Shape& s = shape_;
  limits_.assign(static_cast<size_t>(s.groups * blocks_ * kBlock), 0);
  flips_.assign(static_cast<size_t>(s.groups * blocks_), 0);
  for (int64_t filter = 0; filter < s.filters; ++filter) {
    const int64_t group = filter / s.group_filters(), within = filter % s.group_filters();
    const int64_t block = group * blocks_ + within / kBlock, lane = within % kBlock;
    // bits - 2 * count < threshold, so count >= floor((bits - threshold) / 2) + 1. No count reaches the largest limit.
    const int64_t twice = s.bits() - int64_t{thresholds[filter]};
    const int64_t limit = (twice >= 0 ? twice / 2 : -divided_up(-twice, 2)) + 1;
    limits_[static_cast<size_t>(block * kBlock + lane)] = static_cast<uint16_t>(std::clamp<int64_t>(limit, 0, kMostBits + 1));
    if (flip[filter]) flips_[static_cast<size_t>(block)] |= uint64_t{1} << lane;
  }
}

void BinaryConv::set_affine(const float* scale, const float* shift, const float* slope, float low, float high) {
  scale_.assign(scale, scale + shape_.filters);
  shift_.assign(shift, shift + shape_.filters);
  slope_.clear();
  if (slope) slope_.assign(slope, slope + shape_.filters);
  low_ = low;
  high_ = high;
}

// The words of one group in a row of pixels.
void BinaryConv::group_bits(const uint64_t* pixels, int64_t group, uint64_t* words) const {
  const int64_t channels = shape_.group_channels(), first = group * channels;
  if (shape_.groups == 1) {
    std::copy(pixels, pixels + shape_.width * shape_.input_words(), words);
    return;
  }
  for (int64_t x = 0; x < shape_.width; ++x, pixels += shape_.input_words())
    for (int64_t done = 0; done < channels; done += kWordBits)
      *words++ = bits_from(pixels, first + done, std::min(kWordBits, channels - done));
}

void BinaryConv::pad(uint64_t* words, int64_t pixels) const {
  const int64_t each = shape_.group_words(), rest = shape_.group_channels() % kWordBits;
  std::fill(words, words + pixels * each, shape_.pads_minus ? ~uint64_t{0} : 0);
  if (!shape_.pads_minus || rest == 0) return;
  for (int64_t pixel = 1; pixel <= pixels; ++pixel) words[pixel * each - 1] >>= kWordBits - rest;
}

void BinaryConv::fill_row(const uint64_t* image, int64_t group, int64_t row, uint64_t* scratch, void* map) const {
  const Shape& s = shape_;
  const bool pairs = variant_.layout == Layout::pairs;
  const int64_t words = s.group_words(), y = row - s.top;
  uint64_t* padded = scratch;  // [left, width, right], though windows may read less or, of dropped results, more
  if (y >= 0 && y < s.height) {
    pad(padded, s.left);
    group_bits(image + y * s.width * s.input_words(), group, padded + s.left * words);
    pad(padded + (s.left + s.width) * words, scratch_columns_ - s.left - s.width);
  } else {
    pad(padded, scratch_columns_);
  }
  if (!pairs) {
    std::copy(padded, padded + row_entries_, static_cast<uint64_t*>(map) + row * row_entries_);
    return;
  }
  const uint64_t* partners = padded + s.stride_w * words;
  variant_.pair(padded, partners, map_columns_, s.group_channels(), static_cast<uint16_t*>(map) + row * row_entries_);
}

void BinaryConv::count(const Tiles& tiles, const Place& place, const SignsOut& out) const {
  const int64_t filters = place.filters, first = place.first, shift = first % kWordBits;
  const size_t at = static_cast<size_t>(place.group * blocks_ + place.block);
  const uint64_t flip = flips_[at], all = filters < kBlock ? (uint64_t{1} << filters) - 1 : ~uint64_t{0};
  const int64_t per_pixel = shape_.output_words();
  uint64_t found[kMostPixels];
  variant_.signs(tiles, &limits_[at * kBlock], found);
  for (int64_t i = 0; i < place.size; ++i) {
    if (place.pixels[i] == kNoPixel) continue;
    const uint64_t bits = (found[i] ^ flip) & all;
    uint64_t* words = out.words + place.pixels[i] * per_pixel + first / kWordBits;
    if (shift == 0) {  // the first filters of a word set all of it, those of later groups add to it
      words[0] = bits;
      continue;
    }
    words[0] |= bits << shift;
    if (shift + filters > kWordBits) words[1] = bits >> (kWordBits - shift);
  }
}

void BinaryConv::count(const Tiles& tiles, const Place& place, const FloatsOut& out) const {
  const int64_t first = place.first;
  const Affine how = {shape_.bits(), place.filters, scale_.data() + first, shift_.data() + first, slope_.empty() ? nullptr : slope_.data() + first,
                      low_, high_, out.thresholds ? out.thresholds + first : nullptr};
  AffinePixel pixels[kMostPixels];
  for (int64_t i = 0; i < place.size; ++i) {
    const int64_t at = place.pixels[i] * shape_.filters + first;
    const bool real = place.pixels[i] != kNoPixel;
    pixels[i] = {real && out.residual ? out.residual + at : nullptr, real ? out.values + at : nullptr, 0};
  }
  variant_.affine(tiles, how, pixels);
  for (int64_t i = 0; i < place.size && out.words; ++i)
    if (place.pixels[i] != kNoPixel) out.words[place.pixels[i] * shape_.output_words() + place.block] = pixels[i].signs;
}

void BinaryConv::count(const Tiles& tiles, const Place& place, const DotsOut& out) const {
  const int64_t pixels = variant_.units * variant_.span;
  const int32_t bits = static_cast<int32_t>(shape_.bits());
  alignas(kLine) uint16_t counts[kMostUnits * kMostSpan * kBlock];
  for (int64_t i = 0; i < place.size; ++i) {
    if (i % pixels == 0) variant_.count(tiles, i / pixels, counts);
    if (place.pixels[i] == kNoPixel) continue;
    int32_t* values = out.values + place.pixels[i] * shape_.filters + place.first;
    for (int64_t j = 0; j < place.filters; ++j) values[j] = bits - 2 * static_cast<int32_t>(counts[i % pixels * kBlock + j]);
  }
}

// Tiles from part * kMostTiles on, of the block that the part belongs to.
template <class Out>
void BinaryConv::run_tiles(const void* map, const Out& out, int64_t image, int64_t group, int64_t part) const {
  const Shape& s = shape_;
  const int64_t parts = divided_up(tiles_, kMostTiles), block = part / parts;
  const int64_t most = int64_t{kMostTiles} * variant_.units, first = part % parts * most;
  const int64_t count = std::min(most, units_a_row_ * s.output_h() - first);
  const int64_t entry_bytes = variant_.layout == Layout::pairs ? 2 : 8, output_w = s.output_w(), span = variant_.span;
  const int64_t down = s.stride_h * row_entries_ * entry_bytes, across = span * s.stride_w * pixel_entries_ * entry_bytes;
  Tiles tiles;
  tiles.count = divided_up(count, variant_.units);
  tiles.runs = runs_.data(), tiles.run_count = static_cast<int64_t>(runs_.size());
  tiles.weights = weights_.as<uint8_t>() + (group * blocks_ + block) * block_bytes_;
  Place place;
  place.group = group, place.block = block, place.first = group * s.group_filters() + block * kBlock;
  place.filters = std::min<int64_t>(kBlock, s.group_filters() - block * kBlock);
  place.size = tiles.count * variant_.units * span;
  int64_t y = first / units_a_row_, x = first % units_a_row_;
  const uint8_t* input = static_cast<const uint8_t*>(map) + y * down + x * across;
  for (int64_t unit = 0; unit < count; ++unit, ++x, input += across) {
    if (x == units_a_row_) x = 0, ++y, input = static_cast<const uint8_t*>(map) + y * down;
    tiles.inputs[unit] = input;
    const int64_t column = x * span, pixel = (image * s.output_h() + y) * output_w + column;
    for (int64_t i = 0; i < span; ++i) place.pixels[unit * span + i] = column + i < output_w ? pixel + i : kNoPixel;
  }
  // Beyond the last unit it is computed again, and dropped.
  std::fill(tiles.inputs + count, tiles.inputs + tiles.count * variant_.units, tiles.inputs[count - 1]);
  std::fill(place.pixels + count * span, place.pixels + place.size, kNoPixel);
  this->count(tiles, place, out);
}

template <class Out>
void BinaryConv::run_all(const uint64_t* words, const Out& out, void* workspace, Pool& pool) const {
  const Shape& s = shape_;
  // Blocks of filters that share a word of results must come one after the other.
  const bool in_order = std::is_same_v<Out, SignsOut> && s.groups > 1 && s.group_filters() % kWordBits;
  const int64_t parts = blocks_ * divided_up(tiles_, kMostTiles);
  if (variant_.layout == Layout::pairs) {  // the last triple may reach beyond the map: what it finds is an index
    auto* end = static_cast<uint16_t*>(workspace) + map_rows_ * row_entries_;
    std::fill(end, end + kTriple - 1, uint16_t{0});
  }
  auto* scratch = reinterpret_cast<uint64_t*>(static_cast<uint8_t*>(workspace) + map_bytes_);
  for (int64_t image = 0; image < s.batch; ++image, words += s.height * s.width * s.input_words())
    for (int64_t group = 0; group < s.groups; ++group) {
      pool.run(map_rows_, [&](int64_t row, int thread) { fill_row(words, group, row, scratch + thread * row_words_, workspace); });
      auto tiles = [&](int64_t part, int) { run_tiles(workspace, out, image, group, part); };
      if (in_order)
        for (int64_t part = 0; part < parts; ++part) tiles(part, 0);
      else
        pool.run(parts, tiles);
    }
}

void BinaryConv::run(const uint64_t* words, const SignsOut& out, void* workspace, Pool& pool) const {
  run_all(words, out, workspace, pool);
}

void BinaryConv::run(const uint64_t* words, const FloatsOut& out, void* workspace, Pool& pool) const {
  run_all(words, out, workspace, pool);
}

void BinaryConv::run(const uint64_t* words, const DotsOut& out, void* workspace, Pool& pool) const {
  run_all(words, out, workspace, pool);
}

}  // namespace edgewright

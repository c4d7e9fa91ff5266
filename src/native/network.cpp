#include "network.h"

#include <chrono>
#include <cmath>

namespace edgewright {
namespace {

struct Kernel {
  const char* name;
  MakeStep make;
};

constexpr Kernel kKernels[] = {
    {"conv", make_conv},           {"conv_pool", make_conv_pool}, {"depthwise", make_depthwise}, {"pool", make_pool},
    {"pointwise", make_pointwise}, {"concat", make_concat},       {"softmax", make_softmax},
    {"map", make_map},             {"transpose", make_transpose}, {"expand", make_expand}, {"slice", make_slice}, {"pack", make_pack},
    {"binary_conv", make_binary_conv}, {"binary_signs", make_binary_signs}, {"feed", make_feed}, {"take", make_take},
};

std::string text(int64_t value) { return std::to_string(value); }

}  // namespace

Given::Given(const StepData& data, int64_t arena_bytes, const Variant& variant, int threads)
    : variant(variant), threads(threads), data_(data), arena_bytes_(arena_bytes) {}

void Given::expect(size_t sizes, size_t numbers, size_t reads, size_t writes, size_t constants) const {
  if (data_.sizes.size() != sizes || data_.numbers.size() != numbers || data_.reads.size() != reads ||
      data_.writes.size() != writes || data_.constants.size() != constants)
    throw std::invalid_argument("it has another number of sizes, numbers, tensors or constants than this kernel");
  for (float value : data_.numbers)
    if (std::isnan(value)) throw std::invalid_argument("a number is none");
}

int64_t Given::size(size_t at, int64_t least, int64_t most) const {
  const int64_t value = data_.sizes.at(at);
  if (value < least || value > most)
    throw std::invalid_argument("size " + text(static_cast<int64_t>(at)) + " is " + text(value) + ", not from " + text(least) + " to " + text(most));
  return value;
}

int64_t Given::place(const std::vector<Span>& spans, size_t at, int64_t bytes, bool may_lack) const {
  const Span& span = spans.at(at);
  if (span.offset < 0 && may_lack) return -1;
  if (span.bytes != bytes)
    throw std::invalid_argument("a tensor has " + text(span.bytes) + " bytes where " + text(bytes) + " are needed");
  if (span.offset < 0 || span.offset % 64 || span.offset > arena_bytes_ - bytes)
    throw std::invalid_argument("a tensor of " + text(bytes) + " bytes at " + text(span.offset) + " does not lie in the arena");
  return span.offset;
}

int64_t Given::read(size_t at, int64_t bytes, bool may_lack) const { return place(data_.reads, at, bytes, may_lack); }

int64_t Given::write(size_t at, int64_t bytes, bool may_lack) const { return place(data_.writes, at, bytes, may_lack); }

const void* Given::checked_constant(size_t at, int64_t bytes, bool may_lack) const {
  const Constant& constant = data_.constants.at(at);
  if (!constant.data && may_lack) return nullptr;
  if (!constant.data || constant.bytes != bytes)
    throw std::invalid_argument("a constant has " + text(constant.bytes) + " bytes where " + text(bytes) + " are needed");
  return constant.data;
}

Network::Network(int64_t arena_bytes, const Variant& variant, int threads)
    : arena_bytes_(arena_bytes), variant_(variant), threads_(threads) {
  if (arena_bytes < 0 || arena_bytes > kLargestArena) throw std::invalid_argument("the arena has " + text(arena_bytes) + " bytes");
}

void Network::add(const StepData& data) {
  for (const Kernel& kernel : kKernels) {
    if (data.kernel != kernel.name) continue;
    steps_.push_back(kernel.make(Given(data, arena_bytes_, variant_, threads_)));
    workspace_bytes_ = std::max(workspace_bytes_, steps_.back()->workspace_bytes());
    const bool feeds = kernel.make == make_feed;
    if (feeds || kernel.make == make_take) {
      auto& bytes = feeds ? input_bytes_ : output_bytes_;
      if (data.sizes[0] != static_cast<int64_t>(bytes.size())) throw std::invalid_argument("arrays are not numbered in order");
      bytes.push_back((feeds ? data.writes : data.reads)[0].bytes);
    }
    return;
  }
  throw std::invalid_argument("there is no kernel " + data.kernel);
}

void Network::finish() {
  if (workspace_bytes_ > kLargestArena) throw std::invalid_argument("the workspace has " + text(workspace_bytes_) + " bytes");
  arena_ = Buffer(arena_bytes_);
  workspace_ = Buffer(workspace_bytes_);
}

Memory Network::memory(const void* const* inputs, void* const* outputs, Pool& pool) const {
  return {arena_.as<uint8_t>(), workspace_.as<uint8_t>(), inputs, outputs, pool};
}

void Network::run(const void* const* inputs, void* const* outputs, Pool& pool) const {
  const Memory where = memory(inputs, outputs, pool);
  for (const auto& step : steps_) step->run(where);
}

void Network::run_timed(const void* const* inputs, void* const* outputs, Pool& pool, double* seconds) const {
  const Memory where = memory(inputs, outputs, pool);
  for (const auto& step : steps_) {
    const auto start = std::chrono::steady_clock::now();
    step->run(where);
    *seconds++ += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  }
}

}  // namespace edgewright

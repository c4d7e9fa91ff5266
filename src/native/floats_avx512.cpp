// Sixteen floats a register, compiled for AVX-512F.
namespace {
constexpr int kLanes = 16, kRows = 12, kVectors = 2;  // of 32 registers
}  // namespace

#include "floats_impl.h"

namespace edgewright {

const FloatKernels avx512_floats = kFloats;

}  // namespace edgewright

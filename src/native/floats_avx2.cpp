// Eight floats a register, compiled for AVX2 and FMA.
namespace {
constexpr int kLanes = 8, kRows = 6, kVectors = 2;  // of 16 registers
}  // namespace

#include "floats_impl.h"

namespace edgewright {

const FloatKernels avx2_floats = kFloats;

}  // namespace edgewright

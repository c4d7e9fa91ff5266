// Four floats a register: SSE2, NEON, or what the compiler makes of it.
namespace {
#ifdef EDGEWRIGHT_NEON
constexpr int kLanes = 4, kRows = 6, kVectors = 4;  // of 32 registers
#else
constexpr int kLanes = 4, kRows = 6, kVectors = 2;
#endif
}  // namespace

#include "floats_impl.h"

namespace edgewright {

#ifdef EDGEWRIGHT_NEON
const FloatKernels neon_floats = kFloats;
#endif
const FloatKernels portable_floats = kFloats;

}  // namespace edgewright

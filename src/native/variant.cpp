#include "variant.h"

namespace edgewright {

std::vector<const Variant*> variants() {
  std::vector<const Variant*> found;
#ifdef EDGEWRIGHT_X86
  // The compiler's own test also asks whether the operating system saves the wide registers.
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  if (avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vpopcntdq"))
    found.push_back(&avx512_variant);
  if (avx2) found.push_back(&avx2_variant);
#endif
#ifdef EDGEWRIGHT_NEON
  found.push_back(&neon_variant);  // part of every AArch64 CPU
#endif
  found.push_back(&portable_variant);
  return found;
}

}  // namespace edgewright

"""Target: the runtime and the CPU a deployment is made for.

>>> Target("onnxruntime", cpu="x86-64-v3").has("avx2")
True
"""

from __future__ import annotations

import functools
import platform
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from edgewright.errors import EdgewrightError

_V2 = ("cx16", "popcnt", "sse4_1", "sse4_2", "ssse3")
_V3 = (*_V2, "avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "movbe")
_V4 = (*_V3, "avx512bw", "avx512cd", "avx512dq", "avx512f", "avx512vl")

#: CPU names and the features they promise, in the kernel's spelling (/proc/cpuinfo).
#: Source: x86-64 psABI, micro-architecture levels; Arm ARM for the others.
CPUS: dict[str, tuple[str, ...]] = {
    "x86-64": (),
    "x86-64-v2": _V2,
    "x86-64-v3": _V3,
    "x86-64-v3-vnni": (*_V3, "avx_vnni"),
    "x86-64-v4": _V4,
    "x86-64-v4-vnni": (*_V4, "avx512_vnni"),
    "armv8": ("asimd",),
    "armv8.2-dotprod": ("asimd", "asimddp", "asimdhp", "fphp"),
}

#: CPU features of which any one means that products of uint8 and int8 are summed without saturation. Without one, an x86
#: CPU adds pairs of them in 16 bits (`vpmaddubsw`), where 127 x 255 twice does not fit. Arm widens first (`smlal`).
EXACT_INT8 = ("asimd", "avx512_vnni", "avx_vnni")

_OF_INTEREST = {
    *_V4,
    "avx_vnni",
    "avx512_vnni",
    "avx512_bf16",
    "avx512_fp16",
    "avx512_vpopcntdq",
    "amx_tile",
    "amx_int8",
    "amx_bf16",
    "asimd",
    "asimddp",
    "asimdhp",
    "fphp",
    "i8mm",
    "bf16",
    "sve",
    "sve2",
}


@functools.cache
def host_features() -> tuple[str, ...]:
    """This machine's CPU features that matter to inference, sorted, in the kernel's spelling; empty when unknown."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ()
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key.strip().lower() in ("flags", "features"):
            return tuple(sorted(_OF_INTEREST & set(value.split())))
    return ()


@functools.cache
def host_cpu_name() -> str:
    """This machine's CPU as its maker calls it, or its architecture."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.lower().startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        return platform.machine()
    return platform.machine()


@dataclass(frozen=True)
class Target:
    """A runtime by its public name and a CPU: "host" or a key of `CPUS`."""

    runtime: str = "onnxruntime"
    cpu: str = "host"

    def __post_init__(self) -> None:
        if self.cpu != "host" and self.cpu not in CPUS:
            known = ", ".join(("host", *CPUS))
            raise EdgewrightError("E101", f"CPU `{self.cpu}` is not known; known: {known}", hint="edgewright doctor")

    @property
    def features(self) -> tuple[str, ...]:
        """CPU features of the target, sorted."""
        return host_features() if self.cpu == "host" else tuple(sorted(CPUS[self.cpu]))

    def has(self, feature: str) -> bool:
        """True where the target CPU has `feature`."""
        return feature in self.features

    @property
    def has_int8_dot(self) -> bool:
        """True where the CPU multiplies int8 without saturating (VNNI or Arm dot product)."""
        return any(self.has(name) for name in ("avx_vnni", "avx512_vnni", "asimddp"))


def any_of(features: Iterable[str]) -> str:
    """A need that each one of these CPU features meets, as bundles record it."""
    return "|".join(sorted(features))


def unmet(needs: Iterable[str], features: Collection[str]) -> tuple[str, ...]:
    """Those of `needs` (a CPU feature, or several with `|` between them) that no feature meets, sorted."""
    return tuple(sorted(need for need in set(needs) if not set(need.split("|")) & set(features)))


def weight_bits(target: Target) -> tuple[int, str]:
    """Bits of int8 weights that meet uint8 activations on the target's CPU, and why, in one sentence."""
    if not unmet([any_of(EXACT_INT8)], target.features):
        return 8, f"CPU `{target.cpu}` multiplies int8 without saturation, so weights use all 8 bits"
    return 7, (
        f"CPU `{target.cpu}` has no VNNI: pairs of uint8 x int8 products saturate in 16 bits, unless weights keep to 7 "
        "bits, or pairs of them to 128 together"
    )

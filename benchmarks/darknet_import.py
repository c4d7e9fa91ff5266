"""Time and peak memory of importing Darknet networks: YOLO-Fastest under 2 s, 64 million parameters under 10 s and 1 GB.

    EDGEWRIGHT_DATA=DIR python benchmarks/darknet_import.py [--repeat 3]

The large network is YOLOv3's backbone with wider heads and random weights, written for the run: sizes alone matter. Each
import has a process of its own, started from scratch; its time includes loading the packages that it needs.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

#: Name -> seconds and MB that importing may take.
LIMITS = {"yolo-fastest-1.1": (2.0, None), "64 million parameters": (10.0, 1000.0)}

PROBE = """
import json, resource, sys, time
start = time.perf_counter()
import edgewright as ew
model = ew.load(sys.argv[1], weights=sys.argv[2])
seconds = time.perf_counter() - start
count = sum(value.const_value.size for value in model.ir.graph.initializers.values())
print(json.dumps({"seconds": seconds, "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, "parameters": count}))
"""


class Large:
    """A cfg, and how many numbers its weights have."""

    def __init__(self) -> None:
        self.text = "[net]\nwidth=416\nheight=416\nchannels=3\n"
        self.channels, self.numbers = 3, 0

    def conv(self, filters: int, size: int, stride: int = 1) -> None:
        """A convolution with batch norm."""
        self.text += f"[convolutional]\nbatch_normalize=1\nfilters={filters}\nsize={size}\nstride={stride}\n"
        self.text += "pad=1\nactivation=leaky\n"
        self.numbers += filters * (4 + self.channels * size * size)
        self.channels = filters

    def build(self) -> None:
        """Darknet-53 and a head of 3 x 3 convolutions. Source: Redmon and Farhadi 2018, YOLOv3, table 1."""
        self.conv(32, 3)
        for filters, blocks in ((64, 1), (128, 2), (256, 8), (512, 8), (1024, 4)):
            self.conv(filters, 3, 2)
            for _ in range(blocks):
                self.conv(filters // 2, 1)
                self.conv(filters, 3)
                self.text += "[shortcut]\nfrom=-3\nactivation=linear\n"
        for _ in range(5):
            self.conv(512, 1)
            self.conv(1024, 3)
        self.text += "[convolutional]\nfilters=255\nsize=1\nactivation=linear\n"
        self.numbers += 255 * (1 + self.channels)
        self.text += "[yolo]\nmask=0,1,2\nanchors=116,90,156,198,373,326\nclasses=80\nnum=3\n"


def write_large(folder: Path) -> tuple[Path, Path]:
    """The large network's files."""
    large = Large()
    large.build()
    cfg, weights = folder / "large.cfg", folder / "large.weights"
    cfg.write_text(large.text, encoding="utf-8")
    rng = np.random.default_rng(0)
    with weights.open("wb") as file:
        file.write(np.array([0, 2, 5], "<i4").tobytes() + np.array([0], "<u8").tobytes())
        # Numbers above 0, since some of them are variances.
        for start in range(0, large.numbers, 2**20):
            file.write(rng.random(min(2**20, large.numbers - start), dtype=np.float32).astype("<f4").tobytes())
    return cfg, weights


def main() -> int:
    """A line for each network; exit code 1 where one is beyond its limits."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("EDGEWRIGHT_DATA", "../shared/data")))
    parser.add_argument("--repeat", type=int, default=3)
    options = parser.parse_args()
    print("| network | parameters | seconds, median | peak MB | limits |\n|---|---|---|---|---|")
    met = True
    with tempfile.TemporaryDirectory() as name:
        fast = options.data / "darknet" / "yolo-fastest-1.1"
        files = (fast.with_name(f"{fast.name}.cfg"), fast.with_name(f"{fast.name}.weights"))
        for (network, (seconds, megabytes)), (cfg, weights) in zip(
            LIMITS.items(), (files, write_large(Path(name))), strict=True
        ):
            command = [sys.executable, "-c", PROBE, str(cfg), str(weights)]
            runs = [
                json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
                for _ in range(options.repeat)
            ]
            took, peak = statistics.median(run["seconds"] for run in runs), max(run["peak_mb"] for run in runs)
            met &= took <= seconds and (megabytes is None or peak <= megabytes)
            limit = f"{seconds:g} s" + ("" if megabytes is None else f", {megabytes:g} MB")
            print(
                f"| {network} | {runs[0]['parameters'] / 1e6:.1f} M | {took:.2f} | {peak:.0f} | {limit} |", flush=True
            )
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())

"""Feed damaged checkpoints to the reader: only EdgewrightError may come out, and every tensor must be readable.

    python benchmarks/fuzz_checkpoint.py [CASES] [SEED]     # 10^6 take about ten minutes a core

The seeded sample of this that runs in CI is in tests/unit/test_checkpoint.py.
"""

from __future__ import annotations

import mmap
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np

from edgewright.checkpoint import _read
from edgewright.errors import EdgewrightError

GOLDEN = Path(__file__).parents[1] / "tests" / "golden"
HEAD = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.\x80\x02}."  # magic number, version, system


def originals() -> list[np.ndarray]:
    """The committed files, and the zip's pickle in a stream, where no checksum stands before the pickle machine."""
    with zipfile.ZipFile(GOLDEN / "checkpoint_zip.pth") as archive:
        pickled = archive.read("checkpoint_zip/data.pkl")
    files = [path.read_bytes() for path in (GOLDEN / "checkpoint_zip.pth", GOLDEN / "checkpoint_legacy.pth")]
    return [np.frombuffer(content, np.uint8) for content in (*files, HEAD + pickled)]


def damage(content: np.ndarray, rng: np.random.Generator) -> bytes:
    """A copy with bytes changed, removed, doubled or moved."""
    content = content.copy()
    places = rng.integers(0, len(content), rng.integers(1, 6))
    kind = rng.integers(5)
    if kind == 0:
        content = np.delete(content, places)
    elif kind == 1:
        content = np.insert(content, places, content[places])
    elif kind == 2:
        start, size, to = rng.integers(0, len(content), 3)
        piece = content[start : start + size % 64]
        content = np.insert(content, to, piece)
    else:
        content[places] = rng.integers(0, 256, len(places))
    return content.tobytes()


def main(cases: int, seed: int) -> int:
    """Run; 0 when nothing but EdgewrightError came out."""
    rng = np.random.default_rng(seed)
    files, codes = originals(), dict.fromkeys(("read", "E201", "E202", "E207"), 0)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "damaged.pth")
        for number in range(cases):
            path.write_bytes(damage(files[number % len(files)], rng))
            try:
                with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
                    for tensor in _read(data, str(path)).values():
                        tensor.sum()
                codes["read"] += 1
            except EdgewrightError as problem:
                codes[problem.code] += 1
            except Exception as problem:
                kept = Path(f"fuzz-{seed}-{number}.pth")
                kept.write_bytes(path.read_bytes())
                print(f"case {number}: {type(problem).__name__}: {problem}; kept as {kept}")
                return 1
    print(f"{cases} cases, seed {seed}: {codes}")
    return 0


if __name__ == "__main__":
    numbers = [int(text) for text in sys.argv[1:]] or [1_000_000]
    sys.exit(main(numbers[0], numbers[1] if len(numbers) > 1 else 0))

"""Where the package was built without a C++ compiler, binary layers run in numpy, and say so."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pytest

from edgewright import kernels
from edgewright.errors import EdgewrightError, EdgewrightWarning
from edgewright.ops import binary, packing
from edgewright.ops.binary import Affine


@pytest.fixture
def no_extension(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(sys.modules, "edgewright._native", None)  # importing it raises ImportError
    caches = (kernels.native, kernels.variants)
    for cache in caches:
        cache.cache_clear()
    yield
    for cache in caches:
        cache.cache_clear()


@pytest.mark.usefixtures("no_extension")
def test_numpy_takes_over_and_says_so(rng: np.random.Generator) -> None:
    assert kernels.variants() == ("numpy",)
    x = rng.standard_normal((1, 5, 4, 4)).astype(np.float32)
    with pytest.warns(EdgewrightWarning, match="without its C\\+\\+ kernels"):
        packed = kernels.pack_signs(x)
    np.testing.assert_array_equal(packed, packing.pack_signs(x))
    weights = packing.pack_bits(rng.integers(0, 2, (3, 2, 2, 5)).astype(bool))
    with pytest.warns(EdgewrightWarning, match="slowly"):
        layer = kernels.BinaryConv(weights, channels=5, input_shape=(1, 4, 4))
    dots = binary.conv_dots(packed, weights, 5)
    how = Affine(*rng.standard_normal((2, 3)).astype(np.float32))
    layer.set_affine(how)
    layer.set_thresholds(np.zeros(3, np.int32), np.zeros(3, bool))
    np.testing.assert_array_equal(layer.dots(packed), dots)
    np.testing.assert_array_equal(layer.floats(packed, out=np.empty(dots.shape, np.float32)), binary.affine(dots, how))
    np.testing.assert_array_equal(layer.signs(packed), binary.below(dots, np.zeros(3, np.int32), np.zeros(3, bool)))
    kernels.pack_signs(x, variant="numpy")  # who asks for numpy is not told
    with pytest.raises(EdgewrightError, match="there are numpy") as raised:
        kernels.pack_signs(x, variant="avx2")
    assert raised.value.code == "E101"


def test_the_package_needs_no_extension() -> None:
    script = (
        "import sys; sys.modules['edgewright._native'] = None\n"
        "import edgewright, edgewright.kernels as kernels\n"
        "print(kernels.variants(), 'onnx' in sys.modules)"
    )
    done = subprocess.run((sys.executable, "-c", script), capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "('numpy',) False", done.stderr

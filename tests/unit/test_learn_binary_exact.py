"""A first layer with exact sums: every order gives the same bits, what is rounded is near, and what cannot be is said."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the extra `train` is not installed")
from tests.unit.test_learn_binary import settled  # noqa: E402
from torch import nn  # noqa: E402

import edgewright as ew  # noqa: E402
from edgewright.errors import EdgewrightError  # noqa: E402
from edgewright.learn.binary import exact  # noqa: E402
from edgewright.learn.binary.deployed import deployed  # noqa: E402
from edgewright.learn.binary.exact import Levels, make_exact  # noqa: E402
from edgewright.learn.binary.export import export  # noqa: E402
from edgewright.learn.binary.layers import BinaryConv2d  # noqa: E402
from edgewright.learn.binary.networks import resnet18, resnet20, vgg_small  # noqa: E402

PIXELS = Levels(1 / 64, 2.0)


def pixels(count: int, size: int = 12, seed: int = 0) -> torch.Tensor:
    """f32[count, 3, size, size], multiples of 1 / 64."""
    values = np.random.default_rng(seed).integers(0, 256, (count, 3, size, size))
    return torch.from_numpy(((values - 128) / 64).astype(np.float32))


def stem(filters: int = 24, seed: int = 0) -> nn.Sequential:
    """A convolution with a batch norm that has seen something."""
    torch.manual_seed(seed)
    made = nn.Sequential(nn.Conv2d(3, filters, 3, padding=1, bias=False), nn.BatchNorm2d(filters))
    nn.init.normal_(made[1].weight)
    nn.init.normal_(made[1].bias)
    made(pixels(8, seed=seed))
    return made.eval()


def window_sums(layer: nn.Module, x: torch.Tensor, order: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What the layer sums at each place, one product after the other in this order: in float32, and in float64."""
    windows = nn.functional.unfold(x, 3, padding=1).numpy()[0]  # [27, places]
    weight, bias = layer.weight.numpy().reshape(len(layer.weight), -1), layer.bias.numpy()
    terms = np.concatenate(
        (weight[:, :, None] * windows, np.broadcast_to(bias[:, None, None], (len(bias), 1, windows.shape[1]))), 1
    )
    assert terms.dtype == np.float32
    wide = np.concatenate((weight[:, :, None].astype(float) * windows, terms[:, -1:]), 1)
    return np.cumsum(terms[:, order], 1)[:, -1], wide.sum(1)


def orders() -> list[np.ndarray]:
    rng = np.random.default_rng(3)
    return [np.arange(28), np.arange(28)[::-1], *(rng.permutation(28) for _ in range(3))]


@pytest.mark.parametrize("seed", range(3))
def test_every_order_gives_the_same_bits(seed: int) -> None:
    network = stem(seed=seed)
    make_exact(network, PIXELS)
    for order in orders():
        made, wanted = window_sums(network[0], pixels(1, seed=seed), order)
        np.testing.assert_array_equal(made, wanted)


def test_finer_weights_would_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit is the right one: with 64 times as many levels some sums round."""
    monkeypatch.setattr(exact, "_EXACT", 2.0**30)
    network = stem()
    make_exact(network, PIXELS)
    assert any((np.not_equal(*window_sums(network[0], pixels(1), order))).any() for order in orders())


def test_what_is_rounded_is_the_folded_layer() -> None:
    network, x = stem(), pixels(4)
    with torch.no_grad():
        wanted = network(x)
        make_exact(network, PIXELS)
        made = network(x)
    assert isinstance(network[1], nn.Identity)
    assert float((made - wanted).norm() / wanted.norm()) < 1e-4
    with_bias = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, stride=2, dilation=2))
    with torch.no_grad():
        wanted = with_bias(x)
        make_exact(with_bias, PIXELS)
        np.testing.assert_allclose(with_bias(x).numpy(), wanted.numpy(), atol=1e-3)


@pytest.mark.parametrize("runtime", ["reference", "onnxruntime", "native"])
def test_runtimes_see_the_same_bits_behind_the_first_layer(runtime: str, tmp_path: Path) -> None:
    """Pixels of 32 x 32 through a ResNet-8: its stem's outputs, and with them every sign and the scores' decision."""
    torch.manual_seed(2)
    network = settled(resnet20(depth=8))
    small = ew.compress(ew.load(export(network, tmp_path / "n.onnx", shape=(3, 32, 32), inputs=PIXELS)), "lower-binary")
    x = pixels(4, 32)
    kept: list[np.ndarray] = []
    told = deployed(network, PIXELS)
    told.stem.register_forward_hook(lambda _module, _given, made: kept.append(made.numpy()))
    with torch.no_grad():
        scores = told(x).numpy()
    (packs, *_) = [node for node in small.ir.graph if node.op_type == "PackSigns"]
    stem_of = packs.inputs[0].name
    with ew.open(small, runtime=runtime, threads=1) as session:
        for place, image in enumerate(x.numpy()):
            made = session.run({"image": image[None]}, outputs=(stem_of, "scores"))
            np.testing.assert_array_equal(made[stem_of][0], kept[0][place])
            np.testing.assert_allclose(made["scores"][0], scores[place], rtol=1e-5, atol=1e-5)


def test_the_levels_of_an_input_are_held_to() -> None:
    network = deployed(resnet20(depth=8), PIXELS)
    for wrong in (pixels(1, 32) + 1 / 128, pixels(1, 32) + 1, torch.full((1, 3, 32, 32), torch.nan)):
        with pytest.raises(EdgewrightError, match=r"no multiple of 0\.015625 within 2\.0"):
            network(wrong)


@pytest.mark.parametrize("step", [0, -0.5, 0.3, float("nan"), float("inf")])
def test_a_step_is_a_power_of_two(step: float) -> None:
    with pytest.raises(EdgewrightError, match="`step` is"):
        Levels(step, 2.0)


def test_what_cannot_be_exact_is_said() -> None:
    with pytest.raises(EdgewrightError, match="`most` is 0"):
        Levels(1 / 64, 0)
    fine = Levels(2.0**-20, 2.0)
    with pytest.raises(EdgewrightError, match="fewer than 128 levels"):
        deployed(resnet20(depth=8), fine)
    for network in (
        nn.Sequential(BinaryConv2d(3, 4, 3)),
        nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3)),
        nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect")),
        nn.Conv2d(3, 4, 3),
        nn.ReLU(),
    ):
        with pytest.raises(EdgewrightError, match="the first layer, is no Conv2d"):
            deployed(network, PIXELS)
    with pytest.raises(
        EdgewrightError, match=r"`stem.0`, the first layer, has a window of \[7, 7\], but sums are exact up to 4"
    ):
        deployed(resnet18(large=True), PIXELS)
    assert deployed(vgg_small(width=8), PIXELS)(pixels(1, 32)).shape == (1, 10)


def test_filters_of_zeros_stay_zeros() -> None:
    network = nn.Sequential(nn.Conv2d(3, 2, 3, bias=False))
    nn.init.zeros_(network[0].weight)
    assert not deployed(network, PIXELS)(pixels(1)).any()

"""learn/binary: formulas against values worked out by hand, gradients, schedules, networks and what they become."""

from __future__ import annotations

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the extra `train` is not installed")

from edgewright.errors import EdgewrightError  # noqa: E402
from edgewright.learn.binary.deployed import deployed  # noqa: E402
from edgewright.learn.binary.imitation import imitation  # noqa: E402
from edgewright.learn.binary.layers import BinaryConv2d, BinaryLinear, RPReLU  # noqa: E402
from edgewright.learn.binary.method import METHODS, Method, method  # noqa: E402
from edgewright.learn.binary.networks import NETWORKS, Pair, resnet18, resnet20, vgg_small  # noqa: E402
from edgewright.learn.binary.schedule import EdeSchedule  # noqa: E402
from edgewright.learn.binary.signs import sign  # noqa: E402
from edgewright.learn.binary.weights import binarize  # noqa: E402

Tolerance = dict[str, dict[str, float]]


def settled(network: torch.nn.Module) -> torch.nn.Module:
    """The network with batch norms that do something, negative and zero factors among them."""
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 4)
            torch.nn.init.normal_(module.weight)
            torch.nn.init.normal_(module.bias)
            module.weight.data[0] = 0
        if isinstance(module, RPReLU):
            for parameter in (module.before, module.after):
                torch.nn.init.normal_(parameter)
        if isinstance(module, BinaryConv2d | BinaryLinear) and module.threshold is not None:
            torch.nn.init.normal_(module.threshold)
    return network.eval()


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


# --- signs ------------------------------------------------------------------------------------------------------------


def test_the_sign_of_zero_is_plus_one_and_so_is_that_of_no_number() -> None:
    x = torch.tensor([0.0, -0.0, float("nan"), -1e-30, 2.0])
    assert sign(x).tolist() == [1, 1, 1, -1, 1]
    assert sign(x, threshold=torch.tensor(2.0)).tolist() == [-1, -1, 1, -1, 1]


@pytest.mark.parametrize(
    ("estimator", "wanted"),
    [
        ("ste", [0, 1, 1, 1, 1, 1, 0]),
        ("polynomial", [0, 0, 1, 2, 1, 0, 0]),
        ("ede", [3 * 0.5 * (1 - math.tanh(0.5 * u) ** 2) for u in (-2, -1, -0.5, 0, 0.5, 1, 2)]),
    ],
)
def test_gradients_of_the_sign(estimator: str, wanted: list[float], tolerance: Tolerance) -> None:
    x = torch.tensor([-2, -1, -0.5, 0, 0.5, 1, 2.0], requires_grad=True)
    sign(x, estimator, t=0.5, k=3.0).sum().backward()
    np.testing.assert_allclose(x.grad, wanted, rtol=tolerance["float32"]["rtol"], atol=tolerance["float32"]["atol"])


def test_a_threshold_learns_the_other_way_round_for_each_channel() -> None:
    x = torch.tensor([[[[0.2]], [[3.0]]]], requires_grad=True)
    threshold = torch.tensor([0.0, 0.5]).view(2, 1, 1).requires_grad_()
    sign(x, threshold=threshold).sum().backward()
    assert x.grad.flatten().tolist() == [1, 0]
    assert threshold.grad.flatten().tolist() == [-1, 0]


def test_operators_of_a_graph_measure_in_units_of_the_spread(tolerance: Tolerance) -> None:
    from edgewright.learn.binary.operators import learnt_signs, learnt_weights, values

    x = torch.tensor([[[[3.0]], [[1.0]]]], requires_grad=True)
    threshold, spread = torch.tensor([1.0, 1.0], requires_grad=True), torch.tensor([4.0, 1.0])
    made = learnt_signs(x, threshold, spread, torch.tensor([0.5, 2.0, 1.0]))
    assert made.flatten().tolist() == [1, 1]  # the second is a tie
    made.sum().backward()
    wanted = [2 * 0.5 * (1 - math.tanh(0.5 * u) ** 2) / unit for u, unit in ((0.5, 4), (0, 1))]
    np.testing.assert_allclose(x.grad.flatten(), wanted, rtol=tolerance["float32"]["rtol"])
    np.testing.assert_allclose(threshold.grad, np.negative(wanted), rtol=tolerance["float32"]["rtol"])
    weight = torch.randn(3, 2, 2, 2)
    np.testing.assert_array_equal(learnt_weights(weight, torch.ones(3)), values(weight.numpy()))


# --- weights ----------------------------------------------------------------------------------------------------------


def test_libra_by_hand(tolerance: Tolerance) -> None:
    """[1, 2, 3, 6]: mean 3, unbiased std sqrt(14 / 3); 3 itself stands for 0, so its sign is +1."""
    weight = torch.tensor([[1.0, 2.0, 3.0, 6.0], [-40.0, 0.0, 0.0, 0.0]], requires_grad=True)
    made = binarize(weight, "libra")
    assert made.signs.tolist() == [[-1, -1, 1, 1], [-1, 1, 1, 1]]
    absolute = [(2 + 1 + 0 + 3) / 4 / math.sqrt(14 / 3), (30 + 10 + 10 + 10) / 4 / 20]  # 0.69 and 0.75
    assert made.scale.tolist() == [2.0 ** round(math.log2(value)) for value in absolute] == [0.5, 1.0]
    assert not made.scale.requires_grad


def test_the_gradient_of_libra_flows_through_mean_and_spread(tolerance: Tolerance) -> None:
    """EDE's slope at each standardized weight, through the derivative of (w - mean) / std that differences give."""
    weight = torch.tensor([[0.3, -0.7, 0.1, 0.9, -0.2]], dtype=torch.float64, requires_grad=True)
    out = torch.tensor([[1.0, -2.0, 0.5, 3.0, 1.5]], dtype=torch.float64)
    made = binarize(weight, "libra", "ede", t=0.8, k=1.25)
    (made.signs * out).sum().backward()

    def standardized(w: np.ndarray) -> np.ndarray:
        return (w - w.mean()) / w.std(ddof=1)

    w, step = weight.detach().numpy()[0], 1e-6
    slopes = 1.25 * 0.8 * (1 - np.tanh(0.8 * standardized(w)) ** 2)
    wanted = []
    for index in range(len(w)):
        moved = np.eye(len(w))[index] * step
        wanted.append((slopes * out.numpy()[0]) @ (standardized(w + moved) - standardized(w - moved)) / (2 * step))
    np.testing.assert_allclose(weight.grad[0], wanted, rtol=tolerance["float32"]["rtol"])
    assert abs(float(weight.grad.sum())) < tolerance["float32"]["atol"]  # the mean has no say


def test_the_other_weights_by_hand(tolerance: Tolerance) -> None:
    weight = torch.tensor([[1.0, -2.0, 0.0, 5.0]], requires_grad=True)
    assert binarize(weight, "sign").values().tolist() == [[1, -1, 1, 1]]
    assert binarize(weight, "scaled").values().tolist() == [[2, -2, 2, 2]]
    spread = math.sqrt((0 + 9 + 1 + 16) / 4)
    made = binarize(weight, "adabin").values().detach().numpy()
    np.testing.assert_allclose(
        made, [[1 + spread, 1 - spread, 1 - spread, 1 + spread]], rtol=tolerance["float32"]["rtol"]
    )


@pytest.mark.parametrize("kind", ["sign", "scaled", "libra", "adabin"])
def test_equal_weights_are_numbers_still(kind: str) -> None:
    weight = torch.full((2, 3), 0.25, requires_grad=True)
    made = binarize(weight, kind)
    made.values().sum().backward()
    assert made.signs.abs().eq(1).all()
    assert torch.isfinite(made.values()).all()
    assert torch.isfinite(weight.grad).all()


# --- schedule and loss ------------------------------------------------------------------------------------------------


def test_ede_begins_flat_and_ends_steep(tolerance: Tolerance) -> None:
    schedule = EdeSchedule(0.1, 10)
    wanted = {0.0: (0.1, 10), 0.25: (0.1 * 10**0.5, 10**0.5), 0.5: (1, 1), 1.0: (10, 1)}
    for part, pair in wanted.items():
        np.testing.assert_allclose(schedule.at(part), pair, rtol=tolerance["float32"]["rtol"])
    network = resnet20(depth=8)
    schedule.apply(network, 0.25)
    layers = [module for module in network.modules() if isinstance(module, BinaryConv2d)]
    assert len(layers) == 6
    assert all(np.isclose([float(layer.t), float(layer.k)], wanted[0.25]).all() for layer in layers)
    with pytest.raises(EdgewrightError, match="E103"):
        EdeSchedule(0.0, 1)


def test_a_student_is_compared_with_its_teacher_and_with_labels(tolerance: Tolerance) -> None:
    student, teacher = torch.zeros(1, 2), torch.tensor([[math.log(3.0), 0.0]])  # 1/2, 1/2 and 3/4, 1/4
    apart = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    labels = torch.tensor([1])
    found = [
        float(imitation(student, teacher, None)),
        float(imitation(student, None, labels)),
        float(imitation(student, teacher, labels, share=0.75)),
    ]
    wanted = [apart, math.log(2), 0.75 * apart + 0.25 * math.log(2)]
    np.testing.assert_allclose(found, wanted, rtol=tolerance["float32"]["rtol"])
    for teacher_, share in ((None, 1.0), (teacher, 1.5)):
        with pytest.raises(EdgewrightError, match="E103"):
            imitation(student, teacher_, None, share=share)


# --- layers -----------------------------------------------------------------------------------------------------------


def test_padding_is_a_sign() -> None:
    for value in (1, -1):
        layer = BinaryConv2d(1, 1, 3, padding=1, method=Method("sign", "ste", "ste", pad_value=value))
        layer.weight.data.fill_(1.0)
        made = layer(torch.ones(1, 1, 3, 3))[0, 0]
        assert made[1, 1] == 9
        assert made[0, 0] == 4 + 5 * value
        assert made[0, 1] == 6 + 3 * value


@pytest.mark.parametrize("name", METHODS)
def test_every_weight_gets_a_gradient_and_a_linear_layer_is_a_convolution(name: str, tolerance: Tolerance) -> None:
    linear, conv = (
        made(6, 4, *rest, bias=True, method=method(name)) for made, rest in ((BinaryLinear, ()), (BinaryConv2d, (1,)))
    )
    conv.load_state_dict(
        {key: value.reshape(conv.state_dict()[key].shape) for key, value in linear.state_dict().items()}
    )
    x = torch.randn(5, 6)
    made = linear(x)
    close = {key: tolerance["float32"][key] for key in ("rtol", "atol")}
    np.testing.assert_allclose(made.detach(), conv(x[:, :, None, None])[..., 0, 0].detach(), **close)
    made.square().sum().backward()
    for key, parameter in linear.named_parameters():
        assert parameter.grad.abs().max() > 0, key


def test_what_cannot_be_is_refused() -> None:
    for call in (
        lambda: method("xnor"),
        lambda: Method(pad_value=0),
        lambda: BinaryConv2d(4, 4, 3, groups=3),
        lambda: BinaryConv2d(4, 4, 3, stride=0),
        lambda: BinaryConv2d(4, 4, 3, groups=2, method=METHODS["adabin"]),
        lambda: BinaryLinear(0, 4),
        lambda: resnet20(depth=21),
    ):
        with pytest.raises(EdgewrightError, match=r"E10[13]"):
            call()


# --- networks ---------------------------------------------------------------------------------------------------------


def count(network: torch.nn.Module) -> int:
    return sum(isinstance(module, BinaryConv2d) for module in network.modules())


def test_networks_have_the_published_layers() -> None:
    assert count(resnet20()) == 18
    assert count(resnet18(1000, large=True)) == 16
    assert count(vgg_small(width=8)) == 5
    weights = sum(parameter.numel() for parameter in resnet20().parameters() if parameter.ndim == 4)
    assert weights == 3 * 16 * 9 + 6 * 16 * 16 * 9 + 16 * 32 * 9 + 5 * 32 * 32 * 9 + 32 * 64 * 9 + 5 * 64 * 64 * 9
    plain = resnet20(depth=14, method=Method(shortcuts=False))
    assert count(plain) == count(resnet20(depth=14)) == 12
    assert sum(isinstance(module, Pair) for module in plain.modules()) == 6
    assert plain(torch.zeros(2, 3, 32, 32)).shape == (2, 10)
    assert vgg_small(width=8)(torch.zeros(2, 3, 32, 32)).shape == (2, 10)
    assert resnet18(7, large=True)(torch.zeros(2, 3, 64, 64)).shape == (2, 7)


@pytest.mark.parametrize("name", METHODS)
def test_a_deployed_network_gives_what_the_trained_one_gives(name: str, tolerance: Tolerance) -> None:
    """Within the rounding of batch norms: a sign that flips would be seen at once."""
    network = settled(NETWORKS["resnet8"](10, method(name)))
    x = torch.randn(4, 3, 32, 32)
    with torch.no_grad():
        wanted, made = network(x), deployed(network)(x)
    assert float((made - wanted).norm() / wanted.norm()) < tolerance["float32"]["rel_l2"]
    assert network(x).requires_grad  # the network itself was not changed

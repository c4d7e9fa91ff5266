"""Every Darknet layer and option against an independent evaluation from its formula (`tests/darknet_nets.py`)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from tests.darknet_nets import ACTIVATIONS, Net

import edgewright as ew
from edgewright.graph.shapes import infer

RUNTIMES = ("reference", "onnxruntime", "openvino")
Tolerance = dict[str, dict[str, float]]

CONV = "[convolutional]\nfilters=8\nsize=3\nstride=1\npad=1\nactivation=linear\n"


def net(body: str, *, sizes: tuple[int, int, int] = (3, 9, 12), more: str = "") -> str:
    c, h, w = sizes
    return f"[net]\nchannels={c}\nheight={h}\nwidth={w}\n{more}\n{body}"


#: Name -> the cfg's layers.
CASES = {
    "conv": "[convolutional]\nfilters=5\nsize=3\nstride=2\npad=1\nactivation=leaky\nbatch_normalize=1",
    "conv defaults": "[convolutional]",
    "conv without padding": "[conv]\nfilters=4\nsize=5\nactivation=relu",
    "conv with padding": "[convolutional]\nfilters=4\nsize=3\npadding=2\nactivation=linear",
    "pad overrides padding": "[convolutional]\nfilters=4\nsize=3\npad=1\npadding=5\nactivation=linear",
    "pad of an even size": "[convolutional]\nfilters=4\nsize=4\npad=1\nactivation=linear",
    "strides by axis": "[convolutional]\nfilters=4\nsize=3\npad=1\nstride_x=3\nstride_y=2\nactivation=linear",
    "one stride by axis": "[convolutional]\nfilters=4\nsize=3\npad=1\nstride=2\nstride_x=1\nactivation=linear",
    "groups": f"{CONV}[convolutional]\nfilters=4\nsize=3\ngroups=2\npad=1\nbatch_normalize=1\nactivation=linear",
    "depthwise": f"{CONV}[convolutional]\nfilters=8\nsize=3\ngroups=8\nstride=2\npad=1\nactivation=linear",
    "dilation": "[convolutional]\nfilters=4\nsize=3\npad=1\ndilation=2\nactivation=linear",
    "dilation with stride": "[convolutional]\nfilters=4\nsize=3\npad=1\ndilation=3\nstride=2\nactivation=linear",
    "dilation of size 1": "[convolutional]\nfilters=4\nsize=1\npadding=1\ndilation=3\nactivation=linear",
    "antialiasing": "[convolutional]\nfilters=4\nsize=3\npad=1\nstride=2\nantialiasing=1\nactivation=leaky\nbatch_normalize=1",
    "antialiasing 2": f"[convolutional]\nfilters=4\nsize=3\npad=1\nstride=2\nantialiasing=2\nactivation=leaky\n{CONV}",
    "antialiasing by axis": "[convolutional]\nfilters=4\nsize=3\npad=1\nstride_x=2\nstride_y=1\nantialiasing=1\nactivation=relu",
    "share_index": f"{CONV}{CONV}[convolutional]\nfilters=8\nsize=3\npad=1\ndilation=2\nshare_index=1\nactivation=leaky",
    "share_index back": f"{CONV}{CONV}[convolutional]\nfilters=8\nsize=3\npadding=0\nstride=2\nshare_index=-1\nactivation=leaky",
    "share_index with norm": (
        f"{CONV}[convolutional]\nfilters=8\nsize=1\nbatch_normalize=1\nactivation=mish\n"
        f"[convolutional]\nfilters=8\nsize=1\nbatch_normalize=1\nshare_index=1\nactivation=leaky\n{CONV}"
    ),
    "flipped": "[convolutional]\nfilters=4\nsize=3\npad=1\nflipped=1\nactivation=linear\n[avgpool]",
    "dontloadscales": "[convolutional]\nfilters=4\nsize=3\nbatch_normalize=1\ndontloadscales=1\nactivation=linear",
    "cbn": "[convolutional]\nfilters=4\nsize=3\ncbn=1\nactivation=linear",
    "xnor": f"{CONV}[convolutional]\nfilters=4\nsize=3\npad=1\nxnor=1\nbin_output=1\nbatch_normalize=1\nactivation=leaky",
    "xnor has no groups": f"{CONV}[convolutional]\nfilters=4\ngroups=2\nsize=3\nxnor=1\nactivation=linear",
    "binary": f"{CONV}[convolutional]\nfilters=4\nsize=3\npad=1\nbinary=1\nactivation=leaky",
    "deconvolutional": "[deconvolutional]\nfilters=4\nsize=4\nstride=2\npadding=1\nbatch_normalize=1\nactivation=leaky",
    "maxpool": "[maxpool]\nsize=2\nstride=2",
    "maxpool defaults": "[maxpool]",
    "maxpool stride alone": "[max]\nstride=3",
    "maxpool stride 1": "[maxpool]\nsize=2\nstride=1",
    "maxpool wide": "[maxpool]\nsize=9\nstride=1",
    "maxpool by axis": "[maxpool]\nsize=3\nstride_x=2\nstride_y=1",
    "maxpool padding": "[maxpool]\nsize=3\nstride=2\npadding=0",
    "maxpool odd padding": "[maxpool]\nsize=2\nstride=2\npadding=3",
    "maxpool padding beyond the window": "[maxpool]\nsize=2\nstride=3\npadding=8",
    "maxpool leaves cells out": "[maxpool]\nsize=2\nstride=5\npadding=0",
    "maxpool antialiasing": f"{CONV}[maxpool]\nsize=2\nstride=2\nantialiasing=1",
    "maxpool antialiasing 2": f"{CONV}[maxpool]\nsize=3\nstride=2\nantialiasing=2",
    "maxpool depth": f"{CONV}[maxpool]\nmaxpool_depth=1\nout_channels=4",
    "maxpool depth uneven": f"{CONV}[maxpool]\nmaxpool_depth=1\nout_channels=3",
    "local_avgpool": "[local_avgpool]\nsize=3\nstride=2",
    "local_avgpool stride 1": "[local_avgpool]\nsize=2\nstride=1",
    "local_avgpool by axis": "[local_avg]\nsize=3\nstride_x=1\nstride_y=2\npadding=1",
    "avgpool": f"{CONV}[avgpool]",
    "route": f"{CONV}{CONV}[route]\nlayers=-1,0",
    "route one": f"{CONV}{CONV}[route]\nlayers=0\n[route]\nlayers=-1,1",
    "route groups": f"{CONV}{CONV}[route]\nlayers=-1\ngroups=2\ngroup_id=1",
    "route of groups of several": f"{CONV}{CONV}[route]\nlayers=-1,-2\ngroups=4\ngroup_id=2",
    "shortcut": f"{CONV}{CONV}[shortcut]\nfrom=-2\nactivation=leaky",
    "shortcut absolute": f"{CONV}{CONV}{CONV}[shortcut]\nfrom=0\nactivation=linear",
    "shortcut fewer": f"{CONV}{CONV.replace('8', '11')}[shortcut]\nfrom=0",
    "shortcut more": f"{CONV}{CONV.replace('8', '5')}[shortcut]\nfrom=0\nactivation=relu",
    "shortcut several": f"{CONV}{CONV}{CONV.replace('8', '5')}[shortcut]\nfrom=-2,-3",
    **{
        f"shortcut {kind} {rule}": (
            f"{CONV}{CONV}{CONV}[shortcut]\nfrom=-2,-3\nweights_type={kind}\nweights_normalization={rule}\nactivation=leaky\n{CONV}"
        )
        for kind in ("per_feature", "per_layer", "per_channel")
        for rule in ("none", "relu", "avg_relu", "softmax")
    },
    "shortcut weighted fewer": f"{CONV}{CONV.replace('8', '11')}[shortcut]\nfrom=0\nweights_type=per_channel",
    "scale_channels": f"{CONV}[avgpool]\n[scale_channels]\nfrom=-2\nactivation=swish",
    "scale_channels by place": (
        f"{CONV}[convolutional]\nfilters=1\nsize=1\nactivation=logistic\n[scale_channels]\nfrom=0\nscale_wh=1"
    ),
    "sam": f"{CONV}[convolutional]\nfilters=8\nsize=1\nactivation=logistic\n[sam]\nfrom=-2\nactivation=mish",
    "implicit": f"{CONV}[implicit]\nfilters=8\n[scale_channels]\nfrom=-2\n{CONV}",
    "implicit defaults": f"{CONV}[implicit]",
    "shortcut misspelled": f"{CONV}{CONV}[shortcut]\nfrom=-2\nweights_type=per_channel\nweights_normalizion=relu",
    "implicit atoms": f"{CONV}[implicit_add]\nfilters=4\natoms=3",
    "upsample": "[upsample]\nstride=2",
    "upsample defaults": "[upsample]",
    "upsample scale": "[upsample]\nstride=3\nscale=0.5",
    "upsample down": "[upsample]\nstride=-3\nscale=0.5",
    "reorg": f"{CONV}[route]\nlayers=0\n[crop]\ncrop_height=8\ncrop_width=12\nnoadjust=1\n[reorg]\nstride=2",
    "reorg 4": f"{CONV.replace('8', '16')}[crop]\ncrop_height=8\ncrop_width=8\nnoadjust=1\n[reorg]\nstride=4",
    "reorg reverse": f"{CONV}[reorg]\nstride=2\nreverse=1",
    "reorg3d": f"{CONV}[reorg3d]\nstride=3",
    "reorg3d reverse": f"{CONV.replace('8', '16')}[reorg3d]\nstride=2\nreverse=1",
    "crop": "[crop]\ncrop_height=6\ncrop_width=7\nflip=1",
    "crop noadjust": "[crop]\ncrop_height=9\ncrop_width=7\nnoadjust=1",
    "connected": "[connected]\noutput=7\nactivation=leaky\n[connected]\noutput=5\nbatch_normalize=1\nactivation=tanh",
    "connected defaults": "[conn]\n[connected]\noutput=3\nactivation=elu",
    "local": "[local]\nfilters=4\nsize=3\nstride=2\npad=1\nactivation=leaky",
    "local without padding": "[local]\nfilters=4\nsize=2\nstride=3\nactivation=linear",
    "local defaults": "[local]",
    "local wide": "[local]\nfilters=2\nsize=5\npad=1\nactivation=relu",
    "softmax": f"{CONV}[avgpool]\n[softmax]\n[cost]",
    "softmax of a map": "[softmax]\ngroups=9\ntemperature=2.5",
    "softmax spatial": f"{CONV}[softmax]\nspatial=1",
    "softmax groups": f"{CONV}[avgpool]\n[soft]\ngroups=2\ntemperature=0.5",
    "batchnorm": f"{CONV}[batchnorm]",
    "dropout": "[dropout]\nprobability=.5\n[empty]\n[silence]\n[activation]\nactivation=leaky",
    "normalization": f"{CONV}[normalization]",
    "lrn": f"{CONV.replace('8', '12')}[lrn]\nsize=5\nalpha=0.7\nbeta=0.5\nkappa=60",
    "lrn even": f"{CONV}[lrn]\nsize=4\nalpha=0.3\nkappa=50",
    "lrn size 1": f"{CONV}[lrn]\nsize=1\nalpha=0.3\nkappa=60",
    "lrn wide": f"{CONV}[lrn]\nsize=17\nalpha=0.3\nkappa=60",
    "logistic": "[logistic]",
    "l2norm": "[l2norm]",
    "contrastive": f"{CONV}[contrastive]\nclasses=3",
    "cost inside": f"{CONV}[cost]\ntype=sse\n{CONV}",
    "yolo": f"{CONV.replace('8', '24')}[yolo]\nmask=3,4,5\nanchors=1,2,3,4,5,6,7,8,9,10,11,12\nclasses=3\nnum=6",
    "yolo scale": f"{CONV.replace('8', '16')}[yolo]\nmask=0,2\nanchors=1,2,3,4,5,6\nclasses=3\nnum=3\nscale_x_y=1.2",
    "yolo new_coords": f"{CONV.replace('8', '16')}[yolo]\nnum=2\nanchors=1,2,3,4\nclasses=3\nnew_coords=1\nscale_x_y=2",
    "yolo plain": f"{CONV.replace('8', '16')}[yolo]\nnum=2\nanchors=1,2,3,4\nclasses=3\nnew_coords=1",
    "Gaussian_yolo": f"{CONV.replace('8', '24')}[Gaussian_yolo]\nmask=1,2\nanchors=1,2,3,4,5,6\nclasses=3\nnum=3\nscale_x_y=1.1",
    "region": f"{CONV.replace('8', '16')}[region]\nanchors=1,2,3,4\nclasses=3\nnum=2\ncoords=4\nsoftmax=1",
    "region plain": f"{CONV.replace('8', '16')}[region]\nanchors=1,2,3,4\nclasses=3\nnum=2",
    "detection": "[connected]\noutput=117\nactivation=linear\n[detection]\nclasses=3\ncoords=4\nside=3\nnum=2\nsqrt=1",
    "detection softmax": "[connected]\noutput=117\nactivation=linear\n[detection]\nclasses=3\ncoords=4\nside=3\nnum=2\nsoftmax=1",
    **{
        f"activation {name}": (
            f"[convolutional]\nfilters=6\nsize=1\nbatch_normalize=1\nactivation={name}\n{CONV}[activation]\nactivation={name}\n"
            f"[shortcut]\nfrom=-2\nactivation={name}\n[connected]\noutput=4\nactivation={name}"
        )
        for name in ACTIVATIONS
    },
}  # fmt: skip

#: Recurrent layers: name -> layers.
RECURRENT = {
    "rnn": "[rnn]\nhidden=6\noutput=5\nactivation=leaky\n[connected]\noutput=3\nactivation=linear",
    "rnn shortcut": "[rnn]\nhidden=6\noutput=5\nactivation=tanh\nshortcut=1\nbatch_normalize=1",
    "rnn logistic": "[rnn]\nhidden=6\noutput=5\nactivation=leaky\nlogistic=1\n[rnn]\nhidden=4\noutput=3\nlogistic=2",
    "gru": "[gru]\noutput=6\n[softmax]",
    "gru norm": "[gru]\noutput=6\nbatch_normalize=1\n[gru]\noutput=3",
    "lstm": "[lstm]\noutput=6\n[connected]\noutput=4\nactivation=leaky",
    "lstm norm": "[lstm]\noutput=6\nbatch_normalize=1",
    "crnn": f"{CONV}[crnn]\nsize=3\npad=1\nhidden=6\noutput=4\nactivation=leaky\nbatch_normalize=1",
    "crnn groups": f"{CONV}[crnn]\nsize=3\npad=1\nhidden=6\noutput=4\ngroups=2\nshortcut=1\nactivation=tanh\ndilation=2",
    "conv_lstm": f"{CONV}[conv_lstm]\nsize=3\npad=1\noutput=5\nbatch_normalize=1\n{CONV}",
    "conv_lstm peephole": f"{CONV}[conv_lstm]\npad=1\noutput=5\npeephole=1\nactivation=leaky\nlstm_activation=relu6",
    "conv_lstm constrained": "[conv_lstm]\npad=1\noutput=5\nstate_constrain=1\nlstm_activation=leaky",
    "conv_lstm groups": f"{CONV}[conv_lstm]\nsize=1\noutput=4\ngroups=2\nstate_constrain=0",
    "conv_lstm bottleneck": f"{CONV}[conv_lstm]\npad=1\noutput=8\nbottleneck=1\nbatch_normalize=1",
    "history of four": "[history]",
    "history": f"{CONV}[history]\nhistory_size=3\n[history]\nhistory_size=1\n{CONV}",
}  # fmt: skip


def same(got: np.ndarray, wanted: np.ndarray, tolerance: Tolerance, where: str) -> None:
    distance = np.linalg.norm(got.astype(np.float64).reshape(-1) - wanted.reshape(-1))
    assert got.size == wanted.size, where
    assert distance <= tolerance["float32"]["rel_l2"] * max(np.linalg.norm(wanted), 1e-6), where


def images(count: int, sizes: tuple[int, int, int] = (3, 9, 12), seed: int = 5) -> np.ndarray:
    return np.random.default_rng(seed).random((count, *sizes), dtype=np.float32)


def check_layers(
    text: str, folder: Path, tolerance: Tolerance, *, tree: list[int] | None = None, **options: object
) -> ew.Model:
    """Every layer of two images on all runtimes."""
    x = images(2)
    wanted = Net(text, tree=tree)
    first = wanted.step(x[0])
    both = [[y] for y in first]
    for row, y in zip(both, wanted.step(x[1]), strict=True):
        row.append(y)
    model = ew.load(wanted.write(folder, text), **options)
    names = [f"layer_{index:03d}" for index, y in enumerate(first) if y is not None]
    for runtime in RUNTIMES:
        with ew.open(model, runtime=runtime) as session:
            outputs = session.run({"image": x}, outputs=names)
        for name in names:
            for image in range(2):
                y = both[int(name[6:])][image]
                assert y is not None
                assert outputs[name][image].shape == y.shape, f"{runtime} {name}"
                same(outputs[name][image], y, tolerance, f"{runtime} {name}")
    return model


@pytest.mark.filterwarnings("ignore:.*dontloadscales")
@pytest.mark.parametrize("case", CASES)
def test_layer(case: str, tmp_path: Path, tolerance: Tolerance) -> None:
    model = check_layers(net(CASES[case]), tmp_path, tolerance)
    declared = {value.name: list(value.shape)[1:] for node in model.ir.graph for value in node.outputs}
    onnx.checker.check_model(model.to_proto(), full_check=True)
    copy = model.clone_ir()
    infer(copy)
    for node in copy.graph:
        for value in node.outputs:
            if value.shape is not None and all(isinstance(size, int) for size in list(value.shape)[1:]):
                assert list(value.shape)[1:] == declared[value.name], value.name


def test_tree(tmp_path: Path, tolerance: Tolerance) -> None:
    parents = [-1, -1, -1, 0, 0, 1, 2, 2]
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "t.tree").write_text("".join(f"n{i} {p}\n" for i, p in enumerate(parents)))
    head = "[region]\nanchors=1,2,3,4\nclasses=8\nnum=2\nsoftmax=1\ntree=data/t.tree"
    model = check_layers(net(f"{CONV.replace('8', '26')}{head}"), tmp_path, tolerance, tree=parents)
    assert model.spec.options["heads"][0]["parents"] == parents
    (tmp_path / "data" / "t.tree").rename(tmp_path / "other.tree")
    body = f"{CONV}[avgpool]\n[softmax]\ntemperature=0.5\ntree=data/t.tree"
    x, wanted = images(1)[0], Net(net(body), tree=parents)
    wanted.step(x)
    model = ew.load(wanted.write(tmp_path, net(body)), tree=tmp_path / "other.tree")
    with ew.open(model) as session:
        (output,) = session.run({"image": x[None]}).values()
    last = wanted.outputs[-1]
    assert last is not None
    same(output, last, tolerance, "softmax")


@pytest.mark.parametrize("case", RECURRENT)
class TestRecurrent:
    """Three steps: one by one with the state carried over, in one run, and from zeros without any state."""

    def prepare(self, case: str, folder: Path) -> tuple[Path, np.ndarray, list[list[np.ndarray | None]]]:
        text, x = net(RECURRENT[case]), images(3)
        wanted = Net(text)
        steps = [wanted.step(frame) for frame in x]
        return wanted.write(folder, text), x, steps

    @pytest.mark.parametrize("runtime", RUNTIMES)
    def test_state_in_and_out(self, case: str, runtime: str, tmp_path: Path, tolerance: Tolerance) -> None:
        path, x, steps = self.prepare(case, tmp_path)
        model = ew.load(path)
        state = {info.name: np.zeros((1, *info.shape[1:]), np.float32) for info in model.inputs[1:]}  # type: ignore[arg-type]
        assert state
        assert {f"{name}_next" for name in state} == {info.name for info in model.outputs[1:]}
        answer = model.outputs[0].name
        with ew.open(model, runtime=runtime) as session:
            for frame, layers in zip(x, steps, strict=True):
                outputs = session.run({"image": frame[None], **state})
                wanted = layers[int(answer[6:])]
                assert wanted is not None
                same(outputs[answer], wanted, tolerance, answer)
                state = {name: outputs[f"{name}_next"] for name in state}

    @pytest.mark.parametrize("runtime", RUNTIMES)
    def test_several_steps_in_one_run(self, case: str, runtime: str, tmp_path: Path, tolerance: Tolerance) -> None:
        path, x, steps = self.prepare(case, tmp_path)
        model = ew.load(path, time_steps=3)
        assert model.inputs[0].shape[0] == 3
        state = {info.name: np.zeros(info.shape, np.float32) for info in model.inputs[1:]}  # type: ignore[arg-type]
        names = [f"layer_{index:03d}" for index in range(len(steps[0]))]
        with ew.open(model, runtime=runtime) as session:
            outputs = session.run({"image": x, **state}, outputs=names)
        for index, name in enumerate(names):
            same(outputs[name], np.stack([layers[index] for layers in steps]), tolerance, name)  # type: ignore[misc]

    @pytest.mark.parametrize("runtime", RUNTIMES)
    def test_from_zero(self, case: str, runtime: str, tmp_path: Path, tolerance: Tolerance) -> None:
        path, x, steps = self.prepare(case, tmp_path)
        model = ew.load(path, state="zero")
        assert [info.name for info in model.inputs] == ["image"]
        with ew.open(model, runtime=runtime) as session:
            (output,) = session.run({"image": x[[0, 0]]}).values()
        wanted = steps[0][int(model.outputs[0].name[6:])]
        assert wanted is not None
        for row in output:
            same(row, wanted, tolerance, case)


def test_vector_input(tmp_path: Path, tolerance: Tolerance) -> None:
    text = "[net]\ninputs=10\nbatch=1\n[gru]\noutput=6\n[connected]\noutput=4\nactivation=linear\n[softmax]\n[cost]\n"
    x = np.random.default_rng(1).random((10, 1, 1), np.float32)
    wanted = Net(text)
    last = wanted.step(x)[2]
    model = ew.load(wanted.write(tmp_path, text))
    assert str(model.inputs[0]) == "input float32[N, 10, 1, 1]"
    with ew.open(model) as session:
        outputs = session.run({"input": x[None], "layer_000_state": np.zeros((1, 6), np.float32)})
    assert last is not None
    same(outputs["layer_002"], last, tolerance, "softmax")


def test_transposed_matrices(tmp_path: Path, tolerance: Tolerance) -> None:
    text = net("[connected]\noutput=7\nbatch_normalize=1\nactivation=leaky\n[rnn]\nhidden=3\noutput=2\nactivation=tanh")
    for version in ((1001, 0, 0), (0, 1001, 0)):
        wanted = Net(text, version=version)
        first = wanted.step(images(1)[0])
        model = ew.load(wanted.write(tmp_path, text), state="zero")
        with ew.open(model) as session:
            outputs = session.run({"image": images(1)}, outputs=["layer_000", "layer_001"])
        for index, y in enumerate(first):
            assert y is not None
            same(outputs[f"layer_{index:03d}"], y, tolerance, str(version))


def test_folded_batch_norm_is_the_same_network(tmp_path: Path, tolerance: Tolerance) -> None:
    text = net(CASES["groups"] + "\n[connected]\noutput=7\nbatch_normalize=1\nactivation=leaky")
    wanted = Net(text)
    last = wanted.step(images(1)[0])[-1]
    model = ew.load(wanted.write(tmp_path, text))
    folded = ew.compress(model, "float", target=ew.Target("onnxruntime"))
    assert "BatchNormalization" not in {node.op_type for node in folded.ir.graph}
    with ew.open(folded) as session:
        outputs = session.run({"image": images(1)})
    assert last is not None
    same(outputs["layer_002"], last, tolerance, "folded")

"""One rewrite per change of an operator's meaning or form between opset 7 and 21.

What is not listed here kept its meaning: new versions of an operator then only allow more types, or add attributes and
inputs whose default is the old behaviour. A test holds this against every schema of the onnx package.

Source: ONNX operator change log, https://onnx.ai/onnx/operators/
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from edgewright.importers.onnx._site import Site

Adapter = Callable[[Site], None]


def _drop_spatial(site: Site) -> None:
    if site.pop("spatial", 1) != 1:
        raise site.refuse("`spatial` 0 (statistics per activation) was removed")


def _inference_batch_norm(site: Site) -> None:
    if any(site.uses_output(index) for index in range(1, len(site.node.outputs))):
        raise site.refuse("it has the outputs of training")
    site.node.resize_outputs(1)


def _upsample_scales(site: Site) -> None:
    site.set_input(1, site.constant("scales", np.array(site.pop("scales"), dtype=np.float32)))


def _scan_without_batch(site: Site) -> None:
    raise site.refuse("Scan of opset 8 had a batch axis and sequence lengths")


def _drop_mask(site: Site) -> None:
    mask = site.node.outputs[1] if site.uses_output(1) else None
    if mask is not None and (mask.uses() or mask.is_graph_output()):
        raise site.refuse("its mask is used, which changed its type")
    site.node.resize_outputs(1)


def _slice_inputs(site: Site) -> None:
    starts, ends, axes = site.pop("starts"), site.pop("ends"), site.pop("axes")
    site.set_input(1, site.ints("starts", starts))
    site.set_input(2, site.ints("ends", ends))
    site.set_input(3, site.ints("axes", axes if axes is not None else range(len(starts))))


def _topk_input(site: Site) -> None:
    site.set_input(1, site.ints("k", [site.pop("k")]))


def _upsample_to_resize(site: Site) -> None:
    # Upsample only enlarges, so its rounding is always down.
    site.node.op_type = "Resize"
    site.set("nearest_mode", "floor")


def _resize_asymmetric(site: Site) -> None:
    scales = site.input(1)
    site.set("coordinate_transformation_mode", "asymmetric")
    if site.get("mode", "nearest") == "nearest" and site.get("nearest_mode") is None:
        site.set("nearest_mode", _old_rounding(site))
    site.set_input(1, None)
    site.set_input(2, scales)


def _old_rounding(site: Site) -> str:
    """Rounding of ONNX Runtime's Resize of opset 10, which the standard left open: down to enlarge, up to shrink."""
    scales = site.known(1)
    if scales is not None and (scales >= 1).all():
        return "floor"
    if scales is not None and (scales <= 1).all():
        return "ceil"
    raise site.refuse("nearest Resize of opset 10 needs constant scales, all enlarging or all shrinking")


def _resize_optional_inputs(site: Site) -> None:
    if site.get("coordinate_transformation_mode") == "tf_half_pixel_for_nn":
        raise site.refuse("its coordinate mode tf_half_pixel_for_nn was removed")
    for index in (1, 2):
        values = site.known(index)
        if values is not None and values.size == 0:
            site.set_input(index, None)


def _clip_inputs(site: Site) -> None:
    data = site.input(0)
    assert data is not None
    limit = float(np.finfo(np.float32).max)
    for index, (name, default) in enumerate((("min", -limit), ("max", limit)), start=1):
        value = site.pop(name, default)
        if value != default:
            site.set_input(index, site.scalar_like(name, value, data))


def _pad_inputs(site: Site) -> None:
    data = site.input(0)
    assert data is not None
    site.set_input(1, site.ints("pads", site.pop("pads")))
    value = site.pop("value", 0.0)
    if value != 0.0:
        site.set_input(2, site.scalar_like("value", value, data))


def _scatter_elements(site: Site) -> None:
    site.node.op_type = "ScatterElements"


def _drop_ratio(site: Site) -> None:
    # The ratio matters in training only, which Dropout of opset 12 does on request only.
    site.pop("ratio")


def _axes_input(site: Site) -> None:
    axes = site.pop("axes")
    if axes:
        site.set_input(1, site.ints("axes", axes))


def _split_input(site: Site) -> None:
    split = site.pop("split")
    if split:
        site.set_input(1, site.ints("split", split))


def _split_count(site: Site) -> None:
    if site.input(1) is None:
        site.set("num_outputs", len(site.node.outputs))


def _softmax_axis(site: Site) -> None:
    """Before opset 13 all axes from `axis` on were one; that is one axis only where the others have size 1."""
    axis = site.pop("axis", 1)
    data = site.input(0)
    assert data is not None
    rank = len(data.shape) if data.shape is not None else None
    if axis == -1 or (rank is not None and axis == rank - 1):
        site.set("axis", -1)
        return
    if rank is not None and data.shape is not None and all(size == 1 for size in list(data.shape)[axis:][1:]):
        site.set("axis", axis)
        return
    op_type = site.node.op_type
    shape = site.insert("Shape", (data,), suffix="shape")
    flat = site.insert("Flatten", (data,), {"axis": axis}, suffix="flat")
    result = site.insert(op_type, (flat,), {"axis": -1}, suffix="rows")
    site.become("Reshape", (result, shape), {"allowzero": 1})


def _roi_align_mode(site: Site) -> None:
    site.set("coordinate_transformation_mode", "output_half_pixel")


def _grid_sample_mode(site: Site) -> None:
    mode = site.get("mode", "bilinear")
    site.set("mode", {"bilinear": "linear", "bicubic": "cubic"}.get(mode, mode))


def _dft_axis(site: Site) -> None:
    site.set_input(2, site.constant("axis", np.array(site.pop("axis", 1), dtype=np.int64)))


def _group_norm_per_channel(site: Site) -> None:
    """Scale and bias were one per group; repeat each over the group's channels."""
    data = site.input(0)
    groups = site.get("num_groups")
    if not isinstance(groups, int) or len(site.node.inputs) != 3:
        raise site.refuse("it needs `num_groups` and three inputs")
    channels = site.insert("Shape", (data,), {"start": 1, "end": 2}, suffix="channels")
    each = site.insert("Div", (channels, site.ints("groups", [groups])), suffix="each")
    wide = site.insert("Concat", (site.ints("one", [1]), each), {"axis": 0}, suffix="wide")
    for index, name in ((1, "scale"), (2, "bias")):
        column = site.insert(
            "Reshape", (site.input(index), site.ints(f"{name}_column", [-1, 1])), suffix=f"{name}_groups"
        )
        repeated = site.insert("Expand", (column, wide), suffix=f"{name}_wide")
        flat = site.insert("Reshape", (repeated, site.ints(f"{name}_flat", [-1])), suffix=f"{name}_channels")
        site.set_input(index, flat)


_REDUCTIONS = (
    "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd",
    "ReduceSumSquare",
)  # fmt: skip

#: (operator, opset that changed it) -> the rewrite.
ADAPTERS: dict[tuple[str, int], Adapter] = {
    ("BatchNormalization", 9): _drop_spatial,
    ("BatchNormalization", 14): _inference_batch_norm,
    ("Clip", 11): _clip_inputs,
    ("DFT", 20): _dft_axis,
    ("Dropout", 10): _drop_mask,
    ("Dropout", 12): _drop_ratio,
    ("GridSample", 20): _grid_sample_mode,
    ("GroupNormalization", 21): _group_norm_per_channel,
    ("Hardmax", 13): _softmax_axis,
    ("LogSoftmax", 13): _softmax_axis,
    ("Pad", 11): _pad_inputs,
    ("ReduceSum", 13): _axes_input,
    ("Resize", 11): _resize_asymmetric,
    ("Resize", 13): _resize_optional_inputs,
    ("RoiAlign", 16): _roi_align_mode,
    ("Scan", 9): _scan_without_batch,
    ("Scatter", 11): _scatter_elements,
    ("Slice", 10): _slice_inputs,
    ("Softmax", 13): _softmax_axis,
    ("Split", 13): _split_input,
    ("Split", 18): _split_count,
    ("Squeeze", 13): _axes_input,
    ("TopK", 10): _topk_input,
    ("Unsqueeze", 13): _axes_input,
    ("Upsample", 9): _upsample_scales,
    ("Upsample", 10): _upsample_to_resize,
    **{(name, 18): _axes_input for name in _REDUCTIONS},
}

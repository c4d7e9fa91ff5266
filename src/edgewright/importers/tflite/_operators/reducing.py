"""Operators that make one value of many along axes."""

from __future__ import annotations

from collections.abc import Callable

from edgewright.importers.tflite._network import Layout
from edgewright.importers.tflite._site import Site

_REDUCTIONS = {"MEAN": "ReduceMean", "REDUCE_MAX": "ReduceMax", "REDUCE_MIN": "ReduceMin", "REDUCE_PROD": "ReduceProd",
               "SUM": "ReduceSum"}  # fmt: skip


def mean(site: Site) -> None:
    """MEAN; over both sides of an image a global pool, which runtimes are fast at."""
    axes, keep, layout = _arguments(site)
    if layout == "nchw" and sorted(axes) == [1, 2]:
        pooled = site.graph.node("GlobalAveragePool", site.real(0, "nchw"))
        if keep:
            site.done(pooled, "nchw")
        else:
            site.done(site.graph.node("Squeeze", pooled, site.graph.numbers([2, 3])))
        return
    _reduce(site, "ReduceMean")


def _reduction(op_type: str) -> Callable[[Site], None]:
    return lambda site: _reduce(site, op_type)


def _logical(op_type: str) -> Callable[[Site], None]:
    def build(site: Site) -> None:
        """REDUCE_ANY and REDUCE_ALL, by the largest and smallest of 0 and 1."""
        axes, keep, _ = _arguments(site)
        value = site.graph.node("Cast", site.stored(0), to=6)
        made = site.graph.node(op_type, value, site.graph.numbers(axes), keepdims=keep, noop_with_empty_axes=1)
        site.done(site.graph.node("Cast", made, to=9))

    return build


def _place(op_type: str) -> Callable[[Site], None]:
    def build(site: Site) -> None:
        """ARG_MAX and ARG_MIN: the first place of the largest or smallest value."""
        axis = site.axis(site.integer(1), site.rank())
        made = site.graph.node(op_type, site.real(0), axis=axis, keepdims=0)
        site.done(site.graph.node("Cast", made, to=site.dtype("output_type")))

    return build


def cumsum(site: Site) -> None:
    """CUMSUM."""
    flags = {name: int(bool(site.option(name))) for name in ("exclusive", "reverse")}
    axis = site.axis(site.integer(1), site.rank())
    site.done(site.graph.node("CumSum", site.real(0), site.graph.numbers(axis), **flags))


def _arguments(site: Site) -> tuple[list[int], int, Layout]:
    """Axes in the order of the file, whether they are kept, and the layout to reduce in.

    Without the reduced axes an image's others must be in the order of the file again.
    """
    rank, keep = site.rank(), int(bool(site.option("keep_dims")))
    axes = sorted({site.axis(axis, rank) for axis in site.integers(1)})
    layout = site.layout(0)
    left = [axis for axis in range(rank) if axis not in axes]
    if layout == "nchw" and not keep and left != sorted(left, key=lambda axis: site.place(axis, "nchw")):
        layout = "file"
    return axes, keep, layout


def _reduce(site: Site, op_type: str) -> None:
    axes, keep, layout = _arguments(site)
    where = site.graph.numbers([site.place(axis, layout) for axis in axes])
    made = site.graph.node(op_type, site.real(0, layout), where, keepdims=keep, noop_with_empty_axes=1)
    site.done(made, layout if keep or not axes else "file")


BUILDERS: dict[str, Callable[[Site], None]] = {
    **{name: _reduction(op_type) for name, op_type in _REDUCTIONS.items()},
    "ARG_MAX": _place("ArgMax"), "ARG_MIN": _place("ArgMin"), "CUMSUM": cumsum, "MEAN": mean,
    "REDUCE_ALL": _logical("ReduceMin"), "REDUCE_ANY": _logical("ReduceMax"),
}  # fmt: skip

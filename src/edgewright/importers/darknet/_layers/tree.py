"""Trees of classes, as of YOLO9000: a softmax over the children of each parent.

Source: AlexeyAB/darknet, tree.c (read_tree) and softmax_layer.c (softmax_tree).
"""

from __future__ import annotations

from itertools import groupby
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import numpy as np

from edgewright.errors import EdgewrightError
from edgewright.graph.building import Graph
from edgewright.importers.darknet._layer import Layer

if TYPE_CHECKING:
    import onnx_ir as ir

_LARGEST_BYTES = 16 * 2**20


def read_tree(layer: Layer, classes: int) -> list[int]:
    """The parent of every class, -1 for those at the root.

    A line of the file is a name and the number of its parent, which has a line above; lines in a row with one parent are
    siblings.

    Raises:
        EdgewrightError: E104 the file is not there, E214 it is malformed or not for so many classes.
    """
    path = _find(layer)
    try:
        if path.stat().st_size > _LARGEST_BYTES:
            raise layer.refuse(f"tree `{path}` has more than {_LARGEST_BYTES} bytes", "tree")
        lines = path.read_text(encoding="latin-1").splitlines()
    except OSError as problem:
        raise EdgewrightError("E104", f"tree `{path}` cannot be read: {problem.strerror}") from None
    parents: list[int] = []
    for number, line in enumerate(lines, start=1):
        words = line.split()
        if not words:
            continue
        try:
            parents.append(int(words[1]))
        except (IndexError, ValueError):
            raise layer.refuse(
                f"tree `{path.name}` line {number} is no name and parent: `{line[:40]}`", "tree"
            ) from None
        if not -1 <= parents[-1] < len(parents) - 1:
            raise layer.refuse(
                f"tree `{path.name}` line {number} names parent {parents[-1]}, but {len(parents) - 1} classes are above it",
                "tree",
            )
    if len(parents) != classes:
        raise layer.refuse(f"tree `{path.name}` has {len(parents)} classes, but the layer has {classes}", "tree")
    return parents


def tree_softmax(graph: Graph, x: ir.Value, parents: list[int]) -> ir.Value:
    """Softmax over every group of siblings along the last axis of f32[N, rows, classes].

    Groups of one size are stacked: YOLO9000 has 1800 groups of a few dozen sizes.
    """
    batch, rows, classes = graph.shape(x)
    assert isinstance(rows, int)
    sizes = [len(list(group)) for _, group in groupby(parents)]
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    parts, order = [], []
    for size in sorted(set(sizes)):
        places = np.stack(
            [np.arange(start, start + size) for start, own in zip(starts, sizes, strict=True) if own == size]
        )
        shape = (batch, rows, *places.shape)
        group = graph.node("Gather", x, graph.weight(f"siblings.{size}", places.astype(np.int64)), shape=shape, axis=2)
        parts.append(graph.reshape(graph.node("Softmax", group, axis=-1), rows, places.size))
        order.append(places.reshape(-1))
    together = graph.node("Concat", *parts, shape=(batch, rows, classes), axis=2)
    back = graph.weight("classes", np.argsort(np.concatenate(order)).astype(np.int64))
    return graph.node("Gather", together, back, axis=2)


def _find(layer: Layer) -> Path:
    """The tree of the importer's option, else the file that the cfg names, beside it or in the folder above.

    Raises:
        EdgewrightError: E104 when it is not there.
    """
    if layer.network.tree is not None:
        return layer.network.tree
    named = PurePosixPath(layer.section.text("tree", "").replace("\\", "/"))
    folder = layer.network.folder
    places = [folder / named.name]
    if not named.is_absolute() and ".." not in named.parts:  # a cfg names files of its own folders only
        places += [folder / named, folder.parent / named]
    for place in places:
        if place.is_file():
            return place
    raise EdgewrightError(
        "E104",
        layer.section.note(f"tree `{named}` is not there", "tree"),
        hint="name it by the importer's option `tree`: --set darknet.tree=FILE",
    )

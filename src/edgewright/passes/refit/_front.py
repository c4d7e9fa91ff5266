"""Fronts: a network that is run piece by piece, with what the samples hold at the end of the last piece kept.

To refit layer after layer, each on what the layers before it now make, the network need not be run from its start for
every layer. What is alive between two nodes is kept for all samples where that fits into memory; where it does not, the
next piece starts where the last front that did fit lies, so memory stays flat and only time is spent.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from edgewright.contracts import Context, Cut, SampleSource
from edgewright.graph.cut import dependencies, extract
from edgewright.model import Arrays

if TYPE_CHECKING:
    import onnx_ir as ir


class Front:
    """One graph and the samples, run up to some node.

    Attributes:
        ir_model: The graph; nodes before the front must not change any more.
        position: Nodes that were passed.
    """

    def __init__(self, ir_model: ir.Model, samples: SampleSource, room: int, context: Context) -> None:
        self.ir_model, self.position = ir_model, 0
        self._samples, self._room, self._context = samples, room, context
        self._held: list[Arrays] | None = None  # None: the samples themselves

    def walk(self, position: int, wanted: Sequence[str]) -> Iterator[Arrays]:
        """For each sample the tensors `wanted`, computed from the front, which then stands before node `position`.

        It stays where it was when what is alive there does not fit. Read it to its end.
        """
        ahead = list(self.ir_model.graph)
        alive = _alive(ahead, position, self.ir_model)
        names = {value.name or "" for value in alive}
        start = None if self._held is None else tuple(self._held[0]) if self._held else None
        fed = set(start or (value.name for value in self.ir_model.graph.inputs))
        made = tuple(dict.fromkeys(name for name in (*wanted, *names) if name not in fed))
        run = None
        if made:
            cut = Cut(start and tuple(name for name in start), made)
            run = self._context.runner(extract(self.ir_model, cut))
        kept: list[Arrays] | None = []
        size = 0
        for arrays in self._arrays():
            shown = dict(arrays) | (dict(run({name: arrays[name] for name in fed})) if run is not None else {})
            if kept is not None:
                front = {name: shown[name] for name in names}
                size += sum(array.nbytes for array in front.values())
                kept.append(front)
                if size > self._room:
                    kept = None
            yield shown
        if kept:
            self._held, self.position = kept, position

    def _arrays(self) -> Iterator[Arrays]:
        if self._held is not None:
            yield from self._held
            return
        for sample in self._samples:
            yield sample.arrays


def _alive(nodes: Sequence[ir.Node], position: int, ir_model: ir.Model) -> list[ir.Value]:
    """Values made before node `position`, or fed, that are still read from there on."""
    own = {id(node) for node in nodes}
    passed = {id(value) for node in nodes[:position] for value in node.outputs}
    passed |= {id(value) for value in ir_model.graph.inputs if not value.is_initializer()}
    read = [value for node in nodes[position:] for value in dependencies(node)]
    read += list(ir_model.graph.outputs)
    found = {id(value): value for value in read if id(value) in passed}
    assert all(value.producer() is None or id(value.producer()) in own for value in found.values())
    return list(found.values())

"""find: walk a network once, operator by operator, and gather tied positions into groups."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from edgewright.errors import EdgewrightError
from edgewright.graph.channels import _layers, _moves, _plain, _zeros
from edgewright.graph.channels._groups import Barrier, Group, Groups, Member, Plan
from edgewright.graph.channels._ties import Ids, Ties
from edgewright.graph.channels._view import View, has_bodies
from edgewright.graph.channels._walk import Rule, Walk, key

if TYPE_CHECKING:
    import onnx_ir as ir

RULES: dict[str, Rule] = {**_layers.RULES, **_moves.RULES, **_plain.RULES}
#: What open sizes are taken to be, and what else they might be: channels whose positions depend on it stay.
_ONE, _OTHER = {"batch": 1, "side": 64}, {"batch": 2, "side": 96}


def find(ir_model: ir.Model) -> Groups:
    """Channel groups and barriers of the main graph, which is not changed.

    Open sizes are taken to be 1 for the batch and 64 for all others. A graph that cannot be followed has no groups and a
    `refusal`.
    """
    try:
        view = View(ir_model, **_ONE)
        other = View(ir_model, **_OTHER) if view.open else None
    except EdgewrightError as problem:
        return Groups((), (), f"sizes cannot be followed: {problem.message}")
    walk = Walk(view, other)
    for node in view.graph:
        _visit(node, walk)
    _join_shared(walk)
    _settle(walk)
    _freeze_ends(walk)
    found = _gather(walk)
    if found.groups:
        return found
    reasons = Counter(barrier.reason for barrier in found.barriers).most_common(1)
    why = (
        f"of {len(found.barriers)} layers with channels each has to keep them, most since {reasons[0][0]}"
        if reasons
        else ""
    )
    return Groups((), found.barriers, why or "no layer makes channels", found.plan)


def _visit(node: ir.Node, walk: Walk) -> None:
    if all(value is None or walk.is_constant(value) for value in node.outputs if value.name):
        return
    rule = RULES.get(node.op_type) if node.domain in ("", "ai.onnx") else None
    if has_bodies(node):
        walk.freeze_all(node, f"{node.op_type} `{key(node)}` reads them")
        captured = _captured(node)
        for value in (value for other in walk.view.graph for value in other.outputs if value.name in captured):
            walk.freeze(value, f"the body of {node.op_type} `{key(node)}` reads `{value.name}`")
    elif rule is None:
        walk.freeze_all(node, f"{node.op_type} `{key(node)}` has no rule for channels")
    else:
        rule(node, walk)
        _zeros.note(node, walk)
        if node.op_type in _plain.RULES and any(v.uses() or v.is_graph_output() for v in node.outputs[1:]):
            walk.freeze_all(node, f"{node.op_type} `{key(node)}` returns more than its result")


def _captured(node: ir.Node) -> set[str]:
    """Names of all that the bodies of a node read; their own values among them."""
    import onnx_ir as ir

    names: set[str] = set()
    for attribute in node.attributes.values():
        graphs = [attribute.as_graph()] if attribute.type == ir.AttributeType.GRAPH else []
        graphs += list(attribute.as_graphs()) if attribute.type == ir.AttributeType.GRAPHS else []
        for graph in graphs:
            names.update(value.name or "" for value in graph.outputs)
            for inner in graph:
                names.update(value.name or "" for value in inner.inputs if value is not None)
                names |= _captured(inner)
    return names


def _freeze_ends(walk: Walk) -> None:
    """What the graph returns stays, and so does what open sizes move."""
    for value in walk.view.graph.outputs:
        walk.freeze(value, f"the graph returns `{value.name}`")
    for name, axes in walk.ties.labels.items():
        shape = walk.view.sizes.get(name)
        other = None if walk.other is None else walk.other.sizes.get(name)
        for axis, ids in axes.items():
            if shape is None or shape[axis] != len(ids):
                walk.ties.freeze(ids, f"the size of `{name}` is unknown")
            elif len(np.unique(walk.ties.roots(ids))) == 1:
                walk.ties.freeze(ids, f"nothing else is left along axis {axis} of `{name}`")
            elif walk.other is not None and (other is None or other[axis] != shape[axis]):
                walk.ties.freeze(ids, f"the size of `{name}` may depend on an open size")


def _settle(walk: Walk) -> None:
    """Label what is laid out over several axes but, as it has come out, goes along one."""
    for name, grid in walk.grids.items():
        if name in walk.ties.labels:
            continue
        ids = walk.ties.roots(walk.positions(grid))
        varying = [axis for axis in range(ids.ndim) if (ids != ids.take([0], axis)).any()]
        if len(varying) == 1:
            first = np.moveaxis(ids, varying[0], 0).reshape(ids.shape[varying[0]], -1)[:, 0]
            walk.ties.labels[name] = {grid.laid[varying[0]]: first}


def _join_shared(walk: Walk) -> None:
    """Weights that several nodes read shrink for all of them alike, or not at all.

    What is computed from weights alone is no such reader: it goes on reading the whole weight (`remove` copies it).
    """
    values = {value.name: value for value in walk.view.graph.initializers.values()}
    values |= {value.name: value for node in walk.view.graph for value in node.outputs}
    for (name, axis), claims in walk.ties.whole.items():
        first = claims[0][1]
        for _, ids in claims[1:]:
            walk.ties.tie(first, ids)
        claimed = {reader for reader, _ in claims}
        for node, index in values[name].uses():
            if (key(node), index) not in claimed and not walk.is_constant(node.outputs[0]):
                walk.ties.freeze(first, f"{node.op_type} `{key(node)}` reads axis {axis} of `{name}` in another way")
        if values[name].is_graph_output():
            walk.ties.freeze(first, f"the graph returns `{name}`")


# --- groups -----------------------------------------------------------------------------------------------------------


def _gather(walk: Walk) -> Groups:
    ties = walk.ties
    roots = ties.roots(np.arange(ties.count))
    free = np.zeros(ties.count, bool)
    maker = np.full(ties.count, len(ties.makers))
    for number, (_, ids) in reversed(list(enumerate(ties.makers))):
        free[roots[ids]] = True
        maker[roots[ids]] = number
    reasons: dict[int, str] = {}
    for ids, reason in ties.frozen:
        for root in np.unique(roots[ids]).tolist():
            reasons.setdefault(root, reason)
    free[list(reasons)] = False
    positions = list(ties.positions())
    groups: dict[tuple[int, bytes], list[tuple[int, np.ndarray, np.ndarray]]] = {}
    for root, numbers, indices in _classes(positions, roots, free):
        groups.setdefault((int(maker[root]), numbers.tobytes()), []).append((root, numbers, indices))
    classes = sorted(groups.values(), key=lambda members: (maker[members[0][0]], members[0][0]))
    named = [_members(members, positions) for members in classes]
    order = [[root for root, _, _ in members] for members in classes]
    made = _names([ties.makers[maker[members[0]]] for members in order], order, roots)
    channels = np.full(ties.count, -1)
    starts, total = {}, 0
    for name, members in zip(made, order, strict=True):
        starts[name] = total
        channels[members] = np.arange(total, total + len(members))
        total += len(members)
    final = tuple(Group(name, len(members), group) for name, members, group in zip(made, order, named, strict=True))
    return Groups(final, _barriers(ties, roots, reasons), None, Plan(walk, channels[roots], starts, total))


def _classes(positions: list[Any], roots: Ids, free: np.ndarray) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Each free class with where it is: numbers in the list of positions, ascending, and an index for each of them."""
    sizes = [len(ids) for _, _, ids, _, _ in positions]
    if not sizes:
        return
    classes = roots[np.concatenate([ids for _, _, ids, _, _ in positions])]
    numbers = np.repeat(np.arange(len(sizes)), sizes)
    indices = np.concatenate([np.arange(size) for size in sizes])
    chosen = np.flatnonzero(free[classes])
    # Stable, so that numbers and indices go on ascending within each class.
    chosen = chosen[np.argsort(classes[chosen], kind="stable")]
    starts = np.flatnonzero(np.diff(classes[chosen], prepend=-1))
    for part in np.split(chosen, starts[1:]):
        if len(part):
            yield int(classes[part[0]]), numbers[part], indices[part]


def _members(members: list[tuple[int, np.ndarray, np.ndarray]], positions: list[Any]) -> tuple[Member, ...]:
    numbers = members[0][1]
    table = np.stack([indices for _, _, indices in members])
    seen: dict[Member, None] = {}
    for number in np.unique(numbers).tolist():
        tensor, axis, _, role, _ = positions[number]
        places = tuple(tuple(row) for row in table[:, numbers == number].tolist())
        seen[Member(tensor, axis, role, places)] = None
    return tuple(seen)


def _names(makers: list[tuple[str, Ids]], order: list[list[int]], roots: Ids) -> list[str]:
    """Names of groups: that of the first layer, with a range of its channels where it makes several groups."""
    counts = Counter(name for name, _ in makers)
    used: Counter[str] = Counter()
    found = []
    for (name, ids), members in zip(makers, order, strict=True):
        wanted = name
        if counts[name] > 1:
            places = np.flatnonzero(np.isin(roots[ids], members))
            wanted = f"{name}[{places[0]}:{places[-1] + 1}]"
        used[wanted] += 1
        found.append(wanted if used[wanted] == 1 else f"{wanted}#{used[wanted]}")
    return found


def _barriers(ties: Ties, roots: Ids, reasons: dict[int, str]) -> tuple[Barrier, ...]:
    found: dict[Barrier, None] = {}
    for name, ids in ties.makers:
        axes = ties.labels.get(name, {})
        axis = next((axis for axis, own in axes.items() if np.isin(roots[ids], roots[own]).any()), 0)
        for root in np.unique(roots[ids]).tolist():
            if root in reasons:
                found[Barrier(name, axis, reasons[root])] = None
    return tuple(found)

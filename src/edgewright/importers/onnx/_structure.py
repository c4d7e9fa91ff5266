"""Structure of a ModelProto: versions, names, order, cycles, functions, operators.

Checked here, in Python, before the C++ of the onnx package sees the graph, so that a malformed file ends in an error
that names the place.

Source: ONNX IR specification, "Graphs" and "Names Within a Graph", https://onnx.ai/onnx/repo-docs/IR.html
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from edgewright.errors import EdgewrightError
from edgewright.graph.order import stable_order
from edgewright.importers.onnx._functions import check_functions
from edgewright.importers.onnx._operators import check_operators
from edgewright.importers.onnx._tensors import known_type
from edgewright.importers.onnx._walk import label, nodes, subgraphs
from edgewright.model import IR_VERSION

#: Oldest opset with an upgrade: operators broadcast by other rules before.
OLDEST_OPSET = 7

#: Attributes of Constant -> AttributeProto.AttributeType.
_CONSTANT_KINDS = {
    "value": 4, "value_float": 1, "value_int": 2, "value_string": 3, "value_floats": 6, "value_ints": 7, "value_strings": 8,
}  # fmt: skip

#: AttributeProto.AttributeType of one message -> the field that holds it.
_ATTRIBUTE_FIELDS = {4: "t", 5: "g", 11: "sparse_tensor", 13: "tp"}

#: Names that hold in the graphs around a graph, outermost first.
Scopes = tuple[Collection[str], ...]


def check_and_sort(proto: Any) -> None:
    """Refuse what is not a valid network; bring nodes into an order in which values exist before they are used.

    The domain `ai.onnx` becomes its short form, the empty text; sizes below 0 become unknown.

    Raises:
        EdgewrightError: E203 a cycle or a value that nothing makes, E204 unknown operators, E205 versions without an
            upgrade, E213 anything else that is not valid ONNX.
    """
    _normalize_domains(proto)
    versions = _opset_versions(proto.opset_import, "the model")
    if "" not in versions:
        if any(node.domain == "" for node in proto.graph.node):
            raise EdgewrightError("E213", "the model uses ONNX operators but declares no opset version for them")
        versions[""] = proto.opset_import.add(domain="", version=21).version
    _check_versions(proto, versions)
    for value in (*proto.graph.input, *proto.graph.output):
        _check_type(value.type, f"graph value `{value.name}`", required=True)
    _sort_graph(proto.graph, (), in_function=False)
    if not proto.graph.output:
        raise EdgewrightError("E213", "the graph has no outputs")
    for function in proto.functions:
        _sort_function(function)
    check_functions(proto)
    scopes = [(proto.graph, versions)]
    scopes += [(f, _opset_versions(f.opset_import, f"function `{f.name}`")) for f in proto.functions]
    check_operators(scopes, {(f.domain, f.name) for f in proto.functions})


def _normalize_domains(proto: Any) -> None:
    def short(imports: Any) -> None:
        for opset in imports:
            if opset.domain == "ai.onnx":
                opset.domain = ""

    short(proto.opset_import)
    for function in proto.functions:
        short(function.opset_import)
    for node in nodes(proto.graph, *proto.functions):
        if node.domain == "ai.onnx":
            node.domain = ""


def _opset_versions(imports: Iterable[Any], what: str) -> dict[str, int]:
    versions: dict[str, int] = {}
    for opset in imports:
        if versions.setdefault(opset.domain, opset.version) != opset.version:
            raise EdgewrightError("E213", f"{what} declares two versions of the operator set `{opset.domain}`")
    return versions


def _check_versions(proto: Any, versions: Mapping[str, int]) -> None:
    import onnx
    from onnx import defs

    newest = defs.onnx_opset_version()
    upgrade = "pip install --upgrade onnx"
    if proto.ir_version < 1:
        raise EdgewrightError("E201", f"the file declares IR version {proto.ir_version}, but must declare one from 1")
    if proto.ir_version > onnx.IR_VERSION:
        raise EdgewrightError(
            "E205", f"the file has IR version {proto.ir_version}, newer than the installed onnx knows ({onnx.IR_VERSION})",
            hint=upgrade,
        )  # fmt: skip
    declared = [versions] + [_opset_versions(f.opset_import, f"function `{f.name}`") for f in proto.functions]
    for imports in declared:
        version = imports.get("", newest)
        if version > newest:
            raise EdgewrightError(
                "E205", f"the model uses opset {version}, newer than the installed onnx knows ({newest})", hint=upgrade
            )
        if version < OLDEST_OPSET:
            raise EdgewrightError(
                "E205",
                f"the model uses opset {version}, but the oldest with an upgrade is {OLDEST_OPSET}",
                hint="export it again with a newer version of the framework it came from",
            )


def _check_type(type_proto: Any, what: str, *, required: bool) -> None:
    kind = type_proto.WhichOneof("value")
    if kind is None:
        if required:
            raise EdgewrightError("E213", f"{what} declares no type")
        return
    if kind in ("sequence_type", "optional_type"):
        _check_type(getattr(type_proto, kind).elem_type, what, required=True)
        return
    if kind != "tensor_type":
        raise EdgewrightError("E213", f"{what} is a {kind.removesuffix('_type')}, but only tensors are supported")
    number = type_proto.tensor_type.elem_type
    if number == 0 and not required:
        type_proto.Clear()
        return
    if not known_type(number):
        raise EdgewrightError(
            "E205" if number else "E213",
            f"{what} has element type {number}, which IR version {IR_VERSION} does not have",
        )
    for size in type_proto.tensor_type.shape.dim:
        if size.dim_value < 0:
            size.ClearField("dim_value")


# --- names and order ----------------------------------------------------------------------------------------------------


def _sort_function(function: Any) -> None:
    what = f"function `{function.name}`"
    _unique(function.input, f"inputs of {what}")
    _unique((*function.attribute, *(a.name for a in function.attribute_proto)), f"attributes of {what}")
    for value in function.value_info:
        _check_type(value.type, f"value `{value.name}` of {what}", required=False)
    own = set(function.input)
    _sort_nodes(function, own, (), what, in_function=True)
    _check_outputs(function.output, own, what)


def _sort_graph(graph: Any, outer: Scopes, *, in_function: bool) -> set[str]:
    """Names from outside that the graph uses; its nodes are sorted in place."""
    what = f"graph `{graph.name}`"
    inputs = [value.name for value in graph.input]
    initializers = [tensor.name for tensor in graph.initializer]
    _unique(inputs, f"inputs of {what}")
    _unique(initializers, f"initializers of {what}")
    for value in (*graph.input, *graph.output, *graph.value_info):
        _check_type(value.type, f"value `{value.name}` of {what}", required=False)
    _keep_first_value_infos(graph)
    own = {*inputs, *initializers}
    used = _sort_nodes(graph, own, outer, what, in_function=in_function)
    _check_outputs([value.name for value in graph.output], own, what)
    return used


def _sort_nodes(body: Any, own: set[str], outer: Scopes, what: str, *, in_function: bool) -> set[str]:
    """Names from outside that `body` uses; its nodes are sorted in place, what they make is added to `own`."""
    producers = _producers(body, own, what)
    own.update(producers)
    needs: list[list[int]] = []
    outside: set[str] = set()
    for node in body.node:
        _check_attributes(node, in_function=in_function)
        used = {name for name in node.input if name}
        for graph in subgraphs(node):
            used |= _sort_graph(graph, (*outer, own), in_function=in_function)
        for name in sorted(used - own):
            if not any(name in scope for scope in outer):
                raise EdgewrightError("E203", f"node `{label(node)}` of {what} uses `{name}`, which nothing makes")
        outside |= used - own
        needs.append(sorted({producers[name] for name in used if name in producers}))
    _reorder(body, needs, what)
    return outside


def _producers(body: Any, own: Collection[str], what: str) -> dict[str, int]:
    """Name -> index of the node that makes it."""
    producers: dict[str, int] = {}
    for index, node in enumerate(body.node):
        if not node.op_type:
            raise EdgewrightError("E213", f"node `{node.name}` of {what} names no operator")
        for name in node.output:
            if name and (name in producers or name in own):
                other = f"`{label(body.node[producers[name]])}`" if name in producers else "an input or initializer"
                raise EdgewrightError(
                    "E213", f"value `{name}` of {what} is made twice: by {other} and by `{label(node)}`"
                )
            if name:
                producers[name] = index
    return producers


def _reorder(body: Any, needs: list[list[int]], what: str) -> None:
    order, cycle = stable_order(needs)
    if cycle:
        names = tuple(f"`{label(body.node[index])}` makes `{body.node[index].output[0]}`" for index in cycle[:20])
        raise EdgewrightError("E203", f"{what} has a cycle of {len(cycle)} nodes", details=names)
    if order != list(range(len(order))):
        sorted_nodes = [type(body.node[0])() for _ in order]
        for copy, index in zip(sorted_nodes, order, strict=True):
            copy.CopyFrom(body.node[index])
        del body.node[:]
        body.node.extend(sorted_nodes)


def _check_outputs(outputs: Iterable[str], defined: set[str], what: str) -> None:
    outputs = list(outputs)
    _unique(outputs, f"outputs of {what}")
    for name in outputs:
        if name not in defined:
            raise EdgewrightError("E203", f"output `{name}` of {what} is made by nothing in it")


def _check_attributes(node: Any, *, in_function: bool) -> None:
    _unique((attribute.name for attribute in node.attribute), f"attributes of node `{label(node)}`")
    for attribute in node.attribute:
        if attribute.type == 0:
            raise EdgewrightError("E213", f"attribute `{attribute.name}` of node `{label(node)}` declares no type")
        if attribute.ref_attr_name and not in_function:
            raise EdgewrightError(
                "E213", f"attribute `{attribute.name}` of node `{label(node)}` asks for a caller's value"
            )
        field = _ATTRIBUTE_FIELDS.get(attribute.type)
        if field and not attribute.ref_attr_name and not attribute.HasField(field):
            raise EdgewrightError("E213", f"attribute `{attribute.name}` of node `{label(node)}` has no value")
        for type_proto in (*((attribute.tp,) if attribute.HasField("tp") else ()), *attribute.type_protos):
            _check_type(type_proto, f"attribute `{attribute.name}` of node `{label(node)}`", required=True)
    if node.op_type == "Constant" and node.domain == "":
        kinds = [_CONSTANT_KINDS.get(attribute.name) for attribute in node.attribute]
        if kinds != [attribute.type for attribute in node.attribute] or len(kinds) != 1:
            raise EdgewrightError("E213", f"node `{label(node)}` is a Constant without one value of the right kind")


def _keep_first_value_infos(graph: Any) -> None:
    """Drop notes on types that are there twice or without a name: they are only notes."""
    names = Counter(value.name for value in graph.value_info)
    if names and (max(names.values()) > 1 or "" in names):
        first = {value.name: value for value in reversed(graph.value_info) if value.name}
        copies = [type(value)() for value in first.values()]
        for copy, value in zip(copies, first.values(), strict=True):
            copy.CopyFrom(value)
        del graph.value_info[:]
        graph.value_info.extend(copies)


def _unique(names: Iterable[str], what: str) -> None:
    counts = Counter(names)
    twice = [name for name, count in counts.items() if count > 1]
    if twice:
        raise EdgewrightError("E213", f"{what}: `{twice[0]}` is there {counts[twice[0]]} times")
    if "" in counts:
        raise EdgewrightError("E213", f"{what}: one has no name")

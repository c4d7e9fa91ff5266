"""Any opset from 7 to the newest one -> opset 21, in graph, subgraphs and functions.

Up: one opset at a time, by the rewrites in `_adapters`. Down: only where the operator's version at opset 21 means the same
for the types, attributes and inputs in use; else the operator is refused by name.

The onnx package's own converter is not used: it drops functions, does not enter subgraphs of every operator, and takes
one protobuf message with all weights.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgewright.errors import EdgewrightError
from edgewright.importers.onnx._adapters import ADAPTERS
from edgewright.importers.onnx._site import Site
from edgewright.importers.onnx._tensors import known_type
from edgewright.model import OPSET_VERSION

if TYPE_CHECKING:
    import onnx_ir as ir

#: Newest opset whose changes were held against ONNX Runtime; what changed later is refused.
NEWEST_TESTED = 28
#: Attributes that hold a TensorProto.DataType.
_TYPE_ATTRIBUTES = ("to", "dtype", "output_dtype", "stash_type")


def upgrade(ir_model: ir.Model, file_name: str) -> bool:
    """True where a node was changed; the graph and its functions are at opset 21 afterwards, in place.

    Raises:
        EdgewrightError: E205 for an operator that has no equal at opset 21.
    """
    from edgewright.importers.onnx._inference import infer_shapes

    bodies = [(ir_model.graph, False), *((function, True) for function in ir_model.functions.values())]
    steps = [(body, inside, sites) for body, inside in bodies if (sites := _affected(body))]
    if steps:
        infer_shapes(ir_model, file_name)  # rewrites want types and ranks
        taken = _value_names(ir_model)
        for body, inside, _ in steps:
            for version in range(_version(body) + 1, OPSET_VERSION + 1):
                _step(body, version, inside, taken)
    for body, _ in bodies:
        if _version(body) > OPSET_VERSION:
            if not steps:
                infer_shapes(ir_model, file_name)
            _downgrade(body)
        body.opset_imports[""] = OPSET_VERSION
    return bool(steps)


def _version(body: Any) -> int:
    return int(body.opset_imports.get("", OPSET_VERSION))


def _affected(body: Any) -> bool:
    version = _version(body)
    changed = {op_type for op_type, step in ADAPTERS if version < step}
    return any(node.domain == "" and node.op_type in changed for node in body.all_nodes())


def _value_names(ir_model: ir.Model) -> set[str]:
    taken: set[str] = set()
    for graph in ir_model.graphs():
        taken.update(value.name for value in graph.inputs if value.name)
        taken.update(getattr(graph, "initializers", {}))
        for node in graph:
            taken.update(value.name for value in node.outputs if value.name)
    return taken


def _step(body: Any, version: int, in_function: bool, taken: set[str]) -> None:
    for node in list(body.all_nodes()):
        adapt = ADAPTERS.get((node.op_type, version)) if node.domain == "" else None
        if adapt:
            adapt(Site(node, version, in_function, taken))


# --- newer opsets -------------------------------------------------------------------------------------------------------


def _downgrade(body: Any) -> None:
    from onnx import defs

    version = _version(body)
    for node in body.all_nodes():
        if node.domain != "":
            continue
        newer = defs.get_schema(node.op_type, version)
        if newer.since_version <= OPSET_VERSION:
            continue
        if newer.since_version > NEWEST_TESTED:
            raise _refusal(node, f"it changed in opset {newer.since_version}")
        if node.op_type == "Mod" and newer.since_version == 28 and _is_floored_mod_of_floats(node):
            raise _refusal(node, "`fmod` 0 takes floats only since opset 28")
        try:
            older = defs.get_schema(node.op_type, OPSET_VERSION)
        except defs.SchemaError:
            raise _refusal(node, f"it is new in opset {newer.since_version}") from None
        _fit_attributes(node, newer, older)
        _check_types(node, older)


def _is_floored_mod_of_floats(node: ir.Node) -> bool:
    fmod, dtype = node.attributes.get("fmod"), node.outputs[0].dtype
    return (fmod is None or fmod.value != 1) and (dtype is None or not dtype.is_integer())


def _fit_attributes(node: ir.Node, newer: Any, older: Any) -> None:
    import onnx

    for name, attribute in list(node.attributes.items()):
        if name not in older.attributes:
            default = newer.attributes[name].default_value if name in newer.attributes else None
            value = onnx.helper.get_attribute_value(default) if default is not None and default.name else None
            value = value.decode() if isinstance(value, bytes) else value
            if attribute.is_ref() or attribute.value != value:
                raise _refusal(node, f"its attribute `{name}` is newer than opset {OPSET_VERSION}")
            del node.attributes[name]
        elif (
            name in _TYPE_ATTRIBUTES and not attribute.is_ref() and attribute.value and not known_type(attribute.value)
        ):
            raise _refusal(
                node, f"its `{name}` names the element type {attribute.value}, newer than opset {OPSET_VERSION}"
            )
    if len(node.inputs) > older.max_input or len(node.outputs) > older.max_output:
        raise _refusal(node, f"it has more inputs or outputs than at opset {OPSET_VERSION}")


def _check_types(node: ir.Node, older: Any) -> None:
    for values, formals in ((node.inputs, older.inputs), (node.outputs, older.outputs)):
        for index, value in enumerate(values):
            if value is None or value.type is None or not formals:
                continue
            allowed = formals[min(index, len(formals) - 1)].types
            text = _type_text(value)
            if text is not None and allowed and text not in allowed:
                raise _refusal(node, f"`{value.name}` is a {text}, which it does not take at opset {OPSET_VERSION}")


def _type_text(value: ir.Value) -> str | None:
    """The type as schemas write it, `tensor(float)`; None for what is no tensor."""
    import onnx
    import onnx_ir as ir

    if not isinstance(value.type, ir.TensorType) or value.dtype is None:
        return None
    return f"tensor({onnx.TensorProto.DataType.Name(value.dtype.value).lower()})"


def _refusal(node: ir.Node, reason: str) -> EdgewrightError:
    return EdgewrightError(
        "E205",
        f"operator `{node.op_type}` (node `{node.name or node.outputs[0].name}`) has no form at opset {OPSET_VERSION}: {reason}",
    )

"""Tensors: declared sizes against their data, before any memory is taken; external data; sparse tensors.

Source: TensorProto in onnx.proto, https://github.com/onnx/onnx/blob/main/onnx/onnx.in.proto
"""

from __future__ import annotations

import math
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, Any

import numpy as np

from edgewright.errors import EdgewrightError
from edgewright.importers.onnx._walk import graphs, nodes
from edgewright.model import IR_VERSION

if TYPE_CHECKING:
    import onnx_ir as ir

#: numpy 1 ends at 32 dimensions.
_LARGEST_RANK = 32
#: A sparse tensor may grow to this many bytes when it is made dense.
_LARGEST_DENSE_BYTES = 256 * 2**20

#: TensorProto.DataType -> (bits of one element, the field that holds it when `raw_data` does not, entries per element).
_STORAGE: dict[int, tuple[int, str, float]] = {
    1: (32, "float_data", 1),  # FLOAT
    2: (8, "int32_data", 1),  # UINT8
    3: (8, "int32_data", 1),  # INT8
    4: (16, "int32_data", 1),  # UINT16
    5: (16, "int32_data", 1),  # INT16
    6: (32, "int32_data", 1),  # INT32
    7: (64, "int64_data", 1),  # INT64
    8: (0, "string_data", 1),  # STRING
    9: (8, "int32_data", 1),  # BOOL
    10: (16, "int32_data", 1),  # FLOAT16
    11: (64, "double_data", 1),  # DOUBLE
    12: (32, "uint64_data", 1),  # UINT32
    13: (64, "uint64_data", 1),  # UINT64
    14: (64, "float_data", 2),  # COMPLEX64
    15: (128, "double_data", 2),  # COMPLEX128
    16: (16, "int32_data", 1),  # BFLOAT16
    17: (8, "int32_data", 1),  # FLOAT8E4M3FN
    18: (8, "int32_data", 1),  # FLOAT8E4M3FNUZ
    19: (8, "int32_data", 1),  # FLOAT8E5M2
    20: (8, "int32_data", 1),  # FLOAT8E5M2FNUZ
    21: (4, "int32_data", 0.5),  # UINT4
    22: (4, "int32_data", 0.5),  # INT4
}
_STRING = 8
_TYPED_FIELDS = ("float_data", "int32_data", "int64_data", "double_data", "uint64_data", "string_data")
_EXTERNAL = 1  # TensorProto.DataLocation


def known_type(data_type: int) -> bool:
    """True where IR version 10 has this TensorProto.DataType."""
    return data_type in _STORAGE


class External:
    """The files beside a model that hold its weights, each mapped once.

    Attributes:
        folder: The model's folder; nothing outside it is opened.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._maps: dict[Path, np.memmap[Any, np.dtype[np.uint8]]] = {}

    def check(self, tensor: Any, size_bytes: int) -> None:
        """Refuse a tensor whose file, offset or length cannot be right.

        Raises:
            EdgewrightError: E206 for a file outside the folder or missing, E202 where the sizes do not fit.
        """
        file = self._file(tensor)
        offset, length = _number(tensor, "offset", 0), _number(tensor, "length", size_bytes)
        what = f"tensor `{tensor.name}`"
        if length != size_bytes:
            raise EdgewrightError(
                "E202",
                f"{what} needs {size_bytes} bytes for {_shape_text(tensor)}, but names {length} of `{file.name}`",
            )
        available = file.stat().st_size
        if offset + length > available:
            raise EdgewrightError(
                "E202",
                f"{what} names bytes {offset} to {offset + length} of `{file.name}`, which has {available}",
                hint=f"copy `{file.name}` again: it is shorter than the model says",
            )

    def bytes_of(self, location: str, offset: int, length: int) -> np.ndarray:
        """u8[length]: bytes of a checked file, mapped, not read."""
        if length == 0:
            return np.empty(0, np.uint8)
        file = (self.folder / location).resolve()
        if file not in self._maps:
            self._maps[file] = np.memmap(file, dtype=np.uint8, mode="r")
        return self._maps[file][offset : offset + length]

    def _file(self, tensor: Any) -> Path:
        location = next((entry.value for entry in tensor.external_data if entry.key == "location"), "")
        outside = f"path traversal: tensor `{tensor.name}` names external data outside the model's folder: `{location}`"
        pure, windows = PurePosixPath(location), PureWindowsPath(location)
        if pure.is_absolute() or windows.drive or windows.root or ".." in (*pure.parts, *windows.parts):
            raise EdgewrightError("E206", outside)
        missing = f"external data `{location}` of tensor `{tensor.name}` is missing in `{self.folder}`"
        try:
            file = (self.folder / location).resolve()
            inside, exists = file.is_relative_to(self.folder.resolve()), file.is_file()
        except (OSError, ValueError, RuntimeError):  # a zero byte, a name too long, a ring of links
            raise EdgewrightError("E206", missing) from None
        if not inside:
            raise EdgewrightError(
                "E206", f"{outside} (a link to `{file}`)", hint="copy the file itself into the folder: cp -L"
            )
        if not location or not exists:
            raise EdgewrightError("E206", missing, hint="keep the files that were exported together in one folder")
        return file


def check_tensors(proto: Any, external: External) -> None:
    """Refuse a model with a tensor whose declared size does not fit its data; make sparse tensors dense in place.

    Raises:
        EdgewrightError: E202, E205 for a type that IR version 10 lacks, E206, E213 for no type at all.
    """
    for graph in graphs(proto):
        for sparse in graph.sparse_initializer:
            graph.initializer.append(_dense(sparse, external))
        del graph.sparse_initializer[:]
        for tensor in graph.initializer:
            if not tensor.name:
                raise EdgewrightError("E213", f"graph `{graph.name}` has an initializer without a name")
            check_tensor(tensor, external)
    for node in nodes(proto.graph, *proto.functions):
        for attribute in node.attribute:
            for sparse in (*_one(attribute, "sparse_tensor"), *attribute.sparse_tensors):
                _replace_sparse(node, attribute, _dense(sparse, external))
            for tensor in (*_one(attribute, "t"), *attribute.tensors):
                check_tensor(tensor, external)


def check_tensor(tensor: Any, external: External) -> int:
    """Bytes of the tensor, once its type, sizes and data are found to fit each other.

    Raises:
        EdgewrightError: E202, E205, E206 or E213 as for `check_tensors`.
    """
    what = f"tensor `{tensor.name}`"
    if tensor.data_type == 0:
        raise EdgewrightError("E213", f"{what} declares no element type")
    if not known_type(tensor.data_type):
        raise EdgewrightError(
            "E205", f"{what} has element type {tensor.data_type}, which IR version {IR_VERSION} does not have"
        )
    if tensor.HasField("segment"):
        raise EdgewrightError("E213", f"{what} is one segment of a larger tensor, which ONNX no longer has")
    if len(tensor.dims) > _LARGEST_RANK or any(size < 0 for size in tensor.dims):
        raise EdgewrightError(
            "E202", f"{what} declares the shape {_shape_text(tensor)}: at most 32 sizes, none negative"
        )
    bits, field, per_element = _STORAGE[tensor.data_type]
    elements = math.prod(tensor.dims)
    size_bytes: int = -(-elements * bits // 8)
    if tensor.data_location == _EXTERNAL:
        if tensor.data_type == _STRING:
            raise EdgewrightError("E213", f"{what} holds text, which cannot be external data")
        external.check(tensor, size_bytes)
    elif tensor.HasField("raw_data") and tensor.data_type != _STRING:
        if len(tensor.raw_data) != size_bytes:
            raise EdgewrightError(
                "E202", f"{what} needs {size_bytes} bytes for {_shape_text(tensor)}, but holds {len(tensor.raw_data)}"
            )
    else:
        _check_typed(tensor, what, field, math.ceil(elements * per_element))
    return size_bytes


def map_external(ir_model: ir.Model, external: External) -> None:
    """Give every external tensor its bytes, mapped from the file, in place; `check_tensors` must have passed."""
    import onnx_ir as ir

    def mapped(tensor: Any) -> Any:
        return _mapped(tensor, external) if isinstance(tensor, ir.ExternalTensor) else tensor

    for graph in ir_model.graphs():
        for value in graph.initializers.values():
            value.const_value = mapped(value.const_value)
        for node in graph:
            for name, attribute in list(node.attributes.items()):
                if attribute.is_ref():
                    continue
                if attribute.type == ir.AttributeType.TENSOR and isinstance(attribute.value, ir.ExternalTensor):
                    node.attributes[name] = ir.AttrTensor(name, mapped(attribute.value))
                elif attribute.type == ir.AttributeType.TENSORS:
                    node.attributes[name] = ir.AttrTensors(name, [mapped(tensor) for tensor in attribute.value])


def _mapped(tensor: ir.ExternalTensor, external: External) -> Any:
    import onnx_ir as ir

    shape = tuple(int(size) for size in tensor.shape)
    data = external.bytes_of(str(tensor.location), tensor.offset or 0, tensor.nbytes)
    if tensor.dtype.bitwidth < 8:
        return ir.PackedTensor(data, tensor.dtype, shape=shape, name=tensor.name)
    array = data.view(tensor.dtype.numpy().newbyteorder("<")).reshape(shape)
    return ir.Tensor(array, dtype=tensor.dtype, name=tensor.name)


def _check_typed(tensor: Any, what: str, field: str, expected: int) -> None:
    for name in _TYPED_FIELDS:
        count = len(getattr(tensor, name))
        wanted = expected if name == field else 0
        if count != wanted:
            raise EdgewrightError(
                "E202", f"{what} needs {wanted} entries of `{name}` for {_shape_text(tensor)}, but holds {count}"
            )


def _number(tensor: Any, key: str, default: int) -> int:
    text = next((entry.value for entry in tensor.external_data if entry.key == key), None)
    if text is None or text == "":
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise EdgewrightError("E202", f"tensor `{tensor.name}` has the {key} `{text[:40]}`, which is no whole number")
    return int(text)


def _shape_text(tensor: Any) -> str:
    sizes = ", ".join(str(size) for size in tensor.dims[:8]) + (", ..." if len(tensor.dims) > 8 else "")
    return f"type {tensor.data_type}, shape [{sizes}]"


def _one(attribute: Any, field: str) -> tuple[Any, ...]:
    return (getattr(attribute, field),) if attribute.HasField(field) else ()


def _replace_sparse(node: Any, attribute: Any, dense: Any) -> None:
    if node.op_type != "Constant" or attribute.name != "sparse_value":
        raise EdgewrightError("E213", f"attribute `{attribute.name}` of `{node.op_type}` holds a sparse tensor")
    attribute.Clear()
    attribute.name = "value"
    attribute.type = 4  # AttributeProto.TENSOR
    attribute.t.CopyFrom(dense)


def _dense(sparse: Any, external: External) -> Any:
    """The dense TensorProto of a SparseTensorProto. Source: SparseTensorProto in onnx.proto (COO, sorted indices)."""
    import onnx
    from onnx import numpy_helper

    name = sparse.values.name
    what = f"sparse tensor `{name}`"
    for part in (sparse.values, sparse.indices):
        if part.data_location == _EXTERNAL or part.data_type in (0, _STRING):
            raise EdgewrightError("E213", f"{what} holds external data, text or nothing")
        check_tensor(part, external)
    dtype = onnx.helper.tensor_dtype_to_np_dtype(sparse.values.data_type)
    if len(sparse.dims) > _LARGEST_RANK or any(size < 1 for size in sparse.dims):
        raise EdgewrightError("E202", f"{what} declares sizes below 1, or more than {_LARGEST_RANK} of them")
    elements = math.prod(sparse.dims)
    if elements * dtype.itemsize > _LARGEST_DENSE_BYTES:
        raise EdgewrightError(
            "E202",
            f"{what} would have {elements * dtype.itemsize} bytes as a dense one; the limit is {_LARGEST_DENSE_BYTES}",
        )
    values = numpy_helper.to_array(sparse.values).reshape(-1)
    indices = numpy_helper.to_array(sparse.indices).astype(np.int64)
    if (
        indices.ndim == 2
        and indices.shape[1] == len(sparse.dims)
        and (indices >= 0).all()
        and (indices < sparse.dims).all()
    ):
        indices = np.ravel_multi_index(tuple(indices.T), tuple(sparse.dims))
    if indices.shape != values.shape or (indices < 0).any() or (indices >= elements).any():
        raise EdgewrightError("E202", f"{what} has indices that do not fit its {len(values)} values or its sizes")
    dense = np.zeros(elements, dtype)
    dense[indices] = values
    return numpy_helper.from_array(dense.reshape(tuple(sparse.dims)), name)

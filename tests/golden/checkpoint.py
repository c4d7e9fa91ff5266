"""Makes checkpoint_*.pth: small files written by torch.save, so that the reader is tested where torch is absent.

    python tests/golden/checkpoint.py    # needs torch

`expected` below is what the reader must give; it is numpy alone and shared with the test. `checkpoint_module.pth` is a
whole module, which holds more than tensors and is refused.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
ZIP, LEGACY, MODULE = (HERE / f"checkpoint_{name}.pth" for name in ("zip", "legacy", "module"))


def expected() -> dict[str, np.ndarray]:
    """Every tensor of the two state dicts by dotted key."""
    base = np.arange(24, dtype=np.float32).reshape(4, 6) / 8 - 1
    return {
        "state_dict.base": base,
        "state_dict.slice": base[1:3, ::2],
        "state_dict.transposed": base.T,
        "state_dict.expanded": np.broadcast_to(base[0], (3, 6)),
        "state_dict.half": base.astype(np.float16),
        "state_dict.bfloat16": base,
        "state_dict.double": base.astype(np.float64),
        "state_dict.parameter": base,
        "state_dict.bool": np.array([True, False, True]),
        "state_dict.uint8": np.array([0, 255], np.uint8),
        "state_dict.int8": np.array([-128, 127], np.int8),
        "state_dict.int16": np.array([-(2**15)], np.int16),
        "state_dict.int32": np.array([2**31 - 1], np.int32),
        "state_dict.count": np.array(2**40, np.int64),
        "state_dict.complex": np.array([1 + 2j], np.complex64),
        "state_dict.empty": np.zeros((0, 3), np.float32),
        "list.0": np.array([1.5], np.float32),
        "list.1.0": np.array([2.5], np.float32),
    }


def source() -> dict[str, object]:
    """The object that is saved: nested, with shared storages, views and things that are no tensors."""
    import torch

    arrays = {key.removeprefix("state_dict."): value for key, value in expected().items()}
    base = torch.from_numpy(arrays["base"].copy())
    state = torch.nn.Linear(1, 1).state_dict()  # an OrderedDict with the attribute `_metadata`
    state.clear()
    state["base"] = base
    state["slice"] = base[1:3, ::2]
    state["transposed"] = base.t()
    state["expanded"] = base[0].expand(3, 6)
    state["half"] = base.half()
    state["bfloat16"] = base.bfloat16()
    state["double"] = base.double()
    state["parameter"] = torch.nn.Parameter(base)
    for key in ("bool", "uint8", "int8", "int16", "int32", "count", "complex", "empty"):
        state[key] = torch.from_numpy(arrays[key].copy())
    lists = [torch.tensor([1.5]), (torch.tensor([2.5]), 3)]
    return {
        "state_dict": state, "epoch": 7, "lr": 0.1, "name": "größe", "big": 2**100, "none": None, "flag": True,
        "shape": torch.Size([1, 2]), "device": torch.device("cpu"), "dtype": torch.float32, "scalar": np.float64(3.5),
        "list": lists,
    }  # fmt: skip


if __name__ == "__main__":
    import torch

    torch.save(source(), ZIP)
    torch.save(source(), LEGACY, _use_new_zipfile_serialization=False)
    torch.save(torch.nn.Linear(2, 1), MODULE)

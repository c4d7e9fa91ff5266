"""LitServe with the networks of `serving.py`: python serving_litserve.py FOLDER PORT

A file of its own: its workers import their class from the main module.
"""

from __future__ import annotations

import sys
from pathlib import Path

import litserve
import numpy as np
from serving_bare import sessions

SHAPES = {"identity": (1, 64), "conv": (1, 3, 224, 224)}


class Network(litserve.LitAPI):
    def __init__(self, folder: Path, name: str) -> None:
        super().__init__(api_path=f"/{name}")
        self.folder, self.name = folder, name

    def setup(self, device: str) -> None:
        self.session = sessions(self.folder)[self.name]

    def decode_request(self, request: dict[str, list[float]]) -> np.ndarray:
        return np.asarray(request["input"], np.float32).reshape(SHAPES[self.name])

    def predict(self, array: np.ndarray) -> np.ndarray:
        return self.session.run(None, {self.session.get_inputs()[0].name: array})[0]

    def encode_response(self, output: np.ndarray) -> dict[str, list[float]]:
        return {"output": output.reshape(-1).tolist()}


if __name__ == "__main__":
    networks = [Network(Path(sys.argv[1]), name) for name in SHAPES]
    server = litserve.LitServer(networks, accelerator="cpu", workers_per_device=1)
    server.run(host="127.0.0.1", port=int(sys.argv[2]), generate_client_file=False, log_level="error")

"""The servers that `serving.py` compares with, each in a process of its own: python serving_bare.py NAME FOLDER PORT

bare       A handler on the same HTTP library as ours: one binary request to arrays, ONNX Runtime, arrays to an answer.
           No checks, no queue, no other paths: what is left when nothing more can be taken away. It runs the network on
           the thread of the event loop, which is the fastest, and deaf while it runs.
mlserver   MLServer with a model class of the same few lines.
litserve   LitServe likewise.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np


def sessions(folder: Path) -> dict[str, object]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return {path.parent.name: onnxruntime.InferenceSession(path, options) for path in folder.glob("*/model.onnx")}


def bare(folder: Path, port: int) -> None:
    import msgspec
    import uvloop
    from granian.constants import Interfaces
    from granian.server.embed import Server

    models = sessions(folder)
    names = {name: (session.get_inputs()[0].name, session.get_outputs()[0].name) for name, session in models.items()}

    async def application(scope: object, transport: object) -> None:
        if scope.method != "POST":
            transport.response_bytes(200, [], b"{}")
            return
        body = await transport()
        length = int(scope.headers["inference-header-content-length"])
        request = msgspec.json.decode(body[:length])
        model = scope.path.split("/")[3]
        given, wanted = names[model]
        array = np.frombuffer(body, np.float32, offset=length).reshape(request["inputs"][0]["shape"])
        output = models[model].run([wanted], {given: array})[0]
        raw = output.tobytes()
        entry = {
            "name": wanted,
            "shape": output.shape,
            "datatype": "FP32",
            "parameters": {"binary_data_size": len(raw)},
        }
        head = msgspec.json.encode({"model_name": model, "model_version": "1", "outputs": [entry]})
        headers = [("content-type", "application/octet-stream"), ("inference-header-content-length", str(len(head)))]
        transport.response_bytes(200, headers, head + raw)

    server = Server(application, port=port, interface=Interfaces.RSGI, log_enabled=False, websockets=False)
    uvloop.run(server.serve())


def mlserver(folder: Path, port: int) -> None:
    import asyncio

    import mlserver
    from mlserver.codecs import NumpyCodec

    class Network(mlserver.MLModel):
        async def load(self) -> bool:
            self.session = sessions(folder)[self.name]
            return True

        async def predict(self, payload: object) -> object:
            (given,) = payload.inputs
            array = NumpyCodec.decode_input(given).astype(np.float32)
            output = self.session.get_outputs()[0].name
            (result,) = self.session.run([output], {given.name: array})
            return mlserver.types.InferenceResponse(
                model_name=self.name, outputs=[NumpyCodec.encode_output(output, result)]
            )

    async def run() -> None:
        settings = mlserver.Settings(
            http_port=port, grpc_port=port + 1, metrics_port=port + 2, parallel_workers=0, debug=False, host="127.0.0.1"
        )
        server = mlserver.MLServer(settings)
        models = [mlserver.ModelSettings(name=name, implementation=Network) for name in sessions(folder)]
        await server.start(models)

    asyncio.run(run())


def litserve(folder: Path, port: int) -> None:
    import litserve as ls

    class Network(ls.LitAPI):
        def __init__(self, name: str, shape: tuple[int, ...]) -> None:
            super().__init__(api_path=f"/{name}")
            self.name, self.shape = name, shape

        def setup(self, device: str) -> None:
            self.session = sessions(folder)[self.name]

        def decode_request(self, request: dict[str, list[float]]) -> np.ndarray:
            return np.asarray(request["input"], np.float32).reshape(self.shape)

        def predict(self, array: np.ndarray) -> np.ndarray:
            return self.session.run(None, {self.session.get_inputs()[0].name: array})[0]

        def encode_response(self, output: np.ndarray) -> dict[str, list[float]]:
            return {"output": output.reshape(-1).tolist()}

    shapes = {"identity": (1, 64), "conv": (1, 3, 224, 224)}
    apis = [Network(name, shape) for name, shape in shapes.items()]
    ls.LitServer(apis, accelerator="cpu", workers_per_device=1).run(
        host="127.0.0.1", port=port, generate_client_file=False, log_level="error"
    )


if __name__ == "__main__":
    {"bare": bare, "mlserver": mlserver, "litserve": litserve}[sys.argv[1]](Path(sys.argv[2]), int(sys.argv[3]))

"""A bare handler on the same HTTP library as ours, for `serving.py`: python serving_bare.py FOLDER PORT

One binary request to arrays, ONNX Runtime, arrays to an answer. No checks, no queue, no other paths: what is left when
nothing more can be taken away. It runs the network on the thread of the event loop, which is the fastest, and deaf while
it runs.
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


if __name__ == "__main__":
    bare(Path(sys.argv[1]), int(sys.argv[2]))

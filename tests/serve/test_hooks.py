"""Hooks: what they see, what their errors tell, and that nothing runs that the operator did not allow."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgewright as ew
from edgewright.errors import EdgewrightError
from edgewright.serve import ModelOptions, Server
from edgewright.serve.core.jobs import RefusalError, Waiter
from edgewright.serve.hooks.adding import add_processor

X = np.arange(4, dtype=np.float32)[None]


@pytest.fixture
def hooked(repository: Callable[..., Path], tmp_path: Path, serve: Any) -> Callable[..., Server]:
    """Serve a network with a processor: `hooked("same", source)`; the model is `net`."""

    def make(network: str, source: str, *files: Path, **settings: Any) -> Server:
        folder = repository({"net": network})
        (tmp_path / "given.py").write_text(source)
        add_processor(folder / "net", tmp_path / "given.py", files)
        server: Server = serve(folder, allow_hooks=True, **settings)
        return server

    return make


def refused(server: Server, inputs: Any, **settings: Any) -> RefusalError:
    with pytest.raises(RefusalError) as caught:
        server.infer("net", inputs, **settings)
    return caught.value


# --- what they do ---------------------------------------------------------------------------------------------------------


def test_the_three_hooks_run_around_the_network(hooked: Any) -> None:
    server = hooked(
        "scale",
        "def preprocess(x, **kw):\n    return x + 1\n"
        "def run_model(model, x, **kw):\n    return model(model(x))\n"
        "def postprocess(x, **kw):\n    return x - 1\n",
    )
    np.testing.assert_array_equal(server.infer("net", {"x": X}).outputs["y"], 4 * (X + 1) - 1)


@pytest.mark.parametrize("hook", ["preprocess(x)", "run_model(model, x)", "postprocess(x)"])
def test_each_hook_is_optional_and_may_take_no_keywords(hooked: Any, hook: str) -> None:
    value = "model(x)" if "model" in hook else "x"
    server = hooked("scale", f"def {hook}:\n    return {value} * 3\n")
    np.testing.assert_array_equal(server.infer("net", {"x": X}).outputs["y"], 6 * X)


def test_requests_hand_on_their_parameters_and_only_to_hooks(hooked: Any) -> None:
    source = "def preprocess(x, times=1, **kw):\n    assert kw['timeout_s'] > 0\n    return x * times\n"
    server = hooked("same", source)
    np.testing.assert_array_equal(server.infer("net", {"x": X}, parameters={"times": 5}).outputs["y"], 5 * X)
    np.testing.assert_array_equal(server.infer("net", {"x": X}).outputs["y"], X)
    # a parameter cannot take the place of what a hook is called with
    np.testing.assert_array_equal(server.infer("net", {"x": X}, parameters={"x": 5}).outputs["y"], X)


def test_declared_inputs_and_outputs_are_what_clients_see(hooked: Any, tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("cat\ndog\n")
    server = hooked(
        "pick",
        "from pathlib import Path\nimport numpy as np\n"
        "WORDS = (Path(__file__).parent / 'words.txt').read_text().split()\n"
        "INPUTS = {'text': ('BYTES', [-1])}\nOUTPUTS = {'sum': ('FP32', [-1])}\n"
        "def preprocess(x, **kw):\n    return np.array([WORDS.index(word) for word in x])\n"
        "def postprocess(x, **kw):\n    return {'sum': x.sum(1)}\n",
        tmp_path / "words.txt",
    )
    bundle = server.repository.get("net").bundle
    assert [str(info) for info in (*bundle.inputs, *bundle.outputs)] == ["text object[N]", "sum float32[N]"]
    answer = server.infer("net", {"text": np.array(["dog", "cat"], object)}).outputs
    np.testing.assert_array_equal(answer["sum"], [7, 3])
    assert refused(server, {"x": X}).reason == "invalid"
    assert (
        "failed: ValueError at line 7 of processor.py" in refused(server, {"text": np.array(["eel"], object)}).message
    )


def test_requests_with_hooks_run_together_where_that_changes_nothing(hooked: Any, gate: Any) -> None:
    """The proof that rows are independent goes through the hooks; parameters are never mixed."""
    options = ModelOptions(max_batch=8)
    server = hooked("same", "def preprocess(x, add=0, **kw):\n    return x + add\n", options=options)
    version = server.repository.get("net")
    assert version.why_alone == ""
    held = gate(server, "net")
    waiting = []
    for add in (0, 1, 1, 2):
        waiting.append(Waiter())
        server.submit("net", {"x": X}, waiting[-1], parameters={"add": add}, inline=False)
    held.wait()
    held.open()
    answers = [waiter.wait(20).outputs["y"] for waiter in waiting]  # type: ignore[union-attr]
    for add, answer in zip((0, 1, 1, 2), answers, strict=True):
        np.testing.assert_array_equal(answer, X + add)
    assert sorted(held.batches) == [1, 1, 2]


def test_hooks_that_mix_rows_are_never_batched(hooked: Any) -> None:
    server = hooked("same", "def postprocess(x):\n    return x - x.mean(0)\n", options=ModelOptions(max_batch=8))
    assert "rows depend on each other" in server.repository.get("net").why_alone


# --- what goes wrong ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "reason", "message"),
    [
        (
            "def preprocess(x):\n    return secret_name\n",
            "failed",
            "`preprocess` failed: NameError at line 2 of processor.py",
        ),
        ("def run_model(model, x):\n\n    1 / 0\n", "failed", "`run_model` failed: ZeroDivisionError at line 3"),
        ("def postprocess(x):\n    raise SystemExit(1)\n", "failed", "`postprocess` failed: SystemExit at line 2"),
        (
            "def preprocess(x):\n    return x[:, :2]\n",
            "failed",
            "makes what the network does not take: input `x` has shape",
        ),
        ("def preprocess(x):\n    return None\n", "failed", "makes what the network does not take"),
        ("def postprocess(x):\n    return {'z': x}\n", "failed", "gives no output `y`"),
        ("def postprocess(x):\n    return x[:, :1]\n", "failed", "OUTPUTS in it says what it gives"),
        (
            "from edgewright import EdgewrightError\ndef preprocess(x):\n    raise EdgewrightError('E230', 'too dark')\n",
            "invalid",
            "too dark",
        ),
    ],
)
def test_errors_reach_the_caller_and_the_next_request_runs(hooked: Any, source: str, reason: str, message: str) -> None:
    lines: list[dict[str, Any]] = []
    server = hooked("same", source, log=lambda event, **fields: lines.append({"event": event, **fields}))
    for _ in range(2):
        problem = refused(server, {"x": X})
        assert problem.reason == reason
        assert message in problem.message
        assert "secret_name" not in problem.message
        assert "/" not in problem.message  # no path of this machine
    if "failed:" in message:
        told = [line for line in lines if line["event"] == "hook"]
        assert told[-1]["model"] == "net"
        assert "Traceback" in told[-1]["problem"]


def test_a_hook_that_hangs_costs_its_caller_the_deadline_and_nobody_else_anything(hooked: Any) -> None:
    server = hooked("same", "import time\ndef preprocess(x, nap=0, **kw):\n    time.sleep(nap)\n    return x\n")
    begun = time.monotonic()
    problem = refused(server, {"x": X}, parameters={"nap": 30}, timeout_s=0.3)
    assert problem.reason == "late"
    assert "preprocess" in problem.message
    assert time.monotonic() - begun < 10
    np.testing.assert_array_equal(server.infer("net", {"x": X}).outputs["y"], X)


def test_hooks_without_a_deadline_have_the_operators_limit(hooked: Any) -> None:
    source = "import time\ndef run_model(model, x, nap=0, **kw):\n    time.sleep(nap)\n    return model(x)\n"
    server = hooked("same", source, options=ModelOptions(hook_s=0.2))
    assert refused(server, {"x": X}, parameters={"nap": 1.5}).reason == "late"


def test_too_many_hooks_that_hang_are_refused_instead_of_piling_up(hooked: Any) -> None:
    source = "import time\ndef preprocess(x, nap=0, **kw):\n    time.sleep(nap)\n    return x\n"
    server = hooked("same", source, options=ModelOptions(hook_s=0.02))
    before = threading.active_count()
    reasons = [refused(server, {"x": X}, parameters={"nap": 60}).reason for _ in range(12)]
    assert reasons == ["late"] * 8 + ["failed"] * 4
    assert threading.active_count() <= before + 8


# --- what may run at all --------------------------------------------------------------------------------------------------


def test_a_bundle_with_hooks_is_refused_unless_hooks_are_allowed(repository: Any, tmp_path: Path, serve: Any) -> None:
    folder = repository({"net": "same"})
    mark = tmp_path / "ran"
    (tmp_path / "p.py").write_text(f"open({str(mark)!r}, 'w').close()\ndef preprocess(x):\n    return x\n")
    add_processor(folder / "net", tmp_path / "p.py")
    with pytest.raises(EdgewrightError, match="has hooks, which this server does not run") as caught:
        serve(folder)
    assert caught.value.code == "E240"
    assert "--allow-hooks" in str(caught.value.hint)
    with ew.open(folder / "net") as session:  # a session runs the network alone
        session.run({"x": X})
    assert not mark.exists()
    serve(folder, allow_hooks=True)
    assert mark.exists()


def test_a_processor_that_only_lies_there_never_runs(repository: Any, tmp_path: Path, serve: Any) -> None:
    folder = repository({"net": "same"})
    (folder / "net" / "processor.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\n")
    server = serve(folder, allow_hooks=True)
    np.testing.assert_array_equal(server.infer("net", {"x": X}).outputs["y"], X)
    assert not (tmp_path / "ran").exists()


def test_a_changed_processor_is_refused(repository: Any, tmp_path: Path, serve: Any) -> None:
    folder = repository({"net": "same"})
    (tmp_path / "p.py").write_text("def preprocess(x):\n    return x\n")
    add_processor(folder / "net", tmp_path / "p.py")
    (folder / "net" / "processor.py").write_text("def preprocess(x):\n    return x + 1\n")
    with pytest.raises(EdgewrightError, match=r"`processor.py` of bundle .* was changed") as caught:
        serve(folder, allow_hooks=True)
    assert caught.value.code == "E220"


def test_the_bytes_that_run_are_the_bytes_that_were_hashed(
    repository: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that is exchanged between the check of the bundle and the run is still refused."""
    from edgewright.serve.hooks import code

    folder = repository({"net": "same"})
    (tmp_path / "p.py").write_text("def preprocess(x):\n    return x\n")
    bundle = add_processor(folder / "net", tmp_path / "p.py")
    (folder / "net" / "processor.py").write_text(
        f"open({str(tmp_path / 'ran')!r}, 'w').close()\ndef preprocess(x): return x\n"
    )
    with pytest.raises(EdgewrightError, match="was changed after it was added"):
        code.load(bundle)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (b"def preprocess(x:\n", r"is not Python: .* \(line 1\)"),
        (b"\0", "is not Python"),
        (b"X = 1\n", "defines none of the hooks"),
        (b"def preprocess():\n    pass\n", r"must be a function preprocess\(x, \*\*kw\)"),
        (b"def run_model(x):\n    pass\n", r"`run_model` in `.*` \(line 1\) must be a function run_model\(model, x"),
        (b"async def preprocess(x):\n    pass\n", "must be a function"),
        (b"def preprocess(x, times):\n    pass\n", "must be a function"),  # who sends no `times` would get a 500
        (b"def postprocess(x, y):\n    pass\n", "must be a function"),
        (b"#" * 2**20 + b"\ndef preprocess(x): return x\n", "larger than"),
    ],
)
def test_a_processor_that_cannot_work_is_refused_before_it_is_added(
    repository: Any, tmp_path: Path, source: bytes, message: str
) -> None:
    folder = repository({"net": "same"})
    before = (folder / "net" / "bundle.json").read_bytes()
    (tmp_path / "p.py").write_bytes(source)
    with pytest.raises(EdgewrightError, match=message) as caught:
        add_processor(folder / "net", tmp_path / "p.py")
    assert caught.value.code == "E240"
    assert (folder / "net" / "bundle.json").read_bytes() == before
    assert not (folder / "net" / "processor.py").exists()


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("import no_such_module_at_all\n", "cannot be loaded: ModuleNotFoundError at line 1"),
        ("INPUTS = 3\n", "`INPUTS` in `processor.py` must be as"),
        ("INPUTS = {'text': ('WORDS', [1])}\n", "`INPUTS` in `processor.py` must be as"),
        ("OUTPUTS = {'y': ('FP32', [-2])}\n", "`OUTPUTS` in `processor.py` must be as"),
    ],
)
def test_a_processor_that_cannot_be_loaded_says_why(hooked: Any, source: str, message: str) -> None:
    with pytest.raises(EdgewrightError, match=message) as caught:
        hooked("same", source + "def preprocess(x):\n    return x\n")
    assert caught.value.code == "E240"


def test_hooks_leave_the_networks_hash_and_its_evidence_and_can_be_exchanged(repository: Any, tmp_path: Path) -> None:
    folder = repository({"net": "same"}) / "net"
    plain = ew.Bundle.open(folder)
    plain.add_evidence("verify", {"verdict": "pass"})
    (tmp_path / "p.py").write_text("def preprocess(x):\n    return x\n")
    (tmp_path / "words.txt").write_text("a")
    add_processor(folder, tmp_path / "p.py", [tmp_path / "words.txt"])
    changed = ew.Bundle.open(folder)
    assert changed.hash == plain.hash
    assert changed.evidence("verify")
    assert sorted(changed.hooks) == ["processor.py", "words.txt"]
    add_processor(folder, tmp_path / "p.py")
    assert sorted(ew.Bundle.open(folder).hooks) == ["processor.py"]
    assert not (folder / "words.txt").exists()
    document = json.loads((folder / "bundle.json").read_text())
    document["hooks"]["processor.py"]["sha256"] = "0" * 64
    (folder / "bundle.json").write_text(json.dumps(document))
    with pytest.raises(EdgewrightError, match=r"manifest of bundle .* was changed"):
        ew.Bundle.open(folder)


def test_files_of_hooks_cannot_take_the_networks_names(repository: Any, tmp_path: Path) -> None:
    folder = repository({"net": "same"}) / "net"
    (tmp_path / "p.py").write_text("def preprocess(x):\n    return x\n")
    for name in ("model.onnx", "bundle.json"):
        (tmp_path / name).write_text("mine")
        with pytest.raises(EdgewrightError, match=f"has a file `{name}` already"):
            add_processor(folder, tmp_path / "p.py", [tmp_path / name])
    with pytest.raises(EdgewrightError, match="cannot be read") as caught:
        add_processor(folder, tmp_path / "absent.py")
    assert caught.value.code == "E104"


def test_a_hot_reload_brings_new_hooks_and_keeps_the_old_where_these_are_broken(hooked: Any, tmp_path: Path) -> None:
    server = hooked("same", "def preprocess(x):\n    return x + 1\n", watch_s=3600.0)
    folder = tmp_path / "models" / "net"
    (tmp_path / "q.py").write_text("def preprocess(x):\n    return x + 2\n")
    add_processor(folder, tmp_path / "q.py")
    assert server.repository.refresh() == []
    np.testing.assert_array_equal(server.infer("net", {"x": X}).outputs["y"], X + 2)
    (tmp_path / "q.py").write_text("import no_such_module_at_all\ndef preprocess(x):\n    return x\n")
    add_processor(folder, tmp_path / "q.py")
    assert [problem.code for problem in server.repository.refresh()] == ["E240"]
    np.testing.assert_array_equal(server.infer("net", {"x": X}).outputs["y"], X + 2)
    shutil.rmtree(folder)


# --- over HTTP, and the command -------------------------------------------------------------------------------------------


def test_parameters_and_errors_over_http(hooked: Any) -> None:
    pytest.importorskip("msgspec", reason="needs the extra `serve`")
    from edgewright.serve.protocol.limits import Limits
    from edgewright.serve.protocol.reading import read_request

    body = b'{"inputs":[{"name":"x","shape":[1,4],"datatype":"FP32","data":[0,1,2,3]}],"parameters":{"times":2,"priority":1}}'
    request = read_request(body, None, Limits())
    assert request.parameters == {"times": 2}
    server = hooked("same", "def preprocess(x, times=1):\n    return x * times\n")
    answer = server.infer("net", request.inputs, parameters=request.parameters)
    np.testing.assert_array_equal(answer.outputs["y"], 2 * X)


def test_the_command_adds_a_processor_and_says_what_is_next(
    repository: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from edgewright.cli import main

    folder = repository({"net": "same"}) / "net"
    (tmp_path / "p.py").write_text("def preprocess(x):\n    return x\n")

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["edgewright", "serve", "add-processor", *arguments])
        with pytest.raises(SystemExit) as stopped:
            main()
        return int(stopped.value.code or 0), *capsys.readouterr()

    status, out, err = run(str(folder), str(tmp_path / "p.py"), "--json")
    assert status == 0, err
    assert list(json.loads(out)["hooks"]) == ["processor.py"]
    status, _, err = run(str(folder), str(tmp_path / "p.py"))
    assert f"edgewright serve {folder} --allow-hooks" in err
    (tmp_path / "p.py").write_text("x = 1\n")
    status, _, err = run(str(folder), str(tmp_path / "p.py"))
    assert status == 2
    assert "error[E240]" in err
    monkeypatch.setattr("sys.argv", ["edgewright", "serve", "--help"])
    with pytest.raises(SystemExit):
        main()
    assert "add-processor --help" in capsys.readouterr().out

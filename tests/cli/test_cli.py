"""The command line as a user meets it: text, JSON, exit codes, errors without tracebacks."""

from __future__ import annotations

import io
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from rich.console import Console

from edgewright.cli import COMMANDS, main
from edgewright.cli.tables import count, milliseconds, size, table

SNAPSHOTS = Path(__file__).parent / "snapshots"
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Run one command in an empty folder: (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["edgewright", *arguments])
        with pytest.raises(SystemExit) as stopped:
            main()
        out, err = capsys.readouterr()
        return int(stopped.value.code or 0), out, err

    return call


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small network (`net.onnx`), its spec, and 40 photos."""
    import onnx_ir as ir
    from PIL import Image

    import edgewright as ew

    folder = tmp_path_factory.mktemp("workshop")
    graph = ir.from_onnx_text(
        """<ir_version: 10, opset_import: ["" : 21]>
        g (float[N,3,8,8] image) => (float[N,3] logits) {
          r = Relu (image)
          p = GlobalAveragePool (r)
          logits = Flatten (p)
        }"""
    )
    spec = ew.Spec(
        inputs={"image": ew.ImageInput(size=(8, 8))}, task="classify", options={"labels": ["red", "green", "blue"]}
    )
    ew.Model(graph, spec, name="net").save(folder / "net.onnx")
    (folder / "photos").mkdir()
    random = np.random.default_rng(0)
    for index in range(40):
        pixels = random.integers(0, 60, (12, 12, 3), np.uint8)
        pixels[..., index % 3] += 150
        Image.fromarray(pixels).save(folder / "photos" / f"photo{index}.png")
    return folder


def masked(text: str) -> str:
    """Text without times, sizes of the machine, versions and paths."""
    text = re.sub(r"/\S*pytest\S*", "PATH", text)
    return re.sub(r"\d+\.\d+\.\d+\S*", "VERSION", text)


def snapshot(name: str, text: str) -> None:
    """Compare with the stored text; EDGEWRIGHT_UPDATE_SNAPSHOTS=1 writes it anew."""
    path = SNAPSHOTS / f"{name}.txt"
    if os.environ.get("EDGEWRIGHT_UPDATE_SNAPSHOTS"):
        SNAPSHOTS.mkdir(exist_ok=True)
        path.write_text(masked(text), encoding="utf-8")
    assert masked(text) == path.read_text(encoding="utf-8")


def test_help(run: Run) -> None:
    code, out, _ = run("--help")
    assert code == 0
    snapshot("help", out)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(run: Run, command: str) -> None:
    code, out, _ = run(command, "--help")
    assert code == 0
    assert out.startswith(f"Usage: edgewright {command}")
    assert "--json" in out


def test_list(run: Run) -> None:
    code, out, _ = run("list", "recipes")
    assert code == 0
    snapshot("list-recipes", out)
    code, out, _ = run("list", "--json")
    document = json.loads(out)
    assert {"importers", "zoo", "passes", "runtimes", "tasks", "recipes", "cpus"} == set(document)
    assert "zoo:efficientnet-lite0" in [row["name"] for row in document["zoo"]]


def test_doctor(run: Run) -> None:
    code, out, _ = run("doctor", "--json")
    document = json.loads(out)
    assert code == 0
    assert {row["name"] for row in document["runtimes"] if row["works"]} >= {"reference", "onnxruntime"}


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(run: Run, shell: str) -> None:
    code, out, _ = run("completion", shell)
    assert code == 0
    assert "_EDGEWRIGHT_COMPLETE" in out


def test_dry_run_needs_nothing_and_writes_nothing(run: Run, tmp_path: Path) -> None:
    code, out, _ = run("deploy", "zoo:efficientnet-lite0", "--runtime", "onnxruntime", "--recipe", "float", "--dry-run")
    assert code == 0
    assert "original-onnxruntime  no pass" in out
    assert list(tmp_path.iterdir()) == []


def test_dry_run_of_a_search_says_from_where(run: Run, tmp_path: Path) -> None:
    command = (
        "deploy",
        "zoo:efficientnet-lite0",
        "--runtime",
        "onnxruntime",
        "--search",
        "--minutes",
        "5",
        "--dry-run",
    )
    code, out, _ = run(*command)
    assert code == 0
    assert "search for at most 5 minutes from: float-onnxruntime, int8-onnxruntime" in out
    code, out, _ = run(*command, "--json")
    assert json.loads(out)["would_search"] == {"minutes": 5.0, "from": ["float-onnxruntime", "int8-onnxruntime"]}
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--minutes", "5"), "add --search"),
        (("--search", "--minutes", "0"), "`minutes` is 0.0"),
        (("--search", "--recipe", "size"), "nothing to search from"),
        (("--search", "--set", "prune_channels.macs=0.5"), "the search decides"),
        (("--search", "--cpu", "armv8.2-dotprod"), "a search measures time"),
    ],
)
def test_a_search_that_cannot_be_is_refused(run: Run, options: tuple[str, ...], said: str, tmp_path: Path) -> None:
    code, _, err = run("deploy", "nowhere.onnx", "--samples", "x", "--runtime", "onnxruntime", *options)
    assert code == 2
    assert said in err
    assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == []


def test_the_whole_way(run: Run, workshop: Path, tmp_path: Path) -> None:
    code, out, err = run(
        "deploy",
        str(workshop / "net.onnx"),
        "--samples",
        str(workshop / "photos"),
        "--runtime",
        "onnxruntime",
        "--out",
        "run",
        "--json",
    )
    document = json.loads(out)
    assert code == 0, err
    assert document["chosen"].endswith("-onnxruntime")
    assert "report: run/report.html" in err
    bundle = f"run/bundles/{document['chosen']}"
    code, out, err = run("run", bundle, str(workshop / "photos" / "photo1.png"), "--draw", "drawn")
    assert code == 0, err
    assert "green" in out
    assert len(list((tmp_path / "drawn").glob("*.png"))) == 1
    assert run("report", "run")[0] == 0


def test_step_by_step(run: Run, workshop: Path, tmp_path: Path) -> None:
    net, photos = str(workshop / "net.onnx"), str(workshop / "photos")
    code, _, err = run("compress", net, "--recipe", "float", "--out", "small.onnx")
    assert (code, "next: edgewright convert small.onnx" in err) == (0, True)
    code, _, err = run("convert", "small.onnx", "--out", "bundle")
    assert (code, "next: edgewright verify" in err) == (0, True)
    code, out, err = run("verify", net, "bundle", "--samples", photos)
    assert (code, "pass" in out) == (0, True), err
    code, out, err = run("locate", net, "bundle", "--samples", photos)
    assert (code, "pass" in out) == (0, True), err
    code, out, err = run("bench", "bundle", "--max-seconds", "0.2", "--markdown", "table.md")
    assert "| bundle |" in out, err
    assert "of fp32 roof" in out
    assert "of fp32 roof" in (tmp_path / "table.md").read_text(encoding="utf-8")
    code, out, err = run("inspect", net)
    assert (code, "multiply-adds" in out) == (0, True), err
    code, out, err = run("spec", "show", net, "--json")
    assert json.loads(out)["task"] == "classify"


def test_a_model_is_measured_on_the_runtimes_that_can_run_it(run: Run, workshop: Path, tmp_path: Path) -> None:
    net = str(workshop / "net.onnx")
    arguments = ("bench", net, "--samples", str(workshop / "photos"), "--max-seconds", "0.2", "--no-roofline", "--json")
    code, out, err = run(*arguments, "--runtime", ",".join(installed()))
    assert code in (0, 1), err
    document = json.loads(out)
    assert {result["bundle_name"] for result in document["results"]} == {f"net-{name}" for name in installed()}
    assert len(document["fastest"]) == 1
    assert list(tmp_path.iterdir()) == []
    code, _, err = run("bench", net, "--runtime", "tensorrt")
    assert (code, "error[E101]" in err) == (2, True)


def installed() -> list[str]:
    from edgewright import registry

    return [name for name in ("onnxruntime", "openvino") if name in registry.installed("runtimes")]


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (("deploy", "nowhere.onnx", "--samples", "x"), 2, "error[E104]"),
        (("deploy", "zoo:resnet-9000", "--samples", "x"), 2, "error[E101]"),
        (("deploy", "zoo:efficientnet-lite0", "--samples", "x", "--runtime", "tensorrt"), 2, "error[E1"),
        (("deploy", "zoo:efficientnet-lite0"), 2, "error[E301]"),
        (("inspect", "nowhere"), 2, "error[E10"),
        (("convert", "nowhere.onnx", "--runtime", "openvono", "--out", "x"), 2, "error[E1"),
        (("verify", "nowhere.onnx", "nobundle", "--samples", "x"), 2, "error[E104]"),
        (("bench", "nobundle"), 2, "error[E104]"),
        (("bench", "nobundle", "--sweep", "one"), 2, "error["),
        (("bench", "nobundle", "--on", "http://board"), 2, "error[E103]"),
        (("bench", "nobundle", "--on", "ssh://board", "--ssh-option", "-F '"), 2, "error[E103]"),
        (("bench", "zoo:efficientnet-lite9"), 2, "error[E101]"),
        (("report", "norun"), 2, "error[E104]"),
        (("list", "everything"), 2, "Invalid value"),
        (("list", "--set", "nonsense"), 2, "error[E103]"),
        (("list", "--weights-of-gold", "3"), 2, "No such option"),
        (("nothing",), 2, "No such command"),
        (("depoly", "net.onnx"), 2, "Did you mean 'deploy'?"),
        (("list", "--set", "fold_batchnrm.x=1"), 2, "did you mean `fold_batchnorm`?"),
        (("compress", "x.onnx", "--out", "y.onnx", "--set", "to_float16.keep=x"), 2, "has no such step"),
        (("deploy", "nowhere.onnx", "--samples", "x", "--recipe", "int7"), 2, "error[E101]"),
        (("deploy", "zoo:efficientnet-lite0", "--samples", "x", "--min-agreement", "high"), 2, "not a valid float"),
    ],
)
def test_mistakes_get_an_error_and_no_traceback(
    run: Run, arguments: tuple[str, ...], code: int, text: str, tmp_path: Path
) -> None:
    got, _, err = run(*arguments)
    assert got == code
    assert text in err
    assert "Traceback" not in err
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_json_error_is_a_document(run: Run) -> None:
    code, out, _ = run("inspect", "nowhere.onnx", "--json")
    assert code == 2
    assert json.loads(out)["error"]["code"] == "E104"


def test_global_options_before_the_command(run: Run) -> None:
    code, out, _ = run("--json", "list", "recipes")
    assert code == 0
    assert {row["name"] for row in json.loads(out)["recipes"]} >= {"original", "float", "fp16"}


def test_an_option_given_twice_is_refused(run: Run, workshop: Path) -> None:
    code, _, err = run("deploy", str(workshop / "net.onnx"), "--runtime", "openvino", "--runtime", "onnxruntime")
    assert code == 2
    assert "`--runtime` is given 2 times" in err
    assert "A,B" in err
    code, out, _ = run(
        "convert", str(workshop / "net.onnx"), "--set", "a.b=1", "--set", "a.c=2", "--out", "b", "--json", "--json"
    )
    assert json.loads(out)["error"]["message"].find("times") < 0  # those that may be repeated are


def test_short_names_of_plugin_options(run: Run, workshop: Path) -> None:
    code, _, err = run("convert", str(workshop / "net.onnx"), "--out", "b", "--graph-optimization", "fast")
    assert code == 2
    assert "graph_optimization" in err


def test_closed_pipe_is_no_error(workshop: Path) -> None:
    command = f"{sys.executable} -m edgewright list | head -1"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr
    assert done.stdout.startswith("importers")


def test_wrong_arguments_are_a_json_document_too(run: Run) -> None:
    code, out, _ = run("inspect", "--json", "--bad")
    assert code == 2
    assert json.loads(out)["error"]["code"] == "E103"


def test_hints_name_what_the_user_gave(run: Run, workshop: Path, tmp_path: Path) -> None:
    net, photos = workshop / "net.onnx", workshop / "photos"
    folder = tmp_path / "mit Leerzeichen"
    folder.mkdir()
    bare = folder / "net ü.onnx"
    bare.write_bytes(net.read_bytes())
    assert run("convert", str(bare), "--out", str(folder / "b"))[0] == 0
    file = folder / "b" / "model.onnx"
    file.write_bytes(file.read_bytes()[:-3])
    code, _, err = run("verify", str(bare), str(folder / "b"), "--samples", str(photos))
    assert (code, "error[E220]" in err) == (2, True)
    hint = shlex.split(err.rpartition("hint: ")[2])
    assert hint[:1] == ["edgewright"]
    assert run(*hint[1:])[0] == 0  # pasted as it stands, it mends the bundle
    code, _, err = run("verify", str(bare), str(folder / "b"), "--samples", str(photos))
    assert code == 0, err


def test_photos_without_a_spec_name_the_command_that_writes_one(
    run: Run, model_from_text: Callable[..., Any], workshop: Path, tmp_path: Path
) -> None:
    graph = '<ir_version: 10, opset_import: ["" : 21]> g (float[N,3,8,8] x) => (float[N,3,8,8] y) { y = Relu (x) }'
    model_from_text(graph, name="bare").save(tmp_path / "bare.onnx")
    code, _, err = run("deploy", "bare.onnx", "--samples", str(workshop / "photos"))
    assert (code, "hint: edgewright spec init bare.onnx" in err) == (2, True)
    code, _, err = run("spec", "check", "bare.onnx")
    assert (code, "carries no spec" in err) == (2, True)
    assert run("spec", "init", "bare.onnx")[0] == 0
    code, _, err = run("spec", "init", "bare.onnx")
    assert (code, "exists already" in err) == (2, True)
    code, out, _ = run("spec", "check", "bare.onnx", "--spec", "spec.toml")
    assert (code, "fits `bare`" in out) == (0, True)
    code, out, _ = run("spec", "init", "bare.onnx", "--out", "-")
    assert out == (tmp_path / "spec.toml").read_text(encoding="utf-8")


def test_inspect_shows_channel_groups(run: Run, workshop: Path) -> None:
    code, out, _ = run("inspect", str(workshop / "net.onnx"), "--groups")
    assert code == 0
    assert "nothing can be removed: no layer makes channels" in out


def test_inspect_names_layers_at_both_ends_of_a_group(run: Run, tmp_path: Path) -> None:
    text = (
        '<ir_version: 10, opset_import: ["" : 21]> g (float[1,1,4,4] x) => (float[1,2,4,4] y) '
        "<float[2,1,1,1] v = {1,2}, float[2,2,1,1] w = {1,2,3,4}> { h = Conv(x, v) y = Conv(h, w) }"
    )
    onnx.save(onnx.parser.parse_model(text), tmp_path / "two.onnx")
    code, out, _ = run("inspect", str(tmp_path / "two.onnx"), "--groups")
    rows = [line.split() for line in out.splitlines()]
    assert code == 0
    assert ["h", "2", "48", "3", "h", "y"] in rows
    assert ["y", "the", "graph", "returns", "`y`"] in rows


def test_inspect_leaves_out_empty_columns(run: Run, workshop: Path) -> None:
    _, out, _ = run("inspect", str(workshop / "net.onnx"))
    head = next(line for line in out.splitlines() if line.startswith("layer"))
    assert head.split() == ["layer", "operator", "shape", "MACs", "data"]  # no weights, no times, no roof
    assert out.count("multiply-adds") == 1


def test_a_candidate_that_cannot_be_made_is_no_failed_gate(run: Run, workshop: Path, tmp_path: Path) -> None:
    arguments = (
        "deploy",
        str(workshop / "net.onnx"),
        "--samples",
        str(workshop / "photos"),
        "--runtime",
        "onnxruntime",
    )
    code, _, err = run(*arguments, "--recipe", "original", "--set", "onnxruntime.graph_optimization=fast", "--out", "r")
    assert (code, "error[E103]: no candidate of `net` could be made" in err) == (2, True), err


@pytest.mark.parametrize("document", ["deploy", "verify", "locate", "inspect", "bench", "list", "doctor", "error"])
def test_documents_keep_their_schema(run: Run, workshop: Path, tmp_path: Path, document: str) -> None:
    import jsonschema

    net, photos = str(workshop / "net.onnx"), str(workshop / "photos")
    if document in {"verify", "locate", "bench"}:
        assert run("convert", net, "--out", "b")[0] == 0
    arguments = {
        "deploy": (net, "--samples", photos, "--runtime", "onnxruntime", "--recipe", "float", "--out", "r"),
        "verify": (net, "b", "--samples", photos),
        "locate": (net, "b", "--samples", photos),
        "inspect": (net,),
        "bench": ("b", "--max-seconds", "0.2", "--no-roofline"),
        "error": ("nowhere.onnx",),
    }
    command = "inspect" if document == "error" else document
    _, out, _err = run(command, *arguments.get(document, ()), "--json")
    schema = Path(__file__).parents[2] / "docs" / "schemas" / f"{document}.json"
    jsonschema.validate(json.loads(out), json.loads(schema.read_text(encoding="utf-8")))


def test_terminated_deploy_leaves_no_process_and_no_half_written_bundle(workshop: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "edgewright", "deploy", str(workshop / "net.onnx")]
    command += ["--samples", str(workshop / "photos"), "--out", "r", "--runtime", "onnxruntime", "--recipe", "original"]
    import psutil

    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        workers: list[psutil.Process] = []
        while not workers and process.poll() is None:
            workers = psutil.Process(process.pid).children(recursive=True)
        process.terminate()
        _, err = process.communicate(timeout=60)
    assert process.returncode == 143, err
    _, alive = psutil.wait_procs(workers, timeout=10)
    assert alive == []
    assert list(tmp_path.rglob(".*")) == []
    again = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (again.returncode, "taken up again" in again.stderr) == (0, True), again.stderr


class TestTables:
    rows = (("a", "7", "words that take more room than a narrow terminal has, by far"), ("name", "12", "short"))

    def show(self, width: int, terminal: bool) -> list[str]:
        text = io.StringIO()
        table(Console(file=text, width=width, force_terminal=terminal, color_system=None), self.rows, right="lrl")
        return text.getvalue().splitlines()

    def test_a_pipe_gets_one_line_a_row(self) -> None:
        assert self.show(20, terminal=False) == [f"a      7  {self.rows[0][2]}", "name  12  short"]

    @pytest.mark.parametrize("width", [40, 60, 80])
    def test_a_terminal_gets_a_hanging_indent(self, width: int) -> None:
        lines = self.show(width, terminal=True)
        assert max(map(len, lines)) <= width
        assert all(line == line.rstrip() for line in lines)
        assert lines[1].startswith(" " * 10) or width == 80

    def test_a_narrow_terminal_gets_the_last_column_below(self) -> None:
        assert self.show(30, terminal=True)[:2] == ["a      7", "    words that take more room"]


@pytest.mark.parametrize(
    ("function", "value", "text"),
    [
        (size, 0, "0 B"), (size, 999, "999 B"), (size, 18_600_000, "18.6 MB"), (size, 999_960, "1.0 MB"),
        (size, 5e12, "5000.0 GB"), (size, None, "-"), (milliseconds, 0.0164, "0.016"), (milliseconds, 7.213, "7.21"),
        (milliseconds, 9.999, "10.0"), (milliseconds, 123.4, "123"), (milliseconds, float("nan"), "-"),
        (count, 666, "666"), (count, 4_690_000, "4.69 M"), (count, 385_200_000, "385 M"), (count, 3e9, "3 G"),
    ],
)  # fmt: skip
def test_numbers_for_people(function: Callable[[float], str], value: float, text: str) -> None:
    assert function(value) == text

"""bench on another machine: a local sshd of its own on a free port stands for it, with Pythons that lack this or that."""

from __future__ import annotations

import getpass
import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import venv
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from edgewright.bench import BenchPlan, Board, bench, remote
from edgewright.bench.remote.package import modules, package
from edgewright.bundle import Bundle
from edgewright.convert import convert
from edgewright.errors import EdgewrightError
from edgewright.model import Model

RELU = '<ir_version: 10, opset_import: ["" : 21]> g (float[N,4] x) => (float[N,4] y) { y = Relu(x) }'
QUICK = BenchPlan(min_runs=5, max_runs=40, min_seconds=0.01, max_seconds=0.2, timeout_seconds=60)
LONG = BenchPlan(min_runs=10**6, max_runs=10**7, max_seconds=600.0)
SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


@dataclass
class Host:
    """The machine: its board, the folder that is its temporary one, and the command line options that lead to it."""

    board: Board
    temporary: Path
    config: Path
    known_hosts: Path

    def left(self) -> list[str]:
        return [path.name for path in self.temporary.iterdir()]

    def processes(self) -> list[int]:
        """Processes that run from the machine's temporary folder."""
        found = []
        for path in Path("/proc").glob("[0-9]*"):
            try:
                surroundings = (path / "environ").read_bytes()
                state = (path / "stat").read_text().rpartition(")")[2].split()[0]
            except OSError:
                continue
            if f"TMPDIR={self.temporary}".encode() in surroundings and state != "Z":
                found.append(int(path.name))
        return found


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def python_with(folder: Path, *packages: str) -> str:
    """A Python that has these packages of ours and no others: no edgewright, no onnx."""
    venv.create(folder, with_pip=False, symlinks=True)
    site = next((folder / "lib").glob("python*")) / "site-packages"
    for package_name in packages:
        found = importlib.util.find_spec(package_name)
        assert found is not None
        assert found.origin is not None
        ours = Path(found.origin).parents[1]
        for path in [
            ours / package_name,
            *ours.glob(f"{package_name}.libs"),
            *ours.glob(f"{package_name}-*.dist-info"),
        ]:
            (site / path.name).symlink_to(path)
    return str(folder / "bin" / "python")


@pytest.fixture(scope="module")
def pythons(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("pythons")
    return {
        "whole": python_with(folder / "whole", "numpy", "onnxruntime"),
        "numpy": python_with(folder / "numpy", "numpy"),
        "bare": python_with(folder / "bare"),
    }


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    if SSHD is None or shutil.which("ssh") is None:
        pytest.skip("needs sshd and ssh: apt-get install openssh-server openssh-client")
    folder = tmp_path_factory.mktemp("sshd")
    temporary = folder / "tmp"
    temporary.mkdir()
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
    shutil.copy(folder / "user.pub", folder / "authorized")
    port = free_port()
    (folder / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder / 'host'}\nAuthorizedKeysFile {folder / 'authorized'}\n"
        f"PidFile none\nStrictModes no\nUsePAM no\nPasswordAuthentication no\nSetEnv TMPDIR={temporary}\n"
    )
    known = folder / "known_hosts"
    known.write_text(f"[127.0.0.1]:{port} {(folder / 'host.pub').read_text()}")
    config = folder / "ssh_config"
    config.write_text(f"UserKnownHostsFile {known}\nIdentityFile {folder / 'user'}\nIdentitiesOnly yes\n")
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # where sshd, started by root, expects an empty folder
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([SSHD, "-D", "-e", "-f", folder / "sshd_config"], stdout=log, stderr=log)
        try:
            assert wait_for(lambda: answers(port)), (folder / "log").read_text()
            board = Board("127.0.0.1", getpass.getuser(), port, ssh_options=("-F", str(config)))
            yield Host(board, temporary, config, known)
        finally:
            process.terminate()
            process.wait()


@pytest.fixture
def host(sshd: Host, pythons: dict[str, str]) -> Iterator[Host]:
    """The machine with all that it needs; afterwards nothing runs there and nothing lies there."""
    yield replace(sshd, board=replace(sshd.board, python=pythons["whole"]))
    assert wait_for(lambda: not sshd.processes() and not sshd.left())


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def wait_for(condition: Callable[[], bool], seconds: float = 30) -> bool:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


@pytest.fixture
def bundle(model_from_text: Callable[..., Model], tmp_path: Path) -> Bundle:
    return convert(model_from_text(RELU), "onnxruntime", tmp_path / "relu")


# --- what it is for ---------------------------------------------------------------------------------------------------


def test_records_come_from_there_and_are_kept_here(host: Host, bundle: Bundle) -> None:
    seen: list[str] = []

    class Seen:
        def update(self, task: str, done: int, total: int | None) -> None:
            seen.append(task)

        def note(self, message: str) -> None:
            raise AssertionError(message)

    results = bench([bundle, bundle.path], None, QUICK, on=host.board, progress=Seen())
    assert [result.bundle_name for result in results] == ["relu", "relu #2"]
    for result in results:
        assert result.bundle_hash == bundle.hash
        assert result.infer.runs >= QUICK.min_runs
        assert "onnxruntime" in result.runtime
        assert "onnx" not in result.environment.versions  # that Python has none
        assert "numpy" in result.environment.versions
    assert min(result.relative for result in results) == (1, 1, 1)
    assert [item["bundle_name"] for item in bundle.evidence("bench")] == ["relu", "relu #2"]
    assert any(task.startswith("copy to") for task in seen)
    assert "benchmark, 1 thread" in seen


def test_the_roofline_is_that_of_the_other_machine(host: Host, bundle: Bundle) -> None:
    (result,) = bench(bundle, None, replace(QUICK, roofline=True), on=host.board)
    assert result.roofline is not None
    assert result.roofline.peak_gflops > 0


def test_on_the_command_line(host: Host, bundle: Bundle, tmp_path: Path) -> None:
    board = host.board
    command = [sys.executable, "-m", "edgewright", "bench", str(bundle.path), "--json", "--max-seconds", "0.2"]
    command += ["--on", f"ssh://{board.user}@{board.host}:{board.port}", "--python", board.python, "--no-roofline"]
    command += ["--ssh-option", f"-F {host.config}", "--markdown", str(tmp_path / "table.md")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stderr  # 1: the measurement may be invalid on a busy machine
    assert json.loads(done.stdout)["fastest"][0]["bundle_name"] == "relu"
    assert "| relu |" in (tmp_path / "table.md").read_text(encoding="utf-8")


def test_the_others_go_on_without_a_broken_one(
    host: Host, bundle: Bundle, model_from_text: Callable[..., Model], tmp_path: Path
) -> None:
    other = convert(model_from_text(RELU), "onnxruntime", tmp_path / "other")
    told: list[tuple[str, str]] = []
    bad = replace(QUICK, timeout_seconds=1e-9)  # no worker answers so fast
    results = bench([other, bundle], None, bad, on=host.board, on_failure=lambda b, _, e: told.append((b.name, e.code)))
    assert results == ()
    assert told == [("other", "E401"), ("relu", "E401")]
    with pytest.raises(EdgewrightError, match=r"E401.*on `.*127\.0\.0\.1.*within 0 s"):
        bench(other, None, bad, on=host.board)


# --- what may be wrong there ------------------------------------------------------------------------------------------


def refused(bundle: Bundle, board: Board, plan: BenchPlan = QUICK) -> EdgewrightError:
    with pytest.raises(EdgewrightError) as caught:
        bench(bundle, None, plan, on=board)
    assert caught.value.hint
    return caught.value


def test_nobody_answers(sshd: Host, bundle: Bundle) -> None:
    error = refused(bundle, replace(sshd.board, port=free_port()))
    assert (error.code, "refused" in str(error)) == ("E410", True)
    error = refused(bundle, replace(sshd.board, host="nowhere.invalid"))
    assert (error.code, "nowhere.invalid" in error.message) == ("E410", True)


def test_a_refused_key(sshd: Host, bundle: Bundle, tmp_path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "stranger"], check=True)
    (tmp_path / "config").write_text(
        f"UserKnownHostsFile {sshd.known_hosts}\nIdentityFile {tmp_path / 'stranger'}\nIdentitiesOnly yes\n"
    )
    error = refused(bundle, replace(sshd.board, ssh_options=("-F", str(tmp_path / "config"))))
    assert (error.code, "ssh-copy-id" in str(error.hint)) == ("E410", True)


def test_an_unknown_host_key_is_never_accepted(sshd: Host, bundle: Bundle, tmp_path: Path) -> None:
    known = tmp_path / "known_hosts"
    text = sshd.config.read_text().replace(str(sshd.known_hosts), str(known))
    (tmp_path / "config").write_text(text)
    error = refused(bundle, replace(sshd.board, ssh_options=("-F", str(tmp_path / "config"))))
    assert (error.code, "by hand" in str(error.hint)) == ("E410", True)
    assert not known.exists()


def test_no_ssh_here(sshd: Host, bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    error = refused(bundle, sshd.board)
    assert (error.code, "openssh-client" in str(error.hint)) == ("E410", True)


def test_no_python_there_or_an_old_one(host: Host, bundle: Bundle, tmp_path: Path) -> None:
    error = refused(bundle, replace(host.board, python="no-such-python"))
    assert (error.code, "no-such-python" in error.message) == ("E411", True)
    old = tmp_path / "old python"
    old.write_text("#!/bin/sh\necho 'python 3.9 is too old' >&2\nexit 1\n")
    old.chmod(0o755)
    error = refused(bundle, replace(host.board, python=str(old)))
    assert (error.code, error.details) == ("E411", ("python 3.9 is too old",))


def test_a_login_shell_that_greets(host: Host, bundle: Bundle, tmp_path: Path) -> None:
    noisy = tmp_path / "noisy"
    noisy.write_text(f'#!/bin/sh\necho Welcome; echo 42\nexec {host.board.python} "$@"\n')
    noisy.chmod(0o755)
    assert len(bench(bundle, None, QUICK, on=replace(host.board, python=str(noisy)))) == 1


def test_a_file_that_vanishes_while_it_is_copied(host: Host, bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "_check", lambda *_: (bundle.path / "model.onnx").unlink())
    with pytest.raises(EdgewrightError, match=r"E104.*model\.onnx"):
        bench(bundle, None, QUICK, on=host.board)


def test_missing_packages_come_with_the_pip_line(host: Host, pythons: dict[str, str], bundle: Bundle) -> None:
    for name, package_name in (("numpy", "onnxruntime"), ("bare", "numpy")):
        error = refused(bundle, replace(host.board, python=pythons[name]))
        assert error.code == "E411"
        assert str(error.hint).endswith(f"{pythons[name]} -m pip install {package_name}")


def test_too_many_threads(host: Host, bundle: Bundle) -> None:
    assert refused(bundle, host.board, replace(QUICK, threads=(100_000,))).code == "E103"


def test_a_cpu_that_lacks_a_feature(host: Host, bundle: Bundle) -> None:
    error = refused(replace(bundle, cpu_features=("asimddp|no_such_feature", "sse9")), host.board)
    assert (error.code, "sse9" in error.message) == ("E411", True)


def test_too_little_space(host: Host, bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "_SPARE_BYTES", 2**60)
    error = refused(bundle, host.board)
    assert (error.code, "space" in error.message) == ("E411", True)


def test_a_disk_that_fills_up_meanwhile(host: Host, bundle: Bundle) -> None:
    """`/dev/full` stands for it: the inputs' path there leads to it."""
    files = remote._files

    def onto_full(templates: object) -> dict[str, Path]:
        found = files(templates)  # type: ignore[arg-type]
        return {("/dev/full" if name.startswith("inputs/") else name): path for name, path in found.items()}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(remote, "_files", onto_full)
        error = refused(bundle, host.board)
    assert (error.code, "No space left" in error.message) == ("E411", True)


# --- ends before the end ----------------------------------------------------------------------------------------------


def workers(host: Host) -> bool:
    """True once a worker runs there."""
    return any(b"edgewright.bench.worker" in command(pid) for pid in host.processes())


def command(pid: int) -> bytes:
    """A process's command line; empty where it has ended meanwhile."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


@pytest.mark.parametrize("victim", ["connection", "runner"])
def test_a_connection_that_is_lost_in_the_middle(host: Host, bundle: Bundle, victim: str) -> None:
    def cut() -> None:
        assert wait_for(lambda: workers(host))
        time.sleep(0.3)
        if victim == "connection":
            (ours,) = children(b"ssh")
            os.kill(ours, signal.SIGKILL)
        else:
            runner = min(pid for pid in host.processes() if b"exec(sys" in command(pid))
            os.kill(runner, signal.SIGKILL)

    thread = threading.Thread(target=cut)
    thread.start()
    error = refused(bundle, host.board, LONG)
    thread.join()
    assert error.code == "E412"


def children(name: bytes) -> list[int]:
    """This process's children that run the program `name`."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
            program = (path / "cmdline").read_bytes().split(b"\0")[0]
        except OSError:
            continue
        if parent == os.getpid() and program == name:
            found.append(int(path.name))
    return found


SCRIPT = """
import signal, sys
from edgewright.bench import BenchPlan, Board, bench
signal.signal(signal.SIGINT, signal.default_int_handler)
board = Board("127.0.0.1", sys.argv[2], int(sys.argv[3]), sys.argv[4], ("-F", sys.argv[5]))
try:
    bench(sys.argv[1], None, BenchPlan(min_runs=10**6, max_runs=10**7, max_seconds=600.0), on=board)
except KeyboardInterrupt:
    sys.exit(42)
"""


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_nothing_outlives_the_parent(host: Host, bundle: Bundle, how: signal.Signals) -> None:
    board = host.board
    arguments = [str(bundle.path), str(board.user), str(board.port), board.python, str(host.config)]
    parent = subprocess.Popen([sys.executable, "-c", SCRIPT, *arguments])
    try:
        assert wait_for(lambda: workers(host))
        time.sleep(0.3)
        parent.send_signal(how)
        assert parent.wait(30) == (42 if how == signal.SIGINT else -how)
    finally:
        parent.kill()
        parent.wait()


# --- addresses and what is carried ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("ssh://pi@board.local:2222", "pi@board.local:2222"),
        ("ssh://Board", "Board"),
        ("ssh://[::1]:22", "::1:22"),
        ("ssh://pi@[fe80::1%25eth0]", "pi@fe80::1%eth0"),
    ],
)
def test_addresses(text: str, shown: str) -> None:
    assert str(Board.parse(text)) == shown


@pytest.mark.parametrize(
    "text",
    ["board", "http://board", "ssh://", "ssh://-oProxyCommand=x", "ssh://-x@board", "ssh://pi:secret@board", "ssh://a/b",
     "ssh://board:99999", "ssh://a b", "ssh://[", "ssh://board?x=1"],
)  # fmt: skip
def test_addresses_that_are_none(text: str) -> None:
    with pytest.raises(EdgewrightError, match="ssh://USER@HOST") as caught:
        Board.parse(text)
    assert caught.value.code == "E103"


def test_the_host_key_check_is_left_to_ssh() -> None:
    words = Board.parse("ssh://pi@board").command("true")
    assert "BatchMode=yes" in words
    assert not any("StrictHostKeyChecking" in word or "UserKnownHostsFile" in word for word in words)


def test_what_is_carried_is_a_small_part() -> None:
    found = modules(("edgewright.bench.remote.agent", "edgewright.runtimes.onnxruntime"))
    assert {"edgewright", "edgewright.bundle", "edgewright.runtimes.onnxruntime.sessions"} <= set(found)
    assert not {name for name in found if name.split(".")[1:2] in (["cli"], ["importers"], ["passes"], ["deploy"])}
    assert len(package(["onnxruntime"], ["classify"])) < 500_000

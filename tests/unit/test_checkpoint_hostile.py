"""Pickles that attack: each is refused by name, none runs, none grows. Live ones are shown to be dangerous first."""

from __future__ import annotations

import pickle
import struct
import subprocess
import sys
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from edgewright import checkpoint
from edgewright.checkpoint import pickled, torch_file
from edgewright.errors import EdgewrightError

#: What starts every stream file: magic number, version, system.
HEAD = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19." + b"\x80\x02M\xe9\x03." + b"\x80\x02}."


def text(value: str | Path) -> bytes:
    """BINUNICODE."""
    content = str(value).encode()
    return b"X" + struct.pack("<I", len(content)) + content


def short(value: str) -> bytes:
    """SHORT_BINUNICODE, memoized."""
    return b"\x8c" + bytes([len(value.encode())]) + value.encode() + b"\x94"


def nested(canary: Path) -> bytes:
    inner = live["global"](canary)
    return b"\x80\x03c_pickle\nloads\n(B" + struct.pack("<I", len(inner)) + inner + b"tR."


#: Pickles that make the folder `canary` when pickle.loads reads them, and the name they are refused by.
live: dict[str, Callable[[Path], bytes]] = {
    "global": lambda canary: b"\x80\x02cos\nmkdir\n" + text(canary) + b"\x85R.",
    "protocol 0": lambda canary: f"cos\nmkdir\n(V{canary}\ntR.".encode(),
    "stack global": lambda canary: b"\x80\x04" + short("os") + short("mkdir") + b"\x93" + text(canary) + b"\x85R.",
    "stack global from the memo": lambda canary: (
        b"\x80\x04" + short("mkdir") + short("os") + b"00h\x01h\x00\x93" + text(canary) + b"\x85R."
    ),
    "inst": lambda canary: b"(" + text(canary) + b"ios\nmkdir\n.",
    "inst protocol 0": lambda canary: f"(S'{canary}'\nios\nmkdir\n.".encode(),
    "obj": lambda canary: b"(cos\nmkdir\n" + text(canary) + b"o.",
    "eval": lambda canary: b"\x80\x02cbuiltins\neval\n" + text(f"__import__('os').mkdir({str(canary)!r})") + b"\x85R.",
    "exec": lambda canary: b"\x80\x02cbuiltins\nexec\n" + text(f"import os; os.mkdir({str(canary)!r})") + b"\x85R.",
    "python 2 eval": lambda canary: (
        b"\x80\x02c__builtin__\neval\n" + text(f"__import__('os').mkdir({str(canary)!r})") + b"\x85R."
    ),
    "getattr chain": lambda canary: (
        b"\x80\x02cbuiltins\ngetattr\n(cbuiltins\n__import__\n" + text("os") + b"\x85R" + text("mkdir") + b"tR"
        + text(canary) + b"\x85R."
    ),
    "dotted name": lambda canary: (
        b"\x80\x04" + short("zipfile") + short("os.mkdir") + b"\x93" + text(canary) + b"\x85R."
    ),
    "behind a good start": lambda canary: (
        b"\x80\x02ccollections\nOrderedDict\n)R(" + text("w") + b"cos\nmkdir\n" + text(canary) + b"\x85Ru."
    ),
    "as a key": lambda canary: b"\x80\x02}cos\nmkdir\n" + text(canary) + b"\x85RK\x01s.",
    "thrown away": lambda canary: b"\x80\x02cos\nmkdir\n" + text(canary) + b"\x85R0}.",
    "new object": lambda canary: b"\x80\x04cpathlib\nPath\n)\x81cos\nmkdir\n" + text(canary) + b"\x85R0.",
    "map": lambda canary: (
        b"\x80\x02cbuiltins\nlist\ncbuiltins\nmap\ncos\nmkdir\n](" + text(canary) + b"e\x86R\x85R."
    ),
    "a pickle in a pickle": nested,
}  # fmt: skip

#: Names that real attacks and whole modules ask for.
NAMES = (
    "os.system", "posix.system", "nt.system", "subprocess.Popen", "subprocess.check_output", "builtins.getattr",
    "builtins.__import__", "builtins.open", "builtins.compile", "builtins.set", "builtins.bytearray", "builtins.print",
    "importlib.import_module", "runpy.run_path", "pty.spawn", "shutil.rmtree", "socket.socket", "ctypes.CDLL",
    "webbrowser.open", "operator.attrgetter", "functools.partial", "types.CodeType", "copyreg._reconstructor",
    "torch.load", "torch.hub.load", "torch.serialization.load", "torch.jit.load", "torch._utils._rebuild_qtensor",
    "torch._utils._rebuild_sparse_tensor", "torch._tensor._rebuild_from_type_v2", "torch.nn.modules.linear.Linear",
    "torch._utils._rebuild_tensor_v2.__globals__", "torch._utils", "torch.FloatStorage.__new__",
    "torch.float32.__class__",
    "collections.OrderedDict.fromkeys", "collections.defaultdict", "collections.Counter", "collections.UserDict",
    "numpy.load", "numpy.ndarray.tofile", "numpy._core.multiarray.fromfile", "_codecs.decode", "_codecs.register",
    "__main__.Net", "argparse.Namespace", "оs.system", "os.\x1b[2Jsystem", "os.system ", " os.system", "OS.SYSTEM",
    ".", "a.",
)  # fmt: skip


def request(name: str) -> bytes:
    module, _, attribute = name.rpartition(".")
    return b"\x80\x04" + short(module) + short(attribute) + b"\x93."


SMALL = b"\x80\x02ctorch\nFloatStorage\n"
#: What else reaches beyond tensors, and words of the refusal.
REQUESTS = {
    "EXT1": (b"\x80\x02\x82\x01.", "entry 1 of the copyreg extension registry"),
    "EXT2": (b"\x80\x02\x83\x01\x02.", "entry 513 of the copyreg"),
    "EXT4": (b"\x80\x02\x84\x01\x02\x03\x04.", "of the copyreg"),
    "NEWOBJ of a known name": (b"\x80\x02ccollections\nOrderedDict\n)\x81.", "instance of `collections.OrderedDict`"),
    "NEWOBJ_EX": (b"\x80\x04ccollections\nOrderedDict\n)}\x92.", "instance of `collections.OrderedDict`"),
    "INST of a known name": (b"(icollections\nOrderedDict\n.", "instance of `collections.OrderedDict`"),
    "OBJ of a known name": (b"(ccollections\nOrderedDict\no.", "instance of `collections.OrderedDict`"),
    "OBJ of nothing": (b"(o.", "instance of nothing"),
    "a call of text": (b"\x80\x02" + text("os.system") + text("ls") + b"\x85R.", "a call of a value of type str"),
    "a call of a dict": (b"\x80\x02})R.", "a call of a value of type dict"),
    "a call of a storage": (SMALL + b")R.", "a call of `torch.FloatStorage`"),
    "a call of a dtype": (b"\x80\x02ctorch\nfloat32\n)R.", "a call of `torch.float32`"),
    "state of a tuple": (b"\x80\x02)}b.", "the state of a value of type tuple"),
    "state of a name": (SMALL + b"}b.", "the state of `torch.FloatStorage`"),
    "state of a list": (b"\x80\x02]}b.", "the state of a value of type list"),
    "state of text": (b"\x80\x02X\0\0\0\0}b.", "the state of a value of type str"),
    "state that is no dict": (b"\x80\x02}]b.", "the state of a value of type dict"),
    "a set": (b"\x80\x04\x8f.", "a set"),
    "a frozenset": (b"\x80\x04(\x91.", "a frozenset"),
    "an outside buffer": (b"\x80\x05\x97.", "a buffer outside the file"),
    "a persistent module": (b"\x80\x02(" + text("module") + b"NNNtQ.", "no storage: `module`"),
    "a persistent text": (b"\x80\x02" + text("../../etc/passwd") + b"Q.", "no storage: a value of type str"),
    "a persistent name": (SMALL + b"Q.", "no storage: `torch.FloatStorage`"),
    "a persistent name as text": (b"P../../etc/passwd\n.", "named by text"),
    "a persistent list": (b"\x80\x02]Q.", "no storage"),
    "items of a list by key": (b"\x80\x02]K\x00K\x01s.", "setting items of a value of type list"),
    "items of a name": (SMALL + b"K\x00K\x01s.", "setting items of `torch.FloatStorage`"),
    "append to a dict": (b"\x80\x02}K\x00a.", "appending to a value of type dict"),
    "a tuple as key": (b"\x80\x02}))\x86K\x01s.", "a dict whose key is a value of type tuple"),
    "a list as key": (b"\x80\x02}]K\x01s.", "a dict whose key is a value of type list"),
    "a huge number as key": (b"\x80\x02}\x8a\x09" + b"\x01" * 9 + b"K\x01s.", "a dict whose key"),
    "a tensor over text": (b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(X\0\0\0\0K\0))\x89NtR.", "a tensor over"),
    "a parameter over text": (b"\x80\x02ctorch._utils\n_rebuild_parameter\n(X\0\0\0\0\x88NtR.", "a parameter over"),
    "another encoding": (b"\x80\x02c_codecs\nencode\n" + text("x") + text("rot13") + b"\x86R.", "`_codecs.encode`"),
    "numpy objects": (b"\x80\x02cnumpy\ndtype\n" + text("O8") + b"\x89\x88\x87R.", "a numpy array of `O8`"),
    "escaped text": (b"S'\\x41'\n.", "text with escapes"),
}  # fmt: skip

#: Pickles that are no pickles.
MALFORMED = {
    "no opcode": b"\x80\x02\xff.",
    "a newer protocol": b"\x80\x02\x80\x06.",
    "a text of 2^63 bytes": b"\x80\x04\x8d" + struct.pack("<Q", 2**63) + b"x.",
    "bytes of 2^64 - 1": b"\x80\x04\x8e" + b"\xff" * 8 + b"x.",
    "a bytearray of 2^40": b"\x80\x05\x96" + struct.pack("<Q", 2**40) + b"x.",
    "a text of 4 GiB": b"\x80\x02X\xff\xff\xff\xffx.",
    "a text of -1 bytes": b"\x80\x02T\xff\xff\xff\xffx.",
    "a frame longer than the file": b"\x80\x04\x95" + struct.pack("<Q", 2**62) + b"N.",
    "a number of 2 GiB": b"\x80\x02\x8b\xff\xff\xff\x7f.",
    "a number of -1 bytes": b"\x80\x02\x8b\xff\xff\xff\xff.",
    "a number of 100,000 digits": b"I" + b"9" * 100_000 + b"\n.",
    "a number that is none": b"Ix\n.",
    "a float that is none": b"Fx\n.",
    "text that is no UTF-8": b"\x80\x02X\x01\0\0\0\xff.",
    "text without an end": b"\x80\x02Vabc.",
    "text without quotes": b"Sabc\n.",
    "a name without an end": b"\x80\x02cos",
    "a name of a megabyte": b"\x80\x02c" + b"x" * 2**20 + b"\nx\n.",
    "an empty stack": b"\x80\x02.",
    "a tuple of nothing": b"\x80\x02\x87.",
    "a mark that was never set": b"\x80\x02t.",
    "a value below the mark": b"\x80\x02K\x01(0a.",
    "a memo entry that was never stored": b"\x80\x02h\x07.",
    "a memo entry below zero": b"Np-1\n.",
    "a key without a value": b"\x80\x02}(K\x01u.",
    "no STOP": b"\x80\x02N",
    "arguments that are no tuple": b"\x80\x02ccollections\nOrderedDict\n]R.",
    "too many arguments": b"\x80\x02ccollections\nOrderedDict\n(" + b"N" * 300 + b"tR.",
    "pairs that are none": b"\x80\x02ccollections\nOrderedDict\n](K\x01e\x85R.",
    "a global without text": b"\x80\x04K\x01K\x02\x93.",
    "bytes with a length": b"\x80\x02c__builtin__\nbytes\nJ\xff\xff\xff\x7f\x85R.",
}


def doubling(levels: int) -> bytes:
    """A tuple of the same tuple twice, `levels` deep: 2^levels values from two bytes each."""
    return b"\x80\x02K\x01" + b"2\x86" * levels + b"."


def copies(function: bytes, argument: bytes, count: int) -> bytes:
    """A large argument stored once, then given to `count` calls."""
    return b"\x80\x02](" + function + b"q\x000" + argument + b"q\x010" + b"h\x00h\x01R" * count + b"e."


def encode_argument(size: int) -> bytes:
    return b"X" + struct.pack("<I", size) + b"x" * size + text("latin1") + b"\x86"


#: Small files that would take much memory or time.
GROWING = {
    "a billion laughs": doubling(60),
    "nested a hundred thousand times": b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".",
    "dicts in dicts": b"\x80\x02" + b"}K\x01" * 10_000 + b"N" + b"s" * 10_000 + b".",
    "a list that contains itself": b"\x80\x02]q\x00h\x00a.",
    "a dict that contains itself": b"\x80\x02}q\x00K\x01h\x00s.",
    "bytes copied by every call": copies(b"c_codecs\nencode\n", encode_argument(100_000), 10_000),
    "dicts copied by every call": copies(
        b"ccollections\nOrderedDict\n", b"](" + b"K\x01K\x02\x86" * 10_000 + b"e\x85", 10_000
    ),
    "sizes copied by every call": copies(b"ctorch\nSize\n", b"(" + b"K\x01" * 10_000 + b"t\x85", 10_000),
    "long keys, nested": b"\x80\x02" + text("k" * 1000) + b"q\x000" + b"}h\x00" * 50 + b"N" + b"s" * 50 + b".",
}


def as_zip(content: bytes, path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", content)
        archive.writestr("archive/byteorder", b"little")
    return path


def as_stream(content: bytes, path: Path) -> Path:
    path.write_bytes(HEAD + content)
    return path


def as_stream_start(content: bytes, path: Path) -> Path:
    """In place of the magic number; a pickle without a PROTO opcode is given one, or the file would have no format."""
    path.write_bytes(content if content.startswith(b"\x80") else b"\x80\x02" + content)
    return path


def as_stream_keys(content: bytes, path: Path) -> Path:
    path.write_bytes(HEAD + b"\x80\x02}." + content)
    return path


CONTAINERS = (as_zip, as_stream, as_stream_start, as_stream_keys)
contained = pytest.mark.parametrize("container", CONTAINERS, ids=lambda container: container.__name__)


def refused(path: Path) -> EdgewrightError:
    """The error of reading `path`, and that its words can be shown on any terminal."""
    with pytest.raises(EdgewrightError) as caught:
        checkpoint.read(path)
    words = str(caught.value)
    assert all(word.isprintable() for word in words.split("\n"))
    assert len(words) < 1000
    return caught.value


# --- nothing runs -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", live)
def test_the_corpus_is_dangerous(name: str, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    try:
        pickle.loads(live[name](canary))
    except Exception as problem:  # the attack itself has run by then
        assert canary.is_dir(), problem
    assert canary.is_dir()


@contained
@pytest.mark.parametrize("name", live)
def test_attacks_are_refused_and_never_run(name: str, container: Callable[[bytes, Path], Path], tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    caught = refused(container(live[name](canary), tmp_path / "x.pth"))
    assert caught.code == "E207"
    assert caught.details == ("nothing in the file was executed",)
    assert "torch.save(model.state_dict()" in str(caught.hint)
    assert not canary.exists()


@pytest.mark.parametrize("name", NAMES)
def test_names_are_refused_by_name(name: str, tmp_path: Path) -> None:
    caught = refused(as_zip(request(name), tmp_path / "x.pth"))
    assert caught.code == "E207"
    assert f"`{name.encode('unicode_escape').decode()}`" in caught.message


@contained
@pytest.mark.parametrize("name", REQUESTS)
def test_requests_beyond_tensors(name: str, container: Callable[[bytes, Path], Path], tmp_path: Path) -> None:
    content, words = REQUESTS[name]
    caught = refused(container(content, tmp_path / "x.pth"))
    assert caught.code == "E207"
    assert words in caught.message


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_pickles(name: str, tmp_path: Path) -> None:
    for container in CONTAINERS:
        assert refused(container(MALFORMED[name], tmp_path / "x.pth")).code == "E201"


@pytest.mark.parametrize("name", ["global", "getattr chain", "stack global", "a pickle in a pickle"])
def test_attacks_cut_short_anywhere(name: str, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    content = live[name](canary)
    for size in range(2, len(content)):
        assert refused(as_zip(content[:size], tmp_path / "x.pth")).code in ("E201", "E207")
    assert not canary.exists()


def test_an_audit_hook_sees_nothing_run(tmp_path: Path) -> None:
    """In a fresh interpreter, Python itself reports every import, call of exec and file that the attacks would need."""
    for number, make in enumerate(live.values()):
        as_zip(make(tmp_path / "canary"), tmp_path / f"{number}.pth")
    for number, (content, _) in enumerate(REQUESTS.values(), len(live)):
        as_zip(content, tmp_path / f"{number}.pth")
    program = """
import sys
from pathlib import Path
from edgewright import checkpoint
from edgewright.errors import EdgewrightError
paths = sorted(Path(sys.argv[1]).glob("*.pth"))
def read(path):
    try:
        checkpoint.read(path)
    except EdgewrightError as problem:
        return problem.code
read(paths[0])
seen = []
sys.addaudithook(lambda event, args: seen.append((event, args)))
codes = {read(path) for path in paths}
calm = {"open", "mmap.__new__", "os.stat", "object.__getattr__", "mmap.read"}
bad = [(event, args) for event, args in seen if event not in calm]
bad += [args for event, args in seen if event == "open" and str(args[0]) not in map(str, paths)]
print(len(paths), codes, bad)
sys.exit(bool(bad) or codes != {"E207"})
"""
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not (tmp_path / "canary").exists()


# --- nothing grows ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MALFORMED)
def test_lengths_are_not_believed(name: str, tmp_path: Path) -> None:
    path = as_stream(MALFORMED[name], tmp_path / "x.pth")
    tracemalloc.start()
    refused(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2 * path.stat().st_size + 200_000


@pytest.mark.parametrize("name", GROWING)
def test_small_files_stay_small(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_file, "MAX_VALUES", 100_000)  # tracing memory makes each ten times slower
    path = as_zip(GROWING[name], tmp_path / "x.pth")
    tracemalloc.start()
    caught = refused(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert caught.code == "E201"
    assert peak < 100 * path.stat().st_size + 1_000_000


def test_endless_pickles_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pickled, "MAX_OPCODES", 1000)
    caught = refused(as_zip(b"\x80\x02" + b"N0" * 1000 + b"N.", tmp_path / "x.pth"))
    assert caught.code == "E201"
    assert "more than 1000 opcodes" in caught.message


def storage(key: str, count: int) -> bytes:
    """A persistent id on the stack."""
    return (
        b"("
        + text("storage")
        + b"ctorch\nFloatStorage\n"
        + text(key)
        + text("cpu")
        + b"J"
        + struct.pack("<i", count)
        + b"tQ"
    )


def test_expanded_views_are_bounded_together(tmp_path: Path) -> None:
    # Each of 100 tensors repeats 4 bytes to 16 MiB, the most that one may.
    size = b"J" + struct.pack("<i", 4 * 2**20)
    view = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage("0", 1) + b"K\x00" + size + b"\x85K\x00\x85\x89NtR"
    path = as_zip(b"\x80\x02](" + view * 100 + b"e.", tmp_path / "x.pth")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("archive/data/0", bytes(4))
    caught = refused(path)
    assert caught.code == "E202"
    assert "at most" in caught.message


def test_too_many_tensors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_file, "MAX_TENSORS", 3)
    view = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage("0", 1) + b"K\x00K\x01\x85K\x01\x85\x89NtR"
    path = as_zip(b"\x80\x02](" + view * 4 + b"e.", tmp_path / "x.pth")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("archive/data/0", bytes(4))
    assert refused(path).code == "E202"


def test_one_storage_of_two_types(tmp_path: Path) -> None:
    other = storage("0", 1).replace(b"FloatStorage", b"LongStorage")
    caught = refused(as_zip(b"\x80\x02](" + storage("0", 1) + other + b"e.", tmp_path / "x.pth"))
    assert caught.code == "E201"
    assert "two types or sizes" in caught.message


def test_two_tensors_of_one_name(tmp_path: Path) -> None:
    view = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage("0", 1) + b"K\x00K\x01\x85K\x01\x85\x89NtR"
    both = b"\x80\x02}(" + text("a.b") + view + text("a") + b"}(" + text("b") + view + b"uu."
    path = as_zip(both, tmp_path / "x.pth")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("archive/data/0", bytes(4))
    assert "two tensors called `a.b`" in refused(path).message


def test_a_storage_cannot_leave_the_archive(tmp_path: Path) -> None:
    view = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage("../../x", 1) + b"K\x00K\x01\x85K\x01\x85\x89NtR"
    caught = refused(as_zip(b"\x80\x02" + view + b".", tmp_path / "x.pth"))
    assert caught.code == "E201"
    assert "lacks the storage" in caught.message

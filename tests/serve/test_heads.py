"""What stands before a body, and where a body ends: nothing that could be understood in two ways is taken."""

from __future__ import annotations

import random

import pytest

pytest.importorskip("httptools", reason="needs the extra `serve`")

from edgewright.serve.http import heads
from edgewright.serve.http.answers import beginning
from edgewright.serve.http.bodies import Chunked, Counted
from edgewright.serve.http.exchange import HttpError
from edgewright.serve.http.heads import Heads

POST = b"POST /a HTTP/1.1\r\nhost: x\r\n"


def read(data: bytes) -> heads.Head:
    return Heads().read(data)


#: Each could be understood in two ways, by us and by a proxy before us (RFC 9112, section 11.2), or is malformed.
REFUSED = {
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "two hosts": POST + b"host: y\r\n\r\n",
    "the same host twice": POST + b"Host: x\r\n\r\n",
    "two hosts in HTTP/1.0": b"GET / HTTP/1.0\r\nhost: x\r\nhost: y\r\n\r\n",
    "two lengths": POST + b"content-length: 5\r\ncontent-length: 6\r\n\r\n",
    "the same length twice": POST + b"content-length: 5\r\ncontent-length: 5\r\n\r\n",
    "a list of lengths": POST + b"content-length: 5, 5\r\n\r\n",
    "a length with a sign": POST + b"content-length: +5\r\n\r\n",
    "a negative length": POST + b"content-length: -5\r\n\r\n",
    "a length in hex": POST + b"content-length: 0x5\r\n\r\n",
    "a length with an underscore": POST + b"content-length: 1_0\r\n\r\n",
    "no length": POST + b"content-length:\r\n\r\n",
    "a length beyond all numbers": POST + b"content-length: 99999999999999999999\r\n\r\n",
    "a length in other digits": POST + "content-length: \u0665\r\n\r\n".encode(),
    "length and chunks": POST + b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n",
    "chunks and length": POST + b"transfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n",
    "gzip, chunked": POST + b"transfer-encoding: gzip, chunked\r\n\r\n",
    "chunked, gzip": POST + b"transfer-encoding: chunked, gzip\r\n\r\n",
    "chunked twice": POST + b"transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n",
    "chunked and identity": POST + b"transfer-encoding: chunked\r\ntransfer-encoding: identity\r\n\r\n",
    "an unknown encoding": POST + b"transfer-encoding: xchunked\r\n\r\n",
    "chunked in quotes": POST + b'transfer-encoding: "chunked"\r\n\r\n',
    "an empty encoding": POST + b"transfer-encoding:\r\n\r\n",
    "a tab of another kind": POST + b"transfer-encoding: \x0bchunked\r\n\r\n",
    "chunks in HTTP/1.0": b"POST /a HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n",
    "space before the colon": POST + b"transfer-encoding : chunked\r\n\r\n",
    "a folded header": POST + b"a: b\r\n c\r\n\r\n",
    "a folded header with a tab": POST + b"a: b\r\n\tc\r\n\r\n",
    "a header that begins with a fold": POST + b"a:\r\n b\r\n\r\n",
    "a space before the first header": b"POST /a HTTP/1.1\r\n a: b\r\nhost: x\r\n\r\n",
    "a bare LF": POST + b"a: b\nc: d\r\n\r\n",
    "a bare LF at the end": POST + b"a: b\n\r\n\r\n",
    "a bare CR": POST + b"a: b\rc: d\r\n\r\n",
    "a CR too many": POST + b"a: b\r\r\n\r\n",
    "a zero byte": POST + b"a: \0b\r\n\r\n",
    "a control character": POST + b"a: \x1bb\r\n\r\n",
    "a name with a high byte": POST + b"a\x80: b\r\n\r\n",
    "no name": POST + b": b\r\n\r\n",
    "no colon": POST + b"novalue\r\n\r\n",
    "a bare LF after the first line": b"GET / HTTP/1.1\nhost: x\r\n\r\n",
    "a CR after the version": b"GET / HTTP/1.1\r\r\nhost: x\r\n\r\n",
    "a space after the version": b"GET / HTTP/1.1 \r\nhost: x\r\n\r\n",
    "a version in lower case": b"GET / http/1.1\r\nhost: x\r\n\r\n",
    "no version": b"GET /\r\nhost: x\r\n\r\n",
    "HTTP/0.9": b"GET / HTTP/0.9\r\nhost: x\r\n\r\n",
    "HTTP/1.2": b"GET / HTTP/1.2\r\nhost: x\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\n",
    "HTTP/2.0": b"GET / HTTP/2.0\r\nhost: x\r\n\r\n",
    "another protocol": b"DESCRIBE / RTSP/1.0\r\n\r\n",
    "and another": b"SOURCE / ICE/1.0\r\n\r\n",
    "an unknown method": b"BREW / HTTP/1.1\r\nhost: x\r\n\r\n",
    "a method in lower case": b"get / HTTP/1.1\r\nhost: x\r\n\r\n",
    "CONNECT": b"CONNECT a:1 HTTP/1.1\r\nhost: x\r\n\r\n",
    "a relative path": b"GET a HTTP/1.1\r\nhost: x\r\n\r\n",
    "a fragment": b"GET /a#b HTTP/1.1\r\nhost: x\r\n\r\n",
    "another scheme": b"GET file:///etc/passwd HTTP/1.1\r\nhost: x\r\n\r\n",
    "a high byte in the path": b"GET /\xff HTTP/1.1\r\nhost: x\r\n\r\n",
    "a zero byte in the path": b"GET /\0 HTTP/1.1\r\nhost: x\r\n\r\n",
    "a tab in the path": b"GET /\t HTTP/1.1\r\nhost: x\r\n\r\n",
    "a bare LF before it": b"\nGET / HTTP/1.1\r\nhost: x\r\n\r\n",
    "a bare CR before it": b"\rGET / HTTP/1.1\r\nhost: x\r\n\r\n",
    "no request": b"\x16\x03\x01\x02\0\x01\0\x01\xfc\r\n\r\n",
    "101 headers": b"GET / HTTP/1.1\r\nhost: x\r\n" + b"a: b\r\n" * 100 + b"\r\n",
}


@pytest.mark.parametrize("data", REFUSED.values(), ids=REFUSED.keys())
def test_ambiguous_and_malformed_heads_are_refused(data: bytes) -> None:
    with pytest.raises(HttpError) as caught:
        read(data)
    assert caught.value.status in (400, 431)


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        (b"/", "/", ""),
        (b"/a%20b?c=%20&d", "/a b", "c=%20&d"),
        (b"/%ff%fe", "/\ufffd\ufffd", ""),
        (b"/%E2%98%83", "/\u2603", ""),
        (b"/%zz%4", "/%zz%4", ""),
        (b"/a%2Fb%3fc", "/a/b?c", ""),
        (b"//b/c", "//b/c", ""),
        (b"http://host:1/a?b", "/a", "b"),
        (b"HTTPS://host", "/", ""),
    ],
)
def test_targets_are_paths(target: bytes, path: str, query: str) -> None:
    head = read(b"GET " + target + b" HTTP/1.1\r\nhost: x\r\n\r\n")
    assert (head.path, head.query_string) == (path, query)


def test_a_hundred_headers_are_taken() -> None:
    assert read(POST + b"a: b\r\n" * 99 + b"\r\n").headers["a"].count("b") == 99


def test_old_clients_need_no_host() -> None:
    assert read(b"GET / HTTP/1.0\r\n\r\n").old
    assert read(b"GET / HTTP/1.1\r\nHost:\r\n\r\n").headers == {"host": ""}


def test_headers_have_names_in_lower_case_and_several_become_one() -> None:
    head = read(POST + b"A-B:  c \t\r\naccept: x\r\nAccept: y\r\nd:\xe9\r\nempty:\r\n\r\n")
    assert head.headers == {"host": "x", "a-b": "c", "accept": "x, y", "d": "\xe9", "empty": ""}
    assert (head.method, head.length, head.old, head.expects) == ("POST", 0, False, False)


@pytest.mark.parametrize(
    ("version", "connection", "keeps"),
    [
        (b"1.1", b"", True),
        (b"1.1", b"connection: close\r\n", False),
        (b"1.1", b"connection: x, Close\r\n", False),
        (b"1.1", b"connection: keep-alive\r\nconnection: close\r\n", False),
        (b"1.0", b"", False),
        (b"1.0", b"connection: Keep-Alive\r\n", True),
        (b"1.0", b"connection: keep-alive, close\r\n", False),
    ],
)
def test_who_wants_the_connection_to_go_on(version: bytes, connection: bytes, keeps: bool) -> None:
    assert read(b"GET / HTTP/" + version + b"\r\nhost: x\r\n" + connection + b"\r\n").keeps is keeps


def test_offers_of_another_protocol_are_not_taken() -> None:
    for offer in (b"websocket", b"h2c"):
        head = read(POST + b"connection: upgrade\r\nupgrade: " + offer + b"\r\ncontent-length: 3\r\n\r\n")
        assert (head.method, head.length) == ("POST", 3)


def test_equal_heads_are_read_once_and_few_are_remembered() -> None:
    known = Heads()
    first = POST + b"content-length: 3\r\n\r\n"
    head = known.read(first)
    assert known.find(bytes(bytearray(first))) is head
    assert known.find(first.replace(b"3", b"4")) is None
    large = POST + b"a: " + b"b" * 5000 + b"\r\n\r\n"
    known.read(large)
    assert known.find(large) is None
    with pytest.raises(HttpError):
        known.read(REFUSED["two lengths"])
    assert known.find(REFUSED["two lengths"]) is None
    for number in range(1000):
        known.read(POST + b"a: %d\r\n\r\n" % number)
    assert len(known._known) <= 256


# --- bodies -------------------------------------------------------------------------------------------------------------


def taken(data: bytes, sizes: list[int]) -> tuple[bytes, bytes, bool]:
    """A chunked body that comes in pieces: what it holds, what follows it, and whether it has ended."""
    body, found, rest = Chunked(), [], b""
    at = 0
    for size in [*sizes, len(data)]:
        if body.ended:
            rest += data[at : at + size]
        else:
            part, rest = body.take(data[at : at + size])
            found.append(part)
        at += size
    return b"".join(found), rest, body.ended


CHUNKS = b'5\r\nhello\r\n00A;name=value\r\n\r\n\r\n\r\n\r\n\r\n\r\n1;a="b c"\r\n\0\r\n0\r\nx-a: b\r\n\r\n'


def test_chunks_are_the_same_however_they_come() -> None:
    expected = (b"hello" + b"\r\n" * 5 + b"\0", b"GET / HTTP/1.1\r\nhost: x\r\n\r\n", True)
    data = CHUNKS + expected[1]
    for first in range(len(data)):
        assert taken(data, [first]) == expected
    assert taken(data, [1] * len(data)) == expected
    chance = random.Random(0)
    for _ in range(300):
        assert taken(data, [chance.randrange(12) for _ in range(12)]) == expected


@pytest.mark.parametrize(
    "data",
    [
        b"zz\r\n",
        b"\r\n",
        b"-1\r\n",
        b"+1\r\na\r\n",
        b"0x1\r\na\r\n",
        b" 1\r\na\r\n",
        b"1 \r\na\r\n",
        b"1\na\r\n",
        b"1\r\na\n",
        b"1\r\nab\r\n",
        b"1\r\na\r\r\n",
        b"1;\0\r\na\r\n",
        b"1;a\rb\r\na\r\n",
        b"11111111111111111\r\n",
        b"1_0\r\n",
        b"0\r\nno trailer\r\n\r\n",
        b"0\r\na : b\r\n\r\n",
        b"0\r\n folded\r\n\r\n",
        b"0\r\na: b\n\r\n",
        b"1;" + b"a" * 5000,
        b"1;" + b"a" * 5000 + b"\r\n",
        (b"1;" + b"a" * 4000 + b"\r\na\r\n") * 5,
        b"0\r\n" + b"a: b\r\n" * 3000,
    ],
)
def test_chunks_are_taken_by_the_letter(data: bytes) -> None:
    for sizes in ([], [1] * len(data)):
        with pytest.raises(ValueError, match=r"chunk|lines?|trailers"):
            taken(data, sizes)


def test_a_body_ends_where_its_length_says() -> None:
    body = Counted(5)
    assert body.take(b"abc") == (b"abc", b"")
    assert not body.ended
    assert body.take(b"defg") == (b"de", b"fg")
    assert body.ended
    assert Counted(0).ended


# --- answers ------------------------------------------------------------------------------------------------------------


def test_an_answers_head() -> None:
    assert beginning(200, (("content-type", "a/b"),)) == (b"HTTP/1.1 200 OK\r\ncontent-type: a/b\r\n", False)
    assert beginning(499, (("connection", "close"),)) == (b"HTTP/1.1 499 \r\n", True)


@pytest.mark.parametrize(
    ("name", "value"),
    [("a", "b\r\nc: d"), ("a", "b\n"), ("a", "\0"), ("a\r\nb", "c"), ("a b", "c"), ("", "c"), ("a", "\u2603")],
)
def test_no_header_can_begin_another(name: str, value: str) -> None:
    with pytest.raises(ValueError, match="cannot be sent"):
        beginning(200, ((name, value),))

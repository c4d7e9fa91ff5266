"""Damaged requests over real connections: a seeded sample; `benchmarks/serving_fuzz.py` runs as many as it is told."""

from __future__ import annotations

import random

import pytest
from tests.onnx_files import benchmark

pytest.importorskip("httptools", reason="needs the extra `serve`")
pytest.importorskip("grpc", reason="needs the extra `serve`")


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_damaged_requests_over_sockets_get_an_answer_below_500(seed: int) -> None:
    found = benchmark("serving_fuzz").fuzz(600, seed, "http", 0.2)
    assert found["bad"] == 0, found["kept"]
    assert found["alive"]
    assert {"200", "400", "404", "cut short", "left"} <= set(found["outcomes"]["http"])


def test_cases_are_the_same_for_the_same_seed_and_differ_in_all_ways() -> None:
    fuzz = benchmark("serving_fuzz")
    seeds = fuzz.http_seeds()
    cases = [fuzz.sent(seeds, random.Random(number)) for number in range(500)]
    assert cases == [fuzz.sent(seeds, random.Random(number)) for number in range(500)]
    assert max(len(pieces) for pieces, _ in cases) > 10
    assert any(leaves for _, leaves in cases)
    whole = [b"".join(pieces) for pieces, _ in cases]
    assert any(data.count(b" HTTP/1.1\r\n") > 3 for data in whole)
    assert any(b"transfer-encoding: chunked" in data for data in whole)

"""Numbers that compare tensors and bound proportions, against hand-made, published and independent values."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from edgewright import metrics
from edgewright.records import TensorError

# --- distances --------------------------------------------------------------------------------------------------------


def test_distances_of_known_vectors(tolerance):
    x, y = np.array([3.0, 4.0], np.float32), np.array([3.0, 4.5], np.float32)
    assert metrics.rel_l2(x, y) == pytest.approx(0.1)
    assert metrics.sqnr_db(x, y) == pytest.approx(20.0)
    assert metrics.max_abs(x, y) == (0.5, (1,))
    assert metrics.cosine(x, -x) == pytest.approx(-1.0)
    assert metrics.rel_l2(x, x) == 0
    assert metrics.sqnr_db(x, x) == math.inf


def test_distances_of_zeros_and_nothing():
    zeros, ones = np.zeros(3), np.ones(3)
    assert metrics.rel_l2(zeros, zeros) == 0
    assert metrics.rel_l2(zeros, ones) == math.inf
    assert metrics.sqnr_db(zeros, ones) == -math.inf
    assert metrics.max_abs(np.zeros((0, 2)), np.zeros((0, 2))) == (0.0, ())


@given(st.integers(0, 2**32 - 1), st.floats(0.125, 8))
def test_rel_l2_does_not_depend_on_a_common_scale(seed, scale):
    rng = np.random.default_rng(seed)
    x, y = rng.standard_normal((2, 17))
    assert metrics.rel_l2(x * scale, y * scale) == pytest.approx(metrics.rel_l2(x, y))


def test_tensor_error_has_every_number(rng):
    x = rng.standard_normal((2, 3, 4)).astype(np.float32)
    y = x.copy()
    y[1, 2, 3] += 1
    y[0] = 0
    error = metrics.tensor_error("t", x, y, sample="a.png")
    assert error.rel_l2 == metrics.rel_l2(x, y)
    assert error.sqnr_db == metrics.sqnr_db(x, y)
    assert error.cosine == metrics.cosine(x, y)
    assert (error.max_abs, error.max_abs_index) == metrics.max_abs(x, y)
    assert error.zero_fraction == 0.5
    assert (error.name, error.worst_sample, error.nans, error.problem) == ("t", "a.png", 0, None)


def test_tensor_error_of_a_nan_is_infinite_and_points_at_it():
    x = np.ones((2, 2), np.float32)
    y = x.copy()
    y[1, 0] = np.nan
    error = metrics.tensor_error("t", x, y)
    assert (error.rel_l2, error.sqnr_db, error.nans, error.max_abs_index) == (math.inf, -math.inf, 1, (1, 0))


def test_tensor_error_takes_equal_nans_and_infinities_as_equal():
    x = np.array([np.nan, np.inf, -np.inf, 2.0])
    assert metrics.tensor_error("t", x, x).rel_l2 == 0
    error = metrics.tensor_error("t", x, np.array([np.nan, np.inf, -np.inf, 3.0]))
    assert (error.rel_l2, error.nans) == (0.5, 0)


def test_tensor_error_where_the_original_alone_is_not_finite():
    error = metrics.tensor_error("t", np.array([np.inf, 1.0]), np.array([7.0, 1.0]))
    assert (error.rel_l2, error.nans) == (math.inf, 0)


def test_tensor_error_never_compares_other_shapes():
    error = metrics.tensor_error("t", np.zeros((1, 9)), np.zeros((1, 8)))
    assert error.problem == "shape [1, 8] instead of [1, 9]"
    assert math.isnan(error.rel_l2)
    assert metrics.tensor_error("t", np.zeros(1), None).problem == "cannot be read"


def test_tensor_error_of_integers_text_and_nothing():
    assert metrics.tensor_error("t", np.array([True, False]), np.array([True, True])).rel_l2 == 1
    large = np.array([2**40], np.int64)
    assert metrics.tensor_error("t", large, large).rel_l2 == 0
    assert metrics.tensor_error("t", np.array(["a", "b"]), np.array(["a", "c"])).rel_l2 == math.inf
    assert metrics.tensor_error("t", np.array(["a"], object), np.array(["a"], object)).rel_l2 == 0
    assert metrics.tensor_error("t", np.zeros((0, 3)), np.zeros((0, 3))).rel_l2 == 0
    assert metrics.tensor_error("t", np.array(2.0), np.array(3.0)).max_abs_index == ()


def test_worse_keeps_the_worse_of_each_number():
    a = TensorError(
        name="t", rel_l2=0.1, sqnr_db=20, cosine=0.9, max_abs=1, max_abs_index=(1,), worst_sample="a", nans=1
    )
    b = TensorError(
        name="t", rel_l2=0.2, sqnr_db=14, cosine=0.95, max_abs=0.5, max_abs_index=(2,), worst_sample="b", nans=2
    )
    both = metrics.worse(a, b)
    assert (both.rel_l2, both.worst_sample, both.sqnr_db, both.cosine) == (0.2, "b", 14, 0.9)
    assert (both.max_abs, both.max_abs_index, both.nans) == (1, (1,), 3)
    assert metrics.worse(b, a).worst_sample == "b"
    assert metrics.worse(None, a) is a


def test_worse_keeps_a_problem():
    broken = TensorError(name="t", problem="cannot be read")
    assert metrics.worse(TensorError(name="t", rel_l2=0.0), broken).problem
    assert metrics.worse(broken, TensorError(name="t", rel_l2=0.0)).problem


# --- bounds -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [(81, 263, 0.2527, 0.3676), (15, 148, 0.0578, 0.1617), (0, 20, 0.0, 0.1684), (1, 29, 0.0009, 0.1776)],
)
def test_clopper_pearson_against_published_values(successes, trials, low, high):
    """Source: Newcombe 1998, Statistics in Medicine 17, table I, exact method."""
    bounds = metrics.clopper_pearson(successes, trials)
    assert tuple(round(bound, 4) for bound in bounds) == (low, high)


@pytest.mark.parametrize("trials", [1, 2, 7, 20, 100, 750, 5000, 1_000_000])
@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.999])
def test_clopper_pearson_against_scipy(trials, confidence):
    tail = (1 - confidence) / 2
    for successes in sorted({0, 1, trials // 3, trials // 2, trials - 1, trials}):
        low, high = metrics.clopper_pearson(successes, trials, confidence)
        expected_low = stats.beta.ppf(tail, successes, trials - successes + 1) if successes else 0
        expected_high = stats.beta.ppf(1 - tail, successes + 1, trials - successes) if successes < trials else 1
        assert low == pytest.approx(expected_low, rel=1e-9, abs=1e-12)
        assert high == pytest.approx(expected_high, rel=1e-9, abs=1e-12)


def test_no_trials_bound_nothing():
    assert metrics.clopper_pearson(0, 0) == (0.0, 1.0)
    assert metrics.unseen_share(0) == 1.0


@pytest.mark.parametrize("required", [0.5, 0.9, 0.98, 0.995])
def test_trials_needed_is_the_fewest(required):
    count = metrics.trials_needed(required)
    assert metrics.clopper_pearson(count, count)[0] >= required
    assert metrics.clopper_pearson(count - 1, count - 1)[0] < required
    assert metrics.samples_to_decide(0, 0, required) == count
    assert 1 - metrics.unseen_share(count) == pytest.approx(metrics.clopper_pearson(count, count)[0])


@pytest.mark.parametrize(("successes", "trials"), [(20, 20), (99, 100), (19, 20), (198, 200), (97, 100)])
def test_samples_to_decide_do_decide(successes, trials):
    more = metrics.samples_to_decide(successes, trials, 0.98)
    assert more
    total = trials + more
    low, high = metrics.clopper_pearson(round(successes / trials * total), total)
    assert low >= 0.98 or high < 0.98


@pytest.mark.parametrize("trials", [149, 183, 200, 380, 1000])
def test_share_to_pass_is_the_least_that_does(trials):
    share = metrics.share_to_pass(0.97, trials)
    successes = round(share * trials)
    assert metrics.clopper_pearson(successes, trials)[0] >= 0.97
    assert metrics.clopper_pearson(successes - 1, trials)[0] < 0.97


def test_share_to_pass_is_none_where_no_share_does():
    assert metrics.share_to_pass(0.98, 100) is None
    assert metrics.share_to_pass(1.0, 100) is None
    assert metrics.share_to_pass(0.98, 0) is None


def test_samples_to_decide_says_when_none_would():
    assert metrics.samples_to_decide(98, 100, 0.98) is None
    assert metrics.samples_to_decide(20, 20, 1.0) is None
    assert metrics.samples_to_decide(50, 100, 0.98) == 0
    assert metrics.samples_to_decide(500, 500, 0.98) == 0


def test_bootstrap_of_equal_and_of_no_values():
    assert metrics.bootstrap([2.0, 2.0, 2.0]) == (2.0, 2.0)
    assert all(math.isnan(bound) for bound in metrics.bootstrap([]))
    assert all(math.isnan(bound) for bound in metrics.bootstrap_paired(0, lambda indices: 0.0))


def test_bootstrap_covers_about_as_often_as_it_says():
    """Means of 80 draws from an exponential distribution (mean 1), 300 repetitions: 95 % +- 3.8 (three sigma), and the
    percentile method is known to cover a little less on skewed data."""
    rng = np.random.default_rng(5)
    covered = 0
    for repetition in range(300):
        low, high = metrics.bootstrap(rng.exponential(1.0, 80), resamples=400, seed=repetition)
        covered += low <= 1.0 <= high
    assert 0.88 <= covered / 300 <= 0.99


def test_bootstrap_paired_agrees_with_bootstrap_on_a_mean(rng):
    values = rng.standard_normal(200)
    paired = metrics.bootstrap_paired(200, lambda indices: values[indices].mean(), resamples=2000, seed=3)
    plain = metrics.bootstrap(values, seed=4)
    width = plain[1] - plain[0]
    assert abs(paired[0] - plain[0]) < width / 10
    assert abs(paired[1] - plain[1]) < width / 10


def test_bootstrap_repeats_with_its_seed(rng):
    values = rng.standard_normal(50)
    assert metrics.bootstrap(values, seed=1) == metrics.bootstrap(values, seed=1)
    assert metrics.bootstrap(values, seed=1) != metrics.bootstrap(values, seed=2)

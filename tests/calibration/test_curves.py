"""The curve families on bins: log-linear, shrinkage, isotonic."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from calibration.binned import BinnedResponses
from calibration.errors import CalibrationError
from calibration.families import BINARY, CONTINUOUS, COUNT, ResponseFamily, expit, logit
from calibration.forms import CurveForm
from calibration.forms.isotonic import fit_isotonic, pool_adjacent_violators
from calibration.forms.loglinear import RIDGE, loglinear_design
from calibration.forms.nonnegative import fit_non_negative
from calibration.forms.shrinkage import dispersion, shrink_to_curve
from calibration.quantiles import QuantileTable
from calibration.rows import CalibrationRows

FORMS = [
    CurveForm("loglinear"),
    CurveForm("loglinear", "all"),
    CurveForm("loglinear", is_shrunken=True),
    CurveForm("loglinear", "all", is_shrunken=True),
    CurveForm("spline"),
    CurveForm("spline", curvature=1.0, is_shrunken=True),
    CurveForm("isotonic"),
    CurveForm("steps"),
    CurveForm("sigmoid"),
]

BINS = st.lists(st.tuples(st.integers(0, 8), st.integers(0, 12)), min_size=2, max_size=40)


def _binned(responses: np.ndarray, exposure: np.ndarray, table: QuantileTable | None = None) -> BinnedResponses:
    table = table or QuantileTable.fit(np.arange(responses.size, dtype=float))
    return BinnedResponses(table, responses, exposure, responses, exposure)


def _at(quantile: np.ndarray, responses: np.ndarray, exposure: np.ndarray) -> BinnedResponses:
    place = np.arange(quantile.size, dtype=float)
    return _binned(responses, exposure, QuantileTable(place, place, quantile, np.ones(quantile.size)))


@pytest.mark.parametrize("form", FORMS)
@settings(deadline=None, max_examples=40)
@given(counts=BINS)
def test_fit_is_monotone_and_inside_for_any_counts(form: CurveForm, counts: list[tuple[int, int]]) -> None:
    positives, negatives = np.array(counts, dtype=float).T
    values = form.fit(_binned(positives, positives + negatives))
    assert np.all((values > 0) & (values < 1))
    assert np.all(np.diff(values) >= 0)


@pytest.mark.parametrize("form", FORMS)
def test_fit_survives_more_responses_than_expected_examinations(form: CurveForm) -> None:
    values = form.fit(_binned(np.array([0.0, 1, 2, 3, 9, 8]), np.full(6, 5.0)))
    assert np.all((values > 0) & (values < 1) & np.isfinite(values))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method": "shrunken"}, "unknown method 'shrunken'; known: loglinear, spline"),
        ({"method": "auto"}, "unknown method 'auto'"),
        ({"transforms": "some"}, "unknown transforms 'some'"),
        ({"response": "counts"}, "unknown response 'counts'; known: binary, count, continuous"),
        ({"curvature": 0.0}, "curvature is 0.0"),
        ({"curvature": float("inf")}, "curvature is inf"),
        ({"curvature": True}, "curvature of a form is True"),
        ({"is_shrunken": 1}, "is_shrunken of a form is 1"),
        ({"method": None}, "method of a form is None"),
        ({"extra": 1}, "a form has the fields"),
    ],
)
def test_form_refuses_what_it_does_not_know(change: dict[str, object], message: str) -> None:
    content = {
        "method": "spline",
        "transforms": "rank",
        "response": "binary",
        "curvature": 100.0,
        "is_shrunken": False,
    }
    assert CurveForm.from_dict(content) == CurveForm("spline")
    with pytest.raises(CalibrationError, match=message):
        CurveForm.from_dict({**content, **change})


def test_pool_adjacent_violators_matches_the_textbook_min_max_formula() -> None:
    rng = np.random.default_rng(0)
    values, weight = rng.normal(size=12), rng.integers(1, 5, 12).astype(float)

    def mean(first: int, last: int) -> float:
        return float(np.average(values[first : last + 1], weights=weight[first : last + 1]))

    expected = [max(min(mean(a, b) for b in range(j, 12)) for a in range(j + 1)) for j in range(12)]
    np.testing.assert_allclose(pool_adjacent_violators(values, weight), expected)


def test_isotonic_keeps_separated_bins_and_replaces_exact_zeros_and_ones() -> None:
    quantile = np.array([0.1, 0.3, 0.5, 0.9])
    binned = _at(quantile, np.array([0.0, 2.0, 5.0, 10.0]), np.full(4, 10.0))
    values = fit_isotonic(binned, BINARY, is_centred=False)
    np.testing.assert_allclose(values, [0.5 / 11, 0.2, 0.5, 1 - 0.5 / 11])


def test_isotonic_pseudo_count_never_passes_the_next_block() -> None:
    # One unseen row below a thousand rows of rate 1 %: (1/2) / 2 would be 25 times the better rows' rate.
    binned = _at(np.array([0.01, 0.5]), np.array([0.0, 10.0]), np.array([1.0, 1000.0]))
    np.testing.assert_allclose(fit_isotonic(binned, BINARY, is_centred=False), [0.01, 0.01])
    np.testing.assert_allclose(fit_isotonic(binned, BINARY), 10.0 / 1001.0)


def test_isotonic_joins_pooled_blocks_at_their_centres() -> None:
    quantile = np.array([0.1, 0.2, 0.5, 0.8, 0.9])
    positives = np.array([2.0, 2, 2, 8, 8])
    values = fit_isotonic(_at(quantile, positives, np.full(5, 10.0)), BINARY)
    low, high = quantile[:3].mean(), quantile[3:].mean()
    joined = np.interp(quantile, [low, high], [0.2, 0.8])
    shift = logit(values) - logit(joined)
    np.testing.assert_allclose(shift, shift[0])
    assert values.mean() == pytest.approx(positives.sum() / 50)
    blocks = fit_isotonic(_at(quantile, positives, np.full(5, 10.0)), BINARY, is_centred=False)
    np.testing.assert_allclose(blocks, [0.2, 0.2, 0.2, 0.8, 0.8])


def test_isotonic_predicts_bins_without_exposure_from_their_neighbours() -> None:
    quantile = np.array([0.1, 0.4, 0.5, 0.9])
    binned = _at(quantile, np.array([1.0, 0, 0, 6.0]), np.array([10.0, 0, 0, 10.0]))
    for is_centred in (True, False):
        values = fit_isotonic(binned, BINARY, is_centred=is_centred)
        np.testing.assert_allclose(values, np.interp(quantile, [0.1, 0.9], [0.1, 0.6]))


@settings(deadline=None, max_examples=60)
@given(counts=BINS)
def test_centred_isotonic_keeps_the_mean_response(counts: list[tuple[int, int]]) -> None:
    positives, negatives = np.array(counts, dtype=float).T
    binned = _binned(positives, positives + negatives)
    if 0 < positives.sum() < binned.exposure.sum():
        values = fit_isotonic(binned, BINARY)
        assert binned.exposure @ values == pytest.approx(positives.sum(), rel=1e-9)
    if positives.sum() > 0:
        counted = fit_isotonic(binned, COUNT)
        assert binned.exposure @ counted == pytest.approx(positives.sum(), rel=1e-9)


@pytest.mark.parametrize("place", [0, 500, 999])
def test_isotonic_spreads_one_click_in_a_thousand_rows_sanely(place: int) -> None:
    clicks = (np.arange(1000) == place).astype(float)
    values = fit_isotonic(_binned(clicks, np.ones(1000)), BINARY)
    assert values.sum() == pytest.approx(1.0)
    assert values.max() < 0.52
    assert values[0] < 0.002


@pytest.mark.parametrize("transforms", ["rank", "all"])
def test_loglinear_recovers_a_curve_of_its_own_family_exactly_on_expected_counts(transforms: str) -> None:
    table = QuantileTable.fit(np.random.default_rng(0).normal(size=4000), n_bins=200)
    truth = expit(-3.0 + 0.4 * np.log(table.quantile) - 0.7 * np.log1p(-table.quantile))
    exposure = table.weight * 1e4  # so many rows that the ridge does not count
    binned = _binned(truth * exposure, exposure, table)
    np.testing.assert_allclose(CurveForm("loglinear", transforms).fit(binned), truth, rtol=1e-3)


def test_loglinear_minimises_its_loss_as_well_as_lbfgs() -> None:
    rng = np.random.default_rng(3)
    table = QuantileTable.fit(rng.beta(1, 9, size=500), n_bins=100)
    truth = 0.5 * table.centre
    positives = rng.binomial(table.weight.astype(int), truth).astype(float)
    design = loglinear_design(table, "all")
    assert design.shape[1] == 9  # three of ranks, two of any score, four of a score in [0, 1]

    def loss(parameters: np.ndarray) -> float:
        eta = parameters[0] + design @ parameters[1:]
        penalty = RIDGE / 2 * float(parameters[1:] @ parameters[1:])
        return float(BINARY.loss(eta, positives, table.weight).sum()) + penalty

    values = fit_non_negative(design, RIDGE * np.eye(9), _binned(positives, table.weight, table), BINARY)
    bounds = [(None, None)] + [(0, None)] * design.shape[1]
    peer = minimize(loss, np.zeros(1 + design.shape[1]), method="L-BFGS-B", bounds=bounds, options={"maxiter": 2000})
    found, _, rank, _ = np.linalg.lstsq(np.column_stack([np.ones(design.shape[0]), design]), logit(values))
    assert rank == 10  # the values determine the coefficients
    assert found[1:].min() >= -1e-5
    assert loss(found) <= peer.fun + 1e-6


def test_loglinear_is_flat_when_responses_fall_with_the_score() -> None:
    table = QuantileTable.fit(np.arange(50.0))
    positives = np.linspace(9.0, 1.0, 50)
    binned = _binned(positives, np.full(50, 10.0), table)
    for method in ("loglinear", "sigmoid", "spline", "isotonic", "steps"):
        np.testing.assert_allclose(CurveForm(method).fit(binned), 0.5)


def test_loglinear_leaves_out_transforms_that_overflow() -> None:
    table = QuantileTable.fit(np.array([-1.7e308, -1.0, 0.0, 1.0, 1.7e308]))
    binned = _binned(np.array([0.0, 1, 1, 2, 3]), np.full(5, 4.0), table)
    for method in ("loglinear", "sigmoid"):
        values = CurveForm(method, "all").fit(binned)
        assert np.all(np.isfinite(values))
        assert np.all(np.diff(values) >= 0)


def test_loss_of_examined_rows_is_smallest_at_responses_per_examination() -> None:
    grid = np.linspace(0.01, 0.99, 99)
    losses = [BINARY.loss(logit(np.array([p])), np.array([30.0]), np.array([100.0]))[0] for p in grid]
    assert grid[int(np.argmin(losses))] == pytest.approx(0.30)


def test_shrinkage_leaves_a_curve_that_fits_alone() -> None:
    smooth = expit(np.linspace(-3.0, 0.0, 200))
    exposure = np.full(200, 100.0)
    np.testing.assert_array_equal(shrink_to_curve(smooth, _binned(smooth * exposure, exposure), BINARY), smooth)


def test_shrinkage_is_stronger_the_fewer_the_rows() -> None:
    smooth, step = np.full(100, 0.1), np.where(np.arange(100) < 60, 0.05, 0.15)

    def distance_left(rows_per_bin: float) -> float:
        exposure = np.full(100, rows_per_bin)
        return float(np.abs(shrink_to_curve(smooth, _binned(step * exposure, exposure), BINARY) - step).mean())

    few, some, many = distance_left(5.0), distance_left(50.0), distance_left(5000.0)
    assert few > some > many
    assert few > 0.02
    assert many < 0.004


def test_shrinkage_trusts_overdispersed_counts_less() -> None:
    smooth, step, exposure = np.full(100, 2.0), np.where(np.arange(100) < 50, 1.5, 2.5), np.full(100, 20.0)

    def moved(variance: float) -> float:
        squares = exposure * (step**2 + variance)
        binned = BinnedResponses(QuantileTable.fit(np.arange(100.0)), step * exposure, exposure, squares, exposure)
        assert dispersion(smooth, binned, COUNT) == pytest.approx((variance + 0.25) / 2.0, rel=1e-3)
        return float(np.abs(shrink_to_curve(smooth, binned, COUNT) - smooth).mean())

    assert moved(2.0) > moved(8.0) > moved(400.0) == 0.0


def test_dispersion_of_a_part_of_the_rows_counts_these_only() -> None:
    table, part = QuantileTable.fit(np.arange(100.0)), np.full(100, 0.5)
    binned = BinnedResponses(table, 3.0 * part, part, part * (9.0 + 4.0), part)
    assert dispersion(np.full(100, 3.0), binned, COUNT) == pytest.approx(4.0 / 3.0 * 50 / 49)


@pytest.mark.parametrize(("family", "mean"), [(BINARY, 0.5), (CONTINUOUS, 2.0), (COUNT, 2.0)])
def test_shrinkage_leaves_a_true_curve_alone_as_often_where_rows_are_examined_less(
    family: ResponseFamily, mean: float
) -> None:
    departures = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        examined = np.full(4000, 0.2)
        if family is BINARY:
            response = rng.binomial(1, mean * examined).astype(float)
        elif family is COUNT:
            response = rng.poisson(mean * examined).astype(float)
        else:
            response = mean * examined + rng.normal(size=4000)
        rows = CalibrationRows.checked(rng.normal(size=4000), response, examination=examined, family=family)
        smooth = np.full(1000, mean)
        binned = BinnedResponses.of(rows)
        departures.append(np.ptp(shrink_to_curve(smooth[: binned.responses.size], binned, family)) > 0)
    assert np.mean(departures) < 0.75


def test_shrinkage_weighs_bins_by_their_own_rows() -> None:
    # a segment whose rows are few at the top, where the ranker has most of its own
    table = QuantileTable.fit(np.arange(4.0), np.array([1.0, 1.0, 1.0, 1000.0]))
    exposure = np.array([4000.0, 4000.0, 4000.0, 40.0])
    responses = exposure * np.array([0.1, 0.3, 0.5, 0.02])
    values = shrink_to_curve(np.full(4, 0.3), BinnedResponses(table, responses, exposure, responses, exposure), BINARY)
    assert exposure @ values == pytest.approx(responses.sum(), rel=0.03)

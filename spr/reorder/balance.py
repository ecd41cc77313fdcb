"""Whether the random bucket is what it is said to be: the right share, of requests, of all kinds, and shuffled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, cast

import numpy as np
import pandas as pd
from scipy.stats import binomtest, norm, pearson3, skew

from spr.errors import ConfigError, TableError
from spr.multiplicity import holm
from spr.tables import load_table, read_viewers, require_columns

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from spr.tables import Table

    Floats = NDArray[np.float64]
    Booleans = NDArray[np.bool_]

_COLUMNS: Final = ["request_id", "at", "viewer_id", "policy", "cohort_id", "entity_type", "position", "raw_score"]
_REPORTED: Final = ["observed", "expected", "difference", "z", "p_value"]
_EXCEEDANCES: Final = 50
_MOST_DRAWS, _FEWEST_DRAWS, _WORK = 9_999, 999, 200_000_000
_TOGETHER: Final = 0.01
_LEAST: Final = 30  # random and other requests, each, before their means are compared


@dataclass(frozen=True, eq=False)
class BucketCheck:
    """What speaks for and against the random bucket of a log.

    Parameters
    ----------
    tests : DataFrame
        Indexed by question (``share``, ``viewers``, ``covariate``, ``position``) and what was looked at: ``observed``
        and ``expected`` figure, ``difference`` (in standard deviations for covariates, else observed - expected), its
        ``z`` (null where the test has none), ``p_value``, and ``adjusted``, the p-value by Holm over all tests.
    share : float
        Of the requests that should be random.
    n_requests, n_random : int
        Requests of the log, and of these random ones.
    alpha : float
        An adjusted p-value below it is a finding.
    """

    tests: pd.DataFrame
    share: float
    n_requests: int
    n_random: int
    alpha: float

    @property
    def passed(self) -> bool:
        """Whether nothing was found."""
        return not self._found.any()

    @property
    def sentences(self) -> list[str]:
        """What was found and what to do about it, a sentence each; or that nothing was."""
        if self.passed:
            return [
                f"{self.n_random:,} of {self.n_requests:,} requests are random; in {len(self.tests)} tests nothing "
                f"speaks against a bucket of {self.share:.3g} by request, shuffled uniformly."
            ]
        said = []
        for key, row in self.tests[self._found].iterrows():
            question, what = map(str, cast("tuple[str, str]", key))
            p_value = f"(adjusted p {row['adjusted']:.2g})"
            said.append(
                {
                    "share": f"{row['observed']:.3%} of the requests are random, not {row['expected']:.3%} {p_value}: "
                    "compare exploration.random_share of the bundles that served, and see whether pages of one kind "
                    "are lost from the log.",
                    "viewers": f"The same viewers get random pages again and again {p_value}: "
                    f"{row['observed']:,.0f} pairs of them with one viewer, {row['expected']:,.1f} expected. Assign by "
                    "a salted hash of the request id, never of the viewer or the session.",
                    "covariate": f"Random requests differ from the others in {what} by {row['difference']:.2f} "
                    f"standard deviations {p_value}: see whether some surface, client or hour skips the random policy, "
                    "or whether its pages are logged differently.",
                    "position": f"On random pages, {what} stand {abs(row['difference']):.2f} positions too "
                    f"{'low' if row['difference'] > 0 else 'high'} {p_value}: the pages are not shuffled uniformly, or "
                    "guarantees, discounts or sorting were on. Nothing may be learnt from them as random.",
                }[question]
            )
        return said

    @property
    def _found(self) -> Booleans:
        return np.asarray(self.tests["adjusted"].to_numpy() < self.alpha)

    def to_pandas(self) -> pd.DataFrame:
        """Return the tests with a column ``suspect``, the most suspect ones first."""
        return self.tests.assign(suspect=self._found).sort_values("p_value", kind="stable")


def check_random_bucket(
    impressions: Table, share: float = 0.05, viewers: Table | None = None, *, alpha: float = 0.001
) -> BucketCheck:
    """Check the random bucket of a log: its share, its viewers, its balance, and whether its pages are shuffled.

    Parameters
    ----------
    impressions : DataFrame or path
        request_id, at, viewer_id, policy ("random" or another), cohort_id, entity_type, position, raw_score (null =
        not scorable). All policies: a table of random pages only has nothing to compare.
    share : float, default 0.05
        Of the requests that should be random, in (0, 1).
    viewers : DataFrame or path, optional
        Its numeric and boolean columns are compared, too; with ``at``, as they were at the request.
    alpha : float, default 0.001
        The chance of a finding where there is nothing wrong. 0.001 is the convention of sample-ratio checks, which
        are made again and again (Fabijan et al., KDD 2019).

    Returns
    -------
    BucketCheck

    Raises
    ------
    TableError
        A missing column, no rows, a null, or a request with two policies, viewers or moments.
    ConfigError
        A share or alpha outside (0, 1).

    Notes
    -----
    *share*: exact two-sided binomial test of the number of random requests.

    *viewers*: pairs of random requests of one viewer, a score test for overdispersion of the viewers' shares
    (Tarone 1979, without the part that the total fixes), one-sided, against bucketing by viewer. The distribution is by
    Monte Carlo, given the number of random requests: these are drawn anew among all requests; no approximation for
    small counts. Draws stop after 50 as large (Besag and Clifford 1991), else at 9,999; where none is as large, the
    tail beyond them is that of the Pearson III distribution with their mean, variance and skewness.

    *covariate*: random requests against the others by the part of the day (UTC), the number of cohorts, the share of
    each entity type and the viewers' columns. The variance is the exact one of an assignment by request. Where the
    test of the viewers says (p < 0.01) that requests of a viewer go together, it is the one clustered by viewer, if
    that is larger, so that one fault is not found many times. Skipped below 30 requests on a side.

    *position*: on the random pages, cohorts that have a scorable entity; with weights w of a page's n cohorts, fixed
    before the shuffle, the sum of w (position - (n - 1) / 2) has mean 0 and variance n (n + 1) / 12 times the sum of
    (w - mean of w) squared under a uniform permutation, exactly, and pages are independent. The weights are the
    indicator of each type, and the cohort's mean raw score, standardised within its type and ranker.

    All p-values are adjusted together by Holm's method.

    Examples
    --------
    >>> from simulations import World
    >>> log = World(200, seed=1).impressions(2000, random_share=0.05)
    >>> check_random_bucket(log).passed
    True
    >>> print(check_random_bucket(log, share=0.1).sentences[0][:52])
    5.750% of the requests are random, not 10.000% (adju
    """
    for name, value in (("share", share), ("alpha", alpha)):
        if not 0.0 < value < 1.0:
            raise ConfigError(f"check_random_bucket: {name} is {value}; allowed: between 0 and 1, without them")
    requests, cohorts = _read(impressions)
    random = requests["random"].to_numpy()
    found = {("share", "all requests"): _share(random, share)}
    repeated = _viewers(random, requests["viewer"].to_numpy())
    if repeated is not None:
        found["viewers", "random requests of one viewer"] = repeated
    if min(random.sum(), (~random).sum()) >= _LEAST:
        together = repeated is not None and repeated[-1] < _TOGETHER
        cluster = requests["viewer"].to_numpy() if together else np.arange(len(requests))
        for name, covariate in _covariates(requests, cohorts, viewers):
            there = ~np.isnan(covariate)
            tested = _difference(covariate[there], random[there], cluster[there])
            if tested is not None:
                found["covariate", name] = tested
    shuffled = cohorts[cohorts["random"] & cohorts["score"].notna()]
    for name, weight in _weights(shuffled):
        tested = _displacement(shuffled, weight)
        if tested is not None:
            found["position", name] = tested
    tests = pd.DataFrame.from_dict(found, orient="index", columns=_REPORTED)
    tests.index = pd.MultiIndex.from_tuples(list(found), names=["question", "what"])
    tests["adjusted"] = holm(tests["p_value"].to_numpy())
    return BucketCheck(tests, share, len(requests), int(random.sum()), alpha)


_Tested = tuple[float, float, float, float, float]
"""observed, expected, difference, z, p_value"""


def _read(impressions: Table) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return a row per request (viewer, at, random) and a row per cohort (its request's number, random, score ...)."""
    table = load_table(impressions, "impressions")
    require_columns(table, "impressions", _COLUMNS)
    if table.empty:
        raise TableError("impressions: the table has no rows")
    for column in _COLUMNS[:-1]:
        null = table[column].isna().to_numpy()
        if null.any():
            raise TableError(f"impressions: {column} is null in {null.sum():,} of {len(table):,} rows")
    code, names = pd.factorize(table["request_id"])
    first = np.unique(code, return_index=True)[1]
    for column in ("policy", "viewer_id", "at"):
        values = table[column].to_numpy()
        torn = np.asarray(values != values[first][code])
        if torn.any():
            raise TableError(
                f"impressions: {column} is not constant within a request in {torn.sum():,} of {len(table):,} rows; "
                f"first: request_id={names[code[int(torn.argmax())]]!r}"
            )
    of_request = table.iloc[first]
    requests = pd.DataFrame(
        {
            "viewer_id": of_request["viewer_id"].astype(object).map(str).to_numpy(),
            "viewer": pd.factorize(of_request["viewer_id"])[0],
            "at": pd.to_datetime(of_request["at"].to_numpy(), utc=True).tz_convert(None),
            "random": (of_request["policy"] == "random").to_numpy(),
        }
    )
    version = table["ranker_version"].astype(str) if "ranker_version" in table else ""
    rows = table[["cohort_id", "entity_type", "position"]].assign(
        request=code,
        ranker=table["entity_type"].astype(str) + " " + version,
        score=table["raw_score"].astype(np.float64),
    )
    cohorts = rows.groupby(["request", "cohort_id"], sort=False).agg(
        **{name: (name, "first") for name in ("entity_type", "position", "ranker")}, score=("score", "mean")
    )
    cohorts = cohorts.reset_index()
    cohorts["random"] = requests["random"].to_numpy()[cohorts["request"]]
    return requests, cohorts


def _share(random: Booleans, share: float) -> _Tested:
    n, k = len(random), int(random.sum())
    z = (k - n * share) / np.sqrt(n * share * (1 - share))
    return k / n, share, k / n - share, float(z), float(binomtest(k, n, share).pvalue)


def _viewers(random: Booleans, viewer: NDArray[np.intp]) -> _Tested | None:
    """Count pairs of random requests of one viewer, and draw the random ones anew."""
    n, k = len(random), int(random.sum())
    size = np.bincount(viewer).astype(np.float64)
    pairs = float((size * (size - 1)).sum() / 2)
    if pairs == 0 or k < 2 or k == n:
        return None

    def repeated(chosen: NDArray[np.intp]) -> float:
        count = np.unique(viewer[chosen], return_counts=True)[1].astype(np.float64)
        return float((count * (count - 1)).sum() / 2)

    observed, expected = repeated(np.flatnonzero(random)), pairs * k * (k - 1) / (n * (n - 1))
    rng = np.random.default_rng(0)
    most = int(np.clip(_WORK // k, _FEWEST_DRAWS, _MOST_DRAWS))
    drawn: list[float] = []
    as_large = 0
    while as_large < _EXCEEDANCES and len(drawn) < most:
        drawn.append(repeated(rng.choice(n, size=k, replace=False, shuffle=False)))
        as_large += drawn[-1] >= observed
    p_value = as_large / len(drawn) if as_large == _EXCEEDANCES else (as_large + 1) / (most + 1)
    if as_large == 0 and max(drawn) > min(drawn):
        # Otherwise no p-value could survive the adjustment for many tests.
        p_value = min(p_value, float(pearson3.sf(observed, skew(drawn), np.mean(drawn), np.std(drawn))))
    return observed, expected, observed - expected, float("nan"), p_value


def _covariates(
    requests: pd.DataFrame, cohorts: pd.DataFrame, viewers: Table | None
) -> Iterator[tuple[str, NDArray[np.float64]]]:
    hour = requests["at"].dt.hour.to_numpy()
    for start in (0, 6, 12):  # the last quarter of the day is what is left
        yield f"hour {start}-{start + 5}", ((hour >= start) & (hour < start + 6)).astype(np.float64)
    n_cohorts = np.bincount(cohorts["request"], minlength=len(requests)).astype(np.float64)
    yield "cohorts of the page", n_cohorts
    for entity_type, own in cohorts.groupby("entity_type", sort=True):
        yield f"share of {entity_type}", np.bincount(own["request"], minlength=len(requests)) / n_cohorts
    if viewers is None:
        return
    table = read_viewers(viewers)
    columns = [c for c in table.columns if table[c].dtype.kind in "fiub" and c != "at"]
    if "at" in table:
        left = requests[["viewer_id", "at"]].assign(
            viewer_id=requests["viewer_id"].astype(object),
            at=requests["at"].astype("datetime64[us]"),
            row=requests.index,
        )
        right = table[["viewer_id", "at", *columns]].sort_values("at", kind="stable")
        joined = pd.merge_asof(left.sort_values("at", kind="stable"), right, on="at", by="viewer_id").set_index("row")
        joined = joined.sort_index()
    else:
        joined = table.set_index("viewer_id")[columns].reindex(requests["viewer_id"])
    for column in columns:
        yield f"viewer's {column}", joined[column].to_numpy(dtype=np.float64, na_value=np.nan)


def _difference(value: Floats, random: Booleans, cluster: NDArray[np.intp]) -> _Tested | None:
    n, k = len(value), int(random.sum())
    spread = float(value.std()) if n else 0.0
    if min(k, n - k) < _LEAST or spread <= 1e-12 * max(1.0, float(np.abs(value).max(initial=0.0))):
        return None
    of_random, of_others = float(value[random].mean()), float(value[~random].mean())
    excess = (random - k / n) * (value - value.mean())
    variance = k * (n - k) / (n - 1) * spread**2
    if len(np.unique(cluster)) < n:
        variance = max(variance, float((np.bincount(cluster, excess) ** 2).sum()))
    z = float(excess.sum() / np.sqrt(variance))
    return of_random, of_others, (of_random - of_others) / spread, z, float(2 * norm.sf(abs(z)))


def _weights(cohorts: pd.DataFrame) -> Iterator[tuple[str, Floats]]:
    for entity_type in sorted(cohorts["entity_type"].unique()):
        yield f"cohorts of {entity_type}", (cohorts["entity_type"] == entity_type).to_numpy(dtype=np.float64)
    score = cohorts.groupby("ranker")["score"]
    spread = score.transform("std").to_numpy()
    centred = (cohorts["score"] - score.transform("mean")).to_numpy()
    yield (
        "cohorts of a raw score a standard deviation higher",
        np.where(spread > 0, centred / np.where(spread > 0, spread, 1.0), 0.0),
    )


def _displacement(cohorts: pd.DataFrame, weight: Floats) -> _Tested | None:
    """Compare positions with a uniform permutation of each page."""
    page = cohorts["request"].to_numpy()
    order = np.lexsort((cohorts["position"], page))
    page, weight = page[order], weight[order]
    _, first, page, size = np.unique(page, return_index=True, return_inverse=True, return_counts=True)
    position = np.arange(len(page)) - first[page]  # among the cohorts that were shuffled
    centred = weight - (np.bincount(page, weight) / size)[page]
    n = size[page].astype(np.float64)
    variance = float((centred**2 * n * (n + 1) / 12).sum())
    if variance <= 0:
        return None
    middle = (n - 1) / 2
    z = float((centred * (position - middle)).sum() / np.sqrt(variance))
    slope = float((centred * (position - middle)).sum() / (centred**2).sum())
    return slope, 0.0, slope, z, float(2 * norm.sf(abs(z)))

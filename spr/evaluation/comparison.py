"""A ranker beside its baselines on the same held-out pages, with intervals over viewers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from spr import tables
from spr.assembly import assemble
from spr.errors import TableError
from spr.evaluation.baselines import fit_baselines
from spr.examples import collect_examples
from spr.metrics import MetricsTable, Prediction, evaluate_predictions, paired_difference
from spr.progress import Progress, ignore

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from spr.ranker import SecondPassRanker
    from spr.tables import Table

SPR = "SPR"
FIXED_ONLY = "SPR, fixed effect only"
SHOWN = ("normalized_cross_entropy", "ndcg", "auc", "top1_rate", "grouped_auc", "calibration_error")


@dataclass(frozen=True)
class Comparison:
    """Metrics of a ranker and of its baselines on the same pages.

    Parameters
    ----------
    metrics : MetricsTable
        By segment and prediction.
    frame : DataFrame
        One row per cohort: request_id, viewer_id, entity_type, label, segment.
    predictions : mapping of str to Prediction
        By name; probabilities at the logged position, ``order_by`` the margin at the reference position.
    """

    metrics: MetricsTable
    frame: pd.DataFrame
    predictions: Mapping[str, Prediction]

    def table(self, metrics: Sequence[str] = SHOWN) -> pd.DataFrame:
        """Return one row per segment and prediction, one column per metric, cells ``estimate [low, high]``."""
        shown = self.metrics.formatted(digits=4)[list(metrics)]
        return shown[~shown.index.get_level_values("segment").str.startswith("entity_type=")].rename(index=_plain)

    def entity_type_table(
        self, metrics: Sequence[str] = ("normalized_cross_entropy", "auc", "calibration_error")
    ) -> pd.DataFrame:
        """Return the ranker's metrics by entity type, cells ``estimate [low, high]``."""
        shown = self.metrics.formatted(digits=4)[list(metrics)]
        shown = shown[shown.index.get_level_values("prediction") == SPR].droplevel("prediction")
        shown = shown[shown.index.str.startswith("entity_type=")]
        return shown.rename(index=lambda name: name.removeprefix("entity_type=")).rename_axis("entity_type")

    def difference_table(self, metrics: Sequence[str] = ("normalized_cross_entropy", "ndcg")) -> pd.DataFrame:
        """Return the ranker minus each other prediction as ``estimate [low, high]``, paired by viewer.

        A star marks an interval without 0. Less normalised cross entropy and more NDCG is better.
        """
        rows = self.differences()
        rows = rows[rows["metric"].isin(metrics) & ~rows["segment"].str.startswith("entity_type=")]
        star = np.where((rows["low"] > 0) | (rows["high"] < 0), " *", "")
        text = [f"{e:+.4f} [{low:+.4f}, {high:+.4f}]" for e, low, high in rows[["estimate", "low", "high"]].to_numpy()]
        rows = rows.assign(text=np.char.add(text, star))
        table = rows.pivot_table(
            index=["segment", "prediction"], columns="metric", values="text", aggfunc="first", sort=False
        )
        return table[list(metrics)].rename(index=_plain)

    def differences(self) -> pd.DataFrame:
        """Return the ranker minus each other prediction, one row per segment, prediction and metric.

        Columns segment, prediction, metric, estimate, low, high, units, left_out; the bootstrap is paired.
        """
        others = [name for name in self.predictions if name != SPR]
        return pd.concat(
            [paired_difference(self.metrics, SPR, other).to_pandas() for other in others], ignore_index=True
        )


def compare(
    ranker: SecondPassRanker,
    impressions: Table,
    viewers: Table,
    entities: Table | None = None,
    *,
    train: Table | None = None,
    frequency: Mapping[str, str] | None = None,
    n_replicates: int = 1000,
    progress: Progress = ignore,
) -> Comparison:
    """Compare a ranker with its baselines on held-out pages of the random policy.

    Parameters
    ----------
    ranker : SecondPassRanker
        To be judged.
    impressions : DataFrame or path
        Pages that the ranker was not fitted on; only mature rows of the random policy count.
    viewers, entities : DataFrame or path
        As in :func:`spr.fit`.
    train : DataFrame or path, optional
        The impressions that the ranker was fitted on: adds baselines fitted on the same rows. Without it the ranker
        is compared with its own fixed effect alone.
    frequency : mapping of str to str, optional
        Viewer id -> segment, e.g. ``"frequent"``. Default: ``"seen"`` and ``"unseen"`` by whether the viewer has a
        random effect.
    n_replicates : int, default 1000
        Of the bootstrap over viewers.
    progress : callable, optional
        ``progress(stage, done, total)``.

    Returns
    -------
    Comparison
        Order metrics are by probability at the reference position, without factors and guarantees: what is judged
        is the prediction of a downstream interaction.

    Raises
    ------
    TableError
        When a table breaks its contract, or holds no mature row of the random policy.
    """
    rows = tables.read_impressions(impressions, ranker.config)
    rows = rows[rows["policy"] == "random"].reset_index(drop=True)
    if rows.empty or rows["downstream"].isna().all():
        raise TableError("impressions: there is no mature row of policy 'random' to evaluate on")
    viewers = tables.read_viewers(viewers)
    entities = None if entities is None else tables.read_entities(entities)
    batch = assemble(rows, viewers, entities)
    position = rows["position"].to_numpy()[batch.entity_offset[:-1]]
    logged = ranker.value_cohorts(batch, position=position)
    reference = ranker.value_cohorts(batch)
    examples = collect_examples(rows, batch, ranker.features, logged.expected_response, ())
    predictions = {SPR: Prediction.of_margins(logged.margin[examples.cohort], reference.margin[examples.cohort])}
    predictions[FIXED_ONLY] = Prediction.of_margins(
        ranker.correct_unseen(logged.margins["fixed"])[examples.cohort],
        ranker.correct_unseen(reference.margins["fixed"])[examples.cohort],
    )
    if train is not None:
        learnt = tables.read_impressions(train, ranker.config)
        for baseline in fit_baselines(ranker, learnt, viewers, entities, progress=progress):
            predictions[baseline.name] = Prediction.of_margins(
                baseline.margin(examples, at_reference=False), baseline.margin(examples, at_reference=True)
            )
    if not len(examples):
        raise TableError("impressions: no mature cohort of policy 'random' has a scorable entity to evaluate on")
    if frequency is None:
        segment = np.where(logged.seen[examples.cohort], "seen", "unseen")
    else:
        segment = np.array([frequency.get(viewer, "unseen") for viewer in examples.viewer_id])
    frame = pd.DataFrame(
        {
            "request_id": examples.request_id,
            "viewer_id": examples.viewer_id,
            "entity_type": examples.entity_type,
            "label": examples.label,
            "segment": segment,
        }
    )
    metrics = evaluate_predictions(
        frame, predictions, segment=segment, n_replicates=n_replicates, seed=ranker.config.seed
    )
    return Comparison(metrics, frame, predictions)


def _plain(name: str) -> str:
    return name.removeprefix("segment=")

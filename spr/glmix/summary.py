"""A fit in words and tables: what was learnt, and where the lift comes from."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from collections.abc import Mapping

    from spr.glmix.model import MixedModel


def ablation_table(losses: Mapping[str, float]) -> pd.DataFrame:
    """Return the held-out losses of the model's parts, and each one's share of the whole lift.

    Examples
    --------
    >>> losses = {"all coordinates": 0.5, "without random effects": 0.6, "random intercepts only": 0.52}
    >>> ablation_table(losses)["share_of_lift"].round(2).to_dict()
    {'without random effects': 0.0, 'random intercepts only': 0.8, 'all coordinates': 1.0}
    """
    order = [name for name in ("without random effects", "random intercepts only", "all coordinates") if name in losses]
    table = pd.DataFrame({"held_out_loss": [losses[name] for name in order]}, index=pd.Index(order, name="model"))
    if len(table):
        lift = table["held_out_loss"].iloc[0] - table["held_out_loss"]
        whole = lift.iloc[-1]
        table["share_of_lift"] = lift / whole if whole > 0 else np.nan
    else:
        table["share_of_lift"] = np.zeros(0)
    return table


def describe(
    model: MixedModel,
    prior_variance: Mapping[str, Mapping[str, float]],
    prediction_scale: Mapping[str, float],
    ablation: pd.DataFrame,
) -> str:
    """Return a page of text: coordinates, prior standard deviations, the ablation on held-out rows."""
    fixed = "none" if model.fixed is None else f"{type(model.fixed).__name__}, {len(model.fixed.features)} columns"
    lines = [f"family {model.family.name}", f"fixed effect: {fixed}"]
    for name, effect in model.effects.items():
        lines.append(
            f"random effect {name}: {len(effect.keys):,} entities of {effect.key}, {len(effect.columns)} columns"
        )
        if name in prior_variance:
            largest = sorted(prior_variance[name].items(), key=lambda item: -item[1])[:8]
            shown = ", ".join(f"{column} {np.sqrt(value):.3f}" for column, value in largest)
            more = f", and {len(prior_variance[name]) - 8} more" if len(prior_variance[name]) > 8 else ""
            lines.append(f"  prior standard deviations: {shown}{more}; prediction scale {prediction_scale[name]:g}")
    intercept, slope = model.unseen_correction
    lines.append(f"unseen entities: {intercept:+.3f} {slope - 1.0:+.3f} * fixed margin")
    if len(ablation):
        lines.append("held-out loss:")
        lines += [
            f"  {name:<24} {row.held_out_loss:.5f}  ({row.share_of_lift:.0%} of the lift)"
            for name, row in zip(ablation.index, ablation.itertuples(), strict=True)
        ]
    return "\n".join(lines)

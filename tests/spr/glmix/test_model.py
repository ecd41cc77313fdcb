"""A fitted model: saved and read, altered files, tables for a store, Arrow tables, explanations, the ablation."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from spr.errors import InvalidModelInput
from spr.glmix import GLMixClassifier, GLMixRegressor, Linear, MixedModel, RandomEffect, Trees
from spr.glmix.families import Family

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

COLUMNS = ["x", "kind"]
FIXED = {"trees": Trees(COLUMNS, n_rounds=16, max_depth=3), "linear": Linear(COLUMNS), "none": None}
EFFECTS = [RandomEffect("member", "user", COLUMNS), RandomEffect("item", "item")]


def _table(n: int = 3000, seed: int = 0) -> tuple[pd.DataFrame, np.ndarray]:
    """Users are strings, items integers; slopes of the users on x."""
    rng = np.random.default_rng(seed)
    user, item, x = rng.integers(0, 100, n), rng.integers(0, 60, n), rng.normal(size=n)
    margin = 0.5 * x + rng.normal(size=100)[user] + rng.normal(size=100)[user] * x + 0.7 * rng.normal(size=60)[item]
    frame = pd.DataFrame({"x": x, "kind": rng.choice(["u", "v"], n), "user": [f"u{i}" for i in user], "item": item})
    return frame, (rng.random(n) < 1 / (1 + np.exp(-margin))).astype(float)


def _asked(frame: pd.DataFrame) -> pd.DataFrame:
    """Known keys, unseen keys, a null key, a null number, an unseen level."""
    odd = frame.head(4).assign(user=["nobody", None, "u1", "u2"], item=[-1, 3, 4, 5], kind=["u", "v", "w", "u"])
    odd.loc[odd.index[3], "x"] = np.nan
    return pd.concat([frame.head(40), odd])


@pytest.fixture(scope="module", params=sorted(FIXED))
def fitted(request: pytest.FixtureRequest) -> GLMixClassifier:
    frame, y = _table()
    return GLMixClassifier(FIXED[request.param], EFFECTS, variance="full").fit(frame, y)


@pytest.fixture(scope="module")
def linear() -> GLMixClassifier:
    frame, y = _table()
    return GLMixClassifier(FIXED["linear"], EFFECTS, variance="full").fit(frame, y)


def test_load_gives_the_model_that_was_saved(fitted: GLMixClassifier, tmp_path: Path) -> None:
    asked = _asked(_table()[0])
    fitted.model_.save(tmp_path / "deep" / "model")
    model = MixedModel.load(tmp_path / "deep" / "model")
    pd.testing.assert_frame_equal(model.margins(asked), fitted.margins(asked), check_exact=True)
    assert model.names == fitted.model_.names
    assert model.prior_variance == fitted.model_.prior_variance
    assert (model.unseen_correction, model.dispersion) == (fitted.unseen_correction_, fitted.model_.dispersion)
    assert [effect.version for effect in model.effects.values()] == [
        effect.version for effect in fitted.random_effects_.values()
    ]
    assert {name: effect.keys.dtype for name, effect in model.effects.items()} == {"member": object, "item": np.int64}
    draws = [part.sample_margins(asked, rng=np.random.default_rng(0)) for part in (model, fitted)]
    np.testing.assert_array_equal(*draws)


@pytest.mark.parametrize("variance", ["full", "diagonal", None])
@pytest.mark.parametrize("family", ["gaussian", "poisson"])
def test_load_keeps_variances_and_family(variance: Any, family: Any, tmp_path: Path) -> None:
    frame, y = _table(800)
    effects = [RandomEffect("member", "user", COLUMNS, l2=1.0), RandomEffect("item", "item", l2=2.0)]
    model = GLMixRegressor(Linear(["x"]), effects, family, variance=variance).fit(frame, y).model_
    model.save(tmp_path)
    loaded = MixedModel.load(tmp_path)
    assert (loaded.family, loaded.dispersion) == (model.family, model.dispersion)
    for name, effect in model.effects.items():
        for part in ("variance", "covariance"):
            kept, written = getattr(loaded.effects[name], part), getattr(effect, part)
            assert (kept is None) == (written is None)
            if written is not None:
                np.testing.assert_array_equal(kept, written)
        assert (effect.variance is None) == (variance is None)
        assert (effect.covariance is None) == (variance != "full")


def test_load_can_start_a_fit_and_be_saved_again(linear: GLMixClassifier, tmp_path: Path) -> None:
    frame, y = _table()
    linear.model_.save(tmp_path / "one")
    loaded = MixedModel.load(tmp_path / "one")
    locked = ["fixed", "member", "item"]
    again = GLMixClassifier(FIXED["linear"], EFFECTS).fit(frame, y, start=loaded, locked=locked)
    np.testing.assert_array_equal(again.decision_function(frame), linear.decision_function(frame))
    loaded.save(tmp_path / "two")
    files = [path.relative_to(tmp_path / "one") for path in sorted((tmp_path / "one").rglob("*")) if path.is_file()]
    for file in files:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes(), file


def test_save_writes_no_pickle(fitted: GLMixClassifier, tmp_path: Path) -> None:
    fitted.model_.save(tmp_path)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} <= {".json", ".npy", ".parquet", ".ubj"}
    assert len(files) == {"trees": 13, "linear": 12, "none": 11}[_kind(fitted)]
    for path in files:
        if path.suffix == ".npy":
            assert np.load(path, allow_pickle=False).dtype == np.float32
        assert not path.read_bytes().startswith(b"\x80"), path  # the first byte of a pickle of protocol 2 and later


def _kind(fitted: GLMixClassifier) -> str:
    return "none" if fitted.fixed is None else type(fitted.fixed).__name__.lower()


def _described(change: Callable[[dict[str, Any]], None]) -> Callable[[Path], None]:
    def alter(directory: Path) -> None:
        described = json.loads((directory / "model.json").read_text())
        change(described)
        (directory / "model.json").write_text(json.dumps(described))

    return alter


def _cut(file: str, kept: float) -> Callable[[Path], None]:
    def alter(directory: Path) -> None:
        raw = (directory / file).read_bytes()
        (directory / file).write_bytes(raw[: int(kept * len(raw))])

    return alter


def _remove(file: str) -> Callable[[Path], None]:
    return lambda directory: (directory / file).unlink()


def _coefficients(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path], None]:
    def alter(directory: Path) -> None:
        file = directory / "random_effects" / "0" / "matrix.npy"
        np.save(file, change(np.load(file)))

    return alter


FAULTS: list[tuple[str, Callable[[Path], None], str]] = [
    ("no model.json", _remove("model.json"), "model.json"),
    ("no linear.json", _remove("fixed/linear.json"), "linear.json"),
    ("no matrix", _remove("random_effects/1/matrix.npy"), "matrix.npy"),
    ("no keys", _remove("random_effects/0/keys.parquet"), "keys.parquet"),
    ("no covariance", _remove("random_effects/0/covariance.npy"), "covariance.npy"),
    ("no coefficients.json", _remove("random_effects/0/coefficients.json"), "coefficients.json"),
    ("half a matrix", _cut("random_effects/0/matrix.npy", 0.5), "random_effects/0 cannot be read"),
    ("header of a matrix", _cut("random_effects/0/matrix.npy", 0.001), "random_effects/0 cannot be read"),
    ("empty matrix", _cut("random_effects/0/matrix.npy", 0.0), "random_effects/0 cannot be read"),
    ("empty variance", _cut("random_effects/0/variance.npy", 0.0), "random_effects/0 cannot be read"),
    ("half the keys", _cut("random_effects/1/keys.parquet", 0.5), "random_effects/1 cannot be read"),
    ("half of linear.json", _cut("fixed/linear.json", 0.5), "linear.json"),
    ("half of model.json", _cut("model.json", 0.5), "cannot be read"),
    ("rows of a matrix", _coefficients(lambda matrix: matrix[:-1]), "'member': found float32"),
    ("float64 matrix", _coefficients(lambda matrix: matrix.astype(np.float64)), "'member': found float64"),
    ("NaN in a matrix", _coefficients(lambda matrix: matrix * np.nan), "'member': .* not finite"),
    ("schema version", _described(lambda model: model.update(schema_version=99)), "schema version 99; .* reads 1"),
    ("family", _described(lambda model: model.update(family="gauss")), "gauss"),
    ("kind of fixed", _described(lambda model: model.update(fixed="Booster")), "Booster"),
    ("no encodings", _described(lambda model: model.pop("encodings")), "encodings"),
    ("a list", lambda directory: (directory / "model.json").write_text("[1]"), "cannot be read"),
    ("leaves", _described(lambda model: model.update(leaves={})), "leaves"),
    ("one encoding", _described(lambda model: model["encodings"].pop("item")), "item"),
    ("one prior", _described(lambda model: model["prior_variance"].pop("item")), "item"),
    ("column of a prior", _described(lambda model: model["prior_variance"]["member"].pop("x")), "member"),
    ("another name", _described(lambda model: model.update(effects=["members", "item"])), "member"),
    ("no encoding", _described(lambda model: model.update(encoding=None)), "encoding"),
    ("columns of encoding", _described(lambda model: model["encoding"]["columns"].reverse()), "fixed"),
    ("columns of an effect", _described(lambda model: model["encodings"]["member"]["columns"].pop()), "member"),
    ("NaN", _described(lambda model: model.update(unseen_correction=[float("nan"), 1.0])), "unseen_correction"),
]


@pytest.mark.parametrize(("alter", "message"), [case[1:] for case in FAULTS], ids=[case[0] for case in FAULTS])
def test_load_names_what_is_wrong(
    alter: Callable[[Path], None], message: str, linear: GLMixClassifier, tmp_path: Path
) -> None:
    linear.model_.save(tmp_path)
    MixedModel.load(tmp_path)
    alter(tmp_path)
    with pytest.raises(InvalidModelInput, match=message):
        MixedModel.load(tmp_path)


def test_from_tables_gives_the_model_that_to_tables_packed(fitted: GLMixClassifier) -> None:
    asked = _asked(_table()[0])
    tables = fitted.model_.to_tables()
    assert list(tables) == ["member", "item"]
    assert tables["member"].attrs["columns"] == list(fitted.coefficients("member").columns)
    first = tables["member"].iloc[0]
    np.testing.assert_array_equal(
        np.frombuffer(first["value"], dtype="<f4"), fitted.coefficients("member").loc[first["key"]]
    )
    shuffled = {name: table.sample(frac=1.0, random_state=0) for name, table in tables.items()}
    again = fitted.model_.from_tables(shuffled)
    pd.testing.assert_frame_equal(again.margins(asked), fitted.margins(asked), check_exact=True)
    fewer = fitted.model_.from_tables({**tables, "member": tables["member"].query("key != 'u1'")})
    gone = asked["user"] == "u1"
    assert gone.any()
    assert (fewer.margins(asked)["member"][gone] == 0).all()


def test_from_tables_takes_an_effect_without_entities() -> None:
    frame, y = _table(60)
    nobody = GLMixClassifier(Linear(["x"]), EFFECTS[1:]).fit(frame.assign(item=pd.Series([None] * 60, dtype=object)), y)
    again = nobody.model_.from_tables(nobody.model_.to_tables())
    assert len(again.effects["item"].keys) == 0


BAD_TABLES: list[tuple[str, Callable[[dict[str, pd.DataFrame]], Any], str]] = [
    ("missing", lambda tables: {"item": tables["item"]}, "table of random effect 'member' is missing; found.*item"),
    ("unknown", lambda tables: {**tables, "items": tables["item"]}, "unknown random effect 'items'.*mean 'item'"),
    (
        "length",
        lambda tables: {**tables, "item": tables["item"].assign(value=[b"\0" * 8] * 2 + [b"\0" * 4] * 58)},
        "table of 'item': 2 values are not 4 bytes .*first: key 0",
    ),
    ("twice", lambda tables: {**tables, "item": pd.concat([tables["item"]] * 2)}, "'item'.*each once"),
    (
        "NaN",
        lambda tables: {**tables, "item": tables["item"].assign(value=[np.float32("nan").tobytes()] * 60)},
        "'item': 60 values are not finite",
    ),
]


@pytest.mark.parametrize(("change", "message"), [case[1:] for case in BAD_TABLES], ids=[case[0] for case in BAD_TABLES])
def test_from_tables_refuses_tables_that_do_not_fit(
    change: Callable[[dict[str, pd.DataFrame]], Any], message: str, linear: GLMixClassifier
) -> None:
    with pytest.raises(InvalidModelInput, match=message):
        linear.model_.from_tables(change(linear.model_.to_tables()))


@pytest.mark.parametrize("kind", sorted(FIXED))
def test_arrow_tables_give_what_data_frames_give(kind: str) -> None:
    frame, y = _table(1500)
    late = _table(200, seed=1)
    arrow, arrow_late = (pa.Table.from_pandas(part, preserve_index=False) for part in (frame, late[0]))
    model = GLMixClassifier(FIXED[kind], EFFECTS, variance="full").fit(frame, y, validation=late)
    other = GLMixClassifier(FIXED[kind], EFFECTS, variance="full").fit(arrow, y, validation=(arrow_late, late[1]))
    np.testing.assert_array_equal(other.decision_function(frame), model.decision_function(frame))
    np.testing.assert_array_equal(model.predict_proba(arrow), model.predict_proba(frame))
    np.testing.assert_array_equal(model.predict(arrow), model.predict(frame))
    pd.testing.assert_frame_equal(model.margins(arrow), model.margins(frame))
    draws = [model.sample_margins(part, rng=np.random.default_rng(0)) for part in (arrow, frame)]
    np.testing.assert_array_equal(*draws)
    pd.testing.assert_frame_equal(model.explain(arrow.slice(3, 1)), model.explain(frame.iloc[[3]]))


def test_explain_sums_to_the_decision_function(fitted: GLMixClassifier) -> None:
    asked = _asked(_table()[0]).iloc[30:]
    margins = fitted.decision_function(asked)
    for number in range(len(asked)):
        lines = fitted.explain(asked.iloc[[number]])
        # SHAP values are float32 sums over paths; the rest is exact but for the order of a sum
        tolerance = 1e-4 if _kind(fitted) == "trees" else 1e-6
        assert lines["contribution"].sum() == pytest.approx(margins[number], abs=tolerance)
        plain = lines[lines["coefficient"].notna()]
        np.testing.assert_allclose(plain["contribution"], plain["value"] * plain["coefficient"], rtol=1e-12)


def test_explain_gives_values_and_coefficients(linear: GLMixClassifier) -> None:
    row = _table()[0].iloc[7]
    lines = linear.explain(row).set_index(["coordinate", "feature"])
    assert list(lines.columns) == ["value", "coefficient", "contribution"]
    own = linear.coefficients("member").loc[row["user"]]
    assert lines.loc[("member", "x"), "value"] == np.float32(row["x"])
    assert lines.loc[("member", f"kind={row['kind']}"), "value"] == 1.0
    assert lines.loc[("member", "intercept"), "coefficient"] == own["intercept"]
    assert lines.loc[("fixed", "x"), "coefficient"] == linear.fixed_.coefficients[0]
    assert lines.loc[("item", "intercept"), "contribution"] == linear.coefficients("item").loc[row["item"], "intercept"]
    pd.testing.assert_frame_equal(linear.explain(row), linear.explain(_table()[0].iloc[[7]]))


def test_explain_of_an_unseen_key_is_the_fixed_effect_and_the_correction(fitted: GLMixClassifier) -> None:
    row = _table()[0].iloc[[7]].assign(user="nobody", item=-1)
    lines = fitted.explain(row)
    unseen = fitted.margins(row)["unseen"].iloc[0]
    assert set(lines["coordinate"]) == ({"fixed"} if fitted.fixed is not None else set()) | (
        {"unseen"} if unseen else set()
    )
    by_coordinate = lines.groupby("coordinate")["contribution"].sum()
    assert by_coordinate.get("unseen", 0.0) == pytest.approx(unseen, abs=1e-12)


@pytest.mark.parametrize("count", [0, 2])
def test_explain_refuses_anything_but_one_row(count: int, linear: GLMixClassifier) -> None:
    with pytest.raises(InvalidModelInput, match=f"explain: {count} rows; give one"):
        linear.explain(_table()[0].head(count))


def test_summary_names_coordinates_and_the_ablation(fitted: GLMixClassifier) -> None:
    text = fitted.summary()
    assert "family binomial" in text
    assert f"fixed effect: {'none' if fitted.fixed is None else type(fitted.fixed_).__name__}" in text
    assert "random effect member: 100 entities of user, 4 columns" in text
    assert "random effect item: 60 entities of item, 1 columns" in text
    assert f"intercept {np.sqrt(fitted.prior_variance_['item']['intercept']):.3f}" in text
    for model, line in fitted.ablation_.iterrows():
        assert f"{model:<24} {line['held_out_loss']:.5f}" in text
    assert len(fitted.ablation_) == 3


def test_ablation_is_what_refits_by_hand_reach() -> None:
    rng = np.random.default_rng(5)
    key, x = np.repeat(np.arange(400), 25), rng.normal(size=10_000)
    margin = 0.5 * x + rng.normal(size=400)[key] + 0.8 * rng.normal(size=400)[key] * x
    y = (rng.random(key.size) < 1 / (1 + np.exp(-margin))).astype(float)
    frame, late = pd.DataFrame({"x": x, "key": key}), np.arange(10_000) % 25 >= 20
    model = GLMixClassifier(Linear(["x"]), [RandomEffect("member", "key", ["x"])])
    model.fit(frame[~late], y[~late], validation=(frame[late], y[late]))
    losses = model.ablation_["held_out_loss"]
    assert list(losses.index) == ["without random effects", "random intercepts only", "all coordinates"]
    assert losses.is_monotonic_decreasing
    fixed = model.margins(frame)["fixed"].to_numpy()
    by_hand = {"without random effects": fixed[late], "all coordinates": model.decision_function(frame[late])}
    only = RandomEffect("member", "key", l2=model.learnt_l2("member")["intercept"])
    refit = GLMixClassifier(None, [only]).fit(frame[~late], y[~late], offset=fixed[~late])
    by_hand["random intercepts only"] = refit.decision_function(frame[late], offset=fixed[late])
    ones = np.ones(int(late.sum()))
    for name, margins in by_hand.items():
        assert losses[name] == pytest.approx(Family.named("binomial").mean_loss(y[late], margins, ones), rel=0.01), name
    shares = model.ablation_["share_of_lift"]
    lift = losses["without random effects"] - losses["all coordinates"]
    assert lift > 0.05
    assert shares["random intercepts only"] == pytest.approx(1 - (losses.iloc[1] - losses.iloc[2]) / lift)
    assert 0.2 < shares["random intercepts only"] < 0.9

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import fastavro
import numpy as np
import pandas as pd
import pytest

from spr.errors import InvalidModelInput, MissingDependency
from spr.glmix import Coefficients, FittedLinear
from spr.glmix.avro import read_fixed_effect, read_photon_model, read_random_effect

if TYPE_CHECKING:
    from pathlib import Path

    Feature = tuple[str, str]
    Record = dict[str, Any]

NAME_TERM_VALUE = {
    "type": "record",
    "name": "NameTermValueAvro",
    "namespace": "com.linkedin.photon.avro.generated",
    "fields": [
        {"name": "name", "type": "string"},
        {"name": "term", "type": "string"},
        {"name": "value", "type": "double"},
    ],
}
SCHEMA = {
    "type": "record",
    "name": "BayesianLinearModelAvro",
    "namespace": "com.linkedin.photon.avro.generated",
    "fields": [
        {"name": "modelId", "type": "string"},
        {"name": "modelClass", "type": ["null", "string"], "default": None},
        {"name": "means", "type": {"type": "array", "items": NAME_TERM_VALUE}},
        {
            "name": "variances",
            "type": ["null", {"type": "array", "items": "NameTermValueAvro"}],
            "default": None,
        },
        {"name": "lossFunction", "type": ["null", "string"], "default": None},
    ],
}
INTERCEPT = ("(INTERCEPT)", "")
AGE = ("age", "")
EVENT = ("type", "event")


def _entries(values: dict[Feature, float]) -> list[Record]:
    return [{"name": name, "term": term, "value": value} for (name, term), value in values.items()]


def _record(model: str, means: dict[Feature, float], variances: dict[Feature, float] | None = None) -> Record:
    return {
        "modelId": model,
        "modelClass": "com.linkedin.photon.ml.supervised.classification.LogisticRegressionModel",
        "means": _entries(means),
        "variances": None if variances is None else _entries(variances),
        "lossFunction": "",
    }


def _write(file: Path, *records: Record, schema: Any = SCHEMA, codec: str = "null") -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("wb") as opened:
        fastavro.writer(opened, schema, records, codec=codec)
    return file


def _keys(*keys: str | None) -> np.ndarray:
    return np.array(keys, dtype=object)


def _read(path: Path) -> Coefficients:
    return read_random_effect(path, name="member", key="viewer_id")


@pytest.fixture
def photon_model(tmp_path: Path) -> Path:
    """Two coordinates as photon-ml leaves them on disk, with Hadoop's markers and checksums."""
    fixed = tmp_path / "fixed-effect" / "global"
    _write(fixed / "coefficients" / "part-00000.avro", _record("fixed-effect", {EVENT: 2.0, INTERCEPT: -1.0, AGE: 0.5}))
    (fixed / "id-info").write_text("globalShard\n")
    member = tmp_path / "random-effect" / "per-member"
    _write(member / "coefficients" / "part-00000.avro", _record("7", {INTERCEPT: 0.25, EVENT: -1.0}))
    _write(member / "coefficients" / "part-00001.avro", _record("12", {AGE: 0.125}), codec="deflate")
    _write(member / "coefficients" / "part-00002.avro")
    (member / "coefficients" / "_SUCCESS").touch()
    (member / "coefficients" / ".part-00000.avro.crc").write_bytes(b"crc")
    (member / "id-info").write_text("memberId\nmemberShard\n")
    (tmp_path / "model-metadata.json").write_text('{"modelType": "LOGISTIC_REGRESSION"}')
    return tmp_path


def test_read_photon_model_sums_to_the_margin_computed_by_hand(photon_model: Path) -> None:
    model = read_photon_model(photon_model)
    assert list(model) == ["global", "per-member"]
    fixed, member = model["global"], model["per-member"]
    assert isinstance(fixed, FittedLinear)
    assert isinstance(member, Coefficients)
    assert (member.name, member.key, member.keys.tolist()) == ("per-member", "memberId", ["12", "7"])
    assert fixed.features == member.features == ("age", "type=event")
    frame = pd.DataFrame({"memberId": ["7", "12", "99"], "age": [4.0, 8.0, 2.0], "type": ["event", "people", "event"]})
    wide = pd.get_dummies(frame[["age", "type"]], prefix_sep="=")
    rows = wide.reindex(columns=list(fixed.features), fill_value=0).to_numpy(np.float32)
    assert fixed.margin(rows).tolist() == [-1 + 0.5 * 4 + 2, -1 + 0.5 * 8, -1 + 0.5 * 2 + 2]
    assert member.margin(rows, frame["memberId"].to_numpy(object)).tolist() == [0.25 - 1, 0.125 * 8, 0]


def test_read_photon_model_needs_no_fixed_effect_and_no_metadata(photon_model: Path) -> None:
    whole = read_photon_model(photon_model)["per-member"]
    for file in [*(photon_model / "fixed-effect").rglob("*.*"), photon_model / "model-metadata.json"]:
        file.unlink()
    (photon_model / "fixed-effect").rename(photon_model / "elsewhere")
    only = read_photon_model(photon_model)
    assert isinstance(whole, Coefficients)
    assert [part.version for part in only.values() if isinstance(part, Coefficients)] == [whole.version]


def test_read_photon_model_refuses_a_folder_of_models_and_a_name_of_both_kinds(photon_model: Path) -> None:
    with pytest.raises(InvalidModelInput, match=r"no coordinate in .*; found: coefficients, id-info"):
        read_photon_model(photon_model / "fixed-effect" / "global")
    (photon_model / "random-effect" / "per-member").rename(photon_model / "random-effect" / "global")
    with pytest.raises(InvalidModelInput, match="'global' is both a fixed and a random effect"):
        read_photon_model(photon_model)


@pytest.mark.parametrize("text", [None, "", "memberId\n", "a\nb\nc\n"])
def test_read_photon_model_refuses_a_random_effect_without_its_key_column(photon_model: Path, text: str | None) -> None:
    file = photon_model / "random-effect" / "per-member" / "id-info"
    file.unlink()
    if text is not None:
        file.write_text(text)
    with pytest.raises(InvalidModelInput, match="id-info must hold two lines"):
        read_photon_model(photon_model)


def test_read_fixed_effect_takes_gdmix_s_global_model_as_file_or_folder(tmp_path: Path) -> None:
    file = _write(tmp_path / "part-00000.avro", _record("global model", {INTERCEPT: 0.5, EVENT: 1e-300, AGE: 1 / 3}))
    for path in (file, tmp_path):
        fixed = read_fixed_effect(path)
        assert fixed.features == ("age", "type=event")
        assert fixed.intercept == 0.5
        assert fixed.coefficients.tolist() == [1 / 3, 1e-300]  # in float64, as they were


def test_read_fixed_effect_may_be_an_intercept_alone_or_have_none(tmp_path: Path) -> None:
    alone = read_fixed_effect(_write(tmp_path / "a.avro", _record("global model", {INTERCEPT: 0.5})))
    assert (alone.features, alone.margin(np.zeros((2, 0), np.float32)).tolist()) == ((), [0.5, 0.5])
    assert read_fixed_effect(_write(tmp_path / "b.avro", _record("global model", {AGE: 0.5}))).intercept == 0.0


def test_read_fixed_effect_refuses_a_random_effect(tmp_path: Path) -> None:
    _write(tmp_path / "part-0.avro", _record("a", {AGE: 1.0}))
    _write(tmp_path / "part-1.avro", _record("b", {AGE: 1.0}))
    with pytest.raises(InvalidModelInput, match=r"part-1\.avro: model 'b' stands beside 'a'"):
        read_fixed_effect(tmp_path)


def test_read_random_effect_does_not_depend_on_which_part_holds_which_entity(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    features = [INTERCEPT, AGE, EVENT, ("type", "people"), ("ü", "")]
    records = []
    for entity in range(40):
        chosen = [features[i] for i in rng.permutation(5)[: rng.integers(1, 6)]]
        records.append(_record(f"m{entity}", {feature: float(rng.normal()) for feature in chosen}))
    _write(tmp_path / "one" / "part-0.avro", *records)
    for part, shuffled in enumerate(np.array_split(rng.permutation(40), 3)):
        _write(tmp_path / "three" / f"part-{part}.avro", *(records[i] for i in shuffled))
    one, three = _read(tmp_path / "one"), _read(tmp_path / "three")
    assert one.columns == ("age", "type=event", "type=people", "ü", "intercept")
    assert one.version == three.version
    for record in records:
        expected = dict.fromkeys(one.columns, 0.0)
        for entry in record["means"]:
            column = entry["name"] + ("=" + entry["term"] if entry["term"] else "")
            expected["intercept" if column == "(INTERCEPT)" else column] = entry["value"]
        found = one.lookup(record["modelId"])
        assert found is not None
        assert found.tolist() == np.array([*expected.values()], dtype=np.float32).tolist()


def test_read_random_effect_reads_blocks_appended_to_a_file(tmp_path: Path) -> None:
    file = _write(tmp_path / "part-00000.avro", _record("b", {INTERCEPT: 1.0}))
    with file.open("a+b") as opened:  # how gdmix writes large folders
        fastavro.writer(opened, SCHEMA, [_record("a", {INTERCEPT: 2.0})])
    assert _read(file).margin(np.zeros((2, 0), np.float32), _keys("a", "b")).tolist() == [2.0, 1.0]


def test_read_random_effect_keeps_variances_where_every_one_is_known(tmp_path: Path) -> None:
    _write(
        tmp_path / "part-0.avro",
        _record("b", {AGE: 1.0, INTERCEPT: 2.0}, {INTERCEPT: 0.25, AGE: 0.5}),
        _record("a", {AGE: 3.0}, {AGE: 0.0, INTERCEPT: 4.0}),  # a mean below the threshold, its variance is not
    )
    member = _read(tmp_path)
    assert member.matrix.tolist() == [[3.0, 0.0], [1.0, 2.0]]
    assert member.variance is not None
    assert member.variance.tolist() == [[0.0, 4.0], [0.5, 0.25]]


@pytest.mark.parametrize("variances", [None, {}, {AGE: 1.0}, {INTERCEPT: 1.0}])
def test_read_random_effect_makes_no_variance_up(tmp_path: Path, variances: dict[Feature, float] | None) -> None:
    both = {AGE: 1.0, INTERCEPT: 2.0}
    _write(tmp_path / "part-0.avro", _record("a", both, both), _record("b", both, variances))
    assert _read(tmp_path).variance is None


def test_read_random_effect_has_no_intercept_where_no_record_names_one(tmp_path: Path) -> None:
    member = _read(_write(tmp_path / "a.avro", _record("a", {("(INTERCEPT)", "x"): 1.0}), _record("b", {})))
    assert member.columns == ("(INTERCEPT)=x",)
    assert member.margin(np.ones((2, 1), np.float32), _keys("a", "b")).tolist() == [1.0, 0.0]


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([], "no model in its"),
        ([_record("a", {}), _record("b", {}), _record("a", {})], "modelId 'a' stands twice"),
        ([_record("a", {AGE: np.nan})], "model 'a' cannot be read: 'age' is nan"),
        ([_record("a", {AGE: -np.inf})], "'age' is -inf"),
        ([_record("a", {AGE: 1e39})], r"'age' is 1e\+39; allowed: -3.40282e\+38 to 3.40282e\+38"),
        ([_record("a", {AGE: 1.0}, {AGE: -1.0})], "'age' is -1.0; allowed: 0 to"),
        ([_record("a", {AGE: 1.0}, {AGE: np.nan})], "'age' is nan"),
        ([_record("a", {}) | {"means": 2 * _entries({AGE: 1.0})}], "feature 'age' stands twice"),
        ([_record("a", {EVENT: 1.0}), _record("b", {("type=event", ""): 1.0})], "both be column 'type=event'"),
        ([_record("a", {("intercept", ""): 1.0})], "both be column 'intercept'"),
    ],
)
def test_read_random_effect_refuses_bad_records_by_file(tmp_path: Path, records: list[Record], message: str) -> None:
    _write(tmp_path / "part-00000.avro", *records)
    with pytest.raises(InvalidModelInput, match=message) as raised:
        _read(tmp_path)
    assert "part-00000.avro" in str(raised.value)


def test_read_random_effect_refuses_an_entity_that_stands_in_two_files(tmp_path: Path) -> None:
    for part in ("part-0.avro", "part-1.avro"):
        _write(tmp_path / part, _record("a", {}))
    with pytest.raises(InvalidModelInput, match=r"part-1\.avro: modelId 'a' stands twice in"):
        _read(tmp_path)


@pytest.mark.parametrize(
    ("schema", "record"),
    [
        ("string", "a"),
        ({"type": "record", "name": "Other", "fields": [{"name": "modelId", "type": "string"}]}, {"modelId": "a"}),
        *(
            (
                {
                    "type": "record",
                    "name": "BayesianLinearModelAvro",
                    "fields": [{"name": "modelId", "type": key}, {"name": "means", "type": means}],
                },
                record,
            )
            for key, means, record in [
                ("long", {"type": "array", "items": NAME_TERM_VALUE}, {"modelId": 1, "means": []}),
                ("string", {"type": "array", "items": "double"}, {"modelId": "a", "means": [1.0]}),
                ("string", {"type": "array", "items": "string"}, {"modelId": "a", "means": ["age"]}),
                ("string", {"type": "map", "values": "double"}, {"modelId": "a", "means": {"age": 1.0}}),
                ("string", ["null", "double"], {"modelId": "a", "means": None}),
            ]
        ),
    ],
)
def test_read_random_effect_refuses_another_schema(tmp_path: Path, schema: Any, record: Any) -> None:
    file = _write(tmp_path / "part-0.avro", record, schema=schema)
    with pytest.raises(InvalidModelInput, match=r"part-0\.avro"):
        _read(file)


def test_read_random_effect_refuses_folders_without_avro_files(tmp_path: Path) -> None:
    with pytest.raises(InvalidModelInput, match=r"absent: no model in its \*\.avro files; found: nothing"):
        _read(tmp_path / "absent")
    (tmp_path / "part-00000.parquet").touch()
    with pytest.raises(InvalidModelInput, match=r"found: part-00000\.parquet"):
        _read(tmp_path)


def test_read_random_effect_refuses_a_file_cut_at_any_byte(tmp_path: Path) -> None:
    file = _write(tmp_path / "part-0.avro", _record("a", {AGE: 1.0, INTERCEPT: 2.0}, {AGE: 1.0}))
    whole = file.read_bytes()
    for size in range(len(whole)):
        file.write_bytes(whole[:size])
        with pytest.raises(InvalidModelInput, match=r"part-0\.avro"):
            _read(file)


def test_read_random_effect_reads_or_refuses_a_file_with_any_byte_changed(tmp_path: Path) -> None:
    file = _write(tmp_path / "part-0.avro", _record("a", {AGE: 1.0, INTERCEPT: 2.0}, {AGE: 1.0}))
    whole = file.read_bytes()
    refused = 0
    for place in range(len(whole)):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 0x15]) + whole[place + 1 :])
        try:
            assert np.isfinite(_read(file).matrix).all()
        except InvalidModelInput:
            refused += 1
    assert refused > len(whole) / 3


def test_reading_without_fastavro_says_which_extra_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = _write(tmp_path / "part-0.avro", _record("a", {}))
    monkeypatch.setitem(sys.modules, "fastavro", None)
    with pytest.raises(MissingDependency, match=r"pip install 'spr\[avro\]'"):
        _read(file)

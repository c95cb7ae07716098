from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.config import Paths, RawSetting, build, expand, lengths_of, load_study
from pipeline.config.search import RandomSearch
from pipeline.errors import ConfigError

RATE = {"name": "log_uniform", "low": 1.0e-4, "high": 1.0e-1}
SPACE = {
    "optimiser.learning_rate": RATE,
    "model.hidden_size": {"name": "log_integer", "low": 4, "high": 64},
    "clipping": {"name": "choice", "values": [{"name": "none"}, {"name": "global_norm", "threshold": 1.0}]},
    "training.explodes_above": {"name": "uniform", "low": 9.9, "high": 10.1},
    "dataset.length": {"name": "integer", "low": 10, "high": 12},
}
ROOT = Path(__file__).parents[2]


def search(**changes: Any) -> RandomSearch:
    raw = {"name": "random", "number": 40, "seed": 0, "space": SPACE} | changes
    found: RandomSearch = build(RandomSearch, raw, "f.search")
    return found


def test_points_are_those_of_the_declaration_on_any_machine() -> None:
    first = search().points()[0]
    assert first == {
        "optimiser.learning_rate": 0.0681,
        "model.hidden_size": 16,
        "clipping": {"name": "none"},
        "training.explodes_above": 9.9762,
        "dataset.length": 12,
    }
    assert yaml.safe_dump(first["optimiser.learning_rate"]).startswith("0.0681\n")


def test_points_stay_when_more_are_drawn_or_one_more_key_is_searched() -> None:
    assert search(number=7).points() == search().points()[:7]
    rates = [point["optimiser.learning_rate"] for point in search(number=10).points()]
    alone = search(space={"optimiser.learning_rate": RATE}, number=10).points()
    assert [point["optimiser.learning_rate"] for point in alone] == rates
    assert search(seed=1).points()[0] != search().points()[0]


def test_draws_fill_the_whole_range_and_stay_within() -> None:
    points = search(number=2000).points()
    rates = sorted(point["optimiser.learning_rate"] for point in points)
    assert 1.0e-4 <= rates[0] < 1.02e-4
    assert 0.098 < rates[-1] <= 0.1
    assert rates[1000] == pytest.approx(10**-2.5, rel=0.2)
    sizes = [point["model.hidden_size"] for point in points]
    assert {*sizes} == {*range(4, 65)}
    assert sum(size <= 16 for size in sizes) == pytest.approx(1000, abs=150)  # log 4 to log 17 of log 4 to log 65
    assert {point["dataset.length"] for point in points} == {10, 11, 12}
    assert all(9.9 <= point["training.explodes_above"] <= 10.1 for point in points)


def test_a_space_of_few_points_gives_each_once_and_no_more() -> None:
    space = {key: SPACE[key] for key in ("clipping", "dataset.length")}
    points = search(space=space, number=6).points()
    assert len({repr(point) for point in points}) == 6
    with pytest.raises(ConfigError, match="number: expected at most 6, the different points of the space, got 7"):
        search(space=space, number=7).points()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "randm"}, r"f\.search\.name: unknown value 'randm'; did you mean 'random'\?"),
        ({"numbr": 4}, r"f\.search: unknown key 'numbr'; did you mean 'number'\?"),
        ({"number": 0}, r"f\.search\.number: expected an integer from 1 to 100000, got 0"),
        ({"space": {}}, r"f\.search\.space: expected at least one dotted key"),
        ({"space": {"a": {"name": "loguniform"}}}, r"space\.a\.name: unknown name 'loguniform'; did you mean"),
        ({"space": {"a": RATE | {"low": 0.1}}}, r"space\.a\.high: expected a number above low \(0\.1\), got 0\.1"),
        ({"space": {"a": RATE | {"low": 0}}}, r"space\.a\.low: expected a number above 0, got 0"),
        ({"space": {"a": {"name": "integer", "low": 1.5, "high": 3}}}, r"space\.a\.low: expected an integer, got 1\.5"),
        ({"space": {"a": {"name": "integer", "low": 3, "high": 3}}}, r"space\.a\.high: expected a number above low"),
        ({"space": {"a": {"name": "choice", "values": []}}}, r"space\.a\.values: expected at least one value"),
        ({"space": {"a": {"name": "choice", "values": [1, 1]}}}, r"space\.a\.values: expected each value once"),
        ({"space": {"a": RATE, "a.b": RATE}}, r"space: expected either 'a' as a whole or parts of it, not both"),
    ],
)
def test_mistakes_in_a_search_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        search(**changes)


@pytest.fixture
def project(tmp_path: Path) -> Paths:
    """A project with a study that searches beside variants and an axis."""
    for part in ("base.yaml", "scales"):
        (tmp_path / "configs" / "studies").mkdir(parents=True, exist_ok=True)
        (tmp_path / "configs" / part).symlink_to(ROOT / "configs" / part)
    grid = {
        "variants": {"SGD": {"optimiser": {"name": "sgd", "learning_rate": None}}, "Adam": {}},
        "axes": {"model.cell": ["elman", "gru"]},
        "search": {"name": "random", "number": 3, "seed": 0, "space": SPACE},
    }
    write(Paths.at(tmp_path), grid)
    return Paths.at(tmp_path)


def write(paths: Paths, grid: dict[str, Any], **study: Any) -> None:
    content = {"question": "Which?", "grids": {"tuning": grid}, **study}
    paths.study_config("tune").write_text(yaml.safe_dump(content, sort_keys=False))


def edited(paths: Paths, **changes: Any) -> dict[str, Any]:
    grid: dict[str, Any] = yaml.safe_load(paths.study_config("tune").read_text())["grids"]["tuning"]
    return grid | changes


def settings_of(paths: Paths, scale: str = "laptop") -> list[RawSetting]:
    return expand(load_study(paths, "tune"), scale, "f")


def test_every_arm_of_a_grid_is_searched_at_the_same_points(project: Paths) -> None:
    settings, points = settings_of(project), search(number=3).points()
    assert [setting.axes for setting in settings] == [
        {"variant": label, "model.cell": cell} | point
        for label in ("SGD", "Adam")
        for cell in ("elman", "gru")
        for point in points
    ]
    assert settings[0].spec["optimiser"] == {"name": "sgd", "learning_rate": 0.0681}
    assert settings[0].spec["model"]["hidden_size"] == 16
    studies = {"tune": load_study(project, "tune")}
    assert lengths_of(studies, "laptop")["adding"] == tuple(sorted({point["dataset.length"] for point in points}))


def test_a_scale_changes_keys_of_a_search(project: Paths) -> None:
    rates = {"optimiser.learning_rate": {"name": "choice", "values": [1.0]}}
    write(project, edited(project), scales={"smoke": {"search": {"tuning": {"number": 1, "space": rates}}}})
    assert len(settings_of(project)) == 12
    assert [setting.spec["optimiser"]["learning_rate"] for setting in settings_of(project, "smoke")] == [1.0] * 4


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ({"tunin": {}}, r"smoke\.search: unknown grid 'tunin'; did you mean 'tuning'\?"),
        ({"tuning": {"nmber": 1}}, r"smoke\.search\.tuning: unknown key 'nmber'; did you mean 'number'\?"),
        ({"tuning": {"space": {"model.cel": RATE}}}, r"search\.tuning\.space: unknown key 'model\.cel'"),
    ],
)
def test_mistakes_of_a_scale_about_a_search_are_named(override: Any, message: str, project: Paths) -> None:
    write(project, edited(project), scales={"smoke": {"search": override}})
    with pytest.raises(ConfigError, match=message):
        load_study(project, "tune")


def test_a_search_of_a_grid_without_one_is_not_changed(project: Paths) -> None:
    write(project, edited(project, search=None), scales={"smoke": {"search": {"tuning": {}}}})
    with pytest.raises(ConfigError, match=r"smoke\.search\.tuning: expected a grid with a search; got one without"):
        load_study(project, "tune")


@pytest.mark.parametrize("key", ["model.cell", "variant"])
def test_what_is_searched_is_no_axis(key: str, project: Paths) -> None:
    space = {"name": "random", "number": 1, "seed": 0, "space": {key: RATE}}
    write(project, edited(project, search=space))
    with pytest.raises(ConfigError, match=r"search\.space: expected dotted keys of the spec that are no axis"):
        load_study(project, "tune")


def test_a_space_with_too_few_points_is_named_where_it_stands(project: Paths) -> None:
    few = {"name": "random", "number": 4, "seed": 0, "space": {"dataset.length": SPACE["dataset.length"]}}
    write(project, edited(project, search=few))
    expected = r"f\.grids\.tuning\.search\.number: expected at most 3, the different points of the space, got 4"
    with pytest.raises(ConfigError, match=expected):
        settings_of(project)


def test_selection_is_over_keys_of_the_space(project: Paths) -> None:
    chosen = {"metric": "best_validation_loss", "over": [*SPACE]}
    write(project, edited(project), select=chosen)
    load_study(project, "tune")
    write(project, edited(project), select=chosen | {"over": ["optimiser.learning_rat"]})
    with pytest.raises(ConfigError, match=r"over: unknown axis 'optimiser\.learning_rat'; did you mean"):
        load_study(project, "tune")

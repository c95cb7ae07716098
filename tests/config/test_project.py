"""The project's own files, and what happens when a user changes them."""

from __future__ import annotations

import copy
import dataclasses
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.config import (
    Params,
    Paths,
    RawSetting,
    build,
    expand,
    lengths_of,
    load_params,
    load_scale,
    load_study,
    read_yaml,
    seeds_of,
)
from pipeline.core.training import TrialSpec
from pipeline.errors import ConfigError
from tests.core.slowly import slowly

ROOT = Path(__file__).parents[2]


@pytest.fixture
def project(tmp_path: Path) -> Paths:
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    shutil.copy(ROOT / "params.yaml", tmp_path)
    return Paths.at(tmp_path)


def edit(path: Path, *keys: str, value: Any) -> None:
    content = yaml.safe_load(path.read_text())
    node = content
    for key in keys[:-1]:
        node = node[key]
    node[keys[-1]] = value
    path.write_text(yaml.safe_dump(content, sort_keys=False))


def leaves(node: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    if isinstance(node, dict):
        for key, value in node.items():
            yield from leaves(value, (*path, key))
    else:
        yield path, node


OTHER = {
    ("scale",): "smoke",
    ("seeds", "count"): 3,
    ("trial_store",): "elsewhere",
    ("datasets",): ["adding"],
    ("studies",): ["another"],
    ("keep_weights",): True,
    ("resources", "max_silence_s"): None,
    ("tracking", "mode"): "disabled",
    ("tracking", "entity"): "somebody",
}


@pytest.mark.parametrize("path", [path for path, _ in leaves(yaml.safe_load((ROOT / "params.yaml").read_text()))])
def test_every_leaf_of_params_arrives(path: tuple[str, ...], project: Paths) -> None:
    raw = yaml.safe_load(project.params.read_text())
    before = build(Params, raw, "params.yaml")
    changed = copy.deepcopy(raw)
    node = changed
    for key in path[:-1]:
        node = node[key]
    old = node[path[-1]]
    node[path[-1]] = OTHER.get(path, f"{old}x" if isinstance(old, str) else 7)
    assert build(Params, changed, "params.yaml") != before


@pytest.mark.parametrize("scale", ["laptop", *slowly("smoke", "cluster")])
def test_every_study_expands_to_valid_specs_at_every_scale(scale: str) -> None:
    paths = Paths.at(ROOT)
    params = load_params(paths)
    seeds = seeds_of(params, load_scale(paths, scale))
    for name in params.studies:
        settings = expand(load_study(paths, name), scale, name)
        specs = [build(TrialSpec, {**s.spec, "seeds": seeds}, s.where) for s in settings]
        named = {(setting.grid, repr(spec)) for setting, spec in zip(settings, specs, strict=True)}
        assert len(named) == len(specs) > 0  # grids may share trials


def test_seeds_come_from_the_scale_unless_counted(project: Paths) -> None:
    laptop = load_scale(project, "laptop")
    assert seeds_of(load_params(project), laptop) == tuple(range(10))
    edit(project.params, "seeds", value={"start": 10, "count": 2})
    assert seeds_of(load_params(project), laptop) == (10, 11)


def test_a_study_has_its_own_number_of_seeds_at_a_scale_unless_they_are_counted(project: Paths) -> None:
    file = project.study_config("optimisers")
    edit(file, "scales", value={"laptop": {"num_seeds": 12}, "smoke": {}})
    own = load_study(project, "optimisers").scales
    laptop, params = load_scale(project, "laptop"), load_params(project)
    assert [len(seeds_of(params, laptop, own[scale].num_seeds)) for scale in ("laptop", "smoke")] == [12, 10]
    edit(project.params, "seeds", value={"start": 0, "count": 3})
    assert seeds_of(load_params(project), laptop, 12) == (0, 1, 2)
    edit(file, "scales", value={"laptop": {"num_seeds": 0}})
    with pytest.raises(ConfigError, match=r"optimisers\.yaml\.scales\.laptop\.num_seeds: expected an integer from 1"):
        load_study(project, "optimisers")


def test_a_new_length_is_written_in_the_study_alone(project: Paths) -> None:
    before = load_study(project, "cells")
    edit(
        project.study_config("cells"), "grids", "adding", "axes", "dataset.length",
        value=[*before.grids["adding"].axes["dataset.length"], 75],
    )  # fmt: skip
    after = load_study(project, "cells")
    old, new = (lengths_of({"cells": study}, "laptop")["adding"] for study in (before, after))
    assert set(new) - set(old) == {75}
    known = [setting.spec for setting in expand(before, "laptop", "")]
    fresh = [setting for setting in expand(after, "laptop", "") if setting.spec not in known]
    assert {setting.axes["dataset.length"] for setting in fresh} == {75}


def test_a_scale_overrides_after_the_grid_and_before_the_axes(project: Paths) -> None:
    study = load_study(project, "cells")
    for setting in expand(study, "smoke", ""):
        assert setting.spec["training"]["max_steps"] == 20
        for axis, value in setting.axes.items():
            section, field = axis.split(".")
            assert setting.spec[section][field] == value


@pytest.mark.parametrize(
    ("file", "keys", "value", "message"),
    [
        ("params.yaml", ["scale"], "laptp", r"params\.yaml: unknown scale 'laptp'; did you mean 'laptop'\?"),
        ("params.yaml", ["studies"], ["cels"], r"params\.yaml: unknown study 'cels'; did you mean 'cells'\?"),
        ("params.yaml", ["datasets"], ["ading"], r"params\.yaml: unknown dataset 'ading'; did you mean 'adding'\?"),
        ("params.yaml", ["studies"], [], r"params\.yaml\.studies: expected at least one name"),
        ("params.yaml", ["datasets"], ["adding", "adding"], r"params\.yaml\.datasets: expected each name once"),
        ("params.yaml", ["seeds", "start"], 2**40, r"seeds\.start: expected an integer of at most 2147483648"),
        ("params.yaml", ["seeds", "count"], 10**9, r"seeds\.count: expected null or an integer from 1 to 10000"),
        ("params.yaml", ["trial_store"], "", r"params\.yaml\.trial_store: expected null, a folder or a URL, got ''"),
        ("params.yaml", ["seeds", "start"], -1, r"params\.yaml\.seeds\.start: expected an integer of at least 0"),
        (
            "params.yaml",
            ["seeds", "count"],
            0,
            r"params\.yaml\.seeds\.count: expected null or an integer from 1 to 10000",
        ),
        (
            "params.yaml",
            ["resources", "cpus_per_trial"],
            0,
            r"params\.yaml\.resources\.cpus_per_trial: expected a numb",
        ),
        (
            "params.yaml",
            ["resources", "gpus_per_trial"],
            -1,
            r"params\.yaml\.resources\.gpus_per_trial: expected auto, 0 or",
        ),
        (
            "params.yaml",
            ["resources", "gpus_per_trial"],
            "aut",
            r"params\.yaml\.resources\.gpus_per_trial: expected auto",
        ),
        (
            "params.yaml",
            ["resources", "gpus_per_trial"],
            True,
            r"params\.yaml\.resources\.gpus_per_trial: expected auto",
        ),
        (
            "params.yaml",
            ["resources", "max_silence_s"],
            30,
            r"params\.yaml\.resources\.max_silence_s: expected null or a number of seconds of at least 60, got 30",
        ),
        ("params.yaml", ["tracking", "mode"], "offlin", r"params\.yaml\.tracking\.mode: unknown value 'offlin'; did"),
        ("params.yaml", ["sede"], 1, r"params\.yaml: unknown key 'sede'; did you mean 'seeds'\?"),
    ],
)
def test_mistakes_in_params_are_named(file: str, keys: list[str], value: Any, message: str, project: Paths) -> None:
    edit(project.root / file, *keys, value=value)
    with pytest.raises(ConfigError, match=message):
        load_params(project)


def test_another_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"params\.yaml: no such file; run this in the project's folder"):
        load_params(Paths.at(tmp_path))


def test_a_length_that_is_no_number_is_named(project: Paths) -> None:
    edit(project.study_config("cells"), "grids", "adding", "axes", "dataset.length", value=["x", 20])
    with pytest.raises(ConfigError, match=r"grids\.adding\.dataset\.length: expected an integer, got 'x'"):
        lengths_of({"cells": load_study(project, "cells")}, "laptop")["adding"]


@pytest.mark.parametrize(
    ("keys", "value", "message"),
    [
        (["num_seeds"], 0, r"configs/scales/laptop\.yaml\.num_seeds: expected an integer from 1 to 10000, got 0"),
        (["datasets", "num_train"], 0, r"laptop\.yaml\.datasets\.num_train: expected an integer of at least 1, got 0"),
        (["max_wall_time_s"], 0, r"laptop\.yaml\.max_wall_time_s: expected a number of seconds above 0"),
    ],
)
def test_mistakes_in_a_scale_are_named(keys: list[str], value: Any, message: str, project: Paths) -> None:
    edit(project.scale_config("laptop"), *keys, value=value)
    with pytest.raises(ConfigError, match=message):
        load_scale(project, "laptop")


@pytest.mark.parametrize(
    ("keys", "value", "message"),
    [
        (["grids"], {}, r"cells\.yaml\.grids: expected at least one grid"),
        (
            ["grids", "adding", "axes", "model.cell"],
            [],
            r"grids\.adding\.axes\.model\.cell: expected at least one value",
        ),
        (["grids", "adding", "axes", "model.cell"], ["gru", "gru"], r"axes\.model\.cell: expected each value once"),
        (
            ["scales", "laptp"],
            {},
            r"cells\.yaml\.scales: unknown scale 'laptp'; did you mean 'lap",
        ),
        (
            ["scales", "smoke", "axes"],
            {"ading": {}},
            r"scales\.smoke\.axes: unknown grid 'ading'; did you mean 'adding'",
        ),
        (
            ["scales", "smoke", "axes"],
            {"adding": {"model.cell": []}},
            r"smoke\.axes\.adding\.model\.cell: expected at least",
        ),
        (
            ["scales", "smoke", "axes"],
            {"adding": {"model.cel": ["gru"]}},
            r"scales\.smoke\.axes\.adding: unknown axis 'model\.cel'; did you mean 'model\.cell'",
        ),
        (
            ["scales", "smoke", "axes"],
            {"adding": {"variant": ["plain"]}},
            r"scales\.smoke\.axes\.adding: unknown axis 'variant'",
        ),
        (
            ["scales", "smoke", "grids"],
            {"ading": {}},
            r"scales\.smoke\.grids: unknown grid 'ading'; did you mean 'adding'",
        ),
        (["scales", "smoke", "skip"], ["digit"], r"scales\.smoke\.skip: unknown grid 'digit'; did you mean 'digits'"),
        (["scales", "smoke", "skip"], ["digits", "digits"], r"scales\.smoke\.skip: expected each grid once"),
        (
            ["scales", "smoke", "skip"],
            ["digits"],
            r"scales\.smoke\.axes: expected no changes to 'digits', which this scale skips",
        ),
        (
            ["scales", "smoke"],
            {"grids": {"digits": {}}, "skip": ["digits"]},
            r"scales\.smoke\.grids: expected no changes to 'digits', which this scale skips",
        ),
        (
            ["scales", "smoke"],
            {"skip": ["digits", "adding"]},
            r"scales\.smoke\.skip: expected at least one grid to be left, got all: digits, adding",
        ),
        (["scales", "smoke"], {"grid": {}}, r"scales\.smoke: unknown key 'grid'; did you mean 'grids'"),
        (["scales", "smoke"], {"skips": []}, r"scales\.smoke: unknown key 'skips'; did you mean 'skip'"),
        (["grids", "adding"], {"axis": {}}, r"grids\.adding: unknown key 'axis'; did you mean 'axes'"),
        (["scales", "smoke"], None, r"scales\.smoke: expected a mapping with keys"),
        (
            ["grids", "adding", "variants"],
            {" clip": {}},
            r"grids\.adding\.variants: expected labels without blanks at the ends, got ' clip'",
        ),
        (
            ["grids", "adding", "variants"],
            {0.1: {}},
            r"grids\.adding\.variants: expected text as a key, got 0\.1",
        ),
        (["grids", "adding", "variants"], {"clip": 1}, r"grids\.adding\.variants\.clip: expected a mapping, got 1"),
        (
            ["grids", "adding", "axes", "variant"],
            ["clip"],
            r"grids\.adding\.axes: expected dotted keys of the spec; labels belong under `variants`, got 'variant'",
        ),
        (
            ["select", "over"],
            ["optimiser.rate"],
            r"select\.over: unknown axis 'optimiser\.rate'; did you mean 'optimiser",
        ),
    ],
)
def test_mistakes_in_a_study_are_named(keys: list[str], value: Any, message: str, project: Paths) -> None:
    edit(project.study_config("cells"), *keys, value=value)
    with pytest.raises(ConfigError, match=message):
        load_study(project, "cells")


def test_a_dotted_key_through_a_number_is_refused(project: Paths) -> None:
    edit(project.study_config("cells"), "grids", "adding", "set", value={"training.max_steps.more": 1})
    with pytest.raises(ConfigError, match=r"grids\.adding\.set: 'training\.max_steps\.more' runs through 'max_steps'"):
        expand(load_study(project, "cells"), "laptop", "configs/studies/cells.yaml")


VARIANTS = {
    "plain": {},
    "clip + Ω": {
        "optimiser": {"name": "sgd", "learning_rate": 0.5},
        "clipping.threshold": 2.0,
        "training.max_steps": 7,
        "dataset.length": 30,
    },
}


@pytest.fixture
def with_variants(project: Paths) -> Paths:
    """The project, with variants in one of its grids and the axes of rates and lengths of that grid gone."""
    grid = {
        "figures": None,
        "set": {"dataset.name": "adding"},
        "variants": VARIANTS,
        "axes": {"model.cell": ["elman", "gru"]},
    }
    edit(project.study_config("cells"), "grids", "adding", value=grid)
    edit(project.study_config("cells"), "scales", value={})
    return project


def override(project: Paths, **parts: Any) -> None:
    """Give the scale `smoke` an override with those parts."""
    edit(project.study_config("cells"), "scales", value={"smoke": parts})


def settings_of(project: Paths, scale: str = "laptop", grid: str = "adding") -> list[RawSetting]:
    return [setting for setting in expand(load_study(project, "cells"), scale, "f") if setting.grid == grid]


def test_what_is_empty_need_not_be_written(project: Paths) -> None:
    path = project.study_config("cells")
    short = {"question": "?", "grids": {"one": {}}, "scales": {"smoke": {}}}
    grid = {"figures": None, "set": {}, "variants": {}, "axes": {}}
    override = {"set": {}, "grids": {}, "axes": {}, "skip": []}
    long = {"question": "?", "claims": [], "set": {}, "grids": {"one": grid}, "select": None}
    path.write_text(yaml.safe_dump(short))
    study = load_study(project, "cells")
    path.write_text(yaml.safe_dump(long | {"scales": {"smoke": override}}))
    assert load_study(project, "cells") == study
    assert [setting.spec for setting in expand(study, "smoke", "f")] == [read_yaml(project.base)]


def test_variants_are_the_first_axis(with_variants: Paths) -> None:
    settings = settings_of(with_variants)
    assert [list(setting.axes.items()) for setting in settings] == [
        [("variant", label), ("model.cell", cell)] for label in VARIANTS for cell in ("elman", "gru")
    ]
    plain, changed = settings[0].spec, settings[2].spec
    assert "variant" not in changed
    assert (plain["optimiser"]["name"], plain["clipping"]["threshold"]) == ("adam", 1.0)
    assert changed["optimiser"] == {"name": "sgd", "learning_rate": 0.5}
    assert (changed["clipping"]["threshold"], changed["clipping"]["name"]) == (2.0, "global_norm")
    assert settings[2].where == "f.grids.adding[clip + Ω]"
    assert all("variant" not in setting.axes for setting in settings_of(with_variants, grid="digits"))


def test_the_later_wins_from_grid_to_scale_to_variant_to_axes(with_variants: Paths) -> None:
    study = with_variants.study_config("cells")
    edit(study, "grids", "adding", "set", value={"training.max_steps": 1, "training.batch_size": 1})
    plain, *_, changed = settings_of(with_variants, "smoke")
    assert [spec["training"]["max_steps"] for spec in (plain.spec, changed.spec)] == [1, 7]
    override(with_variants, set={"training.max_steps": 2, "training.batch_size": 2})
    plain, *_, changed = settings_of(with_variants, "smoke")
    assert [spec["training"]["max_steps"] for spec in (plain.spec, changed.spec)] == [2, 7]
    override(with_variants, set={"training.max_steps": 2}, grids={"adding": {"training.max_steps": 3}})
    plain, *_, changed = settings_of(with_variants, "smoke")
    assert [spec["training"]["max_steps"] for spec in (plain.spec, changed.spec)] == [3, 7]
    assert plain.spec["training"]["batch_size"] == 1
    assert settings_of(with_variants, "smoke", "digits")[0].spec["training"]["max_steps"] == 2
    edit(study, "grids", "adding", "axes", value={"optimiser.learning_rate": [9.0], "training.max_steps": [11]})
    changed = settings_of(with_variants, "smoke")[-1]
    assert changed.spec["optimiser"] == {"name": "sgd", "learning_rate": 9.0}
    assert changed.spec["training"]["max_steps"] == 11


def test_a_scale_restricts_and_reorders_variants(with_variants: Paths) -> None:
    override(with_variants, axes={"adding": {"variant": ["clip + Ω", "plain"], "model.cell": ["gru"]}})
    assert [s.axes["variant"] for s in settings_of(with_variants, "smoke")] == ["clip + Ω", "plain"]
    override(with_variants, axes={"adding": {"variant": ["clip + Ω"]}})
    axes = [setting.axes for setting in settings_of(with_variants, "smoke")]
    assert axes == [{"variant": "clip + Ω", "model.cell": cell} for cell in ("elman", "gru")]
    assert len(settings_of(with_variants)) == 4


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (
            ["clip + O"],
            r"scales\.smoke\.axes\.adding\.variant: unknown variant 'clip \+ O'; did you mean 'clip \+ Ω'\?",
        ),
        ([["plain"]], r"axes\.adding\.variant: unknown variant \['plain'\].* known: clip \+ Ω, plain"),
        ([], r"smoke\.axes\.adding\.variant: expected at least one value"),
        (["plain", "plain"], r"smoke\.axes\.adding\.variant: expected each value once"),
    ],
)
def test_mistakes_in_a_scales_variants_are_named(labels: list[Any], message: str, with_variants: Paths) -> None:
    override(with_variants, axes={"adding": {"variant": labels}})
    with pytest.raises(ConfigError, match=message):
        load_study(with_variants, "cells")


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            ["grids", "adding", "variants", "plain"],
            r"f\.grids\.adding\.variants\.plain: 'training\.max_steps\.a' runs through 'max_steps'",
        ),
        (
            ["scales", "smoke", "grids", "adding"],
            r"f\.scales\.smoke\.grids\.adding: 'training\.max_steps\.a' runs through 'max_steps'",
        ),
    ],
)
def test_a_change_that_runs_through_a_number_says_where_it_stands(
    keys: list[str], message: str, with_variants: Paths
) -> None:
    override(with_variants, grids={})
    edit(with_variants.study_config("cells"), *keys, value={"training.max_steps.a": 1})
    with pytest.raises(ConfigError, match=message):
        settings_of(with_variants, "smoke")


def test_a_scale_skips_grids(with_variants: Paths) -> None:
    override(with_variants, skip=["adding"])
    assert settings_of(with_variants, "smoke") == []
    assert settings_of(with_variants, "smoke", "digits") == settings_of(with_variants, "laptop", "digits") != []
    assert len(settings_of(with_variants, "laptop")) == 4


def test_lengths_of_variants_and_of_grids_that_are_not_skipped(with_variants: Paths) -> None:
    def lengths(scale: str) -> tuple[int, ...]:
        return lengths_of({"cells": load_study(with_variants, "cells")}, scale).get("adding", ())

    assert lengths("laptop") == (30,)
    override(with_variants, grids={"adding": {"dataset.length": 40}})
    assert lengths("smoke") == (30, 40)
    override(with_variants, axes={"adding": {"variant": ["plain"]}})
    assert lengths("smoke") == ()
    override(with_variants, skip=["adding"])
    assert lengths("smoke") == ()
    edit(with_variants.study_config("cells"), "grids", "adding", "axes", value={"dataset.length": [5, 6]})
    assert lengths("laptop") == (5, 6)  # axes win over the variant's


def test_selection_over_an_axis_that_one_grid_lacks(with_variants: Paths) -> None:
    study = load_study(with_variants, "cells")
    assert study.select is not None
    assert study.select.over == ("optimiser.learning_rate",)
    assert "optimiser.learning_rate" not in study.grids["adding"].all_axes
    edit(with_variants.study_config("cells"), "select", "over", value=["variant"])
    load_study(with_variants, "cells")


APART = r"expected either 'optimiser' as a whole or parts of it, not both, got 'optimiser\.learning_rate'"
WHOLE, PART = ("optimiser", {"name": "sgd", "learning_rate": 0.5}), ("optimiser.learning_rate", 0.1)


@pytest.mark.parametrize("order", [(WHOLE, PART), (PART, WHOLE)])
@pytest.mark.parametrize(
    ("keys", "many"),
    [
        (("set",), False),
        (("grids", "adding", "set"), False),
        (("grids", "adding", "axes"), True),
        (("grids", "adding", "variants"), False),
        (("scales", "smoke", "set"), False),
        (("scales", "smoke", "grids"), False),
    ],
)
def test_a_key_beside_its_parent_is_refused_in_any_order(
    keys: tuple[str, ...], many: bool, order: tuple[tuple[str, Any], ...], project: Paths
) -> None:
    changes: dict[str, Any] = {key: [value] if many else value for key, value in order}
    if keys[-1] in {"variants", "grids"}:
        changes = {"adding": changes}
    edit(project.study_config("cells"), *keys, value=changes)
    with pytest.raises(ConfigError, match=APART):
        load_study(project, "cells")


def test_seeds_are_not_a_studys(project: Paths) -> None:
    edit(project.study_config("cells"), "grids", "adding", "set", value={"seeds": [1]})
    with pytest.raises(ConfigError, match=r"grids\.adding: key 'seeds': seeds are those of params\.yaml"):
        expand(load_study(project, "cells"), "laptop", "configs/studies/cells.yaml")


@pytest.mark.parametrize("name", ["a/b", "../studies/optimisers", "a-b", ".."])
@pytest.mark.parametrize(("key", "many"), [("scale", False), ("studies", True), ("datasets", True)])
def test_a_name_in_params_is_one_plain_component(key: str, many: bool, name: str, project: Paths) -> None:
    edit(project.params, key, value=[name] if many else name)
    with pytest.raises(ConfigError, match=rf"params\.yaml\.{key}: expected letters, digits and _ only"):
        load_params(project)


def test_a_study_is_not_called_as_what_the_metrics_have(project: Paths) -> None:
    edit(project.params, "studies", value=["claims"])
    with pytest.raises(ConfigError, match=r"studies: expected another name than 'claims'"):
        load_params(project)


def test_a_grid_is_one_plain_component(project: Paths) -> None:
    edit(project.study_config("cells"), "grids", "a/b", value={})
    with pytest.raises(ConfigError, match=r"cells\.yaml\.grids: expected letters, digits and _ only \(such as 'a_b'\)"):
        load_study(project, "cells")


def seeded(*seeds: Any) -> TrialSpec:
    raw = expand(load_study(Paths.at(ROOT), "cells"), "laptop", "f")[0]
    spec: TrialSpec = build(TrialSpec, {**raw.spec, "seeds": [0]}, raw.where)
    return dataclasses.replace(spec, seeds=seeds)


@pytest.mark.parametrize(
    ("seeds", "message"),
    [
        ((2**64,), r"^seeds: expected integers of at most 2147493647"),
        ((True,), r"^seeds\[0\]: expected an integer, got True"),
        ((0.0,), r"^seeds\[0\]: expected an integer, got 0\.0"),
        (range(10_001), r"^seeds: expected at most 10000 seeds, got 10001"),
    ],
)
def test_a_spec_made_in_python_has_the_bounds_of_one_that_is_read(seeds: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        seeded(*seeds)
    assert seeded(2**31 + 9999).seeds == (2147493647,)

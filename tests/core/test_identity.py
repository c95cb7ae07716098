"""Which code counts for which trial: rights of the digest, each tried by an edit of a copy of the package."""

from __future__ import annotations

import ast
import copy
import functools
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import pipeline
from pipeline.config import build
from pipeline.config.own_code import top_folders
from pipeline.core.identity import Code, code_digest
from pipeline.core.training import TrialSpec, trial_id
from pipeline.errors import PipelineError
from tests.core.slowly import mostly
from tests.core.training.conftest import RAW
from tests.test_architecture import ROOT

PACKAGE = Path(pipeline.__file__).parent
NOBODY: set[str] = set()


def spec(**changed: Any) -> TrialSpec:
    """Return a spec; `model__cell` stands for `model.cell`."""
    raw: dict[str, Any] = copy.deepcopy(RAW)
    for key, value in changed.items():
        *path, last = key.split("__")
        part = raw
        for name in path:
            part = part[name]
        part[last] = value
    return build(TrialSpec, raw, "a test")


LINEAR = {"schedule": {"name": "linear", "start": 1.0, "slope": 0.1, "floor": 0.0}, "coin": "token"}
SPECS = {
    "elman": spec(),
    "relu": spec(model__cell="elman_relu"),
    "lstm": spec(model__cell="lstm"),
    "value": spec(clipping={"name": "value", "threshold": 1.0}),
    "sgd": spec(optimiser={"name": "sgd", "learning_rate": 0.1}),
    "orthogonal": spec(model__initialisation__recurrent={"name": "orthogonal", "gain": 1.0}),
    "chrono": spec(model__cell="gru", model__initialisation__bias={"name": "chrono", "longest_lag": 9.0}),
    "self": spec(model__attention={"name": "self", "num_heads": 2}),
    "additive": spec(model__attention={"name": "additive", "feeds": "context", "size": 3}),
    "sampled": spec(training__forcing=LINEAR),
    "omega": spec(regularisation={"name": "vanishing_gradient", "weight": 1.0}),
    "gates": spec(model__cell="lstm", diagnostics__measures=["gates"]),
    "jacobians": spec(diagnostics__measures=["jacobians", "smoothness"]),
}
EVERYBODY = set(SPECS)
PARSED = functools.cache(ast.parse)


@pytest.fixture(autouse=True)
def _every_text_is_parsed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parse what an edit leaves as it was for the first test only; nothing changes a tree."""
    monkeypatch.setattr(ast, "parse", PARSED)


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A copy of the package."""
    folder = tmp_path / "pipeline"
    shutil.copytree(PACKAGE, folder, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert text.count(old) == 1, (path, old, text.count(old))
    path.write_text(text.replace(old, new))


def append(path: Path, new: str) -> None:
    path.write_text(f"{path.read_text() if path.exists() else ''}\n\n{new}\n")


@pytest.fixture
def missing_after(package: Path) -> Callable[[], set[str]]:
    """A function that returns for which specs the copy's code is another than the package's."""

    def compare() -> set[str]:
        code = Code(package)
        return {name for name, each in SPECS.items() if code.digest(each) != code_digest(each)}

    return compare


GATED = {"lstm", "chrono", "gates"}
EDITS = {
    "the recurrence of one cell": (
        "core/cells/elman.py",
        "        return (function(a.h),), {}",
        "        return (function(2 * a.h),), {}",
        EVERYBODY - GATED,
    ),
    "a constant of one cell": ("core/cells/elman.py", "LEAKY_SLOPE = 0.01", "LEAKY_SLOPE = 0.02", NOBODY),
    "the nonlinearity of one cell": ("core/cells/elman.py", "elman(torch.relu,", "elman(torch.tanh,", {"relu"}),
    "the entry of one cell": (
        "core/cells/elman.py",
        "elman(torch.tanh, lambda h: 1 - h * h, nn.RNN)",
        "elman(torch.clone, torch.ones_like)",
        EVERYBODY - GATED - {"relu"},
    ),
    "a cell that nobody names": ("core/cells/elman.py", "elman(torch.clone,", "elman(torch.neg,", NOBODY),
    "what all recurrences share": (
        "core/cells/recurrence.py",
        "            state[:, 0] = first",
        "            state[:, 0] = 2 * first",
        EVERYBODY,
    ),
    "a comment": ("core/cells/elman.py", "LEAKY_SLOPE = 0.01", "LEAKY_SLOPE = 0.01  # gentle", NOBODY),
    "a docstring": (
        "core/training/loop.py",
        '"""Make one update of every active replica, and record it."""',
        '"""Update."""',
        NOBODY,
    ),
    "an annotation": (
        "core/clipping.py",
        "def norms(vectors_RP: Tensor) -> Tensor:",
        "def norms(vectors_RP) -> object:",
        NOBODY,
    ),
    "the words of an error": (
        "core/training/loop.py",
        'f"{error.field}: expected {error.expected}; got',
        'f"{error.field}: wanted {error.expected}; got',
        NOBODY,
    ),
    "a check": ("core/training/optimisers.py", "require(0 <= rate <", "require(1e-9 <= rate <", NOBODY),
    "a default of the training loop": (
        "core/training/loop.py",
        "    num_threads: int = 1,\n    max_wall",
        "    num_threads: int = 2,\n    max_wall",
        EVERYBODY,
    ),
    "a statement of the training loop": (
        "core/training/loop.py",
        "            trial.evaluate(training)",
        "            trial.evaluate(training[:1])",
        EVERYBODY,
    ),
    "a constant of training": ("core/training/step.py", "PIECE = 100", "PIECE = 50", EVERYBODY),
    "one clipping rule": (
        "core/clipping.py",
        "return grad_RP.clamp(-most, most)",
        "return grad_RP.clamp(0, most)",
        {"value"},
    ),
    "what clipping rules share": ("core/clipping.py", "if clipped_RP is not grad_RP:", "if True:", EVERYBODY),
    "one optimiser": (
        "core/training/optimisers.py",
        "torch.optim.SGD([parameters], lr=self.learning_rate)",
        "torch.optim.SGD([parameters], lr=2.0)",
        {"sgd"},
    ),
    "one rule of a matrix": (
        "core/models/initialisation.py",
        "nn.init.orthogonal_(block, self.gain, generator=start)",
        "nn.init.eye_(block)",
        {"orthogonal"},
    ),
    "one rule of a bias": (
        "core/models/initialisation.py",
        "uniform_(1.0, self.longest_lag - 1.0,",
        "uniform_(1.0, self.longest_lag,",
        {"chrono"},
    ),
    "one kind of attention": (
        "core/models/self_attention.py",
        "LONGEST_WAVE = 10_000.0",
        "LONGEST_WAVE = 1_000.0",
        {"self"},
    ),
    "the score of one attention": (
        "core/attention/score.py",
        "(torch.tanh(query[:, :, None] + projected_BSK[:, None])",
        "(torch.tanh(query[:, :, None] - projected_BSK[:, None])",
        {"additive"},
    ),
    "one forcing schedule": (
        "core/training/forcing.py",
        "max(self.floor, self.start - self.slope * step)",
        "self.floor",
        {"sampled"},
    ),
    "one regularisation": (
        "core/training/regularisation.py",
        "MIN_SQUARED_NORM = 1e-20",
        "MIN_SQUARED_NORM = 1e-10",
        {"omega"},
    ),
    "one measure": ("core/measures/lyapunov.py", "import torch\n", "import torch\n\nUNUSED = 1\n", NOBODY),
    "a function of one measure": ("core/measures/gates.py", "def retention(", "def retention_(", {"gates"}),
    "how one measure is written": (
        "core/training/diagnostics.py",
        'values = {"log10_value": log10_RK}',
        'values = {"log10_value": 2 * log10_RK}',
        {"jacobians"},
    ),
    "the condition of one measure": (
        "core/training/diagnostics.py",
        "local_smoothness(self.replicas, before_RP[which],",
        "local_smoothness(self.replicas, after_RP[which],",
        {"jacobians"},
    ),
    "what runs on import": (
        "core/training/runtime.py",
        "import torch\n",
        "import torch\n\ntorch.set_flush_denormal(True)\n",
        EVERYBODY,
    ),
    "a figure": ("figures/style.py", "from __future__ import annotations\n", "NEW = 1\n", NOBODY),
    "the rows of the tables": (
        "results/frames.py",
        '.alias("trial_id"))\n    if',
        '.alias("trial_id")).reverse()\n    if',
        EVERYBODY,
    ),
}


QUICK = (
    "the recurrence of one cell",
    "a cell that nobody names",
    "one clipping rule",
    "what runs on import",
)
"""Edits of each kind, for the quick run."""


@pytest.mark.parametrize("what", mostly(EDITS, *QUICK))
def test_an_edit_makes_those_missing_whose_numbers_it_may_change(
    package: Path, missing_after: Callable[[], set[str]], what: str
) -> None:
    name, old, new, expected = EDITS[what]
    edit(package / name, old, new)
    assert missing_after() == expected


NEW_CELL = (ROOT / "docs" / "examples" / "cell.py").read_text()
NEW_RULE = (ROOT / "docs" / "examples" / "clipping_rule.py").read_text()
NEW_DATASET = (ROOT / "docs" / "examples" / "dataset.py").read_text()
NEW_INITIALISATION = (ROOT / "docs" / "examples" / "initialisation.py").read_text()


@pytest.mark.slow
def test_what_is_new_leaves_every_trial(package: Path, missing_after: Callable[[], set[str]]) -> None:
    """A cell, a rule, a dataset, an initialisation, an optimiser, a measure, each as an author would write it."""
    append(package / "core" / "cells" / "ran.py", NEW_CELL)
    append(package / "core" / "clipping.py", NEW_RULE.partition("from pipeline.core.clipping")[2].partition("\n")[2])
    append(package / "core" / "normalised.py", NEW_RULE)
    append(package / "data" / "delayed_xor.py", NEW_DATASET)
    rules = package / "core" / "models" / "initialisation.py"
    edit(
        rules,
        "MatrixRule = Uniform |",
        f"@dataclass{NEW_INITIALISATION.partition('@dataclass')[2]}\n\nMatrixRule = Antisymmetric | Uniform |",
    )
    optimisers = package / "core" / "training" / "optimisers.py"
    edit(
        optimisers,
        "Optimiser = Sgd |",
        "class New(Sgd):\n    name: Literal['new'] = 'new'\n\n\nOptimiser = New | Sgd |",
    )
    (package / "core" / "measures" / "rank.py").write_text("def rank(block):\n    return block.matrix_rank()\n")
    diagnostics = package / "core" / "training" / "diagnostics.py"
    edit(
        diagnostics,
        "from pipeline.core.measures.spectrum",
        "from pipeline.core.measures.rank import rank\nfrom pipeline.core.measures.spectrum",
    )
    edit(
        diagnostics,
        '        if "truncation" in self',
        '        if "rank" in self.spec.measures:\n            self._write_rank(flat_RP)\n'
        '        if "truncation" in self',
    )
    edit(
        diagnostics,
        "    def _write_truncation",
        "    def _write_rank(self, flat_RP):\n        self.rows.write(rank(flat_RP))\n\n    def _write_truncation",
    )
    edit(package / "core" / "training" / "spec.py", 'Literal["gates", ', 'Literal["gates", "rank", ')
    edit(
        package / "core" / "training" / "spec.py",
        'RECURRENT_MEASURES = {"gates", ',
        'RECURRENT_MEASURES = {"gates", "rank", ',
    )
    edit(
        package / "core" / "models" / "architecture.py",
        "AttentionSpec = NoAttention |",
        "AttentionSpec = NoAttention | Sgd |",
    )
    assert missing_after() == NOBODY


def test_an_effect_in_a_new_module_that_is_imported_counts(
    package: Path, missing_after: Callable[[], set[str]]
) -> None:
    append(package / "core" / "cells" / "new.py", "import torch\n\ntorch.set_default_dtype(torch.float64)")
    assert missing_after() == EVERYBODY


def test_a_cell_that_changes_another_counts(package: Path, missing_after: Callable[[], set[str]]) -> None:
    append(package / "core" / "cells" / "lstm.py", 'CELLS["lstm"] = None')
    assert missing_after() == EVERYBODY  # a statement beside the entries: whose it is cannot be seen


@pytest.mark.slow
def test_a_cell_that_was_registered_from_outside_counts_with_all_others(
    package: Path, missing_after: Callable[[], set[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.core.cells import CELLS

    monkeypatch.setitem(CELLS, "renamed", CELLS["lstm"])
    renamed = spec(model__cell="renamed")
    assert Code(package).digest(renamed) == code_digest(renamed)
    edit(package / "core" / "cells" / "gru.py", 'gates=GRU_GATES | {"n": APART}', "gates=GRU_GATES")
    assert Code(package).digest(renamed) != code_digest(renamed)


def test_what_a_trial_never_runs_is_not_among_its_parts() -> None:
    parts = Code(PACKAGE).parts(SPECS["elman"])
    assert {"pipeline.core.cells.elman.elman", "pipeline.core.training.loop.Trial"} <= parts
    strangers = {"pipeline.core.models.self_attention.SelfAttentionModel", "pipeline.core.clipping.Value"}
    assert not strangers & parts
    assert not any(part.startswith(("pipeline.core.measures.lyapunov", "pipeline.selftest")) for part in parts)


def test_the_id_holds_the_code(monkeypatch: pytest.MonkeyPatch) -> None:
    before = trial_id(SPECS["elman"], "data")
    monkeypatch.setattr("pipeline.core.training.spec.code_digest", lambda spec: "other code")
    assert trial_id(SPECS["elman"], "data") != before
    assert len(before) == 16


OWN = {
    "own_nets/__init__.py": "",
    "own_nets/models.py": (
        "import torch\nimport own_tools\nfrom .layers import width\n\n\ndef net(n):\n    from .late import twist\n"
        "    return torch.nn.Linear(width(n), own_tools.LIMIT)\n\n\ndef other():\n    return 1\n"
    ),
    "own_nets/layers.py": "def width(n):\n    return n + 1\n\n\ndef height(n):\n    return n\n",
    "own_nets/late.py": "def twist(x):\n    return -x\n",
    "own_tools.py": "LIMIT = 3\nMORE = 4\n",
}
"""A package of a user's own, and a module beside it."""


@functools.cache
def read_once() -> Code:
    code = Code(PACKAGE)
    code.digest(spec(model={"name": "custom", "import": "torch.nn:Linear"}))
    return code


@pytest.fixture
def own_digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], str]]:
    """The digest of a network of one's own, as a new process would find it."""
    for name, text in OWN.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    top_folders.cache_clear()
    own, whole = spec(model={"name": "custom", "import": "own_nets.models:net"}), read_once()

    def digest() -> str:
        code = copy.copy(whole)
        for name in ("_sources", "_modules", "_contents", "_digests"):  # the package was read, a user's own was not
            setattr(code, name, dict(getattr(code, name)))
        return code.digest(own)

    yield digest
    top_folders.cache_clear()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "old", "new", "counts"),
    [
        ("own_nets/models.py", "width(n)", "width(n + 1)", True),
        ("own_nets/layers.py", "n + 1", "n + 2", True),
        ("own_nets/late.py", "-x", "+x", True),
        ("own_tools.py", "LIMIT = 3", "LIMIT = 4", True),
        ("own_nets/models.py", "import torch\n", "import torch\n\ntorch.manual_seed(0)\n", True),
        ("own_nets/models.py", "return 1", "return 2", False),
        ("own_nets/layers.py", "return n\n", "return 2 * n\n", False),
        ("own_nets/layers.py", "def width(n):\n", 'def width(n):\n    """Return a width."""\n', False),
        ("own_tools.py", "MORE = 4", "MORE = 5", False),
    ],
)
def test_of_a_network_of_ones_own_the_code_that_it_is_made_of_counts(
    name: str, old: str, new: str, counts: bool, tmp_path: Path, own_digest: Callable[[], str]
) -> None:
    before = own_digest()
    edit(tmp_path / name, old, new)
    assert (own_digest() != before) == counts


@pytest.mark.slow
def test_of_this_package_what_runs_torchs_modules_counts_for_a_network_of_ones_own(package: Path) -> None:
    own, digests = spec(model={"name": "custom", "import": "tests.own_models:Last"}), [""] * 3
    for place, (name, old, new) in enumerate(
        [
            ("core/cells/lstm.py", "JANET_SHIFT = 1.0", "JANET_SHIFT = 2.0"),  # a cell that torch does not have
            ("core/cells/operations.py", "EXAMPLES_OF_A_THREAD = 8", "EXAMPLES_OF_A_THREAD = 9"),
        ]
    ):
        digests[place] = Code(package).digest(own)
        edit(package / name, old, new)
    digests[2] = Code(package).digest(own)
    assert digests[0] == digests[1] != digests[2]


@pytest.mark.slow
def test_an_installed_package_counts_by_its_version(monkeypatch: pytest.MonkeyPatch) -> None:
    own = spec(model={"name": "custom", "import": "torch.nn:Linear"})
    before = Code(PACKAGE).digest(own)
    monkeypatch.setattr("pipeline.core.identity.version_of", lambda module: "torch 99")
    assert Code(PACKAGE).digest(own) != before


def test_a_class_without_a_source_file_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    rule = type(SPECS["elman"].clipping)
    monkeypatch.setattr(rule, "__module__", "__main__.notebook")
    with pytest.raises(PipelineError, match=r"module '__main__\.notebook': its source cannot be read"):
        Code(PACKAGE).digest(SPECS["elman"])


@pytest.mark.slow
def test_of_two_hundred_settings_that_name_the_same_code_it_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    code, parsed = Code(PACKAGE), list[bytes]()
    real = ast.parse
    monkeypatch.setattr(ast, "parse", lambda text: parsed.append(text) or real(text))
    for rate in range(200):
        code.digest(spec(optimiser={"name": "sgd", "learning_rate": 0.1 + rate}))
    assert len(code._digests) == 1
    for each in SPECS.values():
        code.digest(each)
    assert len(parsed) == len(set(parsed)) < len(code._sources)


def test_what_was_imported_counts_whatever_its_files_have_become(monkeypatch: pytest.MonkeyPatch) -> None:
    code = Code(PACKAGE)
    monkeypatch.setattr("pipeline.core.identity.own_source", lambda name: pytest.fail(f"{name} was read again"))
    assert code.digest(SPECS["elman"]) == code_digest(SPECS["elman"])

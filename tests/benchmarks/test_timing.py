from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import record
from benchmarks.timing import environment, summary, time_side_by_side, vector_bits


def test_rounds_run_all_contenders_and_each_warms_up_before_it_is_timed() -> None:
    made: list[str] = []
    timings = time_side_by_side({"a": lambda: made.append("a"), "b": lambda: made.append("b")}, num_repeats=2)
    assert "".join(made) == "ab" + 2 * "aabb"
    assert {name: timing.num_repeats for name, timing in timings.items()} == {"a": 2, "b": 2}


def test_a_timing_is_the_median_with_its_quartiles() -> None:
    assert summary([5.0, 1.0, 2.0, 3.0, 4.0]) == (3.0, 1.5, 4.5, 5)
    assert summary([2.0]) == (2.0, 2.0, 2.0, 1)


@pytest.mark.parametrize(
    ("flags", "bits"), [("sse2 avx avx2 avx512f", 512), ("sse2 avx avx2", 256), ("sse2", 128), ("", 128)]
)
def test_the_vector_width_is_that_of_the_widest_registers(flags: str, bits: int) -> None:
    assert vector_bits(flags) == bits


def test_the_environment_names_the_processor_and_its_vectors() -> None:
    found = environment()
    assert found["vector_bits"] in {128, 256, 512}
    assert {"processor", "processor_family_model", "compiler", "torch", "num_cores", "load_average"} <= set(found)


def test_a_measurement_replaces_its_own_kind_and_leaves_the_others(tmp_path: Path) -> None:
    path = tmp_path / "latest.json"
    assert record.read(path) == {}
    for name, measured in (("steps", {"rows": [1]}), ("sweep", {"rows": [2]}), ("steps", {"rows": [3]})):
        record.write(name, measured, path)
    assert record.read(path) == {"steps": {"rows": [3]}, "sweep": {"rows": [2]}}

"""What the README and docs/speed.md say of benchmarks/latest.json: `python -m benchmarks.pages` writes it.

A page has places, `<!-- speed: name -->` to `<!-- end -->`, and what stands between them is made here. No other text
has a number of a measurement in it, so that a new measurement is one command and no editing.
"""

from __future__ import annotations

import re
import statistics
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import pictures, record
from pipeline.config import write_whole
from pipeline.figures.style import to_png

ROOT = Path(__file__).parents[1]
PAGES = ("README.md", "docs/speed.md")
PICTURE = "docs/pictures/seeds.png"
SLOT = re.compile(r"(<!-- speed: (?P<name>\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
NAMES = {"elman": "Elman", "gru": "GRU", "lstm": "LSTM"}

Latest = Mapping[str, Any]


def main() -> None:
    """Write the pages and the picture."""
    latest = record.read()
    for page in PAGES:
        path = ROOT / page
        write_whole(path, filled(path.read_text(encoding="utf-8"), latest).encode())
    write_whole(ROOT / PICTURE, to_png(pictures.draw_seeds(latest["seeds"]["rows"])))


def filled(text: str, latest: Latest) -> str:
    """Return a page with what was measured last in its places."""
    return SLOT.sub(lambda slot: f"{slot[1]}{wrapped(TEXTS[slot['name']](latest))}\n{slot[3]}", text)


def wrapped(text: str) -> str:
    """Return paragraphs and items of lists in lines as long as the pages'; tables and pictures as they are."""
    return "\n\n".join(part if part[0] in "|!" else _filled_paragraph(part) for part in text.split("\n\n"))


def _filled_paragraph(text: str) -> str:
    items = re.split(r"\n(?=- )", text)
    return "\n".join(
        textwrap.fill(
            " ".join(item.split()),
            120,
            subsequent_indent="  " if item.startswith("- ") else "",
            break_long_words=False,
            break_on_hyphens=False,
        )
        for item in items
    )


def share(value: float) -> str:
    """Return a share in per cent."""
    return f"{100 * value:.0f} %"


def medians(num_rounds: int, of: str) -> str:
    """Return of how many rounds numbers are the medians."""
    return f"Medians of {num_rounds} {of}" if num_rounds > 1 else "Measured once"


def ratio(value: float) -> str:
    """Return a ratio in two digits."""
    return f"{value:.0f}" if value >= 9.95 else f"{value:.1f}" if value >= 0.995 else f"{value:.2f}"


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return a table in Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def machine(measured: Latest) -> str:
    """Return what a measurement was made on."""
    env = measured["environment"]
    return (
        f"{env['processor']} (family/model {env['processor_family_model']}), {env['num_cores']} cores, "
        f"{env['vector_bits']}-bit vectors, torch {env['torch']}, {env['compiler'] or 'no compiler'}"
    )


def ratios(latest: Latest) -> str:
    """Return the table of the README: how many times faster a traced step is, by shape and number of seeds."""
    steps = latest["steps"]
    rows = []
    for B, H, T in dict.fromkeys((row["B"], row["H"], row["T"]) for row in steps["rows"]):
        of_shape = [row for row in steps["rows"] if (row["B"], row["H"], row["T"]) == (B, H, T)]

        def three(key: str, R: int, of_shape: Sequence[dict[str, Any]] = of_shape) -> str:
            return " / ".join(ratio(row[key]) for row in of_shape if row["R"] == R)

        replicas = sorted({row["R"] for row in of_shape})
        against_nn = [three("traced_vs_torch_nn", R) for R in replicas]
        rows.append([f"{B}, {H}, {T}", *against_nn, three("traced_vs_hand_unrolled", replicas[len(replicas) // 2])])
    replicas = sorted({row["R"] for row in steps["rows"]})
    cells = " / ".join(NAMES[cell] for cell in dict.fromkeys(row["cell"] for row in steps["rows"]))
    header = ["B, H, T", *(f"{R} seed{'s' * (R > 1)}" for R in replicas)]
    header.append(f"hand-unrolled loop, {replicas[len(replicas) // 2]} seeds")
    kernels = " and ".join(sorted({row["kernel"] for row in steps["rows"]}))
    said = f"{cells}, engine: {kernels}. {machine(steps)}; one thread."
    said += f" {medians(steps['rows'][0]['num_repeats'], 'rounds')}."
    return f"{table(header, rows)}\n\n{said}"


def milliseconds(latest: Latest) -> str:
    """Return every timing of a step."""
    header = [
        "cell",
        "B, H, T",
        "seeds",
        "`torch.nn`",
        "hand-unrolled",
        "eager, traced",
        "here",
        "here, traced",
        "kernel",
    ]
    keys = ("torch_nn_ms", "hand_unrolled_ms", "eager_ms", "plain_ms", "traced_ms")
    rows = [
        [
            NAMES[row["cell"]],
            f"{row['B']}, {row['H']}, {row['T']}",
            row["R"],
            *(f"{row[key]:.2f}" for key in keys),
            row["kernel"],
        ]
        for row in latest["steps"]["rows"]
    ]
    return table(header, rows)


def seeds(latest: Latest) -> str:
    """Return what a seed costs, with the picture."""
    rows = latest["seeds"]["rows"]
    sides = pictures.by_side(rows)
    there = {row["R"]: row for row in sides[pictures.ELSEWHERE]}
    lines = []
    for row in sides[pictures.HERE]:
        other = there.get(row["R"])
        theirs = ["", ""] if other is None else [f"{other['ms']:.2f}", f"{other['peak_bytes'] / 2**20:.0f}"]
        lines.append([row["R"], f"{row['ms']:.2f}", f"{row['peak_bytes'] / 2**20:.0f}", *theirs])
    header = ["seeds", "here: ms a step and seed", "MiB", "`torch.nn`, a process per seed: ms", "MiB"]
    title = pictures.title_of(rows)
    picture = f"![{title}]({PICTURE.removeprefix('docs/')})"
    return "\n\n".join(
        [picture, f"*{title}. {pictures.caption_of(rows)}*", f"On {machine(latest['seeds'])}.", table(header, lines)]
    )


def one_more_seed(latest: Latest) -> str:
    """Return what a seed more costs, in a sentence."""
    rows = latest["seeds"]["rows"]
    shape = ", ".join(str(rows[0][size]) for size in "BHT")
    return f"{pictures.title_of(rows)} ({rows[0]['cell'].upper()}; B, H, T = {shape})."


def study(latest: Latest) -> str:
    """Return what a whole study takes, in a sentence."""
    sweep = latest["sweep"]
    asked = sweep["study"]
    with_it, without = (sweep[f"ratio_of_updates_per_minute{end}"] for end in ("", "_after_startup"))
    return (
        f"A study of {len(asked['cells'])} cells, {len(asked['learning_rates'])} learning rates and "
        f"{sweep['num_seeds']} seeds at T = {asked['T']}, {asked['num_updates']} updates each, with its diagnostics "
        f"and tables, makes {ratio(with_it)} times the updates per minute of plain Ray Tune with `torch.nn` and a "
        f"trial per seed, start-up included ({ratio(without)} times without it)."
    )


def sweeps(latest: Latest) -> str:
    """Return both sweeps as a table."""
    sweep = latest["sweep"]
    names = {"ours": "`stages/sweep.py`, a trial of all seeds", "plain": "Ray Tune and `torch.nn`, a trial per seed"}
    header = [
        "",
        "trials × seeds a minute",
        "updates a minute",
        "after start-up",
        "whole, s",
        "start-up, s",
        "of it `ray.init`, s",
    ]
    rows = [
        [
            name,
            *(f"{sweep[who][key]:.1f}" for key in ("replicas_per_minute",)),
            *(f"{sweep[who][key]:.0f}" for key in ("updates_per_minute", "updates_per_minute_after_startup")),
            *(f"{sweep[who][key]:.1f}" for key in ("total_s", "startup_s", "ray_init_s")),
        ]
        for who, name in names.items()
    ]
    taken = statistics.median(run["diagnostics_time_share"] for run in sweep["runs"] if run["who"] == "ours")
    said = (
        f"{medians(sweep['num_rounds'], 'sweeps of each kind')}; {machine(sweep)}. Diagnostics took {share(taken)} of "
        "a trial's time here; the plain sweep has none."
    )
    return f"{table(header, rows)}\n\n{study(latest)}\n\n{said}"


def many(latest: Latest) -> str:
    """Return what ten thousand settings cost, as a table and sentences."""
    found, ray = latest["many"], latest["many"]["ray"]
    header = [
        "",
        "settings",
        "whole, s",
        "core-seconds a setting",
        "driver, MiB",
        "more of it per 1000 settings, MiB",
        "files in the store",
        "MB there",
    ]
    rows = [
        [
            name,
            run["num_settings"],
            f"{run['total_s']:.0f}",
            f"{run['cpu_s_per_setting']:.3f}",
            f"{run['driver_mib']:.0f}",
            f"{run['driver_mib_per_1000']:.1f}",
            run["num_files"],
            f"{run['num_bytes'] / 1e6:.0f}",
        ]
        for name, run in (("packed", found["packed"]), ("one setting a program", found["unpacked"]))
    ]
    published = (ray["total_s"] - ray["floor_s"]) * ray["num_cpus"] / ray["num_trials"]
    said = (
        f"{found['num_settings']} settings are planned in {found['plan_s']:.1f} s, with all of them in the store in "
        f"{found['plan_stored_s']:.1f} s ({found['plan_without_catalogue_s']:.1f} s where the catalogue was lost), and "
        f"a sweep that finds nothing to train writes its tables again in {found['nothing_to_do_s']:.0f} s, Python's "
        f"start included. {machine(found)}; all cores, {found['num_seeds']} seeds a setting, measured once. Ray's own "
        f"release test has {ray['num_trials']} trials that only sleep: {ray['total_s']:.0f} s on {ray['num_cpus']} "
        f"CPUs where {ray['floor_s']:.0f} s are slept, {published:.3f} core-seconds a trial."
    )
    return f"{table(header, rows)}\n\n{said}"


def large_report(latest: Latest) -> str:
    """Return what a report of ten thousand settings takes, and how large its pages are, as a table and a sentence."""
    found = latest["large_report"]
    header = ["", "whole, s", "peak, MiB", "index, kB", "the study's page, kB", "explorer's data, kB", "whole site, MB"]
    rows = [
        [
            row["kind"],
            f"{row['total_s']:.0f}",
            f"{row['peak_mib']:.0f}",
            *(f"{row[size] / 1e3:.0f}" for size in ("index_bytes", "page_bytes", "explorer_bytes")),
            f"{row['site_bytes'] / 1e6:.1f}",
        ]
        for row in found["rows"]
    ]
    said = f"{found['num_settings']} made-up settings of {found['num_seeds']} seeds. {machine(found)}; measured once."
    return f"{table(header, rows)}\n\n{said}"


def others(latest: Latest) -> str:
    """Return what truncation, translation, diagnostics and length cost."""
    one, many = latest["translation"]["rows"][0], latest["translation"]["rows"][-1]
    shares = [row["diagnostics_time_share"] for row in latest["diagnostics"]["rows"]]
    rows = latest["truncation"]["rows"]
    by_stream = [row["peak_bytes"] / 2**20 for row in rows if (row["who"], row["backward_length"]) == ("ours", 50)]
    full = [(row["stream"], row["peak_bytes"] / 2**30) for row in rows if row["who"] != "ours"]
    first, last = latest["sequential"]["rows"][0], latest["sequential"]["rows"][-1]
    return f"""\
- A translating step (64 ragged pairs, bidirectional LSTM encoder, attention), traced, is
  {ratio(many["traced_vs_torch_nn"])} times as fast per seed, with {many["R"]} of them, as the same network in plain
  `torch.nn`, and {ratio(one["traced_vs_torch_nn"])} times with one.
- The diagnostics at the default schedule take {share(min(shares))} to {share(max(shares))} of the time of the steps.
- Truncated backpropagation holds {min(by_stream):.0f} to {max(by_stream):.0f} MiB at k2 = 50 for streams of
  {full[0][0]} to {full[-1][0]} timesteps, where a full backward pass in `torch.nn` takes {full[0][1]:.2f} to
  {full[-1][1]:.1f} GiB.
- From T = {first["T"]} to {last["T"]} a step of one layer of width 64, one seed on one core, goes from
  {first["elman_ms"]:.1f} to {last["elman_ms"]:.1f} ms (Elman), {first["lstm_ms"]:.1f} to {last["lstm_ms"]:.1f} ms
  (LSTM) and {first["self_attention_ms"]:.1f} to {last["self_attention_ms"]:.1f} ms (self-attention in `torch.nn`)."""


def tracing(latest: Latest) -> str:
    """Return what a trace of somebody's own LSTM costs."""
    rows = latest["tracing"]["rows"]
    header = ["B, H, T", "plain", "traced", "in float64", "by hand", "traced / plain", "by hand / traced"]
    lines = [
        [
            f"{row['B']}, {row['H']}, {row['T']}",
            *(f"{row[f'{name}_ms']:.2f}" for name in ("plain", "traced", "float64", "by_hand")),
            ratio(row["traced_vs_plain"]),
            ratio(row["by_hand_ms"] / row["traced_ms"]),
        ]
        for row in rows
    ]
    said = f"Milliseconds. {machine(latest['tracing'])}; one thread. {medians(rows[0]['num_repeats'], 'rounds')}."
    return f"{table(header, lines)}\n\n{said}"


TEXTS: dict[str, Callable[[Latest], str]] = {
    text.__name__: text
    for text in (ratios, milliseconds, tracing, seeds, one_more_seed, study, sweeps, many, large_report, others)
}
"""What can stand in a place, by its name there."""


if __name__ == "__main__":
    main()

from __future__ import annotations

import polars as pl

from pipeline.figures import influence_balancing
from pipeline.figures.style import to_svg

GRADIENTS = pl.DataFrame({"backward_length": [1, 2, 3, 4], "gradient": [1.0, 4.0, -1.0, -6.0]})
PATHS = pl.DataFrame(
    {
        "backward_length": [2, 2, 2, 4, 4, 4],
        "step": [0, 1, 2, 0, 1, 2],
        "theta": [0.5, 3.0, 20.0, 0.5, 0.1, -1 / 6],
    }
)


def test_the_title_says_where_the_sign_turns_and_what_reaches_the_optimum() -> None:
    told = influence_balancing.title(GRADIENTS, PATHS)
    assert (
        told == "The truncated gradient has the wrong sign until K = 3; training reaches the optimum with K = 4 alone"
    )
    none = influence_balancing.title(GRADIENTS, PATHS.filter(backward_length=2))
    assert none.endswith("with no K tried alone")


def test_the_caption_names_the_largest_gradient_and_what_was_trained() -> None:
    told = influence_balancing.caption(GRADIENTS, PATHS)
    assert "largest 4.0000 at K = 2" in told
    assert "K = 2, 4" in told


def test_it_draws_both_panels() -> None:
    figure = influence_balancing.draw(GRADIENTS, PATHS)
    assert [ax.get_xlabel() for ax in figure.axes] == ["backward length K", "training step"]
    assert [line.get_label() for line in figure.axes[1].get_lines()][:2] == ["K = 2", "K = 4"]
    assert b"<svg" in to_svg(figure)

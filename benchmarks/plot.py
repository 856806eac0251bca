"""The plot of ``benchmarks.peers``: bars for each store and kind of request.

It knows matplotlib and no session.  Its colours are seen on white and on black.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

Bar: TypeAlias = tuple[str, str, str, tuple[float, float, float]]
"""Store, kind of request, contestant, and the quartiles of its multiple."""

TEXT = "#808080"
OURS, OTHERS = "#d97706", "#5b8def"
OURS_IS = "wsgisession"


def draw(bars: Sequence[Bar], path: Path) -> None:
    """Write the plot as an SVG file."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    pyplot.rcParams.update(
        {"text.color": TEXT, "axes.labelcolor": TEXT, "svg.hashsalt": "benchmarks"}
        | {"xtick.color": TEXT, "ytick.color": TEXT, "axes.edgecolor": TEXT}
    )
    stores = list(dict.fromkeys(store for store, *_ in bars))
    kinds = list(dict.fromkeys(kind for _, kind, *_ in bars))
    heights = [len({name for at, _, name, _ in bars if at == s}) for s in stores]
    figure, axes = pyplot.subplots(
        len(stores),
        len(kinds),
        figsize=(9, sum(heights) * 0.28 + 0.75 * len(stores)),
        squeeze=False,
        gridspec_kw={"height_ratios": heights},
        layout="constrained",
    )
    for row, store in enumerate(stores):
        for column, kind in enumerate(kinds):
            here = [bar for bar in bars if bar[:2] == (store, kind)]
            _bars(axes[row][column], here, is_first=column == 0)
            if row == 0:
                axes[row][column].set_title(f"{kind}, x raw client", fontsize=10)
        axes[row][0].set_ylabel(store, fontsize=10)
    figure.savefig(path, transparent=True, metadata={"Date": None})


def _bars(axis: object, bars: Sequence[Bar], *, is_first: bool) -> None:
    """The contestants of one store and kind, the quickest above."""
    names = [name for *_, name, _ in bars]
    medians = [times[1] for *_, times in bars]
    errors = [
        [max(0.0, times[1] - times[0]) for *_, times in bars],
        [max(0.0, times[2] - times[1]) for *_, times in bars],
    ]
    colours = [OURS if name == OURS_IS else OTHERS for name in names]
    axis.barh(names, medians, xerr=errors, color=colours, ecolor=TEXT, height=0.7)  # type: ignore[attr-defined]
    axis.axvline(1, color=TEXT, linewidth=0.8, linestyle=":")  # type: ignore[attr-defined]
    axis.invert_yaxis()  # type: ignore[attr-defined]
    axis.tick_params(labelsize=8, labelleft=is_first)  # type: ignore[attr-defined]
    axis.patch.set_alpha(0)  # type: ignore[attr-defined]
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)  # type: ignore[attr-defined]

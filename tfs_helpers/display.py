"""Pictures for the notebooks: opaque, readable in light and dark, each with a text that says what there is to see."""

from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["show", "show_distances", "show_embeddings", "show_tree"]

_INCH = 100  # pixels


def show(figure: "Figure", alt: str) -> None:
    """Show a matplotlib figure in a notebook as a PNG picture on white, with its alternative text.

    Args:
        figure: the figure.
        alt: what there is to see, for those who cannot see it; also printed where no picture can be shown.
    """
    from IPython.display import display

    content = BytesIO()
    figure.savefig(content, format="png", dpi=_INCH, facecolor="white")
    data = {"image/png": content.getvalue(), "text/plain": alt}
    display(data, raw=True, metadata={"image/png": {"alt": alt}})


def show_embeddings(
    pictures: dict[str, npt.NDArray[Any]],
    embeddings: dict[str, npt.NDArray[Any]],
    *,
    title: str = "its embedding: 512 numbers",
    own_scales: bool = False,
) -> None:
    """Show pictures, each beside its embedding drawn as a small map.

    Args:
        pictures: float arrays of shape (height, width, 1), 0..1, by name.
        embeddings: float arrays of shape (512,), by the same names.
        title: what the maps show.
        own_scales: give each map a scale of its own, rather than one for all.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 2.6 * len(pictures)), layout="constrained")
    grid = figure.subplots(len(pictures), 2, squeeze=False, width_ratios=(1, 2))
    limits = {name: float(np.abs(embedding).max()) for name, embedding in embeddings.items()}
    for (left, right), (name, picture) in zip(grid, pictures.items(), strict=True):
        left.imshow(picture[..., 0], cmap="gray", vmin=0, vmax=1)
        left.set_title(name)
        left.axis("off")
        limit = limits[name] if own_scales else max(limits.values())
        drawn = right.imshow(embeddings[name].reshape(16, 32), cmap="PuOr", vmin=-limit, vmax=limit)
        right.set_title(title)
        right.axis("off")
        figure.colorbar(drawn, ax=right, shrink=0.8)
    names = ", ".join(pictures)
    show(figure, f"{names}: each eye in grey, and beside it a map of 16 x 32 fields, {title}.")


def show_distances(embeddings: dict[str, npt.NDArray[Any]]) -> None:
    """Show how far each embedding is from each other one, as a table of shaded fields.

    Args:
        embeddings: float arrays of one shape, by name.
    """
    from matplotlib.figure import Figure

    names = list(embeddings)
    vectors = np.stack([embedding.ravel() for embedding in embeddings.values()])
    distances = np.linalg.norm(vectors[:, np.newaxis] - vectors[np.newaxis], axis=2)
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    axes.imshow(distances, cmap="Purples", vmin=0, vmax=2 * float(distances.max()))
    axes.set_xticks(range(len(names)), [name.replace("_", "\n") for name in names])
    axes.set_yticks(range(len(names)), names)
    axes.set_title("distance between embeddings: light is near")
    for (row, column), distance in np.ndenumerate(distances):
        axes.text(column, row, f"{distance:.1f}", ha="center", va="center")
    rows = [f"{name}: {', '.join(f'{d:.1f}' for d in row)}" for name, row in zip(names, distances, strict=True)]
    show(figure, f"Distances between the embeddings of {', '.join(names)}. " + "; ".join(rows) + ".")


def show_tree(folder: str) -> None:
    """Print what a folder holds, as a tree, names in order. Empty folders end in a slash too."""
    from pathlib import Path

    root = Path(folder)
    print(f"{root.as_posix()}/")
    _print_children(root, "")


def _print_children(folder: Any, indent: str) -> None:
    children = sorted(folder.iterdir())
    for child in children:
        last = child is children[-1]
        print(f"{indent}{'└── ' if last else '├── '}{child.name}{'/' if child.is_dir() else ''}")
        if child.is_dir():
            _print_children(child, indent + ("    " if last else "│   "))

"""Pictures for the notebooks: opaque, readable in light and dark, each with a text that says what there is to see."""

from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["show", "show_embeddings", "show_tree"]

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


def show_embeddings(pictures: dict[str, npt.NDArray[Any]], embeddings: dict[str, npt.NDArray[Any]]) -> None:
    """Show pictures, each beside its embedding drawn as a small map.

    Args:
        pictures: float arrays of shape (height, width, 1), 0..1, by name.
        embeddings: float arrays of shape (512,), by the same names.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 2.6 * len(pictures)), layout="constrained")
    grid = figure.subplots(len(pictures), 2, squeeze=False, width_ratios=(1, 2))
    limit = max(float(np.abs(embedding).max()) for embedding in embeddings.values())
    for (left, right), (name, picture) in zip(grid, pictures.items(), strict=True):
        left.imshow(picture[..., 0], cmap="gray", vmin=0, vmax=1)
        left.set_title(name)
        left.axis("off")
        drawn = right.imshow(embeddings[name].reshape(16, 32), cmap="PuOr", vmin=-limit, vmax=limit)
        right.set_title("its embedding: 512 numbers")
        right.axis("off")
        figure.colorbar(drawn, ax=right, shrink=0.8)
    names = ", ".join(pictures)
    show(figure, f"{names}: each eye in grey, and beside it its embedding of 512 numbers as a map of 16 x 32 fields.")


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

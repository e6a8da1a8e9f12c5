"""Make the pictures in `tfs_helpers/data/eyes` from two that scikit-image ships.

    python -m venv /tmp/eyes && /tmp/eyes/bin/pip install scikit-image pillow
    /tmp/eyes/bin/python scripts/make_eyes.py            write the files
    /tmp/eyes/bin/python scripts/make_eyes.py --check    exit 1 if a picture differs

scikit-image is needed for nothing else, so the project does not depend on it.
Sources and licences stand in `tfs_helpers/data/eyes/README.md`.
"""

import argparse
import importlib
import sys
from pathlib import Path

from PIL import Image, ImageChops

TARGET = Path(__file__).parent.parent / "tfs_helpers" / "data" / "eyes"
SIZE = (128, 128)
# Of which picture, and the box that is cut out: left, top, right, bottom.
EYES = {
    "astronaut_left": ("astronaut", (230, 87, 264, 121)),
    "astronaut_right": ("astronaut", (186, 86, 220, 120)),
    "cat_left": ("chelsea", (272, 89, 368, 185)),
    "cat_right": ("chelsea", (122, 69, 218, 165)),
}


def eye(name: str) -> Image.Image:
    """One eye, grey, in its final size."""
    picture, box = EYES[name]
    pictures = importlib.import_module("skimage.data")  # typed nowhere, and needed only here
    grey = Image.fromarray(getattr(pictures, picture)()).convert("L")
    return grey.resize(SIZE, Image.Resampling.LANCZOS, box=box)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare instead of writing")
    check = parser.parse_args().check
    for name in EYES:
        path = TARGET / f"{name}.png"
        if not check:
            eye(name).save(path, optimize=True)
            print(f"{path.name}: {path.stat().st_size} bytes")
            continue
        with Image.open(path) as stored:
            if stored.mode != "L" or stored.size != SIZE or ImageChops.difference(stored, eye(name)).getbbox():
                sys.exit(f"{path.name} differs from what scripts/make_eyes.py makes")


if __name__ == "__main__":
    main()

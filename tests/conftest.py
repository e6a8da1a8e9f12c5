"""What the package's tests share: models exported once, and a server of ours that serves them."""

import signal
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
from served_models import export_all

from tfs_helpers import Model, ModelServer, RunningServer, Specific
from tfs_helpers.export import export_eye_encoder, export_half_plus_two

# Started in the background of a script, pytest inherits signals that are ignored, and so would the programs under test.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

# A machine that is busy is no defect.
hypothesis.settings.register_profile("patient", deadline=None)
hypothesis.settings.load_profile("patient")

pytest_plugins = ["tests.docker_here"]


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of base paths: `half_plus_two` (y = x/2 + 2 and x/2 + 3) and `eye1_encoder`, versions 1 and 2 each."""
    folder = tmp_path_factory.mktemp("models")
    for version in (1, 2):
        export_half_plus_two(folder / "half_plus_two", version=version, addend=version + 1.0)
        export_eye_encoder(folder / "eye1_encoder", version=version)
    return folder


@pytest.fixture(scope="session")
def server(models: Path) -> Iterator[RunningServer]:
    """An embedded server on free ports: half_plus_two labelled stable = 1 and test = 2, eye1_encoder at its latest."""
    description = ModelServer(
        Model("half_plus_two", models / "half_plus_two", versions=Specific(1, 2), labels={"stable": 1, "test": 2}),
        Model("eye1_encoder", models / "eye1_encoder"),
        grpc_port=None,
        rest_port=None,
    )
    with description.start("embedded") as running:
        yield running


@pytest.fixture(scope="session")
def rich_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of base paths: every model of `served_models`, version 1 each."""
    folder = tmp_path_factory.mktemp("rich_models")
    export_all(folder)
    return folder


@pytest.fixture(scope="session")
def rich_server(rich_models: Path) -> Iterator[RunningServer]:
    """An embedded server on free ports with every model of `served_models`."""
    models = [Model(folder.name, folder) for folder in sorted(rich_models.iterdir())]
    with ModelServer(*models, grpc_port=None, rest_port=None).start("embedded") as running:
        yield running

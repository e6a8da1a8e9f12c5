"""The embedded server against recordings of the real one."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from test_embedded_server import answers, process, until

HERE = Path(__file__).parent / "conformance"
STORIES = json.loads((HERE / "lifecycle.json").read_text())


def python(scratch: Path, *arguments: str) -> str:
    """What a program of the recordings prints; its temporary folders are made in `scratch`."""
    done = subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
        cwd=HERE,
        env={**os.environ, "TMPDIR": str(scratch)},
    )
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def recorded_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The models that the recordings call."""
    folder = tmp_path_factory.mktemp("recorded")
    said = python(folder, "make_models.py", str(folder))
    assert (folder / "models.config").is_file(), said
    return folder


def test_every_recorded_answer_is_ours_too(recorded_models: Path, tmp_path: Path) -> None:
    flags = [
        f"--model_config_file={recorded_models}/models.config",
        "--allow_version_labels_for_unavailable_models=true",
    ]
    with process(tmp_path, *flags) as (_, client, rest):
        until(lambda: answers(rest, "half_plus_two"))
        where = ["--rest", rest.url, "--grpc", client.address, "--models", str(recorded_models)]
        said = python(tmp_path, "conformance.py", *where, "cases.json")
    assert said.endswith("410 passed, 0 failed\n"), said


@pytest.mark.parametrize("story", sorted(STORIES))
def test_every_recorded_story_is_ours_too(recorded_models: Path, tmp_path: Path, story: str) -> None:
    copy = tmp_path / "lifecycle.json"
    shutil.copy(HERE / "lifecycle.json", copy)
    server = f"{sys.executable} -m tfs_helpers.embedded"
    where = ["--server", server, "--models", str(recorded_models), "--only", f"^{story}$"]
    said = python(tmp_path, "lifecycle.py", *where, str(copy))
    assert said.endswith("1 passed, 0 failed\n"), said

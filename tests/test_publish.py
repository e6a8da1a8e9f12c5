"""Publishing: complete or not at all, never over another, whatever happens on the way."""

import errno
import os
import re
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from saved_models import PARTS, files, graph, names, weights, write

from tfs_helpers.errors import ExportError, PublishError
from tfs_helpers.export import atomic, publish, retire, version_folder, versions
from tfs_helpers.version_folders import parse_version


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write(tmp_path / "model")


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return tmp_path / "models" / "mine"


# --- numbers


@given(st.sets(st.sampled_from(["0", "1", "01", "+1", "-3", "7", "v9", str(2**63 - 1), str(2**63)])))
def test_the_next_number_is_one_more_than_the_highest(found: set[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder, "base")
        base.mkdir()
        for name in found:
            (base / name).mkdir()
        expected = {int(name) for name in found - {"v9", str(2**63)}}
        assert versions(base) == sorted(expected)
        for number in expected:
            same = [name for name in found - {"v9"} if int(name) == number]
            assert version_folder(base, number) == base / max(same)

        model = write(Path(folder, "model"))
        if 2**63 - 1 in expected:
            with pytest.raises(PublishError, match="no number left"):
                publish(model, base)
            assert set(names(base)) == found
        else:
            made = publish(model, base)
            assert made == base / str(max({0, *expected}) + 1)
            assert set(names(base)) == found | {made.name}


def test_a_file_counts_too_because_the_server_would_try_it(model: Path, base: Path) -> None:
    base.mkdir(parents=True)
    (base / "4").write_text("")
    assert versions(base) == [4]
    assert publish(model, base) == base / "5"


def test_no_folder_has_no_versions(tmp_path: Path) -> None:
    assert versions(tmp_path / "nothing") == []
    with pytest.raises(ExportError, match="has no version 2"):
        version_folder(tmp_path / "nothing", 2)
    (tmp_path / "file").write_text("")
    with pytest.raises(ExportError, match="cannot be read"):
        versions(tmp_path / "file")


# --- the plain way


def test_versions_are_numbered_from_1_and_whole(model: Path, base: Path) -> None:
    assert [publish(model, base), publish(str(model), str(base)), publish(model, base, 7), publish(model, base)] == [
        base / "1",
        base / "2",
        base / "7",
        base / "8",
    ]
    assert names(base) == ["1", "2", "7", "8"]
    for version in base.iterdir():
        assert files(version) == PARTS
        assert (version / "saved_model.pb").read_bytes() == (model / "saved_model.pb").read_bytes()
    assert files(model) == PARTS


def test_a_callable_writes_into_an_empty_folder_that_no_server_takes_for_a_version(base: Path) -> None:
    seen: list[Path] = []

    def source(folder: Path) -> None:
        seen.append(folder)
        assert folder.parent == base
        assert list(folder.iterdir()) == []
        assert versions(base) == []
        folder.rmdir()
        write(folder)

    assert publish(source, base) == base / "1"
    assert parse_version(seen[0].name) is None
    assert names(base) == ["1"]


def test_version_0_may_be_asked_for(model: Path, base: Path) -> None:
    assert publish(model, base, 0) == base / "0"
    assert publish(model, base) == base / "1"


def test_a_published_version_may_be_published_again_as_the_next(model: Path, base: Path) -> None:
    first = publish(model, base)
    assert files(publish(first, base)) == PARTS
    assert versions(base) == [1, 2]


def test_everything_is_on_disk_before_it_has_its_name(model: Path, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[tuple[int, bool]] = []
    fsync = os.fsync

    def spy(descriptor: int) -> None:
        fsync(descriptor)
        synced.append((os.fstat(descriptor).st_ino, (base / "1").exists()))

    monkeypatch.setattr(os, "fsync", spy)
    version = publish(model, base)
    parts = [version, *version.rglob("*")]
    assert {inode for inode, named in synced if not named} == {part.stat().st_ino for part in parts}
    assert [inode for inode, named in synced if named] == [base.stat().st_ino]


# --- never over another


@pytest.mark.parametrize("taken", ["3", "000003", "+3"])
@pytest.mark.parametrize("what", ["model", "empty folder", "file", "dangling link"])
def test_a_version_is_never_overwritten(model: Path, base: Path, taken: str, what: str) -> None:
    base.mkdir(parents=True)
    there = base / taken
    if what == "model":
        write(there, "old")
    elif what == "empty folder":
        there.mkdir()
    elif what == "file":
        there.write_text("old")
    else:
        there.symlink_to("nowhere")
    before = there.lstat()
    with pytest.raises(PublishError, match="Version 3 is already in"):
        publish(model, base, 3)
    assert there.lstat().st_ino == before.st_ino
    assert names(base) == [taken]
    assert what != "model" or weights(there) == "old"


def made_empty(target: Path) -> None:
    target.mkdir()


def made_full(target: Path) -> None:
    write(target, "other")


@pytest.mark.parametrize("other", [made_empty, made_full])
def test_a_number_that_is_taken_while_we_write_is_not_overwritten(base: Path, other: Callable[[Path], None]) -> None:
    def slow(folder: Path) -> None:
        folder.rmdir()
        write(folder, "ours")
        if not (base / "1").exists():
            other(base / "1")

    with pytest.raises(PublishError, match="Version 1 is already in"):
        publish(slow, base, 1)
    assert names(base) == ["1"]
    assert not (base / "1" / "saved_model.pb").exists() or weights(base / "1") == "other"


def test_a_number_that_is_taken_while_we_write_is_passed_over(base: Path) -> None:
    def slow(folder: Path) -> None:
        folder.rmdir()
        write(folder, "ours")
        write(base / "1", "other")

    assert publish(slow, base) == base / "2"
    assert (weights(base / "1"), weights(base / "2")) == ("other", "ours")


@pytest.mark.parametrize("rename", [atomic.rename_to_new, atomic._rename_after_a_look])
@pytest.mark.parametrize("what", ["full folder", "empty folder", "file", "dangling link"])
def test_the_rename_takes_free_names_only(tmp_path: Path, rename: Callable[[Path, Path], None], what: str) -> None:
    ours, taken = write(tmp_path / "ours"), tmp_path / "taken"
    if what == "full folder":
        write(taken)
    elif what == "empty folder":
        taken.mkdir()
    elif what == "file":
        taken.write_text("")
    else:
        taken.symlink_to("nowhere")
    with pytest.raises(FileExistsError):
        rename(ours, taken)
    assert files(ours) == PARTS
    rename(ours, tmp_path / "free")
    assert files(tmp_path / "free") == PARTS


def test_the_kernel_itself_refuses_an_empty_folder(tmp_path: Path) -> None:
    ours, empty = write(tmp_path / "ours"), tmp_path / "empty"
    empty.mkdir()
    assert atomic._rename_exclusively(os.fsencode(ours), os.fsencode(empty)) == errno.EEXIST


# --- what a source may hold


def test_links_in_the_source_are_followed(tmp_path: Path, model: Path, base: Path) -> None:
    far = tmp_path / "far"
    (model / "variables").rename(far)
    (model / "variables").symlink_to(far)
    (model / "assets").mkdir()
    (model / "assets" / "words.txt").symlink_to(model / "saved_model.pb")
    (tmp_path / "link").symlink_to(model)
    version = publish(tmp_path / "link", base)
    assert files(version) == {*PARTS, "assets/words.txt"}
    assert not any(path.is_symlink() for path in [version, *version.rglob("*")])


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (".", "link to a folder that it lies in"),
        ("..", "link to a folder that it lies in"),
        ("nowhere", "link to nothing"),
        ("fifo", "neither a file nor a folder"),
    ],
)
def test_links_in_circles_or_to_nothing_are_refused(model: Path, base: Path, target: str, message: str) -> None:
    (model / "assets").mkdir()
    if target == "fifo":
        os.mkfifo(model / "assets" / "odd")
    else:
        (model / "assets" / "odd").symlink_to(target)
    with pytest.raises(PublishError, match=message):
        publish(model, base)
    assert not base.exists()


@pytest.mark.parametrize(("umask", "folder_mode", "file_mode"), [(0o022, 0o755, 0o644), (0o077, 0o700, 0o600)])
@pytest.mark.parametrize("by_callable", [False, True])
def test_modes_are_those_of_new_files_whatever_the_source_has(
    model: Path, base: Path, umask: int, folder_mode: int, file_mode: int, by_callable: bool
) -> None:
    def private(folder: Path) -> None:
        folder.rmdir()
        write(folder)
        for path in folder.rglob("*"):
            path.chmod(0o700 if path.is_dir() else 0o600)

    if not by_callable:
        model.rename(model.with_name("kept"))
        model = model.with_name("kept")
        for path in model.rglob("*"):
            path.chmod(0o700 if path.is_dir() else 0o600)
    before = os.umask(umask)
    try:
        version = publish(private if by_callable else model, base)
    finally:
        os.umask(before)
    modes = {(path.is_dir(), stat.S_IMODE(path.stat().st_mode)) for path in [version, *version.rglob("*")]}
    assert modes == {(True, folder_mode), (False, file_mode)}


def test_a_graph_without_variables_needs_none(tmp_path: Path, base: Path) -> None:
    frozen = tmp_path / "frozen"
    frozen.mkdir()
    (frozen / "saved_model.pb").write_bytes(graph("Const"))
    assert files(publish(frozen, base)) == {"saved_model.pb"}


def test_a_text_model_is_one_too(model: Path, base: Path) -> None:
    (model / "saved_model.pb").rename(model / "saved_model.pbtxt")
    assert "saved_model.pbtxt" in files(publish(model, base))


def spoil(model: Path, slip: str) -> Path:
    """Make of a good SavedModel what people offer instead."""
    pb, variables = model / "saved_model.pb", model / "variables"
    if slip == "nothing":
        return model / "nothing"
    if slip == "keras file":
        (model.parent / "net.keras").write_bytes(b"PK")
        return model.parent / "net.keras"
    if slip == "h5 in a folder":
        (model.parent / "keras").mkdir()
        (model.parent / "keras" / "net.h5").write_bytes(b"\x89HDF")
        return model.parent / "keras"
    if slip == "the file alone":
        return pb
    if slip == "some file":
        return variables / "variables.index"
    if slip == "variables":
        return variables
    if slip == "a base path":
        model.rename(model.parent / "1")
        (model.parent / "all").mkdir()
        (model.parent / "1").rename(model.parent / "all" / "1")
        return model.parent / "all"
    if slip == "an empty folder":
        (model.parent / "empty").mkdir()
        return model.parent / "empty"
    if slip == "an empty file":
        pb.write_bytes(b"")
    elif slip == "half a file":
        pb.write_bytes(pb.read_bytes()[:-3])
    elif slip == "zeros":
        pb.write_bytes(graph()[:2])
    elif slip == "no signature":
        pb.write_bytes(graph("VarHandleOp", signature="__saved_model_init_op"))
    elif slip == "no index":
        (variables / "variables.index").unlink()
    elif slip == "a shard too few":
        (variables / "variables.data-00000-of-00001").rename(variables / "variables.data-00000-of-00002")
    elif slip == "no variables":
        variables.rename(model.parent / "elsewhere")
    return model


SLIPS = {
    "nothing": "There is no .*nothing",
    "keras file": r"is a Keras file(.|\n)*model\.export",
    "h5 in a folder": r"net\.h5 is a Keras file",
    "the file alone": "only a part of a SavedModel(.|\n)*Publish the folder it lies in, ",
    "some file": "is a file, not a SavedModel folder",
    "variables": "is the variables folder(.|\n)*Publish the folder above, .*model\\.$",
    "a base path": "It holds folders that are(.|\n)*such as .*/all/1\\.$",
    "an empty folder": "holds no saved_model.pb\\.\nIt is empty",
    "an empty file": "saved_model.pb is empty",
    "half a file": "saved_model.pb is damaged",
    "zeros": "holds no model",
    "no signature": "has no signature, so nobody could call it",
    "no index": "is not complete",
    "a shard too few": "is not complete",
    "no variables": "is not complete",
}


@pytest.mark.parametrize("slip", SLIPS)
def test_what_is_no_savedmodel_is_refused_with_a_word_on_what_it_is(model: Path, base: Path, slip: str) -> None:
    source = spoil(model, slip)
    with pytest.raises(PublishError, match=SLIPS[slip]) as caught:
        publish(source, base)
    assert all(re.fullmatch(r"([A-Z]|/|tf\.|model\.).*[.)]", line) for line in str(caught.value).splitlines())
    assert len(str(caught.value).splitlines()) <= 3
    assert not base.exists()


def test_what_a_callable_writes_is_checked_too(base: Path) -> None:
    with pytest.raises(PublishError, match="What the function wrote is not a SavedModel"):
        publish(Path.exists, base)  # writes nothing
    with pytest.raises(PublishError, match=r"What the function wrote is not complete.*\nvariables should hold "):
        publish(lambda folder: (folder / "saved_model.pb").write_bytes(graph("VarHandleOp")), base)
    assert not base.exists()


def test_a_base_path_that_is_none(tmp_path: Path, model: Path) -> None:
    with pytest.raises(PublishError, match="is a SavedModel itself"):
        publish(model, model)
    with pytest.raises(PublishError, match="lies inside the model"):
        publish(model, model / "variables" / "new")
    with pytest.raises(PublishError, match=r"looks like a version folder(.|\n)*Publish into .*mine instead"):
        publish(model, tmp_path / "mine" / "1")
    with pytest.raises(PublishError, match="gs://bucket/mine is not a folder of this machine"):
        publish(model, "gs://bucket/mine")
    (tmp_path / "file").write_text("kept")
    with pytest.raises(PublishError, match="is not a folder"):
        publish(model, tmp_path / "file")
    with pytest.raises(PublishError, match="Not a directory"):
        publish(model, tmp_path / "file" / "mine")
    assert names(tmp_path) == ["file", "model"]
    assert files(model) == PARTS


def test_a_base_path_may_be_called_like_a_number_if_it_is_there(tmp_path: Path, model: Path) -> None:
    (tmp_path / "2024").mkdir()
    assert publish(model, tmp_path / "2024") == tmp_path / "2024" / "1"


@pytest.mark.parametrize("version", [-1, 2**63, True, 1.0, "1"])
def test_what_is_no_version(model: Path, base: Path, version: int) -> None:
    with pytest.raises(PublishError, match="cannot be a version"):
        publish(model, base, version)
    assert not base.exists()


# --- the other way


def test_a_retired_version_is_gone_and_the_others_are_not(model: Path, base: Path) -> None:
    for _ in range(3):
        publish(model, base)
    (base / "3").rename(base / "000003")
    retire(base, 3)
    retire(base, 1)
    assert names(base) == ["2"]
    assert files(base / "2") == PARTS


def test_a_link_is_retired_and_what_it_leads_to_is_not(model: Path, base: Path) -> None:
    base.mkdir(parents=True)
    (base / "1").symlink_to(model)
    retire(base, 1)
    assert names(base) == []
    assert files(model) == PARTS


def test_only_what_is_there_can_be_retired(base: Path) -> None:
    with pytest.raises(ExportError, match="has no version 1\\.\nVersions there: none"):
        retire(base, 1)
    assert not base.exists()

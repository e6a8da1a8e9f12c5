"""The embedded server's log: the words of the real one's, in its order, between TensorFlow's own lines."""

import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import grpc
import pytest
import requests
from test_embedded_server import Clients, answers, process, reload, states, until

from tfs_helpers.embedded.log import log, start_logging, verbosity

MODEL = "half"
LINE = re.compile(r"(?:\d{4}(?:-\d\d){2} \d\d:\d\d:\d\d\.\d{6}: [IWEF] |[IWEF]\d{4} .* )\S+:\d+\] (.*)")
OURS = re.compile(r"\d{4}(?:-\d\d){2} \d\d:\d\d:\d\d\.\d{6}: ([IWEF]) tfs_helpers/embedded/(?:\w+/)?\w+\.py:\d+\] (.*)")


def words(file: Path) -> list[str]:
    """What the lines of a log say: behind their prefix, or whole where they have none."""
    return [match[1] if (match := LINE.fullmatch(line)) else line for line in file.read_text().splitlines()]


def in_order(wanted: Sequence[str], said: Sequence[str]) -> list[str]:
    """Those `wanted` lines, in their order, that `said` has in the same order; as many as can be."""
    rest = iter(said)
    return [line for line in wanted if line in rest]


class Logged:
    """A server, its log, and the folder of its models."""

    def __init__(self, folder: Path, clients: Clients) -> None:
        self.folder, self.clients = folder, clients

    def words(self) -> list[str]:
        return words(self.folder / "log")

    def publish(self, source: Path, model: str, version: int) -> None:
        hidden = self.folder / model / f".{version}"
        shutil.copytree(source, hidden)
        hidden.rename(self.folder / model / str(version))

    def reload(self, *models: str) -> None:
        entry = 'config {{ name: "{0}" base_path: "{1}/{0}" model_platform: "tensorflow" }}'
        entries = (entry.format(model, self.folder) for model in models)
        reload(self.clients, f"model_config_list {{ {' '.join(entries)} }}")


@pytest.fixture(scope="module")
def logged(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Logged]:
    """A server of one model that tells all it can, and tries a load twice."""
    folder = tmp_path_factory.mktemp("logged")
    shutil.copytree(models / "half_plus_two" / "1", folder / MODEL / "1")
    flags = (f"--model_name={MODEL}", f"--model_base_path={folder}/{MODEL}")
    retries = ("--max_num_load_retries=1", "--load_retry_interval_micros=10000")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TF_CPP_MIN_LOG_LEVEL", "0")
        patch.setenv("TF_CPP_VMODULE", "http_server=1")
        with process(folder, *flags, *retries) as (_, client, rest):
            until(lambda: answers(rest, MODEL))
            yield Logged(folder, (client, rest))


def loading(folder: Path, model: str, version: int) -> list[str]:
    """What is said while a version is loaded, by the server and by TensorFlow."""
    servable, path = f"{{name: {model} version: {version}}}", folder / model / str(version)
    return [
        f"Successfully reserved resources to load servable {servable}",
        f"Approving load for servable version {servable}",
        f"Loading servable version {servable}",
        f"Reading SavedModel from: {path}",
        "Reading meta graph with tags { serve }",
        "Restoring SavedModel bundle.",
        f"Running initialization op on SavedModel bundle at path: {path}",
        f"No warmup data file found at {path}/assets.extra/tf_serving_warmup_requests",
        f"Successfully loaded servable version {servable}",
    ]


def unloading(model: str, version: int) -> list[str]:
    servable = f"{{name: {model} version: {version}}}"
    return [
        f"Quiescing servable version {servable}",
        f"Done quiescing servable version {servable}",
        f"Unloading just-loaded servable version {servable}",
        f"Done unloading servable version {servable}",
    ]


def test_a_start_is_told_as_the_real_server_tells_it(logged: Logged) -> None:
    client, rest = logged.clients
    wanted = [
        f"Building single TensorFlow model file config:  model_name: {MODEL} model_base_path: {logged.folder}/{MODEL}",
        "Adding/updating models.",
        f" (Re-)adding model: {MODEL}",
        *loading(logged.folder, MODEL, 1),
        "Finished adding/updating models",
        "Using InsecureServerCredentials",
        f"Running gRPC ModelServer at {client.address} ...",
        f"Exporting HTTP/REST API at:localhost:{rest.url.rpartition(':')[2]} ...",
        "NET_LOG: Entering the event loop ...",
    ]
    until(lambda: wanted[-1] in logged.words())
    assert in_order(wanted, logged.words()) == wanted
    assert any(
        re.fullmatch(r"SavedModel load for tags { serve }; Status: success: OK. Took \d+ microseconds.", line)
        for line in logged.words()
    )
    assert not any("Profiler" in line for line in logged.words())


def test_our_lines_have_the_form_of_tensorflows(logged: Logged) -> None:
    lines = (logged.folder / "log").read_text().splitlines()
    told = [match for line in lines if (match := OURS.fullmatch(line))]
    assert {"Adding/updating models.", "Finished adding/updating models"} <= {match[2] for match in told}
    assert not [line for line in lines if "tfs_helpers" in line and not OURS.fullmatch(line)]
    assert re.match(
        OURS.pattern.replace("tfs_helpers/embedded", "tensorflow/cc/saved_model").replace("py", "cc"),
        next(line for line in lines if "Reading SavedModel from" in line),
    )


def test_a_swap_is_told_load_first_and_unload_after(logged: Logged, models: Path) -> None:
    logged.publish(models / "half_plus_two" / "2", MODEL, 2)
    wanted = [*loading(logged.folder, MODEL, 2), *unloading(MODEL, 1)]
    until(lambda: wanted[-1] in logged.words())
    assert in_order(wanted, logged.words()) == wanted


def test_a_reload_tells_what_was_asked_for_and_what_comes_of_it(logged: Logged, models: Path) -> None:
    logged.publish(models / "half_plus_two" / "1", "other", 1)
    before = len(logged.words())
    logged.reload(MODEL, "other")
    logged.reload(MODEL)
    wanted = [
        *("Config entry", "\tindex : 0", f"\tpath : {logged.folder}/{MODEL}", f"\tname : {MODEL}"),
        "\tplatform : tensorflow",
        *("Config entry", "\tindex : 1", f"\tpath : {logged.folder}/other", "\tname : other"),
        "\tplatform : tensorflow",
        *("Adding/updating models.", f" (Re-)adding model: {MODEL}", " (Re-)adding model: other"),
        *loading(logged.folder, "other", 1),
        "Finished adding/updating models",
        *("Config entry", "Adding/updating models.", f" (Re-)adding model: {MODEL}"),
        "Finished adding/updating models",
    ]
    gone = unloading("other", 1)
    until(lambda: gone[-1] in logged.words())
    assert in_order(wanted, logged.words()[before:]) == wanted
    assert in_order(gone, logged.words()[before:]) == gone


def test_a_reload_that_is_refused_says_so(logged: Logged) -> None:
    before = len(logged.words())
    with pytest.raises(grpc.RpcError, match="multiple times"):
        logged.reload(MODEL, MODEL)
    said = logged.words()[before:]
    assert f"ReloadConfig failed: Illegal to list model {MODEL} multiple times in config list" in said
    assert "Adding/updating models." not in said


def test_a_load_that_fails_is_told_try_by_try(logged: Logged) -> None:
    (logged.folder / MODEL / "3").mkdir()
    servable, error = f"{{name: {MODEL} version: 3}}", "NOT_FOUND: Specified file path does not appear to contain a "
    wanted = [
        f"Loading servable version {servable}",
        f"Loading servable: {servable} failed: {error}",
        f"Retrying of Loading servable: {servable} retry: 1",
        f"Loading servable: {servable} failed: {error}",
        f"Retrying of Loading servable: {servable} exhausted max_num_retries: 1",
        f"Encountered an error for servable version {servable}: {error}",
        f"Servable {servable} cannot be loaded: {error}",
    ]
    until(lambda: states(logged.clients[0], MODEL).get(3) == "END")
    said = [line.partition("SavedModel bundle")[0] for line in logged.words()]
    assert in_order(wanted, said) == wanted


def test_requests_are_told_of_where_that_is_asked_for(logged: Logged) -> None:
    url = logged.clients[1].url
    requests.post(f"{url}/v1/models/{MODEL}:predict", data='{"instances": [1.0]}', timeout=10)
    requests.get(f"{url}/v1/models/none", timeout=10)
    said = logged.words()
    assert f"Processing HTTP request: POST /v1/models/{MODEL}:predict body: 20 bytes." in said
    assert (
        "Error Processing HTTP/REST request: GET /v1/models/none "
        "Error: NOT_FOUND: Could not find any versions of model none"
    ) in said


def test_a_config_file_that_is_followed_is_told_of_each_time(models: Path, tmp_path: Path) -> None:
    file = tmp_path / "models.config"
    file.write_text(
        f'model_config_list {{ config {{ name: "half" base_path: "{models}/half_plus_two" '
        'model_platform: "tensorflow" } }'
    )
    flags = (f"--model_config_file={file}", "--model_config_file_poll_wait_seconds=1", "--max_num_load_retries=0")
    with process(tmp_path, *flags) as (_, _client, rest):
        until(lambda: answers(rest, "half"))
        wanted = ["Adding/updating models.", " (Re-)adding model: half", "Finished adding/updating models"] * 2
        until(lambda: in_order(wanted, words(tmp_path / "log")) == wanted)
        file.write_text("model_config_list { oops")
        until(
            lambda: f"Failed to read ModelServerConfig file: Invalid protobuf file: '{file}'" in words(tmp_path / "log")
        )
        file.write_text('model_config_list { config { name: "half" base_path: "here" model_platform: "tensorflow" } }')
        refused = "Expected model half to have an absolute path or URI; got base_path()=here"
        failed = f"PollFilesystemAndReloadConfig failed to ReloadConfig: {refused}"
        until(lambda: failed in words(tmp_path / "log"))
    exhausted = "Retrying of Loading servable: {name: half version: 2} exhausted max_num_retries: 0"
    loaded = "Successfully loaded servable version {name: half version: 2}"
    assert in_order([exhausted, loaded], words(tmp_path / "log")) == [exhausted, loaded]


# ---- how much is told


@pytest.mark.parametrize(("level", "told"), [("0", True), ("1", True), ("2", False), ("3", False), ("many", True)])
def test_the_level_is_tensorflows(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], level: str, told: bool
) -> None:
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", level)
    before = list(log.handlers), log.level, log.propagate
    try:
        start_logging()
        log.info("only told")
        log.warning("a warning")
        log.error("an error")
    finally:
        log.handlers, log.propagate = before[0], before[2]
        log.setLevel(before[1])
    said = capsys.readouterr().err
    assert ("only told" in said) == (level in ("0", "many"))
    assert ("a warning" in said) == told
    assert ("an error" in said) == (level != "3")


def test_modules_are_made_to_tell_more_as_tensorflows_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TF_CPP_MAX_VLOG_LEVEL", raising=False)
    monkeypatch.delenv("TF_CPP_VMODULE", raising=False)
    assert verbosity("http_server") == 0
    monkeypatch.setenv("TF_CPP_VMODULE", "server_core=4,http_server=1,odd=much,odder")
    assert [verbosity(name) for name in ("http_server", "server_core", "server", "odd", "odder")] == [1, 4, 0, 0, 0]
    monkeypatch.setenv("TF_CPP_MAX_VLOG_LEVEL", "2")
    assert [verbosity(name) for name in ("http_server", "server_core", "server")] == [2, 4, 2]

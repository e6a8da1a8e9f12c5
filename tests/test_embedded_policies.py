"""Which versions the embedded server serves, and when it changes them: policies, labels, reloads, polling."""

import contextlib
import random
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from served_models import Signatures, export_graph
from test_embedded_loading import entry, listed
from test_embedded_server import Clients, answers, process, reload, run, states, until

from tfs_helpers import publish
from tfs_helpers.client import GrpcClient, RestClient
from tfs_helpers.errors import CallError

LATEST_2 = "model_version_policy { latest { num_versions: 2 } }"
ALL = "model_version_policy { all {} }"


def refusal(clients: Clients, text: str) -> tuple[str, str]:
    with pytest.raises(grpc.RpcError) as caught:
        reload(clients, text)
    return caught.value.code().name, caught.value.details()


def value(client: RestClient | GrpcClient, model: str, version: int | None = None) -> float:
    return float(client.predict(model, [0.0], version=version)["y"][0])


def place(models: Path, base: Path, *versions: int) -> Path:
    """half_plus_two below `base`: odd versions answer 2 for 0, even ones 3."""
    for version in versions:
        publish(models / "half_plus_two" / str(2 - version % 2), base, version=version)
    return base


def looping(v1: Any) -> Signatures:
    """A model that counts to the number that it is given."""
    rounds = v1.placeholder("float32", (), name="rounds")
    last = v1.while_loop(lambda i: i < rounds, lambda i: (i + 1.0,), (0.0,), maximum_iterations=None)
    return {"serving_default": ({"rounds": rounds}, {"last": v1.identity(last)})}


# ---- a server that begins with nothing


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Clients]]:
    """A server without a configuration, which tests give it."""
    folder = tmp_path_factory.mktemp("empty")
    config = folder / "models.config"
    config.write_text("# nothing yet\n")
    with process(folder, f"--model_config_file={config}", "--max_num_load_retries=0") as (_, client, rest):
        until(lambda: answered(rest))
        yield folder, (client, rest)


def answered(rest: RestClient) -> bool:
    try:
        rest.status("nobody", timeout=1)
    except CallError as error:
        return "Could not find any versions of model nobody" in str(error)
    return False


def test_a_server_without_a_configuration_has_no_labels_yet(empty: tuple[Path, Clients], models: Path) -> None:
    folder, clients = empty
    assert "Taking no action for empty config." in (folder / "log").read_text()
    with pytest.raises(CallError, match=r"Model labels does not init yet\.stable"):
        clients[1].predict("m", [0.0], label="stable")
    reload(clients, listed(entry("m", place(models, folder / "m", 1))))
    with pytest.raises(CallError, match="Unrecognized servable version label: stable"):
        clients[1].predict("m", [0.0], label="stable")
    assert value(clients[1], "m") == 2.0


def test_the_policies_of_a_model_are_changed_by_reload(empty: tuple[Path, Clients], models: Path) -> None:
    folder, clients = empty
    base = place(models, folder / "policies", 1, 2, 3)
    ends = {
        "": {3: "AVAILABLE"},
        LATEST_2: {3: "AVAILABLE", 2: "AVAILABLE"},
        ALL: {3: "AVAILABLE", 2: "AVAILABLE", 1: "AVAILABLE"},
        "model_version_policy { specific { versions: 1 versions: 9 } }": {3: "END", 2: "END", 1: "AVAILABLE"},
        "model_version_policy { latest { } }": {3: "AVAILABLE", 2: "END", 1: "END"},
    }
    for policy, wanted in ends.items():
        reload(clients, listed(entry("policies", base, policy)))
        until(lambda wanted=wanted: states(clients[0], "policies") == wanted)
        assert value(clients[1], "policies") == 2.0
    # Nothing was asked for by name, so nothing stays.
    reload(clients, listed(entry("policies", base, "model_version_policy { specific { } }")))
    until(lambda: set(states(clients[0], "policies").values()) == {"END"})
    assert "No specific versions requested for servable policies." in (folder / "log").read_text()


def test_a_model_that_goes_and_comes_back_at_once_is_served(empty: tuple[Path, Clients], models: Path) -> None:
    folder, clients = empty
    base = place(models, folder / "back", 1)
    for _ in range(5):
        reload(clients, listed(entry("back", base)))
        assert value(clients[0], "back") == 2.0
        reload(clients, listed())
    until(lambda: states(clients[0], "back") == {1: "END"})
    with pytest.raises(CallError, match=r"Servable not found for request: Latest\(back\)"):
        value(clients[1], "back")


def test_a_model_comes_back_while_a_call_still_holds_it(empty: tuple[Path, Clients]) -> None:
    folder, clients = empty
    export_graph(folder / "slow" / "1", looping)
    here = listed(entry("slow", folder / "slow"))
    reload(clients, here)
    got: list[float] = []
    call = threading.Thread(
        target=lambda: got.append(float(clients[0].predict("slow", {"rounds": 300_000.0}, timeout=60)["last"]))
    )
    call.start()
    time.sleep(0.1)
    reload(clients, listed())
    until(lambda: states(clients[0], "slow") == {1: "UNLOADING"})
    reload(clients, here, timeout=60)
    assert states(clients[0], "slow") == {1: "AVAILABLE"}
    call.join()
    assert got == [300_000.0]
    assert clients[1].predict("slow", inputs={"rounds": 2.0})["last"] == 2.0


def test_a_version_keeps_its_files_when_the_base_path_moves(empty: tuple[Path, Clients], models: Path) -> None:
    folder, clients = empty
    reload(clients, listed(entry("moving", place(models, folder / "here", 1))))
    shutil.copytree(models / "half_plus_two" / "2", folder / "there" / "1")
    shutil.copytree(models / "half_plus_two" / "2", folder / "there" / "2")
    reload(clients, listed(entry("moving", folder / "there", ALL)))
    until(lambda: states(clients[0], "moving") == {2: "AVAILABLE", 1: "AVAILABLE"})
    assert (value(clients[0], "moving", 1), value(clients[0], "moving", 2)) == (2.0, 3.0)


def test_what_no_configuration_can_be_is_refused_and_changes_nothing(empty: tuple[Path, Clients], models: Path) -> None:
    folder, clients = empty
    base = place(models, folder / "kept", 1)
    good = entry("kept", base)
    reload(clients, listed(good))
    other = good.replace("config {", 'config { model_type: TENSORFLOW model_platform: "" ').replace(
        'model_platform: "tensorflow"', ""
    )
    both = good.replace("config {", "config { model_type: TENSORFLOW ")
    third = good.replace('"tensorflow"', '"torch"')
    new = entry("new", base)
    strange = new.replace("config {", "config { model_type: OTHER ").replace('model_platform: "tensorflow"', "")
    for text, words in [
        (listed(good, good), "Illegal to list model kept multiple times in config list"),
        (listed(good, entry("new", "there")), "Expected model new to have an absolute path or URI; got base_path()="),
        (listed(good, new.replace('"tensorflow"', '"torch"')), "Model new requests unsupported platform torch"),
        (listed(third), "Illegal to change a model's platform. For model kept platform was tensorflow and new "),
        (listed(both), "Illegal setting both ModelServerConfig::model_type (deprecated) and "),
        (listed(good, strange), "Model new requests unsupported platform other"),
        (listed(good, entry("new", base, "logging_config {}")), "No request-logger-creator provided."),
    ]:  # fmt: skip
        code, said = refusal(clients, text)
        assert (code, said[: len(words)]) == ("INVALID_ARGUMENT", words)
        assert value(clients[1], "kept") == 2.0
    assert refusal(clients, listed(entry("kept", base, 'version_labels { key: "l" value: 5 }'))) == (
        "FAILED_PRECONDITION",
        "Request to assign label to version 5 of model kept, which is not currently available for inference",
    )
    reload(clients, listed(other.replace('model_platform: ""', "")))
    assert value(clients[1], "kept") == 2.0


def test_a_base_path_that_is_missing_stops_no_other_model(empty: tuple[Path, Clients], models: Path) -> None:
    folder, clients = empty
    base = place(models, folder / "present", 1)
    ghosts = [entry("ghost", folder / "ghost"), entry("cloud", "s3://bucket/m")]
    with pytest.raises(grpc.RpcError) as caught:
        reload(clients, listed(*ghosts, entry("present", base)), timeout=0.7)
    assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    place(models, base, 2)
    until(lambda: states(clients[0], "present") == {2: "AVAILABLE", 1: "END"})
    log = (folder / "log").read_text()
    assert f"Could not find base path {folder}/ghost for servable ghost with error NOT_FOUND: {folder}/ghost not" in log
    assert "for servable cloud with error UNIMPLEMENTED: File system scheme 's3' not implemented" in log
    place(models, folder / "ghost", 1)
    until(lambda: answers(clients[0], "ghost"))


# ---- which goes first


@pytest.mark.parametrize(
    ("policy", "first", "then"),
    [
        ("availability_preserving", "Successfully loaded servable version {V2}", "Quiescing servable version {V1}"),
        ("resource_preserving", "Done unloading servable version {V1}", "Approving load for servable version {V2}"),
    ],
)
def test_a_swap_in_the_order_of_its_policy(models: Path, tmp_path: Path, policy: str, first: str, then: str) -> None:
    base = place(models, tmp_path / "m", 1)
    flags = [f"--model_base_path={base}", "--model_name=m", f"--aspired_version_policy={policy}"]
    with process(tmp_path, *flags) as (_, client, rest):
        until(lambda: answers(rest, "m"))
        place(models, base, 2)
        until(lambda: states(client, "m") == {2: "AVAILABLE", 1: "END"})
        assert value(rest, "m") == 3.0
        log = (tmp_path / "log").read_text().replace("name: m version: ", "V")
        assert 0 < log.index(first) < log.index(then)


# ---- looking for versions


def test_it_looks_once_or_never_where_it_is_told_so(models: Path, tmp_path: Path) -> None:
    base = place(models, tmp_path / "m", 1)
    (tmp_path / "once").mkdir()
    (tmp_path / "never").mkdir()
    flags = [f"--model_base_path={base}", "--model_name=m"]
    with (
        process(tmp_path / "once", *flags, "--file_system_poll_wait_seconds=0") as (_, client, rest),
        process(tmp_path / "never", *flags, "--file_system_poll_wait_seconds=-1") as (never, unheard, _),
    ):
        until(lambda: answers(rest, "m"))
        place(models, base, 2)
        time.sleep(1.2)
        assert states(client, "m") == {1: "AVAILABLE"}
        assert not answers(unheard, "m")
        never.terminate()
        assert never.wait(5) == 0


def test_an_empty_file_does_not_take_the_place_of_a_configuration(models: Path, tmp_path: Path) -> None:
    base = place(models, tmp_path / "m", 1)
    config = tmp_path / "models.config"
    config.write_text(listed(entry("m", base)))
    flags = [f"--model_config_file={config}", "--model_config_file_poll_wait_seconds=1"]
    with process(tmp_path, *flags) as (_, _client, rest):
        until(lambda: answers(rest, "m"))
        config.write_text("# all gone\n")
        words = "PollFilesystemAndReloadConfig failed to ReloadConfig: Cannot transition to requested"
        until(lambda: words in (tmp_path / "log").read_text())
        assert value(rest, "m") == 2.0


def test_after_a_kill_it_serves_what_the_file_says(models: Path, tmp_path: Path) -> None:
    """Killed at any moment of a reload, it starts again with what the file says then, and with nothing else."""
    bases = {name: place(models, tmp_path / name, 1, 2) for name in ("a", "b", "c")}
    config = tmp_path / "models.config"
    moments = random.Random(4)

    def write(names: list[str], policy: str) -> None:
        hidden = tmp_path / ".coming"
        hidden.write_text(listed(*(entry(name, bases[name], policy) for name in names)))
        hidden.rename(config)

    names, policy = ["a"], ALL
    write(names, policy)
    for _ in range(4):
        with process(tmp_path, f"--model_config_file={config}") as (child, client, rest):
            until(lambda: all(answers(client, name) for name in names), seconds=10)  # noqa: B023
            wanted = {2: "AVAILABLE", 1: "AVAILABLE"} if policy == ALL else {2: "AVAILABLE"}
            assert {name: states(rest, name) for name in names} == dict.fromkeys(names, wanted)
            for absent in bases.keys() - set(names):
                assert not answers(client, absent)
            names, policy = moments.sample(sorted(bases), moments.randint(1, 3)), moments.choice([ALL, ""])
            write(names, policy)
            with contextlib.suppress(grpc.RpcError):
                reload((client, rest), config.read_text(), timeout=moments.uniform(0, 0.02))
            child.kill()


# ---- the highest version counts


def test_a_broken_highest_version_keeps_the_server_from_starting(models: Path, tmp_path: Path) -> None:
    base = place(models, tmp_path / "m", 1)
    (base / "2").mkdir()
    (base / "2" / "saved_model.pb").write_bytes(b"no model")
    config = tmp_path / "models.config"
    config.write_text(listed(entry("m", base, ALL)))
    done = run(f"--model_config_file={config}", "--max_num_load_retries=0")
    assert done.returncode == 255
    words = (
        "Error: UNKNOWN: 1 servable(s) did not become available: {{{name: m version: 2} due to error: OUT_OF_RANGE: "
    )
    assert words in done.stdout


def test_a_broken_highest_version_of_a_new_model_is_told_to_who_adds_it(
    empty: tuple[Path, Clients], models: Path, tmp_path: Path
) -> None:
    _, clients = empty
    base = place(models, tmp_path / "half", 1)
    (base / "2").mkdir()
    (base / "2" / "saved_model.pb").write_bytes(b"no model")
    code, words = refusal(clients, listed(entry("half", base, ALL)))
    assert code == "UNKNOWN"
    assert words.startswith(
        "1 model(s) did not become available: {{{name: half version: 2} due to error: OUT_OF_RANGE: "
    )
    assert states(clients[0], "half") == {2: "END", 1: "AVAILABLE"}

"""The flags of the embedded server: each of the 48 is obeyed, or said to be without effect."""

import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from served_models import export_graph, renamed
from test_embedded_loading import entry, listed
from test_embedded_server import answers, process, run, until

import tfs_helpers.embedded
from tfs_helpers import protos
from tfs_helpers.embedded.options import OURS, WITHOUT_EFFECT, BadFlag, parse_flags
from tfs_helpers.embedded.settings import manager_options, read_platforms
from tfs_helpers.embedded.status import ServingError
from tfs_helpers.errors import CallError
from tfs_helpers.flags import FLAGS

# ---- what no server starts with

BATCHING = ("--enable_batching", "--batching_parameters_file=FILE")
SESSION = ("--tensorflow_session_config_file=FILE",)
PLATFORM = ("--platform_config_file=FILE",)
POOLS = ("--thread_pool_factory_config_file=FILE",)
BASE = ("--model_base_path=MODEL",)
INVALID = "INVALID_ARGUMENT: Invalid protobuf file: 'FILE'"
ADAPTER = "tensorflow.serving.SavedModelBundleSourceAdapterConfig"
# name: flags, the content of FILE, the error, what the log says besides
REFUSED: dict[str, tuple[tuple[str, ...], str, str, str]] = {
    "no_port": (
        ("--port=0", "--model_base_path=relative"),
        "",
        "INVALID_ARGUMENT: At least one of server_options.grpc_port or server_options.grpc_socket_path must be set.",
        "",
    ),
    "two_kinds_of_credentials": (
        ("--use_alts_credentials", "--ssl_config_file=FILE"),
        "",
        "INVALID_ARGUMENT: Either use_alts_credentials must be false or ssl_config_file must be empty.",
        "",
    ),
    "monitoring_misspelt": (
        (*BASE, "--rest_api_port=1", "--monitoring_config_file=FILE"),
        "prometheus_config { enabled: true }",
        INVALID,
        'has no field named "enabled"; did you mean "enable"?',
    ),
    "alts": ((*BASE, "--use_alts_credentials"), "", "UNIMPLEMENTED: ALTS works inside Google Cloud, and", ""),
    "all_kinds_of_parallelism": (
        (
            *BASE,
            "--tensorflow_session_parallelism=1",
            "--tensorflow_intra_op_parallelism=1",
            "--tensorflow_inter_op_parallelism=1",
        ),
        "",
        (
            "INVALID_ARGUMENT: Either configure server_options.tensorflow_session_parallelism or "
            "(server_options.tensorflow_intra_op_parallelism, server_options.tensorflow_inter_op_parallelism) "
            "separately. You cannot configure all."
        ),
        "",
    ),
    "no_batching_threads": (
        (*BASE, *BATCHING),
        "num_batch_threads { value: 0 }",
        "INVALID_ARGUMENT: num_batch_threads must be positive; was 0",
        "",
    ),
    "models_misspelt": (
        ("--model_config_file=FILE",),
        'model_config_list { config { base_pth: "x" } }',
        INVALID,
        (
            "Error parsing text-format tensorflow.serving.ModelServerConfig: 1:30: Message type "
            '"tensorflow.serving.ModelConfig" has no field named "base_pth"; did you mean "base_path"?'
        ),
    ),
    "a_missing_file": (
        (*BASE, "--enable_batching", "--batching_parameters_file=/nowhere"),
        "",
        "NOT_FOUND: /nowhere; No such file or directory",
        "",
    ),
    "an_unknown_platform": (
        (*BASE, *PLATFORM),
        (
            "platform_configs { key: 'other' value { source_adapter_config { "
            f"[type.googleapis.com/{ADAPTER}] {{ }} }} }} }}"
        ),
        "INVALID_ARGUMENT: Model default requests unsupported platform tensorflow",
        "",
    ),
    "a_thread_pool_factory": (
        (*BASE, *POOLS),
        "thread_pool_factory_config { [type.googleapis.com/tensorflow.serving.PrometheusConfig] { path: 'x' } }",
        (
            "INVALID_ARGUMENT: Couldn't find factory for config proto message type "
            "tensorflow.serving.PrometheusConfig\nconfig="
        ),
        "",
    ),
    "a_custom_config": (
        ("--model_config_file=FILE",),
        "custom_model_config { [type.googleapis.com/tensorflow.serving.PrometheusConfig] { } }",
        "UNIMPLEMENTED: ModelServer does not yet support custom model config.",
        "",
    ),
    "tags_that_no_graph_has": (
        (*BASE, "--saved_model_tags=serve,gpu", "--max_num_load_retries=0"),
        "",
        (
            "UNKNOWN: 1 servable(s) did not become available: {{{name: default version: 2} due to error: NOT_FOUND: "
            "Could not find meta graph def matching supplied tags: { gpu serve }."
        ),
        "",
    ),
}


@pytest.fixture(scope="module")
def refused(models: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, subprocess.CompletedProcess[str]]:
    """What became of all those servers, two at a time; FILE again stands for the file's path."""
    folder = tmp_path_factory.mktemp("refused")

    def ended(name: str) -> subprocess.CompletedProcess[str]:
        flags, content, *_ = REFUSED[name]
        file = folder / name
        file.write_text(content)
        places = {"FILE": str(file), "MODEL": f"{models}/half_plus_two"}
        done = run(*(re.sub("FILE|MODEL", lambda found: places[found[0]], flag) for flag in flags), seconds=60)
        done.stdout, done.stderr = (text.replace(str(file), "FILE") for text in (done.stdout, done.stderr))
        return done

    with ThreadPoolExecutor(2) as pool:
        return dict(zip(REFUSED, pool.map(ended, REFUSED), strict=True))


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_start_says_why(refused: dict[str, subprocess.CompletedProcess[str]], name: str) -> None:
    done = refused[name]
    *_, error, logged = REFUSED[name]
    assert done.returncode == 255
    assert done.stdout.startswith(f"Failed to start server. Error: {error}")
    assert logged in done.stderr


def platform_config(adapter: str, content: str = "") -> str:
    inside = f"source_adapter_config {{ [type.googleapis.com/{adapter}] {{ {content} }} }}"
    return f'platform_configs {{ key: "tensorflow" value {{ {inside} }} }}'


@pytest.mark.parametrize(
    ("flag", "content", "error", "logged"),
    [
        (
            "batching_parameters_file",
            "max_batchsize { value: 0 }",
            INVALID,
            (
                '1:1: Message type "tensorflow.serving.BatchingParameters" has no field named "max_batchsize"; '
                'did you mean "max_batch_size"?'
            ),
        ),
        (
            "tensorflow_session_config_file",
            "\n\n intra_op_threads: 3",
            INVALID,
            '3:2: Message type "tensorflow.ConfigProto',
        ),
        (
            "platform_config_file",
            platform_config(ADAPTER, "legacy_config { saved_model_tag: 'x' }"),
            INVALID,
            'did you mean "saved_model_tags"?',
        ),
        (
            "platform_config_file",
            platform_config("tensorflow.serving.BatchingParameters"),
            (
                "INVALID_ARGUMENT: Couldn't find factory for config proto message type "
                "tensorflow.serving.BatchingParameters\nconfig="
            ),
            "",
        ),
        ("platform_config_file", "platform_configs { zzz: 1 }", INVALID, 'has no field named "zzz"; it has key, value'),
        (
            "tensorflow_session_config_file",
            "graph_options { optimizer_options { opt_level: L00 } }",
            INVALID,
            'has no value named L00; did you mean "L0"?',
        ),
        (
            "tensorflow_session_config_file",
            "allow_soft_placement: 'x'",
            INVALID,
            'tensorflow.ConfigProto: 1:23: Expected "true" or "false"',
        ),
        ("tensorflow_session_config_file", "", "INVALID_ARGUMENT: FILE; Invalid argument", "FILE is empty"),
    ],
)
def test_a_file_that_cannot_be_read_says_where_and_what_was_meant(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, flag: str, content: str, error: str, logged: str
) -> None:
    file = tmp_path / "file"
    file.write_text(content)
    with pytest.raises(ServingError) as caught:
        read_platforms(parse_flags(["--enable_batching", f"--{flag}={file}"]))
    assert str(caught.value).replace(str(file), "FILE") == error
    assert logged in caplog.text.replace(str(file), "FILE")


# ---- what the flags say about loading


def session_config(*flags: str) -> str:
    platforms = read_platforms(parse_flags(["--model_base_path=/m", *flags]))
    config: object = protos.ConfigProto.FromString(platforms["tensorflow"].session_config)
    return " ".join(str(config).split())


def test_threads_and_memory_are_tensorflows_to_know(tmp_path: Path) -> None:
    both = "intra_op_parallelism_threads: 3 inter_op_parallelism_threads: 3"
    assert session_config() == ""
    assert session_config("--tensorflow_session_parallelism=3") == both
    assert session_config("--tensorflow_intra_op_parallelism=2") == "intra_op_parallelism_threads: 2"
    assert session_config("--tensorflow_inter_op_parallelism=2") == "inter_op_parallelism_threads: 2"
    assert session_config("--per_process_gpu_memory_fraction=0.5") == (
        "gpu_options { per_process_gpu_memory_fraction: 0.5 }"
    )
    file = tmp_path / "session"
    file.write_text("intra_op_parallelism_threads: 7 allow_soft_placement: true")
    given = f"--tensorflow_session_config_file={file}"
    assert session_config(given) == "intra_op_parallelism_threads: 7 allow_soft_placement: true"
    assert session_config(given, "--tensorflow_session_parallelism=3") == f"{both} allow_soft_placement: true"


def test_batching_warm_up_and_tags() -> None:
    def how(*flags: str) -> tuple[object, ...]:
        found = read_platforms(parse_flags(["--model_base_path=/m", *flags]))["tensorflow"]
        name = found.batching and found.batching.thread_pool_name
        return name, found.batching_per_model, found.warm_up, found.warm_up_iterations, found.tags

    assert how() == (None, False, True, 1, ("serve",))
    assert how("--enable_batching") == ("model_server_batch_threads", False, True, 1, ("serve",))
    assert how("--enable_batching", "--enable_per_model_batching_parameters")[1] is True
    assert how("--enable_model_warmup=false", "--num_request_iterations_for_warmup=4")[2:4] == (False, 4)
    assert how("--num_request_iterations_for_warmup=-4")[3] == 1
    assert how("--saved_model_tags=a,b")[4] == ("a", "b")
    assert how("--saved_model_tags=")[4] == ("serve",)


def test_how_versions_come_and_go() -> None:
    flags = ["--num_load_threads=2", "--num_unload_threads=3", "--max_num_load_retries=4"]
    found = manager_options(parse_flags([*flags, "--load_retry_interval_micros=1500000"]))
    assert (found.load_threads, found.unload_threads, found.retries, found.pause) == (2, 3, 4, 1.5)
    assert not found.resource_preserving
    ours = parse_flags(["--aspired_version_policy=resource_preserving", "--load_retry_interval_micros=-5"])
    assert (manager_options(ours).resource_preserving, manager_options(ours).pause) == (True, 0)
    with pytest.raises(BadFlag, match="Couldn't interpret value none for flag aspired_version_policy"):
        parse_flags(["--aspired_version_policy=none"])


def test_a_platform_config_says_it_all(tmp_path: Path) -> None:
    file = tmp_path / "platform"
    file.write_text(
        f'platform_configs {{ key: "mine" value {{ source_adapter_config {{ [type.googleapis.com/{ADAPTER}] {{ '
        "legacy_config { session_config { intra_op_parallelism_threads: 2 } saved_model_tags: 'gpu' "
        "enable_model_warmup: true model_warmup_options { num_request_iterations { value: 2 } } "
        "batching_parameters { max_batch_size { value: 8 } } enable_per_model_batching_params: true } } } } }"
    )
    platforms = read_platforms(parse_flags([f"--platform_config_file={file}", "--saved_model_tags=other"]))
    found = platforms["mine"]
    assert platforms.keys() == {"mine"}
    assert (found.tags, found.warm_up, found.warm_up_iterations) == (("gpu",), True, 2)
    assert found.batching is not None
    assert (found.batching.max_batch_size, found.batching_per_model) == (8, True)
    assert "intra_op_parallelism_threads: 2" in str(protos.ConfigProto.FromString(found.session_config))
    file.write_text(file.read_text().replace(ADAPTER, "tensorflow.serving.PrometheusConfig").partition("legacy")[0])
    with pytest.raises(ServingError, match="Invalid protobuf file"):
        read_platforms(parse_flags([f"--platform_config_file={file}"]))


# ---- what it says of itself


def test_a_flag_is_said_to_be_without_effect_where_it_is() -> None:
    """By default and where the value is what this server does anyway, nothing is said."""
    package = Path(tfs_helpers.embedded.__file__).parent
    program = "".join(file.read_text() for file in package.rglob("*.py") if file != package / "options.py")
    assert {name for name in FLAGS if f'"{name}"' not in program} == set(WITHOUT_EFFECT)
    assert not list(parse_flags([]).without_effect())
    for name, (here, why) in WITHOUT_EFFECT.items():
        flag = FLAGS[name]
        other = {"bool": str(not here).lower(), "string": "bfloat16"}.get(flag.type, "3")
        assert list(parse_flags([f"--{name}={other}"]).without_effect()) == [
            f"--{name} has no effect in the embedded server: {why}"
        ]
        if here is not None:
            assert not list(parse_flags([f"--{name}={flag.write(here)}"]).without_effect())


def test_version_and_usage() -> None:
    version, usage = run("--version"), run("--help")
    assert version.returncode == 0
    assert re.fullmatch(
        r"TensorFlow ModelServer: 2\.20\.0 \(embedded server of tfs_helpers \S+\)\nTensorFlow Library: 2\.20\.0\n",
        version.stdout,
    )
    assert usage.returncode == 255
    for name, flag in {**FLAGS, **OURS}.items():
        line = next(line for line in usage.stdout.splitlines() if line.startswith(f"\t--{name}="))
        assert line.split("\t")[2] == flag.type
        assert ("without effect here" in line) == (name in WITHOUT_EFFECT)


# ---- what models see of it


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that asks to be compiled by XLA, and one that does not, below one folder."""
    import tensorflow as tf

    folder = tmp_path_factory.mktemp("compiled")

    @tf.function(jit_compile=True, input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
    def double(x: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"y": 2.0 * x}

    module = tf.Module()
    module.double = double
    tf.saved_model.save(module, str(folder / "compiled" / "1"), signatures=double)
    export_graph(folder / "plain" / "1", renamed("float32", "y", "x"))
    shutil.copytree(folder / "plain" / "1", folder / "batched" / "1")
    (folder / "batched" / "1" / "batching_params.pbtxt").write_text("max_batch_size { value: 2 }")
    (folder / "models.config").write_text(
        listed(*(entry(name, folder / name) for name in ("compiled", "plain", "batched")))
    )
    return folder


@pytest.fixture(params=[True, False], ids=["with", "without"])
def xla(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def test_xla_and_batching_are_for_those_who_ask(compiled: Path, tmp_path: Path, xla: bool) -> None:
    flags = [f"--model_config_file={compiled}/models.config"]
    flags += (
        ["--xla_cpu_compilation_enabled"] if xla else ["--enable_batching", "--enable_per_model_batching_parameters"]
    )
    with process(tmp_path, *flags) as (_, _client, rest):
        until(lambda: answers(rest, "batched"))
        if xla:
            assert rest.predict("compiled", [1.5])["y"].tolist() == [3.0]
            assert "Wrapping session" not in (tmp_path / "log").read_text()
            return
        with pytest.raises(CallError, match="XLA compilation disabled"):
            rest.predict("compiled", [1.5])
        assert (tmp_path / "log").read_text().count("Wrapping session to perform batch processing") == 1
        assert rest.predict("plain", [1.0, 2.0, 3.0])["y"].tolist() == [1.0, 2.0, 3.0]
        with pytest.raises(CallError, match="Task size 3 is larger than maximum input batch size 2"):
            rest.predict("batched", [1.0, 2.0, 3.0])

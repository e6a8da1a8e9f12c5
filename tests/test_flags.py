"""The table of the real server's flags, and what is done with it."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfs_helpers.errors import ConfigError
from tfs_helpers.flags import FLAGS, Flag, nearest, option

_VALUES = {
    "int32": st.integers(-(2**31), 2**31 - 1),
    "int64": st.integers(-(2**63), 2**63 - 1),
    "bool": st.booleans(),
    "float": st.floats(allow_nan=False, allow_infinity=False),
    "string": st.text(st.characters(exclude_characters="\0")),
}


def test_there_are_48() -> None:
    assert len(FLAGS) == 48
    assert all(name == flag.name for name, flag in FLAGS.items())
    assert {flag.type for flag in FLAGS.values()} == set(_VALUES)


@pytest.mark.parametrize("flag", FLAGS.values(), ids=FLAGS)
def test_each_has_a_default_of_its_type_and_one_line(flag: Flag) -> None:
    assert flag.default is None or flag.parse(flag.write(flag.default)) == flag.default
    assert flag.meaning.endswith(".")
    assert "\n" not in flag.meaning


@settings(deadline=None)
@given(st.data(), st.sampled_from(list(FLAGS.values())))
def test_what_is_written_is_read_back(data: st.DataObject, flag: Flag) -> None:
    value = data.draw(_VALUES[flag.type])
    assert flag.parse(flag.write(value)) == value
    assert option(flag.name, flag.write(value)) == option(flag.name, value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("port", True),
        ("port", 1.5),
        ("port", "8500 "),
        ("port", "8_500"),
        ("port", 2**31),
        ("load_retry_interval_micros", 2**63),
        ("enable_batching", 1),
        ("enable_batching", "yes"),
        ("per_process_gpu_memory_fraction", "half"),
        ("per_process_gpu_memory_fraction", float("nan")),
        ("model_name", 3),
        ("model_name", "a\0b"),
    ],
)
def test_a_value_of_another_type_is_refused(name: str, value: object) -> None:
    with pytest.raises(ConfigError, match=f"The flag {name} cannot be"):
        option(name, value)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("enable_batchin", "enable_batching"),
        ("--enable-batching=true", "enable_batching"),
        ("grpc_port", "port"),
        ("rest_port", "rest_api_port"),
        ("modle_name", "model_name"),
        ("cors_support", "rest_api_enable_cors_support"),
        ("max_retries", "max_num_load_retries"),
        ("entirely_other", None),
        ("", None),
    ],
)
def test_a_slip_finds_its_flag(written: str, meant: str | None) -> None:
    assert nearest(written) == meant


def test_a_slip_finds_a_flag_among_those_that_there_are() -> None:
    assert nearest("hots", ["host", *FLAGS]) == "host"
    assert nearest("hots") != "host"


def test_a_misspelt_flag_is_refused_with_the_real_one() -> None:
    with pytest.raises(ConfigError, match=r"Did you mean enable_batching\?"):
        option("enable_batchng", True)
    with pytest.raises(ConfigError, match="no flag 'entirely_other'"):
        option("entirely_other", True)

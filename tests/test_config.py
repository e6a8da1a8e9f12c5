"""What a server is told: refused where it cannot be right, written and read back without loss."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfs_helpers import protos
from tfs_helpers.config import All, Latest, Model, Policy, Specific, model_config_text, parse_model_config, unique
from tfs_helpers.errors import ConfigError

_INT64 = st.integers(-(2**63), 2**63 - 1)
_TEXT = st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"], exclude_characters="/:")
_NAMES = st.text(_TEXT, min_size=1, max_size=20).filter(
    lambda name: name not in {".", ".."} and not any(letter.isspace() for letter in name)
)
_LABELS = st.text(_TEXT, min_size=1, max_size=20)
_PATHS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30).map(
    "/models/{}".format
)
_URIS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30).map("gs://{}".format)


@st.composite
def _models(draw: st.DrawFn) -> Model:
    versions = draw(st.lists(_INT64, min_size=1, max_size=4, unique=True))
    policy: Policy | None = draw(
        st.sampled_from([None, All(), Specific(*versions)]) | st.integers(1, 2**32 - 1).map(Latest)
    )
    most = policy.num_versions if isinstance(policy, Latest) else 4
    labels = draw(st.dictionaries(_LABELS, st.sampled_from(versions[:most]), max_size=3))
    return Model(draw(_NAMES), draw(_PATHS | _URIS), policy, labels)


@settings(deadline=None)
@given(st.lists(_models(), max_size=4, unique_by=lambda model: model.name))
def test_the_text_says_all_that_was_told(models: list[Model]) -> None:
    assert parse_model_config(model_config_text(models)) == tuple(models)


def test_the_text_is_the_one_that_the_server_reads() -> None:
    model = Model("eye", "/models/eye", Specific(1, 2), {"stable": 1})
    assert model_config_text([model]) == (
        "model_config_list {\n"
        "  config {\n"
        '    name: "eye"\n'
        '    base_path: "/models/eye"\n'
        '    model_platform: "tensorflow"\n'
        "    model_version_policy {\n"
        "      specific {\n"
        "        versions: 1\n"
        "        versions: 2\n"
        "      }\n"
        "    }\n"
        "    version_labels {\n"
        '      key: "stable"\n'
        "      value: 1\n"
        "    }\n"
        "  }\n"
        "}\n"
    )


def test_paths_are_written_as_the_server_sees_them() -> None:
    text = model_config_text([Model("eye", "/home/me/eye")], path_of=lambda model: f"/models/{model.name}")
    assert parse_model_config(text) == (Model("eye", "/models/eye"),)


def test_no_models_is_a_config_too() -> None:
    assert parse_model_config(model_config_text([])) == ()
    assert parse_model_config("# nothing yet\n") == ()


def test_a_relative_path_is_taken_from_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")
    assert Model("eye", "models/eye").path == str(tmp_path / "models/eye")
    assert Model("eye", Path("models") / "eye").path == str(tmp_path / "models/eye")
    assert Model("eye", "~/eye").path == "/home/me/eye"
    assert Model("eye", "gs://bucket/eye").path == "gs://bucket/eye"


def test_the_policy_follows_from_the_labels() -> None:
    assert Model("eye", "/eye").policy == Latest(1)
    assert Model("eye", "/eye", labels={"test": 2, "stable": 1, "old": 1}).policy == Specific(1, 2)
    assert Model("eye", "/eye", All(), {"stable": 1}).policy == All()


def test_a_model_cannot_be_changed_in_place() -> None:
    labels = {"stable": 1}
    model = Model("eye", "/eye", labels=labels)
    labels["stable"] = 2
    assert model.labels == {"stable": 1}
    with pytest.raises(TypeError):
        model.labels["stable"] = 2
    assert hash(model) == hash(Model("eye", "/eye", labels={"stable": 1}))


@pytest.mark.parametrize(
    "name", ["", ".", "..", "eye/1", "a:predict", "two words", "tab\t", "line\n", "null\0", "\ud800", "\u2028", None, 3]
)
def test_names_that_no_url_can_hold_are_refused(name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Model(name, "/models/eye")
    assert "/v1/models/NAME:predict" in caught.value.why


@pytest.mark.parametrize("path", ["", b"/bytes", None, 3, "/null\0", "/\ud800", "~no_such_user_here/eye"])
def test_what_is_no_path_is_refused(path: str) -> None:
    with pytest.raises(ConfigError, match="eye"):
        Model("eye", path)


@pytest.mark.parametrize("label", ["", "a/b", "a:b", "line\n", None, 1])
def test_labels_that_no_url_can_hold_are_refused(label: str) -> None:
    with pytest.raises(ConfigError, match="is no label"):
        Model("eye", "/eye", labels={label: 1})


@pytest.mark.parametrize("version", ["1", 1.0, True, None, 2**63])
def test_labels_point_at_versions(version: int) -> None:
    with pytest.raises(ConfigError, match="the label stable points at"):
        Model("eye", "/eye", labels={"stable": version})


def test_labels_point_at_versions_that_are_served() -> None:
    with pytest.raises(ConfigError, match="the label test points at version 2, which is not served"):
        Model("eye", "/eye", Specific(1), {"stable": 1, "test": 2})
    with pytest.raises(ConfigError, match=r"Latest\(1\) serves 1"):
        Model("eye", "/eye", Latest(1), {"stable": 1, "test": 2})
    Model("eye", "/eye", Latest(2), {"stable": 1, "test": 2})


@pytest.mark.parametrize("versions", [(), (1, 1), ("1",), (True,), (2**63,)])
def test_specific_names_each_version_once(versions: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match="Specific"):
        Specific(*versions)


@pytest.mark.parametrize("number", [0, -1, 2**32, "2", True])
def test_latest_keeps_at_least_one(number: int) -> None:
    with pytest.raises(ConfigError, match="Latest"):
        Latest(number)


def test_a_policy_is_one_of_the_three() -> None:
    with pytest.raises(ConfigError, match="is no version policy"):
        Model("eye", "/eye", versions=2)


def test_a_name_is_given_once() -> None:
    twice = [Model("eye", "/a"), Model("eye", "/b")]
    for refuse in (unique, model_config_text):
        with pytest.raises(ConfigError, match="Two models are called eye"):
            refuse(twice)


def _config(inside: str) -> str:
    return f'model_config_list {{ config {{ name: "eye" base_path: "/eye" model_platform: "tensorflow" {inside} }} }}'


def test_the_slip_in_a_version_policy_is_named() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_model_config("\n" + _config("\nmodel_version_policy { specific { version: 1 } }"))
    assert "line 3, column 35" in caught.value.what
    assert caught.value.fix == "Did you mean versions?"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("model_config_lst { }", "Did you mean model_config_list?"),
        ('model_config_list { config { nmae: "a" } }', "Did you mean name?"),
        ("model_config_list { config {", "line 1"),
        ("model_config_list { config { name: 3 } }", "Expected string"),
        ("{}", "cannot be read"),
        ("\ud800", "cannot be read|UTF-8"),
        (_config('name: "b"'), "should not have multiple"),
        (_config("model_version_policy { specific { } }"), "names no version"),
        (_config('version_labels { key: "a/b" value: 1 }'), "is no label"),
        (_config("model_type: TENSORFLOW"), "both model_platform and model_type"),
        (_config("logging_config { }"), "no request logger"),
        ('model_config_list { config { name: "a" base_path: "/a" } }', "has no model_platform"),
        ('model_config_list { config { name: "a" base_path: "/a" model_platform: "torch" } }', "'torch'"),
        ('model_config_list { config { name: "a" base_path: "a" model_platform: "tensorflow" } }', "is relative"),
        ('model_config_list { config { name: "a" model_platform: "tensorflow" } }', "is no base path"),
        ("custom_model_config { }", "aborts"),
        (
            model_config_text([Model("a", "/a")]).replace("}\n}", '}\nconfig { name: "a" base_path: "/b" }\n}'),
            "platform",
        ),
    ],
)
def test_what_the_server_would_refuse_is_refused(text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        parse_model_config(text)
    assert len(str(caught.value).splitlines()) <= 3


@settings(deadline=None)
@given(st.text(max_size=60))
def test_any_other_text_is_refused_in_three_lines(text: str) -> None:
    said = ""
    try:
        parse_model_config(text)
    except ConfigError as error:
        said = str(error)
    assert len(said.splitlines()) <= 3


def test_the_default_number_of_latest_versions_is_one() -> None:
    for inside in ("", "model_version_policy { }", "model_version_policy { latest { } }"):
        assert parse_model_config(_config(inside)) == (Model("eye", "/eye"),)


def test_the_text_holds_every_field_that_the_server_needs() -> None:
    config = protos.ModelServerConfig()
    from google.protobuf import text_format

    text_format.Parse(model_config_text([Model("é", '/a "b"\\c')]), config, descriptor_pool=protos.pool())
    entry = config.model_config_list.config[0]
    assert (entry.name, entry.base_path, entry.model_platform) == ("é", '/a "b"\\c', "tensorflow")

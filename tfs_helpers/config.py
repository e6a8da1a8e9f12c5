"""What a server is told to serve: models, version policies, labels; to and from the text form that it reads.

    Model("half_plus_two", "models/half_plus_two")                          # the newest version
    Model("eye", "models/eye", versions=Specific(1, 2))                     # these two
    Model("eye", "models/eye", labels={"stable": 1, "test": 2})             # these two, under a name each

A description that no server could follow is refused here, before anything is
started: each check is one that the server makes too, or one whose neglect it
punishes with silence.
"""

import difflib
import os
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeAlias

from google.protobuf import text_format

from tfs_helpers import protos
from tfs_helpers.errors import ConfigError

__all__ = [
    "All",
    "Latest",
    "Model",
    "Policy",
    "Specific",
    "is_uri",
    "model_config_text",
    "parse_model_config",
    "unique",
]

_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_INT64 = range(-(2**63), 2**63)
_UINT32 = range(2**32)


@dataclass(frozen=True)
class Latest:
    """Serve the `num_versions` highest versions; what a server does when told nothing."""

    num_versions: int = 1

    def __post_init__(self) -> None:
        if not _is_int(self.num_versions) or self.num_versions < 1 or self.num_versions not in _UINT32:
            raise ConfigError(
                f"Latest({self.num_versions!r}) is no number of versions.",
                "The policy keeps that many of the highest versions, so it needs a whole number from 1 on.",
                "Write Latest(1), or Specific(3) for version 3 alone.",
            )


@dataclass(frozen=True)
class All:
    """Serve every version that is there, and every one that comes."""


@dataclass(frozen=True, init=False)
class Specific:
    """Serve these versions and no other: `Specific(1, 2)`."""

    versions: tuple[int, ...]

    def __init__(self, *versions: int) -> None:
        object.__setattr__(self, "versions", versions)
        wrong = [version for version in versions if not _is_version(version)]
        if wrong:
            raise ConfigError(
                f"Specific{versions!r}: {wrong[0]!r} is no version number.",
                "A version is a whole number, the name of its folder.",
                "Write Specific(1, 2).",
            )
        if not versions or len(set(versions)) < len(versions):
            raise ConfigError(
                f"Specific{versions!r} " + ("names a version twice." if versions else "names no version."),
                "" if versions else "A server told so waits for ever, and serves nothing.",
                "Name each version once: Specific(1, 2).",
            )


Policy: TypeAlias = Latest | All | Specific


@dataclass(frozen=True)
class Model:
    """One model that a server serves.

    Args:
        name: what clients call it. Not the folder's name, though the two are best the same.
        base_path: the folder that holds the version folders. A relative one is taken from the current folder, now;
            `~` is the home folder; a URI such as `gs://bucket/model` stays as it is.
        versions: which versions to serve: `Latest(n)`, `All()` or `Specific(1, 2)`. Not given: the latest one, or,
            where there are labels, the versions that these point at.
        labels: names for versions, such as `{"stable": 1, "test": 2}`. They cannot be changed in place.

    Raises:
        ConfigError: no server could follow this.
    """

    name: str
    base_path: str | os.PathLike[str]
    versions: Policy | None = None
    labels: Mapping[str, int] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        _check_name(self.name)
        object.__setattr__(self, "base_path", _absolute(self.base_path, self.name))
        object.__setattr__(self, "labels", MappingProxyType(dict(self.labels)))
        for label, version in self.labels.items():
            _check_label(label, version, self.name)
        if self.versions is None:
            labelled = sorted(set(self.labels.values()))
            object.__setattr__(self, "versions", Specific(*labelled) if labelled else Latest(1))
        elif not isinstance(self.versions, (Latest, All, Specific)):
            raise ConfigError(
                f"Model {self.name}: {self.versions!r} is no version policy.",
                "There are three: the latest n, all, or those that are named.",
                "Write versions=Latest(1), versions=All() or versions=Specific(1, 2).",
            )
        _check_labels_are_served(self)

    @property
    def path(self) -> str:
        """The base path as text: absolute, or a URI."""
        return str(self.base_path)

    @property
    def policy(self) -> Policy:
        """The version policy, spelled out where none was given."""
        assert self.versions is not None
        return self.versions

    @property
    def is_plain(self) -> bool:
        """Whether name and base path say it all: the latest version, no labels."""
        return self.versions == Latest(1) and not self.labels


def is_uri(path: str) -> bool:
    """Whether `path` lies beyond this machine's file system, as `gs://bucket/model` does."""
    return _URI.match(path) is not None


def unique(models: Iterable[Model]) -> tuple[Model, ...]:
    """The same models, once it is sure that no two share a name.

    Raises:
        ConfigError: two do.
    """
    models = tuple(models)
    seen: set[str] = set()
    for model in models:
        if model.name in seen:
            raise ConfigError(
                f"Two models are called {model.name}.",
                "Clients ask for a model by its name, so the server refuses a second one.",
                "Rename one, or make them two versions of one model.",
            )
        seen.add(model.name)
    return models


def model_config_text(models: Iterable[Model], path_of: Callable[[Model], str] = lambda model: model.path) -> str:
    """The models as the text that `--model_config_file` reads.

    Args:
        models: what to serve.
        path_of: the base path of a model as the server sees it; inside a container it is another than outside.

    Raises:
        ConfigError: two models share a name.
    """
    config = protos.ModelServerConfig()
    config.model_config_list.SetInParent()
    for model in unique(models):
        entry = config.model_config_list.config.add(name=model.name, base_path=path_of(model))
        entry.model_platform = "tensorflow"
        match model.policy:
            case All():
                entry.model_version_policy.all.SetInParent()
            case Specific(versions):
                entry.model_version_policy.specific.versions.extend(versions)
            case Latest(num_versions) if num_versions != 1:
                entry.model_version_policy.latest.num_versions = num_versions
        for label, version in model.labels.items():
            entry.version_labels[label] = version
    return str(text_format.MessageToString(config, as_utf8=True))


def parse_model_config(text: str) -> tuple[Model, ...]:
    """The models that a `model.config` names.

    Raises:
        ConfigError: the server would refuse this text, or never become ready with it.
    """
    config = protos.ModelServerConfig()
    try:
        text_format.Parse(text, config, descriptor_pool=protos.pool())
    except text_format.ParseError as error:
        raise _not_parsed(error) from error
    except UnicodeEncodeError as error:
        raise ConfigError("The model config is not valid UTF-8.", "", "Save the file as UTF-8.") from error
    if config.HasField("custom_model_config"):
        raise ConfigError(
            "The model config holds a custom_model_config.",
            "The stock server aborts on it: it needs a server built for the purpose.",
            "Write model_config_list { config { ... } } instead.",
        )
    return unique(_model_from(entry) for entry in config.model_config_list.config)


def _model_from(entry: Any) -> Model:
    name, path, platform = entry.name, entry.base_path, entry.model_platform
    if platform != "tensorflow":
        raise ConfigError(
            f"Model {name}: the platform is {platform!r}." if platform else f"Model {name} has no model_platform.",
            "The server takes no other than tensorflow, and no default.",
            'Write model_platform: "tensorflow" (and leave model_type out).',
        )
    if entry.model_type:
        raise ConfigError(
            f"Model {name} has both model_platform and model_type.",
            "model_type is the older way to say the same; the server refuses the two together.",
            "Leave model_type out.",
        )
    if entry.HasField("logging_config"):
        raise ConfigError(
            f"Model {name} has a logging_config.",
            "The stock server has no request logger and refuses to start with one configured.",
            "Leave logging_config out; log requests in the client or in a proxy.",
        )
    if path and not path.startswith("/") and not is_uri(path):
        raise ConfigError(
            f"Model {name}: the base path {path!r} is relative.",
            "A server may run anywhere, so it takes absolute paths and URIs only.",
            "Write the path from / on, as the server sees it (inside a container: /models/...).",
        )
    policy: Policy = Latest(1)
    match entry.model_version_policy.WhichOneof("policy_choice"):
        case "all":
            policy = All()
        case "specific":
            policy = Specific(*entry.model_version_policy.specific.versions)
        case "latest":
            policy = Latest(entry.model_version_policy.latest.num_versions or 1)
    return Model(name, path, policy, dict(entry.version_labels))


def _not_parsed(error: text_format.ParseError) -> ConfigError:
    """The parser's complaint, with the nearest name that the message really has."""
    words = re.sub(r"^\d+:\d+ : ", "", str(error)).splitlines()[0]
    what = f"The model config cannot be read at line {error.GetLine()}, column {error.GetColumn()}: {words}"
    unknown = re.search(r'Message type "([\w.]+)" has no field named "([^"]*)"', words)
    if unknown is None:
        return ConfigError(what, "It is protobuf text: name: value, and name { ... } for a part with parts.")
    message, asked = unknown.groups()
    fields = sorted(protos.pool().FindMessageTypeByName(message).fields_by_name)
    near = difflib.get_close_matches(asked, fields, n=1)
    return ConfigError(
        what,
        f"{message.rpartition('.')[2]} knows: {', '.join(fields)}.",
        f"Did you mean {near[0]}?" if near else "Use one of these, or leave it out.",
    )


def _check_name(name: object) -> None:
    if not isinstance(name, str) or not name or name in {".", ".."}:
        raise ConfigError(
            f"{name!r} is no name for a model.",
            "Clients put it into the URL: /v1/models/NAME:predict.",
            "Give it a name such as half_plus_two.",
        )
    wrong = sorted({letter for letter in name if letter in "/:" or letter.isspace() or not _is_text(letter)})
    if wrong:
        raise ConfigError(
            f"The model name {name!r} holds {wrong[0]!r}.",
            "Clients put it into the URL, /v1/models/NAME:predict, where this would end or break it.",
            f"Call it {re.sub(r'[^0-9A-Za-z_.-]+', '_', name).strip('_') or 'half_plus_two'}, say.",
        )


def _absolute(base_path: object, name: str) -> str:
    path = os.fspath(base_path) if isinstance(base_path, (str, os.PathLike)) else None
    if not isinstance(path, str) or not path or "\0" in path or not all(map(_is_text_or_control, path)):
        raise ConfigError(
            f"Model {name}: {base_path!r} is no base path.",
            "It is the folder that holds the version folders 1, 2, ...: text or a pathlib.Path.",
            f'Write Model("{name}", "models/{name}").',
        )
    if is_uri(path):
        return path
    try:
        # Not resolved: a link stays a link, so that moving it moves the model.
        return str(Path(path).expanduser().absolute())
    except RuntimeError as error:
        raise ConfigError(
            f"Model {name}: {path!r} names a home folder that is not there.", "", "Write it out."
        ) from error


def _check_label(label: object, version: object, name: str) -> None:
    if not isinstance(label, str) or not label or any(letter in "/:" or not _is_text(letter) for letter in label):
        raise ConfigError(
            f"Model {name}: {label!r} is no label.",
            "Clients put it into the URL, /v1/models/NAME/labels/LABEL:predict, so it cannot hold / or :.",
            "Give it a name such as stable.",
        )
    if not _is_version(version):
        raise ConfigError(
            f"Model {name}: the label {label} points at {version!r}.",
            "A label points at a version, a whole number.",
            f'Write labels={{"{label}": 1}}.',
        )


def _check_labels_are_served(model: Model) -> None:
    labelled = set(model.labels.values())
    match model.policy:
        case Specific(versions) if not labelled <= set(versions):
            label, version = next(item for item in model.labels.items() if item[1] not in versions)
            raise ConfigError(
                f"Model {model.name}: the label {label} points at version {version}, which is not served.",
                f"The policy is Specific{versions!r}.",
                f"Add {version} to the versions, or point {label} at one of them.",
            )
        case Latest(num_versions) if len(labelled) > num_versions:
            raise ConfigError(
                f"Model {model.name}: the labels point at {len(labelled)} versions, and Latest({num_versions}) "
                f"serves {num_versions}.",
                "A label whose version is not loaded answers NOT_FOUND.",
                f"Write versions=Specific({', '.join(map(str, sorted(labelled)))}), or leave versions out.",
            )


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_version(value: object) -> bool:
    return _is_int(value) and value in _INT64


def _is_text(letter: str) -> bool:
    """No control character, no lone surrogate, no line end."""
    return unicodedata.category(letter) not in {"Cc", "Cs", "Zl", "Zp"}


def _is_text_or_control(letter: str) -> bool:
    return unicodedata.category(letter) != "Cs"

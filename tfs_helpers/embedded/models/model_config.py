"""The configuration of models: refused where the real server refuses it, in its words and order (server_core.cc)."""

import re
from collections.abc import Collection, Mapping
from typing import Any

from tfs_helpers import protos
from tfs_helpers.embedded.log import log
from tfs_helpers.embedded.status import Code, ServingError, refused

__all__ = ["TENSORFLOW", "check_models", "check_platforms", "model_list", "single_model"]

TENSORFLOW = "tensorflow"
_URI = re.compile(r"[A-Za-z][A-Za-z0-9.]*://")


def single_model(name: str, base_path: str) -> Any:
    """The ModelServerConfig that `--model_name` and `--model_base_path` stand for."""
    log.info("Building single TensorFlow model file config:  model_name: %s model_base_path: %s", name, base_path)
    config = protos.ModelServerConfig()
    config.model_config_list.config.add(name=name, base_path=base_path, model_platform=TENSORFLOW)
    return config


def model_list(config: Any, *, first: bool) -> Any:
    """The ModelConfig protos of a ModelServerConfig; None where it says nothing at all.

    Args:
        config: what is to be served from now on.
        first: whether nothing was configured before.

    Raises:
        ServingError: it is no list of models, which only a server with an empty configuration may be given.
    """
    kind = config.WhichOneof("config")
    if not first and kind != "model_config_list":
        raise ServingError(
            Code.FAILED_PRECONDITION,
            "Cannot transition to requested config. "
            "It is only legal to transition from one ModelConfigList to another.",
        )
    if kind == "custom_model_config":
        # The real server ends here, with a dump of its stack.
        raise ServingError(Code.UNIMPLEMENTED, "ModelServer does not yet support custom model config.")
    return None if kind is None else config.model_config_list.config


def check_models(models: Any, current: Mapping[str, Any]) -> None:
    """Refuse ModelConfig protos that list a model twice, have relative paths, or change a model's platform.

    Args:
        models: the new ones.
        current: those that are served now, by name.

    Raises:
        ServingError: INVALID_ARGUMENT, in the real server's words.
    """
    seen: set[str] = set()
    for model in models:
        if model.name in seen:
            raise refused(f"Illegal to list model {model.name} multiple times in config list")
        seen.add(model.name)
    for model in models:
        if not model.base_path.startswith("/") and not _URI.match(model.base_path):
            raise refused(
                f"Expected model {model.name} to have an absolute path or URI; got base_path()={model.base_path}"
            )
    for model in models:
        before = current.get(model.name)
        if before is not None and (was := _platform(before)) != (asked := _platform(model)):
            raise refused(
                f"Illegal to change a model's platform. For model {model.name} platform was {was} "
                f"and new platform requested is {asked}"
            )


def check_platforms(models: Any, known: Collection[str]) -> dict[str, str]:
    """The platform of each model, by name; to be called after the labels are checked, as there.

    Raises:
        ServingError: INVALID_ARGUMENT, in the real server's words.
    """
    platforms = {model.name: _platform(model) for model in models}
    for name, platform in platforms.items():
        if platform not in known:
            raise refused(f"Model {name} requests unsupported platform {platform}")
    for model in models:
        if model.HasField("logging_config"):
            raise refused("No request-logger-creator provided.")
    return platforms


def _platform(model: Any) -> str:
    neither = not model.model_platform and not model.model_type
    if neither or (model.model_platform and model.model_type):
        raise refused(
            f"Illegal setting {'neither' if neither else 'both'} ModelServerConfig::model_type (deprecated) "
            f"{'nor' if neither else 'and'} ModelServerConfig::model_platform, model name is {model.name}"
        )
    if model.model_type:
        tensorflow = protos.enum_value("tensorflow.serving.ModelType", "TENSORFLOW")
        return TENSORFLOW if model.model_type == tensorflow else "other"
    platform: str = model.model_platform
    return platform

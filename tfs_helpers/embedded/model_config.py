"""The configuration of models: refused where the real server refuses it."""

from typing import Any

from tfs_helpers import protos
from tfs_helpers.embedded.log import log
from tfs_helpers.embedded.status import Code, ServingError

__all__ = ["check_models", "single_model"]

_PLATFORM = "tensorflow"


def single_model(name: str, base_path: str) -> Any:
    """The ModelServerConfig that `--model_name` and `--model_base_path` stand for."""
    log.info("Building single TensorFlow model file config:  model_name: %s model_base_path: %s", name, base_path)
    config = protos.ModelServerConfig()
    config.model_config_list.config.add(name=name, base_path=base_path, model_platform=_PLATFORM)
    return config


def check_models(models: Any) -> None:
    """Refuse a list of ModelConfig protos that cannot be served: duplicates, relative paths, platforms.

    Raises:
        ServingError: INVALID_ARGUMENT, in the real server's words.
    """
    seen: set[str] = set()
    for model in models:
        if model.name in seen:
            raise ServingError(
                Code.INVALID_ARGUMENT, f"Illegal to list model {model.name} multiple times in config list"
            )
        seen.add(model.name)
        if not model.base_path.startswith("/") and "://" not in model.base_path:
            raise ServingError(
                Code.INVALID_ARGUMENT,
                f"Expected model {model.name} to have an absolute path or URI; got base_path()={model.base_path}",
            )
    for model in models:
        _check_platform(model)


def _check_platform(model: Any) -> None:
    neither = not model.model_platform and not model.model_type
    if neither or (model.model_platform and model.model_type):
        raise ServingError(
            Code.INVALID_ARGUMENT,
            f"Illegal setting {'neither' if neither else 'both'} ModelServerConfig::model_type (deprecated) "
            f"{'nor' if neither else 'and'} ModelServerConfig::model_platform, model name is {model.name}",
        )
    if model.model_platform not in ("", _PLATFORM):
        raise ServingError(
            Code.INVALID_ARGUMENT, f"Model {model.name} requests unsupported platform {model.model_platform}"
        )
    if model.HasField("logging_config"):
        raise ServingError(Code.INVALID_ARGUMENT, "No request-logger-creator provided.")

"""The command line: the flags of `tensorflow_model_server`, read as the real server reads them."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field

from tfs_helpers.flags import FLAGS, Value, nearest

__all__ = ["BadFlag", "Options", "hint", "parse_flags", "usage"]

_HOST = "host"
_HONOURED = {
    *("port", "rest_api_port", "rest_api_timeout_in_ms", "rest_api_enable_cors_support"),
    *("model_name", "model_base_path", "model_config_file", "model_config_file_poll_wait_seconds"),
    *("allow_version_labels_for_unavailable_models", "file_system_poll_wait_seconds", "saved_model_tags"),
    *("max_num_load_retries", "load_retry_interval_micros", "num_load_threads"),
    *("tensorflow_session_parallelism", "tensorflow_intra_op_parallelism", "tensorflow_inter_op_parallelism"),
    *("enable_serialization_as_tensor_content", "version", "ssl_config_file", "use_alts_credentials"),
}


class BadFlag(Exception):
    """A flag's value is not of its type."""


@dataclass
class Options:
    """What the command line said.

    Attributes:
        values: every flag of the real server with its value, given or default.
        host: the address to listen on; the real server has no such flag and listens everywhere.
        unknown: arguments that mean nothing, as they were typed.
    """

    values: dict[str, Value]
    host: str = "127.0.0.1"
    unknown: list[str] = field(default_factory=list)

    def without_effect(self) -> list[str]:
        """The flags that were given another value than their default, and that this server does nothing with."""
        changed = (name for name, value in self.values.items() if value != FLAGS[name].default)
        return [name for name in changed if name not in _HONOURED and FLAGS[name].default is not None]

    def text(self, name: str) -> str:
        """The value of a string flag."""
        return str(self.values[name])

    def number(self, name: str) -> int:
        """The value of an integer flag."""
        return int(self.values[name])

    def flag(self, name: str) -> bool:
        """The value of a bool flag."""
        return bool(self.values[name])


def parse_flags(arguments: Sequence[str]) -> Options:
    """Read `--name=value` words; the last one wins, a bare `--name` sets a bool.

    Raises:
        BadFlag: `Couldn't interpret value X for flag Y.`, as the real server says.
    """
    counted = 4 * (os.cpu_count() or 1)
    options = Options({name: counted if flag.default is None else flag.default for name, flag in FLAGS.items()})
    for argument in arguments:
        name, equals, text = argument[2:].partition("=") if argument.startswith("--") else ("", "", "")
        flag = FLAGS.get(name)
        if name == _HOST and equals:
            options.host = text
        elif flag is None or (not equals and flag.type != "bool"):
            options.unknown.append(argument)
        else:
            try:
                options.values[name] = flag.parse(text if equals else "true")
            except ValueError:
                raise BadFlag(f"Couldn't interpret value {text} for flag {name}.") from None
    return options


def usage() -> str:
    """The flags, a line each."""
    lines = ["usage: python -m tfs_helpers.embedded [--name=value ...]", "Flags:"]
    for flag in FLAGS.values():
        default = "(counted)" if flag.default is None else flag.write(flag.default)
        lines.append(f"    {f'--{flag.name}={default}':<58}  {flag.type:<6}  {flag.meaning}")
    lines.append(f"    {'--host=127.0.0.1':<58}  string  Address to listen on; the real server has no such flag.")
    return "\n".join(lines)


def hint(argument: str) -> str:
    """What somebody who typed an unknown argument probably meant; empty where nobody knows."""
    name = argument.lstrip("-").partition("=")[0]
    if name in FLAGS:
        return f"flags are written --{name}=value"
    near = nearest(name)
    return f"did you mean --{near}?" if near else ""

"""The command line: the flags of `tensorflow_model_server`, read as the real server reads them, and two of our own."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from tfs_helpers.flags import FLAGS, Flag, Value, nearest

__all__ = ["OURS", "WITHOUT_EFFECT", "BadFlag", "Options", "hint", "parse_flags", "usage"]

AVAILABILITY, RESOURCE = "availability_preserving", "resource_preserving"
OURS = {
    flag.name: flag
    for flag in (
        Flag("host", "string", "127.0.0.1", "The address to listen on; the real server listens everywhere."),
        Flag(
            "aspired_version_policy",
            "string",
            AVAILABILITY,
            f"{AVAILABILITY}: a new version is loaded before the old one goes. {RESOURCE}: the old one goes first.",
        ),
    )
}


class _Fixed(NamedTuple):
    """A flag that changes nothing here.

    Attributes:
        here: the value that this server behaves by, whatever is given; None where no value has any effect.
        why: why, and what to do instead.
    """

    here: Value | None
    why: str


_TFLITE = "models are run by TensorFlow, not by TF Lite"
# Every other flag is obeyed.
WITHOUT_EFFECT: dict[str, _Fixed] = {
    "enable_profiler": _Fixed(False, "there is no profiler on the gRPC port; profile the model in Python, or there"),
    "flush_filesystem_caches": _Fixed(None, "only remote file systems keep such caches, and models are local files"),
    "mixed_precision": _Fixed("", "bfloat16 needs oneDNN, which is off here; export the model in a smaller type"),
    "num_tflite_interpreters_per_pool": _Fixed(None, _TFLITE),
    "num_tflite_pools": _Fixed(None, _TFLITE),
    "prefer_tflite_model": _Fixed(False, f"{_TFLITE}; saved_model.pb is served"),
    "remove_unused_fields_from_bundle_metagraph": _Fixed(True, "of a loaded graph the signatures are kept, no more"),
    "skip_initialize_tpu": _Fixed(None, "no TPU is used"),
}


class BadFlag(Exception):
    """A flag's value is not of its type, or none of those that it can have."""


@dataclass
class Options:
    """What the command line said.

    Attributes:
        values: every flag of the real server with its value, given or default.
        host: the address to listen on; the real server has no such flag and listens everywhere.
        aspired_version_policy: `availability_preserving` or `resource_preserving`; the real server knows the first.
        given: the names of the real server's flags that were given.
        unknown: arguments that mean nothing, as they were typed.
    """

    values: dict[str, Value]
    host: str = "127.0.0.1"
    aspired_version_policy: str = AVAILABILITY
    given: set[str] = field(default_factory=set)
    unknown: list[str] = field(default_factory=list)

    def without_effect(self) -> Iterator[str]:
        """A line for every flag that was given a value by which this server does not behave."""
        for name in sorted(self.given & WITHOUT_EFFECT.keys()):
            here, why = WITHOUT_EFFECT[name]
            if here is None or self.values[name] != here:
                yield f"--{name} has no effect in the embedded server: {why}"

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
        flag = FLAGS.get(name) or OURS.get(name)
        if flag is None or (not equals and flag.type != "bool"):
            options.unknown.append(argument)
            continue
        try:
            value = flag.parse(text if equals else "true")
        except ValueError:
            raise BadFlag(f"Couldn't interpret value {text} for flag {name}.") from None
        if name in OURS:
            setattr(options, name, value)
        else:
            options.values[name] = value
            options.given.add(name)
    if options.aspired_version_policy not in (AVAILABILITY, RESOURCE):
        raise BadFlag(
            f"Couldn't interpret value {options.aspired_version_policy} for flag aspired_version_policy.\n"
            f"It is {AVAILABILITY} or {RESOURCE}."
        )
    return options


def usage(program: str) -> str:
    """The flags, a line each, laid out as the real server's (command_line_flags.cc)."""
    lines = [f"usage: {program}", "Flags:", *map(_line, FLAGS.values())]
    return "\n".join([*lines, "Flags that the real server does not have:", *map(_line, OURS.values())])


def _line(flag: Flag) -> str:
    default = "(counted)" if flag.default is None else flag.write(flag.default)
    shown = f'--{flag.name}="{default}"' if flag.type == "string" else f"--{flag.name}={default}"
    remark = " (Accepted, without effect here.)" if flag.name in WITHOUT_EFFECT else ""
    return f"\t{shown:<33}\t{flag.type}\t{flag.meaning}{remark}"


def hint(argument: str) -> str:
    """What somebody who typed an unknown argument probably meant; empty where nobody knows."""
    name = argument.lstrip("-").partition("=")[0]
    if name in FLAGS or name in OURS:
        return f"flags are written --{name}=value"
    near = nearest(name, [*FLAGS, *OURS])
    return f"did you mean --{near}?" if near else ""

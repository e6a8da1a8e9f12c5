"""A model's signature as plain Python: asking a protobuf map takes longer than a small model runs."""

from collections.abc import Mapping
from typing import Any

__all__ = ["GraphSignature", "graph_signatures"]


class GraphSignature:
    """A SignatureDef proto, read once.

    Attributes:
        definition: the proto.
        inputs, outputs: tensor names by alias.
        infos: the inputs' TensorInfo protos by alias.
        defaults: the aliases of inputs that may be left out.
    """

    def __init__(self, definition: Any) -> None:
        self.definition = definition
        self.infos: dict[str, Any] = dict(definition.inputs)
        self.inputs: dict[str, str] = {alias: info.name for alias, info in self.infos.items()}
        self.outputs: dict[str, str] = {alias: info.name for alias, info in definition.outputs.items()}
        self.defaults = frozenset(definition.defaults)


def graph_signatures(definitions: Mapping[str, Any]) -> dict[str, GraphSignature]:
    """By the name of the signature."""
    return {name: GraphSignature(definition) for name, definition in definitions.items()}

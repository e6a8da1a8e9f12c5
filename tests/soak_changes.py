"""What changes under the soak: versions, labels and models, by reloads and by folders."""

import shutil
import time
from collections.abc import Callable
from typing import Any

import grpc
from google.protobuf import text_format
from soak_grpc import check
from soak_models import Served, Wires, ask, grpc_call, rest_call
from soak_report import MOST_SECONDS, Disorderly, Report, Worker

from tfs_helpers import protos


class Changes(Worker):
    """New versions and configurations, good and bad, one after the other."""

    def __init__(self, name: str, report: Report, stop: Any, ports: tuple[int, int], served: Served) -> None:
        super().__init__(name, report, stop)
        self._wires = Wires(ports)
        self._served = served
        self._swapped = served.folder / "swapped"
        self._version = 1
        self._extras = 0

    def step(self) -> None:
        kind: Callable[[], None] = self.rng.choice(
            (self._swap, self._swap, self._move, self._flip, self._extra, self._refused, self._ghost)
        )
        kind()
        self.stop.wait(0.1)

    def _swap(self) -> None:
        """A version appears, and once it answers the one before it goes; sometimes a broken one comes between."""
        old, new = self._version, self._version + 1
        if self.rng.random() < 0.3:
            broken = self._swapped / str(new)
            broken.mkdir()
            self.stop.wait(1.2)
            shutil.rmtree(broken)
            new += 1  # what failed is not tried again before it was gone
        with self.report.asking("change, hot swap", str(new).encode()) as codes:
            hidden = self._swapped / f".coming-{new}"
            shutil.copytree(self._served.folder / "half_plus_two" / str(2 - new % 2), hidden)
            hidden.rename(self._swapped / str(new))
            end = time.monotonic() + MOST_SECONDS
            while self._states("swapped").get(new) != 30:
                if time.monotonic() > end:
                    raise Disorderly(f"version {new} does not come: {self._states('swapped')}")
                time.sleep(0.05)
            shutil.rmtree(self._swapped / str(old))
            codes.append("swapped")
        self._version = new

    def _states(self, model: str) -> dict[int, int]:
        request = protos.GetModelStatusRequest(model_spec=protos.ModelSpec(name=model))
        _, response = grpc_call("GetModelStatus", request).ask(self._wires)
        return {row.version: row.state for row in response.model_version_status}

    def _reload(self, kind: str, text: str, codes: set[str], seconds: float = MOST_SECONDS) -> None:
        request = protos.ReloadConfigRequest()
        text_format.Parse(text, request.config)
        call = grpc_call("HandleReloadConfigRequest", request)
        with self.report.asking(f"change, {kind}", text.encode()) as seen:
            try:
                self._wires.channel.unary_unary(call.path)(call.request, timeout=seconds)
                code = "OK"
            except grpc.RpcError as error:
                code = check(error)
            seen.append(code)
            if code not in codes:
                raise Disorderly(f"{code}, not {codes}")

    def _move(self) -> None:
        self._served.moving = 3 - self._served.moving
        self._reload("label moved", self._served.text(), {"OK"})

    def _flip(self) -> None:
        """One version replaces another by a reload, upwards and downwards."""
        with self.report.asking("change, flipped", b"") as codes:
            new = self._served.flipped = 3 - self._served.flipped
            self._reload("flip asked for", self._served.text(), {"OK"})
            end = time.monotonic() + MOST_SECONDS
            while self._states("flipped") != {new: 30, 3 - new: 50}:
                if time.monotonic() > end:
                    raise Disorderly(f"version {new} does not come: {self._states('flipped')}")
                time.sleep(0.02)
            codes.append("flipped")

    def _extra(self) -> None:
        """A model that was never there comes, answers and goes."""
        self._extras += 1
        name = self._served.extra = f"extra_{self._extras}"
        self._reload("model added", self._served.text(), {"OK"})
        call = rest_call("predict, new model", f"{name}:predict", {"inputs": {"a": 1.0, "b": 2.0}})
        call.answers = [(200, "application/json", b'{\n    "outputs": 3.0\n}')]
        ask(self.report, self._wires, call)
        self._served.extra = ""
        self._reload("model removed", self._served.text(), {"OK"})

    def _refused(self) -> None:
        """Configurations that cannot be: nothing changes."""
        text = self._served.text()
        wrong = self.rng.choice(
            (
                text.replace("value: 2", "value: 9"),
                text.replace('model_platform: "tensorflow"', "", 1),
                text.replace('base_path: "/', 'base_path: "', 1),
                text.replace('name: "fixed"', 'name: "mixed"'),
                text.replace('model_platform: "tensorflow"', 'model_platform: "pytorch"', 1),
                "custom_model_config { type_url: 'x' }",
                "",
            )
        )
        self._reload("refused", wrong, {"INVALID_ARGUMENT", "FAILED_PRECONDITION"})

    def _ghost(self) -> None:
        """A model that never comes holds up its own reload, and no other."""
        ghost = 'config { name: "ghost" base_path: "/nowhere/ghost" model_platform: "tensorflow" }'
        text = self._served.text().replace("model_config_list {", f"model_config_list {{ {ghost}")
        self._reload("ghost", text, {"DEADLINE_EXCEEDED"}, 0.3)
        self._reload("ghost gone", self._served.text(), {"OK"})

    def close(self) -> None:
        self._wires.close()

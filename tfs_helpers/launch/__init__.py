"""One description of a server, every way to run it; ready when AVAILABLE, gone when done.

model_server.py    ModelServer: the description, and what can be done with it
description.py     what a server is to be: models, ports, options
command.py         ... as the line to type, and as the list to start it with
folders.py         are the models where a server will look for them?
backends.py        docker, binary or embedded: which one, and why
ports.py           is the port free, and whose is it?
process.py         a native server, and guard.py, which outlives neither it nor us for long
docker_backend.py  a server in a container
starting.py        from a description to a server that runs
ready.py           waiting until every model is AVAILABLE, or there is no hope
running.py         RunningServer: clients, log, end
"""

from tfs_helpers.config import All, Latest, Model, Specific
from tfs_helpers.launch.model_server import ModelServer
from tfs_helpers.launch.running import RunningServer

__all__ = ["All", "Latest", "Model", "ModelServer", "RunningServer", "Specific"]

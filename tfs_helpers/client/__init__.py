"""Clients of a TensorFlow Serving server: one shape of API, two wires. Neither needs TensorFlow.

from tfs_helpers.client import GrpcClient, RestClient

with GrpcClient("127.0.0.1:8500") as grpc:
    outputs = grpc.predict("half_plus_two", {"x": [1.0, 2.0, 5.0]})
"""

from tfs_helpers.client.answers import VersionStatus
from tfs_helpers.client.grpc import GrpcClient
from tfs_helpers.client.rest import RestClient
from tfs_helpers.signatures import ModelMetadata

__all__ = ["GrpcClient", "ModelMetadata", "RestClient", "VersionStatus"]

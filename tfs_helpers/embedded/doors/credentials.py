"""TLS for the gRPC door, from the SSLConfig that --ssl_config_file names."""

import os
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tfs_helpers import protos
from tfs_helpers.embedded.options import Options
from tfs_helpers.embedded.status import Code, ServingError
from tfs_helpers.embedded.text_proto import read_text_proto

__all__ = ["read_ssl_config", "server_credentials"]


def read_ssl_config(options: Options) -> Any:
    """The SSLConfig that the flags name, checked; None where they ask for no TLS.

    gRPC says of keys and certificates that do not work only that it could not listen, and nothing of those that belong
    to different pairs. So OpenSSL looks at them first.

    Raises:
        ServingError: there is no such file, or no server can start with what it says.
    """
    path = options.text("ssl_config_file")
    if not path:
        return None
    config = read_text_proto(path, protos.SSLConfig(), secret=True)
    for name in ("server_key", "server_cert"):
        if not getattr(config, name):
            raise _unusable(path, f"{name} is empty; it holds the PEM text itself, not the name of a file")
    if config.client_verify and not config.custom_ca:
        raise _unusable(path, "client_verify needs custom_ca, the certificates that clients are verified by")
    for name in ("server_cert", "custom_ca"):
        if getattr(config, name) and not _is_certificate(getattr(config, name)):
            raise _unusable(
                path, f"{name} is no PEM certificate; it holds the text from -----BEGIN CERTIFICATE----- on"
            )
    if "PRIVATE KEY-----" not in config.server_key:
        raise _unusable(path, "server_key is no PEM private key; it begins with -----BEGIN PRIVATE KEY-----")
    _check_pair(path, config.server_key, config.server_cert)
    return config


def server_credentials(config: Any) -> Any:
    """An SSLConfig as credentials of gRPC."""
    import grpc

    return grpc.ssl_server_credentials(
        [(config.server_key.encode(), config.server_cert.encode())],
        root_certificates=config.custom_ca.encode() or None,
        require_client_auth=config.client_verify,
    )


def _unusable(path: str, words: str) -> ServingError:
    return ServingError(Code.INVALID_ARGUMENT, f"No TLS with the SSLConfig of {path}: {words}")


def _is_certificate(text: str) -> bool:
    try:
        _context().load_verify_locations(cadata=text)
    except (ssl.SSLError, ValueError):
        return False
    return True


def _check_pair(path: str, key: str, certificate: str) -> None:
    try:
        with _as_file(certificate) as certificate_path, _as_file(key) as key_path:
            _context().load_cert_chain(certificate_path, key_path, password=_no_password)
    except _Encrypted:
        words = "server_key is encrypted, and a server has nobody to ask for its password"
        raise _unusable(path, words) from None
    except OSError:  # an SSLError is one too, and OpenSSL does not always say which of the two it is
        raise _unusable(path, "server_key is damaged, or belongs to another certificate than server_cert") from None


def _context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    # Which keys are too short is for the clients to say, as with the real server.
    context.set_ciphers("ALL:@SECLEVEL=0")
    return context


class _Encrypted(Exception):
    """The key has a password."""


def _no_password() -> str:
    raise _Encrypted


@contextmanager
def _as_file(text: str) -> Iterator[str]:
    """A path that reads as this text once. It is a pipe: a key never lies on a disk."""
    reading, writing = os.pipe()
    try:
        os.set_blocking(writing, False)
        try:
            content = text.encode()
            if os.write(writing, content) < len(content):
                raise BlockingIOError
        finally:
            os.close(writing)
        yield f"/dev/fd/{reading}"
    finally:
        os.close(reading)

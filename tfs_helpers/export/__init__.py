"""Models for the tutorial, and publishing versions so that a server never sees half of one.

    from tfs_helpers.export import export_eye_encoder, publish

    export_eye_encoder("models/eye1_encoder", version=1)      # builds, saves and publishes
    publish("my_saved_model", "models/mine")                  # the next free number
    publish(keras_model.export, "models/mine")                # any callable that writes a SavedModel

`models` builds and saves, and imports TensorFlow when one of its functions is
called; `publishing` never does.
"""

from tfs_helpers.export.models import (
    export_eye_encoder,
    export_half_plus_two,
    eye_encoder,
    half_plus_two,
    save,
)
from tfs_helpers.export.publishing import publish, retire, version_folder, versions

__all__ = [
    "export_eye_encoder",
    "export_half_plus_two",
    "eye_encoder",
    "half_plus_two",
    "publish",
    "retire",
    "save",
    "version_folder",
    "versions",
]

"""Trackers write local files; a run may lie in a bucket."""

import tempfile
from pathlib import Path

from mtl_ray import storage


class TrackerFolder:
    """A local folder whose files lie at ``uri`` in the end."""

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._temporary = tempfile.TemporaryDirectory() if storage.is_remote(uri) else None
        self.path = Path(self._temporary.name if self._temporary else storage.absolute(uri))
        self.path.mkdir(parents=True, exist_ok=True)

    @property
    def stays(self) -> bool:
        """True if the files lie where they were written, False if they are brought to a bucket."""
        return self._temporary is None

    def close(self) -> None:
        """Brings the files to a bucket."""
        if self._temporary is None:
            return
        for file in self.path.rglob("*"):
            if file.is_file() and not file.is_symlink():
                storage.upload(file, storage.join(self._uri, file.relative_to(self.path).as_posix()))
        self._temporary.cleanup()

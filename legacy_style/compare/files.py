"""Where the files of a manifest are: in folders, or fetched by URL; each is checked before it is used."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from legacy_style.compare.manifest import Manifest
from legacy_style.errors import ChecksumError, LegacyStyleError, OptionError
from legacy_style.files import sha256

Fetch = Callable[[str, Path, str], None]
"""(URL, path to write, SHA-256 or ''): writes the whole file or raises."""


@dataclass
class Files:
    """Finds the files of `manifest`: in `folders`, beside the manifest, in `cache`, at last by `fetch`.

    `fetch` None: nothing is fetched.
    """

    manifest: Manifest
    folders: Sequence[Path]
    cache: Path
    fetch: Fetch | None = None
    _checked: dict[str, Path] = field(default_factory=dict)

    def find(self, name: str) -> Path:
        """The path of a file that the manifest names.

        Raises OptionError where it is nowhere to be had, ChecksumError where it is another file than the
        manifest says.
        """
        if name not in self._checked:
            self._checked[name] = self._find(name)
        return self._checked[name]

    def _find(self, name: str) -> Path:
        known = self.manifest.files.get(name)
        digest = known.sha256 if known else ""
        cached = self._cached(name)
        for path in (*(folder / name for folder in (*self.folders, self.manifest.path.parent)), cached):
            if path.is_file():
                return _check(path, digest)
        places = ", ".join(str(folder) for folder in self.folders) or "--from FOLDER"
        if not known or not known.url:
            raise OptionError(f"{name}: not found (looked in {places}), and no URL is known for it")
        if self.fetch is None:
            raise OptionError(f"{name}: not found (looked in {places}), and nothing may be fetched")
        cached.parent.mkdir(parents=True, exist_ok=True)
        try:
            self.fetch(known.url, cached, digest)
        except LegacyStyleError as error:
            raise type(error)(f"{name}: {error}") from None
        return _check(cached, digest)

    def _cached(self, name: str) -> Path:
        """A name of our own in the cache: a manifest's could lead out of it."""
        return self.cache / (hashlib.sha256(name.encode()).hexdigest()[:16] + Path(name).suffix)


def _check(path: Path, digest: str) -> Path:
    if digest and sha256(path) != digest:
        raise ChecksumError(f"{path}: another file than the manifest means (its SHA-256 is not {digest})")
    return path

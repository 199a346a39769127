"""The errors of this package, all sentences that say what was wrong, where, and what to do next.

LegacyStyleError
├── OptionError          an option's value cannot be used; nothing has run yet
├── FormatError          a file is broken: says which, where, and what was expected there
│   └── IncompleteError  it ends too early
├── UnsupportedError     a file or a layer is valid but not handled
├── WeightMismatchError  a network's weights do not fit its layers
├── ChecksumError        a file is not the one that it should be
├── DownloadError        no address gave a file
├── DivergenceError      the optimisation left the finite numbers
└── RankError            another process of a run of several died or does not answer

Where several processes end for one reason, each of them says it, with its number.
"""

from __future__ import annotations

_LONGEST = 2000  # a message, of which the end says what to do
_END = 500


def shortened(message: str) -> str:
    """`message` without its middle where it is very long: it may quote a file, and a file may be anything."""
    return message if len(message) <= _LONGEST else f"{message[: _LONGEST - _END]} ... {message[-_END:]}"


class LegacyStyleError(Exception):
    """Base of every error that a user can cause; the command line prints it and exits with status 1."""

    def __init__(self, message: str) -> None:
        super().__init__(shortened(message))


class OptionError(LegacyStyleError):
    """An option's value cannot be used."""


class FormatError(LegacyStyleError):
    """A file is broken; `str(error)` reads `path: what (where)`."""


class IncompleteError(FormatError):
    """A file ends too early; `what` says how that was noticed."""

    def __init__(self, path: str, what: str) -> None:
        super().__init__(
            f"{path}: is incomplete ({what}): a download or a copy broke off, so download or copy it again"
        )


class UnsupportedError(LegacyStyleError):
    """Valid input that this program does not handle."""


class WeightMismatchError(LegacyStyleError):
    """Weights are missing or have another shape than their layer."""


class ChecksumError(LegacyStyleError):
    """A file's checksum is not the published one."""


class DownloadError(LegacyStyleError):
    """No address gave the file, or there is no room for it."""


class DivergenceError(LegacyStyleError):
    """A loss is not finite any more."""


class RankError(LegacyStyleError):
    """Another process of this run died or does not answer."""

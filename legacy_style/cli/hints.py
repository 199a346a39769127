"""What a wrong command line was probably meant to be: one sentence behind the program's own message.

Most wrong words were typed for another program (`--image_size`, `-image_size=512`, `-gpu c`), or were changed on their
way from a web page or from a Windows editor: long dashes, curly quotes, carriage returns.
"""

from __future__ import annotations

import difflib
import errno
import os
import re
from collections.abc import Collection, Sequence
from itertools import pairwise

# Figure dash, en dash, em dash, horizontal bar, minus sign, and the hyphens that are no ASCII.
_DASHES = "\u2010\u2011\u2012\u2013\u2014\u2015\u2212\ufe58\ufe63\uff0d"
_QUOTES = "\u2018\u2019\u201a\u201b\u201c\u201d\u201e\u201f\u00ab\u00bb"
_LONG_DASH = re.compile(f"[-{_DASHES}]*[{_DASHES}][-{_DASHES}]*")

_MISSING = (os.strerror(errno.ENOENT), "o such file", "oes not exist")

_QUOTES_HINT = "the command has curly quotes, which are letters to the shell: type straight ones"
_WINDOWS_HINT = (
    "it ends in a carriage return, so the script has Windows line ends: convert it with dos2unix, or with"
    " sed -i 's/\\r$//'"
)
_INVALID = "invalid argument: "
_NO_NUMBER = re.compile(r"invalid type for option (\S+) \(should be number\)")


def after_usage_error(message: str, words: Sequence[str], keys: Collection[str]) -> str | None:
    """What to write instead, for a message of torch7.cmdline on `words`; `keys` are the program's options."""
    if message.startswith(_INVALID):
        return of_word(message.removeprefix(_INVALID), keys)
    if found := _NO_NUMBER.fullmatch(message):
        values = [value for key, value in pairwise(words) if _bare(key) == _bare(found[1])]
        return of_number(found[1], values[-1]) if values else None
    return None


def of_word(word: str, keys: Collection[str]) -> str | None:
    """What to write instead of a word that is no option; None where nobody knows."""
    typed = typography(word)
    clean = _LONG_DASH.sub("-", word.rstrip("\r").strip(_QUOTES), count=1)
    name, equals, value = clean.partition("=")
    option = _option(name, keys) if name.startswith("-") else None
    if typed is not None:
        return f"{typed}; the option is {option}" if option else typed
    if option is None:
        return None
    if equals:
        return f"write {option} {value}, with a blank in place of the ="
    return f"the option is {option}"


def of_number(key: str, value: str) -> str:
    """What to write instead of a value that is no number."""
    if key == "-gpu" and value.lower() in ("c", "cpu"):
        return gpu(value)
    typed = typography(value)
    if typed is not None:
        return typed
    if re.fullmatch(r"[+-]?\d+,\d+", value):
        return f"{key} {value} is no number: write {value.replace(',', '.')}, with a point"
    return f"{key} {value} is no number"


def gpu(value: str) -> str:
    """What to write instead of -gpu c."""
    return f"-gpu {value} is neural-style-pt's word for the CPU: write -gpu -1"


def typography(word: str) -> str | None:
    """What a text program did to a word, and what to do about it; None where nothing is to be seen."""
    if _LONG_DASH.match(word):
        return f"{word.rstrip(chr(13))} begins with a long dash, as text programs make them: type a plain - (hyphen)"
    if any(mark in word for mark in _QUOTES):
        return _QUOTES_HINT
    return _WINDOWS_HINT if word.endswith("\r") else None


def of_words(words: Sequence[str]) -> str | None:
    """The first of `words` that a text program changed, as `typography` tells it."""
    return next((hint for hint in map(typography, words) if hint), None)


def of_message(message: str) -> str | None:
    """What to do about a file that is missing because its name was changed on its way here."""
    if not any(words in message for words in _MISSING):
        return None
    if any(mark in message for mark in _QUOTES):
        return _QUOTES_HINT
    return _WINDOWS_HINT if "\r" in message else None


def _option(word: str, keys: Collection[str]) -> str | None:
    """The option that `word` is but for dashes and capitals, or nearly is."""
    bare = {_bare(key): key for key in keys}
    near = [_bare(word)] if _bare(word) in bare else difflib.get_close_matches(_bare(word), bare, 1, 0.8)
    return bare[near[0]] if near else None


def _bare(key: str) -> str:
    return key.lstrip("-").replace("-", "_").lower()

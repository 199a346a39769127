"""Option parsing and usage text. Ports torch7 814ea4a, CmdLine.lua, with the tonumber of LuaJIT 2.1.

Notes, all kept: an option that takes a value takes the next word whatever it is (`-style_image -seed`);
an option given twice counts once, the last one; a boolean option takes no value and turns its default round;
help wins over whatever follows it, an error over help that follows it; the type of an option is the type of
its default, and numbers are doubles that are never forced to be whole or in a range.

Nothing here prints or exits: `legacy_style.cli` does.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from legacy_style.errors import OptionError

Value = str | float | bool

HELP = ("-help", "-h", "--help")

# LuaJIT 2.1, lj_strscan.c: blanks are those of C's isspace, digits are ASCII, and only one sign may stand.
_BLANKS = " \t\n\v\f\r"
_DECIMAL = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:e[+-]?[0-9]+)?", re.IGNORECASE)
_HEXADECIMAL = re.compile(r"[+-]?0x(?:[0-9a-f]+\.?[0-9a-f]*|\.[0-9a-f]+)(?:p[+-]?[0-9]+)?", re.IGNORECASE)
_BINARY = re.compile(r"([+-]?)0b(0*)([01]*)", re.IGNORECASE)
_NOT_FINITE = re.compile(r"[+-]?(?:inf|infinity|nan)", re.IGNORECASE)
_BINARY_DIGITS = 64


class UsageError(OptionError):
    """The words of the command line do not parse; `str(error)` is the original's message to the letter."""


@dataclass(frozen=True)
class Option:
    """One option: the word that stands for it, dashes included; its default, hence its type; its help.

    `empty_help`: the original gave it a help text without a letter, which prints one blank more than none. `implied`:
    its value where the next word is no number; no option of an original has one.
    """

    key: str
    default: Value
    help: str = ""
    empty_help: bool = False
    implied: float | None = None


def tonumber(text: str) -> float | None:
    """The double that LuaJIT's `tonumber(text)` gives, None where it gives nil.

    Decimal, hexadecimal (`0x40`, `0x1p4`), binary (`0b11`, 64 digits at most), `inf`, `infinity` and `nan` in
    any case, with one sign and with blanks around. What is too large for a double is infinite.
    """
    word = text.strip(_BLANKS)
    if _DECIMAL.fullmatch(word) or _NOT_FINITE.fullmatch(word):
        return float(word)
    if _HEXADECIMAL.fullmatch(word):
        try:
            return float.fromhex(word)
        except OverflowError:
            return -math.inf if word.startswith("-") else math.inf
    if (binary := _BINARY.fullmatch(word)) and len(binary[3]) <= _BINARY_DIGITS:
        digits = binary[2] + binary[3]
        return float(int(binary[1] + digits, 2)) if digits else None
    return None


def integer(number: float) -> int:
    """A double as Lua's %d prints it: truncated, and C's smallest integer for what does not fit."""
    return int(number) if abs(number) < 2**63 else -(2**63)


def whole(option: str, number: float, least: int) -> int:
    """`number` as an integer; raises OptionError, with the `option`, where it is none, or less than `least`."""
    if not math.isfinite(number) or number != int(number) or number < least:
        raise OptionError(f"{option} takes a whole number of {least} or more, not {number:.14g}.")
    return int(number)


def split_list(text: str) -> list[str]:
    """xlua's string.split(','): one empty element at either end is dropped, others stay; nothing is trimmed."""
    parts = text.split(",")
    if parts[-1] == "":
        parts.pop()
    return parts[1:] if parts[:1] == [""] else parts


def parse(options: Sequence[Option], words: Sequence[str]) -> dict[str, Value] | None:
    """The options that `words` give, by key: str, float or bool as their defaults are.

    Returns None where a word asks for help (`-help`, `-h`, `--help`) before anything is wrong. Options that
    are not given are not in the answer. Raises UsageError.
    """
    known = {option.key: option for option in options}
    given: dict[str, Value] = {}
    position = 0
    while position < len(words):
        word = words[position]
        if word in HELP:
            return None
        if word not in known:
            raise UsageError(f"invalid argument: {word}")
        default = known[word].default
        if isinstance(default, bool):
            given[word] = not default
            position += 1
            continue
        implied = known[word].implied
        if implied is not None and (position + 1 == len(words) or tonumber(words[position + 1]) is None):
            given[word] = implied
            position += 1
            continue
        if position + 1 == len(words):
            raise UsageError(f"missing argument for option {word}")
        given[word] = _value(word, default, words[position + 1])
        position += 2
    return given


def parse_all(
    original: Sequence[Option], extensions: Sequence[Option], words: Sequence[str]
) -> tuple[dict[str, Value], str] | None:
    """Every option of a program by its name without dashes, defaults included, and what it is to do.

    That is `run`, or the first of our boolean options that is given (`version` for `--version`). None where help is
    asked for. Raises UsageError.
    """
    given = parse([*original, *extensions], words)
    if given is None:
        return None
    actions = [option.key for option in extensions if isinstance(option.default, bool)]
    action = next((key.lstrip("-") for key in actions if given.get(key)), "run")
    options = {option.key: option.default for option in (*original, *extensions)} | given
    return {key.lstrip("-").replace("-", "_"): value for key, value in options.items()}, action


def _value(key: str, default: Value, word: str) -> Value:
    if isinstance(default, str):
        return word
    number = tonumber(word)
    if number is None:
        raise UsageError(f"invalid type for option {key} (should be number)")
    return number


def usage(options: Sequence[Option], program: str = "") -> str:
    """The usage text: `Usage: PROGRAM [options]` as for help, or `Usage: [options]` as for an error."""
    first = f"Usage: {program} [options]" if program else "Usage: [options]"
    return "\n".join([first, *describe(options)]) + "\n"


def describe(options: Sequence[Option]) -> list[str]:
    """A line for each option: its key, padded to the longest of them, its help if it has one, `[default]`."""
    width = max(len(option.key) for option in options)
    lines = []
    for option in options:
        help_text = f" {option.help}" if option.help or option.empty_help else ""
        lines.append(f"  {option.key:<{width}}{help_text} [{tostring(option.default)}]")
    return lines


def tostring(value: Value) -> str:
    """A default as Lua prints it: `%.14g` for numbers, `true` and `false`."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, str) else f"{value:.14g}"

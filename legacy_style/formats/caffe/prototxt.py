"""Text network files, .prototxt: deploy and train_val files of any version.

Follows https://protobuf.dev/reference/protobuf/textformat-spec in full; as in Google's C++ parser, which
Caffe calls, a field that is not repeated may occur once. Two things differ: a field that caffe.proto does not
have is kept in `Message.unknown`, whatever it holds, and bytes that are not UTF-8 are kept as surrogates.
"""

from __future__ import annotations

import re
from typing import Any, NoReturn

from legacy_style.errors import FormatError
from legacy_style.formats.caffe import schema
from legacy_style.formats.caffe.netparam import Message, float32
from legacy_style.formats.caffe.schema_params import Field
from legacy_style.formats.caffe.wire import MAX_DEPTH, MAX_FIELDS, MAX_MESSAGES

_BLANK = re.compile(r"[ \n\r\t\v\f]*")
_COMMENT = re.compile(r"#[^\n]*[ \n\r\t\v\f]*")
# A number may not touch a name or another point, so those are taken in here and refused later.
_TOKEN = re.compile(
    r"""(?P<name>[A-Za-z_][A-Za-z0-9_]*)
    |(?P<number>(?:[0-9]|\.[0-9])[A-Za-z0-9_.]*(?:(?<=[eE])[+-][A-Za-z0-9_.]*)?)
    |(?P<string>"[^"\\\n]*(?:\\[^\n][^"\\\n]*)*"|'[^'\\\n]*(?:\\[^\n][^'\\\n]*)*')
    |(?P<symbol>[{}<>\[\]:;,./-])""",
    re.VERBOSE,
)
_INTEGER = re.compile(r"0[xX][0-9a-fA-F]+|0[0-7]*|[1-9][0-9]*")
# Numbers that begin like octal ones are refused, as Google's parsers do.
_FLOAT = re.compile(r"(?!0[0-9])(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?[fF]?")
_ESCAPE = re.compile(
    r"""\\(?:(?P<octal>[0-7]{1,3})|[xX](?P<hex>[0-9a-fA-F]{1,2})
    |u(?P<u>[0-9a-fA-F]{4})|U(?P<U>[0-9a-fA-F]{8})|(?P<plain>.))""",
    re.VERBOSE,
)
_PLAIN = dict(zip("abfnrtv?\\'\"", "\a\b\f\n\r\t\v?\\'\"", strict=True))
_RANGES = {
    "int32": (-(1 << 31), (1 << 31) - 1),
    "int64": (-(1 << 63), (1 << 63) - 1),
    "uint32": (0, (1 << 32) - 1),
}
_BOOLS = {"true": True, "True": True, "t": True, "false": False, "False": False, "f": False}
_CLOSING = {"{": "}", "<": ">"}


def parse(text: str, *, path: str = "", kind: str = "NetParameter") -> Message:
    """The message of that kind written in `text`, as it stands; `path` is for error messages.

    Raises FormatError.
    """
    parser = _Parser(text, path)
    message = Message(kind)
    while parser.token:
        parser.field(message, 0)
    return message


class _Parser:
    """A position in a text: the token there, and how many messages and fields came before."""

    __slots__ = ("_end", "_text", "fields", "group", "messages", "path", "start", "token")

    def __init__(self, text: str, path: str) -> None:
        self._text = text
        self._end = 0
        self.path = path
        self.messages = 0
        self.fields = 0
        self.advance()

    def advance(self) -> None:
        """Go to the next token; at the end of the text it is empty, of the group "end"."""
        blank = _BLANK.match(self._text, self._end)
        while blank is not None:
            self.start = self._end = blank.end()
            blank = _COMMENT.match(self._text, self._end)
        match = _TOKEN.match(self._text, self.start)
        if match is not None:
            self.token, self.group, self._end = match.group(), match.lastgroup, match.end()
        elif self.start == len(self._text):
            self.token, self.group = "", "end"
        elif self._text[self.start] in "\"'":
            self.fail("a string does not end on its line")
        else:
            self.fail(f"unexpected character {self._text[self.start]!r}")

    def fail(self, what: str, start: int | None = None) -> NoReturn:
        """Raise a FormatError that names file, line and column, of the token unless `start` is given."""
        at = self.start if start is None else start
        line = self._text.count("\n", 0, at) + 1
        column = at - (self._text.rfind("\n", 0, at) + 1) + 1
        raise FormatError(f"{self.path}: {what} (line {line}, column {column})")

    def found(self) -> str:
        """The token as an error message quotes it."""
        if not self.token:
            return "the end of the file"
        return self.token if len(self.token) <= 40 else self.token[:37] + "..."

    def skip(self, symbol: str) -> bool:
        """Step over the symbol if it is the token."""
        if self.token != symbol:
            return False
        self.advance()
        return True

    def expect(self, symbol: str, where: str) -> None:
        """Step over the symbol, which must be the token."""
        if not self.skip(symbol):
            self.fail(f"expected {symbol!r} {where}, found {self.found()}")

    def field(self, message: Message, depth: int) -> None:
        """Read one field, its value or values and the separator, into the message."""
        self.fields += 1
        if self.fields > MAX_FIELDS:
            self.fail(f"more than {MAX_FIELDS} fields, no network has so many")
        start, name = self.start, self.field_name()
        number_and_spec = schema.BY_NAME.get(message.kind, {}).get(name)
        if number_and_spec is None:
            message.unknown.setdefault(name, []).extend(self.values(name, None, depth))
        else:
            spec = number_and_spec[1]
            if not spec.repeated and name in message.values:
                self.fail(f"{name} occurs a second time in one {message.kind}", start)
            values = self.values(name, spec, depth)
            if not spec.repeated:
                message.values[name] = values[0]
            elif values:
                message.values.setdefault(name, []).extend(values)
        if not self.skip(","):
            self.skip(";")

    def field_name(self) -> str:
        """A name, or that of an extension in brackets."""
        if self.token == "[":
            begin = self.start
            self.advance()
            while self.group in ("name", "number") or self.token in (".", "/", "-"):
                self.advance()
            end = self.start + 1
            self.expect("]", "after an extension's name")
            return self._text[begin:end]
        if self.group != "name":
            self.fail(f"expected a field's name, found {self.found()}")
        name = self.token
        self.advance()
        return name

    def values(self, name: str, spec: Field | None, depth: int) -> list[Any]:
        """What follows a field's name: one value, or a list of them in brackets."""
        colon = self.skip(":")
        if self.token == "[" and (spec is None or spec.repeated):
            if not colon and spec is not None and spec.kind not in schema.MESSAGES:
                self.fail(f"expected ':' after {name}, found [")
            self.advance()
            values: list[Any] = []
            while not self.skip("]"):
                if values:
                    self.expect(",", "or ']' in a list")
                values.append(self.value(name, spec, depth))
            return values
        if not colon and self.token not in _CLOSING:
            self.fail(f"expected ':' after {name}, found {self.found()}")
        return [self.value(name, spec, depth)]

    def value(self, name: str, spec: Field | None, depth: int) -> Any:
        """One value of the field's kind; of any kind where the field is unknown."""
        if spec is None:
            return self.nested("", depth) if self.token in _CLOSING else self.any_scalar(name)
        if spec.kind in schema.MESSAGES:
            if self.token not in _CLOSING:
                self.fail(f"expected '{{' after {name}, found {self.found()}")
            return self.nested(spec.kind, depth)
        if spec.kind == "string":
            return self.string(name)
        if spec.kind in ("float", "double"):
            number = self.real(name)
            return float32(number) if spec.kind == "float" else number
        if spec.kind in schema.ENUMS:
            return self.enum(name, schema.ENUMS[spec.kind])
        if spec.kind == "bool":
            return self.boolean(name)
        return self.integer(name, *_RANGES[spec.kind])

    def nested(self, kind: str, depth: int) -> Message:
        """A message in braces or angle brackets."""
        self.messages += 1
        if depth >= MAX_DEPTH:
            self.fail(f"messages are nested more than {MAX_DEPTH} deep")
        if self.messages > MAX_MESSAGES:
            self.fail(f"more than {MAX_MESSAGES} messages, no network has so many")
        start, closing = self.start, _CLOSING[self.token]
        self.advance()
        message = Message(kind)
        while not self.skip(closing):
            if not self.token:
                self.fail(f"the file ends before the {closing!r} of what begins here", start)
            self.field(message, depth + 1)
        return message

    def integer(self, name: str, low: int, high: int) -> int:
        """A decimal, octal or hexadecimal number from `low` to `high`."""
        start, sign = self.start, -1 if self.skip("-") else 1
        if self.group != "number" or not _INTEGER.fullmatch(self.token):
            self.fail(f"expected an integer for {name}, found {self.found()}")
        digits = self.token
        # Beyond 100 digits nothing is in range, and int() takes time in proportion to their square.
        octal = digits[0] == "0" and digits[1:2] not in ("x", "X")
        number = sign * int(digits, 8 if octal else 0) if len(digits) <= 100 else high + 1
        if not low <= number <= high:
            shown = f"-{self.found()}" if sign < 0 else self.found()
            self.fail(f"{name} is {shown}, expected {low} to {high}", start)
        self.advance()
        return number

    def real(self, name: str) -> float:
        """A decimal number with or without point and exponent, inf, infinity or nan."""
        sign = -1.0 if self.skip("-") else 1.0
        if self.group == "number" and _FLOAT.fullmatch(self.token):
            number = float(self.token.rstrip("fF"))
        elif self.token.lower() in ("inf", "infinity", "nan"):
            number = float(self.token)
        else:
            self.fail(f"expected a number for {name}, found {self.found()}")
        self.advance()
        return sign * number

    def boolean(self, name: str) -> bool:
        """true, True, t, 1 and their opposites."""
        if self.group == "number":
            return bool(self.integer(name, 0, 1))
        if self.token not in _BOOLS:
            self.fail(f"expected true or false for {name}, found {self.found()}")
        value = _BOOLS[self.token]
        self.advance()
        return value

    def enum(self, name: str, names: dict[int, str]) -> str:
        """An enum's value by name or number."""
        expected = ", ".join(names.values())
        if self.group == "number" or self.token == "-":
            start = self.start
            number = self.integer(name, *_RANGES["int32"])
            if number not in names:
                self.fail(f"{name} is {number}, expected the number of one of {expected}", start)
            return names[number]
        if self.token not in names.values():
            self.fail(f"{name} is {self.found()}, expected one of {expected}")
        value = self.token
        self.advance()
        return value

    def string(self, name: str) -> str:
        """One quoted string, or several in a row that make one."""
        if self.group != "string":
            self.fail(f"expected a string in quotes for {name}, found {self.found()}")
        parts = []
        while self.group == "string":
            parts.append(self.unescaped())
            self.advance()
        return b"".join(parts).decode("utf-8", "surrogateescape")

    def unescaped(self) -> bytes:
        """The bytes that the token, a quoted string, stands for."""
        body = self.token[1:-1]
        parts, end = [], 0
        for match in _ESCAPE.finditer(body):
            parts.append(body[end : match.start()].encode("utf-8", "surrogateescape"))
            parts.append(self.escape(match))
            end = match.end()
        parts.append(body[end:].encode("utf-8", "surrogateescape"))
        return b"".join(parts)

    def escape(self, match: re.Match[str]) -> bytes:
        """The bytes of one escape in the token."""
        kind, digits = match.lastgroup, match.group(match.lastgroup or 0)
        if kind == "plain" and digits in _PLAIN:
            return _PLAIN[digits].encode()
        value = -1 if kind == "plain" else int(digits, 8 if kind == "octal" else 16)
        if kind in ("octal", "hex") and value <= 0xFF:
            return bytes([value])
        if kind not in ("u", "U") or value > 0x10FFFF or 0xD800 <= value <= 0xDFFF:
            self.fail(f"{match.group()} is no escape sequence", self.start + 1 + match.start())
        return chr(value).encode()

    def any_scalar(self, name: str) -> Any:
        """The value of an unknown field: int, float, or str, for names and strings alike."""
        if self.group == "string":
            return self.string(name)
        if self.group == "name":
            value = self.token
            self.advance()
            return value
        if self.token == "-" or not _INTEGER.fullmatch(self.token):
            return self.real(name)
        return self.integer(name, 0, (1 << 64) - 1)

"""legacy_style.formats.zipcheck: an archive whose directory and members disagree is refused by whoever reads it."""

import io
import re
import zipfile

import pytest
import torch
import vgg_files

from legacy_style.errors import FormatError
from legacy_style.formats import model_files, zipcheck


def pth():
    buffer = io.BytesIO()
    torch.save(vgg_files.state_dict(vgg_files.weights(vgg_files.VGG16)), buffer)
    return bytearray(buffer.getvalue())


def storages(payload):
    """The members that hold tensors, in the order of the file."""
    with zipfile.ZipFile(io.BytesIO(payload)) as archive:
        found = [info for info in archive.infolist() if "/data/" in info.filename]
    assert len(found) > 10
    return found


def without_header(payload, info):
    payload[info.header_offset : info.header_offset + 4] = b"oops"
    return f"no header of '{info.filename}' at byte {info.header_offset}, where it should be"


def with_a_longer_name(payload, info):
    """The local header's extra field reaches so far that the data would end behind the file."""
    payload[info.header_offset + 28 : info.header_offset + 30] = b"\xff\xff"
    return f"'{info.filename}' takes the bytes from"


@pytest.mark.parametrize(("damage", "which"), [(without_header, 3), (with_a_longer_name, -1)])
def test_a_tensor_that_is_not_where_the_directory_says_is_named(damage, which, tmp_path):
    """PyTorch would read its bytes from wherever that is."""
    payload = pth()
    message = damage(payload, storages(payload)[which])
    path = tmp_path / "model.bin"
    path.write_bytes(payload)
    with pytest.raises(FormatError, match=re.escape(message)) as caught:
        model_files.load(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_the_offset_is_where_the_data_begin(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("first", b"abc")
        archive.writestr(zipfile.ZipInfo("a longer name"), b"second content")
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            offset = zipcheck.data_offset(str(path), info)
            assert path.read_bytes()[offset : offset + info.file_size] == archive.read(info)

"""The state of a sheet of images: which are finished, and the noise that all begin from, in a checkpoint of the engine.

Note: an image that a run was killed in is begun anew, so that a continuation is the run itself bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from legacy_style.engine import checkpoint
from legacy_style.engine.checkpoint import Plain
from legacy_style.errors import FormatError
from legacy_style.files import sha256


class Sheet:
    """The images that are finished, (1, 3, H, W) each, `noise`, and the side of the tiles that all are made in.

    `binding`: the options that a continuation must have the same, by name, without the tile; `inputs`: the content and
    the style as the network takes them; `draw` makes the noise where nothing is resumed.
    Raises OptionError where the checkpoint to resume from is another run's, FormatError where it is none.
    """

    def __init__(
        self,
        binding: Mapping[str, Plain],
        model: str,
        inputs: Sequence[Tensor],
        draw: Callable[[], Tensor],
        *,
        tile: int,
        keep: str | None,
        resume: str | None,
    ) -> None:
        self.binding, self.keep, self.tile = binding, keep, tile
        self.pictures: list[Tensor] = []
        # Of each image, those of all evaluations (earlier versions: of the first); and the least.
        self.losses: list[tuple[tuple[float, ...], tuple[float, ...], float]] = []
        self.inputs = (
            {"the model": sha256(model), "the images": checkpoint.digest(*inputs)} if keep or resume else {}
        )
        if not resume:
            self.noise = draw()
            return
        saved = checkpoint.read(resume)
        self.tile = tile or saved["options"].get("tile", 0)
        checkpoint.check_same(resume, saved, self._same(), {}, self.inputs, "--")
        self.noise, pictures = saved["x"], saved["optimizer"].get("pictures")
        shape = (saved["calls"], *inputs[0].shape[1:])
        fits = isinstance(pictures, Tensor) and pictures.dtype == torch.float32 and pictures.shape == shape
        if not fits or self.noise.shape != inputs[0].shape:
            raise FormatError(
                f"{resume}: its images are not those of a sheet; give the file that --checkpoint wrote"
            )
        self.pictures = list(pictures.split(1))
        self.losses = [(tuple(all_), tuple(style), lowest) for all_, style, lowest, *_ in saved["losses"]]

    def add(self, picture: Tensor, losses: Sequence[float]) -> None:
        """Take one more finished image with the losses of its evaluations; keep the state where that is asked for."""
        self.pictures.append(picture.cpu())
        self.losses.append((tuple(losses), (), min(losses)))
        if not self.keep:
            return
        content = {
            "options": self._same(),
            "inputs": self.inputs,
            "x": self.noise,
            "calls": len(self.pictures),
            "losses": self.losses,
            "optimizer": {"pictures": torch.cat(self.pictures)},
        }
        checkpoint.write(self.keep, content)

    def _same(self) -> dict[str, Plain]:
        return {**self.binding, "tile": self.tile}

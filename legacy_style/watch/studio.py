"""The studio: photographs and styles from a page, a queue of paintings, and one painting at a time.

The server's threads take uploads and orders; `Studio.work` paints, in the thread that calls it. Uploads and results lie
in one folder. What is uploaded is read by the reader of every program, and refused with its sentence.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Collection
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any, Literal

from legacy_style.errors import LegacyStyleError, OptionError
from legacy_style.files import reason, write_whole
from legacy_style.programs import examples
from legacy_style.programs.neural_style.kept import KeptNetwork
from legacy_style.programs.neural_style.options import Options
from legacy_style.programs.neural_style.story import stylize
from legacy_style.programs.notices import why
from legacy_style.torch7 import image as torch_image
from legacy_style.torch7 import image_files
from legacy_style.watch import page, runs
from legacy_style.watch.server import Answer, Refused, Request, Routes, as_json
from legacy_style.watch.watcher import Watcher, encode

_MOST_BYTES = 64 * 2**20  # of an upload
_MOST_PIXELS = 80_000_000
_MOST_FILES = 200
_MOST_WAITING = 50
_THUMBNAIL = 400  # pixels

# What comes with the program: file, and what the page calls it.
_PHOTOS = {"china.jpg": "Pagoda", "chelsea.png": "Cat", "coffee.jpg": "Coffee"}
_STYLES = {"ink_wash.jpg": "Ink wash", "impasto.jpg": "Thick paint", "mosaic.jpg": "Mosaic"}

_SIZES = {256: "Small", 400: "Medium", 640: "Large", 1024: "Very large"}
_STEPS = {40: "Sketch", 100: "Normal", 300: "Fine"}
_STYLE_WEIGHTS = {1: 10.0, 2: 30.0, 3: 100.0, 4: 400.0, 5: 2000.0}


@dataclass(frozen=True)
class Picture:
    """A photograph or a style that can be chosen."""

    id: str
    name: str
    path: Path
    thumbnail: bytes


@dataclass
class StudioJob:
    """One painting that was ordered."""

    id: int
    title: str
    options: Options
    state: Literal["waiting", "running", "done", "stopped", "failed"] = "waiting"
    message: str = ""
    files: list[str] = field(default_factory=list)


class Studio:
    """`folder` holds what is uploaded, `results` what is painted."""

    def __init__(self, watcher: Watcher, folder: Path, results: Path) -> None:
        self.watcher, self.folder, self.results = watcher, folder, results
        self._changed = threading.Condition()
        self._reading = threading.Lock()  # one upload at a time is decoded
        self._jobs: list[StudioJob] = []
        self._ordered = 0  # how many there have been, those that were taken out again included
        self._kept = KeptNetwork()
        self._pictures: dict[str, Picture] = {}
        self._photos = [self._take(examples.FOLDER / file, name) for file, name in _PHOTOS.items()]
        self._styles = [self._take(examples.FOLDER / file, name) for file, name in _STYLES.items()]
        self._tell()

    def routes(self) -> Routes:
        """What the server answers."""
        known = page.routes(
            self.watcher,
            photos=self._photos,
            styles=self._styles,
            sizes=[{"value": value, "name": f"{name}, {value} px"} for value, name in _SIZES.items()],
            steps=[{"value": value, "name": name} for value, name in _STEPS.items()],
            size=256,
            step=40,
            hint="These settings take half a minute on two processor cores; twice the size takes four times as long.",
        )
        return {
            **known,
            "GET file": lambda request: page.jpeg(self._picture(request.query.get("id", "")).thumbnail),
            "GET view": lambda request: page.jpeg(self._view(self._job(request))),
            "GET result": self._result,
            "POST upload": self._upload,
            "POST start": lambda request: self._start(request.json()),
            "POST remove": self._remove,
        }

    # ---- the thread that paints

    def work(self) -> None:
        """Paint what is ordered, one after the other, for ever."""
        while True:
            with self._changed:
                self._changed.wait_for(self._next, 1.0)
                job = self._next()
                if job is None:
                    continue
                job.state = "running"
            self._tell()
            self._paint(job)
            self._tell()

    def _next(self) -> StudioJob | None:
        return next((job for job in self._jobs if job.state == "waiting"), None)

    def _paint(self, job: StudioJob) -> None:
        options, watcher = job.options, self.watcher
        watcher.show(job=job.id)
        watcher.begin(job.title, runs.photograph(options.content_image, exif_rotate=True))
        try:
            result = stylize(
                options,
                log=lambda line: runs.say(watcher, line),
                on_progress=lambda progress: runs.follow(watcher, progress),
                kept=self._kept,
            )
            message = "" if self.results == self.folder else f"The picture is {options.output_image}"
            stopped = runs.finish(watcher, result, message)
        except (LegacyStyleError, OSError, MemoryError, RuntimeError) as error:
            said = why(error, memory_advice="choose a smaller size")
            if said is None:
                raise
            job.state, job.message = "failed", self._plain(said)
            watcher.end("failed", job.message)
            return
        job.files.append(options.output_image)
        job.state, job.message = "stopped" if stopped else "done", f"{len(result.losses)} steps"

    def _tell(self) -> None:
        with self._changed:
            jobs = [
                {
                    "id": job.id,
                    "title": job.title,
                    "state": job.state,
                    "message": job.message,
                    "files": len(job.files),
                }
                for job in self._jobs
            ]
        self.watcher.show(jobs=jobs)

    def _plain(self, message: str) -> str:
        """An error without the folders of uploads."""
        for each in list(self._pictures.values()):
            message = message.replace(str(each.path), each.name)
        return message

    # ---- the threads of the server

    def _take(self, path: Path, name: str) -> Picture:
        """Read a picture, so that it can be chosen. Raises LegacyStyleError."""
        with self._reading:
            with image_files.opened(path) as file:
                pixels = file.image.width * file.image.height
            if pixels > _MOST_PIXELS:
                raise OptionError(f"{name} has {pixels} pixels; save it with {_MOST_PIXELS} at most")
            photograph = torch_image.to_bytes(torch_image.load(path, exif_rotate=True))
            taken = Picture(str(len(self._pictures) + 1), name, path, encode(photograph, _THUMBNAIL))
            self._pictures[taken.id] = taken
            return taken

    def _picture(self, id: object) -> Picture:
        found = self._pictures.get(id) if isinstance(id, str) else None
        if found is None:
            raise Refused(HTTPStatus.NOT_FOUND, "there is no such picture; choose another")
        return found

    def _job(self, request: Request) -> StudioJob:
        found = [job for job in self._jobs if str(job.id) == request.query.get("job")]
        if not found:
            raise Refused(HTTPStatus.NOT_FOUND, "there is no such painting")
        return found[0]

    def _upload(self, request: Request) -> Answer:
        name = _title(request.query.get("name", ""))
        if request.length > _MOST_BYTES:
            raise Refused(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                f"{name} is larger than {_MOST_BYTES >> 20} MiB; save it smaller, as a JPEG",
            )
        if len(self._pictures) >= _MOST_FILES:
            raise Refused(HTTPStatus.CONFLICT, "there are too many pictures here; start the studio anew")
        data = request.body.read(request.length)
        if len(data) < request.length:
            raise Refused(HTTPStatus.BAD_REQUEST, f"{name} did not arrive whole; try again")
        with self._changed:
            path = self.folder / f"upload_{len(list(self.folder.glob('upload_*')))}"
            try:
                write_whole(path, data)
            except OSError as error:
                raise Refused(HTTPStatus.INSUFFICIENT_STORAGE, f"{name}: {reason(error)}") from None
        try:
            taken = self._take(path, name)
        except LegacyStyleError as error:
            raise Refused(HTTPStatus.BAD_REQUEST, str(error).replace(str(path), name)) from None
        return as_json({"id": taken.id, "name": taken.name})

    def _start(self, order: dict[str, Any]) -> Answer:
        """Put a painting into the queue."""
        photo, style = self._picture(order.get("photo")), self._picture(order.get("style"))
        size, steps = _offered(order, "size", _SIZES), _offered(order, "steps", _STEPS)
        strength = _offered(order, "strength", _STYLE_WEIGHTS)
        with self._changed:
            if sum(job.state == "waiting" for job in self._jobs) >= _MOST_WAITING:
                raise Refused(HTTPStatus.CONFLICT, "so many paintings are waiting that no more are taken now")
            self._ordered += 1
            number = self._ordered
            options = Options(
                content_image=str(photo.path),
                style_image=str(style.path),
                image_size=float(size),
                num_iterations=float(steps),
                style_weight=_STYLE_WEIGHTS[strength],
                original_colors=1.0 if order.get("colors") is True else 0.0,
                init="image",
                print_iter=0.0,
                save_iter=0.0,
                exif_rotate=True,
                output_image=str(self._free(f"{_stem(photo.name)}_{_stem(style.name)}")),
            )
            self._jobs.append(StudioJob(number, f"{photo.name} in the style of {style.name}", options))
            self._changed.notify_all()
        self._tell()
        return as_json({"job": number})

    def _free(self, stem: str) -> Path:
        """A name for a result that no file and no order has."""
        taken = {job.options.output_image for job in self._jobs}
        number = 1
        while True:
            path = self.results / (f"{stem}.png" if number == 1 else f"{stem}_{number}.png")
            if str(path) not in taken and not path.exists():
                return path
            number += 1

    def _remove(self, request: Request) -> Answer:
        """Take a painting that waits out of the queue."""
        with self._changed:
            job = self._job(request)
            if job.state != "waiting":
                raise Refused(HTTPStatus.CONFLICT, "it is being painted already, or is ready")
            self._jobs.remove(job)
        self._tell()
        return as_json({})

    def _view(self, job: StudioJob) -> bytes | None:
        if not job.files:
            return None
        return encode(torch_image.to_bytes(torch_image.load(job.files[-1])), _THUMBNAIL)

    def _result(self, request: Request) -> Answer:
        job = self._job(request)
        if not job.files:
            raise Refused(HTTPStatus.NOT_FOUND, "it is not painted yet")
        path = Path(job.files[-1])
        try:
            return Answer("image/png", path.read_bytes(), name=path.name)
        except OSError as error:
            raise Refused(HTTPStatus.NOT_FOUND, f"{path.name}: {error.strerror}") from None


def _offered(order: dict[str, Any], name: str, choices: Collection[int]) -> int:
    found = order.get(name)
    if not isinstance(found, int) or found not in choices:
        raise Refused(HTTPStatus.BAD_REQUEST, f"{name} must be one of those that are offered")
    return found


def _title(name: str) -> str:
    """What an upload is called on the page."""
    words = re.sub(r"[\x00-\x1f\x7f]", "", name).strip()
    return words[-80:] or "your picture"


def _stem(name: str) -> str:
    """What stands for a picture in the name of a file."""
    return re.sub(r"[^a-z0-9]+", "_", Path(name).stem.lower(), flags=re.ASCII).strip("_")[:40] or "picture"

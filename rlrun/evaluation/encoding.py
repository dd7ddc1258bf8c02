"""Frames to an MP4 that every browser plays, by the ffmpeg that imageio-ffmpeg brings; decoded again to be sure."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from rlrun.errors import MissingPackage, RlrunError, install_hint
from rlrun.evaluation.pictures import is_flat
from rlrun.runs.files import os_errors_in_words

_PATIENCE = 300  # seconds for ffmpeg to end once it has every frame
_FLAT = 6  # of 255 levels: what compression makes of one colour
_FASTEST_GIF = 50  # frames a second that browsers show
_NOT_WRITTEN = "Is the disk full, or the folder not to be written to?"


def ffmpeg() -> str:
    """The ffmpeg to use: imageio-ffmpeg's own, or the one that ``IMAGEIO_FFMPEG_EXE`` names.

    :raises RlrunError: when there is none
    """
    try:
        import imageio_ffmpeg
    except ImportError as error:
        message = f"A video needs imageio-ffmpeg, which cannot be imported ({error})."
        raise MissingPackage(message, install_hint("")) from None
    hint = "Install imageio-ffmpeg again, whose wheel brings it, or name one in IMAGEIO_FFMPEG_EXE."
    try:
        path = imageio_ffmpeg.get_ffmpeg_exe()
        if shutil.which(path) is None:
            raise RlrunError(f"A video needs ffmpeg, and {path} is none.", hint)
        return path
    except RuntimeError:
        raise RlrunError("A video needs ffmpeg, and there is none.", hint) from None


class Encoder:
    """Takes frames one by one and writes them as H.264, 4:2:0, the index first so that playing starts at once.

    :param path: of the MP4
    :param size: height and width of every frame in pixels, both even
    :param fps: frames a second
    """

    def __init__(self, path: Path, size: tuple[int, int], fps: float) -> None:
        self.path, self.size, self.fps, self.frames = path, size, fps, 0
        height, width = size
        self._process = _Ffmpeg(
            *("-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", f"{fps:g}", "-i", "-"),
            *("-an", "-c:v", "libx264", "-pix_fmt", "yuv420p", "-movflags", "+faststart", "-f", "mp4", str(path)),
        )

    def add(self, frame: np.ndarray) -> None:
        """Write one frame.

        :raises RlrunError: when it has another size than the first, or ffmpeg has given up
        """
        if frame.shape[:2] != self.size:
            was, now = (f"{width} x {height}" for height, width in (self.size, frame.shape[:2]))
            message = f"The env's frames change their size, from {was} to {now} pixels."
            raise RlrunError(message, "Let its `render` return images of one size.")
        self._process.add(frame.tobytes())
        self.frames += 1

    def finish(self) -> None:
        """Wait until the file is whole.

        :raises RlrunError: when ffmpeg fails
        """
        self._process.finish()

    def close(self) -> None:
        """End at once, if it has not ended yet; the file is worth nothing then."""
        self._process.close()


class _Ffmpeg:
    """A running ffmpeg and what it complains of."""

    def __init__(self, *arguments: str) -> None:
        self._errors: Any = tempfile.TemporaryFile()  # noqa: SIM115 - a pipe that nobody reads would fill up
        with os_errors_in_words("starting ffmpeg"):
            # In a session of its own, because Ctrl-C is ours to act on: the terminal would send it to ffmpeg too.
            self._process = subprocess.Popen(
                [ffmpeg(), "-y", "-loglevel", "error", *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=self._errors,
                start_new_session=True,
            )

    def add(self, data: bytes) -> None:
        try:
            self._process.stdin.write(data)  # type: ignore[union-attr]
        except OSError:
            raise self._failure() from None

    def finish(self) -> None:
        try:
            self._process.communicate(timeout=_PATIENCE)
        except subprocess.TimeoutExpired:
            raise RlrunError(f"ffmpeg did not end within {_PATIENCE} s.", "Film fewer steps.") from None
        if self._process.returncode:
            raise self._failure()

    def close(self) -> None:
        self._process.kill()
        with contextlib.suppress(OSError):  # what was not written yet has nowhere to go
            self._process.stdin.close()  # type: ignore[union-attr]
        self._process.wait()
        self._errors.close()

    def _failure(self) -> RlrunError:
        self._process.kill()
        self._process.wait()
        self._errors.seek(0)
        said = " ".join(self._errors.read().decode(errors="replace").split())[:300]
        return RlrunError(f"ffmpeg could not write the video: {said or 'it said nothing'}.", _NOT_WRITTEN)


def write_gif(source: Path, target: Path, fps: float) -> None:
    """A GIF of a video, with a palette of its own.

    :raises RlrunError: when ffmpeg fails
    """
    filters = f"fps={min(fps, _FASTEST_GIF):g},split[a][b];[a]palettegen=stats_mode=diff[p];[b][p]paletteuse"
    process = _Ffmpeg("-i", str(source), "-vf", filters, "-loop", "0", "-f", "gif", str(target))
    try:
        process.finish()
    finally:
        process.close()


def check_film(path: Path, size: tuple[int, int], frames: int | None) -> None:
    """Decode a video or GIF and compare it with what was filmed.

    :param size: height and width in pixels
    :param frames: how many there must be; None: some
    :raises RlrunError: when it does not decode, is of another size or number of frames, or has one flat colour
    """
    import imageio_ffmpeg

    count, all_flat = 0, True
    reader = imageio_ffmpeg.read_frames(str(path))
    try:
        width, height = next(reader)["size"]
        for data in reader:
            count += 1
            all_flat = all_flat and is_flat(np.frombuffer(data, np.uint8), _FLAT)
    except (OSError, RuntimeError, StopIteration, KeyError) as error:
        said = " ".join(str(error).split())[:200]
        raise RlrunError(f"The video does not decode: {said}", _NOT_WRITTEN) from None
    finally:
        reader.close()
    hint = "The file was removed."
    if (height, width) != size or (frames is not None and count != frames) or not count:
        found, meant = f"{count} frames of {width} x {height}", f"{frames or 'some'} of {size[1]} x {size[0]}"
        raise RlrunError(f"The video holds {found} pixels, and {meant} were written.", hint)
    if all_flat:
        raise RlrunError("The video shows nothing but one flat colour.", f"Look at the env's `render`. {hint}")


@contextlib.contextmanager
def written_whole(path: Path) -> Iterator[Callable[[str], Path]]:
    """Names for files that become ``path`` (and the like with other suffixes) when all of them are finished.

    :return: from a suffix such as ``.mp4`` to a temporary path
    """
    temporary: dict[str, Path] = {}

    def name(suffix: str) -> Path:
        return temporary.setdefault(suffix, path.with_name(f".{path.stem}.{secrets.token_hex(4)}.tmp{suffix}"))

    with os_errors_in_words(f"writing {path.name}"):
        is_new = not path.parent.exists()
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield name
            for suffix, file in temporary.items():
                with file.open("rb") as stream:
                    os.fsync(stream.fileno())
                file.replace(path.with_suffix(suffix))
        finally:
            for file in temporary.values():
                file.unlink(missing_ok=True)
            if is_new:
                with contextlib.suppress(OSError):  # it is not empty
                    path.parent.rmdir()

# SPDX-License-Identifier: Apache-2.0
"""Output files of commands: checked before the work begins and replaced only when complete. Files of the package."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

LEAST_SPACE = 1 << 20  # bytes that must be free on the disk
STREAMS = ("/dev/stdout", "/dev/stderr", "/dev/fd/", "/proc/")
VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv", ".avi")


def check_target(path: Path, suffixes: Sequence[str] = (), inputs: Iterable[Path | None] = ()) -> None:
    """Raise ValueError if a file cannot be written to path. Call it before the work begins.

    suffixes: the allowed ones (none: all); inputs: files that the command reads, which path must not replace.
    """
    check_name(path)
    if path.is_file() and any(given is not None and given.is_file() and given.samefile(path) for given in inputs):
        raise ValueError(f"cannot write {path}: it is read as input; choose another name")
    if suffixes and path.suffix.lower() not in suffixes:
        raise ValueError(f"cannot write {path}: name it with one of the suffixes {', '.join(suffixes)}")
    if path.is_dir():
        raise ValueError(f"cannot write {path}: it is a folder; name a file in it")
    if is_stream(path):
        if suffixes:
            raise ValueError(f"cannot write {path}: it is a device or a pipe; name a file")
        if not path.exists():
            raise ValueError(f"cannot write {path}: there is no such device or pipe; name a file")
        return
    folder = real_path(path).parent
    if not folder.is_dir():
        raise ValueError(f"cannot write {path}: the folder {folder} does not exist; create it, or choose another")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ValueError(f"cannot write {path}: no permission to write in {folder}; choose another folder")
    check_space(folder)


def check_folder(path: Path) -> None:
    """Create a folder for results if missing. Raises ValueError if it is not writable."""
    check_name(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise ValueError(f"cannot write into {path}: it is a file; name a folder") from None
    except OSError as error:
        raise ValueError(f"cannot create {path}: {error.strerror}; choose another folder") from error
    if not os.access(path, os.W_OK | os.X_OK):
        raise ValueError(f"cannot write into {path}: no permission; choose another folder")
    check_space(path)


def check_name(path: Path) -> None:
    """Raise ValueError for a name that is not UTF-8: encoders of videos and logs cannot write it."""
    if printable(str(path)) != str(path):
        raise ValueError(f"cannot write {printable(str(path))}: its name is not UTF-8; choose another")


def printable(text: str) -> str:
    """The text with bytes that are not UTF-8, which names of files may hold, as escapes in ASCII."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def real_path(path: Path) -> Path:
    """Where a file of that name is: links are followed, so that the file they lead to is replaced, not the link."""
    return path.resolve() if path.is_symlink() else path


def is_stream(path: Path) -> bool:
    """Whether a path is a device or a pipe, as /dev/stdout: written to, not replaced."""
    if str(path).startswith(STREAMS):  # may lead to a regular file, of which others hold the end
        return True
    return path.exists() and not path.is_file() and not path.is_dir()


def check_space(folder: Path) -> None:
    """Raise ValueError if the disk of a folder is full."""
    if shutil.disk_usage(folder).free < LEAST_SPACE:
        raise ValueError(f"no space left on the disk of {folder}: remove files, or choose another folder")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` to write to; the file replaces `path` at the end.

    An exception, a full disk or Ctrl-C leaves an existing file unchanged. A link stays: the file that it leads to is
    replaced. Raises OSError if nothing was written.
    """
    named, path = path, real_path(path)
    part = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        yield part
        if not part.is_file():
            raise OSError(f"{named} was not written: is the disk full, or the format unknown?")
        part.replace(path)
    except OSError as error:
        if error.errno and error.filename in (None, str(part)):  # name the file that the user asked for
            raise OSError(error.errno, error.strerror, str(named)) from error
        raise
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def staging(folder: Path) -> Iterator[Path]:
    """A folder within `folder` to write files to, which move into `folder` together when all are whole.

    An exception, a full disk or Ctrl-C leaves the older files of those names as they were.
    """
    part = folder / f".staging.{os.getpid()}.{time.monotonic_ns()}"
    part.mkdir()
    try:
        yield part
        for path in sorted(part.iterdir()):
            path.replace(real_path(folder / path.name))
    finally:
        shutil.rmtree(part, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file as `replacing` does; to a device or a pipe, append."""
    if is_stream(path):
        try:
            with path.open("a", encoding="utf-8", errors="backslashreplace") as stream:
                stream.write(text)
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(path)) from error
        return
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8", errors="backslashreplace")


def provide_numba_cache() -> None:
    """Name a folder in /tmp for numba's compiled code where neither the package's nor the user's can be written.

    Without any, as in read-only containers and for users without a home, numba raises RuntimeError.
    """
    package, home = Path(__file__).parent, Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser()
    while not home.exists():
        home = home.parent
    if "NUMBA_CACHE_DIR" in os.environ or os.access(package, os.W_OK) or os.access(home, os.W_OK):
        return
    folder = Path(tempfile.gettempdir()) / f"pixel4d_ros_numba_{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
    except OSError:
        return
    # numba runs what it finds there, so that nobody else may write there.
    status = folder.lstat()
    if stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid() and not status.st_mode & 0o077:
        os.environ["NUMBA_CACHE_DIR"] = str(folder)


def resource_folders(folder: str) -> list[Path]:
    """Candidate paths of a folder of the package: in the source tree, the pip package, or the ROS installation."""
    package = Path(__file__).resolve().parent
    prefixes = os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep)
    installed = [Path(prefix) / "share" / "pixel4d_ros" / folder for prefix in prefixes if prefix]
    return [package.parent / folder, package / folder, *installed]


def find_resource(folder: str, name: str) -> Path | None:
    """The package's file of that name; None if it was not installed."""
    return next((place / name for place in resource_folders(folder) if (place / name).is_file()), None)

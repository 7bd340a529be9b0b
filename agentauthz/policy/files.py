"""Find and read the files that a policy set is made of."""

from __future__ import annotations

import os
import pathlib
import stat
from collections.abc import Iterator
from typing import Final

from agentauthz.errors import InvalidArgument, PolicyLoadError
from agentauthz.policy.parse.codes import MAX_FILE

SUFFIX: Final = ".authz"


def read_files(path: str | os.PathLike[str]) -> list[tuple[str, bytes]]:
    """Return the name and bytes of one policy file, or of all those below a folder, sorted by name.

    Raises:
        PolicyLoadError: something is missing, unreadable or no file, or there is no policy.
        InvalidArgument: `path` is no path, or empty.
    """
    place = _place(path)
    try:
        if place.is_dir():
            files = sorted(_below(place))
            if not files:
                raise PolicyLoadError(shown(place), f"this folder holds no file that ends in {SUFFIX}")
        else:
            files = [place]
            if place.suffix != SUFFIX and place.exists():
                raise PolicyLoadError(shown(place), f"a policy file's name ends in {SUFFIX}")
        return [(shown(file), _read(file)) for file in files]
    except (OSError, ValueError) as error:
        raise _unreadable(place, error) from error


def shown(path: str | os.PathLike[str]) -> str:
    """Return a path's text, in which bytes that are no characters are written out."""
    return os.fspath(path).encode("utf-8", "backslashreplace").decode()


def _place(path: str | os.PathLike[str]) -> pathlib.Path:
    if not isinstance(path, str | os.PathLike):
        raise InvalidArgument("path", f"must be a file's or folder's path, not {type(path).__name__}")
    text = os.fsdecode(path)
    if not text:
        raise InvalidArgument("path", "must not be empty")
    if "\n" in text and not os.path.lexists(text):
        raise InvalidArgument("path", "must be a path, not a policy's text: `PolicySet.parse` takes that")
    return pathlib.Path(text)


def _below(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """Find the policy files below a folder; a linked folder is read like any other, or its rules would be lost."""
    seen: set[str] = set()
    for root, folders, names in os.walk(folder, onerror=_raise, followlinks=True):
        real = os.path.realpath(root)
        if real in seen:
            raise PolicyLoadError(shown(root), "a link leads to a folder that is read already")
        seen.add(real)
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (pathlib.Path(root, name) for name in names if name.endswith(SUFFIX) and not name.startswith("."))


def _read(file: pathlib.Path) -> bytes:
    # a pipe or a device would never end
    if not stat.S_ISREG(file.stat().st_mode):
        raise PolicyLoadError(shown(file), "can't be read: it is no ordinary file")
    with file.open("rb") as opened:
        return opened.read(MAX_FILE + 1)  # one byte more is refused, however many follow


def _unreadable(place: pathlib.Path, error: OSError | ValueError) -> PolicyLoadError:
    if isinstance(error, OSError) and error.strerror and isinstance(error.filename, str):
        return PolicyLoadError(shown(error.filename), f"can't be read: {error.strerror}")
    return PolicyLoadError(shown(place), f"can't be read: {error}")


def _raise(error: OSError) -> None:
    raise error

"""Follow a log while it is written: its last lines, and each new one once it is whole."""

from __future__ import annotations

from pathlib import Path
from typing import Final, final

from agentauthz.errors import InvalidArgument
from agentauthz.records.lines import MAX_LINE
from agentauthz.records.reading import log_files, tree_of

_ENDS: Final = 2  # files of each stream that the last lines are looked for in


@final
class Follower:
    """Read what is added to a log's folder, or to a file of lines; new streams and segments are noticed.

    Raises:
        InvalidArgument: there is nothing there.
    """

    def __init__(self, path: Path) -> None:
        if not path.exists():
            raise InvalidArgument("PATH", f"isn't there: `{path}`")
        self._path = path
        self._read: dict[Path, int] = {}  # bytes of each file that were returned, or passed over

    def last(self, count: int) -> list[bytes]:
        """Return the last lines by their moments, and go on behind them."""
        ends: dict[Path, int] = {}
        for file in log_files(self._path):
            ends[file.parent] = ends.get(file.parent, 0) + 1
        for file in log_files(self._path):
            ends[file.parent] -= 1
            size = file.stat().st_size
            self._read[file] = _begin(file, size, count) if ends[file.parent] < _ENDS else size
        found = sorted(self.new(), key=_moment)
        return found[-count:] if count > 0 else []

    def new(self) -> list[bytes]:
        """Return the whole lines that came since the last call."""
        found: list[bytes] = []
        for file in log_files(self._path):
            try:
                found += self._of(file)
            except FileNotFoundError:  # it was pruned meanwhile
                self._read.pop(file, None)
        return found

    def _of(self, file: Path) -> list[bytes]:
        read = self._read.get(file, 0)
        size = file.stat().st_size
        if size == read:
            return []
        if size < read:  # another file stands in its place
            read = 0
        with file.open("rb") as lines:
            lines.seek(read)
            data = lines.read()
        whole = data.rfind(b"\n") + 1
        self._read[file] = read + whole
        return [line + b"\n" for line in data[:whole].split(b"\n")[:-1]]  # a carriage return ends no line


def _begin(file: Path, size: int, count: int) -> int:
    """Return where to begin, so that so many whole lines follow, if the file has them."""
    near = max(0, size - (count + 1) * MAX_LINE)
    if near == 0:
        return 0
    with file.open("rb") as lines:
        lines.seek(near)
        return near + len(lines.readline())


def _moment(line: bytes) -> str:
    tree = tree_of(line)
    return "" if tree is None else str(tree.get("ts"))

"""Take what holders of keys have: instance keys, and the files that keep what records only commit to."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterator
from pathlib import Path

from agentauthz.errors import InvalidArgument
from agentauthz.keys import InstanceKey
from agentauthz.records.openings import Openings


def instance_key(parser: argparse.ArgumentParser, *, required: bool = False) -> None:
    """Take the files of instance keys: the present one first."""
    parser.add_argument(
        "--instance-key", metavar="FILE", action="append", default=[], required=required,
        help="the authorizer's key; older ones may follow",
    )  # fmt: skip


def openings(parser: argparse.ArgumentParser) -> None:
    """Take one store of openings, with its key."""
    parser.add_argument("--openings", metavar="FILE", type=Path, help="what keeps the values to be shredded")
    instance_key(parser)


def keys(arguments: argparse.Namespace) -> list[InstanceKey]:
    """Return the keys that were given.

    Raises:
        InvalidArgument: there is none, or a file holds none.
    """
    if not arguments.instance_key:
        raise InvalidArgument("--instance-key", "must be given: the authorizer's key")
    return [InstanceKey.from_file(path) for path in arguments.instance_key]


def store(path: Path, known: list[InstanceKey]) -> Openings:
    """Return the store in a file that is there: a mistyped name must not make one.

    Raises:
        InvalidArgument: it isn't there.
        SinkError: it is no store.
    """
    if not path.is_file():
        raise InvalidArgument("--openings", f"must be a store of openings, and `{path}` isn't there")
    return Openings(path, known[0], older=known[1:])


@contextlib.contextmanager
def given(arguments: argparse.Namespace) -> Iterator[Openings | None]:
    """Give the block the store that was given; None: none was.

    Raises:
        InvalidArgument, SinkError: as `keys` and `store`.
    """
    if arguments.openings is None:
        yield None
        return
    with contextlib.closing(store(arguments.openings, keys(arguments))) as kept:
        yield kept

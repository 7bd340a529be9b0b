"""Load the programs below `examples/`, and see their tools as a framework would."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
import typing
from collections.abc import Callable
from types import ModuleType
from typing import Any

from pydantic import Field, create_model

from tests.golden import ROOT


def load_example(folder: str, *modules: str) -> list[ModuleType]:
    """Return `run.py` of `examples/<folder>`, and then modules that it imports, as it imports them."""
    place = ROOT / "examples" / folder
    if str(place) not in sys.path:
        sys.path.append(str(place))
    # each example has a `run`, so it goes by another name here
    spec = importlib.util.spec_from_file_location(f"{folder}_run", place / "run.py")
    assert spec is not None
    assert spec.loader is not None
    run = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(run)
    return [run, *(importlib.import_module(name) for name in modules)]


def tool_schema(tool: Callable[..., Any]) -> dict[str, Any]:
    """Return the JSON schema of a tool as tool frameworks make it: from signature, type hints and docstring."""
    description, texts = _documented(tool)
    hints = typing.get_type_hints(tool)
    fields: dict[str, Any] = {
        name: (
            hints[name],
            Field(... if parameter.default is parameter.empty else parameter.default, description=texts[name]),
        )
        for name, parameter in inspect.signature(tool).parameters.items()
    }
    model = create_model(f"Input schema for `{tool.__name__}`", **fields)
    return {"name": tool.__name__, "description": description, "parameters": model.model_json_schema()}


def _documented(tool: Callable[..., Any]) -> tuple[str, dict[str, str]]:
    """Return what a docstring says of the tool, and of each parameter."""
    description, *parts = inspect.cleandoc(tool.__doc__ or "").split(":param ")
    texts = dict(part.split(":", 1) for part in parts)
    return description.strip(), {name: _lines(text) for name, text in texts.items()}


def _lines(text: str) -> str:
    return "\n".join(line.strip() for line in text.strip().splitlines())

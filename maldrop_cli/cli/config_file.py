"""`--config FILE.toml` and `--save-config FILE.toml`: the flags of a command in a file. Flags on the command line win.

A key is a flag without its dashes; a list is joined by commas. Keys at the top are for whatever command reads the file,
those in a table that is named as a command, ``[sweep]`` say, for that command alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import typer

from maldrop_cli.config import MaldropError, UsageError, nearest

OWN = ("config", "save_config")  # parameters of every command that a file can't hold


def read(path: Path, ctx: typer.Context) -> dict[str, Any]:
    """The values that the file gives to the command's parameters, by their names, converted as on the command line.

    MaldropError where the file can't be read, UsageError for what it can't hold.
    """
    import tomllib

    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise MaldropError(f"can't read {path}: {error.strerror or error}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"--config: {path} is not TOML: {error}") from None
    commands = list(ctx.parent.command.commands) if ctx.parent else []  # type: ignore[attr-defined]
    own: dict[str, Any] = {}
    for key, value in content.items():
        if not isinstance(value, dict):
            own.setdefault(key, value)
        elif key not in commands:
            raise UsageError(
                f"--config: {path} has a table [{key}], and no command is called so{nearest(key, commands)} "
                f"(one of: {', '.join(commands)})"
            )
    return _converted(own | content.get(ctx.info_name or "", {}), path, ctx)


def _converted(content: Mapping[str, Any], path: Path, ctx: typer.Context) -> dict[str, Any]:
    flags = _flags(ctx)
    values = {}
    for key, value in content.items():
        parameter = flags.get(key.replace("_", "-"))
        if parameter is None:
            raise UsageError(
                f"--config: {path} has {key!r}, and {ctx.info_name} takes no such setting{nearest(key, list(flags))} "
                f"(`maldrop {ctx.info_name} --help` lists them)"
            )
        if isinstance(value, list):
            value = ",".join(map(str, value))
        if isinstance(value, bool) is not bool(parameter.is_flag) or not isinstance(value, bool | int | float | str):
            wanted = "true or false" if parameter.is_flag else "a text, a number or a list of them"
            raise UsageError(f"--config: {key} in {path} is {value!r}, and must be {wanted}")
        values[parameter.name] = parameter.process_value(ctx, value if parameter.is_flag else str(value))
    return values


def save(path: Path, names: frozenset[str], values: Mapping[str, Any], ctx: typer.Context) -> None:
    """Write the parameters that were set, by flags or by a file; MaldropError where that can't be done."""
    import tomli_w

    content = {
        flag: value if isinstance(value, bool | int | float | str) else str(value)
        for flag, parameter in _flags(ctx, aliases=False).items()
        if parameter.name in names and (value := values[parameter.name]) is not None
    }
    try:
        path.write_text(tomli_w.dumps(content), encoding="utf-8")
    except OSError as error:
        raise MaldropError(f"can't write {path}: {error.strerror or error}") from None


def _flags(ctx: typer.Context, *, aliases: bool = True) -> dict[str, Any]:
    """The command's parameters by their flags without dashes, the first one alone or all."""
    found: dict[str, Any] = {}
    for parameter in ctx.command.params:
        long = [flag.removeprefix("--") for flag in parameter.opts if flag.startswith("--")]
        if parameter.name not in (*OWN, "help"):
            found |= dict.fromkeys(long if aliases else long[:1], parameter)
    return found

"""`--config FILE.toml` and `--save-config FILE.toml`: the flags of a command in a file.

A key is a flag without its dashes; a list is joined by commas, a switch is true or false. Keys at the top are for
any command that reads the file, those in a table named as a command, ``[sweep]`` say, for that command alone. Flags on
the command line win; but a switch that is on in the file can't be turned off by a flag.
"""

from __future__ import annotations

import codecs
import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import typer

from maldrop_cli.files import expand, read_up_to, write_output
from maldrop_cli.names import MaldropError, UsageError, nearest, one_line

OWN = ("config", "save_config", "help", "help_all")  # parameters of every command that a file can't hold
LIMIT = 2**20  # bytes
_PLAIN = (bool, int, float, str)
NOT_SAVED = ("dry_run", "fresh", "quiet", "compare")  # of one call, not of what is trained


def use(ctx: typer.Context, path: Path | None) -> Path | None:
    """Make the values in the file the defaults of the command's parameters.

    MaldropError where the file can't be read, UsageError for what it can't hold.
    """
    if path is not None:
        path = expand(path, "--config")
        ctx.default_map = {**_read(path, ctx)}
    return path


def is_set(ctx: typer.Context, name: str) -> bool:
    """Whether the user set the parameter, on the command line or in a file."""
    source = ctx.get_parameter_source(name)
    return source is not None and source.name in ("COMMANDLINE", "DEFAULT_MAP")


def _read(path: Path, ctx: typer.Context) -> dict[str, Any]:
    import tomllib

    try:
        stored = read_up_to(LIMIT, path)
        wide = stored.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))  # as PowerShell writes it
        content = tomllib.loads(stored.decode("utf-16" if wide else "utf-8-sig"))
    except OSError as error:
        raise MaldropError(f"can't read {path}: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:  # tomllib raises either where a number or a nesting is too long
        raise UsageError("config", f"{path} is not TOML: {one_line(error)}") from None
    commands = list(ctx.parent.command.commands) if ctx.parent else []  # type: ignore[attr-defined]
    for key, value in content.items():
        if isinstance(value, dict) and key not in commands:
            raise UsageError(
                "config",
                f"{path} has a table [{key}], and no command is called so{nearest(key, commands)} "
                f"(one of: {', '.join(commands)})",
            )
        if key in commands and not isinstance(value, dict):
            raise UsageError("config", f"{key} in {path} is a command, and wants a table: [{key}]")
    shared = {key: value for key, value in content.items() if key not in commands}
    return _by_parameter(shared, path, ctx) | _by_parameter(content.get(ctx.info_name or "", {}), path, ctx)


def _by_parameter(content: Mapping[str, Any], path: Path, ctx: typer.Context) -> dict[str, Any]:
    flags = _flags(ctx)
    values: dict[str, Any] = {}
    for key, value in content.items():
        parameter = flags.get(key.replace("_", "-"))
        if parameter is None:
            raise UsageError(
                "config",
                f"{path} has {key!r}, and {ctx.info_name} takes no such setting{nearest(key, list(flags))} "
                f"(`maldrop {ctx.info_name} --help` lists them)",
            )
        if parameter.name in values:
            raise UsageError("config", f"{path} sets {key!r} twice, once by another of its names")
        try:
            str(value)
        except RecursionError:  # nested deep: refused below
            pass
        except ValueError:  # a hexadecimal number, which TOML reads at any length
            raise UsageError("config", f"{key} in {path} has a number of thousands of digits") from None
        if getattr(parameter, "multiple", False) and isinstance(value, str | list):
            values[parameter.name] = [value] if isinstance(value, str) else [str(item) for item in value]
            continue
        if isinstance(value, list):
            items = [str(item) for item in value]
            value = ",".join(items if len(items) != 1 or parameter.name != "seeds" else items * 2)  # 5 alone is a count
        if isinstance(value, bool) is not bool(parameter.is_flag) or not isinstance(value, bool | int | float | str):
            wanted = "true or false" if parameter.is_flag else "a text, a number or a list of them"
            raise UsageError("config", f"{key} in {path} is {reprlib.repr(value)}, and must be {wanted}")
        values[parameter.name] = value if parameter.is_flag else str(value)
    return values


def save(path: Path, values: Mapping[str, Any], ctx: typer.Context) -> None:
    """Write the parameters that were set, but for NOT_SAVED; MaldropError where the file can't be written."""
    import tomli_w

    content = {
        flag: list(value) if isinstance(value, list | tuple) else value if isinstance(value, _PLAIN) else str(value)
        for flag, parameter in _flags(ctx, aliases=False).items()
        if parameter.name not in NOT_SAVED and (value := values.get(parameter.name)) is not None
    }
    try:
        text = tomli_w.dumps(content).encode()
    except UnicodeEncodeError:
        raise MaldropError(f"can't write {path}: TOML is UTF-8, and a value is not") from None
    write_output(path, text)


def _flags(ctx: typer.Context, *, aliases: bool = True) -> dict[str, Any]:
    """The command's parameters by their flags without dashes, the first one alone or all."""
    found: dict[str, Any] = {}
    for parameter in ctx.command.params:
        long = [flag.removeprefix("--") for flag in parameter.opts if flag.startswith("--")]
        if parameter.name not in OWN:
            found |= dict.fromkeys(long if aliases else long[:1], parameter)
    return found

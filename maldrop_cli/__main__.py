"""The entry point: runs the app and turns every expected error into one line and an exit code."""

import io
import os
import shlex
import signal
import sys
from contextlib import suppress
from typing import Any

from maldrop_cli.names import STOPS, MaldropError, UsageError, one_line

EXIT_INTERRUPTED = 130
TRAINING = ("train", "compare", "sweep")  # commands whose runs are kept


def main() -> None:
    """0 done; 2 a wrong flag; 1 files, network, disk, memory or a failed run; 130 interrupted."""
    heeded = [number for number in STOPS if signal.getsignal(number) != signal.SIG_IGN]  # nohup ignores one
    for each in heeded:
        signal.signal(each, _interrupt)
    for number in range(3):  # what a shell closed would be the number of the next file that is opened
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal that knows no × shows a question mark
            stream.reconfigure(errors="replace")
    if os.name != "nt":  # whose console has streams of a kind of its own
        droppable = io.BufferedWriter(_Droppable(2, "w", closefd=False))
        encoding = getattr(sys.stderr, "encoding", None)
        sys.stderr = io.TextIOWrapper(droppable, encoding, "replace", line_buffering=True)
    code = run(sys.argv[1:])
    for each in heeded:  # what is left to do needs no traceback
        signal.signal(each, signal.SIG_DFL)
    sys.exit(code)


def _interrupt(number: int, frame: Any) -> None:
    """Stop; at once in an import, where nothing is under way yet: numpy's would hide the exception behind others."""
    while frame is not None:
        if "importlib._bootstrap" in frame.f_code.co_filename:
            os._exit(_interrupted(sys.argv[1:]))
        frame = frame.f_back
    raise KeyboardInterrupt


class _Droppable(io.FileIO):
    """Progress, warnings and errors: what can't be written, as the disk is full or nobody listens, is dropped."""

    def write(self, content: Any) -> int:
        with suppress(OSError):
            super().write(content)
        return len(content)


def run(arguments: list[str]) -> int:
    """Run the command line ``arguments`` and return its exit code."""
    try:
        return _run(arguments)
    except KeyboardInterrupt:
        return _interrupted(arguments)


def _interrupted(arguments: list[str]) -> int:
    command = " ".join(["maldrop", *(_quoted(word) for word in arguments if word != "--fresh")])
    kept = "there was nothing to keep yet; once more"
    if arguments and arguments[0] in TRAINING:
        kept = "finished runs are kept, those under way up to their last checkpoint; go on"
    return _complain(f"interrupted; {kept} with: {command}", EXIT_INTERRUPTED)


def _quoted(word: str) -> str:
    """As a shell reads it; what can't be seen as ``$'\\012'``."""
    if word.isprintable():
        return shlex.quote(word)
    visible = [each if each.isprintable() and each not in "\\'" else None for each in word]
    pairs = zip(visible, word, strict=True)
    return "$'" + "".join(seen or "".join(f"\\{byte:03o}" for byte in os.fsencode(each)) for seen, each in pairs) + "'"


def _run(arguments: list[str]) -> int:
    """As :func:`run`; KeyboardInterrupt when it was interrupted."""
    import typer

    from maldrop_cli.cli.app import app

    try:
        code = app(arguments or ["--help"], prog_name="maldrop", standalone_mode=False)
        if sys.stdout is not None:  # as it is where a shell closed it
            sys.stdout.flush()
        if code == EXIT_INTERRUPTED:  # how Typer passes Ctrl-C on
            raise KeyboardInterrupt
        return code if isinstance(code, int) else 0
    except UsageError as error:
        return _complain(error.as_flag(), error.exit_code)
    except MaldropError as error:
        return _complain(str(error), error.exit_code)
    except typer.Exit as stop:
        return stop.exit_code
    except typer.Abort:
        raise KeyboardInterrupt from None
    except typer.exceptions.TyperException as error:  # a wrong flag
        return _complain(f"{error.format_message()} (`maldrop COMMAND --help` lists the flags)", error.exit_code)
    except BrokenPipeError:  # the reader of a pipe, `head` say, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        name = f"{error.filename}: " if error.filename else ""
        return _complain(f"{name}{error.strerror or error}", 1)
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "memory" not in str(error):
            raise  # a bug: the traceback helps
        return _complain("out of memory; a smaller --batch-size or --image-size needs less", 1)


def _complain(message: str, code: int) -> int:
    print("maldrop: " + one_line(message), file=sys.stderr)
    return code


if __name__ == "__main__":
    main()

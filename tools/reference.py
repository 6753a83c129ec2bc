"""docs/reference from the code: ``python tools/reference.py [--check]``.

Two pages: ``commands.md`` from the Click commands (every command, option, help text and example), and
``configuration.md`` from :class:`~lattice_core.config.NodeConfig` (every setting with its flag, variable, key, default,
unit and meaning). A setting's meaning is the docstring below its field, else the help of its flag; one that has
neither is an error. ``--check`` writes nothing and exits 1 where a page is out of step; a test does the same.
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import click  # noqa: E402

from lattice_cli import options as common  # noqa: E402
from lattice_cli import settings  # noqa: E402
from lattice_cli.commands.start import start  # noqa: E402
from lattice_cli.main import cli  # noqa: E402
from lattice_cli.render.paragraphs import blocks  # noqa: E402
from lattice_core import config  # noqa: E402

OUT = ROOT / "docs" / "reference"

MADE_BY = "<!-- Made by tools/reference.py from the code: make docs. Do not edit. -->\n"

WIDTH = 110
MIB = 1 << 20

EXIT_CODES = """\
| code | meaning |
|---|---|
| 0 | done |
| 1 | no: key not found, comparison failed, violation found |
| 2 | wrong usage: the command line, a setting, a key or value that cannot be one |
| 3 | unavailable, and nothing was applied |
| 4 | not allowed |
| 5 | outcome unknown: sent, and not known whether it was applied |
| 130, 141 | interrupted; the reader of the output has gone |
"""

VARIABLES = {
    "LATTICE_CONFIG": "The file with a node's settings, where `--config` does not name one.",
    "LATTICE_TRACEBACK": "With any value: show the traceback of an error. For reports of bugs.",
}
"""Those that no option's help speaks of."""

EXAMPLE = """\
name = "n1"
data_dir = "/var/lib/lattice"
client_addr = "10.0.0.1:7400"
peer_addr = "10.0.0.1:7500"
metrics_addr = "10.0.0.1:9400"

[initial_cluster]          # or "n1=10.0.0.1:7500,..." in one line
n1 = "10.0.0.1:7500"
n2 = "10.0.0.2:7500"
n3 = "10.0.0.3:7500"
"""


def main() -> int:
    pages = {"commands.md": commands_page(), "configuration.md": configuration_page()}
    if "--check" in sys.argv[1:]:
        stale = [name for name, text in pages.items() if not (OUT / name).exists() or (OUT / name).read_text() != text]
        if stale:
            print(f"out of step with the code: {', '.join(f'docs/reference/{name}' for name in stale)}; run: make docs")
        return 1 if stale else 0
    OUT.mkdir(parents=True, exist_ok=True)
    for name, text in pages.items():
        (OUT / name).write_text(text)
    return 0


# --- commands ---------------------------------------------------------------------------------------


def commands_page() -> str:
    commands = list(walk(cli, click.Context(cli, info_name="lattice")))
    parts = [
        "# Commands\n",
        MADE_BY,
        "Every command, as `lattice COMMAND --help` shows it. How a node is configured stands in "
        "[configuration.md](configuration.md).\n",
        "\n".join(f"* [`{ctx.command_path}`](#{anchor(ctx)}): {first_sentence(command)}" for command, ctx in commands)
        + "\n",
        "## Global options\n",
        "Every command takes these, before or after its name.\n",
        option_table([each for each in cli.params if is_global(each)], click.Context(cli, info_name="lattice")),
        "## Exit codes\n",
        EXIT_CODES,
        "An error is one line on stderr: what failed, why, and the next command to try.\n",
    ]
    for command, ctx in commands:
        parts += command_section(command, ctx)
    return "\n".join(parts)


def walk(group: click.Group, ctx: click.Context) -> Iterator[tuple[click.Command, click.Context]]:
    for name in group.list_commands(ctx):
        command = group.get_command(ctx, name)
        assert command is not None, name
        if command.hidden:
            continue
        inner = click.Context(command, info_name=name, parent=ctx)
        yield command, inner
        if isinstance(command, click.Group):
            yield from walk(command, inner)


def anchor(ctx: click.Context) -> str:
    return ctx.command_path.replace(" ", "-")


def first_sentence(command: click.Command) -> str:
    paragraph = next((text for kind, text in blocks(command.help or "", WIDTH) if kind == "text"), "")
    return escaped(re.split(r"(?<=\.)\s", paragraph)[0])


def command_section(command: click.Command, ctx: click.Context) -> Iterator[str]:
    yield f"## {ctx.command_path}\n"
    yield f"```\n{' '.join([ctx.command_path, *command.collect_usage_pieces(ctx)])}\n```\n"
    for kind, text in [*blocks(command.help or "", WIDTH), *blocks(command.epilog or "", WIDTH)]:
        yield f"```\n{text}\n```\n" if kind == "code" else f"{escaped(text)}\n"
    own = [each for each in command.params if isinstance(each, click.Option) and not each.hidden]
    own = [each for each in own if not is_global(each)]
    if own:
        yield option_table(own, ctx)
    if isinstance(command, click.Group):
        inner = [click.Context(command, info_name=name, parent=ctx) for name in command.list_commands(ctx)]
        yield "Commands: " + ", ".join(f"[`{each.info_name}`](#{anchor(each)})" for each in inner) + "\n"


def is_global(option: click.Parameter) -> bool:
    return option.name in common.COMMON


def option_table(options: list[Any], ctx: click.Context) -> str:
    rows = ["| option | meaning |", "|---|---|"]
    for option in options:
        left, right = option.get_help_record(ctx)
        rows.append(f"| {code(left)} | {cell(right)} |")
    return "\n".join(rows) + "\n"


# --- configuration ----------------------------------------------------------------------------------


def configuration_page() -> str:
    flags = {option.name: option for option in start.params if isinstance(option, click.Option)}
    meanings = docstrings()
    rows = ["| key in TOML | flag of `lattice start` | variable | default | unit or kind | meaning |"]
    rows.append("|---|---|---|---|---|---|")
    for name in settings.FIELDS:
        flag = flags.get(name)
        meaning = meanings.get(name) or (re.sub(r"\s*\[default: [^]]*\]", "", flag.help or "") if flag else "")
        if not meaning:
            raise SystemExit(
                f"NodeConfig.{name} has no meaning: write a docstring below it, or a flag with a help text"
            )
        value = getattr(config.NodeConfig(), name)
        shown = f"{value:g}" if isinstance(value, float) else settings.to_text(value)
        shown = shown.lower() if isinstance(value, bool) else shown
        if name.endswith("_bytes") and value % MIB == 0:
            shown += f" ({value // MIB} MiB)"
        flag_text = code(max(flag.opts, key=len)) if flag else ""
        rows.append(
            f"| `{name}` | {flag_text} | `{settings.PREFIX}{name.upper()}` | {code(shown) if shown else 'none'} "
            f"| {kind(name, value, flag)} | {cell(meaning)} |"
        )
    parts = [
        "# Configuration\n",
        MADE_BY,
        "What a node can be told. Flags win over variables, variables over the file (`--config FILE` or "
        "`LATTICE_CONFIG`), the file over defaults. Keys of the file may be written with dashes, too. "
        "`lattice config check FILE` says whether all of it is valid, `lattice config show FILE` each value and where "
        "it comes from. What the data directory knows, name, ids and first members, wins over all of them at a "
        "restart, and a contradiction is refused with both values.\n",
        "\n".join(rows) + "\n",
        "## A file\n",
        f"```toml\n{EXAMPLE}```\n",
        "## Variables of the command line\n",
        "These are for every command, and no settings of a node.\n",
        variable_table(),
    ]
    return "\n".join(parts)


def docstrings() -> dict[str, str]:
    """The docstring below each field of NodeConfig that has one."""
    found: dict[str, str] = {}
    tree = ast.parse(inspect.getsource(config))
    body = next(node.body for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "NodeConfig")
    for field, after in pairwise(body):
        if not (isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)):
            continue
        if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) and isinstance(after.value.value, str):
            found[field.target.id] = " ".join(after.value.value.replace("``", "`").split())
    return found


UNITS = {
    "_ms": "ms",
    "_seconds": "s",
    "_bytes": "bytes",
    "_entries": "entries",
    "_revisions": "revisions",
    "_addr": "HOST:PORT",
    "_dir": "directory",
}


def kind(name: str, value: object, flag: click.Option | None) -> str:
    if flag is not None and isinstance(flag.type, click.Choice):
        return ", ".join(f"`{each}`" for each in flag.type.choices)
    unit = next((unit for suffix, unit in UNITS.items() if name.endswith(suffix)), None)
    if unit is not None:
        return unit
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, dict):
        return "`NAME=HOST:PORT,...`, or a table"
    if isinstance(value, int):
        return "a whole number"
    return "a number" if isinstance(value, float) else "text"


def variable_table() -> str:
    """The variables that are no settings, by the help of the option that stands for each."""
    meanings = dict(VARIABLES)
    for option in cli.params:
        match = re.search(r"\[env: (\w+)[^]]*\]", getattr(option, "help", None) or "")
        if match:
            text = re.sub(r"\s*\[[^]]*\]", "", option.help or "")
            meanings[match[1]] = f"{text} (`{max(option.opts, key=len)}`)"
    missing = settings.OTHER_VARIABLES - meanings.keys()
    if missing:
        raise SystemExit(f"no meaning for {', '.join(sorted(missing))}: an option's help says [env: ...], or VARIABLES")
    rows = [
        "| variable | meaning |",
        "|---|---|",
        *(f"| `{each}` | {cell(meanings[each])} |" for each in sorted(meanings)),
    ]
    return "\n".join(rows) + "\n"


# --- Markdown ---------------------------------------------------------------------------------------


def code(text: str) -> str:
    return f"`{text.replace('|', chr(92) + '|')}`"


def escaped(text: str) -> str:
    """Text as Markdown shows it: no emphasis, no tags, none of them inside of code."""
    parts = re.split(r"(`[^`]*`)", text)
    parts[::2] = [re.sub(r"([*<])", r"\\\1", part) for part in parts[::2]]
    return "".join(parts)


def cell(text: str) -> str:
    return escaped(" ".join(text.split())).replace("|", "\\|")


if __name__ == "__main__":
    raise SystemExit(main())

"""How the command line shows its help, in panels, and completes names."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

PANELS = {
    "Network and space": ("space", "space_option", "resolutions", "image", "classes", "squeeze_excite", "new_head"),
    "Budget": (
        *("max_", "board", "monotone_widths", "reward", "published"),
        *("device_table", "bits", "targets", "nested", "backend", "threads", "networks", "seconds", "importance"),
        "width_step",
    ),
    "Search": (
        *("proxy", "proxies", "objectives", "searcher", "proposals", "finalists", "no_screen", "islands", "exchanges"),
        *("first", "sample"),
    ),
    "Scores": ("repeats", "batch_size", "seed", "device", "explain", "plot"),
    "Training": (
        *("trials", "data", "recipe", "epochs", "precision", "changes", "teacher", "references", "seeds"),
        *("power_of_two", "way", "share", "distill"),
    ),
    "Tables": ("benchmark", "table", "dataset", "split", "arch_column", "accuracy_column"),
    "Run": (
        *("out", "resume", "force", "cache", "executor", "workers", "scheduler", "time_limit", "log", "quiet"),
        "as_json",
    ),
}
"""Options by panel, each by its parameter or by what that begins with; the order of the help."""


def panel_of(parameter: str) -> str:
    """The panel that an option stands in: the same one in every command.

    Example:
        >>> panel_of("max_params"), panel_of("seed"), panel_of("top")
        ('Budget', 'Scores', 'Options')
    """
    for panel, beginnings in PANELS.items():
        if any(parameter == each or parameter.startswith(f"{each.rstrip('_')}_") for each in beginnings):
            return panel
    return "Options"


class PanelCommand(TyperCommand):
    """A command whose help has options in panels, where they are many."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        records = [(each, each.get_help_record(ctx)) for each in self.get_params(ctx)]
        shown = [(each, record) for each, record in records if record is not None]
        arguments = [record for each, record in shown if each.param_type_name == "argument"]
        by_panel: dict[str, list[tuple[str, str]]] = {panel: [] for panel in (*PANELS, "Options")}
        few = len(shown) < FEW
        for each, record in shown:
            if each.param_type_name == "option":
                own = "Options" if few or each.name in (None, "help") else panel_of(str(each.name))
                by_panel[own].append(record)
        for title, rows in (("Arguments", arguments), *by_panel.items()):
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)


FEW = 9
"""Options below which a command's help has one list of them."""


class Commands(TyperGroup):
    """A group that answers no command at all with its help, which has each command's whole first paragraph."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args and not ctx.resilient_parsing:  # a shell that completes asks with none
            typer.echo(ctx.get_help())
            raise typer.Exit
        return super().parse_args(ctx, args)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        for command in self.commands.values():
            command.short_help = (command.help or "").partition("\n\n")[0]
        super().format_commands(ctx, formatter)


class Application(typer.Typer):
    """A group of commands with panels."""

    def __init__(self, help: str, epilog: str | None = None) -> None:  # noqa: A002  # typer's name
        super().__init__(
            cls=Commands,
            help=help,
            epilog=epilog,
            add_completion=False,  # typer asks which shell it is at every start; see `zeroshot_nas.cli.completion`
            pretty_exceptions_enable=False,
            rich_markup_mode=None,  # plain help: loading rich takes longer than all else that --help does
        )

    def command(self, name: str | None = None, **options: Any) -> Callable[[Any], Any]:
        """Registers a command."""
        return super().command(name, cls=PanelCommand, **options)


def completes(names: Callable[[], Iterable[str]]) -> Callable[[str], list[str]]:
    """What completes a value, or the last of several that commas part.

    Example:
        >>> completes(lambda: ["zen", "zico", "cet"])("cet,z")
        ['cet,zen', 'cet,zico']
    """

    def complete(incomplete: str) -> list[str]:
        before, comma, last = incomplete.rpartition(",")
        return [f"{before}{comma}{name}" for name in names() if name.startswith(last)]

    return complete


def completes_public(listing: str) -> Callable[[str], list[str]]:
    """What completes names that a public function of the package lists, such as ``list_proxies``."""

    def names() -> list[str]:
        import zeroshot_nas

        found: list[str] = getattr(zeroshot_nas, listing)()
        return found

    return completes(names)

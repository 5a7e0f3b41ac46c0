"""The command: `asgi-ipc serve APP`, with uvicorn's options and a few of our own.

Law: uvicorn's options are taken from uvicorn's own click command, so they are
those of the installed version, with its help and its environment variables.
"""

from __future__ import annotations

import copy
import shlex
import sys
from typing import Any, Final

import click
import uvicorn
from click.core import ParameterSource
from uvicorn.main import main as uvicorn_command

from asgi_ipc import __version__, engine, entry
from asgi_ipc.cluster.settings import OUTBOX_BYTES
from asgi_ipc.errors import LauncherError
from asgi_ipc.fleet.settings import DEFAULTS, PIPE_BUF

if sys.platform == "win32":
    raise SystemExit(entry.NEEDS_UNIX)

from asgi_ipc.launcher import clustering
from asgi_ipc.launcher.serve import serve


def _own(name: str, unit: str, kind: type, text: str) -> click.Option:
    default = getattr(DEFAULTS, name.removeprefix("--").replace("-", "_"))
    shows = default is not None
    return click.Option([name], type=kind, default=default, show_default=shows, metavar=unit, help=text)


_OWN: Final[list[click.Parameter]] = [
    _own(
        "--drain-timeout",
        "SECONDS",
        float,
        "How long a leaving worker may take to deliver and handle its messages.",
    ),
    _own(
        "--exit-timeout",
        "SECONDS",
        float,
        "How long a worker that has left waits for threads and pools of the app before it ends.",
    ),
    _own(
        "--worker-hang-timeout",
        "SECONDS",
        float,
        "Replace a worker whose event loop has stood still this long (at least 2). Off unless set.",
    ),
    _own("--max-message-bytes", "BYTES", int, "The largest message, encoded."),
    _own(
        "--max-packet-bytes", "BYTES", int, f"The largest packet; at most the system's PIPE_BUF ({PIPE_BUF})."
    ),
    _own(
        "--pipe-bytes",
        "BYTES",
        int,
        "The capacity to ask for each worker's pipe. The system's default unless set.",
    ),
    _own(
        "--uds-mode",
        "MODE",
        str,
        "The mode of the --uds file, octal. That of the file that it replaces, or 666, unless set.",
    ),
    _own(
        "--uds-owner",
        "USER[:GROUP]",
        str,
        "Whose the socket's file is to be, by name or number; it takes the right to give files away.",
    ),
    click.Option(
        ["--wrap"],
        is_flag=True,
        default=DEFAULTS.wrap,
        help="Enter ipc.lifespan for an app that does not do so itself; as ipc.wrap(app).",
    ),
    click.Option(
        ["--cluster"],
        metavar="URL[,URL...]",
        envvar=clustering.VARIABLE,
        show_envvar=True,
        help="Be one of several servers, over a broker: nats://, tls://, redis:// or rediss://.",
    ),
    click.Option(
        ["--cluster-name"],
        metavar="NAME",
        help="Keeps two clusters on one broker apart. APP unless set.",
    ),
    click.Option(
        ["--node-name"], metavar="NAME", help="This server's name, for people. The host's unless set."
    ),
    click.Option(
        ["--cluster-ca-file"], metavar="FILE", help="The certificates that the broker's must be signed by."
    ),
    click.Option(
        ["--cluster-secret-file"],
        metavar="FILE",
        help="Seals what goes through the broker with this file's content, the same on every server.",
    ),
    click.Option(
        ["--cluster-outbox-bytes"],
        type=int,
        default=OUTBOX_BYTES,
        show_default=True,
        metavar="BYTES",
        help="What may wait for the broker; the rest is dropped and counted.",
    ),
    # For programs that start a server for themselves, as the test kit does.
    click.Option(["--stop-at-eof"], type=int, default=None, hidden=True),
]


# uvicorn's help for these is not true here.
_OTHER_HELP: Final = {
    "workers": "Number of worker processes. Defaults to the $WEB_CONCURRENCY environment variable, or 1.",
    "timeout_worker_healthcheck": "As --worker-hang-timeout, if given.",
}


def _theirs(parameter: click.Parameter) -> click.Parameter:
    """An option of uvicorn, with our own help where uvicorn's would mislead."""
    if not isinstance(parameter, click.Option) or parameter.name not in _OTHER_HELP:
        return parameter
    parameter = copy.copy(parameter)
    parameter.help = _OTHER_HELP[parameter.name]
    parameter.show_default = False
    return parameter


class _Commands(click.Group):
    """The commands. For an app in place of a command, the error names `serve`."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if ":" in args[0]:
            ctx.fail(
                f"No such command {args[0]!r}. Did you mean '{ctx.command_path} serve {shlex.join(args)}'?"
            )
        return super().resolve_command(ctx, args)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(
    __version__,
    message=f"asgi-ipc %(version)s, with uvicorn {uvicorn.__version__}, {engine.name()}",
    help="Show the version, and which engine runs.",
)
def main() -> None:
    """Messages between the workers of one ASGI server, without a broker."""


def _serve(**values: Any) -> None:
    app = values.pop("app")
    workers = values.pop("workers")
    entry.become_worker()
    context = click.get_current_context()
    # As uvicorn's own command does: absent means uvicorn's default.
    if values.get("node_name") is None:
        values.pop("node_name", None)
    for name in ("log_config", "reload_dirs", "reload_includes", "reload_excludes"):
        if not values.get(name):
            values.pop(name, None)
    if "headers" in values:
        values["headers"] = [header.split(":", 1) for header in values["headers"]]
    if context.get_parameter_source("timeout_worker_healthcheck") is ParameterSource.DEFAULT:
        # uvicorn's default would replace workers.
        values.pop("timeout_worker_healthcheck", None)
    try:
        entry.check(__name__)
        status = serve(app, workers=workers, options=values, argv=[sys.argv[0], *context.obj])
    except LauncherError as error:
        name, _, rest = str(error).partition(" ")
        for parameter in context.command.params:
            if parameter.name == name:
                raise click.UsageError(f"{parameter.opts[0]} {rest}", context) from error
        raise click.ClickException(str(error)) from error
    context.exit(status)


class _Serve(click.Command):
    """The arguments behind `--` are the app's: `sys.argv` in its workers."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ours, its_own = _cut(args)
        (app,) = (each for each in self.params if each.name == "app")
        given, _, _ = self.make_parser(ctx).parse_args(list(ours))
        if not isinstance(given["app"], str) and app.value_from_envvar(ctx) is None:
            # As under uvicorn, APP itself may stand behind `--`; further ones begin the app's arguments.
            behind, its_own = _cut(its_own)
            ours += ["--", *behind]
        ctx.obj = its_own
        return super().parse_args(ctx, ours)


def _cut(arguments: list[str]) -> tuple[list[str], list[str]]:
    place = arguments.index("--") if "--" in arguments else len(arguments)
    return arguments[:place], arguments[place + 1 :]


main.add_command(
    _Serve(
        "serve",
        callback=_serve,
        params=[*_OWN, *map(_theirs, uvicorn_command.params)],
        help="Serve APP (module:attribute) with workers that talk to each other.\n\n"
        "Takes every option of the installed uvicorn command; $WEB_CONCURRENCY and $UVICORN_* count, too. "
        "What stands behind -- is the app's, in sys.argv.",
        # UVICORN_PORT, not UVICORN_SERVE_PORT.
        context_settings={"auto_envvar_prefix": "UVICORN"},
    )
)

if __name__ == "__main__":
    main()

"""``flow monitor``: the monitoring database, made again from a run's own log, brought to this version, exported."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import click

from flow.cli.runs import RunPath, run_dir_option
from flow.cli.telling import say
from flow_core.printable import printable
from flow_monitor.project.rebuild import rebuild as rebuild_run, upgrade as upgrade_schema
from flow_monitor.queries import workflows
from flow_monitor.queries.database import Connection, open_database
from flow_monitor.schema.engine import without_password

_DATABASE = click.option(
    "--database",
    "-d",
    default=None,
    help="URI of the database; default: monitoring.db beside the run's directory, or runinfo/monitoring.db.",
)


@click.group()
def monitor() -> None:
    """Look after the monitoring database."""


@monitor.command()
@click.argument("run", type=RunPath())
@run_dir_option
@_DATABASE
def rebuild(run: str, run_dir: str, database: str | None) -> None:
    """Write RUN (its directory, such as runinfo/003, or its number) into the database again, from its event log."""
    directory = Path(run)
    endpoint = database or f"sqlite:///{directory.absolute().parent / 'monitoring.db'}"
    progress = rebuild_run(directory, endpoint)
    say(f"{directory}: {progress.events} events written to {without_password(endpoint)}")


@monitor.command()
@_DATABASE
def upgrade(database: str | None) -> None:
    """Bring the database's tables to this version."""
    endpoint = database or f"sqlite:///{Path('runinfo/monitoring.db').absolute()}"
    upgrade_schema(endpoint)
    say(f"{without_password(endpoint)} is up to date")


@monitor.group()
def export() -> None:
    """Write a run as others read it. RUN is a run's number, its id or the begin of one; the newest run without it."""


_RUN = click.argument("run", required=False, default="")
_OUTPUT = click.option("--output", "-o", type=click.File("w", encoding="utf-8"), default="-", help="File to write.")


@export.command()
@_RUN
@_DATABASE
@_OUTPUT
def wfformat(run: str, database: str | None, output: IO[str]) -> None:
    """Write RUN in the WfFormat (1.5) of WfCommons."""
    from flow_monitor.export.wfformat import wfformat as document

    with _chosen(run, database) as (connection, run_id):
        json.dump(document(connection, run_id), output, indent=1)
    output.write("\n")


@export.command()
@click.argument("directory", type=click.Path(file_okay=False, path_type=Path))
@_RUN
@_DATABASE
def rocrate(directory: Path, run: str, database: str | None) -> None:
    """Write RUN as a Workflow Run RO-Crate into DIRECTORY."""
    from flow_monitor.export.rocrate import write_crate

    with _chosen(run, database) as (connection, run_id):
        say(write_crate(connection, run_id, directory))


@export.command("parsl-db")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@_RUN
@_DATABASE
@click.option("--all", "every", is_flag=True, help="Write all runs of the database.")
def parsl_db(file: Path, run: str, database: str | None, every: bool) -> None:
    """Write RUN into a new SQLite FILE with the tables of Parsl's monitoring, for notebooks that read those."""
    from flow_monitor.export.parsl_db import write_parsl_db

    if every and run:
        raise click.UsageError("give a RUN or --all, not both")
    if every:
        with open_database(database or _DEFAULT) as opened, opened.connect() as connection:
            counts = write_parsl_db(connection, workflows.ids(connection), file)
    else:
        with _chosen(run, database) as (connection, run_id):
            counts = write_parsl_db(connection, [run_id], file)
    say(f"{file}: {', '.join(f'{count} rows in {table}' for table, count in counts.items())}")


@export.command()
@_RUN
@_DATABASE
@_OUTPUT
@click.option("--otlp", is_flag=True, help="Send to the collector that OTEL_EXPORTER_OTLP_ENDPOINT names.")
def otel(run: str, database: str | None, output: IO[str], otlp: bool) -> None:
    """Give RUN as spans of OpenTelemetry: one JSON object a span, or to a collector."""
    from flow_monitor.errors import MonitorError
    from flow_monitor.export.otel import export_spans

    try:
        if otlp:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as Exporter

            exporter = Exporter()
        else:
            from opentelemetry.sdk.trace.export import ConsoleSpanExporter

            exporter = ConsoleSpanExporter(out=output, formatter=lambda span: span.to_json(indent=None) + "\n")
    except ModuleNotFoundError as error:
        raise MonitorError(
            f"{error.name} is not installed: pip install opentelemetry-sdk"
            + (" opentelemetry-exporter-otlp-proto-http" if otlp else "")
        ) from error
    with _chosen(run, database) as (connection, run_id):
        spans = export_spans(connection, run_id, exporter)
    say(f"{spans} spans", err=True)


@export.command()
@_DATABASE
@click.option("--listen", default=None, metavar="ADDRESS", help="Serve /metrics there instead of printing once.")
@click.option("--port", default=9464, show_default=True)
@click.option("--no-token", is_flag=True, help="Let everybody on this machine ask: where nobody else can log in.")
def prometheus(database: str | None, listen: str | None, port: int, no_token: bool) -> None:
    """Print the newest runs as metrics for Prometheus, or serve them.

    Whoever asks needs the token, as ``Authorization: Bearer``; it is printed, or taken from FLOW_VIZ_TOKEN.
    """
    from flow_monitor.access import choose_token
    from flow_monitor.export.prometheus import render, server

    with open_database(database or _DEFAULT) as opened:
        if listen is None:
            with opened.connect() as connection:
                click.echo(render(connection), nl=False)
            return
        token = choose_token(listen, no_token)
        serving = server(opened, listen, port, token)
        asked = "" if token is None else f"?token={token}"
        say(f"metrics on http://{listen}:{serving.server_address[1]}/metrics{asked}")
        try:
            serving.serve_forever()
        except KeyboardInterrupt:
            serving.server_close()


_DEFAULT = "runinfo/monitoring.db"


@contextmanager
def _chosen(run: str, database: str | None) -> Iterator[tuple[Connection, str]]:
    """Give a connection and the id of the run that is meant."""
    with open_database(database or _DEFAULT) as opened, opened.connect() as connection:
        ids = _found(connection, run)
        if not ids:
            raise click.ClickException(f"there is no run {run!r} in {opened.name}")
        if run and len(ids) > 1 and run not in ids:
            raise click.ClickException(
                f"{run!r} is the number, or the begin of the ids, of several runs: {printable(', '.join(ids[:5]))}"
            )
        yield connection, run if run in ids else ids[0]


def _found(connection: Connection, run: str) -> list[str]:
    """Return the ids of the runs that are meant: of that number, or whose id begins so."""
    if run.isdecimal():
        numbered = workflows.page(connection, limit=1000).items
        name = f"{int(run):03d}"
        ids = [one.run_id for one in numbered if Path(one.rundir or "").name == name]
        if ids:
            return ids
    found = [one.run_id for one in workflows.page(connection, search=run, limit=1000).items]
    return [run_id for run_id in found if run_id.startswith(run)]

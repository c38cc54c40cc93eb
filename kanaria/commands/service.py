"""`kanaria service`: a systemd unit that restarts the stack after a reboot."""

from typing import Annotated

import typer

from kanaria.errors import SetupError
from kanaria.settings import Settings
from kanaria.stack.systemd import Service
from rollout.ui.cli import explained
from rollout.ui.cli.reading import stable_version

app = typer.Typer(help="Manage a systemd unit that restarts the stack after a reboot.", no_args_is_help=True)

SystemOption = Annotated[bool, typer.Option("--system", help="A unit of the machine instead of this user's.")]
NameOption = Annotated[str, typer.Option("--name", help="Name of the unit. Each state folder needs its own.")]


@app.command()
def install(
    system: SystemOption = False,
    name: NameOption = "kanaria",
    show: Annotated[bool, typer.Option("--print", help="Only print the unit.")] = False,
) -> None:
    """Write the unit for this state folder, and print what to run next."""
    with explained():
        service = Service(Settings(), name, is_system=system)
        if show:
            typer.echo(service.text(), nl=False)
            return
        if stable_version(service.settings.ledger) is None:
            raise SetupError(
                "there is no version to serve yet",
                saw="no stable version in the ledger",
                do="start the stack once: `kanaria up TAG`",
            )
        service.install()
        typer.echo(f"written: {service.path}")
        typer.echo("next:")
        typer.echo(f"  {service.command('daemon-reload')}")
        typer.echo(f"  {service.command('enable --now')}    # takes over running processes")
        if not system:
            typer.echo("  sudo loginctl enable-linger $USER    # or it starts only when you log in")


@app.command()
def uninstall(system: SystemOption = False, name: NameOption = "kanaria") -> None:
    """Remove the unit."""
    with explained():
        service = Service(Settings(), name, is_system=system)
        if service.uninstall():
            typer.echo(f"removed: {service.path}\nnext:\n  {service.command('daemon-reload')}")
        else:
            typer.echo(f"there is no {service.path}")


@app.command()
def status(system: SystemOption = False, name: NameOption = "kanaria") -> None:
    """Show whether the unit exists, starts at boot and runs."""
    with explained():
        service = Service(Settings(), name, is_system=system)
        if not service.path.exists():
            typer.echo(f"there is no {service.path}")
            raise typer.Exit(1)
        typer.echo(f"unit:    {service.path}")
        typer.echo(f"at boot: {service.asked('is-enabled')}")
        typer.echo(f"now:     {service.asked('is-active')}")

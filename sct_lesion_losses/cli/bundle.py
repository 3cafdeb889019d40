"""`sct_lesion_bundle`: what bundles there are, what is in one, whether it is whole; archives."""

from __future__ import annotations

import logging
from pathlib import Path

import click

from sct_lesion_losses.cli.parser import (
    FAILED,
    FILE,
    FOLDER,
    SWITCH,
    command,
    option,
)

logger = logging.getLogger(__name__)

NAME = "sct_lesion_bundle"
ACTIONS = ("list", "info", "verify", "export", "import")
COLUMNS = ("name", "version", "threshold", "kind", "loss", "folder")
HELP = (
    "Look after model bundles. list: name, threshold and folder of every bundle found, as a TSV. "
    "info: the model card of one, with the curve of its threshold. verify: check hashes, schema "
    "and network of one bundle, or of all. export: write one to a zip file. import: check a zip "
    "file and unpack the bundle in it."
)


@command(NAME, HELP)
@click.argument("action", type=click.Choice(ACTIONS), metavar="{" + ",".join(ACTIONS) + "}")
@click.argument("bundle", required=False, metavar="[<bundle>]")
@option("-o", "out", FILE, "Zip file of export.", shown="<bundle>.zip in the current folder")
@option(
    "-ofolder",
    "folder",
    FOLDER,
    "Folder in which import makes the folder of the bundle.",
    shown="~/.local/share/sct_lesion_losses/bundles",
)
@option("-force", "force", SWITCH, "Replace a zip file or bundle that exists.", default=False)
def main(
    action: str,
    bundle: str | None,
    out: Path | None,
    folder: Path | None,
    force: bool,
) -> int:
    """Do one of the actions."""
    _check_usage(action, bundle, out, folder)
    if action == "list":
        return _list()
    if action == "verify":
        return _verify(bundle)
    if action == "info":
        return _info(str(bundle))
    if action == "export":
        return _export(str(bundle), out, force)
    return _import(Path(str(bundle)), folder, force)


def _check_usage(action: str, bundle: str | None, out: Path | None, folder: Path | None) -> None:
    needed = {"info": "a bundle", "export": "a bundle", "import": "a zip file"}
    if action in needed and not bundle:
        raise click.UsageError(f"{action} needs {needed[action]}: {NAME} {action} <bundle>")
    if action == "list" and bundle:
        raise click.UsageError(f"list takes no bundle; {NAME} info {bundle} shows that one")
    if out is not None and action != "export":
        raise click.UsageError(f"-o belongs to export, not to {action}")
    if folder is not None and action != "import":
        raise click.UsageError(f"-ofolder belongs to import, not to {action}")


def _list() -> int:
    from sct_lesion_losses.bundle import store

    found = store.available()
    click.echo("\t".join(COLUMNS))
    rows = [_row(name, folder) for name, folder in found.items()]
    for row in rows:
        if row:
            click.echo("\t".join(row))
    if not found:
        logger.warning(
            "no bundle found in the package, $%s and your own folder; see %s import",
            store.VARIABLE,
            NAME,
        )
    return 0 if all(rows) else FAILED


def _row(name: str, folder: Path) -> list[str]:
    """Line of the table for one bundle; empty, with a warning, where it cannot be read."""
    from sct_lesion_losses.bundle import check, schema
    from sct_lesion_losses.errors import BundleError

    try:
        info = schema.parse(check.read_file(folder / check.INFO), f"{name}/{check.INFO}")
    except BundleError as error:
        logger.warning("left out: %s", error)
        return []
    point = info.operating_point
    return [name, info.version, f"{point.threshold:g}", point.kind, info.loss.name, str(folder)]


def _info(name: str) -> int:
    from sct_lesion_losses.bundle import check, store

    folder = store.find(name)
    store.load(name)  # the card is shown of a bundle that is whole
    click.echo(check.read_file(folder / check.CARD).decode(), nl=False)
    return 0


def _verify(name: str | None) -> int:
    from sct_lesion_losses.bundle import store
    from sct_lesion_losses.errors import BundleError

    folders = store.available() if name is None else {name: store.find(name)}
    if not folders:
        raise BundleError(f"there is no bundle to verify; see {NAME} import")
    whole = [_is_whole(shown, folder) for shown, folder in folders.items()]
    return 0 if all(whole) else FAILED


def _is_whole(shown: str, folder: Path) -> bool:
    from sct_lesion_losses.bundle import check
    from sct_lesion_losses.errors import BundleError

    try:
        check.verify(folder)
    except BundleError as error:
        click.echo(f"{shown}: FAILED")
        click.echo(f"{NAME}: error: {error}", err=True)
        return False
    click.echo(f"{shown}: OK")
    return True


def _export(name: str, out: Path | None, force: bool) -> int:
    from sct_lesion_losses.bundle import archive, store
    from sct_lesion_losses.errors import OutputError

    folder = store.find(name)
    target = out if out is not None else Path(f"{folder.resolve().name}.zip")
    if target.exists() and not force:
        raise OutputError(
            f"{target}: exists; choose another name with -o, or replace it with -force 1"
        )
    archive.pack(folder, target)
    click.echo(target)
    return 0


def _import(path: Path, folder: Path | None, force: bool) -> int:
    from sct_lesion_losses.bundle import archive, store

    into = folder if folder is not None else store.personal_folder()
    target = archive.unpack(path, into, overwrite=force)
    click.echo(target)
    if into not in store.search_folders():
        logger.info("to find it by name, list its parent folder in $%s", store.VARIABLE)
    return 0

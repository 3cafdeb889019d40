"""`sct_lesion_bundle`: list, show, verify, export and import model bundles."""

from __future__ import annotations

import logging
from pathlib import Path

import click

from sct_lesion_losses.cli import options, talk
from sct_lesion_losses.cli.parser import FAILED, command, option
from sct_lesion_losses.errors import BundleError, OutputError

logger = logging.getLogger(__name__)

NAME = "sct_lesion_bundle"
ACTIONS = ("list", "info", "verify", "export", "import", "average")
NEEDED = {"info": "a bundle", "export": "a bundle", "import": "a zip file"}
COLUMNS = ("name", "version", "threshold", "kind", "loss", "folder")


@command(
    NAME,
    help="Look after model bundles. list: name, threshold and folder of every bundle found, as a "
    "TSV. info: the model card of one, with the curve of its threshold. verify: check hashes, "
    "schema and network of one bundle, or of all. export: write one to a zip file. import: check a "
    "zip file and unpack the bundle in it. average: write the bundle of the mean weights of "
    "several, of one training at several epochs or of one start.",
)
@click.argument("action", type=click.Choice(ACTIONS), metavar="{" + ",".join(ACTIONS) + "}")
@click.argument("bundles", nargs=-1, metavar="[<bundle> ...]")
@option("-o <file>", "Zip file of export.", dest="out", shown="<bundle>.zip in the current folder")
@option(
    "-ofolder <folder>",
    "Folder in which import makes the folder of the bundle; of average, the bundle to write.",
    dest="folder",
    shown="~/.local/share/sct_lesion_losses/bundles for import",
)
@option("-force {0,1}", "Replace a zip file or bundle that exists.")
def main(
    action: str, bundles: tuple[str, ...], out: Path | None, folder: Path | None, force: bool
) -> int:
    """Do one of the actions."""
    if out is not None and action != "export":
        raise click.UsageError(f"-o belongs to export, not to {action}")
    if folder is not None and action not in ("import", "average"):
        raise click.UsageError(f"-ofolder belongs to import and average, not to {action}")
    if action == "average":
        return _average(bundles, folder, force)
    if len(bundles) > 1:
        raise click.UsageError(f"{action} takes one bundle, not {len(bundles)}")
    bundle = bundles[0] if bundles else None
    if action == "list":
        if bundle:
            raise click.UsageError(f"list takes no bundle; {NAME} info {bundle} shows that one")
        return _list()
    if action == "verify":
        return _verify(bundle)
    if not bundle:
        raise click.UsageError(f"{action} needs {NEEDED[action]}: {NAME} {action} <bundle>")
    from sct_lesion_losses.bundle import archive, check, store

    if action == "info":
        folder = store.find(bundle)
        store.load(bundle)  # the card is shown of a bundle that is whole
        click.echo(check.read_file(folder / check.CARD).decode(), nl=False)
    elif action == "export":
        source = store.find(bundle)
        target = out or Path(f"{source.resolve().name}.zip")
        if target.exists() and not force:
            raise OutputError(
                f"{target}: exists; choose another name with -o, or replace it with -force 1"
            )
        archive.pack(source, target)
        click.echo(target)
    else:
        into = folder or store.personal_folder()
        click.echo(archive.unpack(Path(bundle), into, overwrite=force))
        if into not in store.search_folders():
            logger.info("to find it by name, list its parent folder in $%s", store.VARIABLE)
    return 0


def _average(bundles: tuple[str, ...], into: Path | None, force: bool) -> int:
    """Write the mean of several bundles, and print its folder."""
    if into is None:
        raise click.UsageError("average writes a new bundle: name its folder with -ofolder")
    options.training(options.chosen_device({"backend": None, "device": "cpu", "threads": None}))
    from sct_lesion_losses.workflows import average

    click.echo(average.average(bundles, into, force, talk.command_line()))
    return 0


def _list() -> int:
    """Print a line for every bundle, and warn of those that cannot be read."""
    from sct_lesion_losses.bundle import check, schema, store

    found = store.available()
    status = 0
    click.echo("\t".join(COLUMNS))
    for name, folder in found.items():
        try:
            info = schema.parse(check.read_file(folder / check.INFO), f"{name}/{check.INFO}")
        except BundleError as error:
            logger.warning("left out: %s", error)
            status = FAILED
            continue
        point = info.operating_point
        row = (name, info.version, f"{point.threshold:g}", point.kind, info.loss.name, str(folder))
        click.echo("\t".join(row))
    if not found:
        logger.warning(
            "no bundle found in the package, $%s and your own folder; see %s import",
            store.VARIABLE,
            NAME,
        )
    return status


def _verify(bundle: str | None) -> int:
    """Check one bundle or all, and print a line for each."""
    from sct_lesion_losses.bundle import check, store

    folders = store.available() if bundle is None else {bundle: store.find(bundle)}
    if not folders:
        raise BundleError(f"there is no bundle to verify; see {NAME} import")
    status = 0
    for name, folder in folders.items():
        found = "OK"
        try:
            check.verify(folder)
        except BundleError as error:
            click.echo(f"{NAME}: error: {error}", err=True)
            found, status = "FAILED", FAILED
        click.echo(f"{name}: {found}")
    return status

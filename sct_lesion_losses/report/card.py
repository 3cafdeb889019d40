"""The model card of a bundle: what `bundle.json` holds, for a person to read.

References
----------
Mitchell et al. 2019, "Model Cards for Model Reporting"
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from sct_lesion_losses.bundle.schema import (
    BundleInfo,
    Epoch,
    LesionPoint,
    Metric,
    OperatingPoint,
    Recipe,
    SctPreparation,
    StudyPreparation,
)
from sct_lesion_losses.report import tables
from sct_lesion_losses.report.figures.style import counted

DISCLAIMER = "Research software, not a medical device: not for diagnosis or treatment."
_UNDEFINED = "-"
_ROWS = 25  # rows of the training's curves, about
_BAR_LENGTH = 40  # characters of the longest bar


def text(info: BundleInfo) -> str:
    """Model card in Markdown.

    Parameters
    ----------
    info : BundleInfo

    Returns
    -------
    str
        The same for the same `info`; every number in it is one of `info`.
    """
    return "\n\n".join(block for block in _blocks(info) if block) + "\n"


def _blocks(info: BundleInfo) -> Iterator[str]:
    yield f"# {info.name} {info.version}"
    yield _summary(info)
    yield f"**{DISCLAIMER}**"
    yield f"## Intended use\n\n{info.intended_use}"
    yield "## Limits\n\n" + "\n".join(f"- {limit}" for limit in info.limits)
    yield f"## Trained on\n\n{_trained_on(info)}"
    yield f"## Preparation of a scan\n\n{_preparation(info.preparation)}"
    if info.recipe is not None:
        yield f"## Training\n\n{_training(info.recipe, info.history)}"
    yield f"## Decision threshold\n\n{_operating_point(info.operating_point)}"
    yield f"## Reached on scans neither trained nor tuned on\n\n{_metrics(info.metrics)}"
    yield f"## Reproduce\n\n{_reproduce(info)}"
    yield f"## Use\n\n```\nsct_deepseg_lesion_tuned -i t2.nii.gz -bundle {info.name}\n```"


def _summary(info: BundleInfo) -> str:
    settings = _pairs(info.loss.numbers)
    network = info.network
    size = f", {network.parameters:,} parameters" if network.parameters is not None else ""
    filters = f", filters {'-'.join(map(str, network.filters))}" if network.filters else ""
    made = f" Made on {info.created.isoformat()}." if info.created is not None else ""
    return (
        f"Lesions on spinal cord MRI by a network of the kind `{network.architecture}`"
        f"{filters}{size}, trained with the loss `{info.loss.name}` ({settings or 'its defaults'})."
        + made
    )


def _trained_on(info: BundleInfo) -> str:
    parts = ", ".join(f"{n} {part}" for part, n in info.provenance.scans.items())
    lines = [info.provenance.data, f"Scans: {parts}." if parts else ""]
    if info.provenance.ancestor is not None:
        ancestor = info.provenance.ancestor
        if info.operating_point.site is None:
            lines.append(f"The training started from the weights of {ancestor}.")
        else:
            lines.append(f"Nothing was trained anew: the weights are those of {ancestor}.")
    return "\n\n".join(line for line in lines if line)


def _preparation(preparation: StudyPreparation | SctPreparation) -> str:
    grid = (
        f"RPI at {preparation.spacing_mm:g} mm, {preparation.window_vox} x "
        f"{preparation.window_vox} voxels around the centerline, patches of "
        f"{preparation.patch_vox} voxels along z"
    )
    if isinstance(preparation, SctPreparation):
        return (
            f"{grid}; intensities as SCT's `{preparation.contrast}` lesion model wants them, "
            f"less {preparation.mean:g}, divided by {preparation.std:g}."
        )
    landmarks = zip(preparation.percentiles, preparation.landmarks, strict=True)
    shown = ", ".join(f"{percentile:g} % to {value:.1f}" for percentile, value in landmarks)
    return (
        f"{grid} that overlap by {preparation.overlap:.0%}; intensity percentiles mapped to the "
        f"landmarks of the training scans ({shown}); each patch to zero mean and unit standard "
        "deviation."
    )


def _training(recipe: Recipe, history: tuple[Epoch, ...]) -> str:
    lines = [
        f"{recipe.optimiser}, rate {recipe.rate:g}, batches of "
        f"{recipe.batch_size} patch{'es' if recipe.batch_size > 1 else ''}, "
        f"{recipe.precision}",
        f"{counted(recipe.epochs_run, 'epoch')} run of {recipe.epochs_planned} planned",
    ]
    if recipe.best_epoch is not None:
        lines.append(f"weights of epoch {recipe.best_epoch}, the best by `{recipe.monitor}`")
    if recipe.patience is not None:
        lines.append(
            f"rate multiplied by {recipe.rate_factor:g} after "
            f"{counted(recipe.patience, 'epoch')} without a better one"
        )
    lines.append(f"augmentation: {', '.join(recipe.augmentations) or 'none'}")
    best = next((line for line in history if line.epoch == recipe.best_epoch), None)
    if best is not None:
        loss, val_loss = _number(best.loss), _number(best.val_loss)
        lines.append(f"loss {loss}, validation loss {val_loss} at that epoch")
    if recipe.minutes is not None:
        lines.append(
            f"{counted(round(recipe.minutes), 'minute')} on {recipe.device or 'an unnamed device'}"
        )
    listed = "\n".join(f"- {line}" for line in lines)
    return f"{listed}\n\n{learning(history)}" if history else listed


def learning(history: tuple[Epoch, ...]) -> str:
    """Return the training's curves as a text table with a bar for the validation loss.

    At most about 25 epochs, evenly apart; the last and the best, marked by `*`, are among them. The
    bar's length is the share of the largest validation loss shown.
    """
    known = [line for line in history if line.val_loss is not None]
    best = min(known, key=lambda line: line.val_loss or 0.0, default=None)
    step = -(-len(history) // _ROWS)
    shown = [
        line
        for k, line in enumerate(history)
        if k % step == 0 or line is history[-1] or line is best
    ]
    top = max((line.val_loss for line in shown if line.val_loss is not None), default=0.0)
    rows = ["epoch    loss  validation    rate"]
    for line in shown:
        share = line.val_loss / top if line.val_loss is not None and top > 0 else 0.0
        rate = _UNDEFINED if line.rate is None else f"{line.rate:.2g}"
        mark = "*" if line is best else ""
        row = f"{line.epoch:>5}  {_number(line.loss):>6}  {_number(line.val_loss):>10}  {rate:>6}  "
        rows.append(f"{row}{'█' * round(max(share, 0.0) * _BAR_LENGTH)} {mark}".rstrip())
    return "```\n" + "\n".join(rows) + "\n```"


def _operating_point(point: OperatingPoint) -> str:
    if point.kind == "untuned":
        return (
            f"{point.threshold:g}, untuned: no scan was used to choose it. `sct_tune_lesion` "
            "chooses one."
        )
    first = (
        f"**{point.threshold:g}**, chosen for the best `{point.objective}`{_numbers(point)} on "
        f"{counted(point.n_scans, 'scan')} of {counted(point.n_subjects, 'subject')}."
    )
    if point.data:
        first += f" {point.data}"
    lines = []
    if point.interval is not None:
        low, high = point.interval
        lines.append(f"95 % bootstrap interval over subjects: {low:g} to {high:g}")
    elif point.n_subjects == 1:
        lines.append("no interval: one subject")
    if point.plateau is not None:
        low, high = point.plateau
        lines.append(f"within 2 % of the best from {low:g} to {high:g}")
    minus, plus = map(_number, point.loss_at_pm_0_05)
    lines.append(f"lost 0.05 below: {minus}; 0.05 above: {plus}")
    lines.append(f"leave-one-subject-out: {_number(point.leave_one_out)}")
    if point.centerline:
        by = "the cohort's own" if point.centerline == "cohort" else f"`{point.centerline}`"
        lines.append(f"centerline of the scans, here and below: {by}")
    lines += [f"warning: {warning}" for warning in point.warnings]
    blocks = [first, _site(point), "\n".join(f"- {line}" for line in lines), curve(point)]
    if point.lesions is not None:
        blocks.append(_lesion_point(point.lesions))
    return "\n\n".join(block for block in blocks if block)


def _site(point: OperatingPoint) -> str:
    site = point.site
    if site is None:
        return ""
    return (
        f"These are scans of the site `{site.name}`. The curve is theirs, with the weight "
        f"{site.weight:.2f}, and that of the scans that the bundle was tuned on before, with the "
        f"rest. Theirs alone is best at {site.local_threshold:g}, the other at "
        f"{site.shipped_threshold:g}, where the site's scans reach "
        f"{_number(site.held_out_shipped)}; each at a threshold chosen without its subject, "
        f"{_number(point.leave_one_out)}."
    )


def _lesion_point(point: LesionPoint) -> str:
    scans = f"{counted(point.n_scans, 'scan')} with lesions and {point.n_lesion_free} without"
    asked = f", P-specificity {point.specificity_asked:g} or more" * (point.specificity_asked > 0)
    lines = [
        f"median L-F1 {_number(point.f1)}, without it {_number(point.f1_unfiltered)}",
        f"P-specificity {_number(point.specificity)}, without it "
        f"{_number(point.specificity_unfiltered)}",
        f"median L-F1, leave-one-subject-out: {_number(point.leave_one_out)}",
    ]
    curve = point.froc
    rows = ["least peak  L-sensitivity  false lesions a scan"]
    for peak, found, false in zip(curve.peaks, curve.sensitivity, curve.false_lesions, strict=True):
        mark = "*" if abs(peak - point.peak) < 1e-9 else ""
        rows.append(f"{peak:>10g}  {found:>13.3f}  {false:>20.2f} {mark}".rstrip())
    return "\n\n".join(
        [
            "With `-lesion_point 1`, predicted lesions are kept if their highest probability is at "
            f"least **{point.peak:g}** and their volume at least **{point.volume_mm3:g} mm³**, "
            f"chosen on {scans} for the best L-F1 by the rule `{point.preset}`{asked}:",
            "\n".join(f"- {line}" for line in lines),
            "Lesions found and false ones by the least peak alone:",
            "```\n" + "\n".join(rows) + "\n```",
        ]
    )


def _numbers(point: OperatingPoint) -> str:
    """Numbers of the objective, in brackets."""
    found = {"beta": point.beta, "preset": point.preset, "P-specificity >=": point.specificity}
    shown = [f"{name} {value}" for name, value in found.items() if value]
    return f" ({', '.join(shown)})" if shown else ""


def curve(point: OperatingPoint) -> str:
    """Return the sweep as a text table, worst and best scan beside it; `*` marks the choice."""
    width = max(len(point.objective), 9)
    rows = [f"threshold  {point.objective:>{width}}  worst scan  best scan"]
    for i, (threshold, value) in enumerate(zip(point.thresholds, point.curve, strict=True)):
        scans = [scan.values[i] for scan in point.per_scan]
        known = [score for score in scans if score is not None]
        low, high = (min(known), max(known)) if known else (None, None)
        mark = "*" if abs(threshold - point.threshold) < 1e-9 else ""
        row = f"{threshold:>9.2f}  {_number(value):>{width}}  {_number(low):>10}"
        rows.append(f"{row}  {_number(high):>9} {mark}".rstrip())
    return "```\n" + "\n".join(rows) + "\n```"


def _metrics(metrics: Mapping[str, Metric]) -> str:
    if not metrics:
        return "Not measured."
    rows = ["| measure | value | 95 % interval | n | |", "| --- | --- | --- | --- | --- |"]
    for name, metric in metrics.items():
        known = metric.low is not None and metric.high is not None
        interval = f"{_number(metric.low)} to {_number(metric.high)}" if known else tables.UNKNOWN
        n = _UNDEFINED if metric.n is None else str(metric.n)
        cells = (name, _number(metric.value), interval, n, metric.note)
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(rows)


def _reproduce(info: BundleInfo) -> str:
    blocks = []
    if info.provenance.commands:
        blocks.append("```\n" + "\n".join(info.provenance.commands) + "\n```")
    facts = {
        "git commit": info.git_commit or "",
        "split": info.split_hash or "",
        "seeds": _pairs(info.seeds),
        "packages": ", ".join(f"{name} {version}" for name, version in info.packages.items()),
    }
    blocks.append("\n".join(f"- {name}: {value}" for name, value in facts.items() if value))
    return "\n\n".join(block for block in blocks if block) or "No command was recorded."


def _pairs(table: Mapping[str, object]) -> str:
    return ", ".join(f"{name} = {value}" for name, value in table.items())


def _number(value: float | None) -> str:
    return _UNDEFINED if value is None else f"{value:.3f}"

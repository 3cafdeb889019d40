"""The page of masks: its entries, and how it behaves in a browser."""

import base64
import json
import re
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from browser import Browser
from scipy import ndimage
from small_data import simulate

from sct_lesion_losses import phantom
from sct_lesion_losses.bundle import store
from sct_lesion_losses.cli.rethreshold import main as rethreshold
from sct_lesion_losses.cli.segment import main as segment
from sct_lesion_losses.errors import DataError
from sct_lesion_losses.geometry.centerline import Centerline
from sct_lesion_losses.images import atomic, nifti, outputs
from sct_lesion_losses.metrics import lesionwise
from sct_lesion_losses.phantom.dataset import centerline_mask, write_nifti
from sct_lesion_losses.report import qc_page
from sct_lesion_losses.report.sidecar import Filtered, Found, Segmentation
from sct_lesion_losses.thresholds.lesion_filter import Filter, mask_at

THRESHOLD = 0.4


def segmented(folder: Path, name: str, seed: int, **changes: Any) -> tuple[Any, ...]:
    """Arguments of `entry`: a simulated scan in a folder, its true lesions, blurred, as p-map."""
    made = phantom.make_scan(seed, lesions=changes.pop("lesions", True), preset="tiny")
    write_nifti(folder / f"{name}.nii.gz", made.image, made.grid)
    scan = nifti.read(folder / f"{name}.nii.gz")
    pmap = np.clip(ndimage.gaussian_filter(np.float32(made.lesion), 0.7), 0, 1)
    rpi, turn = made.grid.to_rpi()
    line = Centerline.from_mask(turn.apply(centerline_mask(made.centerline, made.grid)), rpi)
    rule = changes.pop("rule", None)
    mask, *counts = mask_at(pmap, THRESHOLD, scan.grid.voxel_volume_mm3, rule)
    own = outputs.for_scan(scan.path, folder=folder)
    result = Segmentation(
        (own.mask, own.pmap, own.sidecar),
        mask,
        pmap,
        Found.of(lesionwise.components(mask), pmap, scan.grid),
        threshold=THRESHOLD,
        tuned_threshold=THRESHOLD,
        centerline=line,
        engine="none",
        warnings=(),
        filtered=rule and Filtered(rule, THRESHOLD, *counts),
    )
    return scan, replace(result, **changes), store.load("default"), own


def stored(folder: Path, name: str, seed: int, **changes: Any) -> Path:
    """File of the entry of such a scan, beside its p-map."""
    made = segmented(folder, name, seed, **changes)
    scan, result, _, own = made
    if result.pmap is not None:
        nifti.write(own.pmap, result.pmap, scan, np.float32)
    file = folder / f"{name}_page.json"
    atomic.write_json(file, qc_page.entry(*made))
    return file


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Entries of three scans: with lesions, without one and warned of, and with lesions."""
    folder = tmp_path_factory.mktemp("page")
    warned = {"lesions": False, "warnings": ("the mask is empty </script> & so on",)}
    return [
        stored(folder, "sub-10_T2w", 4),
        stored(folder, "sub-02_T2w", 5, **warned),
        stored(folder, "sub-01_T2w", 6, rule=Filter(0.2, 8.0)),
    ]


def named(row: list[str]) -> dict[str, str]:
    """A row of the page's lesion table by its columns."""
    return {column.name: text for column, text in zip(qc_page.COLUMNS, row, strict=True)}


def planes(entry: dict[str, Any]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Grey values, p-map in 1/255 and mask of an entry, as the page decodes them."""
    held = entry["picture"]
    _, text = held["grey"].split(",")
    grey = cv2.imdecode(np.frombuffer(base64.b64decode(text), np.uint8), cv2.IMREAD_GRAYSCALE)
    values = np.frombuffer(zlib.decompress(base64.b64decode(held["values"])), np.uint8)
    p, bits = values[: grey.size], np.unpackbits(values[grey.size :])
    return grey, p.reshape(grey.shape), bits[: grey.size].reshape(grey.shape)


def test_the_pictures_hold_every_lesion_and_what_a_mask_would_hold_at_a_threshold(files) -> None:
    entry = json.loads(files[0].read_text())
    grey, p, mask = planes(entry)
    assert grey.shape[1] == 48
    assert np.array_equal(p >= np.ceil(255 * THRESHOLD), mask.astype(bool))
    numbers = {number for one in entry["picture"]["axial"] for number in one["lesions"]}
    assert numbers == set(range(1, entry["lesions"] + 1))
    table = [named(row) for row in entry["picture"]["table"]]
    assert [row["lesion"] for row in table] == [str(n) for n in sorted(numbers)]
    assert {row["level"] for row in table} == {"n/a"}
    assert {row["side"] for row in table} <= {"left", "right", "both"}
    heights = [one["mm"] for one in entry["picture"]["axial"]]
    assert heights == sorted(heights, reverse=True)  # from the head
    # From the side, a row of the crop has lesion where the slice has.
    rows = [len(mask) - 1 - one["z"] for one in entry["picture"]["axial"]]
    lesions = [bool(one["lesions"]) for one in entry["picture"]["axial"]]
    assert [bool(mask[row].any()) for row in rows] == lesions


@pytest.mark.parametrize("threshold", [0.4, 0.437])
def test_under_a_filter_the_contour_is_of_the_lesions_that_it_keeps(tmp_path, threshold) -> None:
    scan, result, bundle, own = segmented(tmp_path, "t2", 4)
    rule, volume = Filter(0.7, 8.0), scan.grid.voxel_volume_mm3
    labels = lesionwise.components(result.pmap >= 0.01)
    assert labels.max() > 1
    pmap = np.where(labels == labels.max(), np.float32(0.6) * result.pmap, result.pmap)
    masks = {}
    for cut in (0.2, threshold, 0.6, 0.9):
        mask, *counts = masks[cut] = mask_at(pmap, cut, volume, rule)
        filtered = Filtered(rule, threshold, *counts)
        made = replace(result, pmap=pmap, mask=mask, filtered=filtered, threshold=threshold)
        _, levels, written = planes(qc_page.entry(scan, made, bundle, own))
        assert np.array_equal(levels + 0.5 >= cut * 255, written.astype(bool))
    assert [removed > 0 for _, _, removed in masks.values()][:2] == [True, True]
    assert masks[0.2][0].any()


def test_a_filter_that_keeps_nothing_leaves_no_contour(tmp_path) -> None:
    scan, result, bundle, own = segmented(tmp_path, "t2", 6, rule=Filter(1.0, 8.0))
    made = replace(result, pmap=np.zeros_like(result.pmap))
    assert not planes(qc_page.entry(scan, made, bundle, own))[1].any()


def test_right_is_left_and_front_is_up_in_an_axial_slice_and_left_from_the_side(tmp_path) -> None:
    scan, result, bundle, own = segmented(tmp_path, "t2", 4)
    rpi, turn = scan.grid.to_rpi()
    line = result.centerline.on(rpi)
    pmap = np.zeros(rpi.shape, np.float32)
    z = int(np.median(np.flatnonzero(line.covered)))
    x, y = np.round(line.xy[z]).astype(int)
    step = [max(round(4 / mm), 1) for mm in rpi.spacing_mm]  # 4 mm
    pmap[x - step[0], y + step[1], z] = 1  # to the right (low x of RPI) and to the front
    changed = np.ascontiguousarray(turn.undo(pmap))
    made = replace(result, pmap=changed, mask=changed > 0.5)
    entry = qc_page.entry(scan, made, bundle, own)
    _, p, _ = planes(entry)
    [number] = [k for k, one in enumerate(entry["picture"]["axial"]) if one["lesions"]]
    rows, columns = np.nonzero(p[48 * number : 48 * (number + 1)])
    assert columns.max() < 24  # the patient's right is on the left
    assert rows.max() < 24  # the front is up
    side = p[48 * len(entry["picture"]["axial"]) :]
    rows, columns = np.nonzero(side)
    assert columns.max() < 24  # the front is on the left
    below = entry["picture"]["axial"][number]["z"]
    assert len(side) - 1 - rows.max() <= below <= len(side) - 1 - rows.min()  # the head is up


@pytest.mark.parametrize("rule", [None, Filter(0.5, 3.0)])
def test_the_curve_is_of_the_masks_of_the_whole_scan_at_every_step(tmp_path, rule) -> None:
    scan, result, *_ = segmented(tmp_path, "t2", 6)
    volume = scan.grid.voxel_volume_mm3
    found = qc_page.curve(result.pmap, volume, rule)
    assert len(found["lesions"]) == len(found["mm3"]) == 100
    for k in (0, 4, 39, 59, 89, 99):
        mask, *_ = mask_at(result.pmap, (k + 1) / 100, volume, rule)
        assert found["lesions"][k] == lesionwise.components(mask).max()
        assert found["mm3"][k] == pytest.approx(mask.sum() * volume, abs=0.06)


def test_slices_are_spread_and_lesions_come_first() -> None:
    labels, p = np.zeros((4, 4, 400), np.int32), np.zeros((4, 4, 400), np.float32)
    assert len(qc_page.axial_slices(labels, p)) == qc_page.AXIAL_SLICES
    for number in range(30):
        labels[0, 0, 10 * number : 10 * number + 2] = number + 1
    chosen = qc_page.axial_slices(labels, p)
    assert chosen == [10 * number for number in reversed(range(qc_page.MOST_AXIAL_SLICES))]
    p[1, 1, 395] = qc_page.FAINT
    assert 395 in qc_page.axial_slices(np.zeros_like(labels), p)


@pytest.mark.parametrize(("length", "chosen"), [(1, [0]), (10, [4])])
def test_a_short_scan_without_lesion_has_its_middle_slice(length, chosen) -> None:
    empty = np.zeros((4, 4, length), np.float32)
    assert qc_page.axial_slices(empty.astype(np.int32), empty) == chosen


def test_without_a_mask_the_page_begins_at_the_tuned_threshold(tmp_path) -> None:
    made = segmented(tmp_path, "t2", 4, mask=None, found=None, threshold=None)
    entry = qc_page.entry(*made)
    assert (entry["mask"], entry["threshold"]) == (None, THRESHOLD)
    assert entry["lesions"] == qc_page.entry(*segmented(tmp_path, "t2", 4))["lesions"] > 0


def test_under_the_rule_of_sct_there_is_no_pmap_to_draw(tmp_path) -> None:
    made = segmented(tmp_path, "t2", 4, pmap=None, threshold=None)
    entry = qc_page.entry(*made)
    assert (entry["pmap"], entry["curve"], entry["peak"]) == (None, None, None)
    row = named(entry["picture"]["table"][0])
    assert (row["mean_p"], row["highest_p"]) == ("n/a", "n/a")
    _, p, mask = planes(entry)
    assert mask.any()
    assert not p.any()


def test_an_entry_has_no_path_and_another_one_another_digest(files) -> None:
    first, second = (json.loads(file.read_text()) for file in files[:2])
    assert str(files[0].parent) not in files[0].read_text()
    assert first["digest"] != second["digest"]


def test_marks_outlive_a_kept_pmap_and_a_warning_but_no_other_mask(tmp_path) -> None:
    scan, result, bundle, own = segmented(tmp_path, "t2", 4)
    changes = [{}, {"written": (own.mask,), "warnings": ("dark",)}, {"threshold": 0.5}]
    changes.append({"pmap": result.pmap / 2})
    first, more, *others = (
        qc_page.entry(scan, replace(result, **change), bundle, own)["digest"] for change in changes
    )
    assert first == more
    assert first not in others


def test_the_page_asks_for_nothing_and_no_text_becomes_markup(files, tmp_path) -> None:
    page = tmp_path / "<b>.html"
    qc_page.write(page, files)
    text = page.read_text()
    assert not re.findall(r"(?:src|href)\s*=\s*[\"']|https?://|@import|url\(", text)
    assert text.count("</script>") == 2 + len(files)
    assert "<title>&lt;b&gt;</title>" in text


def test_files_are_named_as_seen_from_the_page(files, tmp_path) -> None:
    page = files[0].parent.parent / "elsewhere" / "page.html"
    qc_page.write(page, files[:1])
    assert (
        f'"pmap":"../{files[0].parent.name}/sub-10_T2w_lesionseg_pmap.nii.gz"' in page.read_text()
    )


@pytest.mark.parametrize("text", ["no JSON", "[]", '{"format": 0}', '{"format": 3}'])
def test_what_is_no_entry_is_refused(tmp_path, text) -> None:
    (tmp_path / "entry.json").write_text(text)
    with pytest.raises(DataError, match=r"entry\.json: .*segment"):
        qc_page.write(tmp_path / "page.html", [tmp_path / "entry.json"])
    assert not (tmp_path / "page.html").exists()


@pytest.mark.slow
def test_a_run_writes_the_page_of_its_scans_those_done_before_included(tmp_path, capsys) -> None:
    anat = [tmp_path / "data" / f"sub-0{number}" / "anat" for number in (1, 2, 3)]
    for number, folder in enumerate(anat, start=1):
        simulate(folder / f"sub-0{number}_T2w.nii.gz", 3 + number)
    (anat[2] / "sub-03_T2w.nii.gz").write_bytes(b"no image")
    page = tmp_path / "page.html"
    args = ["-i", str(tmp_path / "data"), "-qc_page", str(page), "-v", "0"]
    assert segment(args) == 1  # of the third
    assert capsys.readouterr().out.splitlines()[-1] == str(page)
    first = page.read_text()
    _, text = first.split('id="page">')
    facts = json.loads(text.split("</script>")[0])
    [[name, error]] = facts["failed"]
    assert name == "sub-03/anat/sub-03_T2w.nii.gz"
    assert error
    assert str(tmp_path) not in first
    listed = facts["scans"]
    assert [scan["name"] for scan in listed] == ["sub-01_T2w.nii.gz", "sub-02_T2w.nii.gz"]
    assert all((tmp_path / scan["mask"]).exists() for scan in listed)
    assert not any((tmp_path / scan["pmap"]).exists() for scan in listed)
    page.unlink()
    assert segment(args) == 1
    assert page.read_text() == first  # warnings, numbers and pictures of the first run


@pytest.mark.slow
def test_without_sct_the_page_takes_the_place_of_its_report(
    tmp_path, monkeypatch, capsys, caplog
) -> None:
    monkeypatch.chdir(tmp_path)
    simulate(tmp_path / "t2.nii.gz", 4)
    assert segment(["-i", "t2.nii.gz", "-qc", "reports/qc", "-v", "0"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "reports/qc/sct_lesion_losses.html"
    assert "sct_qc was not found: the page reports/qc/sct_lesion_losses.html" in caplog.text
    assert "t2.nii.gz" in (tmp_path / "reports" / "qc" / "sct_lesion_losses.html").read_text()
    assert segment(["-i", "t2.nii.gz", "-qc", "qc", "-qc_page", "mine.html", "-v", "0"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "mine.html"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("browser")) as one:
        yield one


@pytest.fixture
def page(browser: Browser, files: list[Path]) -> Iterator[Browser]:
    """The page of the three scans, opened without marks."""
    written = files[0].parent / "page.html"
    qc_page.write(written, files, {"sub-03/sub-03_T2w.nii.gz": "<i>no image</i>"})
    browser.open(written)
    browser.until("document.readyState === 'complete' && document.title === 'page'")
    browser.value("localStorage.clear()")
    reopen(browser)
    yield browser
    assert browser.errors == []


def reopen(page: Browser) -> None:
    page.call("Page.reload")
    page.until("document.readyState === 'complete' && document.body.dataset.shown && seen")


def names(page: Browser) -> list[str]:
    """Scans of the list, from the top."""
    return page.value(
        "[...document.querySelectorAll('#rows .row')].map(row => row.children[0].textContent)"
    )


def shown(page: Browser) -> str:
    page.until("seen && document.body.dataset.shown === scans[at].name")
    return page.value("document.querySelector('h2').textContent")


def choose(page: Browser, control: str, value: object) -> None:
    """Give a control a value as a person would."""
    page.value(
        f"(() => {{ const one = document.getElementById('{control}'); one.value = '{value}';"
        "one.dispatchEvent(new Event('input', {bubbles: true})); })()"
    )
    page.value("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")


@pytest.mark.slow
def test_the_table_of_lesions_shows_words_and_rounded_numbers(page, files) -> None:
    choose(page, "text", "sub-10")
    shown(page)
    cells = "[...document.querySelectorAll('#lesions tbody tr')[0].cells].map(c => c.textContent)"
    row = named(json.loads(files[0].read_text())["picture"]["table"][0])
    seen = named(page.value(cells))
    assert seen["side"] == row["side"] != "n/a"
    assert (seen["level"], row["level"]) == ("–", "n/a")
    assert float(seen["volume_mm3"]) == pytest.approx(float(row["volume_mm3"]), abs=0.005)


def drawn(page: Browser) -> int:
    """Pixels of the axial slices in the colour of the contour."""
    return page.value(
        "(() => { const one = document.getElementById('axial');"
        "const d = one.getContext('2d').getImageData(0, 0, one.width, one.height).data; let n = 0;"
        "for (let k = 0; k < d.length; k += 4) n += d[k] > 200 && d[k + 1] < 130 && d[k + 2] < 120;"
        "return n; })()"
    )


@pytest.mark.slow
def test_the_slider_redraws_the_contour_and_says_what_the_whole_scan_holds(page, files) -> None:
    entry = json.loads(files[2].read_text())
    assert shown(page) == "sub-01_T2w.nii.gz"
    assert page.value("document.getElementById('value').textContent") == "0.40"
    pixels = []
    for k in (5, 40, 80):
        choose(page, "own", k / 100)
        pixels.append(drawn(page))
        number, mm3 = (entry["curve"][name][k - 1] for name in ("lesions", "mm3"))
        said = page.value("document.getElementById('found').textContent")
        assert said.startswith(f"{number} lesion")
        assert f" {round(mm3)} mm³ in the whole scan, after the lesion filter" in said
    assert pixels[0] > pixels[1] > pixels[2] > 0
    choose(page, "own", 1)
    assert drawn(page) == 0
    choose(page, "everywhere", 0.05)  # takes the place of the scan's own
    assert drawn(page) == pixels[0]
    page.value("document.getElementById('as-written').click()")
    assert drawn(page) == pixels[1]
    assert page.value("document.documentElement.scrollWidth") == 1280
    assert {address.split(":")[0] for address in page.requests} <= {"file", "data", "about"}


@pytest.mark.slow
def test_the_list_is_sorted_and_filtered(page) -> None:
    assert names(page) == ["sub-01_T2w", "sub-02_T2w", "sub-10_T2w"]
    said = "document.getElementById('failed').innerText"
    page.value("document.getElementById('failed').open = true")
    failed = ["Failed: 1", "sub-03/sub-03_T2w.nii.gz: <i>no image</i>"]
    assert page.value(said).split("\n") == failed
    choose(page, "by-lesions", "without")
    assert names(page) == ["sub-02_T2w"]
    assert shown(page) == "sub-02_T2w.nii.gz"
    said = "document.getElementById('warnings').textContent"
    assert page.value(said) == "the mask is empty </script> & so on"
    choose(page, "by-lesions", "")
    choose(page, "by-warnings", "with")
    assert names(page) == ["sub-02_T2w"]
    choose(page, "by-warnings", "")
    choose(page, "text", "SUB-10")
    assert names(page) == ["sub-10_T2w"]
    choose(page, "text", "")
    page.value("document.querySelectorAll('#heads button')[2].click()")  # by volume, largest first
    volumes = page.value("shown.map(i => found(i).mm3)")
    assert volumes == sorted(volumes, reverse=True)
    choose(page, "everywhere", 1)
    choose(page, "by-lesions", "with")
    assert names(page) == []
    choose(page, "by-lesions", "")


@pytest.mark.slow
def test_keys_mark_scans_and_the_marks_stay(page) -> None:
    page.press("p")  # and on to the next one
    assert shown(page) == "sub-02_T2w.nii.gz"
    page.press("f")
    assert shown(page) == "sub-10_T2w.nii.gz"
    page.press("ArrowLeft", "ArrowLeft", "t")
    marks = "scans.map((_, i) => marks[i] && [marks[i].is, marks[i].threshold])"
    assert page.value(marks) == [["mine", 0.38], ["fail", None], ["pass", None]]
    assert page.value("document.getElementById('mark').textContent") == "threshold of mine: 0.38"
    page.press("k", "k", "u")  # the last mark goes
    assert shown(page) == "sub-10_T2w.nii.gz"
    assert page.value(marks)[0] is None
    page.press("t", "u", "t")
    reopen(page)
    assert page.value(marks) == [["mine", 0.38], ["fail", None], ["pass", None]]
    choose(page, "by-mark", "fail")
    assert names(page) == ["sub-02_T2w"]
    page.value("document.getElementById('text').focus()")
    page.press("p")  # is a letter there
    assert page.value("document.getElementById('text').value") == "p"
    assert page.value(marks)[1] == ["fail", None]


@pytest.mark.slow
def test_a_mark_under_a_filter_gives_the_place_to_the_next_scan(page) -> None:
    choose(page, "by-mark", "none")
    page.press("j")
    assert shown(page) == "sub-02_T2w.nii.gz"
    page.press("p")
    assert shown(page) == "sub-10_T2w.nii.gz"
    page.call("Input.dispatchKeyEvent", type="keyDown", key="p", text="p", autoRepeat=True)
    marks = "marks.map(mark => mark?.is ?? null)"
    assert page.value(marks) == [None, "pass", None]
    page.value("document.getElementById('by-mark').focus()")
    page.press("f")  # is no choice of the list's
    assert page.value(marks) == ["fail", "pass", None]
    choose(page, "text", "nothing is named so")
    page.press("f")
    assert page.value(marks) == ["fail", "pass", None]


@pytest.mark.slow
def test_fails_and_thresholds_are_exported_and_applied(page, files, capsys) -> None:
    assert page.value("document.getElementById('save-fails').disabled")
    page.press("f", "j")
    assert shown(page) == "sub-10_T2w.nii.gz"
    choose(page, "own", 0.25)
    page.press("t")
    page.value("document.getElementById('save-fails').click()")
    fails = page.downloaded("exclude.yml")
    assert fails == "- sub-01_T2w.nii.gz  # lesions failed: sub-01_T2w_lesionseg.nii.gz\n"
    page.value("document.getElementById('save-thresholds').click()")
    table = page.downloaded("thresholds.tsv")
    pmap = "sub-10_T2w_lesionseg_pmap.nii.gz"
    assert table == f"scan\tpmap\tthreshold\tlesion_point\nsub-10_T2w.nii.gz\t{pmap}\t0.25\t0\n"
    said = "document.getElementById('saved').textContent"
    assert page.value(said).endswith("sct_rethreshold_lesion -i thresholds.tsv.")
    page.value("scans[at].stored = false; document.getElementById('save-thresholds').click()")
    assert "Left out: 1 without a kept p-map" in page.value(said)
    assert page.value("thresholds()").count("\n") == 1
    assert page.value("""cell('"a" pmap.nii')""") == '"""a"" pmap.nii"'
    (files[0].parent / "thresholds.tsv").write_text(table)
    assert rethreshold(["-i", str(files[0].parent / "thresholds.tsv"), "-v", "0"]) == 0
    mask = nifti.read(files[0].parent / "sub-10_T2w_lesionseg_thr0.25.nii.gz").array
    entry = json.loads(files[0].read_text())
    assert lesionwise.components(mask).max() == entry["curve"]["lesions"][24]


@pytest.mark.slow
def test_a_browser_that_keeps_nothing_says_so_and_marks_all_the_same(
    browser, files, tmp_path
) -> None:
    refused = "Object.defineProperty(window, 'localStorage', {get() { throw new Error('no'); }})"
    made = browser.call("Page.addScriptToEvaluateOnNewDocument", source=refused)
    try:
        qc_page.write(tmp_path / "refused.html", files)
        browser.open(tmp_path / "refused.html")
        browser.until("document.title === 'refused' && document.body.dataset.shown && seen")
        assert "keeps no marks" in browser.value("document.getElementById('kept').textContent")
        browser.press("f")
        assert browser.value("marks.map(mark => mark?.is ?? null)") == [None, None, "fail"]
        assert browser.errors == []
    finally:
        browser.call("Page.removeScriptToEvaluateOnNewDocument", identifier=made["identifier"])


@pytest.mark.slow
def test_a_scan_whose_pictures_cannot_be_read_says_so_and_shows_those_of_no_other(
    browser, files, tmp_path
) -> None:
    entry = json.loads(files[0].read_text())
    cut = entry["picture"] | {"values": entry["picture"]["values"][:40]}
    damaged = tmp_path / "damaged.json"
    damaged.write_text(json.dumps({**entry, "name": "sub-99.nii", "digest": "9", "picture": cut}))
    qc_page.write(tmp_path / "damaged.html", [files[0], damaged])
    browser.open(tmp_path / "damaged.html")
    browser.until("document.title === 'damaged' && seen && at === 0")
    browser.press("j")
    browser.until("document.getElementById('said').textContent.includes('cannot be read')")
    assert browser.value("document.querySelector('h2').textContent") == "sub-99.nii"
    assert browser.value("document.getElementById('axial').width") == 0
    browser.press("k")
    assert shown(browser) == entry["name"]
    assert browser.value("document.getElementById('axial').width") > 0
    assert browser.errors == []


@pytest.mark.slow
def test_a_page_of_failures_alone_lists_them(browser, tmp_path) -> None:
    qc_page.write(tmp_path / "none.html", [], {"sub-01_T2w.nii.gz": "no cord"})
    browser.open(tmp_path / "none.html")
    browser.until("document.title === 'none' && document.readyState === 'complete'")
    said = browser.value("document.getElementById('failed').textContent")
    assert "Failed: 1" in said
    assert "sub-01_T2w.nii.gz: no cord" in said
    browser.press("j", "p", "ArrowRight")
    assert browser.errors == []


@pytest.mark.slow
def test_two_thousand_scans_open_in_three_seconds_and_those_seen_alone_are_drawn(
    browser, files, tmp_path
) -> None:
    entry = json.loads(files[0].read_text())
    many = [tmp_path / f"{number:04d}.json" for number in range(2000)]
    for number, file in enumerate(many):
        file.write_text(
            json.dumps({**entry, "name": f"sub-{number:04d}.nii", "digest": str(number)})
        )
    qc_page.write(tmp_path / "many.html", many)
    assert browser.busy_seconds() >= 0
    browser.open(tmp_path / "many.html")
    browser.until("document.title === 'many' && document.readyState === 'complete' && seen")
    assert browser.busy_seconds() < 3
    assert len(names(browser)) < 60
    browser.press("j")
    assert shown(browser) == "sub-0001.nii"
    assert browser.value("decoded.size") <= 3
    choose(browser, "text", "sub-1999")
    assert names(browser) == ["sub-1999"]
    assert shown(browser) == "sub-1999.nii"

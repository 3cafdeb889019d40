import json
import shutil

from small_data import write_cohort

from sct_lesion_losses.cli.evaluate import main


def test_the_shipped_bundle_is_evaluated_beside_masks_and_the_table_printed(tmp_path, capsys):
    cohort = write_cohort(tmp_path / "cohort", subjects=2)
    rater = shutil.copytree(cohort / "derivatives", tmp_path / "rater")
    args = ["-bundle", "tversky", "-masks", f"rater={rater}", "-i", str(cohort)]
    args += ["-ofolder", str(tmp_path / "out")]
    assert main([*args, "-preset", "candidate", "-v", "0"]) == 0
    table = tmp_path / "out" / "tables" / "table2.md"
    assert capsys.readouterr().out == f"{table}\n"
    text = table.read_text("utf-8")
    assert "by the preset candidate" in text
    [own] = [line for line in text.splitlines() if line.startswith("| rater")]
    assert own.count("1.00 (1.00±n/a)") == 6  # the manual masks themselves, in the one with lesions
    told = json.loads((tmp_path / "out" / "scores.json").read_text("utf-8"))
    assert told["GeneratedBy"]["Command"] == (
        "sct_evaluate_lesion -bundle tversky -masks rater=rater -i cohort -ofolder out "
        "-preset candidate -v 0"
    )

import sys

import pytest

from sct_lesion_losses.cli.split import main
from sct_lesion_losses.cohorts import table as cohorts
from sct_lesion_losses.cohorts.splits import Rules
from sct_lesion_losses.workflows import split


def test_the_command_prints_the_table_and_logs_the_parts(cohort, tmp_path, capsys):
    table = tmp_path / "out" / "split.tsv"
    assert main(["-i", str(cohort), "-ofile", str(table)]) == 0
    out, err = capsys.readouterr()
    assert out == f"{table}\n"
    assert [line.partition(":")[0] for line in err.splitlines()] == list(cohorts.SPLITS)
    assert sorted(path.name for path in table.parent.iterdir()) == ["split.png", "split.tsv"]


def test_every_option_reaches_the_split(cohort, tmp_path, capsys):
    given = split.split(cohort, tmp_path / "given.tsv")
    args = (
        f"-i {given} -ofile {tmp_path}/split.tsv -seed 5 -lesion_free 0.5 -lesion_free_tuning 0.5 "
        "-unseen_sites B -figure 0 -resplit 1 -v 0"
    )
    assert main(args.split()) == 0
    rules = Rules(5, 0.5, 0.5, ("B",))
    expected = split.split(cohort, tmp_path / "expected.tsv", rules)
    assert (tmp_path / "split.tsv").read_text() == expected.read_text()
    assert not (tmp_path / "split.png").exists()
    assert main([*args.split(), "-force", "0"]) == 1
    assert "split.tsv is there already" in capsys.readouterr().err
    assert main([*args.split(), "-force", "1"]) == 0


@pytest.mark.parametrize(
    ("asked", "status", "said"),
    [([], 0, "WARNING: no picture of the split"), (["-figure", "1"], 1, "error: a picture needs")],
)
def test_without_matplotlib_the_picture_is_left_out_unless_asked_for(
    asked, status, said, cohort, tmp_path, monkeypatch, capsys
):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    table = tmp_path / "split.tsv"
    assert main(["-i", str(cohort), "-ofile", str(table), *asked]) == status
    err = capsys.readouterr().err
    assert said in err
    assert "matplotlib: pip install 'sct_lesion_losses[report]'" in err
    assert [path.name for path in tmp_path.iterdir()] == ([] if status else ["split.tsv"])

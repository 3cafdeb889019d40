"""Finding SCT and running its commands: a small tree with real executable scripts stands for it."""

from pathlib import Path

import pytest
from small_data import script

from sct_lesion_losses.errors import SctError
from sct_lesion_losses.sct import install


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folder laid out as $SCT_DIR; neither the variable nor the PATH leads to it."""
    root = tmp_path / "sct 7"
    (root / "data").mkdir(parents=True)
    (root / "spinalcordtoolbox").mkdir()
    (root / "spinalcordtoolbox" / "version.txt").write_text("7.4\n")
    script(root / "bin" / "sct_version", "echo 7.4")
    monkeypatch.delenv("SCT_DIR", raising=False)
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    return root


def test_no_sct_is_none_and_where_it_is_needed_it_is_said_how_to_install_it(tree: Path) -> None:
    assert install.find() is None
    with pytest.raises(SctError, match=r"install it .* or set \$SCT_DIR"):
        install.require()


def test_sct_is_found_by_its_variable_with_its_commands_or_without(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCT_DIR", str(tree))
    found = install.require()
    assert (found.root, found.bin, found.data) == (tree, tree / "bin", tree / "data")
    assert found.version == "7.4"
    (tree / "bin" / "sct_version").unlink()
    found = install.require()
    assert (found.root, found.bin) == (tree, None)
    with pytest.raises(SctError, match="sct_version was not found"):
        found.run(["sct_version"])


def test_sct_is_found_by_the_path_and_through_a_link_on_it(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"{tree / 'bin'}:/usr/bin:/bin")
    assert install.find() == install.Installation(tree, tree / "bin")
    links = tmp_path / "links"
    links.mkdir()
    (links / "sct_version").symlink_to(tree / "bin" / "sct_version")
    monkeypatch.setenv("PATH", f"{links}:/usr/bin:/bin")
    assert install.require().root == tree


def test_commands_on_the_path_serve_the_variable_of_the_same_tree_only(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands = tree / "python" / "bin"
    script(commands / "sct_version", "echo 7.4")
    (tree / "bin" / "sct_version").unlink()
    monkeypatch.setenv("PATH", f"{commands}:/usr/bin:/bin")
    monkeypatch.setenv("SCT_DIR", str(tree))
    assert install.require().bin == commands
    other = tmp_path / "other"
    other.mkdir()
    monkeypatch.setenv("SCT_DIR", str(other))
    assert install.require().bin is None


def test_a_variable_that_is_no_folder_is_said(
    tree: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("SCT_DIR", str(tree / "gone"))
    monkeypatch.setenv("PATH", f"{tree / 'bin'}:/usr/bin:/bin")
    assert install.require().root == tree
    assert "$SCT_DIR is no folder" in caplog.text


@pytest.mark.parametrize(
    ("body", "printed"),
    [
        (r"printf '\033[1;31mred\033[0m \033]0;title\007plain\n'", "red plain\n"),
        (
            'echo "${LD_LIBRARY_PATH-unset} ${PYTHONPATH-unset} ${PYTHONHOME-unset} '
            '${QT_QPA_PLATFORM_PLUGIN_PATH-unset} $SCT_DIR"',
            "unset unset unset unset {tree}\n",
        ),
        ("sct_version", "7.4\n"),
        ('read answer || echo "nobody"', "nobody\n"),
        (r"printf 'caf\351'", "caf\ufffd"),
    ],
    ids=["colours", "environment", "another command", "question", "latin"],
)
def test_a_command_runs_in_scts_own_world_and_its_plain_text_is_returned(
    tree: Path, monkeypatch: pytest.MonkeyPatch, body: str, printed: str
) -> None:
    for name in ("LD_LIBRARY_PATH", "PYTHONPATH", "PYTHONHOME", "QT_QPA_PLATFORM_PLUGIN_PATH"):
        monkeypatch.setenv(name, "/nowhere")
    script(tree / "bin" / "sct_x", body)
    said = install.Installation(tree, tree / "bin").run(["sct_x"])
    assert said == printed.format(tree=tree)


def test_arguments_never_pass_through_a_shell(tree: Path, tmp_path: Path) -> None:
    script(tree / "bin" / "sct_args", 'for word; do printf "<%s>" "$word"; done')
    marker = tmp_path / "marker"
    words = [f"$(touch {marker})", "a b", ";ls", "*", "-x", ""]
    printed = install.Installation(tree, tree / "bin").run(["sct_args", *words])
    assert printed == "".join(f"<{word}>" for word in words)
    assert not marker.exists()


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["1", "2", "3", "4", "5", "", r"\033[31mNo cord\033[0m"], "2 3 4 5 No cord"),
        (
            ["Traceback (most recent call last):", "  File x", "OSError: no isct"],
            "OSError: no isct",
        ),
        (["usage: sct_x", "x" * 400, "sct_x: error: no -i"], f"…{'x' * 280} sct_x: error: no -i"),
        (["Traceback (most recent call last):", f"OSError: {'x' * 400}"], f"OSError: {'x' * 291}…"),
        ([], "it said nothing"),
    ],
    ids=["lines", "traceback", "long", "long traceback", "silent"],
)
def test_a_failed_command_is_named_with_what_it_said_last_and_what_to_do_instead(
    tree: Path, lines: list[str], said: str
) -> None:
    body = "".join(f"printf '{line}\\n' >&2\n" for line in lines)
    script(tree / "bin" / "sct_fail", f"{body}exit 3")
    sct = install.Installation(tree, tree / "bin")
    with pytest.raises(SctError) as caught:
        sct.run(["sct_fail", "-i", "/home/jane/t2.nii.gz"], remedy="use that")
    assert str(caught.value) == (
        f"SCT's command failed with exit status 3, sct_fail -i t2.nii.gz: {said}; use that"
    )


def test_the_remedy_is_named_without_sct_without_its_command_and_its_models(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SctError, match=r"was not found; use that, or install it"):
        install.require("use that")
    sct = install.Installation(tree, tree / "bin")
    with pytest.raises(SctError, match=r"sct_x was not found; use that, or install it"):
        sct.run(["sct_x"], remedy="use that")
    with pytest.raises(SctError, match="reinstall SCT, or use that"):
        sct.read("optic_models", "t2_model.yml", "use that")


def test_a_command_that_is_no_program_is_an_error(tree: Path) -> None:
    broken = tree / "bin" / "sct_broken"
    broken.write_text("#!/no/such/interpreter\n")
    broken.chmod(0o755)
    with pytest.raises(SctError, match="sct_broken cannot be run"):
        install.Installation(tree, tree / "bin").run(["sct_broken"])


def test_a_tree_without_a_model_or_a_version_says_so(tree: Path) -> None:
    (tree / "spinalcordtoolbox" / "version.txt").unlink()
    found = install.Installation(tree, None)
    assert found.version is None
    with pytest.raises(SctError, match="sct_download_data -d deepseg_lesion_models"):
        found.read("deepseg_lesion_models", "t2_lesion.onnx")

from pathlib import Path

import pytest
from real_sct import Sct


@pytest.fixture
def sct(sct_checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sct:
    monkeypatch.setenv("SCT_DIR", str(sct_checkout))
    folder = tmp_path / "sct"
    folder.mkdir()
    return Sct(sct_checkout, folder)

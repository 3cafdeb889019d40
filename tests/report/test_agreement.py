from sct_lesion_losses.metrics import statistics
from sct_lesion_losses.metrics.repeat import SessionRepeat
from sct_lesion_losses.report import agreement


def test_each_interval_of_a_row_is_resampled_once(monkeypatch):
    calls = []
    resample = statistics.interval
    monkeypatch.setattr(
        statistics, "interval", lambda *given: calls.append(given) or resample(*given)
    )
    sessions = [("sub-01", SessionRepeat((16, 8), (True, False), 1))]
    table = agreement.over_repeats({("tool", 0.5): sessions, ("tool", 0.3): sessions})
    assert len(calls) == 2 * 2  # two rows, of volumes and of lesions
    # 16 and 8 mm³: SD 8 / root 2, mean 12; one of two lesions is found again, one is outside.
    row = table.body.values.tolist()[0]
    assert row[2:5] == ["1", "2", "12.00"]
    assert [cell.split(" ")[0] for cell in row[5:]] == ["0.47", "1", "2", "0.50", "1"]

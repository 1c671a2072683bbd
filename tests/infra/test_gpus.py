"""`CUDA_VISIBLE_DEVICES` is read as CUDA reads it: an entry that matches no GPU hides itself and all after it."""

import pytest

from dsrl.infra.gpus import VisibleGpus, parse_gpus

TWO = "0, GPU-aaaa-1111, 81559\n1, GPU-bbbb-2222, 81559\n"
GIB = 81559 / 1024


@pytest.mark.parametrize(
    ("report", "visible", "expected"),
    [
        (TWO, None, VisibleGpus(("0", "1"), GIB)),
        (TWO, "1", VisibleGpus(("1",), GIB)),
        (TWO, " 1, 0", VisibleGpus(("1", "0"), GIB)),
        (TWO, "GPU-bb", VisibleGpus(("GPU-bb",), GIB)),
        (TWO, "", VisibleGpus()),
        (TWO, "-1", VisibleGpus()),
        (TWO, "NoDevFiles", VisibleGpus()),
        (TWO, "7", VisibleGpus()),
        (TWO, "none", VisibleGpus()),
        (TWO, "0,-1,1", VisibleGpus(("0",), GIB)),
        (TWO, "GPU-cc", VisibleGpus()),
        (TWO, "MIG-377e", VisibleGpus(("MIG-377e",), None)),
        ("0, GPU-a, 4096\n1, GPU-b, 81559\n", "1", VisibleGpus(("1",), GIB)),
        ("0, GPU-a, 4096\n1, GPU-b, 81559\n", None, VisibleGpus(("0", "1"), 4.0)),
        ("0, GPU-a, [N/A]\n", None, VisibleGpus(("0",), None)),
        ("", "0", VisibleGpus()),
        ("No devices were found\n", None, VisibleGpus()),
    ],
)
def test_visible_gpus(report: str, visible: str | None, expected: VisibleGpus) -> None:
    assert parse_gpus(report, visible) == expected

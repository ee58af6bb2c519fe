"""The benchmarks count what they say and print every line. No time is tested."""

from types import SimpleNamespace

import compare_modes
import incontext as bench
import numpy as np
import pytest
import seams
import temporal_flickering
import torch
from concatenation import concatenated
from test_metrics import put_truth
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from rmkit import profile
from rmkit.attention.one_way import CACHED
from rmkit.evaluation import typeset
from rmkit.method.incontext import in_context

SHAPE, GRID = bench.Shape(width=96, heads=2, feed_forward=256, layers=2, text=9, text_width=40), (2, 12, 17)


def test_counted_at_the_size_of_the_paper():
    small, large = (bench.ratios(bench.A14B, length) for length in (32_760, 78_750))
    assert [round(small[mode], 2) for mode in ("joint", "one-way", CACHED)] == [3.05, 2.52, 1.52]
    assert [round(large[mode], 2) for mode in ("joint", "one-way", CACHED)] == [3.45, 2.73, 1.73]
    assert bench.flops(bench.A14B, 32_760, bench.PLAIN) == pytest.approx(1.68e15, rel=0.01)


def test_the_measured_shapes_have_the_ratios_of_the_real_ones():
    for grid, length in zip(bench.SMALL_GRIDS, (32_760, 78_750), strict=True):
        real, small = bench.ratios(bench.A14B, length), bench.ratios(bench.SMALL, grid[0] * grid[1] * grid[2])
        for mode in set(bench.PASSED) - {bench.CONCATENATION}:  # whose modulation weighs more in two layers
            assert small[mode] == pytest.approx(real[mode], rel=0.01)


@pytest.mark.parametrize("mode", bench.PASSED)
def test_the_formula_counts_what_torch_counts(mode):
    model, (shown, call) = bench.build(SHAPE), bench.clip(SHAPE, GRID)
    counter = FlopCounterMode(display=False)
    # The plain kernel, because that of the CPU hides its products from the counter.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        if mode == bench.PLAIN:
            with counter:
                model(**call)
        elif mode == bench.CONCATENATION:
            with counter:
                concatenated(model, shown, **call)
        else:
            with in_context(model, shown, mode):
                model(**call)
                with counter:
                    model(**call)
    counted = bench.flops(SHAPE, GRID[0] * GRID[1] * GRID[2], mode)
    assert counted == pytest.approx(counter.get_total_flops(), rel=0.01)


def test_every_mode_is_shown_at_every_size(monkeypatch, capsys):
    monkeypatch.setattr(bench, "SMALL", SHAPE)
    monkeypatch.setattr(bench, "SMALL_GRIDS", [(1, 2, 3), (1, 4, 3)])
    monkeypatch.setattr("sys.argv", ["incontext.py", "--turns", "1"])
    bench.main()
    said = capsys.readouterr().out
    assert "6 tokens of width 96" in said and "not measured" in said
    assert all(said.count(f"\n{mode}  ") == 3 for mode in bench.PASSED)


def test_temporal_flickering_is_vbenchs_on_the_same_clip(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["temporal_flickering.py", "--size", "5", "64", "96", "--turns", "1"])
    temporal_flickering.main()
    said = capsys.readouterr().out
    assert "5 frames of 64x96" in said and "the scores differ by 0\n" in said
    assert "\nours " in said and "\nVBench " in said


def test_modes_are_trained_alike_and_compared(pairs_profile, capsys):
    """Each mode has an adapter and clips of its own; one-way cached shows one-way's clips."""
    put_truth(pairs_profile)
    settings = pairs_profile.model_copy(
        update={"enhance": pairs_profile.enhance.model_copy(update={"steps": 2})}
    )
    table = compare_modes.compare(settings)
    assert [row[0] for row in table.cells] == ["joint", "one-way", CACHED]
    assert table.cells[1][1:4] == table.cells[2][1:4] != table.cells[0][1:4]
    assert (table.data.seconds > 0).all() and "modes" in typeset.markdown(table).lower()
    folder = settings.layout.adapters
    assert (folder / "one-way" / "low" / "adapter.json").exists() and (folder / "realmaster").is_dir()


def test_a_jump_where_windows_join_is_seen_there(monkeypatch, capsys):
    """Windows of 17 frames begin at 0, 8 and 16: a jump at frame 12 is at a join, and one at frame 4 is not."""
    settings = profile.load("mini")
    clip = SimpleNamespace(id="clip")
    fakes = {"load": lambda *_: [clip], "path": lambda *_: None, "repeats": lambda *_: 2}
    for name, fake in fakes.items():
        monkeypatch.setattr(seams.sampling, name, fake)
    for module, name in (
        (seams.enhance, "load"),
        (seams.enhance, "negative"),
        (seams.encode, "text"),
        (seams.footage, "scan"),
    ):
        monkeypatch.setattr(module, name, lambda *_: None)
    for jump, at_join in ((12, True), (4, False)):

        def made(chosen, pipeline, job, *rest, jump=jump):
            ramp = [np.full((2, 2, 3), i, np.uint8) for i in range(33)]
            if len(job.first) > 1:
                assert job.first == (0, 8, 16) and chosen.clips.frames == 17
                ramp[jump:] = [frame + 10 for frame in ramp[jump:]]
            return ramp

        monkeypatch.setattr(seams.own_video, "enhanced", made)
        ((_, joins, elsewhere),) = seams.measure(settings)
        assert (joins > 1, elsewhere > 1) == (at_join, not at_join)
    monkeypatch.setattr("sys.argv", ["seams.py"])
    seams.main()
    assert "mean" in capsys.readouterr().out

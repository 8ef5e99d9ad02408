"""Sweeps against single runs, and measures on known answers."""
import concurrent.futures
import copy
import multiprocessing
import os
import types

import numpy as np
import pytest
import torch
from conftest import has_trained_judge

import nst_utils as nst
from experiments import (
    BENCH,
    RIM,
    SIX,
    Judge,
    Lab,
    Recording,
    coarse_correlation,
    colour_distance,
    detail,
    faint_noise,
    keep_memory,
    largest_batch,
    measurements,
    median_interval,
    octaves,
    psnr,
    record,
    roughness,
    sharpness,
    square,
    ssim,
    stroke_size,
    sweep,
    verdict,
)

CELLS = {(weight, start): {"style_weight": weight, "start": start} for weight in (1, 100) for start in ("content", "noise")}


@pytest.fixture
def common(picture, painting, network):
    return dict(content=picture, style=painting, size=None, steps=3, extractor=network, device="cpu", show_progress=False)


def test_a_sweep_is_the_single_runs(common):
    results = sweep(CELLS, together=1, **common)
    assert list(results) == list(CELLS)
    for label, cell in CELLS.items():
        assert torch.equal(results[label].image, nst.stylize(**common, **cell).image)


@pytest.fixture
def exact(common):
    """In float64: batches add in another order, and an optimisation enlarges rounding from step to step."""
    network = nst.FeatureExtractor(layers=(*nst.STYLE_LAYERS, *nst.CONTENT_LAYERS), weights=None, precision="float64")
    return common | {"content": common["content"].double(), "style": common["style"].double(), "extractor": network}


def assert_alike(results, others):
    assert list(results) == list(others)
    for ours, theirs in zip(results.values(), others.values()):
        assert torch.allclose(ours.image, theirs.image, atol=1e-5) and ours.reason == theirs.reason
        assert len(ours.history) == len(theirs.history)
        assert all(a == pytest.approx(b, rel=1e-4, abs=1e-7) for a, b in zip(ours.history, theirs.history))


@pytest.mark.parametrize("options, counts", [
    ({"optimizer": "lbfgs"}, (2, 3, 99)), ({"optimizer": "adam"}, (3,)), ({"optimizer": "sgd", "tv_weight": 3.0}, (2,)),
    ({"scale": "gatys", "style_weight": 10.0}, (99,))])
def test_cells_run_together_as_they_run_alone(exact, picture, painting, options, counts):
    cells = CELLS | {"style": {"style": painting.double().flip(-1)}, "longer": {"steps": 4}, "free": {"range_weight": 0.0},
                     "content": {"content": picture.double().flip(-1), "range_weight": 1e4},
                     "layers": {"style_layer_weights": {"relu2_1": 2.0}}}
    alone = sweep(cells, together=1, **exact | options)
    for together in counts:
        assert_alike(sweep(cells, together=together, **exact | options), alone)


def test_what_is_made_for_one_picture_runs_alone(common, monkeypatch):
    sizes, original = [], nst.StyleObjective.__call__
    monkeypatch.setattr(nst.StyleObjective, "__call__", lambda self, image: sizes.append(len(image)) or original(self, image))
    own = {"optimiser": {"optimizer": lambda pixels, rate: torch.optim.Adam(pixels, rate), "learning_rate": 0.01},
           "statistic": {"statistic": lambda maps: maps.mean((2, 3))}}
    sweep(CELLS | own, together=9, **common)
    assert sizes == [4] * 4 + [1] * 8


def test_a_cell_that_stops_early_leaves_its_batch_running(exact):
    cells = {weight: {"content_weight": weight} for weight in (1.0, 4e307)}  # the second soon leaves the range of float64
    exact |= dict(steps=30, optimizer="sgd", start="noise", range_weight=0.0)
    alone, batched = sweep(cells, together=1, **exact), sweep(cells, together=2, **exact)
    assert "not finite" in alone[4e307].reason and len(alone[4e307].history) < len(alone[1.0].history)
    assert_alike(batched, alone)


@pytest.mark.parametrize("device, size, share, count", [("cuda", (48, 64), 5.5, 5), ("cuda", (48, 64), 0.5, 1),
                                                        ("cpu", (48, 64), 0.5, 85), ("cpu", (512, 512), 9, 1)])
def test_a_batch_is_as_large_as_memory_or_speed_allow(network, monkeypatch, device, size, share, count):
    memory = nst.beside("memory")
    monkeypatch.setitem(memory, "available_memory", lambda device: share * memory["step_memory"](network, *size))
    start = types.SimpleNamespace(device=torch.device(device), shape=(1, 3, *size))  # without a GPU at hand
    assert largest_batch(start, lambda: network) == count


def test_a_sweep_on_a_process_pool_gives_the_same_images(common):
    serial = sweep(CELLS, together=1, **common)
    context = multiprocessing.get_context("spawn")  # the same on Linux, Mac and Windows
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context, initializer=torch.set_num_threads,
                                                initargs=(torch.get_num_threads(),)) as executor:
        pooled = sweep(CELLS, executor=executor, **common)
    assert list(pooled) == list(serial)
    assert all(torch.equal(serial[label].image, pooled[label].image) for label in serial)


def test_a_sweep_over_sizes_gives_what_stylize_gives(common):
    cells = {72: {"size": 72}, "two": {"sizes": (48, 72), "steps": (2, 1)}, "scaled": {"style_scale": 0.9},
             "mixed": {"style": [nst.sample("mosaic"), nst.sample("swirls")], "size": 72}}
    results = sweep(cells, together=1, **common)
    assert results[72].image.shape[-1] == results["two"].image.shape[-1] == 72
    for label, cell in cells.items():
        assert torch.equal(results[label].image, nst.stylize(**common | cell).image)


def test_a_lambda_in_a_pool_of_processes_is_refused(common):
    with (concurrent.futures.ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as executor,
          pytest.raises(ValueError, match="The statistic of the cell 'own' can't be sent .* with def")):
        sweep({"plain": {}, "own": {"statistic": lambda maps: maps.mean((2, 3))}}, executor=executor, **common)


def test_a_pool_that_forks_is_refused(common):
    context = multiprocessing.get_context("fork")
    with (concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as executor,
          pytest.raises(ValueError, match="get_context")):
        sweep(CELLS, executor=executor, **common)


def test_a_sweep_on_a_dask_cluster_gives_the_same_images(common):
    distributed = pytest.importorskip("distributed", reason="dask is not installed: pip install distributed to test it")
    serial = sweep(CELLS, together=1, **common)
    with distributed.Client(n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None) as client:
        clustered = sweep(CELLS, executor=client.get_executor(), **common)
    # a worker may use another number of threads, which adds in another order
    assert all(torch.allclose(serial[label].image, clustered[label].image, atol=1e-4) for label in serial)


def test_a_sweep_shares_targets(common, monkeypatch):
    made = []
    original = nst.StyleObjective.__init__
    monkeypatch.setattr(nst.StyleObjective, "__init__", lambda self, *a, **k: made.append(1) or original(self, *a, **k))
    sweep(CELLS, **common)
    sweep({layers: {"style_layers": layers} for layers in (("relu1_1",), ("relu2_1",))}, **common)
    assert len(made) == 1 + 2


def test_a_sweep_tells_networks_of_one_architecture_apart(common):
    networks = [nst.FeatureExtractor(layers=(*nst.STYLE_LAYERS, "relu4_2"), weights=None, seed=seed) for seed in (1, 2)]
    results = sweep({i: {"extractor": network} for i, network in enumerate(networks)}, **common)
    assert results[0].history[1] != results[1].history[1]


def test_an_interrupted_sweep_returns_what_is_finished(common, interrupt_at):
    interrupt_at(6)
    assert list(sweep(CELLS, together=1, **common)) == list(CELLS)[:1]


def test_an_interrupted_batch_keeps_the_cells_that_had_stopped(common, interrupt_at):
    interrupt_at(30)
    cells = {"done": {"start": common["content"], "style_weight": 0.0, "tv_weight": 1e-9},  # nothing is left to do
             "busy": {"start": "noise", "tv_weight": 1e-9}}
    results = sweep(cells, together=2, **common | {"steps": 50, "tolerance": 1e-3, "optimizer": "adam"})
    assert list(results) == ["done"] and "fell by less" in results["done"].reason


@pytest.mark.parametrize("wrong, message", [
    ({"style_weight": -1.0}, "weight of style"), ({"arch": "vgg", "extractor": None}, "no arch 'vgg'"),
    ({"steps": [2]}, "number of steps"), ({"statistic": "x"}, "not 'x'"),
    ({"style_layers": ["relu9_1"]}, "layer of the extractor is one of .*, not"),
    ({"optimizer": "lbgfs"}, "nearest: lbfgs"), ({"style_layer_weights": {"relu9_1": 1.0}}, "not 'relu9_1'"),
    ({"show_progress": False}, "no bar of its own"), ({"size": 8}, "at least 32")])
def test_a_bad_cell_is_refused_before_the_first_step(common, monkeypatch, wrong, message):
    def step(*_, **__):
        raise AssertionError("a step was made")
    monkeypatch.setattr(nst, "_evaluate", step)
    with pytest.raises(ValueError, match=message) as caught:
        sweep(CELLS | {"bad": wrong}, together=1, **common)
    assert "'bad'" in str(caught.value) or caught.value.__notes__ == ["In the cell 'bad' of a sweep."]


@pytest.mark.parametrize("together", [0, -3])
def test_a_batch_has_at_least_one_cell(common, together):
    with pytest.raises(ValueError, match="at least 1, not"):
        sweep(CELLS, together=together, **common)


def test_a_sweep_shows_one_bar(common, capsys):
    sweep(CELLS, **common | {"show_progress": True})
    assert "12/12 steps" in capsys.readouterr().out


# -- measures -----------------------------------------------------------------------------------------------------


def test_a_picture_is_like_itself_and_unlike_noise(picture):
    assert ssim(picture, picture) == 1 and ssim(picture, faint_noise(picture)) < 0.3


def test_colour_distance_of_known_greys():
    black, white = torch.zeros(1, 3, 48, 24), torch.ones(1, 3, 48, 24)
    half = torch.cat([black, white], 3)
    assert colour_distance(half, half) == 0
    assert colour_distance(half, half.flip(-1)) == pytest.approx(100, abs=0.01)  # L runs to 100
    assert colour_distance(half, half.flip(-1), block=24) == 0  # the same from afar


def test_noise_is_seeded_and_as_faint_as_asked(picture):
    strong, faint = faint_noise(picture, seed=4), faint_noise(picture, 0.1, seed=4)
    assert torch.equal(strong, nst.initial_image(picture, "noise", seed=4))
    assert torch.allclose((faint - 0.5) * 10, strong - 0.5, atol=1e-6)


def test_a_square_is_the_middle_of_a_sample():
    photo = nst.sample("coffee")
    height, width = photo.shape[-2:]
    left = (width - height) // 2
    assert torch.equal(square("coffee", height), photo[..., left:left + height])


STYLES = [name for name, source in nst.sample().items() if source.startswith("style")]
blurred = torch.nn.functional.avg_pool2d


@pytest.mark.parametrize("name", STYLES)
def test_strokes_grow_with_the_picture(name):
    picture = nst.sample(name, 384)
    height, width = picture.shape[-2:]
    for factor in (1.5, 2):
        larger = nst.resize(picture, (round(height * factor), round(width * factor)))
        top, left = ((whole - part) // 2 for whole, part in zip(larger.shape[-2:], (height, width)))
        part = larger[..., top:top + height, left:left + width]
        assert stroke_size(part) / stroke_size(picture) == pytest.approx(factor, rel=0.15)


def test_roughness_grows_with_noise_and_is_1_for_the_style_itself():
    style = nst.sample("mosaic", 256)
    noisy = [roughness((style + level * (faint_noise(style) - 0.5)).clamp(0, 1), style) for level in (0, 0.1, 0.3, 0.9)]
    assert noisy[0] == 1 and noisy == sorted(noisy) and noisy[1] > 1.01
    assert roughness(blurred(style, 5, 1, 2), style) < 0.9
    assert roughness(torch.where(torch.arange(256) < RIM, 0.0, style), style) == pytest.approx(1)  # the border does not count


def test_a_wave_lies_in_its_octave():
    wave = (0.5 + 0.5 * torch.sin(torch.arange(280) * 2 * torch.pi / 12)).expand(1, 3, 280, 280)
    assert octaves(wave)[2] > 0.99 and octaves(wave).sum() == pytest.approx(1)  # 8 to 16 pixels
    assert stroke_size(wave) == pytest.approx(12, rel=0.02)


def test_a_blurred_picture_is_less_sharp_but_coarsely_the_same():
    photograph = nst.sample("chelsea", 256)
    soft = blurred(photograph, 5, 1, 2)
    assert sharpness(photograph, photograph) == 1 and sharpness(soft, photograph) < 0.5
    assert coarse_correlation(soft, photograph) > 0.98 and coarse_correlation(1 - photograph, photograph) == pytest.approx(-1)


def test_what_directions_a_picture_has_makes_no_difference():
    stripes = nst.resize(nst.sample("stained_glass", 128), (128, 128))
    assert stroke_size(stripes) == pytest.approx(stroke_size(stripes.mT), rel=1e-6)
    assert octaves(stripes) == pytest.approx(octaves(stripes.mT), rel=1e-6)


def test_no_measure_looks_at_the_rim():
    photograph = nst.sample("chelsea", 128)
    framed = torch.ones_like(photograph)
    inside = (slice(RIM, -RIM),) * 2
    framed[..., *inside] = photograph[..., *inside]
    assert ssim(framed, photograph) == pytest.approx(1)
    for block in (1, 8):
        assert colour_distance(framed, photograph, block=block) == 0


def test_grain_is_sharp_but_no_detail():
    photograph = nst.sample("chelsea", 128)
    noise = 0.2 * (nst.initial_image(photograph, "noise") - 0.5)
    assert detail(photograph, photograph) == pytest.approx(1)
    assert detail(nst.resize(nst.resize(photograph, 16), photograph.shape[-2:]), photograph) < 0.2
    grainy = 0.5 + noise
    assert sharpness(grainy, photograph) > 0.3 and abs(detail(grainy, photograph)) < 0.1


def test_a_commit_stays_a_name_and_a_size_is_one(lab, recording, tmp_path):
    recording, _ = recording
    list(record({"first": recording}, lab, folder=tmp_path))
    path = tmp_path / "first.csv"
    lines = path.read_text(encoding="utf-8").splitlines()
    place = lines[0].split(",").index("commit")
    cells = [line.split(",") for line in lines[1:]]
    path.write_text("\n".join([lines[0], *(",".join([*one[:place], "87e1235", *one[place + 1:]]) for one in cells)]) + "\n")
    assert {row["commit"] for row in measurements("first", folder=tmp_path)} == {"87e1235"}
    other = copy.copy(lab)
    other.size = lab.size + 1
    with pytest.raises(ValueError, match=f"first was recorded with .* at {lab.size} px: {lab.size + 1} px"):
        list(record({"first": recording}, other, folder=tmp_path))


def test_psnr_of_known_noise():
    picture = torch.full((1, 3, 200, 200), 0.5)
    noise = torch.randn(picture.shape, generator=torch.Generator().manual_seed(0)) * 0.1
    assert psnr(picture + noise, picture) == pytest.approx(20, abs=0.1)


@pytest.fixture(params=["alexnet", "vgg16"])
def judge(request):
    channels = {"alexnet": (64, 192, 384, 256, 256), "vgg16": (64, 128, 256, 512, 512)}[request.param]
    return Judge(request.param, weights=None, heads=[torch.full((count,), 1 / count) for count in channels])


def test_a_judge_on_known_answers(judge):
    photograph, style = nst.sample("chelsea", 160), nst.sample("mosaic", 160)
    assert judge.style_distance(style, style) == 0 and judge.lpips(style, style) == 0
    assert judge.share_closed(style, photograph, style) == 1 and judge.share_closed(photograph, photograph, style) == 0
    halfway = judge.lpips((photograph + photograph.flip(-1)) / 2, photograph)
    assert 0 < halfway < judge.lpips(photograph.flip(-1), photograph)
    framed = torch.nn.functional.pad(photograph[..., RIM:-RIM, RIM:-RIM], (RIM,) * 4)
    assert judge.lpips(framed, photograph) == pytest.approx(0, abs=1e-7)  # the border does not count


@pytest.mark.parametrize("arch", ["alexnet", "vgg16"])
def test_the_trained_judge_knows_a_style_by_its_halves(arch):
    if not has_trained_judge(arch):
        pytest.skip(f"the trained {arch} has not been downloaded; experiments.Judge({arch!r}) does it")
    judge, photograph = Judge(arch), nst.sample("astronaut", 256)
    for name in ("mosaic", "swirls"):
        style = nst.sample(name, 256)
        left, right = style.chunk(2, -1)
        assert judge.style_distance(left, right) < 0.6 * judge.style_distance(photograph, style)


def test_the_bench_is_what_the_register_asks_for():
    photographs = [content for content, _ in BENCH]
    assert len(set(BENCH)) == len(BENCH) >= 12 and set(SIX) <= set(BENCH) and len(SIX) == 6
    assert all(photographs.count(name) >= 3 for name in nst.PHOTOGRAPHS) and {style for _, style in BENCH} == set(STYLES)


@pytest.mark.parametrize("values, options, answer", [
    ([0.5, 0.6, 0.55, 0.58, 0.52], {"below": 0.9}, "holds"), ([0.5, 0.6, 0.55, 0.58, 0.52], {"above": 0.9}, "fails"),
    ([0.5, 1.6, 0.4, 1.5, 0.9], {"below": 0.9}, "undecided"), ([1, 1, 1, 1], {"above": 1}, "fails"),
    ([1, 1, 1, 1], {"below": 1}, "fails"), ([0.5, 1.6, 0.4], {}, "report")])
def test_a_verdict_looks_at_the_whole_interval(values, options, answer):
    result = verdict(values, **options)
    assert result.answer == answer and result.low <= result.median <= result.high and result.count == len(values)
    assert str(result).endswith(f": {answer}") == (answer != "report") and verdict(values, **options) == result


def test_the_intervals_of_several_conditions_are_those_of_each():
    values = np.random.default_rng(3).normal(size=(12, 4))
    together = median_interval(values)
    assert together.shape == (3, 4) and (together[1] <= together[0]).all() and (together[0] <= together[2]).all()
    assert all(np.array_equal(together[:, k], median_interval(values[:, k])) for k in range(4))


def test_the_interval_of_a_median_covers_it_as_often_as_it_says():
    random, hits = np.random.default_rng(1), 0
    for _ in range(200):
        result = verdict(random.exponential(size=12), above=0)
        hits += result.low <= np.log(2) <= result.high
    assert 0.88 < hits / 200 < 0.99


@pytest.mark.parametrize("values, options, message", [
    ([1.0], {"above": 0}, "at least two finite"), ([1.0, float("nan")], {"above": 0}, "at least two finite"),
    ([1.0, 2.0], {"above": 0, "below": 1}, "above or below one")])
def test_a_verdict_without_numbers_or_with_two_thresholds_is_refused(values, options, message):
    with pytest.raises(ValueError, match=message):
        verdict(values, **options)


# -- recorded measurements ----------------------------------------------------------------------------------------


@pytest.fixture
def lab():
    """A laboratory whose networks know nothing: what is recorded does not matter here."""
    channels = {"alexnet": (64, 192, 384, 256, 256), "vgg16": (64, 128, 256, 512, 512)}
    judges = {arch: Judge(arch, weights=None, heads=[torch.ones(count) for count in counts]) for arch, counts in channels.items()}
    return Lab("vgg11", size=96, weights=None, precision="float32", judges=judges, device="cpu")


def test_runs_keep_the_steps_that_are_asked_for_and_the_last(lab, picture, painting):
    common = dict(content=picture, style=painting, steps=4)
    runs = lab.runs({1: {"style_weight": 1}, 2: {"style_weight": 100}}, marks=(0, 2), together=1, **common)
    picture, painting = nst.resize(picture, 96), nst.resize(painting, 96)
    objective = nst.StyleObjective(picture, painting, style_weight=100, arch="vgg11", weights=None, precision="float32")
    single = list(nst.optimize_image(picture, objective, steps=4))
    assert {label: list(steps) for label, steps in runs.items()} == {1: [0, 2, 4], 2: [0, 2, 4]}
    assert all(torch.equal(step.image, single[index].image) for index, step in runs[2].items())


def test_what_is_judged_of_a_picture(lab):
    content, style = nst.sample("chelsea", 96), nst.sample("mosaic", 96)
    step = next(nst.optimize_image(content, nst.StyleObjective(content, style, arch="vgg11", weights=None), steps=1))
    numbers = lab.judged(step, content, style)
    assert numbers["lpips"] == numbers["colour"] == numbers["share"] == 0 and numbers["ssim"] == numbers["sharpness"] == 1
    assert numbers["total"] == step.losses["total"] and numbers["alexnet"] > 0 and numbers["strokes"] > 2
    assert "lpips" not in lab.judged(step, None, style) and "vgg16" not in lab.judged(step, content, None)


@pytest.fixture
def recording():
    """Two units with two rows each, and how often each was measured."""
    counts = {}

    def measure(lab, unit):
        counts[unit] = counts.get(unit, 0) + 1
        for seed in (0, 1):
            yield {"seed": seed, "value": len(unit[0]) + seed / 3, "start": "noise"}
    return Recording([("a", "b"), ("longer", "c")], measure), counts


def test_a_recording_goes_on_where_it_was_stopped(lab, recording, tmp_path):
    one, counts = recording
    run = record({"X1": one}, lab, folder=tmp_path)
    assert next(run).startswith("X1: a x b with vgg11 in")
    run.close()
    assert {row["unit"] for row in measurements("X1", folder=tmp_path)} == {"a x b"}
    assert len(list(record({"X1": one}, lab, folder=tmp_path))) == 1 and not list(record({"X1": one}, lab, folder=tmp_path))
    rows = measurements("X1", arch="vgg11", folder=tmp_path)
    assert counts == {("a", "b"): 1, ("longer", "c"): 1} and len(rows) == 4
    assert rows[3]["seed"] == 1 and rows[3]["value"] == pytest.approx(6 + 1 / 3, rel=1e-5) and rows[3]["start"] == "noise"
    assert rows[0]["size"] == 96 and rows[0]["torch"] == torch.__version__ and rows[0]["day"].count("-") == 2
    assert measurements("X1", arch="vgg16", folder=tmp_path) == [] == measurements("none", folder=tmp_path)


def test_a_unit_that_fails_leaves_what_was_recorded(lab, recording, tmp_path):
    one, _ = recording

    def broken(lab, unit):
        yield {"value": 1.0}
        if unit[0] == "longer":
            raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt):
        list(record({"X1": Recording(one.units, broken)}, lab, folder=tmp_path))
    assert [row["unit"] for row in measurements("X1", folder=tmp_path)] == ["a x b"]
    assert [path.name for path in tmp_path.iterdir()] == ["X1.csv"]


def one_row(lab, unit):
    yield {"value": len(unit[0]), "threads": torch.get_num_threads()}


def test_units_can_be_measured_by_other_processes(lab, tmp_path):
    with concurrent.futures.ProcessPoolExecutor(2, multiprocessing.get_context("spawn"), torch.set_num_threads, (1,)) as pool:
        lines = list(record({"X1": Recording([("a", "b"), ("longer", "c")], one_row)}, lab, folder=tmp_path, executor=pool))
    rows = {row["unit"]: (row["value"], row["threads"]) for row in measurements("X1", folder=tmp_path)}
    assert len(lines) == 2 and rows == {"a x b": (1, 1), "longer x c": (6, 1)}


def one_fails(lab, unit):
    if unit[0] == "b":
        raise ValueError("too much of it")
    yield {"value": 1.0}


def test_a_unit_that_fails_takes_no_other_with_it(lab, tmp_path):
    recording = Recording([("a", "x"), ("b", "x"), ("c", "x")], one_fails)
    with concurrent.futures.ThreadPoolExecutor(3) as pool, pytest.raises(ValueError, match="too much") as failed:
        list(record({"X1": recording}, lab, folder=tmp_path / "new", executor=pool))
    assert {row["unit"] for row in measurements("X1", folder=tmp_path / "new")} == {"a x x", "c x x"}
    assert "'X1', 'b x x'" in failed.value.__notes__[0]


def test_processes_keep_their_memory_unless_somebody_has_said_how(monkeypatch):
    for name in ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_"):
        monkeypatch.setenv(name, "5")  # so that what is there now comes back after the test
    monkeypatch.delenv("MALLOC_TRIM_THRESHOLD_")
    keep_memory()
    assert (os.environ["MALLOC_MMAP_THRESHOLD_"], os.environ["MALLOC_TRIM_THRESHOLD_"]) == ("5", str(2**30))

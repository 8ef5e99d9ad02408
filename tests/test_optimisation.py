import concurrent.futures
import math
import multiprocessing
import types

import pytest
import torch

import nst_utils as nst


def run(image, objective, **options):
    return list(nst.optimize_image(image, objective, **options))


def bowl(target):
    """The simplest objective: squared distance to a target image."""
    def objective(image):
        total = (image - target).square().sum()
        return total, {"total": total}
    return objective


class After:
    """An objective that behaves until its n-th evaluation and then does something else."""

    def __init__(self, n, objective, then):
        self.left, self.objective, self.then = n, objective, then

    def __call__(self, image):
        self.left -= 1
        return self.objective(image) if self.left >= 0 else self.then(image)


@pytest.mark.parametrize("optimizer, rate", [("lbfgs", None), ("adam", 0.05), ("sgd", 5e-6)])
def test_the_minimum_of_a_bowl_is_found(picture, optimizer, rate):
    last = run(torch.full_like(picture, 0.5), bowl(picture), optimizer=optimizer, learning_rate=rate, steps=60)[-1]
    assert torch.allclose(last.image, picture, atol=0.02) and last.reason == "all 60 steps made"


@pytest.mark.parametrize("optimizer, rate", [("lbfgs", 1.0), ("adam", 0.02), ("sgd", None), (torch.optim.RMSprop, 0.005)])
def test_every_optimiser_lowers_the_loss(picture, painting, network, optimizer, rate):
    make = optimizer if isinstance(optimizer, str) else lambda pixels, lr: optimizer(pixels, lr=lr)
    objective = nst.StyleObjective(picture, painting, extractor=network)
    steps = run(picture, objective, optimizer=make, learning_rate=rate, steps=15)
    assert steps[-1].losses["total"] < 0.9 * steps[0].losses["total"]


def test_a_step_is_an_image_with_its_own_losses(picture, painting, network):
    objective = nst.StyleObjective(picture, painting, extractor=network)
    steps = run(picture, objective, steps=4, optimizer="adam")
    for step in steps[:-1]:
        assert objective(step.image)[0].item() == pytest.approx(step.losses["total"], rel=1e-4)
    assert [step.index for step in steps] == [step.evaluations - 1 for step in steps] == [0, 1, 2, 3, 4]
    assert torch.equal(steps[0].image, picture) and not torch.equal(steps[1].image, picture)


def test_the_last_step_holds_the_best_image(picture):
    steps = run(picture, bowl(torch.zeros_like(picture)), optimizer="sgd", learning_rate=1.3 / 9216, steps=5)  # it overshoots
    losses = [step.losses["total"] for step in steps]
    assert steps[-1].losses["total"] == min(losses)


def test_images_stay_in_range(picture):
    for optimizer, rate in (("lbfgs", 1.0), ("adam", 0.1), ("sgd", 1e-5)):
        last = run(picture, bowl(torch.full_like(picture, 1.5)), optimizer=optimizer, learning_rate=rate, steps=40)[-1]
        assert last.image.min() >= 0 and last.image.max() == 1


@pytest.mark.parametrize("weight", [1, 1000, 1e6])
def test_lbfgs_gets_away_from_a_start_without_curvature(weight):
    content, style = nst.sample("chelsea", 96), nst.sample("aurora_wash", 96)
    objective = nst.StyleObjective(None, style, style_layers=["relu1_1"], style_weight=weight, precision="float32")
    losses = [step.losses["total"] for step in run(content, objective, steps=25)]
    assert losses[-1] < 0.01 * losses[0]


def test_lbfgs_does_not_feel_the_scale_of_the_objective(picture, painting, network):
    objective = nst.StyleObjective(picture, painting, extractor=network, style_weight=1)
    scaled = [objective.reweighted(content_weight=scale, style_weight=scale) for scale in (2.0**-30, 1.0, 2.0**30)]
    images = [run(picture, target, steps=12)[-1].image for target in scaled]
    assert torch.equal(images[0], images[1]) and torch.equal(images[1], images[2])


def two_loops(matrix, x, steps, history):
    """The totals x.A.x / 2 along L-BFGS as Nocedal & Wright write it, algorithms 7.4 and 7.5, without a line search."""
    pairs, gradient, totals = [], matrix @ x, []
    for _ in range(steps):
        totals.append((x @ matrix @ x).item() / 2)
        q, alphas = gradient.clone(), []
        for s, y in reversed(pairs):
            alphas.append((s @ q) / (s @ y))
            q -= alphas[-1] * y
        q *= pairs[-1][0] @ pairs[-1][1] / pairs[-1][1].square().sum() if pairs else 1 / 64 / gradient.square().mean().sqrt()
        for (s, y), alpha in zip(pairs, reversed(alphas)):
            q += s * (alpha - (y @ q) / (s @ y))
        new = matrix @ (x - q)
        pairs = [*pairs, (-q, new - gradient)][-history:]
        x, gradient = x - q, new
    return totals


def test_lbfgs_is_the_two_loop_recursion_for_each_picture_of_a_batch(monkeypatch):
    monkeypatch.setattr(nst._LBFGS, "LONGEST_STEP", math.inf)
    generator = torch.Generator().manual_seed(0)
    matrices = [root @ root.T + torch.eye(60) for root in torch.randn(3, 60, 60, generator=generator, dtype=torch.float64)]
    start = torch.randn(3, 3, 4, 5, generator=generator, dtype=torch.float64)
    pixels, totals = start.clone().requires_grad_(True), []
    optimizer = nst._LBFGS([pixels], lr=1.0, history=8)

    def closure():
        optimizer.zero_grad()
        each = torch.stack([picture.flatten() @ matrix @ picture.flatten() / 2 for picture, matrix in zip(pixels, matrices)])
        each.sum().backward()
        totals.append(each.detach())
        return each.sum()
    for _ in range(30):  # the memory is full after 9
        optimizer.step(closure)
    for matrix, picture, ours in zip(matrices, start, torch.stack(totals, 1)):
        assert ours.tolist() == pytest.approx(two_loops(matrix, picture.flatten(), 30, 8), rel=1e-8)


def test_lbfgs_gets_as_far_as_that_of_torch(picture, painting, network):
    objective = nst.StyleObjective(picture, painting, extractor=network)
    plain = lambda pixels, rate: torch.optim.LBFGS(  # noqa: E731
        pixels, lr=rate, max_iter=1, history_size=20, tolerance_grad=0, tolerance_change=-1)
    ours, theirs = (run(picture, objective, steps=60, optimizer=optimizer, learning_rate=1.0) for optimizer in ("lbfgs", plain))
    assert ours[-1].losses["total"] < 1.05 * theirs[-1].losses["total"]


def test_a_step_of_lbfgs_is_never_long(picture):
    steps = run(picture, bowl(picture + 9), steps=3)
    moves = [(after.image - before.image).square().mean().sqrt().item() for before, after in zip(steps, steps[1:-1])]
    assert moves == pytest.approx([1 / 64, 1 / 32], rel=1e-3)


def test_lbfgs_believes_no_curvature_of_the_wrong_sign():
    pixels = torch.full((1, 3, 2, 2), 0.1).requires_grad_(True)
    optimizer = nst._LBFGS([pixels], lr=1.0, history=20)

    def closure():  # a hill: the gradient grows on the way down
        optimizer.zero_grad()
        total = -pixels.square().sum() / 2
        total.backward()
        return total
    values = [pixels.detach().clone()]
    for _ in range(4):
        optimizer.step(closure)
        values.append(pixels.detach().clone())
    assert torch.diff(torch.stack(values), dim=0).flatten().tolist() == pytest.approx([1 / 64] * 48, rel=1e-4)


def test_same_seed_same_pixels(painting, network):
    first, again, other = (nst.stylize(None, painting, size=None, seed=seed, steps=6, extractor=network, device="cpu",
                                       show_progress=False).image for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_a_loss_that_is_not_finite_stops_the_run(picture):
    objective = After(4, bowl(picture / 2), lambda image: (image.sum() * math.nan, {"total": torch.tensor(math.nan)}))
    steps = run(picture, objective, optimizer="adam", steps=50)
    assert "not finite after 4 steps" in steps[-1].reason and len(steps) == 5
    assert steps[-1].losses["total"] == min(step.losses["total"] for step in steps)
    assert steps[-1].image.isfinite().all()


def test_a_start_that_is_not_finite_is_refused(picture):
    with pytest.raises(FloatingPointError, match="not finite after 0 steps"):
        run(picture * math.nan, bowl(picture), steps=3)


def test_an_interrupt_returns_the_best_image(picture):
    def interrupt(image):
        raise KeyboardInterrupt
    steps = run(picture, After(3, bowl(picture / 2), interrupt), optimizer="adam", steps=50)
    assert steps[-1].reason == "interrupted"
    assert steps[-1].losses["total"] == min(step.losses["total"] for step in steps) < steps[0].losses["total"]


def test_an_interrupt_between_steps_returns_from_stylize(picture, painting, network, monkeypatch):
    def impatient(steps, total):
        for step in steps:
            yield step
            if step.index == 3:
                raise KeyboardInterrupt
    monkeypatch.setattr(nst, "progress", impatient)
    result = nst.stylize(picture, painting, size=None, steps=50, extractor=network, device="cpu")
    assert result.reason == "interrupted" and len(result.history) == 4 and result.image.shape == picture.shape


def test_an_interrupt_before_anything_is_there_is_passed_on(picture):
    def interrupt(image):
        raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt):
        run(picture, interrupt, steps=3)


def test_tolerance_stops_a_run_that_has_converged(picture):
    def raised(image):  # a bowl whose bottom is at 1
        total = 1 + bowl(picture / 2)(image)[0]
        return total, {"total": total}
    steps = run(picture, raised, optimizer="lbfgs", steps=500, tolerance=0.01)
    assert len(steps) < 100 and "fell by less than 0.01" in steps[-1].reason


@pytest.mark.parametrize("optimizer", ["lbfgs", "adam"])
def test_weights_may_change_during_a_run(picture, painting, network, optimizer):
    objective = nst.StyleObjective(picture, painting, extractor=network, style_weight=1)
    totals, previous = [], None
    for step in nst.optimize_image(picture, objective, optimizer=optimizer, steps=12):
        if step.index == 5:
            assert objective(step.image)[0].item() == pytest.approx(step.losses["total"], rel=1e-2)
            objective.style_weight, previous = 100, step
        if step.index == 6:  # the picture carried on: one update away, not back at the start
            assert (step.image - previous.image).norm() < (step.image - picture).norm() + 1e-6
            assert step.losses["total"] > 5 * previous.losses["total"]
        totals.append(step.losses["total"])
    assert totals[-1] < totals[6] and totals[-1] > totals[5]  # the best under the new weights, not under the old ones


def test_texture_synthesis_and_content_reconstruction(picture, painting, network):
    texture = nst.stylize(None, painting, size=None, steps=5, extractor=network, show_progress=False, device="cpu")
    inverted = nst.stylize(picture, size=None, steps=5, extractor=network, show_progress=False, start="noise", device="cpu")
    assert texture.image.shape == painting.shape and texture.history[0]["content"] == 0
    assert inverted.image.shape == picture.shape and inverted.history[0]["style"] == 0
    with pytest.raises(ValueError, match="content image, a style image or both"):
        nst.stylize()


def test_stylize_takes_paths_pictures_and_tensors(picture, painting, tmp_path, network):
    path = nst.save_image(picture, tmp_path / "a.png")
    options = dict(style=painting, size=32, steps=2, extractor=network, show_progress=False, device="cpu")
    shapes = {tuple(nst.stylize(source, **options).image.shape) for source in (path, str(path), nst.to_pil(picture), picture)}
    assert shapes == {(1, 3, 24, 32)}


def test_a_start_image_can_be_given(picture, painting, network):
    options = dict(style=painting, size=None, steps=1, extractor=network, show_progress=False, device="cpu")
    assert nst.stylize(picture, start=picture, **options).history[0] == nst.stylize(picture, **options).history[0]


def test_progress_goes_to_stdout_and_only_when_asked(picture, painting, network, capsys):
    options = dict(size=None, steps=3, extractor=network, device="cpu")
    nst.stylize(picture, painting, show_progress=False, **options)
    assert capsys.readouterr() == ("", "")
    result = nst.stylize(picture, painting, **options)
    out, err = capsys.readouterr()
    assert "3/3 steps" in out and "content" in out and "style" in out and "s/step" in out and err == ""
    assert "64 x 48 pixels" in repr(result)


@pytest.mark.parametrize("options, message", [
    ({"steps": 0}, "at least 1"), ({"style_weight": -1}, "weight of style"), ({"content_weight": math.nan}, "weight of content"),
    ({"tv_weight": math.inf}, "weight of tv"), ({"style_layer_weights": {"relu1_1": -1}}, "weight of style relu1_1"),
    ({"optimizer": "lbgfs"}, "nearest: lbfgs"), ({"learning_rate": 0}, "above 0"), ({"scale": "big"}, "scale is"),
    ({"style_layers": ["relu9_1"]}, "no layer 'relu9_1'"), ({"start": "nois"}, "kind is"),
    ({"size": 8}, "at least 16 on each side"),
])
def test_bad_options_are_refused_in_one_sentence(picture, painting, network, options, message):
    with pytest.raises(ValueError, match=message):
        nst.stylize(picture, painting, **{"extractor": network, "steps": 2, "device": "cpu", "size": None} | options)


def test_bfloat16_reaches_the_loss_of_float32(picture, painting):
    layers = (*nst.STYLE_LAYERS, *nst.CONTENT_LAYERS)
    exact, rounded = (nst.FeatureExtractor(layers=layers, precision=precision) for precision in ("float32", "bfloat16"))
    judge = nst.StyleObjective(picture, painting, extractor=exact)
    options = dict(size=None, steps=60, show_progress=False, device="cpu")
    losses = [judge(nst.stylize(picture, painting, extractor=extractor, **options).image)[0].item()
              for extractor in (exact, rounded)]
    assert losses[1] < 1.1 * losses[0]


# -- sweeps -------------------------------------------------------------------------------------------------------

CELLS = {(weight, start): {"style_weight": weight, "start": start} for weight in (1, 100) for start in ("content", "noise")}


@pytest.fixture
def common(picture, painting, network):
    return dict(content=picture, style=painting, size=None, steps=3, extractor=network, device="cpu", show_progress=False)


def test_a_sweep_is_the_single_runs(common):
    results = nst.sweep(CELLS, together=1, **common)
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


@pytest.mark.parametrize("together", [2, 3, 99])
@pytest.mark.parametrize("options", [{"optimizer": "lbfgs"}, {"optimizer": "adam"}, {"optimizer": "sgd", "tv_weight": 3.0},
                                     {"scale": "gatys", "style_weight": 10.0}])
def test_cells_run_together_as_they_run_alone(exact, picture, painting, options, together):
    cells = CELLS | {"style": {"style": painting.double().flip(-1)}, "longer": {"steps": 4}, "free": {"range_weight": 0.0},
                     "content": {"content": picture.double().flip(-1), "range_weight": 1e4},
                     "layers": {"style_layer_weights": {"relu2_1": 2.0}}}
    alone, batched = (nst.sweep(cells, together=count, **exact | options) for count in (1, together))
    assert_alike(batched, alone)


def test_what_is_made_for_one_picture_runs_alone(common, monkeypatch):
    sizes, original = [], nst.StyleObjective.__call__
    monkeypatch.setattr(nst.StyleObjective, "__call__", lambda self, image: sizes.append(len(image)) or original(self, image))
    own = {"optimiser": {"optimizer": lambda pixels, rate: torch.optim.Adam(pixels, rate), "learning_rate": 0.01},
           "statistic": {"statistic": lambda maps: maps.mean((2, 3))}}
    nst.sweep(CELLS | own, together=9, **common)
    assert sizes == [4] * 4 + [1] * 8


def test_a_cell_that_stops_early_leaves_its_batch_running(exact):
    cells = {weight: {"content_weight": weight} for weight in (1.0, 5e307)}  # the second soon leaves the range of float64
    exact |= dict(steps=30, optimizer="sgd", start="noise", range_weight=0.0)
    alone, batched = nst.sweep(cells, together=1, **exact), nst.sweep(cells, together=2, **exact)
    assert "not finite" in alone[5e307].reason and len(alone[5e307].history) < len(alone[1.0].history)
    assert_alike(batched, alone)


@pytest.mark.parametrize("device, size, share, count", [("cuda", (48, 64), 5.5, 5), ("cuda", (48, 64), 0.5, 1),
                                                        ("cpu", (48, 64), 0.5, 85), ("cpu", (512, 512), 9, 1)])
def test_a_batch_is_as_large_as_memory_or_speed_allow(network, monkeypatch, device, size, share, count):
    monkeypatch.setattr(nst, "_available_memory", lambda device: share * network.memory(*size))
    start = types.SimpleNamespace(device=torch.device(device), shape=(1, 3, *size))  # without a GPU at hand
    assert nst._largest_batch(nst._Job(start, types.SimpleNamespace(extractor=network), {}, ())) == count


def test_a_sweep_on_a_process_pool_gives_the_same_images(common):
    serial = nst.sweep(CELLS, together=1, **common)
    context = multiprocessing.get_context("spawn")  # the same on Linux, Mac and Windows
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context, initializer=torch.set_num_threads,
                                                initargs=(torch.get_num_threads(),)) as executor:
        pooled = nst.sweep(CELLS, executor=executor, **common)
    assert list(pooled) == list(serial)
    assert all(torch.equal(serial[label].image, pooled[label].image) for label in serial)


def test_a_sweep_on_a_dask_cluster_gives_the_same_images(common):
    distributed = pytest.importorskip("distributed", reason="dask is not installed: pip install distributed to test it")
    serial = nst.sweep(CELLS, together=1, **common)
    with distributed.Client(n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None) as client:
        clustered = nst.sweep(CELLS, executor=client.get_executor(), **common)
    # a worker may use another number of threads, which adds in another order
    assert all(torch.allclose(serial[label].image, clustered[label].image, atol=1e-4) for label in serial)


def test_a_sweep_shares_targets(common, monkeypatch):
    made = []
    original = nst.StyleObjective.__init__
    monkeypatch.setattr(nst.StyleObjective, "__init__", lambda self, *a, **k: made.append(1) or original(self, *a, **k))
    nst.sweep(CELLS, **common)
    nst.sweep({layers: {"style_layers": layers} for layers in (("relu1_1",), ("relu2_1",))}, **common)
    assert len(made) == 1 + 2


def test_a_sweep_tells_networks_of_one_architecture_apart(common):
    networks = [nst.FeatureExtractor(layers=(*nst.STYLE_LAYERS, "relu4_2"), weights=None, seed=seed) for seed in (1, 2)]
    results = nst.sweep({i: {"extractor": network} for i, network in enumerate(networks)}, **common)
    assert results[0].history[1] != results[1].history[1]


def test_an_interrupted_sweep_returns_what_is_finished(common, interrupt_at):
    interrupt_at(6)
    assert list(nst.sweep(CELLS, together=1, **common)) == list(CELLS)[:1]


def test_an_interrupted_batch_keeps_the_cells_that_had_stopped(common, interrupt_at):
    interrupt_at(30)
    cells = {"done": {"start": common["content"], "style_weight": 0.0, "tv_weight": 1e-9},  # nothing is left to do
             "busy": {"start": "noise", "tv_weight": 1e-9}}
    results = nst.sweep(cells, together=2, **common | {"steps": 50, "tolerance": 1e-3, "optimizer": "adam"})
    assert list(results) == ["done"] and "fell by less" in results["done"].reason


@pytest.mark.parametrize("together", [0, -3])
def test_a_batch_has_at_least_one_cell(common, together):
    with pytest.raises(ValueError, match="at least 1, not"):
        nst.sweep(CELLS, together=together, **common)


def test_a_sweep_shows_one_bar(common, capsys):
    nst.sweep(CELLS, **common | {"show_progress": True})
    assert "12/12 steps" in capsys.readouterr().out

import contextlib
import functools
import math
import sys
import weakref

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import nst_utils as nst

MEMORY = nst.beside("memory")


def free(monkeypatch, limit):
    """Let so many bytes of memory be free."""
    monkeypatch.setitem(MEMORY["check_memory"].__globals__, "available_memory", lambda device: limit)


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


def test_lbfgs_takes_back_a_first_step_that_raised_the_total():
    """Of little style weight the photograph is nearly the best picture, and the first step, a guess, leaps over it."""
    content, style = nst.sample("astronaut", 112), nst.sample("woodblock_waves", 112)
    objective = nst.StyleObjective(content, style, scale="gatys", style_weight=1e3, precision="float32")
    losses = [step.losses["total"] for step in run(content, objective, steps=40)]
    assert losses[1] > 10 * losses[0] and losses[-1] < 0.96 * losses[0]


def test_lbfgs_does_not_feel_the_scale_of_the_objective(picture, painting, network):
    objective = nst.StyleObjective(picture, painting, extractor=network, style_weight=1)
    images = []
    for scale in (2.0**-30, 1.0, 2.0**30):
        objective.content_weight = objective.style_weight = scale
        images.append(run(picture, objective, steps=12)[-1].image)
    assert torch.equal(images[0], images[1]) and torch.equal(images[1], images[2])


def two_loops(matrix, x, steps, history, metric):
    """The totals x.A.x / 2 along L-BFGS as Nocedal & Wright write it, algorithms 7.4 and 7.5, without a line search."""
    pairs, gradient, totals = [], matrix @ x, []
    for _ in range(steps):
        totals.append((x @ matrix @ x).item() / 2)
        q, alphas = gradient.clone(), []
        for s, y in reversed(pairs):
            alphas.append((s @ q) / (s @ y))
            q -= alphas[-1] * y
        q = metric @ q
        q *= (pairs[-1][0] @ pairs[-1][1] / (pairs[-1][1] @ metric @ pairs[-1][1]) if pairs else
              1 / 64 / (metric @ gradient).square().mean().sqrt())
        for (s, y), alpha in zip(pairs, reversed(alphas)):
            q += s * (alpha - (y @ q) / (s @ y))
        new = matrix @ (x - q)
        pairs = [*pairs, (-q, new - gradient)][-history:]
        x, gradient = x - q, new
    return totals


def frequency_metric(shape):
    """The matrix that divides each frequency of pictures of that shape by 0.02 + its cycles per pixel."""
    impulses = torch.eye(math.prod(shape), dtype=torch.float64).view(-1, *shape)
    rows, columns = (torch.fft.fftfreq(side, dtype=torch.float64) for side in shape[-2:])
    divided = torch.fft.fft2(impulses) / (0.02 + (rows[:, None].square() + columns.square()).sqrt())
    return torch.fft.ifft2(divided).real.flatten(1)


@pytest.mark.parametrize("metric", ["pixels", "frequencies"])
def test_lbfgs_is_the_two_loop_recursion_for_each_picture_of_a_batch(metric, monkeypatch):
    monkeypatch.setattr(nst.LBFGS, "LONGEST_STEP", math.inf)
    generator = torch.Generator().manual_seed(0)
    matrices = [root @ root.T + torch.eye(60) for root in torch.randn(3, 60, 60, generator=generator, dtype=torch.float64)]
    start = torch.randn(3, 3, 4, 5, generator=generator, dtype=torch.float64)
    pixels, totals = start.clone().requires_grad_(True), []
    optimizer = nst.LBFGS([pixels], history=8, metric=metric)

    def closure():
        pixels.grad = None
        each = torch.stack([picture.flatten() @ matrix @ picture.flatten() / 2 for picture, matrix in zip(pixels, matrices)])
        each.sum().backward()
        totals.append(each.detach())
        return each.sum()
    for _ in range(30):  # the memory is full after 9
        optimizer.step(closure)
    for matrix, picture, ours in zip(matrices, start, torch.stack(totals, 1)):
        initial = torch.eye(60, dtype=torch.float64) if metric == "pixels" else frequency_metric((3, 4, 5))
        assert ours.tolist() == pytest.approx(two_loops(matrix, picture.flatten(), 30, 8, initial), rel=1e-8)


def test_the_metric_of_frequencies_moves_coarse_structure_first(picture, painting, network):
    """After a few steps more of what has moved is left when fine structure is taken away; both end as low."""
    objective = nst.StyleObjective(picture, painting, extractor=network)
    coarse, totals = {}, {}
    for metric in ("pixels", "frequencies"):
        steps = run(picture, objective, steps=60, optimizer=functools.partial(nst.LBFGS, metric=metric))
        moved = steps[15].image - picture
        coarse[metric] = (F.avg_pool2d(moved, 8).square().mean() / moved.square().mean()).item()
        totals[metric] = steps[-1].losses["total"]
    assert coarse["frequencies"] > 1.3 * coarse["pixels"]
    assert totals["frequencies"] < 1.05 * totals["pixels"]
    with pytest.raises(ValueError, match="metric is one of frequencies, pixels, not 'colours'"):
        nst.LBFGS([picture], metric="colours")


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
    optimizer = nst.LBFGS([pixels], lr=1.0, history=20)

    def closure():  # a hill: the gradient grows on the way down
        pixels.grad = None
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


def test_an_interrupt_between_steps_returns_the_best_image(picture, painting, network, monkeypatch):
    seen = []

    def impatient(steps, total):
        for step in steps:
            yield seen.append(step) or step
            if len(seen) == 8:
                raise KeyboardInterrupt
    monkeypatch.setattr(nst, "progress", impatient)
    result = nst.stylize(picture, painting, size=None, steps=50, extractor=network, device="cpu", optimizer="adam",
                         learning_rate=0.5)  # far too large: the losses go up and down
    best = min(seen, key=lambda step: step.losses["total"])
    assert best is not seen[-1] and torch.equal(result.image, best.image) and result.losses == best.losses


def test_a_run_needs_no_gradients_around_it(picture, painting, network):
    with torch.no_grad():
        steps = run(picture, nst.StyleObjective(picture, painting, extractor=network), steps=3)
    assert steps[-1].losses["total"] < steps[0].losses["total"]


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
    options = dict(style=painting, size=44, steps=2, extractor=network, show_progress=False, device="cpu")
    shapes = {tuple(nst.stylize(source, **options).image.shape) for source in (path, str(path), nst.to_pil(picture), picture)}
    assert shapes == {(1, 3, 33, 44)}


@contextlib.contextmanager
def default_dtype():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("around", [torch.no_grad, torch.inference_mode, default_dtype, lambda: torch.device("meta"),
                                    lambda: torch.autocast("cpu", torch.bfloat16)])
def test_what_is_set_around_a_call_changes_nothing(picture, painting, around):
    options = dict(style=painting, size=44, steps=2, start="noise", precision="float32", show_progress=False,
                   device="cpu")
    expected = nst.stylize(picture, **options).image
    with around():
        found = nst.stylize(picture, **options).image
    assert torch.equal(found, expected)


def test_lone_names_and_numbers_of_numpy(picture, painting):
    options = dict(style=painting, weights=None, show_progress=False, device="cpu")
    lone = nst.stylize(picture, content_layers="relu3_1", style_layers="relu2_1", sizes=np.array([36, 44]), steps=np.int64(2),
                       **options)
    usual = nst.stylize(picture, content_layers=["relu3_1"], style_layers=["relu2_1"], sizes=(36, 44), steps=2, **options)
    assert torch.equal(lone.image, usual.image) and len(lone.history) == len(usual.history)


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
    ({"style_layers": ["relu9_1"]}, "layer of the extractor is one of .*, not 'relu9_1'"),
    ({"style_layer_weights": {"relu9_1": 1}}, "not 'relu9_1'"), ({"start": "nois"}, "start is"),
    ({"size": 8}, "at least 32 on each side"),
])
def test_bad_options_are_refused_in_one_sentence(picture, painting, network, options, message):
    with pytest.raises(ValueError, match=message):
        nst.stylize(picture, painting, **{"extractor": network, "steps": 2, "device": "cpu", "size": None} | options)


def test_a_misspelt_keyword_is_refused_also_beside_an_extractor(picture, painting, network):
    with pytest.raises(TypeError, match="style_wieght"):
        nst.stylize(picture, painting, extractor=network, steps=1, size=None, device="cpu", style_wieght=3)


def test_bfloat16_reaches_the_loss_of_float32(picture, painting):
    layers = (*nst.STYLE_LAYERS, *nst.CONTENT_LAYERS)
    exact, rounded = (nst.FeatureExtractor(layers=layers, precision=precision) for precision in ("float32", "bfloat16"))
    judge = nst.StyleObjective(picture, painting, extractor=exact)
    options = dict(size=None, steps=30, show_progress=False, device="cpu")
    losses = [judge(nst.stylize(picture, painting, extractor=extractor, **options).image)[0].item()
              for extractor in (exact, rounded)]
    assert losses[1] < 1.1 * losses[0]


# -- speed and memory: fast paths give what the plain ones give; what can't fit in memory is said before it starts --------


def test_bfloat16_ends_near_float32(picture, painting):
    ends = []
    judge = nst.StyleObjective(picture, painting, precision="float32")
    for precision in ("float32", "bfloat16"):
        objective = nst.StyleObjective(picture, painting, precision=precision)
        *_, last = nst.optimize_image(picture, objective, steps=20, optimizer="adam")
        ends.append(judge(last.image)[0].item())
    assert ends[1] == pytest.approx(ends[0], rel=0.05)


def test_the_memory_of_lbfgs_is_short_for_large_pictures():
    history = nst.beside("memory")["lbfgs_history"]
    assert history(3 * 384 * 512) == 20 and history(3 * 1536 * 2048) == 7 and history(10**9) == 4


def test_memory_grows_with_the_picture_and_the_network():
    compact, half = nst.FeatureExtractor(precision="float32"), nst.FeatureExtractor(precision="bfloat16")
    step_memory = MEMORY["step_memory"]
    sizes = [step_memory(compact, side, side) for side in (128, 256, 512, 1024)]
    assert sizes == sorted(sizes) and 2 < (sizes[3] - sizes[0]) / (sizes[2] - sizes[0]) < 5
    assert step_memory(half, 1024, 1024) < sizes[3]
    assert step_memory(nst.FeatureExtractor(layers=["relu1_1"]), 512, 512) < step_memory(half, 512, 512)


def test_what_cannot_fit_is_said_before_it_starts(picture, painting, monkeypatch):
    limit = MEMORY["step_memory"](nst.FeatureExtractor(layers=(*nst.STYLE_LAYERS, "relu4_2")), 48, 64)
    free(monkeypatch, limit)
    nst.StyleObjective(picture, painting)  # exactly
    with pytest.raises(ValueError, match=r"128 x 96 pixels with vgg16_compact take about .* GB, but .* GB are free: "
                                         r"the largest size that can fit is (6[4-9]|7\d) pixels") as caught:
        nst.stylize(picture, painting, size=128, steps=1, show_progress=False)
    size = int(str(caught.value).split(" pixels on")[0].split()[-1])
    assert nst.stylize(picture, painting, size=size, steps=1, show_progress=False).image.shape[-1] == size
    with pytest.raises(ValueError, match="largest size"):
        nst.stylize(picture, painting, size=size + 4, steps=1, show_progress=False)


def test_what_cannot_fit_into_one_pass_is_said_before_it_starts(picture, painting, monkeypatch):
    network = nst.AdaIN(weights=None)
    free(monkeypatch, MEMORY["pass_memory"](network, 48, 64))
    network.stylize(picture, painting)  # exactly
    with pytest.raises(ValueError, match=r"128 x 96 pixels with .* take about .*: the largest size that can fit is 64 pixels"):
        network.stylize(nst.resize(picture, 128), painting)


def test_what_the_last_error_of_a_notebook_holds_is_given_back(picture, painting, monkeypatch):
    def fails():
        image = torch.ones(1, 3, 48, 64)
        held.append(weakref.ref(image))
        raise RuntimeError("out of memory")
    held = []
    with pytest.raises(RuntimeError) as caught:
        fails()
    monkeypatch.setattr(sys, "last_traceback", caught.tb, raising=False)
    monkeypatch.setitem(MEMORY["check_memory"].__globals__, "available_memory",
                        lambda device: 0 if held[0]() is not None else math.inf)
    nst.StyleObjective(picture, painting, weights=None)
    assert held[0]() is None


def test_a_batch_takes_the_memory_of_all_its_pictures(picture, painting, monkeypatch):
    extractor = nst.FeatureExtractor(layers=(*nst.STYLE_LAYERS, "relu4_2"))
    base = MEMORY["BASE"]  # once, not for each picture
    free(monkeypatch, base + 2 * (MEMORY["step_memory"](extractor, 48, 64) - base))
    nst.StyleObjective(torch.cat([picture] * 2), painting, extractor=extractor)
    with pytest.raises(ValueError, match="64 x 48 pixels .* the largest size that can fit"):
        nst.StyleObjective(torch.cat([picture] * 3), painting, extractor=extractor)


def test_the_limit_of_a_container_counts(tmp_path, monkeypatch):
    container_memory, available_memory = MEMORY["container_memory"], MEMORY["available_memory"]
    assert container_memory(tmp_path) == math.inf
    for name, text in (("memory.max", "max"), ("memory.current", "300"), ("memory.stat", "anon 7\ninactive_file 50\n")):
        (tmp_path / name).write_text(text)
    assert container_memory(tmp_path) == math.inf
    (tmp_path / "memory.max").write_text("1000")
    assert container_memory(tmp_path) == 750
    monkeypatch.setitem(available_memory.__globals__, "container_memory", lambda: 750)
    assert available_memory(torch.device("cpu")) == 750
    assert available_memory(torch.device("mps")) == math.inf  # nobody tells


def test_coarse_to_fine_is_a_chain_over_sizes(picture, painting):
    steps = list(nst.coarse_to_fine(picture, painting, sizes=(44, 56, 64), steps=(3, 2, 2)))
    assert [step.image.shape[-1] for step in steps] == [44] * 4 + [56] * 3 + [64] * 3
    assert [step.index for step in steps] == [0, 1, 2, 3, 3, 4, 5, 5, 6, 7]
    assert [step.evaluations for step in steps] == list(range(1, 11))
    assert [step.seconds for step in steps] == sorted(step.seconds for step in steps)
    assert [step.reason for step in steps] == [""] * 9 + ["all 2 steps made"]
    # each size begins where the size before ended, not at the photograph
    enlarged = torch.nn.functional.interpolate(steps[3].image, (42, 56), mode="bicubic", antialias=True).clamp(0, 1)
    assert torch.allclose(steps[4].image, enlarged, atol=1e-6)


def test_coarse_to_fine_builds_the_network_once(picture, painting, monkeypatch):
    built = []
    init = nst.FeatureExtractor.__init__
    monkeypatch.setattr(nst.FeatureExtractor, "__init__", lambda self, *a, **k: (built.append(1), init(self, *a, **k))[1])
    list(nst.coarse_to_fine(picture, painting, sizes=(44, 64), steps=1))
    assert built == [1]


@pytest.mark.parametrize("sizes, steps", [((), 3), ((64, 32), 3), ((32, 32), 3), ((32, 64), (3,))])
def test_sizes_that_make_no_chain_are_refused(picture, painting, sizes, steps):
    with pytest.raises(ValueError, match="sizes ascend"):
        next(nst.coarse_to_fine(picture, painting, sizes=sizes, steps=steps))


def test_stylize_takes_sizes(picture, painting, capsys):
    result = nst.stylize(picture, painting, sizes=(44, 64), steps=(4, 3), start=torch.rand(1, 3, 48, 64))
    assert result.image.shape == picture.shape and len(result.history) == 9 and "7/7 steps" in capsys.readouterr().out


def test_an_interrupt_ends_the_whole_chain(picture, painting, interrupt_at):
    interrupt_at(3)
    result = nst.stylize(picture, painting, sizes=(44, 64), steps=5, show_progress=False)
    assert result.reason == "interrupted" and result.image.shape[-1] == 44


def test_an_interrupt_between_steps_keeps_the_picture_of_the_last_size(picture, painting, monkeypatch):
    def impatient(steps, total):
        for step in steps:
            yield step
            if step.image.shape[-1] == 64:
                raise KeyboardInterrupt
    monkeypatch.setattr(nst, "progress", impatient)
    assert nst.stylize(picture, painting, sizes=(44, 64), steps=2).image.shape[-1] == 64


def test_range_weight_keeps_the_loss_of_the_clamped_picture(picture, painting, network):
    lost = {}
    for weight in (0.0, 10.0):
        objective = nst.StyleObjective(picture, painting, extractor=network, range_weight=weight)
        *_, last = nst.optimize_image(picture, objective, steps=60)
        free = last.losses["content"] + 100 * last.losses["style"]
        _, terms = objective(last.image)
        lost[weight] = (terms["content"] + 100 * terms["style"]).item() / free - 1
        assert ("range" in terms) == (weight > 0)
    assert lost[10.0] < 0.05 and lost[10.0] < lost[0.0] / 5


@pytest.mark.parametrize("scale", ["relative", "gatys"])
def test_the_weight_of_the_range_grows_with_the_loss(picture, painting, network, scale):
    objective = nst.StyleObjective(picture, painting, extractor=network, scale=scale, content_weight=2, style_weight=30)
    content, style = objective.content_targets["relu4_2"], [one[:, 0] for one in objective.style_targets.values()]
    blank = (2 * nst.content_loss(torch.zeros_like(content), content, scale=scale)
             + 30 * sum(nst.style_loss(torch.zeros_like(target), target, scale=scale) for target in style) / 5).item()
    assert objective.weights()["range"].item() == pytest.approx(10 * blank, rel=1e-5)
    assert scale == "gatys" or blank == pytest.approx(32, rel=1e-5)
    assert nst.StyleObjective(style=painting, extractor=network, range_weight=0).weights()["range"].item() == 0

"""Fast paths give what the plain ones give; what can't fit in memory is said before it starts."""
import math

import pytest
import torch

import nst_utils as nst


def test_bfloat16_ends_near_float32(picture, painting):
    ends = []
    judge = nst.StyleObjective(picture, painting, precision="float32")
    for precision in ("float32", "bfloat16"):
        objective = nst.StyleObjective(picture, painting, precision=precision)
        *_, last = nst.optimize_image(picture, objective, steps=40, optimizer="adam")
        ends.append(judge(last.image)[0].item())
    assert ends[1] == pytest.approx(ends[0], rel=0.05)


def test_the_memory_of_lbfgs_is_short_for_large_pictures():
    assert nst._history(3 * 384 * 512) == 20 and nst._history(3 * 1536 * 2048) == 7 and nst._history(10**9) == 4


def test_memory_grows_with_the_picture_and_the_network():
    compact, half = nst.FeatureExtractor(precision="float32"), nst.FeatureExtractor(precision="bfloat16")
    sizes = [compact.memory(side, side) for side in (128, 256, 512, 1024)]
    assert sizes == sorted(sizes) and 2 < (sizes[3] - sizes[0]) / (sizes[2] - sizes[0]) < 5
    assert half.memory(1024, 1024) < sizes[3]
    assert nst.FeatureExtractor(layers=["relu1_1"]).memory(512, 512) < half.memory(512, 512)


def test_what_cannot_fit_is_said_before_it_starts(picture, painting, monkeypatch):
    limit = nst.FeatureExtractor(layers=(*nst.STYLE_LAYERS, "relu4_2")).memory(48, 64)
    monkeypatch.setattr(nst, "_available_memory", lambda device: limit)
    nst.StyleObjective(picture, painting)  # exactly
    with pytest.raises(ValueError, match=r"128 x 96 pixels with vgg19_compact take about .* GB, but .* GB are free: "
                                         r"the largest size that can fit is (6[4-9]|7\d) pixels") as caught:
        nst.stylize(picture, painting, size=128, steps=1, show_progress=False)
    size = int(str(caught.value).split(" pixels on")[0].split()[-1])
    assert nst.stylize(picture, painting, size=size, steps=1, show_progress=False).image.shape[-1] == size
    with pytest.raises(ValueError, match="largest size"):
        nst.stylize(picture, painting, size=size + 4, steps=1, show_progress=False)


def test_memory_is_unknown_where_nobody_tells(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "psutil", None)
    assert nst._available_memory(torch.device("cpu")) == math.inf


def test_coarse_to_fine_is_a_chain_over_sizes(picture, painting):
    steps = list(nst.coarse_to_fine(picture, painting, sizes=(32, 48, 64), steps=(3, 2, 2)))
    assert [step.image.shape[-1] for step in steps] == [32] * 4 + [48] * 3 + [64] * 3
    assert [step.index for step in steps] == [0, 1, 2, 3, 3, 4, 5, 5, 6, 7]
    assert [step.evaluations for step in steps] == list(range(1, 11))
    assert [step.seconds for step in steps] == sorted(step.seconds for step in steps)
    assert [step.reason for step in steps] == [""] * 9 + ["all 2 steps made"]
    # each size begins where the size before ended, not at the photograph
    enlarged = torch.nn.functional.interpolate(steps[3].image, (36, 48), mode="bicubic", antialias=True).clamp(0, 1)
    assert torch.allclose(steps[4].image, enlarged, atol=1e-6)


def test_coarse_to_fine_builds_the_network_once(picture, painting, monkeypatch):
    built = []
    init = nst.FeatureExtractor.__init__
    monkeypatch.setattr(nst.FeatureExtractor, "__init__", lambda self, *a, **k: (built.append(1), init(self, *a, **k))[1])
    list(nst.coarse_to_fine(picture, painting, sizes=(32, 48), steps=1))
    assert built == [1]


@pytest.mark.parametrize("sizes, steps", [((), 3), ((64, 32), 3), ((32, 32), 3), ((32, 64), (3,))])
def test_sizes_that_make_no_chain_are_refused(picture, painting, sizes, steps):
    with pytest.raises(ValueError, match="sizes ascend"):
        next(nst.coarse_to_fine(picture, painting, sizes=sizes, steps=steps))


def test_stylize_takes_sizes(picture, painting, capsys):
    result = nst.stylize(picture, painting, sizes=(32, 64), steps=(4, 3), start=torch.rand(1, 3, 48, 64))
    assert result.image.shape == picture.shape and len(result.history) == 9 and "7/7 steps" in capsys.readouterr().out


def test_an_interrupt_ends_the_whole_chain(picture, painting, interrupt_at):
    interrupt_at(3)
    result = nst.stylize(picture, painting, sizes=(32, 64), steps=5, show_progress=False)
    assert result.reason == "interrupted" and result.image.shape[-1] == 32


def test_an_interrupt_between_steps_keeps_the_best_of_the_last_size(picture, painting):
    def steps():
        for step in nst.coarse_to_fine(picture, painting, sizes=(32, 64), steps=2):
            yield step
            if step.image.shape[-1] == 64:
                raise KeyboardInterrupt
    assert nst._collect(steps()).image.shape[-1] == 64


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
    content, style = objective.content_targets["relu4_2"], objective.style_targets.values()
    blank = (2 * nst.content_loss(torch.zeros_like(content), content, scale=scale)
             + 30 * sum(nst.style_loss(torch.zeros_like(target), target, scale=scale) for target in style) / 5).item()
    assert objective.weights()["range"] == pytest.approx(10 * blank, rel=1e-5)
    assert scale == "gatys" or blank == pytest.approx(32, rel=1e-5)
    assert nst.StyleObjective(style=painting, extractor=network, range_weight=0).weights()["range"] == 0

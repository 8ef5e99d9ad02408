"""Runs that obey while they run, and the panels over them, without a browser: values set and buttons clicked from Python."""
import copy
import io
import os
import subprocess
import sys
import threading
import time
import types
from datetime import datetime

import numpy as np
import pytest
import torch
from PIL import Image

import nst_utils as nst
import panels

PATIENCE = 60  # seconds until a test gives up waiting


@pytest.fixture
def live(picture, painting):
    """Makes runs on small pictures and ends them after the test."""
    made = []

    def make(**settings):
        made.append(panels.LiveRun(picture, painting, **{"size": None, "steps": 2000, "precision": "float32"} | settings))
        return made[-1]

    yield make
    for run in made:
        run.stop()


@pytest.fixture
def panel(picture, painting):
    """Makes panels and closes them after the test."""
    made = []

    def make(**settings):
        settings = {"size": None, "steps": 2000, "precision": "float32"} | settings
        made.append(panels.steer(picture, painting, **settings))
        return made[-1]

    yield make
    for one in made:
        one.close()


def workers():
    return [thread for thread in threading.enumerate() if thread.name == "LiveRun"]


def eventually(condition):
    deadline = time.monotonic() + PATIENCE
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.005)
    return condition()


def slow_gram(seconds):
    def statistic(maps):
        time.sleep(seconds / len(nst.STYLE_LAYERS))
        return nst.gram(maps)
    return statistic


def moved(before, after):
    return (before - after).abs().mean().item() * 255


# Runs without widgets


def test_nothing_runs_before_start(live, picture):
    run = live()
    assert run.state == "ready" and not workers() and not run.history
    assert torch.equal(run.image, picture)


def test_a_run_makes_the_steps_of_optimize_image_and_ends_its_worker(live, picture):
    run = live(steps=8)
    run.start()
    assert run.wait(timeout=PATIENCE) and run.state == "finished" and run.reason == "all 8 steps made"
    expected = list(nst.optimize_image(picture, run.objective, steps=8))
    assert [step.losses for step in expected] == run.history
    assert torch.equal(expected[-1].image, run.image) and run.pace > 0
    assert eventually(lambda: not workers())


def test_weights_take_effect_from_the_next_step_without_a_restart(live, picture):
    run = live(steps=12, style_weight=1.0)
    run.on_change = lambda: len(run.history) == 6 and run.configure(style_weight=500.0)
    run.start()
    assert run.wait(timeout=PATIENCE)
    objective = copy.copy(run.objective)
    objective.style_weight = 1.0
    expected = []
    for step in nst.optimize_image(picture, objective, steps=12):
        expected.append(step.losses)
        if len(expected) == 6:
            objective.style_weight = 500.0
    assert run.history == expected
    assert run.history[6]["total"] > 50 * run.history[5]["total"]  # the same picture in another currency


def test_pause_holds_and_resume_goes_on_from_there(live):
    run = live()
    run.start()
    assert run.wait(3, PATIENCE)
    run.pause()
    assert run.state == "paused"
    time.sleep(0.3)  # the step under way may still come
    count, image = len(run.history), run.image
    time.sleep(0.3)
    assert len(run.history) == count and len(workers()) == 1
    run.resume()
    assert run.wait(count + 2, PATIENCE) and run.history[count]["total"] < run.history[0]["total"]
    assert moved(image, run.image) < 30


def test_start_again_repeats_the_run(live):
    run = live(steps=6)
    run.start()
    run.wait(timeout=PATIENCE)
    first = run.history
    run.start()
    run.wait(timeout=PATIENCE)
    assert run.history == first and run.history is not first


def test_a_step_under_way_does_not_count_for_the_run_begun_meanwhile(live, picture):
    run = live(steps=3, statistic=slow_gram(0.3))
    run.start()
    assert run.wait(2, PATIENCE)
    time.sleep(0.1)  # in the middle of the third step
    run.start()
    assert run.wait(1, PATIENCE)
    assert run.history[0]["content"] == 0 and torch.equal(run.image, picture)


def test_resume_after_the_end_adds_steps(live):
    run = live(steps=5)
    run.start()
    run.wait(timeout=PATIENCE)
    best = run.history[-1]["total"]
    run.resume()
    assert run.wait(timeout=PATIENCE) and run.state == "finished"
    assert len(run.history) > 10 and run.history[-1]["total"] < best


@pytest.mark.parametrize("change", [{"size": 96}, {"pooling": "avg"}, {"optimizer": "adam"}, {"weights": None},
                                    {"style": torch.rand(1, 3, 40, 40, generator=torch.Generator().manual_seed(1))}])
def test_a_structural_change_goes_on_from_the_current_picture(live, picture, change):
    run = live(style_weight=1000.0)
    seen = {}

    def act():
        if len(run.history) == 20 and not seen:
            seen["before"] = run.image
            run.configure(**change)
        elif len(run.history) == 21 and "after" not in seen:
            seen["after"] = run.image
            run.pause()

    run.on_change = act
    run.start()
    assert run.wait(21, PATIENCE) and eventually(lambda: "after" in seen)
    assert max(seen["after"].shape[-2:]) == change.get("size", 64)
    before = torch.nn.functional.interpolate(seen["before"], seen["after"].shape[-2:], mode="bicubic", antialias=True)
    start = torch.nn.functional.interpolate(picture, seen["after"].shape[-2:], mode="bicubic", antialias=True)
    assert moved(before, seen["after"]) < 1 < 5 < moved(start, seen["after"])


def test_another_content_begins_again(live, picture):
    run = live()
    run.start()
    assert run.wait(5, PATIENCE)
    run.configure(content=picture.flip(-1))
    run.pause()
    assert eventually(lambda: run.state == "paused" and not run.history)
    run.resume()
    assert run.wait(1, PATIENCE) and run.history[0]["content"] == 0
    assert run.objective.content.equal(picture.flip(-1))


def test_bad_settings_are_refused_and_change_nothing(live):
    run = live()
    with pytest.raises(ValueError, match="at least 0, not -1"):
        run.configure(style_weight=-1)
    with pytest.raises(TypeError, match="no setting 'optimiser'.*optimizer"):
        run.configure(optimiser="adam")
    with pytest.raises(TypeError, match="no setting 'optimiser'.*optimizer"):
        live(optimiser="adam")
    with pytest.raises(ValueError, match="no arch 'vgg18'"):
        live(arch="vgg18")
    with pytest.raises(ValueError, match="A picture is a path, .* not list"):
        panels.LiveRun(nst.sample("swirls", 64), [nst.sample("mosaic", 64)])
    for refused in (run.configure, live):
        with pytest.raises(ValueError, match="optimizer is one of lbfgs, adam, sgd, not 'adamm'"):
            refused(optimizer="adamm")
    with pytest.raises(ValueError, match="a key of style_layer_weights is one of"):
        run.configure(style_layer_weights={"relu9_9": 1})
    run.configure(seed=3, weights=None, content_layers=["relu3_1"])  # of the run, the network and the objective
    run.configure(seed=0, weights="DEFAULT", content_layers=None)
    run.start()
    assert run.wait(3, PATIENCE) and run.state == "running" and run.objective.style_weight == 10


def test_an_error_is_kept_and_the_run_recovers_from_its_picture(live):
    run = live(style_weight=1000.0)
    run.start()
    assert run.wait(20, PATIENCE)
    run.configure(weights="nowhere.pt")
    assert run.wait(timeout=PATIENCE) and run.state == "failed" and isinstance(run.error, FileNotFoundError)
    assert eventually(lambda: not workers())
    count, content = len(run.history), run.history[-1]["content"]
    run.configure(weights="DEFAULT")
    assert run.wait(count + 1, PATIENCE) and run.error is None
    assert run.history[count]["content"] == pytest.approx(content, rel=0.3)


def test_an_error_of_the_listener_is_kept_too(live):
    run = live(on_change=lambda: run.history and 1 / 0)
    run.start()
    assert eventually(lambda: run.state == "failed") and isinstance(run.error, ZeroDivisionError)
    assert eventually(lambda: not workers())
    run.on_change = lambda: None


def test_callers_never_wait_for_a_step(live):
    run = live(statistic=slow_gram(1.0))
    run.start()
    time.sleep(0.2)  # in the middle of a step
    for act in (lambda: run.configure(style_weight=7.0), lambda: run.configure(size=32), run.pause, run.resume, run.start):
        began = time.perf_counter()
        act()
        assert time.perf_counter() - began < 0.1


def test_a_run_stopped_in_its_last_step_can_go_on(live):
    run = live(steps=2, statistic=slow_gram(0.3))
    run.start()
    assert run.wait(2, PATIENCE)
    time.sleep(0.1)  # in the middle of the third evaluation
    run.stop()
    assert run.state == "stopped" and len(run.history) == 3
    run.resume()
    assert run.wait(timeout=PATIENCE) and run.state == "finished" and run.error is None


def test_layer_weights_of_none_are_the_default_ones(live):
    run = live(steps=2, style_layer_weights=None)
    run.start()
    assert run.wait(timeout=PATIENCE) and run.state == "finished"
    run.configure(style_layer_weights=None)


def test_stop_ends_the_worker_and_keeps_the_picture(live):
    run = live(statistic=slow_gram(0.2))
    run.start()
    assert run.wait(2, PATIENCE)
    run.stop()
    assert run.state == "stopped" and not workers() and len(run.history) >= 2
    run.resume()
    assert run.wait(len(run.history) + 1, PATIENCE) and run.state == "running"


def test_fifty_quick_moves_leave_one_worker_and_the_last_value(live):
    run = live(statistic=slow_gram(0.05))
    run.start()
    assert run.wait(1, PATIENCE)
    for weight in range(50):
        run.configure(style_weight=float(weight))
    count = len(run.history)
    assert run.wait(count + 2, PATIENCE) and run.error is None
    assert run.objective.weights()["style"] == 49 and len(workers()) == 1


def test_two_runs_do_not_disturb_each_other(live):
    alone = live(steps=10)
    alone.start()
    alone.wait(timeout=PATIENCE)
    one, two = live(steps=10), live(steps=10, style_weight=1.0)
    one.start()
    two.start()
    assert one.wait(timeout=PATIENCE) and two.wait(timeout=PATIENCE)
    assert one.history == alone.history and two.history != alone.history


@pytest.mark.parametrize("steps, then", [(10**6, "run.wait(2)"), (2, "run.wait()"), (10**6, "run.wait(2); run.pause()")],
                         ids=["in its midst", "at once after its end", "while it pauses"])
def test_the_interpreter_may_end_while_a_run_is_under_way(steps, then):
    script = ("import torch, panels\n"
              f"run = panels.LiveRun(torch.rand(1, 3, 64, 64), torch.rand(1, 3, 64, 64), steps={steps})\n"
              f"run.start()\n{then}\nprint('leaving')")
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120,
                          env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))})
    assert done.returncode == 0 and done.stdout == "leaving\n" and not done.stderr


# The panel


def test_a_panel_starts_nothing_and_shows_the_start_picture(panel):
    one = panel()
    assert not workers() and one.run.state == "ready"
    assert nst.load_image(bytes(one.picture.value)).shape == (1, 3, 48, 64)
    assert {name for name, button in one.buttons.items() if not button.disabled} == {"Start", "Save figure"}
    bundle = one._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in bundle and "run this cell" in bundle["text/plain"]


def test_buttons_start_pause_resume_and_restart(panel):
    one = panel()
    before = bytes(one.picture.value)
    one.buttons["Start"].click()
    assert eventually(lambda: one.bar.value > 2 and bytes(one.picture.value) != before and "polyline" in one.curves.value)
    one.buttons["Pause"].click()
    assert one.run.state == "paused" and eventually(lambda: one.status.value.startswith("paused"))
    assert one.buttons["Pause"].disabled and not one.buttons["Resume"].disabled
    count = len(one.run.history)
    one.buttons["Resume"].click()
    assert one.run.wait(count + 3, PATIENCE) and one.run.state == "running"
    one.buttons["Restart"].click()
    assert one.run.state == "running" and len(one.run.history) < count + 3
    assert one.run.wait(3, PATIENCE) and "s per step" in one.status.value


def test_the_panel_shows_the_end_of_a_run(panel):
    one = panel(steps=6)
    one.buttons["Start"].click()
    assert eventually(lambda: one.status.value.startswith("finished"))
    assert one.bar.value == one.bar.max and bytes(one.picture.value) == panels._jpeg(one.run.image)


def test_sliders_reach_the_running_objective(panel):
    one = panel()
    one.buttons["Start"].click()
    one.controls["content_weight"].value = 3.0
    one.controls["style_weight"].value = 0  # the far left end
    one.controls["tv_weight"].value = 250.0
    one.layers.children[0].value = 0.85
    count = len(one.run.history)
    assert one.run.wait(count + 2, PATIENCE)
    weights = one.run.objective.weights()
    assert (weights["content"], weights["style"], weights["tv"], weights["style relu1_1"]) == (3.0, 0.0, 250.0, 0.85)
    assert weights["style relu2_1"] == 0.2 and not one.message.value


def test_the_panel_shows_the_settings_that_it_was_given(panel):
    one = panel(style_weight=37.0, pooling="avg", optimizer="adam", size=100, start="noise")
    values = {name: one.controls[name].value for name in ("style_weight", "pooling", "optimizer", "size", "start", "style")}
    assert values == {"style_weight": pytest.approx(37), "pooling": "average", "optimizer": "adam", "size": "100",
                      "start": "noise", "style": "as given"}


def test_sliders_reach_as_far_as_the_weights_that_they_show(panel):
    one = panel(scale="gatys", content_weight=1e-3, style_weight=1e6)
    assert (one.controls["content_weight"].value, one.controls["style_weight"].value) == pytest.approx((1e-3, 1e6))
    assert not one.message.value and one.run.objective.content_weight == 1e-3


def test_menus_change_the_running_objective(panel):
    one = panel(weights=None)
    one.buttons["Start"].click()
    for name, value in {"pooling": "average", "optimizer": "adam", "style": "mosaic", "size": "128", "arch": "alexnet"}.items():
        one.controls[name].value = value
    assert eventually(lambda: one.run.objective.extractor.arch == "alexnet") and one.run.error is None
    assert one.run.objective.extractor.swapped_pools and max(one.run.objective.style.shape) == 128
    assert [slider.description for slider in one.layers.children] == list(one.run.objective.style_layers)
    one.layers.children[-1].value = 0.5
    count = len(one.run.history)
    assert one.run.wait(count + 2, PATIENCE) and one.run.objective.style_layer_weights["relu3_3"] == 0.5
    one.controls["arch"].value = "vgg16"
    assert eventually(lambda: one.run.objective.extractor.arch == "vgg16")
    assert one.run.objective.style_layer_weights == dict.fromkeys(nst.STYLE_LAYERS, 0.2)


def test_another_start_begins_again(panel):
    one = panel()
    one.buttons["Start"].click()
    assert one.run.wait(3, PATIENCE)
    one.controls["start"].value = "noise"
    assert eventually(lambda: one.run.history and one.run.history[0]["content"] > 0.5)


def test_moving_a_slider_answers_within_100_ms_while_a_step_takes_a_second(panel):
    one = panel(statistic=slow_gram(1.0))
    one.buttons["Start"].click()
    time.sleep(0.3)
    for value in (2.0, 20.0, 200.0):
        began = time.perf_counter()
        one.controls["style_weight"].value = value
        assert time.perf_counter() - began < 0.1
    assert one.run.wait(len(one.run.history) + 2, PATIENCE) and one.run.objective.style_weight == pytest.approx(200)


def test_fifty_quick_moves_of_a_slider(panel):
    one = panel()
    one.buttons["Start"].click()
    for k in range(50):
        one.controls["style_weight"].value = 10 ** (k / 20)
    count = len(one.run.history)
    assert one.run.wait(count + 2, PATIENCE) and one.run.objective.style_weight == pytest.approx(10**2.45)
    assert len(workers()) == 1 and not one.message.value and one.run.state == "running"


def test_a_long_run_is_drawn_ten_times_a_second_at_most(panel):
    one, seen = panel(), []
    one.picture.observe(lambda change: seen.append(time.perf_counter()), "value")
    one.buttons["Start"].click()
    assert one.run.wait(60, PATIENCE)
    one.run.stop()
    drawn = [later - earlier for earlier, later in zip(seen[1:], seen[2:-1])]
    assert len(seen) < len(one.run.history) and all(gap > 0.09 for gap in drawn)


def test_errors_are_shown_as_one_escaped_sentence(panel):
    one = panel()
    one.buttons["Start"].click()
    one.run.configure(weights="<nowhere>.pt")
    assert eventually(lambda: "There is no weights file at &lt;nowhere&gt;.pt." in one.message.value)
    assert eventually(lambda: one.status.value.startswith("failed"))
    one.run.settings |= {"weights": "DEFAULT"}
    one.buttons["Resume"].click()
    assert not one.message.value and one.run.wait(len(one.run.history) + 2, PATIENCE)
    one.obey(style_weight=5.0)
    with pytest.raises(ValueError):
        one.obey(style_weight=float("nan"))


def file(name, content):
    return ({"name": name, "type": "", "size": len(content), "content": memoryview(content), "last_modified": datetime.now()},)


def png(picture):
    stream = io.BytesIO()
    nst.to_pil(picture).save(stream, "PNG")
    return stream.getvalue()


def test_uploads_become_content_and_style(panel, picture, painting):
    one = panel()
    one.buttons["Start"].click()
    one.controls["own_content"].value = file("cat.png", png(picture.flip(-1)))
    one.controls["own_style"].value = file("stripes.png", png(painting.flip(1)))
    assert one.controls["style"].value == "stripes.png"
    assert eventually(lambda: moved(one.run.objective.style, painting.flip(1)) < 1)
    assert moved(one.run.objective.content, picture.flip(-1)) < 1 and one.run.error is None
    one.controls["own_content"].value = file("<b>.png", png(picture))
    assert one.message.value == "&lt;b&gt;.png is in use from the next step on."
    one.controls["own_style"].value = file("stripes.png", png(painting.flip(2)))
    assert eventually(lambda: moved(one.run.objective.style, painting.flip(2)) < 1)
    one.controls["style"].value = "as given"
    assert eventually(lambda: moved(one.run.objective.style, painting) < 1)


def huge():
    stream = io.BytesIO()
    Image.new("1", (20000, 6000)).save(stream, "PNG")
    return stream.getvalue()


@pytest.mark.parametrize("content, sentence", [(b"no picture at all", "can&#x27;t be read as a picture"), (b"", "empty"),
                                               (huge(), "20000 x 6000 pixels, more than")])
@pytest.mark.parametrize("control", ["own_content", "own_style"])
def test_bad_uploads_are_refused_in_the_panel(panel, content, sentence, control):
    one = panel()
    before = one.run.settings
    one.controls[control].value = file("notes.txt", content)
    assert sentence in one.message.value and "0x" not in one.message.value
    assert one.run.settings is before and "notes.txt" not in one.controls["style"].options


def test_save_writes_a_figure_with_its_caption_and_the_picture(panel, tmp_path):
    import matplotlib.pyplot as plt
    one = panel(steps=4)
    one.buttons["Start"].click()
    one.run.wait(timeout=PATIENCE)
    assert one.save(folder=tmp_path).name == "steered_1.print.png" and one.save(folder=tmp_path).name == "steered_2.print.png"
    assert "style 10" in (tmp_path / "steered_1.txt").read_text()
    assert moved(nst.load_image(tmp_path / "steered_1_picture.png"), one.run.image) < 1
    assert not plt.get_fignums() and "steered_2.print.png" in one.message.value
    one.buttons["Save figure"].click()
    assert "Saved as" in one.message.value


def test_a_cell_run_again_closes_its_panel_and_ends_the_worker(panel, monkeypatch):
    monkeypatch.setattr(panels, "_this_cell", lambda: ("cell", "first"))
    one, beside = panel(), panel()
    one.buttons["Start"].click()
    beside.buttons["Start"].click()
    assert len(workers()) == 2
    monkeypatch.setattr(panels, "_this_cell", lambda: ("other cell", "second"))
    other = panel()
    other.buttons["Start"].click()
    assert len(workers()) == 3
    monkeypatch.setattr(panels, "_this_cell", lambda: ("cell", "third"))
    panel()
    assert one.run.state == beside.run.state == "stopped" and other.run.state == "running" and len(workers()) == 1


def test_a_cell_is_told_by_what_the_notebook_sends(monkeypatch):
    request = {"metadata": {"cellId": "cell"}, "header": {"msg_id": "first"}}
    kernel = types.SimpleNamespace(get_parent=lambda channel: request if channel == "shell" else {})
    shell = types.SimpleNamespace(kernel=kernel)
    monkeypatch.setattr(panels, "get_ipython", lambda: shell)
    assert panels._this_cell() == ("cell", "first")
    monkeypatch.delattr(shell, "kernel")
    assert panels._this_cell() == (None, None)


def test_panels_outside_a_notebook_live_side_by_side(panel):
    one, two = panel(), panel()
    assert {one, two} <= set(panels.Panel.opened)
    one.close()
    assert one not in panels.Panel.opened and two in panels.Panel.opened


def test_what_outlives_its_panel_is_left_alone(panel):
    one = panel()
    one.close()
    one.run.start()
    one.close()  # as Python does when it clears the panel away
    assert one.run.wait(2, PATIENCE) and one.run.state == "running"
    one.run.stop()


# The mixer of styles


@pytest.fixture
def mixer(picture, painting):
    """A panel over an untrained network: what it mixes does not depend on training."""
    network = nst.AdaIN(precision="float32")
    styles = {"stripes": painting, "upside down": painting.flip(2).roll(1, dims=1),
              "grey": painting.mean(1, keepdim=True).expand_as(painting)}
    one = panels.adain_panel(picture, styles, preview=32, network=network)
    one.network, one.pictures = network, list(styles.values())
    yield one
    one.close()


def test_the_mixer_is_a_plain_function_of_numbers(mixer, picture):
    expected = mixer.network.stylize(picture, mixer.pictures, alpha=0.7, weights=[1, 3, 0], keep_colours=True)
    assert torch.equal(mixer.mix(0.7, [1, 3, 0], True), expected)
    assert torch.equal(mixer.mix(weights=[0, 1, 0]), mixer.network.stylize(picture, mixer.pictures[1]))
    assert mixer.mix(size=32).shape == (1, 3, 24, 32) and mixer.mix(size=500).shape == picture.shape


def test_styles_are_encoded_once(mixer, monkeypatch):
    monkeypatch.setattr(mixer.network, "statistics", lambda style: pytest.fail("encoded again"))
    mixer.controls["alpha"].value = 0.5
    assert not mixer.message.value


def test_the_mixer_shows_a_preview_at_once_and_the_whole_picture_at_rest(mixer):
    size = lambda: nst.load_image(bytes(mixer.picture.value)).shape[-1]  # noqa: E731
    assert size() == 64
    mixer.rest = 2.0  # longer than a busy machine may need between two moves
    before = bytes(mixer.picture.value)
    for k in range(1, 10):
        mixer.controls["alpha"].value = 1 - k / 10
        mixer.controls["upside down"].value = k / 10
        assert size() == 32
    assert eventually(lambda: size() == 64)
    assert mixer.numbers() == {"alpha": pytest.approx(0.1), "weights": [1, 0.9, 0], "keep_colours": False,
                               "apart": False, "mask": None, "style_scale": 1}
    assert bytes(mixer.picture.value) == panels._jpeg(mixer.mix(**mixer.numbers())) != before
    mixer.controls["keep_colours"].value = True
    assert mixer.numbers()["keep_colours"] is True
    assert eventually(lambda: bytes(mixer.picture.value) == panels._jpeg(mixer.mix(**mixer.numbers())))


def test_styles_stand_side_by_side_as_wide_as_their_weights(mixer, picture):
    masks = panels.bands([1, 3, 0], picture)
    assert [mask.shape for mask in masks] == [(1, 1, 48, 64)] * 3 and torch.allclose(sum(masks), torch.ones(1, 1, 48, 64))
    assert [round(mask.mean().item(), 2) for mask in masks] == [0.24, 0.76, 0]  # a little less at the edge
    mixer.controls["apart"].value = True
    mixer.controls["upside down"].value = 0.5
    apart = mixer.mix(**mixer.numbers())
    left, right = (mixer.network.stylize(picture, one) for one in mixer.pictures[:2])
    near = lambda one: torch.allclose(apart[..., :16], one[..., :16], atol=0.05)  # noqa: E731
    assert near(left) and not near(right)
    mixer.controls["stripes"].value = mixer.controls["upside down"].value = 0
    assert "not all 0" in mixer.message.value


def test_the_mixer_paints_where_a_mask_says_and_as_large_as_a_slider_says(mixer, picture):
    left = np.zeros((48, 64), dtype=np.uint8)
    left[:, :8] = 255
    stream = io.BytesIO()
    Image.fromarray(left).save(stream, "PNG")
    mixer.controls["mask"].value = file("left.png", stream.getvalue())
    assert not mixer.message.value and bytes(mixer.picture.value) == panels._jpeg(mixer.mix(**mixer.numbers(), size=32))
    plain = mixer.network.stylize(picture, mixer.pictures[0], alpha=0)
    for around in (False, True):
        mixer.controls["around"].value = around
        mask = torch.from_numpy(left / 255).float()
        wanted = mixer.network.stylize(picture, mixer.pictures[0], masks=[1 - mask if around else mask])
        assert torch.allclose(mixer.mix(**mixer.numbers()), wanted, atol=1e-5)
    mixer.controls["upside down"].value = 1.0  # mixed, and side by side with a style that finds no place
    assert mixer.mix(**mixer.numbers() | {"apart": True}).shape == picture.shape
    half = mixer.network.stylize(picture, mixer.pictures[:2], masks=[(1 - mask) / 2] * 2)
    assert torch.allclose(mixer.mix(**mixer.numbers()), half, atol=1e-5) and not torch.allclose(half, plain, atol=0.01)
    mixer.controls["scale"].value = 2.0
    assert mixer.numbers()["style_scale"] == 2 and not mixer.message.value
    large = mixer.network.stylize(picture, nst.resize(mixer.pictures[0], 2 * max(mixer.pictures[0].shape[-2:])))
    assert torch.equal(mixer.mix(weights=[1, 0, 0], style_scale=2.0), large)
    mixer.controls["mask"].value = file("notes.txt", b"no picture")
    assert "notes.txt" in mixer.message.value


def test_the_mixer_shows_errors(mixer):
    mixer.controls["stripes"].value = 0
    assert "not all 0" in mixer.message.value
    mixer.controls["grey"].value = 1
    assert not mixer.message.value


def test_a_closed_mixer_computes_nothing_more(mixer):
    mixer.controls["alpha"].value = 0.5
    mixer.close()
    preview = bytes(mixer.picture.value)
    time.sleep(2 * mixer.rest)
    assert bytes(mixer.picture.value) == preview


# Frames


@pytest.fixture
def steps(picture, network):
    objective = nst.StyleObjective(picture, picture.flip(1), extractor=network)
    return list(nst.optimize_image(picture, objective, steps=5))


def test_frames_are_scrubbed_without_computing(steps):
    one = panels.frame_slider(iter(steps))
    shown = []
    for index in (3, 0, 5):
        one.controls["frame"].value = index
        shown.append(nst.load_image(bytes(one.controls["image"].value)))
    assert moved(shown[0], steps[3].image) < 4 and moved(shown[1], steps[0].image) < 4
    assert one.controls["frame"].max == one.controls["play"].max == 5
    assert moved(shown[0], shown[1]) > 0.1
    with pytest.raises(ValueError, match="no frames"):
        panels.frame_slider([])

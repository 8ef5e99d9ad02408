"""Sliders: the run that obeys while it runs, the panel that steers it, the mixer of styles, the slider through frames.

A new slider, button or panel goes here. Not for: what they move (losses, optimisers and networks are in nst_utils), figures and
films (report). A hand needs Jupyter to move them; Python does not, `panel.controls` holds the widgets by name.
"""
from __future__ import annotations

import copy
import functools
import html
import inspect
import io
import itertools
import math
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import ipywidgets as widgets
import matplotlib.pyplot as plt
import torch
from IPython import get_ipython
from torch import Tensor

import nst_utils as nst
from report import FIGURES, export_figure, image_of, image_strip

if int(widgets.__version__.partition(".")[0]) < 8:  # as in Colab
    raise ImportError(f"The sliders need ipywidgets 8, not {widgets.__version__}: pip install 'ipywidgets>=8', then restart.")

# --- The live run -----------------------------------------------------------------------------------------------------

WEIGHTS = ("content_weight", "style_weight", "tv_weight", "range_weight", "style_layer_weights")  # change without a new run
RUN = ("start", "seed", "optimizer", "learning_rate", "goal", "history")  # change with the network and targets kept


class LiveRun:
    """An optimisation in a thread of its own that obeys while it runs. Needs no notebook.

    The arguments are those of `stylize`, with one style, without sizes, style_scale, tolerance and show_progress. on_change:
    called without arguments after every step and every change of state, mostly in the worker's thread. Read at any time: `state`
    ("ready", "running", "paused", "finished", "failed" or "stopped"), `image` (1, 3, H, W), `history` (loss terms of every step),
    `goal` (steps until it finishes), `pace` (seconds per step), `reason` (why it finished), `error` (why it failed), `settings`
    and `objective`. A worker is there only while the state is "running" or "paused".
    """

    def __init__(self, content=None, style=None, *, size: int | None = 256, start: str | Tensor | None = None, seed: int = 0,
                 steps: int = 500, optimizer="lbfgs", learning_rate: float | None = None, device=None,
                 on_change: Callable[[], None] = lambda: None, **objective):
        self.steps, self.goal, self.on_change = steps, steps, on_change
        self.state, self.error, self.reason, self.pace, self.history = "ready", None, "", 0.0, []
        self.settings = {"content": content, "style": style, "size": size, "device": device, "start": start, "seed": seed,
                         "optimizer": optimizer, "learning_rate": learning_rate} | objective
        _check(self.settings)
        self._changed, self._worker, self._built = threading.Condition(), None, {}
        self._obey(self._wanted(), None)  # bad settings are refused here, not in the thread

    def start(self) -> None:
        """Begin from the start picture, or begin again."""
        with self._changed:
            self._begin_anew()
            self._go()
        self.on_change()

    def pause(self) -> None:
        """Wait after the step now being made."""
        with self._changed:
            self.state = "paused" if self.state == "running" else self.state
        self.on_change()

    def resume(self) -> None:
        """Go on from the current picture; a finished run makes another `steps` steps."""
        with self._changed:
            if self.state == "finished":
                self.goal = len(self.history) + self.steps
            self._go()
        self.on_change()

    def stop(self, timeout: float | None = None) -> None:
        """End the worker and wait for it (at most `timeout` seconds); the picture and the history stay."""
        with self._changed:
            worker, self.state = self._worker, "stopped"
            self._changed.notify_all()
        if worker not in (None, threading.current_thread()):
            worker.join(timeout)
        self.on_change()

    def configure(self, **settings) -> None:
        """Change any of `settings` or of the objective's; in force from the next step on, and the caller does not wait for it.

        Weights change the objective of the run under way. Another network, pooling, size, style or optimiser goes on from the
        current picture, resized if need be. Another content or start begins again. A failed run tries again. Raises TypeError
        for unknown names, ValueError or TypeError where a weight is none; other errors end the run and are kept in `error`.
        """
        _check(settings)
        for layer in settings.get("style_layer_weights") or ():
            nst.one_of("a key of style_layer_weights", layer, settings.get("style_layers") or self.objective.style_layers)
        trial = copy.copy(self.objective)
        _reweigh(trial, settings)
        trial.weights()
        if settings.keys() & {"arch", "pooling", "weights", "precision"}:
            settings = {"extractor": None} | settings  # a shared one would hide the change
        with self._changed:
            self.settings = self.settings | settings  # never changed in place: the worker may be reading the old one
            if settings.keys() & {"content", "start"}:
                self._begin_anew()
            if self.state == "failed":
                self._go()

    def wait(self, steps: int | None = None, timeout: float | None = None) -> bool:
        """Wait for so many steps in the history, or for the run to end or pause; False if `timeout` seconds were too few."""
        with self._changed:
            return self._changed.wait_for(
                lambda: self.state != "running" or steps is not None and len(self.history) >= steps, timeout)

    def _begin_anew(self) -> None:
        self.history, self.goal = [], self.steps

    def _go(self) -> None:
        self.state, self.error, self.reason = "running", None, ""
        if self._worker is None:
            self._worker = threading.Thread(target=self._work, name="LiveRun", daemon=False)
            self._worker.start()
        self._changed.notify_all()

    def _wanted(self) -> dict[str, Any]:
        return self.settings | {"goal": self.goal, "history": self.history}  # a run begun again has another list

    def _work(self) -> None:
        main = threading.main_thread()  # it ends before Python waits for this thread, which must not be cut off inside torch
        while True:
            with self._changed:
                while self.state == "paused" and main.is_alive():
                    self._changed.wait(0.5)
                if self.state != "running" or not main.is_alive():
                    self._worker = None
                    return
                wanted, picture = self._wanted(), self.image if self.history else None
            try:
                began = time.perf_counter()
                self._obey(wanted, picture)
                self._publish(next(self._steps), wanted["history"], time.perf_counter() - began)
                self.on_change()
            except Exception as error:  # nobody waits for this thread: the error is kept for those who look at the run
                self._fail(error)

    def _obey(self, wanted: Mapping, picture: Tensor | None) -> None:
        """Bring objective and optimiser to the wanted settings, from `picture` if any; build no more than has changed."""
        changed = {name for name in wanted if name not in WEIGHTS and wanted[name] is not self._built.get(name, self)}
        if changed - set(RUN):
            options = {name: value for name, value in wanted.items() if name not in RUN}
            content, style, size, device = map(options.pop, ("content", "style", "size", "device"))
            self.objective = nst.StyleObjective(*nst.load_images(content, style, size=size, device=device), **options)
        if changed:
            start = wanted["start"] if picture is None else picture
            self.image = nst.initial_image(self.objective.content, start, style=self.objective.style, seed=wanted["seed"])
            left = max(1, wanted["goal"] - len(wanted["history"]))
            self._steps = nst.optimize_image(self.image, self.objective, optimizer=wanted["optimizer"], steps=left,
                                             learning_rate=wanted["learning_rate"])
        self._built = wanted
        _reweigh(self.objective, wanted)

    def _publish(self, step: nst.Step, history: list, seconds: float) -> None:
        with self._changed:
            if history is not self.history:
                return  # begun again while this step was made
            self.image, self.pace = step.image, 0.8 * self.pace + 0.2 * seconds if history else seconds
            history.append(step.losses)
            if step.reason:
                self._built = self._built | {"goal": None}  # this optimiser has made its last step
                if self.state in ("running", "paused"):
                    self.state, self.reason = "finished", step.reason
            self._changed.notify_all()

    def _fail(self, error: Exception) -> None:
        with self._changed:
            self._built = {}  # build everything again, should the run be resumed
            self.error = error
            self.state = "failed" if self.state != "stopped" else self.state
            self._changed.notify_all()
        with suppress(Exception):  # it may be on_change itself that failed
            self.on_change()


def _reweigh(objective: nst.StyleObjective, settings: Mapping) -> None:
    vars(objective).update({name: settings[name] for name in WEIGHTS if settings.get(name) is not None})


def _check(settings: Mapping) -> None:
    """Refuse what neither LiveRun nor the objective nor its network knows, and an unknown optimiser."""
    takers = (LiveRun, nst.StyleObjective, nst.FeatureExtractor)
    known = {name for taker in takers for name in inspect.signature(taker).parameters}
    known -= {"steps", "on_change", "objective", "network", "layers"}  # not settings, or set by their owner
    for name in sorted(settings.keys() - known):
        raise TypeError(f"There is no setting {name!r}{nst.nearest(name, known)}.")
    if not callable(optimizer := settings.get("optimizer", "lbfgs")):
        nst.one_of("optimizer", optimizer, nst.OPTIMIZERS)


# --- Panels -----------------------------------------------------------------------------------------------------------

PICTURE = {"width": "420px", "margin": "0 20px 0 0"}
WIDE = {"layout": {"width": "auto"}, "style": {"description_width": "104px"}}
EVEN = {"width": "auto", "flex": "1 1 auto"}
SIDE_BY_SIDE = {"flex_flow": "row wrap"}  # one below the other where the page is narrow


class Panel(widgets.VBox):
    """Widgets in a notebook, in `controls` by name; a cell that ends with a panel displays it. Running a cell again closes the
    panels that it had made before (where the notebook tells its cells apart, as JupyterLab and VS Code do)."""

    opened: list[Panel] = []

    def __init__(self, children: Sequence[widgets.Widget], controls: Mapping[str, widgets.Widget],
                 end: Callable[[], None] = lambda: None):
        self.controls, self.message, self._end = dict(controls), widgets.HTML(), end
        super().__init__([*children, self.message])
        self.cell, self.execution = _this_cell()
        for panel in list(Panel.opened):
            if panel.cell == self.cell is not None and panel.execution != self.execution:
                panel.close()
        Panel.opened.append(self)

    def close(self) -> None:
        """End whatever works behind the panel and take it off the page, with all that is in it."""
        if self in Panel.opened:
            Panel.opened.remove(self)
            self._end()
        for part in _parts(self):
            _close(part)
        super().close()

    def complain(self, error: Exception) -> None:
        self.message.value = f'<span style="color: #c62828">{html.escape(str(error))}</span>'

    def _repr_mimebundle_(self, **options) -> dict:
        return super()._repr_mimebundle_(**options) | {"text/plain": "(sliders: run this cell in Jupyter to move them)"}

    def _on_change(self, widget: widgets.Widget, action: Callable[[Any], Any]) -> None:
        """Let a widget's new value act."""
        widget.observe(lambda change: self._try(action, change.new), "value")

    def _try(self, action: Callable, *arguments) -> None:
        """Act, and show an error as a sentence in the panel: nobody else hears of it when a widget's callback fails."""
        self.message.value = ""
        try:
            action(*arguments)
        except Exception as error:
            self.complain(error)


def _parts(widget: widgets.Widget) -> list[widgets.Widget]:
    parts = (*getattr(widget, "children", ()), getattr(widget, "layout", None), getattr(widget, "style", None))
    return [part for part in parts if part is not None]


def _close(widget: widgets.Widget) -> None:
    """With all that is in it: ipywidgets keeps whatever is not closed, pictures and all."""
    for part in _parts(widget):
        _close(part)
    widget.close()


def _this_cell() -> tuple[str | None, str | None]:
    """The identity of the notebook cell that is running and of this run of it, if there is one."""
    kernel = getattr(get_ipython(), "kernel", None)
    parent = kernel.get_parent("shell") if kernel else {}
    return parent.get("metadata", {}).get("cellId"), parent.get("header", {}).get("msg_id")


def _jpeg(image: Tensor) -> bytes:
    stream = io.BytesIO()
    nst.to_pil(image).save(stream, "JPEG", quality=90)
    return stream.getvalue()


# --- The steering panel -----------------------------------------------------------------------------------------------

# a weight of the objective, also among WEIGHTS -> its text; a setting of the run goes into MENUS
SLIDERS = {"content_weight": "content weight", "style_weight": "style weight", "tv_weight": "total variation"}
UPLOADS = {"content": "own photograph", "style": "own style"}
# network -> its content and style layers. Only chains: to trace another network patches torch's modules, which a running
# optimisation would notice
NETWORKS = dict.fromkeys(("vgg16_compact", "vgg16", "vgg19"), (nst.CONTENT_LAYERS, nst.STYLE_LAYERS)) | {
    "alexnet": (("relu3_2",), ("relu1_1", "relu2_1", "relu3_1", "relu3_2", "relu3_3"))}
MENUS = {  # setting -> the menu's text and its options, label -> value
    "arch": ("network", {name: name for name in NETWORKS}),
    "pooling": ("pooling", {"as trained": None, "max": "max", "average": "avg"}),
    "size": ("size, pixels", {str(size): size for size in (128, 192, 256, 384, 512, 768)}),
    "start": ("start from", {"content": None, "noise": "noise", "style": "style"}),
    "optimizer": ("optimiser", {name: name for name in nst.OPTIMIZERS}),
    "style": ("style", {path.stem: path for path in sorted((nst.DATA / "style").glob("*.jpg"))}),
}
LOSS_COLOURS = {"content": "#1976d2", "style": "#e65100"}


def steer(content, style, **settings) -> SteerPanel:
    """A panel that steers an optimisation while it runs; nothing runs before Start is pressed. Arguments: as in LiveRun.

    A weight is 0 at the far left end of its slider. JupyterLab delivers moves when the running cell has ended: beside another
    cell the optimisation goes on, but obeys only after it. A picture to upload may have some 10 MB, Jupyter's limit.
    """
    return SteerPanel(LiveRun(content, style, **settings))


class SteerPanel(Panel):
    """What `steer` returns. `run` is its LiveRun; `obey` and `save` are what its `controls` and `buttons` call."""

    def __init__(self, run: LiveRun):
        self.run, self._drawn, self._drawing, objective = run, 0.0, threading.Lock(), run.objective
        self.networks = NETWORKS | {objective.extractor.arch: (objective.content_layers, objective.style_layers)}
        self.picture, self.bar = widgets.Image(format="jpeg"), widgets.IntProgress(layout={"width": "auto", "height": "14px"})
        self.curves, self.status, self.layers = widgets.HTML(), widgets.HTML(), widgets.VBox()
        actions = {"Start": run.start, "Pause": run.pause, "Resume": run.resume, "Restart": run.start, "Save figure": self.save}
        self.buttons = {name: widgets.Button(description=name, layout=EVEN) for name in actions}
        sliders = {name: _weight_slider(getattr(objective, name), text) for name, text in SLIDERS.items()}
        self.options, menus = {}, {}
        for name, (text, offer) in MENUS.items():
            self.options[name], label = _options(offer, (run.settings | {"arch": objective.extractor.arch}).get(name))
            menus[name] = widgets.Dropdown(options=list(self.options[name]), value=label, description=text, **WIDE)
        uploads = {name: widgets.FileUpload(accept="image/*", description=text, layout=EVEN) for name, text in UPLOADS.items()}
        left = widgets.VBox([self.picture, self.bar, self.status, self.curves], layout=PICTURE)
        right = widgets.VBox([widgets.HBox([*self.buttons.values()]), *sliders.values(), self.layers, *menus.values(),
                              widgets.HBox([*uploads.values()])], layout=PICTURE)
        super().__init__([widgets.HBox([left, right], layout=SIDE_BY_SIDE)],
                         sliders | menus | {f"own_{name}": upload for name, upload in uploads.items()}, self._leave)
        for name, button in self.buttons.items():
            button.on_click(lambda _, act=actions[name]: self._try(act))
        for name, slider in sliders.items():
            self._on_change(slider, lambda value, name=name, least=10**slider.min: self.obey(**{name: value * (value > least)}))
        for name, menu in menus.items():
            self._on_change(menu, lambda label, name=name: self.obey(**{name: self.options[name][label]}))
        for name, upload in uploads.items():
            self._on_change(upload, lambda files, name=name: files and self._take(name, files[0]))
        self._offer_layers(objective.style_layer_weights)
        run.on_change = self.draw
        self.draw()

    def _offer_layers(self, weights: Mapping[str, float]) -> None:
        for slider in self.layers.children:
            _close(slider)
        self.layers.children = [widgets.FloatSlider(weight, min=0, max=1, step=0.05, description=layer, **WIDE)
                                for layer, weight in weights.items()]
        for slider in self.layers.children:
            self._on_change(slider, lambda _: self.obey(style_layer_weights=self.layer_weights()))

    def layer_weights(self) -> dict[str, float]:
        return {slider.description: slider.value for slider in self.layers.children}

    def _take(self, name: str, file: Mapping) -> None:
        """Use an uploaded picture as content or as style."""
        picture = _uploaded(file, nst.load_image)
        if name == "style":
            options, menu = self.options["style"], self.controls["style"]
            options[file["name"]] = picture
            menu.options = list(options)
            menu.value = file["name"]
        self.obey(**{name: picture})  # the menu does not stir if a file of this name was there before
        self.message.value = f"{html.escape(file['name'])} is in use from the next step on."

    def obey(self, **settings) -> None:
        """`LiveRun.configure`; another network comes with its own layers."""
        if "arch" in settings:
            content_layers, style_layers = self.networks[settings["arch"]]
            if style_layers != tuple(self.layer_weights()):
                self._offer_layers(dict.fromkeys(style_layers, 1 / len(style_layers)))
            settings |= {"content_layers": content_layers, "style_layers": style_layers,
                         "style_layer_weights": self.layer_weights()}
        self.run.configure(**settings)

    def save(self, name: str | None = None, *, folder: Path | str = FIGURES) -> Path:
        """Export content, style and picture as a figure whose caption tells the weights, and the picture alone.

        name: None takes the first of steered_1, steered_2, ... that is free. Returns the figure's path, see export_figure.
        """
        objective, image, count = self.run.objective, self.run.image, len(self.run.history)
        name = name or next(f"steered_{k}" for k in itertools.count(1) if not Path(folder, f"steered_{k}.txt").exists())
        figure = image_strip([objective.content, objective.style, image], ["content", "style", f"{count} steps"], cell=3)
        weights = {term: float(weight) for term, weight in objective.weights().items()}
        caption = ", ".join(f"{term} {weight:.3g}" for term, weight in weights.items())
        path = export_figure(figure, name, f"{count} steps with {objective.extractor.arch}; weights: {caption}.", folder=folder,
                             arch=str(objective.extractor.arch), seed=self.run.settings["seed"], steps=count, weights=weights)
        plt.close(figure)  # or the next cell would show it
        nst.save_image(image, path.with_name(f"{name}_picture.png"))
        self.message.value = f"Saved as {html.escape(str(path))}, the picture alone as {html.escape(name)}_picture.png."
        return path

    def draw(self) -> None:
        """Show the run as it is; while it runs at most ten times a second, for a step may take less than a drawing."""
        run, now = self.run, time.perf_counter()
        if run.state == "running" and now - self._drawn < 0.1:
            return
        with self._drawing:
            self._drawn = now
            self.picture.value, self.curves.value = _jpeg(run.image), _loss_curves(run.history)
            done = len(run.history)
            self.bar.max, self.bar.value = run.goal, done
            self.status.value = f"{run.state}, {min(done, run.goal)} of {run.goal} steps, {run.pace:.3f} s per step"
            if run.error:
                self.complain(run.error)
            usable = {"Start": run.state == "ready", "Pause": run.state == "running", "Restart": run.state != "ready",
                      "Resume": run.state not in ("ready", "running")}
            for name, button in self.buttons.items():
                button.disabled = not usable.get(name, True)

    def _leave(self) -> None:
        self.run.on_change = lambda: None
        self.run.stop()


def _weight_slider(weight: float, text: str) -> widgets.FloatLogSlider:
    """From 0.01, which stands for 0, to 10,000, or as far as the weight now in force wants."""
    power = math.log10(weight or 1)
    return widgets.FloatLogSlider(weight, min=min(-2, math.floor(power)), max=max(4, math.ceil(power)), step=0.05,
                                  description=text, readout_format=".3g", **WIDE)


def _options(offer: Mapping[str, Any], value) -> tuple[dict[str, Any], str]:
    """A menu's options, label -> value, and the label of the value now in force, which is put first if it is not on offer."""
    for label, option in offer.items():
        if type(option) is type(value) and option == value:
            return dict(offer), label
    own = str(value) if isinstance(value, int | str) else "as given"
    return {own: value} | offer, own


def _loss_curves(history: Sequence[Mapping[str, float]]) -> str:
    """Content and style loss against steps, logarithmic, as an SVG that the browser scales: cheaper than to draw a figure."""
    some, curves, legend = history[::1 + len(history) // 400], "", ""
    powers = [math.log10(losses[term]) for losses in some for term in LOSS_COLOURS if losses[term] > 0] or [0.0]
    low, high = min(powers), max(powers)
    for term, colour in LOSS_COLOURS.items() if history else ():
        points = " ".join(f"{k},{-math.log10(max(losses[term], 10**low)):.3f}" for k, losses in enumerate(some))
        curves += f'<polyline points="{points}" fill="none" stroke="{colour}" vector-effect="non-scaling-stroke"/>'
        legend += f'<span style="color: {colour}; margin-right: 16px">{term} loss {history[-1][term]:.3g}</span>'
    return (f'{legend}<br><svg viewBox="0 {-high} {len(some)} {high - low or 1}" preserveAspectRatio="none" width="400" '
            f'height="90" style="overflow: visible; stroke-width: 1.5">{curves}</svg>')


def _uploaded(file: Mapping, read: Callable[[bytes], Tensor]) -> Tensor:
    """What `read` makes of an uploaded file; an error has the name of the file, without the address of its bytes."""
    try:
        return read(bytes(file["content"]))
    except ValueError as error:
        raise ValueError(str(error).partition(": cannot identify")[0].replace("these bytes", file["name"])) from error


# --- The mixer of styles and the slider through frames ----------------------------------------------------------------


def style_mix(content: Tensor, styles: Iterable[Tensor], *, network: nst.AdaIN | None = None) -> Callable[..., Tensor]:
    """A function mix(alpha, weights, keep_colours, apart, mask, style_scale, size) -> image (1, 3, H, W) of AdaIN; each style is
    encoded once at each scale.

    content, styles: images (1, 3, H, W). mix takes what `AdaIN.stylize` takes, and a long side in pixels for a preview. apart:
    styles stand side by side in `bands` as wide as their weights, instead of being mixed everywhere. mask: what `load_mask`
    reads, where to paint at all. style_scale: the styles' size over their own; strokes grow with it.
    """
    network, styles = network or nst.AdaIN.pretrained(), list(styles)

    @functools.cache
    def described(style_scale: float) -> list[Tensor]:
        return [network.statistics(nst.resize(style, round(max(style.shape[-2:]) * style_scale))) for style in styles]

    def mix(alpha: float = 1.0, weights: Sequence[float] | None = None, keep_colours: bool = False, apart: bool = False,
            mask=None, style_scale: float = 1.0, size: int | None = None) -> Tensor:
        picture = nst.resize(content, min(size, max(content.shape[-2:])) if size else None)  # a preview is never larger
        statistics, where = described(style_scale), {"weights": weights}
        shares = [1.0] * len(styles) if weights is None else weights
        if sum(shares) > 0 and (apart or mask is not None):
            place = 1.0 if mask is None else nst.beside("masks")["fitted"](mask, 1, picture)[0]
            even = torch.ones_like(picture[:, :1]) / sum(shares)
            masks = [place * part for part in (bands(shares, picture) if apart else [share * even for share in shares])]
            statistics = [one for one, part in zip(statistics, masks) if part.any()]  # a style without a place is left out
            where = {"masks": [part for part in masks if part.any()]}
        return network.stylize(picture, statistics, alpha=alpha, keep_colours=keep_colours, **where)

    described(1.0)
    return mix


def bands(weights: Sequence[float], image: Tensor, *, soft: float = 0.06) -> list[Tensor]:
    """Masks (1, 1, H, W) from left to right, as wide as the weights, that pass into each other over a share of the width."""
    ends = torch.tensor([0.0, *weights]).cumsum(0) / sum(weights)
    place = torch.linspace(soft / 2, 1 - soft / 2, image.shape[-1]).expand(1, 1, *image.shape[-2:])
    passed = [((place - end) / soft + 0.5).clamp(0, 1) for end in ends[1:-1]]
    return [before - after for before, after in itertools.pairwise([torch.ones_like(place), *passed, torch.zeros_like(place)])]


def adain_panel(content: Tensor, styles: Mapping[str, Tensor], *, preview: int = 160, network=None) -> MixPanel:
    """A panel that mixes styles (name -> image) while the hand is on the slider; see style_mix and MixPanel."""
    return MixPanel(style_mix(content, styles.values(), network=network), list(styles), preview)


class MixPanel(Panel):
    """What `adain_panel` returns: a picture of `preview` pixels at once, the whole one after `rest` seconds without a move."""

    def __init__(self, mix: Callable[..., Tensor], names: Sequence[str], preview: int, *, rest: float = 0.3):
        self.mix, self.preview, self.rest, self._timer = mix, preview, rest, threading.Timer(0, lambda: None)
        self.picture = widgets.Image(format="jpeg", layout=PICTURE)
        self.alpha = widgets.FloatSlider(1, min=0, max=1, step=0.02, description="alpha", **WIDE)
        self.styles = [widgets.FloatSlider(float(k == 0), min=0, max=1, step=0.02, description=name, **WIDE)
                       for k, name in enumerate(names)]
        self.keep_colours = widgets.Checkbox(description="keep the photograph's colours")
        self.apart = widgets.Checkbox(description="styles side by side, as wide as their weights")
        self.scale = widgets.FloatSlider(1, min=0.4, max=2, step=0.1, description="style size", **WIDE)
        self.upload, self.place = widgets.FileUpload(accept="image/*", description="mask: where to paint", layout=EVEN), None
        self.around = widgets.Checkbox(description="paint around the mask instead")
        moving = [self.alpha, *self.styles, self.scale, self.keep_colours, self.apart, self.around]
        column = widgets.VBox([*moving[:-1], self.upload, self.around], layout={"width": "420px"})
        super().__init__([widgets.HBox([self.picture, column], layout=SIDE_BY_SIDE)],
                         {"alpha": self.alpha} | dict(zip(names, self.styles))
                         | {"scale": self.scale, "keep_colours": self.keep_colours, "apart": self.apart, "mask": self.upload,
                            "around": self.around}, lambda: self._timer.cancel())
        for control in moving:
            self._on_change(control, self.follow)
        self._on_change(self.upload, lambda files: files and self._take(files[0]))
        self._try(self.finish)

    def numbers(self) -> dict[str, Any]:
        """What the controls say, as keywords of `mix`."""
        mask = self.place if self.place is None or not self.around.value else 1 - self.place
        return {"alpha": self.alpha.value, "weights": [slider.value for slider in self.styles], "mask": mask,
                "keep_colours": self.keep_colours.value, "apart": self.apart.value, "style_scale": round(self.scale.value, 1)}

    def _take(self, file: Mapping) -> None:
        self.place = _uploaded(file, nst.load_mask)
        self.follow()

    def follow(self, _=None) -> None:
        self._timer.cancel()
        self.picture.value = _jpeg(self.mix(**self.numbers(), size=self.preview))
        self._timer = threading.Timer(self.rest, self._try, (self.finish,))
        self._timer.daemon = True
        self._timer.start()

    def finish(self) -> None:
        timer, picture = self._timer, _jpeg(self.mix(**self.numbers()))
        if timer is self._timer:  # else the hand has moved on meanwhile
            self.picture.value = picture


def frame_slider(steps: Iterable[nst.Step | Tensor]) -> Panel:
    """A panel to scrub and play through the pictures of a run; they are encoded once, here, and never computed again."""
    frames = [_jpeg(image_of(step)) for step in steps]
    if not frames:
        raise ValueError("There are no frames to show.")
    image = widgets.Image(value=frames[0], format="jpeg", layout={"width": "420px"})
    slider = widgets.IntSlider(max=len(frames) - 1, description="frame")
    play = widgets.Play(max=len(frames) - 1, interval=80)
    link = widgets.jslink((play, "value"), (slider, "value"))
    slider.observe(lambda change: setattr(image, "value", frames[change.new]), "value")
    return Panel([image, widgets.HBox([play, slider])], {"image": image, "frame": slider, "play": play}, link.close)

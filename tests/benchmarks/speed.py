"""Seconds per evaluation and peak memory, beside a plain float32 loop and beside what the machine can do at most.

    python tests/benchmarks/speed.py                 # about eight minutes on two cores
    python tests/benchmarks/speed.py --device cuda

Every case runs in a process of its own, interleaved over the rounds, so that a busy machine disturbs all alike; medians
are reported. An evaluation is the objective with five style layers and one content layer, its gradient to the image, and
the step of L-BFGS; those of several pictures in one batch are divided by their number. The plain loop is the method as
tutorials write it: VGG-19, float32, default memory layout. Weights of VGG-19 are random (they take the same time).
Networks are timed without their set-up. The ceiling is the largest rate of any matrix product or 3x3 convolution tried in
the same precision; the share counts the convolutions, forward and backward. Writes figures/benchmarks.csv and the figure.
"""
import argparse
import csv
import itertools
import json
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

SIZES = (256, 512, 1024)  # long sides; pictures are 4:3
BATCH = 8  # cells of a sweep that run as one
NETWORKS = {  # case -> (function, architecture, precision)
    "vgg19_compact": ("ours", "vgg19_compact", "auto"),
    "vgg19_compact float32": ("ours", "vgg19_compact", "float32"),
    "vgg19": ("ours", "vgg19", "auto"),
    "vgg19 float32": ("ours", "vgg19", "float32"),
    "vgg19 plain loop": ("plain", "vgg19", "float32"),
}
CASES = {f"{name} {size}": (*network, size) for size in SIZES for name, network in NETWORKS.items()}
CASES |= {f"vgg19_compact, {BATCH} together {size}": ("together", "vgg19_compact", "auto", size) for size in SIZES[:2]}
CASES |= {f"AdaIN {size}": ("feed_forward", "vgg19_compact", "auto", size) for size in (256, 512, 1024, 2048)}
CASES |= {f"ceiling {precision}": ("ceiling", "", precision, 0) for precision in ("float32", "bfloat16")}
FIELDS = ("case", "size", "seconds", "times faster than the plain loop", "peak memory, GiB", "share of the ceiling",
          "evaluations")


def pictures(size, device):
    import torch
    return torch.rand(2, 1, 3, size * 3 // 4, size, generator=torch.Generator().manual_seed(0)).to(device)


def ours(arch, precision, size, device):
    """Yield after each evaluation."""
    import nst_utils as nst
    content, style = pictures(size, device)
    objective = nst.StyleObjective(content, style, arch=arch, precision=precision,
                                   weights="DEFAULT" if arch == "vgg19_compact" else None)
    yield work(objective.extractor, size)
    yield from nst.optimize_image(content, objective, steps=10**6)


def together(arch, precision, size, device):
    import torch

    import nst_utils as nst
    content, style = pictures(size, device)
    objective = nst.StyleObjective(content, style, arch=arch, precision=precision)
    yield work(objective.extractor, size)
    for step in nst.optimize_image(torch.cat([content] * BATCH), objective, steps=10**6):
        if step.picture == BATCH - 1:
            yield


def work(extractor, size):
    """Floating-point operations of an evaluation: those of the convolutions, and the same again for the gradient."""
    from torch.utils.flop_counter import FlopCounterMode
    with FlopCounterMode(display=False) as counter:
        extractor.shapes(size * 3 // 4, size)
    return 2 * counter.get_total_flops()


def plain(arch, precision, size, device):
    import torch
    from torch.nn import functional as F

    import nst_utils as nst
    network = nst.load_network(arch, weights=None).features[:29].requires_grad_(False).to(device)
    for module in network:
        if hasattr(module, "inplace"):
            module.inplace = False
    mean = torch.tensor([0.485, 0.456, 0.406], device=device).view(3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225], device=device).view(3, 1, 1)

    def features(image):
        x, kept = (image - mean) / std, []
        for index, module in enumerate(network):
            x = module(x)
            if index in (0, 5, 10, 19, 21, 28):
                kept.append(x)
        return kept

    def gram(x):
        flat = x.flatten(2)
        return flat @ flat.transpose(1, 2) / flat.numel()

    content, style = pictures(size, device)
    with torch.no_grad():
        photograph, painting = features(content)[4], [gram(x) for x in features(style)]
    pixels = content.clone().requires_grad_(True)
    optimizer = torch.optim.LBFGS([pixels], max_iter=1, tolerance_grad=0, tolerance_change=-1)

    def closure():
        optimizer.zero_grad()
        maps = features(pixels)
        loss = F.mse_loss(maps[4], photograph) + 1e4 * sum(
            F.mse_loss(gram(x), a) for x, a in zip(maps[:4] + maps[5:], painting[:4] + painting[5:]))
        loss.backward()
        return loss

    yield work(nst.FeatureExtractor(arch, (*nst.STYLE_LAYERS, "relu4_2"), weights=None), size)
    while True:
        yield optimizer.step(closure).item()


def feed_forward(arch, precision, size, device):
    import nst_utils as nst
    content, style = pictures(size, device)
    network = nst.AdaIN.pretrained(device=device)
    statistics_ = network.statistics(style)
    yield 0
    while True:
        yield network.stylize(content, statistics_).cpu()


def ceiling(arch, precision, size, device):
    """The largest rate of matrix products and 3x3 convolutions, in operations per second."""
    import torch
    options = {"dtype": getattr(torch, precision), "device": device}
    side = 8192 if device == "cuda" else 2048
    a, b = torch.randn(2, side, side, **options)
    jobs = [(2 * side**3, lambda: a @ b)]
    for channels, height, width in ((64, 384, 512), (128, 192, 256), (256, 96, 128), (512, 48, 64)):
        x = torch.randn(1, channels, height, width, **options).to(memory_format=torch.channels_last)
        kernel = torch.randn(channels, channels, 3, 3, **options).to(memory_format=torch.channels_last)
        jobs.append((18 * channels**2 * height * width,
                     lambda x=x, kernel=kernel: torch.nn.functional.conv2d(x, kernel, padding=1)))
    rates = []
    for (operations, job), _ in itertools.product(jobs, range(6)):
        start = time.perf_counter()
        job().flatten()[0].item()  # waits for the device
        rates.append(operations / (time.perf_counter() - start))
    return max(rates)


def peak_memory_gib(device):
    if device == "cuda":
        import torch
        return torch.cuda.max_memory_allocated() / 2**30
    try:
        import resource
    except ImportError:  # Windows
        return float("nan")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2 ** (30 if sys.platform == "darwin" else 20)


def run_case(name, device, budget):
    """Run one case here, for `budget` seconds but at least three evaluations, and print its numbers as JSON."""
    function, arch, precision, size = CASES[name]
    if function == "ceiling":
        return print(json.dumps({"rate": ceiling(arch, precision, size, device)}))
    evaluations = globals()[function](arch, precision, size, device)
    operations, _ = next(evaluations), next(evaluations)  # the first one warms up
    seconds, begin = [], time.perf_counter()
    while len(seconds) < 3 or time.perf_counter() - begin < budget:
        start = time.perf_counter()
        next(evaluations)
        seconds.append(time.perf_counter() - start)
    count = BATCH if function == "together" else 1
    print(json.dumps({"seconds": statistics.median(seconds) / count, "evaluations": len(seconds) * count, "work": operations,
                      "memory": peak_memory_gib(device)}))


def measure(cases, device, rounds, budget):
    """Case -> medians over the rounds; the slowest cases take part in the first round only."""
    runs = {name: [] for name in cases}
    for turn, (name, (_, arch, _, size)) in itertools.product(range(rounds), cases.items()):
        if turn and device == "cpu" and size >= 1024 and arch == "vgg19":
            continue
        command = [sys.executable, __file__, "--case", name, "--device", device, "--budget", str(budget)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            print(f"{name} failed: {done.stderr.strip().splitlines()[-1]}", file=sys.stderr)
        else:
            runs[name].append(json.loads(done.stdout))
    return {name: {key: statistics.median(run[key] for run in done) for key in done[0]} for name, done in runs.items() if done}


def as_rows(measured):
    for name, numbers in measured.items():
        function, _, precision, size = CASES[name]
        if function == "ceiling":
            yield {"case": name, "seconds": "", "share of the ceiling": f"{numbers['rate'] / 1e12:.3f} TFLOP/s"}
            continue
        slow = measured.get(f"vgg19 plain loop {size}", {}).get("seconds")
        half = precision == "auto" and measured["ceiling bfloat16"]["rate"] > measured["ceiling float32"]["rate"]
        rate = measured[f"ceiling {'bfloat16' if half else 'float32'}"]["rate"]
        yield {"case": name.rsplit(" ", 1)[0], "size": size, "seconds": f"{numbers['seconds']:.4g}",
               "times faster than the plain loop": f"{slow / numbers['seconds']:.1f}" if slow else "",
               "peak memory, GiB": f"{numbers['memory']:.2f}", "evaluations": f"{numbers['evaluations']:.0f}",
               "share of the ceiling": f"{numbers['work'] / numbers['seconds'] / rate:.0%}" if numbers["work"] else ""}


def machine(device):
    import torch
    if device == "cuda":
        return f"{torch.cuda.get_device_name()}, torch {torch.__version__}"
    able = torch.cpu.get_capabilities()
    fast = [name for name in ("amx_bf16", "avx512_bf16") if able.get(name)]
    return (f"{able.get('cpu_name', platform.machine())} with {', '.join(fast) or 'no bfloat16'}, "
            f"{torch.get_num_threads()} threads, torch {torch.__version__}")


def draw(rows, where):
    """Seconds against the long side, one line per case."""
    import matplotlib.pyplot as plt
    figure, axis = plt.subplots(figsize=(6.4, 4), layout="constrained")
    for case in dict.fromkeys(row["case"] for row in rows if row.get("size")):
        points = [(int(row["size"]), float(row["seconds"])) for row in rows if row["case"] == case]
        axis.plot(*zip(*points), marker="o", linewidth=1.5, label=case, linestyle="--" if "plain" in case else "-")
    axis.set(xscale="log", yscale="log", xlabel="long side in pixels (4:3)", ylabel="seconds",
             title=f"An evaluation, or a picture of AdaIN\n{where}")
    axis.title.set_fontsize(9)
    ticks = sorted({int(row["size"]) for row in rows if row.get("size")})
    axis.set_xticks(ticks, ticks)
    axis.minorticks_off()
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)
    return figure


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--budget", type=float, default=3.0, help="seconds for each case in each round")
    parser.add_argument("--sizes", type=int, nargs="+", help="only these long sides, such as 256 512")
    parser.add_argument("--case", choices=CASES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        return run_case(options.case, options.device, options.budget)
    sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "notebooks"))
    from report import FIGURES, export_figure
    cases = {name: case for name, case in CASES.items() if not options.sizes or case[-1] in (0, *options.sizes)}
    rows = list(as_rows(measure(cases, options.device, options.rounds, options.budget)))
    where = machine(options.device)
    FIGURES.mkdir(parents=True, exist_ok=True)
    with open(FIGURES / "benchmarks.csv", "w", newline="", encoding="utf-8") as file:
        file.write(f"# {where}\n")
        writer = csv.DictWriter(file, FIELDS)
        writer.writeheader()
        writer.writerows(rows)
    caption = f"Seconds per evaluation of the optimisation, and per picture of AdaIN, on {where}."
    export_figure(draw(rows, where), "benchmarks", caption)
    print(f"{where}\n\n| {' | '.join(FIELDS)} |\n|{'---|' * len(FIELDS)}")
    for row in rows:
        print(f"| {' | '.join(str(row.get(name, '')) for name in FIELDS)} |")


if __name__ == "__main__":
    main()

"""Seconds per evaluation and peak memory of the optimisation at 512 x 384, beside a plain float32 loop.

    python tests/benchmarks/speed.py [--evaluations 200]

Runs each case in a process of its own and interleaves them, so that a busy machine disturbs all alike; prints medians
over the rounds. The plain loop is Gatys et al. as the tutorials write it: a VGG-19, float32, default memory layout.
Weights are random (they take the same time). Networks are timed without their set-up.
"""
import argparse
import json
import platform
import statistics
import subprocess
import sys
import time

SIZE = (384, 512)
CASES = {  # name -> (function, architecture, precision, evaluations as a share of --evaluations, rounds)
    "vgg19_compact": ("ours", "vgg19_compact", "auto", 1.0, 2),
    "vgg19_compact float32": ("ours", "vgg19_compact", "float32", 0.5, 2),
    "vgg19": ("ours", "vgg19", "auto", 0.05, 2),
    "vgg19 float32": ("ours", "vgg19", "float32", 0.03, 2),
    "vgg19 plain loop": ("plain", "vgg19", "float32", 0.03, 2),
}


def ours(arch, precision, evaluations):
    import torch

    import nst_utils as nst
    content, style = torch.rand(2, 1, 3, *SIZE, generator=torch.Generator().manual_seed(0))
    objective = nst.StyleObjective(content, style, arch=arch, precision=precision,
                                   weights="DEFAULT" if arch == "vgg19_compact" else None)
    return [step.seconds for step in nst.optimize_image(content, objective, steps=evaluations - 1)]


def plain(arch, precision, evaluations):
    import torch
    from torch.nn import functional as F

    import nst_utils as nst
    network = nst.load_network(arch, weights=None).features[:29].requires_grad_(False)
    for module in network:
        if hasattr(module, "inplace"):
            module.inplace = False
    mean, std = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1), torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)

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

    content, style = torch.rand(2, 1, 3, *SIZE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        photograph, painting = features(content)[4], [gram(x) for x in features(style)]
    pixels = content.clone().requires_grad_(True)
    optimizer = torch.optim.LBFGS([pixels], max_iter=1, tolerance_grad=0, tolerance_change=-1)
    seconds, start = [], time.perf_counter()

    def closure():
        optimizer.zero_grad()
        maps = features(pixels)
        loss = F.mse_loss(maps[4], photograph) + 1e4 * sum(
            F.mse_loss(gram(x), a) for x, a in zip(maps[:4] + maps[5:], painting[:4] + painting[5:]))
        loss.backward()
        return loss

    for _ in range(evaluations):
        optimizer.step(closure)
        seconds.append(time.perf_counter() - start)
    return seconds


def peak_memory_gib():
    try:
        import resource
    except ImportError:  # Windows
        return float("nan")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2 ** (30 if sys.platform == "darwin" else 20)


def run_case(name, evaluations):
    """Run one case here and print its numbers as JSON."""
    function, arch, precision, share, _ = CASES[name]
    count = max(3, round(evaluations * share))
    seconds = globals()[function](arch, precision, count)
    print(json.dumps({"per evaluation": (seconds[-1] - seconds[0]) / (len(seconds) - 1), "evaluations": count,
                      "total": seconds[-1], "memory": peak_memory_gib()}))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--evaluations", type=int, default=200)
    parser.add_argument("--case", choices=CASES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        return run_case(options.case, options.evaluations)
    results = {name: [] for name in CASES}
    for turn in range(max(case[-1] for case in CASES.values())):
        for name, case in CASES.items():
            if turn < case[-1]:
                command = [sys.executable, __file__, "--case", name, "--evaluations", str(options.evaluations)]
                results[name].append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    import torch
    fast = [name for name in ("amx_bf16", "avx512_bf16") if torch.cpu.get_capabilities().get(name)]
    print(f"{platform.machine()} with {', '.join(fast) or 'no bfloat16'}, {torch.get_num_threads()} threads, "
          f"torch {torch.__version__}, {SIZE[1]} x {SIZE[0]} pixels\n")
    print("| case | seconds per evaluation | of the plain loop | evaluations | seconds | peak memory, GiB |")
    print("|---|---|---|---|---|---|")
    middle = {name: {key: statistics.median(r[key] for r in runs) for key in runs[0]} for name, runs in results.items()}
    for name, m in middle.items():
        ratio = middle["vgg19 plain loop"]["per evaluation"] / m["per evaluation"]
        print(f"| {name} | {m['per evaluation']:.3f} | {ratio:.1f} x faster | {m['evaluations']:.0f} | {m['total']:.1f} | "
              f"{m['memory']:.2f} |")


if __name__ == "__main__":
    main()

"""Generate the style pictures of this project: ten seeded, procedural "paintings".

    python data/style/make_styles.py                # all pictures
    python data/style/make_styles.py swirls mosaic  # only these

Neural style transfer describes a style by the correlations of its textures, so every
picture has a limited palette, one characteristic mark (stroke, dot, stone, pane, ...) and
structure at several scales over the whole area.  Drawing them ourselves keeps the
project free of image licences and makes every figure reproducible.

All lengths below are in pixels of the working canvas, which is SUPER times larger than
the saved picture; shrinking it at the end is what anti-aliases the edges.
"""
import sys
import time
from collections import deque
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from scipy.ndimage import distance_transform_edt, gaussian_filter, map_coordinates
from scipy.spatial import cKDTree

WIDTH, HEIGHT, SUPER = 768, 640, 2
W, H = WIDTH * SUPER, HEIGHT * SUPER
Y, X = np.mgrid[0:H, 0:W].astype(np.float32)

# One seed per picture: changing one picture never changes the others.
SEEDS = {"swirls": 11, "stained_glass": 22, "woodblock_waves": 33, "pointillism": 44,
         "facets": 55, "ink_hatching": 66, "mosaic": 77, "autumn_knife": 88,
         "ikat": 99, "aurora_wash": 110}

# Palettes run from dark to light where they are used as gradients.
NIGHT = "#070b2a #10206b #1a3fa0 #2a6fc4 #5fa9d6 #bfdde2".split()
TEAL = "#071a30 #123f66 #1f7f96 #6fbfae #e9eec4".split()
STARS = "#2f6f9a #8fae7a #e0902a #f6b824 #fbd95a #fff6c8".split()
JEWELS = "#0b2fa8 #1560d4 #0a8f8a #0c7a35 #7a1fa0 #c4122f #e8471a #f5a800 #fbe27a".split()
BLUES = "#0f2748 #1d4470 #34699a #6f9fbd #b9d0d2".split()
WOODBLOCK = {"line": "#0c1c33", "foam": "#f4ecd8", "sky": "#e3cfa4", "sun": "#cf5a3c",
             "haze": "#b4ccc8"}
PURE = ("#1b2fb0 #2f6fe0 #35b5d8 #0f8a4a #6cc23a #f5e53b #f9b01e #f26a1b #dd2a3a "
        "#e0559f #8a3ab8 #fff3d6 #221a5c #f7b79c #a9c4f2 #cda8e4 #f9e6a0 #7fd0b0").split()
ORPHIST = "#2a1c14 #6b3a1c #b5651d #dd9a2e #f2dfb0 #0e4a50 #1d8a86 #d63a1e #8c1c1c".split()
PAPER, INK = "#f0e3c6", "#17130f"
STONES = {"blue": "#0c1d55 #14307f #1e47a8", "turquoise": "#0b7480 #1b9fa3 #5fcac0",
          "gold": "#c48a12 #e9b52c #ffe07a", "terracotta": "#8a2f17 #b84a24 #d97848",
          "cream": "#d9c8a0 #efe4c6 #fbf5e2"}
AUTUMN = "#2a0f1c #6d1420 #b3201c #e0481a #f58a1a #f9bf2c #fdea8e".split()
AUTUMN_COOL = "#13163a #23406e #2f7a78 #8fc0b0".split()
IKAT = "#1b1f4f #8c1d2e #f1e2c3 #d98b1f #147a78 #3a0f22".split()
AURORA = "#1f9a78 #f07a6a #3ab0b8 #e0569a #f2b23a #5a4fa8 #24406e".split()

# Compositions: positions are fractions of the picture, sizes are canvas pixels.
# vortex: x, y, radius, sense of rotation
VORTICES = [(0.24, 0.30, 190, 1), (0.62, 0.52, 260, -1), (0.87, 0.17, 130, 1),
            (0.13, 0.78, 150, -1), (0.44, 0.90, 130, 1), (0.93, 0.82, 150, 1)]
ROSETTES = [(0.30, 0.36, 5), (0.79, 0.70, 4), (0.80, 0.12, 3)]      # x, y, number of rings
WAVE_ROWS = [(0.34, 150, 0.50), (0.43, 210, 0.34), (0.58, 290, 0.18),
             (0.80, 380, 0.06), (1.06, 470, 0.0)]                  # base line, size, haze
TREES = [(0.06, 0.75, 0.12), (0.19, 0.50, 0.08), (0.30, 0.24, 0.07), (0.42, 0.13, 0.09),
         (0.63, 0.17, 0.08), (0.73, 0.36, 0.05), (0.84, 0.62, 0.085), (0.97, 0.46, 0.09)]
SUNS = [(0.28, 0.30, 235), (0.76, 0.62, 280), (0.70, 0.06, 150), (0.20, 0.93, 190)]


# ------------------------------------------------------------------ shared helpers
def rgb(colour):
    """'#rrggbb' -> float array in 0..255."""
    return np.array([int(colour[i:i + 2], 16) for i in (1, 3, 5)], dtype=np.float32)


def ink(colour):
    """Any colour (hex or array) -> the integer tuple that Pillow draws with."""
    colour = rgb(colour) if isinstance(colour, str) else colour
    return tuple(int(min(255, max(0, c))) for c in colour)


def gradient(palette, t):
    """Continuous colour ramp through the palette; t in 0..1 may be an array."""
    stops = np.linspace(0, 1, len(palette))
    table = np.stack([rgb(c) for c in palette])
    return np.stack([np.interp(t, stops, table[:, k]) for k in range(3)], -1).astype(np.float32)


def mix(a, b, t):
    """Linear blend of two pictures (or colours) with weight t of b."""
    t = np.asarray(t, dtype=np.float32)
    return a + (b - a) * (t[..., None] if t.ndim == 2 else t)


def noise(rng, cell, octaves=3, aspect=1.0):
    """Smooth random field in 0..1 with features of `cell` pixels, `aspect` times wider."""
    total = np.zeros((H, W), np.float32)
    for octave in range(octaves):
        size = cell / 2 ** octave
        shape = int(H / size) + 4, int(W / (size * aspect)) + 4
        grid = Image.fromarray(rng.standard_normal(shape).astype(np.float32))
        total += np.asarray(grid.resize((W, H), Image.BICUBIC)) / 2 ** octave
    return np.clip(0.5 + (total - total.mean()) / (5 * total.std()), 0, 1)


def shaded(picture, height, strength, gloss=0.0):
    """Light a height map from the upper left, so that paint ridges become visible."""
    hy, hx = np.gradient(gaussian_filter(height.astype(np.float32), 1.0))
    slope = np.clip(strength * (hx + hy), -0.6, 0.6)
    highlight = 255 * gloss * np.clip(slope - 0.25, 0, 1)
    return picture * (1 + slope)[..., None] + highlight[..., None]


def finish(picture):
    """Shrink the working canvas to the final size (this anti-aliases it)."""
    image = picture
    if not isinstance(picture, Image.Image):
        image = Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8))
    return image.resize((WIDTH, HEIGHT), Image.LANCZOS)


def swirl_angle(rng, vortices):
    """Direction field: a wind to the right, bent by noise and by spinning vortices."""
    bend = (noise(rng, 420) - 0.5) * np.pi
    u, v = np.cos(bend), np.sin(bend)
    for cx, cy, radius, spin in vortices:
        dx, dy = X - cx * W, Y - cy * H
        distance = np.hypot(dx, dy) + 1e-3
        pull = 6 * np.exp(-(distance / radius) ** 2)
        u, v = u - spin * pull * dy / distance, v + spin * pull * dx / distance
    return np.arctan2(v, u)


def cell(x, y):
    """Array position (row, column) of a point, clamped to the canvas."""
    return min(max(int(y), 0), H - 1), min(max(int(x), 0), W - 1)


def scatter(rng, count, margin=50):
    """Random points that also cover a margin, so that the border is painted over."""
    return rng.uniform((-margin, -margin), (W + margin, H + margin), (count, 2))


def trace(angle, x, y, length, step=6.0, taken=None):
    """Follow the direction field from (x, y); stop outside or on `taken` pixels."""
    points = [(x, y)]
    for _ in range(int(length / abs(step))):
        a = angle[cell(x, y)]
        x, y = x + step * np.cos(a), y + step * np.sin(a)
        if not (-50 <= x < W + 50 and -50 <= y < H + 50) or (taken and taken[cell(x, y)[::-1]]):
            break
        points.append((x, y))
    return points


def centred(angle, x, y, length, step=6.0, taken=None):
    """Streamline that extends to both sides of (x, y)."""
    back = trace(angle, x, y, length / 2, -step, taken)
    return np.array(back[:0:-1] + trace(angle, x, y, length / 2, step, taken))


def even_lines(angle, spacing, rng, length):
    """Streamlines at an even distance: each new line starts beside an older one."""
    board = Image.new("L", (W, H), 0)
    pen, taken, lines = ImageDraw.Draw(board), board.load(), []
    # Scattered fallback seeds come last; seeds beside a line are tried first.
    queue = deque(map(tuple, scatter(rng, int(W * H / spacing / 18), 10)))
    while queue:
        x, y = queue.popleft()
        if not (-10 <= x < W + 10 and -10 <= y < H + 10) or taken[cell(x, y)[::-1]]:
            continue
        line = centred(angle, x, y, length * rng.uniform(0.6, 1), 4.0, taken)
        if len(line) < 3:
            continue
        pen.line(line.ravel().tolist(), fill=1, width=max(1, int(1.7 * spacing)), joint="curve")
        lines.append(line)
        offset = normals(line) * spacing
        queue.extendleft(map(tuple, np.concatenate([line + offset, line - offset])[::6]))
    return lines


def normals(path):
    """Unit vectors perpendicular to a polyline."""
    d = np.gradient(path, axis=0)
    d /= np.hypot(d[:, :1], d[:, 1:]) + 1e-6
    return np.stack([-d[:, 1], d[:, 0]], 1)


def ribbon(path, widths):
    """Outline polygon of a line of varying width (what a pen nib leaves)."""
    side = normals(path) * (np.asarray(widths) / 2)[:, None]
    return np.concatenate([path + side, (path - side)[::-1]])


def box(x, y, length, width, angle, wobble, rng):
    """Corners of a rotated, slightly irregular rectangle."""
    corners = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) * (length / 2, width / 2)
    corners = corners + rng.uniform(-wobble, wobble, (4, 2))
    c, s = np.cos(angle), np.sin(angle)
    return corners @ np.array([(c, s), (-s, c)]) + (x, y)


class Canvas:
    """A colour picture and a height map that are painted together (thick paint)."""

    def __init__(self, plan):
        # A soft underpainting shows through wherever no stroke lands.
        under = np.clip(gaussian_filter(plan, (9, 9, 0)) * 0.8, 0, 255).astype(np.uint8)
        self.rgb, self.height = Image.fromarray(under), Image.new("L", (W, H), 0)
        self.pens = ImageDraw.Draw(self.rgb), ImageDraw.Draw(self.height)

    def line(self, points, colour, level, width):
        flat = np.asarray(points).ravel().tolist()
        self.pens[0].line(flat, fill=ink(colour), width=width)
        self.pens[1].line(flat, fill=int(level), width=width)

    def polygon(self, points, colour, level):
        flat = np.asarray(points).ravel().tolist()
        self.pens[0].polygon(flat, fill=ink(colour))
        self.pens[1].polygon(flat, fill=int(level))

    def brush(self, path, width, first, second, rng, contrast=0.13, hair=2.6):
        """One stroke of a brush loaded with two colours, drawn bristle by bristle."""
        side, count = normals(path), max(4, int(width / hair))
        for u in rng.permutation(np.linspace(-1, 1, count)):
            start, end = rng.integers(0, 1 + len(path) // 6, 2)  # ragged ends
            bristle = (path + side * (u * width / 2))[start:len(path) - end]
            if len(bristle) > 1:
                edge = 0.12 * np.sign(u) * (abs(u) > 0.8)        # a light and a dark edge
                tone = 1 + rng.normal(0, contrast) + edge
                colour = mix(first, second, np.float32(0.5 + 0.5 * u)) * tone
                level = 90 + 60 * abs(u) ** 3 + rng.uniform(0, 70)
                self.line(bristle, colour, level, int(width / count) + 2)

    def arrays(self):
        return np.asarray(self.rgb, np.float32), np.asarray(self.height, np.float32)


# ------------------------------------------------------------------ the pictures
def night_sky(rng):
    """Colour plan of `swirls`: blue bands around the vortices, warm rings on the stars."""
    tone, glow = noise(rng, 260, 4), np.zeros((H, W), np.float32)
    for k, (cx, cy, radius, _) in enumerate(VORTICES):
        r = np.hypot(X - cx * W, Y - cy * H)
        near = np.exp(-(r / (1.3 * radius)) ** 2)
        tone = tone + 0.24 * near * np.cos(r / (0.075 * radius + 8))
        size = (0.95, 0.5, 0.8, 0.62, 0.45, 0.7)[k] * radius
        rings = 0.86 + 0.14 * np.cos(r / (0.05 * size + 6))
        glow = np.maximum(glow, np.exp(-(r / size) ** 1.6) * rings)
    tone = np.clip(1.3 * tone - 0.17, 0, 1)
    greenish = np.clip(4 * noise(rng, 330) - 2.0, 0, 1)
    picture = mix(gradient(NIGHT, tone), gradient(TEAL, tone), greenish)
    return mix(picture, gradient(STARS, np.clip(glow * 1.2 - 0.12, 0, 1)),
               np.clip((glow - 0.14) * 4, 0, 1))


def swirls(rng):
    """Impasto strokes that follow the currents of a starry night sky."""
    angle, plan = swirl_angle(rng, VORTICES), night_sky(rng)
    canvas = Canvas(plan)
    for width, length, count in ((44, 230, 1600), (27, 160, 2600), (14, 90, 2600)):
        for x, y in scatter(rng, count):
            first = plan[cell(x, y)] * rng.normal(1, 0.16) + rng.normal(0, 7, 3)
            warm = first[0] > first[2]
            if width == 14 and not warm and rng.random() < 0.6:
                continue                                # small touches mostly on the stars
            path = centred(angle, x, y, length * rng.uniform(0.6, 1.3) * (0.6 if warm else 1))
            if len(path) < 4:
                continue
            accent = STARS if warm else (NIGHT, TEAL)[rng.integers(2)]
            second = mix(first, gradient(accent, rng.random()), np.float32(rng.uniform(0, 0.55)))
            canvas.brush(path, width * (0.6 if warm else 1), first, second, rng)
    return shaded(*canvas.arrays(), 0.013, 0.5)


def glass_sites(rng):
    """Pane centres (x, y), their motif number, and their ring inside the motif."""
    sites = []
    for k, (cx, cy, rings) in enumerate(ROSETTES):
        for ring in range(rings + 1):
            count = max(1, 6 * ring + (ring > 0) * 2)
            phase = rng.uniform(0, 1)
            for a in (np.arange(count) + phase) * 2 * np.pi / count:
                r = 62 * ring ** 1.08
                sites.append((cx * W + r * np.cos(a), cy * H + r * np.sin(a), k, ring))
    for x in np.arange(-60, W + 60, 58):                       # two winding ribbons
        for k, (base, swing) in enumerate([(0.80, 110), (0.10, 70)]):
            y = base * H + swing * np.sin(x / 210 + 2 * k)
            sites += [(x, y, 3 + k, 0), (x + 29, y + 56, 3 + k, 1)]
    kept = []                                                  # motifs first, then the ground
    for site in sites + [(*p, 5, 0) for p in scatter(rng, 4000, 60)]:
        gap = 44 if site[2] < 5 else rng.uniform(40, 110)
        if all((site[0] - q[0]) ** 2 + (site[1] - q[1]) ** 2 > gap ** 2 for q in kept):
            kept.append(site)
    return np.array(kept)


def glass_colours(sites, rng):
    """Colour each pane: rings and ribbons alternate, the ground drifts blue to purple."""
    rings = [[8, 5, 7, 0, 6, 1], [7, 4, 8, 2, 5, 3], [8, 6, 5, 7, 4, 0], [2, 3], [6, 7]]
    cool, warm = [0, 1, 0, 4, 1, 2], [2, 3, 1, 4, 0, 5]        # numbers in JEWELS
    colours = []
    for x, y, motif, ring in sites:
        if motif < 5:
            pick = rings[int(motif)][int(ring) % len(rings[int(motif)])]
        else:
            pick = rng.choice(cool if x < W * rng.uniform(0.3, 0.9) else warm)
        colours.append(rgb(JEWELS[pick]) * rng.uniform(0.75, 1.2) + rng.normal(0, 10, 3))
    return np.array(colours, np.float32)


def pane_walls(sites, rng):
    """Own pane and next pane of every pixel, and the distance to the border between them."""
    wx, wy = (26 * (noise(rng, 160, 2) - 0.5) for _ in range(2))   # bends the leads a little
    d, near = cKDTree(sites[:, :2]).query(np.stack([X + wx, Y + wy], -1), k=3)
    own, walls = sites[near[..., 0]], []
    for k in (1, 2):                                               # two candidate neighbours
        gap = (sites[near[..., k]] - own)[..., :2]
        walls.append((d[..., k] ** 2 - d[..., 0] ** 2) / (2 * np.hypot(gap[..., 0], gap[..., 1])))
    return near[..., 0], near[..., 1], np.minimum(*walls).astype(np.float32)


def stained_glass(rng):
    """Leaded window: rosettes and ribbons of jewel-coloured panes with light behind."""
    sites = glass_sites(rng)
    pane, other, edge = pane_walls(sites, rng)
    own = sites[pane]
    # Wider leads separate the motifs, narrow ones the panes inside a motif.
    lead = 3.5 + 3.5 * (own[..., 2] != sites[other][..., 2]) + 3 * noise(rng, 60)
    turn = rng.uniform(0, 2 * np.pi, len(sites))[pane]
    across = ((X - own[..., 0]) * np.cos(turn) + (Y - own[..., 1]) * np.sin(turn)) / 60
    etched = (rng.random(len(sites)) < 0.45)[pane] * np.sin(edge * 0.75) * 0.13
    streaks = noise(rng, 10, 3, 5) + noise(rng, 5, 2)
    ring = 0.25 * np.exp(-((edge - 24) / 14) ** 2)
    tone = 0.80 + 0.46 * across + 0.5 * (streaks - 1) + etched + ring
    tone *= 0.72 + 0.34 * np.clip(edge / 16, 0, 1)                 # painted shade at the leads
    tone *= 0.80 + 0.40 * noise(rng, 380)                          # uneven daylight
    glass = glass_colours(sites, rng)[pane] * np.clip(tone, 0.25, 1.7)[..., None]
    leads = shaded(np.full_like(glass, 17), -np.abs(edge) * 12, 0.05)
    window = mix(leads, glass, np.clip((edge - lead) / 1.5, 0, 1))
    glow = gaussian_filter(window, (14, 14, 0))
    return window + 0.36 * glow * (1 - window / 255) + 4


def blue(shade, haze, rng):
    """Printing blue, paler for what is farther away, with a little uneven inking."""
    pale = mix(rgb(BLUES[shade]), rgb(WOODBLOCK["haze"]), np.float32(haze))
    return ink(pale + rng.normal(0, 5))


def scallops(pen, top, bottom, size, haze, rng):
    """Seigaiha: rows of overlapping fans, the calm water between the waves."""
    for j, y in enumerate(np.arange(top, bottom + 2 * size, size * 0.5)):
        for x in np.arange(-size, W + size, 2 * size) + (j % 2) * size:
            for k, shade in enumerate((0, 4, 1, 3, 0, 2)):
                r = size * (1 - k / 6)
                pen.ellipse((x - r, y - r, x + r, y + r), fill=blue(shade, haze, rng))


def wave_curves(n=120):
    """Front and back outline of one breaking wave in unit size; both end at its tip."""
    front = [(0.00, 0.0), (0.22, 0.04), (0.38, 0.22), (0.43, 0.46), (0.36, 0.66),
             (0.22, 0.72), (0.10, 0.62)]
    back = [(1.25, 0.0), (1.02, 0.12), (0.82, 0.45), (0.62, 0.80), (0.38, 0.99),
            (0.14, 0.92), (0.03, 0.76), (0.10, 0.62)]
    curves = []
    for knots in (front, back):                                 # cubic spline through the knots
        where = np.linspace(0, 1, n) * (len(knots) - 1)
        curves.append(np.stack([map_coordinates(np.array(axis), [where], order=3, mode="nearest")
                                for axis in zip(*knots)], 1))
    return curves


def claw(x, y, size, heading):
    """Centre line of one finger of foam that hooks towards the front of the wave."""
    bend = heading - 2.3 * np.linspace(0, 1, 12) ** 1.4
    return np.stack([np.cumsum(np.cos(bend)), np.cumsum(np.sin(bend))], 1) * size / 12 + (x, y)


def foam_shapes(rim, size, rng):
    """Bubbles (x, y, radius; those of the rim first), their number, and the claw lines."""
    side, count = normals(rim), len(rim)
    heading = np.arctan2(side[:, 1], side[:, 0])
    grow = 0.35 + 0.65 * np.sin(np.linspace(0.15, 2.6, count))       # thin out at both ends
    bubbles = [(*(rim[k] + side[k] * depth * size), size * grow[k] * rng.uniform(0.018, 0.045))
               for depth in (-0.06, -0.035, -0.01, 0.015) for k in rng.permutation(count)]
    on_rim = len(bubbles)
    for _ in range(int(size / 9)):                                   # flying spray
        place = rim[rng.integers(count)] + rng.normal((-0.05, -0.05), 0.10) * size
        bubbles.append((*place, rng.uniform(2, 2 + size / 70)))
    claws = [claw(*(rim[k] + side[k] * 0.01 * size), size * grow[k] * rng.uniform(0.13, 0.2),
                  heading[k] + rng.uniform(-0.2, 0.5)) for k in range(0, count, 3)]
    return bubbles, on_rim, claws


def foam(pen, rim, size, rng):
    """Foam along the rim of a wave: bubbles, hooked claws and flying spray."""
    bubbles, on_rim, claws = foam_shapes(rim, size, rng)
    # First everything a little larger in the line colour: one contour around the whole.
    for extra, colour in ((3, WOODBLOCK["line"]), (0, WOODBLOCK["foam"])):
        for x, y, r in bubbles:
            pen.ellipse((x - r - extra, y - r - extra, x + r + extra, y + r + extra), fill=ink(colour))
        for path in claws:
            widths = 0.05 * size * np.linspace(1, 0.12, len(path)) + 2 * extra
            pen.polygon(ribbon(path, widths).ravel().tolist(), fill=ink(colour))
    for k, (x, y, r) in enumerate(bubbles[:on_rim]):
        pen.arc((x - r, y - r, x + r, y + r), 10, 160, fill=ink(BLUES[2 + k % 3]), width=2)


def breaking_wave(pen, x, base, size, stretch, haze, rng):
    """A wave whose stripes sweep from its foot up into the curl."""
    front, back = (c * (size * stretch, -size) + (x, base) for c in wave_curves())
    count = int(np.clip(size / 22, 9, 26))
    shades = rng.permutation(np.resize([0, 3, 1, 4, 0, 2, 0, 1], count))
    cuts = np.linspace(0, 1, count + 1) ** 0.9
    for lo, hi, shade in zip(cuts, cuts[1:], shades):
        left, right = (mix(front, back, np.float32(t)) for t in (lo, hi))
        strip = np.concatenate([left, right[::-1]])
        pen.polygon(strip.ravel().tolist(), fill=blue(shade, haze, rng))
        pen.line(strip.ravel().tolist(), fill=blue(0, haze, rng), width=3)
    outline = np.concatenate([front, back[::-1]]).ravel().tolist()
    pen.line(outline, fill=ink(WOODBLOCK["line"]), width=5, joint="curve")
    foam(pen, back[int(0.45 * len(back))::max(1, int(300 / size))], size, rng)


def clouds(pen, rng):
    """Long flat clouds with rounded ends, in outline like a second printing block."""
    for y in np.arange(-8, 0.36 * H, 26):
        x = rng.uniform(-500, 100)
        while x < W:
            length, thickness = rng.uniform(160, 520), rng.uniform(12, 24)
            fill = str(rng.choice(["#f3e6c8", "#d9d4bd", "#8fb0bb", "#5f8aa3", "#e0b58e"]))
            pen.rounded_rectangle((x, y, x + length, y + thickness), thickness / 2,
                                  fill=ink(fill), outline=ink(BLUES[1]), width=2)
            x += length + rng.uniform(40, 520)


def woodblock_waves(rng):
    """Curling waves with foam claws, printed in Prussian blue on fibrous paper."""
    bands = np.clip(Y / H * 2.2 + 0.06 * (noise(rng, 300, 2, 3) - 0.5), 0, 1)
    sky = gradient(["#2f5a7c", "#8fa7a4", WOODBLOCK["sky"], "#f0dfb8", "#dba983"], bands)
    sheet = Image.fromarray(sky.astype(np.uint8))
    pen = ImageDraw.Draw(sheet)
    pen.ellipse((W * 0.56, H * 0.05, W * 0.56 + 250, H * 0.05 + 250), fill=ink(WOODBLOCK["sun"]))
    clouds(pen, rng)
    for k, (base, size, haze) in enumerate(WAVE_ROWS):           # from far to near
        scallops(pen, base * H - size * 0.25, H, size * 0.15, haze, rng)
        if k == 3:                                               # the great wave of the picture
            breaking_wave(pen, 0.10 * W, 0.98 * H, 830, 0.84, 0, rng)
        for x in np.arange(-1.2 * size, W, size * 1.25) + rng.uniform(-0.3, 0.3) * size:
            breaking_wave(pen, x + rng.normal(0, 0.1) * size, base * H + 0.06 * size,
                          size * rng.uniform(0.65, 1.25), rng.uniform(0.95, 1.4), haze, rng)
    grain = np.sin(Y / 5 + 26 * noise(rng, 260, 2, 4)) * 0.05 + 0.22 * (noise(rng, 9, 2, 24) - 0.5)
    fibres = 0.16 * (noise(rng, 4, 2) - 0.5)
    return np.asarray(sheet, np.float32) * (1.02 + grain + fibres)[..., None] + 6


def crowns(rng):
    """Outline of the tree tops for every column, as a height above the horizon."""
    tops = np.full(W, 0.05)
    x = np.arange(W) / W
    for centre, height, spread in TREES:
        bump = np.clip(1 - ((x - centre) / spread) ** 2, 0, 1)
        tops = np.maximum(tops, height * bump ** 0.4)
    return tops + 0.10 * (noise(rng, 60, 4)[0] - 0.5)


def foliage(height, tops, rng):
    """Where the trees stand (mask) and their colours, lighter upwards and towards the sun."""
    leaf = noise(rng, 46, 3)
    side = np.sign(0.5 - X / W) * np.gradient(gaussian_filter(tops, 12)) * -60
    lit = 0.9 * leaf + 0.45 * np.clip(height / tops, 0, 1.2) - 0.25 + 0.12 * np.clip(side, -1, 1)
    colours = "#241a60 #24448a #1a7a5a #6cae3a #e8c83a #f28a2a".split()
    return height + 0.10 * (leaf - 0.5) < tops, gradient(colours, np.clip(lit, 0, 1))


def lake(rng):
    """Colour plan of `pointillism`: evening sky, trees, and both again in the water."""
    horizon, tops = 0.54, crowns(rng)
    water = Y / H > horizon
    depth = np.abs(Y / H - horizon) * 2                         # 0 at the horizon, mirrored
    ripple = np.where(water, 0.5 * (noise(rng, 22, 2, 6) - 0.5) * (0.25 + depth), 0)
    height = depth + ripple
    sky = gradient("#fff0a0 #ffd070 #f9a98a #cfa0d4 #8fb0f0 #5a86e0 #3a5cc8".split(),
                   np.clip(0.95 * height + 0.5 * (noise(rng, 150, 3, 3) - 0.5), 0, 1))
    inside, trees = foliage(height, tops, rng)
    sun = np.exp(-(((X / W - 0.53) / (0.036 - 0.008 * water + 0.12 * ripple)) ** 2
                   + ((depth - 0.32) / (0.075 + 0.22 * water)) ** 2))
    plan = mix(sky, rgb("#fff2b8"), np.clip(1.5 * sun, 0, 1))
    plan = np.where(inside[..., None], trees, plan)
    plan = np.where(water[..., None], plan * (0.80, 0.86, 0.98), plan).astype(np.float32)
    bank = Y / H > 0.90 + 0.05 * np.sin(X / 260) - 0.05 * X / W
    grass = gradient("#2a1a66 #1a6a5a #6cae3a #f0d848 #f59a3a".split(),
                     np.clip(1.5 * noise(rng, 80, 3, 3) - 0.3, 0, 1))
    return np.where(bank[..., None], grass, plan)


def jittered(rng, spacing):
    """Points of a jittered grid in random order: even coverage without a visible raster."""
    grid = np.mgrid[0:W + spacing:spacing, 0:H + spacing:spacing].reshape(2, -1).T
    return rng.permutation(grid + rng.uniform(-0.5, 0.5, grid.shape) * spacing)


def pointillism(rng):
    """Divisionist lake: dots of unmixed paint that only blend in the eye."""
    plan, table = lake(rng), np.stack([rgb(c) for c in PURE])
    canvas = Canvas(plan)
    for radius, spacing in ((14, 14), (11, 12), (8, 12), (5, 15)):
        for x, y in jittered(rng, spacing):
            goal = plan[cell(x, y)] + rng.normal(0, 22, 3)
            if rng.random() < 0.09:
                goal = 1.7 * goal.mean() - 0.9 * goal           # complementary hue, a bit darker
            error = ((table - goal) ** 2).sum(1) / 46 ** 2
            chance = np.exp(error.min() - error)
            pure = table[rng.choice(len(table), p=chance / chance.sum())]
            colour = mix(pure, goal, np.float32(0.40)) * rng.normal(1, 0.07)
            canvas.polygon(dab(x, y, radius * rng.uniform(0.7, 1.05), rng), colour, rng.uniform(60, 200))
    return shaded(*canvas.arrays(), 0.005)


def dab(x, y, r, rng):
    """Slightly irregular round touch of the brush."""
    a = np.linspace(0, 2 * np.pi, 10, endpoint=False) + rng.random()
    radii = r * rng.uniform(0.85, 1.12, 10)
    return np.stack([x + radii * np.cos(a), y + 0.88 * radii * np.sin(a)], 1)


def plane(picture, corners, colour, rng, strength=1.0):
    """Glaze a polygon that fades across its width, with brush streaks along it."""
    low = np.maximum(np.floor(corners.min(0)).astype(int), 0)
    high = np.minimum(np.ceil(corners.max(0)).astype(int) + 1, (W, H))
    if (high - low).min() < 3:
        return
    mask = Image.new("L", tuple(int(v) for v in high - low), 0)
    ImageDraw.Draw(mask).polygon((corners - low).ravel().tolist(), fill=255)
    part = np.s_[low[1]:high[1], low[0]:high[0]]
    turn = rng.uniform(0, 2 * np.pi)
    along = X[part] * np.cos(turn) + Y[part] * np.sin(turn)
    across = -X[part] * np.sin(turn) + Y[part] * np.cos(turn)
    fade = (along - along.min()) / (np.ptp(along) + 1e-3)
    streak = gaussian_filter(rng.normal(0, 1, int(np.ptp(across)) + 9), 1.5)
    streak = streak[(across - across.min() + 3 * np.sin(along / 40)).astype(int).clip(0)] * 1.6
    tone = 0.55 + 0.75 * fade + 0.10 * streak
    alpha = np.asarray(mask, np.float32) / 255 * np.clip(strength * (1.05 - 0.85 * fade), 0, 1)
    picture[part] = mix(picture[part], colour * tone[..., None], alpha)


def sector(cx, cy, r0, r1, a0, a1):
    """Polygon of a ring segment (a pie slice when r0 is 0)."""
    a = np.linspace(a0, a1, 40)
    arc = np.stack([np.cos(a), np.sin(a)], 1)
    return np.concatenate([arc * r1, arc[::-1] * r0]) + (cx, cy)


def orphist_disc(picture, cx, cy, size, colours, rng):
    """Rings cut into sectors; neighbouring segments take contrasting colours."""
    slices, start, shift = rng.integers(3, 7), rng.uniform(0, 2 * np.pi), rng.integers(9)
    for ring in range(5):
        for s in range(slices):
            if rng.random() < 0.15:
                continue                                        # lets the ground shine through
            a0 = start + s * 2 * np.pi / slices
            shape = sector(cx, cy, size * ring / 5, size * (ring + 1) / 5, a0, a0 + 2 * np.pi / slices)
            plane(picture, shape, colours[(2 * ring + 4 * s + shift) % len(colours)], rng, 1.05)


def facets(rng):
    """Orphist prism: translucent triangles, ring segments and discs in hard edges."""
    picture = gradient(ORPHIST[:5], noise(rng, 300))
    colours = [rgb(c) for c in ORPHIST]
    for k in range(320):
        size = 430 * (1 - k / 320) ** 1.3 + 70
        centre = scatter(rng, 1)[0]
        if k % 5 == 0:
            orphist_disc(picture, *centre, size * rng.uniform(0.45, 0.8), colours, rng)
            continue
        turns = rng.uniform(0, 2 * np.pi) + np.array([0, rng.uniform(0.7, 2.4), rng.uniform(2.8, 4.6)])
        corners = np.stack([np.cos(turns), np.sin(turns)], 1) * size * rng.uniform(0.5, 1, (3, 1))
        plane(picture, corners + centre, colours[rng.integers(len(colours))], rng)
    weave = 0.12 * (noise(rng, 5, 2, 2) - 0.5) + 0.10 * (noise(rng, 5, 2, 0.5) - 0.5)
    return ((picture - 100) * 1.22 + 112) * (1 + weave)[..., None]


def ridges(rng):
    """Tone (0 paper .. 1 black) and stroke direction of a mountain landscape."""
    cloud = noise(rng, 260, 3, 2.5)
    dx, dy = X - 0.66 * W, Y - 0.17 * H
    r = np.hypot(dx, dy)
    tone = np.where(r < 92, -1, np.maximum(0.10, 0.10 + 0.00042 * r + 1.0 * (cloud - 0.5)))
    angle = np.arctan2(dy, dx) + np.pi / 2 + 0.9 * (cloud - 0.5)
    for k in range(6):
        profile = noise(rng, 420 - 30 * k, 5)[300]
        top = H * (0.33 + 0.135 * k) - (420 - 30 * k) * (profile - 0.42)
        depth = Y - top
        rock = noise(rng, 190, 4)
        gy, gx = np.gradient(gaussian_filter(rock, 7) * 150)
        mist = 0.62 * np.exp(-np.clip(depth, 0, None) / (80 + 12 * k)) + 0.10 + 0.045 * k
        slope = np.arctan(np.gradient(gaussian_filter(top, 20)))
        fall = slope + (1.15, -0.35, 0.75)[k % 3] + 0.6 * np.arctan(1.4 * gx) + 0.8 * (rock - 0.5)
        here = depth > 0
        tone = np.where(here, np.where(depth < 7, 1, np.maximum(0.11, mist + 0.55 * gx + 0.25 * gy)), tone)
        angle = np.where(here, fall, angle)
    return np.minimum(tone, 1), angle


def pen_line(pen, line, width):
    """Draw the inked parts of a line (width > 0) as tapered, swelling pen strokes."""
    for run in np.split(np.arange(len(line)), np.flatnonzero(np.diff(width > 0)) + 1):
        if width[run[0]] > 0 and len(run) > 3:
            end = np.minimum(np.arange(len(run)), np.arange(len(run))[::-1])
            widths = width[run] * np.minimum(1, end / 4 + 0.25)
            pen.polygon(ribbon(line[run], widths).ravel().tolist(), fill=ink(INK))


def ink_hatching(rng):
    """Engraving: three generations of pen lines whose width and crossing make the tone."""
    tone, angle = ridges(rng)
    sheet = rgb(PAPER) * (0.94 + 0.07 * noise(rng, 6, 2) + 0.05 * noise(rng, 3, 1, 12))[..., None]
    sheet = Image.fromarray(sheet.clip(0, 255).astype(np.uint8))
    pen = ImageDraw.Draw(sheet)
    # (turn, line distance, tone above which this generation of lines appears)
    for turn, spacing, limit in ((0.0, 7.5, 0.06), (0.9, 7.5, 0.40), (-0.7, 8.0, 0.64)):
        wobble = angle + turn + 0.30 * (noise(rng, 40, 2) - 0.5)
        for line in even_lines(wobble, spacing, rng, 420):
            rows, cols = (np.clip(line[:, k], 0, m - 1).astype(int) for k, m in ((1, H), (0, W)))
            dark = tone[rows, cols] + rng.normal(0, 0.03)
            swell = 1 + 0.2 * np.sin(np.arange(len(line)) / 3 + rng.uniform(0, 6))
            pen_line(pen, line, np.where(dark > limit, 1.5 + 4.4 * (dark - 0.8 * limit), 0) * swell)
    return sheet


def mosaic_plan():
    """Material number of every point and the direction of the stone rows."""
    bend = 95 * np.sin(X / 190 + 0.8) + 45 * np.sin(X / 83 + Y / 300)
    slope = np.arctan(0.5 * np.cos(X / 190 + 0.8) + 0.54 * np.cos(X / 83 + Y / 300))
    level = Y + bend + 300
    kinds = np.array([0, 4, 1, 1, 4, 3, 2, 0, 0, 4, 2, 3])[(level / 44).astype(int) % 12]
    angle = -slope
    for cx, cy, radius in SUNS:
        dx, dy = X - cx * W, Y - cy * H
        r, a = np.hypot(dx, dy), np.arctan2(dy, dx)
        rays = (np.sin(11 * a + r / 60) > 0).astype(int)
        disc = np.select([r < 0.30 * radius, r < 0.40 * radius, r < 0.78 * radius, r < 0.9 * radius],
                         [np.full_like(rays, 2), 4, np.where(rays, 3, 2), 0], 4)
        kinds, angle = np.where(r < radius, disc, kinds), np.where(r < radius, a + np.pi / 2, angle)
    return kinds, angle


def lay_stone(canvas, x, y, length, width, angle, kind, rng):
    """One tessera with its own tint; gold ones vary most, like leaf under glass."""
    shades = list(STONES.values())[kind].split()
    tint = gradient(shades, rng.random()) * rng.normal(1, 0.16 if kind == 2 else 0.11)
    canvas.polygon(box(x, y, length, width, angle, 1.8, rng), tint, rng.uniform(120, 255))


def fill_gaps(canvas, kinds, angle, rng):
    """Press small chips into the places where two rows of stones drift apart."""
    for _ in range(3):
        room = distance_transform_edt(canvas.arrays()[1] == 0)
        for row, col in rng.permutation(np.argwhere(room > 6))[:6000]:
            if canvas.height.getpixel((int(col), int(row))) == 0:
                side = 1.5 * room[row, col]
                lay_stone(canvas, col, row, side, side, angle[row, col], kinds[row, col], rng)


def mosaic(rng):
    """Tesserae laid in curved rows around suns and waves, with mortar in the gaps."""
    kinds, angle = mosaic_plan()
    canvas, size = Canvas(np.full((H, W, 3), rgb("#4a3d33"))), 19.0
    for line in even_lines(angle, size, rng, 3000):
        arc = np.concatenate([[0], np.cumsum(np.hypot(*np.diff(line, axis=0).T))])
        at = rng.uniform(0, 8)
        while at < arc[-1]:
            length = size * rng.uniform(0.75, 1.25)
            x, y = (np.interp(at + length / 2, arc, line[:, k]) for k in (0, 1))
            here = cell(x, y)
            lay_stone(canvas, x, y, length - 4, size - 4, angle[here], kinds[here], rng)
            at += length
    fill_gaps(canvas, kinds, angle, rng)
    picture, height = canvas.arrays()
    stone = height > 0
    dome = np.minimum(distance_transform_edt(stone), 5) * 9 + 14 * noise(rng, 5, 2) * stone
    glint = (0.78 + 0.44 * (height / 255)) * (0.85 + 0.3 * noise(rng, 4, 2))
    mortar = 0.6 + 0.8 * noise(rng, 4, 2)
    return shaded(picture * np.where(stone, glint, mortar)[..., None], dome, 0.022, 0.4)


def forest(rng):
    """Colour plan and stroke direction of `autumn_knife` (still without the trunks)."""
    canopy, gaps = noise(rng, 190, 4), noise(rng, 170, 3, 0.7)
    plan = gradient(AUTUMN, np.clip(1.6 * canopy - 0.36 + 0.2 * (0.5 - Y / H), 0, 1))
    cool = gradient(AUTUMN_COOL, np.clip(1 - Y / H + 0.5 * (canopy - 0.5), 0, 1))
    plan = mix(plan, cool, np.clip((gaps - 0.56) * 12, 0, 1))
    angle = 0.9 + 3.4 * (noise(rng, 330, 2) - 0.5)
    ground = Y / H > 0.80 + 0.10 * (noise(rng, 300, 2, 3) - 0.5)
    leaves = gradient(AUTUMN, np.clip(noise(rng, 60, 3, 4) * 1.6 - 0.3, 0, 1)) * 0.92
    shade = mix(leaves, rgb(AUTUMN_COOL[0]), np.clip((noise(rng, 80, 3, 4) - 0.57) * 7, 0, 0.75))
    return np.where(ground[..., None], shade, plan), np.where(ground, 0.5 * (canopy - 0.5), angle)


def slabs(canvas, plan, angle, layers, rng):
    """Short flat strokes of a palette knife; each ends in a ridge of pushed-up paint."""
    for width, length, count in layers:
        for x, y in scatter(rng, count):
            first = plan[cell(x, y)] * rng.normal(1.04, 0.13)
            turn = angle[cell(x, y)] + rng.choice([0, 0, 0, np.pi / 2]) + rng.normal(0, 0.25)
            reach = length * rng.uniform(0.6, 1.25) / 2 * np.array([np.cos(turn), np.sin(turn)])
            path = (x, y) + np.linspace(-1, 1, 7)[:, None] * reach
            second = mix(first, plan[cell(*(path[-1] + rng.normal(0, 50, 2)))], np.float32(0.5))
            broad = width * rng.uniform(0.7, 1.2)
            canvas.brush(path, broad, first, second * rng.normal(1, 0.15), rng, 0.045, 5)
            lip = path[-1] + np.outer([-0.5, 0.5], normals(path)[-1] * broad)
            canvas.line(lip, second * 1.08 + 8, 225, 4)


def trunks(canvas, rng):
    """Birches and dark stems, built from stacked knife marks; light comes from the left."""
    for x in np.linspace(0.04, 0.96, 10) + rng.normal(0, 0.035, 10):
        width, birch = rng.uniform(18, 46), rng.random() < 0.65
        light, dark = ("#f3e7d2", "#5a4560") if birch else ("#8a4a50", "#1d1030")
        foot, top = rng.uniform(0.84, 0.99) * H, rng.uniform(-0.1, 0.15) * H
        lean, bow = rng.normal(0, 70), rng.uniform(0, 6)
        for y in np.arange(top, foot, 26):
            t = (foot - y) / H
            here = x * W + lean * t + 26 * np.sin(5 * t + bow)
            path = np.stack([here + rng.normal(0, 2.5) + np.zeros(5), np.linspace(y, y + 44, 5)], 1)
            bright = rgb(light) * rng.normal(1, 0.08)
            canvas.brush(path, width * (1 - 0.5 * t), rgb(dark), bright, rng, 0.06, 5)
            if birch and rng.random() < 0.4:
                canvas.brush(np.linspace((here - width / 3, y), (here + width / 5, y + 3), 4), 9,
                             rgb(dark) * 0.4, rgb(dark) * 0.5, rng)


def autumn_knife(rng):
    """Autumn wood laid on with a palette knife: flat slabs of paint with raised edges."""
    plan, angle = forest(rng)
    canvas = Canvas(plan)
    slabs(canvas, plan, angle, ((84, 150, 800), (56, 105, 1700), (36, 74, 1500)), rng)
    trunks(canvas, rng)
    slabs(canvas, plan, angle, ((40, 78, 260), (22, 46, 700)), rng)    # leaves before the stems
    return shaded(*canvas.arrays(), 0.013, 0.35)


def ikat_pattern(up, across):
    """Palette number at every point: stepped diamonds in columns, chequered borders."""
    column = across.astype(int)
    a = np.abs((across % 1) - 0.5) * 2                                 # 0 on the column axis
    b = np.abs(((up + 0.5 * (column % 2)) % 1) - 0.5) * 2              # 0 in the diamond centre
    rings = np.round(a * 10) / 10 * 0.95 + b + 0.12 * np.cos(8 * np.pi * b) * (a > 0.25)
    order = np.array([3, 5, 2, 1, 1, 2, 0, 0, 3, 1, 1, 2, 0, 0])       # colours from the centre
    swap = np.array([[0, 1, 2, 3, 4, 5], [0, 4, 2, 3, 1, 0]])          # every other column is teal
    index = swap[column % 2, order[np.clip(rings * 7, 0, 13).astype(int)]]
    return np.where(a > 0.90, np.where((up * 16 % 1) < 0.5, 2, 5), index)


def ikat(rng):
    """Woven ikat: stepped diamonds whose edges feather because the dyed warp slips."""
    thread = (X / 5).astype(int)
    slip = gaussian_filter(rng.normal(0, 1, W), 9) * 40 + rng.normal(0, 6, W)
    cloth = np.stack([rgb(c) for c in IKAT])[ikat_pattern((Y + slip[thread]) / 384, X / 307.2)]
    bleed = gaussian_filter(cloth, (6, 0, 0)) * 0.4 + cloth * 0.6      # dye creeps along the warp
    warp, weft = np.abs(np.sin(np.pi * X / 5)), np.sin(np.pi * Y / 3 + np.pi * thread)
    worn = 1 + rng.normal(0, 0.08, W)[thread]
    worn = worn + 0.4 * (noise(rng, 6, 3, 0.5) - 0.5) + 0.25 * (noise(rng, 200) - 0.5)
    return bleed * ((0.86 + 0.16 * warp + 0.14 * weft) * worn)[..., None] + 8


def wash(picture, field, colour, density, grit):
    """Transparent wash where field > 0; pigment gathers at its rim and in the paper."""
    inside = np.clip(field / 0.008, 0, 1)
    rim = np.exp(-np.clip(field, 0, None) / 0.010)
    depth = np.clip(inside * density * (0.6 + 1.0 * rim + 0.8 * (grit - 0.5)), 0, None)
    return picture * (rgb(colour) / 255) ** depth[..., None]


def aurora_wash(rng):
    """Watercolour aurora: transparent washes with dark rims, granulation and splashes."""
    grit = 0.6 * noise(rng, 5, 2) + 0.4 * noise(rng, 14, 2)      # the tooth of the paper
    picture = rgb("#fdfaf0") * (0.95 + 0.07 * grit)[..., None]
    sway, fringe = 340 * (noise(rng, 420, 2) - 0.5), 44 * (noise(rng, 44, 4) - 0.5)
    bent = [Y + 0.4 * sway + fringe, X + sway + fringe]
    for k in range(14):
        curtain = noise(rng, 190 - 8 * k, 2, 0.4) if k % 3 else noise(rng, 120, 3, 1.3)
        field = map_coordinates(curtain, bent, order=1, mode="mirror") - rng.uniform(0.60, 0.70)
        picture = wash(picture, field, AURORA[k % len(AURORA)], rng.uniform(0.3, 0.65), grit)
    for x, y in scatter(rng, 200):
        r = rng.exponential(7) + 2
        left, top = max(0, int(x - 60)), max(0, int(y - 60))
        part = np.s_[top:max(0, int(y + 60)), left:max(0, int(x + 60))]
        drop = (r - np.hypot(X[part] - x, Y[part] - y) + 0.2 * fringe[part]) / 150
        colour = AURORA[rng.integers(len(AURORA))]
        picture[part] = wash(picture[part], drop, colour, 0.8, grit[part])
    return picture


PICTURES = {f.__name__: f for f in (swirls, stained_glass, woodblock_waves, pointillism, facets,
                                    ink_hatching, mosaic, autumn_knife, ikat, aurora_wash)}


def main(names):
    """Draw the named pictures (all of them without names) next to this file."""
    unknown = [name for name in names if name not in PICTURES]
    if unknown:
        sys.exit(f"unknown picture(s) {unknown}; choose from {list(PICTURES)}")
    for name in names or PICTURES:
        start = time.perf_counter()
        path = Path(__file__).resolve().parent / f"{name}.jpg"
        image = finish(PICTURES[name](np.random.default_rng(SEEDS[name])))
        image.save(path, quality=92, subsampling=0)
        print(f"{path.name:22s} {path.stat().st_size / 1024:5.0f} KiB  {time.perf_counter() - start:5.1f} s")


if __name__ == "__main__":
    main(sys.argv[1:])

"""The AdaIN network and its training. Pictures, crops and runs are tiny: what is tested does not depend on their size."""
import errno
import itertools
import multiprocessing
import os
import random
import shutil
import signal
import socket
import time
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from torch import nn

import nst_utils as nst

# children are forked from a process that has imported everything but computed nothing: quick, and no threads are torn apart
METHODS = multiprocessing.get_all_start_methods()
CHILDREN = multiprocessing.get_context("forkserver" if "forkserver" in METHODS else "spawn")
CHILDREN.set_forkserver_preload(["nst_utils", "accelerate", "pytest"])


@pytest.fixture(scope="module")
def adain():
    """The shipped encoder, with a decoder that may as well be untrained, in float32."""
    return nst.AdaIN(precision="float32", seed=3).eval()


@pytest.fixture(scope="module")
def styles():
    """Three seeded style pictures of different size and palette."""
    draw = torch.Generator().manual_seed(11)
    coarse = [torch.rand(1, 3, 5, 5, generator=draw) * torch.rand(1, 3, 1, 1, generator=draw) for _ in range(3)]
    return [nn.functional.interpolate(one, (40, 40 + 8 * k), mode="bicubic").clamp(0, 1) for k, one in enumerate(coarse)]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A folder of photographs and one of paintings, each with four seeded pictures of different size."""
    draw = torch.Generator().manual_seed(1)
    root = tmp_path_factory.mktemp("pictures")
    for kind, index in itertools.product(("photographs", "paintings"), range(4)):
        coarse = torch.rand(1, 3, 4, 5, generator=draw)
        picture = nn.functional.interpolate(coarse, (20 + 5 * index, 44 - 6 * index), mode="bicubic").clamp(0, 1)
        nst.save_image(picture, root / kind / f"{index}.png")
    return root / "photographs", root / "paintings"


def train(folders, network=None, *, steps=3, **options):
    """Train a tiny network and return it with the list of its steps."""
    network = network or nst.AdaIN(precision="float32")
    options = dict(batch=2, size=24, crop=16, accelerator=Accelerator(cpu=True)) | options
    return network, list(nst.train_adain(network, *folders, steps=steps, **options))


def same_bits(one, other):
    states = one.decoder.state_dict(), other.decoder.state_dict()
    return all(torch.equal(states[0][name], states[1][name]) for name in states[0] | states[1])


# --- the transforms -----------------------------------------------------------------------------------------------


def some_maps(seed, size=(6, 9)):
    """Seeded maps (1, 4, H, W) whose channels are correlated and differ in mean and scale."""
    draw = torch.Generator().manual_seed(seed)
    mixed = torch.randn(4, 4, generator=draw) @ torch.randn(4, size[0] * size[1], generator=draw)
    return (mixed + torch.randn(4, 1, generator=draw)).view(1, 4, *size)


def test_adain_gives_each_channel_the_mean_and_deviation_of_the_style():
    content, style = some_maps(0), some_maps(1, (5, 13))
    result = nst.adain(content, style).flatten(2)
    assert torch.allclose(result.mean(2), style.flatten(2).mean(2), atol=1e-5)
    assert torch.allclose(result.std(2, correction=0), style.flatten(2).std(2, correction=0), rtol=1e-3)
    assert torch.allclose(nst.adain(content, style), nst.adain(content, nst.mean_std(style)))
    assert torch.allclose(nst.adain(content, content), content, atol=1e-5)


def test_adain_keeps_the_pattern_of_each_channel():
    content = some_maps(0)
    result = nst.adain(content, some_maps(1))
    for before, after in zip(content[0].flatten(1), result[0].flatten(1)):
        assert torch.corrcoef(torch.stack([before, after]))[0, 1] > 0.9999


def test_adain_survives_a_constant_channel():
    flat = torch.ones(1, 4, 6, 9)
    assert nst.adain(flat, some_maps(1)).isfinite().all()
    assert torch.allclose(nst.adain(some_maps(0), flat).mean((2, 3)), torch.ones(1, 4), atol=1e-4)


def test_wct_gives_the_whole_covariance_of_the_style():
    content, style = some_maps(0, (20, 9)), some_maps(1, (8, 13))
    result = nst.wct(content, style)
    assert result.shape == content.shape
    assert torch.allclose(result.flatten(2).mean(2), style.flatten(2).mean(2), atol=1e-4)
    assert torch.allclose(torch.cov(result[0].flatten(1), correction=0), torch.cov(style[0].flatten(1), correction=0), rtol=1e-3,
                          atol=1e-3)
    assert not torch.allclose(torch.cov(nst.adain(content, style)[0].flatten(1)), torch.cov(style[0].flatten(1)), rtol=0.05)


def test_wct_leaves_out_directions_without_variance():
    content = some_maps(0)
    content[:, 3] = content[:, 2] + 1e-4 * torch.randn(6, 9, generator=torch.Generator().manual_seed(2))
    result = nst.wct(content, some_maps(1))  # whitening must not blow up this noise to the size of a channel
    assert torch.linalg.matrix_rank(torch.cov(result[0].flatten(1)), rtol=1e-3) == 3
    assert nst.wct(torch.ones(1, 4, 6, 9), some_maps(1)).isfinite().all()


def test_wct_refuses_statistics_and_can_replace_adain(adain, picture, painting):
    maps = adain.encoder(nst._with_margin(picture))["relu4_1"]
    decoded = adain.decode(nst.wct(maps, adain.encoder(painting)["relu4_1"])).clamp(0, 1)
    result = adain.stylize(picture, painting, transform=nst.wct)
    assert torch.allclose(result, decoded[..., nst.MARGIN:, nst.MARGIN:][..., : picture.shape[2], : picture.shape[3]], atol=1e-5)
    with pytest.raises(ValueError, match="needs the style's maps"):
        adain.stylize(picture, adain.statistics(painting), transform=nst.wct)


# --- stylising ----------------------------------------------------------------------------------------------------


def test_alpha_0_is_the_decoded_content(adain, picture, painting):
    margin = nst.MARGIN
    height, width = picture.shape[-2:]
    padded = nn.functional.pad(picture, [margin] * 4, mode="replicate")
    decoded = adain.decode(adain.encoder(padded)["relu4_1"])[..., margin:margin + height, margin:margin + width].clamp(0, 1)
    assert torch.allclose(adain.stylize(picture, painting, alpha=0), decoded, atol=1e-6)


def test_alpha_goes_from_content_to_style(adain, picture, painting):
    images = [adain.stylize(picture, painting, alpha=alpha) for alpha in (0, 0.5, 1)]
    distances = [(image - images[0]).square().mean() for image in images]
    assert 0 == distances[0] < distances[1] < distances[2]


@pytest.mark.parametrize("alpha", [-0.1, 1.1, float("nan")])
def test_alpha_out_of_range_is_refused(adain, picture, painting, alpha):
    with pytest.raises(ValueError, match="alpha is between 0 and 1"):
        adain.stylize(picture, painting, alpha=alpha)


@pytest.mark.parametrize("height, width", [(48, 64), (37, 51), (8, 8), (1, 1), (100, 3)])
def test_a_picture_of_any_size_keeps_it(adain, painting, height, width):
    picture = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(0))
    result = adain.stylize(picture, painting, keep_colours=True)
    assert result.shape == picture.shape and result.isfinite().all() and 0 <= result.min() and result.max() <= 1


def test_statistics_can_be_kept_instead_of_the_style(adain, picture, painting):
    statistics = adain.statistics(painting)
    assert statistics.shape == (1, 2, 192) and not statistics.requires_grad
    assert torch.equal(adain.stylize(picture, statistics), adain.stylize(picture, painting))


def test_a_picture_in_its_own_style_is_its_decoded_self(adain, picture):
    own = nst.mean_std(adain.encoder(nst._with_margin(picture))["relu4_1"])
    assert torch.allclose(adain.stylize(picture, own), adain.stylize(picture, own, alpha=0), atol=1e-4)


def test_all_weight_on_one_style_is_that_style(adain, picture, styles):
    for index, style in enumerate(styles):
        weights = [float(index == other) * 5 for other in range(3)]
        assert torch.allclose(adain.stylize(picture, styles, weights=weights), adain.stylize(picture, style), atol=1e-6)


def test_only_the_ratio_of_weights_counts(adain, picture, styles):
    even = adain.stylize(picture, styles)
    assert torch.allclose(adain.stylize(picture, styles, weights=[2, 2, 2]), even, atol=1e-6)
    assert not torch.allclose(adain.stylize(picture, styles, weights=[1, 2, 3]), even, atol=1e-3)
    same = adain.stylize(picture, [styles[0]] * 3, weights=[1, 2, 3])
    assert torch.allclose(same, adain.stylize(picture, styles[0]), atol=1e-5)


@pytest.mark.parametrize("options, message", [
    ({"weights": [1, 2]}, "3 styles, but 2 weights"), ({"masks": [torch.ones(1, 1, 4, 4)]}, "3 styles, but 1 masks"),
    ({"weights": [0, 0, 0]}, "not all 0"), ({"weights": [1, -1, 1]}, "at least 0"),
    ({"weights": [1, float("nan"), 1]}, "finite"), ({"weights": [1, 1, float("inf")]}, "finite"),
    ({"weights": [1, 1, 1], "masks": [torch.ones(1, 1, 4, 4)] * 3}, "not by both")])
def test_unusable_weights_and_masks_are_refused(adain, picture, styles, options, message):
    with pytest.raises(ValueError, match=message):
        adain.stylize(picture, styles, **options)


def test_no_style_at_all_is_refused(adain, picture):
    with pytest.raises(ValueError, match="There are 0 styles"):
        adain.stylize(picture, [])


def test_masks_give_each_side_its_own_style(adain, styles):
    picture = nst.sample("chelsea", 200)
    height, width = picture.shape[-2:]
    left = torch.zeros(1, 1, height, width)
    left[..., : width // 2] = 1
    both = adain.stylize(picture, styles[:2], masks=[left, 1 - left])
    one, other = (adain.stylize(picture, style) for style in styles[:2])
    far = 48  # what a decoded pixel sees of relu4_1
    assert torch.allclose(both[..., : width // 2 - far], one[..., : width // 2 - far], atol=1e-5)
    assert torch.allclose(both[..., width // 2 + far:], other[..., width // 2 + far:], atol=1e-5)
    assert not torch.allclose(one, other, atol=0.01)


def test_masks_need_neither_the_picture_s_size_nor_a_sum_of_1(adain, picture, styles):
    small, large = torch.full((1, 1, 5, 7), 0.3), torch.full((1, 1, 99, 80), 0.6)
    weighted = adain.stylize(picture, styles[:2], weights=[1, 2])
    assert torch.allclose(adain.stylize(picture, styles[:2], masks=[small, large]), weighted, atol=1e-5)
    nowhere = [torch.zeros(1, 1, 4, 4)] * 2  # where no mask reaches, all styles share
    assert torch.allclose(adain.stylize(picture, styles[:2], masks=nowhere), adain.stylize(picture, styles[:2]), atol=1e-5)


def test_colours_can_be_kept(adain, picture, painting):
    luma = torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)
    plain, kept = (adain.stylize(picture, painting, keep_colours=keep) for keep in (False, True))
    inside = ((kept > 0.001) & (kept < 0.999)).all(1)  # where nothing was cut off
    assert inside.float().mean() > 0.3
    difference = kept - picture
    assert difference.std(1)[inside].max() < 1e-5  # the same in red, green and blue: colours stay
    assert torch.allclose((kept * luma).sum(1)[inside], (plain * luma).sum(1)[inside], atol=1e-5)  # brightness is the style's


def test_the_result_has_no_frame(adain):
    """A flat picture stays flat up to its border, where padding with zeros would make a frame."""
    result = adain.stylize(torch.full((1, 3, 40, 56), 0.4), nst.sample("mosaic", 96))
    assert result.std((2, 3)).max() < 0.6 * adain_without_margin(adain).std((2, 3)).max()


def adain_without_margin(adain):
    maps = adain.encoder(torch.full((1, 3, 40, 56), 0.4))["relu4_1"]
    return adain.decode(nst.adain(maps, adain.statistics(nst.sample("mosaic", 96)))).clamp(0, 1)


# --- networks and files -------------------------------------------------------------------------------------------


def test_the_decoder_mirrors_the_encoder():
    network = nst.AdaIN("vgg19", weights=None, precision="float32")
    widths = [(m.in_channels, m.out_channels) for m in network.decoder if isinstance(m, nn.Conv2d)]
    assert widths == [(512, 256), (256, 256), (256, 256), (256, 256), (256, 128), (128, 128), (128, 64), (64, 64), (64, 3)]
    kinds = {type(module) for module in network.decoder}
    assert kinds == {nn.Conv2d, nn.ReLU, nn.ReflectionPad2d, nn.Upsample}  # no normalisation
    assert not any(parameter.requires_grad for parameter in network.encoder.parameters())


def test_only_a_vgg_can_be_the_encoder():
    with pytest.raises(ValueError, match="alexnet|relu4_1"):
        nst.AdaIN("alexnet", weights=None)


def test_a_saved_decoder_is_read_again(adain, picture, painting, tmp_path):
    path = adain.save(tmp_path / "deep" / "decoder.pt")
    again = nst.AdaIN.pretrained(path=path, precision="float32")
    assert torch.allclose(again.stylize(picture, painting), adain.stylize(picture, painting), atol=5e-3)  # half precision
    assert path.stat().st_size < 2 * 2**20 and [*path.parent.iterdir()] == [path]


def test_a_decoder_that_can_t_be_had_is_a_clear_error(tmp_path):
    with pytest.raises(ValueError, match="No decoder for vgg19 is shipped.*from_published"):
        nst.AdaIN.pretrained("vgg19")
    with pytest.raises(FileNotFoundError, match="no weights file at .*absent.pt"):
        nst.AdaIN.pretrained(path=tmp_path / "absent.pt")
    torch.save({"0.weight": torch.zeros(3)}, tmp_path / "other.pt")
    with pytest.raises(ValueError, match="other.pt does not hold the weights of a decoder for vgg19_compact"):
        nst.AdaIN.pretrained(path=tmp_path / "other.pt")


@pytest.fixture(scope="module")
def published_files(tmp_path_factory):
    """Seeded weights in the layout of naoto0804/pytorch-AdaIN, built here from its description alone."""
    def block(*widths):
        return [module for pair in itertools.pairwise(widths)
                for module in (nn.ReflectionPad2d((1, 1, 1, 1)), nn.Conv2d(*pair, (3, 3)), nn.ReLU())]

    def pool():
        return nn.MaxPool2d((2, 2), (2, 2), (0, 0), ceil_mode=True)

    def up():
        return nn.Upsample(scale_factor=2, mode="nearest")

    with torch.random.fork_rng():
        torch.manual_seed(5)
        encoder = nn.Sequential(nn.Conv2d(3, 3, (1, 1)), *block(3, 64, 64), pool(), *block(64, 128, 128), pool(),
                                *block(128, 256, 256, 256, 256), pool(), *block(256, 512, 512, 512, 512), pool(),
                                *block(512, 512, 512, 512, 512))
        decoder = nn.Sequential(*block(512, 256), up(), *block(256, 256, 256, 256, 128), up(), *block(128, 128, 64), up(),
                                *block(64, 64, 3)[:-1])
    folder = tmp_path_factory.mktemp("published")
    torch.save(encoder.state_dict(), folder / "vgg_normalised.pth")
    torch.save(decoder.state_dict(), folder / "decoder.pth")
    return folder, encoder[:31], decoder  # relu4_1 is its 31st module


@torch.no_grad()
def test_the_published_network_is_rebuilt_exactly(published_files, picture, painting):
    folder, encoder, decoder = published_files
    network = nst.AdaIN.from_published(folder, precision="float32")
    content, style = encoder(nst._with_margin(picture)), encoder(painting)
    deviation = [maps.var((2, 3), correction=0, keepdim=True).add(1e-5).sqrt() for maps in (content, style)]
    mean = [maps.mean((2, 3), keepdim=True) for maps in (content, style)]
    wanted = decoder((content - mean[0]) / deviation[0] * deviation[1] + mean[1])
    height, width = picture.shape[-2:]
    wanted = wanted[..., nst.MARGIN:nst.MARGIN + height, nst.MARGIN:nst.MARGIN + width].clamp(0, 1)
    assert wanted.std() > 0.001
    assert torch.allclose(network.stylize(picture, painting), wanted, atol=1e-5)
    assert torch.allclose(network.encoder(painting)["relu4_1"], style, rtol=1e-3, atol=1e-5)
    with pytest.raises(ValueError, match="needs at least 9"):
        network.stylize(picture, painting[..., :8, :8])


def test_published_files_are_loaded_safely(published_files, tmp_path):
    folder, _, decoder = published_files
    shutil.copy(folder / "vgg_normalised.pth", tmp_path)
    with pytest.raises(FileNotFoundError, match="decoder.pth"):
        nst.AdaIN.from_published(tmp_path)
    torch.save(decoder, tmp_path / "decoder.pth")  # a pickled module: loading it would run code
    with pytest.raises(ValueError, match="decoder.pth can't be read as weights"):
        nst.AdaIN.from_published(tmp_path)


# --- training -----------------------------------------------------------------------------------------------------


def test_the_loss_falls(folders):
    _, steps = train(folders, steps=40, learning_rate=2e-3, batch=4)
    totals = [step.losses["total"] for step in steps]
    assert sum(totals[-5:]) < 0.6 * sum(totals[:5])
    assert [step.index for step in steps] == list(range(1, 41)) and steps[-1].skipped == 0
    last = steps[-1].losses
    assert last["total"] == pytest.approx(last["content"] + 10 * last["style"] + 20 * last["identity"], rel=1e-5)


def test_the_losses_are_what_they_are_said_to_be(adain, picture, painting):
    content = torch.cat([picture[..., k:40 + k, 8 * k:40 + 8 * k] for k in range(3)])
    style = torch.cat([painting[..., 8 * k:40 + 8 * k, k:40 + k] for k in range(3)])
    with torch.no_grad():
        terms = nst._AdaINLosses(adain)(content, style)
        target = nst.adain(adain.encoder(content)["relu4_1"], adain.encoder(style)["relu4_1"])
        result, wanted = adain.encoder(adain.decode(target)), adain.encoder(style)
        layers = [nst.relative_error(nst.mean_std(result[layer]), nst.mean_std(wanted[layer])) for layer in nst.ADAIN_LAYERS]
        same = adain.decode(adain.encoder(content)["relu4_1"])[:2]  # half of the batch, rounded up
    assert terms["content"].item() == pytest.approx(nst.relative_error(result["relu4_1"], target).mean().item(), rel=1e-3)
    assert terms["style"].item() == pytest.approx(torch.stack(layers).mean().item(), rel=1e-3)
    assert terms["identity"].item() == pytest.approx((same - content[:2]).square().mean().item(), rel=1e-3)


def test_the_rate_falls_over_the_last_half(folders, monkeypatch):
    rates = []
    monkeypatch.setattr(torch.optim.Adam, "step", lambda self, *_: rates.append(self.param_groups[0]["lr"]))
    train(folders, steps=4, learning_rate=1.0)
    assert rates == [1.0, 1.0, 1.0, 0.5]


def test_only_the_decoder_learns(folders, adain):
    network, _ = train(folders)
    assert not same_bits(network, nst.AdaIN(precision="float32"))
    before, after = adain.encoder.state_dict(), network.encoder.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_broken_run_goes_on_with_the_same_bits(folders, tmp_path):
    whole, curve = train(folders, steps=6)
    path = tmp_path / "checkpoint.pt"
    run = nst.train_adain(nst.AdaIN(precision="float32"), *folders, steps=6, batch=2, size=24, crop=16, checkpoint=path,
                          checkpoint_every=2, accelerator=Accelerator(cpu=True))
    for _ in range(5):
        next(run)
    run.close()
    resumed, rest = train(folders, nst.AdaIN(precision="float32", seed=99), steps=6, checkpoint=path, checkpoint_every=2)
    assert same_bits(whole, resumed)
    assert [step.losses for step in rest] == [step.losses for step in curve[4:]]
    assert rest[0].index == 5 and rest[0].note == "Resumed at step 4 from checkpoint.pt." and rest[1].note == ""
    assert rest[0].seconds > 0 and train(folders, resumed, steps=6, checkpoint=path)[1] == []  # all made: nothing left to do


def train_until_killed(folders, path, steps, started):
    torch.set_num_threads(1)
    network = nst.AdaIN(precision="float32", seed=7)
    for _ in nst.train_adain(network, *folders, steps=steps, batch=2, size=24, crop=16, checkpoint=path, checkpoint_every=1,
                             accelerator=Accelerator(cpu=True)):
        started.set()


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_kill_9_at_five_random_moments_costs_nothing(folders, tmp_path):
    path, steps, moments = tmp_path / "checkpoint.pt", 60, random.Random()
    for _ in range(5):
        started = CHILDREN.Event()
        child = CHILDREN.Process(target=train_until_killed, args=(folders, path, steps, started))
        child.start()
        assert started.wait(120)
        time.sleep(moments.uniform(0, 0.25))
        child.kill()
        child.join()
        assert child.exitcode == -signal.SIGKILL, "it was done before it could be killed"
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        resumed, rest = train(folders, steps=steps, checkpoint=path, checkpoint_every=1000)
        whole, _ = train(folders, nst.AdaIN(precision="float32", seed=7), steps=steps)
    finally:
        torch.set_num_threads(threads)
    assert "Resumed at step" in rest[0].note and same_bits(whole, resumed)


def test_a_truncated_checkpoint_gives_way_to_the_one_before(folders, tmp_path):
    path = tmp_path / "checkpoint.pt"
    whole, _ = train(folders, steps=5, checkpoint=path, checkpoint_every=2)
    path.write_bytes(path.read_bytes()[:1000])
    resumed, rest = train(folders, steps=5, checkpoint=path, checkpoint_every=2)
    assert "truncated" in rest[0].note and "Resumed at step 4 from checkpoint.pt.previous." in rest[0].note
    assert same_bits(whole, resumed)
    for damaged in (path, nst._previous(path)):
        damaged.write_bytes(b"")
    with pytest.raises(ValueError, match="checkpoint.pt can't be read .*checkpoint.pt.previous can't be read"):
        train(folders, checkpoint=path)
    assert path.read_bytes() == b""  # nothing is overwritten


def test_between_two_renames_the_previous_checkpoint_is_there(folders, tmp_path):
    path = tmp_path / "checkpoint.pt"
    train(folders, steps=2, checkpoint=path)
    path.rename(nst._previous(path))  # as a kill between the two renames leaves it
    _, rest = train(folders, steps=3, checkpoint=path)
    assert rest[0].index == 3 and "checkpoint.pt.previous" in rest[0].note and path.exists()


def test_a_checkpoint_of_another_network_is_refused(folders, tmp_path):
    path = tmp_path / "checkpoint.pt"
    torch.save({"arch": "vgg19", "step": 5}, path)
    with pytest.raises(ValueError, match="no checkpoint of an AdaIN on vgg19_compact, but of vgg19"):
        train(folders, checkpoint=path)
    nst.AdaIN(precision="float32").save(path)
    with pytest.raises(ValueError, match="no checkpoint .*something else"):
        train(folders, checkpoint=path)


def test_a_full_disk_leaves_the_last_checkpoint(folders, tmp_path, monkeypatch):
    path = tmp_path / "checkpoint.pt"
    train(folders, steps=2, checkpoint=path, checkpoint_every=1)
    kept = path.read_bytes(), sorted(tmp_path.iterdir())

    def write_half(self, data):
        with open(self, "wb") as file:
            file.write(data[: len(data) // 2])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", write_half)
    with pytest.raises(OSError, match="checkpoint.pt can't be written .No space left.*nothing was changed"):
        train(folders, steps=3, checkpoint=path, checkpoint_every=1)
    with pytest.raises(OSError, match="decoder.pt can't be written"):
        nst.AdaIN(precision="float32").save(tmp_path / "decoder.pt")
    assert (path.read_bytes(), sorted(tmp_path.iterdir())) == kept


@pytest.mark.parametrize("spoil", [lambda loss, weight: loss * float("nan"),
                                   lambda loss, weight: loss + (weight.sum() * 0).sqrt()], ids=["loss", "gradient"])
def test_nan_stops_and_keeps_the_last_good_state(folders, tmp_path, monkeypatch, spoil):
    path, calls, forward = tmp_path / "checkpoint.pt", itertools.count(1), nst._AdaINLosses.forward
    network = nst.AdaIN(precision="float32")

    def third_is_spoilt(self, content, style):
        losses = forward(self, content, style)
        return losses | {"content": spoil(losses["content"], network.decoder[1].weight)} if next(calls) == 3 else losses

    monkeypatch.setattr(nst._AdaINLosses, "forward", third_is_spoilt)
    with pytest.raises(FloatingPointError, match="step 3 or its gradient is not finite"):
        train(folders, network, steps=5, checkpoint=path, checkpoint_every=1)
    assert all(value.isfinite().all() for value in network.decoder.state_dict().values())
    monkeypatch.setattr(nst._AdaINLosses, "forward", forward)
    resumed, rest = train(folders, steps=5, checkpoint=path)
    assert rest[0].index == 3 and same_bits(resumed, train(folders, steps=5)[0])


# --- pictures -----------------------------------------------------------------------------------------------------


def test_unreadable_and_small_pictures_are_skipped_and_counted(folders, tmp_path):
    photographs, paintings = folders
    for path in paintings.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "cut.png").write_bytes((paintings / "0.png").read_bytes()[:200])
    (tmp_path / "text.jpeg").write_text("not a picture")
    (tmp_path / "notes.txt").write_text("not even called one")
    nst.save_image(torch.rand(1, 3, 15, 90), tmp_path / "narrow.png")
    _, steps = train((photographs, tmp_path), steps=8)
    assert steps[-1].skipped == 4 and [step.skipped for step in steps] == sorted(step.skipped for step in steps)


@pytest.mark.parametrize("names, message", [
    ((), "holds 0 pictures; training needs at least two"), (("a",), "holds 1 picture; training needs at least two"),
    (("a", "b"), "fewer than two pictures that can be read and have 16 pixels")])
def test_too_few_pictures_are_a_clear_error(folders, tmp_path, names, message):
    for name in names:
        nst.save_image(torch.rand(1, 3, 12, 12), tmp_path / f"{name}.png")
    with pytest.raises(ValueError, match=message):
        train((tmp_path, folders[1]))
    with pytest.raises(ValueError, match=message):
        train((folders[0], [folders[1], tmp_path]))


def test_one_usable_picture_of_two_is_too_few(folders, tmp_path):
    nst.save_image(torch.rand(1, 3, 30, 30), tmp_path / "good.png")
    (tmp_path / "bad.png").write_bytes(b"")
    with pytest.raises(ValueError, match="fewer than two pictures that can be read"):
        train((tmp_path, folders[1]), steps=9)


def test_an_absent_folder_and_an_odd_crop_are_clear_errors(folders, tmp_path):
    with pytest.raises(ValueError, match="There is no folder .*absent"):
        train((tmp_path / "absent", folders[1]))
    with pytest.raises(ValueError, match="crop is at least 16 and at most size"):
        train(folders, crop=25)


def test_draws_depend_on_nothing_but_seed_and_number(folders):
    one, other = (nst._Pictures(folders[0], 24, 16, 0) for _ in range(2))
    batch = one.batch(0, 12)
    assert batch.shape == (12, 3, 16, 16) and 0 <= batch.min() and batch.max() <= 1
    assert torch.equal(other.batch(7, 5), batch[7:])
    assert not torch.equal(nst._Pictures(folders[0], 24, 16, 1).batch(0, 12), batch)


def test_a_draw_is_a_window_of_1_to_1_5_crops_and_half_are_mirrored(tmp_path):
    for name in "ab":
        nst.save_image((torch.arange(192) / 192).expand(1, 3, 192, 192), tmp_path / f"{name}.png")
    draws = nst._Pictures(tmp_path, 96, 16, 0).batch(0, 64)  # reduced to 96 pixels, a pixel to the right is 1/96 brighter
    rises = (draws[..., -1] - draws[..., 0]).mean((1, 2)) * 96
    assert 13 < rises.abs().min() < 17 and 20 < rises.abs().max() < 24
    assert 16 < (rises > 0).sum() < 48


def test_every_picture_is_drawn_once_before_any_is_drawn_twice(folders):
    pictures = nst._Pictures(folders, 24, 16, 0)  # two folders in turn
    drawn = [tuple(pictures.picture(number).shape) + (pictures.picture(number).sum().item(),) for number in range(16)]
    for source in (drawn[::2], drawn[1::2]):
        assert len(set(source[:4])) == len(set(source[4:])) == 4 and set(source[:4]) == set(source[4:])
    assert not set(drawn[::2]) & set(drawn[1::2])


# --- several processes --------------------------------------------------------------------------------------------


def one_of_two(rank, port, folders, target):
    """What `torchrun --nproc-per-node 2` sets up for each process, then the call that one process makes as well."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2",
                   "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "ACCELERATE_USE_CPU": "true"}
    torch.set_num_threads(1)
    accelerator = Accelerator(cpu=True)
    network, steps = train(folders, steps=5, batch=2, identity_weight=0, accelerator=accelerator)
    target[rank].put((accelerator.num_processes, [step.losses for step in steps], network.decoder[1].bias.detach().tolist()))


def test_two_processes_train_as_one_with_the_double_batch(folders):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    target = [CHILDREN.Queue() for _ in range(2)]
    children = [CHILDREN.Process(target=one_of_two, args=(rank, port, folders, target), daemon=True) for rank in range(2)]
    for child in children:
        child.start()
    results = [queue.get(timeout=120) for queue in target]
    for child in children:
        child.join()
    # without the identity loss: each process takes it on half of its own pictures, so that those differ
    network, steps = train(folders, steps=5, batch=4, identity_weight=0)
    assert results[0] == results[1] and results[0][0] == 2  # the same losses and the same weights in both
    for mine, step in zip(results[0][1], steps):
        for term in ("content", "style"):
            assert mine[term] == pytest.approx(step.losses[term], rel=1e-3)
    assert torch.allclose(torch.tensor(results[0][2]), network.decoder[1].bias, atol=1e-4)

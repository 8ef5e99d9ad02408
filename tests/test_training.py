"""The training room. Pictures, crops and runs are tiny: what is tested does not depend on their size."""
import errno
import itertools
import multiprocessing
import os
import shutil
import signal
import socket
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from conftest import kill_at_a_random_moment, processes
from torch import nn
from torch.utils.data import DataLoader

import nst_utils as nst
import training

METHODS = multiprocessing.get_all_start_methods()


@pytest.fixture(scope="module")
def adain():
    """The shipped encoder, with a decoder that may as well be untrained, in float32."""
    return nst.AdaIN(precision="float32", seed=3).eval()


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
    options = dict(batch=2, size=24, crop=16, workers=0, accelerator=Accelerator(cpu=True)) | options
    return network, list(training.train_adain(network, *folders, steps=steps, **options))


def same_bits(one, other):
    states = one.decoder.state_dict(), other.decoder.state_dict()
    return all(torch.equal(states[0][name], states[1][name]) for name in states[0] | states[1])


# --- training ---------------------------------------------------------------------------------------------------------


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
        terms = training.AdaINLosses(adain)(content, style)
        target = nst.adain(adain.encoder(content)["relu4_1"], adain.encoder(style)["relu4_1"])
        result, wanted = adain.encoder(adain.decode(target)), adain.encoder(style)
        layers = [nst.relative_error(nst.mean_std(result[layer]), nst.mean_std(wanted[layer])) for layer in adain.layers]
        same = adain.decode(adain.encoder(content)["relu4_1"])[:2]  # half of the batch, rounded up
    assert terms["content"].item() == pytest.approx(nst.relative_error(result["relu4_1"], target).mean().item(), rel=1e-3)
    grams = [nst.relative_error(nst.gram(result[layer]), nst.gram(wanted[layer])) for layer in adain.layers]
    assert terms["style"].item() == pytest.approx(torch.stack(layers).mean().item(), rel=1e-3)
    assert terms["gram"].item() == pytest.approx(torch.stack(grams).mean().item(), rel=1e-3)
    assert terms["identity"].item() == pytest.approx((same - content[:2]).square().mean().item(), rel=1e-3)


def test_the_rate_falls_over_the_last_half(folders, monkeypatch):
    rates = []
    monkeypatch.setattr(torch.optim.Adam, "step", lambda self, *_: rates.append(self.param_groups[0]["lr"]))
    train(folders, steps=4, learning_rate=1.0)
    assert rates == [1.0, 1.0, 1.0, 0.5]


def test_pictures_in_folders_inside_are_found(folders, tmp_path):
    for number, path in enumerate(sorted(folders[0].iterdir())):
        nst.save_image(nst.load_image(path), tmp_path / f"genre {number % 2}" / path.name)
    inside, flat = (training.PictureCrops(source, 24, 16) for source in (tmp_path, folders[0]))
    assert len(inside.folders[0]) == len(flat.folders[0]) == 4
    assert inside[0].shape == (3, 16, 16)


def test_only_the_decoder_learns(folders, adain):
    network, _ = train(folders)
    assert not same_bits(network, nst.AdaIN(precision="float32"))
    before, after = adain.encoder.state_dict(), network.encoder.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_broken_run_goes_on_with_the_same_bits(folders, tmp_path):
    whole, curve = train(folders, steps=6)
    path = tmp_path / "checkpoint.pt"
    run = training.train_adain(nst.AdaIN(precision="float32"), *folders, steps=6, batch=2, size=24, crop=16, checkpoint=path,
                               checkpoint_every=2, workers=0, accelerator=Accelerator(cpu=True))
    for _ in range(5):
        next(run)
    run.close()
    resumed, rest = train(folders, nst.AdaIN(precision="float32", seed=99), steps=6, checkpoint=path, checkpoint_every=2)
    assert same_bits(whole, resumed)
    assert [step.losses for step in rest] == [step.losses for step in curve[4:]]
    assert rest[0].index == 5 and rest[0].note == "Resumed at step 4 from checkpoint.pt." and rest[1].note == ""
    assert rest[0].seconds > 0 and train(folders, resumed, steps=6, checkpoint=path)[1] == []  # all made: nothing left to do


def train_until_killed(folders, path, steps, workers, started):
    torch.set_num_threads(1)
    network = nst.AdaIN(precision="float32", seed=7)
    for _ in training.train_adain(network, *folders, steps=steps, batch=2, size=24, crop=16, checkpoint=path, checkpoint_every=1,
                                  workers=workers, accelerator=Accelerator(cpu=True)):
        started.set()


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_kill_9_at_random_moments_costs_nothing(folders, tmp_path, reliability):
    path, steps, kills = tmp_path / "checkpoint.pt", 80, (0, 0, 0, 0, 0, 0, 0, 1)
    for workers in kills:  # a worker notices only after seconds that its trainer is gone
        kill_at_a_random_moment(train_until_killed, (folders, path, steps, workers), 0.25)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        resumed, rest = train(folders, steps=steps, checkpoint=path, checkpoint_every=1000)
        whole, _ = train(folders, nst.AdaIN(precision="float32", seed=7), steps=steps)
    finally:
        torch.set_num_threads(threads)
    assert "Resumed at step" in rest[0].note and same_bits(whole, resumed)
    reliability("training, killed (kill -9) at random moments", f"{len(kills)} times", "goes on by itself, to the same bits")


def test_a_truncated_checkpoint_gives_way_to_the_one_before(folders, tmp_path):
    path = tmp_path / "checkpoint.pt"
    whole, _ = train(folders, steps=5, checkpoint=path, checkpoint_every=2)
    path.write_bytes(path.read_bytes()[:1000])
    resumed, rest = train(folders, steps=5, checkpoint=path, checkpoint_every=2)
    assert "truncated" in rest[0].note and "Resumed at step 4 from checkpoint.pt.previous." in rest[0].note
    assert same_bits(whole, resumed)
    for damaged in (path, training.previous(path)):
        damaged.write_bytes(b"")
    with pytest.raises(ValueError, match="checkpoint.pt can't be read .*checkpoint.pt.previous can't be read"):
        train(folders, checkpoint=path)
    assert path.read_bytes() == b""  # nothing is overwritten


def test_between_two_renames_the_previous_checkpoint_is_there(folders, tmp_path):
    path = tmp_path / "checkpoint.pt"
    train(folders, steps=2, checkpoint=path)
    path.rename(training.previous(path))  # as a kill between the two renames leaves it
    _, rest = train(folders, steps=3, checkpoint=path)
    assert rest[0].index == 3 and "checkpoint.pt.previous" in rest[0].note and path.exists()


def test_a_checkpoint_of_another_network_is_refused(folders, tmp_path):
    path = tmp_path / "checkpoint.pt"
    torch.save({"arch": "vgg19", "step": 5}, path)
    with pytest.raises(ValueError, match="no checkpoint of an AdaIN on vgg19_compact, but of vgg19"):
        train(folders, checkpoint=path)
    torch.save({"arch": "an AdaIN on vgg19_compact", "step": 5}, path)
    with pytest.raises(ValueError, match="no checkpoint of an AdaIN on vgg19_compact: step, weights or optimizer is missing"):
        train(folders, checkpoint=path)
    training.save_weights(nst.AdaIN(precision="float32").decoder, path)
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
        training.save_weights(nst.AdaIN(precision="float32").decoder, tmp_path / "decoder.pt")
    assert (path.read_bytes(), sorted(tmp_path.iterdir())) == kept


@pytest.mark.parametrize("spoil", [lambda loss, weight: loss * float("nan"),
                                   lambda loss, weight: loss + (weight.sum() * 0).sqrt()], ids=["loss", "gradient"])
def test_nan_stops_and_keeps_the_last_good_state(folders, tmp_path, monkeypatch, spoil):
    path, calls, forward = tmp_path / "checkpoint.pt", itertools.count(1), training.AdaINLosses.forward
    network = nst.AdaIN(precision="float32")

    def third_is_spoilt(self, content, style):
        losses = forward(self, content, style)
        return losses | {"content": spoil(losses["content"], network.decoder[1].weight)} if next(calls) == 3 else losses

    monkeypatch.setattr(training.AdaINLosses, "forward", third_is_spoilt)
    with pytest.raises(FloatingPointError, match="step 3 or its gradient is not finite"):
        train(folders, network, steps=5, checkpoint=path, checkpoint_every=1)
    assert all(value.isfinite().all() for value in network.decoder.state_dict().values())
    monkeypatch.setattr(training.AdaINLosses, "forward", forward)
    resumed, rest = train(folders, steps=5, checkpoint=path)
    assert rest[0].index == 3 and same_bits(resumed, train(folders, steps=5)[0])


# --- pictures ---------------------------------------------------------------------------------------------------------


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


def some_crops(pictures, first, end):
    return torch.stack([pictures[number] for number in range(first, end)])


def test_draws_depend_on_nothing_but_seed_and_number(folders):
    one, other = (training.PictureCrops(folders[0], 24, 16) for _ in range(2))
    batch = some_crops(one, 0, 12)
    assert batch.shape == (12, 3, 16, 16) and 0 <= batch.min() and batch.max() <= 1
    assert torch.equal(some_crops(other, 7, 12), batch[7:])
    assert not torch.equal(some_crops(training.PictureCrops(folders[0], 24, 16, seed=1), 0, 12), batch)


def test_a_draw_is_a_window_of_1_to_1_5_crops_and_half_are_mirrored(tmp_path):
    for name in "ab":
        nst.save_image((torch.arange(192) / 192).expand(1, 3, 192, 192), tmp_path / f"{name}.png")
    # reduced to 96 pixels, a pixel to the right is 1/96 brighter
    draws = some_crops(training.PictureCrops(tmp_path, 96, 16), 0, 64)
    rises = (draws[..., -1] - draws[..., 0]).mean((1, 2)) * 96
    assert 13 < rises.abs().min() < 17 and 20 < rises.abs().max() < 24
    assert 16 < (rises > 0).sum() < 48


def test_every_picture_is_drawn_once_before_any_is_drawn_twice(folders):
    pictures = training.PictureCrops(folders, 24, 16)  # two folders in turn
    drawn = [tuple(pictures.picture(number).shape) + (pictures.picture(number).sum().item(),) for number in range(16)]
    for source in (drawn[::2], drawn[1::2]):
        assert len(set(source[:4])) == len(set(source[4:])) == 4 and set(source[:4]) == set(source[4:])
    assert not set(drawn[::2]) & set(drawn[1::2])


# --- several processes ------------------------------------------------------------------------------------------------


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
    target = [processes().Queue() for _ in range(2)]
    children = [processes().Process(target=one_of_two, args=(rank, port, folders, target), daemon=True) for rank in range(2)]
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


# --- workers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 2, None])
def test_workers_train_the_same_bits_also_after_a_break(folders, tmp_path, workers):
    options = dict(steps=5, checkpoint=tmp_path / "checkpoint.pt", checkpoint_every=1)
    whole, curve = train(folders, steps=5)
    run = training.train_adain(nst.AdaIN(precision="float32"), *folders, batch=2, size=24, crop=16, workers=workers,
                               accelerator=Accelerator(cpu=True), **options)
    assert [next(run).index for _ in range(3)] == [1, 2, 3]
    run.close()
    assert not multiprocessing.active_children()  # the workers went with it
    resumed, rest = train(folders, nst.AdaIN(precision="float32", seed=99), workers=workers, **options)
    assert same_bits(whole, resumed) and [step.losses for step in rest] == [step.losses for step in curve[3:]]


@pytest.mark.parametrize("method", METHODS)
def test_crops_and_skipped_pictures_come_back_from_workers_of_every_kind(folders, tmp_path, method):
    for path in folders[0].iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "cut.png").write_bytes((folders[0] / "0.png").read_bytes()[:200])
    (tmp_path / "empty.jpg").write_bytes(b"")
    here, there = (training.PictureCrops([tmp_path, folders[1]], 24, 16) for _ in range(2))
    loader = DataLoader(there, 4, sampler=range(24), num_workers=1 if method == "spawn" else 2, multiprocessing_context=method)
    assert torch.equal(torch.cat(list(loader)), some_crops(here, 0, 24))
    assert there.skipped == here.skipped == 2


def test_too_few_pictures_are_a_clear_error_from_a_worker_as_well(folders, tmp_path):
    for name in "ab":
        nst.save_image(torch.rand(1, 3, 12, 12), tmp_path / f"{name}.png")
    with pytest.raises(ValueError, match="fewer than two pictures that can be read and have 16 pixels"):
        train((tmp_path, folders[1]), workers=1)


@pytest.mark.parametrize("workers", [0, 1])
def test_training_leaves_the_global_generator_alone(folders, workers):
    network = nst.AdaIN(precision="float32")
    before = torch.get_rng_state()
    train(folders, network, workers=workers)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_daemonic_process_trains_without_workers(folders, monkeypatch):
    monkeypatch.setitem(multiprocessing.current_process()._config, "daemon", True)  # as in a multiprocessing.Pool
    assert len(train(folders, workers=None)[1]) == 3


# --- files ------------------------------------------------------------------------------------------------------------


def test_a_saved_decoder_is_read_again(adain, picture, painting, tmp_path):
    path = training.save_weights(adain.decoder, tmp_path / "deep" / "decoder.pt")
    again = nst.AdaIN.pretrained(path=path, precision="float32")
    assert torch.allclose(again.stylize(picture, painting), adain.stylize(picture, painting), atol=5e-3)  # half precision
    assert path.stat().st_size < 2 * 2**20 and [*path.parent.iterdir()] == [path]


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
    network = training.published_adain(folder, precision="float32")
    content, style = encoder(nst.with_margin(picture)), encoder(painting)
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
        training.published_adain(tmp_path)
    torch.save(decoder, tmp_path / "decoder.pth")  # a pickled module: loading it would run code
    with pytest.raises(ValueError, match="decoder.pth can't be read as weights"):
        training.published_adain(tmp_path)


# --- encoders ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def teacher():
    return training.encoder_teacher(None, precision="float32")


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """A folder of pictures that are large enough for a VGG."""
    draw, folder = torch.Generator().manual_seed(2), tmp_path_factory.mktemp("wide")
    for index in range(8):
        coarse = torch.rand(1, 3, 9, 11, generator=draw)
        nst.save_image(nn.functional.interpolate(coarse, (48, 56 + index), mode="bicubic").clamp(0, 1), folder / f"{index}.png")
    return folder


@pytest.fixture(scope="module")
def crops(wide):
    return torch.cat([nst.load_image(path)[..., :32, :32] for path in sorted(wide.iterdir())])


def pupil(seed=0):
    return nst.FeatureExtractor("vgg16_compact", training.ENCODER_LAYERS, weights=None, precision="float32", seed=seed)


def teach(wide, teacher, student, **options):
    options = dict(steps=4, batch=2, size=40, crop=32, begin=4, workers=0, accelerator=Accelerator(cpu=True)) | options
    return training.train_encoder(student, wide, teacher=teacher, **options)


def close(maps, wanted, share=1e-3):
    assert (maps - wanted).abs().max() < share * wanted.abs().max()


def test_a_student_begins_close_to_its_teacher_where_few_directions_say_most(crops, teacher):
    student = pupil()
    untaught = training.encoder_errors(student, teacher, crops)
    training.start_from_teacher(student, teacher, list(crops.split(1)))
    taught = training.encoder_errors(student, teacher, crops)
    assert taught["conv1_1"][0] < 1e-9 and taught["conv1_2"][0] < 0.05  # the first convolution is the teacher's own
    assert all(0.9 * taught[layer][0] < untaught[layer][0] for layer in taught) and taught["conv2_1"][0] < 0.5


def test_a_student_that_is_its_teacher_has_no_error(crops, teacher):
    assert all(value == (0, 0) for value in training.encoder_errors(teacher, teacher, crops).values())


def test_the_teacher_pads_by_reflection(teacher):
    maps = teacher(torch.full((1, 3, 32, 32), 0.3))["conv3_1"]
    assert maps.flatten(2).std(2).max() < 1e-4 * maps.abs().max()


def test_units_change_nothing_but_the_units(crops, teacher):
    student = pupil()
    training.start_from_teacher(student, teacher, list(crops.split(1)))
    before = student(crops)
    losses = training.EncoderLosses(student, teacher, list(crops.split(1)))
    maps = losses.learner(crops)
    assert maps["conv1_1"].relu().square().mean().item() == pytest.approx(1, rel=1e-3)
    for layer, unit in zip(training.ENCODER_LAYERS, losses.learner.units):
        close(maps[layer] * unit, before[layer])
    losses.hand_back()
    for layer, wanted in before.items():
        close(student(crops)[layer], wanted)


def test_a_student_learns_and_may_be_used_after_every_step(wide, crops, teacher):
    student, errors = pupil(), []
    for step in teach(wide, teacher, student, steps=40, learning_rate=3e-4):
        if step.index in (1, 40):
            errors.append(sum(error for error, _ in training.encoder_errors(student, teacher, crops).values()))
    assert errors[1] < 0.9 * errors[0]
    assert step.losses["total"] == pytest.approx(step.losses["error"] + 0.5 * step.losses["gram"], rel=1e-5)
    assert step.summary.startswith("error ")


def test_a_broken_training_of_an_encoder_goes_on_with_the_same_bits_and_its_weights_can_be_kept(wide, teacher, tmp_path, picture):
    whole, resumed = pupil(), pupil(seed=7)
    curve = list(teach(wide, teacher, whole))
    run = teach(wide, teacher, pupil(), checkpoint=tmp_path / "c.pt", checkpoint_every=2)
    assert [next(run).index for _ in range(2)] == [1, 2]
    run.close()
    rest = list(teach(wide, teacher, resumed, checkpoint=tmp_path / "c.pt"))
    assert [step.losses for step in rest] == [step.losses for step in curve[2:]] and "Resumed at step 2" in rest[0].note
    assert all(torch.equal(a, b) for a, b in zip(whole.body.state_dict().values(), resumed.body.state_dict().values()))
    again = pupil(seed=8)  # of a training that was finished
    assert not list(teach(wide, teacher, again, checkpoint=tmp_path / "c.pt"))
    assert all(torch.equal(a, b) for a, b in zip(whole.body.state_dict().values(), again.body.state_dict().values()))
    path = training.save_weights(nn.ModuleDict({"features": whole.body}), tmp_path / "student.pt")
    read = nst.FeatureExtractor("vgg16_compact", ["conv3_1"], weights=path, precision="float32")
    assert path.stat().st_size < 6_000_000
    close(read(picture)["conv3_1"], whole(picture)["conv3_1"], 0.02)


@pytest.mark.parametrize("arch", training.FAMILIES)
def test_a_family_learns_from_the_same_teacher_and_can_be_kept(arch, wide, crops, teacher, tmp_path, picture):
    student = nst.FeatureExtractor(training.family(arch, weights=None), training.FAMILIES[arch], precision="float32")
    strides = [32 // height for _, height, _ in student.shapes(32, 32).values()]
    assert strides == [2, 4, 8, 16]
    curve = [step.losses["total"] for step in teach(wide, teacher, student, steps=30, learning_rate=3e-3)]
    assert sum(curve[-5:]) < 0.9 * sum(curve[:5])
    path = training.save_weights(student.body, tmp_path / "family.pt")
    assert path.stat().st_size < 4_000_000
    read = nst.FeatureExtractor(training.family(arch, weights=path), training.FAMILIES[arch], precision="float32")
    student.body.half().float()  # as it was kept
    for layer, maps in read(picture).items():
        close(maps, student(picture)[layer])


@pytest.mark.parametrize("arch", training.FAMILIES)
def test_a_shipped_family_sees_more_of_what_its_teacher_sees_than_a_random_one(arch):
    """How much of vgg16_compact's maps at a stride of 8 a linear map finds in a family's, on a picture it was not fitted to."""
    taught, layer = nst.FeatureExtractor(layers=("relu4_1",), precision="float32"), training.FAMILIES[arch][2]
    pictures = [nst.resize(nst.sample(name), (128, 128)) for name in ("astronaut", "coffee", "rocket", "swirls", "chelsea")]

    def explained(weights):
        student = nst.FeatureExtractor(training.family(arch, weights=weights), (layer,), precision="float32")
        *known, seen = [student(picture)[layer].flatten(2)[0].T.double() for picture in pictures]
        *goals, goal = [taught(picture)["relu4_1"].flatten(2)[0].T.double() for picture in pictures]
        x, y = torch.cat(known), torch.cat(goals)
        centre, mean = x.mean(0), y.mean(0)
        square = (x - centre).T @ (x - centre)
        ridge = 0.1 * square.diagonal().mean() * torch.eye(len(square), dtype=square.dtype)
        found = (seen - centre) @ torch.linalg.solve(square + ridge, (x - centre).T @ (y - mean)) + mean
        return 1 - ((found - goal).square().sum() / (goal - mean).square().sum()).item()
    assert explained("DEFAULT") > explained(None) + 0.05


def test_batch_normalisations_start_from_pictures_and_stay_constant(crops):
    student = nst.FeatureExtractor(training.family("resnet_compact", weights=None), ["layer1"], precision="float32")
    training.start_normalised(student, list(crops.split(1)))
    first = student.body.get_submodule("bn1")
    read = student.body.get_submodule("conv1")((crops - student.mean) / student.std)
    assert torch.allclose(first.running_mean, read.mean((0, 2, 3)), atol=1e-5) and not first.training
    alone, together = student(crops[:1])["layer1"], student(crops)["layer1"][:1]
    close(alone, together, 1e-4)


@pytest.mark.parametrize("kind, module", [("instance", nn.InstanceNorm2d), ("batch", nn.BatchNorm2d)])
def test_a_decoder_that_normalises_does_so_before_every_relu(folders, kind, module):
    network = training.with_normalisation(nst.AdaIN(precision="float32"), kind)
    layers = list(network.decoder)
    assert [type(layers[k - 1]) for k, layer in enumerate(layers) if isinstance(layer, nn.ReLU)] == \
        [module] * sum(isinstance(layer, nn.ReLU) for layer in nst.AdaIN().decoder)
    weight = next(layer for layer in layers if isinstance(layer, module)).weight
    before = weight.detach().clone()
    train(folders, network, steps=2)
    assert not torch.equal(weight, before)
    counted = [layer.num_batches_tracked.item() for layer in layers if isinstance(layer, nn.BatchNorm2d)]
    assert all(count > 0 for count in counted)  # what is kept for later, when there is one picture only
    with pytest.raises(ValueError, match="kind is one of instance, batch"):
        training.with_normalisation(network, "layer")

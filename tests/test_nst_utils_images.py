import http.server
import io
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import nst_utils as nst

RED_GREEN = Image.fromarray(np.array([[[255, 0, 0], [0, 255, 0], [255, 0, 0]]] * 2, dtype=np.uint8))  # 3 x 2 pixels


def saved(folder, picture, name, **options):
    picture.save(folder / name, **options)
    return folder / name


def test_a_png_comes_back_as_it_was(tmp_path):
    image = torch.rand(1, 3, 5, 7, generator=torch.Generator().manual_seed(0))
    image = (image * 255).round() / 255
    assert torch.equal(nst.load_image(nst.save_image(image, tmp_path / "new" / "a.png")), image)


def test_shape_range_and_layout(tmp_path):
    image = nst.load_image(saved(tmp_path, RED_GREEN, "a.png"))
    assert image.shape == (1, 3, 2, 3) and image.dtype == torch.float32 and image.is_contiguous()
    assert image[0, :, 0, 0].tolist() == [1, 0, 0] and image[0, :, 0, 1].tolist() == [0, 1, 0]


def test_sources_path_string_bytes_file_and_pil(tmp_path):
    path = saved(tmp_path, RED_GREEN, "a.png")
    expected = nst.load_image(path)
    for source in (str(path), path.read_bytes(), io.BytesIO(path.read_bytes()), RED_GREEN):
        assert torch.equal(nst.load_image(source), expected)


@pytest.mark.parametrize("size, side, expected", [(60, "long", (40, 60)), (60, "short", (60, 90)), (None, "long", (2, 3))])
def test_resize_keeps_the_aspect_ratio(size, side, expected):
    assert nst.load_image(RED_GREEN, size, side).shape[-2:] == expected


def test_exif_rotation_is_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    assert nst.load_image(saved(tmp_path, RED_GREEN, "a.png", exif=exif)).shape[-2:] == (3, 2)


@pytest.mark.parametrize("mode, name", [("L", "a.png"), ("1", "a.png"), ("P", "a.png"), ("CMYK", "a.jpg"), ("LA", "a.png"),
                                        ("RGBA", "a.png"), ("YCbCr", "a.jpg"), ("I", "a.tif"), ("F", "a.tif")])
def test_every_mode_becomes_rgb(tmp_path, mode, name):
    image = nst.load_image(saved(tmp_path, RED_GREEN.resize((32, 32)).convert(mode), name))
    assert image.shape == (1, 3, 32, 32) and 0 <= image.min() and 0.1 < image.max() <= 1


def test_sixteen_bit_grey_keeps_its_range(tmp_path):
    grey = Image.fromarray(np.array([[0, 32768, 65535]], dtype=np.uint16))
    image = nst.load_image(saved(tmp_path, grey, "a.png"))
    assert torch.allclose(image[0, 1, 0], torch.tensor([0.0, 0.5, 1.0]), atol=1e-4)


@pytest.mark.parametrize("mode", ["RGBA", "P"])
def test_transparency_is_laid_on_white(tmp_path, mode):
    picture = Image.new("RGBA", (4, 4), (0, 0, 0, 0))
    options = {}
    if mode == "P":
        picture, options = Image.new("P", (4, 4), 0), {"transparency": 0}
    assert nst.load_image(saved(tmp_path, picture, "a.png", **options)).min() == 1


def test_first_frame_of_an_animation(tmp_path):
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("white", "black")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert nst.load_image(tmp_path / "a.gif").min() == 1


def test_missing_file():
    with pytest.raises(FileNotFoundError, match="no picture at nowhere.png"):
        nst.load_image("nowhere.png")


@pytest.mark.parametrize("content", [b"", b"a text, not a picture", "half"])
def test_empty_text_and_truncated_files(tmp_path, content):
    if content == "half":
        stream = io.BytesIO()
        Image.effect_noise((64, 64), 50).save(stream, "jpeg")
        content = stream.getvalue()[: len(stream.getvalue()) // 2]
    (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.jpg can't be read as a picture"):
        nst.load_image(tmp_path / "a.jpg")


def test_a_decompression_bomb_is_refused_before_decoding(tmp_path):
    path = saved(tmp_path, Image.new("1", (20000, 20000)), "bomb.png")
    with pytest.raises(ValueError, match="too large to decode"):
        nst.load_image(path, 64)
    path = saved(tmp_path, Image.new("1", (20000, 6000)), "large.png")
    with pytest.raises(ValueError, match="20000 x 6000 pixels"):
        nst.load_image(path, 64)
    with pytest.raises(ValueError, match="this picture is too large to decode .20000 x 6000 pixels"):
        nst.load_image(Image.new("1", (20000, 6000)), 64)


def test_one_pixel_wide_pictures_load_and_stay_one_pixel_wide():
    assert nst.load_image(Image.new("RGB", (1, 300)), 100).shape[-2:] == (100, 1)
    assert nst.load_image(Image.new("RGB", (20000, 1)), 100).shape[-2:] == (1, 100)


def test_bad_sizes():
    with pytest.raises(ValueError, match="at least 1"):
        nst.load_image(RED_GREEN, 0)
    with pytest.raises(ValueError, match="side is one of long, short, not 'width'"):
        nst.load_image(RED_GREEN, 5, "width")


def test_saving_into_a_place_that_cannot_be_written_leaves_nothing(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match="can't be written"):
        nst.save_image(torch.zeros(1, 3, 4, 4), tmp_path / "file" / "a.png")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_failed_save_keeps_the_old_file(tmp_path, monkeypatch):
    path = nst.save_image(torch.zeros(1, 3, 4, 4), tmp_path / "a.png")
    before = path.read_bytes()

    def disk_full(self, content):
        with open(self, "wb") as file:
            file.write(b"half")
        raise OSError(28, "No space left on device")
    monkeypatch.setattr(Path, "write_bytes", disk_full)
    with pytest.raises(OSError, match="No space left"):
        nst.save_image(torch.ones(1, 3, 4, 4), path)
    assert path.read_bytes() == before and [other.name for other in tmp_path.iterdir()] == ["a.png"]


def test_unknown_suffix_bad_shape_and_nan_are_refused(tmp_path):
    with pytest.raises(ValueError, match="suffix"):
        nst.save_image(torch.zeros(1, 3, 4, 4), tmp_path / "a.picture")
    with pytest.raises(ValueError, match=r"\(4, 4\)"):
        nst.to_pil(torch.zeros(4, 4))
    with pytest.raises(ValueError, match="NaN"):
        nst.to_pil(torch.full((1, 3, 4, 4), float("nan")))
    assert not list(tmp_path.iterdir())


def test_samples_are_listed_and_the_offline_ones_load():
    names = nst.sample()
    offline = [name for name, origin in names.items() if not origin.startswith("download")]
    assert len(offline) >= 10 and set(nst.PHOTOGRAPHS) < set(offline)
    for name in offline:
        image = nst.sample(name, 64)
        assert max(image.shape[-2:]) == 64 and image.std() > 0.05


def test_styles_are_at_least_512_pixels():
    for name in [name for name, origin in nst.sample().items() if origin.startswith("style")]:
        assert min(nst.sample(name).shape[-2:]) >= 512


def test_unknown_sample_suggests_the_nearest():
    with pytest.raises(ValueError, match="astronaut"):
        nst.sample("astronut")


def jpeg():
    stream = io.BytesIO()
    RED_GREEN.save(stream, "jpeg")
    return stream.getvalue()


@pytest.fixture
def web(tmp_path, monkeypatch):
    """A server on this machine in place of Wikimedia Commons and an empty cache; a list of its answers and of what was asked."""
    import pooch
    answers, asked = [], []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            answer = answers.pop(0)
            self.send_response(503 if answer is None else 200)
            self.send_header("Content-Length", str(len(answer or b"")))
            self.end_headers()
            self.wfile.write(answer or b"")

        def log_message(self, *arguments):
            pass
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    (tmp_path / "style").mkdir()
    shutil.copy(nst.DATA / "fetch.py", tmp_path)
    table = (nst.DATA / "style" / "classics.csv").read_text(encoding="utf-8")
    (tmp_path / "style" / "classics.csv").write_text(
        table.replace("https://commons.wikimedia.org", f"http://127.0.0.1:{server.server_port}"), encoding="utf-8")
    monkeypatch.setattr(nst, "DATA", tmp_path)
    monkeypatch.setattr(pooch, "os_cache", lambda name: tmp_path / "cache")
    monkeypatch.setattr("pooch.core.time.sleep", lambda seconds: None)
    yield answers, asked
    server.shutdown()
    server.server_close()


def test_a_classic_is_downloaded_once_and_retried(web):
    answers, asked = web
    answers += [None, jpeg()]
    assert nst.sample("starry_night").shape == (1, 3, 2, 3)
    assert nst.sample("starry_night").shape == (1, 3, 2, 3)  # from the cache: there is no third answer
    assert len(asked) == 2 and "Starry%20Night" in asked[0]


@pytest.mark.parametrize("answer", [b"<html>proxy login</html>", b""])
def test_what_is_no_picture_is_not_cached(web, tmp_path, answer):
    web[0].extend([answer, answer])
    with pytest.raises(ConnectionError, match="put the picture of http.* at"):
        nst.sample("the_scream")
    assert not list((tmp_path / "cache").glob("*"))


def test_a_format_that_can_only_be_read_is_refused(tmp_path):
    with pytest.raises(ValueError, match="suffix"):
        nst.save_image(torch.zeros(1, 3, 4, 4), tmp_path / "a.psd")


def test_threads_that_save_one_picture_leave_it_whole(tmp_path):
    images = [torch.full((1, 3, 64, 64), k / 8) for k in range(8)]
    threads = [threading.Thread(target=nst.save_image, args=(image, tmp_path / "a.png")) for image in images * 4]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert nst.load_image(tmp_path / "a.png").std() == 0 and [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_initial_images(picture, painting):
    assert torch.equal(nst.initial_image(picture), picture)
    noise = nst.initial_image(picture, "noise", seed=3)
    assert noise.shape == picture.shape and torch.equal(noise, nst.initial_image(picture, "noise", seed=3))
    assert not torch.equal(noise, nst.initial_image(picture, "noise", seed=4))
    assert nst.initial_image(picture, "style", style=painting).shape == picture.shape
    for kind in ("nois", "style"):
        with pytest.raises(ValueError, match="start is"):
            nst.initial_image(picture, kind)
    with pytest.raises(ValueError, match="start is"):
        nst.initial_image(None, "content", style=picture)  # there is none to start from
    assert torch.equal(nst.initial_image(picture, painting), nst.resize(painting, picture.shape[-2:]))

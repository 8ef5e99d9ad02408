"""The Telegram bot against a Bot API server on loopback: whole conversations, and all that can go wrong in them."""
import io
import json
import logging
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from PIL import Image

import nst_utils as nst

pytest.importorskip("telegram", reason="python-telegram-bot is not installed")
pytest.importorskip("aiolimiter", reason="python-telegram-bot is installed without its extra rate-limiter")
from telegram_server import PATIENCE, TOKEN, TelegramServer, labels, running  # noqa: E402

import bot  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def network():
    """An untrained network: what the bot does with it does not depend on training."""
    return nst.AdaIN(precision="float32")


@pytest.fixture
def telegram(monkeypatch):
    monkeypatch.setattr(bot, "PAUSES", (0.05, 0.1, 0.1))
    factory = logging.getLogRecordFactory()
    with TelegramServer() as server:
        yield server
    logging.setLogRecordFactory(factory)


@pytest.fixture
def start(telegram, network, tmp_path):
    """Starts bots one after the other, on the same folder; each is stopped when the next begins, or after the test."""
    with ExitStack() as stack:
        def begin(**options):
            stack.close()
            options = {"network": network, "size": 64, "sizes": (48, 64), "steps": (4, 3), "pause": 0.1} | options
            make = lambda: bot.application(TOKEN, bot.PaintingBot(tmp_path, **options), api=telegram.api)  # noqa: E731
            return stack.enter_context(running(make))
        begin.stop = stack.close
        yield begin


@pytest.fixture
def ada(telegram):
    return telegram.user("Ada")


def encoded(image, format="PNG", **options):
    stream = io.BytesIO()
    (image if isinstance(image, Image.Image) else nst.to_pil(image)).save(stream, format, **options)
    return stream.getvalue()


@pytest.fixture
def photo(picture):
    return encoded(picture)


def levels(image, content):
    return 255 * (image - nst.load_image(content)).abs().mean().item()


def eventually(condition):
    deadline = time.monotonic() + PATIENCE
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    return condition()


def gets_a_picture(user, photo):
    """One more photograph is painted, whatever was before."""
    user.sends_photo(photo)
    user.presses("Swirls", user.waits_for("Which style"))
    user.waits_for("Another one?")


def slowly(network, monkeypatch, seconds=0.5):
    """A network that takes its time."""
    stylize = network.stylize
    monkeypatch.setattr(network, "stylize", lambda *a, **k: time.sleep(seconds) or stylize(*a, **k))


# Conversations


def test_a_conversation_from_start_to_picture(telegram, start, ada, network, picture, photo):
    start()
    ada.writes("/start")
    assert "photograph" in ada.waits_for(lambda message: True)["text"]
    sent = ada.sends_photo(photo)
    menu = ada.waits_for("Which style")
    assert menu["reply_to_message"]["message_id"] == sent["message_id"]
    assert labels(menu)[:5] == ["25 %", "50 %", "✓ 75 %", "100 %", "Paint it slowly"]
    assert labels(menu)[5:] == [*map(bot.title, bot.STYLES), "A style of your own"]
    ada.presses("50 %")
    ada.waits_for(lambda message: "✓ 50 %" in labels(message))
    assert ada.note(ada.presses("Mosaic")) == ""
    done = ada.waits_for("Another one?")
    assert done["message_id"] == menu["message_id"] and "✓ 50 %" in labels(done) and "Mosaic, 50 %" in done["text"]
    answer, = ada.pictures
    expected = network.stylize(picture, nst.sample("mosaic", 64), alpha=0.5)
    assert levels(expected, answer) < 3 < levels(picture, answer)
    assert ada.received[-1]["reply_to_message"]["message_id"] == sent["message_id"]
    assert ada.note(ada.presses("Swirls", done)) == "" and eventually(lambda: len(ada.pictures) == 2)


def test_an_update_is_confirmed_when_it_was_answered_and_not_before(telegram, start, ada):
    start()
    for k in range(3):
        telegram.fail("sendMessage", 502)
        ada.writes(f"hello {k}")
    assert eventually(lambda: len(ada.received) == 3 and not telegram.updates)
    answers = [k for k, (_, method, _) in enumerate(telegram.calls) if method == "sendMessage"]
    offsets = [(k, asked["offset"]) for k, (_, method, asked) in enumerate(telegram.calls) if method == "getUpdates"]
    last = max(offset for _, offset in offsets)
    assert len(answers) == 6 and min(k for k, offset in offsets if offset == last) > answers[-1]


def test_what_is_sent_has_no_metadata_and_what_comes_is_turned_upright(start, ada, picture):
    start()
    exif = Image.Exif()
    exif[0x0112], exif[0x010F], exif[0x8825] = 6, "Maker", {1: "N", 2: (52.0, 31.0, 0.0)}  # lies on its side, with a place
    ada.sends_file(encoded(nst.to_pil(picture).rotate(90, expand=True), "JPEG", quality=95, exif=exif))
    ada.presses("25 %")
    ada.presses("Ikat")
    ada.waits_for("Another one?")
    answer = Image.open(io.BytesIO(ada.pictures[0]))
    assert answer.size == (64, 48) and not answer.getexif() and set(answer.info) <= {"jfif", "jfif_version", "jfif_unit",
                                                                                     "jfif_density"}
    assert b"Exif" not in ada.pictures[0] and b"Maker" not in ada.pictures[0]


@pytest.mark.parametrize("format", ["HEIF", "GIF", "WEBP", "TIFF", "BMP"])
def test_all_kinds_of_pictures_are_taken(start, ada, picture, format):
    if format == "HEIF":
        pytest.importorskip("pillow_heif", reason="pillow-heif, which reads the pictures of phones, is not installed")
        nst.beside("pictures")
    start()
    ada.sends_file(encoded(picture, format), f"picture.{format.lower()}", "application/octet-stream")
    ada.presses("Ikat")
    ada.waits_for("Another one?")
    assert Image.open(io.BytesIO(ada.pictures[0])).size == (64, 48)


def test_styles_come_as_an_album_that_is_uploaded_once(telegram, start, ada):
    start()
    for round in (1, 2):
        ada.writes("/styles")
        assert eventually(lambda: len(ada.pictures) == round * len(bot.STYLES))
    assert [message["caption"] for message in ada.received] == 2 * [*map(bot.title, bot.STYLES)]
    first, second = (asked for _, method, asked in telegram.calls if method == "sendMediaGroup")
    assert all(media["media"].startswith("attach") for media in first["media"])
    assert not any(media["media"].startswith("attach") for media in second["media"])


def test_an_own_style_is_asked_for_also_across_a_restart(telegram, start, ada, network, picture, painting, photo):
    start()
    ada.sends_photo(photo)
    ada.presses("100 %")
    ada.presses("A style of your own", ada.waits_for(lambda message: "✓ 100 %" in labels(message)))
    assert labels(ada.waits_for("Now send me")) == ["Back"]
    start()
    ada.sends_file(encoded(painting), "style.png", "image/png")
    assert "Your style, 100 %" in ada.waits_for("Another one?")["text"]
    assert levels(network.stylize(picture, painting), ada.pictures[0]) < 3
    ada.sends_photo(photo)
    ada.waits_for("Which style")  # the next picture is a photograph again


def test_back_and_start_give_up_the_own_style(start, ada, photo):
    start()
    for leave in (lambda: ada.presses("Back"), lambda: ada.writes("/start")):
        ada.sends_photo(photo)
        ada.presses("A style of your own", ada.waits_for(lambda message: "Which style" in message.get("text", "")))
        ada.waits_for("Now send me")
        leave()
        count = len(ada.received)
        ada.sends_photo(photo)
        assert eventually(lambda: len(ada.received) > count and "Which style" in ada.received[-1].get("text", ""))
    assert not ada.pictures


def slow_order(ada, photo):
    ada.sends_photo(photo)
    ada.presses("Paint it slowly", ada.waits_for("Which style"))
    ada.presses("Mosaic", ada.waits_for(lambda message: "✓ Paint it slowly" in labels(message)))


def test_painting_slowly_shows_its_progress_in_one_message(telegram, start, ada, photo):
    start(steps=(30, 10), pause=0.02)
    slow_order(ada, photo)
    done = ada.waits_for("Another one?")
    texts = [asked["text"] for _, method, asked in telegram.calls if method == "editMessageText"]
    progress = [int(text.split()[-2]) for text in texts if text.startswith("Painting slowly")]
    assert len(progress) > 3 and progress == sorted(progress) and len(ada.received) == 2
    assert {asked["message_id"] for _, method, asked in telegram.calls if method == "editMessageText"} == {done["message_id"]}
    content, style = nst.load_image(photo), nst.sample("mosaic", 64)
    *_, step = nst.coarse_to_fine(content, style, sizes=(48, 64), steps=(30, 10), tv_weight=10, style_weight=15)
    assert levels(step.image, ada.pictures[0]) < 3 < levels(content, ada.pictures[0])


def test_a_slow_painting_can_be_cancelled_and_its_buttons_come_back(telegram, start, ada, photo):
    start(steps=(5000, 5000))
    slow_order(ada, photo)
    old = json.loads(json.dumps(ada.waits_for("Painting slowly")))
    assert ada.note(ada.presses("Cancel")) == "Cancelled."
    assert ada.note(ada.presses("Cancel", old)) == "That is over."
    ada.presses("✓ Paint it slowly", ada.waits_for("Cancelled. Which style"))
    ada.presses("Mosaic", ada.waits_for(lambda message: "Paint it slowly" in labels(message)))
    ada.waits_for("Another one?")
    assert len(ada.pictures) == 1


def test_quick_pictures_overtake_slow_ones(telegram, start, ada, photo):
    start(steps=(5000, 5000))
    slow_order(ada, photo)
    ada.waits_for("Painting slowly")
    bob = telegram.user("Bob")
    bob.sends_photo(photo)
    bob.presses("Mosaic")
    bob.waits_for("Another one?")
    assert not ada.pictures and bob.pictures


# Many at once


def test_thirty_users_at_once_get_one_picture_each(telegram, start, photo):
    start(longest=30)
    users = [telegram.user(f"User {k}") for k in range(30)]
    for user in users:
        user.sends_photo(photo)
    for user in users:
        user.presses("Swirls")
    for user in users:
        user.waits_for("Another one?")
    assert all(len(user.pictures) == 1 and len(user.received) == 2 for user in users)
    times = [when for when, _, asked in telegram.calls if "chat_id" in asked]
    assert all(sum(begin <= when < begin + 1 for when in times) <= 61 for begin in times)  # 30 a second, after 30 at once


def test_one_job_at_a_time_and_a_line_with_an_end(telegram, start, ada, network, photo, monkeypatch):
    slowly(network, monkeypatch)
    start(longest=2)
    bob, eve = telegram.user("Bob"), telegram.user("Eve")
    menus = {}
    for user in (ada, bob, eve):
        user.sends_photo(photo)
        menus[user] = json.loads(json.dumps(user.waits_for("Which style")))
    assert ada.note(ada.presses("Swirls", menus[ada])) == ""
    assert ada.note(ada.presses("Swirls", menus[ada])) == "Your picture is under way."  # pressed twice
    assert bob.note(bob.presses("Ikat", menus[bob])) == "" and bob.waits_for("You are number 2 in line.")
    assert "2 pictures wait already" in eve.note(eve.presses("Swirls", menus[eve]))
    ada.sends_photo(photo)
    other = ada.waits_for(lambda message: "Which style" in message.get("text", ""))
    assert "One at a time" in ada.note(ada.presses("Swirls", other))
    ada.writes("/start")
    bob.waits_for("Painting")
    bob.waits_for("Another one?")
    assert [len(user.pictures) for user in (ada, bob, eve)] == [1, 1, 0]


def test_who_waits_can_cancel(telegram, start, ada, network, photo, monkeypatch):
    slowly(network, monkeypatch)
    start()
    bob = telegram.user("Bob")
    for user in (ada, bob):
        user.sends_photo(photo)
        user.presses("Swirls")
    bob.presses("Cancel")
    bob.waits_for("Cancelled")
    ada.waits_for("Another one?")
    assert ada.pictures and not bob.pictures


# Pictures that are none, or too much


def png_header(width, height):
    """A PNG of that size without its pixels: what is decoded of it would be an error."""
    small = encoded(Image.new("L", (1, 1)))
    import struct
    import zlib
    chunk = b"IHDR" + struct.pack(">II", width, height) + small[24:29]
    return small[:12] + chunk + struct.pack(">I", zlib.crc32(chunk)) + small[33:]


def test_a_large_file_is_refused_before_it_is_fetched(telegram, start, ada, photo):
    start(max_bytes=1_000_000)
    ada.sends_file(photo, file_size=1_200_000)
    assert "1.2 MB, and I may take 1 MB" in ada.waits_for("MB")["text"] and not telegram.count("getFile")
    start(max_bytes=len(photo) - 1)
    ada.sends_file(photo, file_size=None)  # Telegram does not always say it
    ada.presses("Swirls")
    ada.waits_for(lambda message: "and I may take" in message["text"] and labels(message))
    assert not ada.pictures and telegram.count("getFile") == 1


@pytest.mark.parametrize("content, sentence", [
    (png_header(20000, 10000), "far more pixels than the 50 million"),
    (png_header(10000, 6000), "10000 x 6000 pixels, more than the 50 million"),
    (png_header(16000, 160), "sides differ too much"), (png_header(40, 20), "I need 32 on each side"),
    (b"%PDF-1.7 " + bytes(99), "it is a PDF document"), (b"", "can't be read as a picture"),
    (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n%%EndComments\n", "format EPS"),
    (bytes(5000), "can't be read as a picture (empty, truncated or another format)."),
    (png_header(64, 48), "can't be read as a picture")],
    ids=["200 MP", "60 MP", "a line", "tiny", "PDF as JPEG", "empty", "PostScript", "no picture", "truncated"])
@pytest.mark.parametrize("role", ["photograph", "style"])
def test_bad_files_are_refused_with_a_sentence_and_nothing_is_decoded(start, ada, photo, content, sentence, role):
    start()
    ada.sends_file(content if role == "photograph" else photo)
    if role == "photograph":
        ada.presses("Swirls")
    else:
        ada.presses("A style of your own")
        ada.waits_for("Now send me")
        ada.sends_file(content)
    told = ada.waits_for(sentence)["text"]
    assert "0x" not in told and "Errno" not in told and not ada.pictures
    gets_a_picture(ada, photo)


def test_everything_else_gets_a_sentence(telegram, start, ada, photo):
    start()
    ada.writes("paint me!")
    ada.waits_for("I need a photograph")
    ada.sends_file(b"%PDF-1.7", "thesis.pdf", "application/pdf")
    ada.waits_for("That file is no picture, but application/pdf.")
    ada.sends(sticker={"file_id": "s", "file_unique_id": "s", "type": "regular", "width": 9, "height": 9, "is_animated": False,
                       "is_video": False})
    ada.writes("/unknown")
    film = {"file_id": "g", "file_unique_id": "g"}
    ada.sends(animation=film | {"width": 9, "height": 9, "duration": 1}, document=film | {"mime_type": "video/mp4"})
    ada.waits_for("no picture, but video/mp4")  # which Telegram makes of a GIF
    assert len(ada.received) == 5
    ada.sends(pinned_message={"message_id": 1, "date": 0, "chat": {"id": ada.chat, "type": "private"}})
    telegram.deliver(edited_message=ada.writes("/help") | {"edit_date": 1, "text": "/start"})
    group = telegram.user("Group", type="group", id=-77)
    group.chat = -77
    group.sends_photo(photo)
    group.writes("/start")
    group.waits_for("in private")
    assert eventually(lambda: len(ada.received) == 6) and len(group.received) == 1


def test_an_album_gets_one_answer(telegram, start, ada, photo):
    start()
    for _ in range(3):
        ada.sends_photo(photo, media_group_id="9")
    ada.writes("hello")
    ada.waits_for("I need a photograph")
    assert len(ada.received) == 2 and ada.received[0]["text"].startswith("Of an album I take the first picture.")


def test_buttons_whose_photograph_or_meaning_is_gone(telegram, start, ada, photo):
    start()
    ada.sends_photo(photo)
    menu = ada.waits_for("Which style")
    for data in ("paint:75:0:../../secret", "paint:99:0:swirls", "old", "own:75:0:swirls:"):
        assert ada.note(ada.presses_data(data, menu)) == bot.GONE
    assert ada.note(ada.presses("Swirls", {key: menu[key] for key in menu if key != "reply_to_message"})) == bot.GONE
    old = {key: menu[key] for key in ("message_id", "chat")} | {"date": 0}  # all that Telegram says of a message that is too old
    assert ada.note(ada.presses_data("paint:75:0:swirls", old)) == bot.GONE
    telegram.files.clear()
    ada.presses("Swirls")
    ada.waits_for("Please send it again")


def test_a_deleted_message_is_written_again(telegram, start, ada, network, photo, monkeypatch):
    slowly(network, monkeypatch)
    start()
    ada.sends_photo(photo)
    ada.presses("Swirls")
    ada.waits_for("Painting")
    telegram.chats[ada.chat].clear()  # photograph, buttons and all
    ada.waits_for("Another one?")
    assert len(ada.pictures) == 1 and len(ada.received) == 2


# Telegram has its troubles


@pytest.mark.parametrize("method", "sendMessage editMessageText sendPhoto getFile answerCallbackQuery getUpdates".split())
@pytest.mark.parametrize("status, more", [(429, {"retry_after": 1}), (502, {})])
def test_calls_are_made_again_as_the_api_demands(telegram, start, ada, photo, method, status, more):
    start()
    telegram.fail(method, status, **more)
    ada.sends_photo(photo)
    ada.presses("Swirls")
    ada.waits_for("Another one?")
    assert len(ada.pictures) == 1 and len(ada.received) == 2 and not telegram.failures[method]
    refused, again = [when for when, name, _ in telegram.calls if name == method][-2:] if method == "sendPhoto" else (0, 9)
    assert again - refused >= more.get("retry_after", 0)


def test_a_picture_that_may_have_arrived_is_not_sent_twice(telegram, start, ada, photo):
    start()
    telegram.fail("sendPhoto", 0)
    ada.sends_photo(photo)
    ada.presses("Swirls")
    ada.waits_for("got no receipt")
    assert len(ada.pictures) == 1 == telegram.count("sendPhoto")


def test_the_last_word_about_a_job_stands_also_if_an_earlier_one_is_late(telegram, start, ada, photo):
    start(pause=60)
    telegram.delays["editMessageText"] = [1]
    ada.sends_photo(photo)
    ada.presses("Swirls")
    assert eventually(lambda: telegram.count("editMessageText") == 2)
    assert "Another one?" in ada.received[0]["text"]


def test_a_long_failure_of_telegram_costs_no_answer(telegram, start, ada, photo):
    start()
    telegram.fail("sendPhoto", 502, times=5)  # more than one attempt endures
    ada.sends_photo(photo)
    ada.presses("Swirls")
    ada.waits_for("Another one?")
    assert len(ada.pictures) == 1


def test_a_job_that_fails_is_apologised_for_and_the_next_one_is_painted(telegram, start, ada, network, photo, monkeypatch):
    def crash(*_, **__):
        raise ZeroDivisionError
    monkeypatch.setattr(network, "stylize", crash)
    start()
    ada.sends_photo(photo)
    ada.presses("Swirls")
    ada.waits_for(bot.SORRY)
    monkeypatch.undo()
    ada.presses("Swirls")
    ada.waits_for("Another one?")
    assert len(ada.pictures) == 1


def test_a_handler_that_fails_is_apologised_for(start, ada, monkeypatch, photo):
    app = start()
    monkeypatch.setattr(bot, "menu", lambda *_: 1 / 0)
    ada.sends_photo(photo)
    ada.waits_for(bot.SORRY)
    ada.writes("/help")
    assert ada.waits_for("/styles shows") and app.running


def test_who_blocks_the_bot_is_left_alone(telegram, start, ada, photo, tmp_path):
    start(steps=(5000, 5000))
    slow_order(ada, photo)
    ada.waits_for("Painting slowly")
    telegram.blocked.add(ada.chat)
    assert eventually(lambda: not json.loads((tmp_path / "waiting.json").read_text())["jobs"])
    bob = telegram.user("Bob")
    bob.sends_photo(photo)
    bob.presses("Swirls")
    bob.waits_for("Another one?")
    assert not ada.pictures


def test_a_full_disk_keeps_no_answer_back(start, ada, photo, monkeypatch):
    start()
    @contextmanager
    def full(path):
        raise OSError("no space left on device")
        yield
    ada.sends_photo(photo)
    ada.waits_for("Which style")
    monkeypatch.setattr(nst, "replacing", full)
    ada.presses("Swirls")
    ada.waits_for(lambda message: message.get("text") == bot.SORRY)
    monkeypatch.undo()
    gets_a_picture(ada, photo)


# Once and only once


def test_an_update_that_comes_twice_is_answered_once_also_after_a_restart(telegram, start, ada, photo):
    start()
    ada.writes("hello")
    first = telegram.updates[-1] if telegram.updates else None
    assert eventually(lambda: len(ada.received) == 1)
    first = first or {"update_id": telegram.next_id - 1, "message": next(iter(telegram.chats[ada.chat].values()))}
    ada.sends_photo(photo)
    ada.presses("Swirls")
    press = {"update_id": telegram.next_id}
    ada.waits_for("Another one?")
    for again in (lambda: None, start):
        again()
        for update in (first, press):
            telegram.deliver(**update)
        ada.writes("and now?")
        count = len(ada.received)
        assert eventually(lambda: len(ada.received) > count)
    assert len(ada.pictures) == 1 and len(ada.received) == 5


@pytest.mark.parametrize("seed", [1, 2])
def test_whatever_users_and_telegram_do_each_order_gets_one_picture(telegram, start, photo, tmp_path, seed):
    """Random moves of five users, old buttons among them, with failures, updates that come twice, and restarts in between."""
    chance, users, presses, asks = random.Random(seed), [telegram.user(name) for name in "ABCDE"], [], "A style of your own"
    start()
    for move in range(120):
        user = chance.choice(users)
        menus = [message for message in user.received if labels(message)]
        kind = chance.choice(["photo", "press", "press", "press", "text", "file", "failure", "again", "restart"])
        if kind == "photo":
            user.sends_photo(photo)
        elif kind == "press" and menus:
            message = json.loads(json.dumps(chance.choice(menus)))
            label = chance.choice([label for label in labels(message) if label != asks])
            presses.append((user, label, user.presses(label, message)))
        elif kind == "text":
            user.writes(chance.choice(["/start", "/help", "hello"]))
        elif kind == "file":
            user.sends_file(photo[:chance.randrange(1, len(photo))], kind=chance.choice(["image/png", "text/plain"]))
        elif kind == "failure" and not any(telegram.failures.values()):
            telegram.fail(chance.choice(["sendMessage", "sendPhoto", "editMessageText", "getUpdates", "getFile"]), 502)
        elif kind == "again" and telegram.updates:
            telegram.deliver(**chance.choice(telegram.updates))
        elif kind == "restart" and chance.random() < 0.3:
            start()
        assert eventually(lambda: len(telegram.updates) < 4)  # however fast the machine is
    assert eventually(lambda: not telegram.updates and not json.loads((tmp_path / "waiting.json").read_text())["jobs"])
    styles, pictures = {*map(bot.title, bot.STYLES)}, sum(len(user.pictures) for user in users)
    assert pictures > 2
    for user in users:
        notes = [(label, telegram.notes[query]) for who, label, query in presses if who is user]
        assert all(len(note) == 1 for _, note in notes)
        refused = sum("can't be read" in asked.get("text", "") and asked["chat_id"] == user.chat
                      for _, method, asked in telegram.calls if method == "editMessageText")
        orders = sum(label in styles and note == [""] for label, note in notes)
        cancelled = sum(note == ["Cancelled."] for _, note in notes)
        assert orders - cancelled - refused <= len(user.pictures) <= orders


def test_a_job_that_was_begun_too_often_is_apologised_for(start, ada, tmp_path, photo):
    start()
    ada.sends_photo(photo)
    menu = ada.waits_for("Which style")
    start.stop()
    job = bot.Job(ada.chat, menu["message_id"], menu["reply_to_message"]["message_id"],
                  menu["reply_to_message"]["photo"][0]["file_id"], "swirls", 75, False, tries=bot.TRIES)
    waiting = bot.Waiting(tmp_path)
    waiting.jobs[job.chat] = job
    waiting.write()
    start()
    ada.waits_for(bot.SORRY)
    assert not ada.pictures


def test_a_damaged_list_of_those_who_wait_is_named(tmp_path):
    (tmp_path / "waiting.json").write_text('{"jobs": [{"chat": 1}]}')
    with pytest.raises(ValueError, match="waiting.json is no list of those who wait"):
        bot.Waiting(tmp_path)


@contextmanager
def process(telegram, folder, token=TOKEN):
    """The bot as it is run from a shell, once it has asked for updates or has ended."""
    variables = os.environ | {"PYTHONPATH": str(ROOT), bot.VARIABLE: token}
    command = [sys.executable, ROOT / "notebooks" / "bot.py", "--api", telegram.api, "--folder", folder, "--size", "64"]
    before = telegram.count("getUpdates")
    child = subprocess.Popen(command, env=variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        assert eventually(lambda: telegram.count("getUpdates") > before or child.poll() is not None)
        yield child
    finally:
        child.kill()
        child.communicate()


def test_killed_in_the_middle_of_a_job_it_goes_on_when_it_begins_again(telegram, start, ada, tmp_path, photo):
    with process(telegram, tmp_path) as child:
        slow_order(ada, photo)
        ada.waits_for("Painting slowly")
        bob = telegram.user("Bob")
        bob.sends_photo(photo)
        menu = bob.waits_for("Which style")
        assert eventually(lambda: not telegram.updates)  # else it is given again, and the buttons come twice
        child.kill()
        child.wait()
    bob.presses("Swirls", menu)  # while nobody is there
    kept = (tmp_path / "waiting.json").read_bytes()
    assert len(kept) < 2000 and [path.name for path in tmp_path.iterdir()] == ["waiting.json"]  # and no pictures
    start()
    for user in (ada, bob):
        user.waits_for("Another one?")
        assert len(user.pictures) == 1 and len(user.received) == 2


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGTERM that a process could catch")
def test_sigterm_tells_those_who_wait_and_they_are_served_later(telegram, start, ada, tmp_path, photo):
    bob = telegram.user("Bob")
    with process(telegram, tmp_path) as child:
        for user in (ada, bob):
            slow_order(user, photo)
        bob.waits_for("You are number 2 in line.")
        telegram.blocked.add(bob.chat)
        child.send_signal(signal.SIGTERM)
        output, _ = child.communicate(timeout=PATIENCE)
    assert child.returncode == 0 and TOKEN.partition(":")[2] not in output and "Traceback" not in output
    ada.waits_for(bot.STOPPED)
    assert [job["tries"] for job in json.loads((tmp_path / "waiting.json").read_text())["jobs"]] == [0, 0]  # no fault of theirs
    telegram.blocked.clear()
    start()
    for user in (ada, bob):
        user.waits_for("Another one?")
        assert len(user.pictures) == 1


@pytest.mark.parametrize("token, sentence", [("", "is not set"), ("424242:AAnotTheRightOne", "does not know the token")])
def test_without_the_right_token_there_is_one_sentence_and_no_secret(telegram, tmp_path, token, sentence):
    with process(telegram, tmp_path, token) as child:
        output, _ = child.communicate(timeout=PATIENCE)
    assert child.returncode == 1 and sentence in output.splitlines()[-1] and (not token or token.partition(":")[2] not in output)


def test_no_log_record_of_any_level_shows_the_token(telegram, start, ada, photo, caplog):
    caplog.set_level(logging.DEBUG)
    for name in ("httpx", "httpcore", "telegram", "bot", "asyncio"):
        caplog.set_level(logging.DEBUG, name)
    start()
    telegram.fail("getUpdates", 502)
    ada.sends_photo(photo)
    ada.presses("Swirls")
    ada.waits_for("Another one?")
    secret = TOKEN.partition(":")[2]
    try:
        raise RuntimeError(f"https://api.telegram.org/bot{TOKEN}/getMe")
    except RuntimeError:
        logging.getLogger("anything").exception("at %s", f"/bot{TOKEN}/getMe")
    start.stop()
    text = "\n".join(logging.Formatter().format(record) + str(vars(record)) for record in caplog.records)
    assert len(caplog.records) > 50 and "/bot424242:.../" in text and secret not in text and secret not in caplog.text


def test_nothing_that_is_started_later_inherits_the_token(monkeypatch):
    left = []
    monkeypatch.setenv(bot.VARIABLE, TOKEN)
    monkeypatch.setattr(sys, "argv", ["bot.py"])
    monkeypatch.setattr(bot, "PaintingBot", lambda *_, **__: left.append(bot.VARIABLE in os.environ) or sys.exit())
    with pytest.raises(SystemExit):
        bot.main()
    assert left == [False]

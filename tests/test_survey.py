"""The survey without a browser, answers under attack, statistics of answers whose truth is known; then all of it as a page."""
import errno
import hashlib
import itertools
import os
import random
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import nst_utils as nst
from experiments import Judge

survey, ratings = (pytest.importorskip(room, reason="a package of the survey is not installed") for room in ("survey", "ratings"))

ROOT = Path(__file__).resolve().parents[1]
PATIENCE = 120  # seconds until a test gives up waiting


@pytest.fixture
def folder(tmp_path):
    """Forty results of a few pixels each, entered as `paint` enters them."""
    rows = []
    for (content, style), method in itertools.product(survey.PAIRS, survey.METHODS):
        item = f"r{hashlib.sha256(f'{content} {style} {method}'.encode()).hexdigest()[:10]}"
        Image.new("RGB", (24, 16), f"#{item[1:7]}").save(tmp_path / f"{item}.jpg")
        rows.append({"item": item, "pair": f"{content} x {style}", "content": content, "style": style, "method": method,
                     "file": f"{item}.jpg", "share_closed": "0.5", "lpips": "0.5"})
    survey._write(tmp_path, rows)
    return tmp_path


@pytest.fixture
def one(folder):
    return survey.Survey(folder, participant="p00000001", pause=0)


def row(rating=5, participant="p00000001", item="r0123456789", position=1):
    return {"participant": participant, "position": position, "pair": "a x b", "method": "optimisation, compact",
            "rating": rating, "item": item}


# --- The pictures ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def judge():
    return Judge("alexnet", weights=None, heads=[torch.ones(count) for count in (64, 192, 384, 256, 256)])


def test_pictures_are_painted_judged_and_resumed(tmp_path, judge):
    work = {"pairs": survey.PAIRS[:1], "methods": ["optimisation, compact", "AdaIN", "WCT"], "size": 96, "steps": 2,
            "judge": judge}
    first = next(survey.paint(tmp_path, **work))
    assert first.startswith("astronaut x swirls, optimisation, compact") and len(survey.pictures(tmp_path)) == 1
    rest = list(survey.paint(tmp_path, **work))
    assert len(rest) == 2 + 3 and not list(survey.paint(tmp_path, **work))
    rows = survey.pictures(tmp_path)
    assert [row["method"] for row in rows] == work["methods"] and len({row["item"] for row in rows}) == 3
    assert all(survey.ITEM.fullmatch(row["item"]) and float(row["lpips"]) > 0 and row["share_closed"] for row in rows)
    assert Image.open(tmp_path / rows[0]["file"]).size == (96, 96)
    assert not any(word in row["file"] for row in rows for word in ("adain", "wct", "vgg"))


def test_other_settings_replace_the_picture(tmp_path, judge):
    work = {"pairs": survey.PAIRS[:1], "methods": ["AdaIN"], "judge": judge}
    list(survey.paint(tmp_path, size=96, **work))
    list(survey.paint(tmp_path, size=80, **work))
    only, = survey.pictures(tmp_path)
    assert Image.open(tmp_path / only["file"]).size == (80, 80) and len(list(tmp_path.glob("*.jpg"))) == 1


def test_what_lacks_weights_is_left_out_with_a_sentence(tmp_path, monkeypatch):
    def absent(arch, *_, **__):
        raise ConnectionError(f"{arch} can't be downloaded.")
    load = nst.load_network
    monkeypatch.setattr(nst, "load_network", lambda arch, **how: (absent if arch in ("vgg16", "alexnet") else load)(arch, **how))
    lines = list(survey.paint(tmp_path, pairs=survey.PAIRS[:2], methods=["optimisation, VGG-16", "AdaIN"], size=64, steps=1))
    assert lines[0] == "optimisation, VGG-16 is left out. vgg16 can't be downloaded."
    assert lines[-1] == "Nothing is judged. alexnet can't be downloaded." and len(lines) == 4
    assert [row["method"] for row in survey.pictures(tmp_path)] == ["AdaIN"] * 2


def test_photographs_and_styles_are_shown_without_torch():
    code = "import sys, survey; survey.reference('coffee'); survey.reference('ikat'); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT / "notebooks")


# --- The order ---------------------------------------------------------------------------------------------------------


def test_everybody_has_an_order_of_their_own_that_stays(folder):
    rows = survey.pictures(folder)
    orders = [[row["item"] for row in survey.order(f"p{k:08x}", rows)] for k in range(30)]
    assert orders[3] == [row["item"] for row in survey.order("p00000003", list(reversed(rows)))]
    assert len({tuple(order) for order in orders}) == 30 and all(len(set(order)) == 40 for order in orders)


def test_a_round_shows_every_pair_once_and_never_one_twice_in_succession(folder):
    firsts = []
    for k in range(50):
        shown = survey.order(f"p{k:08x}", survey.pictures(folder))
        pairs = [row["pair"] for row in shown]
        assert all(len(set(pairs[start:start + 10])) == 10 for start in range(0, 40, 10))
        assert all(before != after for before, after in itertools.pairwise(pairs))
        firsts += [row["method"] for row in shown[:10]]
    assert all(80 < firsts.count(method) < 170 for method in survey.METHODS)  # 125 each on average


# --- The instrument ----------------------------------------------------------------------------------------------------


def test_one_click_or_key_for_each_rating_from_first_to_last(one, folder):
    for k in range(40):
        assert f"Picture {k + 1} of 40" in one.status.value and one.bar.value == k
        if k % 2:
            one.controls[str(k % 10 + 1)].click()
        else:
            one.controls["keys"].value = str(k % 10)
    assert "Thank you" in one.status.value and one.bar.value == one.bar.max == 40 and not one.message.value
    said = survey.answers(folder / "answers.csv")
    assert [int(row["rating"]) for row in said] == [k % 10 + 1 if k % 2 else k % 10 or 10 for k in range(40)]
    assert [row["position"] for row in said] == [str(k + 1) for k in range(40)]
    assert {(row["pair"], row["method"]) for row in said} == {(row["pair"], row["method"]) for row in survey.pictures(folder)}
    assert (folder / "answers.csv").read_text().splitlines()[0] == ",".join(survey.ANSWERS)
    one.rate(3)
    assert len(survey.answers(folder / "answers.csv")) == 40


def test_the_page_shows_what_is_rated_and_not_by_which_method(one, folder):
    shown = one.sequence[0]
    assert bytes(one.images[2].value) == (folder / shown["file"]).read_bytes()
    assert bytes(one.images[0].value) == survey.reference(shown["content"])
    texts = str([widget.get_state() for widget in (*one.controls.values(), one.status, one.message)])
    assert not any(method in texts for method in survey.METHODS)


def test_a_double_click_is_one_answer(folder):
    one = survey.Survey(folder, participant="p00000001", pause=30)
    one.controls["7"].click()
    assert not survey.answers(one.path)  # the picture has only just been shown
    one._since -= 31
    for _ in range(3):
        one.controls["7"].click()
    assert len(survey.answers(one.path)) == 1


def test_reopening_goes_on_and_back_corrects(one, folder):
    for rating in (3, 4, 5):
        one.rate(rating)
    again = survey.Survey(folder, participant="p00000001", pause=0)
    assert again.at == 3 and [row["item"] for row in again.sequence] == [row["item"] for row in one.sequence]
    again.controls["Back"].click()
    again.rate(9)
    assert again.at == 3 and again.done()[again.sequence[2]["item"]] == 9
    assert len(again.path.read_text().splitlines()) == 5 and len(survey.answers(again.path)) == 3


def test_two_pages_of_one_participant_share_their_progress(one, folder):
    other = survey.Survey(folder, participant="p00000001", pause=0)
    for page in [one, other] * 20:
        page.rate(6)
    said = survey.answers(folder / "answers.csv")
    assert len({row["item"] for row in said}) == len(said) and 20 <= len(said) < 40
    while one.at < 40:
        one.rate(7)
    assert len(survey.answers(folder / "answers.csv")) == 40


def test_codes_are_random_and_nothing_else_can_be_entered(folder, monkeypatch):
    monkeypatch.setenv("QUERY_STRING", "code=<script>")
    one, other = survey.Survey(folder), survey.Survey(folder)
    assert survey.CODE.fullmatch(one.fresh) and one.fresh != other.fresh
    for name in ("Anna", "p12345678", "", "=1+1"):
        one.controls["code"].value = name
        one.controls["Begin"].click()
        assert "Nobody was given the code" in one.message.value and one.participant is None
    one.controls["code"].value = f" {one.fresh.upper()} "
    one.controls["Begin"].click()
    assert one.participant == one.fresh and "Picture 1 of 40" in one.status.value
    one._since -= 1
    one.rate(5)
    other.controls["code"].value = one.fresh
    other.controls["Begin"].click()
    assert other.at == 1
    monkeypatch.setenv("QUERY_STRING", "code=p00c0ffee")
    assert survey.Survey(folder).fresh == "p00c0ffee"


def test_what_is_wrong_is_said_in_a_sentence(one, folder, tmp_path_factory):
    with pytest.raises(ValueError, match="no pictures in"):
        survey.Survey(tmp_path_factory.mktemp("empty"))
    for bad in (0, 11, 5.5, "7"):
        with pytest.raises(ValueError, match="from 1 to 10"):
            one.rate(bad)
    (folder / one.sequence[1]["file"]).unlink()
    one.controls["5"].click()
    assert "No such file" in one.message.value and len(survey.answers(one.path)) == 1


def test_a_full_disk_loses_no_answer(one, folder, monkeypatch):
    write = survey.append

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    monkeypatch.setattr(survey, "append", full)
    for _ in range(40):
        one.controls["8"].click()
    assert "Not saved: No space left on device." in one.message.value and "40 answers" in one.message.value
    assert one.controls["Save again"] in one.children[-2].children and not one.path.exists()
    monkeypatch.setattr(survey, "append", write)
    one.controls["Save again"].click()
    assert len(survey.answers(one.path)) == 40 and not one.message.value and "Thank you" in one.status.value
    assert one.controls["Save again"] not in one.children[-2].children


def test_a_file_edited_meanwhile_loses_no_answer(one):
    one.rate(4)
    text = one.path.read_text()
    one.path.write_text(text.replace(",", ";"))
    one.controls["5"].click()
    assert "it was edited" in one.message.value and one.at == 2
    one.path.rename(one.path.with_name("edited.csv"))
    one.controls["6"].click()
    assert [row["rating"] for row in survey.answers(one.path)] == ["5", "6"] and not one.message.value


# --- The file ----------------------------------------------------------------------------------------------------------


WRITE = """import sys, survey
for k in range(int(sys.argv[3])):
    survey.append(sys.argv[1], [{"participant": sys.argv[2], "position": k, "pair": "a x b", "method": "WCT, whole",
                                 "rating": 1 + k % 10, "item": f"r{k:010x}"}])"""


def writer(path, participant, count):
    return subprocess.Popen([sys.executable, "-c", WRITE, path, participant, str(count)], cwd=ROOT / "notebooks")


def test_two_processes_write_at_once(tmp_path):
    path = tmp_path / "answers.csv"
    both = [writer(path, f"p0000000{k}", 100) for k in range(2)]
    assert [one.wait(PATIENCE) for one in both] == [0, 0]
    assert len(path.read_text().splitlines()) == 201 and len(survey.answers(path)) == 200


def test_a_process_killed_in_the_middle_leaves_whole_rows(tmp_path):
    path, lot = tmp_path / "answers.csv", random.Random(0)
    for k in range(3):
        one, rows, deadline = writer(path, f"p0000000{k}", 100_000), len(survey.answers(path)), time.monotonic() + PATIENCE
        while len(survey.answers(path)) < rows + 20 and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(lot.random() / 20)
        one.kill()
        one.wait(PATIENCE)
        before = len(survey.answers(path))
        survey.append(path, [row(7, "p0000000f", f"r{k:010x}")])
        assert len(survey.answers(path)) == before + 1 >= rows + 21


def test_a_row_torn_anywhere_is_not_there_and_harms_no_other(tmp_path):
    path = tmp_path / "answers.csv"
    survey.append(path, [row(3), row(10, item="raaaaaaaaaa")])
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        kept = [int(one["rating"]) for one in survey.answers(path)]
        assert kept in ([], [3], [3, 10])
        survey.append(path, [row(5, item="rbbbbbbbbbb")])
        assert [int(one["rating"]) for one in survey.answers(path)] == [*kept, 5]
        assert path.read_bytes().startswith(",".join(survey.ANSWERS).encode()) and path.read_bytes().endswith(b"\n")


def test_a_disk_that_fills_within_a_row_keeps_what_was_there(tmp_path):
    path = tmp_path / "answers.csv"
    survey.append(path, [row(3)])
    before = path.read_bytes()
    code = ("import resource, signal, survey, sys\nsignal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (len(open(sys.argv[1]).read()) + 20,) * 2)\n"
            "survey.append(sys.argv[1], [dict.fromkeys(survey.ANSWERS, 'x' * 30)])")
    pytest.importorskip("resource")
    done = subprocess.run([sys.executable, "-c", code, path], cwd=ROOT / "notebooks", capture_output=True, text=True)
    assert "No space left on device" in done.stderr and path.read_bytes() == before


def test_what_spreadsheet_programs_make_of_it_is_read(tmp_path):
    path = tmp_path / "answers.csv"
    survey.append(path, [row(3), row(10, item="raaaaaaaaaa"), row(4, "p00000002")])
    plain, text = survey.answers(path), path.read_text()
    for edited in ("\ufeff" + text, text.replace("optimisation, compact", "AdaIN").replace('"', "").replace(",", ";"),
                   text.replace("\n", "\r\n"), text + "\n\n", text + ",,,,,\n", text.replace(",10,", ",10.0,")):
        path.write_bytes(edited.encode())
        assert [(one["participant"], one["rating"]) for one in survey.answers(path)] == [
            (one["participant"], one["rating"]) for one in plain]
    path.write_bytes(("\ufeff" + text.replace("\n", "\r\n")).encode())
    survey.append(path, [row(9, "p00000003")])
    assert len(survey.answers(path)) == 4
    path.write_text(text.replace(",10,", ",,"))
    assert len(survey.answers(path)) == 2


HEADER = ",".join(survey.ANSWERS)


@pytest.mark.parametrize("text, sentence", [
    ("participant,position,pair,method,item\n", "answers.csv lacks the column rating"),
    ("a;b\n1;2\n", "lacks the columns participant, position"),
    (f"{HEADER}\np00000001,1,a x b,WCT,11,r0123456789\n", "line 2: a rating is a whole number from 1 to 10, not '11'"),
    (f"{HEADER}\np00000001,1,a x b,WCT,good,r0123456789\n", "not 'good'"),
    (f"{HEADER}\np00000001,1,a x b,WCT,7.5,r0123456789\n", "not '7.5'")])
def test_what_is_no_answer_is_named(tmp_path, text, sentence):
    (tmp_path / "answers.csv").write_text(text)
    with pytest.raises(ValueError, match=re.escape(sentence)):
        survey.answers(tmp_path / "answers.csv")
    (tmp_path / "answers.csv").write_bytes(text.encode("utf-16"))
    with pytest.raises(ValueError, match="no text in UTF-8"):
        survey.answers(tmp_path / "answers.csv")


# --- What follows from the answers -------------------------------------------------------------------------------------


def test_answers_become_a_table(folder):
    rows = survey.pictures(folder)
    for k, participant in enumerate(("p00000001", "p00000002")):
        for position, item in enumerate(survey.order(participant, rows)[:40 - 10 * k]):
            survey.append(folder / "answers.csv", [row(1 + (position + k) % 10, participant, item["item"], position)])
    survey.append(folder / "answers.csv", [row(9, "p00000002", "rffffffffff")])  # a picture that was painted anew since
    found = ratings.collected(folder=folder)
    assert found.values.shape == (2, 10, 4) and found.left_out == 1 and found.methods == list(survey.METHODS)
    assert [(~np.isnan(one)).sum() for one in found.values] == [40, 30]
    first = survey.order("p00000001", rows)[2]
    assert found.values[0, found.pairs.index(first["pair"]), found.methods.index(first["method"])] == 3


def test_simulated_answers_have_the_truth_that_went_in():
    truth = {"effects": (1.0, 0.5, 0.0, -0.5), "level": 5.5, "picture": 0.0, "rater": 0.5, "taste": 0.1, "noise": 1.0}
    found = ratings.simulate(400, seed=1, **truth)
    assert set(np.unique(found.values)) <= set(range(1, 11)) and found.values.shape == (400, 10, 4)
    assert found.values.mean((0, 1)) == pytest.approx([6.5, 6.0, 5.5, 5.0], abs=0.1)
    assert np.array_equal(found.values, ratings.simulate(400, seed=1, **truth).values)
    assert np.isnan(ratings.simulate(seed=2, missing=0.25).values).mean() == pytest.approx(0.25, abs=0.03)


def test_means_have_students_interval_and_cover_the_truth():
    known = ratings.mean([4, 6, np.nan, 8])
    assert (known.value, known.count) == (6, 3) and known.low == pytest.approx(6 - 4.302653 * 2 / 3**0.5, abs=1e-5)
    rng = np.random.default_rng(0)
    hits = [one.low <= 0 <= one.high for one in (ratings.mean(rng.normal(size=12)) for _ in range(400))]
    assert 0.92 < np.mean(hits) < 0.98


def test_agreement_is_that_of_the_textbooks():
    # Shrout and Fleiss 1979, table 2: six targets, four judges; ICC(2,1) = 0.29, ICC(2,4) = 0.62
    table = np.array([[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]], float).T
    found = ratings.agreement(table[:, :, None])
    assert found["ICC(2,1)"] == pytest.approx(0.29, abs=0.005) and found["ICC(2,k)"] == pytest.approx(0.62, abs=0.005)
    same = np.tile(np.arange(1, 11.0), (5, 1))[:, :, None]
    assert ratings.agreement(same)["alpha"] == pytest.approx(1)
    assert abs(ratings.agreement(np.random.default_rng(0).integers(1, 11, (60, 20, 2)).astype(float))["alpha"]) < 0.05


def test_methods_are_compared_in_pairs_and_corrected():
    found = ratings.simulate(60, seed=3, effects=(1.0, 0.0, 0.0, -1.0), level=5.5, picture=0.0)
    table = {(one.first, one.second): one for one in ratings.compare(found)}
    names = list(survey.METHODS)
    assert len(table) == 6 and table[names[0], names[3]].people.value == pytest.approx(2, abs=0.4)
    assert table[names[0], names[3]].holm < 1e-6 and table[names[1], names[2]].holm > 0.05
    assert all(one.p <= one.holm <= 1 and one.pairs.count == 10 for one in table.values())
    assert ratings.friedman(found.values) < 1e-6


def test_equal_methods_are_rarely_told_apart():
    alarms = [min(one.holm for one in ratings.compare(ratings.simulate(20, seed=seed, effects=(0, 0, 0, 0), picture=0))) < 0.05
              for seed in range(100)]
    assert sum(alarms) <= 12


def test_a_pair_that_only_one_method_was_rated_on_does_not_count():
    values = np.full((4, 3, 2), np.nan)
    values[:, 0] = [6, 5]
    values[:, 1, 0] = 1
    assert ratings.differences(values, 0, 1).tolist() == [1, 1, 1, 1]


def test_power_in_closed_form_is_that_of_simulated_studies():
    gap, spread = ratings.smallest_difference(1.2, 52), 1.2
    assert ratings.people_needed(gap, spread) in (52, 53) and ratings.people_needed(gap / 2, spread) > 190
    assert ratings.smallest_difference(1.2, 52, alpha=0.05 / 6) > gap and ratings.people_needed(50, 1) == 2
    assert ratings.deviation(np.array([1.0, 3, np.nan]), np.array([0.0, 4])) == pytest.approx(5**0.5)
    rng = np.random.default_rng(0)
    found = [ratings._signed_rank(rng.normal(gap, spread, 52)) < 0.05 for _ in range(500)]
    assert 0.72 < np.mean(found) < 0.86


def test_simpsons_trap_is_seen_within_methods():
    rng, offsets = np.random.default_rng(0), np.array([0.0, 2, 4, 6])
    inner = rng.normal(size=(10, 4))
    scores, measured = offsets + inner, offsets - inner  # methods agree, pictures of one method disagree
    pooled, within = ratings.correlation(scores, measured), ratings.correlation(scores, measured, within=True)
    assert pooled.low > 0.3 and within.value == pytest.approx(-1) and within.high < 0 and pooled.count == 40


@pytest.mark.filterwarnings("error::RuntimeWarning", "error::UserWarning")
@pytest.mark.parametrize("values", [
    np.empty((0, 10, 4)), np.full((1, 10, 4), 5.0), np.full((6, 10, 4), 5.0), np.full((3, 10, 4), np.nan), np.ones((5, 1, 1)),
    ratings.simulate(1).values, ratings.simulate(2).values, ratings.simulate(5, missing=0.9).values,
    np.concatenate([ratings.simulate(4).values, np.full((3, 10, 4), 10.0)])],
    ids=["nobody", "one, constant", "all constant", "no answers", "one picture", "one", "two", "gaps", "some constant"])
def test_too_little_to_tell_is_nan_and_no_warning(values):
    found = ratings.Ratings([], [], list(survey.METHODS)[:values.shape[2]], values)
    scores, measured = ratings.average(values, 0), np.random.default_rng(0).random(values.shape[1:])
    ratings.agreement(values), ratings.compare(found), ratings.friedman(values), ratings.average(values, (1, 2))
    ratings.mean(values), ratings.correlation(scores, measured, draws=20)
    ratings.correlation(scores, measured, within=True, draws=20)
    deviation = ratings.deviation(values[:, 0, 0] - values[:, -1, -1])
    ratings.smallest_difference(deviation), ratings.people_needed(0.5, deviation)
    if len(values) < 2 or np.nanmin(values, initial=99) == np.nanmax(values, initial=-99):
        assert all(np.isnan(number) for number in ratings.agreement(values).values())


# --- The page ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def address(folder):
    """The survey as it is served to participants, on a port of its own."""
    pytest.importorskip("voila", reason="Voilà is not installed")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, ROOT / "notebooks" / "survey.py", "page", "--folder", folder, "--no-browser", f"--port={port}"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "notebooks")))}
    with (folder / "log.txt").open("w") as log:
        server = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + PATIENCE
        while f"127.0.0.1:{port}" not in (folder / "log.txt").read_text() and time.monotonic() < deadline:
            assert server.poll() is None, (folder / "log.txt").read_text()
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}/"
    finally:
        server.terminate()
        server.wait(60)


@pytest.fixture
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="Playwright for Python is not installed")
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if not chromium:
        pytest.skip("no Chromium is installed, so that the page can't be tried in a browser")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--headless", "--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


def fill_in(page, answer, first=1, last=40):
    """Answer picture after picture, by keys and clicks in turn, as fast as the page allows."""
    for k in range(first, last + 1):
        page.get_by_text(f"Picture {k} of 40").wait_for()
        page.wait_for_timeout(650)  # a picture takes no answer for half a second
        if k % 2:
            page.keyboard.press(str(answer(k) % 10))
        else:
            page.get_by_role("button", name=str(answer(k)), exact=True).click()


def test_a_participant_fills_in_the_page_from_first_to_last_and_is_analysed(address, browser, folder):
    page, answer = browser.new_page(viewport={"width": 1400, "height": 900}), lambda k: k * 7 % 10 + 1
    page.set_default_timeout(PATIENCE * 1000)
    page.goto(address)
    page.get_by_role("button", name="Begin").click()
    fill_in(page, answer, last=6)
    link = page.get_by_role("link", name="Link to go on later")
    page.get_by_text("Picture 7 of 40").wait_for()
    link.evaluate("link => window.location = link.href")  # the page is left in the middle and opened again
    page.get_by_role("button", name="Begin").click()
    fill_in(page, answer, first=7)
    page.get_by_text("Thank you").wait_for()
    said = survey.answers(folder / "answers.csv")
    assert [int(row["rating"]) for row in said] == [answer(k) for k in range(1, 41)]
    assert len({row["participant"] for row in said}) == 1 and "WCT" not in page.content() and "AdaIN" not in page.content()
    found = ratings.collected(folder=folder)
    assert found.values.shape == (1, 10, 4) and not np.isnan(found.values).any() and found.left_out == 0
    assert ratings.mean(found.values).value == 5.5 and len(ratings.compare(found)) == 6


def test_without_pictures_no_page_is_served(tmp_path):
    done = subprocess.run([sys.executable, ROOT / "notebooks" / "survey.py", "page", "--folder", tmp_path], capture_output=True,
                          text=True, env=os.environ | {"PYTHONPATH": str(ROOT)})
    assert done.returncode and "There are no pictures" in done.stderr and "Traceback" not in done.stderr

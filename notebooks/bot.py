"""A Telegram bot that paints: send a photograph, choose a style, get the picture. `python notebooks/bot.py` runs it.

For whoever lets others use the two methods from a telephone. Not here: the methods (nst_utils), reading pictures
(data/pictures.py), what Telegram asks of a client (python-telegram-bot). A new button goes into `menu` and `press`, a new way of
painting into `paint`.

The buttons under a photograph are the whole state of a conversation: they answer it, and say strength and pace. So they work
after a restart, and only who waits is kept on disk (`Waiting`). Pictures are in memory while they are painted and nowhere else;
after a restart they are fetched from Telegram anew.

What holds while the folder of `Waiting` does: an update is confirmed to Telegram only when it was handled, so none is lost, and
one that comes twice is answered once. A job that was accepted is painted, refused with a reason or apologised for, also after a
kill. What does not hold, since Telegram has no message that may be sent twice: killed between sending a message and noting it,
the bot sends it again. Where the connection breaks after a picture was sent, nobody knows whether it arrived: it is not sent
again, and the buttons come back with a sentence that says so. While Telegram fails for longer than PAUSES, sentences are lost; a
picture is tried TRIES times.
"""
from __future__ import annotations

import argparse
import asyncio
import io
import json
import logging
import os
import re
import sys
import time
import traceback
import warnings
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

from PIL import Image
from torch import Tensor

import nst_utils as nst

try:
    import httpx
    from telegram import InlineKeyboardButton, InlineKeyboardMarkup, InputMediaPhoto, Message, ReplyParameters, Update, ext
    from telegram.error import BadRequest, Forbidden, InvalidToken, NetworkError, TelegramError
    from telegram.ext import Application, CallbackQueryHandler, CommandHandler, MessageHandler, TypeHandler, filters
except ImportError as error:
    raise ImportError('The bot needs python-telegram-bot: pip install "python-telegram-bot[rate-limiter]".') from error

VARIABLE = "TELEGRAM_BOT_TOKEN"  # of the environment: what @BotFather gave
STYLES = {path.stem: path for path in sorted((nst.DATA / "style").glob("*.jpg"))}
STRENGTHS = {25: 2, 50: 5, 75: 15, 100: 50}  # per cent, AdaIN's alpha -> style weight of the optimisation
BUTTONS = rf"^(menu|own|stop|paint):({'|'.join(map(str, STRENGTHS))}):([01]):({'|'.join(STYLES)}|)$"  # what `press` understands
PAUSES = (0.5, 1, 2, 4, 8, 16, 32)  # seconds, before Telegram is asked again
FORMATS = {"JPEG", "MPO", "PNG", "WEBP", "HEIF", "AVIF", "GIF", "TIFF", "BMP"}  # not EPS, which PIL lets a program draw
TRIES = 2  # how often a job is begun that a kill or the network ends
LOG = logging.getLogger("bot")

HELP = """Send me a photograph, as a photo or as a file, and I paint it in one of my styles or in one of yours.
A network answers in seconds; "Paint it slowly" optimises the pixels themselves, which takes minutes.

/styles shows the styles, /help this text. I paint one photograph at a time, keep none, and what I send has no metadata."""
CHOOSE = "Which style? Set strength and pace first: a style starts the painting."
ASK = "Now send me the picture whose style it shall have, as a photo or as a file."
STRANGE = "I need a photograph: send me one, as a photo or as a file. /help says more."
GROUP = "Write to me in private, and I paint your photographs."
GONE = "I can't see that photograph any more. Please send it again."
UNSURE = "I sent the picture, but got no receipt. If it has not arrived, choose again."
SORRY = "Sorry, this went wrong on my side, not on yours. Please try again."
STOPPED = "I am being switched off for a while. Your photograph keeps its place, and I paint it when I am back."

# --- Who waits --------------------------------------------------------------------------------------------------------


@dataclass(eq=False)
class Job:
    """A photograph to be painted. chat: also its user, for groups are not served. message: where buttons or progress stand."""

    chat: int
    message: int
    photo: int  # the message with the photograph
    content: str  # file_id, for which Telegram gives the picture, as often as it is asked
    style: str  # a name in STYLES, or the file_id of an own one
    strength: int  # one of STRENGTHS
    slow: bool  # by optimisation
    tries: int = 0

    def __post_init__(self):
        self.done, self.shown, self.editing = 0.0, "", asyncio.Lock()


class Waiting:
    """Who waits for a picture (`jobs`, by chat, in order), who was asked for a style (`asked`), which updates were `seen`.

    Kept in a small file in `folder`, which is written whole or not at all. ValueError if it is damaged.
    """

    def __init__(self, folder: Path | str):
        self.path = Path(os.path.expanduser(folder)) / "waiting.json"
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            kept = json.loads(self.path.read_text(encoding="utf-8")) if self.path.exists() else {}
            self.jobs, self.asked = ({job["chat"]: Job(**job) for job in kept.get(name, ())} for name in ("jobs", "asked"))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"{self.path} is no list of those who wait ({error}); without it the bot begins anew.") from error
        self.seen = deque(kept.get("seen", ()), maxlen=1000)  # no highest id: ids begin anywhere after a week of silence

    def write(self, update: Update | None = None) -> None:
        """Keep it as it is now, together with the update that led to it."""
        if update and update.update_id not in self.seen:
            self.seen.append(update.update_id)
        kept = {"jobs": [*map(asdict, self.jobs.values())], "asked": [*map(asdict, self.asked.values())], "seen": [*self.seen]}
        with nst.replacing(self.path) as temporary:
            temporary.write_text(json.dumps(kept), encoding="utf-8")


# --- The conversation and the work ------------------------------------------------------------------------------------


def button(text: str, verb: str, strength: int, slow: bool, style: str = "") -> InlineKeyboardButton:
    return InlineKeyboardButton(text, callback_data=f"{verb}:{strength}:{slow:d}:{style}")


def title(style: str) -> str:
    return style.replace("_", " ").capitalize() if style in STYLES else "Your style"


def menu(strength: int = 75, slow: bool = False) -> InlineKeyboardMarkup:
    """The buttons under a photograph."""
    styles = [button(title(style), "paint", strength, slow, style) for style in STYLES]
    return InlineKeyboardMarkup([
        [button(f"{'✓ ' * (one == strength)}{one} %", "menu", one, slow) for one in STRENGTHS],
        [button(f"{'✓ ' * slow}Paint it slowly", "menu", strength, not slow)],
        *(styles[k:k + 2] for k in range(0, len(styles), 2)), [button("A style of your own", "own", strength, slow)]])


class PaintingBot:
    """What the bot says, who waits for what, and the one thread that paints.

    folder: of `Waiting`. network: an AdaIN, None takes this project's. size: long side of its pictures, in pixels. sizes, steps:
    those of the optimisation, see `nst.coarse_to_fine`. longest: how many may wait. max_bytes (Telegram gives a bot 20 MB at
    most), max_pixels (50 million take 1.3 GB of memory while they are read): of a picture, both known before it is decoded.
    pause: seconds between two reports of progress.

    There is a line for each pace, but one thread: it makes one step of an optimisation at a time, so that who wants a quick
    picture waits for no more than that step.
    """

    def __init__(self, folder: Path | str, *, network: nst.AdaIN | None = None, size: int = 1024,
                 sizes: Sequence[int] = (256, 512), steps: Sequence[int] = (100, 40), longest: int = 20,
                 max_bytes: int = 20_000_000, max_pixels: int = 50_000_000, pause: float = 3.0):
        self.waiting, self.network = Waiting(folder), network or nst.AdaIN.pretrained()
        self.size, self.sizes, self.steps, self.longest, self.pause = size, sizes, steps, longest, pause
        self.max_bytes, self.max_pixels, self.stopping = max_bytes, max_pixels, False
        self.lines = {slow: asyncio.Queue() for slow in (False, True)}
        self.album, self.workers, self.thread = [], [], ThreadPoolExecutor(1, "painter")

    # What users do

    async def start(self, update: Update, _) -> None:
        self.waiting.asked.pop(update.message.chat_id, None)
        await update.message.reply_text(HELP)

    async def styles(self, update: Update, _) -> None:
        photos = self.album or [path.read_bytes() for path in STYLES.values()]  # Telegram keeps what was sent once
        album = [InputMediaPhoto(photo, caption=title(style)) for style, photo in zip(STYLES, photos)]
        self.album = [message.photo[-1].file_id for message in await update.message.reply_media_group(album)]

    async def picture(self, update: Update, context) -> None:
        """A photograph gets its buttons, the style that was asked for starts the painting."""
        message, group = update.message, update.message.media_group_id
        if group and context.chat_data.get("album") == group:
            return  # the answer to the first picture of an album was for all of them
        context.chat_data["album"] = group
        try:
            file_id = self.file_of(message)
            if asked := self.waiting.asked.get(message.chat_id):
                return await self.accept(replace(asked, style=file_id), update)
            text, buttons = "Of an album I take the first picture. " * bool(group) + CHOOSE, menu()
        except ValueError as error:
            text, buttons = str(error), None
        await message.reply_text(text, do_quote=True, reply_markup=buttons)

    async def press(self, update: Update, context) -> None:
        """A button changes the menu, asks for an own style, orders, or cancels; `note` appears over the conversation."""
        query, note = update.callback_query, ""
        verb, strength, slow, style = context.match.groups()
        message, strength, slow = query.message, int(strength), slow == "1"
        job, photo = self.waiting.jobs.get(message.chat.id), getattr(message, "reply_to_message", None)
        mine = job is not None and job.message == message.message_id
        if verb == "stop":
            note = "Cancelled." if mine else "That is over."
            await self.finish(job, f"Cancelled. {CHOOSE}") if mine else None
        elif mine or not photo:
            note = "Your picture is under way." if mine else GONE
        elif verb == "menu":
            self.waiting.asked.pop(message.chat.id, None)
            with suppress(BadRequest):  # as it was already
                await query.edit_message_text(CHOOSE, reply_markup=menu(strength, slow))
        else:
            try:
                order = Job(message.chat.id, message.message_id, photo.message_id, self.file_of(photo), style, strength, slow)
                await (self.ask if verb == "own" else self.accept)(order, update)
            except ValueError as error:
                note = str(error)
        with suppress(BadRequest):  # too late to be answered
            await query.answer(note[:200], show_alert=bool(note))

    async def ask(self, job: Job, update: Update) -> None:
        self.waiting.asked[job.chat] = job
        for chat in list(self.waiting.asked)[:-1000]:  # who never sent one
            del self.waiting.asked[chat]
        self.waiting.write(update)
        back = InlineKeyboardMarkup([[button("Back", "menu", job.strength, job.slow)]])
        await self.tell(job, ASK, back)

    async def accept(self, job: Job, update: Update) -> None:
        """Put a job in line and on disk; ValueError says why not."""
        if job.chat in self.waiting.jobs:
            raise ValueError("One at a time, please: another picture of yours is under way.")
        if len(self.waiting.jobs) >= self.longest:
            raise ValueError(f"{len(self.waiting.jobs)} pictures wait already. Please try again in a few minutes.")
        self.waiting.asked.pop(job.chat, None)
        self.waiting.jobs[job.chat] = job
        self.lines[job.slow].put_nowait(job)
        self.waiting.write(update)
        with suppress(TelegramError):  # `report` shows it in any case
            await self.show(job)

    def file_of(self, message: Message) -> str:
        """The file_id of a message's picture; ValueError if what is said about the file is enough to refuse it."""
        file, kind = message.photo[-1] if message.photo else message.document, getattr(message.document, "mime_type", None)
        if kind and not kind.startswith(("image/", "application/octet-stream")):
            raise ValueError(f"That file is no picture, but {kind}. {STRANGE}")
        self.check_bytes(file.file_size or 0)
        return file.file_id

    def check_bytes(self, count: int) -> None:
        if count > self.max_bytes:
            raise ValueError(f"That file has {count / 1e6:.1f} MB, and I may take {self.max_bytes / 1e6:g} MB. "
                             "Sent as a photo, not as a file, it becomes smaller.")

    # What users see of the work

    def progress(self, job: Job) -> str:
        line = [one for one in self.waiting.jobs.values() if one.slow == job.slow]
        if line[0] is not job:
            return f"You are number {1 + line.index(job)} in line."
        bar = int(10 * job.done)
        return f"Painting slowly {'▓' * bar}{'░' * (10 - bar)} {100 * job.done:.0f} %" if job.slow else "Painting …"

    async def show(self, job: Job) -> None:
        async with job.editing:  # or an old report might arrive after the last one
            if self.waits(job) and (text := self.progress(job)) != job.shown:
                await self.tell(job, text, InlineKeyboardMarkup([[button("Cancel", "stop", job.strength, job.slow)]]))
                job.shown = text

    async def report(self) -> None:
        while True:
            await asyncio.sleep(self.pause)
            for job in list(self.waiting.jobs.values()):
                try:
                    await self.show(job)
                except Forbidden:
                    self.drop(job)
                except TelegramError as error:
                    LOG.warning("Progress could not be shown: %s", error)

    async def finish(self, job: Job, text: str) -> None:
        """Take a job out of the line, and give its message a last text and the buttons."""
        self.drop(job)
        try:
            async with job.editing:
                await self.tell(job, text, menu(job.strength, job.slow))
        except TelegramError as error:
            LOG.warning("An answer could not be sent: %s", error)

    async def tell(self, job: Job, text: str, buttons: InlineKeyboardMarkup) -> None:
        """Edit the message of a job; if the user has deleted it, send another one."""
        try:
            await self.bot.edit_message_text(text, job.chat, job.message, reply_markup=buttons)
        except BadRequest as error:
            if "not modified" not in str(error):
                job.message = (await self.bot.send_message(job.chat, text, reply_markup=buttons, **reply_to(job))).message_id

    def drop(self, job: Job) -> None:
        if self.waits(job):
            del self.waiting.jobs[job.chat]
        try:
            self.waiting.write()
        except OSError as error:  # a full disk is no reason to keep an answer back
            LOG.error("%s", error)

    def waits(self, job: Job) -> bool:
        return self.waiting.jobs.get(job.chat) is job  # neither answered nor cancelled

    # The work

    async def begin(self, application: Application) -> None:
        """Go on with those who wait since the last time."""
        self.bot = application.bot
        await self.bot.set_my_commands([("start", "what this is"), ("styles", "the styles"), ("help", "how it works")])
        for job in self.waiting.jobs.values():
            self.lines[job.slow].put_nowait(job)
        self.workers = [asyncio.create_task(work) for work in (*map(self.serve, self.lines.values()), self.report())]

    async def end(self, _) -> None:
        """Finish the step or the quick picture under way, and tell those who wait."""
        self.stopping = True
        for line in self.lines.values():
            line.put_nowait(None)
        self.workers.pop().cancel()  # the reports
        await asyncio.gather(*self.workers)
        self.thread.shutdown()
        said = [self.bot.send_message(job.chat, STOPPED, **reply_to(job)) for job in self.waiting.jobs.values()]
        for error in await asyncio.gather(*said, return_exceptions=True):
            if isinstance(error, Exception):
                LOG.warning("One who waits could not be told: %s", error)

    async def serve(self, line: asyncio.Queue) -> None:
        while (job := await line.get()) and not self.stopping:
            if self.waits(job):
                await self.work(job)

    async def work(self, job: Job) -> None:
        """One job from line to answer, whatever happens."""
        began, job.tries = time.perf_counter(), job.tries + 1
        try:
            self.waiting.write()
            if job.tries > TRIES:
                raise RuntimeError(f"a job was begun {TRIES} times and never ended")
            image = await self.paint(job)
            if not self.waits(job):
                return
            if image is None:  # the bot stops: the job goes on when it begins again
                job.tries -= 1
                return self.waiting.write()
            about = f"{title(job.style)}, {job.strength} %, painted in {time.perf_counter() - began:.1f} s."
            LOG.info(about)
            await self.finish(job, f"{about} Another one?" if await self.send(job, image, about) else UNSURE)
        except Forbidden:  # the user has blocked the bot
            self.drop(job)
        except ValueError as error:
            await self.finish(job, str(error))
        except Exception as error:
            LOG.exception("A job failed.")
            if isinstance(error, NetworkError) and not isinstance(error, BadRequest) and job.tries < TRIES:
                self.lines[job.slow].put_nowait(job)
            else:
                await self.finish(job, SORRY)

    async def send(self, job: Job, image: Tensor, about: str) -> bool:
        """Send the picture; False if nobody knows whether it arrived."""
        try:
            return bool(await self.bot.send_photo(job.chat, await self.run(jpeg, image), about, **reply_to(job)))
        except NetworkError as error:
            if not unsure(error):
                raise
            return False

    async def run(self, function: Callable, *arguments):
        return await asyncio.get_running_loop().run_in_executor(self.thread, function, *arguments)

    async def paint(self, job: Job) -> Tensor | None:
        """The picture (1, 3, H, W); None if it was cancelled or the bot stops. ValueError says what is wrong with a picture."""
        size = max(self.sizes) if job.slow else self.size
        content = await self.run(self.read, await self.fetch(job.content), size)
        style = STYLES[job.style].read_bytes() if job.style in STYLES else await self.fetch(job.style)
        style = await self.run(self.read, style, size)
        if not job.slow:
            return await self.run(partial(self.network.stylize, content, style, alpha=job.strength / 100))
        steps, step = nst.coarse_to_fine(content, style, sizes=self.sizes, steps=self.steps, tv_weight=10,
                                         style_weight=STRENGTHS[job.strength]), None
        while self.waits(job) and not self.stopping and (following := await self.run(next, steps, None)):
            step, job.done = following, following.index / sum(nst.step_counts(self.steps, self.sizes))
        return step.image if step and step.reason else None

    async def fetch(self, file_id: str) -> bytes:
        """A picture from Telegram into memory."""
        try:
            file = await self.bot.get_file(file_id)
        except BadRequest as error:
            raise ValueError(f"{GONE} ({error})") from error
        self.check_bytes(file.file_size or 0)
        content = bytes(await insist(file.download_as_bytearray))
        self.check_bytes(len(content))
        return content

    def read(self, content: bytes, size: int) -> Tensor:
        """A picture (1, 3, H, W), its long side at most `size`; ValueError with a sentence for the user if it can't be one."""
        self.check_header(content)
        try:
            image = nst.load_image(content)
            return nst.resize(image, min(size, max(image.shape[-2:])))
        except ValueError as error:
            sentence = re.sub(": cannot identify image file <.*>", "", str(error))
            raise ValueError(sentence.replace("these bytes", "That file")) from error

    def check_header(self, content: bytes) -> None:
        """ValueError if a picture's header, without its pixels, says that it can't be painted."""
        nst.beside("pictures")  # teaches PIL the formats of phones
        try:
            with warnings.catch_warnings(action="ignore"), Image.open(io.BytesIO(content)) as picture:
                (width, height), kind = picture.size, picture.format
        except Image.DecompressionBombError:
            raise ValueError(f"That picture has far more pixels than the {self.max_pixels / 1e6:g} million I take.") from None
        except Exception:  # a damaged file makes PIL raise anything: `load_image` has a sentence for it
            return
        if kind not in FORMATS:
            raise ValueError(f"That file is of the format {kind}, and I take {', '.join(sorted(FORMATS))}.")
        size = f"That picture has {width} x {height} pixels"
        if width * height > self.max_pixels:
            raise ValueError(f"{size}, more than the {self.max_pixels / 1e6:g} million that I take.")
        if min(width, height) < 32:
            raise ValueError(f"{size}: I need 32 on each side.")
        if max(width, height) > 8 * min(width, height):  # with a long side of 256 it has 32 on the other
            raise ValueError(f"{size}: its sides differ too much.")


def reply_to(job: Job) -> dict:
    return {"reply_parameters": ReplyParameters(job.photo, allow_sending_without_reply=True)}


def jpeg(image: Tensor) -> bytes:
    """An image as a JPEG of nothing but its pixels."""
    stream = io.BytesIO()
    nst.to_pil(image).save(stream, "JPEG", **nst.beside("pictures")["OPTIONS"][".jpg"])
    return stream.getvalue()


# --- Telegram ---------------------------------------------------------------------------------------------------------


def unsure(error: Exception) -> bool:
    """Whether the connection broke so that nobody knows what Telegram has done."""
    unsent = httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout
    return isinstance(error.__cause__, httpx.HTTPError) and not isinstance(error.__cause__, unsent)


async def insist(action: Callable[[], Awaitable], *, repeatable: bool = True):
    """What action() returns, tried again while the network or a server of Telegram fails; not if it might then act twice."""
    for pause in PAUSES:
        try:
            return await action()
        except NetworkError as error:
            if isinstance(error, BadRequest) or unsure(error) and not repeatable:
                raise
            await asyncio.sleep(pause)
    return await action()


class Patient(ext.AIORateLimiter):
    """The library's flood control, which waits as long as a 429 says, and `insist` for all other failures."""

    async def process_request(self, callback, args, kwargs, endpoint, data, rate_limit_args):
        request = partial(super().process_request, callback, args, kwargs, endpoint, data, rate_limit_args)
        return await insist(request, repeatable=not endpoint.startswith("send"))


class OneByOne(asyncio.Queue):
    """A queue whose `put` returns when the item was dealt with: the library confirms updates after it has put them."""

    async def put(self, item) -> None:
        await super().put(item)
        await self.join()


def keep_secret(token: str) -> None:
    """Let no record of any logger show the token, neither in its message nor in its traceback: addresses of requests hold it."""
    make, secret = logging.getLogRecordFactory(), token.rpartition(":")[2]

    def record(*arguments, **options) -> logging.LogRecord:
        one = make(*arguments, **options)
        one.msg, one.args = one.getMessage().replace(secret, "..."), ()  # now: what is logged may change before it is written
        if one.exc_info and any(one.exc_info):
            one.exc_text, one.exc_info = "".join(traceback.format_exception(*one.exc_info)).replace(secret, "..."), None
        return one

    logging.setLogRecordFactory(record)


def application(token: str, bot: PaintingBot, *, api: str = "https://api.telegram.org") -> Application:
    """The bot as an application of python-telegram-bot, for its `run_polling`. api: address of the Bot API server."""
    keep_secret(token)
    app = (Application.builder().token(token).base_url(f"{api}/bot").base_file_url(f"{api}/file/bot")
           .rate_limiter(Patient(max_retries=10)).update_queue(OneByOne()).post_init(bot.begin).post_stop(bot.end)
           .connect_timeout(10).read_timeout(30).write_timeout(30).media_write_timeout(120).pool_timeout(10).build())
    private = filters.UpdateType.MESSAGE & filters.ChatType.PRIVATE
    app.add_handler(TypeHandler(Update, partial(once, bot.waiting)), -1)
    app.add_handlers([
        CommandHandler(("start", "help"), bot.start, private), CommandHandler("styles", bot.styles, private),
        MessageHandler(private & (filters.PHOTO | filters.Document.ALL), bot.picture),
        MessageHandler(private & ~filters.StatusUpdate.ALL, partial(say, STRANGE)),
        CommandHandler(("start", "help", "styles"), partial(say, GROUP), filters.UpdateType.MESSAGE & ~filters.ChatType.PRIVATE),
        CallbackQueryHandler(bot.press, BUTTONS), CallbackQueryHandler(partial(say, GONE))])
    app.add_handler(TypeHandler(Update, partial(handled, bot.waiting)), 1)
    app.add_error_handler(trouble)
    return app


async def say(text: str, update: Update, _) -> None:
    """One sentence in answer to a message, or to a button that has lost its meaning."""
    await (update.message.reply_text(text) if update.message else update.callback_query.answer(text, show_alert=True))


async def once(waiting: Waiting, update: Update, _) -> None:
    if update.update_id in waiting.seen:
        raise ext.ApplicationHandlerStop


async def handled(waiting: Waiting, update: Update, _) -> None:
    waiting.write(update)


async def trouble(update: object, context) -> None:
    """What went wrong in a conversation, or in asking for updates: an apology, and the bot goes on."""
    expected = isinstance(context.error, NetworkError | Forbidden)
    LOG.log(logging.WARNING if expected else logging.ERROR, "%s", context.error, exc_info=None if expected else context.error)
    if isinstance(update, Update) and update.effective_chat and not isinstance(context.error, Forbidden):
        with suppress(TelegramError):
            await update.effective_chat.send_message(SORRY)


def main() -> None:
    parser = argparse.ArgumentParser(description=f"Runs the bot whose token is in the environment variable {VARIABLE}.")
    parser.add_argument("--folder", default="~/.nst_bot", help="where it notes who waits (default: %(default)s)")
    parser.add_argument("--size", type=int, default=1024, help="long side of quick pictures in pixels (default: %(default)s)")
    parser.add_argument("--api", default="https://api.telegram.org", help="Bot API server (default: %(default)s)")
    options, token = parser.parse_args(), os.environ.pop(VARIABLE, "")  # popped: nothing that is started later inherits it
    if not token:
        sys.exit(f"{VARIABLE} is not set: put the token there that @BotFather gave you.")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)  # a line for each request
    try:
        bot = PaintingBot(options.folder, size=options.size)
        application(token, bot, api=options.api).run_polling(allowed_updates=["message", "callback_query"], bootstrap_retries=-1)
    except InvalidToken:
        sys.exit(f"Telegram does not know the token in {VARIABLE}; @BotFather has the right one.")
    except (ValueError, OSError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()

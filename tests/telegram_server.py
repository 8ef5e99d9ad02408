"""A small Bot API server on loopback, for the tests of the bot and for its notebook, with users who talk to the bot.

It does what api.telegram.org does with the calls that the bot makes: an update is given again until a later offset confirms it,
an edit that changes nothing is an error, a file is known by its id for ever. What goes wrong there can be asked for: `fail`,
`delays`, `blocked`.
"""
from __future__ import annotations

import asyncio
import io
import json
import os
import threading
import time
from collections import defaultdict
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

from PIL import Image
from tornado.httputil import parse_body_arguments

TOKEN = "424242:AAnotARealTokenButAsLongAsOneIs00000"
PATIENCE = 25  # seconds until a user gives up waiting


class Refused(Exception):
    """An answer other than 200: status, description, and retry_after of a 429."""


class TelegramServer:
    """`with TelegramServer() as server`: its address is `server.api`; `server.user(name)` is somebody with a telephone.

    chats: messages by chat, as the user sees them. files: content by file_id. calls: (seconds, method, parameters), in the order
    of their coming. delays: seconds that the next calls of a method take on their way. blocked: chats that answer 403.
    """

    def __init__(self):
        self.changed, self.chats, self.files = threading.Condition(threading.RLock()), defaultdict(dict), {}
        self.calls, self.updates, self.blocked, self.failures, self.notes = [], [], set(), defaultdict(list), defaultdict(list)
        self.next_id, self.open, self.delays = 1000, True, defaultdict(list)

    def __enter__(self) -> TelegramServer:
        handler = type("Handler", (_Handler,), {"telegram": self})
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.http.daemon_threads = True
        os.environ["NO_PROXY"] = ",".join(filter(None, [os.environ.get("NO_PROXY"), "127.0.0.1"]))
        self.api = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_) -> None:
        with self.changed:
            self.open = False
            self.changed.notify_all()
        self.http.shutdown()
        self.http.server_close()

    def new_id(self) -> int:
        with self.changed:
            self.next_id += 1
            return self.next_id

    def user(self, name: str, **chat) -> User:
        return User(self, self.new_id(), name, chat)

    def fail(self, method: str, status: int, times: int = 1, **more) -> None:
        """Let the next calls of a method be answered by an error; status 0 does what was asked and breaks the connection."""
        self.failures[method] += [(status, more)] * times

    def deliver(self, **update) -> dict:
        """Queue an update for the bot."""
        with self.changed:
            self.updates.append({"update_id": self.new_id()} | update)
            self.changed.notify_all()
            return self.updates[-1]

    def count(self, method: str) -> int:
        return sum(name == method for _, name, _ in self.calls)

    def keep(self, content: bytes) -> str:
        name = f"file{self.new_id()}"
        self.files[name] = content
        return name

    def post(self, place: int, /, **message) -> dict:
        """Put a message into a chat."""
        with self.changed:
            message = {"message_id": self.new_id(), "date": int(time.time()), "chat": {"id": place, "type": "private"}} | message
            self.chats[place][message["message_id"]] = message
            self.changed.notify_all()
            return message

    def answer(self, method: str, asked: dict, files: dict):
        with self.changed:
            self.calls.append((time.monotonic(), method, asked))
            status, more = self.failures[method].pop(0) if self.failures[method] else (None, {})
            if status:
                raise Refused(status, f"{status} as asked for", more)
            if asked.get("chat_id") in self.blocked:
                raise Refused(403, "Forbidden: bot was blocked by the user", {})
            result = getattr(self, method, lambda *_: True)(asked, files)
            if status == 0:
                raise ConnectionResetError
            return result

    # Methods of the Bot API, by their names

    def getMe(self, *_):
        return {"id": 424242, "is_bot": True, "first_name": "Painter", "username": "painter_bot"}

    def getUpdates(self, asked, _):
        self.updates = [update for update in self.updates if update["update_id"] >= asked.get("offset", 0)]
        self.changed.wait_for(lambda: self.updates or not self.open, asked.get("timeout", 0))
        return self.updates[:100]

    def sendMessage(self, asked, files, **more):
        replied = asked.get("reply_parameters", {})
        original = self.chats[asked["chat_id"]].get(replied.get("message_id"))
        if replied and not original and not replied.get("allow_sending_without_reply"):
            raise Refused(400, "Bad Request: message to be replied not found", {})
        more |= {key: asked[key] for key in ("text", "caption", "reply_markup") if key in asked}
        more |= {"reply_to_message": {k: v for k, v in original.items() if k != "reply_to_message"}} if original else {}
        return self.post(asked["chat_id"], **{"from": self.getMe()}, **more)

    def photo(self, file_id: str) -> dict:
        width, height = Image.open(io.BytesIO(self.files[file_id])).size
        if width + height > 10_000 or max(width, height) > 20 * min(width, height):
            raise Refused(400, "Bad Request: PHOTO_INVALID_DIMENSIONS", {})
        size = {"file_id": file_id, "file_unique_id": file_id, "width": width, "height": height}
        return {"photo": [size | {"file_size": len(self.files[file_id])}]}

    def sendPhoto(self, asked, files):
        return self.sendMessage(asked, files, **self.photo(self.keep(files["photo"])))

    def sendMediaGroup(self, asked, files):
        ids = [self.keep(files[name[len("attach://"):]]) if name.startswith("attach://") else name
               for name in (media["media"] for media in asked["media"])]
        return [self.sendMessage(asked | {"caption": media["caption"]}, files, **self.photo(file_id))
                for media, file_id in zip(asked["media"], ids)]

    def editMessageText(self, asked, _):
        message = self.chats[asked["chat_id"]].get(asked["message_id"])
        if message is None:
            raise Refused(400, "Bad Request: message to edit not found", {})
        if all(message.get(key) == asked.get(key) for key in ("text", "reply_markup")):
            raise Refused(400, "Bad Request: message is not modified", {})
        message |= {"text": asked["text"], "reply_markup": asked.get("reply_markup", {"inline_keyboard": []})}
        self.changed.notify_all()
        return message

    def answerCallbackQuery(self, asked, _):
        self.notes[str(asked["callback_query_id"])].append(asked.get("text", ""))
        self.changed.notify_all()
        return True

    def getFile(self, asked, _):
        content = self.files.get(asked["file_id"])
        if content is None:
            raise Refused(400, "Bad Request: wrong file_id or the file is temporarily unavailable", {})
        if len(content) > 20 * 2**20:
            raise Refused(400, "Bad Request: file is too big", {})
        return {"file_id": asked["file_id"], "file_unique_id": asked["file_id"], "file_path": f"p/{asked['file_id']}"}


class _Handler(BaseHTTPRequestHandler):
    protocol_version, telegram = "HTTP/1.1", None

    def log_message(self, *_) -> None:
        pass

    def do_GET(self) -> None:  # a file
        content = self.telegram.files.get(self.path.rpartition("/")[2])
        known = unquote(self.path).startswith(f"/file/bot{TOKEN}/") and content is not None
        self.reply(200 if known else 404, content if known else b"{}")

    def do_POST(self) -> None:
        values, uploads = {}, {}
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parse_body_arguments(self.headers.get("Content-Type", ""), body, values, uploads)
        asked = {name: _value(value[0].decode()) for name, value in values.items()}
        token, _, method = self.path.removeprefix("/bot").partition("/")
        try:
            if token != TOKEN:
                raise Refused(401, "Unauthorized", {})
            time.sleep(self.telegram.delays[method].pop(0) if self.telegram.delays[method] else 0)
            result = self.telegram.answer(method, asked, {name: files[0]["body"] for name, files in uploads.items()})
            self.reply(200, json.dumps({"ok": True, "result": result}).encode())
        except Refused as error:
            status, description, more = error.args
            told = {"ok": False, "error_code": status, "description": description, "parameters": more}
            self.reply(status, b"<html>Bad Gateway</html>" if status == 502 else json.dumps(told).encode())
        except ConnectionResetError:
            self.close_connection = True

    def reply(self, status: int, content: bytes) -> None:
        try:
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)
        except OSError:  # the bot was killed
            self.close_connection = True


def _value(text: str):
    try:
        return json.loads(text)
    except ValueError:
        return text


class User:
    """Somebody who talks to the bot; what they do returns the message or, of a press, the id under which its note comes."""

    def __init__(self, server: TelegramServer, chat: int, name: str, kind: dict):
        self.server, self.chat, self.name = server, chat, name
        self.about = {"from": {"id": chat, "is_bot": False, "first_name": name},
                      "chat": {"id": chat, "type": "private", "first_name": name} | kind}

    def sends(self, **message) -> dict:
        message = self.server.post(self.chat, **self.about, **message)
        self.server.deliver(message=message)
        return message

    def writes(self, text: str, **more) -> dict:
        command = {"entities": [{"type": "bot_command", "offset": 0, "length": len(text)}]} if text.startswith("/") else {}
        return self.sends(text=text, **command, **more)

    def sends_photo(self, content: bytes, **more) -> dict:
        return self.sends(**self.server.photo(self.server.keep(content)), **more)

    def sends_file(self, content: bytes, name: str = "picture.jpg", kind: str = "image/jpeg", **more) -> dict:
        file_id = self.server.keep(content)
        return self.sends(document={"file_id": file_id, "file_unique_id": file_id, "file_name": name, "mime_type": kind,
                                    "file_size": len(content)} | more)

    def presses(self, label: str, message: dict | None = None) -> str:
        """Press the button with this label under a message, by default under the last one that has it."""
        message = message or self.waits_for(lambda one: label in labels(one))
        data = next(one["callback_data"] for one in buttons(message) if one["text"] == label)
        return self.presses_data(data, message)

    def presses_data(self, data: str, message: dict) -> str:
        query = str(self.server.new_id())
        self.server.deliver(callback_query={"id": query, "from": self.about["from"], "chat_instance": "1", "data": data,
                                            "message": json.loads(json.dumps(message))})
        return query

    @property
    def received(self) -> list[dict]:
        return [message for message in self.server.chats[self.chat].values() if message["from"]["is_bot"]]

    @property
    def pictures(self) -> list[bytes]:
        return [self.server.files[message["photo"][-1]["file_id"]] for message in self.received if "photo" in message]

    def waits_for(self, wanted) -> dict:
        """The last message of the bot for which wanted(message) holds, or that has this text in it."""
        holds = wanted if callable(wanted) else lambda message: wanted in message.get("text", message.get("caption", ""))
        found = lambda: next(filter(holds, reversed(self.received)), None)  # noqa: E731
        with self.server.changed:
            if not self.server.changed.wait_for(found, PATIENCE):
                raise AssertionError(f"{self.name} waited in vain; the last messages are {self.received[-2:]}")
            return found()

    def note(self, query: str) -> str:
        """What appeared over the conversation after a press."""
        with self.server.changed:
            assert self.server.changed.wait_for(lambda: self.server.notes[query], PATIENCE), "no answer to a button"
            return self.server.notes[query][0]


def buttons(message: dict) -> list[dict]:
    return [one for row in message.get("reply_markup", {}).get("inline_keyboard", ()) for one in row]


def labels(message: dict) -> list[str]:
    return [one["text"] for one in buttons(message)]


@contextmanager
def running(make):
    """Runs the application that make() returns in a thread with an event loop of its own; ends it as SIGTERM would."""
    box, ready = {}, threading.Event()

    def run() -> None:
        asyncio.set_event_loop(asyncio.new_event_loop())
        box["loop"], box["app"] = asyncio.get_event_loop(), make()
        box["loop"].call_soon(ready.set)
        box["app"].run_polling(stop_signals=None)

    thread = threading.Thread(target=run, name="bot")
    thread.start()
    assert ready.wait(PATIENCE)
    try:
        yield box["app"]
    finally:
        while thread.is_alive() and not box["app"].running:  # it is still beginning
            time.sleep(0.01)
        if thread.is_alive():
            box["loop"].call_soon_threadsafe(box["app"].stop_running)
        thread.join()

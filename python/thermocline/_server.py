"""A server of one's own, for notebooks and tests."""

import json
import os
import queue
import subprocess
import tempfile
import threading
import time
from pathlib import Path

from ._program import PROGRAM


class Server:
    """A running server. `stop`, the end of a `with` block and the end of this program all end it."""

    def __init__(self, process, directory, url, log):
        self._process, self._directory = process, directory
        self.url = url
        self.log = log

    def connect(self, **options):
        """As `thermocline.connect`, to this server."""
        from ._connection import connect

        return connect(self.url, **options)

    def stop(self, timeout=30):
        """Lets running queries finish, and ends the server."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(timeout)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._process.stdin.close()
        self._process.stdout.close()
        self._directory.cleanup()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def __repr__(self):
        return f"<thermocline server on {self.url}>"


def start(config, *, catalog=None, timeout=60):
    """Starts a server and waits until it listens.

    `config` is the path of a configuration file, or a dictionary of its sections. In a dictionary the addresses default to
    free ports of this machine; `catalog` is the catalog's text (TOML), where `config["catalog"]["path"]` names no file.
    """
    directory = tempfile.TemporaryDirectory(prefix="thermocline-")
    try:
        path = _configure(config, catalog, Path(directory.name))
        log = Path(directory.name) / "server.log"
        with open(log, "wb") as errors:
            process = subprocess.Popen(
                # The shell ends the server when this program is gone, however it ended: the pipe closes.
                ["/bin/sh", "-c", _KEEPER, "thermocline", PROGRAM, "serve", "--config", str(path)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                start_new_session=True,
            )
        try:
            url = _listening(process, timeout)
        except BaseException:
            process.terminate()
            process.wait()
            raise RuntimeError("the server did not start:\n" + log.read_text(errors="replace")) from None
        return Server(process, directory, url, log)
    except BaseException:
        directory.cleanup()
        raise


_KEEPER = """
exec 3<&0 </dev/null
"$@" 3<&- & server=$!
trap 'kill -TERM $server' TERM INT
(read -r _ <&3; kill -TERM $server) 2>/dev/null & watch=$!
exec 3<&-
wait $server; code=$?
while kill -0 $server 2>/dev/null; do wait $server; code=$?; done
kill $watch 2>/dev/null
exit $code
"""


def _listening(process, timeout):
    lines = queue.SimpleQueue()

    def read():
        for line in process.stdout:
            lines.put(line)
        lines.put(None)

    threading.Thread(target=read, daemon=True).start()
    deadline = time.monotonic() + timeout
    while (line := lines.get(timeout=max(0.0, deadline - time.monotonic()))) is not None:
        if line.startswith("listening on "):
            return line.removeprefix("listening on ").strip()
    raise RuntimeError("it ended")


def _configure(config, catalog, directory):
    if isinstance(config, (str, os.PathLike)):
        return Path(config)
    sections = {name: dict(values) for name, values in config.items()}
    server = sections.setdefault("server", {})
    server.setdefault("listen", "127.0.0.1:0")
    server.setdefault("admin_listen", "127.0.0.1:0")
    if catalog is not None:
        (directory / "catalog.toml").write_text(catalog)
        sections["catalog"] = {"path": str(directory / "catalog.toml")}
    path = directory / "thermocline.toml"
    path.write_text("".join(_table(name, values) for name, values in sections.items()))
    return path


def _table(name, values):
    """A section as TOML, whose strings, numbers, booleans and lists are written as JSON's."""
    own = {key: value for key, value in values.items() if not isinstance(value, dict)}
    inner = {key: value for key, value in values.items() if isinstance(value, dict)}
    lines = [f"{json.dumps(key)} = {json.dumps(value)}\n" for key, value in own.items()]
    return f"[{name}]\n" + "".join(lines) + "".join(_table(f"{name}.{key}", value) for key, value in inner.items())

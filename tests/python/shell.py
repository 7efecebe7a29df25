"""Drives `thermocline sql` in a pseudo-terminal, as a user would: THERMOCLINE_BIN names the program, THERMOCLINE_SERVER
the server, the first argument an empty directory."""

import fcntl
import os
import pty
import re
import select
import struct
import sys
import termios
import time
from pathlib import Path

DIRECTORY = Path(sys.argv[1])
PROMPT = "thermocline> "
CTRL_C, CTRL_D, UP, TAB = "\x03", "\x04", "\x1b[A", "\t"
# The editor switches to pasted text as a whole when it begins to listen.
READY_CODE, READY = "\x1b[?2004h", "<ready>"
SCREEN_CODES = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]|\x1b[=>]|\x1b\]0;.*?\x07")


class Shell:
    def __init__(self, *, columns=80, rows=40, **environment):
        self.raw = ""
        self.seen = ""
        self.checked = 0
        self.pid, self.terminal = pty.fork()
        if self.pid == 0:
            inherited = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
            variables = {
                **inherited,
                "TERM": "xterm-256color",
                "PAGER": "cat",
                "THERMOCLINE_HISTORY": str(DIRECTORY / "history"),
                **environment,
            }
            os.chdir(DIRECTORY)
            os.execve(os.environ["THERMOCLINE_BIN"], ["thermocline", "sql"], variables)
        self.resize(columns, rows)
        self.prompt()

    def resize(self, columns, rows):
        fcntl.ioctl(self.terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, text):
        os.write(self.terminal, text.encode())

    def read(self, deadline):
        """More of what is on the terminal; False when the shell is gone."""
        if not select.select([self.terminal], [], [], max(0.0, deadline - time.monotonic()))[0]:
            raise AssertionError(f"nothing more came after:\n{self.seen[self.checked:]}")
        try:
            more = os.read(self.terminal, 65536)
        except OSError:
            return False
        self.raw += more.decode(errors="replace")
        # Without colours and movements; a code that came by half is whole next time.
        self.seen = SCREEN_CODES.sub("", self.raw.replace(READY_CODE, READY))
        return bool(more)

    def expect(self, wanted, seconds=20):
        """Waits for a text that comes after the last one that was waited for; gives what stood before it."""
        deadline = time.monotonic() + seconds
        while (at := self.seen.find(wanted, self.checked)) < 0:
            if not self.read(deadline):
                raise AssertionError(f"the shell ended before {wanted!r} came:\n{self.seen[self.checked:]}")
        before = self.seen[self.checked : at]
        self.checked = at + len(wanted)
        return before

    def table(self):
        """Waits for a whole table and gives it."""
        return self.expect("└")

    def prompt(self):
        """Waits until the shell listens anew. The prompt alone doesn't tell: it is drawn again with every key."""
        self.expect(READY)
        self.expect(PROMPT)

    def end(self):
        """Waits for the shell's end and gives its exit code."""
        deadline = time.monotonic() + 60
        while self.read(deadline):
            pass
        _, status = os.waitpid(self.pid, 0)
        os.close(self.terminal)
        return os.waitstatus_to_exitcode(status)


def has(text, *wanted):
    for part in wanted:
        assert part in text, f"no {part!r} in:\n{text}"


shell = Shell()

# Several lines until the semicolon, a table, colours.
shell.type("SELECT name,\r")
shell.type("n FROM things ORDER BY n;\r")
has(shell.table(), "│ name", "│ varchar", "two", "┌")
shell.expect("2 rows")
shell.prompt()
has(shell.raw, "\x1b[1;34m")

# Completion: a keyword, a table, a column of the table that comes later.
shell.type("SELEC" + TAB)
shell.type(" count(*) AS many FROM thi" + TAB)
shell.type(" WHERE n = 2;\r")
has(shell.table(), "many")
shell.prompt()
shell.type("\\ti" + TAB + TAB)
shell.expect("\\timing")
shell.type(CTRL_C)
shell.prompt()

# An error with its place; the shell goes on.
shell.type("SELECT nothing FROM things;\r")
has(shell.expect("query id"), "error:", "nothing", "^")
shell.prompt()

# The history, and what was pasted as a whole.
shell.type(UP)
shell.expect("nothing")
shell.type(CTRL_C)
shell.prompt()
shell.type("\x1b[200~SELECT 41 + 1 AS a;\nSELECT 50 + 1 AS b;\x1b[201~\r")
has(shell.expect(" 51 │"), " 42 │")
shell.prompt()

# Commands.
shell.type("\\d\r")
has(shell.table(), "things")
shell.prompt()
shell.type("\\d things\r")
has(shell.table(), "row_id", "updated_at")
shell.prompt()
shell.type("\\plan\r")
shell.expect("· query ")
shell.prompt()
shell.type("\\tiers\r")
has(shell.table(), "cold", "hot")
shell.prompt()
shell.type("\\set consistency eventual\r")
shell.prompt()
shell.type("\\set\r")
has(shell.table(), "eventual")
shell.prompt()
shell.type("\\set consistency sometimes\r")
shell.expect("error:")
shell.expect("expected strict or eventual")
shell.prompt()
shell.type("\\timing\r")
shell.expect("timing is on")
shell.type("SELECT 7 AS seven;\r")
shell.expect(" · translation ")
shell.prompt()
shell.type("\\nonsense\r")
shell.expect("there is no command")
shell.prompt()
shell.type("\\?\r")
shell.expect("\\timing")
shell.prompt()

# A file, once.
shell.type("\\o things.parquet\r")
shell.prompt()
shell.type("SELECT * FROM things;\r")
shell.expect("2 rows in things.parquet")
shell.prompt()
assert (DIRECTORY / "things.parquet").read_bytes()[:4] == b"PAR1"
(DIRECTORY / "two.sql").write_text("-- two\nSELECT 'first' AS x;\n\\timing\nSELECT 'second' AS x;\n")
shell.type("\\i two.sql\r")
has(shell.expect("│ second"), "│ first", "timing is off")
shell.prompt()

# What the terminal can't show stays in the table; long results say so.
shell.type("SELECT chr(27) || '[31mred' AS hostile;\r")
shell.expect("\\u{1b}[31mred")
shell.prompt()
shell.type("SELECT * FROM range(20000);\r")
shell.expect("20,000 rows (10,000 shown")
shell.prompt()

# A narrow terminal, from now on.
shell.resize(40, 20)
shell.type("SELECT repeat('x', 200) AS long;\r")
has(shell.table(), "…")
shell.prompt()
shell.resize(80, 40)

# Ctrl-C ends the query and not the shell; the progress line was there.
endless = "SELECT count(*) FROM range(1000000) a, range(1000000) b WHERE hash(a.range + b.range) = 1;"
shell.type(endless + " SELECT 'not' || ' asked';\r")
shell.expect("Ctrl-C cancels")
shell.type(CTRL_C)
shell.expect("cancelled")
shell.prompt()
assert "not asked" not in shell.seen
shell.type("SELECT state FROM system.queries WHERE sql LIKE '%1000000%' AND sql NOT LIKE '%system%';\r")
has(shell.table(), "cancelled")
shell.prompt()
shell.type(CTRL_D)
assert shell.end() == 0

# Another shell has the history.
shell = Shell()
shell.type(UP)
shell.expect("system.queries")
shell.type(CTRL_C)
shell.prompt()
shell.type("quit\r")
assert shell.end() == 0

# No colours where they aren't wanted.
shell = Shell(NO_COLOR="1", THERMOCLINE_HISTORY="")
shell.type("SELECT 'x' AS y;\r")
shell.table()
assert "\x1b[1;34m" not in shell.raw and "\x1b[2m" not in shell.raw, shell.raw
shell.prompt()
shell.type(CTRL_D)
assert shell.end() == 0
print("the shell did it all")

"""What the Python package promises, against a server of its own. The first argument is a configuration file."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import thermocline

CONFIG = sys.argv[1]
COMMAND = str(Path(sys.executable).parent / "thermocline")

# The package under test is the one that was installed, and the command is the program in it.
assert Path(thermocline.__file__).is_relative_to(sys.prefix), thermocline.__file__
version = subprocess.run([COMMAND, "--version"], check=True, capture_output=True, text=True).stdout
assert version.startswith("thermocline "), version


def is_running(pid):
    return Path(f"/proc/{pid}").exists() and "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()


def children(pid):
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def wait_for_end(pids):
    deadline = time.monotonic() + 60
    while any(map(is_running, pids)):
        assert time.monotonic() < deadline, f"{pids} still run"
        time.sleep(0.05)


with thermocline.start(CONFIG) as server:
    pids = children(server._process.pid)
    libraries = "".join(Path(f"/proc/{pid}/maps").read_text() for pid in pids if is_running(pid))
    assert f"{sys.prefix}" in libraries and "libduckdb.so" in libraries
    loaded = {line.split()[-1] for line in libraries.splitlines() if "libduckdb" in line}
    assert all(path.startswith(os.path.realpath(sys.prefix)) for path in loaded), loaded

    connection = server.connect()
    with connection.cursor() as cursor:
        cursor.execute("SELECT name, n FROM things ORDER BY n")
        assert cursor.fetch_arrow_table().to_pylist() == [{"name": "one", "n": 1}, {"name": "two", "n": 2}]

    plan = thermocline.plan(connection, "SELECT * FROM things WHERE name = '<b>'")
    assert plan.route == plan["route"] == plan.json["route"] and not plan.is_degraded
    assert "things" in repr(plan)
    drawn = plan._repr_html_()
    assert "<table>" in drawn and "things" in drawn and "<b>'" not in drawn, drawn
    assert thermocline.plan(connection, "SELECT * FROM things", run=True)["execution"]["rows"] == 2
    connection.close()

    # Query options as keywords.
    with thermocline.connect(server.url, tiers=["hot"], allow_partial=True, max_rows=1) as limited:
        with limited.cursor() as cursor:
            cursor.execute("SELECT name, value FROM system.options WHERE name IN ('tiers', 'allow_partial') ORDER BY name")
            # The option itself is why the second row isn't there.
            assert cursor.fetchall() == [("allow_partial", "true")]

    shell = subprocess.run(
        [COMMAND, "sql", "--server", server.url, "--format", "csv"],
        input="SELECT n FROM things WHERE name = 'two';",
        check=True,
        capture_output=True,
        text=True,
    )
    assert shell.stdout == "n\n2\n", shell.stdout
wait_for_end(pids)

# A dictionary instead of a file; a fault is told with its place.
try:
    thermocline.start({"postgres": {"url": 5}, "lake": {"url": "file:///nowhere"}})
except RuntimeError as error:
    assert "postgres.url" in str(error), error
else:
    raise AssertionError("a wrong configuration was taken")

# The server ends with the program that started it, even when that is killed.
program = f"import thermocline, sys\nserver = thermocline.start({CONFIG!r})\nprint(server._process.pid, flush=True)\nsys.stdin.read()"
starter = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
keeper = int(starter.stdout.readline())
pids = [keeper, *children(keeper)]
starter.send_signal(signal.SIGKILL)
starter.wait()
wait_for_end(pids)
print("the package works")

"""Real attacks on the sandbox, run where ``test_sandbox.py`` says; prints what came of them.

``attacks.py <folder that anybody may write to>``. Standard library and the sandbox alone, so that
it also runs as another user and with another interpreter.
"""

import json
import os
import socket
import subprocess
import sys
import time
import warnings
from pathlib import Path

from rmas_train.tools.python_tool import Limits, check, run_python

SECRET = "planted-in-the-environment"
LIMITS = Limits(seconds=2.0, memory_mib=256, processes=12, file_mib=8, output_chars=2000)

# What each protection has to stop: name -> program; {...} is filled in by ``main``.
AGAINST = {
    "network": {
        "tcp": "import socket; socket.create_connection(('127.0.0.1', {tcp}), 2).send(b'hello')",
        "udp": "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); "
        "s.sendto(b'hello', ('127.0.0.1', {udp}))",
        "abstract": "import socket; s = socket.socket(socket.AF_UNIX); "
        "s.connect('\\0rmas-test-{tcp}'); s.send(b'hello')",
        "path": "import socket; s = socket.socket(socket.AF_UNIX); s.connect('{folder}/s'); "
        "s.send(b'hello')",
        "raw_call": "import ctypes; c = ctypes.CDLL(None); f = c.socket(2, 2, 0); "
        "assert f >= 0; import struct; a = struct.pack('=H', 2) + struct.pack('>H', {udp}) + "
        "bytes([127, 0, 0, 1]) + bytes(8); assert c.sendto(f, b'hello', 5, 0, a, 16) == 5",
    },
    "files": {
        "write": "open('{folder}/written', 'w').write('x')",
        "change": "open('{folder}/shared', 'a').write('x')",
        "remove": "import os; os.remove('{folder}/shared')",
        "rename": "import os; os.rename('{folder}/shared', '{folder}/other')",
        "link": "import os; os.symlink('{folder}/shared', 'l'); open('l', 'a').write('x')",
        "climb": "open('../' * 30 + '{folder}/written', 'w').write('x')",
        "read": "print(open('{folder}/shared').read())",
        "list": "import os; print(os.listdir('{folder}'))",
        "mode": "import os; os.chmod('{folder}/shared', 0o777)",
        "mode_at": "import os\ntry:\n  f = os.open('{folder}', os.O_PATH)\n"
        "  os.chmod('shared', 0, dir_fd=f)\n"
        "except OSError: pass",
        "times": "import os; os.utime('{folder}/shared', (1, 1))",
        "attributes": "import os; os.setxattr('{folder}/shared', 'user.mine', b'x')",
        "watch": "import ctypes; c = ctypes.CDLL(None); f = c.inotify_init1(0); "
        "assert c.inotify_add_watch(f, b'{folder}', 0xfff) >= 0; print('sha' + 'red')",
        "usr": "open('/usr/rmas_written', 'w').write('x')",
        "own_world": "import ctypes, os; c = ctypes.CDLL(None); c.unshare(0x10020000); "
        "c.mount(b'none', b'/usr', None, 32 | 4096, None); c.umount2(b'/', 2); "
        "c.chroot(b'/proc/1/root'); open('{folder}/written', 'w').write('x')",
        "other_roots": "import os\nfor p in os.listdir('/proc'):\n"
        "  if p.isdigit() and int(p) > 2:\n"
        "    open('/proc/' + p + '/root{folder}/written', 'w').write('x')\n"
        "open('/proc/1/root{folder}/written', 'w').write('x')",
    },
    "processes": {
        "kill": "import os; os.kill({victim}, 9)",
        "kill_parent": "import os; os.kill({guard_parent}, 9)",
        "kill_all": "import os; os.kill(-1, 9)",
        "kill_above": "import os; os.kill(os.getppid(), 9)",
        "environment": "import glob\nfor p in glob.glob('/proc/*/environ'):\n"
        "  try: print(open(p).read())\n  except OSError: pass",
        "trace": "import ctypes; assert ctypes.CDLL(None).ptrace(16, {victim}, 0, 0) == 0",
    },
    "user": {
        "root": "import os; os.setuid(0)",
        "capabilities": "t = open('/proc/self/status').read() if __import__('os').path.exists("
        "'/proc/self/status') else 'CapEff:\\t0'; "
        "assert int(t.split('CapEff:')[1].split()[0], 16) == 0; import os; os.chroot('/usr')",
    },
}
# Ways to have 640 MiB that are in no process, with 256 MiB allowed.
AGAINST["memory"] = {
    "memfd": "import os\nfor i in range(10):\n  f = os.memfd_create('x')\n"
    "  for j in range(64): os.write(f, bytes(2**20))\nprint('ke' + 'pt')",
    "system_v": "import ctypes; c = ctypes.CDLL(None); c.shmat.restype = ctypes.c_void_p\n"
    "for i in range(10):\n  k = c.shmget(0, 2**26, 0o1600); a = c.shmat(k, None, 0)\n"
    "  assert k >= 0; ctypes.memset(a, 1, 2**26); c.shmdt(ctypes.c_void_p(a))\n"
    "print('ke' + 'pt')",
    "unmapped": "import ctypes, mmap, os; c = ctypes.CDLL(None)\n"
    "c.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]\nkept = []\n"
    "for f in (-1, *([os.open('/dev/zero', 2)] if os.access('/dev/zero', 2) else [])):\n"
    "  for i in range(10):\n    m = mmap.mmap(f, 2**26); m.write(bytes(2**26)); kept.append(m)\n"
    "    a = ctypes.addressof(ctypes.c_char.from_buffer(m)); c.munmap(a + 4096, 2**26 - 4096)\n"
    "print('ke' + 'pt')",
}
# What limits have to end, whatever protections there are.
LIMITED = {
    "fork_bomb": "import os\nwhile True:\n  try: os.fork()\n  except OSError: pass",
    "fork_and_leave": "import os\nfor i in range(200):\n  try:\n    if os.fork() == 0:\n"
    "      os.setsid()\n      if os.fork(): os._exit(0)\n      import time; time.sleep(60)\n"
    "  except OSError: pass",
    "threads": "import threading, time\nfor i in range(200):\n"
    "  threading.Thread(target=time.sleep, args=(60,), daemon=True).start()",
    "memory": "x = bytearray(10**10)",
    "memory_slowly": "x = []\nwhile True: x.append(bytearray(2**20))",
    "memory_of_many": "import os, time\nfor i in range(6):\n  if os.fork() == 0:\n"
    "    x = bytearray(b'x') * (120 * 2**20); time.sleep(60)\ntime.sleep(60)",
    "output": "while True: print('x' * 10000)",
    "output_of_bytes": "import os\nwhile True: os.write(2, bytes(range(256)) * 256)",
    "sleep": "import time; time.sleep(1000)",
    "busy": "while True: pass",
    "deaf": "import signal, time\nfor s in range(1, 32):\n"
    "  try: signal.signal(s, signal.SIG_IGN)\n  except (OSError, ValueError): pass\n"
    "time.sleep(1000)",
    "stopped": "import os, signal; os.kill(os.getpid(), signal.SIGSTOP)",
    "quiet": "import os, time; os.closerange(0, 1000); time.sleep(1000)",
    "file": "open('big', 'wb').write(bytes(64 * 2**20))",
    "files": "import os\nfor i in range(3000): open(f'f{i}', 'wb').write(bytes(2**13))\n"
    "while True: open('f', 'ab').write(bytes(2**20))",
    "deep": "import os\nfor i in range(1200):\n  os.mkdir('d'); os.chdir('d')",
    "no_rights": "import os; os.makedirs('a/b/c'); os.chmod('a/b', 0); os.chmod('a', 0)",
    "report": "import os\nfor f in range(3, 64):\n  try: os.write(f, b'{\"exit\": 7}\\n')\n"
    "  except OSError: pass\nos._exit(9)",
    "input": "import sys; assert sys.stdin.read() == ''; sys.exit(3)",
    "recursion": "f = lambda: f()\nimport sys; sys.setrecursionlimit(10**9)\nf()",
    "not_text": "import sys; sys.stdout.buffer.write(b'\\xff\\xfe\\x00'); sys.exit(4)",
    "not_python": "this is no program",
}


def servers(folder: str) -> tuple[list[socket.socket], dict[str, int]]:
    tcp, udp = socket.socket(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    abstract, path = socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)
    for each in (tcp, udp):
        each.bind(("127.0.0.1", 0))
    port = tcp.getsockname()[1]
    abstract.bind(f"\0rmas-test-{port}")
    path.bind(f"{folder}/s")
    Path(folder, "s").chmod(0o777)
    for each in (tcp, abstract, path):
        each.listen()
    every = [tcp, udp, abstract, path]
    for each in every:
        each.setblocking(False)
    return every, {"tcp": port, "udp": udp.getsockname()[1]}


def heard(every: list[socket.socket]) -> bool:
    for each in every:
        try:
            each.recv(1) if each.type == socket.SOCK_DGRAM else each.accept()
            return True
        except BlockingIOError:
            continue
    return False


def attributes(path: Path) -> tuple:
    """What stands beside a file's content."""
    about = path.stat()
    return about.st_mode, about.st_uid, about.st_mtime_ns, os.listxattr(path)


def attack_walls(
    active: frozenset[str], names: dict[str, object], every: list[socket.socket], victim: object
) -> dict[str, object]:
    """Every attack on a protection that is promised, and whether any sign of success was seen."""
    folder, found = Path(str(names["folder"])), {}
    shared = folder / "shared"
    for protection in sorted(active):
        for name, program in AGAINST[protection].items():
            shared.write_text("shared")
            before = attributes(shared)
            ran = run_python(program.format(**names), LIMITS)
            signs = {
                "heard": heard(every),
                "changed": not shared.is_file()
                or shared.read_text() != "shared"
                or attributes(shared) != before,
                "written": {p.name for p in folder.iterdir()} != {"shared", "s"},
                "secret": SECRET in ran.output,
                "read": "shared" in ran.output.replace("/shared", ""),
                "hidden": "kept" in ran.output.replace("kept.append", "").replace("kept =", ""),
                "killed": victim.poll() is not None,
                "system": Path("/usr/rmas_written").exists(),
            }
            signs["became"] = protection == "user" and ran.code == 0
            found[f"{protection}: {name}"] = {"signs": signs, "output": ran.output[-400:]}
    return found


def attack_limits() -> dict[str, object]:
    found = {}
    for name, program in LIMITED.items():
        began = time.monotonic()
        ran = run_python(program, LIMITS)
        facts = {"code": ran.code, "why": ran.why, "seconds": time.monotonic() - began}
        found[name] = facts | {"chars": len(ran.output), "output": ran.output[-400:]}
    return found


def main() -> None:
    folder = sys.argv[1]
    os.environ["PLANTED_API_KEY"] = SECRET
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        active = check(LIMITS)
    every, ports = servers(folder)
    with subprocess.Popen(["sleep", "1000"], env=dict(os.environ)) as victim:
        try:
            names = {"folder": folder, "victim": victim.pid, "guard_parent": os.getpid()} | ports
            stopped = attack_walls(active, names, every, victim)
            limited = attack_limits()
        finally:
            victim.kill()
    told_lines = [str(w.message) for w in told]
    facts = {"active": sorted(active), "warnings": told_lines, "stopped": stopped}
    print(json.dumps(facts | {"limited": limited}))


main()

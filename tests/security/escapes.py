"""Ways out of the sandbox, one program each; ``test_escapes.py`` runs them.

A program says ``tried`` when it made its attempt, and ``reached`` when it got what it wanted.
{...} is filled in by the test.
"""

# `call(x86, arm, ...)`: the result of a system call, or minus its error.
PRELUDE = """
import ctypes, errno, os, platform, sys
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
ARM = platform.machine() == "aarch64"
def call(x86, arm, *arguments):
    given = [a if isinstance(a, (bytes, ctypes.Array)) or a is None else ctypes.c_long(a)
             for a in arguments]
    found = libc.syscall(ctypes.c_long(arm if ARM else x86), *given)
    return found if found >= 0 else -ctypes.get_errno()
def tried(yes):
    print("tried", flush=True)
    print("reached" if yes else "stopped", flush=True)
def opened(*paths, mode="rb"):
    found = []
    for path in paths:
        try:
            with open(path, mode) as file:
                found.append(path if mode != "rb" else file.read(4096))
        except OSError:
            pass
    return found
room = ctypes.create_string_buffer(4096)
"""

# Runs several programs in processes of their own: name -> program in `programs`.
EACH = """
for name, program in programs.items():
    print("program", name, flush=True)
    pid = os.fork()
    if pid == 0:
        try:
            exec(program, dict(globals()))
        except BaseException as error:
            print(type(error).__name__, error, flush=True)
        os._exit(0)
    os.waitpid(pid, 0)
"""

# Refused calls. Those in WITHOUT_RIGHTS are allowed outside to everybody: there they have to
# succeed, or the attempt itself would be wrong.
CALLS = {
    "io_uring": "tried(call(425, 425, 8, room) >= 0)",
    "ptrace_seize_parent": "tried(call(101, 117, 0x4206, {parent}, 0, 0) == 0)",
    "ptrace_own_child": "pid = os.fork()\nif pid == 0:\n  import time; time.sleep(5); os._exit(0)\n"
    "tried(call(101, 117, 0x4206, pid, 0, 0) == 0); os.kill(pid, 9)",
    "read_parent_memory": "import struct; at = ctypes.addressof(room)\n"
    "own = struct.pack('QQ', at, 8); far = struct.pack('QQ', {address}, 8)\n"
    "tried(call(310, 270, {parent}, own, 1, far, 1, 0) > 0)",
    "write_parent_memory": "import struct; at = ctypes.addressof(room)\n"
    "own = struct.pack('QQ', at, 8); far = struct.pack('QQ', {address}, 8)\n"
    "tried(call(311, 271, {parent}, own, 1, far, 1, 0) > 0)",
    "own_memory_by_another_way": "import struct; at = ctypes.addressof(room)\n"
    "both = struct.pack('QQ', at, 8)\n"
    "tried(call(310, 270, os.getpid(), both, 1, both, 1, 0) > 0)",
    "steal_handle": "f = call(434, 434, {parent}, 0)\n"
    "tried(f >= 0 and call(438, 438, f, 1, 0) >= 0)",
    "compare_processes": "tried(call(312, 272, os.getpid(), os.getpid(), 1, 0, 0) >= 0)",
    "limits_of_parent": "import struct\n"
    "tried(call(302, 261, {parent}, 7, struct.pack('QQ', 64, 64), None) == 0)",
    "schedule_of_parent": "tried(call(203, 122, {parent}, 8, bytes([1] + [0] * 7)) >= 0)",
    "priority_of_parent": "tried(call(141, 140, 0, {parent}, 19) == 0)",
    "bpf": "tried(call(321, 280, 0, room, 72) not in (-1, -38))",
    "perf": "tried(call(298, 241, room, 0, -1, -1, 0) not in (-1, -13, -38))",
    "userfaultfd": "tried(call(323, 282, 1) >= 0)",
    "mount": "tried(call(165, 40, b'none', b'/tmp', b'tmpfs', 0, None) == 0)",
    "new_mount": "tried(call(430, 430, b'tmpfs', 0) >= 0)",
    "mount_of_a_tree": "tried(call(428, 428, -100, b'/', 1) >= 0)",
    "unmount": "tried(call(166, 39, b'/', 2) == 0)",
    "chroot": "tried(call(161, 51, b'/') == 0)",
    "pivot_root": "tried(call(155, 41, b'.', b'.') == 0)",
    "own_user_namespace": "tried(call(272, 97, 0x10000000) == 0)",
    "own_mount_namespace": "tried(call(272, 97, 0x00020000) == 0)",
    "user_namespace_by_clone": "pid = call(56, 220, 0x10000011, 0, 0, 0, 0)\n"
    "os._exit(0) if pid == 0 else tried(pid > 0)",
    "user_namespace_by_clone3": "import struct\n"
    "pid = call(435, 435, struct.pack('8Q', 0x10000000, 0, 0, 0, 17, 0, 0, 0), 64)\n"
    "os._exit(0) if pid == 0 else tried(pid > 0)",
    "enter_namespaces": "tried(any(call(308, 268, os.open(f'/proc/{{p}}/ns/{{k}}', 0), 0) == 0\n"
    "  for p in (1, {parent}, os.getppid()) for k in ('user', 'mnt', 'net', 'pid')\n"
    "  if os.path.exists(f'/proc/{{p}}/ns/{{k}}')))",
    "file_handles": "tried(call(303, 264, -100, b'/tmp', room, room, 0) not in (-1, -38))",
    "add_key": "tried(call(248, 217, b'user', b'mine', b'x', 1, -3) > 0)",
    "write_session_key": "tried(call(248, 217, b'user', b'rmas-mark', b'x', 1, {ring}) > 0)",
    "read_session_key": "tried(call(250, 219, 11, {key}, room, 64) > 0)",
    "find_session_key": "tried(call(249, 218, b'user', b'rmas-planted', None, 0) > 0\n"
    "  or call(250, 219, 10, -3, b'user', b'rmas-planted', 0) > 0)",
    "memfd": "tried(call(319, 279, b'x', 0) >= 0)",
    "memfd_by_the_x32_door": "tried(not ARM and call(0x40000000 | 319, 0, b'x', 0) >= 0)",
    "memfd_secret": "tried(call(447, 447, 0) >= 0)",
    "system_v_memory": "tried(call(29, 194, 0, 2**20, 0o1600) >= 0)",
    "system_v_messages": "tried(call(68, 186, 0, 0o1600) >= 0)",
    "system_v_semaphores": "tried(call(64, 190, 0, 100, 0o1600) >= 0)",
    "posix_messages": "tried(call(240, 180, b'x', 0o102, 0o600, None) >= 0)",
    "shared_nameless_memory": "import mmap\ntry: m = mmap.mmap(-1, 4096)\n"
    "except OSError: m = None\ntried(m is not None)",
    "netlink": "tried(call(41, 198, 16, 3, 0) >= 0)",
    "vsock": "tried(call(41, 198, 40, 1, 0) >= 0)",
    "packets": "tried(call(41, 198, 17, 3, 768) >= 0)",
    "unix_socket": "tried(call(41, 198, 1, 1, 0) >= 0)",
    "personality": "tried(call(135, 92, 0x0400000) >= 0)",
    "kernel_log": "tried(call(103, 116, 10, 0, 0) >= 0)",
    "kernel_module": "tried(call(313, 273, 0, b'', 0) not in (-1, -38))",
    "restart": "tried(call(169, 142, 1, 2, 3, 0) not in (-1, -38))",  # wrong marks, in any case
    "swap": "tried(call(167, 224, b'/nothing', 0) not in (-1, -38))",
    "accounting": "tried(call(163, 89, b'/nothing') not in (-1, -38))",
    "host_name": "tried(call(170, 161, b'taken', 5) == 0)",
    "clock": "tried(call(227, 112, 0, bytes(16)) == 0)",
    "device_file": "tried(call(259, 33, -100, b'disk', 0o60600, 0x0800) == 0)",
    "lock_memory": "tried(call(149, 228, ctypes.addressof(room), 4096) == 0)",
    "type_into_terminal": "tried(call(16, 29, 0, 0x5412, b'x') != -1)",
}
WITHOUT_RIGHTS = {
    *("ptrace_own_child", "own_memory_by_another_way", "compare_processes", "add_key", "memfd"),
    *("write_session_key", "read_session_key", "find_session_key", "shared_nameless_memory"),
    *("system_v_memory", "system_v_messages", "system_v_semaphores", "unix_socket", "netlink"),
    *("personality", "limits_of_parent", "priority_of_parent", "schedule_of_parent"),
}
# What lies outside: no file, no folder, no device, no other process.
OUTSIDE = {
    "memory_of_processes": "tried(opened('/proc/{parent}/mem', '/proc/1/mem', mode='r+b'))",
    "environments": "tried(any(b'planted' in e for e in opened('/proc/1/environ',\n"
    "  '/proc/{parent}/environ', f'/proc/{{os.getppid()}}/environ', '/proc/self/environ')))",
    "own_environment": "tried('planted' in str(os.environ) or 'PATH' in os.environ)",
    "home": "tried(opened('{home}/.ssh/id_rsa', '/root/.ssh/id_rsa',\n"
    "  '/proc/1/root{home}/.ssh/id_rsa', '/proc/self/cwd/../../../..{home}/.ssh/id_rsa'))",
    "shared_memory_folder": "tried(opened('/dev/shm/rmas_{parent}', mode='w'))",
    "zeros_shared": "tried(opened('/dev/zero', mode='r+b'))",
    "terminals": "tried(opened('/dev/tty', '/dev/console', '/dev/pts/0', '/dev/ptmx', mode='r+b'))",
    "memory_of_the_machine": "tried(opened('/dev/mem', '/dev/kmem', '/dev/kmsg', '/proc/kcore'))",
    "settings_of_the_kernel": "tried(opened('/proc/sys/kernel/core_pattern',\n"
    "  '/proc/sysrq-trigger', '/proc/sys/kernel/modprobe', mode='r+b'))",
    "cgroups": "import glob\n"
    "found = glob.glob('/sys/fs/cgroup/**/cgroup.procs', recursive=True)[:9]\n"
    "tried(opened(*found, '/sys/fs/cgroup/memory/release_agent', mode='r+b'))",
    "handles_of_the_run": "tried([f for f in range(3, 1024) if call(72, 25, f, 1, 0) >= 0\n"
    "  and os.readlink(f'/proc/self/fd/{{f}}') != os.path.abspath('main.py')]\n"
    "  if os.path.exists('/proc/self/fd') else\n"
    "  [f for f in range(4, 1024) if call(72, 25, f, 1, 0) >= 0])",
    "watch_a_folder": "w = call(294, 26, 0)\n"
    "tried(call(254, 27, w, b'{home}', 0xfff) >= 0 if not ARM else False)",
    "kill_the_run": "try: os.kill({parent}, 9)\nexcept OSError: pass\ntried(False)",
    "kill_everything": "import signal; signal.signal(15, signal.SIG_IGN)\n"
    "for p in (os.getppid(), -os.getpgid(os.getppid()) if os.getppid() else 0, {parent}):\n"
    "  try: os.kill(p, 15) if p else None\n  except OSError: pass\ntried(False)",
    "rights_by_a_program": "tried(call(157, 167, 39, 0, 0, 0, 0) != 1)",
    "rights_of_the_run": "t = opened('/proc/self/status') or [b'CapEff:\\t0']\n"
    "tried(int(t[0].split(b'CapEff:')[1].split()[0], 16) != 0)",
    "loader": "import subprocess\nopen('l.so', 'wb').write(b'no library')\n"
    "done = subprocess.run([sys.executable, '-I', '-S', '-c', 'print(6*7)'],\n"
    "  env={{'LD_PRELOAD': os.path.abspath('l.so')}}, capture_output=True)\n"
    "tried(b'42' not in done.stdout)",
    "dropped_program": "import shutil, subprocess\nshutil.copy(sys.executable, 'p')\n"
    "code = 'import ctypes; print(ctypes.CDLL(None).unshare(0x10000000))'\n"
    "env = {{'LD_LIBRARY_PATH': sys.base_prefix + '/lib', 'PYTHONHOME': sys.base_prefix}}\n"
    "try:\n  os.chmod('p', 0o755)\n"
    "  done = subprocess.run(['./p', '-S', '-c', code], capture_output=True, env=env).stdout\n"
    "except OSError: done = b'-1\\n'\ntried(done != b'-1\\n')",
}
# What has to end, and how: exit codes and limits.
LIMITED = {
    "memfd_memory": ("f = [os.memfd_create('x') for i in range(40)]", {1}),
    "nameless_memory": (
        "import mmap\nx = [mmap.mmap(-1, 2**26).write(b'x' * 2**26) for i in range(40)]",
        {1},
    ),
    "private_pages_of_forks": (
        "import time\nfor i in range(8):\n  if os.fork() == 0:\n"
        "    x = bytearray(b'x') * (200 * 2**20); time.sleep(9)\ntime.sleep(9)",
        {"memory"},
    ),
    "pages_written_after_a_fork": (
        "import time\nx = bytearray(150 * 2**20)\nfor i in range(8):\n  if os.fork() == 0:\n"
        "    for at in range(0, len(x), 4096): x[at] = 1\n    time.sleep(9)\ntime.sleep(9)",
        {"memory"},
    ),
    "grandchildren": (
        "import time\nfor i in range(5):\n  if os.fork() == 0:\n    os.setsid()\n"
        "    if os.fork(): os._exit(0)\n    x = bytearray(b'x') * (200 * 2**20); time.sleep(9)\n"
        "time.sleep(9)",
        {"memory"},
    ),
    "sparse_file": ("f = open('x', 'wb'); f.truncate(10**12)", {1, 153}),
    "many_pipes": (
        "import fcntl\np = [os.pipe() for i in range(500)]",
        {1},
    ),
    "forks_that_leave": (
        "import time\nfor i in range(100):\n  try:\n    if os.fork() == 0:\n      os.setsid()\n"
        "      if os.fork(): os._exit(0)\n      time.sleep(60)\n  except OSError: pass\n"
        "os._exit(5)",
        {5, "processes"},
    ),
    "one_endless_line": ("while True: sys.stdout.write('x' * 2**16)", {"output"}),
    "flood_of_signals": (
        "import signal\nsignal.signal(10, signal.SIG_IGN)\nwhile True: os.kill(os.getpid(), 10)",
        {"time"},
    ),
}

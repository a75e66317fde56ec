#!/usr/bin/env python3
"""Lays libtorch 2.11.0 into .libtorch/, from the wheels on PyPI.

    scripts/libtorch.py cpu     what building, testing and running on the CPU need
    scripts/libtorch.py cuda    that, and what running on an NVIDIA GPU needs

Nothing is installed: `pip download` fetches the pinned files (their hashes are below), and only the
headers and libraries are unpacked. Does nothing if they are there; an interrupted run leaves
nothing that counts as done. Where the environment variable LIBTORCH names another libtorch, that
one is looked at and used instead.

    .libtorch/torch/{include,lib}   headers, libraries
    .libtorch/nvidia/*/lib          NVIDIA's libraries, where torch/lib looks for them
    .libtorch/cpu/{include,lib}     links to the CPU half alone: the folder to link against.
                                    torch-sys links libtorch_cuda.so if it sees it there, and the
                                    program must not need it to start.
    .libtorch/{cpu,cuda}.stamp      which files are completely there
"""

import argparse
import os
import sys

try:
    import fcntl
    import fnmatch
    import importlib.util
    import platform
    import re
    import shutil
    import subprocess
    import tempfile
    import zipfile
    from pathlib import Path
except ImportError as error:
    # Debian's python3-minimal has no zipfile, for one.
    sys.exit(f"error: this Python lacks a standard module: {error}\n"
             "  hint: sudo apt-get install python3 python3-pip")

VERSION = "2.11.0"
ROOT = Path(__file__).resolve().parent.parent

TORCH = ("torch", VERSION, "0f68f4ac6d95d12e896c3b7a912b5871619542ec54d3649cf48cc1edd4dd2756")
# The CPU half needs these two as well. The versions here and below are those that torch 2.11.0 and
# its cuda-toolkit 13.0.2 ask for.
CPU_NVIDIA = [
    ("nvidia-cuda-cupti", "13.0.85", "4eb01c08e859bf924d222250d2e8f8b8ff6d3db4721288cf35d14252a4d933c8"),
    ("nvidia-cuda-runtime", "13.0.96", "7f82250d7782aa23b6cfe765ecc7db554bd3c2870c43f3d1821f1d18aebf0548"),
]
CUDA_NVIDIA = [
    ("nvidia-cublas", "13.1.0.3", "ee8722c1f0145ab246bccb9e452153b5e0515fd094c3678df50b2a0888b8b171"),
    ("nvidia-cuda-nvrtc", "13.0.88", "ad9b6d2ead2435f11cbb6868809d2adeeee302e9bb94bcf0539c7a40d80e8575"),
    ("nvidia-cudnn-cu13", "9.19.0.56", "d20e1734305e9d68889a96e3f35094d733ff1f83932ebe462753973e53a572bf"),
    ("nvidia-cufft", "12.0.0.61", "6c44f692dce8fd5ffd3e3df134b6cdb9c2f72d99cf40b62c32dde45eea9ddad3"),
    ("nvidia-cufile", "1.15.1.6", "08a3ecefae5a01c7f5117351c64f17c7c62efa5fffdbe24fc7d298da19cd0b44"),
    ("nvidia-curand", "10.4.0.35", "1aee33a5da6e1db083fe2b90082def8915f30f3248d5896bcec36a579d941bfc"),
    ("nvidia-cusolver", "12.0.4.66", "0a759da5dea5c0ea10fd307de75cdeb59e7ea4fcb8add0924859b944babf1112"),
    ("nvidia-cusparse", "12.6.3.3", "2b3c89c88d01ee0e477cb7f82ef60a11a4bcd57b6b87c33f789350b59759360b"),
    ("nvidia-cusparselt-cu13", "0.8.0", "25e30a8a7323935d4ad0340b95a0b69926eee755767e8e0b1cf8dd85b197d3fd"),
    ("nvidia-nccl-cu13", "2.28.9", "e4553a30f34195f3fa1da02a6da3d6337d28f2003943aa0a3d247bbc25fefc42"),
    ("nvidia-nvjitlink", "13.0.88", "13a74f429e23b921c1109976abefacc69835f2f433ebd323d3946e11d804e47b"),
    ("nvidia-nvshmem-cu13", "3.4.5", "290f0a2ee94c9f3687a02502f3b9299a9f9fe826e6d0287ee18482e78d495b80"),
    ("nvidia-nvtx", "13.0.85", "4936d1d6780fbe68db454f5e72a42ff64d1fd6397df9f363ae786930fd5c1cd4"),
]

# Members of the wheels that are unpacked.
TORCH_CPU = ["torch/include/*", "torch/version.py", "torch/lib/libc10.so", "torch/lib/libgomp.so.1",
             "torch/lib/libtorch_cpu.so"]
TORCH_CUDA = ["torch/lib/libc10_cuda.so", "torch/lib/libcaffe2_nvrtc.so",
              "torch/lib/libtorch_cuda.so", "torch/lib/libtorch_cuda_linalg.so",
              "torch/lib/libtorch_nvshmem.so"]
NVIDIA = ["nvidia/*/lib/*.so*"]

HALVES = {
    "cpu": ([TORCH, *CPU_NVIDIA], TORCH_CPU + NVIDIA, "0.6 GB to fetch, 0.6 GB on disk"),
    "cuda": ([TORCH, *CUDA_NVIDIA], TORCH_CUDA + NVIDIA, "2.5 GB to fetch, 3.1 GB on disk"),
}


def fail(problem, hint=None):
    sys.exit(f"error: {problem}" + (f"\n  hint: {hint}" if hint else ""))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("half", choices=HALVES)
    parser.add_argument("--folder", type=Path, default=ROOT / ".libtorch",
                        help="where to lay it (default: .libtorch of this repository)")
    arguments = parser.parse_args()
    folder = arguments.folder.resolve()
    given = os.environ.get("LIBTORCH")
    if given and Path(given).resolve() != folder / "cpu":
        check_given(Path(given), arguments.half)
        return
    halves = ["cpu"] if arguments.half == "cpu" else ["cpu", "cuda"]
    if all(is_there(folder, half) for half in halves):
        return
    check_machine()
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for half in halves:
            # Another process may have been here while this one waited.
            if not is_there(folder, half):
                lay(folder, half)


def stamp(half):
    """What the stamp of a half says when it is completely there."""
    pins, members, _ = HALVES[half]
    return "".join(f"{name}=={version} {digest}\n" for name, version, digest in pins) \
        + "".join(f"{member}\n" for member in members)


def is_there(folder, half):
    file = folder / f"{half}.stamp"
    return file.is_file() and file.read_text() == stamp(half)


def check_machine():
    if sys.platform != "linux" or platform.machine() != "x86_64":
        fail(f"there are pinned files for Linux on x86_64 only, and this is {sys.platform} on "
             f"{platform.machine()}", f"set LIBTORCH to the folder of a libtorch {VERSION}")
    if importlib.util.find_spec("pip") is None:
        fail(f"pip is missing: {sys.executable} -m pip does not run",
             "sudo apt-get install python3-pip (nothing is installed with it, it only downloads)")


def check_given(given, half):
    """A libtorch of the user's own: complete, and of a version that fits."""
    for part in ["lib/libtorch.so", "lib/libtorch_cpu.so", "include/torch/csrc/autograd/function.h"]:
        if not (given / part).exists():
            fail(f"LIBTORCH={given}: there is no {part} in it",
                 f"give the folder of PyTorch {VERSION} or of a libtorch with headers, or unset "
                 "LIBTORCH to have one fetched")
    library = (given / "lib/libtorch_cpu.so").resolve()
    said = {"its headers": version_of_headers(given)}
    for name in ["version.py", "build-version"]:
        file = library.parent.parent / name
        if file.is_file():
            found = re.search(r"\d+\.\d+\.\d+", file.read_text())
            said[str(file)] = found.group() if found else None
    for where, version in said.items():
        if version != VERSION:
            fail(f"LIBTORCH={given}: expected version {VERSION}, got {version or 'none'} in {where}",
                 "give another folder, or unset LIBTORCH to have the right one fetched")
    if half == "cuda" and not (library.parent / "libtorch_cuda.so").exists():
        fail(f"LIBTORCH={given}: there is no libtorch_cuda.so in {library.parent}",
             "give a PyTorch for CUDA 13, or unset LIBTORCH to have one fetched")
    print(f"libtorch: using LIBTORCH={given}")


def version_of_headers(given):
    # Older ones have the second alone; it includes the first now.
    for name in ["torch/headeronly/version.h", "torch/csrc/api/include/torch/version.h"]:
        file = given / "include" / name
        if file.is_file():
            numbers = dict(re.findall(r"#define TORCH_VERSION_(\w+) (\d+)", file.read_text()))
            if "MAJOR" in numbers:
                return ".".join(numbers.get(part, "0") for part in ["MAJOR", "MINOR", "PATCH"])
    return None


def lay(folder, half):
    pins, members, size = HALVES[half]
    print(f"libtorch {VERSION}, {half} half: {size}, into {folder}", flush=True)
    for leftover in folder.glob(".tmp-*"):
        shutil.rmtree(leftover)
    with tempfile.TemporaryDirectory(prefix=".tmp-", dir=folder) as work:
        work = Path(work)
        for wheel in download(pins, work):
            unpack(wheel, members, work / "new")
            wheel.unlink()
        if half == "cpu":
            link_cpu_half(work / "new" / "cpu")
            # The CUDA half of another version would not fit this one.
            for old in ["cpu.stamp", "cuda.stamp"]:
                (folder / old).unlink(missing_ok=True)
            for part in ["torch", "nvidia", "cpu"]:
                if (folder / part).exists():
                    shutil.rmtree(folder / part)
                (work / "new" / part).rename(folder / part)
        else:
            merge(work / "new", folder)
        (work / "stamp").write_text(stamp(half))
        os.sync()
        (work / "stamp").rename(folder / f"{half}.stamp")


def download(pins, work):
    requirements = work / "requirements.txt"
    requirements.write_text("".join(
        f"{name}=={version} --hash=sha256:{digest}\n" for name, version, digest in pins))
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:",
               "--require-hashes", "--disable-pip-version-check", "--python-version", "3.12",
               "--implementation", "cp", "--abi", "cp312", "--abi", "none", "--abi", "abi3",
               "--requirement", str(requirements), "--dest", str(work / "wheels")]
    # Each wheel names the oldest glibc it runs on, in one of many spellings.
    for glibc in range(28, 4, -1):
        command += ["--platform", f"manylinux_2_{glibc}_x86_64"]
    for alias in ["manylinux2014_x86_64", "manylinux2010_x86_64", "manylinux1_x86_64"]:
        command += ["--platform", alias]
    # pip unpacks into TMPDIR first, and /tmp may be small.
    environment = {**os.environ, "TMPDIR": str(work)}
    if subprocess.run(command, env=environment).returncode != 0:
        fail("pip could not fetch the files (see above)",
             "it needs pypi.org, or a mirror named by PIP_INDEX_URL, and the disk space said above")
    return sorted((work / "wheels").iterdir())


def unpack(wheel, members, into):
    with zipfile.ZipFile(wheel) as archive:
        for info in archive.infolist():
            wanted = any(fnmatch.fnmatchcase(info.filename, member) for member in members)
            if wanted and not info.is_dir():
                archive.extract(info, into)


def link_cpu_half(folder):
    lib = folder / "lib"
    lib.mkdir(parents=True)
    (folder / "include").symlink_to("../torch/include")
    for name in ["libtorch_cpu.so", "libc10.so", "libgomp.so.1"]:
        (lib / name).symlink_to(f"../../torch/lib/{name}")
    # The real libtorch.so is an empty library that needs both halves.
    (lib / "libtorch.so").symlink_to("libtorch_cpu.so")


def merge(new, folder):
    for file in new.rglob("*"):
        if file.is_file():
            target = folder / file.relative_to(new)
            target.parent.mkdir(parents=True, exist_ok=True)
            file.replace(target)


if __name__ == "__main__":
    try:
        main()
    except OSError as error:
        fail(error, "is the folder writable, and the disk large enough?")
    except KeyboardInterrupt:
        sys.exit(130)

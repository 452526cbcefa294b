"""The machine: GPU, memory, disk, ports, environment, weights, libraries for sound and writing."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from minigpt4o.common.cache import cache_dir
from minigpt4o.common.cores import cores
from minigpt4o.common.weight_files import ENV, weight_folders
from minigpt4o.serve.doctor import Check

GIB = 1 << 30
DISK_BAD, DISK_WARN = 1 * GIB, 10 * GIB  # free bytes: below, a checkpoint may not fit; below, a 7B model does not
MEMORY_WARN = 4 * GIB
SHARED_WARN = 1 * GIB  # of /dev/shm, through which loader workers hand over batches
GPU_WARN = 2 * GIB
TOKENS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "WANDB_API_KEY", "OPENAI_API_KEY", "MINIGPT4O_API_KEY")  # never shown
SHOWN = (
    *("CUDA_VISIBLE_DEVICES", "HF_HOME", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_ENDPOINT", "OMP_NUM_THREADS"),
    *("MINIGPT4O_WEIGHTS", "MINIGPT4O_DATA", "MINIGPT4O_CACHE", "MINIGPT4O_TRACEBACK", "WANDB_MODE", "TORCH_HOME"),
)


def gpu() -> Iterator[Check]:
    """What torch computes on."""
    import torch

    built = f"torch {torch.__version__}"
    driver = _driver()
    if not torch.cuda.is_available():
        if driver and torch.version.cuda:
            mend = (
                f"the driver must know CUDA {torch.version.cuda}: update it, or install a torch built for an older CUDA"
            )
            yield Check("gpu", "bad", f"{built} finds no usable GPU, though driver {driver} is here", mend)
        else:
            yield Check("gpu", "ok", f"{built}: no GPU here, the CPU computes ({cores()} cores)")
        return
    for index in range(torch.cuda.device_count()):
        free, whole = torch.cuda.mem_get_info(index)
        with torch.cuda.device(index):
            bf16 = torch.cuda.is_bf16_supported()
        told = f"{torch.cuda.get_device_name(index)}, {free / GIB:.1f} of {whole / GIB:.1f} GiB free"
        told += f", bf16 {'yes' if bf16 else 'no'}, driver {driver or 'unknown'}, CUDA {torch.version.cuda}"
        if free < GPU_WARN:
            mend = "another process holds its memory: nvidia-smi names it; CUDA_VISIBLE_DEVICES chooses another GPU"
            yield Check(f"gpu {index}", "warn", told, mend)
        elif not bf16:
            yield Check(f"gpu {index}", "warn", told, "models run in float32 (model.precision: fp32), twice the memory")
        else:
            yield Check(f"gpu {index}", "ok", told)


def _driver() -> str:
    """Version of NVIDIA's driver; "" if there is none."""
    file = Path("/proc/driver/nvidia/version")
    if not file.is_file():
        return ""
    words = file.read_text(errors="replace").split()
    return next((word for word in words if word[:1].isdigit() and "." in word), "unknown")


def memory() -> Iterator[Check]:
    """Main and shared memory."""
    free = available_memory()
    state, mend = ("warn", "close other programs, or choose smaller batches") if free < MEMORY_WARN else ("ok", "")
    yield Check("memory", state, f"{free / GIB:.1f} GiB free", mend)  # type: ignore[arg-type]
    shared = Path("/dev/shm")
    if shared.is_dir():
        room = shutil.disk_usage(shared).free
        if room < SHARED_WARN:
            told = f"{room / GIB:.2f} GiB in {shared}, through which data workers hand over batches"
            yield Check("shared memory", "warn", told, "run.num_workers=0, or start the container with --shm-size=8g")


def available_memory() -> int:
    """Bytes that can still be taken, by the kernel's count and the limit of a container."""
    free = 0
    for line in Path("/proc/meminfo").read_text().splitlines() if Path("/proc/meminfo").is_file() else []:
        if line.startswith("MemAvailable:"):
            free = int(line.split()[1]) * 1024
    free = free or os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    group = Path("/sys/fs/cgroup")
    try:
        most, used = (int((group / name).read_text()) for name in ("memory.max", "memory.current"))
        return min(free, most - used)
    except (OSError, ValueError):  # no limit ("max"), or another system
        return free


def disk(output_dir: str) -> Iterator[Check]:
    """Room where runs, caches and temporary files are written."""
    import tempfile

    hub = os.environ.get("HF_HOME") or "~/.cache/huggingface"
    places = {
        "output": Path(output_dir),
        "cache": cache_dir(),
        "hub": Path(hub),
        "temporary": Path(tempfile.gettempdir()),
    }
    for name, place in places.items():
        there = _existing(place.expanduser().absolute())
        room = shutil.disk_usage(there).free
        told = f"{place}: {room / GIB:.1f} GiB free"
        if not os.access(there, os.W_OK | os.X_OK):
            state = "bad" if name in ("output", "temporary") else "warn"
            yield Check(f"disk {name}", state, f"{place}: {there} cannot be written to", _elsewhere(name))  # type: ignore[arg-type]
        elif room < DISK_BAD:
            yield Check(f"disk {name}", "bad", told, f"free some room, or {_elsewhere(name)}")
        elif room < DISK_WARN:
            yield Check(f"disk {name}", "warn", told, f"a 7B model does not fit there; {_elsewhere(name)}")
        else:
            yield Check(f"disk {name}", "ok", told)


def _existing(place: Path) -> Path:
    return next(folder for folder in (place, *place.parents) if folder.exists())


def _elsewhere(name: str) -> str:
    ways = {
        "output": "set run.output_dir",
        "cache": "set MINIGPT4O_CACHE",
        "hub": "set HF_HOME",
        "temporary": "set TMPDIR",
    }
    return f"{ways[name]} to another place"


def ports(wanted: Sequence[int]) -> Iterator[Check]:
    """Whether the page and the API can listen."""
    for port in wanted:
        with socket.socket() as one:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                one.bind(("127.0.0.1", port))
            except OSError as error:
                mend = "stop the program that holds it, or choose another: demo --server-port N, serve --port N"
                yield Check(f"port {port}", "warn", f"127.0.0.1:{port} cannot be used ({error.strerror})", mend)
                continue
        yield Check(f"port {port}", "ok", f"127.0.0.1:{port} is free")


def environment() -> Iterator[Check]:
    """Variables that change what happens. What is secret is only said to be there."""
    told = [f"{name}={_without_password(os.environ[name])}" for name in SHOWN if os.environ.get(name)]
    told += [f"{name} is set" for name in TOKENS if os.environ.get(name)]
    told += [f"{use} is kept in {file}" for use, file in _token_files() if file.expanduser().is_file()]
    yield Check("environment", "ok", ", ".join(told) or "nothing that matters is set")
    lost = [word for word in os.environ.get(ENV, "").split(os.pathsep) if word and not Path(word).expanduser().is_dir()]
    if lost:
        yield Check(ENV, "bad", f"names {', '.join(lost)}, which is no folder", f"mend {ENV}, folders separated by ':'")
    if os.environ.get("PYTHONDONTWRITEBYTECODE"):
        told_slow = "PYTHONDONTWRITEBYTECODE is set: every start compiles torch and transformers anew"
        yield Check("bytecode", "warn", told_slow, "unset PYTHONDONTWRITEBYTECODE")


def _without_password(value: str) -> str:
    """Of an address: nothing between // and @ is shown."""
    return re.sub(r"(?<=//)[^/@]*@", "...@", value)


def _token_files() -> list[tuple[str, Path]]:
    """Where logins of the hub and of wandb are kept by their own programs."""
    hub = os.environ.get("HF_HOME") or "~/.cache/huggingface"
    return [("a login of the hub", Path(hub, "token")), ("a login (wandb)", Path("~/.netrc"))]


def weights() -> Iterator[Check]:
    """Which published models have all their files here."""
    from minigpt4o.common.errors import ConfigError
    from minigpt4o.serve.opening import source_of_family
    from minigpt4o.serve.supply import supplied
    from minigpt4o.serve.zoo import FAMILIES

    whole, absent = [], []
    for family in FAMILIES:
        name = f"{family.arch} {family.model_type}"
        source = source_of_family(family, None, [], "")
        try:
            supplied(source.settings.model, None, source.checkpoints, source.origin)
            whole.append(name)
        except ConfigError:
            absent.append(name)
    folders = ", ".join(str(folder) for folder in weight_folders())
    told = (
        f"complete: {', '.join(whole) or 'none'}; not (all) here: {', '.join(absent) or 'none'} (looked in {folders})"
    )
    mend = "" if whole else f"only for published models: put their files into one folder and set {ENV} to it"
    yield Check("weights", "ok", told, mend)


def sound() -> Iterator[Check]:
    """What sounds can be read. Nothing here needs ffmpeg."""
    import soundfile

    known = set(soundfile.available_formats())
    lost = [name for name in ("WAV", "FLAC", "OGG", "MP3") if name not in known]
    version = soundfile.__libsndfile_version__
    if lost:
        mend = "install a newer soundfile, which brings its own libsndfile: pip install -U soundfile"
        yield Check("sound", "warn", f"libsndfile {version} cannot read {', '.join(lost)}", mend)
    else:
        yield Check("sound", "ok", f"libsndfile {version} reads WAV, FLAC, OGG and MP3; ffmpeg is not needed")


def fonts() -> Iterator[Check]:
    """Whether a browser on this machine could show Japanese."""
    lister = shutil.which("fc-list")
    if lister is None:
        return
    found = subprocess.run([lister, ":lang=ja", "family"], capture_output=True, text=True, timeout=20, check=False)
    if found.stdout.strip():
        yield Check("fonts", "ok", "Japanese can be shown")
    else:
        mend = "only for a browser on this machine: install one, for example fonts-noto-cjk"
        yield Check("fonts", "warn", "no font here has Japanese letters", mend)

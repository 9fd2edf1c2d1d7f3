"""`convert`: the checks, the child process that exports, and the move of the result to its place."""

from __future__ import annotations

import json
import logging
import os
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import IO, Any, Literal, TypeAlias, get_args

import psutil

from lorablend.adapters.errors import InputError, ModelError, ResourceError
from lorablend.adapters.wording import listed
from lorablend.convert.checkpoint import inspect_checkpoint
from lorablend.convert.extras import require_extra
from lorablend.convert.hub import download
from lorablend.convert.source import Source, read_checkpoint, read_folder
from lorablend.convert.worker import ConversionJob
from lorablend.engine.model_folder import ModelFolder

__all__ = ["Progress", "Weights", "convert", "find_source"]

Weights: TypeAlias = Literal["fp16", "int8", "fp32"]
Progress: TypeAlias = Callable[[str, int, int], None]

_LOGGER = logging.getLogger(__name__)

# Bytes per parameter in the written files, and in memory while one network is exported, without the libraries' own.
# Mapped files do not count: SDXL's UNet shows 8 GB at its peak, but is exported within 5.
_FILE_BYTES = {"fp16": 2, "int8": 1, "fp32": 4}
_MEMORY_BYTES = {"fp16": 1.5, "int8": 1.5, "fp32": 4.5}
_LIBRARY_BYTES = 1.2e9
_CONFIGS = {
    "SDXL": "stabilityai/stable-diffusion-xl-base-1.0",
    "SD 1.x": "stable-diffusion-v1-5/stable-diffusion-v1-5",
}


def convert(
    source: str | os.PathLike[str],
    out_dir: str | os.PathLike[str],
    *,
    weights: Weights = "fp16",
    config: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> None:
    """Convert `source` to an OpenVINO model folder, the same that Optimum Intel writes.

    The safety checker and image encoder of a source are left out. `lorablend.json` records where the model came from.

    Args:
        source: A Hugging Face id ("owner/name"), a local diffusers folder, or a .safetensors checkpoint of SDXL or
            SD 1.x.
        out_dir: Must not exist or be empty; it appears only when everything is written.
        weights: The type of the weights in the files; the device chooses the type it computes in.
        config: For a checkpoint, the diffusers folder with its configurations and tokenizers; None takes those of the
            base model from the Hub or its cache.
        progress: Called with (stage, done, total) before each stage and at the end; an exception in it stops the work.

    Raises:
        ModelError: The source does not exist, is incomplete or of another kind.
        InputError: `out_dir` is not empty, or `weights` is unknown.
        ResourceError: Disk space or memory does not suffice.
        MissingExtraError: lorablend[convert] is not installed.
    """
    if weights not in get_args(Weights):
        raise InputError(f"weights is {weights!r}; give one of {', '.join(get_args(Weights))}")
    require_extra("convert")
    out = Path(out_dir).absolute()
    if out.is_file() or (out.is_dir() and any(out.iterdir())):
        raise InputError(f"{out_dir} exists already; give a folder that is new or empty")
    report = progress or (lambda stage, done, total: None)
    origin = find_source(source, config, weights, report)
    _check_memory(origin, weights)
    _check_disk(origin, weights, out)

    with _sigterm_as_exit(), _partial_folder(out) as partial:
        peaks, versions = _run_worker(origin, weights, partial, report)
        _forget_paths(partial)
        record = {
            "source": origin.name,
            "revision": origin.revision,
            "weights": weights,
            "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "versions": versions,
            "peak_memory_bytes": peaks,
            **({"left_out": origin.left_out} if origin.left_out else {}),
        }
        (partial / "lorablend.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        ModelFolder(partial)  # checks that the engine can read it
        try:
            if out.is_dir():
                out.rmdir()
            partial.rename(out)
        except OSError as error:
            raise InputError(f"{out_dir} was filled by another program meanwhile; give another folder") from error


def find_source(
    source: str | os.PathLike[str], config: str | os.PathLike[str] | None, weights: Weights, report: Progress
) -> Source:
    """Find the model that `convert` calls `source`; download it if it is on the Hub. ModelError if it is incomplete."""
    half = weights != "fp32"
    path = Path(source)
    if path.suffix == ".safetensors":
        family = inspect_checkpoint(path).family  # before a download
        if config is None:
            report("download", 0, 1)
            try:
                folder, _ = download(_CONFIGS[family], half=half, weights=False)
            except ModelError as error:
                reason = str(error).partition(";")[0]
                raise ModelError(
                    f"{path.name} needs a config: {reason}; "
                    "connect to the network, or give a diffusers folder as config"
                ) from error
        else:
            folder = Path(config)
        found = read_checkpoint(path, folder)
        if found.left_out:
            _LOGGER.warning("%s: %s in no module of its networks, left out", path.name, listed(found.left_out))
        return found
    if config is not None:
        raise InputError(f"config is for a .safetensors checkpoint; {source} has its own")
    if path.is_dir():
        return read_folder(path, path.resolve().name, revision=None, half=half)
    name = str(source)
    if path.exists() or name.count("/") != 1 or name.startswith((".", "~", "/")):
        raise ModelError(
            f"{name} is not a diffusers folder, .safetensors checkpoint or Hugging Face id; give one of the three"
        )
    report("download", 0, 1)
    folder, revision = download(name, half=half)
    return read_folder(folder, name, revision=revision, half=half)


def _check_memory(source: Source, weights: Weights) -> None:
    network, size = max(source.parameters.items(), key=lambda item: item[1])
    needed = size * _MEMORY_BYTES[weights] + _LIBRARY_BYTES
    free = psutil.virtual_memory().available
    if needed > free:
        raise ResourceError(
            f"{source.name}: exporting its {network} needs about {needed / 1e9:.1f} GB of memory, "
            f"{free / 1e9:.1f} GB is free; close other programs or convert on a larger machine"
        )


def _check_disk(source: Source, weights: Weights, out: Path) -> None:
    needed = sum(source.parameters.values()) * _FILE_BYTES[weights] + 50e6
    if weights == "int8":  # while a network is compressed, its fp16 files exist too
        needed += max(source.parameters.values()) * _FILE_BYTES["fp16"]
    existing = next(folder for folder in out.parents if folder.exists())
    free = psutil.disk_usage(str(existing)).free
    if needed > free:
        raise ResourceError(
            f"{source.name}: the converted model needs about {needed / 1e9:.1f} GB of disk, {existing} has "
            f"{free / 1e9:.1f} GB free; free up space or give another folder"
        )


@contextmanager
def _partial_folder(out: Path) -> Iterator[Path]:
    """Make a hidden folder next to `out`, deleted at the end unless renamed; delete those that killed runs left."""
    out.parent.mkdir(parents=True, exist_ok=True)
    prefix = f".{out.name}.partial-"
    for leftover in out.parent.glob(f"{prefix}*"):
        pid = leftover.name.removeprefix(prefix).partition("-")[0]
        if pid.isdigit() and not psutil.pid_exists(int(pid)):
            shutil.rmtree(leftover, ignore_errors=True)
    partial = out.with_name(f"{prefix}{os.getpid()}-{time.time_ns()}")
    partial.mkdir()
    try:
        yield partial
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def _sigterm_as_exit() -> Iterator[None]:
    """Let SIGTERM unwind the stack as Ctrl-C does, in the main thread and unless the caller has its own handler."""
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return

    def stop(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _run_worker(
    source: Source, weights: Weights, partial: Path, report: Progress
) -> tuple[dict[str, int], dict[str, str]]:
    """Export in a child process; return its peak memory in bytes per stage, and the versions of the libraries."""
    job = ConversionJob(
        folder=str(source.folder.absolute()),
        checkpoint=str(source.checkpoint.absolute()) if source.checkpoint else None,
        networks=list(source.parameters),
        variants=dict(source.variants),
        scheduler=dict(source.scheduler),
        out=str(partial),
        weights=weights,
    )
    total = len(job.networks) + 1  # the tokenizers come last
    stage, peaks = "start", {}
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as log, _worker(job, log) as child:
        memory = psutil.Process(child.pid)
        for message in _messages(child):
            if message is None:
                with suppress(psutil.Error):  # it may have ended meanwhile
                    peaks[stage] = max(peaks.get(stage, 0), memory.memory_info().rss)
            elif "start" in message:
                stage = message["start"]
                report(stage, len(peaks.keys() - {"start"}), total)
            elif "error" in message:
                _log_output(log)
                raise ModelError(f"{source.name}: {stage} could not be exported: {message['error']}")
            else:
                report("done", total, total)
                peaks.pop("start", None)
                return peaks, message["done"]
        _log_output(log)
        peak = max(peaks.values(), default=0) / 1e9
        raise ResourceError(
            f"{source.name}: the system ended the export of {stage} (status {child.wait()}) at {peak:.1f} GB of "
            "memory; close other programs or convert on a larger machine"
        )


@contextmanager
def _worker(job: ConversionJob, log: IO[str]) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", "from lorablend.convert.worker import main; main()"]
    env = {
        **os.environ,
        "CI": "true",  # the only switch of OpenVINO's and NNCF's telemetry, whose child processes never end offline
        "HF_HUB_OFFLINE": "1",  # everything is on disk by now
        "PYTHONSAFEPATH": "1",  # the current folder may have a "torch" of its own
        # glibc returns freed blocks of this size to the system. Its own threshold grows with use and would keep the
        # tensors of the trace in the heap: SDXL's UNet would peak at 16 GB instead of 8.
        "MALLOC_MMAP_THRESHOLD_": "262144",
    }
    child = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, encoding="utf-8", env=env
    )
    with child:
        try:
            assert child.stdin is not None
            child.stdin.write(job.to_json() + "\n")
            child.stdin.flush()  # stays open: its end tells the child that we have ended
            yield child
        finally:
            child.kill()


def _messages(child: subprocess.Popen[str]) -> Iterator[dict[str, Any] | None]:
    """Yield the child's messages until it ends, and None every 50 ms in between."""
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()

    def read() -> None:
        assert child.stdout is not None
        with suppress(ValueError):  # closed meanwhile, because the work was stopped
            for line in child.stdout:
                lines.put(line)
        lines.put("")

    threading.Thread(target=read, daemon=True).start()
    while True:
        try:
            line = lines.get(timeout=0.05)
        except queue.Empty:
            yield None
            continue
        if not line:
            return
        yield json.loads(line)


def _log_output(log: IO[str]) -> None:
    log.seek(0)
    _LOGGER.debug("output of the export:\n%s", log.read())


def _forget_paths(folder: Path) -> None:
    """Remove the absolute paths that diffusers writes into the configurations of the networks it loads."""
    for file in folder.rglob("*.json"):
        content = json.loads(file.read_text(encoding="utf-8"))
        if content.pop("_name_or_path", None) is not None:
            file.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")

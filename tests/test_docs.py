"""README and docs: every code block runs, every command is documented, every page is short, and every link resolves.

A page's blocks run one after the other in a folder of their own, in which the shipped model stands in for `sdxl` and
its adapters for `ink` and `neon`. A block under a comment `<!-- not run: reason -->` is only parsed: commands and their
options, modules, extras. So are `lorablend ui` and `lorablend serve`; one server stands in for all of them.
"""

from __future__ import annotations

import configparser
import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image
from typer.main import get_command

from docs import hooks
from lorablend.adapters import resolve_blend
from lorablend.adapters.blends.block_weights import PRESETS as BLOCK_PRESETS
from lorablend.app.cli import arguments
from lorablend.app.cli.commands import app, run
from lorablend.app.pictures.png import read_png
from lorablend.engine.presets import PRESETS
from lorablend.engine.schedulers import SCHEDULERS
from lorablend.engine.schedulers.spacing import SPACINGS
from lorablend.shipped import adapters_dir, model_dir

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
LONGEST = {"README.md": 120}  # lines; other pages have 200
NOT_RUN = "not run: "
BY_CI = ("first-command", "second-command")  # .ci/run cuts them out
ADDRESS = "http://127.0.0.1:7860"
TOKEN = "0123456789abcdef0123456789abcdef"
SHORTER = {  # every option is still there; what comes out is looked at elsewhere
    "--count 20": "--count 6",
    "--steps 150": "--steps 2 --checkpoints 1 --sample-every 0",
    "--steps 20": "--steps 2",
    "steps=20": "steps=2",
}


@dataclass(frozen=True)
class Block:
    language: str
    code: str
    note: str  # the comment above it

    @property
    def runs(self) -> bool:
        return not self.note

    @property
    def lines(self) -> list[str]:
        return [line for line in self.code.splitlines() if line.strip() and not line.lstrip().startswith("#")]


def blocks(page: Path, *languages: str) -> list[Block]:
    """The code blocks of a page, of all languages or of some."""
    text = page.read_text(encoding="utf-8")
    matches = re.findall(r"(?:^<!-- ([^\n]*) -->\n)?^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [Block(language, code, note) for note, language, code in matches if not languages or language in languages]


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server for the shipped model, with a token, open to the network."""
    folder = tmp_path_factory.mktemp("server")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = ["ui", "--data", str(folder / "data"), "--listen", "--port", str(port), "--token", TOKEN]
    with (folder / "log").open("w") as log:
        child = subprocess.Popen(
            [sys.executable, "-u", "-m", "lorablend.app.cli", *command],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=os.environ | {"FORWARDED_ALLOW_IPS": "127.0.0.1"},  # as the page about proxies says
        )
    assert child.stdout
    assert child.stdout.readline().startswith("open "), (folder / "log").read_text()
    yield f"http://127.0.0.1:{port}"
    child.terminate()
    child.wait(timeout=60)
    child.stdout.close()


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the names that the pages use; it becomes the current one."""
    (tmp_path / "shipped").symlink_to(ROOT / "shipped")
    (tmp_path / "sdxl").symlink_to(model_dir())
    (tmp_path / "loras").mkdir()
    for name, shipped in (("ink", "pencil"), ("neon", "neon")):
        shutil.copy(adapters_dir() / f"{shipped}.safetensors", tmp_path / f"{name}.safetensors")
        shutil.copy(tmp_path / f"{name}.safetensors", tmp_path / "loras")
    Image.new("RGB", (256, 256), "skyblue").save(tmp_path / "photo.png")
    Image.linear_gradient("L").save(tmp_path / "mask.png")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LORABLEND_ADAPTERS", str(tmp_path / "library"))
    monkeypatch.setenv("LORABLEND_TOKEN", TOKEN)
    return tmp_path


@pytest.fixture(scope="module")
def pipelines() -> Iterator[None]:
    """Commands with the same model and the same options share a pipeline, which saves most of the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(arguments, "open_pipeline", cache(arguments.open_pipeline))
        yield


@pytest.mark.slow
@pytest.mark.usefixtures("pipelines")
@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "sh", "python")], ids=name_of)
def test_code_runs(page: Path, place: Path, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {"__name__": "page"}
    for block in blocks(page, "sh", "python"):
        code = block.code
        for long, short in SHORTER.items():
            code = code.replace(long, short)
        if block.runs and ADDRESS in code and not all(is_server(line) for line in block.lines):
            code = code.replace(ADDRESS, request.getfixturevalue("server"))
        if block.language == "python":
            compiled = compile(code, name_of(page), "exec")
            if block.runs:
                exec(compiled, names)
            continue
        for line in Block("sh", code, block.note).lines:
            if block.runs and not is_server(line):
                run_line(line, capsys)
            elif block.note not in BY_CI:
                check_line(line)


def is_server(line: str) -> bool:
    return line.startswith(("lorablend ui", "lorablend serve"))


def run_line(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    program, *words = shlex.split(line, comments=True)
    if program != "lorablend":
        assert program in ("python", "echo", "export", "curl"), f"{line}: cannot be run; say why in a comment above it"
        environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        subprocess.run(["bash", "-ec", line], check=True, capture_output=True, env=environment)
        return
    if words[0] in ("generate", "grid") and not {"--steps", "--preset", "--timesteps"} & set(words):
        words += ["--steps", "2"]
    capsys.readouterr()
    code = run(words)
    out, err = capsys.readouterr()
    assert code == 0, f"{line}: {err}"
    assert "warning" not in err, f"{line}: {err}"
    if words[0] == "generate":
        assert read_png(Path(out.split()[0])).record, line


def check_line(line: str) -> None:
    """Whether a line that is not run could be: commands, options, modules and extras that are there."""
    program, *words = shlex.split(line, comments=True)
    if program == "accelerate":
        assert words[:3] == ["launch", "-m", "lorablend.app.cli"]
        program, words = "lorablend", words[3:]
    if program == "lorablend":
        parse_arguments(words)
    elif program == "python" and "-m" in words:
        assert find_spec(words[words.index("-m") + 1]), line
    elif program == "pip":
        project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
        for extra in re.findall(r"\.\[(\w+)\]", line):
            assert f"\n{extra} = [\n" in project, line
    else:
        assert program in ("python3", ".", "tensorboard", "docker", "mkdocs"), line


def parse_arguments(words: list[str]) -> None:
    command: Any = get_command(app)
    names = list(words)
    while hasattr(command, "commands"):
        command = command.commands[names.pop(0)]
    command.make_context("lorablend", names)  # raises for an unknown option or a missing argument


def test_reasons_and_languages() -> None:
    """A block has one of few comments above it and a language that some test here checks."""
    for page in PAGES:
        for block in blocks(page):
            assert block.note in ("", *BY_CI) or block.note.startswith(NOT_RUN), f"{name_of(page)}: {block.note}"
            assert block.language in ("sh", "python", "json", "nginx", "ini", "dockerfile", "text"), name_of(page)


def test_json() -> None:
    forms = [json.loads(block.code) for page in PAGES for block in blocks(page, "json")]
    (item,) = [form for form in forms if "adapter" in form]
    (used,) = resolve_blend([item], adapters_dir())
    assert used.to_json() == item


def test_nginx() -> None:
    """No nginx is at hand: braces match, and every directive ends with a semicolon."""
    ((block,),) = [found for page in PAGES if (found := blocks(page, "nginx"))]
    depth = 0
    for line in (line.partition("#")[0].strip() for line in block.lines):
        assert line.endswith(("{", "}", ";")), line
        depth += line.endswith("{") - (line == "}")
        assert depth >= 0
    assert depth == 0
    assert f"proxy_pass {ADDRESS};" in block.code


def test_behind_a_proxy(server: str) -> None:
    """What the nginx block passes on is what the server needs: the browser's host, and its scheme."""
    headers = {"Host": "images.example.org", "X-Forwarded-For": "192.0.2.7", "X-Forwarded-Proto": "https"}
    headers["Authorization"] = f"Bearer {TOKEN}"
    form = {"prompt": "a red boat", "num_inference_steps": 1, "response_format": "url"}
    with httpx.Client(base_url=server, headers=headers, timeout=120) as http:
        own = http.post("/v1/images/generations", json=form, headers={"Origin": "https://images.example.org"})
        assert own.status_code == 200, own.text
        assert own.json()["data"][0]["url"].startswith("https://images.example.org/api/gallery/")
        assert (
            http.post("/v1/images/generations", json=form, headers={"Origin": "https://a.example"}).status_code == 403
        )
        (job,) = http.get("/api/jobs", params={"client": "192.0.2.7"}).json()["jobs"]
        assert job["state"] == "done"


def test_systemd(tmp_path: Path) -> None:
    """Systemd itself reads the unit, where it is installed; the command's options are ours to check."""
    ((block,),) = [found for page in PAGES if (found := blocks(page, "ini"))]
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # pyright: ignore[reportAttributeAccessIssue] - names keep their capitals
    unit.read_string(block.code)
    assert unit.sections() == ["Unit", "Service", "Install"]
    program, *words = shlex.split(unit["Service"]["ExecStart"])
    assert Path(program).name == "lorablend"
    parse_arguments(words)
    if analyze := shutil.which("systemd-analyze"):
        path = tmp_path / "lorablend.service"
        path.write_text(block.code.replace(program, sys.executable).replace("User=lorablend", "User=root"))
        result = subprocess.run([analyze, "verify", str(path)], capture_output=True, text=True)
        complaints = [line for line in result.stderr.splitlines() if "lorablend.service" in line]
        assert not complaints, result.stderr


def test_container_file() -> None:
    """No container engine is at hand: the instructions are known, and what they name is there."""
    ((block,),) = [found for page in PAGES if (found := blocks(page, "dockerfile"))]
    instructions = [line.partition(" ")[::2] for line in block.lines]
    known = {"FROM", "WORKDIR", "COPY", "RUN", "USER", "ENV", "VOLUME", "EXPOSE", "CMD"}
    assert {name for name, _ in instructions} == known
    values = dict(instructions)
    program, *words = json.loads(values["CMD"])
    assert program == "lorablend"
    parse_arguments(words)
    assert {part.partition("=")[0] for part in values["ENV"].split()} <= variables()


def variables() -> set[str]:
    """The environment variables that people set; the product reads them."""
    files = [file for folder in ("app", "engine") for file in (ROOT / folder).rglob("*.py")]
    names = {name for file in files for name in re.findall(r"\bLORABLEND_[A-Z]+\b", file.read_text(encoding="utf-8"))}
    return names - {"LORABLEND_OFFLINE"}  # between our own processes


def test_every_command_is_documented() -> None:
    """Each command is in a block that a person wrote; the reference of all options is made from the help."""
    lines = [line for page in PAGES for block in blocks(page, "sh") for line in block.code.splitlines()]
    for name, command in hooks.commands():
        if not hasattr(command, "commands"):
            assert any(re.search(rf"\b{name}\b", line) for line in lines), f"{name} is in no page"


@pytest.mark.parametrize(
    ("page", "words"),
    [
        ("schedulers.md", [*SCHEDULERS, *SPACINGS, *PRESETS]),
        ("blends.md", list(BLOCK_PRESETS)),
        ("install.md", sorted(variables())),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_lists_are_complete(page: str, words: list[str]) -> None:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    assert not [word for word in words if not re.search(rf"(?<![\w-]){re.escape(word)}(?![\w-])", text)]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_pages_are_short(page: Path) -> None:
    assert len(page.read_text(encoding="utf-8").splitlines()) <= LONGEST.get(name_of(page), 200)


def test_readme_links() -> None:
    """MkDocs checks the links of the other pages."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for target in [*re.findall(r"\]\(([^)]+)\)", text), *re.findall(r'src="([^"]+)"', text)]:
        path, _, anchor = target.partition("#")
        assert (ROOT / path).exists(), target
        titles = re.findall(r"^#+ (.*)$", (ROOT / path).read_text(encoding="utf-8"), re.MULTILINE) if anchor else []
        assert not anchor or anchor in {title.lower().replace(" ", "-") for title in titles}, target


def test_pages_build(tmp_path: Path) -> None:
    """In strict mode, in which a broken link or an unknown name is an error; and no page loads from another server."""
    shutil.rmtree(ROOT / "build" / "docs-links", ignore_errors=True)  # as in a new clone
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    for page in tmp_path.rglob("*.html"):
        loaded = re.findall(r"<(?:script|link|img)\b[^>]*(?:src|href)=\"([^\"]+)\"", page.read_text(encoding="utf-8"))
        assert loaded
        assert not [address for address in loaded if "//" in address], page


def test_pictures_are_small() -> None:
    assert sum(path.stat().st_size for path in (ROOT / "docs" / "pictures").iterdir()) < 400_000

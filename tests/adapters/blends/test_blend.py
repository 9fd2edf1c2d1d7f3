"""Blends: their items, the forms of entries, and how adapters are found by name."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lorablend.adapters import (
    Adapter,
    Blend,
    BlendItem,
    BlockWeights,
    Mask,
    Schedule,
    load_adapter,
    parse_prompt,
    resolve_blend,
)
from lorablend.adapters.errors import AdapterError, BlendError
from tests.adapter_files import SDXL_SHAPES, message_of, random_factors, write_kohya

ONE_MODULE = dict(list(SDXL_SHAPES.items())[:1])


def write(path: Path, alias: str | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    metadata = {"ss_output_name": alias} if alias else None
    return write_kohya(path, random_factors(ONE_MODULE), metadata=metadata)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path / "ink.safetensors")
    write(tmp_path / "styles" / "Neon.v2.safetensors", alias="neon_style")
    write(tmp_path / "styles" / "deep" / "comic.SafeTensors", alias="ink")
    write(tmp_path / "a" / "twin.safetensors", alias="twins")
    write(tmp_path / "b" / "twin.safetensors", alias="twins")
    write(tmp_path / "a" / "Case.safetensors")
    write(tmp_path / "a" / "case.safetensors")
    write(tmp_path / ".ink.safetensors")
    write(tmp_path / ".lorablend" / "bin" / "discarded.safetensors", alias="away")
    write(tmp_path / ".lorablend" / "ink.safetensors")
    (tmp_path / "broken.safetensors").write_bytes(b"no tensors")
    (tmp_path / "notes.txt").write_text("ink")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("ink", "ink.safetensors"),
        ("ink.safetensors", "ink.safetensors"),
        ("INK", "ink.safetensors"),
        ("Neon.v2", "styles/Neon.v2.safetensors"),
        ("styles/Neon.v2", "styles/Neon.v2.safetensors"),
        ("styles/Neon.v2.safetensors", "styles/Neon.v2.safetensors"),
        ("neon.V2", "styles/Neon.v2.safetensors"),
        ("neon_style", "styles/Neon.v2.safetensors"),
        ("Neon_Style", "styles/Neon.v2.safetensors"),
        ("comic", "styles/deep/comic.SafeTensors"),
        ("comic.safetensors", "styles/deep/comic.SafeTensors"),
        ("a/twin", "a/twin.safetensors"),
        ("Case", "a/Case.safetensors"),
        ("case", "a/case.safetensors"),
    ],
)
def test_names(folder: Path, name: str, file: str) -> None:
    (item,) = resolve_blend([(name, 0.5)], folder)
    assert item.adapter.path == folder / file
    assert item.weight == 0.5


def test_paths_and_adapters(folder: Path) -> None:
    path = folder / "ink.safetensors"
    adapter = load_adapter(path)
    number: Any = np.float32(0.5)
    blend = resolve_blend([(adapter, 1), (path, -2), (str(path), number)])
    assert [(item.adapter.name, item.weight) for item in blend] == [("ink", 1.0), ("ink", -2.0), ("ink", 0.5)]
    assert blend.items[0].adapter is adapter
    assert all(type(item.weight) is float for item in blend)


def test_a_bare_word_is_a_name_even_if_it_is_a_file_in_the_current_folder(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cwd").mkdir()
    (tmp_path / "cwd" / "ink").write_text("not an adapter")
    monkeypatch.chdir(tmp_path / "cwd")
    (item,) = resolve_blend([("ink", 1)], folder)
    assert item.adapter.path == folder / "ink.safetensors"


def test_a_blend_is_returned_unchanged(folder: Path) -> None:
    blend = Blend((BlendItem(load_adapter(folder / "ink.safetensors"), 1.0),))
    assert resolve_blend(blend) is blend
    assert len(resolve_blend([])) == 0
    assert resolve_blend([]) == Blend()


def test_a_callers_own_load_is_used(folder: Path) -> None:
    cache: dict[Path, Adapter] = {}

    def load(path: Path) -> Adapter:
        return cache.setdefault(path, load_adapter(path))

    first, second = resolve_blend([("ink", 1), ("ink.safetensors", 2)], folder, load=load)
    assert first.adapter is second.adapter


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("inc", "inc: no adapter with that name among the 8 in {folder}; did you mean ink?"),
        ("Neon.v3", "Neon.v3: no adapter with that name among the 8 in {folder}; did you mean Neon.v2?"),
        ("neon_stile", "neon_stile: no adapter with that name among the 8 in {folder}; did you mean neon_style?"),
        ("zzzzzz", "zzzzzz: no adapter with that name among the 8 in {folder}"),
        (".ink", ".ink: no adapter with that name among the 8 in {folder}; did you mean ink?"),
        ("discarded", "discarded: no adapter with that name among the 8 in {folder}"),
        ("away", "away: no adapter with that name among the 8 in {folder}"),
        ("../ink", "../ink: no adapter with that name among the 8 in {folder}; did you mean ink?"),
        ("x" * 300, "x" * 80 + "…" + "x" * 80 + ": no adapter with that name among the 8 in {folder}"),
        ("a\0b", "a\\x00b: no adapter with that name among the 8 in {folder}"),
        ("twin", "twin: both a/twin.safetensors and b/twin.safetensors have that name; give the path in {folder}"),
        ("twins", "twins: both a/twin.safetensors and b/twin.safetensors have that name; give the path in {folder}"),
        ("CASE", "CASE: both a/Case.safetensors and a/case.safetensors have that name; give the path in {folder}"),
    ],
)
def test_names_that_are_not_found(folder: Path, name: str, message: str) -> None:
    assert message_of(BlendError, lambda: resolve_blend([(name, 1)], folder)) == message.format(folder=folder)


def test_no_folder_to_search(tmp_path: Path) -> None:
    assert message_of(BlendError, lambda: resolve_blend([("ink", 1)])) == (
        "ink: no such file, and no adapter folder to search for the name"
    )
    assert message_of(BlendError, lambda: resolve_blend([("ink", 1)], tmp_path / "no")) == (
        f"{tmp_path / 'no'}: no such adapter folder, needed to find ink"
    )


def test_a_missing_path_and_a_broken_file(folder: Path) -> None:
    missing = folder / "no.safetensors"
    assert message_of(AdapterError, lambda: resolve_blend([(missing, 1)])) == (
        f"{missing}: cannot be read (No such file or directory)"
    )
    assert message_of(AdapterError, lambda: resolve_blend([("broken", 1)], folder)) == (
        "broken.safetensors: not a safetensors file"
    )


@pytest.mark.parametrize("weight", [float("nan"), float("inf"), "0.8", None, True, 1j])
def test_weights_that_are_not_finite_numbers(folder: Path, weight) -> None:
    assert message_of(BlendError, lambda: resolve_blend([("ink", weight)], folder)) == (
        f"ink: weight {weight} is not a finite number"
    )
    adapter = load_adapter(folder / "ink.safetensors")
    assert message_of(BlendError, lambda: resolve_blend([(adapter, weight)])) == (
        f"ink: weight {weight} is not a finite number"
    )


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("ink", "ink is not an entry of a blend; give a pair, (file or name, weight)"),
        (
            {"adapter": "ink", "wieght": 1},
            'unknown key "wieght"; did you mean "weight"?',
        ),
        ({"items": 3}, "items 3 is not a list of entries"),
        ({"items": [{"items": []}]}, "{'items': []} is not an entry of a blend; give a pair, (file or name, weight)"),
        ({"weight": 1}, 'unknown key "weight"; choose from mode, switch_steps, items'),
        ({"adapter": "ink", "schedule": {"start": -1}}, "ink: start -1 is not a step; steps are counted from 1"),
        (
            {"adapter": "ink", "blocks": "OUTAL"},
            'ink: lbw "OUTAL" is neither a preset nor a list; did you mean "OUTALL"?',
        ),
        (
            {"adapter": "ink", "mask": "left.png"},
            "ink: mask left.png: pictures cannot be opened here; give a box: left, top, right, bottom",
        ),
        (
            {"adapter": "ink", "mask": [0, 1]},
            "ink: mask [0, 1] is not a box; give left, top, right and bottom as numbers from 0 to 1",
        ),
        ({"adapter": 7}, "7 is not an adapter; give its path, its name or an Adapter"),
        (("ink", 1, 2), "('ink', 1, 2) is not an entry of a blend; give a pair, (file or name, weight)"),
        ((7, 1), "7 is not an adapter; give its path, its name or an Adapter"),
    ],
)
def test_entries_of_another_kind(entry, message: str) -> None:
    assert message_of(BlendError, lambda: resolve_blend([entry])) == message


# items and blends


@pytest.fixture
def ink(folder: Path) -> Adapter:
    return load_adapter(folder / "ink.safetensors")


PATHS = {
    ("unet", "down_blocks.1.resnets.0.conv1"): "IN04",
    ("unet", "up_blocks.0.resnets.0.conv1"): "OUT00",
    ("text_encoder", "text_model.encoder.layers.0.mlp.fc1"): "BASE",
    ("text_encoder_2", "text_model.encoder.layers.0.mlp.fc1"): "BASE",
}


@pytest.mark.parametrize(
    ("fields", "weights"),
    [
        ({}, [1, 1, 1, 1]),
        ({"weight": -0.5}, [-0.5, -0.5, -0.5, -0.5]),
        ({"weight": 0.5, "unet": 2}, [2, 2, 0.5, 0.5]),
        ({"weight": 0.5, "text_encoder": 0}, [0.5, 0.5, 0, 0]),
        ({"unet": 3, "text_encoder": 4}, [3, 3, 4, 4]),
        ({"weight": 0.5, "blocks": BlockWeights("INALL")}, [0.5, 0, 0.5, 0.5]),
        ({"weight": 2, "unet": 3, "blocks": BlockWeights(paths=(("up_blocks", 0.5),))}, [3, 1.5, 2, 2]),
        ({"weight": 2, "unet": 3, "blocks": BlockWeights(down=5)}, [5, 3, 2, 2]),
        ({"weight": 2, "schedule": Schedule(5), "mask": Mask((0, 0, 0.5, 1))}, [2, 2, 2, 2]),
    ],
    ids=str,
)
def test_weight_of(ink: Adapter, fields: dict[str, Any], weights: list[float]) -> None:
    item = BlendItem(ink, **fields)
    assert [item.weight_of(*module) for module in PATHS] == weights


def test_the_static_key_depends_only_on_the_weights(ink: Adapter) -> None:
    item = BlendItem(ink, 0.5, blocks=BlockWeights("INS"))
    assert (
        item.static_key
        == BlendItem(ink, 0.5, 0.5, 0.5, BlockWeights("INS"), Schedule(3), Mask((0, 0, 1, 0.5))).static_key
    )
    others = [BlendItem(ink, 0.5), BlendItem(ink, 0.6, blocks=BlockWeights("INS")), BlendItem(ink, 0.5, 1.0)]
    others += [BlendItem(ink, 0.5, None, 1.0), BlendItem(ink, 0.5, blocks=BlockWeights("IND"))]
    assert len({item.static_key, *(other.static_key for other in others)}) == 6


def test_settings_that_change_nothing_are_dropped(ink: Adapter) -> None:
    item = BlendItem(ink, 0.5, 0.5, 0.5, BlockWeights(), Schedule())
    assert item == BlendItem(ink, 0.5)
    assert hash(item) == hash(BlendItem(ink, 0.5))


@pytest.mark.parametrize("key", ["unet", "text_encoder"])
def test_weights_of_components_are_finite_numbers(ink: Adapter, key: str) -> None:
    fields: dict[str, Any] = {key: float("nan")}
    assert message_of(BlendError, lambda: BlendItem(ink, **fields)) == f"ink: {key} nan is not a finite number"


def test_an_integer_beyond_the_range_of_floats(ink: Adapter) -> None:
    assert message_of(BlendError, lambda: BlendItem(ink, 10**400)) == (
        f"ink: weight 1{'0' * 79}…{'0' * 80} is not a finite number"
    )


def test_sixteen_adapters_and_no_more(ink: Adapter) -> None:
    assert len(resolve_blend([(ink, -1)] * 16)) == 16
    assert message_of(BlendError, lambda: resolve_blend([(ink, 0)] * 17)) == (
        "the blend has 17 adapters; give at most 16"
    )


def test_factors(ink: Adapter) -> None:
    items = (BlendItem(ink), BlendItem(ink, schedule=Schedule(3)), BlendItem(ink, schedule=Schedule(ramp=(0, 1))))

    def factors(*mode: Any) -> list[tuple[float, ...]]:
        return [Blend(items, *mode).factors(step, 5) for step in range(5)]

    always = [(1, 0, 0), (1, 0, 0.25), (1, 1, 0.5), (1, 1, 0.75), (1, 1, 1)]
    assert factors() == factors("composite") == always
    assert factors("switch") == [(1, 0, 0), (0, 0, 0), (0, 0, 0.5), (1, 0, 0), (0, 1, 0)]
    assert factors("switch", 2) == [(1, 0, 0), (1, 0, 0), (0, 1, 0), (0, 1, 0), (0, 0, 1)]
    assert Blend((), "switch").factors(3, 5) == ()


@pytest.mark.parametrize(
    ("mode", "message"),
    [
        (("swich",), 'blend mode "swich" is unknown; did you mean "switch"?'),
        (("switch", 0), "switch_steps is 0; give a whole number of steps, 1 or more"),
        (("switch", 1.5), "switch_steps is 1.5; give a whole number of steps, 1 or more"),
    ],
)
def test_refused_modes(mode: Any, message: str) -> None:
    assert message_of(BlendError, lambda: Blend((), *mode)) == message


def test_every_form_of_an_entry(folder: Path, ink: Adapter) -> None:
    forms: list[Any] = [
        ("ink", 0.5),
        ["ink", 0.5],
        BlendItem(ink, 0.5),
        Blend((BlendItem(ink, 0.5),)),
        {"adapter": "ink", "weight": 0.5},
        {"adapter": ink, "weight": 0.5, "schedule": None},
        {"items": [{"adapter": ink, "weight": 0.5}]},
        "<lora:ink:0.5>",
        f" <lora:{folder / 'ink.safetensors'}:0.5> ",
    ]
    blend = resolve_blend(forms, folder, load=lambda _: ink)
    assert blend.items == (BlendItem(ink, 0.5),) * len(forms)
    assert resolve_blend(["<lora:ink:0.5><lora:ink:0.5>"], folder, load=lambda _: ink).items == blend.items[:2]


def test_the_mode_of_an_entry(folder: Path) -> None:
    switch = {"mode": "switch", "switch_steps": 2, "items": []}
    assert resolve_blend([("ink", 1), switch, Blend()], folder).mode == "switch"
    assert resolve_blend([switch, switch]).switch_steps == 2
    assert message_of(BlendError, lambda: resolve_blend([switch, Blend((), "composite")])) == (
        "the blend has the modes switch:2 and composite; give only one"
    )


def test_masks_from_pictures(folder: Path, ink: Adapter, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "left.png").touch()
    opened: list[Path] = []

    def open_mask(path: Path) -> np.ndarray:
        opened.append(path)
        return np.eye(2)

    monkeypatch.chdir(folder / "styles")
    for mask in ("left.png", "../left.png", folder / "left.png", str(folder / "left.png")):
        (item,) = resolve_blend([{"adapter": ink, "mask": mask}], folder, open_mask=open_mask)
        assert item.mask == Mask(picture=np.eye(2))
        assert item.mask
        assert item.mask.name in ("left.png", "../left.png")
    assert [path.resolve() for path in opened] == [folder / "left.png"] * 4
    call = lambda: resolve_blend([{"adapter": ink, "mask": "no.png"}], folder, open_mask=open_mask)  # noqa: E731
    assert message_of(BlendError, call) == f"ink: mask no.png: no such picture in {folder}"


# a prompt may be untrusted


def test_a_prompt_opens_nothing_outside_the_folder(
    folder: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    outside = write(tmp_path_factory.mktemp("outside") / "secret.safetensors")
    (outside.parent / "secret.png").touch()
    monkeypatch.chdir(outside.parent)
    (folder / "linked.safetensors").symlink_to(outside)
    (folder / "linked.png").symlink_to(outside.parent / "secret.png")
    (folder / "inside.safetensors").symlink_to(folder / "ink.safetensors")

    def refusal(tag: str, lora_dir: Path | None = folder) -> str:
        _, entries = parse_prompt(tag)
        return message_of(BlendError, lambda: resolve_blend(entries, lora_dir, load=no_load, open_mask=no_mask))

    def no_load(path: Path) -> Adapter:
        assert path.is_relative_to(folder)
        return load_adapter(path)

    def no_mask(path: Path) -> np.ndarray:
        raise AssertionError(path)

    assert refusal("<lora:secret.safetensors:1>").startswith("secret.safetensors: no adapter with that name among the ")
    assert refusal("<lora:./secret.safetensors:1>").startswith("./secret.safetensors: no adapter with that name among ")
    assert refusal("<lora:secret.safetensors:1>", None) == (
        "secret.safetensors: no such file, and no adapter folder to search for the name"
    )
    assert refusal("<lora:linked:1>") == f"linked: a link that points outside {folder}; a prompt cannot use it"
    assert refusal("<lora:ink:1:mask=secret.png>") == f"ink: mask secret.png: no such picture in {folder}"
    assert refusal("<lora:ink:1:mask=secret.png>", None).startswith("ink: mask secret.png: no adapter folder")
    assert refusal("<lora:ink:1:mask=linked.png>") == (
        f"ink: linked.png: a link that points outside {folder}; a prompt cannot use it"
    )

    _, entries = parse_prompt("<lora:inside:1> <lora:styles/Neon.v2:0.5>")
    assert [item.adapter.name for item in resolve_blend(entries, folder)] == ["inside", "Neon.v2"]
    (item,) = resolve_blend([("linked", 1)], folder)  # not from a prompt
    assert item.adapter.name == "linked"

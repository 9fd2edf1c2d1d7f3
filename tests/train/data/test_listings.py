"""What a listing of pictures may name: a stranger's only what is inside its data set, the user's own anything."""

from __future__ import annotations

import json
import re
import shutil
import tracemalloc
from pathlib import Path

import pytest

from lorablend.adapters.errors import DataError
from lorablend.train.data.captions import caption_variants
from lorablend.train.data.layouts import find_examples
from tests.adapter_files import message_of
from tests.train.data.data_files import clean, save

_SUBSET = "[[datasets]]\n[[datasets.subsets]]\n"
LISTINGS = {  # a file that names the picture {far}, or its folder {folder}
    "metadata.jsonl": '{{"file_name": "{far}", "text": "a fox"}}\n',
    "metadata.csv": "file_name,text\n{far},a fox\n",
    "caption.csv": "image_file,caption\n{far},a fox\n",
    "sub/metadata.jsonl": '{{"file_name": "{far}", "text": "a fox"}}\n',
    "meta.json": '{{"{far}": {{"caption": "a fox"}}}}',
    "folder.toml": _SUBSET + "image_dir = '{folder}'\n",
    "mask.toml": _SUBSET + "image_dir = 'in'\nconditioning_data_dir = '{folder}'\n",
    "list.toml": _SUBSET + "metadata_file = '{folder}/list.json'\n",
    "listed.toml": _SUBSET + "metadata_file = 'in/listed.json'\n",
    "listed-below.toml": _SUBSET + "metadata_file = 'in/listed.json'\nimage_dir = 'in'\n",
}


@pytest.mark.parametrize("spelled", ["absolute", "upwards", "home", "gone"])
@pytest.mark.parametrize("listing", LISTINGS)
@pytest.mark.parametrize("source", ["folder", "archive"])
def test_no_listing_leaves_its_data_set(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, listing: str, spelled: str
) -> None:
    """A folder or archive may be a stranger's: its listings name only files inside it; messages reveal no others."""
    far = save(tmp_path / "far" / "private.png", 1, caption="a secret")
    (far.parent / "list.json").write_text(json.dumps({"private.png": {"caption": "a secret"}}))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    depth = "../" * (1 + listing.count("/") + ("listed" in listing))
    folder = {"absolute": str(far.parent), "upwards": f"{depth}far", "home": "~/far", "gone": f"{depth}gone"}[spelled]
    save(data / "in" / "near.png", 2, caption="a hare")
    (data / "in" / "listed.json").write_text(json.dumps({f"{folder}/private.png": {"caption": "a fox"}}))
    file = data / listing
    file.parent.mkdir(exist_ok=True)
    file.write_text(LISTINGS[listing].format(far=f"{folder}/private.png", folder=folder))
    given = data if source == "folder" else Path(shutil.make_archive(str(tmp_path / "set"), "zip", data))
    try:
        dataset = find_examples(given)
    except DataError as error:
        message = str(error)
    else:
        message = " ".join(dataset.problems)
        assert all(example.path.is_relative_to(dataset.root) for example in dataset.examples)
        assert all(example.mask is None or example.mask.is_relative_to(dataset.root) for example in dataset.examples)
        assert "secret" not in str(dataset)
    refusal = "there is no ~|does not exist" if spelled == "home" else "is outside the data set"
    assert re.search(refusal, message)


@pytest.mark.parametrize("listing", [name for name in LISTINGS if name != "mask.toml"])
def test_a_listing_that_the_user_gives_may_name_any_picture(data: Path, tmp_path: Path, listing: str) -> None:
    far = save(tmp_path / "far" / "private.png", 1)
    (far.parent / "list.json").write_text(json.dumps({"private.png": {"caption": "a fox"}}))
    save(data / "in" / "near.png", 2)
    (data / "in" / "listed.json").write_text(json.dumps({str(far): {"caption": "a fox"}}))
    file = data / listing
    file.parent.mkdir(exist_ok=True)
    file.write_text(LISTINGS[listing].format(far=far, folder=far.parent))
    assert [example.path for example in clean(find_examples(file)).examples] == [far]


def test_a_caption_extension_is_the_end_of_a_name(data: Path) -> None:
    save(data / "a.png", 1)
    for extension in ("/../x", ".a/b", "..\\\\x", "a\\u0000b", "", "...", "x" * 300):
        (data / "set.toml").write_text(f'{_SUBSET}image_dir = "."\ncaption_extension = "{extension}"\n')
        with pytest.raises(DataError) as caught:
            find_examples(data)
        assert str(caught.value).endswith("; give the end of a file name, such as .txt")
    for extension in (".txt", "txt", ".tags.txt"):
        (data / "set.toml").write_text(f'{_SUBSET}image_dir = "."\ncaption_extension = "{extension}"\n')
        assert len(find_examples(data).examples) == 1


@pytest.mark.parametrize("key", ["image_dir", "metadata_file", "conditioning_data_dir"])
@pytest.mark.parametrize("name", ["x" * 300, "x/" * 3000, "a\\u0000b", "..."])
def test_names_that_no_file_can_have(data: Path, key: str, name: str) -> None:
    save(data / "a.png", 1)
    folder = "" if key == "image_dir" else 'image_dir = "."\n'
    (data / "set.toml").write_text(f'{_SUBSET}{folder}{key} = "{name}"\n')
    for asked in (data, data / "set.toml"):
        with pytest.raises(DataError, match="fix its path"):
            find_examples(asked)
    (data / "set.toml").unlink()
    (data / "list.json").write_text(f'{{"{name}.png": {{"caption": "a fox"}}}}')
    for asked in (data, data / "list.json"):
        (problem,) = find_examples(asked).problems
        assert problem.endswith(".png does not exist")


def test_a_picture_that_is_listed_again_and_again(data: Path) -> None:
    save(data / "a.png", 1)
    lines = [f'{{"file_name": "a.png", "text": "{number}"}}' for number in range(200_000)]
    (data / "metadata.jsonl").write_text("\n".join(lines))
    (example,) = clean(find_examples(data)).examples
    assert example.captions[::199_999] == ("0", "199999")


def test_wrong_rows_of_a_table_are_not_all_kept(data: Path) -> None:
    """Each takes a hundred times the memory of its two bytes."""
    save(data / "a.png", 1)
    (data / "metadata.csv").write_text("file_name,text\n" + ",\n" * 500_000)
    tracemalloc.start()
    message = message_of(DataError, lambda: find_examples(data))
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert message == "metadata.csv has a row without file_name: {'file_name': '', 'text': ''}"
    assert most < 20e6  # 100 MB for all


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (".".join("a" * 102) + " = 1", "is not valid TOML (a line has more than 100 dots); fix it"),
        ("#" * 1_048_577, "has 1,048,577 characters, 1,048,576 at most are read; make it shorter"),
    ],
)
def test_a_toml_that_no_one_writes(data: Path, text: str, reason: str) -> None:
    save(data / "a.png", 1)
    (data / "set.toml").write_text(text)
    assert message_of(DataError, lambda: find_examples(data / "set.toml")) == f"set.toml {reason}"
    assert "1 other file: set.toml not read" in clean(find_examples(data)).notes


@pytest.mark.parametrize("caption", ["{a}" * 100_000, "{a|" * 5_000 + "b" + " }" * 5_000])
def test_thousands_of_wildcards(data: Path, caption: str) -> None:
    """Such a caption keeps them; replacing one by one would read it as often."""
    save(data / "p" / "a.png", 1, caption=caption)
    (data / "set.toml").write_text('[[datasets]]\n[[datasets.subsets]]\nimage_dir = "p"\nenable_wildcard = true\n')
    (example,) = clean(find_examples(data)).examples
    assert example.captions == (caption,)
    assert len(caption_variants((caption,), None, shuffle=False, keep_tokens=0, seed=1)) >= 1

"""Every supported layout of a data set, and their problems."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lorablend.adapters.errors import DataError
from lorablend.train.data.examples import Example
from lorablend.train.data.layouts import UNDERSTOOD, find_examples
from tests.train.data.data_files import by_name, captions, clean, save

# text files


def test_flat_folder(data: Path) -> None:
    save(data / "a.png", 1, caption="a fox\n")
    save(data / "b.jpg", 2, (120, 80)).with_suffix(".caption").write_text("a hare")
    save(data / "c.webp", 3, caption="one\n\ntwo\n")
    save(data / "d.avif", 4, caption="\ufeffwith a mark")
    save(data / "e.png", 5).with_name("e.png.txt").write_text("after the suffix")
    dataset = clean(find_examples(data))
    assert captions(dataset) == {
        "a.png": ("a fox",),
        "b.jpg": ("a hare",),
        "c.webp": ("one", "two"),
        "d.avif": ("with a mark",),
        "e.png": ("after the suffix",),
    }
    assert by_name(dataset)["b.jpg"] == Example(data / "b.jpg", ("a hare",), 1, (120, 80), None)
    assert dataset.layout == "a folder of pictures; 5 pictures; captions: 4 from .txt files, 1 from .caption files"
    assert dataset.notes == ("1 picture with several caption lines, which are alternatives",)
    assert dataset.trigger is None


def test_txt_and_caption_that_differ(data: Path) -> None:
    save(data / "a.png", 1, caption="a fox").with_suffix(".caption").write_text("a hare")
    save(data / "b.png", 2, caption="same").with_suffix(".caption").write_text("same")
    dataset = clean(find_examples(data))
    assert captions(dataset) == {"a.png": ("a fox",), "b.png": ("same",)}
    assert dataset.notes == ("a.png: a.txt and a.caption differ; a.txt is used",)


def test_captions_missing_for_some(data: Path) -> None:
    for number in range(6):
        save(data / f"a red fox {number}.png", number, caption="a fox" if number > 3 else None)
    save(data / "empty.png", 9, caption=" \n")
    dataset = clean(find_examples(data, trigger="sks"))
    assert dataset.notes == (
        "5 pictures: a red fox 0.png, a red fox 1.png, a red fox 2.png, a red fox 3.png, empty.png without a caption",
        "sks is put in front of the captions of 2 pictures that lack it",
    )
    assert dataset.trigger == "sks"


def test_captions_that_are_no_text(data: Path) -> None:
    save(data / "a.png").with_suffix(".txt").write_bytes(b"caf\xe9")
    save(data / "b.png", 1).with_suffix(".txt").write_bytes("caf\xe9".encode("utf-16"))
    dataset = find_examples(data)
    assert captions(dataset)["b.png"] == ("café",)
    assert dataset.problems == ("a.txt is not text in UTF-8 (byte 3); save it as UTF-8",)


def test_trigger_placeholder_needs_a_trigger(data: Path) -> None:
    save(data / "a.png", caption="a photo of [trigger]")
    assert find_examples(data).problems == (
        "[trigger] occurs in 1 caption: a.png, but there is no trigger word; give one",
    )
    dataset = clean(find_examples(data, trigger="sks"))
    assert dataset.notes == ()


# names


def test_captions_from_file_names(data: Path) -> None:
    save(data / "a_red_fox_01.png", 1)
    save(data / "sub" / "a blue hare (2).png", 2)
    dataset = clean(find_examples(data))
    assert captions(dataset) == {"a_red_fox_01.png": ("a red fox",), "sub/a blue hare (2).png": ("a blue hare",)}
    assert dataset.layout == "a tree of folders; 2 pictures; captions: 2 from file names"


def test_captions_from_plain_folder_names(data: Path) -> None:
    save(data / "foxes" / "IMG_0001.jpg", 1)
    save(data / "hares" / "close" / "IMG_0002.jpg", 2)
    dataset = clean(find_examples(data))
    assert captions(dataset) == {"foxes/IMG_0001.jpg": ("foxes",), "hares/close/IMG_0002.jpg": ("close",)}
    assert dataset.trigger is None
    assert captions(find_examples(data, caption_from="files")) == dict.fromkeys(captions(dataset), ())


def test_names_are_no_captions_where_others_are_written(data: Path) -> None:
    save(data / "foxes" / "a red fox.png", 1)
    save(data / "foxes" / "b.png", 2, caption="a fox")
    assert captions(find_examples(data))["foxes/a red fox.png"] == ()
    assert captions(find_examples(data, caption_from="folders"))["foxes/a red fox.png"] == ("foxes",)
    assert captions(find_examples(data, caption_from="files"))["foxes/a red fox.png"] == ("a red fox",)


def test_kohya_folders(data: Path) -> None:
    save(data / "10_sks dog" / "a.png", 1)
    save(data / "10_sks dog" / "deep" / "b.png", 2, caption="a dog in snow")
    save(data / "3_ohwx_cat" / "c.png", 3)
    save(data / "loose" / "d.png", 4)
    save(data / "1_images" / "e.png", 5)
    dataset = clean(find_examples(data))
    examples = by_name(dataset)
    assert {name: (e.repeats, e.captions, e.trigger) for name, e in examples.items()} == {
        "10_sks dog/a.png": (10, ("sks dog",), "sks"),
        "10_sks dog/deep/b.png": (10, ("a dog in snow",), "sks"),
        "3_ohwx_cat/c.png": (3, ("ohwx cat",), "ohwx"),
        "loose/d.png": (1, (), None),
        "1_images/e.png": (1, (), None),
    }
    assert dataset.trigger == "sks, ohwx"
    assert dataset.layout == (
        "kohya's <repeats>_<trigger> <class> folders (10_sks dog: 10 repeats, 1_images: 1 repeat, "
        "3_ohwx_cat: 3 repeats); 5 pictures; captions: 2 from folder names, 1 from .txt files"
    )
    assert dataset.notes == (
        "1 picture: loose/d.png in folders without repeats in their names, 1 repeat",
        "3_ohwx_cat: its words are read as ohwx cat; kohya itself reads ohwx_cat",
        "2 pictures: 1_images/e.png, loose/d.png without a caption",
        "sks is put in front of the captions of 1 picture that lack it",
    )


def test_kohya_folder_itself(data: Path) -> None:
    """kohya would need its parent folder, but here the intention is clear."""
    folder = data / "10_sks dog"
    save(folder / "a.png", 1)
    dataset = clean(find_examples(folder))
    assert [(e.repeats, e.captions) for e in dataset.examples] == [(10, ("sks dog",))]
    assert dataset.notes == (
        "the data set is 10_sks dog itself, not its parent folder; its name is read as kohya reads a subfolder's",
    )


def test_folders_of_kohyas_gui(data: Path) -> None:
    save(data / "img" / "10_sks dog" / "a.png", 1)
    save(data / "reg" / "1_dog" / "b.png", 2)
    save(data / "model" / "sample" / "c.png", 3)
    dataset = clean(find_examples(data, trigger="ohwx"))
    assert {name: (e.repeats, e.captions, e.trigger) for name, e in by_name(dataset).items()} == {
        "img/10_sks dog/a.png": (10, ("sks dog",), "ohwx"),
        "reg/1_dog/b.png": (1, ("dog",), None),
    }
    assert dataset.notes == (
        "1 picture: model/sample/c.png in the output folders of kohya's GUI, left out",
        "the trigger is ohwx as requested, not sks",
        "1 regularization picture, trained on like the others, but without a trigger",
        "ohwx is put in front of the captions of 1 picture that lack it",
    )


def test_no_repeats(data: Path) -> None:
    save(data / "0_sks dog" / "a.png")
    assert find_examples(data).problems == (
        "folder 0_sks dog says 0 repeats; rename it, or move it out of the data set",
    )


def test_repeats_as_asked_for(data: Path) -> None:
    save(data / "10_sks dog" / "a.png")
    dataset = clean(find_examples(data, repeats=2))
    assert dataset.examples[0].repeats == 2
    assert dataset.notes == ("2 repeats of every picture as requested, not 10",)


def test_trigger_and_class_folders(data: Path) -> None:
    save(data / "sks_dog" / "1.png", 1)
    save(data / "ohwx_old man" / "2.png", 2, caption="a man")
    save(data / "ohwx_old man" / "3.png", 3, caption="ohwx smiles")
    dataset = clean(find_examples(data))
    assert {name: (e.repeats, e.captions, e.trigger) for name, e in by_name(dataset).items()} == {
        "sks_dog/1.png": (1, ("sks dog",), "sks"),
        "ohwx_old man/2.png": (1, ("a man",), "ohwx"),
        "ohwx_old man/3.png": (1, ("ohwx smiles",), "ohwx"),
    }
    assert dataset.layout == (
        "<trigger>_<class> folders (ohwx_old man: ohwx, a old man, sks_dog: sks, a dog); 3 pictures; "
        "captions: 2 from .txt files, 1 from folder names"
    )
    assert dataset.notes == ("ohwx is put in front of the captions of 1 picture that lack it",)


# lists


def test_one_text_for_all_pictures(data: Path) -> None:
    """OneTrainer's third way; a single line is more likely a text whose picture was deleted."""
    save(data / "a.png", 1)
    save(data / "1" / "b.png", 2)
    (data / "README.txt").write_text("Drawn by me.\nFree to use.\n")
    text = data / "prompts.txt"
    text.write_text("a fox\na red animal\n\n")
    dataset = clean(find_examples(data))
    assert captions(dataset) == dict.fromkeys(("a.png", "1/b.png"), ("a fox", "a red animal"))
    assert dataset.layout == "a tree of folders; 2 pictures; captions: 2 from prompts.txt"
    assert dataset.notes == (
        "prompts.txt is the only text file: each of its 2 lines captions every picture",
        "1 text file: README.txt without a picture",
        "2 pictures with several caption lines, which are alternatives",
    )
    text.write_text("a fox\n")
    assert captions(clean(find_examples(data))) == dict.fromkeys(("a.png", "1/b.png"), ())
    text.rename(data / "1" / "prompts.txt").write_text("a fox\na red animal\n")
    assert captions(clean(find_examples(data))) == dict.fromkeys(("a.png", "1/b.png"), ())


def test_parquet(data: Path) -> None:
    save(data / "a.png", 1, caption="a fox")
    (data / "photo.parquet").write_bytes(b"PAR1")
    assert clean(find_examples(data)).notes == ("1 other file: photo.parquet not read",)
    save(data / "b.png", 2)
    assert find_examples(data).problems == (
        "1 parquet file: photo.parquet is not supported; write the captions to metadata.jsonl next to the pictures, "
        'one line {"file_name": "a.png", "text": "…"} for each, and move the parquet file elsewhere',
    )


def test_metadata_jsonl(data: Path) -> None:
    save(data / "train" / "a.png", 1)
    save(data / "train" / "b.png", 2, caption="other words")
    save(data / "train" / "c.png", 3, caption="not listed")
    lines = [{"file_name": "a.png", "text": "a fox"}, {"file_name": "./b.png", "text": ["a hare", "it"]}]
    (data / "train" / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    dataset = clean(find_examples(data))
    assert captions(dataset) == {
        "train/a.png": ("a fox",),
        "train/b.png": ("a hare", "it"),
        "train/c.png": ("not listed",),
    }
    assert dataset.layout.startswith("Hugging Face's train/metadata.jsonl of 2 pictures; 3 pictures; captions: ")
    assert dataset.notes == (
        "1 picture: train/c.png not in train/metadata.jsonl",
        "train/b.png: its caption file differs from train/metadata.jsonl; train/metadata.jsonl is used",
        "1 picture with several caption lines, which are alternatives",
    )


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("metadata.csv", 'file_name,text\na.png,"a fox, red"\nsub/b.png,a hare\n'),
        ("caption.csv", 'image_file,captions\r\na.png,"a fox, red"\r\nb.png,a hare\r\n'),
        ("captions.csv", "caption;image\na fox, red;a.png\na hare;b\n"),
    ],
)
def test_tables(data: Path, name: str, text: str) -> None:
    save(data / "a.png", 1)
    save(data / "sub" / "b.png", 2)
    (data / name).write_text(text, newline="")
    dataset = clean(find_examples(data))
    assert captions(dataset) == {"a.png": ("a fox, red",), "sub/b.png": ("a hare",)}
    assert dataset.notes == ()


def test_list_with_files_that_are_not_there(data: Path) -> None:
    save(data / "a.png", 1)
    save(data / "x" / "b.png", 2)
    save(data / "y" / "b.png", 3)
    (data / "metadata.csv").write_text("file_name,text\na.png,fox\nb.png,hare\n../../secret.png,x\n")
    assert find_examples(data).problems == (
        "metadata.csv: b.png could be several pictures",
        "metadata.csv: ../../secret.png is outside the data set",
    )


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("metadata.csv", "file,words\na.png,x\n", "metadata.csv has the columns file, words; name one of them text"),
        ("metadata.csv", "text\nx\n", "metadata.csv has the columns text; name one of them file_name"),
        ("metadata.csv", "", "metadata.csv has the columns none; name one of them file_name"),
        (
            "metadata.csv",
            "file_name,text\na.png,a fox, red\n",
            "metadata.csv has 1 row: [' red'] with more values than columns; put \"…\" around the text",
        ),
        ("metadata.jsonl", "[1]\n", "metadata.jsonl: line 1 is not a JSON object; fix it"),
        (
            "metadata.jsonl",
            '{"file_name": "a.png", "text": 3}',
            "metadata.jsonl: text of a.png is not text: 3",
        ),
    ],
)
def test_damaged_tables(data: Path, name: str, text: str, message: str) -> None:
    save(data / "a.png")
    (data / name).write_text(text)
    with pytest.raises(DataError) as caught:
        find_examples(data)
    assert str(caught.value) == message


def test_kohya_fine_tuning(data: Path) -> None:
    first = save(data / "a.png", 1)
    save(data / "b.png", 2)
    entries = {str(first): {"caption": "a fox", "tags": "red, snow"}, "b": {"tags": "hare"}}
    (data / "meta_cap.json").write_text(json.dumps(entries))
    (data / "other.json").write_text("[]")
    dataset = clean(find_examples(data))
    assert captions(dataset) == {"a.png": ("a fox, red, snow",), "b.png": ("hare",)}
    assert dataset.layout.startswith("kohya's fine-tuning meta_cap.json of 2 pictures; 2 pictures; ")
    assert dataset.notes == ("1 other file: other.json not read",)
    only = clean(find_examples(data / "meta_cap.json"))
    assert captions(only) == captions(dataset)


def test_kohya_toml(data: Path) -> None:
    save(data / "5_cat" / "a.png", 1)
    save(data / "5_cat" / "b.png", 2, caption="a cat")
    save(data / "5_cat" / "b2.png", 6).with_suffix(".caption").write_text("an old cat")
    save(data / "class" / "c.png", 3)
    save(data / "left" / "d.png", 4)
    save(data / "masks" / "b.png", 5)
    (data / "set.toml").write_text(
        """
        [general]
        shuffle_caption = true
        [[datasets]]
        resolution = 512
        num_repeats = 3
          [[datasets.subsets]]
          image_dir = "5_cat"
          class_tokens = "sks cat"
          caption_extension = ".caption"
          caption_prefix = "photo of"
          conditioning_data_dir = "masks"
          [[datasets.subsets]]
          image_dir = 'class'
          num_repeats = 1
          class_tokens = "cat"
          is_reg = true
        """
    )
    for source in (data, data / "set.toml"):
        dataset = clean(find_examples(source))
        assert {name: (e.repeats, e.captions, e.trigger) for name, e in by_name(dataset).items()} == {
            "5_cat/a.png": (3, ("sks cat",), "sks"),
            "5_cat/b.png": (3, ("sks cat",), "sks"),
            "5_cat/b2.png": (3, ("photo of an old cat",), "sks"),
            "class/c.png": (1, ("cat",), None),
        }
        assert by_name(dataset)["5_cat/b.png"].mask == data / "masks" / "b.png"
        assert dataset.layout.startswith("kohya's set.toml with 2 subsets; 4 pictures; ")
        assert dataset.notes == (
            "set.toml: shuffle_caption, resolution are settings of the training, not read from there",
            "5_cat says 5 repeats in its name, set.toml says 3, which is used",
            "set.toml takes only .caption files for 5_cat; 1 text file: 5_cat/b.txt not used",
            "1 picture: left/d.png not in any folder of set.toml, left out",
            "1 regularization picture, trained on like the others, but without a trigger",
            "sks is put in front of the captions of 1 picture that lack it",
        )


def test_kohya_toml_takes_no_pictures_of_folders_below(data: Path) -> None:
    """As kohya: masks in such a folder are not pictures, and the same folder may occur in two data sets."""
    save(data / "img" / "a.png", 1, caption="a cat")
    save(data / "img" / "masks" / "a.png", 2)
    save(data / "img" / "old" / "b.png", 3)
    subset = "[[datasets]]\n[[datasets.subsets]]\nimage_dir = 'img'\nconditioning_data_dir = 'img/masks'\n"
    (data / "set.toml").write_text(subset * 2)
    dataset = clean(find_examples(data))
    assert [dataset.name(example.path) for example in dataset.examples] == ["img/a.png", "img/a.png"]
    assert dataset.examples[0].mask == data / "img" / "masks" / "a.png"
    assert dataset.notes == (
        "1 picture: img/old/b.png in subfolders of those of set.toml, which kohya ignores, left out",
    )
    (data / "set.toml").write_text("[[datasets]]\n[[datasets.subsets]]\nimage_dir = '.'\n")
    assert find_examples(data).problems == ("set.toml: . has no pictures",)


def test_kohya_toml_of_lists(data: Path, tmp_path: Path) -> None:
    """Fine-tuning subsets: the list determines the pictures, by full paths if it names no folder."""
    far = save(tmp_path / "far" / "a.png", 1)
    save(data / "img" / "deep" / "b.png", 2)
    save(data / "img" / "c.png", 3, caption="not listed")
    (data / "far.json").write_text(json.dumps({str(far): {"caption": "a fox"}, "img/deep/b": {"tags": "x"}}))
    (data / "near.json").write_text(json.dumps({"deep/b.png": {"tags": "hare"}}))
    (data / "set.toml").write_text(
        "[[datasets]]\n[[datasets.subsets]]\nmetadata_file = 'far.json'\nnum_repeats = 2\n"
        "[[datasets.subsets]]\nmetadata_file = 'near.json'\nimage_dir = 'img'\n"
    )
    dataset = clean(find_examples(data / "set.toml"))
    assert [(example.path, example.captions, example.repeats) for example in dataset.examples] == [
        (far, ("a fox",), 2),
        (data / "img" / "deep" / "b.png", ("x",), 2),
        (data / "img" / "deep" / "b.png", ("hare",), 1),
    ]
    assert dataset.notes == ("1 picture: img/c.png not in near.json, left out",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1", "set.toml has no [[datasets]]; give a kohya data set file, or the folder of pictures itself"),
        ("[[datasets]]", "set.toml has a [[datasets]] without [[datasets.subsets]]; add one with an image_dir"),
        (
            "[[datasets]]\n[[datasets.subsets]]",
            "set.toml has a subset without image_dir; add the folder of its pictures",
        ),
        (
            "[[datasets]]\n[[datasets.subsets]]\nimage_dir='gone'",
            "set.toml: there is no gone; fix its path",
        ),
        (
            "[[datasets]]\n[[datasets.subsets]]\nimage_dir='.'\nnum_repeats='2'",
            "set.toml: num_repeats is 2; give an integer",
        ),
        (
            "[[datasets]]\n[[datasets.subsets]]\nimage_dir='.'\nnum_repeats=0",
            "set.toml: num_repeats is 0 for .; give 1 or more",
        ),
    ],
)
def test_damaged_toml(data: Path, text: str, message: str) -> None:
    (data / "set.toml").write_text(text)
    with pytest.raises(DataError) as caught:
        find_examples(data / "set.toml")
    assert str(caught.value) == message


def test_two_data_set_files(data: Path) -> None:
    for name in ("a.toml", "b.toml"):
        (data / name).write_text("[[datasets]]\n")
    with pytest.raises(DataError) as caught:
        find_examples(data)
    assert str(caught.value) == f"{data} has 2 data set files: a.toml, b.toml; give the one to use"


# empty folders, and the rest


def test_no_pictures(data: Path) -> None:
    for name in ("a.mp4", "b.mp4", "notes.txt", "README"):
        (data / name).write_text("x")
    with pytest.raises(DataError) as caught:
        find_examples(data)
    found = "2 .mp4, 1 files without a suffix, 1 .txt found"
    assert str(caught.value) == f"{data}: no pictures, {found}; {UNDERSTOOD}"


def test_empty_folder(data: Path) -> None:
    with pytest.raises(DataError) as caught:
        find_examples(data)
    assert str(caught.value) == f"{data}: no pictures, nothing found; {UNDERSTOOD}"


def test_not_there(data: Path) -> None:
    with pytest.raises(DataError) as caught:
        find_examples(data / "gone")
    assert str(caught.value) == f"{data / 'gone'} does not exist; give a folder of pictures"


def test_a_picture_is_no_data_set(data: Path) -> None:
    file = save(data / "a.png")
    with pytest.raises(DataError) as caught:
        find_examples(file)
    assert str(caught.value) == f"{file} is a picture; give the folder of the pictures; {UNDERSTOOD}"


def test_other_files_are_told(data: Path) -> None:
    save(data / "a.png", 1, caption="x")
    (data / "b.txt").write_text("lonely")
    (data / "clip.mp4").write_bytes(b"x")
    (data / ".hidden.png").write_bytes(b"x")
    (data / "Thumbs.db").write_bytes(b"x")
    assert clean(find_examples(data)).notes == (
        "1 text file: b.txt without a picture",
        "1 other file: clip.mp4 not read",
    )


def test_linked_folders_are_followed_once(data: Path, tmp_path: Path) -> None:
    save(tmp_path / "elsewhere" / "a.png", 1, caption="x")
    (data / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "back").symlink_to(data)
    assert captions(find_examples(data)) == {"link/a.png": ("x",)}

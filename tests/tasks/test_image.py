"""image.resize: real pictures in, real pictures out."""

from __future__ import annotations

import os
import struct
import zlib
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from edgenode.task import Cancel, Fail
from edgenode.tasks.image import fitted, resize

RED, BLUE = (255, 0, 0), (0, 0, 255)


def two_colours(path: Path, *, size: tuple[int, int] = (400, 200), mode: str = "RGB", **options: Any) -> Path:
    """Red on the left half, blue on the right one."""
    picture = Image.new("RGB", size, BLUE)
    picture.paste(RED, (0, 0, size[0] // 2, size[1]))
    picture.convert(mode).save(path, **options)
    return path


def is_near(colour: Any, wanted: tuple[int, int, int]) -> bool:
    return all(abs(a - b) < 40 for a, b in zip(colour, wanted, strict=True))


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
def test_a_picture_keeps_its_ratio_and_the_answer_describes_the_file(
    tmp_path: Path, ctx: Any, suffix: str
) -> None:
    source = two_colours(tmp_path / f"a{suffix}")
    target = tmp_path / "out" / f"b{suffix}"
    result = resize(ctx, str(source), 100, target=str(target))
    encoded = target.read_bytes()
    assert result == {
        "path": str(target),
        "width": 100,
        "height": 50,
        "bytes": len(encoded),
        "sha256": sha256(encoded).hexdigest(),
    }
    with Image.open(target) as found:
        assert found.size == (100, 50)
        assert found.format == {".jpg": "JPEG", ".png": "PNG", ".webp": "WEBP"}[suffix]
        pixels = found.convert("RGB")
    assert is_near(pixels.getpixel((10, 25)), RED)
    assert is_near(pixels.getpixel((90, 25)), BLUE)


def test_a_second_run_writes_the_same_bytes(tmp_path: Path, ctx: Any) -> None:
    source = str(two_colours(tmp_path / "a.jpg"))
    assert resize(ctx, source, 100) == resize(ctx, source, 100)
    assert sorted(os.listdir(tmp_path)) == ["a-100.jpg", "a.jpg"]


@pytest.mark.parametrize(
    ("orientation", "size", "red_at"),
    [(1, (40, 20), (5, 10)), (3, (40, 20), (35, 10)), (6, (40, 80), (20, 10)), (8, (40, 80), (20, 70))],
)
def test_the_camera_s_orientation_is_obeyed_and_dropped(
    tmp_path: Path, ctx: Any, orientation: int, size: tuple[int, int], red_at: tuple[int, int]
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x010E] = "taken at home"
    source = two_colours(tmp_path / "a.jpg", exif=exif)
    result = resize(ctx, str(source), 40)
    with Image.open(result["path"]) as found:
        assert found.size == size
        assert not found.getexif()
        assert is_near(found.getpixel(red_at), RED)


@pytest.mark.parametrize(
    ("box", "upscale", "expected"),
    [
        ((100, None), False, (100, 50)),
        ((100, 20), False, (40, 20)),
        ((100, 5000), False, (100, 50)),
        ((800, None), False, (400, 200)),
        ((800, None), True, (800, 400)),
        ((800, 300), True, (600, 300)),
        ((1, None), False, (1, 1)),
    ],
)
def test_the_box_is_filled_but_not_beyond_the_source_unless_asked(
    box: tuple[int, int | None], upscale: bool, expected: tuple[int, int]
) -> None:
    assert fitted((400, 200), box, upscale=upscale) == expected


def test_transparency_survives_in_png_and_becomes_white_in_jpeg(tmp_path: Path, ctx: Any) -> None:
    source = tmp_path / "a.png"
    Image.new("RGBA", (100, 100), (255, 0, 0, 0)).save(source)
    kept = resize(ctx, str(source), 10)
    flat = resize(ctx, str(source), 10, format="jpeg")
    with Image.open(kept["path"]) as found:
        assert found.getpixel((5, 5)) == (0, 0, 0, 0)
    assert flat["path"] == str(tmp_path / "a-10.jpg")
    with Image.open(flat["path"]) as found:
        assert is_near(found.getpixel((5, 5)), (255, 255, 255))


@pytest.mark.parametrize(("mode", "suffix"), [("P", ".gif"), ("CMYK", ".jpg"), ("1", ".png"), ("L", ".png")])
def test_other_colour_modes_are_read(tmp_path: Path, ctx: Any, mode: str, suffix: str) -> None:
    source = two_colours(tmp_path / f"a{suffix}", mode=mode)
    result = resize(ctx, str(source), 40, target=str(tmp_path / "b.webp"))
    with Image.open(result["path"]) as found:
        assert found.size == (40, 20)
        if mode in ("P", "CMYK"):
            assert is_near(found.getpixel((5, 10)), RED)


def test_a_lower_quality_makes_a_smaller_file(tmp_path: Path, ctx: Any) -> None:
    Image.effect_noise((200, 200), 80).save(tmp_path / "a.png")
    coarse, fine = (
        resize(ctx, str(tmp_path / "a.png"), 100, target=str(tmp_path / f"{quality}.jpg"), quality=quality)
        for quality in (20, 90)
    )
    assert coarse["bytes"] < fine["bytes"] / 2


def bomb(path: Path) -> Path:
    """A PNG of some bytes that claims 30,000 x 30,000 pixels."""
    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(bytes(100))), (b"IEND", b"")]
    encoded = [
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    ]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(encoded))
    return path


def test_sources_that_cannot_be_read_safely_are_refused_by_name(tmp_path: Path, ctx: Any) -> None:
    text = tmp_path / "text.jpg"
    text.write_text("no picture")
    whole = two_colours(tmp_path / "whole.jpg").read_bytes()
    half = tmp_path / "half.jpg"
    half.write_bytes(whole[: len(whole) // 2])
    for source, reason in (
        (text, "not a picture"),
        (half, "is damaged"),
        (bomb(tmp_path / "bomb.png"), "more than 89,478,485 pixels"),
        (tmp_path / "missing.jpg", "no such file"),
    ):
        with pytest.raises(Fail, match=reason) as raised:
            resize(ctx, str(source), 100, target=str(tmp_path / "out"))
        assert str(source) in str(raised.value)
    assert not (tmp_path / "out").exists()


def test_a_picture_just_above_the_limit_is_refused_too(
    tmp_path: Path, ctx: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = two_colours(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 400 * 200 - 1)
    with pytest.raises(Fail, match="pixels"):
        resize(ctx, str(source), 100)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"width": 0}, "width"),
        ({"width": 16_384}, "width"),
        ({"width": 10, "height": -1}, "height"),
        ({"width": 10, "quality": 0}, "quality"),
        ({"width": 16_383, "upscale": True, "height": 16_383}, "width"),
        ({"width": 10, "target": "x.png", "format": "jpeg"}, "target"),
        ({"width": 10, "target": ""}, "target"),
    ],
)
def test_arguments_that_make_no_sense_are_named(
    tmp_path: Path, ctx: Any, arguments: dict[str, Any], reason: str
) -> None:
    source = two_colours(tmp_path / "a.png", size=(200, 200))
    with pytest.raises(Fail, match=f"^{reason}"):
        resize(ctx, str(source), **arguments)
    assert os.listdir(tmp_path) == ["a.png"]


def test_the_source_is_never_overwritten(tmp_path: Path, ctx: Any) -> None:
    source = two_colours(tmp_path / "a.jpg")
    before = source.read_bytes()
    (tmp_path / "link.jpg").symlink_to(source)
    for target in (source, tmp_path, tmp_path / "link.jpg"):
        with pytest.raises(Fail, match="the source itself"):
            resize(ctx, str(source), 10, target=str(target))
    assert source.read_bytes() == before


def test_a_folder_becomes_a_folder_and_unreadable_pictures_are_reported(tmp_path: Path, ctx: Any) -> None:
    album = tmp_path / "album"
    album.mkdir()
    for name in ("b.jpg", "a.png", "c.gif"):
        two_colours(album / name, mode="P" if name.endswith("gif") else "RGB")
    (album / "bad.jpg").write_text("no picture")
    (album / "notes.txt").write_text("ignored")
    result = resize(ctx, str(album), 40)
    place = tmp_path / "album-40"
    assert sorted(os.listdir(place)) == ["a.png", "b.jpg", "c.png"]
    assert result["folder"] == str(place)
    assert (result["pictures"], result["refused"]) == (3, 1)
    assert [refusal["source"] for refusal in result["refusals"]] == ["bad.jpg"]
    assert result["bytes"] == sum(path.stat().st_size for path in place.iterdir())
    assert ctx.told == [0, 0.25, 0.5, 0.75]


def test_a_folder_whose_pictures_would_overwrite_each_other_is_refused(tmp_path: Path, ctx: Any) -> None:
    two_colours(tmp_path / "a.jpg")
    two_colours(tmp_path / "a.png")
    with pytest.raises(Fail, match=r"a\.jpg and a\.png would both become a\.jpg"):
        resize(ctx, str(tmp_path), 40, target=str(tmp_path / "out"), format="jpeg")


def test_folders_without_a_readable_picture_fail(tmp_path: Path, ctx: Any) -> None:
    with pytest.raises(Fail, match="no pictures in"):
        resize(ctx, str(tmp_path), 40)
    (tmp_path / "a.jpg").write_text("no picture")
    with pytest.raises(Fail, match="none of the 1 pictures"):
        resize(ctx, str(tmp_path), 40, target=str(tmp_path / "out"))


def test_a_cancelled_folder_stops_between_pictures(tmp_path: Path, ctx: Any) -> None:
    for name in "abc":
        two_colours(tmp_path / f"{name}.png")
    ctx.answers_before_cancel = 1
    with pytest.raises(Cancel, match="after 1 of 3"):
        resize(ctx, str(tmp_path), 40, target=str(tmp_path / "out"))
    assert os.listdir(tmp_path / "out") == ["a.png"]


def test_a_disk_that_fails_leaves_no_half_picture(
    tmp_path: Path, ctx: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = two_colours(tmp_path / "a.jpg")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        resize(ctx, str(source), 10)
    assert os.listdir(tmp_path) == ["a.jpg"]

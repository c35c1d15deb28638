"""`image.resize`: pictures made smaller (or larger, if asked), as files."""

from __future__ import annotations

import warnings
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from edgenode.task import Cancel, Fail, JobContext, task
from edgenode.tasks.files import absolute, existing_file, written_whole

if TYPE_CHECKING:
    from PIL.Image import Image

Format = Literal["jpeg", "png", "webp"]
SUFFIXES: Final[dict[str, Format]] = {".jpg": "jpeg", ".jpeg": "jpeg", ".png": "png", ".webp": "webp"}
SUFFIX_OF: Final[dict[Format, str]] = {"jpeg": ".jpg", "png": ".png", "webp": ".webp"}
READ_SUFFIXES: Final = frozenset({*SUFFIXES, ".bmp", ".gif", ".tif", ".tiff"})
SIDE_PIXELS_MAX: Final = 16_383
"""The longest side WebP can hold, and enough for the other formats."""
PIXELS_MAX: Final = 89_478_485
"""Of a picture read or written: Pillow's own limit, 256 MiB of 24-bit colour."""
REFUSALS_SHOWN: Final = 20


@task("image.resize", timeout_s=300, max_attempts=3)
def resize(
    ctx: JobContext,
    source: str,
    width: int,
    height: int | None = None,
    target: str | None = None,
    format: Literal["jpeg", "png", "webp"] | None = None,
    quality: int = 85,
    upscale: bool = False,
) -> dict[str, Any]:
    """Make a picture fit into `width` x `height` pixels, and write it to a file.

    The aspect ratio stays. The camera's orientation mark is obeyed and dropped with the rest of the EXIF
    data (which may tell where the picture was taken); the colour profile is kept. Of an animation the first
    frame is taken. JPEG has no transparency: it becomes white. The same input gives the same bytes, written
    whole or not at all, so a second run does no harm.

    A job for each picture is what spreads over a mesh. A folder as `source` is for convenience: one job makes
    every picture directly in it, and reports those it could not read instead of failing for them.

    Args:
        source: a picture, or a folder of pictures.
        width, height: the box, 1 to 16,383 pixels; without a height it is as high as it needs to be.
        target: a file name ending in .jpg, .jpeg, .png or .webp; or else a folder, made if missing. Without
            it, `photo.jpg` becomes `photo-WIDTH.jpg` beside it, and a folder `album` becomes `album-WIDTH`.
        format: default: by the target's suffix, else the source's format if it can be written, else PNG.
        quality: 1 to 95, of JPEG and WebP.
        upscale: whether a picture smaller than the box grows; otherwise it keeps its size.

    Returns:
        `{path, width, height, bytes, sha256}`; for a folder `{folder, pictures, bytes, refused, refusals}`,
        the last one up to 20 of `{source, reason}`.
    """
    _check_ranges(width, height, quality)
    start = absolute(source, what="source")
    if start.is_dir():
        return _resize_folder(ctx, start, width, height, target, format, quality, upscale)
    origin = existing_file(source, what="source")
    output = _target_of(origin, width, target, format)
    return _resize_one(origin, output, (width, height), quality, upscale)


def _check_ranges(width: int, height: int | None, quality: int) -> None:
    for name, side in (("width", width), ("height", height)):
        if side is not None and not 1 <= side <= SIDE_PIXELS_MAX:
            raise Fail(f"{name}: {side} is not from 1 to {SIDE_PIXELS_MAX}")
    if not 1 <= quality <= 95:
        raise Fail(f"quality: {quality} is not from 1 to 95")


def _target_of(origin: Path, width: int, target: str | None, format: Format | None) -> Path:
    """The file to write; its suffix is one of `SUFFIXES` and says the format."""
    kept = SUFFIXES.get(origin.suffix.lower())
    wanted = format or kept or "png"
    suffix = origin.suffix if kept == wanted else SUFFIX_OF[wanted]
    if target is None:
        output = origin.with_name(f"{origin.stem}-{width}{suffix}")
    else:
        place = absolute(target, what="target")
        named = SUFFIXES.get(place.suffix.lower())
        if named is None or place.is_dir():
            output = place / f"{origin.stem}{suffix}"
        elif format is None or named == format:
            output = place
        else:
            raise Fail(f"target: {place.name} does not end in what the format {format} asks for")
    if output == origin or (output.exists() and output.samefile(origin)):
        raise Fail(f"target: {output} is the source itself")
    return output


def _resize_folder(
    ctx: JobContext,
    folder: Path,
    width: int,
    height: int | None,
    target: str | None,
    format: Format | None,
    quality: int,
    upscale: bool,
) -> dict[str, Any]:
    place = folder.with_name(f"{folder.name}-{width}") if target is None else absolute(target, what="target")
    if place.suffix.lower() in SUFFIXES and not place.is_dir():
        raise Fail(f"target: the source is a folder, so {place} must be one too")
    origins = sorted(path for path in folder.iterdir() if path.suffix.lower() in READ_SUFFIXES)
    if not origins:
        raise Fail(f"source: no pictures in {folder}")
    outputs = [_target_of(origin, width, f"{place}/", format) for origin in origins]
    makers: dict[Path, Path] = {}
    for origin, output in zip(origins, outputs, strict=True):
        first = makers.setdefault(output, origin)
        if first is not origin:
            raise Fail(f"source: {first.name} and {origin.name} would both become {output.name}")
    refused: list[dict[str, str]] = []
    size = 0
    for index, (origin, output) in enumerate(zip(origins, outputs, strict=True)):
        if ctx.cancelled:
            raise Cancel(f"cancelled after {index} of {len(origins)} pictures")
        ctx.progress(index / len(origins), f"picture {index + 1} of {len(origins)}: {origin.name}")
        try:
            size += _resize_one(origin, output, (width, height), quality, upscale)["bytes"]
        except Fail as failure:
            refused.append({"source": origin.name, "reason": str(failure)})
    if len(refused) == len(origins):
        raise Fail(f"source: none of the {len(origins)} pictures could be read; {refused[0]['reason']}")
    return {
        "folder": str(place),
        "pictures": len(origins) - len(refused),
        "bytes": size,
        "refused": len(refused),
        "refusals": refused[:REFUSALS_SHOWN],
    }


def _resize_one(
    origin: Path, output: Path, box: tuple[int, int | None], quality: int, upscale: bool
) -> dict[str, Any]:
    picture, profile = _read(origin)
    size = fitted(picture.size, box, upscale=upscale)
    format = SUFFIXES[output.suffix.lower()]
    if size != picture.size:
        from PIL.Image import Resampling

        # A gap of 3 gives Lanczos's quality at about half its price (Pillow's documentation of `resize`).
        picture = picture.resize(size, Resampling.LANCZOS, reducing_gap=3.0)
    if format == "jpeg":
        picture = _on_white(picture)
    encoded = BytesIO()
    options: dict[str, Any] = {} if format == "png" else {"quality": quality}
    if profile:
        options["icc_profile"] = profile
    picture.save(encoded, format, **options)
    with written_whole(output) as file:
        file.write(encoded.getvalue())
    return {
        "path": str(output),
        "width": size[0],
        "height": size[1],
        "bytes": file.size,
        "sha256": file.sha256,
    }


def _read(origin: Path) -> tuple[Image, bytes | None]:
    """The upright picture in mode L, LA, RGB or RGBA, and its colour profile if it still applies.

    Raises:
        Fail: not a picture, a damaged one, or one so large that reading it could fill the memory.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    existing_file(str(origin), what="source")
    with warnings.catch_warnings():
        # Pillow only warns at its limit, and refuses twice that; a worker's memory is not for one job alone.
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            with Image.open(origin) as opened:
                opened.load()
                upright = ImageOps.exif_transpose(opened)
        except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
            raise Fail(
                f"source: {origin} has more than {PIXELS_MAX:,} pixels, too many to read safely"
            ) from error
        except UnidentifiedImageError as error:
            raise Fail(f"source: {origin} is not a picture that Pillow can read") from error
        except (OSError, SyntaxError, ValueError) as error:
            raise Fail(f"source: {origin} is damaged: {error}") from error
    profile = upright.info.get("icc_profile")
    if upright.mode in ("L", "LA", "RGB", "RGBA"):
        return upright, profile
    # Palettes cannot be blended; the profile of a converted picture (CMYK) describes other colours.
    return upright.convert("RGBA" if upright.has_transparency_data else "RGB"), None


def fitted(size: tuple[int, int], box: tuple[int, int | None], *, upscale: bool) -> tuple[int, int]:
    """The largest size in pixels with the ratio of `size` that fits into `box`; `size` itself if that is
    smaller and `upscale` is not asked for. No side is 0."""
    width, height = size
    box_width, box_height = box
    scale = box_width / width
    if box_height is not None:
        scale = min(scale, box_height / height)
    if scale < 1 or upscale:
        size = max(1, round(width * scale)), max(1, round(height * scale))
    if max(size) > SIDE_PIXELS_MAX or size[0] * size[1] > PIXELS_MAX:
        raise Fail(f"width: the result would have {size[0]} x {size[1]} pixels, which is too large")
    return size


def _on_white(picture: Image) -> Image:
    if picture.mode in ("L", "RGB"):
        return picture
    from PIL import Image

    ground = Image.new("RGBA", picture.size, "white")
    ground.alpha_composite(picture.convert("RGBA"))
    return ground.convert("RGB")

"""Sample inputs for the built-in tasks, jobs that use them, and a check of what those jobs wrote.

    python scripts/samples.py --out DIR [--pictures N --records N --transactions N --seed N]

The same seed makes the same bytes (with the same Pillow). What is right is known from how the inputs were
made, or is computed in another way; nothing here calls the code of the tasks.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise, zip_longest
from math import isqrt
from pathlib import Path
from random import Random
from typing import Any, Final, NamedTuple, TypeAlias

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from PIL import Image, ImageDraw

Result: TypeAlias = Mapping[str, Any]

PICTURES: Final = 40
RECORDS: Final = 60_000
TRANSACTIONS: Final = 20_000
SEED: Final = 1
SIZES: Final = ((1200, 800), (1600, 1200), (1024, 1024), (900, 1400))
# EXIF orientation (tag 0x0112) and what turns the stored picture upright.
TURNS: Final = {
    1: None,
    3: Image.Transpose.ROTATE_180,
    6: Image.Transpose.ROTATE_270,
    8: Image.Transpose.ROTATE_90,
}
ORDER_COLUMNS: Final = ("order_id", "product_id", "quantity", "customer", "note")
PRODUCT_COLUMNS: Final = ("product_id", "name", "price", "category")
CUSTOMERS: Final = ("Ada", "Grace, R.", 'Edsger "EWD"', "Łucja", "Jürgen", "美咲", "Barbara")
NOTES: Final = ("", "", "", "fragile", "ring twice, please", "two\nlines")
GENESIS: Final = "0" * 64
COLOUR_TOLERANCE: Final = 5.0
"""Mean difference, of 255, that scaling and compression may leave in an 8 x 8 miniature; measured: 0.4."""


class Picture(NamedTuple):
    """A picture and how it looks upright; `orientation` says how it is stored."""

    path: Path
    width: int
    height: int
    orientation: int


@dataclass(frozen=True, slots=True)
class Samples:
    """Where the inputs are, and what they were made from."""

    folder: Path
    seed: int
    pictures: tuple[Picture, ...]
    orders: Path
    order_count: int  # rows of the file, the bad ones included
    products: Path
    product_count: int
    chain: Path
    broken_chain: Path
    transaction_count: int
    broken_at: int  # the transaction whose amount was changed after it was signed


class Job(NamedTuple):
    """What to submit."""

    task: str
    payload: dict[str, Any]


# ---------------------------------------------------------------------------------------- the inputs


def make_samples(
    folder: Path,
    *,
    pictures: int = PICTURES,
    records: int = RECORDS,
    transactions: int = TRANSACTIONS,
    seed: int = SEED,
) -> Samples:
    """Write the inputs into `folder` (made if missing), replacing files of the same names."""
    folder = folder.absolute()
    (folder / "pictures").mkdir(parents=True, exist_ok=True)
    samples = Samples(
        folder,
        seed,
        tuple(_picture(folder, seed, number) for number in range(pictures)),
        folder / "orders.csv",
        records,
        folder / "products.csv",
        max(10, records // 4),
        folder / "chain.ndjson",
        folder / "chain-broken.ndjson",
        transactions,
        transactions * 5 // 8,
    )
    _write_csv(samples.products, PRODUCT_COLUMNS, _products(samples))
    _write_csv(samples.orders, ORDER_COLUMNS, _orders(samples))
    lines = _chain(samples)
    samples.chain.write_bytes(b"".join(lines))
    if lines:
        changed = json.loads(lines[samples.broken_at])
        changed["amount"] += 1
        lines[samples.broken_at] = _canonical(changed) + b"\n"
    samples.broken_chain.write_bytes(b"".join(lines))
    return samples


def _picture(folder: Path, seed: int, number: int) -> Picture:
    """A gradient with shapes and grain, so that it compresses as a photograph does and has no symmetry."""
    random = Random(f"picture {seed} {number}")
    width, height = SIZES[number % len(SIZES)]
    grain = Image.frombytes("L", (width // 8, height // 8), random.randbytes((width // 8) * (height // 8)))
    ramp = Image.linear_gradient("L")
    bands = [ramp.rotate(random.choice((0, 90, 180))), Image.radial_gradient("L"), ramp.rotate(270)]
    random.shuffle(bands)
    picture = Image.merge("RGB", [band.resize((width, height)) for band in bands])
    picture = Image.blend(picture, grain.resize((width, height)).convert("RGB"), 0.15)
    draw = ImageDraw.Draw(picture)
    for _ in range(12):
        x, y, size = random.randrange(width), random.randrange(height), random.randrange(20, width // 4)
        colour = (random.randrange(256), random.randrange(256), random.randrange(256))
        shape = random.choice((draw.ellipse, draw.rectangle))
        shape((x, y, x + size, y + size * 2 // 3), fill=colour)
    if number % 4 == 3:
        path = folder / "pictures" / f"picture-{number:03}.png"
        picture.save(path, compress_level=1)
        return Picture(path, width, height, 1)
    orientation = (1, 6, 1, 8, 3)[number % 5]
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = folder / "pictures" / f"picture-{number:03}.jpg"
    picture.save(path, quality=88, exif=exif)
    upright = (height, width) if orientation in (6, 8) else (width, height)
    return Picture(path, *upright, orientation)


def _products(samples: Samples) -> Iterator[tuple[str, ...]]:
    random = Random(f"products {samples.seed}")
    for number in range(samples.product_count):
        price = f"{random.randrange(1, 500)}.{random.randrange(100):02}"
        yield _product_id(number), f"Product {number}", price, random.choice(("tools", "toys", "food, fresh"))


def _orders(samples: Samples) -> Iterator[tuple[str, ...]]:
    """Each order; about 1 in 50 is of a product that is not in the table, and 1 in 1,000 lacks a field."""
    random = Random(f"orders {samples.seed}")
    for number in range(samples.order_count):
        product = random.randrange(samples.product_count * 51 // 50)
        order = (
            f"O-{number:07}",
            _product_id(product),
            str(random.randrange(1, 20)),
            random.choice(CUSTOMERS),
            random.choice(NOTES),
        )
        yield order[:-1] if random.randrange(1000) == 0 else order


def _product_id(number: int) -> str:
    return f"P-{number:06}"


def _write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)


def _chain(samples: Samples) -> list[bytes]:
    """The lines of a good chain, in canonical form: the SHA-256 of a line is its transaction's hash."""
    random = Random(f"chain {samples.seed}")
    keys = [Ed25519PrivateKey.from_private_bytes(random.randbytes(32)) for _ in range(16)]
    names = [key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw).hex() for key in keys]
    lines: list[bytes] = []
    previous = GENESIS
    for index in range(samples.transaction_count):
        sender, receiver = random.sample(range(len(keys)), 2)
        transaction = {
            "amount": random.randrange(1, 1_000_000),
            "index": index,
            "previous": previous,
            "receiver": names[receiver],
            "sender": names[sender],
        }
        transaction["signature"] = keys[sender].sign(_canonical(transaction)).hex()
        line = _canonical(transaction)
        previous = hashlib.sha256(line).hexdigest()
        lines.append(line + b"\n")
    return lines


def _canonical(transaction: Mapping[str, Any]) -> bytes:
    return json.dumps(transaction, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()


# ------------------------------------------------------------------------------------------ the jobs


def jobs_for(
    samples: Samples,
    *,
    resizes: int = 60,
    parts: int = 60,
    ranges: int = 40,
    pi_parts: int = 40,
    pi_part_digits: int = 2_500,
) -> list[Job]:
    """Jobs of the four kinds, mixed; together they cover every record, transaction and digit just once.

    Args:
        resizes: `image.resize` jobs; the pictures in turn, in another size each time round.
        parts: `data.enrich` jobs. ranges: `chain.verify` jobs, half of them on the broken chain.
        pi_parts: `compute.pi` jobs of `pi_part_digits` hexadecimal digits each.
    """
    out = samples.folder / "out"
    jobs = [_resize_job(samples, out, number) for number in range(resizes if samples.pictures else 0)]
    for number, (first, count) in enumerate(_ranges(samples.order_count, parts)):
        suffix = "ndjson" if number % 5 == 4 else "csv"
        payload = {
            "source": str(samples.orders),
            "reference": str(samples.products),
            "key": "product_id",
            "target": str(out / "orders" / f"part-{number:03}.{suffix}"),
            "first_row": first,
            "rows": count,
        }
        jobs.append(Job("data.enrich", payload))
    for path, number in ((samples.chain, ranges - ranges // 2), (samples.broken_chain, ranges // 2)):
        for first, count in _ranges(samples.transaction_count, number):
            jobs.append(Job("chain.verify", {"source": str(path), "first": first, "count": count}))
    for number in range(pi_parts):
        jobs.append(Job("compute.pi", {"first": number * pi_part_digits, "count": pi_part_digits}))
    Random(f"jobs {samples.seed}").shuffle(jobs)
    return jobs


def _resize_job(samples: Samples, out: Path, number: int) -> Job:
    turn, place = divmod(number, len(samples.pictures))
    picture = samples.pictures[place]
    width = max(16, 1000 * 2 // (turn + 2))
    suffix = ".webp" if number % 2 else picture.path.suffix
    target = out / "pictures" / f"{picture.path.stem}-{width}{suffix}"
    return Job("image.resize", {"source": str(picture.path), "width": width, "target": str(target)})


def _ranges(total: int, parts: int) -> list[tuple[int, int]]:
    """`parts` ranges (first, count) of nearly equal size that tile `total`."""
    edges = [total * part // parts for part in range(parts + 1)] if parts else []
    return [(first, after - first) for first, after in pairwise(edges)]


# ----------------------------------------------------------------------------------------- the check


def check_outputs(samples: Samples, jobs: Sequence[Job], results: Sequence[Result | None]) -> list[str]:
    """What is wrong with the files that `jobs` wrote and with what they returned; empty if all is right.

    Args:
        jobs: what was submitted, in any order.
        results: what each of them returned, in the same order; None for one that did not succeed.
    """
    assert len(jobs) == len(results)
    done: dict[str, list[tuple[dict[str, Any], Result]]] = {}
    problems = []
    for job, result in zip(jobs, results, strict=True):
        if result is None:
            problems.append(f"{job.task} {job.payload}: no result")
        else:
            done.setdefault(job.task, []).append((job.payload, result))
    problems += _check_pictures(samples, done.get("image.resize", []))
    problems += _check_orders(samples, done.get("data.enrich", []))
    problems += _check_chains(samples, done.get("chain.verify", []))
    problems += _check_pi(done.get("compute.pi", []))
    return problems


def _check_file(name: str, result: Result) -> list[str]:
    path = Path(name)
    if not path.is_file():
        return [f"{name}: was not written"]
    if result.get("path") != name or result.get("bytes") != path.stat().st_size:
        return [f"{name}: is not the file that was reported: {dict(result)}"]
    if result.get("sha256") != hashlib.sha256(path.read_bytes()).hexdigest():
        return [f"{name}: has another SHA-256 than reported"]
    return []


def _check_pictures(samples: Samples, done: Iterable[tuple[dict[str, Any], Result]]) -> Iterator[str]:
    by_path = {str(picture.path): picture for picture in samples.pictures}
    for payload, result in done:
        name, picture = payload["target"], by_path[payload["source"]]
        problems = _check_file(name, result)
        yield from problems
        if problems:
            continue
        width = min(payload["width"], picture.width)
        size = width, round(picture.height * width / picture.width)
        try:
            with Image.open(name) as found:
                found.load()
                if found.size != size or (result.get("width"), result.get("height")) != size:
                    yield f"{name}: has {found.size} pixels, {size} were expected"
                elif (distance := _distance(found, picture)) > COLOUR_TOLERANCE:
                    yield f"{name}: does not look like its source (colours differ by {distance:.0f} of 255)"
        except OSError as error:
            yield f"{name}: cannot be read: {error}"


def _distance(found: Image.Image, picture: Picture) -> float:
    """How far the miniatures of two pictures are apart, from 0 (equal) to 255 (black and white)."""
    with Image.open(picture.path) as source:
        source.draft("RGB", (256, 256))  # a JPEG can be read at an eighth of its size
        turn = TURNS[picture.orientation]
        upright = source.convert("RGB") if turn is None else source.convert("RGB").transpose(turn)
    pair = [image.convert("RGB").resize((8, 8), Image.Resampling.BOX).tobytes() for image in (found, upright)]
    apart: int = sum(abs(a - b) for a, b in zip(*pair, strict=True))
    return apart / len(pair[0])


def _check_orders(samples: Samples, done: list[tuple[dict[str, Any], Result]]) -> Iterator[str]:
    if not done:
        return
    yield from _check_tiles("orders", done, "first_row", "rows", samples.order_count)
    orders = list(_orders(samples))
    products = {product[0]: product[1:] for product in _products(samples)}
    for payload, result in done:
        name = payload["target"]
        problems = _check_file(name, result)
        yield from problems
        if problems:
            continue
        rows = orders[payload["first_row"] : payload["first_row"] + payload["rows"]]
        good = [row for row in rows if len(row) == len(ORDER_COLUMNS)]
        matched = sum(row[1] in products for row in good)
        counts = tuple(result.get(name) for name in ("rows", "matched", "unmatched", "bad"))
        expected = (len(rows), matched, len(good) - matched, len(rows) - len(good))
        if counts != expected:
            yield f"{name}: rows, matched, unmatched and bad are {counts}, {expected} were expected"
        try:
            written = _read_part(Path(name))
        except ValueError as error:
            yield f"{name}: cannot be read: {error}"
            continue
        for number, (row, found) in enumerate(zip_longest(good, written)):
            joined = None if row is None else (*row, *products.get(row[1], ("", "", "")))
            if joined != found:
                yield f"{name}: record {number} is {found}, {joined} was expected"
                break


def _read_part(path: Path) -> list[tuple[str, ...]]:
    """The records of a part as text, in the order of their columns. Raises ValueError."""
    columns = (*ORDER_COLUMNS, *PRODUCT_COLUMNS[1:])
    with open(path, encoding="utf-8", newline="") as file:
        if path.suffix == ".csv":
            rows = [tuple(row) for row in csv.reader(file)]
            if rows[:1] != [columns]:
                raise ValueError(f"does not begin with the header {columns}")
            return rows[1:]
        records = [dict(json.loads(line)) for line in file]
    if any(tuple(record) != columns for record in records):
        raise ValueError(f"not every record has the columns {columns}")
    return [tuple(value or "" for value in record.values()) for record in records]


def _check_chains(samples: Samples, done: Sequence[tuple[dict[str, Any], Result]]) -> Iterator[str]:
    for path in (samples.chain, samples.broken_chain):
        mine = [(payload, result) for payload, result in done if payload["source"] == str(path)]
        if not mine:
            continue
        yield from _check_tiles(path.name, mine, "first", "count", samples.transaction_count)
        lines = path.read_bytes().splitlines()
        flaws: dict[int, str] = {}
        if path == samples.broken_chain:
            # The changed transaction no longer fits its signature, nor the next one its hash.
            flaws[samples.broken_at] = "bad signature"
            flaws[samples.broken_at + 1] = "wrong previous hash"
        for payload, result in mine:
            first, count = payload["first"], payload["count"]
            after = first + count
            inside = [number for number in sorted(flaws) if first <= number < min(after, len(lines))]
            expected = {
                "checked": count,
                "valid": count - len(inside),
                "broken_at": inside[0] if inside else None,
                "reason": flaws[inside[0]] if inside else None,
                "head": hashlib.sha256(lines[after - 1]).hexdigest() if after else GENESIS,
            }
            found = {name: result.get(name) for name in expected}
            if found != expected:
                yield f"{path.name} from {first}: found {found}, {expected} was expected"


def _check_pi(done: Iterable[tuple[dict[str, Any], Result]]) -> Iterator[str]:
    parts = [(payload["first"], payload["count"], result.get("digits")) for payload, result in done]
    known = pi_hex(max((first + count for first, count, _ in parts), default=0))
    for first, count, found in parts:
        if found != known[first : first + count]:
            yield f"pi from digit {first}: the digits differ from Chudnovsky's formula"


def _check_tiles(
    what: str, done: Iterable[tuple[dict[str, Any], Result]], first: str, count: str, total: int
) -> Iterator[str]:
    reached = 0
    for start, size in sorted((payload[first], payload[count]) for payload, _ in done):
        if start != reached:
            yield f"{what}: a part begins at {start}, the one before it ends at {reached}"
        reached = start + size
    if reached != total:
        yield f"{what}: the parts end at {reached} of {total}"


@cache
def pi_hex(count: int) -> str:
    """The first `count` hexadecimal digits of pi after the point, by the Chudnovsky brothers' series (1988),
    summed by binary splitting. Shares nothing with the formula of `compute.pi`."""
    bits = 4 * count + 64
    terms = bits // 47 + 2  # a term gives 47.1 bits
    _, divisor, total = _chudnovsky(0, terms)
    root = isqrt(10005 << (2 * bits))
    pi = divisor * 426_880 * root // total
    return f"{(pi >> 64) & ((1 << (4 * count)) - 1):0{count}x}" if count else ""


def _chudnovsky(first: int, after: int) -> tuple[int, int, int]:
    """The series' terms from `first` to before `after` as P, Q and T, where T / Q is their sum."""
    if after - first == 1:
        if first == 0:
            return 1, 1, 13_591_409
        p = -(6 * first - 5) * (2 * first - 1) * (6 * first - 1)
        q = 10_939_058_860_032_000 * first**3
        return p, q, p * (13_591_409 + 545_140_134 * first)
    middle = (first + after) // 2
    p1, q1, t1 = _chudnovsky(first, middle)
    p2, q2, t2 = _chudnovsky(middle, after)
    return p1 * p2, q1 * q2, t1 * q2 + p1 * t2


def main() -> None:
    parser = argparse.ArgumentParser(description="Make sample inputs for the built-in tasks.")
    parser.add_argument("--out", type=Path, required=True, help="the folder to write into")
    parser.add_argument("--pictures", type=int, default=PICTURES)
    parser.add_argument("--records", type=int, default=RECORDS)
    parser.add_argument("--transactions", type=int, default=TRANSACTIONS)
    parser.add_argument("--seed", type=int, default=SEED)
    args = parser.parse_args()
    if min(args.pictures, args.records, args.transactions) < 0:
        parser.error("numbers must not be below 0")
    began = time.monotonic()
    samples = make_samples(
        args.out,
        pictures=args.pictures,
        records=args.records,
        transactions=args.transactions,
        seed=args.seed,
    )
    print(f"{samples.folder}/pictures  {len(samples.pictures)} pictures")
    print(f"{samples.orders}  {samples.order_count} orders")
    print(f"{samples.products}  {samples.product_count} products")
    print(f"{samples.chain}  {samples.transaction_count} transactions")
    print(f"{samples.broken_chain}  the same, broken at {samples.broken_at}")
    print(f"made in {time.monotonic() - began:.1f} s")


if __name__ == "__main__":
    main()

"""`compute.pi`: hexadecimal digits of pi from any place, without those before it."""

from __future__ import annotations

from typing import Any, Final

from edgenode.task import Cancel, Fail, JobContext, task

FIRST_MAX: Final = 10_000_000
COUNT_MAX: Final = 100_000
GUARD_BITS: Final = 64
TERMS_BETWEEN_REPORTS: Final = 2_000


@task("compute.pi", timeout_s=600, max_attempts=3)
def digits(ctx: JobContext, first: int, count: int) -> dict[str, Any]:
    """Compute `count` hexadecimal digits of pi, from digit `first` on after the point.

    Digit 0 is the first after the point: pi = 3.243F6A88... A job costs some `4 * first` modular powers,
    whatever the parts before it did, so parts run anywhere in any order, and parts that overlap check each
    other. Every digit returned is certain: see `certain_digits`.

    Args:
        first: 0 to 10,000,000. count: 1 to 100,000.

    Returns:
        `{first, count, digits}`, the digits in lower-case hexadecimal.

    Source: Bailey, Borwein and Plouffe, "On the Rapid Computation of Various Polylogarithmic Constants",
    Mathematics of Computation 66, 1997.
    """
    if not 0 <= first <= FIRST_MAX:
        raise Fail(f"first: {first} is not from 0 to {FIRST_MAX}")
    if not 1 <= count <= COUNT_MAX:
        raise Fail(f"count: {count} is not from 1 to {COUNT_MAX}")
    guard = GUARD_BITS
    while True:
        fraction, error = _fraction(ctx, first, 4 * count + guard)
        found = certain_digits(fraction, error, count, guard)
        if found is not None:
            return {"first": first, "count": count, "digits": found}
        guard *= 2


def _fraction(ctx: JobContext, first: int, bits: int) -> tuple[int, int]:
    """`16**first * pi` modulo 1, in units of `2**-bits`, and by how many of these it may be wrong.

    The sum over k of `16**(first-k) * (4/(8k+1) - 2/(8k+4) - 1/(8k+5) - 1/(8k+6))`, whose whole parts are
    taken away term by term: `16**n/m` modulo 1 is `(16**n mod m)/m`. All in integers; each of the four
    divisions of a term is rounded down by less than a unit.
    """
    total = 0
    for k in range(first):
        if k % TERMS_BETWEEN_REPORTS == 0:
            if ctx.cancelled:
                raise Cancel(f"cancelled at term {k} of {first}")
            ctx.progress(k / first)
        power, m = first - k, 8 * k
        total += (pow(16, power, m + 1) << (bits + 2)) // (m + 1)
        total -= (pow(16, power, m + 4) << (bits + 1)) // (m + 4)
        total -= (pow(16, power, m + 5) << bits) // (m + 5)
        total -= (pow(16, power, m + 6) << bits) // (m + 6)
    # From here on the terms are below 1 and shrink by 4 bits each: what is left out is less than a unit.
    last = first + bits // 4 + 1
    for k in range(first, last):
        unit, m = 1 << (bits - 4 * (k - first)), 8 * k
        total += 4 * unit // (m + 1) - 2 * unit // (m + 4) - unit // (m + 5) - unit // (m + 6)
    return total % (1 << bits), 4 * last + 8


def certain_digits(fraction: int, error: int, count: int, guard: int) -> str | None:
    """The first `count` digits of a fraction of `4 * count + guard` bits, if all values from
    `fraction - error` to `fraction + error` begin with them; None if only a longer guard can tell."""
    bits = 4 * count + guard
    low, high = (((fraction + away) % (1 << bits)) >> guard for away in (-error, error))
    return f"{low:0{count}x}" if low == high else None

"""Which decoder blocks a student keeps.

Uniform selection (NASH, section 3.2): S = { ((L-1)*l) // (n-1) : l = 0..n-1 }, in integers, because
floats drop the last block for e.g. L=16, n=12. n = 1 keeps block 0, n = L is the identity. This
module refuses to know models: it maps two numbers and a name to indices.
"""

from __future__ import annotations

from nash_search.errors import InvalidInput

SELECTIONS: tuple[str, ...] = ("uniform",)


def selected_blocks(total: int, kept: int, selection: str = "uniform") -> tuple[int, ...]:
    """Indices of the `kept` of `total` decoder blocks, increasing.

    Raises:
        InvalidInput: when `kept` is not between 1 and `total`, or the selection is unknown.
    """
    if not 1 <= kept <= total:
        raise InvalidInput(f"decoder_layers must be between 1 and {total}, but got {kept}")
    if selection not in SELECTIONS:
        raise InvalidInput(f"decoder_selection must be one of {', '.join(SELECTIONS)}, but got {selection}")
    if kept == 1:
        return (0,)
    return tuple(((total - 1) * i) // (kept - 1) for i in range(kept))

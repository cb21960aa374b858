"""Finding the items at fault in a batch whose work fails as a whole: halve it until they stand alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from shared.domain.errors import Transient


def halved[Item, Answer, Fault: Exception](
    items: Sequence[Item],
    work: Callable[[Sequence[Item]], Sequence[Answer]],
    refuse: Callable[[Item, Fault], Answer],
    faults: type[Fault],
) -> list[Answer]:
    """Do work on a batch; where it fails, on its halves, so that only the items at fault are refused.

    Args:
        items: The batch; nothing is done for none.
        work: Done for a batch, all or nothing; one answer for each item, in their order.
        refuse: The answer for one item whose work failed when it stood alone.
        faults: What halving may help against; never a `Transient`, which passes by itself.

    Returns:
        One answer for each item, in their order. Cost: for k items at fault among n, about 2 k log2(n) more batches.

    Raises:
        Transient: The work raised it; what was done before is done.
        Exception: The work raised another fault than `faults`.
    """
    if not items:
        return []
    try:
        return list(work(items))
    except Transient:
        raise
    except faults as error:
        if len(items) == 1:
            return [refuse(items[0], error)]
    middle = len(items) // 2
    return halved(items[:middle], work, refuse, faults) + halved(items[middle:], work, refuse, faults)

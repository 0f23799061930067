"""The table of docs/models.md, made by the same examination as the tests: python -m tests.zoo.table [FILE]."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from tests.zoo.architectures import ZOO
from tests.zoo.examining import METHODS, NOT_CONSERVED, Outcome, examine
from tests.zoo.exporting import BATCHES, EXPORTERS
from tests.zoo.test_zoo import judge

HEAD = """# Which networks are explained

Small networks, each true in structure to the architecture that it is named after, built with torch with seeded weights
and batch norms that know their inputs, and exported by both of torch's exporters with a fixed and with a free batch.
Made by `python -m tests.zoo.table docs/models.md`, which holds every cell to the bounds of `tests/zoo`.

The numbers are the worst of the four exports:

- gradient: ||compiled - torch.autograd in float64|| / ||torch.autograd||, of the worse of two pictures; at most 1e-4.
- integrated-gradients: |residual| / sum of |attribution|, with the default number of steps: the quadrature's error; at
  most 1e-2.
- lrp-0: |residual| / |score| of the same network without a single additive constant; at most 1e-4, except where a
  reason is given below.
- lrp-epsilon-plus: the same, with epsilon 0. At most 1e-4 where every convolution goes into a ReLU. Elsewhere an output
  that nothing speaks for may be asked for relevance, which z+ cannot hand on: the number is that loss.
- deeplift-rescale: |residual| / |score - score at the baseline|; at most 1e-4.
- runs: it compiles and runs, the original outputs are kept to 1e-5, and the maps are finite and of the right shape.

"""


def rows() -> Iterator[str]:
    yield f"| network | {' | '.join(METHODS)} |"
    yield "|---" * (len(METHODS) + 1) + "|"
    reasons: dict[str, list[str]] = {}
    for each in ZOO:
        cells = []
        for method in METHODS:
            outcomes = [examine(each, exporter, batch, method) for exporter in EXPORTERS for batch in BATCHES]
            for outcome in outcomes:
                judge(each, method, outcome)
            cells.append(worst(outcomes))
            for reason in {o.refused.splitlines()[0] for o in outcomes if o.refused}:
                reasons.setdefault(f"{each.name}, {method}", []).append(reason)
        print(each.name, *cells, file=sys.stderr, flush=True)
        yield f"| {each.name} | {' | '.join(cells)} |"
    if reasons:
        yield "\nRefused, each with its reason:\n"
        yield from (f"- {cell}: {'; '.join(sorted(why))}" for cell, why in reasons.items())
    if NOT_CONSERVED:
        yield "\nWhere LRP loses relevance without additive constants:\n"
        yield from (f"- {name}: {why}" for name, why in NOT_CONSERVED.items())


def worst(outcomes: list[Outcome]) -> str:
    """One cell for several exports; mixed ones say so."""
    refused = [o for o in outcomes if o.refused]
    if refused:
        return "refused" if len(refused) == len(outcomes) else f"refused for {len(refused)} of {len(outcomes)}"
    return str(max(outcomes, key=lambda o: max(o.error or 0, o.residual or 0)))


if __name__ == "__main__":
    text = HEAD + "\n".join(rows()) + "\n"
    if len(sys.argv) > 1:
        Path(sys.argv[1]).write_text(text, encoding="utf-8")
    else:
        print(text)

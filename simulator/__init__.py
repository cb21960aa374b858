"""A seeded, synthetic world of card payments: habits, merchants, fraud, late labels, drift and bad events to order.

`World` draws it; `docs/simulator.md` says what it holds, what it does not, and how hard its fraud is to find. Nothing
of the product imports this package, and of the product it knows `shared.domain` alone.
"""

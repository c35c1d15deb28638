"""N production nodes in one thread, under a simulated clock, network and disk.

Everything that happens follows from one seed: the faults, the delays, the clients, the workers. A run hurts
the mesh for a while, heals it, and demands progress; checkers watch every effect on its way out.
"""

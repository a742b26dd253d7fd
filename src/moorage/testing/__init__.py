"""Contract suites for the ports, and the in-memory adapters that pass them.

Shipped with the product so that a third party's provider or store can be held to the same contract: import
the suite, subclass it, give it the fixtures it names. Nothing here is imported by the running service.
"""

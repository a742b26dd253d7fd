"""The store in a SQL database.

SQL is written once, as synchronous functions on one `Connection` (`rows`, `reads`, `leases`); how these run
is a `Database`'s matter (`sqlite`: two threads and group commit). See ADR 0002.
"""

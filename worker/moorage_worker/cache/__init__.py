"""Weights kept near the workers: in a user's bucket, in the operator's, on this machine's disk.

The first load of a model takes it from the Hub; the next ones take it from here. A cache can make a load
faster and can never make it fail: whatever is wrong with one is logged, and the Hub is asked instead.

`settings` says which cache there is, `layout` how a model lies in it, `model_cache` is what a load asks.
`disk` keeps the local copy, `bucket` (through `s5cmd`) is the private scope, `shared` the operator's by
presigned URLs, `results` keeps outputs. `python -m moorage_worker.cache` fills and checks a bucket by hand.
"""

"""The driver `kubernetes`: clusters of the operator's own, with a namespace for each organization.

The object code is that of `moorage-kubernetes`, which runs the clusters that organizations import. What is
here is what differs: where the clusters come from, what their nodes cost, and that organizations share them.
"""

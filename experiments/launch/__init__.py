"""Launchers: an experiment on a pod, a cluster, or hosts of your own."""

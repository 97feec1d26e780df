"""Runs: the stages of the method over the shards of a collection, and the folder that holds what they make."""

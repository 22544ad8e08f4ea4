"""Removes from a store what has seen the samples of a deletion request."""
